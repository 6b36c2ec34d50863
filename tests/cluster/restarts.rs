//! Nodes that are told to stop, and start again.

use crate::{
    harness::{Cluster, EAGER, Settings, until},
    load::Load,
    proof::prove,
};

/// Bytes of each value.
const BYTES: usize = 200;
/// What each start says that uses the index, and one after a kill.
const SCANNED: &str = "scanned the index";
const KILLED: &str = "the last stop was not an orderly one";
const BUILT: &str = "built the index";

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_and_refuses_nothing() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    let mut handed_over = 0;
    for id in [1, 2, 3, 0] {
        load.more(300).await;
        let leader = cluster.leader().await;
        // The last round is the leader's, whoever that is by then.
        let id = if id == 0 { leader } else { id };
        assert!(cluster.node(id).terminate().await.success());
        let log = cluster.node(id).log();
        assert!(!log.contains("were still"), "calls or writes were cut off: {log}");
        if id == leader {
            handed_over += 1;
            assert!(log.contains("handing over the lead"), "{log}");
            assert_ne!(cluster.leader().await, id);
        }
        load.more(300).await;
        cluster.node(id).start();
        cluster.node(id).ready().await;
    }
    assert!(handed_over > 0);
    let ledger = load.finish().await;
    assert!(ledger.failures().is_empty(), "{:?}", ledger.failures());
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_in_order_and_after_a_kill_the_index_is_counted_and_kept() {
    let mut cluster = Cluster::start(3, EAGER).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(1_000).await;
    let ledger = load.finish().await;
    for node in &cluster.nodes {
        until("a flush", async || node.metric("flushed_index").await.filter(|index| *index > 0)).await;
    }
    cluster.terminate_all().await;
    cluster.start_all().await;
    for node in &cluster.nodes {
        let log = node.log();
        assert!(log.contains(SCANNED) && !log.contains(KILLED) && !log.contains(BUILT), "node {}: {log}", node.id);
    }
    prove(&cluster, &ledger, BYTES).await;
    cluster.kill_all();
    cluster.start_all().await;
    for node in &cluster.nodes {
        let log = node.log();
        assert!(
            log.contains(SCANNED) && log.contains(KILLED) && !log.contains("cannot be trusted"),
            "node {}: {log}",
            node.id
        );
    }
    prove(&cluster, &ledger, BYTES).await;
}
