//! Whole clusters of nodes that have nothing but their identity, on real sockets.

use std::sync::atomic::Ordering;

use tempfile::TempDir;
use tonic::Status;

use super::*;
use crate::{
    environment::{
        Environment,
        net::{Listener, RealNet},
    },
    raft::peer::{
        Adopt,
        testing::{FakeNode, FakeStanding, bind},
    },
};

/// The addresses of nodes, whose listeners are bound and not yet served.
struct Sites {
    nodes: BTreeMap<NodeId, Address>,
    listeners: BTreeMap<NodeId, Box<dyn Listener>>,
}

impl Sites {
    async fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut sites = Self { nodes: BTreeMap::new(), listeners: BTreeMap::new() };
        for node in nodes {
            let (listener, peer) = bind().await;
            sites.nodes.insert(node, Address { peer, client: format!("client-of-{node}:1") });
            sites.listeners.insert(node, listener);
        }
        sites
    }

    /// Starts a node with an empty directory.
    fn start(&mut self, node: NodeId) -> Host {
        self.start_with(node, |_| {})
    }

    /// Starts a node whose directory was used before.
    fn start_with(&mut self, node: NodeId, before: impl FnOnce(&Directory)) -> Host {
        let home = tempfile::tempdir().unwrap();
        before(&Directory::open(&Environment::real(), home.path(), node).unwrap());
        let directory = Arc::new(Directory::open(&Environment::real(), home.path(), node).unwrap());
        let standing = Arc::<FakeStanding>::default();
        let listener = self.listeners.remove(&node).unwrap();
        let served = FakeNode::new(listener, directory.identity(), directory.clone(), standing.clone());
        Host { nodes: self.nodes.clone(), directory, standing, _served: served, _home: home }
    }

    fn start_all(&mut self) -> Vec<Host> {
        self.nodes.clone().into_keys().map(|node| self.start(node)).collect()
    }
}

struct Host {
    nodes: BTreeMap<NodeId, Address>,
    directory: Arc<Directory>,
    standing: Arc<FakeStanding>,
    _served: FakeNode,
    _home: TempDir,
}

impl Host {
    async fn form(&self) -> Result<Formed, Fault> {
        let net: Arc<dyn Net> = Arc::new(RealNet);
        form_cluster(&self.directory, &net, &self.nodes, self.standing_is_empty()).await
    }

    fn standing_is_empty(&self) -> bool {
        !self.standing.filled.load(Ordering::SeqCst)
    }

    async fn refusal(&self) -> String {
        self.form().await.unwrap_err().to_string()
    }

    /// This node runs in a cluster with data, and knows these members.
    fn runs(&self, cluster: u128, members: &[(NodeId, u128)]) {
        self.directory.set_cluster(cluster).unwrap();
        self.standing.filled.store(true, Ordering::SeqCst);
        self.standing.members.lock().unwrap().extend(members.iter().copied());
    }

    fn cluster(&self) -> Option<u128> {
        self.directory.identity().cluster()
    }

    fn id(&self) -> u128 {
        self.directory.identity().directory()
    }
}

/// All three form; the first is the founder.
async fn form_all(hosts: &[Host]) -> u128 {
    let formed = join_all(hosts.iter().map(Host::form)).await;
    let Formed::Initialise { cluster, members } = formed[0].clone().unwrap() else { panic!("{formed:?}") };
    for (host, formed) in hosts.iter().zip(&formed).skip(1) {
        assert_eq!(formed.clone().unwrap(), Formed::Adopted { cluster });
        assert_eq!(host.cluster(), Some(cluster));
    }
    let expected = hosts.iter().map(|host| {
        let node = host.directory.identity().node();
        let Address { peer, client } = host.nodes[&node].clone();
        (node, Member { peer_address: peer, client_address: client, directory: host.id() })
    });
    assert_eq!(members, expected.collect());
    cluster
}

#[tokio::test]
async fn three_empty_nodes_form_a_cluster() {
    let hosts = Sites::new([1, 2, 3]).await.start_all();
    form_all(&hosts).await;
}

#[tokio::test]
async fn one_node_forms_a_cluster_at_once() {
    let hosts = Sites::new([4]).await.start_all();
    form_all(&hosts).await;
}

