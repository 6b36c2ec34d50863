//! The storage contract: a handler for each call.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::Call;
use crate::{
    Result,
    layers::kv::{index, namespace, query, read},
    model::{
        ReadMode,
        kv::{Deletion, KeyFilter},
        mesh::Page,
    },
    node::Node,
    proto::{
        convert::{read_header, required},
        query::{fields, filter},
        storage::{condition, isolation},
        v1::{self, storage_server},
    },
    service::{
        Core,
        storage::{self as service, Freshness},
        transactions::{Options, Transactions},
    },
    state::View,
};

/// The `Storage` service.
pub(super) struct Storage {
    node: Arc<Node>,
    transactions: Transactions,
    /// Who may search.
    turns: Arc<Semaphore>,
}

impl Storage {
    /// `turns`: who may search on this node.
    pub(super) fn new(node: Arc<Node>, transactions: Transactions, turns: Arc<Semaphore>) -> Self {
        Self { node, transactions, turns }
    }

    fn written(&self, revision: u64) -> Response<v1::WriteResponse> {
        Response::new(v1::WriteResponse { revision, leader_id: self.node.id() })
    }
}

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;

fn freshness(call: &Call, options: Option<v1::ReadOptions>) -> Freshness {
    let revision = options.and_then(|options| options.revision);
    (ReadMode::from(options), revision, call.deadline)
}

#[tonic::async_trait]
impl storage_server::Storage for Storage {
    async fn get(&self, request: Request<v1::StorageGetRequest>) -> Answer<v1::StorageGetResponse> {
        let (call, request) = Call::open(request)?;
        let v1::StorageGetRequest { read, namespace, key, include_metadata, as_of_revision } = request;
        let wanted = (include_metadata, as_of_revision);
        call.read(&self.node, read, None, |view| read::get(view, &namespace, &key, wanted)).await
    }

    async fn set(&self, request: Request<v1::StorageSetRequest>) -> Answer<v1::StorageSetResponse> {
        let (call, v1::StorageSetRequest { attempt, namespace, set }) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let sets = vec![required("set", set)?.try_into()?];
        let (revision, results) = service::set(&place, call.caller(attempt)?, &namespace, (sets, false)).await?;
        let version = results.first().map_or(0, |result| result.version);
        Ok(Response::new(v1::StorageSetResponse { revision, leader_id: self.node.id(), version }))
    }

    async fn delete(&self, request: Request<v1::StorageDeleteRequest>) -> Answer<v1::StorageDeleteResponse> {
        let (call, request) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let v1::StorageDeleteRequest { attempt, namespace, key, condition: only_if } = request;
        let what = (vec![Deletion { key, condition: condition(only_if)? }], false);
        let (revision, results) = service::delete(&place, call.caller(attempt)?, &namespace, what).await?;
        let deleted = results.first().is_some_and(|result| result.deleted);
        Ok(Response::new(v1::StorageDeleteResponse { revision, leader_id: self.node.id(), deleted }))
    }

    async fn has(&self, request: Request<v1::StorageHasRequest>) -> Answer<v1::StorageHasResponse> {
        let (call, v1::StorageHasRequest { read, namespace, key }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| read::has(view, &namespace, &key)).await
    }

    async fn get_many(&self, request: Request<v1::StorageGetManyRequest>) -> Answer<v1::StorageGetManyResponse> {
        let (call, request) = Call::open(request)?;
        let v1::StorageGetManyRequest { read, namespace, keys, include_metadata } = request;
        call.read(&self.node, read, None, |view| read::get_many(view, &namespace, keys, include_metadata)).await
    }

