//! The core again, as simple as it can be said: no derived pairs, no accounts, no caches. A transaction is tried on a
//! copy of everything; who references whom, who owns what and what is due is found by looking at all records.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meshstore::{
    model::{
        Entry, Key, OperationResult, Outcome, Record, ReferenceMode, Refusal, ScopeId, key, keyspace,
        proposal::{Action, Batch, Call, Proposal},
        transaction::{Compare, NumberField, Operation, Put, ScopeField, ScopeSettings},
    },
    state::{Change, Commit},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) principal: String,
    pub(crate) ttl_ms: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) answered_below: u64,
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
}

#[derive(Clone, Debug)]
pub(crate) struct Naive {
    pub(crate) revision: u64,
    pub(crate) log_time_ms: u64,
    pub(crate) last_scope: u32,
    pub(crate) records: BTreeMap<Key, Record>,
    /// Incarnation and settings of the scopes that were created or given settings.
    pub(crate) scopes: BTreeMap<ScopeId, (u64, ScopeSettings)>,
    /// The revision of the last visible change of each scope.
    pub(crate) last_changes: BTreeMap<ScopeId, u64>,
    pub(crate) history: BTreeMap<Key, BTreeMap<u64, Record>>,
    /// When records that went with their scope would have been due.
    pub(crate) left: BTreeSet<(u64, Key)>,
    pub(crate) sessions: BTreeMap<u64, Session>,
}

impl Default for Naive {
    fn default() -> Self {
        Self {
            revision: 0,
            log_time_ms: 0,
            last_scope: 1_023,
            records: BTreeMap::new(),
            scopes: BTreeMap::new(),
            last_changes: BTreeMap::new(),
            history: BTreeMap::new(),
            left: BTreeSet::new(),
            sessions: BTreeMap::new(),
        }
    }
}

/// What stands in a record's history where it was deleted.
fn deletion(revision: u64, wall_ms: u64) -> Record {
    Record {
        value: Bytes::new(),
        create_revision: 0,
        mod_revision: revision,
        version: 0,
        created_at_ms: wall_ms,
        updated_at_ms: wall_ms,
        expires_at_ms: None,
        entries: Vec::new(),
        references: Vec::new(),
    }
}

pub(crate) fn is_permanent(scope: ScopeId) -> bool {
    scope.scope < 1_024
}

impl Naive {
    /// Applies one proposal of a batch: its outcome, and the commits.
    pub(crate) fn apply(&mut self, batch: &Batch, proposal: &Proposal) -> (Outcome, Vec<Commit>) {
        let mut commits = Vec::new();
        self.log_time_ms = self.log_time_ms.max(batch.log_time_ms);
        let now_ms = self.log_time_ms;
        self.sessions.retain(|_, session| session.deadline_ms >= now_ms);
        self.expire(batch.wall_ms, &mut commits);
        if let Some(call) = &proposal.call
            && let Some(known) = self.known(call, &proposal.principal)
        {
            return (known, commits);
        }
        let outcome = self.act(batch.wall_ms, proposal, &mut commits);
        if let Some(call) = &proposal.call
            && outcome != Outcome::Raced
            && let Some(session) = self.sessions.get_mut(&call.session)
        {
            session.outcomes.insert(call.sequence, outcome.clone());
        }
        (outcome, commits)
    }

    /// What is known of a call; `None` if it is to be executed.
    fn known(&mut self, call: &Call, principal: &str) -> Option<Outcome> {
        if !self.keep(call.session, principal) {
            return Some(Outcome::SessionExpired);
        }
        let session = self.sessions.get_mut(&call.session)?;
        session.answered_below = session.answered_below.max(call.answered_below);
        let below = session.answered_below;
        session.outcomes.retain(|sequence, _| *sequence >= below);
        if call.sequence < below {
            Some(Outcome::SessionExpired)
        } else {
            session.outcomes.get(&call.sequence).cloned()
        }
    }

