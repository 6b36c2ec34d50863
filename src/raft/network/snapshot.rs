//! Sending a snapshot: its head, then its bytes in chunks, then wait until it is installed.
//!
//! A worker reads ahead a few chunks; HTTP/2 takes one when the receiver has room. There is no deadline
//! for the whole: the stream may take as long as it moves. If it ends early for whatever reason, the call
//! is dropped, which the receiver sees as a reset stream, never as a complete one.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{
    AnyError, StorageError,
    errors::{ReplicationClosed, StreamingError, Timeout},
};
use tokio::sync::{mpsc, watch};

use super::{
    adapter::unreachable,
    peers::{Client, said},
};
use crate::{
    environment::{Executor, Signal, Step, Worker},
    error::Fault,
    limits,
    proto::v1::{SnapshotChunk, snapshot_chunk::Part},
    raft::{
        types::{TypeConfig, Vote},
        wire::{self, Installed, SnapshotHead, SnapshotMeta},
    },
};

/// Snapshot data that can be sent.
pub trait SnapshotSource: Send + 'static {
    /// Its bytes, from the beginning. What they are read from is kept until the reader is dropped.
    ///
    /// Errors: it cannot be read; this node is broken.
    fn reader(self) -> Result<Box<dyn SnapshotReader>, Fault>;
}

/// The bytes of a snapshot, in order.
pub trait SnapshotReader: Send {
    /// The next bytes, as many as is convenient; `None` behind the last. May block on files.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, Fault>;
}

/// Chunks that are read before they can be sent.
const AHEAD: usize = 4;
/// A receiver that takes nothing for so long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// After the last byte the receiver verifies, syncs, installs and indexes: it is given the time for one chunk,
/// and as long as that takes at this speed, in bytes per millisecond. It is that of small records, compressed,
/// on a busy disk. (A machine that is gone is noticed much sooner, by the connection's signs of life.)
const INSTALL_BYTES_PER_MS: u64 = 1 << 10;

/// A snapshot on its way.
pub(super) struct Outgoing {
    pub(super) vote: Vote,
    pub(super) transfer: u64,
    pub(super) meta: SnapshotMeta,
    /// The answer if nothing moves for as long as it says.
    pub(super) timeout: Timeout<TypeConfig>,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    bytes: u64,
    ended: bool,
}

/// The worker's next word. If it goes without `Ok(None)` or a fault, it was torn down.
type Piece = Result<Option<Bytes>, Fault>;

impl Outgoing {
    /// Streams the snapshot, and waits until it is installed or refused.
    pub(super) async fn send(
        self,
        mut client: Client,
        source: impl SnapshotSource,
        executor: &dyn Executor,
        cancel: impl Future<Output = ReplicationClosed> + Send,
    ) -> Result<Installed, StreamingError<TypeConfig>> {
        let (target, transfer) = (self.timeout.target, self.transfer);
        let reader = source.reader().map_err(|fault| storage_error(&fault))?;
        tracing::info!(target, transfer, meta = %self.meta, "sending a snapshot");
        let (pieces, pulled) = read_ahead(reader, executor);
        let (progress, progressed) = watch::channel(Progress::default());
        let (failed, failure) = mpsc::channel(1);
        let head = wire::snapshot(&SnapshotHead { vote: self.vote, transfer, meta: self.meta });
        let stream = chunks(head, Pulled { pieces, signal: pulled }, progress, failed);
        let call = client.install_snapshot(stream);
        let result = race(call, transfer, progressed, failure, cancel, &self.timeout).await;
        match &result {
            Ok(_) => tracing::info!(target, transfer, "the snapshot is installed"),
            Err(StreamingError::Closed(reason)) => {
                tracing::info!(target, transfer, %reason, "the snapshot is called off")
            }
            // openraft tries again without a word, so this is the only one.
            Err(error) => tracing::warn!(target, transfer, %error, "the snapshot was not sent; trying again"),
        }
        result
    }
}

/// Whatever comes first. The call is dropped, and so the stream reset, if it is not the call.
async fn race(
    call: impl Future<Output = Result<tonic::Response<crate::proto::v1::Frame>, tonic::Status>>,
    transfer: u64,
    mut progressed: watch::Receiver<Progress>,
    mut failure: mpsc::Receiver<StreamingError<TypeConfig>>,
    cancel: impl Future<Output = ReplicationClosed>,
    timeout: &Timeout<TypeConfig>,
) -> Result<Installed, StreamingError<TypeConfig>> {
    let (mut call, mut cancel) = (std::pin::pin!(call), std::pin::pin!(cancel));
    loop {
        let limit = silence(timeout.timeout, *progressed.borrow_and_update());
        tokio::select! {
            answer = &mut call => {
                let frame = answer.map_err(|status| unreachable(said(&status)))?.into_inner();
                let answer = wire::answers(transfer, frame.call).and_then(|()| wire::open_installed(&frame.envelope));
                return answer.map_err(|error| unreachable(error).into());
            }
            closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            Some(error) = failure.recv() => return Err(error),
            // The sender goes with the stream, when all of it is sent: then only the answer is waited for.
            Ok(()) = progressed.changed() => {}
            () = tokio::time::sleep(limit) => return Err(Timeout { timeout: limit, ..timeout.clone() }.into()),
        }
    }
}

