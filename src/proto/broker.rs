//! Collections, documents and grants as wire messages, and back.

use super::{convert::expected, query::fields, v1};
use crate::{
    Error, Result,
    model::{
        document::{
            AccessRequest, AppliedManifest, Collection, CollectionIndex, CollectionSettings, Declaration,
            DeclaredCollection, Document, DocumentQuery, FindAndUpdate, FoundDocuments, Grant, IndexSpec, IndexState,
            Inserted, Modification, Permission, RequestState, RequestedAccess,
        },
        mesh::Page,
        query::Explanation,
    },
};

impl From<CollectionSettings> for v1::CollectionSettings {
    fn from(settings: CollectionSettings) -> Self {
        let CollectionSettings { ttl_ms, max_documents, max_bytes } = settings;
        Self { ttl_ms, max_documents, max_bytes }
    }
}

impl From<v1::CollectionSettings> for CollectionSettings {
    fn from(settings: v1::CollectionSettings) -> Self {
        let v1::CollectionSettings { ttl_ms, max_documents, max_bytes } = settings;
        Self { ttl_ms, max_documents, max_bytes }
    }
}

impl From<IndexSpec> for v1::DocumentIndex {
    fn from(spec: IndexSpec) -> Self {
        let IndexSpec { name, fields: of, unique, filter: filter_json } = spec;
        Self { name, fields: fields(of), unique, filter_json }
    }
}

impl From<v1::DocumentIndex> for IndexSpec {
    fn from(index: v1::DocumentIndex) -> Self {
        let v1::DocumentIndex { name, fields: of, unique, filter_json: filter } = index;
        Self { name, fields: fields(of), unique, filter }
    }
}

impl From<CollectionIndex> for v1::DocumentIndexStatus {
    fn from(index: CollectionIndex) -> Self {
        let CollectionIndex { spec, state, built } = index;
        let ready = state == IndexState::Ready;
        let failed = if let IndexState::Failed(why) = state { why } else { String::new() };
        Self { index: Some(spec.into()), ready, failed, built }
    }
}

impl TryFrom<v1::DocumentIndexStatus> for CollectionIndex {
    type Error = Error;

    fn try_from(sent: v1::DocumentIndexStatus) -> Result<Self> {
        let v1::DocumentIndexStatus { index, ready, failed, built } = sent;
        let state = match (ready, failed.is_empty()) {
            (true, _) => IndexState::Ready,
            (false, true) => IndexState::Building,
            (false, false) => IndexState::Failed(failed),
        };
        Ok(Self { spec: expected("index", index)?.into(), state, built })
    }
}

impl From<Collection> for v1::Collection {
    fn from(collection: Collection) -> Self {
        let Collection { name, owner, description, schema_hint: schema_hint_json, settings, .. } = collection;
        let Collection { indexes, created_at_ms, create_revision, documents, bytes, .. } = collection;
        let (settings, indexes) = (Some(settings.into()), fields(indexes));
        Self {
            name,
            owner,
            description,
            schema_hint_json,
            settings,
            indexes,
            created_at_ms,
            create_revision,
            documents,
            bytes,
        }
    }
}

impl TryFrom<v1::Collection> for Collection {
    type Error = Error;

    fn try_from(sent: v1::Collection) -> Result<Self> {
        let v1::Collection { name, owner, description, schema_hint_json: schema_hint, settings, .. } = sent;
        let v1::Collection { indexes, created_at_ms, create_revision, documents, bytes, .. } = sent;
        let indexes = indexes.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let settings = settings.unwrap_or_default().into();
        Ok(Self {
            name,
            owner,
            description,
            schema_hint,
            settings,
            indexes,
            created_at_ms,
            create_revision,
            documents,
            bytes,
        })
    }
}

impl v1::RequestCollectionRequest {
    /// What is declared.
    pub fn of((service, collection): (&str, &str), declaration: Declaration, exactly: bool) -> Self {
        let Declaration { description, schema_hint: schema_hint_json, settings, indexes } = declaration;
        Self {
            attempt: None,
            service: service.into(),
            collection: collection.into(),
            description,
            schema_hint_json,
            settings: settings.map(Into::into),
            indexes: indexes.map(|indexes| v1::DocumentIndexes { indexes: fields(indexes) }),
            exactly,
        }
    }

