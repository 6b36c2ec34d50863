//! The data client, with the names and the behaviour that services know it by: `AOLDataClient` of the data broker's original.
//!
//! It is [`Broker`] in other words: names that count (`request_collection`, `filters`, `update_data`), documents and answers as JSON
//! values, three errors, and the original's times. What it does not do is what the original had to do itself: no connection to a
//! database, no name in front of a dotted one, no retry of what may have been done twice (a session sees to that).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value as Json;

use super::{Broker, Client, Documents};
use crate::{
    Error,
    model::{
        document::{Declaration, IndexSpec, Permission},
        kind,
        query::SortField,
    },
};

/// How long a call may take with all its retries.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same of a query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Documents that [`DataClient::bulk_insert`] sends at once.
const BATCH: usize = 100;

/// Why a call of a [`DataClient`] did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataClientError {
    /// There is no such collection: request it first.
    #[error("Collection '{0}' not found")]
    CollectionNotFound(String),
    /// The collection is another service's, which has not allowed this.
    #[error("Permission denied for collection '{collection}': {why}")]
    PermissionDenied {
        /// The collection, as it was named.
        collection: String,
        /// What is allowed, and who can allow more.
        why: String,
    },
    /// Anything else.
    #[error("Database operation failed: {0}")]
    Failed(Error),
}

/// A query of a [`DataClient`]; without anything said: the first 100 documents, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct DataQuery {
    filters: Json,
    projection: Vec<String>,
    sort: Vec<SortField>,
    limit: Option<u32>,
    skip: u64,
}

impl DataQuery {
    /// Those that these filters let through.
    pub fn filters(filters: Json) -> Self {
        Self { filters, ..Self::default() }
    }

    /// The same with these fields alone, beside the id.
    #[must_use]
    pub fn projection<T: Into<String>>(mut self, fields: impl IntoIterator<Item = T>) -> Self {
        self.projection = fields.into_iter().map(Into::into).collect();
        self
    }

    /// The same, sorted by a field behind those that were named before; the least first.
    #[must_use]
    pub fn sort_asc(mut self, field: impl Into<String>) -> Self {
        self.sort.push(SortField::ascending(field));
        self
    }

    /// The same with the greatest first.
    #[must_use]
    pub fn sort_desc(mut self, field: impl Into<String>) -> Self {
        self.sort.push(SortField::descending(field));
        self
    }

    /// The same with at most so many documents, up to 1,000.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The same without the first documents.
    #[must_use]
    pub fn skip(self, skip: u64) -> Self {
        Self { skip, ..self }
    }
}

/// What a service does with its data; see the module's text. Cheap to clone.
///
/// ```no_run
/// use meshstore::client::{Client, DataClient, DataQuery, IndexSpec};
/// use serde_json::json;
///
/// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let data = DataClient::new(client, "my-service");
/// data.request_collection("events", None, Some(vec![IndexSpec::ascending("timestamp")])).await?;
/// data.insert("events", &json!({"event_type": "user.login", "timestamp": "2025-11-22T12:00:00"})).await?;
/// let logins = data.query("events", DataQuery::filters(json!({"event_type": "user.login"})).limit(10)).await?;
/// assert_eq!(logins[0]["event_type"], "user.login");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DataClient {
    broker: Broker,
    queries: Broker,
    /// The whole names of the collections that were requested.
    requested: Arc<Mutex<BTreeMap<String, String>>>,
}

type Answer<T> = Result<T, DataClientError>;

/// What an error means of a collection.
fn of<T>(collection: &str, answer: crate::Result<T>) -> Answer<T> {
    answer.map_err(|error| match error {
        Error::NotFound { kind: kind::COLLECTION, .. } => DataClientError::CollectionNotFound(collection.to_owned()),
        Error::PermissionDenied(why) => DataClientError::PermissionDenied { collection: collection.to_owned(), why },
        error => DataClientError::Failed(error),
    })
}