/// How long nothing may happen.
fn silence(chunk: Duration, progress: Progress) -> Duration {
    match progress.ended {
        false => chunk,
        true => chunk + Duration::from_millis(progress.bytes / INSTALL_BYTES_PER_MS),
    }
}

fn storage_error(fault: &Fault) -> StreamingError<TypeConfig> {
    StreamingError::StorageError(StorageError::read_snapshot(None, AnyError::new(fault)))
}

/// What the worker read, as the stream takes it.
struct Pulled {
    pieces: mpsc::Receiver<Piece>,
    signal: Signal,
}

impl Pulled {
    async fn next(&mut self) -> Result<Option<Bytes>, StreamingError<TypeConfig>> {
        let piece = self.pieces.recv().await;
        self.signal.raise();
        let piece = piece.ok_or_else(|| unreachable("the worker that reads the snapshot is gone"))?;
        piece.map_err(|fault| storage_error(&fault))
    }
}

impl Drop for Pulled {
    fn drop(&mut self) {
        self.pieces.close();
        self.signal.raise();
    }
}

/// The messages of a snapshot that a peer has asked for. A failure ends the stream as one, never as its end.
pub fn served(
    head: Bytes,
    reader: Box<dyn SnapshotReader>,
    executor: &dyn Executor,
) -> impl Stream<Item = Result<SnapshotChunk, tonic::Status>> + Send + 'static {
    let head = futures_util::stream::once(std::future::ready(Ok(Part::Head(head))));
    let parts = pieces(reader, executor).map(|piece| piece.map(Part::Data).map_err(tonic::Status::internal));
    head.chain(parts).map(|part| part.map(|part| SnapshotChunk { part: Some(part) }))
}

/// The bytes of a snapshot, in pieces that fit into a message. A failure is the last item; a stream that ends without one is
/// whole.
pub fn pieces(
    reader: Box<dyn SnapshotReader>,
    executor: &dyn Executor,
) -> impl Stream<Item = Result<Bytes, String>> + Send + 'static {
    let (pieces, signal) = read_ahead(reader, executor);
    let state = (Bytes::new(), Some(Pulled { pieces, signal }));
    futures_util::stream::unfold(state, |(mut rest, mut pulled)| async move {
        while rest.is_empty() {
            match pulled.as_mut()?.next().await {
                Ok(bytes) => rest = bytes?,
                Err(error) => return Some((Err(error.to_string()), (rest, None))),
            }
        }
        let data = rest.split_to(rest.len().min(limits::SNAPSHOT_CHUNK_BYTES));
        Some((Ok(data), (rest, pulled)))
    })
}

/// The messages of the stream. A failure is reported beside it and never ends it: an end would mean that
/// the snapshot is complete.
fn chunks(
    head: Bytes,
    pulled: Pulled,
    progress: watch::Sender<Progress>,
    failed: mpsc::Sender<StreamingError<TypeConfig>>,
) -> impl Stream<Item = SnapshotChunk> + Send + 'static {
    let state = (Some(head), Bytes::new(), pulled, progress, failed);
    futures_util::stream::unfold(state, |(head, mut rest, mut pulled, progress, failed)| async move {
        if let Some(head) = head {
            return Some((SnapshotChunk { part: Some(Part::Head(head)) }, (None, rest, pulled, progress, failed)));
        }
        while rest.is_empty() {
            match pulled.next().await {
                Ok(Some(bytes)) => rest = bytes,
                Ok(None) => {
                    progress.send_modify(|progress| progress.ended = true);
                    return None;
                }
                Err(error) => {
                    // Full or closed both mean that the failure is known already.
                    let _ = failed.try_send(error);
                    std::future::pending::<()>().await;
                }
            }
        }
        let data = rest.split_to(rest.len().min(limits::SNAPSHOT_CHUNK_BYTES));
        progress.send_modify(|progress| progress.bytes += data.len() as u64);
        Some((SnapshotChunk { part: Some(Part::Data(data)) }, (None, rest, pulled, progress, failed)))
    })
}

/// Starts a worker that reads ahead.
fn read_ahead(reader: Box<dyn SnapshotReader>, executor: &dyn Executor) -> (mpsc::Receiver<Piece>, Signal) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let signal = Signal::default();
    let worker = ReadAhead { reader, sender, pending: None };
    // How it ends is told through the channel; a fault here is the state machine's, which reports it.
    drop(executor.start("snapshot-reader", Box::new(worker), signal.clone()));
    (pieces, signal)
}

struct ReadAhead {
    reader: Box<dyn SnapshotReader>,
    sender: mpsc::Sender<Piece>,
    pending: Option<Piece>,
}

impl Worker for ReadAhead {
    fn step(&mut self) -> Result<Step, Fault> {
        let piece = self.pending.take().unwrap_or_else(|| self.reader.next_chunk());
        let last = !matches!(piece, Ok(Some(_)));
        match self.sender.try_send(piece) {
            Ok(()) if last => Ok(Step::Done),
            Ok(()) => Ok(Step::Again),
            Err(mpsc::error::TrySendError::Full(piece)) => {
                self.pending = Some(piece);
                Ok(Step::Wait)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(Step::Done),
        }
    }
}
