//! What a transaction is shown: a view with its own writes over it, and note of what was looked at.
//!
//! What was read is kept as compares, which hold for as long as nobody has changed it: a record by the revision of its last
//! write, records of a range by their number and by that none was written since, anything that the core derives by the last
//! change of its scope. They are noted below all layers, where the bytes come from. So whatever a layer does to answer a
//! call, a transaction whose compares hold when it is committed has seen what it would see then: no update is lost, no
//! phantom missed.
//!
//! A record that the transaction itself has written is not read from below. But what it shows of itself, its version and when
//! it was created, goes back to what it replaces, so looking at it counts as looking at that, too. Only to write counts for nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    constants::UNCHANGED_KEYS,
    overlay::{behind, is_record_keyspace, merged},
    pending::Pending,
    stored,
    view::Source,
};
use crate::{
    Result,
    error::{Error, Fault},
    model::{Key, ScopeId, key, keyspace, transaction::Compare},
};

/// A view with pending writes over it.
pub struct Shown {
    /// The view.
    pub ground: Arc<dyn Source>,
    /// What is laid over it; it must be laid over this one.
    pub pending: Arc<Pending>,
    /// Where it is noted what was looked at, if it is.
    pub reads: Option<Noted>,
}

/// What was looked at, shared by those who look.
pub type Noted = Arc<Mutex<Reads>>;

/// What was looked at.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// The revision of the last write of each record; 0: there was none.
    records: BTreeMap<Key, u64>,
    /// By the key behind each range: where it begins, and how many records were in it.
    ranges: BTreeMap<Bytes, (Key, u64)>,
    /// Scopes that must not have changed at all.
    scopes: BTreeSet<ScopeId>,
    /// How many records the ranges of each scope hold: each is looked at again when the commit is applied.
    counts: BTreeMap<ScopeId, u64>,
    /// About how many bytes they take as compares.
    bytes: usize,
    room: Room,
}

/// How much may be noted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Compares.
    pub compares: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What a compare takes beside its keys, in bytes, at most.
const COMPARE_BYTES: usize = 32;

impl Reads {
    /// Nothing; no more may be noted than there is room for.
    pub fn new(room: Room) -> Self {
        Self { room, ..Self::default() }
    }

    /// About how many bytes they take as compares.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that a record was last written at this revision; 0: that there is none.
    pub fn note_record(&mut self, key: Key, revision: u64) {
        let bytes = key.as_bytes().len() + COMPARE_BYTES;
        if self.records.insert(key, revision).is_none() {
            self.bytes += bytes;
        }
    }

    fn note_scope(&mut self, scope: ScopeId) {
        if !self.scopes.insert(scope) {
            return;
        }
        self.bytes += COMPARE_BYTES;
        let of_scope = self.ranges.iter().filter(|(_, (start, _))| start.scope() == scope);
        let ends: Vec<Bytes> = of_scope.map(|(end, _)| end.clone()).collect();
        ends.iter().for_each(|end| self.forget_range(end));
        self.counts.remove(&scope);
    }

    /// How many compares they make.
    pub fn len(&self) -> usize {
        self.records.len() + self.ranges.len() + self.scopes.len()
    }

    /// Whether nothing was looked at.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.room);
    }

    /// Takes others in, of the same view.
    pub fn absorb(&mut self, other: &mut Self) {
        for (key, revision) in std::mem::take(&mut other.records) {
            self.note_record(key, revision);
        }
        other.counts.clear();
        for scope in std::mem::take(&mut other.scopes) {
            self.note_scope(scope);
        }
        for (end, (start, count)) in std::mem::take(&mut other.ranges) {
            self.note_range(start, end, count);
        }
    }

    /// The records, each with the revision of its last write.
    pub fn records(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.records.iter().map(|(key, revision)| (key, *revision))
    }

    /// The ranges and scopes, as compares that hold while they are as they were at a revision.
    pub fn others(&self, since: u64) -> impl Iterator<Item = Compare> {
        let ranges = self.ranges.iter().map(move |(end, (start, count))| Compare::Unchanged {
            start: start.clone(),
            end: end.clone(),
            count: *count,
            since,
        });
        ranges.chain(self.scopes.iter().map(move |scope| Compare::unchanged_since(*scope, since)))
    }

    fn note_range(&mut self, start: Key, end: Bytes, count: u64) {
        let scope = start.scope();
        if self.scopes.contains(&scope) || self.ranges.get(&end).is_some_and(|(wider, _)| *wider <= start) {
            return;
        }
        // A list that is longer than a compare may look through counts as all that its scope holds.
        let in_scope = self.counts.entry(scope).or_default();
        *in_scope += count;
        if *in_scope > UNCHANGED_KEYS {
            return self.note_scope(scope);
        }
        // A list is read in parts, one behind the other: together they are one range.
        let (mut start, mut count) = (start, count);
        if let Some((before, more)) = self.ranges.get(start.as_bytes()).cloned()
            && before.scope() == scope
        {
            self.forget_range(start.as_bytes());
            (start, count) = (before, count + more);
        }
        self.forget_range(&end);
        self.bytes += range_bytes(&start, &end);
        self.ranges.insert(end, (start, count));
    }

    fn forget_range(&mut self, end: &[u8]) {
        if let Some((end, (start, _))) = self.ranges.remove_entry(end) {
            self.bytes -= range_bytes(&start, &end);
        }
    }
}

