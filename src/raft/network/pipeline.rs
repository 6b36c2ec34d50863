//! Several appends under way to one follower, in a stream that keeps them in order.
//!
//! With one at a time, a batch of entries would wait for the follower's disk to have the batch before it. Each answer is
//! matched with its request by the order, and by the number of the call.
//!
//! openraft takes from an answer when the follower was still with this leader: at the moment at which the append was made. Which
//! append that was it finds by the end of its entries; of several that end alike it takes the newest, also if that one is not
//! answered yet. A read that relied on this might miss what another leader has written. So the answer to an append is kept back
//! while a later one with the same end is under way, and from when an answer is handed on until openraft asks for the next no
//! append is made.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use openraft::{RPCTypes, entry::RaftEntry, network::RPCOption, raft::StreamAppendResult};
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};
use tonic::{Code, Response, Streaming};

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
const WINDOW: u32 = 4;
/// How long a node is sent one append at a time that did not know the stream. It may be upgraded meanwhile.
const ONE_AT_A_TIME: Duration = Duration::from_secs(60);

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
    /// What it takes of the window.
    room: u32,
}

impl Sent {
    /// An append that is being made; how many bytes it has is not known yet.
    pub(super) fn new(call: u64, append: &Append, room: u32) -> Self {
        let previous = append.prev_log_id;
        let last = append.entries.last().map(RaftEntry::log_id).or(previous);
        Self { call, bytes: 0, at: Instant::now(), previous, last, room }
    }
}

/// The appends of one stream.
struct Flow {
    peers: Arc<Peers>,
    node: NodeId,
    aside: Arc<Aside>,
    room: Semaphore,
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    /// In the order in which they were made.
    sent: VecDeque<Sent>,
    /// Whether openraft has an answer that it may not have looked at: then it is asked for no append.
    handed_on: bool,
    /// Who would ask.
    asking: Option<Waker>,
}

impl Flow {
    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        // Nothing panics while it is held.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next append, once there is room for it; a learner has one at a time.
    async fn next(&self, input: &mut (impl Stream<Item = Append> + Unpin)) -> Option<AppendRequest> {
        let learns = self.peers.members().is_learner(self.node);
        let takes = if learns { WINDOW } else { 1 };
        let room = self.room.acquire_many(takes).await.ok()?;
        let call = self.peers.next_call();
        let append = poll_fn(|cx| {
            let mut under_way = self.under_way();
            if under_way.handed_on {
                under_way.asking = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let next = input.poll_next_unpin(cx);
            if let Poll::Ready(Some(append)) = &next {
                under_way.sent.push_back(Sent::new(call, append, takes));
            }
            next
        });
        let append = append.await?;
        if learns && !append.entries.is_empty() {
            self.aside.rest().await;
        }
        room.forget();
        let (request, bytes) = self.aside.request(&self.peers, call, append);
        if let Some(sent) = self.under_way().sent.back_mut() {
            (sent.bytes, sent.at) = (bytes, Instant::now());
        }
        Some(request)
    }

    /// openraft has looked at the last answer.
    fn go_on(&self) {
        let mut under_way = self.under_way();
        under_way.handed_on = false;
        if let Some(asking) = under_way.asking.take() {
            asking.wake();
        }
    }

    /// Whether the answer to an append may be handed on: none that ends alike is under way.
    fn hand_on(&self, last: Option<LogId>) -> bool {
        let mut under_way = self.under_way();
        under_way.handed_on = !under_way.sent.iter().any(|later| later.last == last);
        under_way.handed_on
    }
}

/// Sends what comes, and hands on the answers. Nothing is opened before something is to be sent: openraft waits there after a
/// failure.
pub(super) fn answers<'s, D: 'static>(
    connection: &'s mut PeerConnection<D>,
    input: impl Stream<Item = Append> + Send + Unpin + 'static,
    option: RPCOption,
) -> Answers<'s> {
    let opening = Some(Stage::Opening(connection, input, option));
    let answers = stream::unfold(opening, |stage| async move {
        let mut incoming = match stage? {
            Stage::Opening(connection, mut input, option) => {
                let first = input.next().await?;
                match open(connection, stream::iter([first]).chain(input), option).await {
                    Ok(incoming) => Box::new(incoming),
                    Err(error) => return Some((Err(error), None)),
                }
            }
            Stage::Open(incoming) => incoming,
        };
        let (answer, goes_on) = incoming.next_answer().await?;
        Some((answer, goes_on.then_some(Stage::Open(incoming))))
    });
    answers.boxed()
}

