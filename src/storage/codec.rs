//! The one envelope of everything that is persisted or sent between peers:
//!
//! ```text
//! magic u16 | kind u8 | version u8 | flags u8 | length u32 | crc32c u32 | payload     (little-endian)
//! ```
//!
//! The checksum covers kind, version, flags, length and payload. The payload is bincode 2 (standard
//! configuration) of a struct that is frozen for that (kind, version); decoding checks that every byte
//! was consumed. A newer version than known is refused by name, never skipped.

use std::{cell::Cell, path::Path};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Fault, model::shared};

/// Bytes in front of the payload.
pub const HEADER_BYTES: usize = 13;
const MAGIC: u16 = 0x534D; // "MS"
/// A thread keeps an encoding buffer up to this many bytes.
const SCRATCH_BYTES: usize = 64 << 10;

/// What an envelope holds. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A record of the core.
    Record = 1,
    /// A batch of proposals: the application part of a log entry.
    Batch = 2,
    /// The identity file of a data directory.
    Identity = 3,
    /// The pointer file of a data directory.
    Manifest = 4,
    /// State beside the records, in a run's header and trailer.
    Meta = 5,
    /// Header of a run, base, snapshot or backup.
    FileHeader = 6,
    /// A chunk of one.
    FileChunk = 7,
    /// Trailer of one.
    FileTrailer = 8,
    /// The hash of the state on which a majority agreed.
    StateCheck = 9,
    /// Log: segment header.
    LogSegment = 16,
    /// Log: header of a batch, naming the last synced end.
    LogBatch = 17,
    /// Log: a Raft entry.
    LogEntry = 18,
    /// Log: a vote.
    LogVote = 19,
    /// Log: the committed position.
    LogCommitted = 20,
    /// Log: entries behind a position are void.
    LogTruncate = 21,
    /// Log: entries up to a position are purged.
    LogPurge = 22,
    /// Log: everything before this was synced.
    LogSynced = 23,
    /// A peer request or answer.
    Peer = 32,
    /// What is wanted of a node of the cluster.
    MemberRecord = 40,
    /// That the members know a feature level.
    FeatureLevel = 41,
    /// A message of mesh storage.
    Message = 48,
    /// A page cursor.
    Cursor = 49,
    /// A mesh, node, route or region.
    TopologyItem = 50,
    /// Whether a change of the topology waits to be confirmed.
    TopologyHead = 51,
    /// An entry of the topology's history.
    TopologyChange = 52,
    /// The revision of the topology that a node has applied.
    AppliedRevision = 53,
    /// A message of mesh storage whose content is an upload.
    LargeMessage = 54,
    /// An upload.
    Upload = 55,
    /// A rule of how long messages are kept.
    Retention = 56,
    /// A namespace of the storage contract.
    Namespace = 57,
    /// A value of the storage contract.
    StoredValue = 58,
    /// The greatest number that a scope was given.
    ScopeNumbers = 59,
    /// How far an index of a namespace is built.
    NamespaceIndex = 60,
    /// A lease.
    Lease = 61,
    /// Who holds a lock, or waits for it.
    Lock = 62,
    /// A collection of documents.
    Collection = 64,
    /// A document.
    Document = 65,
    /// How far an index of a collection is built.
    CollectionIndex = 66,
    /// That a service may do something with a collection of another.
    Grant = 67,
    /// That a service asks to be allowed something with a collection of another.
    AccessRequest = 68,
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the envelope says.
    #[error("cut short")]
    Short,
    /// Not an envelope, or of another kind.
    #[error("not a {0:?} envelope")]
    Foreign(Kind),
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// Written by a newer version.
    #[error("{kind:?} format version {version} is newer than this program knows ({known}); use a newer meshstore")]
    Newer {
        /// The kind.
        kind: Kind,
        /// The version found.
        version: u8,
        /// The newest known.
        known: u8,
    },
    /// The payload is not what its kind and version say.
    #[error("malformed payload: {0}")]
    Payload(String),
}

