//! The bodies of a call that is passed on: its message on the way there, bounded and watched, and the answer
//! on the way back.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::{BoxError, checksum::Checksum};

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

/// A message on its way to the leader. Its sum goes behind it.
pub(super) struct Passed<B> {
    inner: B,
    left: usize,
    sent: Sent,
    sum: Option<Checksum>,
}

impl<B> Passed<B> {
    pub(super) fn new(inner: B, limit: usize, sum: Checksum, sent: Sent) -> Self {
        Self { inner, left: limit, sent, sum: Some(sum) }
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
        if self.sum.is_none() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose().map_err(Into::into)?;
        let Some(data) = frame.and_then(|frame| frame.into_data().ok()) else {
            let mut trailers = http::HeaderMap::new();
            self.sum.take().unwrap_or_default().put(&mut trailers, None);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        };
        let Some(left) = self.left.checked_sub(data.len()) else {
            self.sent.0.too_much.store(true, Ordering::SeqCst);
            return Poll::Ready(Some(Err("the message is too large".into())));
        };
        self.left = left;
        self.sum.iter_mut().for_each(|sum| sum.add(&data));
        self.sent.0.any.store(true, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.sum.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer on its way back. If it breaks off, or is not what the leader sent, it ends with a status that says that the
/// outcome is unknown; the transport's own error would not say so.
pub(super) struct Answer {
    inner: Body,
    sum: Checksum,
    call: HeaderValue,
    /// What to do and to say if it is lost; nothing once it has ended.
    lost: Option<(Doubt, Status)>,
}

/// Lets go of the connection on which something was damaged.
pub(super) type Doubt = Box<dyn FnOnce() + Send + Sync>;

impl Answer {
    pub(super) fn new(inner: Body, call: HeaderValue, lost: Status, doubt: Doubt) -> Self {
        Self { inner, sum: Checksum::default(), call, lost: Some((doubt, lost)) }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.lost.is_none() {
            return Poll::Ready(None);
        }
        if let Some(Ok(mut frame)) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            if let Some(data) = frame.data_ref() {
                self.sum.add(data);
                return Poll::Ready(Some(Ok(frame)));
            }
            let (sum, call) = (self.sum, Some(&self.call));
            if frame.trailers_mut().and_then(|trailers| sum.take(trailers, call)) == Some(true) {
                self.lost = None;
                return Poll::Ready(Some(Ok(frame)));
            }
        }
        let mut trailers = http::HeaderMap::new();
        let told = self.lost.take().map_or(Ok(()), |(doubt, lost)| {
            doubt();
            lost.add_header(&mut trailers)
        });
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.lost.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Not the inner one's: an answer that breaks off is shorter than it was going to be.
        SizeHint::default()
    }
}