    async fn set_many(&self, request: Request<v1::StorageSetManyRequest>) -> Answer<v1::StorageSetManyResponse> {
        let (call, v1::StorageSetManyRequest { attempt, namespace, sets, per_key }) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let sets = sets.into_iter().map(TryInto::try_into).collect::<Result<Vec<_>>>()?;
        let (revision, results) = service::set(&place, call.caller(attempt)?, &namespace, (sets, per_key)).await?;
        let results = results.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::StorageSetManyResponse { revision, leader_id: self.node.id(), results }))
    }

    async fn delete_many(
        &self,
        request: Request<v1::StorageDeleteManyRequest>,
    ) -> Answer<v1::StorageDeleteManyResponse> {
        let (call, request) = Call::open(request)?;
        let (attempt, namespace, per_key) = (request.attempt, request.namespace.clone(), request.per_key);
        let (place, what) = (call.place(&self.node).await?, (request.deletions()?, per_key));
        let (revision, results) = service::delete(&place, call.caller(attempt)?, &namespace, what).await?;
        let results = results.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::StorageDeleteManyResponse { revision, leader_id: self.node.id(), results }))
    }

    async fn list(&self, request: Request<v1::StorageListRequest>) -> Answer<v1::StorageListResponse> {
        let (call, request) = Call::open(request)?;
        let (options, namespace) = (request.read, request.namespace.clone());
        let list = read::list(&namespace, &KeyFilter::from(request))?;
        call.list(&self.node, options, list.revision(), |view| list.read(view)).await
    }

    async fn count(&self, request: Request<v1::StorageCountRequest>) -> Answer<v1::StorageCountResponse> {
        let (call, v1::StorageCountRequest { read, namespace, filter: sent }) = Call::open(request)?;
        let (filter, place) = (filter(sent)?, call.place(&self.node).await?);
        // What a transaction holds is counted by going through it.
        let (count, stamp) = if filter.is_empty() && place.accounts_are_shown() {
            service::count(&place, &namespace, freshness(&call, read)).await?
        } else {
            let (view, stamp) = call.view((&place, &self.node), read, None).await?;
            let count = move |view: &View| query::count(view, &namespace, &filter);
            (call.search(&self.node, (view, &self.turns), count).await?.1, stamp)
        };
        Ok(Response::new(v1::StorageCountResponse { header: Some(read_header(stamp, self.node.id())), count }))
    }

    async fn query(&self, request: Request<v1::StorageQueryRequest>) -> Answer<v1::StorageQueryResponse> {
        let (call, request) = Call::open(request)?;
        let (read, namespace, explain) = (request.read, request.namespace.clone(), request.explain);
        let search = query::search(&namespace, &request.open()?)?;
        let place = call.place(&self.node).await?;
        let (view, stamp) = call.view((&place, &self.node), read, search.revision()).await?;
        let (view, found) = call.search(&self.node, (view, &self.turns), move |view| search.read(view)).await?;
        if !found.next_cursor.is_empty() {
            self.node.keep_for_pages(&view);
        }
        Ok(Response::new((read_header(stamp, self.node.id()), found, explain).into()))
    }

    async fn create_index(&self, request: Request<v1::CreateIndexRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::CreateIndexRequest { attempt, namespace, name, fields: of }) = Call::open(request)?;
        let (caller, place) = (call.caller(attempt)?, (namespace.as_str(), name.as_str()));
        Ok(self.written(service::create_index(self.node.as_ref(), caller, place, fields(of)).await?))
    }

    async fn drop_index(&self, request: Request<v1::DropIndexRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DropIndexRequest { attempt, namespace, name }) = Call::open(request)?;
        let (caller, place) = (call.caller(attempt)?, (namespace.as_str(), name.as_str()));
        Ok(self.written(service::drop_index(self.node.as_ref(), caller, place).await?))
    }

    async fn list_indexes(&self, request: Request<v1::ListIndexesRequest>) -> Answer<v1::ListIndexesResponse> {
        let (call, v1::ListIndexesRequest { read, namespace }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| index::list(view, &namespace)).await
    }

    async fn create_namespace(&self, request: Request<v1::CreateNamespaceRequest>) -> Answer<v1::WriteResponse> {
        let (call, request) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let v1::CreateNamespaceRequest { attempt, name, metadata_json, settings } = request;
        let settings = settings.unwrap_or_default().into();
        let caller = call.caller(attempt)?;
        let revision = service::create_namespace(&place, caller, (&name, &metadata_json), settings).await?;
        Ok(self.written(revision))
    }

    async fn modify_namespace(&self, request: Request<v1::ModifyNamespaceRequest>) -> Answer<v1::WriteResponse> {
        let (call, mut request) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let caller = call.caller(request.attempt.take())?;
        let (name, change) = request.open();
        Ok(self.written(service::modify_namespace(&place, caller, &name, change).await?))
    }

    async fn delete_namespace(&self, request: Request<v1::DeleteNamespaceRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteNamespaceRequest { attempt, name, recursive }) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let caller = call.caller(attempt)?;
        Ok(self.written(service::delete_namespace(&place, caller, &name, recursive).await?))
    }

    async fn show_namespace(&self, request: Request<v1::ShowNamespaceRequest>) -> Answer<v1::ShowNamespaceResponse> {
        let (call, v1::ShowNamespaceRequest { read, name }) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let (shown, stamp) = service::show_namespace(&place, &name, freshness(&call, read)).await?;
        let header = Some(read_header(stamp, self.node.id()));
        Ok(Response::new(v1::ShowNamespaceResponse { header, namespace: Some(shown.into()) }))
    }

    async fn list_namespaces(&self, request: Request<v1::ListNamespacesRequest>) -> Answer<v1::ListNamespacesResponse> {
        let (call, v1::ListNamespacesRequest { read, page }) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let list = namespace::list(&page.into())?;
        let measure = |view: &View| {
            let Page { items, next_cursor, revision } = list.read(view)?;
            Ok(Page { items: service::measured(&place, items), next_cursor, revision })
        };
        call.list_in((&place, &self.node), read, list.revision(), measure).await
    }

    async fn get_metadata(&self, request: Request<v1::GetMetadataRequest>) -> Answer<v1::GetMetadataResponse> {
        let (call, v1::GetMetadataRequest { read, namespace, key }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| read::metadata(view, &namespace, &key)).await
    }

    async fn set_metadata(&self, request: Request<v1::SetMetadataRequest>) -> Answer<v1::WriteResponse> {
        let (call, request) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let v1::SetMetadataRequest { attempt, namespace, key, metadata_json, merge, if_attributes_revision } = request;
        let (caller, how) = (call.caller(attempt)?, (merge.unwrap_or(true), if_attributes_revision));
        let value = (namespace.as_str(), key.as_str());
        Ok(self.written(service::set_attributes(&place, caller, value, &metadata_json, how).await?))
    }

    async fn history(&self, request: Request<v1::StorageHistoryRequest>) -> Answer<v1::StorageHistoryResponse> {
        let (call, v1::StorageHistoryRequest { read, namespace, key, before }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| read::history(view, &namespace, &key, before)).await
    }

    async fn restore(&self, request: Request<v1::StorageRestoreRequest>) -> Answer<v1::StorageSetResponse> {
        let (call, request) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let v1::StorageRestoreRequest { attempt, namespace, key, as_of_revision, condition: only_if } = request;
        let (caller, what) = (call.caller(attempt)?, (as_of_revision, condition(only_if)?));
        let (revision, version) = service::restore(&place, caller, (&namespace, &key), what).await?;
        Ok(Response::new(v1::StorageSetResponse { revision, leader_id: self.node.id(), version }))
    }

    async fn clear(&self, request: Request<v1::StorageClearRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::StorageClearRequest { attempt, namespace }) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let caller = call.caller(attempt)?;
        Ok(self.written(service::clear(&place, caller, namespace.as_deref()).await?))
    }

    async fn get_status(&self, request: Request<v1::StorageStatusRequest>) -> Answer<v1::StorageStatusResponse> {
        let (call, v1::StorageStatusRequest { read }) = Call::open(request)?;
        let place = call.place(&self.node).await?;
        let (status, stamp) = service::status(&place, freshness(&call, read)).await?;
        Ok(Response::new((read_header(stamp, self.node.id()), status).into()))
    }

    async fn begin_transaction(
        &self,
        request: Request<v1::BeginTransactionRequest>,
    ) -> Answer<v1::BeginTransactionResponse> {
        let (call, v1::BeginTransactionRequest { isolation: level, timeout_ms }) = Call::open(request)?;
        let options = Options { isolation: isolation(level)?, timeout_ms };
        let begun = self.transactions.begin(self.node.as_ref(), &call.principal, options, call.deadline).await?;
        Ok(Response::new((self.node.id(), begun).into()))
    }

    async fn commit(&self, request: Request<v1::CommitTransactionRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::CommitTransactionRequest { attempt, transaction }) = Call::open(request)?;
        let caller = call.caller(attempt)?;
        Ok(self.written(self.transactions.commit(self.node.as_ref(), caller, &transaction).await?))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackTransactionRequest>,
    ) -> Answer<v1::RollbackTransactionResponse> {
        let (call, v1::RollbackTransactionRequest { transaction }) = Call::open(request)?;
        self.transactions.rollback(self.node.as_ref(), call.caller(None)?, &transaction).await?;
        Ok(Response::new(v1::RollbackTransactionResponse {}))
    }
}
