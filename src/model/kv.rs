//! Values by key in namespaces, as clients and layers see them: the storage contract.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    mesh::{Condition, Stored},
    query::Index,
};

/// The namespace that always exists, and that is meant where none is named.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A JSON text, kept byte for byte. Queries look into it.
    Json(String),
    /// Bytes that mean nothing to the store.
    Bytes(Bytes),
}

impl Value {
    /// Its length, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A value with its key, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// What is known of it.
    pub metadata: Metadata,
}

/// What is known of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// When it was created, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When value or attributes were last written, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// The revision that created it.
    pub create_revision: u64,
    /// The revision of the last write of the value.
    pub mod_revision: u64,
    /// 1 when created, +1 with each write of the value.
    pub version: u64,
    /// Who wrote the value last.
    pub principal: String,
    /// The caller's own attributes, a JSON object; `None` if they were not asked for.
    pub attributes: Option<String>,
    /// The revision of the last write of the attributes; 0 if there are none, or they were not asked for.
    pub attributes_revision: u64,
}

/// A version of a value that its namespace keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// The value as it was.
    Value(Entry),
    /// It was deleted.
    Deleted {
        /// The revision that deleted it.
        revision: u64,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
}

/// A value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// A JSON object of attributes, merged with those that are there; `None`: these stay as they are.
    pub attributes: Option<String>,
    /// Whether a value that is there is overwritten.
    pub overwrite: bool,
    /// What must be true of the value that is there.
    pub condition: Option<Condition>,
    /// The lease with which it goes; `None`: it stays, also if it was attached to one before.
    pub lease: Option<u64>,
}

/// What became of a value that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The revision of the store with it in.
    pub revision: u64,
    /// The value's version now; 0 if only the outcome of an earlier attempt is known.
    pub version: u64,
}

/// What became of one key of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetResult {
    /// The key.
    pub key: String,
    /// The value's version now; 0 if it was not written, or only the outcome of an earlier attempt is known.
    pub version: u64,
    /// Why it was not written, or that this is no longer known; empty if it was.
    pub error: String,
}

/// A value that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Its key.
    pub key: String,
    /// What must be true of it.
    pub condition: Option<Condition>,
}

impl<T: Into<String>> From<T> for Deletion {
    fn from(key: T) -> Self {
        Self { key: key.into(), condition: None }
    }
}

/// What became of one key of several that were to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteResult {
    /// The key.
    pub key: String,
    /// Whether there was something.
    pub deleted: bool,
    /// Why it was not deleted; empty if it was, or was not there.
    pub error: String,
}

impl SetResult {
    /// What is said of a key of a call that was executed, of which only that is known.
    pub const LOST: &str = "what became of it is no longer known; read it";
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter {
    /// A pattern in which `*` stands for any run of characters; empty: all keys.
    pub pattern: String,
    /// Most keys on the page; `None`: 100.
    pub limit: Option<u32>,
    /// How many keys are left out at the beginning.
    pub offset: u64,
    /// Where the page before ended; empty for the first.
    pub cursor: String,
}

/// How a namespace is set up. Frozen (kind `Namespace`, version 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceSettings {
    /// Older versions that are kept of each value, at most 64.
    pub history: u32,
    /// Most values; 0: no bound.
    pub max_entries: u64,
    /// Most bytes of keys and values, 64 more for each; 0: no bound.
    pub max_bytes: u64,
}

/// What is to change of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceChange {
    /// Its metadata, a JSON object.
    pub metadata: Option<String>,
    /// See [`NamespaceSettings`].
    pub history: Option<u32>,
    /// See [`NamespaceSettings`].
    pub max_entries: Option<u64>,
    /// See [`NamespaceSettings`].
    pub max_bytes: Option<u64>,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// How it is set up.
    pub settings: NamespaceSettings,
    /// Its metadata, a JSON object, with what the store knows of it. `default` has version 0 until it is first written.
    pub metadata: Stored<String>,
    /// Values in it.
    pub entries: u64,
    /// Bytes of keys and values, 64 more for each.
    pub bytes: u64,
    /// Its indexes, in the order in which they were created.
    pub indexes: Vec<Index>,
}

/// How much is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageStatus {
    /// Whether the node that answers knows a leader.
    pub healthy: bool,
    /// Values in all namespaces.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Namespaces.
    pub namespaces: u64,
    /// How many values the namespaces may hold together; `None` if one has no bound.
    pub capacity: Option<u64>,
}
