//! Values by key in namespaces: the storage contract.

use serde::Serialize;

use super::{Client, Page, PageRequest, ReadMode, Written, json, pages};
use crate::{
    Error, Result,
    model::{
        kv::{
            DeleteResult, Deletion, Entry, KeyFilter, Metadata, Namespace, NamespaceChange, NamespaceSettings, Saved,
            Set, SetResult, StorageStatus, Value, Version,
        },
        mesh::Condition,
    },
    proto::{convert::expected, v1},
};

impl Value {
    /// The JSON of something that can be written as JSON. Errors: `InvalidArgument` if it cannot.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        json::text("value", value).map(Self::Json)
    }

    /// What the JSON of this value stands for. Errors: `Unexpected` if it is not JSON, or does not have the shape of a `T`.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        match self {
            Self::Json(text) => json::Json::of(text.as_str()).parse(),
            Self::Bytes(_) => Err(Error::Unexpected("the value is bytes, and not JSON".into())),
        }
    }
}

impl Set {
    /// A value that overwrites what is there, and leaves its attributes as they are.
    pub fn new(key: impl Into<String>, value: Value) -> Self {
        Self { key: key.into(), value, attributes: None, overwrite: true, condition: None, lease: None }
    }

    /// The same, which is not to overwrite anything.
    #[must_use]
    pub fn create(self) -> Self {
        Self { overwrite: false, ..self }
    }

    /// The same, with a JSON object of attributes that are merged with those that are there.
    #[must_use]
    pub fn attributes(self, attributes: impl Into<String>) -> Self {
        Self { attributes: Some(attributes.into()), ..self }
    }

    /// The same, which goes with a lease.
    #[must_use]
    pub fn attached_to(self, lease: u64) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// The same, if this is true of the value that is there.
    #[must_use]
    pub fn only_if(self, condition: Condition) -> Self {
        Self { condition: Some(condition), ..self }
    }
}

/// The values of a namespace; see [`Client::kv`].
#[derive(Clone, Debug)]
pub struct Kv {
    client: Client,
    namespace: String,
}

