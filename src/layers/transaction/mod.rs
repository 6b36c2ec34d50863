//! A transaction that stays open between calls: what it has written, and what must be as it was when it is committed.
//!
//! Calls in it are decided by the layers whose they are, on a view that shows its own writes ([`Shown`]); what they would
//! propose waits here instead ([`Pending`]). Three things are to hold when it is committed:
//!
//! * what was *read*, if it is serializable: by note of everything that was looked at;
//! * what a *write was decided on*, whatever the isolation: the guards and compares that its layer gave it. Those that look at
//!   what the transaction itself has written have been decided; what is left of them is what that stands on;
//! * what the *answer* of a write gave away: that something was deleted says that it was there.
//!
//! The commit is one ordinary transaction of the core, guarded by all of these. So nothing is locked, nobody waits for
//! another, and of two that stand in each other's way the second is aborted, and told by which record.
//!
//! Left out: operations that cannot be put together by key (dropping a scope, deleting a range, adding to a number). And how
//! much a scope holds is asked of the newest state, so that a write which has no room is refused at once: what such a refusal,
//! or the size of a namespace, tells a transaction is not checked at its commit.

mod conflict;

use std::{collections::BTreeMap, sync::Arc};

use super::check;
use crate::{
    Error, Result, limits,
    model::{
        Key, OperationResult, Outcome, Refusal, ScopeId,
        isolation::Isolation,
        keyspace,
        session::Attempt,
        transaction::{self as core, Compare, NumberField, Operation, Relation},
    },
    state::{
        Pending, View,
        constants::SESSION_OUTCOMES,
        pending::{Ground, Taken},
        shown::{Noted, Reads, Room, Shown},
        stored,
        view::Source,
    },
    storage::codec,
};

pub use conflict::{conflict, full};

/// What a proposal takes beside the operations and compares in it, in bytes, at most.
const PROPOSAL_BYTES: usize = 4 << 10;
/// What a compare takes beside its key, in bytes, at most.
const COMPARE_BYTES: usize = 32;

/// A transaction that is open.
#[derive(Clone, Debug)]
pub struct Transaction {
    isolation: Isolation,
    /// The revision at which it began.
    revision: u64,
    pending: Arc<Pending>,
    /// The revision of the view that its writes are laid over.
    laid_over: u64,
    reads: Reads,
    relied: Relied,
    /// What its writes were answered, by session, for attempts that come again or late.
    calls: BTreeMap<u64, Calls>,
}

/// What writes of a session were answered.
#[derive(Clone, Debug, Default)]
struct Calls {
    answered_below: u64,
    outcomes: BTreeMap<u64, Outcome>,
}

/// Of so many sessions it is remembered. One client has one.
const SESSIONS: usize = 16;

/// What writes were decided on.
#[derive(Clone, Debug, Default)]
struct Relied {
    /// The revision of the last write of each record; 0: there was none.
    records: BTreeMap<Key, u64>,
    /// Whether there was a record.
    exists: BTreeMap<Key, bool>,
    others: Vec<Compare>,
    bytes: usize,
}

impl Relied {
    fn len(&self) -> usize {
        self.records.len() + self.exists.len() + self.others.len()
    }

    /// Errors: a key of which others say something else.
    fn check(&self, others: &Self) -> Result<(), Key> {
        let differs = |key: &&Key| {
            let (records, exists) = (self.records.get(*key), self.exists.get(*key));
            records.zip(others.records.get(*key)).is_some_and(|(here, there)| here != there)
                || exists.zip(others.exists.get(*key)).is_some_and(|(here, there)| here != there)
        };
        match others.records.keys().chain(others.exists.keys()).find(differs) {
            Some(key) => Err(key.clone()),
            None => Ok(()),
        }
    }

    /// Takes others in that say nothing else.
    fn absorb(&mut self, others: Self) {
        let Self { records, exists, others, .. } = others;
        let records = records.into_iter().map(|(key, at)| Compare::written_at(key, at));
        let exists = exists.into_iter().map(|(key, exists)| Compare::Exists { key, exists });
        for compare in records.chain(exists).chain(others) {
            // They were checked.
            let _ = self.add(compare);
        }
    }