    fn keep(&mut self, id: u64, principal: &str) -> bool {
        let now_ms = self.log_time_ms;
        match self.sessions.get_mut(&id) {
            Some(session) if session.principal == principal => {
                session.deadline_ms = session.deadline_ms.max(now_ms + session.ttl_ms);
                true
            }
            _ => false,
        }
    }

    fn act(&mut self, wall_ms: u64, proposal: &Proposal, commits: &mut Vec<Commit>) -> Outcome {
        let unchanged = |revision, succeeded| Outcome::Applied { revision, succeeded, results: vec![] };
        match &proposal.action {
            Action::Transact(transaction) => {
                let security = self.last_change(ScopeId::new(keyspace::SECURITY, 0));
                let incarnations = &proposal.guards.incarnations;
                if security != proposal.guards.security_revision
                    || incarnations.iter().any(|(scope, incarnation)| self.incarnation(*scope) != Some(*incarnation))
                    || !self.all_hold(&proposal.guards.compares)
                {
                    return Outcome::Raced;
                }
                let succeeded = self.all_hold(&transaction.compares);
                let operations = if succeeded { &transaction.then } else { &transaction.otherwise };
                let mut attempt = Attempt::new(self, wall_ms);
                match attempt.run(operations) {
                    Ok(results) => {
                        let (after, commit) = attempt.finish();
                        *self = after;
                        commits.extend(commit);
                        Outcome::Applied { revision: self.revision, succeeded, results }
                    }
                    Err(refusal) => Outcome::Refused { revision: self.revision, refusal },
                }
            }
            Action::OpenSession { ttl_ms } => {
                self.revision += 1;
                let session = Session {
                    principal: proposal.principal.clone(),
                    ttl_ms: *ttl_ms,
                    deadline_ms: self.log_time_ms + ttl_ms,
                    answered_below: 1,
                    outcomes: BTreeMap::new(),
                };
                self.sessions.insert(self.revision, session);
                unchanged(self.revision, true)
            }
            Action::KeepSession { session } => {
                let kept = self.keep(*session, &proposal.principal);
                if kept { unchanged(self.revision, true) } else { Outcome::SessionExpired }
            }
            Action::CloseSession { session } => {
                let mine = self.sessions.get(session).is_some_and(|found| found.principal == proposal.principal);
                if mine {
                    self.sessions.remove(session);
                }
                unchanged(self.revision, mine)
            }
            Action::Refuse { reason } => {
                Outcome::Refused { revision: self.revision, refusal: Refusal::Layer(reason.clone()) }
            }
            Action::Tick | Action::SetApplyVersion(_) => unchanged(self.revision, true),
        }
    }

    fn expire(&mut self, wall_ms: u64, commits: &mut Vec<Commit>) {
        let now_ms = self.log_time_ms;
        let records = self.records.iter().filter_map(|(key, record)| Some((record.expires_at_ms?, key.clone())));
        let mut due: Vec<(u64, Key)> =
            records.chain(self.left.iter().cloned()).filter(|(at, _)| *at <= now_ms).collect();
        due.sort();
        let mut attempt = Attempt::new(self, wall_ms);
        let mut held = Vec::new();
        for (at_ms, due) in due {
            if attempt.now.left.remove(&(at_ms, due.clone())) {
                attempt.changed = true;
            } else if attempt.now.records.contains_key(&due) {
                let closure = attempt.closure(&due);
                let outside = |going: &Key| {
                    let mut referrers = attempt.now.referrers(going).into_iter();
                    referrers.any(|(referrer, mode)| mode == ReferenceMode::Restrict && !closure.contains(&referrer))
                };
                if closure.iter().any(outside) {
                    held.push(due);
                } else {
                    closure.iter().for_each(|going| attempt.write(going, None, true).unwrap());
                }
            }
        }
        for due in held {
            if let Some(record) = attempt.now.records.get(&due).cloned() {
                let expires_at_ms = Some(now_ms + 60_000);
                attempt.write(&due, Some(Record { expires_at_ms, ..record }), false).unwrap();
            }
        }
        let (after, commit) = attempt.finish();
        *self = after;
        commits.extend(commit);
    }

