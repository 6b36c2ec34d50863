//! Many calls over one stream: service `Calls`.
//!
//! Each call goes through the layers and handlers that it would meet had it come alone; what is saved is HTTP/2's stream for it,
//! and the tasks, frames and headers that this takes ([`super::direct`] saves more for some). The calls of a stream are worked on
//! in its task, all that are under way at once, and all answers that are ready go in one message. Nobody reads the answers: then
//! nobody works on the calls, and no more are taken.
//!
//! What is known of the caller was found out when the stream was opened, and is found out again every second.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt,
    future::{BoxFuture, Either, FutureExt, select},
    stream::FuturesUnordered,
};
use http::{Extensions, HeaderName, HeaderValue, Method, Uri, Version, header};
use http_body::Body as _;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tonic::{Code, Request, Response, Status, Streaming, body::Body};
use tower::{Service, util::BoxCloneSyncService};

use super::{
    direct::{Answered, Asked},
    forward::FRAME_BYTES,
    gate::Credentials,
};
use crate::{
    Error,
    environment::net::Connection,
    limits,
    model::Principal,
    proto::v1::{
        self, CallStatus, MultiplexRequest, MultiplexResponse, MultiplexedAnswer, MultiplexedCall, calls_server,
    },
};

/// The one method.
pub(super) const PATH: &str = "/meshstore.v1.Calls/Multiplex";
/// Answers are sent when they are so many bytes, or there are no more that are ready.
const ANSWERS_BYTES: usize = 64 << 10;
/// How long what was found out about a caller holds.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// What a call goes through that came alone.
pub type Handlers = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The service.
pub struct Multiplex {
    handlers: Handlers,
    /// Whether the node stops.
    drain: watch::Receiver<bool>,
}

impl Multiplex {
    /// Streams whose calls go to these handlers, until the node stops.
    pub fn new(handlers: Handlers, drain: watch::Receiver<bool>) -> Self {
        Self { handlers, drain }
    }
}

#[tonic::async_trait]
impl calls_server::Calls for Multiplex {
    type MultiplexStream = Exchange;

    async fn multiplex(&self, request: Request<Streaming<MultiplexRequest>>) -> Result<Response<Exchange>, Status> {
        let (_, extensions, calls) = request.into_parts();
        let mut drain = self.drain.clone();
        let stopping = async move {
            // A dropped sender means that the node is gone.
            let _ = drain.wait_for(|drain| *drain).await;
        };
        Ok(Response::new(Exchange {
            caller: Caller::of(&extensions),
            handlers: self.handlers.clone(),
            calls: Some(calls),
            last: 0,
            under_way: FuturesUnordered::new(),
            given_up: BTreeMap::new(),
            stopping: Some(stopping.boxed()),
            failed: None,
        }))
    }
}

/// Who calls, as the layers before have found out.
struct Caller {
    principal: Option<Principal>,
    connection: Option<Connection>,
    credentials: Option<Credentials>,
    since: Instant,
}

impl Caller {
    fn of(extensions: &Extensions) -> Self {
        Self {
            principal: extensions.get().cloned(),
            connection: extensions.get().cloned(),
            credentials: extensions.get().cloned(),
            since: Instant::now(),
        }
    }

    /// Finds out again if that was a while ago. Errors: `Unauthenticated`.
    fn check(&mut self) -> Result<(), Error> {
        if let Some(credentials) = self.credentials.as_ref().filter(|_| self.since.elapsed() >= KNOWN_FOR) {
            self.principal = Some(credentials.authenticate()?);
            self.since = Instant::now();
        }
        Ok(())
    }

    fn describe(&self, extensions: &mut Extensions) {
        if let Some(principal) = &self.principal {
            extensions.insert(principal.clone());
        }
        if let Some(connection) = &self.connection {
            extensions.insert(connection.clone());
        }
    }
}

/// The answers of one stream, made as they are asked for.
pub struct Exchange {
    caller: Caller,
    handlers: Handlers,
    /// `None`: no more come.
    calls: Option<Streaming<MultiplexRequest>>,
    /// The number of the last call.
    last: u64,
    under_way: FuturesUnordered<BoxFuture<'static, MultiplexedAnswer>>,
    /// By the numbers of calls under way: dropped, they end.
    given_up: BTreeMap<u64, oneshot::Sender<Infallible>>,
    /// Until when the node does not stop; `None` once the caller was told.
    stopping: Option<BoxFuture<'static, ()>>,
    /// What the stream ends with once all is answered.
    failed: Option<Status>,
}

