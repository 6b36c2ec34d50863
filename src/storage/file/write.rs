//! Writing: pairs in, bytes out, to a file or to whoever reads a snapshot.

use std::{path::Path, sync::Arc};

use xxhash_rust::xxh3::Xxh3;

use super::{
    super::{checkpoint::Checkpoint, disposable::Disposable},
    CHUNK_BYTES, CHUNK_BYTES_MAX, FORMAT, FileKind, StoredTrailer, ZSTD_LEVEL, encode_header, zstd_failed,
};
use crate::{
    environment::{
        Disk,
        disk::{File, OpenMode},
    },
    error::Fault,
    storage::codec::{self, Kind},
};

/// Bytes that a [`Writer`] gathers before it writes them.
const BUFFER_BYTES: usize = 256 << 10;

/// Turns a header, sorted pairs and a trailer into bytes, which it appends to the caller's buffer.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
    raw: Vec<u8>,
    hash: Xxh3,
    trailer: StoredTrailer,
}

impl Encoder {
    /// Begins a file at a checkpoint.
    pub fn new(kind: FileKind, cluster: u128, checkpoint: &Checkpoint, out: &mut Vec<u8>) -> Result<Self, Fault> {
        let header = encode_header(kind, cluster, checkpoint)?;
        codec::seal_into(out, Kind::FileHeader, FORMAT, 0, &header);
        let mut hash = Xxh3::new();
        hash.update(&header);
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(zstd_failed)?,
            raw: Vec::with_capacity(CHUNK_BYTES + 4096),
            hash,
            trailer: StoredTrailer::default(),
        })
    }

    /// Adds a pair; its key is greater than that of the pair before.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let value_len = value.map_or(0, <[u8]>::len);
        let bytes = 8usize.saturating_add(key.len()).saturating_add(value_len);
        if !self.raw.is_empty() && self.raw.len().saturating_add(bytes) > CHUNK_BYTES {
            self.close_chunk(out)?;
        }
        let too_long = || Fault::bug(format!("a pair of {bytes} bytes does not fit into a chunk"));
        if bytes > CHUNK_BYTES_MAX {
            return Err(too_long());
        }
        let key_len = u32::try_from(key.len()).map_err(|_| too_long())?;
        let value_field = match value {
            Some(_) => u32::try_from(value_len).map_err(|_| too_long())?.saturating_add(1),
            None => 0,
        };
        self.raw.extend_from_slice(&key_len.to_le_bytes());
        self.raw.extend_from_slice(&value_field.to_le_bytes());
        self.raw.extend_from_slice(key);
        self.raw.extend_from_slice(value.unwrap_or_default());
        match value {
            Some(_) => self.trailer.pairs += 1,
            None => self.trailer.deletions += 1,
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if !self.raw.is_empty() {
            self.close_chunk(out)?;
        }
        self.trailer.content = self.hash.digest128();
        codec::seal_into(out, Kind::FileTrailer, FORMAT, 0, &codec::encode_payload(&self.trailer));
        Ok(())
    }

    fn close_chunk(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.hash.update(&self.raw);
        self.trailer.bytes += self.raw.len() as u64;
        let raw_len = u32::try_from(self.raw.len()).map_err(|_| Fault::bug("a chunk over 4 GiB"))?;
        let mut payload = raw_len.to_le_bytes().to_vec();
        payload.append(&mut self.compressor.compress(&self.raw).map_err(zstd_failed)?);
        codec::seal_into(out, Kind::FileChunk, FORMAT, 0, &payload);
        self.raw.clear();
        Ok(())
    }
}

/// Writes a new file. Dropped before [`Writer::finish`] it takes the file with it.
pub struct Writer {
    disk: Arc<dyn Disk>,
    file: Box<dyn File>,
    place: Disposable,
    encoder: Encoder,
    buffer: Vec<u8>,
    offset: u64,
}

impl Writer {
    /// Creates the file (or empties it).
    pub fn create(
        disk: &Arc<dyn Disk>,
        path: &Path,
        kind: FileKind,
        cluster: u128,
        checkpoint: &Checkpoint,
    ) -> Result<Self, Fault> {
        let file = disk.open(path, OpenMode::Create).map_err(|error| Fault::io("creating", path, &error))?;
        let place = Disposable::file(disk.clone(), path.to_owned());
        place.dispose();
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + CHUNK_BYTES);
        let encoder = Encoder::new(kind, cluster, checkpoint, &mut buffer)?;
        Ok(Self { disk: disk.clone(), file, place, encoder, buffer, offset: 0 })
    }

    /// Adds a pair; its key is greater than that of the pair before.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        self.encoder.push(key, value, &mut self.buffer)?;
        if self.buffer.len() >= BUFFER_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Bytes in the file so far.
    pub fn written(&self) -> u64 {
        self.offset
    }

    /// Ends the file and makes its bytes and its name durable: its length in bytes, and the guard that
    /// removes it if it is dropped before it is kept.
    pub fn finish(mut self) -> Result<(u64, Disposable), Fault> {
        let encoder = self.encoder;
        encoder.finish(&mut self.buffer)?;
        let failed = |doing, error| Fault::io(doing, self.place.path(), &error);
        self.file.write_all_at(&self.buffer, self.offset).map_err(|error| failed("writing", error))?;
        self.file.sync().map_err(|error| failed("syncing", error))?;
        let directory = self.place.path().parent().unwrap_or(Path::new("/"));
        self.disk.sync_dir(directory).map_err(|error| failed("syncing the directory of", error))?;
        Ok((self.offset + self.buffer.len() as u64, self.place))
    }

    fn write(&mut self) -> Result<(), Fault> {
        self.file
            .write_all_at(&self.buffer, self.offset)
            .map_err(|error| Fault::io("writing", self.place.path(), &error))?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
