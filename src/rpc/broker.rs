//! The data broker: a handler for each call.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use super::{Call, principal_of, turn_of};
use crate::{
    Result,
    layers::documents::{
        access::{self, Actor},
        collection,
        manifest::Manifest,
        read, requests, write,
    },
    model::{
        ReadMode,
        document::{Grant, Inserted, NewDocument},
        mesh::Page,
    },
    node::Node,
    proto::{
        broker::permission,
        convert::read_header,
        v1::{self, broker_server},
    },
    service::documents as service,
    state::View,
};

/// The `Broker` service.
pub(super) struct Broker {
    node: Arc<Node>,
    /// Who may search.
    turns: Arc<Semaphore>,
}

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;

impl Broker {
    /// `turns`: who may search on this node.
    pub(super) fn new(node: Arc<Node>, turns: Arc<Semaphore>) -> Self {
        Self { node, turns }
    }

    fn written(&self, revision: u64) -> Response<v1::WriteResponse> {
        Response::new(v1::WriteResponse { revision, leader_id: self.node.id() })
    }

    /// A turn at a write that may have to go through many documents.
    async fn turn(&self, call: &Call) -> Result<OwnedSemaphorePermit> {
        turn_of(&self.turns, call.deadline, "other queries on this node to end").await
    }

    /// An id for a document that has none.
    fn new_id(&self) -> String {
        let (ms, chance) = self.node.id_parts();
        ulid::Ulid::from_parts(ms, chance).to_string()
    }
}

/// A call with whom it is made for, and what it asks.
fn open<T>(request: Request<T>, service: impl Fn(&T) -> &str) -> Result<(Call, Actor, T)> {
    let principal = principal_of(request.extensions());
    let (call, request) = Call::open(request)?;
    let actor = Actor::new(&principal, service(&request))?;
    Ok((call, actor, request))
}

#[tonic::async_trait]
impl broker_server::Broker for Broker {
    async fn request_collection(
        &self,
        request: Request<v1::RequestCollectionRequest>,
    ) -> Answer<v1::RequestCollectionResponse> {
        let (call, actor, mut request) = open(request, |request| &request.service)?;
        let (attempt, exactly, name) = (request.attempt.take(), request.exactly, request.collection.clone());
        let (declaration, place) = (request.declaration(), (&actor, name.as_str()));
        let (revision, declared) =
            service::declare(self.node.as_ref(), call.caller(attempt)?, place, (&declaration, exactly)).await?;
        let collection::Declared { name: collection_id, created, changed, added_indexes, dropped_indexes } = declared;
        let leader_id = self.node.id();
        Ok(Response::new(v1::RequestCollectionResponse {
            revision,
            leader_id,
            collection_id,
            created,
            changed,
            added_indexes,
            dropped_indexes,
        }))
    }