#[tokio::test]
async fn nothing_is_formed_before_every_node_has_answered() {
    let mut sites = Sites::new([1, 2, 3]).await;
    let mut hosts = vec![sites.start(1), sites.start(2)];
    // Node 3's machine is up, its process is not: it is seen to be asked twice, and does not answer.
    let mut silent = sites.listeners.remove(&3).unwrap();
    {
        let (first, second) = (hosts[0].form(), hosts[1].form());
        let asked = async {
            for _ in 0..2 {
                drop(silent.accept().await.unwrap());
            }
        };
        tokio::select! {
            formed = first => panic!("{formed:?}"),
            formed = second => panic!("{formed:?}"),
            () = asked => {}
        }
    }
    assert!(hosts.iter().all(|host| host.cluster().is_none()));
    // The futures were dropped, as in a crash. The next ones go on.
    sites.listeners.insert(3, silent);
    hosts.push(sites.start(3));
    form_all(&hosts).await;
}

#[tokio::test]
async fn a_founder_that_crashed_goes_on_with_the_same_cluster() {
    for adopted in 0..=2 {
        let mut sites = Sites::new([1, 2, 3]).await;
        let join = |joins: bool| {
            move |directory: &Directory| {
                if joins {
                    directory.set_cluster(0xC).unwrap()
                }
            }
        };
        let hosts = vec![
            sites.start_with(1, |directory| directory.found(0xC).unwrap()),
            sites.start_with(2, join(adopted >= 1)),
            sites.start_with(3, join(adopted >= 2)),
        ];
        assert_eq!(form_all(&hosts).await, 0xC, "{adopted} had joined");
    }
}

#[tokio::test]
async fn a_wiped_node_is_told_so() {
    for wiped in [1, 2] {
        let mut sites = Sites::new([1, 2, 3]).await;
        let host = sites.start(wiped);
        let other = sites.start(3);
        other.runs(0xC, &[(1, 0xDEAD), (2, 0xDEAD), (3, other.id())]);
        let refusal = host.refusal().await;
        let expected = format!(
            "node {wiped}'s data directory was wiped or replaced (the cluster knows directory \
             0000000000000000000000000000dead, this one is {}): start it as a new node",
            hex(host.id())
        );
        assert!(refusal.starts_with(&expected), "{refusal}");
        assert_eq!(host.cluster(), None);
    }
}

#[tokio::test]
async fn a_node_whose_log_is_gone_is_told_so() {
    // Its identity is still there, and says that there was something.
    let mut sites = Sites::new([1, 2]).await;
    let host = sites.start_with(1, |directory| {
        directory.found(0xC).unwrap();
        directory.set_started().unwrap();
    });
    assert!(host.refusal().await.contains("has lost its log"));
    // It does not say so, but the others do.
    let mut sites = Sites::new([1, 2]).await;
    let (host, other) = (sites.start_with(1, |directory| directory.found(0xC).unwrap()), sites.start(2));
    other.runs(0xC, &[(1, host.id()), (2, other.id())]);
    let refusal = host.refusal().await;
    assert!(refusal.contains("the log there is empty: it was lost"), "{refusal}");
}

