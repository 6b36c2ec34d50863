//! The clusters that the cases run against. A kind is a variant, an arm that starts it and stops it behind
//! `run`, and a test in `main.rs`; the cases know none of it.

use meshstore::Client;

/// A kind of cluster.
pub enum Kind {
    /// One that somebody else started: its endpoints, with commas between.
    Running(String),
}

/// Starts a cluster, runs the cases with a client of it, and stops it.
pub async fn with_cluster<F: Future<Output = ()>>(kind: Kind, run: impl FnOnce(Client) -> F) {
    match kind {
        Kind::Running(endpoints) => {
            run(Client::connect(endpoints.split(',').map(str::trim)).await.expect("the cluster answers")).await;
        }
    }
}
