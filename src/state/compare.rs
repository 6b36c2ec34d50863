//! Compares: questions about the state before a transaction.

use bytes::Bytes;

use super::{base::Base, constants::UNCHANGED_KEYS, overlay::Overlay, stored};
use crate::{
    error::Fault,
    model::{
        Key,
        transaction::{Compare, NumberField, Relation, ScopeField},
    },
};

impl<B: Base> Overlay<'_, B> {
    /// Whether all compares hold.
    pub(super) fn all_hold(&self, compares: &[Compare]) -> Result<bool, Fault> {
        for compare in compares {
            if !self.holds(compare)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, compare: &Compare) -> Result<bool, Fault> {
        Ok(match compare {
            Compare::Exists { key, exists } => self.exists(key)? == *exists,
            Compare::Number { key, field, relation, to } => {
                let number = self.record(key)?.map_or(0, |record| match field {
                    NumberField::Version => record.version,
                    NumberField::CreateRevision => record.create_revision,
                    NumberField::ModRevision => record.mod_revision,
                });
                relation.holds(&number, to)
            }
            Compare::Value { key, relation, to } => match self.record(key)? {
                Some(record) => relation.holds(record.value.as_ref(), to.as_ref()),
                None => *relation == Relation::NotEqual,
            },
            Compare::Unchanged { start, end, count, since } => self.is_unchanged(start, end, *count, *since)?,
            Compare::Scope { scope, field, relation, to } => {
                let number = self.scope(*scope).map_or(0, |scope| match field {
                    ScopeField::Count => scope.account.count,
                    ScopeField::Bytes => scope.account.bytes,
                    ScopeField::LastRevision => scope.account.last_revision,
                    ScopeField::Incarnation => scope.incarnation,
                });
                relation.holds(&number, to)
            }
        })
    }
    fn is_unchanged(&self, start: &Key, end: &Bytes, count: u64, since: u64) -> Result<bool, Fault> {
        if self.one_scope(start, end).is_err() {
            return Ok(false);
        }
        let Some(scope) = self.scope(start.scope()) else { return Ok(count == 0) };
        if count > UNCHANGED_KEYS {
            return Ok(scope.account.last_revision <= since);
        }
        let limit = usize::try_from(count).unwrap_or(usize::MAX).saturating_add(1);
        let (mut found, mut all_older) = (0, true);
        self.scan(start.as_bytes(), end, limit, |key, value| {
            found += 1;
            all_older &= stored::decode(&key, &value)?.mod_revision <= since;
            Ok::<_, Fault>(all_older)
        })?;
        Ok(all_older && found == count)
    }
}