    /// Adds a compare. Errors: the key that was otherwise when another write was decided.
    fn add(&mut self, compare: Compare) -> Result<(), Key> {
        match compare {
            Compare::Number { key, field: NumberField::ModRevision, relation: Relation::Equal, to } => {
                let bytes = key.as_bytes().len() + COMPARE_BYTES;
                match self.records.insert(key.clone(), to) {
                    Some(before) if before != to => return Err(key),
                    Some(_) => {}
                    None => self.bytes += bytes,
                }
            }
            Compare::Exists { key, exists } => {
                let bytes = key.as_bytes().len() + COMPARE_BYTES;
                match self.exists.insert(key.clone(), exists) {
                    Some(before) if before != exists => return Err(key),
                    Some(_) => {}
                    None => self.bytes += bytes,
                }
            }
            other if self.others.contains(&other) => {}
            other => {
                self.bytes += codec::payload_len(&other);
                self.others.push(other);
            }
        }
        Ok(())
    }
}

impl Transaction {
    /// One that begins at a revision.
    pub fn begin(isolation: Isolation, revision: u64) -> Self {
        Self {
            isolation,
            revision,
            pending: Arc::default(),
            laid_over: revision,
            reads: Reads::default(),
            relied: Relied::default(),
            calls: BTreeMap::new(),
        }
    }

    /// Whether all its reads show the revision at which it began, and are checked.
    pub fn is_serializable(&self) -> bool {
        self.isolation == Isolation::Serializable
    }

    /// The revision at which it began.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it has written nothing.
    pub fn is_read_only(&self) -> bool {
        self.pending.is_empty()
    }

    /// Encoded bytes of what waits to be committed.
    fn bytes(&self) -> usize {
        self.pending.bytes() + self.relied.bytes + self.reads.bytes()
    }

    /// Bytes that it takes in memory, about.
    pub fn held_bytes(&self) -> usize {
        self.bytes() + self.pending.held()
    }

    /// What it has written.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Lays its writes over the view that the next call sees.
    ///
    /// Errors: `TransactionAborted` if others have changed what they stand on; `Refused` for an older view, if what they stand
    /// on was otherwise there.
    pub fn lay_over(&mut self, ground: &Ground<'_>, revision: u64) -> Result<()> {
        if revision == self.laid_over {
            return Ok(());
        }
        self.check_grounds(ground, revision)?;
        if self.pending.is_empty() {
            // What was asked of the scopes is to be asked again.
            self.pending = Arc::default();
        } else {
            match self.pending.laid_over(ground)? {
                Ok(laid) => self.pending = Arc::new(laid),
                Err(_) if revision < self.laid_over => return Err(begin_anew()),
                Err(refusal) => {
                    let text = format!("what others have changed since does not let its writes be made: {refusal}");
                    return Err(Error::TransactionAborted(text));
                }
            }
        }
        self.laid_over = revision;
        Ok(())
    }

    /// That what defines the records is what writes were decided on: other records could not be read together with these.
    fn check_grounds(&self, ground: &Ground<'_>, revision: u64) -> Result<()> {
        let defines = |key: &Key| {
            matches!(key.scope().keyspace, keyspace::NAMESPACES | keyspace::SCOPE_NUMBERS | keyspace::TOPOLOGY)
        };
        for (key, at) in self.relied.records.iter().filter(|(key, _)| defines(key)) {
            if written_at(ground, key)? == *at {
                continue;
            }
            return Err(if revision < self.laid_over { begin_anew() } else { self.overtaken(key) });
        }
        Ok(())
    }

    /// A view as a call in the transaction sees it, and where what it looks at is noted, if that counts: in at most so many
    /// bytes.
    pub fn show(&self, ground: Arc<dyn Source>, left: usize) -> (View, Option<Noted>) {
        let room = Room {
            compares: limits::COMPARES.saturating_sub(self.reads.len() + self.relied.len()),
            bytes: (limits::TRANSACTION_BYTES - PROPOSAL_BYTES).saturating_sub(self.bytes()).min(left),
        };
        let reads = self.is_serializable().then(|| Noted::new(Reads::new(room).into()));
        let shown = Shown { ground, pending: Arc::clone(&self.pending), reads: reads.clone() };
        (View::new(self.laid_over, Box::new(shown)), reads)
    }

    /// Remembers what a call has looked at.
    pub fn note(&mut self, reads: &mut Reads) {
        self.reads.absorb(reads);
    }

    /// What a write was answered that is asked again. One that comes late, when its client has had its answer, is not done
    /// again, as in the log.
    pub fn answered(&mut self, attempt: Option<Attempt>) -> Option<Outcome> {
        let Attempt { session, sequence, answered_below, .. } = attempt?;
        if !self.calls.contains_key(&session) && self.calls.len() >= SESSIONS {
            return None;
        }
        let calls = self.calls.entry(session).or_default();
        if answered_below > calls.answered_below {
            calls.answered_below = answered_below;
            calls.outcomes = calls.outcomes.split_off(&answered_below);
        }
        if sequence < calls.answered_below {
            return Some(Outcome::SessionExpired);
        }
        calls.outcomes.get(&sequence).cloned()
    }

