//! What callers may ask of a node at once: a bound on the calls that one principal has under way, and on the answers that
//! nobody reads. Beyond it a call is refused with the time after which to come again, and costs nothing more.
//!
//! A call is under way until its answer is read. That is known because answers are handed to the connection in pieces, each
//! only when there is room for the one before: what a slow reader leaves is here and not in the connection's buffers, is
//! counted, and ends its connection when it waits too long ([`Unread`]). At most a piece for each call that a connection
//! may have open stays in those buffers.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{direct::Answered, goes_on, health, principal_of};
use crate::{
    environment::{net::Connection, unread::Unread},
    error::Error,
    limits,
    model::Principal,
};

/// When a refused caller should come again, in milliseconds.
const RETRY_AFTER_MS: u64 = 100;

/// What is under way on a node.
pub struct Pressure {
    calls_per_principal: usize,
    /// Whoever has no call under way is not in it.
    calls: Mutex<HashMap<Principal, usize>>,
    /// Bytes of answers that were made and are not read.
    unread: AtomicUsize,
}

impl Pressure {
    /// Nothing is under way yet; so many calls of one principal may be.
    pub fn new(calls_per_principal: usize) -> Self {
        Self { calls_per_principal, calls: Mutex::default(), unread: AtomicUsize::new(0) }
    }

    /// Calls under way.
    pub(super) fn calls(&self) -> usize {
        self.under_way().values().sum()
    }

    /// Bytes of answers that are not read.
    pub(super) fn unread_bytes(&self) -> usize {
        self.unread.load(Relaxed)
    }

    /// A place for a call. Errors: `ResourceExhausted`.
    fn admit(self: &Arc<Self>, principal: Principal) -> Result<Place, Error> {
        let full = |reason: String| Error::ResourceExhausted { reason, retry_after_ms: RETRY_AFTER_MS };
        if self.unread_bytes() >= limits::UNREAD_BYTES {
            return Err(full(format!("{} MiB of answers are not read by those who asked", limits::UNREAD_BYTES >> 20)));
        }
        let mut calls = self.under_way();
        let under_way = calls.entry(principal.clone()).or_default();
        if *under_way >= self.calls_per_principal {
            return Err(full(format!("{principal} has {under_way} calls under way on this node, as many as it may")));
        }
        *under_way += 1;
        drop(calls);
        Ok(Place { pressure: Arc::clone(self), principal })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Principal, usize>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a call among those under way, until it is dropped.
struct Place {
    pressure: Arc<Pressure>,
    principal: Principal,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut calls = self.pressure.under_way();
        if let Some(under_way) = calls.get_mut(&self.principal) {
            *under_way -= 1;
            if *under_way == 0 {
                calls.remove(&self.principal);
            }
        }
    }
}

/// The layer that bounds. It comes after those that find out who calls.
#[derive(Clone)]
pub struct Bound(pub Arc<Pressure>);

impl<S> Layer<S> for Bound {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Bounded { pressure: Arc::clone(&self.0), inner }
    }
}

/// A service whose calls are bounded.
#[derive(Clone)]
pub struct Bounded<S> {
    pressure: Arc<Pressure>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Bounded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Also a node under pressure says how it is.
        if request.uri().path().starts_with(health::PATHS) {
            return Box::pin(self.inner.call(request));
        }
        let place = match self.pressure.admit(principal_of(request.extensions())) {
            Ok(place) => place,
            Err(error) => return Box::pin(std::future::ready(Ok(Status::from(error).into_http()))),
        };
        let unread = request.extensions().get::<Connection>().map(|connection| Arc::clone(&connection.unread));
        // It has bounds of its own.
        let goes_on = goes_on(request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if answer.extensions().get::<Answered>().is_some() {
                // It goes on in the stream's own answers, which are handed out in pieces.
                return Ok(answer);
            }
            let (pressure, place) = (Arc::clone(&place.pressure), Some(place).filter(|_| !goes_on));
            Ok(answer.map(|body| Body::new(Pieces::new(body, (pressure, place), unread.unwrap_or_default()))))
        })
    }
}

/// An answer, handed out in pieces.
struct Pieces {
    inner: Body,
    pressure: Arc<Pressure>,
    /// The call's, until its answer is read.
    _place: Option<Place>,
    unread: Arc<Unread>,
    /// What is left of a piece of the inner body that was too large.
    rest: Bytes,
    /// The piece that was handed out last, and its bytes.
    handed: Option<(u64, usize)>,
}

impl Pieces {
    fn new(inner: Body, (pressure, place): (Arc<Pressure>, Option<Place>), unread: Arc<Unread>) -> Self {
        Self { inner, pressure, _place: place, unread, rest: Bytes::new(), handed: None }
    }

    /// Whoever wants the next piece has taken the one before.
    fn taken(&mut self) {
        if let Some((number, bytes)) = self.handed.take() {
            self.unread.taken(number);
            self.pressure.unread.fetch_sub(bytes, Relaxed);
        }
    }

    fn hand_out(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(limits::PIECE_BYTES.min(self.rest.len()));
        self.handed = Some((self.unread.handed(), piece.len()));
        Frame::data(piece)
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.taken();
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.hand_out())));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(data) => {
                    self.pressure.unread.fetch_add(data.len(), Relaxed);
                    self.rest = data;
                    self.hand_out()
                }
                Err(other) => other,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // An answer of gRPC is of no length that is known: it ends with its status.
        SizeHint::default()
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.taken();
        self.pressure.unread.fetch_sub(self.rest.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests;
