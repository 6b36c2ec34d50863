//! The trait in the terms in which the cases are written: a namespace at hand, and a call for each thing that can be asked.

use std::sync::Arc;

use meshstore::{
    Result, Storage,
    client::{
        Condition, DeleteResult, Deletion, Entry, KeyFilter, Metadata, Namespace, NamespaceChange, NamespaceSettings,
        Page, PageRequest, Saved, Set, SetResult, StorageStatus, Value, Version,
    },
    contract::{
        ClearOptions, CreateNamespaceOptions, DeleteManyOptions, DeleteNamespaceOptions, DeleteOptions, GetOptions,
        ListOptions, RestoreOptions, SetEntry, SetManyOptions, SetMetadataOptions, SetOptions,
    },
};
use serde::Serialize;

/// A backend.
#[derive(Clone)]
pub struct Through(pub Arc<dyn Storage>);

impl Through {
    pub fn kv(&self, namespace: impl Into<String>) -> Kv {
        Kv { storage: Arc::clone(&self.0), namespace: namespace.into() }
    }

    pub fn namespaces(&self) -> Namespaces {
        Namespaces(Arc::clone(&self.0))
    }
}

/// A namespace of a backend.
#[derive(Clone)]
pub struct Kv {
    storage: Arc<dyn Storage>,
    namespace: String,
}

impl Kv {
    pub async fn get(&self, key: &str) -> Result<Entry> {
        self.storage.get(key, GetOptions { include_metadata: true, ..self.namespace.as_str().into() }).await
    }

    pub async fn get_at(&self, key: &str, revision: u64) -> Result<Entry> {
        let as_of_revision = Some(revision);
        let options = GetOptions { include_metadata: true, as_of_revision, ..self.namespace.as_str().into() };
        self.storage.get(key, options).await
    }

    pub async fn set(&self, set: Set) -> Result<Saved> {
        let Set { key, value, attributes: metadata, overwrite, condition, .. } = set;
        let options = SetOptions { metadata, overwrite, condition, ..self.namespace.as_str().into() };
        self.storage.set(&key, value, options).await
    }

    pub async fn set_json(&self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<Saved> {
        self.set(Set::new(key, Value::json(value)?)).await
    }

    pub async fn delete(&self, key: &str) -> Result<bool> {
        self.storage.delete(key, self.namespace.as_str().into()).await
    }

    pub async fn delete_if(&self, key: &str, condition: Condition) -> Result<bool> {
        let options = DeleteOptions { condition: Some(condition), ..self.namespace.as_str().into() };
        self.storage.delete(key, options).await
    }

    pub async fn has(&self, key: &str) -> Result<bool> {
        self.storage.has(key, self.namespace.as_str().into()).await
    }

    pub async fn get_many(&self, keys: Vec<String>) -> Result<(Vec<Entry>, Vec<String>)> {
        let options = meshstore::contract::GetManyOptions { include_metadata: true, ..self.namespace.as_str().into() };
        self.storage.get_many(keys, options).await
    }

    pub async fn set_many(&self, sets: Vec<Set>) -> Result<Vec<SetResult>> {
        self.set_many_as(sets, false).await
    }

    pub async fn set_each(&self, sets: Vec<Set>) -> Result<Vec<SetResult>> {
        self.set_many_as(sets, true).await
    }

    async fn set_many_as(&self, sets: Vec<Set>, per_key: bool) -> Result<Vec<SetResult>> {
        let entry = |Set { key, value, attributes: metadata, overwrite, condition, .. }| SetEntry {
            key,
            value,
            metadata,
            overwrite: Some(overwrite),
            condition,
        };
        let options = SetManyOptions { per_key, ..self.namespace.as_str().into() };
        self.storage.set_many(sets.into_iter().map(entry).collect(), options).await
    }

    pub async fn delete_many(&self, keys: Vec<String>) -> Result<Vec<(String, bool)>> {
        let keys = keys.into_iter().map(Into::into).collect();
        let results = self.storage.delete_many(keys, self.namespace.as_str().into()).await?;
        Ok(results.into_iter().map(|result| (result.key, result.deleted)).collect())
    }

    pub async fn list(&self, filter: KeyFilter) -> Result<Page<String>> {
        let KeyFilter { pattern, limit, offset, cursor } = filter;
        let options = ListOptions { pattern, limit, offset, cursor, ..self.namespace.as_str().into() };
        self.storage.list(options).await
    }

    pub async fn list_all(&self, pattern: &str) -> Result<Vec<String>> {
        let (mut keys, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.list(KeyFilter { pattern: pattern.into(), cursor, ..KeyFilter::default() }).await?;
            keys.append(&mut page.items);
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return Ok(keys);
            }
        }
    }

