//! A small store to test the core in, and short names for what is put into it.
//!
//! Whatever a test does is audited, and replayed at its end: on a replica that is restarted
//! before every batch and reclaims dropped scopes at once. Both must have the same hash.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use meshstore::{
    error::Fault,
    model::{
        Entry, Key, OperationResult, Outcome, Record, Reference, ReferenceMode, Refusal, ScopeId, key, keyspace,
        proposal::{Action, Batch, Call, Guards, Proposal},
        transaction::{Compare, Operation, Put, ScopeSettings, Transaction},
    },
    state::{Applied, Base, Change, Commit, Meta, State, audit::Accounts, scope::Account, stored, view::Source},
    storage::{
        audit::Auditor,
        codec::{self, Kind},
    },
};

/// Stored pairs in a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs(pub(crate) BTreeMap<Bytes, Bytes>);

impl Base for Pairs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let from = self.0.range::<[u8], _>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded));
        let within = from.take_while(|(key, _)| end.is_none_or(|end| key.as_ref() < end));
        Ok(within.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, _revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        for (key, value) in pairs {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        Ok(())
    }
}

impl Pairs {
    /// Removes what storage may remove: pairs of dropped scopes.
    pub(crate) fn reclaim(&mut self, meta: &Meta) {
        self.0.retain(|key, _| meta.is_live(key::scope_of(key).unwrap()));
    }

    /// Checks all live pairs against the accounts.
    pub(crate) fn audit(&self, meta: &Meta) {
        let mut audit = Accounts.begin(&meta.encode()).unwrap();
        for (key, value) in &self.0 {
            if audit.is_live(key) {
                audit.count(key, value).unwrap();
            }
        }
        audit.finish().unwrap();
    }
}

/// Pairs as a view reads them.
#[derive(Debug)]
pub(crate) struct Readable(Pairs);

