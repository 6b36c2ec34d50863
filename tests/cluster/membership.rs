//! Nodes that come and go while the cluster serves.

use std::fs;

use meshstore::{
    Client, Error,
    client::MemberStatus,
    proto::v1::{IdentifyRequest, JoinRequest, peer_client::PeerClient},
    raft::network::identity::{Identity, from_hex, hex},
};
use tonic::{Code, transport::Endpoint};

use crate::{
    harness::{Cluster, EAGER, Settings, free_port, until},
    load::Load,
    proof::{prove, settle},
};

const BYTES: usize = 200;

async fn member(client: &Client, id: u64) -> MemberStatus {
    let members = client.cluster().members().await.unwrap().members;
    members.into_iter().find(|status| status.member.as_ref().unwrap().node_id == id).unwrap()
}

fn refused<T: std::fmt::Debug>(answer: meshstore::Result<T>) -> String {
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// From one node to five and back to three, with a kill in every step: of the newcomer while it catches up, of the leader
/// while it changes the membership.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_and_shrinks_and_loses_nothing() {
    let mut cluster = Cluster::start(1, EAGER).await;
    let mut load = Load::start(&cluster, BYTES);
    for id in 2..=5 {
        load.more(100).await;
        cluster.lay_out(id).start();
        let killed = if id % 2 == 0 { id } else { cluster.leader().await };
        cluster.node(killed).kill();
        cluster.node(killed).start();
        cluster.voter(id).await;
        cluster.node(id).ready().await;
    }
    // As each node knows it by then.
    until("five voters everywhere", async || {
        for node in &cluster.nodes {
            let status = node.status(false).await?;
            (status.members.len() == 5 && status.members.iter().all(|member| member.voter)).then_some(())?;
        }
        Some(())
    })
    .await;
    for id in [1, 2] {
        load.more(100).await;
        let client = cluster.client();
        let removal = tokio::spawn(async move { client.cluster().remove(id).await });
        let leader = cluster.leader().await;
        cluster.node(leader).kill();
        cluster.node(leader).start();
        removal.await.unwrap().unwrap();
        load.more(100).await;
        cluster.retired(id).await;
    }
    let members = cluster.client().cluster().members().await.unwrap();
    let removed: Vec<u64> = members.removed.iter().map(|removed| removed.node_id).collect();
    assert_eq!((members.members.len(), removed), (3, vec![1, 2]));
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_hands_over_and_stops() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    let leader = cluster.leader().await;
    cluster.client().cluster().remove(leader).await.unwrap();
    load.more(100).await;
    let mut gone = cluster.retired(leader).await;
    let client = cluster.client();
    assert!(refused(client.cluster().remove(leader).await).contains("removed already"));
    // Nothing is left of it but its id.
    gone.data = gone.data.with_extension("new");
    gone.join = cluster.nodes.iter().map(|node| node.peer.clone()).collect();
    let said = gone.refusal(1).await;
    assert!(said.contains("its id is retired"), "{said}");
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_comes_back_under_a_new_id_only() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    cluster.lay_out(4).start();
    cluster.voter(4).await;
    cluster.node(4).kill();
    fs::remove_dir_all(&cluster.node(4).data).unwrap();
    let said = cluster.node(4).refusal(1).await;
    assert!(said.starts_with("node 4's data directory was wiped or replaced (the cluster knows directory "), "{said}");
    assert!(said.contains("an id that the cluster has never had"), "{said}");
    cluster.client().cluster().remove(4).await.unwrap();
    fs::remove_dir_all(&cluster.node(4).data).unwrap();
    let said = cluster.node(4).refusal(1).await;
    assert!(said.contains("node 4 was removed, and its id is retired"), "{said}");
    cluster.nodes.retain(|node| node.id != 4);
    cluster.lay_out(5).start();
    cluster.voter(5).await;
    load.more(100).await;
    prove(&cluster, &load.finish().await, BYTES).await;
}

