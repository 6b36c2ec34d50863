//! What readers look at, replaced as a whole: the memtables, the undo tables, the index.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

use super::{checkpoint::Checkpoint, disposable::Disposable, engine::Engine, memtable::Memtable, undo::Undo};

/// An index with the directory that it lives in.
pub(super) struct Index {
    // Dropped in this order: the engine lets go of its files before they are removed.
    pub(super) engine: Box<dyn Engine>,
    pub(super) place: Option<Disposable>,
}

/// A memtable that is written no more, on its way to disk.
pub(super) struct Frozen {
    pub(super) table: Arc<Memtable>,
    pub(super) checkpoint: Checkpoint,
    /// The number of its run, once that is on disk.
    pub(super) run: OnceLock<u64>,
    /// Whether the index holds, synced, its newest versions.
    pub(super) merged: AtomicBool,
}

impl Frozen {
    pub(super) fn is_merged(&self) -> bool {
        self.merged.load(Ordering::Acquire)
    }
}

/// See the module's text.
#[derive(Clone)]
pub(super) struct Tables {
    /// The index's number; see [`super::files::Files`].
    pub(super) number: u64,
    pub(super) active: Arc<Memtable>,
    /// Newest first. Those that are merged stay while a view needs a version in them.
    pub(super) frozen: Vec<Arc<Frozen>>,
    /// Oldest first.
    pub(super) undo: Vec<Arc<Undo>>,
    pub(super) index: Arc<Index>,
}

impl Tables {
    /// An index, and nothing above it yet.
    pub(super) fn new(number: u64, index: Arc<Index>) -> Self {
        Self { number, active: Arc::default(), frozen: Vec::new(), undo: Vec::new(), index }
    }

    /// The memtables that a reader of `revision` looks at, newest first. A merged one is left to the views
    /// within it: for later ones the index holds it, and, maybe, newer tables that have gone from here.
    pub(super) fn memtables(&self, revision: u64) -> impl Iterator<Item = &Arc<Memtable>> {
        let frozen = self.frozen.iter();
        let needed = frozen.filter(move |frozen| !frozen.is_merged() || revision < frozen.checkpoint.revision);
        std::iter::once(&self.active).chain(needed.map(|frozen| &frozen.table))
    }

    /// The newest version of a key up to a revision that is still in memory.
    pub(super) fn in_memory(&self, key: &[u8], revision: u64) -> Option<Option<Bytes>> {
        self.memtables(revision).find_map(|table| table.get(key, revision))
    }

    /// What the index said of a key when it stood at `revision`, if it has changed since.
    pub(super) fn undone(&self, key: &[u8], revision: u64) -> Option<Option<Bytes>> {
        self.undo.iter().filter(|undo| undo.revision > revision).find_map(|undo| undo.get(key))
    }

    /// The frozen tables that the index does not hold yet, oldest first.
    pub(super) fn unmerged(&self) -> impl Iterator<Item = &Arc<Frozen>> {
        self.frozen.iter().rev().filter(|frozen| !frozen.is_merged())
    }

    /// The oldest frozen table that has no run yet.
    pub(super) fn next_to_flush(&self) -> Option<&Arc<Frozen>> {
        self.frozen.iter().rev().find(|frozen| frozen.run.get().is_none())
    }

    /// Bytes of undo tables, and of frozen tables that only views hold.
    pub(super) fn held_for_views(&self) -> usize {
        let undo = self.undo.iter().map(|undo| undo.bytes());
        undo.chain(self.frozen.iter().filter(|frozen| frozen.is_merged()).map(|frozen| frozen.table.bytes())).sum()
    }
}
