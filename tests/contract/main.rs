//! The contract of mesh storage, as its users rely on it: one set of cases, written against the public
//! client only, run against every kind of cluster. The storage contract has a set of its own (`storage`), written against
//! its trait, and run against every backend as well.
//!
//! A case is `async fn(&Client)`. All cases of a kind run one after the other on one cluster, so that
//! starting it is paid once; each works under names of its own (`cases::unique`) and asserts nothing about
//! what it did not write. Every case runs, and all that failed are named at the end. `MESHSTORE_CASE=text`
//! runs only those whose name holds the text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod cases;
mod harness;
#[path = "../support/nodes.rs"]
mod nodes;
mod storage;

use std::{pin::Pin, sync::Arc};

use harness::{Kind, with_cluster};
use meshstore::{Client, contract::Remote};
use storage::Through;

/// A case over a `T`.
type Case<T> = for<'a> fn(&'a T) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Runs every case: those of the client, and those of the storage contract on the cluster as a backend.
async fn run_all(client: Client) {
    let mut failed = run(&client, cases::all()).await;
    failed.extend(run(&Through(Arc::new(Remote::new(client))), storage::all()).await);
    assert!(failed.is_empty(), "{} cases failed: {failed:?}", failed.len());
}

/// Runs cases one after the other: the names of those that failed.
async fn run<T: Clone + Send + Sync + 'static>(over: &T, cases: Vec<(&'static str, Case<T>)>) -> Vec<&'static str> {
    let only = std::env::var("MESHSTORE_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, case) in cases.into_iter().filter(|(name, _)| name.contains(&only)) {
        let over = over.clone();
        // In a task of its own, so that a failed assertion ends the case and not the run.
        let outcome = tokio::spawn(async move { case(&over).await }).await;
        println!("{name}: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(name);
        }
    }
    failed
}

/// Against the cluster that `MESHSTORE_ENDPOINTS` names (`host:port`, with commas between); nothing to do
/// without it.
#[tokio::test(flavor = "multi_thread")]
async fn running() {
    match std::env::var("MESHSTORE_ENDPOINTS") {
        Ok(endpoints) => with_cluster(Kind::Running(endpoints), run_all).await,
        Err(_) => println!("MESHSTORE_ENDPOINTS is not set: there is no running cluster to test"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_engine() {
    with_cluster(Kind::Embedded(1, "memory"), run_all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_node() {
    with_cluster(Kind::Embedded(1, "sled"), run_all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes() {
    with_cluster(Kind::Embedded(3, "sled"), run_all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_tls() {
    with_cluster(Kind::EmbeddedTls(3, "sled"), run_all).await;
}

/// Not among the cases: a cluster that runs may hold what somebody needs.
#[tokio::test(flavor = "multi_thread")]
async fn all_namespaces_are_cleared_at_once() {
    with_cluster(Kind::Embedded(1, "memory"), async |client: Client| {
        let storage = Through(Arc::new(Remote::new(client)));
        storage::cases::all_namespaces_are_cleared_at_once(&storage).await;
    })
    .await;
}

/// Not among the cases: it is a load, and says what it took.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_leases_are_kept_alive_together() {
    const LEASES: usize = 10_000;
    const AT_ONCE: usize = 1_000;
    let hour = std::time::Duration::from_secs(3_600);
    with_cluster(Kind::Embedded(1, "memory"), async |client: Client| {
        let begun = tokio::time::Instant::now();
        let mut grants = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let leases = client.leases();
            grants.spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..LEASES / 100 {
                    ids.push(leases.grant_only(hour, None).await.unwrap());
                }
                ids
            });
        }
        let ids: Vec<u64> = grants.join_all().await.into_iter().flatten().collect();
        let granted = begun.elapsed();
        let mut versions = std::collections::BTreeSet::new();
        for round in 0..3 {
            let begun = tokio::time::Instant::now();
            for some in ids.chunks(AT_ONCE) {
                let kept = client.leases().keep_all_alive(some.to_vec()).await.unwrap();
                assert_eq!((kept.kept.len(), kept.missing.len()), (AT_ONCE, 0));
            }
            println!("round {round}: {LEASES} leases kept alive in {:?} (granted in {granted:?})", begun.elapsed());
        }
        let all = client.leases().list_all().await.unwrap();
        versions.extend(all.iter().map(|lease| lease.version));
        assert_eq!((all.len(), versions), (LEASES, [4].into()));
    })
    .await;
}
