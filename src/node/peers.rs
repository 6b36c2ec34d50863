//! The peer listener, behind its gate, and what it asks of the node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinHandle};
use tonic::{service::Routes, transport::Server};

use super::{Node, Shared, fault::Faults, identity::Directory, read::ReadIndex};
use crate::{
    environment::{Environment, net},
    error::{Error, Fault, Result as Answer},
    limits,
    model::Position,
    raft::{
        consensus::Consensus,
        freshness::Freshness,
        network::Peers,
        peer::{
            Admission, Group, IdentityLayer, Joined, Newcomer, PeerParts, PeerService, ReadIndexSource, SnapshotStock,
            Standing, Stocked, Unformed,
        },
        snapshot::Receiver,
        space::Space,
        state_machine::Machine,
        types::{Member, NodeId},
    },
};

/// A silent peer connection is probed this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a flush may take that a peer waits for.
const FLUSH: Duration = Duration::from_secs(30);

/// A running peer listener.
pub(super) struct PeerListener {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl PeerListener {
    /// Serves these routes to peers that pass the gate. `stop` is told when the listener is closed.
    pub(super) async fn start(
        environment: &Environment,
        address: &str,
        (gate, routes): (IdentityLayer, Routes),
        stop: watch::Sender<bool>,
        faults: Faults,
    ) -> Result<Self, Fault> {
        let listener = environment.net.listen(address).await;
        let listener =
            listener.map_err(|error| Fault::new(format!("cannot listen for peers on {address}: {error}")))?;
        let mut stopped = stop.subscribe();
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .initial_stream_window_size(Some(1 << 20))
            .initial_connection_window_size(Some(8 << 20))
            .layer(gate)
            .add_routes(routes)
            .serve_with_incoming_shutdown(net::incoming(listener), async move {
                // A dropped sender means that the node is gone.
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                faults.report(Fault::new(format!("the peer listener failed: {error}")));
            }
        });
        Ok(Self { stop, task })
    }

    /// Closes the listener. Peers keep their connections open for as long as they live, so nothing is waited for.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.abort();
        // Cancelled is what it is to be.
        let _ = self.task.await;
    }
}

/// What a new directory knows: nothing.
struct NewStanding;

impl Standing for NewStanding {
    fn is_empty(&self) -> bool {
        true
    }

    fn members(&self) -> BTreeMap<NodeId, u128> {
        BTreeMap::new()
    }
}

/// What a node knows of itself and the members.
struct NodeStanding(Arc<Shared>);

impl Standing for NodeStanding {
    fn is_empty(&self) -> bool {
        let Shared { log, machine, .. } = &*self.0;
        log.last().is_none() && log.vote().is_none() && machine.progress().borrow().position.index == 0
    }

    fn members(&self) -> BTreeMap<NodeId, u128> {
        self.0.consensus.directories()
    }

    fn state_hash(&self, index: u64) -> Option<u128> {
        self.0.machine.checks().noted(index)
    }

    fn directory_of(&self, node: NodeId) -> Option<u128> {
        self.0.consensus.directory_of(node)
    }

    fn removed(&self) -> BTreeMap<NodeId, u128> {
        (*self.0.membership.removed()).clone()
    }

    fn is_removed(&self, node: NodeId, directory: u128) -> bool {
        self.0.membership.removed().get(&node) == Some(&directory)
    }
}

/// The leader's answer to ReadIndex calls of followers: they share its rounds with its own reads.
struct LeaderReads {
    consensus: Consensus,
    read_index: ReadIndex,
}

impl ReadIndexSource for LeaderReads {
    fn read_index(&self) -> BoxFuture<'_, Answer<u64, Error>> {
        Box::pin(async move {
            match self.consensus.leadership() {
                crate::raft::consensus::Leadership::Me { .. } => self.read_index.get().await,
                _ => Err(Error::Unavailable { reason: "this node does not lead".into(), leader: None }),
            }
        })
    }
}

/// The gate and the service of a directory that belongs to no cluster yet.
pub(super) fn unformed(
    environment: &Environment,
    directory: &Arc<Directory>,
    freshness: &Arc<Freshness>,
    addresses: (String, String),
    closed: watch::Receiver<bool>,
) -> (IdentityLayer, Routes) {
    let identity = directory.identity();
    let standing: Arc<dyn Standing> = Arc::new(NewStanding);
    let parts = PeerParts {
        identity: identity.clone(),
        consensus: Unformed,
        standing: Arc::clone(&standing),
        directory: Arc::clone(directory) as _,
        reads: Arc::new(NoReads),
        snapshots: Arc::new(NoReads),
        freshness: Arc::clone(freshness),
        space: Arc::new(Space::new(Arc::clone(&environment.clock), directory.path())),
        admission: Arc::new(NoReads),
        addresses,
        closed,
    };
    let service = PeerService::new(environment, parts).into_server();
    (IdentityLayer::new(identity, standing), Routes::new(service))
}

