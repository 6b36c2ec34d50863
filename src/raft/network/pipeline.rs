//! Several appends under way to one follower, in a stream that keeps them in order.
//!
//! With one at a time, a batch of entries would wait for the follower's disk to have the batch before it. Each answer is
//! matched with its request by the order, and by the number of the call.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use openraft::{RPCTypes, entry::RaftEntry, network::RPCOption, raft::StreamAppendResult};
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Code, Streaming};

use super::adapter::{Aside, PeerConnection, Result, append_limit, unreachable};
use crate::{
    proto::v1::{AppendRequest, AppendResponse},
    raft::{
        network::Peers,
        types::{LogId, NodeId, TypeConfig},
        wire::{Append, Appended},
    },
};

/// Appends that are under way at most.
const WINDOW: usize = 4;
/// What a connection to a learner takes all of: so one append at a time.
const WHOLE_WINDOW: u32 = WINDOW as u32;

/// What openraft is answered, one by one.
pub(super) type Answers<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>>>;

/// An append that was sent.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) call: u64,
    pub(super) bytes: u64,
    pub(super) at: Instant,
    previous: Option<LogId>,
    last: Option<LogId>,
}

impl Sent {
    /// One that goes alone.
    pub(super) fn now(call: u64, bytes: u64) -> Self {
        Self { call, bytes, at: Instant::now(), previous: None, last: None }
    }
}

/// The appends of one stream.
struct Flow {
    peers: Arc<Peers>,
    node: NodeId,
    aside: Arc<Aside>,
    /// In the order in which they were sent.
    sent: Mutex<VecDeque<Sent>>,
    room: Semaphore,
}

impl Flow {
    fn sent(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        // Nothing panics while it is held.
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next append, once there is room for it.
    async fn next(&self, input: &mut (impl Stream<Item = Append> + Unpin)) -> Option<AppendRequest> {
        self.room.acquire().await.ok()?.forget();
        let append = input.next().await?;
        if !append.entries.is_empty() && self.peers.members().is_learner(self.node) {
            let others = self.room.acquire_many(WHOLE_WINDOW - 1).await.ok()?;
            self.aside.rest().await;
            drop(others);
        }
        let previous = append.prev_log_id;
        let last = append.entries.last().map(RaftEntry::log_id).or(previous);
        let (request, bytes) = self.aside.request(&self.peers, append);
        self.sent().push_back(Sent { previous, last, ..Sent::now(request.call, bytes) });
        Some(request)
    }
}

/// Opens the stream.
///
/// Errors: the node is not reached, or its program is too old, which the connection remembers.
pub(super) async fn open<D: 'static>(
    connection: &mut PeerConnection<D>,
    input: impl Stream<Item = Append> + Send + Unpin + 'static,
    option: RPCOption,
) -> Result<Answers<'_>> {
    let lane = connection.appends;
    let mut client = connection.client(lane).map_err(unreachable)?;
    let flow = Arc::new(Flow {
        peers: connection.peers.clone(),
        node: connection.node,
        aside: connection.aside.clone(),
        sent: Mutex::default(),
        room: Semaphore::new(WINDOW),
    });
    let outgoing = stream::unfold((input, flow.clone()), |(mut input, flow)| async move {
        let request = flow.next(&mut input).await?;
        Some((request, (input, flow)))
    });
    let mut unknown = false;
    let opening = async {
        let opened = client.replicate(outgoing).await;
        opened.inspect_err(|status| unknown = status.code() == Code::Unimplemented)
    };
    let opened = connection.answer(lane, RPCTypes::AppendEntries, append_limit(option.soft_ttl(), 1), opening).await;
    connection.one_at_a_time |= unknown;
    let incoming = Incoming { connection, flow, answers: opened?, heard: Instant::now(), ttl: option.soft_ttl() };
    let answers = stream::unfold(Some(incoming), |incoming| async move {
        let mut incoming = incoming?;
        let (answer, goes_on) = incoming.next().await?;
        Some((answer, goes_on.then_some(incoming)))
    });
    Ok(answers.boxed())
}

/// The answers of one stream.
struct Incoming<'s, D> {
    connection: &'s mut PeerConnection<D>,
    flow: Arc<Flow>,
    answers: Streaming<AppendResponse>,
    /// When the last answer came.
    heard: Instant,
    ttl: Duration,
}

impl<D> Incoming<'_, D> {
    /// The next answer, and whether others may follow.
    async fn next(&mut self) -> Option<(Result<StreamAppendResult<TypeConfig>>, bool)> {
        loop {
            let lane = self.connection.appends;
            let oldest = self.flow.sent().front().copied();
            // An append waits for those before it.
            let limit = append_limit(self.ttl, oldest.map_or(0, |sent| sent.bytes).max(1));
            let begun = oldest.map_or_else(Instant::now, |sent| sent.at.max(self.heard));
            match tokio::time::timeout_at(begun + limit, self.answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    let result = self.take(&answer);
                    let goes_on = matches!(&result, Ok((Ok(_), true)));
                    return Some((result.map(|(result, _)| result), goes_on));
                }
                Ok(Ok(None)) if oldest.is_none() => return None,
                Ok(Ok(None)) => {
                    return Some((Err(unreachable("the stream of appends ended before its answers")), false));
                }
                Ok(Err(status)) => return Some((Err(self.connection.refused(lane, &status)), false)),
                Err(_) if oldest.is_some() => {
                    return Some((Err(self.connection.timeout(RPCTypes::AppendEntries, limit).into()), false));
                }
                // Nothing was asked so far.
                Err(_) => {}
            }
        }
    }

    /// What an answer says of the oldest append that has none, and whether that was taken wholly.
    fn take(&mut self, answer: &AppendResponse) -> Result<(StreamAppendResult<TypeConfig>, bool)> {
        let sent = self.flow.sent().pop_front().ok_or_else(|| unreachable("an answer to nothing"))?;
        self.heard = Instant::now();
        let appended = self.connection.appended(&sent, answer)?;
        self.flow.room.add_permits(1);
        let wholly = match &appended {
            Appended::Success => true,
            Appended::PartialSuccess(last) => *last == sent.last,
            Appended::Conflict if sent.previous.is_none() => {
                return Err(unreachable("the node says that its log differs where there is none"));
            }
            Appended::Conflict | Appended::HigherVote(_) => false,
        };
        Ok((appended.into_stream_result(sent.previous, sent.last), wholly))
    }
}