    pub(crate) fn is_live(&self, scope: ScopeId) -> bool {
        is_permanent(scope) || self.scopes.contains_key(&scope)
    }

    pub(crate) fn incarnation(&self, scope: ScopeId) -> Option<u64> {
        self.is_live(scope).then(|| self.scopes.get(&scope).map_or(0, |(incarnation, _)| *incarnation))
    }

    pub(crate) fn last_change(&self, scope: ScopeId) -> u64 {
        self.last_changes.get(&scope).copied().unwrap_or(0)
    }

    /// Who references a record, in key order; of two references the later counts.
    pub(crate) fn referrers(&self, target: &Key) -> Vec<(Key, ReferenceMode)> {
        let mode = |record: &Record| {
            record.references.iter().rfind(|reference| reference.key == *target).map(|found| found.mode)
        };
        self.records.iter().filter_map(|(key, record)| Some((key.clone(), mode(record)?))).collect()
    }

    fn within<'a>(&'a self, start: &'a Key, end: &'a Bytes) -> impl Iterator<Item = (&'a Key, &'a Record)> {
        self.records.iter().filter(move |(key, _)| *key >= start && key.as_bytes() < end)
    }

    /// Count and bytes of the records of a scope.
    pub(crate) fn size(&self, scope: ScopeId) -> (u64, u64) {
        let records = self.records.iter().filter(|(key, _)| key.scope() == scope);
        records.fold((0, 0), |(count, bytes), (key, record)| {
            (count + 1, bytes + key.user_bytes().len() as u64 + record.value.len() as u64 + 64)
        })
    }

    fn all_hold(&self, compares: &[Compare]) -> bool {
        compares.iter().all(|compare| match compare {
            Compare::Exists { key, exists } => self.records.contains_key(key) == *exists,
            Compare::Number { key, field, relation, to } => {
                let number = self.records.get(key).map_or(0, |record| match field {
                    NumberField::Version => record.version,
                    NumberField::CreateRevision => record.create_revision,
                    NumberField::ModRevision => record.mod_revision,
                });
                relation.holds(&number, to)
            }
            Compare::Value { key, relation, to } => match self.records.get(key) {
                Some(record) => relation.holds(&record.value, to),
                None => *relation == meshstore::model::transaction::Relation::NotEqual,
            },
            Compare::Unchanged { start, end, count, since } if *count > 1_000 => {
                is_one_scope(start, end) && self.is_live(start.scope()) && self.last_change(start.scope()) <= *since
            }
            Compare::Unchanged { start, end, count, since } => {
                is_one_scope(start, end)
                    && self.within(start, end).count() as u64 == *count
                    && self.within(start, end).all(|(_, record)| record.mod_revision <= *since)
            }
            Compare::Scope { scope, field, relation, to } => {
                let number = match field {
                    ScopeField::Count => self.size(*scope).0,
                    ScopeField::Bytes => self.size(*scope).1,
                    ScopeField::LastRevision => self.last_change(*scope),
                    ScopeField::Incarnation => self.incarnation(*scope).unwrap_or(0),
                };
                relation.holds(&number, to)
            }
        })
    }
}

fn is_one_scope(start: &Key, end: &Bytes) -> bool {
    key::scope_of(end) == Some(start.scope()) || key::prefix_end(&start.scope().prefix()).as_ref() == Some(end)
}

/// A transaction, tried on a copy.
struct Attempt {
    before: Naive,
    now: Naive,
    revision: u64,
    wall_ms: u64,
    stamped: u32,
    /// What the keys that were written held before, and whether readers see it.
    written: BTreeMap<Key, (Option<Record>, bool)>,
    dropped: BTreeSet<ScopeId>,
    changed: bool,
}

impl Attempt {
    fn new(naive: &Naive, wall_ms: u64) -> Self {
        Self {
            before: naive.clone(),
            now: naive.clone(),
            revision: naive.revision + 1,
            wall_ms,
            stamped: 0,
            written: BTreeMap::new(),
            dropped: BTreeSet::new(),
            changed: false,
        }
    }

