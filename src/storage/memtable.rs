//! The memtable: recent versions of keys, in memory.
//!
//! One writer, any number of readers. Each key has a place ([`Slot`]) with its versions, found by a hash table, and in order by a
//! skip list: who writes or reads one key searches no order, and only a key that is new here is put into it. A version is never
//! changed once written, so a reader of revision R sees the same for as long as it likes: the newest version of each key
//! that is not newer than R.
//!
//! A version with a newer one behind it is kept for readers of older revisions only. Which of these can still come is not known
//! here: whoever knows says up to which revision such versions are to go ([`Memtable::retire`]). So what is written over and over
//! takes no more memory than what is written once.

use std::{
    borrow::Borrow,
    cmp,
    collections::VecDeque,
    mem,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use crossbeam_skiplist::{SkipMap, map::Entry};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::engine::Pair;

/// What a key costs beside its bytes and those of its newest value: its slot, the node in the order, the place in the hash
/// table, the value's `Bytes`, in bytes.
const SLOT_OVERHEAD: usize = 232;
/// What an older version costs beside its value, in bytes.
const VERSION_OVERHEAD: usize = 96;
/// Keys up to this many bytes stand in the nodes.
const INLINE: usize = 38;
/// Parts of the hash table, each with a lock of its own.
const SHARDS_LOG2: u32 = 6;

/// A key, as a node holds it.
#[derive(Clone)]
enum Name {
    Short { len: u8, bytes: [u8; INLINE] },
    Long(Bytes),
}

impl Name {
    /// Of a key, which is copied: it may be part of something large.
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match (u8::try_from(key.len()), bytes.get_mut(..key.len())) {
            (Ok(len), Some(place)) => {
                place.copy_from_slice(key);
                Self::Short { len, bytes }
            }
            _ => Self::Long(Bytes::copy_from_slice(key)),
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

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Name {}

struct Version {
    revision: u64,
    value: Option<Bytes>,
}

impl Version {
    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// The versions of one key.
struct Versions {
    newest: Version,
    /// Those before, the oldest first.
    older: VecDeque<Version>,
}

impl Versions {
    /// The newest up to a revision.
    fn at(&self, revision: u64) -> Option<&Version> {
        if self.newest.revision <= revision {
            return Some(&self.newest);
        }
        let before = self.older.partition_point(|version| version.revision <= revision);
        self.older.get(before.checked_sub(1)?)
    }
}

/// The place of a key.
struct Slot {
    name: Name,
    versions: Mutex<Versions>,
}

impl Slot {
    fn versions(&self) -> MutexGuard<'_, Versions> {
        // Nothing panics between two changes of it.
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, revision: u64) -> Option<Option<Bytes>> {
        self.versions().at(revision).map(|version| version.value.clone())
    }
}

/// The slots by the hash of their keys.
struct Places(Box<[RwLock<HashTable<Arc<Slot>>>]>);

impl Default for Places {
    fn default() -> Self {
        Self((0..1_u32 << SHARDS_LOG2).map(|_| RwLock::default()).collect())
    }
}

impl Places {
    fn shard(&self, hash: u64) -> Option<&RwLock<HashTable<Arc<Slot>>>> {
        // The table itself goes by the other bits.
        self.0.get(usize::try_from(hash >> (u64::BITS / 2)).ok()? % self.0.len())
    }

    /// Looks at the slot of a key, if there is one.
    fn look<T>(&self, hash: u64, key: &[u8], look: impl FnOnce(&Arc<Slot>) -> T) -> Option<T> {
        let shard = self.shard(hash)?.read().unwrap_or_else(PoisonError::into_inner);
        shard.find(hash, |slot| slot.name.as_slice() == key).map(look)
    }

    fn add(&self, hash: u64, slot: Arc<Slot>) {
        if let Some(shard) = self.shard(hash) {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.insert_unique(hash, slot, |slot| xxh3_64(slot.name.as_slice()));
        }
    }
}

/// A version that has a newer one behind it.
struct Superseded {
    slot: Arc<Slot>,
    /// The revision of the newer one.
    by: u64,
    /// What it takes in memory.
    bytes: usize,
}

/// Recent versions of keys.
#[derive(Default)]
pub struct Memtable {
    order: SkipMap<Name, Arc<Slot>>,
    places: Places,
    /// In the order in which the newer ones were written.
    superseded: Mutex<VecDeque<Superseded>>,
    superseded_bytes: AtomicUsize,
    bytes: AtomicUsize,
    /// What was written into it so far, in bytes.
    written: AtomicUsize,
    /// The lowest revision in it, plus one; 0 while it is empty.
    lowest: AtomicU64,
}

impl Memtable {
    /// Adds a version: a value, or `None` for a deletion. Only one thread writes.
    pub fn insert(&self, revision: u64, key: Bytes, value: Option<Bytes>) {
        let hash = xxh3_64(&key);
        let version = Version { revision, value };
        let bytes = version.bytes();
        self.written.fetch_add(key.len() + bytes + VERSION_OVERHEAD, Ordering::Relaxed);
        if let Some(slot) = self.places.look(hash, &key, Arc::clone) {
            self.supersede(slot, version);
        } else {
            let (name, versions) = (Name::new(&key), Versions { newest: version, older: VecDeque::new() });
            let slot = Arc::new(Slot { name: name.clone(), versions: versions.into() });
            self.order.insert(name, slot.clone());
            self.places.add(hash, slot);
            self.bytes.fetch_add(key.len() + bytes + SLOT_OVERHEAD, Ordering::Relaxed);
        }
        if self.lowest.load(Ordering::Relaxed) == 0 {
            self.lowest.store(revision.saturating_add(1), Ordering::Release);
        }
    }

    /// Adds a version of a key that has one.
    fn supersede(&self, slot: Arc<Slot>, version: Version) {
        let (revision, added) = (version.revision, version.bytes());
        let before = {
            let mut versions = slot.versions();
            let before = mem::replace(&mut versions.newest, version);
            let bytes = before.bytes();
            if before.revision == revision {
                // Nobody can have read it yet, and nobody will.
                self.bytes.fetch_add(added, Ordering::Relaxed);
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                return;
            }
            versions.older.push_back(before);
            bytes + VERSION_OVERHEAD
        };
        self.bytes.fetch_add(added + VERSION_OVERHEAD, Ordering::Relaxed);
        self.superseded_bytes.fetch_add(before, Ordering::Relaxed);
        self.queue().push_back(Superseded { slot, by: revision, bytes: before });
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Superseded>> {
        self.superseded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to which revision versions must be retired so that those which have a newer one take no more than `bytes`; `None` if
    /// they do not.
    pub fn to_retire(&self, bytes: usize) -> Option<u64> {
        let mut left = self.superseded_bytes();
        let queue = self.queue();
        let needed = queue.iter().take_while(|version| {
            let more = left > bytes;
            left = left.saturating_sub(version.bytes);
            more
        });
        needed.last().map(|version| version.by)
    }

    /// Drops the versions that have a newer one up to this revision: nobody reads at revisions before it any more. Only the
    /// writer calls it.
    pub fn retire(&self, revision: u64) {
        let mut queue = self.queue();
        while let Some(Superseded { slot, bytes, .. }) = queue.pop_front_if(|version| version.by <= revision) {
            // Of one key, too, the oldest comes first.
            drop(slot.versions().older.pop_front());
            self.superseded_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The newest version of a key up to a revision: `None` if there is none here, `Some(None)` if it is
    /// a deletion.
    pub fn get(&self, key: &[u8], revision: u64) -> Option<Option<Bytes>> {
        self.places.look(xxh3_64(key), key, |slot| slot.at(revision)).flatten()
    }

    /// For each key in `start..end` (`None`: to the last) its newest version up to a revision, deletions
    /// included, in key order.
    pub fn scan(&self, start: Bound<&[u8]>, end: Option<&[u8]>, revision: u64) -> Scan<'_> {
        let next = match start {
            Bound::Unbounded => self.order.front(),
            start => self.order.lower_bound::<[u8]>(start),
        };
        Scan { next, end: end.map(Bytes::copy_from_slice), revision }
    }

    /// What it takes in memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What the versions take that have a newer one, in bytes, about.
    pub fn superseded_bytes(&self) -> usize {
        self.superseded_bytes.load(Ordering::Relaxed)
    }

    /// What was written into it so far, in bytes, about; also what is no longer there.
    pub fn written_bytes(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The lowest revision in it; `None` while it is empty.
    pub fn lowest(&self) -> Option<u64> {
        self.lowest.load(Ordering::Acquire).checked_sub(1)
    }
}

/// See [`Memtable::scan`].
pub struct Scan<'a> {
    next: Option<Entry<'a, Name, Arc<Slot>>>,
    end: Option<Bytes>,
    revision: u64,
}

impl Iterator for Scan<'_> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let entry = self.next.take()?;
            let name = entry.key();
            if self.end.as_ref().is_some_and(|end| name.as_slice() >= &end[..]) {
                return None;
            }
            let pair = entry.value().at(self.revision).map(|value| (name.to_bytes(), value));
            self.next = entry.next();
            if pair.is_some() {
                return pair;
            }
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
    fn what_is_retired_is_what_only_older_readers_need() {
        let table = Memtable::default();
        for revision in 1..=20 {
            table.insert(revision, bytes("hot"), Some(bytes("value")));
            if revision % 5 == 0 {
                table.insert(revision, bytes("warm"), Some(bytes(&revision.to_string())));
            }
        }
        let each = "value".len() + VERSION_OVERHEAD;
        assert_eq!(table.to_retire(table.superseded_bytes()), None);
        assert_eq!(table.to_retire(table.superseded_bytes() - each), Some(2), "the first is enough");
        let (before, written) = (table.bytes(), table.written_bytes());
        table.retire(10);
        assert!(table.bytes() < before && table.written_bytes() == written);
        for revision in 10..=20 {
            assert_eq!(table.get(b"hot", revision), Some(Some(bytes("value"))));
        }
        assert_eq!(table.get(b"hot", 9), None, "gone");
        assert_eq!(table.get(b"warm", 14), Some(Some(bytes("10"))));
        table.retire(u64::MAX);
        assert_eq!((table.superseded_bytes(), table.to_retire(0)), (0, None));
        let newest = [(bytes("hot"), Some(bytes("value"))), (bytes("warm"), Some(bytes("20")))];
        assert_eq!(table.scan(Bound::Unbounded, None, u64::MAX).collect::<Vec<_>>(), newest);
        assert_eq!(table.bytes(), 2 * SLOT_OVERHEAD + "hotvaluewarm20".len());
    }

    #[test]
    fn a_key_that_is_written_twice_at_one_revision_is_what_was_written_last() {
        let table = Memtable::default();
        table.insert(1, bytes("key"), Some(bytes("first")));
        table.insert(1, bytes("key"), None);
        assert_eq!((table.get(b"key", 1), table.superseded_bytes()), (Some(None), 0));
        assert_eq!(table.bytes(), SLOT_OVERHEAD + "key".len());
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
