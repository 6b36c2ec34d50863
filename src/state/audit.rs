//! Counts stored pairs against the accounts, for storage's checks.

use std::collections::BTreeMap;

use super::{
    meta::Meta,
    scope::{self, Account, Delta},
    stored,
};
use crate::{
    error::Fault,
    model::{ScopeId, key, keyspace},
    storage::audit::{Audit, Auditor},
};

/// Audits against the accounts of a checkpoint's [`Meta`].
pub struct Accounts;

impl Auditor for Accounts {
    fn begin(&self, meta: &[u8]) -> Result<Box<dyn Audit>, Fault> {
        Ok(Box::new(Counting { meta: Meta::decode(meta)?, counted: BTreeMap::new() }))
    }
}

struct Counting {
    meta: Meta,
    counted: BTreeMap<ScopeId, Delta>,
}

impl Audit for Counting {
    fn is_live(&self, key: &[u8]) -> bool {
        key::scope_of(key).is_some_and(|scope| self.meta.is_live(scope))
    }

    fn count(&mut self, pair_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let scope = key::scope_of(pair_key).ok_or_else(|| Fault::new("a stored key is too short to have a scope"))?;
        let weight = if scope.keyspace <= keyspace::LAST_RECORD || scope.keyspace == keyspace::HISTORY {
            scope::weigh_record(pair_key, &stored::decode_copied(pair_key, value)?)
        } else {
            scope::weigh_derived(pair_key, value)
        };
        self.counted.entry(scope).or_default().add(weight);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        for (id, scope) in &self.meta.scopes {
            let counted = Account::default().changed(&self.counted.remove(id).unwrap_or_default(), 0);
            let expected = Account { last_revision: 0, ..scope.account };
            if counted != expected {
                return Err(format!(
                    "scope {id} should hold {} keys, {} bytes, hash {:032x}, but holds {} keys, {} bytes, hash {:032x}",
                    expected.count, expected.bytes, expected.hash, counted.count, counted.bytes, counted.hash
                ));
            }
        }
        match self.counted.first_key_value() {
            Some((id, delta)) => Err(format!("scope {id} should be empty, but holds {} keys", delta.count)),
            None => Ok(()),
        }
    }
}