    fn run(&mut self, operations: &[Operation]) -> Result<Vec<OperationResult>, Refusal> {
        let results = operations.iter().map(|operation| self.operate(operation)).collect::<Result<_, _>>()?;
        self.check()?;
        Ok(results)
    }

    fn finish(mut self) -> (Naive, Option<Commit>) {
        if !self.changed {
            return (self.before, None);
        }
        self.now.revision = self.revision;
        let seen = self.written.into_iter().filter(|(_, (_, visible))| *visible);
        let mut changes: Vec<Change> =
            seen.map(|(key, (old, _))| Change::Record { new: self.now.records.get(&key).cloned(), key, old }).collect();
        let dropped = self.dropped.into_iter().filter(|scope| self.before.scopes.contains_key(scope));
        changes.extend(dropped.map(|scope| Change::ScopeDropped { scope }));
        (self.now, Some(Commit { revision: self.revision, changes }))
    }

    fn operate(&mut self, operation: &Operation) -> Result<OperationResult, Refusal> {
        Ok(match operation {
            Operation::Put { key, put } => self.put(key.clone(), put)?,
            Operation::PutStamped { prefix, put } => {
                let stamp = [self.revision.to_be_bytes().as_slice(), &self.stamped.to_be_bytes()].concat();
                self.stamped += 1;
                self.put(prefix.scope().key(&[prefix.user_bytes().as_ref(), &stamp].concat()), put)?
            }
            Operation::Add { key, delta, min, max } => self.add(key, *delta, *min, *max)?,
            Operation::Delete { key } => OperationResult::Deleted(self.delete(key)?),
            Operation::DeleteRange { start, end } => {
                if !is_one_scope(start, end) {
                    return Err(Refusal::MalformedRange(start.clone()));
                }
                let keys: Vec<Key> = self.now.within(start, end).map(|(key, _)| key.clone()).collect();
                let mut total = 0;
                for key in keys {
                    total += self.delete(&key)?;
                }
                OperationResult::Deleted(total)
            }
            Operation::Reindex { key, entries } => {
                self.check_writable(key)?;
                match self.now.records.get(key).cloned() {
                    Some(old) if old.entries != *entries => {
                        self.write(key, Some(Record { entries: entries.clone(), ..old }), false)?;
                        OperationResult::Changed(true)
                    }
                    _ => OperationResult::Changed(false),
                }
            }
            Operation::SetScope { scope, settings } => OperationResult::Changed(self.set_scope(*scope, *settings)?),
            Operation::DropScope { scope } => OperationResult::Changed(self.drop_scope(*scope)?),
            Operation::Get { key } => OperationResult::Record(self.now.records.get(key).cloned()),
            Operation::Range { start, end, limit } => {
                if !is_one_scope(start, end) {
                    return Err(Refusal::MalformedRange(start.clone()));
                }
                let found = self.now.within(start, end).take(*limit as usize);
                OperationResult::Records(found.map(|(key, record)| (key.clone(), record.clone())).collect())
            }
            Operation::Referrers { key, limit } => {
                let found = self.now.referrers(key).into_iter().take(*limit as usize);
                OperationResult::Keys(found.map(|(referrer, _)| referrer).collect())
            }
        })
    }

    fn check_writable(&self, key: &Key) -> Result<(), Refusal> {
        if !self.now.is_live(key.scope()) {
            return Err(Refusal::NoSuchScope(key.scope()));
        }
        if self.written.contains_key(key) { Err(Refusal::KeyWrittenTwice(key.clone())) } else { Ok(()) }
    }

    fn put(&mut self, key: Key, put: &Put) -> Result<OperationResult, Refusal> {
        self.check_writable(&key)?;
        let old = self.now.records.get(&key);
        let version = old.map_or(1, |old| old.version + 1);
        let record = Record {
            value: put.value.clone(),
            create_revision: old.map_or(self.revision, |old| old.create_revision),
            mod_revision: self.revision,
            version,
            created_at_ms: old.map_or(self.wall_ms, |old| old.created_at_ms),
            updated_at_ms: self.wall_ms,
            expires_at_ms: put.ttl_ms.map(|ttl| self.now.log_time_ms + ttl),
            entries: put.entries.clone(),
            references: put.references.clone(),
        };
        self.write(&key, Some(record), true)?;
        Ok(OperationResult::Put { key, version })
    }

