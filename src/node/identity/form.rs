//! How an empty cluster comes to be.
//!
//! The node with the lowest id of `cluster.toml` founds it, the others wait to be adopted. The founder goes
//! on only when *every* node answers that it is empty, since one that is not may be a cluster that has
//! already decided things, without this node or with an earlier directory of it:
//!
//! 1. ask all nodes who they are, until all answer in one round, and all are empty;
//! 2. write a new cluster id into the own identity;
//! 3. have every node write it into its own (`Adopt`), meant for the very directory that answered;
//! 4. answer the members, with which the owner initialises Raft.
//!
//! A crash anywhere leaves either nothing, or a cluster id and empty logs; then the founder goes through the
//! same steps with the same id. That it is the founder stands in its identity, so that one that was made to
//! join by another cannot take the cluster for its own and initialise it a second time. No step is undone:
//! an adopted directory never belongs to another cluster.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::{Code, transport::Channel};

use super::Directory;
use crate::{
    environment::net::{self, ChannelOptions, Net},
    error::Fault,
    proto::v1::{AdoptRequest, IdentifyRequest, IdentifyResponse, peer_client::PeerClient},
    raft::{
        network::{
            identity::{Identity, from_hex, hex},
            peers::{Client, said},
        },
        types::{Member, NodeId},
    },
};

/// Where a node of `cluster.toml` is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port` for peers.
    pub peer: String,
    /// `host:port` for clients.
    pub client: String,
}

/// What a node is to do after [`form_cluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formed {
    /// Initialise Raft with these members: this node founded the cluster, and all have joined it.
    Initialise {
        /// The cluster.
        cluster: u128,
        /// All nodes, with the directories that joined.
        members: BTreeMap<NodeId, Member>,
    },
    /// Run: the directory belongs to a cluster that another node initialises, or is initialised already.
    Adopted {
        /// The cluster.
        cluster: u128,
    },
}

/// Between two rounds of questions to nodes that do not answer as they should. A real timer: that another
/// machine has started is told by nothing but asking it.
pub const PAUSE: Duration = Duration::from_millis(500);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(2);
/// What is waited for is logged when it changes, and so often.
const REMIND: Duration = Duration::from_secs(10);

/// Forms the cluster, joins it, or finds that this node belongs to one. The node's `Peer` service must be
/// served meanwhile, since the others ask this node, too. May wait for the other nodes as long as it takes;
/// can be dropped at any moment, and called again.
///
/// `nodes` are all of `cluster.toml`. A node that is not among them is none that forms the cluster, and waits to be added.
/// `empty`: whether log, vote and state are those of a
/// new directory.
///
/// Errors: the node must not run: its directory was wiped or replaced, the others belong to another
/// cluster, two nodes have one id, or the identity cannot be written.
pub async fn form_cluster(
    directory: &Directory,
    net: &Arc<dyn Net>,
    nodes: &BTreeMap<NodeId, Address>,
    empty: bool,
) -> Result<Formed, Fault> {
    let identity = directory.identity();
    let node = identity.node();
    if !empty {
        let Some(cluster) = identity.cluster() else {
            let path = directory.path().display();
            return Err(Fault::new(format!("{path} has a log but belongs to no cluster: its IDENTITY is not its own")));
        };
        directory.set_started()?;
        return Ok(Formed::Adopted { cluster });
    }
    let joined = identity.cluster();
    if directory.started() {
        return Err(lost_log(directory));
    }
    if let Some(cluster) = joined.filter(|_| !directory.founder()) {
        return Ok(Formed::Adopted { cluster });
    }
    let forming =
        Forming { directory, identity, node, nodes, clients: clients(net, nodes)?, waiting: Waiting::default() };
    if joined.is_some() || nodes.keys().next() == Some(&node) {
        forming.found(joined).await
    } else {
        forming.join().await
    }
}

/// The fault of a directory whose log is gone.
pub fn lost_log(directory: &Directory) -> Fault {
    let node = directory.identity().node();
    Fault::new(format!(
        "{} has lost its log: what node {node} voted and acknowledged is gone, and under this id it could undo what \
         the cluster decided; {}",
        directory.path().display(),
        start_anew(node)
    ))
}

struct Forming<'a> {
    directory: &'a Directory,
    identity: Identity,
    node: NodeId,
    nodes: &'a BTreeMap<NodeId, Address>,
    clients: BTreeMap<NodeId, Channel>,
    waiting: Waiting,
}

/// A node's answer to `Identify`.
struct Answer {
    directory: u128,
    cluster: Option<u128>,
    empty: bool,
    /// The directory that its membership has for this node.
    of_us: Option<u128>,
}

