//! Receiving a snapshot, and putting it in place of everything.
//!
//! It is received as a new base, verified wholly and synced; the manifest switches to it, atomically; then
//! the index is built. A crash before the switch leaves what was, one after it what was received, with an
//! index that the next start builds.

use std::{
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use super::{
    audit::Auditor,
    backup::account,
    checkpoint::Checkpoint,
    disposable::Disposable,
    file::{FileKind, Reader},
    files::{FileSet, StoredFile},
    shared::{Ages, Shared},
    start::Starting,
    tables::Tables,
};
use crate::{
    environment::disk::{Disk, File, OpenMode},
    error::Fault,
};

/// Bytes after which the room on the disk is looked at.
const ROOM_EVERY: u64 = 8 << 20;

/// Why a snapshot was not received.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReceiveError {
    /// What came is not a whole, undamaged base of this cluster. This node is as it was.
    #[error("the snapshot is refused: {0}")]
    Refused(String),
    /// This node's disk fails.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A snapshot on its way in. Dropped before it is installed it leaves nothing behind.
pub struct Incoming {
    shared: Arc<Shared>,
    file: Box<dyn File>,
    place: Disposable,
    number: u64,
    length: u64,
}

/// A snapshot that was received, verified and synced. Dropped before it is installed it leaves nothing behind.
pub struct Received {
    place: Disposable,
    number: u64,
    length: u64,
    checkpoint: Checkpoint,
    pairs: u64,
}

impl Incoming {
    pub(super) fn begin(shared: Arc<Shared>) -> Result<Self, Fault> {
        let number = shared.files.new_number();
        let path = shared.files.path(number, FileKind::Base);
        let opened = shared.files.disk.open(&path, OpenMode::Create);
        let file = opened.map_err(|error| Fault::io("creating", &path, &error))?;
        let place = Disposable::file(shared.files.disk.clone(), path);
        place.dispose();
        Ok(Self { shared, file, place, number, length: 0 })
    }

    /// Adds the next bytes. Writes a file: not for an async task.
    ///
    /// Errors: also if the disk would be left without room, so that it is the snapshot that fails, and not the log.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.length / ROOM_EVERY != (self.length + bytes.len() as u64) / ROOM_EVERY {
            self.check_room()?;
        }
        let written = self.file.write_all_at(bytes, self.length);
        written.map_err(|error| Fault::io("writing", self.place.path(), &error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn check_room(&self) -> Result<(), Fault> {
        let (free, path) = (self.shared.files.free_bytes()?, self.place.path());
        if free < self.shared.options.floor_bytes.saturating_add(ROOM_EVERY) {
            return Err(Fault::new(format!("there is no room for {}: {} MiB are free", path.display(), free >> 20)));
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Syncs what came and reads all of it back: checksums, counts, order, cluster, and the core's accounts.
    /// Takes as long as reading the file does: not for an async task.
    pub fn finish(self) -> Result<Received, ReceiveError> {
        let Self { shared, file, place, number, length } = self;
        let failed = |error| Fault::io("syncing", place.path(), &error);
        file.sync().map_err(failed)?;
        shared.files.disk.sync_dir(&shared.files.directory).map_err(failed)?;
        drop(file);
        let verified = verify(&shared.files.disk, place.path(), shared.files.cluster, &*shared.auditor);
        let verified = verified.map_err(|fault| ReceiveError::Refused(fault.to_string()))?;
        let (checkpoint, pairs) = verified.map_err(ReceiveError::Refused)?;
        Ok(Received { place, number, length, checkpoint, pairs })
    }
}

/// Reads a received file wholly: its checkpoint and number of pairs, or how it differs from its own accounts.
pub(super) fn verify(
    disk: &Arc<dyn Disk>,
    path: &Path,
    cluster: u128,
    auditor: &dyn Auditor,
) -> Result<Result<(Checkpoint, u64), String>, Fault> {
    account(&mut Reader::open(disk, path, cluster)?, auditor)
}

impl Received {
    /// What it is a snapshot of.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// How many pairs it holds.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// See [`super::Store::install`].
    pub(super) fn install(self, shared: &Shared) -> Result<Checkpoint, Fault> {
        let Self { place, number, length, checkpoint, .. } = self;
        let file = StoredFile { number, bytes: length, indexed: false, place: Arc::new(place) };
        let index_number = shared.files.commit_new_index(|set| {
            file.place.keep();
            let checkpoint = Some(Arc::new(checkpoint.clone()));
            *set = FileSet { base: Some(Arc::new(file)), runs: Vec::new(), checkpoint };
        })?;
        let Shared { environment, options, auditor, files, .. } = shared;
        let index = Starting { environment, options, auditor, files }.build(index_number)?;
        files.commit(index_number, |set| set.mark_indexed(|_| true))?;
        if let Some(place) = &shared.tables.load().index.place {
            place.dispose();
        }
        // Ended before the tables change: a view that reads on will be told so.
        shared.views().end_all(checkpoint.revision);
        shared.reclaim.lock().unwrap_or_else(PoisonError::into_inner).clear();
        shared.merged_revision.store(checkpoint.revision, Ordering::Release);
        let fresh = Tables::new(index_number, Arc::new(index));
        shared.update(|tables| *tables = fresh);
        let active_since = environment.clock.monotonic();
        *shared.ages.lock().unwrap_or_else(PoisonError::into_inner) = Ages { active_since, written_since: None };
        shared.flusher.raise();
        shared.merger.raise();
        shared.compactor.raise();
        Ok(checkpoint)
    }
}
