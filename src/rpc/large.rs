//! Messages that come and go in chunks.
//!
//! The stream of a message that is stored ends at the leader, wherever it came in; nodes between pass on its bytes as they
//! come. Chunks are checked and proposed as they arrive, a bounded number at once, so that a node holds a few of them in
//! memory and not the message; what the log cannot take yet holds up the stream. However it ends without the message, the
//! upload is given up, and if that cannot be said any more it expires.
//!
//! A chunk's transaction is no call of the client's session: only the last one is, which makes the message appear. So an
//! attempt that is made again, after a leader died, sends everything again, and is answered with what the first one did, if
//! that did store the message.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::{
    sync::{Semaphore, TryAcquireError},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Request, Response, Status, Streaming};

use super::{Call, exact_revision};
use crate::{
    Error, Result,
    layers::{
        Write,
        mesh::{
            large::{self, Assembled, Assembly, Content, UploadId},
            message,
        },
    },
    limits,
    model::{
        ReadMode, features,
        mesh::{Announced, Chunk},
        proposal::Guards,
    },
    node::{self, Node},
    proto::{
        convert::{read_header, required},
        v1::{
            self, ReadLargeMessageRequest, ReadLargeMessageResponse, StoreLargeMessageRequest,
            store_large_message_request::Frame,
        },
    },
};

/// A caller who sends no frame for so long is given up: others wait for its place.
const SILENCE: Duration = Duration::from_secs(30);
/// When a caller that found all places taken should come again, in milliseconds.
const RETRY_AFTER_MS: u64 = 200;
/// A queue that is full so much longer is a disk that is, and nothing to wait for.
const LONGEST_WAIT_MS: u64 = 1_000;
/// How long it may take to give an upload up, or to read a chunk.
const STEP: Duration = Duration::from_secs(10);

/// Frames of a message on its way to a reader.
pub(super) type Frames = BoxStream<'static, Result<ReadLargeMessageResponse, Status>>;

/// The messages that this node is taking in.
#[derive(Clone)]
pub(super) struct Uploads {
    node: Arc<Node>,
    places: Arc<Semaphore>,
}

impl Uploads {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, places: Arc::new(Semaphore::new(limits::UPLOADS)) }
    }

    /// Stores a message that comes as a stream.
    pub(super) async fn store(
        &self,
        request: Request<Streaming<StoreLargeMessageRequest>>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let (call, frames) = Call::open(request)?;
        let mut frames = Incoming { frames, deadline: call.deadline };
        let Some(Frame::Header(mut header)) = frames.next().await? else {
            return Err(Error::invalid("header", "", "must be the first frame of the stream").into());
        };
        let attempt = header.attempt.take();
        let mut assembly = Assembly::begin(Announced::try_from(header)?)?;
        let _place = Arc::clone(&self.places).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => Error::ResourceExhausted {
                reason: "this node is storing as many large messages as it can".into(),
                retry_after_ms: RETRY_AFTER_MS,
            },
            TryAcquireError::Closed => Error::Unavailable { reason: "the node is stopping".into(), leader: None },
        })?;
        if assembly.keeps() {
            while let Some(chunk) = frames.chunk().await? {
                assembly.take(chunk)?;
            }
            return match assembly.end()? {
                Assembled::Whole(message) => call.write(&self.node, attempt, message::store(message)?).await,
                Assembled::Upload(..) => Err(Error::Unexpected("a small message that became an upload".into()).into()),
            };
        }
        self.node.require(features::LARGE_MESSAGES, call.deadline).await?;
        let upload = Upload::begin(&self.node, &call, assembly.announced()).await?;
        let mut on_their_way = JoinSet::new();
        while let Some(chunk) = frames.chunk().await? {
            let chunk = assembly.take(chunk)?;
            if on_their_way.len() >= limits::UPLOAD_CHUNKS {
                joined(on_their_way.join_next().await)?;
            }
            on_their_way.spawn(upload.parts().put(chunk));
        }
        while !on_their_way.is_empty() {
            joined(on_their_way.join_next().await)?;
        }
        match assembly.end()? {
            Assembled::Upload(message, content) => {
                call.write(&self.node, attempt, large::finish(upload.0.id, message, content)?).await
            }
            Assembled::Whole(_) => Err(Error::Unexpected("a large message that became a small one".into()).into()),
        }
    }
}

/// What became of a chunk.
fn joined(put: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match put {
        None => Ok(()),
        Some(Ok(put)) => put,
        Some(Err(error)) => Err(Error::Unexpected(format!("storing a chunk panicked: {error}"))),
    }
}

/// The frames of a message that is being stored.
struct Incoming {
    frames: Streaming<StoreLargeMessageRequest>,
    deadline: Instant,
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<Frame>, Status> {
        let until = self.deadline.min(Instant::now() + SILENCE);
        let late = |_| Error::DeadlineExceeded {
            deadline_ms: u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX),
            waiting_for: "the next chunk of the message".into(),
            may_have_applied: false,
        };
        let frame = timeout_at(until, self.frames.message()).await.map_err(late)??;
        Ok(match frame {
            Some(frame) => Some(required("frame", frame.frame)?),
            None => None,
        })
    }

    async fn chunk(&mut self) -> Result<Option<Chunk>, Status> {
        match self.next().await? {
            None => Ok(None),
            Some(Frame::Chunk(chunk)) => Ok(Some(chunk.into())),
            Some(Frame::Header(_)) => {
                Err(Error::invalid("header", "", "must be the first frame of the stream, and no other").into())
            }
        }
    }
}

