//! Locks: a handler for each call.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Call;
use crate::{
    layers::lock::{self, Claim},
    model::ReadMode,
    node::Node,
    proto::{convert::read_header, v1, v1::lock_server},
    service::{self, Decision},
};

/// The `Lock` service.
pub(super) struct Lock {
    node: Arc<Node>,
}

impl Lock {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl lock_server::Lock for Lock {
    async fn acquire(&self, request: Request<v1::AcquireLockRequest>) -> Answer<v1::AcquireLockResponse> {
        let (call, v1::AcquireLockRequest { name, lease, value, only_if_free }) = Call::open(request)?;
        let claim = Claim { name, lease, value, only_if_free };
        let (revision, token) = service::lock::acquire(&self.node, call.caller(None)?, &claim).await?;
        let (node_id, token) = (self.node.id(), token.unwrap_or_default());
        Ok(Response::new(v1::AcquireLockResponse { revision, node_id, token }))
    }

    async fn release(&self, request: Request<v1::ReleaseLockRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::ReleaseLockRequest { attempt, name, lease, end_lease }) = Call::open(request)?;
        let decide = |view: &_| Ok(Decision { write: Some(lock::release(view, &name, lease, end_lease)?), found: () });
        let revision = service::change(self.node.as_ref(), call.caller(attempt)?, decide).await?.revision;
        Ok(Response::new(v1::WriteResponse { revision, leader_id: self.node.id() }))
    }

    async fn show(&self, request: Request<v1::ShowLockRequest>) -> Answer<v1::ShowLockResponse> {
        let (call, v1::ShowLockRequest { read, name }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| lock::show(view, &name)).await
    }

    async fn observe(&self, request: Request<v1::ObserveLockRequest>) -> Answer<v1::ShowLockResponse> {
        let (call, v1::ObserveLockRequest { read, name, known_token }) = Call::open(request)?;
        let freshness = (ReadMode::from(read), call.deadline);
        let (shown, stamp) = service::lock::observe(&self.node, (&name, known_token), freshness).await?;
        Ok(Response::new((read_header(stamp, self.node.id()), shown).into()))
    }
}
