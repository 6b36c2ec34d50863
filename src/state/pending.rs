//! Writes that wait to be committed together: what a view would show if they were applied to it now.
//!
//! A transaction that stays open for a while reads what it has written. So that every read of a layer works on it, through
//! indexes and older versions as well, its writes are laid over a view as *stored pairs*; and so that these are what the
//! commit will write, it is the core's own code that makes them ([`Overlay`]), on a state that is only asked and never
//! changed.
//!
//! A proposal writes each key at most once, so of several writes of a key the last stays. What a deletion took with it is
//! written down as deletions of its own, since the value that brought it about may be written again: then it is no longer
//! deleted itself. Whenever a key is written again everything is laid out anew from the writes that stay, so a record shows
//! the version that the commit will give it, and not one for each time that it was written on the way.
//!
//! What is not committed has no revision: such records say [`UNCOMMITTED`].

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use bytes::Bytes;

use super::{
    base::Base,
    constants::DELETES,
    derived,
    meta::Meta,
    overlay::{Overlay, Stop, merged},
    scope::{self, Scope},
    stored,
    view::Source,
};
use crate::{
    Result,
    error::{Error, Fault},
    model::{
        Entry, Key, OperationResult, Record, Reference, ReferenceMode, Refusal, ScopeId,
        isolation::UNCOMMITTED,
        key, keyspace,
        transaction::{Compare, Operation, ScopeSettings},
    },
    storage::codec,
};

/// Finds scopes; see [`Ground::scopes`].
pub type Scopes<'a> = dyn Fn(&[ScopeId]) -> (u32, Vec<Option<Scope>>) + 'a;

/// What pending writes are laid over.
pub struct Ground<'a> {
    /// The stored pairs of one revision.
    pub source: &'a dyn Source,
    /// The greatest number that a scope was given, and some scopes as far as they exist.
    pub scopes: &'a Scopes<'a>,
    /// The time of day, in milliseconds since 1970.
    pub wall_ms: u64,
}

/// Writes that wait, and the pairs that they make.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The last write of each key: a `Put` or a `Delete`.
    writes: BTreeMap<Key, Operation>,
    /// Scopes that are created or set otherwise, in the order of their numbers.
    scopes: BTreeMap<(u32, keyspace::Keyspace), ScopeSettings>,
    /// What the writes make of the stored pairs; `None` removes.
    pairs: BTreeMap<Bytes, Option<Bytes>>,
    /// The scopes that were asked for, with these writes in.
    meta: Meta,
    asked: BTreeSet<ScopeId>,
    /// Encoded bytes of the writes.
    bytes: usize,
}

/// What became of writes.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// They wait with the others.
    Taken(Vec<OperationResult>),
    /// A guard does not hold.
    Raced,
    /// A compare does not hold.
    Unmet,
    /// The state forbids it.
    Refused(Refusal),
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            writes: BTreeMap::new(),
            scopes: BTreeMap::new(),
            pairs: BTreeMap::new(),
            meta: uncommitted(Meta::default()),
            asked: BTreeSet::new(),
            bytes: 0,
        }
    }
}

/// The state of which the next revision is [`UNCOMMITTED`].
fn uncommitted(meta: Meta) -> Meta {
    Meta { revision: UNCOMMITTED - 1, ..meta }
}

