//! Messages whose content is too large for a record: it is an *upload*, kept in chunks of its own.
//!
//! An upload has an id that chance gives, is written once, and read by that id; so whatever is read of a message's content
//! is of one version of the message. Its life:
//!
//! 1. [`begin`] makes its record and an *open* record beside it, which expires: what a node or client that died has left
//!    needs nobody to end it.
//! 2. [`chunk`] adds one chunk, and its bytes to the number in the open record; both only while the upload is open, and
//!    each chunk once.
//! 3. [`finish`] stores the message, which names the upload, and ends the open record, if all bytes are there. That is when
//!    the message appears, wholly. [`abandon`] ends the open record without that.
//!
//! A message that names an upload owns an entry in an index of uploads. The core removes entries with the record or the
//! version of it that owned them, so storing and deleting messages knows nothing of uploads and costs nothing more for them.
//! An upload that is not open and that no message names is garbage for good: only an open one can be finished, and none
//! is opened twice. [`Reclaim`] finds it by counting (there are as many uploads as open ones and named ones, or more) and
//! deletes it in small transactions. One transaction could not do it: 64 MiB and their keys are more than apply may hold in
//! memory at once, and a deletion that reads so much would hold up everybody.

mod assembly;
mod reclaim;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::{
    assembly::{Assembled, Assembly},
    reclaim::Reclaim,
};
use super::message;
use crate::{
    Error, Result,
    error::Fault,
    layers::{Meaning, Write},
    limits,
    model::{
        Entry, Key, ScopeId,
        keyspace::{self, INDEX_MESSAGE_UPLOAD, NO_SCOPE},
        mesh::{Announced, Chunk, LargeContent, Message, Stored},
        transaction::{Compare, Operation, Put, Relation, ScopeField, Transaction},
    },
    state::View,
    storage::codec::{self, Kind},
};

const UPLOADS: ScopeId = ScopeId::new(keyspace::UPLOADS, NO_SCOPE);
const OPEN: ScopeId = ScopeId::new(keyspace::OPEN_UPLOADS, NO_SCOPE);
const CHUNKS: ScopeId = ScopeId::new(keyspace::MESSAGE_CHUNKS, NO_SCOPE);

/// When somebody who found too many uploads open should come again, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// The id of an upload: chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadId(pub u128);

/// A message without its id, which is its key, and whose content is an upload. Frozen (kind `LargeMessage`, version 1).
#[derive(Serialize, Deserialize)]
pub(super) struct StoredLargeMessage {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) timestamp: i64,
    size: u64,
    chunks: u32,
    crc32c: u32,
    upload: [u8; 16],
}

impl StoredLargeMessage {
    pub(super) fn content(&self) -> LargeContent {
        LargeContent { size: self.size, chunks: self.chunks, crc32c: self.crc32c }
    }
}

/// An upload, for whom it was meant. Frozen (kind `Upload`, version 1).
#[derive(Serialize, Deserialize)]
struct Upload {
    message_id: String,
    size: u64,
    chunks: u32,
}

impl UploadId {
    fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    fn key(self) -> Key {
        UPLOADS.key(&self.bytes())
    }

    fn open_key(self) -> Key {
        OPEN.key(&self.bytes())
    }

    fn chunk_key(self, number: u32) -> Key {
        CHUNKS.key(&[self.bytes().as_slice(), &number.to_be_bytes()].concat())
    }
}

/// Begins an upload. Errors (of the outcome): `ResourceExhausted` if too many are open.
pub fn begin(upload: UploadId, announced: &Announced) -> Write {
    let Announced { message, size, chunks, .. } = announced;
    let stored = Upload { message_id: message.id.clone(), size: *size, chunks: *chunks };
    let open = Put { ttl_ms: Some(limits::UPLOAD_TTL_MS), ..Put::value(number(0)) };
    let then = vec![
        Operation::Put { key: upload.key(), put: Put::value(codec::encode(Kind::Upload, &stored)) },
        Operation::Put { key: upload.open_key(), put: open },
    ];
    let room =
        Compare::Scope { scope: OPEN, field: ScopeField::Count, relation: Relation::Less, to: limits::OPEN_UPLOADS };
    let full = Error::ResourceExhausted {
        reason: "too many large messages are being stored".into(),
        retry_after_ms: RETRY_AFTER_MS,
    };
    Write {
        transaction: Transaction { compares: vec![room], then, otherwise: vec![] },
        guards: vec![Compare::Exists { key: upload.key(), exists: false }],
        meaning: Meaning::unmet(full),
        ..Write::default()
    }
}

/// Adds a chunk to an upload that is open. Errors (of the outcome): `Refused` if it is not.
pub fn chunk(upload: UploadId, chunk: Chunk) -> Write {
    let key = upload.chunk_key(chunk.number);
    let bytes = i64::try_from(chunk.data.len()).unwrap_or(i64::MAX);
    let compares = vec![
        Compare::Exists { key: upload.open_key(), exists: true },
        Compare::Exists { key: key.clone(), exists: false },
    ];
    let then = vec![
        Operation::Put { key, put: Put::value(chunk.data) },
        Operation::Add { key: upload.open_key(), delta: bytes, min: 0, max: i64::MAX },
    ];
    Write {
        transaction: Transaction { compares, then, otherwise: vec![] },
        meaning: Meaning::unmet(not_open()),
        ..Write::default()
    }
}

