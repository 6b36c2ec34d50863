//! The contract of mesh storage, as its users rely on it: one set of cases, written against the public
//! client only, run against every kind of cluster.
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

use harness::{Kind, with_cluster};
use meshstore::Client;

/// Runs every case, and fails with the names of those that failed.
async fn run_all(client: Client) {
    let only = std::env::var("MESHSTORE_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, case) in cases::all().into_iter().filter(|(name, _)| name.contains(&only)) {
        let client = client.clone();
        // In a task of its own, so that a failed assertion ends the case and not the run.
        let outcome = tokio::spawn(async move { case(&client).await }).await;
        println!("{name}: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{} cases failed: {failed:?}", failed.len());
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
    use meshstore::client::{NamespaceSettings, Set, Value};
    with_cluster(Kind::Embedded(1, "memory"), async |client: Client| {
        let namespaces = client.namespaces();
        namespaces.clear_all().await.unwrap();
        let bounded = NamespaceSettings { max_entries: 5, ..NamespaceSettings::default() };
        namespaces.create("empty", "{}", bounded).await.unwrap();
        for name in ["", "a", "b"] {
            client.kv(name).set(Set::new("k", Value::Json("1".into())).attributes("{}")).await.unwrap();
        }
        let revision = namespaces.clear_all().await.unwrap().revision;
        for namespace in namespaces.list_all().await.unwrap() {
            assert_eq!((namespace.entries, namespace.metadata.mod_revision), (0, revision), "{}", namespace.name);
        }
        for number in 0..100 {
            client.kv(format!("many-{number}")).set(Set::new("k", Value::Json("1".into()))).await.unwrap();
        }
        namespaces.clear_all().await.unwrap();
        let status = namespaces.status().await.unwrap();
        assert_eq!((status.entries, status.namespaces, status.capacity), (0, 104, None));
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
