//! The gRPC service that the other nodes of the cluster call. The calling side is [`super::network`].
//!
//! Every call has passed the gate ([`check`]) when it gets here. A handler opens the envelope, hands the
//! request to openraft and seals the answer; a node whose Raft has stopped answers `UNAVAILABLE`, which the
//! caller tries again.

mod append;
pub mod check;
pub mod receive;
mod unformed;

use std::{collections::BTreeMap, future::Future, sync::Arc};

use futures_util::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use openraft::{
    Raft,
    errors::{Fatal, RaftError},
    raft::{StreamAppendError, StreamAppendResult},
    storage::RaftStateMachine,
};
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status, Streaming};

pub use check::{Caller, IdentityLayer};
pub use receive::{SnapshotReceiver, SnapshotSink};
pub use unformed::Unformed;

use super::{
    freshness::Freshness,
    network::{
        identity::{Identity, from_hex, hex},
        snapshot::{SnapshotReader, served},
    },
    space::Space,
    types::{Member, NodeId, Position, Runtime, TypeConfig, Vote},
    wire::{self, Append, Appended, Ballot, Balloted, Installed, Snapshot, SnapshotMeta, Transfer, Transferred},
};
use crate::{
    environment::{Environment, Executor},
    error::{Error, Fault},
    limits,
    model::features,
    proto::v1::{
        AdoptRequest, AdoptResponse, AppendRequest, AppendResponse, FetchSnapshotRequest, Frame, IdentifyRequest,
        IdentifyResponse, JoinRequest, JoinResponse, ReadIndexRequest, ReadIndexResponse, SnapshotChunk,
        StateHashRequest, StateHashResponse,
        peer_server::{Peer, PeerServer},
    },
    storage::codec::DecodeError,
};

/// Snapshots that may be sent at once to peers that ask.
const FETCHES: usize = 2;

/// What the service needs of Raft: openraft's, or a test's.
pub trait Consensus: Send + Sync + 'static {
    /// What snapshots are received into.
    type Receiver: SnapshotReceiver;

    /// Appends entries, or takes note of a heartbeat.
    fn append(&self, request: Append) -> impl Future<Output = Result<Appended, Fatal<TypeConfig>>> + Send;
    /// The same for many, in order, several under way. Ends after the first that is not taken.
    fn append_all(
        &self,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<Appended, Fatal<TypeConfig>>>;
    /// Votes.
    fn vote(&self, request: Ballot) -> impl Future<Output = Result<Balloted, Fatal<TypeConfig>>> + Send;
    /// Says how it would vote.
    fn pre_vote(&self, request: Ballot) -> impl Future<Output = Result<Balloted, Fatal<TypeConfig>>> + Send;
    /// Takes over the lead, or lets another do so.
    fn transfer(&self, request: Transfer) -> impl Future<Output = Result<Transferred, Fatal<TypeConfig>>> + Send;
    /// Where a snapshot is received.
    fn receiver(&self) -> &Self::Receiver;
    /// Installs a snapshot that was received wholly.
    fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        data: <Self::Receiver as SnapshotReceiver>::Data,
    ) -> impl Future<Output = Result<Installed, Fatal<TypeConfig>>> + Send;
}

/// openraft, and where its snapshots are received.
pub struct Group<SM: RaftStateMachine<TypeConfig>, R> {
    raft: Raft<TypeConfig, SM>,
    receiver: R,
}

impl<SM: RaftStateMachine<TypeConfig>, R> Group<SM, R> {
    /// Around a running Raft.
    pub fn new(raft: Raft<TypeConfig, SM>, receiver: R) -> Self {
        Self { raft, receiver }
    }
}

