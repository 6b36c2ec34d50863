//! The compare-and-write transaction: the only thing that changes state.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Entry, Key, Reference, ScopeId, shared};

/// If all `compares` hold the `then` operations are done, otherwise the `otherwise` operations;
/// wholly or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What decides between the two branches; none means `then`.
    pub compares: Vec<Compare>,
    /// Done if all compares hold.
    pub then: Vec<Operation>,
    /// Done if one does not.
    pub otherwise: Vec<Operation>,
}

impl Transaction {
    /// A transaction that does these operations, whatever is there.
    pub fn blind(then: Vec<Operation>) -> Self {
        Self { then, ..Self::default() }
    }

    /// Whether either branch can make the data larger. Deletions do not, nor does what drops a scope.
    pub fn grows(&self) -> bool {
        let drops = |operation: &Operation| matches!(operation, Operation::DropScope { .. });
        if self.then.iter().any(drops) && self.otherwise.is_empty() {
            return false;
        }
        self.then.iter().chain(&self.otherwise).any(Operation::grows)
    }
}

/// A question about the state before the transaction. Frozen: grows at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// Whether the key has a record.
    Exists {
        /// The key.
        key: Key,
        /// What must be true.
        exists: bool,
    },
    /// A number of the key's record; all are 0 where there is none.
    Number {
        /// The key.
        key: Key,
        /// Which number.
        field: NumberField,
        /// How it must relate.
        relation: Relation,
        /// To what.
        to: u64,
    },
    /// The key's value, by bytes. A missing record relates to nothing but `NotEqual`.
    Value {
        /// The key.
        key: Key,
        /// How it must relate.
        relation: Relation,
        /// To what.
        to: Bytes,
    },
    /// Whether the records in `start..end` are as they were when `count` of them were read at
    /// revision `since`: still so many, none written since. Over 1,000 the whole scope must be unchanged.
    Unchanged {
        /// First key.
        start: Key,
        /// First key behind the range, of the same scope (or the scope's end).
        end: Bytes,
        /// How many records the reader saw.
        count: u64,
        /// The revision that it read.
        since: u64,
    },
    /// A number of a whole scope; all are 0 for one that does not exist.
    Scope {
        /// The scope.
        scope: ScopeId,
        /// Which number.
        field: ScopeField,
        /// How it must relate.
        relation: Relation,
        /// To what.
        to: u64,
    },
}

impl Compare {
    /// That a record is as it was last written at this revision; 0: that there is none.
    pub fn written_at(key: Key, revision: u64) -> Self {
        Self::Number { key, field: NumberField::ModRevision, relation: Relation::Equal, to: revision }
    }

    /// The scope that is asked about.
    pub fn scope(&self) -> ScopeId {
        match self {
            Self::Exists { key, .. } | Self::Number { key, .. } | Self::Value { key, .. } => key.scope(),
            Self::Unchanged { start, .. } => start.scope(),
            Self::Scope { scope, .. } => *scope,
        }
    }

    /// That nothing of a scope was changed since a revision.
    pub fn unchanged_since(scope: ScopeId, revision: u64) -> Self {
        Self::Scope { scope, field: ScopeField::LastRevision, relation: Relation::LessOrEqual, to: revision }
    }
}

/// A number of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NumberField {
    /// Writes since creation.
    Version,
    /// Revision of creation.
    CreateRevision,
    /// Revision of the last write.
    ModRevision,
}

/// A number of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScopeField {
    /// Keys.
    Count,
    /// Bytes: key + value + 64 each.
    Bytes,
    /// Revision of the last change.
    LastRevision,
    /// Revision that created it; 0 for the ones that always exist.
    Incarnation,
}

/// How a left side must relate to a right side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// left = right
    Equal,
    /// left != right
    NotEqual,
    /// left < right
    Less,
    /// left <= right
    LessOrEqual,
    /// left > right
    Greater,
    /// left >= right
    GreaterOrEqual,
}

impl Relation {
    /// Whether `left` relates so to `right`.
    pub fn holds<T: Ord + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

/// One step of a branch. Steps take effect in order; a key is written at most once. Frozen: grows at
/// the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Creates or overwrites a record.
    Put {
        /// Its key.
        key: Key,
        /// What it becomes.
        put: Put,
    },
    /// Creates a record under `prefix | revision u64 BE | ordinal u32 BE`, the ordinal being the
    /// operation's place among the stamped ones of the transaction.
    PutStamped {
        /// The front of the key.
        prefix: Key,
        /// What it becomes.
        put: Put,
    },
    /// Adds to an i64 (8 bytes, big-endian; a missing record is 0), keeping entries, references and expiry.
    Add {
        /// Its key.
        key: Key,
        /// What to add.
        delta: i64,
        /// The least result that is allowed.
        min: i64,
        /// The greatest result that is allowed.
        max: i64,
    },
    /// Deletes a record and what cascades from it. Deleting nothing is not an error.
    Delete {
        /// Its key.
        key: Key,
    },
    /// Deletes all records in `start..end`, of one scope, and what cascades from them.
    DeleteRange {
        /// First key.
        start: Key,
        /// First key behind the range.
        end: Bytes,
    },
    /// Replaces only the entries of a record: no event, no new `mod_revision`. A missing record is skipped.
    Reindex {
        /// Its key.
        key: Key,
        /// Its entries from now on.
        entries: Vec<Entry>,
    },
    /// Creates a scope, or changes the settings of one.
    SetScope {
        /// The scope. A new one's number is greater than that of every scope before it.
        scope: ScopeId,
        /// Its settings.
        settings: ScopeSettings,
    },
    /// Drops a scope and everything in it, at once.
    DropScope {
        /// The scope.
        scope: ScopeId,
    },
    /// Answers a record, as this operation finds it.
    Get {
        /// Its key.
        key: Key,
    },
    /// Answers the records in `start..end`, as this operation finds them.
    Range {
        /// First key.
        start: Key,
        /// First key behind the range.
        end: Bytes,
        /// Most records to answer.
        limit: u32,
    },
    /// Answers the keys that reference a record, as this operation finds them.
    Referrers {
        /// The referenced key.
        key: Key,
        /// Most keys to answer.
        limit: u32,
    },
}

impl Operation {
    fn grows(&self) -> bool {
        match self {
            Self::Put { .. }
            | Self::PutStamped { .. }
            | Self::Add { .. }
            | Self::Reindex { .. }
            | Self::SetScope { .. } => true,
            Self::Delete { .. }
            | Self::DeleteRange { .. }
            | Self::DropScope { .. }
            | Self::Get { .. }
            | Self::Range { .. }
            | Self::Referrers { .. } => false,
        }
    }
}

/// What a record becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The value.
    #[serde(deserialize_with = "shared::deserialize")]
    pub value: Bytes,
    /// Its index entries from now on.
    pub entries: Vec<Entry>,
    /// Its references from now on.
    pub references: Vec<Reference>,
    /// How long it lives, in milliseconds of log time; `None`: for good.
    pub ttl_ms: Option<u64>,
}

impl Put {
    /// A record with this value and nothing beside it.
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), ..Self::default() }
    }
}

/// The settings of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeSettings {
    /// How many older versions of each record are kept.
    pub history: u32,
    /// Most keys, 0 for no bound.
    pub max_keys: u64,
    /// Most bytes (key + value + 64 each), 0 for no bound.
    pub max_bytes: u64,
}
