//! What the calls of the contract may be told beside what they are about.
//!
//! Each call has a struct of its own, whose `Default` is what the call does if nothing is said; the name of a namespace alone
//! is one, too: `storage.get("user:1", "users".into())`. An empty name stands for `default`.

use std::time::Duration;

use super::{Condition, Filter, Isolation, NamespaceSettings, SortField, Value};
use crate::model::{
    kv::{KeyFilter, Set},
    query::Query,
};

/// What a backend supports beside values and namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Whether calls can be made in transactions.
    pub supports_transactions: bool,
    /// Whether values can be found by what is in them.
    pub supports_query: bool,
    /// Whether values have metadata: times, versions, who wrote them, the caller's attributes.
    pub supports_metadata: bool,
    /// Whether what was acknowledged is still there when the process has ended, in whatever way.
    pub is_durable: bool,
}

/// Options that are a namespace and what is left out.
macro_rules! in_a_namespace {
    ($($options:ident),+ $(,)?) => {$(
        impl From<&str> for $options {
            #[allow(clippy::needless_update, reason = "some are nothing but a namespace")]
            fn from(namespace: &str) -> Self {
                Self { namespace: namespace.into(), ..Self::default() }
            }
        }
    )+};
}

in_a_namespace!(
    GetOptions,
    SetOptions,
    DeleteOptions,
    HasOptions,
    GetManyOptions,
    SetManyOptions,
    DeleteManyOptions,
    ListOptions,
    QueryOptions,
    CountOptions,
    GetMetadataOptions,
    SetMetadataOptions,
    HistoryOptions,
    RestoreOptions,
);

/// See [`get`](super::Storage::get).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Where the value is.
    pub namespace: String,
    /// Whether the caller's attributes are wanted, too; times and versions always are.
    pub include_metadata: bool,
    /// The version that was current at this revision, if the namespace keeps it.
    pub as_of_revision: Option<u64>,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`set`](super::Storage::set).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// Where the value is to be.
    pub namespace: String,
    /// A JSON object of attributes, merged with those that are there; `None`: these stay as they are.
    pub metadata: Option<String>,
    /// Whether a value that is there is overwritten; it is, unless this says no.
    pub overwrite: bool,
    /// What must be true of the value that is there: compare-and-set.
    pub condition: Option<Condition>,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

impl Default for SetOptions {
    fn default() -> Self {
        Self { namespace: String::new(), metadata: None, overwrite: true, condition: None, transaction: None }
    }
}

impl SetOptions {
    /// What is to be written, and where.
    pub(crate) fn set(self, key: &str, value: Value) -> (String, Set) {
        let Self { namespace, metadata, overwrite, condition, .. } = self;
        (namespace, Set { key: key.into(), value, attributes: metadata, overwrite, condition, lease: None })
    }
}

/// See [`delete`](super::Storage::delete).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Where the value is.
    pub namespace: String,
    /// What must be true of it.
    pub condition: Option<Condition>,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`has`](super::Storage::has).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HasOptions {
    /// Where the value may be.
    pub namespace: String,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`get_many`](super::Storage::get_many).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetManyOptions {
    /// Where the values are.
    pub namespace: String,
    /// Whether the caller's attributes are wanted, too.
    pub include_metadata: bool,
    /// The store as it was at this revision, which a page of a list has shown some seconds ago. It is kept readable for as
    /// long again.
    pub revision: Option<u64>,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// One of several values to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetEntry {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Its own attributes, instead of those of all.
    pub metadata: Option<String>,
    /// Whether this one overwrites what is there, whatever is said of all.
    pub overwrite: Option<bool>,
    /// What must be true of the value that is there.
    pub condition: Option<Condition>,
}

impl SetEntry {
    /// A value of which nothing else is said.
    pub fn new(key: impl Into<String>, value: Value) -> Self {
        Self { key: key.into(), value, metadata: None, overwrite: None, condition: None }
    }
}

/// See [`set_many`](super::Storage::set_many).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetManyOptions {
    /// Where the values are to be.
    pub namespace: String,
    /// Attributes of all that have none of their own.
    pub metadata: Option<String>,
    /// Whether values that are there are overwritten; they are, unless this says no.
    pub overwrite: bool,
    /// Whether those that can be written are, though others cannot.
    pub per_key: bool,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

impl Default for SetManyOptions {
    fn default() -> Self {
        Self { namespace: String::new(), metadata: None, overwrite: true, per_key: false, transaction: None }
    }
}

