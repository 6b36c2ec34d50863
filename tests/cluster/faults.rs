//! Nodes that are killed or stand still under load.

use crate::{
    harness::{Cluster, Settings, until},
    load::Load,
    proof::prove,
};

/// Bytes of each value.
const BYTES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_killed() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    for _ in 0..2 {
        load.more(300).await;
        let leader = cluster.leader().await;
        cluster.node(leader).kill();
        load.more(300).await;
        assert_ne!(cluster.leader().await, leader);
        cluster.node(leader).start();
        cluster.node(leader).ready().await;
    }
    load.more(300).await;
    prove(&cluster, &load.finish().await, BYTES).await;
}

async fn term(cluster: &Cluster) -> u64 {
    cluster.leader().await;
    cluster.nodes[0].status(false).await.unwrap().term
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_killed_at_once() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    for _ in 0..2 {
        load.more(500).await;
        let before = term(&cluster).await;
        cluster.kill_all();
        cluster.start_all().await;
        // The killed leader may lack entries that the others hold: if it went on leading, it would write others in
        // their place, and nobody could tell them apart.
        assert!(term(&cluster).await > before, "a leader went on without having been elected again");
        load.more(300).await;
    }
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_follower_catches_up_from_the_log() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(300).await;
    let id = cluster.follower().await;
    cluster.node(id).pause();
    load.more(2_000).await;
    cluster.node(id).resume();
    load.more(300).await;
    prove(&cluster, &load.finish().await, BYTES).await;
    assert!(!cluster.node(id).log().contains("receiving a snapshot"));
    assert_eq!(cluster.node(id).metric("log_purged_index").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_is_replaced_and_follows_when_it_goes_on() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(300).await;
    let old = cluster.leader().await;
    cluster.node(old).pause();
    load.more(500).await;
    assert_ne!(cluster.leader().await, old);
    cluster.node(old).resume();
    load.more(300).await;
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_behind_the_purged_log_gets_a_snapshot() {
    const LARGE: usize = 4_096;
    let settings = Settings { storage: "flush_mib = 1\nflush_after_s = 1\n", raft: "keep_entries = 100\n" };
    let mut cluster = Cluster::start(3, settings).await;
    let mut load = Load::start(&cluster, LARGE);
    load.more(300).await;
    for kill in [false, true] {
        let id = cluster.follower().await;
        let has = cluster.node(id).status(false).await.unwrap().last_log_index;
        if kill {
            cluster.node(id).kill();
        } else {
            assert!(cluster.node(id).terminate().await.success());
        }
        let leader = cluster.leader().await;
        let purged = until("the leader to purge what the follower lacks", async || {
            cluster.node(leader).metric("log_purged_index").await.filter(|purged| *purged > has + 100)
        })
        .await;
        cluster.node(id).start();
        cluster.node(id).ready().await;
        load.more(300).await;
        let follower = cluster.node(id);
        let has_purged = until("the follower to have purged its log up to the snapshot", async || {
            follower.metric("log_purged_index").await.filter(|index| *index >= purged)
        })
        .await;
        assert!(has_purged >= purged);
        assert!(follower.log().contains("receiving a snapshot"), "{}", follower.log());
    }
    prove(&cluster, &load.finish().await, LARGE).await;
    // What was installed is whole also when it is opened again.
    cluster.kill_all();
    cluster.start_all().await;
    let load = Load::start(&cluster, 1);
    drop(load);
}
