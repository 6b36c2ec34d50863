//! Mesh storage: a handler for each call, all of one pattern.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::{
    Call,
    large::{self, Frames, Uploads},
};
use crate::{
    layers::{
        Decided,
        mesh::{config, message, node_state, retention, route, state, transaction},
    },
    model::{features, mesh::MessageFilter},
    node::Node,
    proto::{convert::required, v1, v1::mesh_server},
};

/// The `Mesh` service.
pub(super) struct Mesh {
    node: Arc<Node>,
    uploads: Uploads,
}

impl Mesh {
    pub(super) fn new(node: Arc<Node>, uploads: Uploads) -> Self {
        Self { node, uploads }
    }
}

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl mesh_server::Mesh for Mesh {
    async fn store_message(&self, request: Request<v1::StoreMessageRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::StoreMessageRequest { attempt, message }) = Call::open(request)?;
        let message = required("message", message)?;
        call.write(&self.node, attempt, message::store(message.into())?).await
    }

    async fn get_message(&self, request: Request<v1::GetMessageRequest>) -> Answer<v1::GetMessageResponse> {
        let (call, v1::GetMessageRequest { read, id }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| message::get(view, &id)).await
    }

    async fn delete_message(&self, request: Request<v1::DeleteMessageRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteMessageRequest { attempt, id }) = Call::open(request)?;
        call.write(&self.node, attempt, message::delete(&id)?).await
    }

    async fn list_messages(&self, request: Request<v1::ListMessagesRequest>) -> Answer<v1::ListMessagesResponse> {
        let (call, request) = Call::open(request)?;
        let list = message::list(&MessageFilter::from(&request), &request.page.into())?;
        call.list(&self.node, request.read, list.revision(), |view| list.read(view)).await
    }

    async fn store_large_message(
        &self,
        request: Request<Streaming<v1::StoreLargeMessageRequest>>,
    ) -> Answer<v1::WriteResponse> {
        self.uploads.store(request).await
    }

    type ReadLargeMessageStream = Frames;

    async fn read_large_message(&self, request: Request<v1::ReadLargeMessageRequest>) -> Answer<Frames> {
        large::read(&self.node, request).await
    }

    async fn set_retention(&self, request: Request<v1::SetRetentionRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::SetRetentionRequest { attempt, mailbox, retention }) = Call::open(request)?;
        let write = retention::set(&mailbox, required("retention", retention)?.into())?;
        self.node.require(features::LARGE_MESSAGES, call.deadline).await?;
        call.write(&self.node, attempt, write).await
    }

    async fn get_retention(&self, request: Request<v1::GetRetentionRequest>) -> Answer<v1::GetRetentionResponse> {
        let (call, v1::GetRetentionRequest { read, mailbox }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| retention::get(view, &mailbox)).await
    }

    async fn delete_retention(&self, request: Request<v1::DeleteRetentionRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteRetentionRequest { attempt, mailbox }) = Call::open(request)?;
        call.write(&self.node, attempt, retention::delete(&mailbox)?).await
    }

    async fn list_retention(&self, request: Request<v1::ListRetentionRequest>) -> Answer<v1::ListRetentionResponse> {
        let (call, v1::ListRetentionRequest { read, page }) = Call::open(request)?;
        let list = retention::list(&page.into())?;
        call.list(&self.node, read, list.revision(), |view| list.read(view)).await
    }

    async fn put_state(&self, request: Request<v1::PutStateRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::PutStateRequest { attempt, key, value, lease }) = Call::open(request)?;
        call.write(&self.node, attempt, state::put(&key, value)?.attached_to(lease)?).await
    }

    async fn get_state(&self, request: Request<v1::GetStateRequest>) -> Answer<v1::GetStateResponse> {
        let (call, v1::GetStateRequest { read, key }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| Ok((key.clone(), state::get(view, &key)?))).await
    }

    async fn delete_state(&self, request: Request<v1::DeleteStateRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteStateRequest { attempt, key }) = Call::open(request)?;
        call.write(&self.node, attempt, state::delete(&key)?).await
    }

    async fn list_state(&self, request: Request<v1::ListStateRequest>) -> Answer<v1::ListStateResponse> {
        let (call, v1::ListStateRequest { read, prefix, page }) = Call::open(request)?;
        let list = state::list(&prefix, &page.into())?;
        call.list(&self.node, read, list.revision(), |view| list.read(view)).await
    }

    async fn save_node_state(&self, request: Request<v1::SaveNodeStateRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::SaveNodeStateRequest { attempt, node_id, state_json, lease }) = Call::open(request)?;
        call.write(&self.node, attempt, node_state::save(&node_id, state_json)?.attached_to(lease)?).await
    }

    async fn get_node_state(&self, request: Request<v1::GetNodeStateRequest>) -> Answer<v1::GetNodeStateResponse> {
        let (call, v1::GetNodeStateRequest { read, node_id }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| Ok((node_id.clone(), node_state::get(view, &node_id)?))).await
    }

    async fn delete_node_state(&self, request: Request<v1::DeleteNodeStateRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteNodeStateRequest { attempt, node_id }) = Call::open(request)?;
        call.write(&self.node, attempt, node_state::delete(&node_id)?).await
    }

    async fn list_node_states(
        &self,
        request: Request<v1::ListNodeStatesRequest>,
    ) -> Answer<v1::ListNodeStatesResponse> {
        let (call, v1::ListNodeStatesRequest { read, page }) = Call::open(request)?;
        let list = node_state::list(&page.into())?;
        call.list(&self.node, read, list.revision(), |view| list.read(view)).await
    }

    async fn save_route(&self, request: Request<v1::SaveRouteRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::SaveRouteRequest { attempt, destination, route_json, lease }) = Call::open(request)?;
        call.write(&self.node, attempt, route::save(&destination, route_json)?.attached_to(lease)?).await
    }

    async fn get_route(&self, request: Request<v1::GetRouteRequest>) -> Answer<v1::GetRouteResponse> {
        let (call, v1::GetRouteRequest { read, destination }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| Ok((destination.clone(), route::get(view, &destination)?))).await
    }

    async fn delete_route(&self, request: Request<v1::DeleteRouteRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteRouteRequest { attempt, destination }) = Call::open(request)?;
        call.write(&self.node, attempt, route::delete(&destination)?).await
    }

    async fn list_routes(&self, request: Request<v1::ListRoutesRequest>) -> Answer<v1::ListRoutesResponse> {
        let (call, v1::ListRoutesRequest { read, prefix, page }) = Call::open(request)?;
        let list = route::list(&prefix, &page.into())?;
        call.list(&self.node, read, list.revision(), |view| list.read(view)).await
    }

    async fn save_config(&self, request: Request<v1::SaveConfigRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::SaveConfigRequest { attempt, key, value_json, lease }) = Call::open(request)?;
        call.write(&self.node, attempt, config::save(&key, value_json)?.attached_to(lease)?).await
    }

    async fn get_config(&self, request: Request<v1::GetConfigRequest>) -> Answer<v1::GetConfigResponse> {
        let (call, v1::GetConfigRequest { read, key }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| Ok((key.clone(), config::get(view, &key)?))).await
    }

    async fn delete_config(&self, request: Request<v1::DeleteConfigRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteConfigRequest { attempt, key }) = Call::open(request)?;
        call.write(&self.node, attempt, config::delete(&key)?).await
    }

    async fn list_config_keys(
        &self,
        request: Request<v1::ListConfigKeysRequest>,
    ) -> Answer<v1::ListConfigKeysResponse> {
        let (call, v1::ListConfigKeysRequest { read, prefix, page }) = Call::open(request)?;
        let list = config::list_keys(&prefix, &page.into())?;
        call.list(&self.node, read, list.revision(), |view| list.read(view)).await
    }

    async fn transact(&self, request: Request<v1::TransactRequest>) -> Answer<v1::TransactResponse> {
        let (call, mut request) = Call::open(request)?;
        let attempt = request.attempt.take();
        let write = transaction::write(request.try_into()?)?;
        let Decided { revision, succeeded } = call.decide(&self.node, attempt, write).await?;
        Ok(Response::new(v1::TransactResponse { revision, leader_id: self.node.id(), succeeded }))
    }
}