    pub async fn count(&self) -> Result<u64> {
        self.storage.count(self.namespace.as_str().into()).await
    }

    pub async fn metadata(&self, key: &str) -> Result<Metadata> {
        self.storage.get_metadata(key, self.namespace.as_str().into()).await
    }

    pub async fn set_metadata(&self, key: &str, metadata: &str, merge: bool) -> Result<u64> {
        let options = SetMetadataOptions { merge, ..self.namespace.as_str().into() };
        self.storage.set_metadata(key, metadata, options).await
    }

    pub async fn set_metadata_if(&self, key: &str, metadata: &str, merge: bool, revision: u64) -> Result<u64> {
        let if_attributes_revision = Some(revision);
        let options = SetMetadataOptions { merge, if_attributes_revision, ..self.namespace.as_str().into() };
        self.storage.set_metadata(key, metadata, options).await
    }

    pub async fn history(&self, key: &str) -> Result<Vec<Version>> {
        self.storage.history(key, self.namespace.as_str().into()).await
    }

    pub async fn delete_many_as(&self, deletions: Vec<Deletion>, per_key: bool) -> Result<Vec<DeleteResult>> {
        let options = DeleteManyOptions { per_key, ..self.namespace.as_str().into() };
        self.storage.delete_many(deletions, options).await
    }

    pub async fn restore_if(&self, key: &str, revision: u64, condition: Condition) -> Result<Saved> {
        let options = RestoreOptions { condition: Some(condition), ..self.namespace.as_str().into() };
        self.storage.restore(key, revision, options).await
    }

    pub async fn restore(&self, key: &str, revision: u64) -> Result<Saved> {
        self.storage.restore(key, revision, self.namespace.as_str().into()).await
    }

    pub async fn clear(&self) -> Result<u64> {
        self.storage.clear(self.namespace.as_str().into()).await
    }
}

/// The namespaces of a backend.
pub struct Namespaces(Arc<dyn Storage>);

impl Namespaces {
    pub async fn create(&self, name: &str, metadata: &str, settings: NamespaceSettings) -> Result<u64> {
        let metadata = Some(metadata.to_owned()).filter(|metadata| !metadata.is_empty());
        self.0.create_namespace(name, CreateNamespaceOptions { metadata, settings, ..Default::default() }).await
    }

    pub async fn modify(&self, name: &str, change: NamespaceChange) -> Result<u64> {
        self.0.modify_namespace(name, change).await
    }

    pub async fn delete(&self, name: &str, recursive: bool) -> Result<u64> {
        self.0.delete_namespace(name, DeleteNamespaceOptions { recursive }).await
    }

    pub async fn show(&self, name: &str) -> Result<Namespace> {
        self.0.show_namespace(name).await
    }

    pub async fn list(&self, page: PageRequest) -> Result<Page<Namespace>> {
        self.0.list_namespaces(page).await
    }

    pub async fn list_all(&self) -> Result<Vec<Namespace>> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = self.list(PageRequest { limit: 0, cursor }).await?;
            all.append(&mut page.items);
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return Ok(all);
            }
        }
    }

    pub async fn clear_all(&self) -> Result<u64> {
        self.0.clear(ClearOptions::default()).await
    }

    pub async fn status(&self) -> Result<StorageStatus> {
        self.0.get_status().await
    }
}
