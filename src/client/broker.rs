//! The data broker: collections of documents that services own.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{Client, Page, PageRequest, ReadMode, Target, Watching, Written, json, pages};
use crate::{
    Result,
    model::{
        document::{
            AccessRequest, AppliedManifest, Collection, CollectionSettings, Declaration, Document, FindAndUpdate,
            IndexSpec, Inserted, Modification, Modified,
        },
        query::SortField,
    },
    proto::{broker::projection, convert::expected, query::fields, v1},
};

impl Declaration {
    /// One that says nothing: a collection is created as it is, or stays as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with what it is for.
    #[must_use]
    pub fn description(self, description: impl Into<String>) -> Self {
        Self { description: description.into(), ..self }
    }

    /// The same with another index. An index that is there and not declared stays.
    #[must_use]
    pub fn index(mut self, index: IndexSpec) -> Self {
        self.indexes.get_or_insert_default().push(index);
        self
    }

    /// The same, whose documents stay for so long after they were last written.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { settings: Some(CollectionSettings { ttl_ms, ..self.settings.unwrap_or_default() }), ..self }
    }

    /// The same, which holds at most so many documents, and so many bytes of them; 0: no bound.
    #[must_use]
    pub fn at_most(self, max_documents: u64, max_bytes: u64) -> Self {
        let settings = self.settings.unwrap_or_default();
        Self { settings: Some(CollectionSettings { max_documents, max_bytes, ..settings }), ..self }
    }
}

impl IndexSpec {
    /// Of these fields, in their order.
    pub fn of(fields: impl IntoIterator<Item = SortField>) -> Self {
        Self { fields: fields.into_iter().collect(), ..Self::default() }
    }

    /// Of one field, the least first.
    pub fn ascending(field: impl Into<String>) -> Self {
        Self::of([SortField::ascending(field)])
    }

    /// Of one field, the greatest first.
    pub fn descending(field: impl Into<String>) -> Self {
        Self::of([SortField::descending(field)])
    }

    /// The same, in which no two documents may have the same.
    #[must_use]
    pub fn unique(self) -> Self {
        Self { unique: true, ..self }
    }

    /// The same of those documents only that a filter, in JSON, lets through.
    #[must_use]
    pub fn only(self, filter: impl Into<String>) -> Self {
        Self { filter: filter.into(), ..self }
    }

    /// The same with a name.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }
}

impl Document {
    /// What its JSON stands for. Errors: `Unexpected` if it does not have the shape of a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        json::Json::of(self.json.as_str()).parse()
    }
}

/// The data broker as a service sees it; see [`Client::broker`].
#[derive(Clone, Debug)]
pub struct Broker {
    client: Client,
    service: String,
}

impl Broker {
    pub(super) fn of(client: Client, service: String) -> Self {
        Self { client, service }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode), ..self }
    }

    /// A collection: the service's own, or with a dot in the name (`service.collection`) whosever it is.
    pub fn collection(&self, name: impl Into<String>) -> Documents {
        Documents { broker: self.clone(), collection: name.into() }
    }

    /// Declares the collections of a manifest (YAML or JSON), and asks for the access that it asks for: all that can be, in one
    /// transaction; of the rest the answer says why not. With `dry_run` it only says what would be done.
    ///
    /// Errors: `InvalidArgument` with all that is wrong with the manifest; `PermissionDenied` for that of another service.
    pub async fn apply_manifest(&self, manifest: &str, (strict, dry_run): (bool, bool)) -> Result<AppliedManifest> {
        let (service, manifest) = (self.service.clone(), manifest.to_owned());
        let request = v1::ApplyManifestRequest { attempt: None, service, manifest, strict, dry_run };
        self.client.execute(request).await?.try_into()
    }

    /// A page of what services ask for, in order of the collections: of the collections of `owner`, or else the service's own
    /// (of all for whoever runs the cluster); with `denied` also what was denied.
    ///
    /// Errors: `InvalidArgument`; `ViewTooOld` for a page of a revision that is given up.
    pub async fn access_requests(
        &self,
        (owner, denied): (&str, bool),
        page: PageRequest,
    ) -> Result<Page<AccessRequest>> {
        let (service, owner, page) = (self.service.clone(), owner.to_owned(), Some(page.into()));
        let request = v1::ListAccessRequestsRequest { read: None, service, owner, denied, page };
        self.client.read(request).await?.try_into()
    }

    /// All of it, as of one revision.
    ///
    /// Errors: as of [`access_requests`](Self::access_requests).
    pub async fn all_access_requests(&self, of: (&str, bool)) -> Result<Vec<AccessRequest>> {
        pages::all(|page| self.access_requests(of, page)).await
    }

    /// A page of the collections that the service may read, in order of their names; of one owner if one is named.
    ///
    /// Errors: `InvalidArgument`; `ViewTooOld` for a page of a revision that is given up.
    pub async fn collections(&self, owner: &str, page: PageRequest) -> Result<Page<Collection>> {
        let (service, owner) = (self.service.clone(), owner.to_owned());
        let request = v1::ListCollectionsRequest { read: None, service, owner, page: Some(page.into()) };
        self.client.read(request).await?.try_into()
    }

    /// All of them, as of one revision.
    ///
    /// Errors: as of [`collections`](Self::collections).
    pub async fn all_collections(&self, owner: &str) -> Result<Vec<Collection>> {
        pages::all(|page| self.collections(owner, page)).await
    }
}