    /// What is declared.
    pub fn declaration(self) -> Declaration {
        let Self { description, schema_hint_json: schema_hint, settings, indexes, .. } = self;
        let indexes = indexes.map(|declared| fields(declared.indexes));
        Declaration { description, schema_hint, settings: settings.map(Into::into), indexes }
    }
}

impl From<Document> for v1::Document {
    fn from(document: Document) -> Self {
        let Document { id, json, created_at_ms, updated_at_ms, revision, version, owner } = document;
        Self { id, json, created_at_ms, updated_at_ms, revision, version, owner }
    }
}

impl From<v1::Document> for Document {
    fn from(document: v1::Document) -> Self {
        let v1::Document { id, json, created_at_ms, updated_at_ms, revision, version, owner } = document;
        Self { id, json, created_at_ms, updated_at_ms, revision, version, owner }
    }
}

impl From<Inserted> for v1::InsertResult {
    fn from(Inserted { id, error }: Inserted) -> Self {
        Self { id, error }
    }
}

impl From<v1::InsertResult> for Inserted {
    fn from(v1::InsertResult { id, error }: v1::InsertResult) -> Self {
        Self { id, error }
    }
}

impl v1::FindRequest {
    /// What is asked of a collection.
    pub fn of((service, collection): (&str, &str), query: DocumentQuery, explain: bool) -> Self {
        let DocumentQuery { filter: filter_json, include, exclude, sort, limit, skip, cursor } = query;
        let projection = projection(include, exclude);
        let (service, collection, sort) = (service.to_owned(), collection.to_owned(), fields(sort));
        Self { read: None, service, collection, filter_json, projection, sort, limit, skip, cursor, explain }
    }

    /// What is asked.
    pub fn query(self) -> DocumentQuery {
        let Self { filter_json: filter, projection, sort, limit, skip, cursor, .. } = self;
        let v1::Projection { include, exclude } = projection.unwrap_or_default();
        DocumentQuery { filter, include, exclude, sort: fields(sort), limit, skip, cursor }
    }
}

/// A projection; none if it leaves everything as it is.
pub fn projection(include: Vec<String>, exclude: Vec<String>) -> Option<v1::Projection> {
    (!include.is_empty() || !exclude.is_empty()).then_some(v1::Projection { include, exclude })
}

impl From<(v1::ReadHeader, FoundDocuments, bool)> for v1::FindResponse {
    fn from((header, found, explain): (v1::ReadHeader, FoundDocuments, bool)) -> Self {
        let FoundDocuments { documents, next_cursor, explanation } = found;
        let explanation = explain.then(|| explanation.into());
        Self { header: Some(header), documents: fields(documents), next_cursor, explanation }
    }
}

impl TryFrom<v1::FindResponse> for Page<Document> {
    type Error = Error;

    fn try_from(answer: v1::FindResponse) -> Result<Self> {
        let v1::FindResponse { header, documents, next_cursor, explanation: _ } = answer;
        Ok(Self { items: fields(documents), next_cursor, revision: expected("header", header)?.revision })
    }
}

impl TryFrom<v1::FindResponse> for FoundDocuments {
    type Error = Error;

    fn try_from(answer: v1::FindResponse) -> Result<Self> {
        let v1::FindResponse { documents, next_cursor, explanation, .. } = answer;
        let explanation: Explanation = expected("explanation", explanation)?.try_into()?;
        Ok(Self { documents: fields(documents), next_cursor, explanation })
    }
}

impl From<(v1::ReadHeader, Document)> for v1::GetDocumentResponse {
    fn from((header, document): (v1::ReadHeader, Document)) -> Self {
        Self { header: Some(header), document: Some(document.into()) }
    }
}

impl From<(v1::ReadHeader, Page<Grant>)> for v1::ListGrantsResponse {
    fn from((header, page): (v1::ReadHeader, Page<Grant>)) -> Self {
        let Page { items, next_cursor, .. } = page;
        Self { header: Some(header), grants: fields(items), next_cursor }
    }
}

impl TryFrom<v1::ListGrantsResponse> for Page<Grant> {
    type Error = Error;

