//! The memtable: recent versions of keys, in memory, in order.
//!
//! A skip list keyed by (key, newest revision first) with one writer and any number of readers, none of
//! whom waits. A version is never changed once written, so a reader of revision R sees the same for as
//! long as it likes: the newest version of each key that is not newer than R.
//!
//! A search visits some twenty nodes that lie anywhere in memory, and apply makes several for each record. So short
//! keys stand in the nodes themselves, and a filter knows most of the keys that are not here at all.

use std::{
    cmp::{self, Reverse},
    ops::Bound,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use crossbeam_skiplist::{SkipMap, map::Entry};

use super::{engine::Pair, filter::Filter};

/// What a version costs beside its key and value, in bytes: the node, the value's `Bytes`, the allocations.
const VERSION_OVERHEAD: usize = 128;
/// Versions of one key that a scan walks over before it seeks past the rest.
const WALK: usize = 4;
/// Keys up to this many bytes stand in the node.
const INLINE: usize = 38;

/// A key, as a node holds it.
#[derive(Clone)]
enum Name {
    Short { len: u8, bytes: [u8; INLINE] },
    Long(Bytes),
}

impl Name {
    /// Of a key, which is copied or shared.
    fn new(key: &[u8], share: impl FnOnce() -> Bytes) -> Self {
        let mut bytes = [0; INLINE];
        match (u8::try_from(key.len()), bytes.get_mut(..key.len())) {
            (Ok(len), Some(place)) => {
                place.copy_from_slice(key);
                Self::Short { len, bytes }
            }
            _ => Self::Long(share()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(key) => key,
        }
    }

    fn to_bytes(&self) -> Bytes {
        match self {
            Self::Short { .. } => Bytes::copy_from_slice(self.as_slice()),
            Self::Long(key) => key.clone(),
        }
    }
}

#[derive(Clone)]
struct Version {
    name: Name,
    revision: Reverse<u64>,
}

impl Version {
    /// Where a search for a key at a revision begins.
    fn sought(key: &[u8], revision: u64) -> Self {
        Self { name: Name::new(key, || Bytes::copy_from_slice(key)), revision: Reverse(revision) }
    }

    fn key(&self) -> &[u8] {
        self.name.as_slice()
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.key().cmp(other.key()).then_with(|| self.revision.cmp(&other.revision))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// Recent versions of keys.
#[derive(Default)]
pub struct Memtable {
    versions: SkipMap<Version, Option<Bytes>>,
    filter: Filter,
    bytes: AtomicUsize,
    /// The lowest revision in it, plus one; 0 while it is empty.
    lowest: AtomicU64,
}

impl Memtable {
    /// Adds a version: a value, or `None` for a deletion. Only one thread writes.
    pub fn insert(&self, revision: u64, key: Bytes, value: Option<Bytes>) {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len) + VERSION_OVERHEAD;
        // First: whoever learns of the revision finds the key in the filter.
        self.filter.add(&key);
        let name = Name::new(&key, || key.clone());
        self.versions.insert(Version { name, revision: Reverse(revision) }, value);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.lowest.load(Ordering::Relaxed) == 0 {
            self.lowest.store(revision.saturating_add(1), Ordering::Release);
        }
    }

    /// The newest version of a key up to a revision: `None` if there is none here, `Some(None)` if it is
    /// a deletion.
    pub fn get(&self, key: &[u8], revision: u64) -> Option<Option<Bytes>> {
        if !self.filter.may_hold(key) {
            return None;
        }
        let entry = self.versions.lower_bound(Bound::Included(&Version::sought(key, revision)))?;
        (entry.key().key() == key).then(|| entry.value().clone())
    }

    /// For each key in `start..end` (`None`: to the last) its newest version up to a revision, deletions
    /// included, in key order.
    pub fn scan(&self, start: Bound<&[u8]>, end: Option<&[u8]>, revision: u64) -> Scan<'_> {
        let next = match start {
            Bound::Included(key) => self.versions.lower_bound(Bound::Included(&Version::sought(key, u64::MAX))),
            Bound::Excluded(key) => self.versions.lower_bound(Bound::Excluded(&Version::sought(key, 0))),
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
        let name = entry.key().name.clone();
        let mut entry = entry;
        for _ in 0..WALK {
            entry = entry.next()?;
            if entry.key().key() != name.as_slice() {
                return Some(entry);
            }
        }
        self.table.versions.lower_bound(Bound::Excluded(&Version { name, revision: Reverse(0) }))
    }
}

impl Iterator for Scan<'_> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let entry = self.next.take()?;
            let Version { name, revision } = entry.key();
            if self.end.as_ref().is_some_and(|end| name.as_slice() >= &end[..]) {
                return None;
            }
            if revision.0 > self.revision {
                // The first version of this key, or of the next one, that this reader may see.
                let visible = Version { name: name.clone(), revision: Reverse(self.revision) };
                self.next = self.table.versions.lower_bound(Bound::Included(&visible));
                continue;
            }
            let pair = (name.to_bytes(), entry.value().clone());
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

    #[test]
    fn short_and_long_keys_stand_in_one_order() {
        let keys: Vec<String> = (30..48).map(|len| "k".repeat(len)).collect();
        let table = Memtable::default();
        for (revision, key) in (1..).zip(keys.iter().rev()) {
            table.insert(revision, bytes(key), Some(bytes(key)));
        }
        let scanned: Vec<Pair> = table.scan(Bound::Unbounded, None, u64::MAX).collect();
        assert_eq!(scanned, keys.iter().map(|key| (bytes(key), Some(bytes(key)))).collect::<Vec<_>>());
        for key in &keys {
            assert_eq!(table.get(key.as_bytes(), u64::MAX), Some(Some(bytes(key))));
        }
    }
}
