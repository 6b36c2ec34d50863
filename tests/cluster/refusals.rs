//! Starts that must not be: each says in one sentence what is wrong, and leaves the data as it was.

use std::{fs, net::TcpListener};

use crate::{
    harness::{Cluster, Settings, assert_unchanged, contents, copy},
    load::Load,
    proof::prove,
};

const BYTES: usize = 100;

/// A cluster of one node that holds something and was stopped in order.
pub async fn stopped(settings: Settings) -> (Cluster, crate::load::Ledger) {
    let mut cluster = Cluster::start(1, settings).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    let ledger = load.finish().await;
    cluster.terminate_all().await;
    (cluster, ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_another_process_uses() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(50).await;
    // Other ports: it is the directory that must keep the second one out.
    let mut second = Cluster::new(1, Settings::default());
    second.nodes[0].data = cluster.nodes[0].data.clone();
    let said = second.nodes[0].refusal(1).await;
    assert_eq!(said, format!("data directory {} is in use by another process", cluster.nodes[0].data.display()));
    load.more(50).await;
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_node() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(50).await;
    let ledger = load.finish().await;
    cluster.terminate_all().await;
    let (own, other) = (cluster.nodes[1].data.clone(), cluster.nodes[0].data.clone());
    cluster.nodes[1].data = other.clone();
    let before = contents(&other);
    assert_eq!(
        cluster.nodes[1].refusal(1).await,
        format!(
            "this directory belongs to node 1, not 2: {}; give node 2 a data directory of its own",
            other.display()
        )
    );
    assert_unchanged(&before, &other);
    cluster.nodes[1].data = own;
    cluster.start_all().await;
    prove(&cluster, &ledger, BYTES).await;
}

/// Node 1, the lowest, is the one that forms clusters: it must not form a second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_directory_under_an_old_id() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    for id in [3, 1] {
        load.more(100).await;
        cluster.node(id).kill();
        let data = cluster.node(id).data.clone();
        let away = data.with_extension("away");
        fs::rename(&data, &away).unwrap();
        for attempt in 0..2 {
            let said = cluster.node(id).refusal(1).await;
            let begin = format!("node {id}'s data directory was wiped or replaced (the cluster knows directory ");
            let end = format!(
                "start it as a new node: with an empty data directory and an id that the cluster has never had, add that \
                 to the cluster, and remove node {id} from it"
            );
            assert!(said.starts_with(&begin) && said.ends_with(&end), "attempt {attempt}: {said}");
            load.more(100).await;
        }
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&away, &data).unwrap();
        cluster.node(id).start();
        cluster.node(id).ready().await;
    }
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_its_log() {
    let (mut cluster, ledger) = stopped(Settings::default()).await;
    let data = cluster.nodes[0].data.clone();
    let (log, away) = (data.join("mesh_consensus_log"), data.with_extension("away"));
    fs::rename(&log, &away).unwrap();
    let said = cluster.nodes[0].refusal(1).await;
    assert!(said.starts_with(&format!("{} has lost its log: ", data.display())), "{said}");
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&away, &log).unwrap();
    cluster.start_all().await;
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_ours() {
    let mut cluster = Cluster::new(1, Settings::default());
    let data = cluster.nodes[0].data.clone();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.txt"), "dear to somebody").unwrap();
    let before = contents(&data);
    let said = cluster.nodes[0].refusal(1).await;
    let begin = format!("{} is not empty (1 names, one is \"thesis.txt\") and has no IDENTITY file", data.display());
    assert!(said.starts_with(&begin), "{said}");
    assert_unchanged(&before, &data);
}

/// It has data, so it starts; but nobody lets it in, and it stops with the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster() {
    let mut ours = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&ours, BYTES);
    load.more(100).await;
    let mut others = Cluster::start(3, Settings::default()).await;
    others.terminate_all().await;
    ours.node(2).kill();
    let data = ours.node(2).data.clone();
    let away = data.with_extension("away");
    fs::rename(&data, &away).unwrap();
    copy(&others.nodes[1].data, &data);
    let said = ours.node(2).refusal(1).await;
    let begin = format!("{} belongs to cluster ", data.display());
    let end = "start node 2 with the data directory that it had in that cluster, or with the cluster.toml of its own";
    assert!(
        said.starts_with(&begin) && said.contains("of the nodes in cluster.toml [1, 3] belong to cluster "),
        "{said}"
    );
    assert!(said.ends_with(end), "{said}");
    load.more(100).await;
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&away, &data).unwrap();
    ours.start_all().await;
    prove(&ours, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration() {
    let mut cluster = Cluster::new(1, Settings { storage: "flush_mib = 0\n", raft: "" });
    let toml = cluster.nodes[0].toml.clone();
    assert_eq!(
        cluster.nodes[0].refusal(2).await,
        format!("{}:5: flush_mib must be from 1 to 16384 (given: 0)", toml.display())
    );
    assert!(!cluster.nodes[0].data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken() {
    let (mut cluster, ledger) = stopped(Settings::default()).await;
    let node = &cluster.nodes[0];
    let ports =
        [("for HTTP", node.http.clone()), ("for peers", node.peer.clone()), ("for clients", node.client.clone())];
    for (what, address) in ports {
        let taken = TcpListener::bind(&address).unwrap();
        let said = cluster.nodes[0].refusal(1).await;
        assert!(said.starts_with(&format!("cannot listen {what} on {address}: Address already in use")), "{said}");
        drop(taken);
    }
    cluster.start_all().await;
    prove(&cluster, &ledger, BYTES).await;
}