    fn try_from(answer: v1::ListGrantsResponse) -> Result<Self> {
        let v1::ListGrantsResponse { header, grants, next_cursor } = answer;
        let items = grants.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Self { items, next_cursor, revision: expected("header", header)?.revision })
    }
}

impl From<(v1::ReadHeader, Page<Collection>)> for v1::ListCollectionsResponse {
    fn from((header, page): (v1::ReadHeader, Page<Collection>)) -> Self {
        let Page { items, next_cursor, .. } = page;
        Self { header: Some(header), collections: fields(items), next_cursor }
    }
}

impl TryFrom<v1::ListCollectionsResponse> for Page<Collection> {
    type Error = Error;

    fn try_from(answer: v1::ListCollectionsResponse) -> Result<Self> {
        let v1::ListCollectionsResponse { header, collections, next_cursor } = answer;
        let items = collections.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Self { items, next_cursor, revision: expected("header", header)?.revision })
    }
}

impl From<Permission> for v1::Permission {
    fn from(permission: Permission) -> Self {
        match permission {
            Permission::Read => Self::Read,
            Permission::Write => Self::Write,
            Permission::Admin => Self::Admin,
        }
    }
}

/// A permission that was sent. Errors: `InvalidArgument`.
pub fn permission(sent: i32) -> Result<Permission> {
    match v1::Permission::try_from(sent) {
        Ok(v1::Permission::Read) => Ok(Permission::Read),
        Ok(v1::Permission::Write) => Ok(Permission::Write),
        Ok(v1::Permission::Admin) => Ok(Permission::Admin),
        _ => Err(Error::invalid("permission", sent.to_string(), "must be READ, WRITE or ADMIN")),
    }
}

impl From<Grant> for v1::AccessGrant {
    fn from(grant: Grant) -> Self {
        let Grant { collection, service, permission, reason, granted_by, granted_at_ms, ttl_ms } = grant;
        let permission = v1::Permission::from(permission).into();
        Self { collection, service, permission, reason, granted_by, granted_at_ms, ttl_ms }
    }
}

impl TryFrom<v1::AccessGrant> for Grant {
    type Error = Error;

    fn try_from(sent: v1::AccessGrant) -> Result<Self> {
        let v1::AccessGrant { collection, service, permission: granted, .. } = sent;
        let v1::AccessGrant { reason, granted_by, granted_at_ms, ttl_ms, .. } = sent;
        let permission = permission(granted).map_err(|error| Error::Unexpected(error.to_string()))?;
        Ok(Self { collection, service, permission, reason, granted_by, granted_at_ms, ttl_ms })
    }
}

impl v1::UpdateRequest {
    /// What is to be changed.
    pub fn of((service, collection): (&str, &str), modification: Modification) -> Self {
        let Modification { filter: filter_json, update: update_json, upsert, limit, if_revision, .. } = modification;
        let (service, collection) = (service.to_owned(), collection.to_owned());
        Self { attempt: None, service, collection, filter_json, update_json, upsert, limit, if_revision }
    }

    /// What is to be changed; a document that is inserted gets `new_id`.
    pub fn modification(self, new_id: String) -> Modification {
        let Self { filter_json: filter, update_json: update, upsert, limit, if_revision, .. } = self;
        Modification { filter, update, upsert, new_id, limit, if_revision }
    }
}

impl v1::FindAndUpdateRequest {
    /// What is to be changed.
    pub fn of((service, collection): (&str, &str), wanted: FindAndUpdate) -> Self {
        let FindAndUpdate { modification, sort, before } = wanted;
        let Modification { filter: filter_json, update: update_json, upsert, if_revision, .. } = modification;
        let (service, collection, sort) = (service.to_owned(), collection.to_owned(), fields(sort));
        Self {
            attempt: None,
            service,
            collection,
            filter_json,
            update_json,
            upsert,
            sort,
            before,
            projection: None,
            if_revision,
        }
    }

    /// What is to be changed; a document that is inserted gets `new_id`.
    pub fn wanted(self, new_id: String) -> FindAndUpdate {
        let Self { filter_json: filter, update_json: update, upsert, sort, before, if_revision, .. } = self;
        let modification = Modification { filter, update, upsert, new_id, limit: 1, if_revision };
        FindAndUpdate { modification, sort: fields(sort), before }
    }
}

