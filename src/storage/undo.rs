//! What the index held before a merge changed it, for the views that were open then.

use std::{
    ops::Bound,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use super::engine::Pair;

/// What an entry costs beside its key and value, in bytes.
const ENTRY_OVERHEAD: usize = 96;

/// The pre-images of one merge: what the index said of a key before the merge wrote it. A view older than
/// the merge's revision believes this, and not the index.
pub(super) struct Undo {
    /// The revision that the merge brings the index to.
    pub(super) revision: u64,
    /// Whether the merge goes on.
    pub(super) merging: AtomicBool,
    before: SkipMap<Bytes, Option<Bytes>>,
    bytes: AtomicUsize,
}

impl Undo {
    /// For a merge up to `revision`, which begins now.
    pub(super) fn new(revision: u64) -> Self {
        Self { revision, merging: AtomicBool::new(true), before: SkipMap::new(), bytes: AtomicUsize::new(0) }
    }

    /// Keeps what the index says of a key. Must be done before the index changes: a reader looks at the
    /// index first and here second, so it cannot miss both.
    pub(super) fn keep(&self, (key, value): Pair) {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD;
        self.before.insert(key, value);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What the index said of a key; `None` if the merge has not changed it.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.before.get(key).map(|entry| entry.value().clone())
    }

    /// What the index said of the keys in `start..end`.
    pub(super) fn range(&self, start: &[u8], end: Option<&[u8]>) -> Vec<Pair> {
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        self.before.range::<[u8], _>(bounds).map(|entry| (entry.key().clone(), entry.value().clone())).collect()
    }

    /// What it takes in memory, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