/// The documents of a collection; see [`Broker::collection`]. Filters, updates and documents are anything that can be written as
/// JSON, like `serde_json::json!({"type": "error"})`.
///
/// ```no_run
/// use meshstore::client::{Client, Declaration, IndexSpec};
/// use serde_json::json;
///
/// # async fn example(client: Client) -> meshstore::Result<()> {
/// let events = client.broker("billing").collection("events");
/// events.declare(Declaration::new().index(IndexSpec::descending("at"))).await?;
/// events.insert(&json!({"type": "error", "at": "2026-11-30T12:00:00Z"})).await?;
/// for event in events.find(&json!({"type": "error"}))?.sort_by_descending("at").limit(10).page().await?.items {
///     println!("{}", event.json);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Documents {
    broker: Broker,
    collection: String,
}

impl Documents {
    pub(super) fn place(&self) -> (String, String) {
        (self.broker.service.clone(), self.collection.clone())
    }

    pub(super) fn names(&self) -> (&str, &str) {
        (&self.broker.service, &self.collection)
    }

    pub(super) fn client(&self) -> &Client {
        &self.broker.client
    }

    /// Creates the collection, or changes the one that is there to what is declared: what is not said stays as it is. Its whole
    /// name.
    ///
    /// Errors: `InvalidArgument`; `PermissionDenied` for the collection of another service; `Refused` if there are too many.
    pub async fn declare(&self, declaration: Declaration) -> Result<String> {
        Ok(self.declare_as(declaration, false).await?.collection_id)
    }

    /// The same; indexes that are not declared are dropped with `exactly`.
    pub(crate) async fn declare_as(
        &self,
        declaration: Declaration,
        exactly: bool,
    ) -> Result<v1::RequestCollectionResponse> {
        self.client().execute(v1::RequestCollectionRequest::of(self.names(), declaration, exactly)).await
    }

    /// Drops the collection, with all that it holds, at once.
    ///
    /// Errors: `NotFound`; `PermissionDenied`.
    pub async fn drop(&self) -> Result<Written> {
        let (service, collection) = self.place();
        self.client().write(v1::DropCollectionRequest { attempt: None, service, collection }).await
    }

    /// What the collection is like.
    ///
    /// Errors: `NotFound`; `PermissionDenied`.
    pub async fn show(&self) -> Result<Collection> {
        let (service, collection) = self.place();
        let request = v1::ShowCollectionRequest { read: None, service, collection };
        expected("collection", self.client().read(request).await?.collection)?.try_into()
    }

    /// Inserts a document: its id, which is its `_id` if it has one.
    ///
    /// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`; `AlreadyExists` for the id, or for what is
    /// unique; `Refused` if the collection is full.
    pub async fn insert(&self, document: &(impl Serialize + ?Sized)) -> Result<String> {
        let answer = self.insert_texts(vec![json::text("document", document)?], false).await?;
        Ok(answer.into_iter().next().map(|inserted| inserted.id).unwrap_or_default())
    }

