//! Values of a Rust type: written as JSON, read back, changed by a function.

use std::{any::type_name, fmt, marker::PhantomData, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Condition, DeleteOptions, Entry, Filter, GetOptions, Metadata, QueryOptions, Saved, SetOptions, SortField, Storage,
    Value, walk::Walk,
};
use crate::{
    Error, Result,
    client::{backoff::Jitter, finite},
};

/// How often a read-modify-write is begun before it gives up: others were faster each time.
const ATTEMPTS: u32 = 32;
/// How often a list is begun because the revision that it shows was given up meanwhile.
const STARTS: u32 = 3;

impl dyn Storage {
    /// The values of a namespace as values of a type.
    pub fn typed<T: Serialize + DeserializeOwned>(self: &Arc<Self>, namespace: impl Into<String>) -> Typed<T> {
        Typed { storage: Arc::clone(self), namespace: namespace.into(), of: PhantomData }
    }
}

/// The values of a namespace, each of which is the JSON of a `T`: what `typed` makes of an `Arc<dyn `[`Storage`]`>`.
///
/// ```
/// # use std::sync::Arc;
/// # use meshstore::contract::{Modify, Storage, Typed};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Account {
///     owner: String,
///     cents: i64,
/// }
///
/// async fn pay_in(storage: Arc<dyn Storage>, owner: &str, cents: i64) -> meshstore::Result<()> {
///     let accounts: Typed<Account> = storage.typed("accounts");
///     accounts
///         .read_modify_write(owner, |account| {
///             let before = account.map_or(0, |account| account.cents);
///             Ok::<_, meshstore::Error>(Modify::Write(Account { owner: owner.into(), cents: before + cents }))
///         })
///         .await?;
///     Ok(())
/// }
/// ```
pub struct Typed<T> {
    storage: Arc<dyn Storage>,
    namespace: String,
    of: PhantomData<fn(T) -> T>,
}

/// A value of a type, with its key and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedEntry<T> {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: T,
    /// What is known of it, but for the caller's attributes.
    pub metadata: Metadata,
}

/// What a read-modify-write makes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modify<T> {
    /// This takes its place.
    Write(T),
    /// It goes.
    Delete,
    /// It stays as it is.
    Leave,
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self { storage: Arc::clone(&self.storage), namespace: self.namespace.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("namespace", &self.namespace).field("of", &type_name::<T>()).finish()
    }
}

impl<T: Serialize + DeserializeOwned> Typed<T> {
    /// Where the values are.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Reads a value.
    ///
    /// Errors: `NotFound` if there is none, or no such namespace; `Unexpected` if it is no `T`, with the place in it.
    pub async fn get(&self, key: &str) -> Result<TypedEntry<T>> {
        let entry = self.storage.get(key, GetOptions::from(self.namespace.as_str())).await?;
        self.parse(entry)
    }

