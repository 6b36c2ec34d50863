//! The storage contract as a Rust trait: one interface, and behind it whatever a program is given.
//!
//! A program holds an `Arc<dyn `[`Storage`]`>` and does not know what that is: values in memory, one SQLite file, a node inside
//! the process, or a cluster. [`Remote`] is the cluster, by way of the client; the others need the feature `server` and stand in
//! `backends` and `sqlite`. All of them mean the same by each call, because all of them run the same code: what a cluster's
//! leader makes of a call, a local store makes of it, too.
//!
//! On top of the trait, so for every backend alike: [`Typed`], values of a Rust type with read-modify-write; and [`transfer`],
//! a namespace into a file of JSON lines, out of one, or from one backend to another.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use meshstore::{
//!     Client,
//!     contract::{Remote, SetOptions, Storage, Value},
//! };
//!
//! # async fn example() -> meshstore::Result<()> {
//! let client = Client::connect_to("meshstore://127.0.0.1:7401").await?;
//! let storage: Arc<dyn Storage> = Arc::new(Remote::new(client));
//!
//! let ada = Value::json(&serde_json::json!({ "name": "Ada", "born": 1815 }))?;
//! storage.set("user:1", ada, SetOptions { overwrite: false, ..SetOptions::from("users") }).await?;
//! let entry = storage.get("user:1", "users".into()).await?;
//! println!("version {}: {:?}", entry.metadata.version, entry.value);
//! # Ok(())
//! # }
//! ```

mod options;
mod remote;
pub mod transfer;
mod typed;
mod walk;

/// What an implementation of [`Storage`] is marked with, outside of this crate as inside.
pub use tonic::async_trait;

pub use self::{
    options::{
        BeginTransactionOptions, ClearOptions, CountOptions, CreateNamespaceOptions, DeleteManyOptions,
        DeleteNamespaceOptions, DeleteOptions, GetManyOptions, GetMetadataOptions, GetOptions, HasOptions,
        HistoryOptions, ListOptions, Properties, QueryOptions, RestoreOptions, SetEntry, SetManyOptions,
        SetMetadataOptions, SetOptions,
    },
    remote::Remote,
    typed::{Modify, Typed, TypedEntry},
};
pub use crate::model::{
    filter::{Filter, Operator},
    isolation::{Begun, Isolation},
    kv::{
        DeleteResult, Deletion, Entry, Metadata, Namespace, NamespaceChange, NamespaceSettings, Saved, SetResult,
        StorageStatus, Value, Version,
    },
    mesh::{Condition, Page, PageRequest},
    query::SortField,
};
use crate::{Error, Result};