impl Pending {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.scopes.is_empty()
    }

    /// How many records are written.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Their encoded bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Their encoded bytes with these operations in.
    pub fn bytes_with(&self, operations: &[Operation]) -> usize {
        let replaced = operations.iter().filter_map(|operation| match operation {
            Operation::Put { key, .. } | Operation::Delete { key } => self.writes.get(key),
            _ => None,
        });
        let replaced: usize = replaced.map(codec::payload_len).sum();
        self.bytes.saturating_sub(replaced) + operations.iter().map(codec::payload_len).sum::<usize>()
    }

    /// Whether a key is written.
    pub fn writes(&self, key: &Key) -> bool {
        self.writes.contains_key(key)
    }

    /// Whether a record of a scope is written.
    pub fn writes_in(&self, scope: ScopeId) -> bool {
        self.writes.range(scope.key(&[])..).next().is_some_and(|(key, _)| key.scope() == scope)
    }

    /// A scope with these writes in, if one of them concerns it.
    pub fn scope(&self, scope: ScopeId) -> Option<&Scope> {
        self.meta.scopes.get(&scope)
    }

    pub(super) fn pairs(&self) -> &BTreeMap<Bytes, Option<Bytes>> {
        &self.pairs
    }

    /// What commits them: scopes first, then what is put, then what is deleted, so that nothing goes with a deletion that
    /// was made to stay.
    pub fn operations(&self) -> Vec<Operation> {
        let scopes = self.scopes.iter().map(|((number, keyspace), settings)| Operation::SetScope {
            scope: ScopeId::new(*keyspace, *number),
            settings: *settings,
        });
        let (deletes, puts): (Vec<_>, Vec<_>) =
            self.writes.values().partition(|write| matches!(write, Operation::Delete { .. }));
        scopes.chain(puts.into_iter().chain(deletes).cloned()).collect()
    }

    /// Whether a compare holds of a ground on which nothing waits. Errors: those of the source.
    pub fn holds(ground: &Ground<'_>, compare: &Compare) -> Result<bool> {
        let held = Self::default().take(ground, (std::slice::from_ref(compare), &[]), &[])?;
        Ok(held != Taken::Raced)
    }

    /// Takes operations in, if `guards` and `compares` hold of the ground with what waits already. Otherwise nothing
    /// changes. Errors: `Refused` for an operation that cannot wait; those of the source.
    pub fn take(
        &mut self,
        ground: &Ground<'_>,
        (guards, compares): (&[Compare], &[Compare]),
        operations: &[Operation],
    ) -> Result<Taken> {
        let can_wait = |operation: &Operation| {
            matches!(operation, Operation::Put { .. } | Operation::Delete { .. } | Operation::SetScope { .. })
        };
        if !operations.iter().all(can_wait) {
            return Err(Error::Refused("a change of this kind (also of what is attached to a lease) cannot wait for the commit of a transaction".into()));
        }
        let compared = guards.iter().chain(compares).map(Compare::scope).collect();
        self.ask(ground, operations, compared)?;
        let over = Over { source: ground.source, pairs: &self.pairs, failed: RefCell::default() };
        let mut overlay = Overlay::new(&self.meta, &over, ground.wall_ms);
        if !overlay.all_hold(guards).map_err(|fault| over.error(fault))? {
            return Ok(Taken::Raced);
        }
        if !overlay.all_hold(compares).map_err(|fault| over.error(fault))? {
            return Ok(Taken::Unmet);
        }
        let results = match run(&mut overlay, operations) {
            Ok(results) => results,
            Err(Stop::Refused(refusal)) => return Ok(Taken::Refused(refusal)),
            Err(Stop::Fault(fault)) => return Err(over.error(fault)),
        };
        let gone: Vec<Key> =
            overlay.touched.iter().filter(|(_, touched)| touched.new.is_none()).map(|(key, _)| key.clone()).collect();
        let effect = overlay.into_effect();
        let again = gone.iter().any(|key| self.writes(key)) || operations.iter().any(|write| self.wrote(write));
        if again {
            let mut next = self.clone();
            next.note(operations, gone);
            return Ok(match next.lay(ground)? {
                Some(refusal) => Taken::Refused(refusal),
                None => {
                    *self = next;
                    Taken::Taken(results)
                }
            });
        }
        effect.apply_to(&mut self.meta);
        self.meta.revision = UNCOMMITTED - 1;
        self.pairs.extend(effect.pairs);
        self.note(operations, gone);
        Ok(Taken::Taken(results))
    }

    /// Lays what waits over another ground; the refusal if it cannot be there: then there is nothing to be done with it.
    /// Errors: those of the source.
    pub fn lay(&mut self, ground: &Ground<'_>) -> Result<Option<Refusal>> {
        self.pairs.clear();
        self.meta = uncommitted(Meta::default());
        let asked = std::mem::take(&mut self.asked);
        let operations = self.operations();
        self.ask(ground, &operations, asked)?;
        let nothing = BTreeMap::new();
        let over = Over { source: ground.source, pairs: &nothing, failed: RefCell::default() };
        let mut overlay = Overlay::new(&self.meta, &over, ground.wall_ms);
        match run(&mut overlay, &operations) {
            Ok(_) => {}
            Err(Stop::Refused(refusal)) => return Ok(Some(refusal)),
            Err(Stop::Fault(fault)) => return Err(over.error(fault)),
        }
        let effect = overlay.into_effect();
        effect.apply_to(&mut self.meta);
        self.meta.revision = UNCOMMITTED - 1;
        self.pairs = effect.pairs.into_iter().collect();
        Ok(None)
    }

    /// Whether an operation writes what was written before, or sets a scope that records may stand in already.
    fn wrote(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Put { key, .. } | Operation::Delete { key } => self.writes(key),
            Operation::SetScope { scope, .. } => {
                self.scopes.contains_key(&(scope.scope, scope.keyspace)) || self.writes_in(*scope)
            }
            _ => false,
        }
    }

    fn note(&mut self, operations: &[Operation], gone: Vec<Key>) {
        for operation in operations {
            match operation {
                Operation::Put { key, .. } | Operation::Delete { key } => self.write(key.clone(), operation.clone()),
                Operation::SetScope { scope, settings } => {
                    self.scopes.insert((scope.scope, scope.keyspace), *settings);
                }
                _ => {}
            }
        }
        for key in gone {
            self.write(key.clone(), Operation::Delete { key });
        }
    }

    fn write(&mut self, key: Key, operation: Operation) {
        self.bytes += codec::payload_len(&operation);
        if let Some(before) = self.writes.insert(key, operation) {
            self.bytes -= codec::payload_len(&before);
        }
    }

    /// Asks for the scopes that operations concern, and for others.
    fn ask(&mut self, ground: &Ground<'_>, operations: &[Operation], mut wanted: BTreeSet<ScopeId>) -> Result<()> {
        let over = Over { source: ground.source, pairs: &self.pairs, failed: RefCell::default() };
        wanted.extend(concerned(&over, operations).map_err(|fault| over.error(fault))?);
        wanted.retain(|scope| !self.asked.contains(scope));
        let wanted: Vec<ScopeId> = wanted.into_iter().collect();
        let (last_scope, found) = (ground.scopes)(&wanted);
        self.meta.last_scope = self.meta.last_scope.max(last_scope);
        for (scope, found) in wanted.into_iter().zip(found) {
            self.asked.insert(scope);
            self.meta.scopes.extend(found.map(|found| (scope, found)));
        }
        Ok(())
    }
}

