//! A new node and members that answer as the test says, on real sockets.

use tempfile::TempDir;

use super::*;
use crate::{
    environment::{Environment, net::RealNet},
    raft::peer::{
        Joined, Newcomer,
        testing::{FakeNode, NoDirectory, bind},
    },
};

const CLUSTER: u128 = 0xC;

/// Node 9, whose directory is new.
struct New {
    directory: Directory,
    net: Arc<dyn Net>,
    _home: TempDir,
}

impl New {
    fn node(id: u64) -> Self {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::open(&Environment::real(), home.path(), id).unwrap();
        Self { directory, net: Arc::new(RealNet), _home: home }
    }

    fn joining(&self, members: &[&FakeNode]) -> Joining<'_> {
        Joining {
            directory: &self.directory,
            net: &self.net,
            members: members.iter().map(|member| member.address.clone()).collect(),
            own: Address { peer: "p:1".into(), client: "c:1".into() },
            learner: true,
        }
    }

    async fn join(&self, members: &[&FakeNode]) -> Result<Formed, Fault> {
        join_cluster(self.joining(members)).await
    }

    async fn refusal(&self, member: &FakeNode) -> String {
        let said = self.join(&[member]).await.unwrap_err().to_string();
        assert_eq!(self.directory.identity().cluster(), None, "{said}");
        said
    }

    fn id(&self) -> u128 {
        self.directory.identity().directory()
    }
}

async fn member(node: u64, cluster: Option<u128>, answers: Vec<crate::error::Result<Joined>>) -> FakeNode {
    let identity = crate::raft::network::Identity::new(node, u128::from(node), cluster);
    let (listener, _) = bind().await;
    let member = FakeNode::new(listener, identity.clone(), Arc::new(NoDirectory(identity)), Arc::default());
    *member.standing.joins.lock().unwrap() = answers;
    member
}

#[tokio::test]
async fn a_new_node_asks_until_it_is_let_in() {
    let new = New::node(9);
    let later = Err(Error::Unavailable { reason: "an election".into(), leader: None });
    // The last is given first.
    let member = member(2, Some(CLUSTER), vec![Ok(Joined::Cluster(CLUSTER)), later]).await;
    assert_eq!(new.join(&[&member]).await.unwrap(), Formed::Adopted { cluster: CLUSTER });
    assert_eq!(new.directory.identity().cluster(), Some(CLUSTER));
    let asked = member.standing.newcomers.lock().unwrap().clone();
    let own =
        crate::raft::types::Member { peer_address: "p:1".into(), client_address: "c:1".into(), directory: new.id() };
    assert_eq!(asked, vec![Newcomer { node: 9, member: own, learner: true }; 2]);
    // It belongs to the cluster now, and asks nobody any more.
    assert_eq!(new.join(&[&member]).await.unwrap(), Formed::Adopted { cluster: CLUSTER });
    assert_eq!(member.standing.newcomers.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn whoever_does_not_lead_sends_it_on() {
    let new = New::node(9);
    let leader = member(3, Some(CLUSTER), vec![Ok(Joined::Cluster(CLUSTER))]).await;
    let follower = member(2, Some(CLUSTER), vec![Ok(Joined::AskAt(leader.address.clone()))]).await;
    let unborn = member(4, None, vec![]).await;
    assert_eq!(new.join(&[&unborn, &follower]).await.unwrap(), Formed::Adopted { cluster: CLUSTER });
    assert!(unborn.standing.newcomers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_cluster_refuses_is_said() {
    let refused = member(2, Some(CLUSTER), vec![Err(Error::Refused("id 9 belongs to another".into()))]).await;
    let said = New::node(9).refusal(&refused).await;
    assert_eq!(said, "the cluster refuses this node: id 9 belongs to another");
    let twin = member(9, Some(CLUSTER), vec![]).await;
    let said = New::node(9).refusal(&twin).await;
    assert!(said.contains("has this node's id"), "{said}");
    let knows = member(2, Some(CLUSTER), vec![]).await;
    knows.standing.members.lock().unwrap().insert(9, 0xDD);
    let said = New::node(9).refusal(&knows).await;
    assert!(said.starts_with("node 9's data directory was wiped or replaced"), "{said}");
    let new = New::node(9);
    let removed = member(2, Some(CLUSTER), vec![]).await;
    removed.standing.removed.lock().unwrap().insert(9, new.id());
    let said = new.refusal(&removed).await;
    assert_eq!(said, "the cluster refuses this node: node 9 was removed from this cluster, and its id is retired");
    assert!(removed.standing.newcomers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_directory_does_not_change_its_cluster() {
    let new = New::node(9);
    new.directory.set_cluster(0xE).unwrap();
    let other = member(2, Some(CLUSTER), vec![]).await;
    let said = new.join(&[&other]).await.unwrap_err().to_string();
    assert!(said.contains("given by --join, to cluster 0000000000000000000000000000000c"), "{said}");
    let right = member(2, Some(0xE), vec![]).await;
    assert_eq!(new.join(&[&right]).await.unwrap(), Formed::Adopted { cluster: 0xE });
    // Nobody answers: it is what it was.
    assert_eq!(new.join(&[]).await.unwrap(), Formed::Adopted { cluster: 0xE });
    new.directory.set_started().unwrap();
    let said = new.join(&[&right]).await.unwrap_err().to_string();
    assert!(said.contains("has lost its log"), "{said}");
}
