//! Messages that are too large to be sent, and read, at once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};
use tonic::{Status, Streaming, codegen::tokio_stream::Stream};

use super::{
    Message, Messages, Stored, Written,
    call::{Attempts, Call},
    endpoints::Preference,
    line::Line,
};
use crate::{
    Error, Result, limits,
    model::{
        ReadMode,
        mesh::{Announced, Chunk, LargeContent},
        session::Attempt,
    },
    proto::{error_from_status, large, v1},
};

/// Bytes of a chunk, but for the last.
const CHUNK_BYTES: usize = 512 << 10;
/// What a message may take longer than others for each MiB.
const PER_MIB: Duration = Duration::from_secs(1);
/// An attempt that sends nothing more and is not answered for so long has failed.
const SILENCE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What is told how many bytes of a content were sent: of this attempt, so it may begin anew.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

impl Messages {
    /// Stores a message with up to 64 MiB of content; one with the same id is overwritten. It appears at once, wholly, or
    /// not at all. The call may take a second longer than others for each MiB.
    ///
    /// Errors: as of [`store`](Self::store), for over 64 MiB; `ResourceExhausted` if too many large messages are being
    /// stored.
    pub async fn store_large(&self, message: Message) -> Result<Written> {
        self.store_large_with(message, Arc::new(|_| ())).await
    }

    /// The same, telling how far it is.
    pub async fn store_large_with(&self, mut message: Message, progress: Progress) -> Result<Written> {
        let content = std::mem::take(&mut message.content);
        if content.len() > limits::LARGE_MESSAGE_BYTES {
            let rule = format!("must be at most {} bytes long, is {}", limits::LARGE_MESSAGE_BYTES, content.len());
            return Err(Error::invalid("content", "", rule));
        }
        let announced = Announced {
            message,
            size: content.len() as u64,
            chunks: u32::try_from(content.len().div_ceil(CHUNK_BYTES)).unwrap_or(u32::MAX),
            crc32c: Some(crc32c::crc32c(&content)),
        };
        let client = self.client();
        let more = PER_MIB * u32::try_from(content.len() >> 20).unwrap_or(u32::MAX);
        let allowed = (client.deadline + more).min(Duration::from_millis(limits::DEADLINE_MAX_MS));
        let call = Call::new(client, "store_large_message", Preference::Leader).within(allowed);
        let upload = Upload { announced, content, progress };
        let v1::WriteResponse { revision, leader_id } = client.execute_by(call, &upload).await?;
        let written = Written { revision, leader_id };
        client.note_written(written);
        Ok(written)
    }

    /// Stores a message with what a reader gives as its content. That is read into memory first, so that it can be sent
    /// again.
    ///
    /// Errors: as of [`store_large`](Self::store_large); `Refused` if the reader fails.
    pub async fn store_from(&self, message: Message, reader: impl AsyncRead + Unpin) -> Result<Written> {
        let mut content = Vec::new();
        let mut reader = reader.take(limits::LARGE_MESSAGE_BYTES as u64 + 1);
        let read = reader.read_to_end(&mut content).await;
        read.map_err(|error| Error::Refused(format!("the content cannot be read: {error}")))?;
        self.store_large(Message { content: content.into(), ..message }).await
    }

    /// Reads a message of any size, in chunks that are checked as they come.
    ///
    /// Errors: as of [`get`](Self::get).
    pub async fn read_large(&self, id: &str) -> Result<LargeMessage> {
        let client = self.client();
        let preference = match client.mode {
            ReadMode::Linearizable => Preference::Leader,
            ReadMode::AtLeast(_) | ReadMode::Stale(_) => Preference::Any,
        };
        let request = v1::ReadLargeMessageRequest { read: Some(client.mode.into()), id: id.into() };
        let mut frames: Streaming<_> = client.ask(preference, request).await?;
        let first = tokio::time::timeout(client.deadline, frames.message()).await;
        let first = first.map_err(|_| broken_off("its first frame did not come"))?;
        let first = first.map_err(|status| error_from_status(&status))?;
        let (header, mut message) = large::first_frame(first.ok_or_else(|| broken_off("nothing came"))?)?;
        client.shared.seen(header.revision);
        let content = message.value.large.ok_or_else(|| Error::Unexpected("a stream of an unknown length".into()))?;
        if content.size <= limits::VALUE_BYTES as u64 {
            message.value.large = None;
        }
        Ok(LargeMessage { message, content, frames, next: 0, read: 0, crc32c: 0, silence: client.deadline })
    }

    /// Reads a message of any size, with all of its content.
    ///
    /// Errors: as of [`get`](Self::get).
    pub async fn get_large(&self, id: &str) -> Result<Stored<Message>> {
        let until = Instant::now() + self.client().deadline;
        loop {
            let error = match self.read_large(id).await?.whole().await {
                Ok(message) => return Ok(message),
                Err(error) => error,
            };
            // It was overwritten meanwhile, or the node has gone.
            if !error.is_retryable() || Instant::now() >= until {
                return Err(error);
            }
        }
    }
}

