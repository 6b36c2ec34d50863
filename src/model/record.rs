//! A record: a value, and what the core keeps beside it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Key, shared};

/// A value with its versions, times, index entries and references.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The value.
    #[serde(deserialize_with = "shared::deserialize")]
    pub value: Bytes,
    /// Revision of the transaction that created the record.
    pub create_revision: u64,
    /// Revision of the transaction that wrote it last.
    pub mod_revision: u64,
    /// 1 when created, +1 with each write.
    pub version: u64,
    /// Wall time of creation at the leader, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Wall time of the last write at the leader, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// Log time at which the record expires, in milliseconds; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// The index entries that this record owns.
    pub entries: Vec<Entry>,
    /// The records that this one relies on.
    pub references: Vec<Reference>,
}

impl Record {
    /// The same, which keeps nothing in memory but itself.
    #[must_use]
    pub fn detached(&self) -> Self {
        let entry = |entry: &Entry| Entry {
            key: Bytes::copy_from_slice(&entry.key),
            payload: Bytes::copy_from_slice(&entry.payload),
            ..*entry
        };
        let reference = |reference: &Reference| Reference { key: reference.key.detached(), ..*reference };
        Self {
            value: Bytes::copy_from_slice(&self.value),
            entries: self.entries.iter().map(entry).collect(),
            references: self.references.iter().map(reference).collect(),
            ..*self
        }
    }
}

/// One index entry of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The index: a scope of `keyspace::ENTRIES`, or of `keyspace::UNIQUE` if unique.
    pub scope: u32,
    /// The key in the index.
    #[serde(deserialize_with = "shared::deserialize")]
    pub key: Bytes,
    /// What an index read sees without the record.
    #[serde(deserialize_with = "shared::deserialize")]
    pub payload: Bytes,
    /// Whether another record with the same entry key refuses the transaction.
    pub unique: bool,
}

/// A record that must exist for as long as this one does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The referenced record.
    pub key: Key,
    /// What its deletion does.
    pub mode: ReferenceMode,
}

/// What the deletion of a referenced record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReferenceMode {
    /// It deletes the referrer, too.
    Cascade,
    /// It is refused while the referrer exists.
    Restrict,
}