impl DecodeError {
    /// The fault that this is at a place in a file: damage, unless a newer program wrote it.
    pub fn at(self, path: &Path, offset: u64) -> Fault {
        match self {
            Self::Newer { .. } => Fault::new(format!("{} at offset {offset}: {self}", path.display())),
            damage => Fault::damaged(path, offset, damage),
        }
    }
}

/// An opened envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<T> {
    /// The kind's number.
    pub kind: u8,
    /// The format version of the payload.
    pub version: u8,
    /// Flags of the kind.
    pub flags: u8,
    /// The payload.
    pub payload: T,
}

/// Wraps a payload.
pub fn seal(kind: Kind, version: u8, flags: u8, payload: &[u8]) -> Bytes {
    let mut buffer = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    seal_into(&mut buffer, kind, version, flags, payload);
    buffer.freeze()
}

/// Wraps a payload, appending to a buffer.
pub fn seal_into(buffer: &mut impl BufMut, kind: Kind, version: u8, flags: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    buffer.put_u16_le(MAGIC);
    buffer.put_u8(kind as u8);
    buffer.put_u8(version);
    buffer.put_u8(flags);
    buffer.put_u32_le(length);
    buffer.put_u32_le(checksum(kind as u8, version, flags, length, payload));
    buffer.put_slice(payload);
}

fn checksum(kind: u8, version: u8, flags: u8, length: u32, payload: &[u8]) -> u32 {
    let [a, b, c, d] = length.to_le_bytes();
    crc32c::crc32c_append(crc32c::crc32c(&[kind, version, flags, a, b, c, d]), payload)
}

/// The whole length of the envelope that begins here, from its header alone; `None` if this is no
/// envelope or the header is not whole.
pub fn sealed_len(bytes: &[u8]) -> Option<usize> {
    let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [m0, m1, _, _, _, l0, l1, l2, l3, ..] = *header;
    (u16::from_le_bytes([m0, m1]) == MAGIC)
        .then(|| HEADER_BYTES.saturating_add(u32::from_le_bytes([l0, l1, l2, l3]) as usize))
}

/// The number of the kind that bytes call themselves, unchecked; `None` if they are too short to.
pub fn kind(bytes: &[u8]) -> Option<u8> {
    bytes.get(2).copied()
}

/// Opens the envelope at the front of `bytes`, whatever its kind: it, and how long it is.
pub fn open_any(bytes: &[u8]) -> Result<(Envelope<&[u8]>, usize), DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Err(DecodeError::Short) };
    let [m0, m1, kind, version, flags, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if u16::from_le_bytes([m0, m1]) != MAGIC {
        return Err(DecodeError::Payload("no envelope begins here".into()));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let payload = rest.get(..length as usize).ok_or(DecodeError::Short)?;
    if checksum(kind, version, flags, length, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(DecodeError::Checksum);
    }
    Ok((Envelope { kind, version, flags, payload }, HEADER_BYTES + length as usize))
}

/// Opens bytes that are exactly one envelope of this kind, of a version up to `known`.
pub fn open(bytes: &[u8], kind: Kind, known: u8) -> Result<Envelope<&[u8]>, DecodeError> {
    let (envelope, length) = open_any(bytes)?;
    if envelope.kind != kind as u8 {
        return Err(DecodeError::Foreign(kind));
    }
    if envelope.version > known || envelope.version == 0 {
        return Err(DecodeError::Newer { kind, version: envelope.version, known });
    }
    if length != bytes.len() {
        return Err(DecodeError::Payload(format!("{} bytes follow", bytes.len() - length)));
    }
    Ok(envelope)
}

/// Encodes a value as the payload of version 1 of a kind, wrapped.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Bytes {
    encoded(value, |payload| seal(kind, 1, 0, payload))
}

/// Decodes exactly one envelope of version 1 of a kind.
pub fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, DecodeError> {
    decode_payload(open(bytes, kind, 1)?.payload)
}

