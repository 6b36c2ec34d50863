//! The state beside the records: what a checkpoint carries, and what the state hash covers.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    constants::APPLY_VERSION,
    scope::{self, Scope},
    session::{Session, Sessions},
};
use crate::{
    error::Fault,
    model::{ScopeId, keyspace},
    storage::codec::{self, Kind},
};

/// Everything that apply keeps beside the stored pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The constants in force.
    pub apply_version: u32,
    /// +1 for every transaction that changed something.
    pub revision: u64,
    /// Log time, in milliseconds; never goes back, stands still without a leader.
    pub log_time_ms: u64,
    /// The greatest number that a created scope has had.
    pub last_scope: u32,
    /// All scopes that hold something or were created.
    pub scopes: BTreeMap<ScopeId, Scope>,
    /// How many references go from the records of one scope to those of another.
    pub links: BTreeMap<(ScopeId, ScopeId), u64>,
    /// All sessions.
    pub sessions: Sessions,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            apply_version: APPLY_VERSION,
            revision: 0,
            log_time_ms: 0,
            last_scope: keyspace::FIRST_DYNAMIC_SCOPE - 1,
            scopes: BTreeMap::new(),
            links: BTreeMap::new(),
            sessions: Sessions::default(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct MetaV1 {
    apply_version: u32,
    revision: u64,
    log_time_ms: u64,
    last_scope: u32,
    scopes: BTreeMap<ScopeId, Scope>,
    links: BTreeMap<(ScopeId, ScopeId), u64>,
    sessions: BTreeMap<u64, Session>,
}

impl Meta {
    /// The persisted form.
    pub fn encode(&self) -> Bytes {
        codec::encode(Kind::Meta, &self.to_v1())
    }

    /// From the persisted form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let meta: MetaV1 = codec::decode(Kind::Meta, bytes)
            .map_err(|error| Fault::new(format!("the state of a checkpoint cannot be read: {error}")))?;
        if meta.apply_version > APPLY_VERSION {
            return Err(unknown_version(meta.apply_version));
        }
        Ok(Self {
            apply_version: meta.apply_version,
            revision: meta.revision,
            log_time_ms: meta.log_time_ms,
            last_scope: meta.last_scope,
            scopes: meta.scopes,
            links: meta.links,
            sessions: Sessions::from_all(meta.sessions),
        })
    }

    fn to_v1(&self) -> MetaV1 {
        MetaV1 {
            apply_version: self.apply_version,
            revision: self.revision,
            log_time_ms: self.log_time_ms,
            last_scope: self.last_scope,
            scopes: self.scopes.clone(),
            links: self.links.clone(),
            sessions: self.sessions.all().clone(),
        }
    }

    /// The hash of the whole state: equal on two replicas at one log index, or they have diverged. The
    /// records are in it by the accounts of their scopes. Takes time in proportion to the sessions.
    pub fn state_hash(&self) -> u128 {
        xxh3_128(&codec::encode_payload(&self.to_v1()))
    }

    /// Whether a scope exists.
    pub fn is_live(&self, scope: ScopeId) -> bool {
        scope::is_permanent(scope) || self.scopes.contains_key(&scope)
    }

    /// The revision at which the permissions last changed: what every proposal was decided on.
    pub fn security_revision(&self) -> u64 {
        self.scopes
            .get(&ScopeId::new(keyspace::SECURITY, keyspace::NO_SCOPE))
            .map_or(0, |scope| scope.account.last_revision)
    }
}

/// The fault of a node that is older than the log that it is to apply.
pub fn unknown_version(version: u32) -> Fault {
    Fault::new(format!(
        "the log needs apply version {version}, this program knows up to {APPLY_VERSION}: start a newer meshstore on this node"
    ))
}
