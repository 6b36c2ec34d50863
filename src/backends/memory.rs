//! Everything in memory: versions of keys in the memtable of `storage`, which gives each reader one revision.
//!
//! A memtable forgets nothing. So it is made anew, without what nobody can see any more, when that is more than what is there, in
//! number or in bytes: each write pays for a constant part of it. Views that are open keep the old one until they go.

use std::{
    collections::HashSet,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    calls::Backend,
    local::{self, Handle, Keeper, Local, Pairs, Reader},
};
use crate::{
    environment::Environment,
    error::Fault,
    model::{
        Principal,
        key::{PREFIX_BYTES, prefix_end},
    },
    service::transactions::Transactions,
    state::{Base, Meta},
    storage::memtable::Memtable,
};

/// So much that nobody can see is left alone, however little is there.
const GARBAGE: Amount = Amount { versions: 4_096, bytes: 4 << 20 };

/// Versions and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    versions: usize,
    bytes: usize,
}

impl Amount {
    fn of(key: &[u8], value: &[u8]) -> Self {
        Self { versions: 1, bytes: key.len() + value.len() }
    }

    fn add(&mut self, other: Self) {
        self.versions += other.versions;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.versions -= other.versions;
        self.bytes -= other.bytes;
    }

    /// Whether it is more than another and than a bound, in either sense.
    fn exceeds(self, other: Self, bound: Self) -> bool {
        self.versions > other.versions.max(bound.versions) || self.bytes > other.bytes.max(bound.bytes)
    }
}

/// Values in memory, gone when the last handle is. Cheap to clone; all clones are one store.
///
/// ```
/// use std::sync::Arc;
///
/// use meshstore::{
///     backends::Memory,
///     contract::{Storage, Value},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let storage: Arc<dyn Storage> = Arc::new(Memory::new()?);
/// storage.set("greeting", Value::json("hello")?, "notes".into()).await?;
/// assert_eq!(storage.count("notes".into()).await?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Memory {
    /// First: what they keep open goes before the store.
    transactions: Transactions,
    handle: Handle,
    principal: Principal,
}

impl Memory {
    /// An empty store.
    ///
    /// Errors: its thread cannot be started.
    pub fn new() -> Result<Self, Fault> {
        Self::open(&Environment::real())
    }

    fn open(environment: &Environment) -> Result<Self, Fault> {
        let table = Shown { table: Arc::new(Memtable::default()), revision: 0 };
        let shown = Arc::new(Mutex::new(table));
        let keeper = Versions::of(Arc::clone(&shown));
        let handle = local::start(environment, keeper, Latest(shown), Meta::default())?;
        Ok(Self { handle, principal: Principal::Anonymous, transactions: Transactions::default() })
    }

    /// The same store, whose values are written as somebody.
    #[must_use]
    pub fn with_principal(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }
}

impl Backend for Memory {
    type Core = Local;
    type Handle = Handle;

    fn core(&self) -> &Local {
        &self.handle
    }

    fn handle(&self) -> Handle {
        self.handle.clone()
    }

    fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    fn principal(&self) -> &Principal {
        &self.principal
    }

    fn is_durable(&self) -> bool {
        false
    }
}

/// What readers see.
struct Shown {
    table: Arc<Memtable>,
    revision: u64,
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All versions, and how many of them are of use.
struct Versions {
    shown: Arc<Mutex<Shown>>,
    /// Keys that have a value, and these.
    live: Amount,
    /// Versions that no later view sees.
    garbage: Amount,
    /// Scopes whose keys are never read again, by their prefixes; those of which that is not counted yet.
    forgotten: HashSet<Prefix>,
    uncounted: Vec<Prefix>,
}

/// The bytes with which the keys of a scope begin.
type Prefix = [u8; PREFIX_BYTES];

impl Versions {
    fn of(shown: Arc<Mutex<Shown>>) -> Self {
        let (live, garbage) = (Amount::default(), Amount::default());
        Self { shown, live, garbage, forgotten: HashSet::new(), uncounted: Vec::new() }
    }