    fn add(&mut self, key: &Key, delta: i64, min: i64, max: i64) -> Result<OperationResult, Refusal> {
        self.check_writable(key)?;
        let old = self.now.records.get(key).cloned();
        let current = match &old {
            None => 0,
            Some(old) if old.value.len() == 8 => i64::from_be_bytes(old.value.as_ref().try_into().unwrap()),
            Some(_) => return Err(Refusal::NotANumber(key.clone())),
        };
        let sum = i128::from(current) + i128::from(delta);
        if sum < i128::from(min) || sum > i128::from(max) {
            return Err(Refusal::OutOfBounds { key: key.clone(), current });
        }
        let sum = sum as i64;
        let value = Bytes::copy_from_slice(&sum.to_be_bytes());
        let kept = old.as_ref();
        let record = Record {
            value,
            create_revision: kept.map_or(self.revision, |old| old.create_revision),
            mod_revision: self.revision,
            version: kept.map_or(0, |old| old.version) + 1,
            created_at_ms: kept.map_or(self.wall_ms, |old| old.created_at_ms),
            updated_at_ms: self.wall_ms,
            expires_at_ms: kept.and_then(|old| old.expires_at_ms),
            entries: kept.map(|old| old.entries.clone()).unwrap_or_default(),
            references: kept.map(|old| old.references.clone()).unwrap_or_default(),
        };
        self.write(key, Some(record), true)?;
        Ok(OperationResult::Sum(sum))
    }

    /// A record and all that cascades from it.
    fn closure(&self, root: &Key) -> Vec<Key> {
        let mut keys = vec![root.clone()];
        let mut next = 0;
        while let Some(key) = keys.get(next).cloned() {
            for (referrer, mode) in self.now.referrers(&key) {
                if mode == ReferenceMode::Cascade && !keys.contains(&referrer) {
                    keys.push(referrer);
                }
            }
            next += 1;
        }
        keys
    }

    fn delete(&mut self, root: &Key) -> Result<u64, Refusal> {
        if !self.now.records.contains_key(root) {
            return Ok(0);
        }
        let closure = self.closure(root);
        for key in &closure {
            self.write(key, None, true)?;
        }
        Ok(closure.len() as u64)
    }

    fn write(&mut self, key: &Key, new: Option<Record>, visible: bool) -> Result<(), Refusal> {
        if self.written.contains_key(key) {
            return Err(Refusal::KeyWrittenTwice(key.clone()));
        }
        let entered = new.iter().flat_map(|record| &record.entries);
        if let Some(entry) = entered.into_iter().find(|entry| entry.scope > self.now.last_scope) {
            return Err(Refusal::NoSuchScope(index_of(entry)));
        }
        self.changed = true;
        let deleted = new.is_none();
        let old = match new {
            Some(new) => self.now.records.insert(key.clone(), new),
            None => self.now.records.remove(key),
        };
        if visible {
            self.now.last_changes.insert(key.scope(), self.revision);
            if let Some(old) = &old {
                let keep = self.now.scopes.get(&key.scope()).map_or(0, |(_, settings)| settings.history) as usize;
                let versions = self.now.history.entry(key.clone()).or_default();
                versions.insert(old.mod_revision, old.clone());
                if deleted {
                    versions.insert(self.revision, deletion(self.revision, self.wall_ms));
                }
                let is_deletion = |version: &Record| version.version == 0;
                while versions.values().filter(|version| !is_deletion(version)).count() > keep
                    || versions.values().next().is_some_and(is_deletion)
                {
                    versions.pop_first();
                }
            }
        }
        self.written.insert(key.clone(), (old, visible));
        Ok(())
    }

