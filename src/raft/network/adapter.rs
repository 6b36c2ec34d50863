//! What openraft calls when it wants something from another node.
//!
//! Every failure is `Unreachable` (openraft waits a moment, then tries again) or `Timeout`; which one a
//! remote node had is not told apart, since the answer is the same: try again, the node may come back.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, ready},
    io,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture};
use openraft::{
    RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{Backoff, RPCOption, stream_append_sequential},
};
use tokio::time::Instant;
use tonic::{Response, Status};

use super::{
    peers::{Client, Lane, Peers, is_odd, said},
    pipeline::{self, Answers, Sent},
    snapshot::{Outgoing, SILENCE, SnapshotSource},
};
use crate::{
    environment::{Environment, Executor},
    proto::v1::{AppendRequest, AppendResponse, Frame, Pulse},
    raft::{
        types::{Member, NodeId, TypeConfig, Vote},
        wire::{self, Append, Appended, Ballot, Balloted, Installed, Snapshot, Transfer, Transferred},
    },
    storage::codec::DecodeError,
};

pub(super) type Result<T, E = RPCError<TypeConfig>> = std::result::Result<T, E>;

/// How long a follower may take to put entries on its disk, on top of the time to send them. openraft's own
/// limit is made from the heartbeat interval: right for a heartbeat, but with it a follower whose disk
/// stalls for a moment would be sent the same entries again and again, and stall more.
const APPEND_PATIENCE: Duration = Duration::from_secs(1);
/// The slowest network on which a full append still arrives in time, in bytes per millisecond.
const SLOWEST_BYTES_PER_MS: u64 = 4 << 10;
/// Between two appends with entries a learner has so many times as long as the first took for nothing, so that a node which
/// joins takes no more than a share of the leader from those that write. No write waits for a learner.
const LEARNER_REST: u32 = 6;
/// The longest such pause.
const LEARNER_REST_MAX: Duration = Duration::from_millis(100);

/// Makes connections for openraft. `D` is the state machine's snapshot data.
pub struct PeerNetwork<D> {
    peers: Arc<Peers>,
    executor: Arc<dyn Executor>,
    transfers: u64,
    data: PhantomData<fn() -> D>,
}

impl<D> PeerNetwork<D> {
    /// Over these connections; snapshots are read by a worker of the environment's executor.
    pub fn new(environment: &Environment, peers: Arc<Peers>) -> Self {
        Self { peers, executor: environment.executor.clone(), transfers: 0, data: PhantomData }
    }

    fn connection(&mut self, node: NodeId, member: &Member, appends: Lane) -> PeerConnection<D> {
        self.transfers += 1;
        PeerConnection {
            peers: self.peers.clone(),
            executor: self.executor.clone(),
            node,
            member: member.clone(),
            appends,
            clients: BTreeMap::new(),
            transfer: self.transfers << 16,
            aside: Arc::default(),
            one_at_a_time: None,
            data: PhantomData,
        }
    }
}