    async fn drop_collection(&self, request: Request<v1::DropCollectionRequest>) -> Answer<v1::WriteResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let drop = |view: &View| collection::drop(view, &actor, &request.collection);
        Ok(self.written(service::only(self.node.as_ref(), call.caller(request.attempt)?, drop).await?))
    }

    async fn show_collection(&self, request: Request<v1::ShowCollectionRequest>) -> Answer<v1::ShowCollectionResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let place = call.place(&self.node).await?;
        let (view, stamp) = call.view((&place, &self.node), request.read, None).await?;
        let shown = collection::show(&view, &actor, &request.collection)?;
        let shown = service::measured(self.node.as_ref(), vec![shown]).into_iter().next().map(Into::into);
        let header = Some(read_header(stamp, self.node.id()));
        Ok(Response::new(v1::ShowCollectionResponse { header, collection: shown }))
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Answer<v1::ListCollectionsResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let list = collection::list(&actor, &request.owner, &request.page.into())?;
        let measure = |view: &View| {
            let Page { items, next_cursor, revision } = list.read(view)?;
            Ok(Page { items: service::measured(self.node.as_ref(), items), next_cursor, revision })
        };
        call.list(&self.node, request.read, list.revision(), measure).await
    }

    async fn insert(&self, request: Request<v1::InsertRequest>) -> Answer<v1::InsertResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::InsertRequest { attempt, collection, documents_json, each, .. } = request;
        let new = |json| NewDocument { json, id: self.new_id() };
        let documents: Vec<NewDocument> = documents_json.into_iter().map(new).collect();
        let (place, what) = ((&actor, collection.as_str()), (documents.as_slice(), each));
        let (revision, results) = service::insert(self.node.as_ref(), call.caller(attempt)?, place, what).await?;
        Ok(Response::new(v1::InsertResponse {
            revision,
            leader_id: self.node.id(),
            results: results.into_iter().map(|result: Inserted| result.into()).collect(),
        }))
    }

    async fn get_document(&self, request: Request<v1::GetDocumentRequest>) -> Answer<v1::GetDocumentResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::GetDocumentRequest { read, collection, id, projection, .. } = request;
        let v1::Projection { include, exclude } = projection.unwrap_or_default();
        let get = |view: &View| {
            let document = read::get(view, &actor, (&collection, &id), (&include, &exclude))?;
            service::may_read(self.node.as_ref(), &actor, &collection)?;
            Ok(document)
        };
        call.read(&self.node, read, None, get).await
    }

    async fn find(&self, request: Request<v1::FindRequest>) -> Answer<v1::FindResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let (options, explain, collection) = (request.read, request.explain, request.collection.clone());
        let search = read::search(&actor, &collection, &request.query())?;
        let place = call.place(&self.node).await?;
        let (view, stamp) = call.view((&place, &self.node), options, search.revision()).await?;
        service::may_read(self.node.as_ref(), &actor, &collection)?;
        let (view, found) = call.search(&self.node, (view, &self.turns), move |view| search.read(view)).await?;
        if !found.next_cursor.is_empty() {
            self.node.keep_for_pages(&view);
        }
        Ok(Response::new((read_header(stamp, self.node.id()), found, explain).into()))
    }

    async fn count_documents(&self, request: Request<v1::CountDocumentsRequest>) -> Answer<v1::CountDocumentsResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::CountDocumentsRequest { read: options, collection, filter_json, .. } = request;
        let exactly = options.and_then(|options| options.revision);
        let (count, stamp) = if filter_json.trim().is_empty() && exactly.is_none() {
            let freshness = (ReadMode::from(options), None, call.deadline);
            service::count_all(self.node.as_ref(), (&actor, &collection), freshness).await?
        } else {
            let place = call.place(&self.node).await?;
            let (view, stamp) = call.view((&place, &self.node), options, None).await?;
            service::may_read(self.node.as_ref(), &actor, &collection)?;
            let count = move |view: &View| read::count(view, &actor, (&collection, &filter_json));
            (call.search(&self.node, (view, &self.turns), count).await?.1, stamp)
        };
        Ok(Response::new(v1::CountDocumentsResponse { header: Some(read_header(stamp, self.node.id())), count }))
    }

    async fn distinct(&self, request: Request<v1::DistinctRequest>) -> Answer<v1::DistinctResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::DistinctRequest { read: options, collection, field, filter_json, .. } = request;
        let place = call.place(&self.node).await?;
        let (view, stamp) = call.view((&place, &self.node), options, None).await?;
        service::may_read(self.node.as_ref(), &actor, &collection)?;
        let distinct = move |view: &View| read::distinct(view, &actor, &collection, (&field, &filter_json));
        let (_, values_json) = call.search(&self.node, (view, &self.turns), distinct).await?;
        Ok(Response::new(v1::DistinctResponse { header: Some(read_header(stamp, self.node.id())), values_json }))
    }

    async fn update(&self, request: Request<v1::UpdateRequest>) -> Answer<v1::UpdateResponse> {
        let (call, actor, mut request) = open(request, |request| &request.service)?;
        let (attempt, collection) = (request.attempt.take(), request.collection.clone());
        let _turn = self.turn(&call).await?;
        let (place, modification) = ((&actor, collection.as_str()), request.modification(self.new_id()));
        let (revision, modified) =
            service::update(self.node.as_ref(), call.caller(attempt)?, place, &modification).await?;
        Ok(Response::new(v1::UpdateResponse {
            revision,
            leader_id: self.node.id(),
            matched: modified.matched,
            modified: modified.modified,
            upserted_id: modified.upserted_id,
        }))
    }

    async fn find_and_update(&self, request: Request<v1::FindAndUpdateRequest>) -> Answer<v1::FindAndUpdateResponse> {
        let (call, actor, mut request) = open(request, |request| &request.service)?;
        let (attempt, collection) = (request.attempt.take(), request.collection.clone());
        let v1::Projection { include, exclude } = request.projection.take().unwrap_or_default();
        let _turn = self.turn(&call).await?;
        let (place, wanted) = ((&actor, collection.as_str()), request.wanted(self.new_id()));
        let what = (&wanted, (include.as_slice(), exclude.as_slice()));
        let (revision, modified, document) =
            service::find_and_update(self.node.as_ref(), call.caller(attempt)?, place, what).await?;
        Ok(Response::new(v1::FindAndUpdateResponse {
            revision,
            leader_id: self.node.id(),
            document: document.map(Into::into),
            matched: modified.matched,
            upserted_id: modified.upserted_id,
        }))
    }

    async fn replace(&self, request: Request<v1::ReplaceRequest>) -> Answer<v1::WriteResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::ReplaceRequest { attempt, collection, id, document_json, upsert, if_revision, .. } = request;
        let what = (document_json.as_str(), if_revision, upsert);
        let replace = |view: &View| write::replace(view, &actor, (&collection, &id), what);
        Ok(self.written(service::only(self.node.as_ref(), call.caller(attempt)?, replace).await?))
    }

    async fn delete_documents(
        &self,
        request: Request<v1::DeleteDocumentsRequest>,
    ) -> Answer<v1::DeleteDocumentsResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::DeleteDocumentsRequest { attempt, collection, filter_json, limit, if_revision, .. } = request;
        let _turn = self.turn(&call).await?;
        let (place, which) = ((&actor, collection.as_str()), (filter_json.as_str(), limit, if_revision));
        let (revision, deleted) = service::delete(self.node.as_ref(), call.caller(attempt)?, place, which).await?;
        Ok(Response::new(v1::DeleteDocumentsResponse { revision, leader_id: self.node.id(), deleted }))
    }

    async fn grant_access(&self, request: Request<v1::GrantAccessRequest>) -> Answer<v1::WriteResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::GrantAccessRequest { attempt, collection, target_service: service, reason, ttl_ms, .. } = request;
        let permission = permission(request.permission)?;
        let (granted_by, granted_at_ms) = (String::new(), 0);
        let grant = Grant { collection, service, permission, reason, granted_by, granted_at_ms, ttl_ms };
        let decide = |view: &View| access::grant(view, &actor, &grant);
        Ok(self.written(service::only(self.node.as_ref(), call.caller(attempt)?, decide).await?))
    }

    async fn revoke_access(&self, request: Request<v1::RevokeAccessRequest>) -> Answer<v1::WriteResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::RevokeAccessRequest { attempt, collection, target_service, .. } = request;
        let decide = |view: &View| access::revoke(view, &actor, (&collection, &target_service));
        Ok(self.written(service::only(self.node.as_ref(), call.caller(attempt)?, decide).await?))
    }

    async fn list_grants(&self, request: Request<v1::ListGrantsRequest>) -> Answer<v1::ListGrantsResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let list = access::grants(&actor, &request.collection, &request.page.into())?;
        call.list(&self.node, request.read, list.revision(), |view| list.read(view)).await
    }

    async fn apply_manifest(&self, request: Request<v1::ApplyManifestRequest>) -> Answer<v1::ApplyManifestResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::ApplyManifestRequest { attempt, manifest, strict, dry_run, .. } = request;
        let manifest = Manifest::parse(&manifest, strict)?;
        let caller = call.caller(attempt)?;
        let (revision, applied) =
            service::apply_manifest(self.node.as_ref(), caller, &actor, (&manifest, dry_run)).await?;
        Ok(Response::new((revision, self.node.id(), applied).into()))
    }

    async fn list_access_requests(
        &self,
        request: Request<v1::ListAccessRequestsRequest>,
    ) -> Answer<v1::ListAccessRequestsResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let list = requests::requests(&actor, &request.owner, request.denied, &request.page.into())?;
        call.list(&self.node, request.read, list.revision(), |view| list.read(view)).await
    }

    async fn decide_access_request(
        &self,
        request: Request<v1::DecideAccessRequestRequest>,
    ) -> Answer<v1::WriteResponse> {
        let (call, actor, request) = open(request, |request| &request.service)?;
        let v1::DecideAccessRequestRequest {
            attempt,
            collection,
            target_service,
            allow,
            permission: asked,
            ttl_ms,
            ..
        } = request;
        let permission = (asked != 0).then(|| permission(asked)).transpose()?;
        let decide =
            |view: &View| requests::decide(view, &actor, (&collection, &target_service), (allow, permission, ttl_ms));
        Ok(self.written(service::only(self.node.as_ref(), call.caller(attempt)?, decide).await?))
    }
}
