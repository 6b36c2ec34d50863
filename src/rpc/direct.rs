//! Calls of a stream that reach their handlers without gRPC around them.
//!
//! A call of a stream has its message whole, and its answer is wanted whole. So the methods that are called most need none of
//! tonic's routes, bodies and frames: the message is decoded, the handler called, its answer encoded. What is in front of the
//! handlers (who may call, how much at once, where to) is the same for all. Which methods these are is a matter of speed alone.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use prost::Message;
use tonic::{Request, Response, Status, body::Body, metadata::MetadataMap, service::Routes};
use tower::Service;

use super::{mesh::Mesh, storage::Storage};
use crate::{
    limits,
    proto::v1::{mesh_server::Mesh as _, storage_server::Storage as _},
};

/// The message of a call of a stream. An extension of the request, whose body holds the same.
#[derive(Clone)]
pub(super) struct Asked(pub(super) Bytes);

/// The answer to a call that was made directly. An extension of the response, whose body is empty.
#[derive(Clone)]
pub(super) struct Answered(pub(super) Bytes);

type Answer = Result<http::Response<Body>, Infallible>;
type Handler = Box<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The services, of which calls of a stream are made directly where that can be.
#[derive(Clone)]
pub struct Direct {
    handlers: Arc<HashMap<&'static str, Handler>>,
    routes: Routes,
}

/// The handler of a method.
macro_rules! method {
    ($service:ident.$method:ident) => {{
        let service = Arc::clone($service);
        unary(move |request| {
            let service = Arc::clone(&service);
            async move { service.$method(request).await }
        })
    }};
}

impl Direct {
    /// These services; `routes` leads to all of them.
    pub(super) fn new(mesh: &Arc<Mesh>, storage: &Arc<Storage>, routes: Routes) -> Self {
        let handlers = HashMap::from([
            ("/meshstore.v1.Mesh/StoreMessage", method!(mesh.store_message)),
            ("/meshstore.v1.Mesh/GetMessage", method!(mesh.get_message)),
            ("/meshstore.v1.Mesh/PutState", method!(mesh.put_state)),
            ("/meshstore.v1.Mesh/GetState", method!(mesh.get_state)),
            ("/meshstore.v1.Mesh/DeleteState", method!(mesh.delete_state)),
            ("/meshstore.v1.Mesh/SaveNodeState", method!(mesh.save_node_state)),
            ("/meshstore.v1.Mesh/GetNodeState", method!(mesh.get_node_state)),
            ("/meshstore.v1.Mesh/Transact", method!(mesh.transact)),
            ("/meshstore.v1.Storage/Get", method!(storage.get)),
            ("/meshstore.v1.Storage/Set", method!(storage.set)),
            ("/meshstore.v1.Storage/Delete", method!(storage.delete)),
            ("/meshstore.v1.Storage/Has", method!(storage.has)),
        ]);
        Self { handlers: Arc::new(handlers), routes }
    }
}

fn unary<Q, A, F>(call: impl Fn(Request<Q>) -> F + Send + Sync + 'static) -> Handler
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    Box::new(move |request| {
        let (metadata, extensions, message) = request.into_parts();
        let answer = decoded(message).map(|message| call(Request::from_parts(metadata, extensions, message)));
        Box::pin(async move {
            let answer = match answer {
                Ok(answer) => answer.await.and_then(|answer| encoded(&answer.into_inner())),
                Err(status) => Err(status),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    })
}

fn decoded<Q: Message + Default>(message: Bytes) -> Result<Q, Status> {
    check_size("request", message.len())?;
    Q::decode(message).map_err(|error| Status::internal(error.to_string()))
}

fn encoded(answer: &impl Message) -> Result<http::Response<Body>, Status> {
    check_size("answer", answer.encoded_len())?;
    let mut response = http::Response::new(Body::empty());
    response.extensions_mut().insert(Answered(answer.encode_to_vec().into()));
    Ok(response)
}

/// The bound that tonic keeps for calls that come alone.
fn check_size(what: &str, bytes: usize) -> Result<(), Status> {
    let most = limits::CLIENT_DECODE_BYTES;
    if bytes <= most {
        return Ok(());
    }
    Err(Status::out_of_range(format!("the {what} has {bytes} bytes, more than {most}")))
}

impl Service<http::Request<Body>> for Direct {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<BoxFuture<'static, Answer>, <Routes as Service<http::Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(Asked(message)) = request.extensions_mut().remove()
            && let Some(handler) = self.handlers.get(request.uri().path())
        {
            let (parts, _) = request.into_parts();
            let metadata = MetadataMap::from_headers(parts.headers);
            return Either::Left(handler(Request::from_parts(metadata, parts.extensions, message)));
        }
        Either::Right(self.routes.call(request))
    }
}