struct NoReads;

impl ReadIndexSource for NoReads {
    fn read_index(&self) -> BoxFuture<'_, Answer<u64, Error>> {
        let reason = "this node belongs to no cluster yet".into();
        Box::pin(async move { Err(Error::Unavailable { reason, leader: None }) })
    }
}

impl Admission for NoReads {
    fn join(&self, _: Newcomer) -> BoxFuture<'_, Answer<Joined>> {
        let reason = "this node belongs to no cluster yet".into();
        Box::pin(async move { Err(Error::Unavailable { reason, leader: None }) })
    }
}

impl SnapshotStock for NoReads {
    fn newest(&self, _: u64) -> BoxFuture<'_, Stocked> {
        Box::pin(async { Err("this node belongs to no cluster yet".into()) })
    }
}

/// The newest files here, as a snapshot for a peer.
struct OwnSnapshots(Machine);

impl SnapshotStock for OwnSnapshots {
    fn newest(&self, least_index: u64) -> BoxFuture<'_, Stocked> {
        Box::pin(async move {
            flushed_up_to(&self.0, least_index).await?;
            self.0.own_snapshot().map_err(|fault| fault.to_string())
        })
    }
}

/// Waits until the files reach up to an index, at which they are made to end if need be. Errors: what this node does instead.
pub(super) async fn flushed_up_to(machine: &Machine, index: u64) -> std::result::Result<(), String> {
    let mut flushed = machine.store().flushed();
    let reaches = |position: &Option<Position>| position.is_some_and(|position| position.index >= index);
    if !reaches(&flushed.borrow()) {
        let applied = machine.progress().borrow().position;
        if applied.index < index {
            return Err(format!("has applied {applied} only"));
        }
        machine.freeze_now();
        let flushed = tokio::time::timeout(FLUSH, flushed.wait_for(reaches)).await;
        flushed.map_err(|_| "is still flushing")?.map_err(|_| "is stopping")?;
    }
    Ok(())
}

/// The gate and the service of a running node; `calls` are the client services, for the calls that other nodes
/// pass on.
pub(super) fn formed(
    node: &Node,
    calls: Routes,
    addresses: (String, String),
    closed: watch::Receiver<bool>,
) -> (IdentityLayer, Routes) {
    let (shared, peers) = (&node.shared, &node.shared.network);
    let identity = shared.directory.identity();
    let standing: Arc<dyn Standing> = Arc::new(NodeStanding(Arc::clone(shared)));
    let faults = shared.faults.clone();
    let receiver = Receiver::new(shared.machine.store().clone(), Arc::new(move |fault| faults.report(fault)));
    let parts = PeerParts {
        identity: identity.clone(),
        consensus: Group::new(shared.consensus.raft().clone(), receiver),
        standing: Arc::clone(&standing),
        directory: Arc::clone(&shared.directory) as _,
        snapshots: Arc::new(OwnSnapshots(shared.machine.clone())),
        reads: Arc::new(LeaderReads { consensus: shared.consensus.clone(), read_index: shared.read_index.clone() }),
        freshness: Arc::clone(peers.freshness()),
        space: Arc::clone(peers.space()),
        admission: Arc::new(node.clone()),
        addresses,
        closed,
    };
    let service = PeerService::new(&shared.environment, parts).into_server();
    let service = service.max_encoding_message_size(limits::PEER_DECODE_BYTES);
    (IdentityLayer::new(identity, standing), calls.add_service(service))
}

/// How a follower asks the leader.
pub(super) struct AskOverPeers {
    pub(super) peers: Arc<Peers>,
    pub(super) limit: Duration,
}

impl super::read::AskLeader for AskOverPeers {
    fn read_index(&self, leader: NodeId, member: Member) -> BoxFuture<'static, Answer<u64>> {
        let (peers, limit) = (Arc::clone(&self.peers), self.limit);
        Box::pin(async move { peers.read_index(leader, &member, limit).await })
    }
}
