//! A cluster as a backend: each call is one of the client.

use super::{
    ClearOptions, CountOptions, CreateNamespaceOptions, DeleteManyOptions, DeleteNamespaceOptions, DeleteOptions,
    Entry, Filter, GetManyOptions, GetMetadataOptions, GetOptions, HasOptions, HistoryOptions, ListOptions, Metadata,
    Namespace, NamespaceChange, Page, PageRequest, Properties, QueryOptions, RestoreOptions, Saved, SetEntry,
    SetManyOptions, SetMetadataOptions, SetOptions, SetResult, Storage, StorageStatus, Value, Version, async_trait,
};
use crate::{Client, Result};

/// A cluster. How fresh reads are, how long calls may take, and that writes happen once is the client's to say.
#[derive(Clone, Debug)]
pub struct Remote {
    client: Client,
}

impl Remote {
    /// The cluster of a client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait]
impl Storage for Remote {
    fn properties(&self) -> Properties {
        Properties { supports_transactions: false, supports_query: true, supports_metadata: true, is_durable: true }
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<Entry> {
        let GetOptions { namespace, include_metadata, as_of_revision } = options;
        self.client.kv(namespace).get_as(key, (include_metadata, as_of_revision)).await
    }

    async fn set(&self, key: &str, value: Value, options: SetOptions) -> Result<Saved> {
        let (namespace, set) = options.set(key, value);
        self.client.kv(namespace).set(set).await
    }

    async fn delete(&self, key: &str, options: DeleteOptions) -> Result<bool> {
        let DeleteOptions { namespace, condition } = options;
        self.client.kv(namespace).delete_as(key, condition).await
    }

    async fn has(&self, key: &str, options: HasOptions) -> Result<bool> {
        self.client.kv(options.namespace).has(key).await
    }

    async fn get_many(&self, keys: Vec<String>, options: GetManyOptions) -> Result<(Vec<Entry>, Vec<String>)> {
        let GetManyOptions { namespace, include_metadata, revision } = options;
        self.client.kv(namespace).get_many_as(keys, (include_metadata, revision)).await
    }

    async fn set_many(&self, entries: Vec<SetEntry>, options: SetManyOptions) -> Result<Vec<SetResult>> {
        let sets = options.sets(entries);
        self.client.kv(options.namespace).set_many_as(sets, options.per_key).await
    }

    async fn delete_many(&self, keys: Vec<String>, options: DeleteManyOptions) -> Result<Vec<(String, bool)>> {
        self.client.kv(options.namespace).delete_many(keys).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page<String>> {
        let (namespace, filter, keep) = options.filter();
        self.client.kv(namespace).list_as(filter, keep).await
    }

    async fn query(&self, filter: Filter, options: QueryOptions) -> Result<Page<Entry>> {
        let (namespace, query) = options.query(filter);
        self.client.kv(namespace).query_as(query).await
    }

    async fn count(&self, options: CountOptions) -> Result<u64> {
        let kv = self.client.kv(options.namespace);
        match options.filter {
            Some(filter) => kv.count_where(filter).await,
            None => kv.count().await,
        }
    }

    async fn create_namespace(&self, name: &str, options: CreateNamespaceOptions) -> Result<u64> {
        let CreateNamespaceOptions { metadata, settings } = options;
        let written = self.client.namespaces().create(name, &metadata.unwrap_or_default(), settings).await?;
        Ok(written.revision)
    }

    async fn modify_namespace(&self, name: &str, change: NamespaceChange) -> Result<u64> {
        Ok(self.client.namespaces().modify(name, change).await?.revision)
    }

    async fn delete_namespace(&self, name: &str, options: DeleteNamespaceOptions) -> Result<u64> {
        Ok(self.client.namespaces().delete(name, options.recursive).await?.revision)
    }

    async fn show_namespace(&self, name: &str) -> Result<Namespace> {
        self.client.namespaces().show(name).await
    }

    async fn list_namespaces(&self, page: PageRequest) -> Result<Page<Namespace>> {
        self.client.namespaces().list(page).await
    }

    async fn get_metadata(&self, key: &str, options: GetMetadataOptions) -> Result<Metadata> {
        self.client.kv(options.namespace).metadata(key).await
    }

    async fn set_metadata(&self, key: &str, metadata: &str, options: SetMetadataOptions) -> Result<u64> {
        let SetMetadataOptions { namespace, merge, if_attributes_revision } = options;
        let kv = self.client.kv(namespace);
        Ok(kv.set_metadata_as(key, metadata, merge, if_attributes_revision).await?.revision)
    }

    async fn history(&self, key: &str, options: HistoryOptions) -> Result<Vec<Version>> {
        self.client.kv(options.namespace).history(key).await
    }

    async fn restore(&self, key: &str, as_of_revision: u64, options: RestoreOptions) -> Result<Saved> {
        self.client.kv(options.namespace).restore(key, as_of_revision).await
    }

    async fn clear(&self, options: ClearOptions) -> Result<u64> {
        let written = match options.namespace {
            Some(namespace) => self.client.kv(namespace).clear().await?,
            None => self.client.namespaces().clear_all().await?,
        };
        Ok(written.revision)
    }

    async fn get_status(&self) -> Result<StorageStatus> {
        self.client.namespaces().status().await
    }
}