/// What the proposals of an upload need.
#[derive(Clone)]
struct Parts {
    node: Arc<Node>,
    principal: String,
    deadline: Instant,
    id: UploadId,
}

impl Parts {
    async fn propose(&self, write: Write, deadline: Instant) -> Result<()> {
        let Write { transaction, guards: compares, meaning, .. } = write;
        let guards = Guards { compares, ..Guards::default() };
        let request = node::Request { principal: self.principal.clone(), attempt: None, guards, transaction };
        meaning.of(self.node.propose(request, deadline).await?, None).map(drop)
    }

    /// Puts a chunk into the store; while too much else waits for that, it waits too.
    async fn put(self, chunk: Chunk) -> Result<()> {
        loop {
            match self.propose(large::chunk(self.id, chunk.clone()), self.deadline).await {
                Err(Error::ResourceExhausted { retry_after_ms, .. }) if retry_after_ms <= LONGEST_WAIT_MS => {
                    let again = Instant::now() + Duration::from_millis(retry_after_ms);
                    if again >= self.deadline {
                        return Err(too_late());
                    }
                    tokio::time::sleep_until(again).await;
                }
                put => return put.map_err(certainly_not),
            }
        }
    }
}

/// A chunk may be stored or not; the message, of which it is only a part, is not.
fn certainly_not(error: Error) -> Error {
    match error {
        Error::DeadlineExceeded { .. } => too_late(),
        error if error.may_have_applied() => {
            Error::Unavailable { reason: format!("a chunk of the message was not stored: {error}"), leader: None }
        }
        error => error,
    }
}

fn too_late() -> Error {
    Error::DeadlineExceeded {
        deadline_ms: limits::DEADLINE_MAX_MS,
        waiting_for: "a chunk of the message to be stored".into(),
        may_have_applied: false,
    }
}

/// An upload that has begun. When it is dropped and is open still, it is given up.
struct Upload(Parts);

impl Upload {
    async fn begin(node: &Arc<Node>, call: &Call, announced: &Announced) -> Result<Self> {
        let (_, chance) = node.id_parts();
        let (node, principal, deadline) = (Arc::clone(node), call.principal.clone(), call.deadline);
        // From here on, so that one that may have begun is given up, too.
        let upload = Self(Parts { node, principal, deadline, id: UploadId(chance) });
        upload.0.propose(large::begin(upload.0.id, announced), deadline).await.map_err(certainly_not)?;
        Ok(upload)
    }

    fn parts(&self) -> Parts {
        self.0.clone()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let parts = self.0.clone();
        let give_up = async move {
            let until = Instant::now() + STEP;
            let open = match parts.node.read(ReadMode::AtLeast(0), None, until).await {
                Ok((view, _)) => large::is_open(&view, parts.id),
                Err(error) => Err(error),
            };
            if let Ok(true) = open
                && let Err(error) = parts.propose(large::abandon(parts.id), until).await
            {
                tracing::debug!(%error, "an upload is left to expire");
            }
        };
        // Where nothing runs any more there is nobody to give it up.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(give_up);
        }
    }
}

/// Reads a message as a stream.
pub(super) async fn read(
    node: &Arc<Node>,
    request: Request<ReadLargeMessageRequest>,
) -> Result<Response<Frames>, Status> {
    let (call, ReadLargeMessageRequest { read, id }) = Call::open(request)?;
    let options = read.unwrap_or_default();
    let revision = exact_revision(options.revision, None)?;
    let (view, stamp) = node.read(ReadMode::from(Some(options)), revision, call.deadline).await?;
    let (stored, content) = large::get(&view, &id)?;
    let chunks = stored.value.large.map_or(0, |content| content.chunks);
    let first = ReadLargeMessageResponse::from((read_header(stamp, node.id()), stored));
    let reader = Arc::new(Reader { node: Arc::clone(node), id, content, revision: stamp.revision });
    // Each in a view of its own, so that a slow reader keeps nothing in memory.
    let rest = futures_util::stream::iter(0..chunks).then(move |number| {
        let reader = Arc::clone(&reader);
        async move { reader.chunk(number).await.map(Into::into).map_err(Status::from) }
    });
    // After an error nothing more comes.
    let frames = futures_util::stream::once(async { Ok(first) }).chain(rest);
    let frames = frames.scan(false, |failed, frame| {
        let ended = *failed;
        *failed = frame.is_err();
        async move { (!ended).then_some(frame) }
    });
    Ok(Response::new(frames.boxed()))
}

/// A message that is being read.
struct Reader {
    node: Arc<Node>,
    id: String,
    content: Content,
    revision: u64,
}

impl Reader {
    async fn chunk(&self, number: u32) -> Result<Chunk> {
        let at = ReadMode::AtLeast(self.revision);
        let read = timeout(STEP, self.node.read(at, None, Instant::now() + STEP)).await;
        let (view, _) = read.map_err(|_| too_late())??;
        large::chunk_of(&view, &self.id, &self.content, number)
    }
}
