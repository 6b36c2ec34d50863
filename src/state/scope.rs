//! Scopes and their accounts: how many keys, how many bytes, the hash of it all, and when last changed.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::constants::KEY_OVERHEAD_BYTES;
use crate::model::{Record, ReferenceMode, ScopeId, key::PREFIX_BYTES, keyspace, transaction::ScopeSettings};

/// A scope: its settings and its account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The revision that created it; 0 for the ones that always exist.
    pub incarnation: u64,
    /// Its settings.
    pub settings: ScopeSettings,
    /// Its account.
    pub account: Account,
}

/// What the core keeps of a scope's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Keys.
    pub count: u64,
    /// Bytes: key + value + 64 each.
    pub bytes: u64,
    /// Sum (wrapping) of the hashes of the pairs, over their logical fields.
    pub hash: u128,
    /// Revision of the last change that a reader could see.
    pub last_revision: u64,
}

/// What one pair adds to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Its bytes.
    pub bytes: u64,
    /// Its hash.
    pub hash: u128,
}

/// A change of an account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta {
    /// Keys added less keys removed.
    pub count: i64,
    /// Bytes added less bytes removed.
    pub bytes: i64,
    /// Hashes added less hashes removed, wrapping.
    pub hash: u128,
    /// Whether a reader can see the change.
    pub visible: bool,
}

impl Delta {
    /// Counts a pair in.
    pub fn add(&mut self, weight: Weight) {
        self.count += 1;
        self.bytes += weight.bytes.cast_signed();
        self.hash = self.hash.wrapping_add(weight.hash);
    }

    /// Counts a pair out.
    pub fn subtract(&mut self, weight: Weight) {
        self.count -= 1;
        self.bytes -= weight.bytes.cast_signed();
        self.hash = self.hash.wrapping_sub(weight.hash);
    }
}

impl Account {
    /// The account after a change at `revision`.
    pub fn changed(self, delta: &Delta, revision: u64) -> Self {
        Self {
            count: self.count.saturating_add_signed(delta.count),
            bytes: self.bytes.saturating_add_signed(delta.bytes),
            hash: self.hash.wrapping_add(delta.hash),
            last_revision: if delta.visible { revision } else { self.last_revision },
        }
    }
}

/// Whether a scope exists without anybody having created it.
pub fn is_permanent(scope: ScopeId) -> bool {
    scope.scope < keyspace::FIRST_DYNAMIC_SCOPE
}

/// The weight of a record under a whole key.
pub fn weigh_record(key: &[u8], record: &Record) -> Weight {
    let mut form = Canonical::with_capacity(key.len() + record.value.len() + 96);
    form.bytes(key);
    form.bytes(&record.value);
    form.number(record.create_revision);
    form.number(record.mod_revision);
    form.number(record.version);
    form.number(record.created_at_ms);
    form.number(record.updated_at_ms);
    form.number(record.expires_at_ms.map_or(0, |at| at.saturating_add(1)));
    form.number(record.entries.len() as u64);
    for entry in &record.entries {
        form.number(u64::from(entry.scope));
        form.bytes(&entry.key);
        form.bytes(&entry.payload);
        form.number(u64::from(entry.unique));
    }
    form.number(record.references.len() as u64);
    for reference in &record.references {
        form.bytes(reference.key.as_bytes());
        form.number(match reference.mode {
            ReferenceMode::Cascade => 0,
            ReferenceMode::Restrict => 1,
        });
    }
    form.weigh(key, record.value.len())
}

/// How much a record takes in an answer, in bytes; the same on every node, however the record is stored.
pub fn answer_bytes(key: &[u8], record: &Record) -> usize {
    let entries = record.entries.iter().map(|entry| entry.key.len() + entry.payload.len() + 16);
    let references = record.references.iter().map(|reference| reference.key.as_bytes().len() + 16);
    key.len() + record.value.len() + 64 + entries.sum::<usize>() + references.sum::<usize>()
}

/// The weight of a pair that the core derives: an index entry, a referrer, an expiry.
pub fn weigh_derived(key: &[u8], value: &[u8]) -> Weight {
    let mut form = Canonical::with_capacity(key.len() + value.len() + 16);
    form.bytes(key);
    form.bytes(value);
    form.weigh(key, value.len())
}

/// The canonical form of logical fields: what is hashed. Frozen: it may never change.
struct Canonical(Vec<u8>);

impl Canonical {
    fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn weigh(self, key: &[u8], value_bytes: usize) -> Weight {
        let key_bytes = key.len().saturating_sub(PREFIX_BYTES) as u64;
        Weight { bytes: key_bytes + value_bytes as u64 + KEY_OVERHEAD_BYTES, hash: xxh3_128(&self.0) }
    }
}
