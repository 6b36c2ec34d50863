//! The handle: what the writer, the readers and the node do with a store.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    audit::Auditor,
    checkpoint::Checkpoint,
    compact::Compactor,
    engine::Pair,
    flush::Flusher,
    merger::Merger,
    read,
    receive::{Incoming, Received},
    shared::{Ages, Shared},
    snapshot::Snapshot,
    start::{Started, start},
    tables::Frozen,
    view::{View, ViewError},
};
use crate::{
    environment::{Environment, Signal, Worker},
    error::Fault,
    model::{Position, key::PREFIX_BYTES},
};

/// An empty memtable is flushed this much later than one that was written to: only for the sake of the log, which
/// then can be purged.
const EMPTY_AGE_FACTOR: u32 = 10;
/// Frozen tables that may wait to be merged, whatever their size.
const FROZEN_TABLES: usize = 16;

/// Versions that a newer one follows may take this part of what a memtable may hold, for readers of somewhat older revisions.
const SPARE_PART: usize = 4;
/// A memtable is flushed when this many times as much was written into it as it may hold, though it holds less: what is not
/// flushed stands in the log.
const WRITTEN_FACTOR: usize = 4;

/// Which index to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// sled, on disk.
    Sled,
    /// In memory; built anew from the files at each start.
    Memory,
}

/// How a store is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory, which the store has for itself.
    pub directory: PathBuf,
    /// The cluster that all files belong to.
    pub cluster: u128,
    /// Which index to use.
    pub engine: EngineKind,
    /// What sled may cache, in bytes.
    pub cache_bytes: u64,
    /// A memtable of this many bytes is to be flushed.
    pub flush_bytes: usize,
    /// A memtable that was first written to this long ago is to be flushed.
    pub flush_after: Duration,
    /// What may be kept for open views, in bytes, beside one memtable.
    pub undo_bytes: usize,
    /// Pairs that the merger writes to the index in one step, beside which readers wait least.
    pub merge_pairs: usize,
    /// Runs are joined with the base when they are larger than it, and than this, in bytes.
    pub compact_bytes: u64,
    /// More runs than this are joined in any case.
    pub compact_runs: usize,
    /// What a compaction, or a snapshot that is received, leaves free on the disk, in bytes.
    pub floor_bytes: u64,
}

impl Options {
    /// The usual settings.
    pub fn new(directory: impl Into<PathBuf>, cluster: u128) -> Self {
        Self {
            directory: directory.into(),
            cluster,
            engine: EngineKind::Sled,
            cache_bytes: 16 << 20,
            flush_bytes: 64 << 20,
            flush_after: Duration::from_secs(30),
            undo_bytes: 64 << 20,
            merge_pairs: 256,
            compact_bytes: 64 << 20,
            compact_runs: 8,
            floor_bytes: 0,
        }
    }
}

/// What a store knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// Which index it uses.
    pub engine: EngineKind,
    /// Bytes of the memtable that is written.
    pub memtable_bytes: usize,
    /// Memtables that wait to be flushed or merged.
    pub frozen_tables: usize,
    /// Their bytes.
    pub frozen_bytes: usize,
    /// Runs on disk.
    pub runs: usize,
    /// Their bytes.
    pub run_bytes: u64,
    /// Bytes of the base.
    pub base_bytes: u64,
    /// What a compaction that is under way has written, in bytes.
    pub compacting_bytes: u64,
    /// Bytes that are kept for open views only.
    pub undo_bytes: usize,
    /// Open views.
    pub open_views: usize,
    /// The oldest revision at which a view can be opened.
    pub oldest_revision: u64,
    /// The position of the newest file.
    pub flushed: Option<Position>,
}

/// A store: bytes by key, versioned by revision. One writer, many readers. Cheap to clone.
///
/// Everything that returns `Result<_, Fault>` may read files; what it reads is nearly always in memory.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

