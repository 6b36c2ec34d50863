//! Reading: bytes in, pairs out, with every checksum and count verified.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{
    super::engine::Pair, CHUNK_BYTES_MAX, FileKind, Header, StoredTrailer, decode_header, decompress, open_envelope,
};
use crate::{
    environment::{
        Disk,
        disk::{File, OpenMode},
    },
    error::Fault,
    storage::codec::{self, DecodeError, Kind},
};

/// Reads a file, pair by pair. What it has answered is vouched for as a whole only once it has ended
/// without an error: then every byte of the file was read and agrees with the trailer.
pub struct Reader {
    file: Box<dyn File>,
    path: PathBuf,
    length: u64,
    /// Where the next envelope begins.
    offset: u64,
    header: Header,
    /// What is left of the chunk.
    chunk: Bytes,
    last_key: Option<Bytes>,
    hash: Xxh3,
    counted: StoredTrailer,
    /// The trailer was reached, or an error met.
    ended: bool,
}

impl Reader {
    /// Opens a file of this cluster and reads its header.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, cluster: u128) -> Result<Self, Fault> {
        let reader = Self::open_any(disk, path)?;
        if reader.header.cluster != cluster {
            return Err(Fault::new(format!(
                "{} belongs to cluster {:032x}, this node to {cluster:032x}",
                path.display(),
                reader.header.cluster
            )));
        }
        Ok(reader)
    }

    /// Opens a file of whatever cluster and reads its header.
    pub fn open_any(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self, Fault> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Fault::damaged(path, 0, "it is missing"),
            _ => Fault::io("opening", path, &error),
        };
        let file = disk.open(path, OpenMode::Read).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        let sealed = read_envelope(&*file, path, 0, length)?;
        let damaged = |error: DecodeError| error.at(path, 0);
        let payload = open_envelope(&sealed, Kind::FileHeader).map_err(damaged)?;
        let header = decode_header(payload).map_err(damaged)?;
        let mut hash = Xxh3::new();
        hash.update(payload);
        Ok(Self {
            file,
            path: path.to_owned(),
            length,
            offset: sealed.len() as u64,
            header,
            chunk: Bytes::new(),
            last_key: None,
            hash,
            counted: StoredTrailer::default(),
            ended: false,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Pairs and deletions so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.counted.pairs, self.counted.deletions)
    }

    /// The file's length, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn damaged(&self, what: impl std::fmt::Display) -> Fault {
        Fault::damaged(&self.path, self.offset, what)
    }

    fn pull(&mut self) -> Result<Option<Pair>, Fault> {
        while self.chunk.is_empty() {
            if !self.advance()? {
                return Ok(None);
            }
        }
        let (pair, rest) = split_pair(&self.chunk).ok_or_else(|| self.damaged("a pair is cut short"))?;
        if self.last_key.as_ref().is_some_and(|last| *last >= pair.0) {
            return Err(self.damaged("keys are out of order"));
        }
        match pair.1 {
            Some(_) => self.counted.pairs += 1,
            None if self.header.kind == FileKind::Base => return Err(self.damaged("a base holds a deletion")),
            None => self.counted.deletions += 1,
        }
        self.last_key = Some(pair.0.clone());
        self.chunk = rest;
        Ok(Some(pair))
    }

    /// Takes the next envelope; false if it was the trailer.
    fn advance(&mut self) -> Result<bool, Fault> {
        let sealed = read_envelope(&*self.file, &self.path, self.offset, self.length)?;
        let (envelope, _) = codec::open_any(&sealed).map_err(|error| self.damaged(error))?;
        let more = if envelope.kind == Kind::FileTrailer as u8 {
            self.end(&sealed)?;
            false
        } else {
            self.chunk = self.open_chunk(&sealed).map_err(|error| self.damaged(error))?;
            self.hash.update(&self.chunk);
            self.counted.bytes += self.chunk.len() as u64;
            true
        };
        self.offset += sealed.len() as u64;
        Ok(more)
    }

    fn open_chunk(&self, sealed: &[u8]) -> Result<Bytes, DecodeError> {
        let payload = open_envelope(sealed, Kind::FileChunk)?;
        let malformed = |what: &dyn std::fmt::Display| DecodeError::Payload(format!("chunk: {what}"));
        let (raw_len, compressed) = payload.split_first_chunk::<4>().ok_or(DecodeError::Short)?;
        let raw_len = u32::from_le_bytes(*raw_len) as usize;
        if raw_len == 0 || raw_len > CHUNK_BYTES_MAX {
            return Err(malformed(&format!("{raw_len} bytes of pairs")));
        }
        decompress(compressed, raw_len).map(Bytes::from).map_err(|why| malformed(&why))
    }

    fn end(&mut self, sealed: &[u8]) -> Result<(), Fault> {
        let trailer: StoredTrailer = open_envelope(sealed, Kind::FileTrailer)
            .and_then(codec::decode_payload)
            .map_err(|error| self.damaged(error))?;
        self.counted.content = self.hash.digest128();
        if self.counted != trailer {
            return Err(self.damaged(format!("the trailer says {trailer:?}, the file holds {:?}", self.counted)));
        }
        let behind = self.length - self.offset.saturating_add(sealed.len() as u64).min(self.length);
        if behind > 0 {
            return Err(self.damaged(format!("{behind} bytes follow the trailer")));
        }
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Result<Pair, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let pulled = self.pull().transpose();
        self.ended = !matches!(pulled, Some(Ok(_)));
        pulled
    }
}

/// Reads the whole envelope at an offset. Its length is not believed beyond the end of the file.
fn read_envelope(file: &dyn File, path: &Path, offset: u64, length: u64) -> Result<Vec<u8>, Fault> {
    let damaged = |what: DecodeError| Fault::damaged(path, offset, what);
    let read = |sealed: &mut [u8]| match file.read_at(sealed, offset) {
        Ok(read) if read == sealed.len() => Ok(()),
        Ok(_) => Err(damaged(DecodeError::Short)),
        Err(error) => Err(Fault::io("reading", path, &error)),
    };
    let mut front = [0; codec::HEADER_BYTES];
    read(&mut front)?;
    let Some(whole) = codec::sealed_len(&front) else {
        return Err(damaged(DecodeError::Payload("no envelope begins here".into())));
    };
    if whole as u64 > length.saturating_sub(offset) {
        return Err(damaged(DecodeError::Short));
    }
    let mut sealed = vec![0; whole];
    read(&mut sealed)?;
    Ok(sealed)
}

/// Takes a pair off the front of a chunk.
fn split_pair(chunk: &Bytes) -> Option<(Pair, Bytes)> {
    let (key_len, rest) = chunk.split_first_chunk::<4>()?;
    let (value_field, rest) = rest.split_first_chunk::<4>()?;
    let key_len = u32::from_le_bytes(*key_len) as usize;
    let value_field = u32::from_le_bytes(*value_field) as usize;
    let (key, rest) = rest.split_at_checked(key_len)?;
    let (value, rest) = rest.split_at_checked(value_field.saturating_sub(1))?;
    let value = (value_field > 0).then(|| chunk.slice_ref(value));
    Some(((chunk.slice_ref(key), value), chunk.slice_ref(rest)))
}
