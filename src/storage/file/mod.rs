//! The one format of everything that holds many pairs: run, base, Raft snapshot, backup.
//!
//! ```text
//! header envelope    kind, cluster, position, revision, apply version, state hash, membership, meta (zstd)
//! chunk envelope ..  raw length u32 | zstd of pairs, sorted by key, about 64 KiB of them
//! trailer envelope   pairs, deletions, bytes, hash of header and pairs
//! ```
//!
//! A pair is `key length u32 | 1 + value length u32, 0 for a deletion | key | value` (little-endian).
//! Nothing follows the trailer. Files are written once, front to back, and read the same way; neither
//! side holds more than a chunk. Each envelope has its own checksum, the trailer one over all, so that a
//! lost or repeated chunk is noticed too. Every error names the file and the offset.

mod read;
mod write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use read::Reader;
pub use write::{Encoder, Writer};

use super::checkpoint::Checkpoint;
use crate::{
    error::Fault,
    model::Position,
    storage::codec::{self, DecodeError, Kind},
};

/// Bytes of pairs after which a chunk is closed.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Most bytes of pairs in one chunk: room for the largest pair that a transaction can write, and more.
const CHUNK_BYTES_MAX: usize = 64 << 20;
/// Most bytes of meta.
const META_BYTES_MAX: usize = 1 << 30;
/// The format version that this program writes, and the newest that it reads.
const FORMAT: u8 = 1;
/// Compression: the fastest that still halves ordinary data.
const ZSTD_LEVEL: i32 = 1;
/// What zstd can make of a byte at most: a block of at least 4 bytes becomes at most 128 KiB.
const ZSTD_RATIO_MAX: usize = (128 << 10) / 4;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// What changed since the file before: newest values and deletions.
    Run,
    /// Everything; no deletions.
    Base,
}

/// The front of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub kind: FileKind,
    /// The cluster that it belongs to.
    pub cluster: u128,
    /// Where state is whole once the file (and those before it) is read.
    pub checkpoint: Checkpoint,
}

/// Frozen: format 1.
#[derive(Serialize, Deserialize)]
struct StoredHeader {
    kind: FileKind,
    cluster: u128,
    position: Position,
    revision: u64,
    apply_version: u32,
    state_hash: u128,
    membership: Bytes,
    meta_bytes: u64,
    meta_zstd: Bytes,
}

/// Frozen: format 1.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StoredTrailer {
    pairs: u64,
    deletions: u64,
    bytes: u64,
    content: u128,
}

/// The payload of a header envelope.
fn encode_header(kind: FileKind, cluster: u128, checkpoint: &Checkpoint) -> Result<Vec<u8>, Fault> {
    if checkpoint.meta.len() > META_BYTES_MAX {
        return Err(Fault::bug(format!("{} bytes of meta", checkpoint.meta.len())));
    }
    let meta_zstd = zstd::bulk::compress(&checkpoint.meta, ZSTD_LEVEL).map_err(zstd_failed)?;
    Ok(codec::encode_payload(&StoredHeader {
        kind,
        cluster,
        position: checkpoint.position,
        revision: checkpoint.revision,
        apply_version: checkpoint.apply_version,
        state_hash: checkpoint.state_hash,
        membership: checkpoint.membership.clone(),
        meta_bytes: checkpoint.meta.len() as u64,
        meta_zstd: meta_zstd.into(),
    }))
}

fn zstd_failed(error: std::io::Error) -> Fault {
    Fault::bug(format!("zstd cannot compress: {error}"))
}

fn decode_header(payload: &[u8]) -> Result<Header, DecodeError> {
    let stored: StoredHeader = codec::decode_payload(payload)?;
    let malformed = |what: &dyn std::fmt::Display| DecodeError::Payload(format!("meta: {what}"));
    let meta_bytes = usize::try_from(stored.meta_bytes).unwrap_or(usize::MAX);
    if meta_bytes > META_BYTES_MAX {
        return Err(malformed(&format!("{meta_bytes} bytes")));
    }
    let meta = decompress(&stored.meta_zstd, meta_bytes).map_err(|why| malformed(&why))?;
    let checkpoint = Checkpoint {
        position: stored.position,
        revision: stored.revision,
        membership: stored.membership,
        meta: meta.into(),
        state_hash: stored.state_hash,
        apply_version: stored.apply_version,
    };
    Ok(Header { kind: stored.kind, cluster: stored.cluster, checkpoint })
}