    fn set_scope(&mut self, scope: ScopeId, settings: ScopeSettings) -> Result<bool, Refusal> {
        if self.now.is_live(scope) {
            let (incarnation, before) = self.now.scopes.get(&scope).copied().unwrap_or_default();
            if before != settings {
                self.changed = true;
                self.now.scopes.insert(scope, (incarnation, settings));
            }
            return Ok(before != settings);
        }
        if scope.scope <= self.now.last_scope {
            return Err(Refusal::ScopeNotNew(scope));
        }
        self.changed = true;
        self.now.last_scope = scope.scope;
        self.now.scopes.insert(scope, (self.revision, settings));
        Ok(true)
    }

    fn drop_scope(&mut self, scope: ScopeId) -> Result<bool, Refusal> {
        if is_permanent(scope) {
            return Err(Refusal::ScopePermanent(scope));
        }
        if !self.now.is_live(scope) {
            return Ok(false);
        }
        if let Some(key) = self.written.keys().find(|key| key.scope() == scope) {
            return Err(Refusal::KeyWrittenTwice(key.clone()));
        }
        self.changed = true;
        self.dropped.insert(scope);
        self.now.scopes.remove(&scope);
        self.now.last_changes.remove(&scope);
        self.now.history.retain(|key, _| key.scope() != scope);
        for (key, record) in &self.now.records {
            self.now.left.extend(record.expires_at_ms.filter(|_| key.scope() == scope).map(|at| (at, key.clone())));
        }
        self.now.records.retain(|key, _| key.scope() != scope);
        Ok(true)
    }

    fn check(&self) -> Result<(), Refusal> {
        self.check_unique()?;
        for written in self.written.keys() {
            match self.now.records.get(written) {
                Some(record) => {
                    let mut references = record.references.iter();
                    if let Some(missing) = references.find(|reference| !self.now.records.contains_key(&reference.key)) {
                        return Err(Refusal::MissingReference {
                            referrer: written.clone(),
                            missing: missing.key.clone(),
                        });
                    }
                }
                None => match self.now.referrers(written).into_iter().next() {
                    Some((referrer, ReferenceMode::Restrict)) => {
                        return Err(Refusal::Restricted { key: written.clone(), referrer });
                    }
                    Some((referrer, ReferenceMode::Cascade)) => {
                        return Err(Refusal::MissingReference { referrer, missing: written.clone() });
                    }
                    None => {}
                },
            }
        }
        for (from, record) in &self.now.records {
            // Records are in the order of their scopes; of one scope's the least scope referenced is named.
            let from = from.scope();
            let of_scope = self.now.records.iter().filter(|(key, _)| key.scope() == from);
            let targets =
                of_scope.flat_map(|(_, record)| record.references.iter().map(|reference| reference.key.scope()));
            if let Some(to) =
                targets.filter(|to| !self.now.is_live(*to)).min().filter(|_| !record.references.is_empty())
            {
                return Err(Refusal::ScopeReferenced(to, from));
            }
        }
        for (scope, (_, settings)) in &self.now.scopes {
            let ((keys_before, bytes_before), (keys, bytes)) = (self.before.size(*scope), self.now.size(*scope));
            let over = |before, now, max| now > before && max > 0 && now > max;
            if over(keys_before, keys, settings.max_keys) || over(bytes_before, bytes, settings.max_bytes) {
                return Err(Refusal::ScopeFull(*scope));
            }
        }
        Ok(())
    }

    fn check_unique(&self) -> Result<(), Refusal> {
        let mut owners: BTreeMap<(u32, &Bytes), &Key> = BTreeMap::new();
        for (key, record) in &self.now.records {
            for entry in record.entries.iter().filter(|entry| entry.unique && self.now.is_live(index_of(entry))) {
                if let Some(owner) = owners.insert((entry.scope, &entry.key), key).filter(|owner| *owner != key) {
                    let owner = owner.clone();
                    return Err(Refusal::UniqueTaken { scope: entry.scope, entry: entry.key.clone(), owner });
                }
            }
        }
        Ok(())
    }
}

/// The index in which an entry stands.
pub(crate) fn index_of(entry: &Entry) -> ScopeId {
    ScopeId::new(if entry.unique { keyspace::UNIQUE } else { keyspace::ENTRIES }, entry.scope)
}