/// A worker with its name and what wakes it: for [`crate::environment::Executor::start`].
pub type NamedWorker = (&'static str, Box<dyn Worker>, Signal);

impl Store {
    /// Opens or creates a store; then [`Store::checkpoint`] is what it holds, and the writer goes on from there.
    /// `durable` is the index up to which the log is synced here: runs are written only up to it. The store lives only
    /// while its workers run. Errors: damage in manifest, base or runs, with file and offset; damage of the index is
    /// mended.
    pub fn open(
        environment: &Environment,
        options: Options,
        auditor: Arc<dyn Auditor>,
        durable: watch::Receiver<u64>,
    ) -> Result<(Self, Vec<NamedWorker>), Fault> {
        let Started { files, tables, reclaim } = start(environment, &options, &auditor)?;
        let shared = Arc::new(Shared::new(environment.clone(), options, auditor, files, tables, reclaim));
        let workers: Vec<NamedWorker> = vec![
            ("storage-flush", Box::new(Flusher::new(shared.clone(), durable)), shared.flusher.clone()),
            ("storage-merge", Box::new(Merger::new(shared.clone())), shared.merger.clone()),
            ("storage-compact", Box::new(Compactor::new(shared.clone())), shared.compactor.clone()),
        ];
        shared.compactor.raise();
        Ok((Self(shared), workers))
    }

    /// The newest checkpoint on disk; directly after a start or an install also what is applied.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.0.files.set().checkpoint.as_deref().cloned()
    }

    /// What the store knows of itself.
    pub fn status(&self) -> StoreStatus {
        let (tables, set, views) = (self.0.tables.load(), self.0.files.set(), self.0.views());
        StoreStatus {
            engine: self.0.options.engine,
            memtable_bytes: tables.active.bytes(),
            frozen_tables: tables.unmerged().count(),
            frozen_bytes: tables.unmerged().map(|frozen| frozen.table.bytes()).sum(),
            runs: set.runs.len(),
            run_bytes: set.runs.iter().map(|run| run.bytes).sum(),
            base_bytes: set.base.as_ref().map_or(0, |base| base.bytes),
            compacting_bytes: self.0.compacting_bytes.load(Ordering::Acquire),
            undo_bytes: tables.held_for_views(),
            open_views: views.count(),
            oldest_revision: views.oldest(),
            flushed: set.checkpoint.as_ref().map(|checkpoint| checkpoint.position),
        }
    }

    /// Ends the workers and closes the index; if it is whole the next start is told so. What is only in memtables
    /// is not flushed: the log has it. Reads that come later are answered with a fault. Returns when the
    /// workers have ended, or were torn down with their runtime.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        for signal in [&self.0.flusher, &self.0.merger, &self.0.compactor] {
            signal.raise();
        }
        // Cannot fail: the sender lives in `self`.
        let _ = self.0.ended.subscribe().wait_for(|ended| *ended >= 3).await;
    }
}

/// The writer: apply, and nobody beside it.
impl Store {
    /// Writes pairs (`None`: deletions) at a revision. Revisions never go down; after a freeze they are greater than
    /// the checkpoint's. Readable at once for the writer, and for views of this revision and later ones.
    pub fn write(&self, revision: u64, pairs: Vec<Pair>) {
        if pairs.is_empty() {
            return;
        }
        let tables = self.0.tables.load();
        if tables.active.is_empty() {
            let now = self.0.environment.clock.monotonic();
            self.0.ages.lock().unwrap_or_else(PoisonError::into_inner).written_since = Some(now);
        }
        for (key, value) in pairs {
            tables.active.insert(revision, key, value);
        }
    }

    /// Readers can open this revision: of what has been written up to it, versions that a newer one follows may go, as far as
    /// they are many and no open view needs them. Views of revisions before it may then be refused.
    pub fn settle(&self, revision: u64) {
        let tables = self.0.tables.load();
        let spare = self.0.options.flush_bytes / SPARE_PART;
        if tables.active.superseded_bytes() <= spare {
            return;
        }
        let Some(wanted) = tables.active.to_retire(spare - spare / SPARE_PART) else { return };
        let oldest = self.0.views().settle(wanted.min(revision));
        tables.active.retire(oldest);
    }

    /// The value of a key, as it was written last.
    pub fn get_latest(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        read::get(&self.0.tables, key, read::LATEST)
    }

    /// Up to `limit` pairs with `start <= key < end` (`None`: to the last key) as they were written last, in order;
    /// fewer only if there are no more.
    pub fn range_latest(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        read::range(&self.0.tables, start, end, limit, read::LATEST)
    }