impl Source for Readable {
    fn get(&self, key: &[u8]) -> meshstore::Result<Option<Bytes>> {
        Ok(self.0.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> meshstore::Result<Vec<(Bytes, Bytes)>> {
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let pairs = self.0.0.range::<[u8], _>(bounds).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn fault(&self, fault: Fault) -> meshstore::Error {
        panic!("{fault}")
    }
}

/// A batch as the log gives it back.
pub(crate) fn logged(batch: &Batch) -> Batch {
    codec::decode(Kind::Batch, &codec::encode(Kind::Batch, batch)).unwrap()
}

/// A store with a log.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) state: State,
    pub(crate) pairs: Pairs,
    /// What the last batch did.
    pub(crate) applied: Applied,
    /// Log time of the next batch.
    pub(crate) now_ms: u64,
    /// Wall time of the next batch.
    pub(crate) wall_ms: u64,
    log: Vec<Batch>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Applies a batch; the outcomes.
    pub(crate) fn apply(&mut self, proposals: Vec<Proposal>) -> Vec<Outcome> {
        let batch = Batch { log_time_ms: self.now_ms, wall_ms: self.wall_ms, proposals };
        self.applied = self.state.apply(&mut self.pairs, &batch).unwrap();
        // Large stores are audited at the end only.
        if self.pairs.0.len() < 1_000 && self.pairs.0.values().all(|value| value.len() < 1 << 19) {
            self.pairs.audit(self.state.meta());
        }
        self.log.push(batch);
        self.applied.outcomes.clone()
    }

    pub(crate) fn propose(&mut self, proposal: Proposal) -> Outcome {
        self.apply(vec![proposal]).pop().unwrap()
    }

    pub(crate) fn transact(&mut self, transaction: Transaction) -> Outcome {
        let proposal = self.proposal(Action::Transact(transaction));
        self.propose(proposal)
    }

    /// A proposal that was decided on the state as it is now.
    pub(crate) fn proposal(&self, action: Action) -> Proposal {
        let guards = Guards { security_revision: self.state.meta().security_revision(), ..Guards::default() };
        Proposal { principal: "tester".to_owned(), call: None, guards, action }
    }

    /// Does operations, which must succeed: their results.
    pub(crate) fn done(&mut self, operations: Vec<Operation>) -> Vec<OperationResult> {
        match self.transact(Transaction::blind(operations)) {
            Outcome::Applied { succeeded: true, results, .. } => results,
            other => panic!("not done: {other:?}"),
        }
    }

    /// Does one operation, which must succeed: its result.
    pub(crate) fn done_one(&mut self, operation: Operation) -> OperationResult {
        self.done(vec![operation]).pop().unwrap()
    }

    /// Tries operations that must be refused, and change nothing: why.
    pub(crate) fn refused(&mut self, operations: Vec<Operation>) -> Refusal {
        let (hash, pairs) = (self.hash(), self.pairs.clone());
        match self.transact(Transaction::blind(operations)) {
            Outcome::Refused { revision, refusal } => {
                assert_eq!(revision, self.revision());
                assert_eq!((hash, &pairs), (self.hash(), &self.pairs), "a refusal changed something");
                assert_eq!(self.applied.commits, []);
                refusal
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Whether compares hold.
    pub(crate) fn holds(&mut self, compares: Vec<Compare>) -> bool {
        let revision = self.revision();
        match self.transact(Transaction { compares, ..Transaction::default() }) {
            Outcome::Applied { succeeded, revision: seen, .. } if seen == revision => succeeded,
            other => panic!("not asked: {other:?}"),
        }
    }

    /// Lets log time pass to `now_ms`: the transactions that this caused.
    pub(crate) fn pass(&mut self, now_ms: u64) -> Vec<Commit> {
        self.now_ms = now_ms;
        let tick = self.proposal(Action::Tick);
        self.propose(tick);
        self.applied.commits.clone()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.state.meta().revision
    }

    pub(crate) fn hash(&self) -> u128 {
        self.state.meta().state_hash()
    }

    pub(crate) fn record(&self, key: &Key) -> Option<Record> {
        let stored = self.pairs.0.get(key.as_bytes()).filter(|_| self.state.meta().is_live(key.scope()))?;
        Some(stored::decode(key.as_bytes(), stored).unwrap())
    }

    pub(crate) fn value(&self, key: &Key) -> Option<String> {
        self.record(key).map(|record| String::from_utf8(record.value.to_vec()).unwrap())
    }

    pub(crate) fn exists(&self, key: &Key) -> bool {
        self.record(key).is_some()
    }

    pub(crate) fn account(&self, scope: ScopeId) -> Account {
        self.state.meta().scopes.get(&scope).map(|scope| scope.account).unwrap_or_default()
    }

    /// The live pairs of a derived scope: what stands behind the scope's prefix, and the values.
    pub(crate) fn derived(&self, keyspace: u8, scope: u32) -> Vec<(Bytes, Bytes)> {
        let prefix = ScopeId::new(keyspace, scope).prefix();
        let pairs = self.pairs.0.iter().filter(|(key, _)| key.starts_with(&prefix));
        pairs.map(|(key, value)| (key.slice(key::PREFIX_BYTES..), value.clone())).collect()
    }

    /// Creates a scope for records, with the next number.
    pub(crate) fn new_scope(&mut self, settings: ScopeSettings) -> ScopeId {
        let scope = ScopeId::new(0x40, self.state.meta().last_scope + 1);
        assert_eq!(self.done_one(set_scope(scope, settings)), OperationResult::Changed(true));
        scope
    }

    /// Opens a session that lives for a second: its id.
    pub(crate) fn open_session(&mut self) -> u64 {
        let open = self.proposal(Action::OpenSession { ttl_ms: 1_000 });
        match self.propose(open) {
            Outcome::Applied { revision, .. } => revision,
            other => panic!("not opened: {other:?}"),
        }
    }

    /// What is there now, to be read.
    pub(crate) fn readable(&self) -> Readable {
        let mut pairs = self.pairs.clone();
        pairs.reclaim(self.state.meta());
        Readable(pairs)
    }

    /// A call in a session.
    pub(crate) fn call(
        &mut self,
        session: u64,
        sequence: u64,
        answered_below: u64,
        operations: Vec<Operation>,
    ) -> Outcome {
        let mut proposal = self.proposal(Action::Transact(Transaction::blind(operations)));
        proposal.call = Some(Call { session, sequence, answered_below });
        self.propose(proposal)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let (mut state, mut pairs) = (State::default(), Pairs::default());
        for batch in &self.log {
            state = State::from_meta(Meta::decode(&state.meta().encode()).unwrap());
            state.apply(&mut pairs, &logged(batch)).unwrap();
            pairs.reclaim(state.meta());
        }
        assert_eq!(state.meta(), self.state.meta(), "a replica that was restarted came to another state");
        self.pairs.reclaim(self.state.meta());
        self.pairs.audit(self.state.meta());
        assert_eq!(pairs, self.pairs, "a replica that was restarted came to other pairs");
    }
}

/// The key of a shared state value.
pub(crate) fn key(name: &str) -> Key {
    STATE.key(name.as_bytes())
}

/// The scope of [`key`].
pub(crate) const STATE: ScopeId = ScopeId::new(keyspace::STATE, keyspace::NO_SCOPE);

pub(crate) fn put(key: &Key, value: &str) -> Operation {
    Operation::Put { key: key.clone(), put: Put::value(value.to_owned()) }
}

/// Puts a record with entries.
pub(crate) fn put_entries(key: &Key, entries: Vec<Entry>) -> Operation {
    Operation::Put { key: key.clone(), put: Put { entries, ..Put::value("indexed") } }
}

/// Puts a record with references.
pub(crate) fn put_references(key: &Key, references: Vec<Reference>) -> Operation {
    Operation::Put { key: key.clone(), put: Put { references, ..Put::value("referrer") } }
}

/// Puts a record that lives for a while.
pub(crate) fn put_ttl(key: &Key, ttl_ms: u64, references: Vec<Reference>) -> Operation {
    Operation::Put { key: key.clone(), put: Put { ttl_ms: Some(ttl_ms), references, ..Put::value("mortal") } }
}

pub(crate) fn delete(key: &Key) -> Operation {
    Operation::Delete { key: key.clone() }
}

/// Deletes what of a scope lies in `start..end`.
pub(crate) fn delete_range(scope: ScopeId, start: &str, end: &str) -> Operation {
    let (start, end) = (scope.key(start.as_bytes()), scope.key(end.as_bytes()));
    Operation::DeleteRange { start, end: end.as_bytes().clone() }
}

/// Deletes all of a scope.
pub(crate) fn delete_all(scope: ScopeId) -> Operation {
    Operation::DeleteRange { start: scope.key(b""), end: key::prefix_end(&scope.prefix()).unwrap() }
}

pub(crate) fn get(key: &Key) -> Operation {
    Operation::Get { key: key.clone() }
}

pub(crate) fn range(scope: ScopeId, start: &str, end: &str, limit: u32) -> Operation {
    let (start, end) = (scope.key(start.as_bytes()), scope.key(end.as_bytes()));
    Operation::Range { start, end: end.as_bytes().clone(), limit }
}

/// Everything of a scope.
pub(crate) fn range_all(scope: ScopeId, limit: u32) -> Operation {
    Operation::Range { start: scope.key(b""), end: key::prefix_end(&scope.prefix()).unwrap(), limit }
}

pub(crate) fn referrers(key: &Key, limit: u32) -> Operation {
    Operation::Referrers { key: key.clone(), limit }
}

/// Adds, without bounds.
pub(crate) fn add(key: &Key, delta: i64) -> Operation {
    Operation::Add { key: key.clone(), delta, min: i64::MIN, max: i64::MAX }
}

pub(crate) fn set_scope(scope: ScopeId, settings: ScopeSettings) -> Operation {
    Operation::SetScope { scope, settings }
}

pub(crate) fn drop_scope(scope: ScopeId) -> Operation {
    Operation::DropScope { scope }
}

pub(crate) fn entry(scope: u32, key: &str, payload: &str) -> Entry {
    Entry { scope, key: key.to_owned().into(), payload: payload.to_owned().into(), unique: false }
}

pub(crate) fn unique(scope: u32, key: &str) -> Entry {
    Entry { scope, key: key.to_owned().into(), payload: Bytes::new(), unique: true }
}

pub(crate) fn cascade(key: &Key) -> Reference {
    Reference { key: key.clone(), mode: ReferenceMode::Cascade }
}

pub(crate) fn restrict(key: &Key) -> Reference {
    Reference { key: key.clone(), mode: ReferenceMode::Restrict }
}

/// The keys of the records that commits deleted, in order.
pub(crate) fn deleted(commits: &[Commit]) -> Vec<Key> {
    let changes = commits.iter().flat_map(|commit| &commit.changes);
    let gone = changes.filter_map(|change| match change {
        Change::Record { key, new: None, .. } => Some(key.clone()),
        _ => None,
    });
    gone.collect()
}