/// Stores the message that an upload is for, if all of it has arrived. Errors (of the outcome): `Refused` if not.
pub fn finish(upload: UploadId, message: Message, content: LargeContent) -> Result<Write> {
    let key = message::check(&message)?;
    let Message { from, to, timestamp, .. } = message;
    let mut entries = message::entries(&from, &to, timestamp);
    let id = Bytes::copy_from_slice(&upload.bytes());
    entries.push(Entry { scope: INDEX_MESSAGE_UPLOAD, key: id, payload: Bytes::new(), unique: false });
    let LargeContent { size, chunks, crc32c } = content;
    let stored = StoredLargeMessage { from, to, timestamp, size, chunks, crc32c, upload: upload.bytes() };
    let value = codec::encode(Kind::LargeMessage, &stored);
    let arrived = Compare::Value { key: upload.open_key(), relation: Relation::Equal, to: number(size) };
    let then = vec![
        Operation::Put { key, put: Put { entries, ..Put::value(value) } },
        Operation::Delete { key: upload.open_key() },
    ];
    Ok(Write {
        transaction: Transaction { compares: vec![arrived], then, otherwise: vec![] },
        meaning: Meaning::unmet(not_open()),
        ..Write::default()
    })
}

/// Ends an upload of which no message was made.
pub fn abandon(upload: UploadId) -> Write {
    Write::always(vec![Operation::Delete { key: upload.open_key() }])
}

/// Whether an upload is open.
pub fn is_open(view: &View, upload: UploadId) -> Result<bool> {
    Ok(view.record(&upload.open_key())?.is_some())
}

/// Where the content of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In its record.
    Whole(Bytes),
    /// In an upload.
    Upload(UploadId),
}

/// A message without its content, of which `large` then tells, and where the content is.
/// Errors: `InvalidArgument`, `NotFound`.
pub fn get(view: &View, id: &str) -> Result<(Stored<Message>, Content)> {
    let key = message::key(id)?;
    let record = message::TABLE.get(view, id)?;
    let mut stored = message::open(view, &key, &record)?;
    if stored.value.large.is_some() {
        let large: StoredLargeMessage = codec::decode(Kind::LargeMessage, &record.value)
            .map_err(|error| view.fault(Fault::new(format!("the message of {key} is damaged: {error}"))))?;
        return Ok((stored, Content::Upload(UploadId(u128::from_be_bytes(large.upload)))));
    }
    let content = std::mem::take(&mut stored.value.content);
    let (size, chunks) = (content.len() as u64, u32::from(!content.is_empty()));
    stored.value.large = Some(LargeContent { size, chunks, crc32c: crc32c::crc32c(&content) });
    Ok((stored, Content::Whole(content)))
}

/// A chunk of a message's content. Errors: `Conflict` if it is there no longer.
pub fn chunk_of(view: &View, id: &str, content: &Content, number: u32) -> Result<Chunk> {
    let data = match content {
        Content::Whole(data) => data.clone(),
        Content::Upload(upload) => match view.record(&upload.chunk_key(number))? {
            Some(record) => record.value,
            None => return Err(Error::Conflict(format!("the message {id}, of which a part was read already,"))),
        },
    };
    let crc32c = crc32c::crc32c(&data);
    Ok(Chunk { number, data, crc32c })
}

fn not_open() -> Error {
    Error::Refused("the upload of the message has expired or was given up; nothing was stored".into())
}

/// A number as the core adds to it.
fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(write: Write) -> Vec<(Bytes, Bytes)> {
        let puts = write.transaction.then.into_iter().filter_map(|operation| match operation {
            Operation::Put { key, put } => Some((key.as_bytes().clone(), put.value)),
            _ => None,
        });
        puts.collect()
    }

    #[test]
    fn what_is_stored_has_exactly_these_bytes() {
        let message = Message { id: "i".into(), from: "f".into(), to: "t".into(), timestamp: -2, ..Message::default() };
        let announced = Announced { message: message.clone(), size: 1_000, chunks: 2, crc32c: None };
        let id = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let key = |front: &[u8], behind: &[u8]| Bytes::from([front, &id, behind].concat());
        let upload =
            Bytes::from_static(b"\x4D\x53\x37\x01\x00\x06\x00\x00\x00\x5F\xE8\x15\x87\x01\x69\xFB\xE8\x03\x02");
        let begun = values(begin(UploadId(1), &announced));
        let open = (key(b"\x1A\0\0\0\0", b""), Bytes::from_static(&[0; 8]));
        assert_eq!(begun, [(key(b"\x19\0\0\0\0", b""), upload), open]);
        let data = Bytes::from_static(b"data");
        let put = values(chunk(UploadId(1), Chunk { number: 258, data: data.clone(), crc32c: 0 }));
        assert_eq!(put, [(key(b"\x1B\0\0\0\0", b"\0\0\x01\x02"), data)]);
        let content = LargeContent { size: 1_000, chunks: 2, crc32c: 7 };
        let large = Bytes::from_static(
            b"\x4D\x53\x36\x01\x00\x1A\x00\x00\x00\x1F\x11\xD4\x89\x01\x66\x01\x74\x03\xFB\xE8\x03\x02\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
        );
        let finished = values(finish(UploadId(1), message, content).unwrap());
        assert_eq!(finished, [(Bytes::from_static(b"\x10\0\0\0\0i"), large)]);
    }
}