/// Decompresses what becomes exactly so many bytes; `Err` says why it does not. Memory is taken for them before anything
/// is read, so a length is not believed that no such input can have.
fn decompress(compressed: &[u8], bytes: usize) -> Result<Vec<u8>, String> {
    if bytes / ZSTD_RATIO_MAX > compressed.len() {
        return Err(format!("{bytes} bytes, of {} compressed", compressed.len()));
    }
    let raw = zstd::bulk::decompress(compressed, bytes).map_err(|error| error.to_string())?;
    if raw.len() == bytes { Ok(raw) } else { Err("not as long as it should be".into()) }
}

/// Opens an envelope of one of the kinds of this format.
fn open_envelope(bytes: &[u8], kind: Kind) -> Result<&[u8], DecodeError> {
    codec::open(bytes, kind, FORMAT).map(|envelope| envelope.payload)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::environment::{
        Disk,
        disk::{OpenMode, RealDisk},
    };

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            position: Position { term: 2, index: 300 },
            revision: 70_000,
            membership: Bytes::from_static(b"mm"),
            meta: Bytes::from_static(b"meta"),
            state_hash: 5,
            apply_version: 1,
        }
    }

    fn encode() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(FileKind::Run, 7, &checkpoint(), &mut bytes).unwrap();
        encoder.push(b"a", Some(b"1"), &mut bytes).unwrap();
        encoder.push(b"b", None, &mut bytes).unwrap();
        encoder.push(b"c", Some(b""), &mut bytes).unwrap();
        encoder.finish(&mut bytes).unwrap();
        bytes
    }

    fn read(path: &Path, bytes: &[u8]) -> (Header, Vec<(Bytes, Option<Bytes>)>) {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        disk.open(path, OpenMode::Create).unwrap().write_all_at(bytes, 0).unwrap();
        let mut reader = Reader::open(&disk, path, 7).unwrap();
        let pairs = (&mut reader).map(|pair| pair.unwrap()).collect();
        assert_eq!(reader.counts(), (2, 1));
        (reader.header().clone(), pairs)
    }

    /// Format 1, for good. zstd may one day compress otherwise, so it is decoding that is pinned.
    const FORMAT_1: &[u8] = b"MS\x06\x01\x00\x1f\x00\x00\x00\xde?1n\x00\x07\x02\xfb,\x01\xfcp\x11\x01\x00\x01\x05\x02mm\x04\r(\xb5/\xfd \x04!\x00\x00meta\
        MS\x07\x01\x00)\x00\x00\x00yg+h\x1c\x00\x00\x00(\xb5/\xfd \x1c\xe1\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00a1\x01\x00\x00\x00\x00\x00\x00\x00b\x01\x00\x00\x00\x01\x00\x00\x00c\
        MS\x08\x01\x00\x14\x00\x00\x001\xd8qR\x02\x01\x1c\xfe\xff5FA4\x1dB\xc02\x93\x16\xd8\xad&{c";

    #[test]
    fn a_length_is_believed_only_if_it_can_be() {
        let zeros = vec![0; 8 << 20];
        let compressed = zstd::bulk::compress(&zeros, ZSTD_LEVEL).unwrap();
        assert_eq!(decompress(&compressed, zeros.len()), Ok(zeros));
        assert_eq!(decompress(&zstd::bulk::compress(b"", ZSTD_LEVEL).unwrap(), 0), Ok(vec![]));
        assert!(decompress(&compressed, META_BYTES_MAX).unwrap_err().contains("compressed"));
        assert!(decompress(&compressed, (8 << 20) + 1).is_err());
    }

    #[test]
    fn format_1_can_be_read_for_good() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [FORMAT_1, &encode()] {
            let (header, pairs) = read(&directory.path().join("file"), bytes);
            assert_eq!(header, Header { kind: FileKind::Run, cluster: 7, checkpoint: checkpoint() });
            let expected: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"1")), (b"b", None), (b"c", Some(b""))];
            assert_eq!(
                pairs,
                expected.map(|(key, value)| (key.to_vec().into(), value.map(|value| value.to_vec().into())))
            );
        }
    }
}