    fn record(&mut self, Attempt { session, sequence, .. }: Attempt, outcome: &Outcome) {
        let Some(calls) = self.calls.get_mut(&session) else { return };
        calls.outcomes.insert(sequence, outcome.clone());
        while calls.outcomes.len() > SESSION_OUTCOMES {
            if let Some((oldest, _)) = calls.outcomes.pop_first() {
                calls.answered_below = calls.answered_below.max(oldest + 1);
            }
        }
    }

    /// Makes its commit depend on a compare that is not looked at before.
    ///
    /// Errors: `TransactionAborted` if it depends on something else of the same record already.
    pub fn rely(&mut self, compare: Compare) -> Result<()> {
        self.relied.add(compare).map_err(|key| self.overtaken(&key))
    }

    /// Takes a write in, as a layer has decided it on what it was shown: what the core would answer, but for the versions of
    /// what is written, which are not known before the commit.
    ///
    /// Errors: `Refused` if the transaction would be too large, or the write is none that can wait;
    /// `TransactionAborted` if others have changed what it stands on. Nothing is taken in then.
    pub fn take(
        &mut self,
        ground: &Ground<'_>,
        (guards, transaction): (&[Compare], &core::Transaction),
        attempt: Option<Attempt>,
    ) -> Result<Outcome> {
        let core::Transaction { compares, then, otherwise } = transaction;
        if !otherwise.is_empty() {
            return Err(Error::Refused("a transaction cannot hold what is done if a condition does not hold".into()));
        }
        let mut relied = Relied::default();
        for compare in guards.iter().chain(compares) {
            if let Some(compare) = self.below(ground, compare)? {
                relied.add(compare).map_err(|key| self.overtaken(&key))?;
            }
        }
        if self.is_serializable() {
            self.given_away(ground, then, &mut relied)?;
        }
        self.deleted_before(then, &mut relied)?;
        self.relied.check(&relied).map_err(|key| self.overtaken(&key))?;
        self.check_count(then, &relied)?;
        let most = limits::TRANSACTION_BYTES - PROPOSAL_BYTES;
        let beside = self.reads.bytes() + self.relied.bytes + relied.bytes;
        let (revision, room) = (self.laid_over, most.saturating_sub(beside));
        let taken = Arc::make_mut(&mut self.pending).take(ground, (guards, compares), then, room)?;
        let outcome = match taken {
            Taken::TooLarge(bytes) => {
                check::check_length("transaction", bytes + beside, most)?;
                return Err(Error::Unexpected("what is too large is not".into()));
            }
            Taken::Taken(results) => {
                self.relied.absorb(relied);
                let results = results.into_iter().map(without_version).collect();
                Outcome::Applied { revision, succeeded: true, results }
            }
            Taken::Unmet => {
                self.note_unmet(ground, compares)?;
                Outcome::Applied { revision, succeeded: false, results: vec![] }
            }
            // What a guard says of a whole scope is asked of the newest state, also if the view is older.
            Taken::Raced if self.is_serializable() => {
                return Err(self.since("others have changed what a write was decided on"));
            }
            Taken::Raced => Outcome::Raced,
            Taken::Refused(Refusal::NoSuchScope(_) | Refusal::ScopeNotNew(_)) if self.is_serializable() => {
                return Err(self.since("others have changed the namespaces"));
            }
            Taken::Refused(Refusal::NoSuchScope(_) | Refusal::ScopeNotNew(_)) => Outcome::Raced,
            Taken::Refused(refusal) => Outcome::Refused { revision, refusal },
        };
        if let (Some(attempt), Outcome::Applied { .. }) = (attempt, &outcome) {
            self.record(attempt, &outcome);
        }
        Ok(outcome)
    }

    /// What must hold for it to be committed, and what that does.
    pub fn commit(&self) -> (Vec<Compare>, core::Transaction) {
        let Relied { records, exists, others, .. } = &self.relied;
        let read = self.reads.records().filter(|(key, _)| !records.contains_key(*key));
        let written = records.iter().map(|(key, at)| (key, *at)).chain(read);
        let exists = exists.iter().map(|(key, exists)| Compare::Exists { key: key.clone(), exists: *exists });
        let guards = written.map(|(key, at)| Compare::written_at(key.clone(), at)).chain(exists);
        let guards = guards.chain(others.iter().cloned()).chain(self.reads.others(self.revision)).collect();
        (guards, core::Transaction::blind(self.pending.operations()))
    }