    fn is_forgotten(&self, key: &[u8]) -> bool {
        key.first_chunk().is_some_and(|prefix| self.forgotten.contains(prefix))
    }

    fn table(&self) -> Arc<Memtable> {
        Arc::clone(&lock(&self.shown).table)
    }
}

fn get(table: &Memtable, key: &[u8], revision: u64) -> Option<Bytes> {
    table.get(key, revision).flatten()
}

fn range(table: &Memtable, (start, end): (&[u8], Option<&[u8]>), limit: usize, revision: u64) -> Vec<(Bytes, Bytes)> {
    let pairs = table.scan(Bound::Included(start), end, revision);
    pairs.filter_map(|(key, value)| Some((key, value?))).take(limit).collect()
}

impl Base for Versions {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(get(&self.table(), key, u64::MAX))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        Ok(range(&self.table(), (start, end), limit, u64::MAX))
    }

    fn write(&mut self, revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        let table = self.table();
        for (key, value) in pairs {
            if let Some(before) = get(&table, &key, u64::MAX) {
                let before = Amount::of(&key, &before);
                self.live.subtract(before);
                self.garbage.add(before);
            }
            match &value {
                Some(value) => self.live.add(Amount::of(&key, value)),
                None => self.garbage.add(Amount::of(&key, &[])),
            }
            table.insert(revision, key, value);
        }
        Ok(())
    }
}

impl Keeper for Versions {
    fn forget(&mut self, prefix: &[u8]) -> Result<(), Fault> {
        let prefix = *prefix.first_chunk().ok_or_else(|| Fault::bug("a scope without a prefix"))?;
        if self.forgotten.insert(prefix) {
            self.uncounted.push(prefix);
        }
        Ok(())
    }

    fn commit(&mut self, meta: &Meta) -> Result<(), Fault> {
        lock(&self.shown).revision = meta.revision;
        Ok(())
    }

    /// Nothing here can fail but by a bug.
    fn take_back(&mut self) -> Option<Meta> {
        None
    }

    fn reclaim(&mut self) -> Result<bool, Fault> {
        // Behind, since there may be much in a scope.
        for prefix in std::mem::take(&mut self.uncounted) {
            let (table, end) = (self.table(), prefix_end(&prefix));
            for (key, value) in table.scan(Bound::Included(&prefix), end.as_deref(), u64::MAX) {
                if let Some(value) = value {
                    let gone = Amount::of(&key, &value);
                    self.live.subtract(gone);
                    self.garbage.add(gone);
                }
            }
        }
        if !self.garbage.exceeds(self.live, GARBAGE) {
            return Ok(false);
        }
        let (old, new) = (self.table(), Memtable::default());
        let revision = lock(&self.shown).revision;
        self.live = Amount::default();
        for (key, value) in old.scan(Bound::Unbounded, None, u64::MAX) {
            if let Some(value) = value.filter(|_| !self.is_forgotten(&key)) {
                self.live.add(Amount::of(&key, &value));
                new.insert(revision, key, Some(value));
            }
        }
        self.garbage = Amount::default();
        self.forgotten.clear();
        lock(&self.shown).table = Arc::new(new);
        Ok(false)
    }
}

/// Where views are opened.
struct Latest(Arc<Mutex<Shown>>);

impl Reader for Latest {
    fn newest(&self) -> Result<(u64, Box<dyn Pairs>), Fault> {
        let Shown { table, revision } = &*lock(&self.0);
        Ok((*revision, Box::new(AsOf { table: Arc::clone(table), revision: *revision })))
    }
}

/// Everything as of a revision.
struct AsOf {
    table: Arc<Memtable>,
    revision: u64,
}

impl Pairs for AsOf {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(get(&self.table, key, self.revision))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        Ok(range(&self.table, (start, end), limit, self.revision))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{
        environment::clock::testing::Hand,
        model::{
            ReadMode, keyspace,
            proposal::Guards,
            transaction::{Operation, Put, Transaction},
        },
        node::Request,
        service::Core,
    };

