//! Compares: questions about the state before a transaction.

use super::{base::Base, constants::UNCHANGED_KEYS, overlay::Overlay, stored};
use crate::{
    error::Fault,
    model::transaction::{Compare, NumberField, Relation, ScopeField},
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
            Compare::Exists { key, exists } => self.record(key)?.is_some() == *exists,
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
            Compare::Unchanged { start, end, count, since } => {
                if self.one_scope(start, end).is_err() {
                    return Ok(false);
                }
                let scope = self.scope(start.scope());
                if *count > UNCHANGED_KEYS {
                    return Ok(scope.map_or(0, |scope| scope.account.last_revision) <= *since);
                }
                if scope.is_none() {
                    return Ok(*count == 0);
                }
                let limit = usize::try_from(*count).unwrap_or(usize::MAX).saturating_add(1);
                let found = self.pairs_in(start.as_bytes(), Some(end), limit)?;
                if found.len() as u64 != *count {
                    return Ok(false);
                }
                for (key, value) in &found {
                    if stored::decode(key, value)?.mod_revision > *since {
                        return Ok(false);
                    }
                }
                true
            }
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
}
