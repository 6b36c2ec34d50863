//! Snapshots: a list of files, merged in key order into one base while it is read. Nothing is built, no
//! view of the live state is held, no write waits.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    audit::Audit,
    checkpoint::Checkpoint,
    file::{Encoder, FileKind, Reader},
    files::FileSet,
    merge::Merge,
    shared::Shared,
};
use crate::{error::Fault, limits};

/// Bytes that a reader gathers before it hands them out.
const PIECE_BYTES: usize = 256 << 10;

const _: () = assert!(PIECE_BYTES <= limits::SNAPSHOT_CHUNK_BYTES);

/// All pairs as of the newest file. Its files stay for as long as it, or a reader of it, lives. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    shared: Arc<Shared>,
    set: Arc<FileSet>,
    checkpoint: Arc<Checkpoint>,
}

impl Snapshot {
    pub(super) fn newest(shared: Arc<Shared>) -> Option<Self> {
        let set = shared.files.set();
        let checkpoint = set.checkpoint.clone()?;
        Some(Self { shared, set, checkpoint })
    }

    /// What it is a snapshot of.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// About how many bytes a reader will answer, at most.
    pub fn bytes(&self) -> u64 {
        self.set.newest_first().map(|file| file.bytes).sum()
    }

    /// Reads it as one base file, in pieces of at most [`limits::SNAPSHOT_CHUNK_BYTES`]. Each reader is a new
    /// pass over the files. Reads files: not for an async task. A fault means that a file is damaged; then the
    /// bytes end there and are no whole file.
    pub fn reader(&self) -> Result<SnapshotReader, Fault> {
        let files = &self.shared.files;
        let readers = self.set.newest_first().map(|file| files.read(file)).collect::<Result<Vec<_>, _>>()?;
        let mut buffer = Vec::with_capacity(PIECE_BYTES * 2);
        let encoder = Encoder::new(FileKind::Base, files.cluster, &self.checkpoint, &mut buffer)?;
        Ok(SnapshotReader {
            _files: self.set.clone(),
            pairs: Merge::new(readers),
            audit: self.shared.auditor.begin(&self.checkpoint.meta)?,
            encoder: Some(encoder),
            buffer,
            ready: Bytes::new(),
        })
    }
}

/// See [`Snapshot::reader`].
pub struct SnapshotReader {
    /// Pinned until the last byte is read.
    _files: Arc<FileSet>,
    pairs: Merge<Reader>,
    audit: Box<dyn Audit>,
    /// `None` once the trailer is written, or after a fault.
    encoder: Option<Encoder>,
    buffer: Vec<u8>,
    /// Complete, to be handed out piece by piece.
    ready: Bytes,
}

impl SnapshotReader {
    fn fill(&mut self) -> Result<(), Fault> {
        while self.buffer.len() < PIECE_BYTES {
            let Some(encoder) = &mut self.encoder else { break };
            match self.pairs.next() {
                Some(pair) => {
                    if let (key, Some(value)) = pair?
                        && self.audit.is_live(&key)
                    {
                        encoder.push(&key, Some(&value), &mut self.buffer)?;
                    }
                }
                None => {
                    if let Some(encoder) = self.encoder.take() {
                        encoder.finish(&mut self.buffer)?;
                    }
                }
            }
        }
        self.ready = std::mem::take(&mut self.buffer).into();
        Ok(())
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<Bytes, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty()
            && let Err(fault) = self.fill()
        {
            (self.encoder, self.buffer) = (None, Vec::new());
            return Some(Err(fault));
        }
        if self.ready.is_empty() {
            return None;
        }
        Some(Ok(self.ready.split_to(PIECE_BYTES.min(self.ready.len()))))
    }
}