    #[tokio::test]
    async fn what_is_due_goes_before_anybody_reads_past_it() {
        let hand = Arc::new(Hand::default());
        let clock: Arc<Hand> = Arc::clone(&hand);
        let store = Memory::open(&Environment { clock, ..Environment::real() }).unwrap();
        let (core, deadline) = (store.core(), Instant::now() + Duration::from_secs(60));
        let key = crate::model::ScopeId::new(keyspace::STATE, keyspace::NO_SCOPE).key(b"k");
        let put = Put { ttl_ms: Some(1_000), ..Put::value("v") };
        let then = vec![Operation::Put { key: key.clone(), put }];
        let transaction = Transaction { then, ..Transaction::default() };
        let request = Request { principal: "test".into(), attempt: None, guards: Guards::default(), transaction };
        core.propose(request, deadline).await.unwrap();
        let read = async || core.read(ReadMode::Linearizable, None, deadline).await.unwrap().0.record(&key).unwrap();
        hand.set_ms(999);
        assert!(read().await.is_some());
        hand.set_ms(1_000);
        assert!(read().await.is_none());
    }

    fn versions() -> (Versions, Latest) {
        let shown = Arc::new(Mutex::new(Shown { table: Arc::default(), revision: 0 }));
        (Versions::of(Arc::clone(&shown)), Latest(shown))
    }

    fn write(versions: &mut Versions, revision: u64, key: String, value: Option<&'static str>) {
        versions.write(revision, vec![(key.into(), value.map(Bytes::from))]).unwrap();
        versions.commit(&Meta { revision, ..Meta::default() }).unwrap();
        assert!(!versions.reclaim().unwrap());
    }

    #[test]
    fn what_nobody_sees_is_freed_and_open_views_go_on() {
        let (mut versions, latest) = versions();
        write(&mut versions, 1, "kept".into(), Some("first"));
        write(&mut versions, 2, "gone".into(), Some("first"));
        let (revision, view) = latest.newest().unwrap();
        let before = versions.table();
        for revision in 3.. {
            write(&mut versions, revision, "gone".into(), (revision % 2 == 0).then_some("later"));
            if !Arc::ptr_eq(&before, &versions.table()) {
                break;
            }
        }
        let (live, garbage) = (versions.live, versions.garbage);
        assert_eq!(
            (live.versions, garbage),
            (1, Amount::default()),
            "a deletion was the last, and is not carried over"
        );
        assert_eq!(revision, 2);
        let first = [("gone", "first"), ("kept", "first")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(view.range(b"", None, 10).unwrap(), first);
        let (_, now) = latest.newest().unwrap();
        assert_eq!(now.range(b"", None, 10).unwrap(), [("kept".into(), "first".into())]);
    }

    #[test]
    fn a_forgotten_scope_is_freed_with_the_rest() {
        let (mut versions, latest) = versions();
        let many = GARBAGE.versions as u64 + 1;
        for revision in 1..=many {
            write(&mut versions, revision, format!("a____/{revision}"), Some("v"));
        }
        write(&mut versions, many + 1, "b____/1".into(), Some("v"));
        versions.forget(b"a____").unwrap();
        assert!(!versions.reclaim().unwrap());
        assert_eq!((versions.live.versions, versions.table().bytes() < 1_000), (1, true));
        assert_eq!(latest.newest().unwrap().1.range(b"", None, 10).unwrap(), [("b____/1".into(), "v".into())]);
    }

    #[test]
    fn large_values_are_freed_however_few_they_are() {
        let (mut versions, latest) = versions();
        let large = Bytes::from(vec![7; 1 << 20]);
        for revision in 1..=100 {
            versions.write(revision, vec![("key__".into(), Some(large.clone()))]).unwrap();
            versions.commit(&Meta { revision, ..Meta::default() }).unwrap();
            versions.reclaim().unwrap();
            assert!(versions.table().bytes() < 8 << 20, "{} bytes", versions.table().bytes());
        }
        assert_eq!(latest.newest().unwrap().1.get(b"key__").unwrap(), Some(large));
    }
}