    /// Reads a value, if there is one.
    ///
    /// Errors: `Unexpected` if it is no `T`, with the place in it.
    pub async fn find(&self, key: &str) -> Result<Option<TypedEntry<T>>> {
        match self.get(key).await {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates or overwrites a value.
    ///
    /// Errors: `InvalidArgument` if it cannot be written as JSON, with the place in it; others as of
    /// [`set`](Storage::set).
    pub async fn set(&self, key: &str, value: &T) -> Result<Saved> {
        self.write(key, value, SetOptions::from(self.namespace.as_str())).await
    }

    /// Creates a value.
    ///
    /// Errors: `AlreadyExists` if there is one; others as of [`set`](Self::set).
    pub async fn create(&self, key: &str, value: &T) -> Result<Saved> {
        self.write(key, value, SetOptions { overwrite: false, ..SetOptions::from(self.namespace.as_str()) }).await
    }

    /// Writes a value if something is true of the one that is there: compare-and-set.
    ///
    /// Errors: `ConditionFailed`; others as of [`set`](Self::set).
    pub async fn compare_and_set(&self, key: &str, value: &T, condition: Condition) -> Result<Saved> {
        let options = SetOptions { condition: Some(condition), ..SetOptions::from(self.namespace.as_str()) };
        self.write(key, value, options).await
    }

    /// Deletes a value: whether there was one.
    ///
    /// Errors: `NotFound` if there is no such namespace.
    pub async fn delete(&self, key: &str) -> Result<bool> {
        self.storage.delete(key, self.namespace.as_str().into()).await
    }

    /// All values whose keys match a pattern, in the order of their keys, as of one revision. They must fit into memory.
    ///
    /// Errors: `NotFound` if there is no such namespace; `Unexpected` if one is no `T`, with the place in it.
    pub async fn list(&self, pattern: &str) -> Result<Vec<TypedEntry<T>>> {
        let mut starts = 1;
        loop {
            match self.list_once(pattern).await {
                Err(Error::ViewTooOld { .. }) if starts < STARTS => starts += 1,
                answer => return answer,
            }
        }
    }

    async fn list_once(&self, pattern: &str) -> Result<Vec<TypedEntry<T>>> {
        let mut walk = Walk::begin(self.storage.as_ref(), &self.namespace, (pattern, false)).await?;
        let mut all = Vec::new();
        while let Some(entries) = walk.next().await? {
            for entry in entries {
                all.push(self.parse(entry)?);
            }
        }
        Ok(all)
    }

    /// All values that a filter lets through, sorted by these fields, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`query`](Storage::query); `Unexpected` if one is no `T`, with the place in it.
    pub async fn query(&self, filter: Filter, sort: Vec<SortField>) -> Result<Vec<TypedEntry<T>>> {
        let (mut all, mut cursor, mut starts) = (Vec::new(), String::new(), 1);
        loop {
            let sort = sort.clone();
            let options = QueryOptions { sort, cursor, ..QueryOptions::from(self.namespace.as_str()) };
            match self.storage.query(filter.clone(), options).await {
                Ok(page) => {
                    for entry in page.items {
                        all.push(self.parse(entry)?);
                    }
                    cursor = page.next_cursor;
                    if cursor.is_empty() {
                        return Ok(all);
                    }
                }
                Err(Error::ViewTooOld { .. }) if starts < STARTS => {
                    starts += 1;
                    (all, cursor) = (Vec::new(), String::new());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a value, has `modify` say what becomes of it, and writes that if nobody else has written meanwhile; else it is
    /// read and modified anew, a bounded number of times, with growing pauses. `modify` may be called several times, and what
    /// it says the last time is done. Whether anything was changed.
    ///
    /// Errors: those of `modify`, which end it; `Conflict` if others were faster each time; others as of
    /// [`get`](Self::get) and [`set`](Self::set). After an error that
    /// [may have applied](Error::may_have_applied) the change may have been made once, and not more.
    pub async fn read_modify_write<E: From<Error>>(
        &self,
        key: &str,
        mut modify: impl FnMut(Option<T>) -> Result<Modify<T>, E>,
    ) -> Result<bool, E> {
        let pauses = Jitter::new(None);
        for lost in 1..=ATTEMPTS {
            let found = self.find(key).await?;
            // The revision, not the version: one that was deleted and created meanwhile has version 1 again.
            let seen =
                found.as_ref().map_or(Condition::Missing, |found| Condition::ModRevision(found.metadata.mod_revision));
            let done = match modify(found.map(|found| found.value))? {
                Modify::Write(value) => self.compare_and_set(key, &value, seen).await.map(|_| true),
                Modify::Delete if seen == Condition::Missing => return Ok(false),
                Modify::Delete => self.storage.delete(key, self.only_if(seen)).await,
                Modify::Leave => return Ok(false),
            };
            match done {
                Err(Error::ConditionFailed(_)) => tokio::time::sleep(pauses.backoff(lost)).await,
                done => return Ok(done?),
            }
        }
        Err(Error::Conflict(self.named(key)).into())
    }

    fn only_if(&self, condition: Condition) -> DeleteOptions {
        DeleteOptions { condition: Some(condition), ..DeleteOptions::from(self.namespace.as_str()) }
    }

    async fn write(&self, key: &str, value: &T, options: SetOptions) -> Result<Saved> {
        finite::check(value).map_err(|wrong| {
            let rule = format!("must be writable as JSON, for {}: {wrong}", self.named(key));
            Error::invalid("value", "", rule)
        })?;
        let mut text = Vec::new();
        let written = serde_path_to_error::serialize(value, &mut serde_json::Serializer::new(&mut text));
        written.map_err(|error| {
            let rule =
                format!("must be writable as JSON, for {}: {}{}", self.named(key), place(error.path()), error.inner());
            Error::invalid("value", "", rule)
        })?;
        let text =
            String::from_utf8(text).map_err(|error| Error::Unexpected(format!("JSON that is no text: {error}")))?;
        self.storage.set(key, Value::Json(text), options).await
    }

    fn parse(&self, entry: Entry) -> Result<TypedEntry<T>> {
        let Entry { key, value, metadata } = entry;
        let wrong = |what: String| {
            Error::Unexpected(format!("the value {} is no {}: {what}", self.named(&key), type_name::<T>()))
        };
        let Value::Json(text) = value else { return Err(wrong("it is bytes, and not JSON".into())) };
        let parsed = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text));
        let value = parsed.map_err(|error| wrong(format!("{}{}", place(error.path()), error.inner())))?;
        Ok(TypedEntry { key, value, metadata })
    }

    fn named(&self, key: &str) -> String {
        let namespace = if self.namespace.is_empty() { crate::model::kv::DEFAULT_NAMESPACE } else { &self.namespace };
        format!("{key} in namespace {namespace}")
    }
}

/// The place of what is wrong, in front of what that is; nothing if it is the whole.
fn place(path: &serde_path_to_error::Path) -> String {
    match path.to_string() {
        whole if whole == "." => String::new(),
        path => format!("{path}: "),
    }
}