/// A message that is to be sent.
struct Upload {
    announced: Announced,
    content: Bytes,
    progress: Progress,
}

impl Attempts for Upload {
    type Reply = v1::WriteResponse;

    async fn attempt(&self, call: &mut Call<'_>, place: Option<Attempt>) -> Result<v1::WriteResponse> {
        let left = call.deadline().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(call.too_late("no time is left for another"));
        }
        let header = v1::LargeMessageHeader { attempt: place.map(Into::into), ..self.announced.clone().into() };
        let sent = Arc::new(AtomicU64::new(0));
        let frames = Frames {
            header: Some(header),
            content: self.content.clone(),
            next: 0,
            taken: 0,
            sent: Arc::clone(&sent),
            progress: Arc::clone(&self.progress),
        };
        call.attempt_by((true, true), frames, left, |request, Line { channel, .. }| async move {
            let mut client = v1::mesh_client::MeshClient::new(channel);
            watched(client.store_large_message(request), &sent).await
        })
        .await
    }
}

/// The answer, as long as frames are taken or it comes soon.
async fn watched<T>(answer: impl Future<Output = Result<T, Status>>, sent: &AtomicU64) -> Result<T, Status> {
    tokio::pin!(answer);
    let (mut before, mut silent) = (0, Duration::ZERO);
    loop {
        if let Ok(answer) = tokio::time::timeout(LOOK, &mut answer).await {
            return answer;
        }
        let now = sent.load(Ordering::Relaxed);
        silent = if now == before { silent + LOOK } else { Duration::ZERO };
        before = now;
        if silent >= SILENCE {
            // As of any call that is not answered: another attempt finds out what became of it.
            let text = format!("no chunk was taken, and nothing answered, for {} ms", SILENCE.as_millis());
            return Err(Error::Unknown(text).into());
        }
    }
}

/// The frames of a message that is sent.
struct Frames {
    header: Option<v1::LargeMessageHeader>,
    content: Bytes,
    next: u32,
    taken: u64,
    /// How many frames the connection has taken.
    sent: Arc<AtomicU64>,
    progress: Progress,
}

impl Stream for Frames {
    type Item = v1::StoreLargeMessageRequest;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        (self.progress)(self.taken);
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(header.into()));
        }
        if self.content.is_empty() {
            return Poll::Ready(None);
        }
        let length = CHUNK_BYTES.min(self.content.len());
        let data = self.content.split_to(length);
        let chunk = Chunk { number: self.next, crc32c: crc32c::crc32c(&data), data };
        self.next += 1;
        self.taken += length as u64;
        Poll::Ready(Some(chunk.into()))
    }
}

/// A message whose content is being read.
#[derive(Debug)]
pub struct LargeMessage {
    message: Stored<Message>,
    content: LargeContent,
    frames: Streaming<v1::ReadLargeMessageResponse>,
    next: u32,
    read: u64,
    crc32c: u32,
    silence: Duration,
}

impl LargeMessage {
    /// The message without its content.
    pub fn message(&self) -> &Stored<Message> {
        &self.message
    }

    /// What is known of the content.
    pub fn content(&self) -> LargeContent {
        self.content
    }

    /// Bytes of the whole content.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// The next chunk; `None` at the end, when also the whole has been checked.
    ///
    /// Errors: `Conflict` if the message was overwritten or deleted meanwhile; `Unknown` if the stream broke off;
    /// `Unexpected` if what came is not what was stored.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let wrong = |what: &str| Err(Error::Unexpected(format!("the content is damaged: {what}")));
        let frame = tokio::time::timeout(self.silence, self.frames.message()).await;
        let frame = frame.map_err(|_| broken_off("the next chunk did not come"))?;
        let Some(frame) = frame.map_err(|status| error_from_status(&status))? else {
            if self.next != self.content.chunks || self.read != self.content.size {
                return Err(broken_off("it ended too early"));
            }
            return if self.crc32c == self.content.crc32c { Ok(None) } else { wrong("the checksum of the whole") };
        };
        let Chunk { number, data, crc32c } = large::next_chunk(frame)?;
        if number != self.next || number >= self.content.chunks {
            return wrong(&format!("chunk {number} came where {} was due", self.next));
        }
        if crc32c::crc32c(&data) != crc32c {
            return wrong(&format!("the checksum of chunk {number}"));
        }
        self.next += 1;
        self.read += data.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &data);
        Ok(Some(data))
    }

    /// The message with all of its content. Errors: as of [`next`](Self::next).
    pub async fn whole(mut self) -> Result<Stored<Message>> {
        let most = usize::try_from(self.content.size).unwrap_or(usize::MAX).min(limits::LARGE_MESSAGE_BYTES);
        let mut content = BytesMut::with_capacity(most);
        while let Some(data) = self.next().await? {
            content.extend_from_slice(&data);
        }
        self.message.value.content = content.freeze();
        self.message.value.large = None;
        Ok(self.message)
    }
}

fn broken_off(what: &str) -> Error {
    Error::Unavailable { reason: format!("the stream of the message broke off: {what}"), leader: None }
}
