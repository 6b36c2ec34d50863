//! Receiving a snapshot: head, bytes, end.
//!
//! The bytes go to a worker that writes them; the stream is read only as fast as it writes, and HTTP/2
//! passes that on to the sender. A stream that breaks, stalls or is not what it should be ends the worker,
//! which drops what it has written: nothing is left behind, and only a whole and verified snapshot goes on
//! to Raft.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tonic::{Request, Status, Streaming};

use super::malformed;
use crate::{
    environment::{Executor, Signal, Step, Worker},
    error::Fault,
    model::Position,
    proto::v1::{SnapshotChunk, snapshot_chunk::Part},
    raft::wire::{self, SnapshotHead},
    storage::codec::DecodeError,
};

/// Where snapshots are received.
pub trait SnapshotReceiver: Send + Sync + 'static {
    /// A received snapshot, as the state machine installs it. If it is dropped instead, it is removed.
    type Data: Send + 'static;
    /// One that is being received.
    type Sink: SnapshotSink<Data = Self::Data>;

    /// Begins to receive.
    fn receive(&self) -> Result<Self::Sink, Fault>;
}

/// A snapshot that is being received. If it is dropped, it leaves nothing behind.
pub trait SnapshotSink: Send + 'static {
    /// See [`SnapshotReceiver::Data`].
    type Data;

    /// The next bytes. May block on files.
    ///
    /// Errors: they cannot be written, or are damaged.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault>;
    /// There are no more: verifies the whole, that it is what the head says, and makes it durable.
    ///
    /// Errors: as `push`, and if something is missing.
    fn finish(self, head: &SnapshotHead) -> Result<Self::Data, Fault>;
}

/// Chunks that wait to be written.
const BEHIND: usize = 4;
/// A sender that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Receives one snapshot. `place` is given back when the last trace of it is gone, or it is complete.
///
/// Errors: what to tell the sender. Nothing is left behind then.
pub(super) async fn receive<R: SnapshotReceiver>(
    request: Request<Streaming<SnapshotChunk>>,
    receiver: &R,
    executor: &dyn Executor,
    place: OwnedSemaphorePermit,
) -> Result<(SnapshotHead, R::Data), Status> {
    let mut stream = request.into_inner();
    let head = head(&mut stream, wire::open_snapshot).await?;
    tracing::info!(transfer = head.transfer, from = %head.vote, meta = %head.meta, "receiving a snapshot");
    let received = match receiver.receive() {
        Ok(sink) => receive_data(&mut stream, &head, sink, executor, Some(place)).await,
        Err(fault) => Err(not_stored(fault)),
    };
    if let Err(status) = &received {
        tracing::warn!(transfer = head.transfer, %status, "the snapshot was not received");
    }
    Ok((head, received?))
}

/// Receives one snapshot that this node asked for.
///
/// Errors: what is wrong with it, or with the disk here.
pub async fn into_sink<S: SnapshotSink>(
    mut stream: Streaming<SnapshotChunk>,
    open: fn(&[u8]) -> Result<SnapshotHead, DecodeError>,
    sink: S,
    executor: &dyn Executor,
) -> Result<S::Data, Status>
where
    S::Data: Send + 'static,
{
    let head = head(&mut stream, open).await?;
    let position = head.meta.last_log_id.map(Position::from).unwrap_or_default();
    tracing::info!(%position, "fetching a snapshot");
    receive_data(&mut stream, &head, sink, executor, None).await
}

async fn head(
    stream: &mut Streaming<SnapshotChunk>,
    open: fn(&[u8]) -> Result<SnapshotHead, DecodeError>,
) -> Result<SnapshotHead, Status> {
    match next(stream).await? {
        Some(Part::Head(head)) => open(&head).map_err(malformed),
        _ => Err(Status::invalid_argument("the stream must begin with the head of the snapshot")),
    }
}