    /// Inserts documents, all or none: their ids.
    ///
    /// Errors: as of [`insert`](Self::insert).
    pub async fn insert_many<T: Serialize>(&self, documents: impl IntoIterator<Item = T>) -> Result<Vec<String>> {
        let texts = texts(documents)?;
        Ok(self.insert_texts(texts, false).await?.into_iter().map(|inserted| inserted.id).collect())
    }

    /// Inserts those documents that can be, and says of each what became of it.
    ///
    /// Errors: `InvalidArgument` if there are none, or over 1,024; `NotFound` for the collection; `PermissionDenied`; `Refused` if
    /// the collection is full.
    pub async fn insert_each<T: Serialize>(&self, documents: impl IntoIterator<Item = T>) -> Result<Vec<Inserted>> {
        self.insert_texts(texts(documents)?, true).await
    }

    /// Inserts documents that are JSON texts.
    pub(crate) async fn insert_texts(&self, documents_json: Vec<String>, each: bool) -> Result<Vec<Inserted>> {
        let (service, collection) = self.place();
        let request = v1::InsertRequest { attempt: None, service, collection, documents_json, each };
        Ok(fields(self.client().execute(request).await?.results))
    }

    /// Reads a document.
    ///
    /// Errors: `NotFound` for the document or the collection; `PermissionDenied`.
    pub async fn get(&self, id: &str) -> Result<Document> {
        self.get_as(id, (vec![], vec![])).await
    }

    /// Reads a part of a document: the first of these fields alone, or all but the others.
    pub(crate) async fn get_as(&self, id: &str, (include, exclude): (Vec<String>, Vec<String>)) -> Result<Document> {
        let (service, collection) = self.place();
        let projection = projection(include, exclude);
        let request = v1::GetDocumentRequest { read: None, service, collection, id: id.to_owned(), projection };
        Ok(expected("document", self.client().read(request).await?.document)?.into())
    }

    /// What becomes of the documents that a filter lets through: to the watch there are no others. It ends with `NotFound` when
    /// the collection is dropped, and with `PermissionDenied` when the service may no longer read it.
    ///
    /// Errors: `InvalidArgument` if the filter cannot be written as JSON; all else is told by [`Watching::start`].
    pub fn watch(&self, filter: &(impl Serialize + ?Sized)) -> Result<Watching> {
        let ((service, collection), filter) = (self.place(), json::text("filter", filter)?);
        Ok(self.client().watch(Target::Documents { service, collection, filter }))
    }

    /// How many documents a filter lets through.
    ///
    /// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`.
    pub async fn count(&self, filter: &(impl Serialize + ?Sized)) -> Result<u64> {
        let filter = json::text("filter", filter)?;
        // That says nothing, and is counted at once.
        self.count_text(if filter == "{}" { String::new() } else { filter }).await
    }

    pub(crate) async fn count_text(&self, filter_json: String) -> Result<u64> {
        let (service, collection) = self.place();
        let request = v1::CountDocumentsRequest { read: None, service, collection, filter_json };
        Ok(self.client().read(request).await?.count)
    }

    /// The different values in a field of the documents that a filter lets through, as JSON texts, in their order. The elements of
    /// a list are values of their own.
    ///
    /// Errors: as of [`count`](Self::count); `Refused` if there are more than 10,000.
    pub async fn distinct(&self, field: &str, filter: &(impl Serialize + ?Sized)) -> Result<Vec<String>> {
        self.distinct_text(field, json::text("filter", filter)?).await
    }

    pub(crate) async fn distinct_text(&self, field: &str, filter_json: String) -> Result<Vec<String>> {
        let (service, collection) = self.place();
        let field = field.to_owned();
        let request = v1::DistinctRequest { read: None, service, collection, field, filter_json };
        Ok(self.client().read(request).await?.values_json)
    }