impl Kv {
    pub(super) fn of(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn name(&self) -> &str {
        &self.namespace
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode), ..self }
    }

    /// Reads a value, with the caller's attributes.
    ///
    /// Errors: `NotFound` if there is none, or no such namespace; `TooStale` if no node can keep what the read mode asks.
    pub async fn get(&self, key: &str) -> Result<Entry> {
        self.get_as(key, (true, None)).await
    }

    /// The version of a value that was current at a revision.
    ///
    /// Errors: as of [`get`](Self::get); `InvalidArgument` if the namespace does not keep it.
    pub async fn get_at(&self, key: &str, revision: u64) -> Result<Entry> {
        self.get_as(key, (true, Some(revision))).await
    }

    /// A value with the caller's attributes or without them, now or as of a revision.
    pub(crate) async fn get_as(
        &self,
        key: &str,
        (include_metadata, as_of_revision): (bool, Option<u64>),
    ) -> Result<Entry> {
        let (namespace, key) = (self.namespace.clone(), key.to_owned());
        let request = v1::StorageGetRequest { read: None, namespace, key, include_metadata, as_of_revision };
        expected("entry", self.client.read(request).await?.entry)?.try_into()
    }

    /// Creates or overwrites a value. The namespace is created if there is none.
    ///
    /// Errors: `InvalidArgument` if the key is empty or over 1,024 bytes, or the value is no JSON or over 1 MiB;
    /// `AlreadyExists` for one that was not to overwrite; `ConditionFailed` if the condition does not hold; `Refused` if the
    /// namespace is full.
    pub async fn set(&self, set: Set) -> Result<Saved> {
        let (namespace, set) = (self.namespace.clone(), Some(self.sent(set)));
        let request = v1::StorageSetRequest { attempt: None, namespace, set };
        Ok(saved(&self.client.execute(request).await?))
    }

    /// A value as it is sent: with this client's lease, if it has none of its own.
    fn sent(&self, mut set: Set) -> v1::SetValue {
        set.lease = set.lease.or(Some(self.client.lease).filter(|lease| *lease > 0));
        set.into()
    }

    /// The same for something that can be written as JSON.
    pub async fn set_json(&self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<Saved> {
        self.set(Set::new(key, Value::json(value)?)).await
    }

    /// Deletes a value: whether there was one.
    ///
    /// Errors: `NotFound` if there is no such namespace.
    pub async fn delete(&self, key: &str) -> Result<bool> {
        self.delete_as(key, None).await
    }

    /// The same, if something is true of the value.
    ///
    /// Errors: as of [`delete`](Self::delete); `ConditionFailed` if it is not.
    pub async fn delete_if(&self, key: &str, condition: Condition) -> Result<bool> {
        self.delete_as(key, Some(condition)).await
    }

    /// Deletes a value, if something is true of it where that is said.
    pub(crate) async fn delete_as(&self, key: &str, condition: Option<Condition>) -> Result<bool> {
        let (namespace, condition) = (self.namespace.clone(), condition.map(Into::into));
        let request = v1::StorageDeleteRequest { attempt: None, namespace, key: key.into(), condition };
        Ok(self.client.execute(request).await?.deleted)
    }

    /// Whether there is a value.
    ///
    /// Errors: `NotFound` if there is no such namespace.
    pub async fn has(&self, key: &str) -> Result<bool> {
        let request = v1::StorageHasRequest { read: None, namespace: self.namespace.clone(), key: key.into() };
        Ok(self.client.read(request).await?.exists)
    }

    /// Reads up to 1,000 values at one revision: those that are there, and the keys of those that are not.
    ///
    /// Errors: `InvalidArgument` if they are too many, or too large for one answer (3 MiB together).
    pub async fn get_many(&self, keys: Vec<String>) -> Result<(Vec<Entry>, Vec<String>)> {
        self.get_many_as(keys, (true, None)).await
    }

    /// Values with the caller's attributes or without them; of one revision if that is said, which is kept readable for the
    /// next call.
    pub(crate) async fn get_many_as(
        &self,
        keys: Vec<String>,
        (include_metadata, revision): (bool, Option<u64>),
    ) -> Result<(Vec<Entry>, Vec<String>)> {
        let namespace = self.namespace.clone();
        let request = v1::StorageGetManyRequest { read: None, namespace, keys, include_metadata };
        let answer = match revision {
            Some(revision) => self.client.read_at(revision, request).await?,
            None => self.client.read(request).await?,
        };
        let entries = answer.entries.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok((entries, answer.missing))
    }

    /// Writes up to 1,024 values at one revision, all or none. Of several with one key the last counts.
    ///
    /// Errors: as of [`set`](Self::set).
    pub async fn set_many(&self, sets: Vec<Set>) -> Result<Vec<SetResult>> {
        self.set_many_as(sets, false).await
    }

    /// The same; what can be written is, and what cannot says why in its result.
    pub async fn set_each(&self, sets: Vec<Set>) -> Result<Vec<SetResult>> {
        self.set_many_as(sets, true).await
    }

    /// Writes values, all or none, or each that can be.
    pub(crate) async fn set_many_as(&self, sets: Vec<Set>, per_key: bool) -> Result<Vec<SetResult>> {
        let (namespace, sets) = (self.namespace.clone(), sets.into_iter().map(|set| self.sent(set)).collect());
        let request = v1::StorageSetManyRequest { attempt: None, namespace, sets, per_key };
        Ok(self.client.execute(request).await?.results.into_iter().map(Into::into).collect())
    }

    /// Deletes up to 1,024 values at one revision: each key, and whether there was something.
    ///
    /// Errors: `NotFound` if there is no such namespace.
    pub async fn delete_many(&self, keys: Vec<String>) -> Result<Vec<(String, bool)>> {
        let results = self.delete_many_as(keys.into_iter().map(Into::into).collect(), false).await?;
        Ok(results.into_iter().map(|result| (result.key, result.deleted)).collect())
    }

    /// The same; what may be deleted is, and what may not says why in its result. Each may have a condition.
    pub async fn delete_each(&self, deletions: Vec<Deletion>) -> Result<Vec<DeleteResult>> {
        self.delete_many_as(deletions, true).await
    }

    /// Deletes values, all or none, or each that may be.
    ///
    /// Errors: `NotFound` if there is no such namespace; without `per_key` `ConditionFailed` if a condition does not hold.
    pub async fn delete_many_as(&self, deletions: Vec<Deletion>, per_key: bool) -> Result<Vec<DeleteResult>> {
        let any = deletions.iter().any(|deletion| deletion.condition.is_some());
        let demanded = |Deletion { key, condition }| (key, condition.map(v1::WriteCondition::from).unwrap_or_default());
        let (keys, mut conditions): (Vec<_>, Vec<v1::WriteCondition>) = deletions.into_iter().map(demanded).unzip();
        if !any {
            conditions.clear();
        }
        let namespace = self.namespace.clone();
        let request = v1::StorageDeleteManyRequest { attempt: None, namespace, keys, conditions, per_key };
        Ok(self.client.execute(request).await?.results.into_iter().map(Into::into).collect())
    }

    /// A page of keys, in their order.
    ///
    /// Errors: `NotFound` if there is no such namespace; `InvalidArgument` for a pattern or cursor that is none.
    pub async fn list(&self, filter: KeyFilter) -> Result<Page<String>> {
        self.list_as(filter, false).await
    }

    /// The same; with `keep` its revision is kept readable though there may be no next page.
    pub(crate) async fn list_as(&self, filter: KeyFilter, keep: bool) -> Result<Page<String>> {
        let KeyFilter { pattern, limit, offset, cursor } = filter;
        let namespace = self.namespace.clone();
        let request = v1::StorageListRequest { read: None, namespace, pattern, limit, offset, cursor };
        self.client.read_as(request, keep).await?.try_into()
    }

    /// All keys that match a pattern, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`list`](Self::list).
    pub async fn list_all(&self, pattern: &str) -> Result<Vec<String>> {
        pages::all(move |PageRequest { limit, cursor }| {
            self.list(KeyFilter { pattern: pattern.into(), limit: Some(limit), offset: 0, cursor })
        })
        .await
    }

    /// How many values there are.
    ///
    /// Errors: `NotFound` if there is no such namespace.
    pub async fn count(&self) -> Result<u64> {
        let request = v1::StorageCountRequest { read: None, namespace: self.namespace.clone(), filter: None };
        Ok(self.client.read(request).await?.count)
    }

    /// What is known of a value.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn metadata(&self, key: &str) -> Result<Metadata> {
        let request = v1::GetMetadataRequest { read: None, namespace: self.namespace.clone(), key: key.into() };
        Ok(expected("metadata", self.client.read(request).await?.metadata)?.into())
    }

    /// Merges a JSON object of attributes with those of a value; without `merge` it replaces them.
    ///
    /// Errors: `NotFound` if there is no value; `InvalidArgument` if it is no JSON object, or over 64 KiB.
    pub async fn set_metadata(&self, key: &str, attributes: &str, merge: bool) -> Result<Written> {
        self.set_metadata_as(key, attributes, merge, None).await
    }

    /// The same, if the attributes were last written at this revision; 0: if there are none.
    ///
    /// Errors: as of [`set_metadata`](Self::set_metadata); `ConditionFailed` if they were not.
    pub async fn set_metadata_if(&self, key: &str, attributes: &str, merge: bool, revision: u64) -> Result<Written> {
        self.set_metadata_as(key, attributes, merge, Some(revision)).await
    }

    /// Sets attributes, if they were last written at a revision where that is said.
    pub(crate) async fn set_metadata_as(
        &self,
        key: &str,
        attributes: &str,
        merge: bool,
        if_attributes_revision: Option<u64>,
    ) -> Result<Written> {
        let (namespace, key, metadata_json) = (self.namespace.clone(), key.into(), attributes.into());
        let (attempt, merge) = (None, Some(merge));
        let request = v1::SetMetadataRequest { attempt, namespace, key, metadata_json, merge, if_attributes_revision };
        self.client.write(request).await
    }

    /// The versions of a value that the namespace keeps, the newest first.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn history(&self, key: &str) -> Result<Vec<Version>> {
        let (mut versions, mut at, mut starts) = (Vec::new(), None, 1);
        loop {
            let (namespace, key, before) = (self.namespace.clone(), key.to_owned(), at.map(|(_, before)| before));
            let request = v1::StorageHistoryRequest { read: None, namespace, key, before };
            // All parts show the revision of the first.
            let answer = match at {
                Some((revision, _)) => self.client.read_at(revision, request).await,
                None => self.client.read_as(request, true).await,
            };
            let answer = match answer {
                Err(Error::ViewTooOld { .. }) if starts < pages::MOST_STARTS => {
                    (starts, at) = (starts + 1, None);
                    versions.clear();
                    continue;
                }
                answer => answer?,
            };
            for version in answer.versions {
                versions.push(version.try_into()?);
            }
            let revision = expected("header", answer.header)?.revision;
            at = answer.more_before.map(|before| (revision, before));
            if at.is_none() {
                return Ok(versions);
            }
        }
    }

    /// Makes a value and its attributes what they were at a revision.
    ///
    /// Errors: `NotFound` if there was none then; `InvalidArgument` if the namespace does not keep it.
    pub async fn restore(&self, key: &str, revision: u64) -> Result<Saved> {
        self.restore_as(key, (revision, None)).await
    }

    /// The same, if something is true of the value that is there.
    ///
    /// Errors: as of [`restore`](Self::restore); `ConditionFailed` if it is not.
    pub async fn restore_if(&self, key: &str, revision: u64, condition: Condition) -> Result<Saved> {
        self.restore_as(key, (revision, Some(condition))).await
    }

    pub(crate) async fn restore_as(
        &self,
        key: &str,
        (as_of_revision, condition): (u64, Option<Condition>),
    ) -> Result<Saved> {
        let (namespace, key, condition) = (self.namespace.clone(), key.to_owned(), condition.map(Into::into));
        let request = v1::StorageRestoreRequest { attempt: None, namespace, key, as_of_revision, condition };
        Ok(saved(&self.client.execute(request).await?))
    }

    /// Deletes all values, and their older versions, at once. A namespace that does not exist is as good as cleared.
    pub async fn clear(&self) -> Result<Written> {
        self.client.write(v1::StorageClearRequest { attempt: None, namespace: Some(self.namespace.clone()) }).await
    }
}

