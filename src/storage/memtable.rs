//! The memtable: recent versions of keys, in memory, in order.
//!
//! A skip list keyed by (key, newest revision first) with one writer and any number of readers, none of
//! whom waits. A version is never changed once written, so a reader of revision R sees the same for as
//! long as it likes: the newest version of each key that is not newer than R.

use std::{
    cmp::Reverse,
    ops::Bound,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use crossbeam_skiplist::{SkipMap, map::Entry};

use super::engine::Pair;

/// What a version costs beside its key and value, in bytes: the tower, two `Bytes`, the allocations.
const VERSION_OVERHEAD: usize = 128;
/// Versions of one key that a scan walks over before it seeks past the rest.
const WALK: usize = 4;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    key: Bytes,
    revision: Reverse<u64>,
}

/// Recent versions of keys.
#[derive(Default)]
pub struct Memtable {
    versions: SkipMap<Version, Option<Bytes>>,
    bytes: AtomicUsize,
    /// The lowest revision in it, plus one; 0 while it is empty.
    lowest: AtomicU64,
}

impl Memtable {
    /// Adds a version: a value, or `None` for a deletion. Only one thread writes.
    pub fn insert(&self, revision: u64, key: Bytes, value: Option<Bytes>) {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len) + VERSION_OVERHEAD;
        self.versions.insert(Version { key, revision: Reverse(revision) }, value);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.lowest.load(Ordering::Relaxed) == 0 {
            self.lowest.store(revision.saturating_add(1), Ordering::Release);
        }
    }

    /// The newest version of a key up to a revision: `None` if there is none here, `Some(None)` if it is
    /// a deletion.
    pub fn get(&self, key: &[u8], revision: u64) -> Option<Option<Bytes>> {
        let version = Version { key: Bytes::copy_from_slice(key), revision: Reverse(revision) };
        let entry = self.versions.lower_bound(Bound::Included(&version))?;
        (entry.key().key == key).then(|| entry.value().clone())
    }

    /// For each key in `start..end` (`None`: to the last) its newest version up to a revision, deletions
    /// included, in key order.
    pub fn scan(&self, start: Bound<&[u8]>, end: Option<&[u8]>, revision: u64) -> Scan<'_> {
        let version = |key, revision| Version { key: Bytes::copy_from_slice(key), revision: Reverse(revision) };
        let next = match start {
            Bound::Included(key) => self.versions.lower_bound(Bound::Included(&version(key, u64::MAX))),
            Bound::Excluded(key) => self.versions.lower_bound(Bound::Excluded(&version(key, 0))),
            Bound::Unbounded => self.versions.front(),
        };
        Scan { table: self, next, end: end.map(Bytes::copy_from_slice), revision }
    }

    /// What it takes in memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// The lowest revision in it; `None` while it is empty.
    pub fn lowest(&self) -> Option<u64> {
        self.lowest.load(Ordering::Acquire).checked_sub(1)
    }
}

/// See [`Memtable::scan`].
pub struct Scan<'a> {
    table: &'a Memtable,
    next: Option<Entry<'a, Version, Option<Bytes>>>,
    end: Option<Bytes>,
    revision: u64,
}

impl<'a> Scan<'a> {
    /// The first version of the next key.
    fn behind(&self, entry: Entry<'a, Version, Option<Bytes>>) -> Option<Entry<'a, Version, Option<Bytes>>> {
        let key = entry.key().key.clone();
        let mut entry = entry;
        for _ in 0..WALK {
            entry = entry.next()?;
            if entry.key().key != key {
                return Some(entry);
            }
        }
        self.table.versions.lower_bound(Bound::Excluded(&Version { key, revision: Reverse(0) }))
    }
}

impl Iterator for Scan<'_> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let entry = self.next.take()?;
            let Version { key, revision } = entry.key();
            if self.end.as_ref().is_some_and(|end| key >= end) {
                return None;
            }
            if revision.0 > self.revision {
                // The first version of this key, or of the next one, that this reader may see.
                let visible = Version { key: key.clone(), revision: Reverse(self.revision) };
                self.next = self.table.versions.lower_bound(Bound::Included(&visible));
                continue;
            }
            let pair = (key.clone(), entry.value().clone());
            self.next = self.behind(entry);
            return Some(pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn table() -> Memtable {
        let table = Memtable::default();
        for revision in 1..=20 {
            table.insert(revision, bytes("hot"), Some(bytes(&revision.to_string())));
        }
        table.insert(5, bytes("a"), Some(bytes("first")));
        table.insert(9, bytes("a"), None);
        table.insert(30, bytes("z"), Some(bytes("late")));
        table
    }

    #[test]
    fn a_reader_sees_the_newest_version_up_to_its_revision() {
        let table = table();
        assert_eq!(table.get(b"a", 4), None);
        assert_eq!(table.get(b"a", 5), Some(Some(bytes("first"))));
        assert_eq!(table.get(b"a", 8), Some(Some(bytes("first"))));
        assert_eq!(table.get(b"a", 9), Some(None));
        assert_eq!(table.get(b"hot", 17), Some(Some(bytes("17"))));
        assert_eq!(table.get(b"ho", 17), None);
        assert_eq!(table.lowest(), Some(1));
    }

    #[test]
    fn a_scan_shows_each_key_once() {
        let table = table();
        let scan = |start, end, revision| table.scan(start, end, revision).collect::<Vec<_>>();
        let hot = |n: u64| (bytes("hot"), Some(bytes(&n.to_string())));
        assert_eq!(scan(Bound::Unbounded, None, 0), []);
        assert_eq!(scan(Bound::Unbounded, None, 7), [(bytes("a"), Some(bytes("first"))), hot(7)]);
        assert_eq!(
            scan(Bound::Unbounded, None, u64::MAX),
            [(bytes("a"), None), hot(20), (bytes("z"), Some(bytes("late")))]
        );
        assert_eq!(scan(Bound::Excluded(b"a"), Some(b"z"), u64::MAX), [hot(20)]);
        assert_eq!(scan(Bound::Included(b"hot"), Some(b"hot\0"), 3), [hot(3)]);
    }
}