/// Values by key, in namespaces.
///
/// * **A namespace** is created by the first write that names it, or by [`create_namespace`](Self::create_namespace);
///   `default` always exists, and is meant where none is named. Names are not empty and hold none of `/ : *`, but for the
///   form `principal://{id}`.
/// * **A value** is a JSON text, kept byte for byte, or bytes; of at most 1 MiB, under a key of at most 1,024 bytes. Keys are
///   ordered by their bytes.
/// * **Every write** takes effect wholly or not at all, at one revision, before it is answered; it is durable then if the
///   backend is. A call that is refused has changed nothing.
/// * **Every read** shows one revision, and all that was answered before it began (a [`Remote`] as its client's read mode says).
/// * **Overwriting** replaces the value and merges the metadata that the caller gives with what is there. Deleting what is not
///   there is no error; reading it is.
/// * **Errors** are [`Error`], the same for the same mistake on every backend: `InvalidArgument` for what breaks
///   a rule, `NotFound`, `AlreadyExists`, `ConditionFailed`, `Refused`. Beside these each call may answer `Unavailable` (the
///   backend has stopped, or cannot be reached), and a remote one those of a call over a network.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// What this backend supports. What it does not it answers with an error that says so, and changes nothing.
    fn properties(&self) -> Properties;

    /// Reads a value; with `include_metadata` also the caller's attributes, and with `as_of_revision` as it was then.
    ///
    /// Errors: `NotFound` if there is none, or no such namespace; `InvalidArgument` if the namespace does not keep what it was.
    async fn get(&self, key: &str, options: GetOptions) -> Result<Entry>;

    /// Creates or overwrites a value.
    ///
    /// Errors: `InvalidArgument` if the key, the value or the metadata breaks a rule; `AlreadyExists` without `overwrite`;
    /// `ConditionFailed`; `Refused` if the namespace is full.
    async fn set(&self, key: &str, value: Value, options: SetOptions) -> Result<Saved>;

    /// Deletes a value, with its metadata: whether there was one.
    ///
    /// Errors: `NotFound` if there is no such namespace; `ConditionFailed`.
    async fn delete(&self, key: &str, options: DeleteOptions) -> Result<bool>;

    /// Whether there is a value.
    ///
    /// Errors: `NotFound` if there is no such namespace.
    async fn has(&self, key: &str, options: HasOptions) -> Result<bool>;

    /// Reads up to 1,000 values at one revision: those that are there, and the keys of those that are not.
    ///
    /// Errors: `NotFound` if there is no such namespace; `InvalidArgument` if they are too many, or too large together (3 MiB);
    /// `ViewTooOld` if the revision that is asked for is no longer readable.
    async fn get_many(&self, keys: Vec<String>, options: GetManyOptions) -> Result<(Vec<Entry>, Vec<String>)>;

    /// Writes up to 1,024 values at one revision, all or none; with `per_key` those that can be, and each of the others says
    /// why not. Of several with one key the last counts.
    ///
    /// Errors: as of [`set`](Self::set).
    async fn set_many(&self, entries: Vec<SetEntry>, options: SetManyOptions) -> Result<Vec<SetResult>>;

    /// Deletes up to 1,024 values at one revision, all or none, or each that may be; a key alone is a [`Deletion`], too.
    ///
    /// Errors: `NotFound` if there is no such namespace; without `per_key` `ConditionFailed` if a condition does not hold.
    async fn delete_many(&self, deletions: Vec<Deletion>, options: DeleteManyOptions) -> Result<Vec<DeleteResult>>;

    /// A page of the keys that match a pattern, in their order. The pages of one list all show one revision, which is kept
    /// readable for some seconds behind each.
    ///
    /// Errors: `NotFound` if there is no such namespace; `InvalidArgument` for a pattern, limit or cursor that is none;
    /// `ViewTooOld` if the list was left for too long.
    async fn list(&self, options: ListOptions) -> Result<Page<String>>;

    /// A page of the values that a filter lets through. The pages of one query all show one revision, which is kept readable
    /// for some seconds behind each.
    ///
    /// Errors: `NotFound` if there is no such namespace; `InvalidArgument` for a filter, field, limit or cursor that is none;
    /// `Refused` if more would have to be sorted than there is room for; `ViewTooOld` if it was left for too long.
    async fn query(&self, filter: Filter, options: QueryOptions) -> Result<Page<Entry>>;

    /// How many values there are, or how many of them a filter lets through.
    ///
    /// Errors: `NotFound` if there is no such namespace; `InvalidArgument` for a filter that is none.
    async fn count(&self, options: CountOptions) -> Result<u64>;

    /// Creates a namespace. The revision with it in.
    ///
    /// Errors: `AlreadyExists`; `InvalidArgument` if the name, the metadata or a setting breaks a rule.
    async fn create_namespace(&self, name: &str, options: CreateNamespaceOptions) -> Result<u64>;

    /// Changes a namespace. The revision with the change in. A lower bound refuses what is written from then on.
    ///
    /// Errors: `NotFound`; `InvalidArgument`.
    async fn modify_namespace(&self, name: &str, change: NamespaceChange) -> Result<u64>;

    /// Deletes a namespace, with all that it holds if `recursive`. The revision without it.
    ///
    /// Errors: `NotFound`; `Refused` if it holds values that are not to go; `InvalidArgument` for `default`.
    async fn delete_namespace(&self, name: &str, options: DeleteNamespaceOptions) -> Result<u64>;

    /// A namespace, with how much it holds.
    ///
    /// Errors: `NotFound`.
    async fn show_namespace(&self, name: &str) -> Result<Namespace>;

    /// A page of the namespaces, in order of their names.
    ///
    /// Errors: `InvalidArgument` for a limit or cursor that is none; `ViewTooOld`.
    async fn list_namespaces(&self, page: PageRequest) -> Result<Page<Namespace>>;

    /// What is known of a value, with the caller's attributes.
    ///
    /// Errors: `NotFound` if there is none.
    async fn get_metadata(&self, key: &str, options: GetMetadataOptions) -> Result<Metadata>;

    /// Merges a JSON object with the attributes of a value; without `merge` it replaces them. The revision with them in.
    ///
    /// Errors: `NotFound` if there is no value; `InvalidArgument` if it is no JSON object, or over 64 KiB; `ConditionFailed`.
    async fn set_metadata(&self, key: &str, metadata: &str, options: SetMetadataOptions) -> Result<u64>;

    /// The versions of a value that its namespace keeps, the newest first.
    ///
    /// Errors: `NotFound` if there is none.
    async fn history(&self, key: &str, options: HistoryOptions) -> Result<Vec<Version>>;

    /// Makes a value and its attributes what they were at a revision.
    ///
    /// Errors: `NotFound` if there was none then; `InvalidArgument` if the namespace does not keep it.
    async fn restore(&self, key: &str, as_of_revision: u64, options: RestoreOptions) -> Result<Saved>;

    /// Deletes all values of a namespace, or of every one, with their older versions, at once. The namespaces stay; one that
    /// does not exist is as good as cleared. The revision without them.
    ///
    /// Errors: `Refused` if they are too many namespaces for one transaction.
    async fn clear(&self, options: ClearOptions) -> Result<u64>;

    /// How much is stored, and whether the backend is in order.
    async fn get_status(&self) -> Result<StorageStatus>;

    /// Begins a transaction. What is written with its id in the options is seen by it alone until it is committed. Which calls
    /// can be part of one their options say.
    ///
    /// Errors: `Refused` by a backend that has none; `InvalidArgument` for a time that is too long; `ResourceExhausted` if too
    /// many are open.
    async fn begin_transaction(&self, _options: BeginTransactionOptions) -> Result<Begun> {
        Err(no_transactions())
    }

    /// Makes what was written in a transaction, wholly or not at all. The revision with it in.
    ///
    /// Errors: `TransactionAborted` if others have changed what it stands on, its time was over, or it was lost with its leader:
    /// nothing of it was written; `InvalidArgument` if there is none of this id, or it is finished; `Refused`.
    async fn commit(&self, _transaction: &str) -> Result<u64> {
        Err(no_transactions())
    }

    /// Ends a transaction, of which nothing is left. One that was rolled back already is no error.
    ///
    /// Errors: `InvalidArgument` if there is none of this id, or it has been committed; `TransactionAborted`; `Refused`.
    async fn rollback(&self, _transaction: &str) -> Result<()> {
        Err(no_transactions())
    }
}

/// What a backend answers that has no transactions.
fn no_transactions() -> Error {
    Error::Refused("this backend does not support transactions, as its properties say".into())
}