#[tokio::test]
async fn no_second_cluster_is_founded_beside_one() {
    type Case = (&'static str, fn(&Host));
    let cases: [Case; 3] = [
        ("has data; node 1, the lowest in cluster.toml, is empty", |host| host.runs(0xC, &[(2, host.id())])),
        ("which has no data yet, and cannot join another", |host| host.directory.set_cluster(0xC).unwrap()),
        ("has data but belongs to no cluster", |host| host.standing.filled.store(true, Ordering::SeqCst)),
    ];
    for (expected, other_is) in cases {
        // Node 3 is not there, and need not be.
        let mut sites = Sites::new([1, 2, 3]).await;
        let (host, other) = (sites.start(1), sites.start(2));
        sites.listeners.clear();
        other_is(&other);
        let refusal = host.refusal().await;
        assert!(refusal.contains(expected), "{refusal}");
        assert_eq!(host.cluster(), None);
    }
}

#[tokio::test]
async fn a_new_node_waits_to_be_added_to_a_cluster_that_exists() {
    let mut sites = Sites::new([1, 2]).await;
    let (other, host) = (sites.start(1), sites.start(2));
    other.runs(0xC, &[(1, other.id())]);
    let other_node = other.directory.identity();
    let added = async {
        let client = adopter(&other_node, &host, host.id());
        adopt(client, 0xC).await.unwrap();
    };
    let (formed, ()) = tokio::join!(host.form(), added);
    assert_eq!(formed.unwrap(), Formed::Adopted { cluster: 0xC });
}

#[tokio::test]
async fn addresses_and_ids_that_are_mixed_up_are_noticed() {
    // Node 1's file has node 3's address for node 2.
    let mut sites = Sites::new([1, 2, 3]).await;
    let mut host = sites.start(1);
    let _third = sites.start(3);
    let third = host.nodes[&3].clone();
    host.nodes.insert(2, third);
    let refusal = host.refusal().await;
    assert!(refusal.starts_with("node 2 at ") && refusal.contains("says that it is node 3"), "{refusal}");

    // Two processes are node 2, and one of them has the address.
    let mut sites = Sites::new([1, 2]).await;
    let _second = sites.start(2);
    let (listener, _) = bind().await;
    sites.listeners.insert(2, listener);
    let double = sites.start(2);
    let refusal = double.refusal().await;
    assert!(refusal.contains("two nodes are configured with one id"), "{refusal}");
}

/// Though its id is the lowest.
#[tokio::test]
async fn a_node_that_is_not_in_the_file_founds_nothing_and_waits_to_be_added() {
    let mut host = Sites::new([1]).await.start(1);
    host.nodes = Sites::new([2]).await.nodes;
    let added = async { host.directory.adopt(0xC).unwrap() };
    let (formed, cluster) = tokio::join!(host.form(), added);
    assert_eq!(formed.unwrap(), Formed::Adopted { cluster });
}

#[tokio::test]
async fn a_node_with_data_goes_on_and_remembers_that_it_had_them() {
    let mut sites = Sites::new([1, 2]).await;
    let host = sites.start_with(1, |directory| directory.set_cluster(0xC).unwrap());
    host.standing.filled.store(true, Ordering::SeqCst);
    assert_eq!(host.form().await.unwrap(), Formed::Adopted { cluster: 0xC });
    assert!(host.directory.started());
    // Joined, and nothing came yet: the same.
    let host = sites.start_with(2, |directory| directory.set_cluster(0xC).unwrap());
    assert_eq!(host.form().await.unwrap(), Formed::Adopted { cluster: 0xC });
    // Data of nobody knows what.
    let host = Sites::new([1]).await.start(1);
    host.standing.filled.store(true, Ordering::SeqCst);
    assert!(host.refusal().await.contains("belongs to no cluster"));
}

fn adopter(from: &Identity, to: &Host, directory: u128) -> Client {
    let net: Arc<dyn Net> = Arc::new(RealNet);
    let node = to.directory.identity().node();
    let channel = net::channel(&net, &to.nodes[&node].peer, &ChannelOptions::default()).unwrap();
    PeerClient::with_interceptor(channel, from.introduce(node, Some(directory)))
}

async fn adopt(mut client: Client, cluster: u128) -> Result<(), Status> {
    client.adopt(AdoptRequest { cluster: hex(cluster), initialiser: 1 }).await.map(drop)
}

#[tokio::test]
async fn a_node_joins_one_cluster_once_and_only_while_it_is_empty() {
    let mut sites = Sites::new([2, 3]).await;
    let (host, filled) = (sites.start(2), sites.start(3));
    let founder = Identity::new(1, 0xD1, None);
    // Meant for a directory that is not there any more.
    let status = adopt(adopter(&founder, &host, 0xDD), 0xC).await.unwrap_err();
    assert!(status.message().contains("this is node 2 of no cluster"), "{status}");
    for _ in 0..2 {
        adopt(adopter(&founder, &host, host.id()), 0xC).await.unwrap();
    }
    let status = adopt(adopter(&founder, &host, host.id()), 0xE).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("already belongs to cluster 0000000000000000000000000000000c"), "{status}");

    filled.standing.filled.store(true, Ordering::SeqCst);
    let status = adopt(adopter(&founder, &filled, filled.id()), 0xC).await.unwrap_err();
    assert!(status.message().contains("is not empty"), "{status}");
    assert_eq!(filled.cluster(), None);
}