fn run(overlay: &mut Overlay<'_, Over<'_>>, operations: &[Operation]) -> Result<Vec<OperationResult>, Stop> {
    let results = operations.iter().map(|operation| overlay.operate(operation, 0)).collect::<Result<_, _>>()?;
    overlay.check()?;
    Ok(results)
}

/// The scopes on which the core will look when it does these operations, but for those that always exist.
fn concerned(over: &Over<'_>, operations: &[Operation]) -> Result<BTreeSet<ScopeId>, Fault> {
    let (mut found, mut seen, mut going) = (BTreeSet::new(), BTreeSet::new(), VecDeque::new());
    for operation in operations {
        match operation {
            Operation::Put { key, put } => {
                of_record(key, &put.entries, &put.references, &mut found);
                if let Some(old) = over.record(key)? {
                    of_record(key, &old.entries, &old.references, &mut found);
                }
                for entry in put.entries.iter().filter(|entry| entry.unique) {
                    let taken = over.get(&derived::unique_slot(entry.scope, &entry.key))?;
                    found.extend(taken.as_ref().and_then(derived::parse_unique_owner).map(|owner| owner.scope()));
                }
            }
            Operation::Delete { key } if seen.insert(key.clone()) => going.push_back(key.clone()),
            Operation::SetScope { scope, .. } => found.extend([*scope].into_iter().chain(scope.derived())),
            _ => {}
        }
    }
    while let Some(key) = going.pop_front() {
        if let Some(old) = over.record(&key)? {
            of_record(&key, &old.entries, &old.references, &mut found);
        }
        let prefix = derived::referrers_prefix(&key);
        let referrers = over.range(&prefix, key::prefix_end(&prefix).as_deref(), DELETES + 1)?;
        for (pair_key, value) in referrers {
            let Some((referrer, mode)) = derived::parse_referrer(&pair_key, &value, prefix.len()) else { continue };
            found.insert(referrer.scope());
            // Of more than may go the core refuses all.
            if mode == ReferenceMode::Cascade && seen.len() <= DELETES && seen.insert(referrer.clone()) {
                going.push_back(referrer);
            }
        }
    }
    found.retain(|scope| !scope::is_permanent(*scope));
    Ok(found)
}

fn of_record(key: &Key, entries: &[Entry], references: &[Reference], into: &mut BTreeSet<ScopeId>) {
    into.insert(key.scope());
    into.extend(key.scope().derived());
    for entry in entries {
        into.insert(ScopeId::new(if entry.unique { keyspace::UNIQUE } else { keyspace::ENTRIES }, entry.scope));
    }
    for reference in references {
        let target = reference.key.scope();
        into.extend([target, derived::referrers_scope(target)]);
    }
}

/// A source with pairs over it, as the core reads.
struct Over<'a> {
    source: &'a dyn Source,
    pairs: &'a BTreeMap<Bytes, Option<Bytes>>,
    /// Why the source could not be read: an answer, for which the core has no words.
    failed: RefCell<Option<Error>>,
}

impl Over<'_> {
    fn record(&self, key: &Key) -> Result<Option<Record>, Fault> {
        self.get(key.as_bytes())?.map(|bytes| stored::decode(key.as_bytes(), &bytes)).transpose()
    }

    /// What the reader is told: why the source could not be read, or else of the fault that was found in it.
    fn error(&self, fault: Fault) -> Error {
        self.failed.take().unwrap_or_else(|| self.source.fault(fault))
    }

    fn read<T>(&self, read: Result<T>) -> Result<T, Fault> {
        read.map_err(|error| {
            let fault = Fault::new(format!("the view cannot be read: {error}"));
            self.failed.replace(Some(error));
            fault
        })
    }
}

impl Base for Over<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.pairs.get(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.read(self.source.get(key)),
        }
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let range = |start: &[u8], end: Option<&[u8]>, limit| self.source.range(start, end, limit);
        self.read(merged(self.pairs, (start, end), limit, range))
    }

    fn write(&mut self, _revision: u64, _pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        Err(Fault::bug("a view was written to"))
    }
}