impl<D: SnapshotSource> RaftNetworkFactory<TypeConfig> for PeerNetwork<D> {
    type Network = PeerConnection<D>;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Self::Network {
        self.connection(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Member) -> Self::Network {
        self.connection(target, node, Lane::Liveness)
    }
}

/// One node, as openraft talks to it.
pub struct PeerConnection<D> {
    pub(super) peers: Arc<Peers>,
    executor: Arc<dyn Executor>,
    pub(super) node: NodeId,
    member: Member,
    pub(super) appends: Lane,
    clients: BTreeMap<Lane, Client>,
    transfer: u64,
    pub(super) aside: Arc<Aside>,
    /// Until when the node is taken for one that does not know streams of appends.
    pub(super) one_at_a_time: Option<Instant>,
    data: PhantomData<fn() -> D>,
}

/// What goes beside appends to a node.
#[derive(Default)]
pub(super) struct Aside {
    /// That of the last answer.
    pulse: Mutex<Option<Pulse>>,
    /// Before this it is sent no entries.
    rests_until: Mutex<Option<Instant>>,
}

impl Aside {
    /// Waits until entries may be sent.
    pub(super) async fn rest(&self) {
        let until = lock(&self.rests_until).take();
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// An append as it is sent, and the bytes of its entries.
    pub(super) fn request(&self, peers: &Peers, call: u64, append: Append) -> (AppendRequest, u64) {
        let mut request = wire::append(append);
        // In this order: what this node knows of itself is to be newer than the answer that is echoed.
        request.echo = *lock(&self.pulse);
        wire::set_lead(&mut request, peers.freshness().lead());
        request.call = call;
        request.sum = wire::append_sum(&request);
        let bytes = request.entries.iter().map(|entry| entry.len() as u64).sum();
        (request, bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D> PeerConnection<D> {
    pub(super) fn client(&mut self, lane: Lane) -> io::Result<Client> {
        if let Some(moved) = self.peers.moved(self.node, &self.member) {
            self.member = moved;
            self.clients.clear();
        }
        if let Some(client) = self.clients.get(&lane) {
            return Ok(client.clone());
        }
        let client = self.peers.client(self.node, &self.member, lane)?;
        self.clients.insert(lane, client.clone());
        Ok(client)
    }

    pub(super) fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout { action, id: self.peers.identity().node(), target: self.node, timeout }
    }

    /// Waits for an answer, but not longer than `limit`.
    pub(super) async fn answer<T>(
        &mut self,
        lane: Lane,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.refused(lane, &status)),
            Err(_) => Err(self.timeout(action, limit).into()),
        }
    }

    /// Takes note of what the node said instead of an answer.
    pub(super) fn refused(&mut self, lane: Lane, status: &Status) -> RPCError<TypeConfig> {
        self.peers.refused(self.node, &self.member, status);
        if is_odd(status) {
            self.let_go(lane);
        }
        unreachable(said(status))
    }

    /// What the answer to this call says. A connection that brings another, or none that can be read, is let go.
    fn open<A: ?Sized, T>(
        &mut self,
        lane: Lane,
        (call, answered): (u64, u64),
        answer: &A,
        open: fn(&A) -> Result<T, DecodeError>,
    ) -> Result<T> {
        let opened = wire::answers(call, answered).and_then(|()| open(answer));
        opened.map_err(|error| {
            self.let_go(lane);
            unreachable(format_args!("malformed answer: {error}"))
        })
    }

    #[cfg(test)]
    pub(super) fn rests(&self) -> bool {
        lock(&self.aside.rests_until).is_some()
    }

    /// Lets a learner rest that was just sent entries.
    fn rest(&mut self, took: Duration) {
        let rest = self.peers.members().is_learner(self.node).then(|| (took * LEARNER_REST).min(LEARNER_REST_MAX));
        *lock(&self.aside.rests_until) = rest.map(|rest| Instant::now() + rest);
    }

    /// What the node says of an append.
    pub(super) fn appended(&mut self, sent: &Sent, answer: &AppendResponse) -> Result<Appended> {
        let appended = self.open(self.appends, (sent.call, answer.call), answer, wire::open_append_answer)?;
        if sent.bytes > 0 {
            self.rest(sent.at.elapsed());
        }
        *lock(&self.aside.pulse) = answer.pulse;
        if let Some(disk) = answer.disk {
            self.peers.space().reported(self.node, disk.into());
        }
        Ok(appended)
    }

    fn let_go(&mut self, lane: Lane) {
        self.peers.let_go(self.node, lane);
        self.clients.remove(&lane);
    }

    /// Asks something small.
    async fn ask<T, F>(
        &mut self,
        (action, option): (RPCTypes, &RPCOption),
        envelope: Bytes,
        send: impl FnOnce(Client, Frame) -> F,
        open: fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<Frame>, Status>>,
    {
        let client = self.client(Lane::Liveness).map_err(unreachable)?;
        let call = self.peers.next_call();
        let answer = send(client, Frame { envelope, call });
        let answer = self.answer(Lane::Liveness, action, option.soft_ttl(), answer).await?;
        self.open(Lane::Liveness, (call, answer.call), answer.envelope.as_ref(), open)
    }
}

impl<D: SnapshotSource> RaftNetworkV2<TypeConfig> for PeerConnection<D> {
    type SnapshotData = D;

    async fn append_entries(&mut self, rpc: Append, option: RPCOption) -> Result<Appended> {
        if !rpc.entries.is_empty() {
            self.aside.rest().await;
        }
        let mut client = self.client(self.appends).map_err(unreachable)?;
        let call = self.peers.next_call();
        let mut sent = Sent::new(call, &rpc, 0);
        let (request, bytes) = self.aside.request(&self.peers, call, rpc);
        sent.bytes = bytes;
        let limit = append_limit(option.soft_ttl(), bytes);
        let answer = self.answer(self.appends, RPCTypes::AppendEntries, limit, client.append(request)).await?;
        self.appended(&sent, &answer)
    }

    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> BoxFuture<'s, Result<Answers<'s>>>
    where
        S: Stream<Item = Append> + Send + Unpin + 'static,
    {
        if self.one_at_a_time.is_some_and(|until| Instant::now() < until) {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(ready(Ok(pipeline::answers(self, input, option))))
    }

    async fn vote(&mut self, rpc: Ballot, option: RPCOption) -> Result<Balloted> {
        let send = |mut client: Client, frame| async move { client.vote(frame).await };
        self.ask((RPCTypes::Vote, &option), wire::vote(&rpc), send, wire::open_voted).await
    }

    async fn pre_vote(&mut self, rpc: Ballot, option: RPCOption) -> Result<Balloted> {
        let send = |mut client: Client, frame| async move { client.pre_vote(frame).await };
        self.ask((RPCTypes::Vote, &option), wire::vote(&rpc), send, wire::open_voted).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<D>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<Installed, StreamingError<TypeConfig>> {
        let client = self.client(Lane::Snapshot).map_err(unreachable)?;
        self.transfer += 1;
        // openraft's limit is for the whole, this one for a step of it.
        let timeout = self.timeout(RPCTypes::InstallSnapshot, option.hard_ttl().min(SILENCE));
        let outgoing = Outgoing { vote, transfer: self.transfer, meta: snapshot.meta, timeout };
        let sent = outgoing.send(client, snapshot.snapshot, self.executor.as_ref(), cancel).await;
        if let Err(StreamingError::Unreachable(_)) = &sent {
            self.let_go(Lane::Snapshot);
        }
        sent
    }

    async fn transfer_leader(&mut self, req: Transfer, option: RPCOption) -> Result<Transferred> {
        let send = |mut client: Client, frame| async move { client.transfer_leader(frame).await };
        self.ask((RPCTypes::TransferLeader, &option), wire::transfer(&req), send, wire::open_transferred).await
    }

    /// Soon, then less often: a node that restarts is back within a second, one that is gone is no hurry.
    fn backoff(&self) -> Option<Backoff> {
        let delays = [50, 100, 200, 400].into_iter().chain(std::iter::repeat(500));
        Some(Backoff::new(delays.map(Duration::from_millis)))
    }
}

/// How long an append with so many bytes of entries may take.
pub(super) fn append_limit(soft_ttl: Duration, bytes: u64) -> Duration {
    if bytes == 0 {
        return soft_ttl;
    }
    soft_ttl.max(APPEND_PATIENCE) + Duration::from_millis(bytes / SLOWEST_BYTES_PER_MS)
}

pub(super) fn unreachable(error: impl fmt::Display) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_has_time_for_its_bytes_and_a_heartbeat_has_not() {
        let ttl = Duration::from_millis(75);
        assert_eq!(append_limit(ttl, 0), ttl);
        assert_eq!(append_limit(ttl, 100), APPEND_PATIENCE);
        assert_eq!(append_limit(ttl, 2 << 20), Duration::from_millis(1_512));
    }
}