impl Forming<'_> {
    /// `begun`: the cluster that this node has already begun to found.
    async fn found(mut self, begun: Option<u128>) -> Result<Formed, Fault> {
        let mut answers = loop {
            let (answers, silent) = self.round().await?;
            for (node, answer) in &answers {
                self.check_unborn(*node, answer)?;
            }
            if silent.is_empty() {
                break answers;
            }
            self.waiting.on(format_args!("every node must answer before the cluster is formed; {}", silent.join("; ")));
            tokio::time::sleep(PAUSE).await;
        };
        let cluster = begun.unwrap_or_else(|| self.directory.environment.clock.random());
        // From here on a crash goes on with this id, so that nobody can have joined one that is forgotten.
        self.directory.found(cluster)?;
        for (node, answer) in &answers {
            self.adopt(*node, answer.directory, cluster).await?;
        }
        let own = Answer { directory: self.identity.directory(), cluster: Some(cluster), empty: true, of_us: None };
        answers.insert(self.node, own);
        let members = self.nodes.iter().filter_map(|(node, address)| {
            let directory = answers.get(node)?.directory;
            let (peer_address, client_address) = (address.peer.clone(), address.client.clone());
            Some((*node, Member { peer_address, client_address, directory }))
        });
        let members: BTreeMap<_, _> = members.collect();
        tracing::info!(cluster = hex(cluster), nodes = ?members.keys().collect::<Vec<_>>(), "formed the cluster");
        Ok(Formed::Initialise { cluster, members })
    }

    async fn join(mut self) -> Result<Formed, Fault> {
        let founder = self.nodes.keys().next().copied().unwrap_or_default();
        let identity = self.identity.clone();
        let mut joined = std::pin::pin!(identity.joined());
        loop {
            tokio::select! {
                biased;
                cluster = &mut joined => return Ok(Formed::Adopted { cluster }),
                round = self.round() => {
                    let (answers, silent) = round?;
                    let mut others = None;
                    for (node, answer) in &answers {
                        self.check_known(*node, answer)?;
                        others = others.or(answer.cluster.filter(|_| !answer.empty));
                    }
                    match others {
                        Some(cluster) => self.waiting.on(format_args!(
                            "to be added to cluster {}, which exists already and does not know this node", hex(cluster)
                        )),
                        None => self.waiting.on(format_args!("node {founder} to form the cluster; {}", silent.join("; "))),
                    }
                }
            }
            // An adoption that could not be written has been refused, but this node is broken all the same.
            self.directory.check()?;
            tokio::select! {
                cluster = &mut joined => return Ok(Formed::Adopted { cluster }),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Asks all others who they are: their answers, and what is wrong with the rest.
    async fn round(&mut self) -> Result<(BTreeMap<NodeId, Answer>, Vec<String>), Fault> {
        let (mut answers, mut silent) = (BTreeMap::new(), Vec::new());
        for (node, answer) in identify_all(&self.clients).await {
            match answer {
                Ok(answer) => {
                    if let Some(answer) = self.understand(node, answer)? {
                        answers.insert(node, answer);
                    }
                }
                // The own address need not be reachable from here; it is asked only to find a double.
                Err(_) if node == self.node => {}
                Err(problem) => silent.push(format!("{} {problem}", self.named(node))),
            }
        }
        Ok((answers, silent))
    }

    /// Checks that an answer comes from whom it should. `None`: from this node itself.
    fn understand(&self, node: NodeId, answer: IdentifyResponse) -> Result<Option<Answer>, Fault> {
        let named = self.named(node);
        if answer.node_id != node {
            return Err(Fault::new(format!(
                "{named} says that it is node {}: correct the addresses in cluster.toml, or that node's id",
                answer.node_id
            )));
        }
        let malformed = || Fault::new(format!("{named} answers with a malformed id; is it a meshstore?"));
        let directory = from_hex(&answer.directory).ok_or_else(malformed)?;
        if node == self.node {
            return match directory == self.identity.directory() {
                true => Ok(None),
                false => Err(Fault::new(format!(
                    "{named} runs already, with directory {}; this process has {}: two nodes are configured with one id",
                    hex(directory),
                    hex(self.identity.directory())
                ))),
            };
        }
        if directory == self.identity.directory() {
            let text = format!("{named} has a copy of this node's data directory; each node needs one of its own");
            return Err(Fault::new(text));
        }
        let cluster = match answer.cluster.as_str() {
            "" => None,
            cluster => Some(from_hex(cluster).ok_or_else(malformed)?),
        };
        let of_us = match answer.members.get(&self.node) {
            Some(directory) => Some(from_hex(directory).ok_or_else(malformed)?),
            None => None,
        };
        Ok(Some(Answer { directory, cluster, empty: answer.empty, of_us }))
    }

    /// Whether a node's answer allows this one to wait for its cluster.
    fn check_known(&self, node: NodeId, answer: &Answer) -> Result<(), Fault> {
        let own = self.identity.directory();
        match answer.of_us {
            Some(known) if known != own => Err(replaced(self.node, known, own)),
            Some(_) => Err(Fault::new(format!(
                "{} knows this node and its data directory, but the log there is empty: it was lost, or an old copy \
                 was put back; {}",
                self.named(node),
                start_anew(self.node)
            ))),
            None => Ok(()),
        }
    }

    /// Whether a node's answer allows this one to found a cluster.
    fn check_unborn(&self, node: NodeId, answer: &Answer) -> Result<(), Fault> {
        self.check_known(node, answer)?;
        let named = self.named(node);
        match (answer.cluster, answer.empty) {
            (None, true) => Ok(()),
            // An earlier attempt of this node came as far as that.
            (Some(cluster), true) if Some(cluster) == self.identity.cluster() => Ok(()),
            (Some(cluster), true) => Err(Fault::new(format!(
                "{named} has joined cluster {}, which has no data yet, and cannot join another; if that cluster is \
                 not wanted, remove the data directories of the nodes that joined it and start again",
                hex(cluster)
            ))),
            (Some(cluster), false) => Err(Fault::new(format!(
                "{named} belongs to cluster {}, which has data; node {}, the lowest in cluster.toml, is empty and will \
                 not form a second one: if its data were lost {}; if it is new, give it an id that is not the lowest",
                hex(cluster),
                self.node,
                start_anew(self.node)
            ))),
            (None, false) => Err(Fault::new(format!(
                "{named} has data but belongs to no cluster: its data directory is damaged, replace it by an empty one"
            ))),
        }
    }

    /// Has a node join, however long it takes to reach it.
    async fn adopt(&mut self, node: NodeId, directory: u128, cluster: u128) -> Result<(), Fault> {
        let Some(channel) = self.clients.get(&node).cloned() else { return Ok(()) };
        loop {
            let introduction = self.identity.introduce(node, Some(directory));
            let mut client: Client = PeerClient::with_interceptor(channel.clone(), introduction);
            let request = AdoptRequest { cluster: hex(cluster), initialiser: self.node };
            let problem = match tokio::time::timeout(QUESTION, client.adopt(request)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                    let text = format!("{} refuses to join the cluster: {}", self.named(node), status.message());
                    return Err(Fault::new(text));
                }
                Ok(Err(status)) => format!("answers {}", said(&status)),
                Err(_) => "does not answer".into(),
            };
            self.waiting.on(format_args!("{} to join the cluster; it {problem}", self.named(node)));
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn named(&self, node: NodeId) -> String {
        let address = self.nodes.get(&node).map_or("", |address| &address.peer);
        format!("node {node} at {address}")
    }
}

/// Asks all who they are: what each answers, or what is wrong with it.
pub(super) async fn identify_all(
    clients: &BTreeMap<NodeId, Channel>,
) -> Vec<(NodeId, Result<IdentifyResponse, String>)> {
    let questions = clients.iter().map(|(node, channel)| async { (*node, identify(channel.clone()).await) });
    join_all(questions).await
}

/// Asks one who it is: what it answers, or what is wrong with it.
pub async fn identify(channel: Channel) -> Result<IdentifyResponse, String> {
    match tokio::time::timeout(QUESTION, PeerClient::new(channel).identify(IdentifyRequest {})).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("answers {}", said(&status))),
        Err(_) => Err("does not answer".into()),
    }
}

pub(super) fn clients(
    net: &Arc<dyn Net>,
    nodes: &BTreeMap<NodeId, Address>,
) -> Result<BTreeMap<NodeId, Channel>, Fault> {
    let channel = |(node, address): (&NodeId, &Address)| {
        let channel = net::channel(net, &address.peer, &ChannelOptions::default());
        Ok((*node, channel.map_err(|error| Fault::new(format!("node {node} in cluster.toml: {error}")))?))
    };
    nodes.iter().map(channel).collect()
}

/// Whether what a node of the cluster says of this one allows it to go on with the directory that it has.
///
/// Errors: the cluster knows another directory under this id.
pub fn check_membership(directory: &Directory, answer: &IdentifyResponse) -> Result<(), Fault> {
    let (node, own) = (directory.identity().node(), directory.identity().directory());
    match answer.members.get(&node).and_then(|known| from_hex(known)) {
        Some(known) if known != own => Err(replaced(node, known, own)),
        _ => Ok(()),
    }
}

/// The fault of a directory where the cluster knows another under this id.
fn replaced(node: NodeId, known: u128, own: u128) -> Fault {
    Fault::new(format!(
        "node {node}'s data directory was wiped or replaced (the cluster knows directory {}, this one is {}): {}",
        hex(known),
        hex(own),
        start_anew(node)
    ))
}

fn start_anew(node: NodeId) -> String {
    format!(
        "start it as a new node: with an empty data directory and an id that the cluster has never had, add that to \
         the cluster, and remove node {node} from it"
    )
}

/// Says what is waited for, when that changes and now and then.
#[derive(Default)]
pub(super) struct Waiting {
    last: Option<(String, Instant)>,
}

impl Waiting {
    pub(super) fn on(&mut self, what: fmt::Arguments<'_>) {
        let what = what.to_string();
        let now = Instant::now();
        let again = self.last.as_ref().is_none_or(|(said, at)| *said != what || now - *at >= REMIND);
        if again {
            tracing::info!("waiting for {what}");
            self.last = Some((what, now));
        }
    }
}

#[cfg(test)]
mod tests;