impl<SM, R> Consensus for Group<SM, R>
where
    SM: RaftStateMachine<TypeConfig>,
    R: SnapshotReceiver<Data = SM::SnapshotData>,
{
    type Receiver = R;

    async fn append(&self, request: Append) -> Result<Appended, Fatal<TypeConfig>> {
        self.raft.append_entries(request).await.map_err(fatal)
    }

    fn append_all(
        &self,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<Appended, Fatal<TypeConfig>>> {
        let appended = |result: StreamAppendResult<TypeConfig>| match result {
            Ok(last) => Appended::PartialSuccess(last),
            Err(StreamAppendError::Conflict(_)) => Appended::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => Appended::HigherVote(vote),
        };
        let raft = self.raft.clone();
        // It starts a task, which has to inherit a seed though it makes no choices.
        let answers = Runtime::scope(0, async move { raft.stream_append(requests).boxed() });
        stream::once(answers).flatten().map_ok(appended).boxed()
    }

    async fn vote(&self, request: Ballot) -> Result<Balloted, Fatal<TypeConfig>> {
        self.raft.vote(request).await.map_err(fatal)
    }

    async fn pre_vote(&self, request: Ballot) -> Result<Balloted, Fatal<TypeConfig>> {
        self.raft.pre_vote(request).await.map_err(fatal)
    }

    async fn transfer(&self, request: Transfer) -> Result<Transferred, Fatal<TypeConfig>> {
        self.raft.handle_transfer_leader(request).await
    }

    fn receiver(&self) -> &R {
        &self.receiver
    }

    async fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        data: SM::SnapshotData,
    ) -> Result<Installed, Fatal<TypeConfig>> {
        self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: data }).await
    }
}

fn fatal(error: RaftError<TypeConfig>) -> Fatal<TypeConfig> {
    match error {
        RaftError::Fatal(fatal) => fatal,
        RaftError::APIError(never) => match never {},
    }
}

/// What a node knows of its own state and of the others.
pub trait Standing: Send + Sync + 'static {
    /// Whether its log, its vote and its state all are as in a new directory.
    fn is_empty(&self) -> bool;
    /// The data directory of each member, as the newest membership here has it.
    fn members(&self) -> BTreeMap<NodeId, u128>;
    /// The highest feature level that its program knows.
    fn feature_level(&self) -> u32 {
        features::LEVEL
    }
    /// The hash of the state at a log index, if it is known.
    fn state_hash(&self, _index: u64) -> Option<u128> {
        None
    }
    /// The data directory of each node that was a member and is none any more.
    fn removed(&self) -> BTreeMap<NodeId, u128> {
        BTreeMap::new()
    }
    /// Whether a node was a member with this directory and is none any more. Called for every request of a stranger.
    fn is_removed(&self, node: NodeId, directory: u128) -> bool {
        self.removed().get(&node) == Some(&directory)
    }
    /// That of one member. Called for every request of a peer.
    fn directory_of(&self, node: NodeId) -> Option<u128> {
        self.members().get(&node).copied()
    }
}

/// The data directory, which remembers the cluster.
pub trait Adopt: Send + Sync + 'static {
    /// Makes the directory belong to a cluster, durably, if it belongs to none: the cluster that it belongs to
    /// afterwards.
    ///
    /// Errors: it could not be written; the node is broken.
    fn adopt(&self, cluster: u128) -> Result<u128, Fault>;
}

/// A node that wants to become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its id.
    pub node: NodeId,
    /// Its data directory, and where it is reached.
    pub member: Member,
    /// Whether it is to stay a learner.
    pub learner: bool,
}

/// What became of somebody's wish to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It belongs to this cluster.
    Cluster(u128),
    /// The leader decides, who is reached here by peers.
    AskAt(String),
}

/// Who decides whether a node may become a member.
pub trait Admission: Send + Sync + 'static {
    /// Makes a node a member. Again with the same one is fine.
    ///
    /// Errors: as an answer to the node; after one that is retryable it asks again.
    fn join(&self, newcomer: Newcomer) -> BoxFuture<'_, Result<Joined, Error>>;
}

/// Where the leader's read index comes from.
pub trait ReadIndexSource: Send + Sync + 'static {
    /// An index that covers all writes acknowledged before this call.
    ///
    /// Errors: `Unavailable` if this node does not lead.
    fn read_index(&self) -> BoxFuture<'_, Result<u64, Error>>;
}

/// What a snapshot holds, and its bytes; or why there is none.
pub type Stocked = Result<(SnapshotMeta, Box<dyn SnapshotReader>), String>;

/// Where a snapshot for a peer comes from that has lost its state.
pub trait SnapshotStock: Send + Sync + 'static {
    /// The newest snapshot here, what it holds and its bytes; one that reaches `least_index` if this node can make one.
    ///
    /// Errors: why there is none.
    fn newest(&self, least_index: u64) -> BoxFuture<'_, Stocked>;
}