/// The same; byte strings in it stay where they are ([`shared`]).
pub fn decode_shared<T: DeserializeOwned>(kind: Kind, bytes: &Bytes) -> Result<T, DecodeError> {
    shared::within(bytes, || decode(kind, bytes))
}

/// bincode, without the envelope.
pub fn encode_payload<T: Serialize>(value: &T) -> Vec<u8> {
    encoded(value, <[u8]>::to_vec)
}

/// How many bytes [`encode_payload`] makes of a value.
pub fn payload_len<T: Serialize>(value: &T) -> usize {
    encoded(value, <[u8]>::len)
}

/// Encodes into a buffer that the thread keeps, so that it grows once and not for every value.
fn encoded<T: Serialize, A>(value: &T, take: impl FnOnce(&[u8]) -> A) -> A {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut scratch = SCRATCH.take();
    scratch.clear();
    // Encoding into memory fails only for types that say so of themselves (a map of unknown length,
    // say); no persisted type is such, and every one has a golden test.
    let written = bincode::serde::encode_into_std_write(value, &mut scratch, bincode::config::standard());
    let taken = take(if written.is_ok() { &scratch } else { &[] });
    if scratch.capacity() <= SCRATCH_BYTES {
        SCRATCH.set(scratch);
    }
    taken
}

/// bincode, without the envelope; every byte must be consumed.
pub fn decode_payload<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    // bincode takes memory for a length before it looks whether so many bytes follow, so without a limit a
    // few forged bytes end the process. It counts a number by its full width, at most 16 times the bytes that
    // the number takes here: no valid payload meets the limit of its size.
    let config = bincode::config::standard();
    let decoded = match bytes.len() {
        0..0x1_0000 => bincode::serde::decode_from_slice(bytes, config.with_limit::<{ 16 << 16 }>()),
        0x1_0000..0x100_0000 => bincode::serde::decode_from_slice(bytes, config.with_limit::<{ 16 << 24 }>()),
        _ => bincode::serde::decode_from_slice(bytes, config.with_limit::<{ 16 << 32 }>()),
    };
    let (value, read) = decoded.map_err(|error| DecodeError::Payload(error.to_string()))?;
    if read != bytes.len() {
        return Err(DecodeError::Payload(format!("{} bytes are left over", bytes.len() - read)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_exactly_these_bytes() {
        let sealed = encode(Kind::Record, &(1u8, 300u32));
        assert_eq!(sealed.as_ref(), [0x4D, 0x53, 1, 1, 0, 4, 0, 0, 0, 0x9E, 0x5F, 0x0B, 0x5B, 1, 0xFB, 0x2C, 1]);
        assert_eq!(decode::<(u8, u32)>(Kind::Record, &sealed), Ok((1, 300)));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let sealed = encode(Kind::Record, &b"some payload".to_vec());
        for at in 0..sealed.len() {
            let mut bytes = sealed.to_vec();
            bytes[at] ^= 0x10;
            assert!(decode::<Vec<u8>>(Kind::Record, &bytes).is_err(), "byte {at}");
        }
        for end in 0..sealed.len() {
            assert!(decode::<Vec<u8>>(Kind::Record, &sealed[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_forged_length_takes_no_memory() {
        for length in [1 << 20, 1 << 45, u64::MAX >> 1, u64::MAX] {
            let payload = encode_payload(&(length, 7u8));
            assert!(decode_payload::<Bytes>(&payload).is_err());
            assert!(decode_payload::<String>(&payload).is_err());
            assert!(decode_payload::<Vec<(u64, String)>>(&payload).is_err());
        }
    }

    #[test]
    fn the_limit_of_its_size_lets_every_payload_through() {
        for count in [0, 1, 0xFFFE, 0x1_0000, 0x30_0000] {
            let widest = vec![0u128; count];
            assert_eq!(decode_payload(&encode_payload(&widest)), Ok(widest));
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let sealed = seal(Kind::Record, 2, 0, b"");
        let error = decode::<()>(Kind::Record, &sealed).unwrap_err();
        assert!(error.to_string().contains("newer"), "{error}");
    }
}
