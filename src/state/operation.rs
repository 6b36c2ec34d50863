//! The operations of a transaction, one function each.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    base::Base,
    constants::{ANSWER_BYTES, DELETES, HISTORY, RANGE_BYTES, RANGE_RECORDS, REPLACED_BYTES},
    overlay::{Overlay, Stop, is_record_keyspace},
    scope::{self, Scope},
    stored,
};
use crate::{
    error::Fault,
    model::{
        Entry, Key, OperationResult, Record, Refusal, ScopeId, key, keyspace,
        transaction::{Operation, Put, ScopeSettings},
    },
};

impl<B: Base> Overlay<'_, B> {
    /// Does one operation.
    pub(super) fn operate(&mut self, operation: &Operation, log_time_ms: u64) -> Result<OperationResult, Stop> {
        let result = self.dispatch(operation, log_time_ms)?;
        self.check_replaced()?;
        Ok(result)
    }

    fn dispatch(&mut self, operation: &Operation, log_time_ms: u64) -> Result<OperationResult, Stop> {
        match operation {
            Operation::Put { key, put } => self.put(key.clone(), put, log_time_ms),
            Operation::PutStamped { prefix, put } => {
                let stamped = self.stamped_key(prefix);
                self.put(stamped, put, log_time_ms)
            }
            Operation::Add { key, delta, min, max } => self.add(key, *delta, (*min, *max)),
            Operation::Delete { key } => {
                writable(key)?;
                Ok(OperationResult::Deleted(self.delete(key)?))
            }
            Operation::DeleteRange { start, end } => self.delete_range(start, end),
            Operation::Reindex { key, entries } => self.reindex(key, entries),
            Operation::SetScope { scope, settings } => self.set_scope(*scope, *settings),
            Operation::DropScope { scope } => self.drop_scope(*scope),
            Operation::Get { key } => {
                let record = self.record(key)?;
                self.answer(record.as_ref().map_or(0, |record| scope::answer_bytes(key.as_bytes(), record)))?;
                Ok(OperationResult::Record(record))
            }
            Operation::Range { start, end, limit } => self.range(start, end, *limit),
            Operation::Referrers { key, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX).min(RANGE_RECORDS);
                let found = if limit == 0 { Vec::new() } else { self.referrers(key, limit)? };
                self.answer(found.iter().map(|(referrer, _)| referrer.as_bytes().len() + 64).sum())?;
                Ok(OperationResult::Keys(found.into_iter().map(|(referrer, _)| referrer).collect()))
            }
        }
    }

    /// Refuses a transaction that answers more than may be in memory, and sent, at once.
    fn answer(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.answered_bytes += bytes;
        if self.answered_bytes > ANSWER_BYTES { Err(Refusal::AnswerTooLarge) } else { Ok(()) }
    }

    /// Refuses a transaction that replaces more than may be in memory at once.
    pub(super) fn check_replaced(&self) -> Result<(), Refusal> {
        if self.replaced_bytes > REPLACED_BYTES { Err(Refusal::TooManyBytes) } else { Ok(()) }
    }

    fn stamped_key(&mut self, prefix: &Key) -> Key {
        let mut bytes = BytesMut::from(prefix.user_bytes().as_ref());
        bytes.put_u64(self.revision);
        bytes.put_u32(self.stamped);
        self.stamped += 1;
        prefix.scope().key(&bytes)
    }

    fn put(&mut self, record_key: Key, put: &Put, log_time_ms: u64) -> Result<OperationResult, Stop> {
        let old = self.writable_record(&record_key)?;
        let record = Record {
            value: put.value.clone(),
            create_revision: old.as_ref().map_or(self.revision, |old| old.create_revision),
            mod_revision: self.revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            created_at_ms: old.as_ref().map_or(self.wall_ms, |old| old.created_at_ms),
            updated_at_ms: self.wall_ms,
            expires_at_ms: put.ttl_ms.map(|ttl| log_time_ms.saturating_add(ttl)),
            entries: put.entries.clone(),
            references: put.references.clone(),
        };
        let version = record.version;
        self.replace(&record_key, old, Some(record), true)?;
        Ok(OperationResult::Put { key: record_key, version })
    }

    fn add(&mut self, record_key: &Key, delta: i64, (min, max): (i64, i64)) -> Result<OperationResult, Stop> {
        let old = self.writable_record(record_key)?;
        let current = match &old {
            None => 0,
            Some(old) => match <[u8; 8]>::try_from(old.value.as_ref()) {
                Ok(bytes) => i64::from_be_bytes(bytes),
                Err(_) => return Err(Refusal::NotANumber(record_key.clone()).into()),
            },
        };
        let sum = current
            .checked_add(delta)
            .filter(|sum| (min..=max).contains(sum))
            .ok_or_else(|| Refusal::OutOfBounds { key: record_key.clone(), current })?;
        let value = Bytes::copy_from_slice(&sum.to_be_bytes());
        let (revision, wall_ms) = (self.revision, self.wall_ms);
        let record = match old.clone() {
            Some(old) => {
                Record { value, mod_revision: revision, version: old.version + 1, updated_at_ms: wall_ms, ..old }
            }
            None => Record {
                value,
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                created_at_ms: wall_ms,
                updated_at_ms: wall_ms,
                expires_at_ms: None,
                entries: Vec::new(),
                references: Vec::new(),
            },
        };
        self.replace(record_key, old, Some(record), true)?;
        Ok(OperationResult::Sum(sum))
    }

    fn delete_range(&mut self, start: &Key, end: &Bytes) -> Result<OperationResult, Stop> {
        writable(start)?;
        self.one_scope(start, end)?;
        let mut keys = Vec::new();
        if self.is_live(start.scope()) {
            self.scan(start.as_bytes(), end, DELETES + 1, |found, _| {
                keys.push(Key::from_bytes(found).ok_or_else(|| Fault::bug("a stored key without a scope"))?);
                Ok::<_, Fault>(true)
            })?;
        }
        let mut total = 0;
        for found in &keys {
            total += self.delete(found)?;
        }
        Ok(OperationResult::Deleted(total))
    }

    fn reindex(&mut self, record_key: &Key, entries: &[Entry]) -> Result<OperationResult, Stop> {
        let Some(old) = self.writable_record(record_key)? else { return Ok(OperationResult::Changed(false)) };
        if old.entries == entries {
            return Ok(OperationResult::Changed(false));
        }
        let record = Record { entries: entries.to_vec(), ..old.clone() };
        self.replace(record_key, Some(old), Some(record), false)?;
        Ok(OperationResult::Changed(true))
    }

    fn set_scope(&mut self, scope: ScopeId, settings: ScopeSettings) -> Result<OperationResult, Stop> {
        let settings = ScopeSettings { history: settings.history.min(HISTORY), ..settings };
        if !may_have_scopes(scope.keyspace) {
            return Err(Refusal::ScopeNotNew(scope).into());
        }
        if let Some(existing) = self.scope(scope) {
            let changed = existing.settings != settings;
            if changed {
                self.scopes.insert(scope, Some(Scope { settings, ..existing }));
            }
            return Ok(OperationResult::Changed(changed));
        }
        if scope.scope <= self.last_scope {
            return Err(Refusal::ScopeNotNew(scope).into());
        }
        self.last_scope = scope.scope;
        self.scopes.insert(scope, Some(Scope { incarnation: self.revision, settings, ..Scope::default() }));
        Ok(OperationResult::Changed(true))
    }

    fn drop_scope(&mut self, scope: ScopeId) -> Result<OperationResult, Stop> {
        // What the core derives goes with what it is derived from, and only with it.
        if scope::is_permanent(scope) || !may_have_scopes(scope.keyspace) {
            return Err(Refusal::ScopePermanent(scope).into());
        }
        if self.scope(scope).is_none() {
            return Ok(OperationResult::Changed(false));
        }
        let first = scope.key(&[]);
        if let Some((written, _)) = self.touched.range(first..).next().filter(|(key, _)| key.scope() == scope) {
            return Err(Refusal::KeyWrittenTwice(written.clone()).into());
        }
        self.scopes.insert(scope, None);
        for home in scope.derived() {
            if self.is_live(home) {
                self.scopes.insert(home, None);
            }
        }
        Ok(OperationResult::Changed(true))
    }

    fn range(&mut self, start: &Key, end: &Bytes, limit: u32) -> Result<OperationResult, Stop> {
        self.one_scope(start, end)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(RANGE_RECORDS);
        let mut records = Vec::new();
        let mut bytes = 0;
        if self.is_live(start.scope()) {
            self.scan(start.as_bytes(), end, limit, |found, value| {
                let record = stored::decode(&found, &value)?;
                bytes += scope::answer_bytes(&found, &record);
                let found = Key::from_bytes(found).ok_or_else(|| Fault::bug("a stored key without a scope"))?;
                records.push((found, record));
                Ok::<_, Fault>(bytes < RANGE_BYTES)
            })?;
        }
        self.answer(bytes)?;
        Ok(OperationResult::Records(records))
    }

    /// The record of a key that may be written, in a scope that exists.
    fn writable_record(&self, record_key: &Key) -> Result<Option<Record>, Stop> {
        writable(record_key)?;
        if !self.is_live(record_key.scope()) {
            return Err(Refusal::NoSuchScope(record_key.scope()).into());
        }
        if self.touched.contains_key(record_key) {
            return Err(Refusal::KeyWrittenTwice(record_key.clone()).into());
        }
        Ok(self.record(record_key)?)
    }

    /// Refuses a range that is not of one record scope.
    pub(super) fn one_scope(&self, start: &Key, end: &Bytes) -> Result<(), Refusal> {
        let scope = start.scope();
        let ends_inside = key::scope_of(end) == Some(scope) || key::prefix_end(&scope.prefix()).as_ref() == Some(end);
        if start.is_well_formed() && is_record_keyspace(scope.keyspace) && ends_inside {
            Ok(())
        } else {
            Err(Refusal::MalformedRange(start.clone()))
        }
    }
}

/// Whether transactions create and drop scopes there.
pub(super) fn may_have_scopes(keyspace: keyspace::Keyspace) -> bool {
    is_record_keyspace(keyspace) || keyspace == keyspace::ENTRIES || keyspace == keyspace::UNIQUE
}

fn writable(record_key: &Key) -> Result<(), Refusal> {
    if record_key.is_well_formed() && is_record_keyspace(record_key.scope().keyspace) {
        Ok(())
    } else {
        Err(Refusal::NotWritable(record_key.clone()))
    }
}