/// The `Peer` service of one node. Cheap to clone.
pub struct PeerService<C> {
    parts: Arc<PeerParts<C>>,
    executor: Arc<dyn Executor>,
    /// Held while a snapshot is received: by the one stream that may.
    receiving: Arc<Semaphore>,
    /// Held while a snapshot is sent to a peer that asked for it.
    fetching: Arc<Semaphore>,
}

/// What a [`PeerService`] is made of.
pub struct PeerParts<C> {
    /// Who this node is.
    pub identity: Identity,
    /// Raft.
    pub consensus: C,
    /// What the node knows of itself.
    pub standing: Arc<dyn Standing>,
    /// Its data directory.
    pub directory: Arc<dyn Adopt>,
    /// The leader's read index.
    pub reads: Arc<dyn ReadIndexSource>,
    /// Snapshots for peers that ask.
    pub snapshots: Arc<dyn SnapshotStock>,
    /// How old this node's data is.
    pub freshness: Arc<Freshness>,
    /// The room on its disk.
    pub space: Arc<Space>,
    /// Who decides on new members.
    pub admission: Arc<dyn Admission>,
    /// Where it is configured to be reached, by peers and by clients.
    pub addresses: (String, String),
    /// Whether the listener is closed: then streams end.
    pub closed: watch::Receiver<bool>,
}

impl<C: Consensus> PeerService<C> {
    /// The service of this node.
    pub fn new(environment: &Environment, parts: PeerParts<C>) -> Self {
        let receiving = Arc::new(Semaphore::new(1));
        let fetching = Arc::new(Semaphore::new(FETCHES));
        Self { parts: Arc::new(parts), executor: environment.executor.clone(), receiving, fetching }
    }

    /// For a listener that has an [`IdentityLayer`].
    pub fn into_server(self) -> PeerServer<Self> {
        PeerServer::new(self).max_decoding_message_size(limits::PEER_DECODE_BYTES)
    }
}

