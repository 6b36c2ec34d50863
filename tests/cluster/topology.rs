//! Changes of the topology that wait to be confirmed, while leaders die.

use std::time::Duration;

use meshstore::{
    Client,
    client::topology::{Cause, JoinPolicy, MeshChange, MeshTopology, NodeChange, NodeSpec, Spec},
};

use crate::harness::{Cluster, EAGER, until};

/// Long enough for a leader to be killed and replaced within it.
const WITHIN: Duration = Duration::from_secs(5);

fn lab(nodes: &[&str]) -> Spec {
    let node = |name: &&str| NodeSpec {
        name: (*name).into(),
        region: None,
        change: NodeChange { ip_address: Some("10.0.0.1".into()), ..NodeChange::default() },
    };
    Spec {
        mesh: "lab".into(),
        mesh_change: MeshChange { join: Some(JoinPolicy::Open), ..MeshChange::default() },
        regions: Vec::new(),
        nodes: nodes.iter().map(node).collect(),
        routes: Vec::new(),
    }
}

/// The mesh, whenever it became so.
async fn shown(client: &Client) -> Option<MeshTopology> {
    let mesh = client.topology().mesh_by_name("lab").await.ok()?;
    let shown = client.topology().show(&mesh.value.id).await.ok()?;
    Some(MeshTopology { changed: 0, ..shown })
}

/// A cluster with a mesh of one node, and a change to two that waits: the leader, the revision of the change, and the mesh
/// before.
async fn waiting(cluster: &Cluster) -> (u64, u64, MeshTopology) {
    let client = cluster.client();
    client.topology().apply(lab(&["first"]), None).await.unwrap();
    let before = shown(&client).await.unwrap();
    let leader = cluster.leader().await;
    let changed = client.topology().apply_to_confirm(lab(&["first", "second"]), None, WITHIN).await.unwrap();
    (leader, changed.revision, before)
}

/// All three nodes hold the same.
async fn agree(cluster: &Cluster) {
    until("equal hashes at one index", async || {
        let mut all = Vec::new();
        for node in &cluster.nodes {
            let status = node.status(true).await?;
            all.push((status.applied_index, status.state_hash));
        }
        let same_index = all.iter().all(|(index, _)| *index == all[0].0);
        assert!(!same_index || all.iter().all(|(_, hash)| *hash == all[0].1), "{all:?}");
        same_index.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_nobody_confirms_is_rolled_back_though_its_leader_died() {
    let mut cluster = Cluster::start(3, EAGER).await;
    let (leader, revision, before) = waiting(&cluster).await;
    cluster.node(leader).kill();
    let client = cluster.client();
    let back = until("the way back", async || {
        let entries = client.topology().history(revision, Default::default()).await.ok()?.items;
        entries.into_iter().next()
    })
    .await;
    assert!(matches!(back.change.cause, Cause::Unconfirmed(_)), "{back:?}");
    assert_eq!(shown(&client).await, Some(before), "exactly as it was");
    // The next change is taken: nothing waits any more.
    client.topology().apply(lab(&["first", "third"]), None).await.unwrap();
    cluster.node(leader).start();
    cluster.start_all().await;
    agree(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_confirmed_by_the_next_leader_stays() {
    let mut cluster = Cluster::start(3, EAGER).await;
    let (leader, revision, _) = waiting(&cluster).await;
    cluster.node(leader).kill();
    let client = cluster.client();
    client.topology().confirm(revision).await.unwrap();
    let with_two = shown(&client).await.unwrap();
    assert_eq!(with_two.nodes.len(), 2);
    cluster.node(leader).start();
    cluster.start_all().await;
    // Its time passes, and nothing comes of it: a change behind it is the next entry of the history.
    let from = client.cluster().status(false).await.unwrap().log_time_ms;
    until("the time to pass in which it was to be confirmed", async || {
        client.state().put("time", "passes").await.ok()?;
        let now = client.cluster().status(false).await.ok()?.log_time_ms;
        (now > from + WITHIN.as_millis() as u64).then_some(())
    })
    .await;
    client.topology().apply(lab(&["first", "second", "third"]), None).await.unwrap();
    let entries = client.topology().history(revision, Default::default()).await.unwrap().items;
    assert!(!entries.iter().any(|entry| matches!(entry.change.cause, Cause::Unconfirmed(_))), "{entries:?}");
    agree(&cluster).await;
}