enum Stage<'s, D, S> {
    Opening(&'s mut PeerConnection<D>, S, RPCOption),
    Open(Box<Incoming<'s, D>>),
}

/// Opens the stream.
///
/// Errors: the node is not reached, or its program is too old, which the connection remembers.
async fn open<D>(
    connection: &mut PeerConnection<D>,
    input: impl Stream<Item = Append> + Send + Unpin + 'static,
    option: RPCOption,
) -> Result<Incoming<'_, D>> {
    let lane = connection.appends;
    let mut client = connection.client(lane).map_err(unreachable)?;
    let flow = Arc::new(Flow {
        peers: connection.peers.clone(),
        node: connection.node,
        aside: connection.aside.clone(),
        room: Semaphore::new(WINDOW as usize),
        under_way: Mutex::default(),
    });
    let (open, ended) = oneshot::channel();
    let outgoing = stream::unfold((input, flow.clone()), |(mut input, flow)| async move {
        let request = flow.next(&mut input).await?;
        Some((request, (input, flow)))
    });
    let outgoing = outgoing.take_until(ended);
    let opening = async {
        match client.replicate(outgoing).await {
            Ok(opened) => Ok(opened.map(Some)),
            Err(status) if status.code() == Code::Unimplemented => Ok(Response::new(None)),
            Err(status) => Err(status),
        }
    };
    let opened = connection.answer(lane, RPCTypes::AppendEntries, in_stream(option.soft_ttl(), 0), opening).await?;
    let Some(answers) = opened else {
        connection.one_at_a_time = Some(Instant::now() + ONE_AT_A_TIME);
        return Err(unreachable("its program is older, and takes one append at a time"));
    };
    Ok(Incoming { connection, flow, answers, heard: Instant::now(), ttl: option.soft_ttl(), _open: open })
}

/// How long an append in a stream may take once those before it are answered: each may be behind entries.
fn in_stream(soft_ttl: Duration, bytes: u64) -> Duration {
    append_limit(soft_ttl, bytes.max(1))
}

/// The answers of one stream.
struct Incoming<'s, D> {
    connection: &'s mut PeerConnection<D>,
    flow: Arc<Flow>,
    answers: Streaming<AppendResponse>,
    /// When the last answer came.
    heard: Instant,
    ttl: Duration,
    /// Dropped, nothing more is sent.
    _open: oneshot::Sender<Infallible>,
}

impl<D> Incoming<'_, D> {
    /// The next answer, and whether others may follow.
    async fn next_answer(&mut self) -> Option<(Result<StreamAppendResult<TypeConfig>>, bool)> {
        self.flow.go_on();
        loop {
            let lane = self.connection.appends;
            let oldest = self.flow.under_way().sent.front().copied();
            let limit = in_stream(self.ttl, oldest.map_or(0, |sent| sent.bytes));
            // An append waits for those before it.
            let begun = oldest.map_or_else(Instant::now, |sent| sent.at.max(self.heard));
            match tokio::time::timeout_at(begun + limit, self.answers.message()).await {
                Ok(Ok(Some(answer))) => match self.take(&answer) {
                    Ok(Some((result, wholly))) => return Some((Ok(result), wholly)),
                    Ok(None) => {}
                    Err(error) => return Some((Err(error), false)),
                },
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

    /// What an answer says of the oldest append that has none, and whether that was taken wholly. `None`: a later one says
    /// the same.
    fn take(&mut self, answer: &AppendResponse) -> Result<Option<(StreamAppendResult<TypeConfig>, bool)>> {
        let sent = self.flow.under_way().sent.pop_front().ok_or_else(|| unreachable("an answer to nothing"))?;
        self.heard = Instant::now();
        let appended = self.connection.appended(&sent, answer)?;
        self.flow.room.add_permits(sent.room as usize);
        let last = match appended {
            Appended::Success => sent.last,
            // Of its own entries, not of what follows.
            Appended::PartialSuccess(last) => last.min(sent.last),
            Appended::Conflict if sent.previous.is_none() => {
                return Err(unreachable("the node says that its log differs where there is none"));
            }
            refused => return Ok(Some((refused.into_stream_result(sent.previous, sent.last), false))),
        };
        let wholly = last == sent.last;
        let handed_on = !wholly || self.flow.hand_on(last);
        Ok(handed_on.then_some((Ok(last), wholly)))
    }
}
