//! What an applied transaction changed: the stream on which watches, caches and metrics live.

use crate::model::{Key, Record, ScopeId};

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The revision.
    pub revision: u64,
    /// What changed, in key order; dropped scopes last.
    pub changes: Vec<Change>,
}

/// One change that a reader can see.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "almost every change is one of a record")]
pub enum Change {
    /// A record was created (`old` is `None`), overwritten, or deleted (`new` is `None`).
    Record {
        /// Its key.
        key: Key,
        /// The record before.
        old: Option<Record>,
        /// The record from now on.
        new: Option<Record>,
    },
    /// A scope was dropped with all it held.
    ScopeDropped {
        /// The scope.
        scope: ScopeId,
    },
}
