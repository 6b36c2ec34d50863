//! What became of a proposal.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Key, Record, ScopeId};

/// The answer of apply to one proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It took effect (perhaps by its `otherwise` branch).
    Applied {
        /// The revision of the store with it in.
        revision: u64,
        /// Whether the compares held.
        succeeded: bool,
        /// One result for each operation of the branch that was taken.
        results: Vec<OperationResult>,
    },
    /// It took effect earlier, under the same session and sequence; its results were too large to keep.
    AppliedEarlier {
        /// The revision of the store with it in.
        revision: u64,
        /// Whether the compares held.
        succeeded: bool,
    },
    /// A guard did not hold: nothing changed and nothing was recorded. The layer decides anew.
    Raced,
    /// The state forbids it: nothing changed.
    Refused {
        /// The revision at which it was refused.
        revision: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The session is unknown or expired, or the sequence is below what it still keeps. Not executed.
    SessionExpired,
}

/// The result of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// `Put`, `PutStamped`: where the record stands, and its version now.
    Put {
        /// The key (new for `PutStamped`).
        key: Key,
        /// The record's version.
        version: u64,
    },
    /// `Add`: the sum.
    Sum(i64),
    /// `Delete`, `DeleteRange`: how many records went, cascades included.
    Deleted(u64),
    /// `Reindex`, `SetScope`, `DropScope`: whether there was something to change.
    Changed(bool),
    /// `Get`.
    Record(Option<Record>),
    /// `Range`.
    Records(Vec<(Key, Record)>),
    /// `Referrers`.
    Keys(Vec<Key>),
}

impl OperationResult {
    /// The same, which keeps nothing in memory but itself and the records that it holds.
    #[must_use]
    pub fn detached(&self) -> Self {
        match self {
            Self::Put { key, version } => Self::Put { key: key.detached(), version: *version },
            Self::Keys(keys) => Self::Keys(keys.iter().map(Key::detached).collect()),
            Self::Record(record) => Self::Record(record.as_ref().map(Record::detached)),
            Self::Records(records) => {
                Self::Records(records.iter().map(|(key, record)| (key.detached(), record.detached())).collect())
            }
            other => other.clone(),
        }
    }
}

/// Why a transaction cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Two operations write one key.
    #[error("the key {0} is written twice in one transaction")]
    KeyWrittenTwice(Key),
    /// Another record owns a unique entry.
    #[error("the unique entry {} of index {scope} is taken by {owner}", entry.escape_ascii())]
    UniqueTaken {
        /// The index.
        scope: u32,
        /// The entry key.
        entry: Bytes,
        /// Who owns it.
        owner: Key,
    },
    /// A referenced record does not exist.
    #[error("{referrer} references {missing}, which does not exist")]
    MissingReference {
        /// Who references.
        referrer: Key,
        /// What is missing.
        missing: Key,
    },
    /// A record cannot be deleted while another references it.
    #[error("{key} is still referenced by {referrer}")]
    Restricted {
        /// What was to be deleted.
        key: Key,
        /// Who references it.
        referrer: Key,
    },
    /// A delete would take more records with it than one transaction may.
    #[error("deleting {0} would delete too many records at once")]
    TooManyReferrers(Key),
    /// `Add` met a value that is not 8 bytes.
    #[error("the value of {0} is not a number")]
    NotANumber(Key),
    /// `Add` would leave its bounds.
    #[error("the sum for {key} would leave its bounds (it is {current})")]
    OutOfBounds {
        /// The key.
        key: Key,
        /// Its number now.
        current: i64,
    },
    /// The scope does not exist (any more).
    #[error("scope {0} does not exist")]
    NoSuchScope(ScopeId),
    /// A new scope's number is not greater than all before it, or is reserved.
    #[error("scope {0} cannot be created: its number is not new")]
    ScopeNotNew(ScopeId),
    /// A scope that always exists cannot be dropped.
    #[error("scope {0} cannot be dropped")]
    ScopePermanent(ScopeId),
    /// Records of other scopes reference records of the one to drop.
    #[error("scope {0} is still referenced from {1}")]
    ScopeReferenced(ScopeId, ScopeId),
    /// The scope has reached its maximum.
    #[error("scope {0} is full")]
    ScopeFull(ScopeId),
    /// The key is not one that transactions may write.
    #[error("the key {0} cannot be written by a transaction")]
    NotWritable(Key),
    /// A range's two ends are not of one scope, or a key is malformed.
    #[error("the range from {0} is malformed")]
    MalformedRange(Key),
    /// Too many sessions are open.
    #[error("too many sessions are open")]
    TooManySessions,
    /// What the layer answered to the first attempt that reached the log.
    #[error("{0}")]
    Layer(String),
    /// `Get`, `Range` and `Referrers` would answer more than one transaction may.
    #[error("the transaction would answer too much at once; read less in it")]
    AnswerTooLarge,
    /// The records that the transaction replaces and deletes are too large to go at once.
    #[error("the transaction would replace or delete too many bytes at once; split it")]
    TooManyBytes,
}