impl DataClient {
    /// For a service, over a client. Calls take up to 30 seconds, queries up to 60, whatever the client's own deadline is.
    pub fn new(client: Client, service_name: impl Into<String>) -> Self {
        let service = service_name.into();
        let broker = client.clone().with_deadline(TIMEOUT).broker(&service);
        let queries = client.with_deadline(QUERY_TIMEOUT).broker(&service);
        Self { broker, queries, requested: Arc::default() }
    }

    fn documents(&self, collection: &str) -> Documents {
        self.broker.collection(collection)
    }

    /// Creates the service's collection, or returns the one that is there; `indexes` that it lacks are added. Its id, which is its
    /// whole name. One that this client has requested already, without saying more, is answered at once.
    pub async fn request_collection(
        &self,
        name: &str,
        schema_hint: Option<&Json>,
        indexes: Option<Vec<IndexSpec>>,
    ) -> Answer<String> {
        let says_more = schema_hint.is_some() || indexes.is_some();
        let known = || self.requested.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(id) = known().filter(|_| !says_more) {
            return Ok(id);
        }
        let schema_hint = schema_hint.map(Json::to_string).unwrap_or_default();
        let declaration = Declaration { schema_hint, indexes, ..Declaration::default() };
        let id = of(name, self.documents(name).declare(declaration).await)?;
        self.requested.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), id.clone());
        Ok(id)
    }

    /// Inserts a document: its id.
    pub async fn insert(&self, collection: &str, document: &(impl Serialize + ?Sized)) -> Answer<String> {
        of(collection, self.documents(collection).insert(document).await)
    }

    /// Inserts documents, those that can be: of each its id, or why not. Documents are sent 100 at a time, one after the other.
    pub async fn bulk_insert<T: Serialize>(
        &self,
        collection: &str,
        documents: &[T],
    ) -> Answer<Vec<Result<String, String>>> {
        let mut results = Vec::with_capacity(documents.len());
        for batch in documents.chunks(BATCH) {
            match of(collection, self.documents(collection).insert_each(batch).await) {
                Ok(inserted) => results.extend(inserted.into_iter().map(|one| match one.error.is_empty() {
                    true => Ok(one.id),
                    false => Err(one.error),
                })),
                // What is in already is not to be forgotten.
                Err(error) if !results.is_empty() => results.extend(batch.iter().map(|_| Err(error.to_string()))),
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    /// Finds documents, each with its `_id`.
    pub async fn query(&self, collection: &str, query: DataQuery) -> Answer<Vec<Json>> {
        let DataQuery { filters, projection, sort, limit, skip } = query;
        let filters = if filters.is_null() { Json::Object(Default::default()) } else { filters };
        let find = of(collection, self.queries.collection(collection).find(&filters))?;
        let mut find = find.only(projection).sort(sort).skip(skip);
        if let Some(limit) = limit {
            find = find.limit(limit);
        }
        let page = of(collection, find.page().await)?;
        page.items.iter().map(|document| of(collection, document.parse())).collect()
    }

    /// Sets fields of all documents that the filters let through, or changes them by operators (`$inc`...): how many there are.
    pub async fn update(&self, collection: &str, filters: &Json, update_data: &Json) -> Answer<u64> {
        Ok(of(collection, self.documents(collection).update(filters, update_data).await)?.matched)
    }

    /// Deletes all documents that the filters let through: how many there were.
    pub async fn delete(&self, collection: &str, filters: &Json) -> Answer<u64> {
        of(collection, self.documents(collection).delete(filters).await)
    }

    /// Allows another service something with a collection, in place of what it was allowed.
    pub async fn grant_access(&self, collection: &str, target_service: &str, permission: Permission) -> Answer<()> {
        let granted = self.documents(collection).grant(target_service, permission, ("", None)).await;
        of(collection, granted).map(drop)
    }

    /// Takes back what another service was allowed; that it was nothing is no error.
    pub async fn revoke_access(&self, collection: &str, target_service: &str) -> Answer<()> {
        match self.documents(collection).revoke(target_service).await {
            Err(Error::NotFound { kind: kind::GRANT, .. }) => Ok(()),
            revoked => of(collection, revoked).map(drop),
        }
    }
}