fn range_bytes(start: &Key, end: &Bytes) -> usize {
    start.as_bytes().len() + end.len() + COMPARE_BYTES
}

impl Shown {
    fn reads(&self) -> Option<MutexGuard<'_, Reads>> {
        self.reads.as_ref().map(|reads| reads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what was found under a key.
    fn note(&self, pair_key: &[u8], found: Option<&Bytes>) -> Result<()> {
        let Some(mut reads) = self.reads().filter(|_| !is_no_answer(pair_key)) else { return Ok(()) };
        let key = Key::from_bytes(Bytes::copy_from_slice(pair_key));
        let key = key.ok_or_else(|| self.fault(Fault::bug("a key without a scope was read")))?;
        if is_record_keyspace(key.scope().keyspace) {
            let record = found.map(|bytes| stored::decode(pair_key, bytes)).transpose();
            let record = record.map_err(|fault| self.fault(fault))?;
            reads.note_record(key, record.map_or(0, |record| record.mod_revision));
        } else {
            reads.note_scope(key.scope());
        }
        within_room(&mut reads)
    }

    /// Notes that `count` pairs were found in a range.
    fn note_range(&self, start: &[u8], end: Bytes, count: usize) -> Result<()> {
        let Some(mut reads) = self.reads().filter(|_| !is_no_answer(start)) else { return Ok(()) };
        let start = Key::from_bytes(Bytes::copy_from_slice(start));
        let start = start.ok_or_else(|| self.fault(Fault::bug("a range without a scope was read")))?;
        let (scope, count) = (start.scope(), count as u64);
        if is_record_keyspace(scope.keyspace) && count <= UNCHANGED_KEYS {
            reads.note_range(start, end, count);
        } else {
            reads.note_scope(scope);
        }
        within_room(&mut reads)
    }
}

/// Whether no answer depends on what stands there: how far indexes are built changes how values are found, not which.
fn is_no_answer(pair_key: &[u8]) -> bool {
    key::scope_of(pair_key).is_some_and(|scope| scope.keyspace == keyspace::NAMESPACE_INDEXES)
}

/// Errors: `Refused` if more was noted than may be.
fn within_room(reads: &mut Reads) -> Result<()> {
    if reads.len() <= reads.room.compares && reads.bytes <= reads.room.bytes {
        return Ok(());
    }
    // The call shows nothing.
    reads.clear();
    Err(Error::Refused(
        "the transaction reads more than can be checked when it is committed: read less in it, or whole lists instead of \
         single records, or begin one that is read-committed"
            .into(),
    ))
}

impl Source for Shown {
    fn get(&self, pair_key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(pending) = self.pending.pairs().get(pair_key) {
            let shows_older =
                pending.is_some() && key::scope_of(pair_key).is_some_and(|s| is_record_keyspace(s.keyspace));
            if self.reads.is_some() && shows_older {
                self.note(pair_key, self.ground.get(pair_key)?.as_ref())?;
            }
            return Ok(pending.clone());
        }
        let found = self.ground.get(pair_key)?;
        self.note(pair_key, found.as_ref())?;
        Ok(found)
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let mut below: Vec<Bytes> = Vec::new();
        let found = merged(self.pending.pairs(), (start, end), limit, |start, end, limit| {
            let page = self.ground.range(start, end, limit)?;
            below.extend(page.iter().map(|(key, _)| key.clone()));
            Ok::<_, Error>(page)
        })?;
        if self.reads.is_none() {
            return Ok(found);
        }
        // What the answer does not reach was not shown.
        let reached = found.last().filter(|_| found.len() >= limit).map(|(key, _)| behind(key));
        let end = reached.or_else(|| end.map(Bytes::copy_from_slice)).or_else(|| end_of_scope(start));
        let end = end.ok_or_else(|| self.fault(Fault::bug("a range without an end was read")))?;
        let count = below.iter().filter(|key| **key < end).count();
        self.note_range(start, end, count)?;
        Ok(found)
    }

    /// What does not fit together is taken to be so because of what was laid over it: that is no fault of what is stored, and
    /// ends no more than the transaction.
    fn fault(&self, fault: Fault) -> Error {
        if self.pending.is_empty() {
            return self.ground.fault(fault);
        }
        tracing::error!(%fault, "what a transaction has written does not fit what it reads");
        Error::TransactionAborted(format!("what it has written does not fit what it reads ({fault})"))
    }

    fn check(&self) -> Result<()> {
        self.ground.check()
    }

    fn committed(&self) -> Option<Arc<dyn Source>> {
        let Self { ground, reads, .. } = self;
        Some(Arc::new(Self { ground: Arc::clone(ground), pending: Arc::default(), reads: reads.clone() }))
    }
}

fn end_of_scope(start: &[u8]) -> Option<Bytes> {
    key::prefix_end(&key::scope_of(start)?.prefix())
}
