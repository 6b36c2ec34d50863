//! Leases and locks, as clients and layers see them.

use std::fmt;

use bytes::Bytes;

use super::mesh::RecordId;

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: u64,
    /// How long it lives without being kept alive, in milliseconds of log time.
    pub ttl_ms: u64,
    /// What is left of that, in milliseconds: by the leader's clock; on another node by the last entry that is applied there,
    /// which is never too little.
    pub remaining_ms: u64,
    /// Who asked for it.
    pub principal: String,
    /// When it was granted, in milliseconds since 1970.
    pub granted_at_ms: u64,
    /// When it was last kept alive, in milliseconds since 1970.
    pub kept_at_ms: u64,
    /// The revision that granted it.
    pub create_revision: u64,
    /// The revision that last kept it alive.
    pub mod_revision: u64,
    /// 1 when granted, +1 each time that it is kept alive.
    pub version: u64,
}

/// What goes with a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachedKey {
    /// A record of mesh storage.
    Record(RecordId),
    /// A value of the storage contract.
    Value {
        /// Its namespace.
        namespace: String,
        /// Its key.
        key: String,
    },
    /// A lock that it holds.
    Lock(String),
    /// A lock that it waits for.
    WaitsFor(String),
}

impl fmt::Display for AttachedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(RecordId::Message(id)) => write!(f, "message {id}"),
            Self::Record(RecordId::State(key)) => write!(f, "state {key}"),
            Self::Record(RecordId::NodeState(node_id)) => write!(f, "node state {node_id}"),
            Self::Record(RecordId::Route(destination)) => write!(f, "route {destination}"),
            Self::Record(RecordId::Config(key)) => write!(f, "config {key}"),
            Self::Record(RecordId::LogEntry(id)) => write!(f, "log entry {}/{} of {}", id.term, id.index, id.group),
            Self::Value { namespace, key } => write!(f, "value {key} in namespace {namespace}"),
            Self::Lock(name) => write!(f, "lock {name}"),
            Self::WaitsFor(name) => write!(f, "place in the queue of lock {name}"),
        }
    }
}

/// Leases that were to be kept alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Those that are, with how long they live from now on, in milliseconds.
    pub kept: Vec<(u64, u64)>,
    /// Those that do not exist (any more).
    pub missing: Vec<u64>,
}

/// What makes a write depend on a lock: that it is held with this token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The lock.
    pub lock: String,
    /// The token.
    pub token: u64,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The fencing token: greater than those of all holders before.
    pub token: u64,
    /// The lease that holds it.
    pub lease: u64,
    /// Who asked for it.
    pub principal: String,
    /// What the holder says of itself.
    pub value: Bytes,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}