/// It waits without asking, until an operator names it; as a learner it stays one, until it is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_invited_as_a_learner_and_promoted() {
    let mut cluster = Cluster::start(1, EAGER).await;
    let client = cluster.client();
    let mut load = Load::start(&cluster, BYTES);
    load.more(200).await;
    let node = cluster.lay_out(7);
    node.join.clear();
    let peer = node.peer.clone();
    assert!(refused(client.cluster().add(7, &peer, true).await).contains("start the node there first"));
    cluster.node(7).start();
    until("node 7 to wait", async || match client.cluster().add(7, &peer, true).await {
        Ok(_) => Some(()),
        Err(Error::Refused(why)) if why.contains("start the node there first") => None,
        Err(other) => panic!("{other}"),
    })
    .await;
    cluster.node(7).ready().await;
    until("the learner to catch up", async || {
        (member(&client, 7).await.lag.is_some_and(|lag| lag < 1_000)).then_some(())
    })
    .await;
    let learner = member(&client, 7).await;
    assert!(!learner.member.unwrap().voter && !learner.to_be_voter);
    assert!(refused(client.cluster().transfer_leadership(7).await).contains("is a learner"));
    assert!(refused(client.cluster().add(7, &peer, false).await).contains("is a member already"));
    client.cluster().promote(7).await.unwrap();
    cluster.voter(7).await;
    client.cluster().promote(7).await.unwrap();
    assert_eq!(client.cluster().transfer_leadership(7).await.unwrap().leader_id, 7);
    assert_eq!(cluster.leader().await, 7);
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lose_the_quorum_is_refused() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let client = cluster.client();
    let down = cluster.follower().await;
    cluster.node(down).kill();
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leader && *id != down).unwrap();
    let said = refused(client.cluster().remove(other).await);
    assert!(said.contains(&format!("removing node {other} would lose the quorum")), "{said}");
    assert!(said.ends_with(&format!("bring back node {down} first")), "{said}");
    assert!(refused(client.cluster().transfer_leadership(down).await).contains("does not answer"));
    // The one that is down can go: the two others are a quorum of themselves.
    client.cluster().remove(down).await.unwrap();
    cluster.nodes.retain(|node| node.id != down);
    client.cluster().remove(other).await.unwrap();
    cluster.retired(other).await;
    let last = cluster.nodes[0].id;
    assert!(refused(client.cluster().remove(last).await).contains("is the last voter"));
    client.state().put("after", "all").await.unwrap();
    settle(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    cluster.lay_out(4).start();
    cluster.voter(4).await;
    let client = cluster.client();
    assert!(cluster.node(4).terminate().await.success());
    let node = cluster.node(4);
    (node.peer, node.client) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    // Once it has joined it needs to be told nothing of the others.
    node.join.clear();
    let (peer, of_clients) = (node.peer.clone(), node.client.clone());
    let nobody = refused(client.cluster().update(4, Some(peer.clone()), None).await);
    assert!(nobody.contains("is not reached at"), "{nobody}");
    cluster.node(4).start();
    let of_another = cluster.node(1).peer.clone();
    let taken = refused(client.cluster().update(4, Some(of_another), None).await);
    assert!(taken.contains("is the address of node 1"), "{taken}");
    let wrong = refused(client.cluster().update(3, Some(peer.clone()), None).await);
    // Node 4, or nobody yet.
    assert!(wrong.contains("node 3 is not reached at"), "{wrong}");
    until("node 4 to be where it is said to be", async || {
        client.cluster().update(4, Some(peer.clone()), Some(of_clients.clone())).await.ok()
    })
    .await;
    cluster.node(4).ready().await;
    load.more(100).await;
    let moved = member(&client, 4).await;
    assert_eq!((moved.unreachable.as_str(), moved.member.unwrap().peer_address), ("", peer));
    // Every other node dials it there, too: it leads, and is followed.
    client.cluster().transfer_leadership(4).await.unwrap();
    assert_eq!(cluster.leader().await, 4);
    load.more(100).await;
    prove(&cluster, &load.finish().await, BYTES).await;
}

/// A directory that belongs to one cluster does not join another.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_cluster_is_refused() {
    let mut ours = Cluster::start(1, Settings::default()).await;
    let theirs = Cluster::start(1, Settings::default()).await;
    ours.lay_out(2).start();
    ours.voter(2).await;
    let peer = ours.node(2).peer.clone();
    let said = refused(theirs.client().cluster().add(9, &peer, false).await);
    assert!(said.contains("it is node 2 that answers"), "{said}");
    let said = refused(theirs.client().cluster().add(2, &peer, false).await);
    assert!(said.contains("it belongs to cluster "), "{said}");
    assert!(ours.node(2).terminate().await.success());
    let of_ours = std::mem::replace(&mut ours.node(2).join, vec![theirs.nodes[0].peer.clone()]);
    let said = ours.node(2).refusal(1).await;
    assert!(said.contains("given by --join, to cluster "), "{said}");
    // Told rightly, or nothing, it is what it was.
    ours.node(2).join = of_ours;
    ours.start_all().await;
    settle(&ours).await;
}

/// The leader asks back where a newcomer says that it is. That nobody answers may be the network's doing, so it is told to try
/// again; that somebody else does is a mistake, and stays one.
#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_is_not_let_in_where_it_is_not_reached() {
    let mut cluster = Cluster::start(1, Settings::default()).await;
    let peer = cluster.node(1).peer.clone();
    let channel = Endpoint::from_shared(format!("http://{peer}")).unwrap().connect().await.unwrap();
    let leader = PeerClient::new(channel.clone()).identify(IdentifyRequest {}).await.unwrap().into_inner();
    let newcomer = Identity::new(9, 0xD9, None);
    let introduction = newcomer.introduce(1, from_hex(&leader.directory));
    let join = async |peer_address: &str| {
        let request = JoinRequest {
            node_id: newcomer.node(),
            directory: hex(newcomer.directory()),
            peer_address: peer_address.into(),
            client_address: "127.0.0.1:1".into(),
            learner: false,
        };
        let mut client = PeerClient::with_interceptor(channel.clone(), introduction.clone());
        client.join(request).await.unwrap_err()
    };
    let nobody = join(&format!("127.0.0.1:{}", free_port())).await;
    assert_eq!(nobody.code(), Code::Unavailable, "{nobody}");
    assert!(nobody.message().contains("node 9 cannot be reached where it says that it is"), "{nobody}");
    let other = Cluster::start(1, Settings::default()).await;
    let another = join(&other.nodes[0].peer).await;
    assert_eq!(another.code(), Code::FailedPrecondition, "{another}");
    assert!(another.message().contains("it is not there: node 1 answers in its place"), "{another}");
    let members = cluster.client().cluster().members().await.unwrap();
    assert_eq!((members.members.len(), members.removed.len()), (1, 0), "{members:?}");
}
