//! The bodies of a call that is passed on: its message on the way there, bounded and watched, and the answer
//! on the way back.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::BoxError;

/// What has become of a message. Shared between it and the one who waits for the answer.
#[derive(Clone, Default)]
pub(super) struct Sent(Arc<Flags>);

#[derive(Default)]
struct Flags {
    any: AtomicBool,
    too_much: AtomicBool,
}

impl Sent {
    /// Whether any of it was handed to the connection. If not, it can have had no effect.
    pub(super) fn any(&self) -> bool {
        self.0.any.load(Ordering::SeqCst)
    }

    /// Whether it was larger than allowed, and therefore cut: then it can have had no effect either.
    pub(super) fn too_much(&self) -> bool {
        self.0.too_much.load(Ordering::SeqCst)
    }
}

/// A message on its way to the leader.
pub(super) struct Passed<B> {
    inner: B,
    left: usize,
    sent: Sent,
}

impl<B> Passed<B> {
    pub(super) fn new(inner: B, limit: usize, sent: Sent) -> Self {
        Self { inner, left: limit, sent }
    }
}

impl<B> HttpBody for Passed<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(left) = self.left.checked_sub(bytes) else {
            self.sent.0.too_much.store(true, Ordering::SeqCst);
            return Poll::Ready(Some(Err("the message is too large".into())));
        };
        self.left = left;
        self.sent.0.any.store(true, Ordering::SeqCst);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer on its way back. If it breaks off, it ends with a status that says that the outcome is
/// unknown; the transport's own error would not say so.
pub(super) struct Answer {
    inner: Body,
    lost: Option<Status>,
}

impl Answer {
    pub(super) fn new(inner: Body, lost: Status) -> Self {
        Self { inner, lost: Some(lost) }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.lost.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                let status = self.lost.take().unwrap_or(error);
                let mut trailers = http::HeaderMap::new();
                Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lost.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Not the inner one's: an answer that breaks off is shorter than it was going to be.
        SizeHint::default()
    }
}
