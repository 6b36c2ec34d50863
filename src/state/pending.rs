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

mod over;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use self::over::{Over, concerned};
use super::{
    constants::{DELETES, REPLACED_BYTES},
    meta::Meta,
    overlay::{Overlay, Stop},
    scope::Scope,
    view::Source,
};
use crate::{
    Result,
    error::Error,
    model::{
        Key, OperationResult, Refusal, ScopeId,
        isolation::UNCOMMITTED,
        keyspace,
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
    /// What is put under the revision of the commit (`PutStamped`), in order.
    stamped: Vec<Operation>,
    /// Scopes that are created or set otherwise, in the order of their numbers.
    scopes: BTreeMap<(u32, keyspace::Keyspace), ScopeSettings>,
    /// What the writes make of the stored pairs; `None` removes.
    pairs: BTreeMap<Bytes, Option<Bytes>>,
    /// The scopes that were asked for, with these writes in.
    meta: Meta,
    asked: BTreeSet<ScopeId>,
    /// Encoded bytes of the writes.
    bytes: usize,
    /// Bytes of the pairs: also what stays of older versions is in them.
    held: usize,
    /// What its commit will replace and delete, in bytes and records, as the core counts them.
    replaced: usize,
    deleted: usize,
}

/// What a pair takes beside its bytes, about.
const PAIR_BYTES: usize = 64;

/// What became of writes.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// They wait with the others.
    Taken(Vec<OperationResult>),
    /// A guard does not hold.
    Raced,
    /// A compare does not hold.
    Unmet,
    /// The state forbids it, now or when all is committed.
    Refused(Refusal),
    /// They would be so many encoded bytes, all together.
    TooLarge(usize),
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            writes: BTreeMap::new(),
            stamped: Vec::new(),
            scopes: BTreeMap::new(),
            pairs: BTreeMap::new(),
            meta: uncommitted(Meta::default()),
            asked: BTreeSet::new(),
            bytes: 0,
            held: 0,
            replaced: 0,
            deleted: 0,
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
        self.writes.is_empty() && self.stamped.is_empty() && self.scopes.is_empty()
    }

    /// How many records are written.
    pub fn len(&self) -> usize {
        self.writes.len() + self.stamped.len()
    }

    /// Their encoded bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes in memory of what they make.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether a key is written.
    pub fn writes(&self, key: &Key) -> bool {
        self.writes.contains_key(key)
    }

    /// Whether the last write of a key deletes it.
    pub fn deletes(&self, key: &Key) -> bool {
        matches!(self.writes.get(key), Some(Operation::Delete { .. }))
    }

    /// Whether a record of a scope is written.
    pub fn writes_in(&self, scope: ScopeId) -> bool {
        let stamps = |operation: &Operation| matches!(operation, Operation::PutStamped { prefix, .. } if prefix.scope() == scope);
        self.writes.range(scope.key(&[])..).next().is_some_and(|(key, _)| key.scope() == scope)
            || self.stamped.iter().any(stamps)
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
        let writes = puts.into_iter().chain(&self.stamped).chain(deletes);
        scopes.chain(writes.cloned()).collect()
    }

    /// Whether a compare holds of a ground on which nothing waits. Errors: those of the source.
    pub fn holds(ground: &Ground<'_>, compare: &Compare) -> Result<bool> {
        let held = Self::default().take(ground, (std::slice::from_ref(compare), &[]), &[], 0)?;
        Ok(held != Taken::Raced)
    }

    /// Takes operations in, if `guards` and `compares` hold of the ground with what waits already, and all of it can be
    /// committed in `room` encoded bytes. Otherwise nothing changes.
    ///
    /// Errors: `Refused` for an operation that cannot wait; those of the source.
    pub fn take(
        &mut self,
        ground: &Ground<'_>,
        (guards, compares): (&[Compare], &[Compare]),
        operations: &[Operation],
        room: usize,
    ) -> Result<Taken> {
        let can_wait = |operation: &Operation| {
            matches!(
                operation,
                Operation::Put { .. }
                    | Operation::PutStamped { .. }
                    | Operation::Delete { .. }
                    | Operation::SetScope { .. }
            )
        };
        if !operations.iter().all(can_wait) {
            return Err(Error::Refused("a change of this kind cannot wait for the commit of a transaction".into()));
        }
        let compared = guards.iter().chain(compares).map(Compare::scope).collect();
        let asked = self.ask(ground, operations, compared)?;
        let taken = self.take_asked(ground, (guards, compares), operations, room);
        if !matches!(taken, Ok(Taken::Taken(_))) {
            // What they hold by then is asked again.
            for scope in asked {
                self.asked.remove(&scope);
                self.meta.scopes.remove(&scope);
            }
        }
        taken
    }

    fn take_asked(
        &mut self,
        ground: &Ground<'_>,
        (guards, compares): (&[Compare], &[Compare]),
        operations: &[Operation],
        room: usize,
    ) -> Result<Taken> {
        let over = Over::of(ground.source, &self.pairs);
        let mut overlay = Overlay::new(&self.meta, &over, ground.wall_ms);
        overlay.stamped = u32::try_from(self.stamped.len()).unwrap_or(u32::MAX);
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
        let (replaced, deleted) = (self.replaced + overlay.replaced_bytes, self.deleted + overlay.deleted);
        let effect = overlay.into_effect();
        let again = gone.iter().any(|key| self.writes(key)) || operations.iter().any(|write| self.wrote(write));
        if again {
            let mut next = self.unlaid();
            next.note(operations, gone);
            if next.bytes > room {
                return Ok(Taken::TooLarge(next.bytes));
            }
            return Ok(match next.lay(ground)? {
                Some(refusal) => Taken::Refused(refusal),
                None => {
                    *self = next;
                    Taken::Taken(results)
                }
            });
        }
        let bytes = self.bytes + added(operations, &gone);
        if bytes > room {
            return Ok(Taken::TooLarge(bytes));
        }
        if replaced > REPLACED_BYTES {
            return Ok(Taken::Refused(Refusal::TooManyBytes));
        }
        if let Some(first) = gone.first().filter(|_| deleted > DELETES) {
            return Ok(Taken::Refused(Refusal::TooManyReferrers(first.clone())));
        }
        effect.apply_to(&mut self.meta);
        self.meta.revision = UNCOMMITTED - 1;
        (self.replaced, self.deleted) = (replaced, deleted);
        self.hold(effect.pairs);
        self.note(operations, gone);
        Ok(Taken::Taken(results))
    }

    /// The same writes over another ground; the refusal if they cannot be there. Errors: those of the source.
    pub fn laid_over(&self, ground: &Ground<'_>) -> Result<std::result::Result<Self, Refusal>> {
        let mut laid = self.unlaid();
        Ok(laid.lay(ground)?.map_or(Ok(laid), Err))
    }

    /// The writes without what they make.
    fn unlaid(&self) -> Self {
        Self {
            writes: self.writes.clone(),
            stamped: self.stamped.clone(),
            scopes: self.scopes.clone(),
            asked: self.asked.clone(),
            bytes: self.bytes,
            ..Self::default()
        }
    }

    /// Makes what the writes make of a ground; the refusal if they cannot be there.
    fn lay(&mut self, ground: &Ground<'_>) -> Result<Option<Refusal>> {
        let asked = std::mem::take(&mut self.asked);
        let operations = self.operations();
        self.ask(ground, &operations, asked)?;
        let nothing = BTreeMap::new();
        let over = Over::of(ground.source, &nothing);
        let mut overlay = Overlay::new(&self.meta, &over, ground.wall_ms);
        match run(&mut overlay, &operations) {
            Ok(_) => {}
            Err(Stop::Refused(refusal)) => return Ok(Some(refusal)),
            Err(Stop::Fault(fault)) => return Err(over.error(fault)),
        }
        (self.replaced, self.deleted) = (overlay.replaced_bytes, overlay.deleted);
        let effect = overlay.into_effect();
        effect.apply_to(&mut self.meta);
        self.meta.revision = UNCOMMITTED - 1;
        self.hold(effect.pairs);
        Ok(None)
    }

    fn hold(&mut self, pairs: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        let size = |key: &Bytes, value: &Option<Bytes>| key.len() + value.as_ref().map_or(0, Bytes::len) + PAIR_BYTES;
        for (key, value) in pairs {
            self.held += size(&key, &value);
            if let Some(before) = self.pairs.insert(key.clone(), value) {
                self.held -= size(&key, &before);
            }
        }
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
                Operation::PutStamped { .. } => {
                    self.bytes += codec::payload_len(operation);
                    self.stamped.push(operation.clone());
                }
                Operation::SetScope { scope, settings } => {
                    let before = self.scopes.insert((scope.scope, scope.keyspace), *settings);
                    self.bytes += before.map_or_else(|| codec::payload_len(operation), |_| 0);
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

    /// Asks for the scopes that operations concern, and for others: those that were not asked for before.
    fn ask(
        &mut self,
        ground: &Ground<'_>,
        operations: &[Operation],
        mut wanted: BTreeSet<ScopeId>,
    ) -> Result<Vec<ScopeId>> {
        let over = Over::of(ground.source, &self.pairs);
        wanted.extend(concerned(&over, operations).map_err(|fault| over.error(fault))?);
        wanted.retain(|scope| !self.asked.contains(scope));
        let wanted: Vec<ScopeId> = wanted.into_iter().collect();
        let (last_scope, found) = (ground.scopes)(&wanted);
        self.meta.last_scope = self.meta.last_scope.max(last_scope);
        for (scope, found) in wanted.iter().copied().zip(found) {
            self.asked.insert(scope);
            // The ground may be older than what is asked: an index that is dropped since is still read there, so it must show
            // what is written. Its commit writes nothing of it.
            let dropped = matches!(scope.keyspace, keyspace::ENTRIES | keyspace::UNIQUE) && scope.scope <= last_scope;
            let found = found.or_else(|| dropped.then(Scope::default));
            self.meta.scopes.extend(found.map(|found| (scope, found)));
        }
        Ok(wanted)
    }
}

/// Encoded bytes of operations, and of deletions that come with them.
fn added(operations: &[Operation], gone: &[Key]) -> usize {
    let deleted: BTreeSet<&Key> = operations
        .iter()
        .filter_map(|operation| match operation {
            Operation::Delete { key } => Some(key),
            _ => None,
        })
        .collect();
    let with = gone.iter().filter(|key| !deleted.contains(key));
    let with = with.map(|key| codec::payload_len(&Operation::Delete { key: key.clone() }));
    operations.iter().map(codec::payload_len).sum::<usize>() + with.sum::<usize>()
}

fn run(overlay: &mut Overlay<'_, Over<'_>>, operations: &[Operation]) -> Result<Vec<OperationResult>, Stop> {
    let results = operations.iter().map(|operation| overlay.operate(operation, 0)).collect::<Result<_, _>>()?;
    overlay.check()?;
    Ok(results)
}
