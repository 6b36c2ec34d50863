//! What arrives of a message's content, checked chunk by chunk.

use bytes::{Bytes, BytesMut};

use super::super::message;
use crate::{
    Error, Result, limits,
    model::mesh::{Announced, Chunk, LargeContent, Message},
};

/// Missing chunks that an error names.
const NAMED: usize = 5;

/// What has arrived of one message. Content that fits into a record is kept here, so that it can become one.
#[derive(Debug)]
pub struct Assembly {
    announced: Announced,
    /// Of each chunk: its length and sum.
    arrived: Vec<Option<(usize, u32)>>,
    bytes: u64,
    kept: Option<Vec<Bytes>>,
}

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub enum Assembled {
    /// To be stored as any other.
    Whole(Message),
    /// To be stored with its upload.
    Upload(Message, LargeContent),
}

impl Assembly {
    /// Nothing yet of what is announced. Errors: `InvalidArgument`.
    pub fn begin(announced: Announced) -> Result<Self> {
        let Announced { message, size, chunks, .. } = &announced;
        message::check(message)?;
        let at = |field: &str| format!("header.{field}");
        if !message.content.is_empty() {
            return Err(Error::invalid(at("message.content"), "", "must be empty: the content comes in chunks"));
        }
        let (most, largest) = (limits::LARGE_MESSAGE_BYTES as u64, limits::MESSAGE_CHUNK_BYTES as u64);
        if *size > most {
            let rule = format!("must be at most {most}: no message has more bytes of content");
            return Err(Error::invalid(at("size"), size.to_string(), rule));
        }
        let most = (*size).min(limits::MESSAGE_CHUNKS as u64);
        let least = size.div_ceil(largest);
        if !(least..=most).contains(&u64::from(*chunks)) {
            let rule = format!("must be from {least} to {most} for {size} bytes in chunks of 1 to {largest} bytes");
            return Err(Error::invalid(at("chunks"), chunks.to_string(), rule));
        }
        let kept = (*size <= limits::VALUE_BYTES as u64).then(|| vec![Bytes::new(); *chunks as usize]);
        Ok(Self { arrived: vec![None; *chunks as usize], announced, bytes: 0, kept })
    }

    /// What was announced.
    pub fn announced(&self) -> &Announced {
        &self.announced
    }

    /// Whether the content is kept here, and needs no upload.
    pub fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// Takes a chunk: it again, to be uploaded. Errors: `InvalidArgument`; the message cannot be stored any more.
    pub fn take(&mut self, chunk: Chunk) -> Result<Chunk> {
        let Chunk { number, data, crc32c } = &chunk;
        let named = format!("chunk {number}");
        let refuse = |field: &str, value: String, rule: String| Err(Error::invalid(field, value, rule));
        let announced = self.announced.chunks;
        let Some(place) = self.arrived.get_mut(*number as usize) else {
            let rule = format!("must be below {announced}: so many chunks were announced");
            return refuse("chunk.number", number.to_string(), rule);
        };
        if place.is_some() {
            return refuse("chunk.number", number.to_string(), "must come once: this chunk has come already".into());
        }
        if data.is_empty() {
            return refuse("chunk.data", named, "must not be empty".into());
        }
        if data.len() > limits::MESSAGE_CHUNK_BYTES {
            let rule = format!("must be at most {} bytes long, is {}", limits::MESSAGE_CHUNK_BYTES, data.len());
            return refuse("chunk.data", named, rule);
        }
        let found = crc32c::crc32c(data);
        if found != *crc32c {
            let rule = format!("must be the CRC32C of the chunk's data, which is {found:#010x}");
            return refuse("chunk.crc32c", format!("{crc32c:#010x} of {named}"), rule);
        }
        self.bytes += data.len() as u64;
        if self.bytes > self.announced.size {
            let rule = format!("must not be more than was announced: {} bytes for all chunks", self.announced.size);
            return refuse("chunk.data", format!("{} bytes with {named}", self.bytes), rule);
        }
        *place = Some((data.len(), found));
        if let Some(kept) = self.kept.as_mut().and_then(|kept| kept.get_mut(*number as usize)) {
            kept.clone_from(data);
        }
        Ok(chunk)
    }

    /// The whole message. Errors: `InvalidArgument` if it is not what was announced.
    pub fn end(self) -> Result<Assembled> {
        let Self { announced: Announced { message, size, chunks, crc32c: expected }, arrived, bytes, kept } = self;
        let missing: Vec<usize> =
            arrived.iter().enumerate().filter(|(_, chunk)| chunk.is_none()).map(|(number, _)| number).collect();
        if !missing.is_empty() {
            let named: Vec<String> = missing.iter().take(NAMED).map(ToString::to_string).collect();
            let more = if missing.len() > NAMED { ", ..." } else { "" };
            let rule = format!(
                "all {chunks} chunks must come before the stream ends, {} did not: {}{more}",
                missing.len(),
                named.join(", ")
            );
            return Err(Error::invalid("chunks", "", rule));
        }
        if bytes != size {
            let rule = format!("must be what all chunks have together, which is {bytes} bytes");
            return Err(Error::invalid("header.size", size.to_string(), rule));
        }
        let sum = |whole, (length, sum): (usize, u32)| crc32c::crc32c_combine(whole, sum, length);
        let crc32c = arrived.into_iter().flatten().fold(0, sum);
        if let Some(expected) = expected.filter(|expected| *expected != crc32c) {
            let rule = format!("must be the CRC32C of the whole content, which is {crc32c:#010x}");
            return Err(Error::invalid("header.crc32c", format!("{expected:#010x}"), rule));
        }
        Ok(match kept {
            Some(kept) => Assembled::Whole(Message { content: joined(kept), ..message }),
            None => Assembled::Upload(message, LargeContent { size, chunks, crc32c }),
        })
    }
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}
