//! The clusters that the cases run against. A kind is a variant, an arm that starts it and stops it behind
//! `run`, and a test in `main.rs`; the cases know none of it.

use meshstore::Client;

use super::nodes::Nodes;

/// A kind of cluster.
pub enum Kind {
    /// One that somebody else started: its endpoints, with commas between.
    Running(String),
    /// So many nodes inside this process, with this engine.
    Embedded(usize, &'static str),
}

/// Starts a cluster, runs the cases with a client of it, and stops it.
pub async fn with_cluster<F: Future<Output = ()>>(kind: Kind, run: impl FnOnce(Client) -> F) {
    match kind {
        Kind::Running(endpoints) => {
            run(Client::connect(endpoints.split(',').map(str::trim)).await.expect("the cluster answers")).await;
        }
        Kind::Embedded(count, engine) => {
            let nodes = Nodes::start(count, engine).await;
            run(Client::connect(nodes.endpoints.clone()).await.expect("the cluster answers")).await;
            nodes.stop().await;
        }
    }
}