    /// What must hold below the transaction's own writes for a compare to hold above them; `None` if that is nothing.
    fn below(&self, ground: &Ground<'_>, compare: &Compare) -> Result<Option<Compare>> {
        Ok(match compare {
            Compare::Number { key, .. } if self.pending.writes(key) => {
                Some(Compare::written_at(key.clone(), written_at(ground, key)?))
            }
            Compare::Exists { key, .. } | Compare::Value { key, .. } if self.pending.writes(key) => None,
            Compare::Scope { scope, .. } if self.pending.writes_in(*scope) => return Err(cannot_wait()),
            Compare::Unchanged { start, .. } if self.pending.writes_in(start.scope()) => return Err(cannot_wait()),
            other => Some(other.clone()),
        })
    }

    /// What the answers of deletions say of the records below.
    fn given_away(&self, ground: &Ground<'_>, operations: &[Operation], relied: &mut Relied) -> Result<()> {
        for operation in operations {
            let Operation::Delete { key } = operation else { continue };
            // Where a compare asks the same, it says the same or nothing is done.
            if !self.pending.writes(key) && !relied.exists.contains_key(key) {
                let exists = ground.source.get(key.as_bytes())?.is_some();
                relied.add(Compare::Exists { key: key.clone(), exists }).map_err(|key| self.overtaken(&key))?;
            }
        }
        Ok(())
    }

    /// A compare that did not hold has shown what there is.
    fn note_unmet(&mut self, ground: &Ground<'_>, compares: &[Compare]) -> Result<()> {
        if !self.is_serializable() {
            return Ok(());
        }
        for compare in compares {
            let (Compare::Exists { key, .. } | Compare::Number { key, .. } | Compare::Value { key, .. }) = compare
            else {
                continue;
            };
            if !self.pending.writes(key) {
                self.reads.note_record(key.clone(), written_at(ground, key)?);
            }
        }
        Ok(())
    }

    /// A value that was deleted here and is written again is replaced by the commit, and not deleted. What others have attached
    /// to it since would stay, which would have gone with it: nobody may have.
    fn deleted_before(&self, operations: &[Operation], relied: &mut Relied) -> Result<()> {
        for operation in operations {
            let Operation::Put { key, .. } = operation else { continue };
            if key.scope().keyspace == keyspace::VALUES && self.pending.deletes(key) {
                let attached = ScopeId::new(keyspace::REFERRERS, key.scope().scope);
                let unchanged = Compare::unchanged_since(attached, self.revision);
                relied.add(unchanged).map_err(|key| self.overtaken(&key))?;
            }
        }
        Ok(())
    }

    fn check_count(&self, operations: &[Operation], relied: &Relied) -> Result<()> {
        let keys = operations.iter().filter_map(|operation| match operation {
            Operation::Put { key, .. } | Operation::Delete { key } => Some(key),
            _ => None,
        });
        let records = self.pending.len() + keys.filter(|key| !self.pending.writes(key)).count();
        let compares = self.reads.len() + self.relied.len() + relied.len();
        check::check_count("transaction", records, limits::TRANSACTION_RECORDS)
            .and_then(|()| check::check_count("transaction", compares, limits::COMPARES))
    }

    fn since(&self, what: &str) -> Error {
        Error::TransactionAborted(format!("{what} after revision {}", self.revision))
    }

    fn overtaken(&self, key: &Key) -> Error {
        Error::TransactionAborted(format!(
            "{} was changed by others after a write was decided on it",
            conflict::plain(key)
        ))
    }
}

fn begin_anew() -> Error {
    Error::Refused("the transaction has written since the page before was read: begin the list anew".into())
}

/// Encoded bytes of operations.
pub fn bytes_of(operations: &[Operation]) -> usize {
    operations.iter().map(codec::payload_len).sum()
}

fn cannot_wait() -> Error {
    Error::Refused("a transaction cannot ask of a list that it has written to itself whether it is unchanged".into())
}

/// The revision of the last write of a record below; 0: there is none.
fn written_at(ground: &Ground<'_>, key: &Key) -> Result<u64> {
    let Some(bytes) = ground.source.get(key.as_bytes())? else { return Ok(0) };
    let record = stored::decode(key.as_bytes(), &bytes).map_err(|fault| ground.source.fault(fault))?;
    Ok(record.mod_revision)
}

fn without_version(result: OperationResult) -> OperationResult {
    match result {
        OperationResult::Put { key, version: _ } => OperationResult::Put { key, version: 0 },
        other => other,
    }
}