fn saved(answer: &v1::StorageSetResponse) -> Saved {
    Saved { revision: answer.revision, version: answer.version }
}

/// Namespaces; see [`Client::namespaces`].
#[derive(Clone, Debug)]
pub struct Namespaces {
    client: Client,
}

impl Namespaces {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// Creates a namespace. `metadata`: a JSON object, or nothing.
    ///
    /// Errors: `AlreadyExists`; `InvalidArgument` for a name that is empty or holds one of `/ : *`.
    pub async fn create(&self, name: &str, metadata: &str, settings: NamespaceSettings) -> Result<Written> {
        let (name, metadata_json) = (name.to_owned(), metadata.to_owned());
        let settings = Some(settings.into());
        self.client.write(v1::CreateNamespaceRequest { attempt: None, name, metadata_json, settings }).await
    }

    /// Changes a namespace. A lower bound refuses what is written from now on; fewer older versions are kept of what is.
    ///
    /// Errors: `NotFound`; `InvalidArgument`.
    pub async fn modify(&self, name: &str, change: NamespaceChange) -> Result<Written> {
        self.client.write(v1::ModifyNamespaceRequest::of(name, change)).await
    }

    /// Deletes a namespace, with all that it holds if `recursive`.
    ///
    /// Errors: `NotFound`; `Refused` if it holds values that are not to go; `InvalidArgument` for `default`.
    pub async fn delete(&self, name: &str, recursive: bool) -> Result<Written> {
        self.client.write(v1::DeleteNamespaceRequest { attempt: None, name: name.into(), recursive }).await
    }

    /// A namespace.
    ///
    /// Errors: `NotFound`.
    pub async fn show(&self, name: &str) -> Result<Namespace> {
        let answer = self.client.read(v1::ShowNamespaceRequest { read: None, name: name.into() }).await?;
        expected("namespace", answer.namespace)?.try_into()
    }

    /// A page of namespaces, in order of their names.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list.
    pub async fn list(&self, page: PageRequest) -> Result<Page<Namespace>> {
        self.client.read(v1::ListNamespacesRequest { read: None, page: Some(page.into()) }).await?.try_into()
    }

    /// All namespaces.
    ///
    /// Errors: those of a read.
    pub async fn list_all(&self) -> Result<Vec<Namespace>> {
        pages::all(move |page| self.list(page)).await
    }

    /// Deletes all values of all namespaces at once. The namespaces stay.
    pub async fn clear_all(&self) -> Result<Written> {
        self.client.write(v1::StorageClearRequest { attempt: None, namespace: None }).await
    }

    /// How much is stored.
    pub async fn status(&self) -> Result<StorageStatus> {
        Ok(self.client.read(v1::StorageStatusRequest { read: None }).await?.into())
    }
}
