//! Numbers for new scopes.
//!
//! The core takes a new scope only if its number is greater than all before. Whoever creates scopes, of whatever surface,
//! takes their numbers here: one record holds the last, and everybody guards on it, so two that create at once are decided
//! one after the other.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Key, ScopeId, keyspace,
        transaction::{Compare, Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

/// Frozen (kind `ScopeNumbers`, version 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// The number of the newest scope.
    last: u32,
    /// How many there are.
    live: u32,
}

/// The scopes that a transaction creates and drops.
#[derive(Clone)]
pub(super) struct Scopes {
    stored: Stored,
    revision: u64,
}

impl Scopes {
    /// As a view has them.
    pub(super) fn read(view: &View) -> Result<Self> {
        let Some(record) = view.record(&key())? else {
            return Ok(Self { stored: Stored { last: keyspace::FIRST_DYNAMIC_SCOPE - 1, live: 0 }, revision: 0 });
        };
        let stored = codec::decode(Kind::ScopeNumbers, &record.value);
        let broken = |error| view.fault(Fault::bug(format!("the record {} cannot be read: {error}", key())));
        Ok(Self { stored: stored.map_err(broken)?, revision: record.mod_revision })
    }

    /// The number of a new scope. Errors: `Refused` if there are too many.
    pub(super) fn create(&mut self) -> Result<u32> {
        let Stored { last, live } = self.stored;
        if live >= limits::SCOPES || last == u32::MAX {
            let most = limits::SCOPES / 2;
            return Err(Error::Refused(format!(
                "there are too many namespaces, collections and indexes: there is room for {most} namespaces; delete some first"
            )));
        }
        self.stored = Stored { last: last + 1, live: live + 1 };
        Ok(last + 1)
    }

    /// Notes that a scope is dropped.
    pub(super) fn drop(&mut self) {
        self.stored.live = self.stored.live.saturating_sub(1);
    }

    /// What must hold for the numbers to be these.
    pub(super) fn guard(&self) -> Compare {
        Compare::written_at(key(), self.revision)
    }

    /// What notes them.
    pub(super) fn operation(&self) -> Operation {
        Operation::Put { key: key(), put: Put::value(codec::encode(Kind::ScopeNumbers, &self.stored)) }
    }
}

fn key() -> Key {
    ScopeId::new(keyspace::SCOPE_NUMBERS, keyspace::NO_SCOPE).key(b"last")
}