    /// Changes all documents that a filter lets through: fields that are set, or operators like
    /// `json!({"$inc": {"seen": 1}})`.
    ///
    /// Errors: `InvalidArgument`, also if it cannot be done to one of them; `NotFound` for the collection; `PermissionDenied`;
    /// `AlreadyExists` for what is unique; `Refused` if they are more than one transaction can change.
    pub async fn update(
        &self,
        filter: &(impl Serialize + ?Sized),
        update: &(impl Serialize + ?Sized),
    ) -> Result<Modified> {
        self.modify(modification(filter, update)?).await
    }

    /// The same; a document is inserted if there is none.
    ///
    /// Errors: as of [`update`](Self::update).
    pub async fn upsert(
        &self,
        filter: &(impl Serialize + ?Sized),
        update: &(impl Serialize + ?Sized),
    ) -> Result<Modified> {
        self.modify(Modification { upsert: true, ..modification(filter, update)? }).await
    }

    /// Changes documents as it is said, with all options.
    ///
    /// Errors: as of [`update`](Self::update); `ConditionFailed` if they are not of the revision that is asked for.
    pub async fn modify(&self, modification: Modification) -> Result<Modified> {
        let answer = self.client().execute(v1::UpdateRequest::of(self.names(), modification)).await?;
        let v1::UpdateResponse { matched, modified, upserted_id, .. } = answer;
        Ok(Modified { matched, modified, upserted_id })
    }

    /// Changes the first document that a filter lets through, and answers it as it is then, or as it was before; `None` if there
    /// is none.
    ///
    /// Errors: as of [`modify`](Self::modify).
    pub async fn find_and_update(&self, wanted: FindAndUpdate) -> Result<Option<Document>> {
        let answer = self.client().execute(v1::FindAndUpdateRequest::of(self.names(), wanted)).await?;
        Ok(answer.document.map(Into::into))
    }

    /// Replaces a document, all of it.
    ///
    /// Errors: `InvalidArgument`; `NotFound` for the document or the collection; `PermissionDenied`; `AlreadyExists` for what is
    /// unique.
    pub async fn replace(&self, id: &str, document: &(impl Serialize + ?Sized)) -> Result<Written> {
        self.replace_text(id, json::text("document", document)?, (None, false)).await
    }

    /// The same, if it was last written at this revision; 0: if it is not there, then it is inserted.
    ///
    /// Errors: as of [`replace`](Self::replace); `ConditionFailed`.
    pub async fn replace_if(&self, id: &str, document: &(impl Serialize + ?Sized), revision: u64) -> Result<Written> {
        self.replace_text(id, json::text("document", document)?, (Some(revision), revision == 0)).await
    }

    pub(crate) async fn replace_text(
        &self,
        id: &str,
        document_json: String,
        (if_revision, upsert): (Option<u64>, bool),
    ) -> Result<Written> {
        let (service, collection) = self.place();
        let id = id.to_owned();
        let request = v1::ReplaceRequest { attempt: None, service, collection, id, document_json, upsert, if_revision };
        self.client().write(request).await
    }

    /// Deletes all documents that a filter lets through: how many.
    ///
    /// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`; `Refused` if they are more than one
    /// transaction can delete.
    pub async fn delete(&self, filter: &(impl Serialize + ?Sized)) -> Result<u64> {
        self.delete_text(json::text("filter", filter)?, (0, None)).await
    }

    pub(crate) async fn delete_text(
        &self,
        filter_json: String,
        (limit, if_revision): (u64, Option<u64>),
    ) -> Result<u64> {
        let (service, collection) = self.place();
        let request =
            v1::DeleteDocumentsRequest { attempt: None, service, collection, filter_json, limit, if_revision };
        Ok(self.client().execute(request).await?.deleted)
    }
}

fn texts<T: Serialize>(documents: impl IntoIterator<Item = T>) -> Result<Vec<String>> {
    documents.into_iter().map(|document| json::text("documents", &document)).collect()
}

/// What makes an update of a filter and an update that can be written as JSON.
fn modification(filter: &(impl Serialize + ?Sized), update: &(impl Serialize + ?Sized)) -> Result<Modification> {
    let (filter, update) = (json::text("filter", filter)?, json::text("update", update)?);
    Ok(Modification { filter, update, ..Modification::default() })
}