impl Exchange {
    /// Takes calls as long as there are some and there is room.
    fn take(&mut self, cx: &mut Context<'_>) {
        while self.under_way.len() < limits::MULTIPLEXED_CALLS
            && let Some(calls) = &mut self.calls
        {
            let taken = match calls.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(request))) => self.begin(request),
                Poll::Ready(Some(Err(status))) => Err(status),
                Poll::Ready(None) => {
                    self.calls = None;
                    Ok(())
                }
                Poll::Pending => return,
            };
            if let Err(status) = taken {
                self.calls = None;
                self.failed = Some(status);
            }
        }
    }

    fn begin(&mut self, request: MultiplexRequest) -> Result<(), Status> {
        for number in request.given_up {
            self.given_up.remove(&number);
        }
        self.caller.check()?;
        for call in request.calls {
            let number = call.number;
            if number <= self.last {
                let rule = format!("must be greater than that of the call before it ({})", self.last);
                return Err(Error::invalid("number", number.to_string(), rule).into());
            }
            self.last = number;
            let (handle, given_up) = oneshot::channel();
            self.given_up.insert(number, handle);
            match self.request(call) {
                Ok(request) => {
                    let answer = self.handlers.call(request);
                    self.under_way.push(answered(number, answer, given_up).boxed());
                }
                Err(error) => {
                    let status = Some(told(&error.into()));
                    let answer = MultiplexedAnswer { number, response: Bytes::new(), status };
                    self.under_way.push(std::future::ready(answer).boxed());
                }
            }
        }
        Ok(())
    }

    /// The call as gRPC would have brought it. Errors: `InvalidArgument`.
    fn request(&self, call: MultiplexedCall) -> Result<http::Request<Body>, Error> {
        let MultiplexedCall { method, request, headers, .. } = call;
        if method == PATH {
            return Err(Error::invalid("method", method, "must be no stream"));
        }
        let path = |_| Error::invalid("method", "", "must be like /meshstore.v1.Mesh/PutState");
        let mut made = http::Request::new(Body::new(Framed::new(request.clone())));
        made.extensions_mut().insert(Asked(request));
        *made.uri_mut() = Uri::try_from(method).map_err(path)?;
        *made.method_mut() = Method::POST;
        *made.version_mut() = Version::HTTP_2;
        self.caller.describe(made.extensions_mut());
        let into = made.headers_mut();
        into.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        into.insert(header::TE, HeaderValue::from_static("trailers"));
        for v1::CallHeader { name, value } in headers {
            let invalid = || Error::invalid("headers", &name, "must be metadata of gRPC");
            let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            let value = match name.ends_with("-bin") {
                true => tonic::metadata::BinaryMetadataValue::from_bytes(&value).as_encoded_bytes().to_vec(),
                false => value.to_vec(),
            };
            into.append(known, HeaderValue::from_bytes(&value).map_err(|_| invalid())?);
        }
        // Who calls was found out when the stream was opened.
        into.remove(header::AUTHORIZATION);
        Ok(made)
    }

    fn answers(&mut self, cx: &mut Context<'_>) -> Vec<MultiplexedAnswer> {
        let (mut answers, mut bytes) = (Vec::new(), 0);
        while bytes < ANSWERS_BYTES
            && let Poll::Ready(Some(answer)) = self.under_way.poll_next_unpin(cx)
        {
            bytes += answer.response.len();
            // What was given up is not waited for.
            if self.given_up.remove(&answer.number).is_some() {
                answers.push(answer);
            }
        }
        answers
    }
}

impl Stream for Exchange {
    type Item = Result<MultiplexResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            this.take(cx);
            let before = this.under_way.len();
            let answers = this.answers(cx);
            let closing = this.stopping.as_mut().is_some_and(|stopping| stopping.poll_unpin(cx).is_ready());
            if closing {
                this.stopping = None;
            }
            if closing || !answers.is_empty() {
                return Poll::Ready(Some(Ok(MultiplexResponse { answers, closing })));
            }
            if this.calls.is_none() && this.under_way.is_empty() {
                return Poll::Ready(this.failed.take().map(Err));
            }
            // What was given up has made room, for which nobody else wakes this.
            if this.under_way.len() == before {
                return Poll::Pending;
            }
        }
    }
}

/// The answer of a call, or that it was given up.
async fn answered(
    number: u64,
    answer: impl Future<Output = Result<http::Response<Body>, Infallible>> + Send,
    given_up: oneshot::Receiver<Infallible>,
) -> MultiplexedAnswer {
    let read = Box::pin(async {
        match answer.await {
            Ok(answer) => read(answer).await,
            Err(never) => match never {},
        }
    });
    let read = match select(read, given_up).await {
        Either::Left((read, _)) => read,
        Either::Right(_) => Err(Status::cancelled("the caller gave it up")),
    };
    match read {
        Ok(response) => MultiplexedAnswer { number, response, status: None },
        Err(status) => MultiplexedAnswer { number, response: Bytes::new(), status: Some(told(&status)) },
    }
}

fn told(status: &Status) -> CallStatus {
    CallStatus {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Bytes::copy_from_slice(status.details()),
    }
}

/// The one message of an answer. Errors: its status.
async fn read(answer: http::Response<Body>) -> Result<Bytes, Status> {
    let (mut head, mut body) = answer.into_parts();
    if let Some(Answered(message)) = head.extensions.remove() {
        return Ok(message);
    }
    // An error without a body is told in the headers.
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Err(status);
    }
    let (mut message, mut status) = (Bytes::new(), None);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) if message.is_empty() => message = data,
            Ok(data) => {
                let mut whole = BytesMut::with_capacity(message.len() + data.len());
                whole.put(message);
                whole.put(data);
                message = whole.freeze();
            }
            Err(frame) => status = frame.trailers_ref().and_then(Status::from_header_map),
        }
    }
    match status {
        Some(status) if status.code() != Code::Ok => Err(status),
        Some(_) if message.len() >= FRAME_BYTES => {
            message.advance(FRAME_BYTES);
            Ok(message)
        }
        _ => Err(Status::internal("an answer that was cut off")),
    }
}

/// The body of a call that has one message: its head, and then the message.
struct Framed {
    headed: bool,
    message: Bytes,
}

impl Framed {
    fn new(message: Bytes) -> Self {
        Self { headed: false, message }
    }

    fn head(&self) -> Bytes {
        let mut head = BytesMut::with_capacity(FRAME_BYTES);
        head.put_u8(0);
        // A message is at most what a stream's may be.
        head.put_u32(u32::try_from(self.message.len()).unwrap_or(u32::MAX));
        head.freeze()
    }
}

impl http_body::Body for Framed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let next = if self.headed { std::mem::take(&mut self.message) } else { self.head() };
        self.headed = true;
        Poll::Ready((!next.is_empty()).then(|| Ok(http_body::Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.headed && self.message.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let head = if self.headed { 0 } else { FRAME_BYTES };
        http_body::SizeHint::with_exact((head + self.message.len()) as u64)
    }
}
