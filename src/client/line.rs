//! Many calls over one stream of a connection: the client's side of service `Calls`.
//!
//! A stream of HTTP/2 for each small call is most of what the call costs on both sides. So calls that wait to be sent go together
//! in one message, answers come back together, and each is matched by its number. The stream is opened by the first call, and
//! again by the next one after it broke. A node that does not know it (an older one) is called the ordinary way.
//!
//! Of a call that was still waiting to be sent when its stream broke it is certain that nothing was done: it goes into the next
//! stream. Of one that was sent, nothing is known.

use std::{
    collections::BTreeMap,
    error, fmt,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tokio::{sync::oneshot, time::Instant};
use tonic::{
    Code, Request, Response, Status,
    codegen::tokio_stream::Stream,
    metadata::{AsciiMetadataValue, KeyAndValueRef, MetadataMap},
    transport::Channel,
};

use super::endpoints::lock;
use crate::{
    limits,
    proto::v1::{
        CallHeader, CallStatus, MultiplexRequest, MultiplexResponse, MultiplexedAnswer, MultiplexedCall,
        calls_client::CallsClient,
    },
};

/// A message is closed when it has so many bytes of requests.
const MESSAGE_BYTES: usize = 64 << 10;
/// How long a node is called the ordinary way that did not know the stream. It may be upgraded meanwhile.
const ORDINARY: Duration = Duration::from_secs(60);
/// Streams that may break before a call was sent, until it is made alone.
const MOST_STREAMS: u32 = 3;
/// Says who calls.
pub(super) const AUTHORIZATION: &str = "authorization";

/// A connection, and the stream for small calls on it.
#[derive(Clone)]
pub(super) struct Line {
    /// The connection.
    pub(super) channel: Channel,
    /// `None`: each call goes alone.
    place: Option<Arc<Mutex<Place>>>,
}

/// Where the stream is.
#[derive(Default)]
struct Place {
    open: Option<Open>,
    /// Until when calls are made the ordinary way.
    ordinary: Option<Instant>,
}

/// The open stream. Dropped, it takes no more calls, and ends when all are answered.
struct Open(Arc<Calls>);

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.0.0).close();
    }
}

/// A call as it is sent.
struct Prepared {
    method: &'static str,
    request: Bytes,
    headers: Vec<CallHeader>,
}

/// What became of a call in a stream.
enum Outcome {
    Answered(Bytes),
    Failed(Status),
    /// It was not sent.
    NotSent,
    /// The node knows no such streams.
    Unknown,
}

impl Line {
    /// Over this connection; if `streaming`, small calls share a stream.
    pub(super) fn new(channel: Channel, streaming: bool) -> Self {
        Self { channel, place: streaming.then(Arc::default) }
    }

    /// Makes a call in the stream: `None` if it is to be made alone.
    pub(super) async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &Request<impl Message>,
    ) -> Option<Result<Response<A>, Status>> {
        let place = self.place.as_ref()?;
        if request.get_ref().encoded_len() > limits::MULTIPLEXED_BYTES {
            return None;
        }
        let request_bytes = request.get_ref().encode_to_vec().into();
        let prepared = Prepared { method, request: request_bytes, headers: headers(request.metadata()) };
        for _ in 0..MOST_STREAMS {
            let waiting = self.send(place, &prepared, request.metadata())?;
            match waiting.outcome().await {
                Outcome::Answered(answer) => {
                    let unreadable = |error| Status::internal(format!("an answer that cannot be read: {error}"));
                    return Some(A::decode(answer).map(Response::new).map_err(unreadable));
                }
                Outcome::Failed(status) => return Some(Err(status)),
                Outcome::NotSent => {}
                Outcome::Unknown => {
                    lock(place).ordinary = Some(Instant::now() + ORDINARY);
                    return None;
                }
            }
        }
        None
    }

    /// Puts a call into the stream, which is opened if there is none. `None` if it is to be made alone.
    fn send(&self, place: &Mutex<Place>, call: &Prepared, metadata: &MetadataMap) -> Option<Waiting> {
        let mut place = lock(place);
        if place.ordinary.is_some_and(|until| until > Instant::now()) {
            return None;
        }
        if let Some(waiting) = place.open.as_ref().and_then(|Open(calls)| Calls::add(calls, call)) {
            return Some(waiting);
        }
        let calls = Arc::<Calls>::default();
        let waiting = Calls::add(&calls, call);
        place.open = Some(Open(calls.clone()));
        tokio::spawn(calls.run(self.channel.clone(), metadata.get(AUTHORIZATION).cloned()));
        waiting
    }
}

/// The metadata of a call. Who calls is said once for the whole stream.
fn headers(metadata: &MetadataMap) -> Vec<CallHeader> {
    let header = |pair: KeyAndValueRef<'_>| match pair {
        KeyAndValueRef::Ascii(name, _) if name == AUTHORIZATION => None,
        KeyAndValueRef::Ascii(name, value) => {
            Some(CallHeader { name: name.as_str().into(), value: Bytes::copy_from_slice(value.as_bytes()) })
        }
        // Nobody else puts in what cannot be read.
        KeyAndValueRef::Binary(name, value) => {
            Some(CallHeader { name: name.as_str().into(), value: value.to_bytes().ok()? })
        }
    };
    metadata.iter().filter_map(header).collect()
}

