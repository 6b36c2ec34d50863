//! Leases: a handler for each call.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Call;
use crate::{
    layers::lease,
    model::mesh::Page,
    node::Node,
    proto::{v1, v1::lease_server},
    service::lease as service,
    state::View,
};

/// The `Lease` service.
pub(super) struct Lease {
    node: Arc<Node>,
}

impl Lease {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl lease_server::Lease for Lease {
    async fn grant(&self, request: Request<v1::GrantLeaseRequest>) -> Answer<v1::GrantLeaseResponse> {
        let (call, v1::GrantLeaseRequest { attempt, ttl_ms, id }) = Call::open(request)?;
        let id = Some(id).filter(|id| *id > 0);
        let chance = || self.node.id_parts().1;
        let (revision, id) = service::grant(self.node.as_ref(), call.caller(attempt)?, (id, chance), ttl_ms).await?;
        Ok(Response::new(v1::GrantLeaseResponse { revision, leader_id: self.node.id(), id }))
    }

    async fn keep_alive(&self, request: Request<v1::KeepAliveRequest>) -> Answer<v1::KeepAliveResponse> {
        let (call, v1::KeepAliveRequest { ids }) = Call::open(request)?;
        let (revision, kept) = service::keep_alive(self.node.as_ref(), call.caller(None)?, &ids).await?;
        Ok(Response::new(v1::KeepAliveResponse { revision, leader_id: self.node.id(), ..kept.into() }))
    }

    async fn revoke(&self, request: Request<v1::RevokeLeaseRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::RevokeLeaseRequest { attempt, id }) = Call::open(request)?;
        call.write(&self.node, attempt, lease::revoke(id)?).await
    }

    async fn show(&self, request: Request<v1::ShowLeaseRequest>) -> Answer<v1::ShowLeaseResponse> {
        let (call, v1::ShowLeaseRequest { read, id }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| lease::show(view, id, self.node.log_time_ms())).await
    }

    async fn list(&self, request: Request<v1::ListLeasesRequest>) -> Answer<v1::ListLeasesResponse> {
        let (call, v1::ListLeasesRequest { read, page }) = Call::open(request)?;
        let list = lease::list(&page.into())?;
        let read_page = |view: &View| -> crate::Result<Page<_>> { list.read(view, self.node.log_time_ms()) };
        call.list(&self.node, read, list.revision(), read_page).await
    }
}
