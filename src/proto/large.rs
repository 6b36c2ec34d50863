//! Large messages as the frames of their streams, and back.

use super::{
    convert::{expected, required},
    v1,
};
use crate::{
    Error, Result,
    model::mesh::{Announced, Chunk, Message, Stored},
};

impl From<Announced> for v1::LargeMessageHeader {
    fn from(announced: Announced) -> Self {
        let Announced { message, size, chunks, crc32c } = announced;
        Self { attempt: None, message: Some(message.into()), size, chunks, crc32c }
    }
}

impl TryFrom<v1::LargeMessageHeader> for Announced {
    type Error = Error;

    fn try_from(header: v1::LargeMessageHeader) -> Result<Self> {
        let v1::LargeMessageHeader { attempt: _, message, size, chunks, crc32c } = header;
        Ok(Self { message: required("header.message", message)?.into(), size, chunks, crc32c })
    }
}

impl From<Chunk> for v1::MessageChunk {
    fn from(Chunk { number, data, crc32c }: Chunk) -> Self {
        Self { number, data, crc32c }
    }
}

impl From<v1::MessageChunk> for Chunk {
    fn from(v1::MessageChunk { number, data, crc32c }: v1::MessageChunk) -> Self {
        Self { number, data, crc32c }
    }
}

impl From<v1::LargeMessageHeader> for v1::StoreLargeMessageRequest {
    fn from(header: v1::LargeMessageHeader) -> Self {
        Self { frame: Some(v1::store_large_message_request::Frame::Header(header)) }
    }
}

impl From<Chunk> for v1::StoreLargeMessageRequest {
    fn from(chunk: Chunk) -> Self {
        Self { frame: Some(v1::store_large_message_request::Frame::Chunk(chunk.into())) }
    }
}

impl From<(v1::ReadHeader, Stored<Message>)> for v1::ReadLargeMessageResponse {
    fn from(message: (v1::ReadHeader, Stored<Message>)) -> Self {
        Self { frame: Some(v1::read_large_message_response::Frame::Message(message.into())) }
    }
}

impl From<Chunk> for v1::ReadLargeMessageResponse {
    fn from(chunk: Chunk) -> Self {
        Self { frame: Some(v1::read_large_message_response::Frame::Chunk(chunk.into())) }
    }
}

/// The first frame of an answer. Errors: `Unexpected` if it is not one.
pub fn first_frame(frame: v1::ReadLargeMessageResponse) -> Result<(v1::ReadHeader, Stored<Message>)> {
    match frame.frame {
        Some(v1::read_large_message_response::Frame::Message(answer)) => {
            Ok((expected("header", answer.header)?, answer.try_into()?))
        }
        other => Err(Error::Unexpected(format!("a stream that does not begin with the message: {other:?}"))),
    }
}

/// A later frame of an answer. Errors: `Unexpected` if it is not one.
pub fn next_chunk(frame: v1::ReadLargeMessageResponse) -> Result<Chunk> {
    match frame.frame {
        Some(v1::read_large_message_response::Frame::Chunk(chunk)) => Ok(chunk.into()),
        _ => Err(Error::Unexpected("a frame that is no chunk".into())),
    }
}