#[tonic::async_trait]
impl<C: Consensus> Peer for PeerService<C> {
    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        let PeerParts { identity, standing, addresses, .. } = &*self.parts;
        let directories = |of: BTreeMap<NodeId, u128>| of.into_iter().map(|(node, id)| (node, hex(id))).collect();
        Ok(Response::new(IdentifyResponse {
            node_id: identity.node(),
            directory: hex(identity.directory()),
            cluster: identity.cluster().map(hex).unwrap_or_default(),
            empty: standing.is_empty(),
            members: directories(standing.members()),
            removed: directories(standing.removed()),
            peer_address: addresses.0.clone(),
            client_address: addresses.1.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            feature_level: standing.feature_level(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let caller = request.extensions().get::<Caller>().copied();
        let JoinRequest { node_id, directory, peer_address, client_address, learner } = request.into_inner();
        let directory =
            from_hex(&directory).ok_or_else(|| Status::invalid_argument("directory must be 32 hex digits"))?;
        if caller != Some(Caller { node: node_id, directory }) {
            return Err(Status::permission_denied("a node joins for itself, as the one that it says it is"));
        }
        let member = Member { peer_address, client_address, directory };
        let joined = self.parts.admission.join(Newcomer { node: node_id, member, learner }).await;
        Ok(Response::new(match joined? {
            Joined::Cluster(cluster) => JoinResponse { cluster: hex(cluster), ..JoinResponse::default() },
            Joined::AskAt(address) => JoinResponse { leader_peer_address: address, ..JoinResponse::default() },
        }))
    }

    async fn adopt(&self, request: Request<AdoptRequest>) -> Result<Response<AdoptResponse>, Status> {
        let AdoptRequest { cluster, initialiser } = request.into_inner();
        let cluster = from_hex(&cluster).ok_or_else(|| Status::invalid_argument("cluster must be 32 hex digits"))?;
        let PeerParts { identity, standing, directory, .. } = &*self.parts;
        let node = identity.node();
        if identity.cluster().is_none() && !standing.is_empty() {
            return Err(Status::failed_precondition(format!(
                "node {node} is not empty, and cannot join a new cluster"
            )));
        }
        let belongs = directory.adopt(cluster).map_err(|fault| {
            tracing::error!(%fault, "cannot join a cluster");
            Status::internal(format!("node {node} cannot remember its cluster: {fault}"))
        })?;
        if belongs != cluster {
            let text = format!("node {node} already belongs to cluster {}, not {}", hex(belongs), hex(cluster));
            return Err(Status::failed_precondition(text));
        }
        tracing::info!(cluster = hex(cluster), initialiser, "joined the cluster");
        Ok(Response::new(AdoptResponse {}))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let (append, beside) = self.parts.open(request.into_inner())?;
        let answer = self.parts.consensus.append(append).await.map_err(|fatal| self.parts.stopped(&fatal))?;
        Ok(Response::new(self.parts.appended(&answer, beside)))
    }

    type ReplicateStream = BoxStream<'static, Result<AppendResponse, Status>>;

    async fn replicate(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let caller = request.extensions().get::<Caller>().copied();
        Ok(Response::new(self.parts.answers(caller, request.into_inner())))
    }

    async fn vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let Frame { envelope, call } = request.into_inner();
        let request = wire::open_vote(&envelope).map_err(malformed)?;
        let answer = self.parts.consensus.vote(request).await.map_err(|fatal| self.parts.stopped(&fatal))?;
        Ok(Response::new(Frame { envelope: wire::voted(&answer), call }))
    }

    async fn pre_vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let Frame { envelope, call } = request.into_inner();
        let request = wire::open_vote(&envelope).map_err(malformed)?;
        let answer = self.parts.consensus.pre_vote(request).await.map_err(|fatal| self.parts.stopped(&fatal))?;
        Ok(Response::new(Frame { envelope: wire::voted(&answer), call }))
    }

    async fn transfer_leader(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let Frame { envelope, call } = request.into_inner();
        let request = wire::open_transfer(&envelope).map_err(malformed)?;
        let answer = self.parts.consensus.transfer(request).await.map_err(|fatal| self.parts.stopped(&fatal))?;
        Ok(Response::new(Frame { envelope: wire::transferred(&answer), call }))
    }

    async fn install_snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<Frame>, Status> {
        let Ok(place) = self.receiving.clone().try_acquire_owned() else {
            return Err(Status::unavailable("another snapshot is being received"));
        };
        let consensus = &self.parts.consensus;
        let (head, data) = receive::receive(request, consensus.receiver(), self.executor.as_ref(), place).await?;
        let answer = consensus.install(head.vote, head.meta, data).await.map_err(|fatal| self.parts.stopped(&fatal))?;
        Ok(Response::new(Frame { envelope: wire::installed(&answer), call: head.transfer }))
    }

    type FetchSnapshotStream = BoxStream<'static, Result<SnapshotChunk, Status>>;

    async fn fetch_snapshot(
        &self,
        request: Request<FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let Ok(place) = self.fetching.clone().try_acquire_owned() else {
            return Err(Status::unavailable("other nodes are fetching snapshots"));
        };
        let caller = request.extensions().get::<Caller>().map(|caller| caller.node);
        let (meta, reader) =
            self.parts.snapshots.newest(request.into_inner().least_index).await.map_err(Status::unavailable)?;
        let position = meta.last_log_id.map(Position::from).unwrap_or_default();
        tracing::warn!(caller, %position, "sending a snapshot to a peer that has lost its state");
        let chunks = served(wire::fetched(0, &meta), reader, self.executor.as_ref());
        Ok(Response::new(Box::pin(chunks.inspect(move |_| {
            // Given back with the stream.
            let _ = &place;
        }))))
    }

    async fn state_hash(&self, request: Request<StateHashRequest>) -> Result<Response<StateHashResponse>, Status> {
        let StateHashRequest { index } = request.into_inner();
        let hash = self.parts.standing.state_hash(index).map(hex).unwrap_or_default();
        let crc32c = wire::state_hash_sum(index, &hash);
        Ok(Response::new(StateHashResponse { hash, crc32c }))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexResponse>, Status> {
        let call = request.into_inner().call;
        match self.parts.reads.read_index().await {
            Ok(index) => {
                Ok(Response::new(ReadIndexResponse { index, call, crc32c: wire::read_index_sum(index, call) }))
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

fn malformed(error: DecodeError) -> Status {
    Status::invalid_argument(format!("malformed request: {error}"))
}

#[cfg(test)]
pub(crate) mod testing;