const STATES: [(RequestState, v1::RequestState); 3] = [
    (RequestState::Granted, v1::RequestState::Granted),
    (RequestState::Pending, v1::RequestState::Pending),
    (RequestState::Denied, v1::RequestState::Denied),
];

impl From<RequestedAccess> for v1::RequestedAccess {
    fn from(requested: RequestedAccess) -> Self {
        let RequestedAccess { collection, permission, state, error } = requested;
        let state = STATES.iter().find(|(known, _)| *known == state).map_or(0, |(_, wire)| i32::from(*wire));
        Self { collection, permission: v1::Permission::from(permission).into(), state, error }
    }
}

impl TryFrom<v1::RequestedAccess> for RequestedAccess {
    type Error = Error;

    fn try_from(sent: v1::RequestedAccess) -> Result<Self> {
        let v1::RequestedAccess { collection, permission: asked, state, error } = sent;
        let unknown = || Error::Unexpected(format!("the node answered an unknown state of a request: {state}"));
        let found = STATES.iter().find(|(_, wire)| i32::from(*wire) == state).map(|(known, _)| *known);
        let permission = permission(asked).map_err(|error| Error::Unexpected(error.to_string()))?;
        Ok(Self { collection, permission, state: found.ok_or_else(unknown)?, error })
    }
}

impl From<DeclaredCollection> for v1::DeclaredCollection {
    fn from(declared: DeclaredCollection) -> Self {
        let DeclaredCollection { name, created, changed, added_indexes, dropped_indexes, error } = declared;
        Self { name, created, changed, added_indexes, dropped_indexes, error }
    }
}

impl From<v1::DeclaredCollection> for DeclaredCollection {
    fn from(declared: v1::DeclaredCollection) -> Self {
        let v1::DeclaredCollection { name, created, changed, added_indexes, dropped_indexes, error } = declared;
        Self { name, created, changed, added_indexes, dropped_indexes, error }
    }
}

impl From<(u64, u64, AppliedManifest)> for v1::ApplyManifestResponse {
    fn from((revision, leader_id, applied): (u64, u64, AppliedManifest)) -> Self {
        let AppliedManifest { service, collections, requests, warnings } = applied;
        let (collections, requests) = (fields(collections), fields(requests));
        Self { revision, leader_id, service, collections, requests, warnings }
    }
}

impl TryFrom<v1::ApplyManifestResponse> for AppliedManifest {
    type Error = Error;

    fn try_from(answer: v1::ApplyManifestResponse) -> Result<Self> {
        let v1::ApplyManifestResponse { service, collections, requests, warnings, .. } = answer;
        let requests = requests.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Self { service, collections: fields(collections), requests, warnings })
    }
}

impl From<AccessRequest> for v1::AccessRequest {
    fn from(request: AccessRequest) -> Self {
        let AccessRequest { collection, service, permission, reason, at_ms, denied_by } = request;
        let permission = v1::Permission::from(permission).into();
        Self { collection, service, permission, reason, at_ms, denied_by }
    }
}

impl TryFrom<v1::AccessRequest> for AccessRequest {
    type Error = Error;

    fn try_from(sent: v1::AccessRequest) -> Result<Self> {
        let v1::AccessRequest { collection, service, permission: asked, reason, at_ms, denied_by } = sent;
        let permission = permission(asked).map_err(|error| Error::Unexpected(error.to_string()))?;
        Ok(Self { collection, service, permission, reason, at_ms, denied_by })
    }
}

impl From<(v1::ReadHeader, Page<AccessRequest>)> for v1::ListAccessRequestsResponse {
    fn from((header, page): (v1::ReadHeader, Page<AccessRequest>)) -> Self {
        let Page { items, next_cursor, .. } = page;
        Self { header: Some(header), requests: fields(items), next_cursor }
    }
}

impl TryFrom<v1::ListAccessRequestsResponse> for Page<AccessRequest> {
    type Error = Error;

    fn try_from(answer: v1::ListAccessRequestsResponse) -> Result<Self> {
        let v1::ListAccessRequestsResponse { header, requests, next_cursor } = answer;
        let items = requests.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Self { items, next_cursor, revision: expected("header", header)?.revision })
    }
}