    /// Whether it is time for [`Store::freeze`]: the memtable is large or old, or a flush was asked for.
    pub fn freeze_due(&self) -> bool {
        let Shared { options, tables, ages, .. } = &*self.0;
        let active = &tables.load().active;
        let superseded = active.superseded_bytes();
        let large = active.bytes().saturating_sub(superseded).max(superseded) >= options.flush_bytes;
        let long = active.written_bytes() >= options.flush_bytes.saturating_mul(WRITTEN_FACTOR);
        if self.0.requested.load(Ordering::Acquire) || large || long {
            return true;
        }
        let Ages { active_since, written_since } = *ages.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.environment.clock.monotonic();
        match written_since {
            Some(since) => now.saturating_sub(since) >= options.flush_after,
            None => now.saturating_sub(active_since) >= options.flush_after.saturating_mul(EMPTY_AGE_FACTOR),
        }
    }

    /// Begins the flush of everything written so far, which is the state at `checkpoint`. Does not wait.
    pub fn freeze(&self, checkpoint: Checkpoint) {
        self.0.requested.store(false, Ordering::Release);
        let active_since = self.0.environment.clock.monotonic();
        *self.0.ages.lock().unwrap_or_else(PoisonError::into_inner) = Ages { active_since, written_since: None };
        let tables = self.0.tables.load();
        let newest = match tables.frozen.first() {
            Some(frozen) => Some(frozen.checkpoint.position),
            None => self.0.files.set().checkpoint.as_ref().map(|checkpoint| checkpoint.position),
        };
        if tables.active.is_empty() && newest == Some(checkpoint.position) {
            // Nothing has happened since.
            return;
        }
        self.0.update(|tables| {
            let table = std::mem::take(&mut tables.active);
            let frozen = Frozen { table, checkpoint, run: Default::default(), merged: false.into() };
            tables.frozen.insert(0, Arc::new(frozen));
        });
        self.0.flusher.raise();
    }

    /// Whether so much waits to be merged that the writer should pause.
    pub fn is_backed_up(&self) -> bool {
        let tables = self.0.tables.load();
        let bytes: usize = tables.unmerged().map(|frozen| frozen.table.bytes()).sum();
        tables.unmerged().count() >= FROZEN_TABLES || bytes >= self.0.options.flush_bytes.saturating_mul(2)
    }

    /// A scope was dropped at this revision: nobody reads it at later ones, and nothing is written to it any
    /// more. Its pairs (all keys with this prefix) are removed bit by bit, once no view is older.
    pub fn forget_scope(&self, prefix: [u8; PREFIX_BYTES], dropped_at: u64) {
        self.0.reclaim.lock().unwrap_or_else(PoisonError::into_inner).add(prefix, dropped_at);
        self.0.deletions.store(true, Ordering::Release);
        self.0.merger.raise();
    }

    /// Puts a received snapshot in place of everything, atomically. When it returns all reads show it; views that
    /// were open are ended. Builds the index, which takes as long as that does: not for an async task. The writer
    /// waits meanwhile.
    pub fn install(&self, received: Received) -> Result<Checkpoint, Fault> {
        received.install(&self.0)
    }
}

/// Readers, snapshots, flushes.
impl Store {
    /// A view at a revision that was written (or the checkpoint's). Errors: `TooOld` if it is older than the last
    /// merge into the index that has begun, and no view of it is open.
    pub fn view(&self, revision: u64) -> Result<View, ViewError> {
        View::open(self.0.clone(), revision)
    }

    /// A snapshot as of the newest file; `None` if nothing was flushed yet.
    pub fn snapshot(&self) -> Option<Snapshot> {
        Snapshot::newest(self.0.clone())
    }

    /// Begins to receive a snapshot.
    pub fn receive(&self) -> Result<Incoming, Fault> {
        Incoming::begin(self.0.clone())
    }

    /// Has [`Store::freeze_due`] say yes.
    pub fn request_flush(&self) {
        self.0.requested.store(true, Ordering::Release);
    }

    /// Whether the disk is short of space: then deletions are compacted away at once, and not only when they have
    /// outgrown the base.
    pub fn set_short_of_space(&self, short: bool) {
        if self.0.short_of_space.swap(short, Ordering::AcqRel) != short {
            self.0.compactor.raise();
        }
    }

    /// The position of the newest file: everything up to it is on disk, synced, without the log.
    pub fn flushed(&self) -> watch::Receiver<Option<Position>> {
        self.0.files.flushed()
    }
}