impl SetManyOptions {
    /// What is to be written of each entry: what it says itself, else what is said of all.
    pub(crate) fn sets(&self, entries: Vec<SetEntry>) -> Vec<Set> {
        let set = |entry: SetEntry| Set {
            key: entry.key,
            value: entry.value,
            attributes: entry.metadata.or_else(|| self.metadata.clone()),
            overwrite: entry.overwrite.unwrap_or(self.overwrite),
            condition: entry.condition,
            lease: None,
        };
        entries.into_iter().map(set).collect()
    }
}

/// See [`delete_many`](super::Storage::delete_many).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteManyOptions {
    /// Where the values are.
    pub namespace: String,
    /// Whether those that may be deleted are, though others may not.
    pub per_key: bool,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`list`](super::Storage::list).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Whose keys.
    pub namespace: String,
    /// A pattern in which `*` stands for any run of characters, `\*` for a star; empty: all keys.
    pub pattern: String,
    /// Most keys on the page, up to 1,000; 0: none; `None`: 100.
    pub limit: Option<u32>,
    /// How many keys are left out at the beginning.
    pub offset: u64,
    /// Where the page before ended; empty for the first.
    pub cursor: String,
    /// Whether the revision is kept readable for some seconds also behind the last page, for
    /// [`get_many`](super::Storage::get_many).
    pub keep_revision: bool,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

impl ListOptions {
    /// Where keys are wanted, which, and whether their revision is to be kept.
    pub(crate) fn filter(self) -> (String, KeyFilter, bool) {
        let Self { namespace, pattern, limit, offset, cursor, keep_revision, .. } = self;
        (namespace, KeyFilter { pattern, limit, offset, cursor }, keep_revision)
    }
}

/// See [`query`](super::Storage::query).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// Whose values.
    pub namespace: String,
    /// In which order; what is equal in all of these is in the order of the keys.
    pub sort: Vec<SortField>,
    /// Most values on the page, up to 1,000; 0: none; `None`: 100.
    pub limit: Option<u32>,
    /// How many are left out at the beginning.
    pub offset: u64,
    /// Where the page before ended; empty for the first.
    pub cursor: String,
    /// Whether the caller's attributes are wanted, too.
    pub include_metadata: bool,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

impl QueryOptions {
    /// What is wanted, and where.
    pub(crate) fn query(self, filter: Filter) -> (String, Query) {
        let Self { namespace, sort, limit, offset, cursor, include_metadata: attributes, .. } = self;
        (namespace, Query { filter, sort, limit, offset, cursor, attributes })
    }
}

/// See [`count`](super::Storage::count).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountOptions {
    /// Of which namespace.
    pub namespace: String,
    /// Of which values; `None`: of all.
    pub filter: Option<Filter>,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`create_namespace`](super::Storage::create_namespace).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateNamespaceOptions {
    /// A JSON object; `None`: an empty one.
    pub metadata: Option<String>,
    /// How many older versions it keeps, and how much it holds.
    pub settings: NamespaceSettings,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`delete_namespace`](super::Storage::delete_namespace).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteNamespaceOptions {
    /// Whether all that it holds goes with it.
    pub recursive: bool,
}

/// See [`get_metadata`](super::Storage::get_metadata).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetMetadataOptions {
    /// Where the value is.
    pub namespace: String,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`set_metadata`](super::Storage::set_metadata).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetMetadataOptions {
    /// Where the value is.
    pub namespace: String,
    /// Whether members that are not named stay; they do, unless this says no.
    pub merge: bool,
    /// Only if the attributes were last written at this revision; 0: if there are none.
    pub if_attributes_revision: Option<u64>,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

impl Default for SetMetadataOptions {
    fn default() -> Self {
        Self { namespace: String::new(), merge: true, if_attributes_revision: None, transaction: None }
    }
}

/// See [`history`](super::Storage::history).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Where the value is.
    pub namespace: String,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`restore`](super::Storage::restore).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Where the value is.
    pub namespace: String,
    /// What must be true of the value that is there.
    pub condition: Option<Condition>,
    /// The transaction that the call is part of; `None`: none.
    pub transaction: Option<String>,
}

/// See [`begin_transaction`](super::Storage::begin_transaction).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BeginTransactionOptions {
    /// What it sees of others; serializable, if nothing is said.
    pub isolation: Isolation,
    /// How long it stays open, at most 5 minutes; `None`: 30 seconds.
    pub timeout: Option<Duration>,
}

/// See [`clear`](super::Storage::clear).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClearOptions {
    /// The namespace; `None`: every one.
    pub namespace: Option<String>,
}

impl From<&str> for ClearOptions {
    fn from(namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()) }
    }
}
