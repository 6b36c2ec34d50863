//! A cluster as a backend: each call is one of the client.

use std::time::Duration;

use super::{
    BeginTransactionOptions, Begun, ClearOptions, CountOptions, CreateNamespaceOptions, DeleteManyOptions,
    DeleteNamespaceOptions, DeleteOptions, DeleteResult, Deletion, Entry, Filter, GetManyOptions, GetMetadataOptions,
    GetOptions, HasOptions, HistoryOptions, ListOptions, Metadata, Namespace, NamespaceChange, Page, PageRequest,
    Properties, QueryOptions, RestoreOptions, Saved, SetEntry, SetManyOptions, SetMetadataOptions, SetOptions,
    SetResult, Storage, StorageStatus, Value, Version, async_trait,
};
use crate::{Client, Result, client::Kv, limits};

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

    /// The client of a call, in a transaction if one is named.
    fn within(&self, transaction: Option<&str>) -> Result<Client> {
        transaction.map_or(Ok(self.client.clone()), |transaction| self.client.inside(transaction))
    }

    /// A namespace, in a transaction if one is named.
    fn kv(&self, namespace: String, transaction: Option<&str>) -> Result<Kv> {
        Ok(self.within(transaction)?.kv(namespace))
    }
}

#[async_trait]
impl Storage for Remote {
    fn properties(&self) -> Properties {
        Properties { supports_transactions: true, supports_query: true, supports_metadata: true, is_durable: true }
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<Entry> {
        let GetOptions { namespace, include_metadata, as_of_revision, transaction } = options;
        self.kv(namespace, transaction.as_deref())?.get_as(key, (include_metadata, as_of_revision)).await
    }

    async fn set(&self, key: &str, value: Value, options: SetOptions) -> Result<Saved> {
        let transaction = options.transaction.clone();
        let (namespace, set) = options.set(key, value);
        self.kv(namespace, transaction.as_deref())?.set(set).await
    }

    async fn delete(&self, key: &str, options: DeleteOptions) -> Result<bool> {
        let DeleteOptions { namespace, condition, transaction } = options;
        self.kv(namespace, transaction.as_deref())?.delete_as(key, condition).await
    }

    async fn has(&self, key: &str, options: HasOptions) -> Result<bool> {
        self.kv(options.namespace, options.transaction.as_deref())?.has(key).await
    }

    async fn get_many(&self, keys: Vec<String>, options: GetManyOptions) -> Result<(Vec<Entry>, Vec<String>)> {
        let GetManyOptions { namespace, include_metadata, revision, transaction } = options;
        self.kv(namespace, transaction.as_deref())?.get_many_as(keys, (include_metadata, revision)).await
    }

    async fn set_many(&self, entries: Vec<SetEntry>, options: SetManyOptions) -> Result<Vec<SetResult>> {
        let sets = options.sets(entries);
        self.kv(options.namespace, options.transaction.as_deref())?.set_many_as(sets, options.per_key).await
    }

    async fn delete_many(&self, deletions: Vec<Deletion>, options: DeleteManyOptions) -> Result<Vec<DeleteResult>> {
        let DeleteManyOptions { namespace, per_key, transaction } = options;
        self.kv(namespace, transaction.as_deref())?.delete_many_as(deletions, per_key).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page<String>> {
        let transaction = options.transaction.clone();
        let (namespace, filter, keep) = options.filter();
        self.kv(namespace, transaction.as_deref())?.list_as(filter, keep).await
    }

    async fn query(&self, filter: Filter, options: QueryOptions) -> Result<Page<Entry>> {
        let transaction = options.transaction.clone();
        let (namespace, query) = options.query(filter);
        self.kv(namespace, transaction.as_deref())?.query_as(query).await
    }

    async fn count(&self, options: CountOptions) -> Result<u64> {
        let kv = self.kv(options.namespace, options.transaction.as_deref())?;
        match options.filter {
            Some(filter) => kv.count_where(filter).await,
            None => kv.count().await,
        }
    }

    async fn create_namespace(&self, name: &str, options: CreateNamespaceOptions) -> Result<u64> {
        let CreateNamespaceOptions { metadata, settings, transaction } = options;
        let namespaces = self.within(transaction.as_deref())?.namespaces();
        let written = namespaces.create(name, &metadata.unwrap_or_default(), settings).await?;
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
        self.kv(options.namespace, options.transaction.as_deref())?.metadata(key).await
    }

    async fn set_metadata(&self, key: &str, metadata: &str, options: SetMetadataOptions) -> Result<u64> {
        let SetMetadataOptions { namespace, merge, if_attributes_revision, transaction } = options;
        let kv = self.kv(namespace, transaction.as_deref())?;
        Ok(kv.set_metadata_as(key, metadata, merge, if_attributes_revision).await?.revision)
    }

    async fn history(&self, key: &str, options: HistoryOptions) -> Result<Vec<Version>> {
        self.kv(options.namespace, options.transaction.as_deref())?.history(key).await
    }

    async fn restore(&self, key: &str, as_of_revision: u64, options: RestoreOptions) -> Result<Saved> {
        let RestoreOptions { namespace, condition, transaction } = options;
        self.kv(namespace, transaction.as_deref())?.restore_as(key, (as_of_revision, condition)).await
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

    async fn begin_transaction(&self, options: BeginTransactionOptions) -> Result<Begun> {
        let BeginTransactionOptions { isolation, timeout } = options;
        let default = Duration::from_millis(limits::TRANSACTION_TIMEOUT_DEFAULT_MS);
        self.client.begin_held_id(isolation, timeout.unwrap_or(default)).await
    }

    async fn commit(&self, transaction: &str) -> Result<u64> {
        Ok(self.client.commit_held(transaction).await?.revision)
    }

    async fn rollback(&self, transaction: &str) -> Result<()> {
        self.client.rollback_held(transaction).await
    }
}
