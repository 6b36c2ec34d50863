//! Checksums of calls that nodes pass on. TCP's has 16 bits, and what computes it may see bytes that are damaged already;
//! what the leader executes is to be what the caller sent, and what the caller hears what the leader said.
//!
//! The sum (crc32c) of a call covers its path, the principal and the message, and comes in the trailers. That of an answer
//! covers its message, its status and the number of the call, and comes where the status does. The number is there since an
//! answer may be whole, and come to another call: the bytes that say whose it is can be damaged, too.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

use super::BoxError;
use crate::error::Error;

/// Where the sum stands, in decimal.
const CHECKSUM: HeaderName = HeaderName::from_static("x-meshstore-checksum");
/// Which call it is, by a number of the node that passes it on; its answer repeats it.
pub(super) const CALL: HeaderName = HeaderName::from_static("x-meshstore-call");
/// What makes a status.
const STATUS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// The sum of what was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// Of a call before its message.
    pub(super) fn of_call(path: &str, principal: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(path.as_bytes());
        sum.add(principal);
        sum
    }

    /// Takes in a part of the message.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    fn with_status(mut self, headers: &HeaderMap) -> Self {
        for value in STATUS.iter().filter_map(|name| headers.get(*name)).chain(headers.get(CALL)) {
            self.add(value.as_bytes());
        }
        self
    }

    /// Ends it with the status in these headers or trailers, and puts it there, with the number of the call that they answer.
    pub(super) fn put(self, headers: &mut HeaderMap, call: Option<HeaderValue>) {
        if let Some(call) = call {
            headers.insert(CALL, call);
        }
        let sum = self.with_status(headers);
        headers.insert(CHECKSUM, HeaderValue::from(sum.0));
    }

    /// Takes the sum out of these headers or trailers: whether it is that of what was seen, with the status there, and
    /// they answer this call. `None` if there is none.
    pub(super) fn take(self, headers: &mut HeaderMap, call: Option<&HeaderValue>) -> Option<bool> {
        let told = headers.remove(CHECKSUM)?;
        let whole = told.to_str().ok().and_then(|sum| sum.parse().ok()) == Some(self.with_status(headers).0);
        // A leader of an older version does not say which call it answers.
        let of_this = headers.remove(CALL).is_none_or(|answered| Some(&answered) == call);
        Some(whole && of_this)
    }
}

/// Whether headers hold a status, so that no message follows.
pub(super) fn have_status(headers: &HeaderMap) -> bool {
    headers.contains_key(STATUS[0])
}

/// The message of a call, which ends with an error if it is not what was sent; it is one either way only at the end.
pub struct Checked<B> {
    inner: B,
    sum: Option<Checksum>,
}

impl<B> Checked<B> {
    /// A message whose sum begins with this; without one it is not checked.
    pub(super) fn new(inner: B, sum: Option<Checksum>) -> Self {
        Self { inner, sum }
    }
}

impl<B> HttpBody for Checked<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose().map_err(Into::into)?;
        let Some(sum) = &mut self.sum else { return Poll::Ready(frame.map(Ok)) };
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                sum.add(&data);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // The end, with or without trailers.
            end => {
                let trailers = end.and_then(Result::err).and_then(|frame| frame.into_trailers().ok());
                let whole = trailers.and_then(|mut trailers| sum.take(&mut trailers, None)) == Some(true);
                self.sum = None;
                Poll::Ready((!whole).then(|| Err(Status::from(damaged()).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.sum.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn damaged() -> Error {
    let reason = "the call was damaged on its way between two nodes, and is not executed".into();
    Error::Unavailable { reason, leader: None }
}

/// An answer whose trailers get its sum.
pub struct Summed<B> {
    inner: B,
    sum: Option<Checksum>,
    call: Option<HeaderValue>,
}

impl<B> Summed<B> {
    /// An answer as it is.
    pub(super) fn plain(inner: B) -> Self {
        Self { inner, sum: None, call: None }
    }

    /// An answer to the call with this number, summed.
    pub(super) fn new(inner: B, call: Option<HeaderValue>) -> Self {
        Self { inner, sum: Some(Checksum::default()), call }
    }
}

impl<B: Default> Default for Summed<B> {
    fn default() -> Self {
        Self::plain(B::default())
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Summed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()?;
        let Some(mut frame) = frame else { return Poll::Ready(None) };
        let this = &mut *self;
        if let Some(sum) = &mut this.sum {
            if let Some(data) = frame.data_ref() {
                sum.add(data);
            } else if let Some(trailers) = frame.trailers_mut() {
                sum.put(trailers, this.call.take());
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