/// The calls of one stream.
#[derive(Default)]
struct Calls(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of the last call.
    last: u64,
    /// Those that were not sent yet, in the order of their numbers.
    queue: Vec<MultiplexedCall>,
    given_up: Vec<u64>,
    /// Who waits for the answers.
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
    /// Who sends, while it waits for something to send.
    sender: Option<Waker>,
    /// No more calls come.
    closed: bool,
    /// The stream is no more.
    ended: bool,
}

impl State {
    fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
}

impl Calls {
    /// Adds a call; `None` if the stream has ended.
    fn add(calls: &Arc<Self>, call: &Prepared) -> Option<Waiting> {
        let mut state = lock(&calls.0);
        if state.ended || state.closed {
            return None;
        }
        state.last += 1;
        let number = state.last;
        let Prepared { method, request, headers } = call;
        state.queue.push(MultiplexedCall {
            number,
            method: (*method).to_owned(),
            request: request.clone(),
            headers: headers.clone(),
        });
        let (sender, outcome) = oneshot::channel();
        state.waiting.insert(number, sender);
        state.wake();
        Some(Waiting { number, outcome, calls: calls.clone() })
    }

    /// Opens the stream and hands out its answers, until it ends.
    async fn run(self: Arc<Self>, channel: Channel, authorization: Option<AsciiMetadataValue>) {
        let mut request = Request::new(Outgoing(self.clone()));
        if let Some(authorization) = authorization {
            request.metadata_mut().insert(AUTHORIZATION, authorization);
        }
        let mut client = CallsClient::new(channel).max_decoding_message_size(limits::PEER_DECODE_BYTES);
        let mut answers = match client.multiplex(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.end(&status, false),
        };
        loop {
            match answers.message().await {
                Ok(Some(message)) => self.answer(message),
                Ok(None) => return self.end(&ended(), true),
                Err(status) => return self.end(&status, true),
            }
        }
    }

    fn answer(&self, MultiplexResponse { answers, closing }: MultiplexResponse) {
        let mut state = lock(&self.0);
        if closing {
            state.close();
        }
        for MultiplexedAnswer { number, response, status } in answers {
            if let Some(waiting) = state.waiting.remove(&number) {
                // Who gave up meanwhile needs no answer.
                let _ = waiting.send(match status {
                    None => Outcome::Answered(response),
                    Some(status) => Outcome::Failed(told(status)),
                });
            }
        }
    }

    /// The stream is no more, because of this. Was it never opened, this is why no call of it could be made.
    fn end(&self, status: &Status, opened: bool) {
        let mut state = lock(&self.0);
        state.ended = true;
        let unsent = state.queue.first().map(|call| call.number).filter(|_| opened).unwrap_or(u64::MAX);
        state.queue.clear();
        for (number, waiting) in std::mem::take(&mut state.waiting) {
            let _ = waiting.send(match status.code() {
                Code::Unimplemented => Outcome::Unknown,
                _ if number >= unsent => Outcome::NotSent,
                _ => Outcome::Failed(status.clone()),
            });
        }
    }
}

/// The status that an answer carries.
fn told(CallStatus { code, message, details }: CallStatus) -> Status {
    Status::with_details(Code::from(code), message, details)
}

/// The node has ended the stream, as it does when it stops.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node has ended the stream of calls")
    }
}

impl error::Error for Ended {}

fn ended() -> Status {
    let mut status = Status::unknown(Ended.to_string());
    // As of any connection that broke: nobody has answered.
    status.set_source(Arc::new(Ended));
    status
}

/// A call whose answer is waited for. Dropped before, it is given up.
struct Waiting {
    number: u64,
    outcome: oneshot::Receiver<Outcome>,
    calls: Arc<Calls>,
}

impl Waiting {
    async fn outcome(mut self) -> Outcome {
        // Whoever ends the stream answers all; a runtime that is torn down does not.
        (&mut self.outcome).await.unwrap_or_else(|_| Outcome::Failed(ended()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = lock(&self.calls.0);
        if state.waiting.remove(&self.number).is_none() {
            return;
        }
        match state.queue.iter().position(|call| call.number == self.number) {
            Some(place) => drop(state.queue.remove(place)),
            None => {
                state.given_up.push(self.number);
                state.wake();
            }
        }
    }
}

/// What is sent: at each look all that waits, in messages of some size.
struct Outgoing(Arc<Calls>);

impl Stream for Outgoing {
    type Item = MultiplexRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MultiplexRequest>> {
        let mut state = lock(&self.0.0);
        if state.queue.is_empty() && state.given_up.is_empty() {
            if state.closed {
                return Poll::Ready(None);
            }
            state.sender = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = 0;
        let fit = state.queue.iter().take_while(|call| {
            let fits = bytes < MESSAGE_BYTES;
            bytes += call.request.len();
            fits
        });
        let fit = fit.count();
        let calls = state.queue.drain(..fit).collect();
        Poll::Ready(Some(MultiplexRequest { calls, given_up: std::mem::take(&mut state.given_up) }))
    }
}