async fn receive_data<S: SnapshotSink>(
    stream: &mut Streaming<SnapshotChunk>,
    head: &SnapshotHead,
    sink: S,
    executor: &dyn Executor,
    place: Option<OwnedSemaphorePermit>,
) -> Result<S::Data, Status>
where
    S::Data: Send + 'static,
{
    let (pushed, answer) = write_behind(sink, head.clone(), executor, place);
    while let Some(part) = next(stream).await? {
        let Part::Data(data) = part else {
            return Err(Status::invalid_argument("the stream must have one head only"));
        };
        if !pushed.push(Piece::Data(data)).await {
            break;
        }
    }
    // If the worker has failed already, this does not arrive, and its answer says why.
    pushed.push(Piece::End).await;
    match answer.await {
        Ok(data) => data.map_err(not_stored),
        Err(_) => Err(Status::unavailable("this node is stopping")),
    }
}

/// The next message's part; `None` at the end of the stream. A reset stream is an error, not an end.
async fn next(stream: &mut Streaming<SnapshotChunk>) -> Result<Option<Part>, Status> {
    let message = tokio::time::timeout(SILENCE, stream.message()).await;
    let Some(chunk) = message.map_err(|_| Status::deadline_exceeded(format!("nothing came for {SILENCE:?}")))?? else {
        return Ok(None);
    };
    chunk.part.map(Some).ok_or_else(|| Status::invalid_argument("an empty message"))
}

fn not_stored(fault: Fault) -> Status {
    Status::internal(format!("cannot receive the snapshot: {fault}"))
}

enum Piece {
    Data(Bytes),
    End,
}

/// The stream's side of the worker. If it goes before the end, the worker gives up.
struct Pushed {
    pieces: Option<mpsc::Sender<Piece>>,
    signal: Signal,
}

impl Pushed {
    /// Hands a piece to the worker, as soon as it has room; false if it has given up.
    async fn push(&self, piece: Piece) -> bool {
        let Some(pieces) = &self.pieces else { return false };
        let taken = pieces.send(piece).await.is_ok();
        self.signal.raise();
        taken
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        // First the sender, then the signal: the worker must find the channel closed when it wakes.
        self.pieces = None;
        self.signal.raise();
    }
}

/// Where the worker says how it went.
type Outcome<S> = oneshot::Sender<Result<<S as SnapshotSink>::Data, Fault>>;

/// Starts the worker that writes.
fn write_behind<S: SnapshotSink>(
    sink: S,
    head: SnapshotHead,
    executor: &dyn Executor,
    place: Option<OwnedSemaphorePermit>,
) -> (Pushed, oneshot::Receiver<Result<S::Data, Fault>>)
where
    S::Data: Send + 'static,
{
    let (sender, pieces) = mpsc::channel(BEHIND);
    let (answer, answered) = oneshot::channel();
    let signal = Signal::default();
    let worker = WriteBehind { open: Some((sink, answer)), head, pieces, _place: place };
    // How it ends is told through the answer: a snapshot that cannot be received does not break the node.
    drop(executor.start("snapshot-writer", Box::new(worker), signal.clone()));
    (Pushed { pieces: Some(sender), signal }, answered)
}

struct WriteBehind<S: SnapshotSink> {
    /// Goes before the place, so that no other snapshot begins while this one is still being removed.
    open: Option<(S, Outcome<S>)>,
    head: SnapshotHead,
    pieces: mpsc::Receiver<Piece>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S: SnapshotSink> Worker for WriteBehind<S>
where
    S::Data: Send + 'static,
{
    fn step(&mut self) -> Result<Step, Fault> {
        let Some((mut sink, answer)) = self.open.take() else { return Ok(Step::Done) };
        match self.pieces.try_recv() {
            Ok(Piece::Data(bytes)) => match sink.push(&bytes) {
                Ok(()) => {
                    self.open = Some((sink, answer));
                    return Ok(Step::Again);
                }
                Err(fault) => {
                    drop(sink);
                    self.pieces.close();
                    // If nobody waits any more, nobody needs it; so below.
                    let _ = answer.send(Err(fault));
                }
            },
            Ok(Piece::End) => {
                let _ = answer.send(sink.finish(&self.head));
            }
            Err(mpsc::error::TryRecvError::Empty) => {
                self.open = Some((sink, answer));
                return Ok(Step::Wait);
            }
            Err(mpsc::error::TryRecvError::Disconnected) => {}
        }
        Ok(Step::Done)
    }
}
