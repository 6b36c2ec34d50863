//! A write that arrives at a follower goes on to the leader: the whole call, as it came, not decoded.
//!
//! On the client listener [`ForwardLayer`] stands before the services. On the peer listener the same services
//! stand behind the identity gate and [`AcceptForwarded`], which tells them the principal that the first node
//! verified. There a call is never passed on again: a node that is no longer the leader answers so, with
//! the leader that it knows.
//!
//! Nothing is retried here, since only the client knows whether its call may be repeated. What is certain is
//! said: a call of which not one byte of the message was handed to the connection was not applied; of any
//! other that has no answer the outcome is unknown.

mod body;
mod checksum;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    TryFutureExt,
    future::{BoxFuture, Either, MapOk, ready},
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};
use tokio::time::Instant;
use tonic::{Status, body::Body, transport::Channel};
use tower::{Layer, Service, ServiceExt};

use self::{
    body::{Answer, Passed, Sent},
    checksum::{CALL, Checked, Checksum, Summed, have_status},
};
use super::{TIMEOUT, time_allowed, transaction::TRANSACTION};
use crate::{
    error::Error,
    limits,
    model::Principal,
    raft::{
        network::{Lane, Peers, identity},
        peer::Caller,
        types::{Member, NodeId},
    },
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who called, as the node verified that received the call from its caller. An extension of calls that
/// arrive on the peer listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The principal.
    pub principal: Principal,
}

/// On a call that is passed on: the principal.
const FORWARDED: HeaderName = HeaderName::from_static("x-meshstore-forwarded");
/// Everything in front of a message: gRPC's flag and length.
pub(super) const FRAME_BYTES: usize = 5;

/// The one call that is a stream; it passes through this node as it comes.
const LARGE: &str = "/meshstore.v1.Mesh/StoreLargeMessage";
/// The most that such a call may take: the content, and around each chunk its number, sum and lengths.
const LARGE_BYTES: usize = limits::LARGE_MESSAGE_BYTES + limits::MESSAGE_CHUNKS * 64 + limits::CLIENT_DECODE_BYTES;

/// The methods that only a leader can serve; as are all calls of a transaction, which it keeps.
const WRITES: [&str; 75] = [
    "/meshstore.v1.Mesh/StoreMessage",
    "/meshstore.v1.Mesh/DeleteMessage",
    LARGE,
    "/meshstore.v1.Mesh/SetRetention",
    "/meshstore.v1.Mesh/DeleteRetention",
    "/meshstore.v1.Mesh/PutState",
    "/meshstore.v1.Mesh/DeleteState",
    "/meshstore.v1.Mesh/SaveNodeState",
    "/meshstore.v1.Mesh/DeleteNodeState",
    "/meshstore.v1.Mesh/SaveRoute",
    "/meshstore.v1.Mesh/DeleteRoute",
    "/meshstore.v1.Mesh/SaveConfig",
    "/meshstore.v1.Mesh/DeleteConfig",
    "/meshstore.v1.Mesh/Transact",
    "/meshstore.v1.Topology/SeedMesh",
    "/meshstore.v1.Topology/JoinMesh",
    "/meshstore.v1.Topology/LeaveMesh",
    "/meshstore.v1.Topology/EvictNode",
    "/meshstore.v1.Topology/ModifyMesh",
    "/meshstore.v1.Topology/DeleteMesh",
    "/meshstore.v1.Topology/ModifyNode",
    "/meshstore.v1.Topology/AddRoute",
    "/meshstore.v1.Topology/ModifyRoute",
    "/meshstore.v1.Topology/DeleteRoute",
    "/meshstore.v1.Topology/AddRegion",
    "/meshstore.v1.Topology/ModifyRegion",
    "/meshstore.v1.Topology/DeleteRegion",
    "/meshstore.v1.Topology/Apply",
    "/meshstore.v1.Topology/Confirm",
    "/meshstore.v1.Topology/Rollback",
    "/meshstore.v1.Topology/SetLocalIdentity",
    "/meshstore.v1.Topology/ReportApplied",
    "/meshstore.v1.Storage/Set",
    "/meshstore.v1.Storage/Delete",
    "/meshstore.v1.Storage/SetMany",
    "/meshstore.v1.Storage/DeleteMany",
    "/meshstore.v1.Storage/CreateIndex",
    "/meshstore.v1.Storage/DropIndex",
    "/meshstore.v1.Storage/CreateNamespace",
    "/meshstore.v1.Storage/ModifyNamespace",
    "/meshstore.v1.Storage/DeleteNamespace",
    "/meshstore.v1.Storage/SetMetadata",
    "/meshstore.v1.Storage/Restore",
    "/meshstore.v1.Storage/Clear",
    "/meshstore.v1.Storage/BeginTransaction",
    "/meshstore.v1.Storage/Commit",
    "/meshstore.v1.Storage/Rollback",
    "/meshstore.v1.Broker/RequestCollection",
    "/meshstore.v1.Broker/DropCollection",
    "/meshstore.v1.Broker/Insert",
    "/meshstore.v1.Broker/Update",
    "/meshstore.v1.Broker/FindAndUpdate",
    "/meshstore.v1.Broker/Replace",
    "/meshstore.v1.Broker/DeleteDocuments",
    "/meshstore.v1.Broker/GrantAccess",
    "/meshstore.v1.Broker/RevokeAccess",
    "/meshstore.v1.Broker/ApplyManifest",
    "/meshstore.v1.Broker/DecideAccessRequest",
    "/meshstore.v1.Lease/Grant",
    "/meshstore.v1.Lease/KeepAlive",
    "/meshstore.v1.Lease/Revoke",
    "/meshstore.v1.Lock/Acquire",
    "/meshstore.v1.Lock/Release",
    "/meshstore.v1.ConsensusLog/AppendToRaft",
    "/meshstore.v1.ConsensusLog/AppendEntry",
    "/meshstore.v1.ConsensusLog/DeleteEntries",
    "/meshstore.v1.Session/OpenSession",
    "/meshstore.v1.Session/KeepSession",
    "/meshstore.v1.Session/CloseSession",
    "/meshstore.v1.Cluster/ListMembers",
    "/meshstore.v1.Cluster/AddMember",
    "/meshstore.v1.Cluster/RemoveMember",
    "/meshstore.v1.Cluster/PromoteMember",
    "/meshstore.v1.Cluster/UpdateMember",
    "/meshstore.v1.Cluster/TransferLeadership",
];

/// Who leads, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderView {
    /// This node.
    Me,
    /// Another.
    Other {
        /// Its id.
        id: NodeId,
        /// Where it is reached.
        member: Member,
    },
    /// Nobody, or nobody knows.
    Unknown,
}

/// Knows who leads.
pub trait Leadership: Send + Sync + 'static {
    /// Who leads now. Asked for every write.
    fn leader(&self) -> LeaderView;
}

/// What passing on takes.
pub struct Forward {
    /// Who leads.
    pub leadership: Arc<dyn Leadership>,
    /// The connections to the other nodes.
    pub peers: Arc<Peers>,
    /// The one mapping of errors to statuses.
    pub status: fn(&Error) -> Status,
    /// The principal of a call, as this node has verified it.
    pub principal: fn(&Extensions) -> Principal,
}

/// Passes writes on to the leader, if that is another node. For the client listener.
#[derive(Clone)]
pub struct ForwardLayer(Arc<Forward>);

impl ForwardLayer {
    /// The layer; it comes after the one that verifies the principal.
    pub fn new(forward: Forward) -> Self {
        Self(Arc::new(forward))
    }
}

impl<S> Layer<S> for ForwardLayer {
    type Service = ForwardService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ForwardService { forward: self.0.clone(), inner }
    }
}

/// A service before which writes are passed on.
#[derive(Clone)]
pub struct ForwardService<S> {
    forward: Arc<Forward>,
    inner: S,
}

type Local<F, R> = MapOk<F, fn(Response<R>) -> Response<Body>>;

impl<S, B, R> Service<Request<B>> for ForwardService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Local<S::Future, R>, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if (WRITES.contains(&request.uri().path()) || request.headers().contains_key(TRANSACTION))
            && let LeaderView::Other { id, member } = self.forward.leadership.leader()
        {
            let forward = self.forward.clone();
            return Either::Right(Box::pin(async move {
                let answer = forward.pass_on(id, &member, request).await;
                Ok(answer.unwrap_or_else(|error| (forward.status)(&error).into_http()))
            }));
        }
        let erase: fn(Response<R>) -> Response<Body> = |response| response.map(Body::new);
        Either::Left(self.inner.call(request).map_ok(erase))
    }
}

impl Forward {
    /// Passes a call on, and its answer back. An `Err` is this node's own answer.
    async fn pass_on<B>(&self, id: NodeId, member: &Member, request: Request<B>) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        tracing::debug!(leader = id, "passed on to the leader");
        let unavailable = |reason: String| Error::Unavailable { reason, leader: Some(member.client_address.clone()) };
        let (mut parts, body) = request.into_parts();
        // As the services see it, too. What this node has spent so far is too little to be counted.
        let time = time_allowed(&parts.headers)?;
        let deadline = Instant::now() + time;
        let principal = (self.principal)(&parts.extensions).to_string();
        // What this node knows of its own connection means nothing on the next.
        parts.extensions = Extensions::new();
        parts.version = Version::HTTP_2;
        self.address(&mut parts.headers, id, member, &principal, time)?;
        let number = HeaderValue::from(self.peers.next_call());
        parts.headers.insert(CALL, number.clone());
        let (sent, sum) = (Sent::default(), Checksum::of_call(parts.uri.path(), principal.as_bytes()));
        let limit = if parts.uri.path() == LARGE { LARGE_BYTES } else { limits::CLIENT_DECODE_BYTES + FRAME_BYTES };
        let body = Passed::new(body, limit, sum, sent.clone());
        let request = Request::from_parts(parts, Body::new(body));

        let channel = self.peers.channel(id, member, Lane::Forward).map_err(|error| unavailable(error.to_string()))?;
        let error = match tokio::time::timeout_at(deadline, call(channel, request)).await {
            Ok(Ok(mut response)) => {
                let lost = Error::Unknown(format!("the answer of the leader, node {id}, broke off or was damaged"));
                if !have_status(response.headers()) {
                    let lost = (self.status)(&lost);
                    let peers = self.peers.clone();
                    let doubt = Box::new(move || peers.let_go(id, Lane::Forward));
                    return Ok(response.map(|body| Body::new(Answer::new(body, number, lost, doubt))));
                }
                let whole = Checksum::default().take(response.headers_mut(), Some(&number));
                if whole == Some(true) {
                    return Ok(response);
                }
                self.peers.let_go(id, Lane::Forward);
                if whole == Some(false) {
                    return Err(lost);
                }
                // It comes before the leader knows that this call was passed on. Or it is another's, and its sum was lost.
                let refused = Status::from_header_map(response.headers());
                let refused = refused.as_ref().map_or("", Status::message);
                let text = format!("an answer of the leader, node {id}, that cannot be checked: {refused}");
                return Err(Error::Unknown(text));
            }
            Ok(Err(error)) if !is_timeout(&error) => error,
            _ => {
                return Err(Error::DeadlineExceeded {
                    deadline_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
                    waiting_for: format!("the leader, node {id}"),
                    may_have_applied: sent.any(),
                });
            }
        };
        if sent.too_much() {
            let rule = format!("must not take more than {} bytes", limit - FRAME_BYTES);
            return Err(Error::invalid("request", "", rule));
        }
        let text = format!("the leader, node {id}, did not answer: {}", chain(&error));
        Err(if sent.any() { Error::Unknown(text) } else { unavailable(text) })
    }

    /// Replaces what the caller said of itself by what this node says of it, and of itself.
    fn address(
        &self,
        headers: &mut HeaderMap,
        id: NodeId,
        member: &Member,
        principal: &str,
        time: Duration,
    ) -> Result<(), Error> {
        let from_strangers: Vec<_> =
            headers.keys().filter(|name| name.as_str().starts_with(identity::PREFIX)).cloned().collect();
        // A caller's secret is for the node that it called; the leader is told the principal instead.
        for name in from_strangers.iter().chain(&[header::AUTHORIZATION, header::HOST, header::CONNECTION]) {
            headers.remove(name);
        }
        self.peers.identity().introduce(id, Some(member.directory)).put(headers);
        let principal = HeaderValue::from_bytes(principal.as_bytes())
            .map_err(|_| Error::PermissionDenied("the caller's name holds control characters".into()))?;
        headers.insert(FORWARDED, principal);
        let time = format!("{}m", time.as_millis().max(1));
        headers.insert(TIMEOUT, HeaderValue::from_str(&time).map_err(|_| Error::invalid(TIMEOUT, time, "a number"))?);
        Ok(())
    }
}

async fn call(channel: Channel, request: Request<Body>) -> Result<Response<Body>, tonic::transport::Error> {
    channel.oneshot(request).await
}

/// Whether the channel's own timer, which reads the same header, was faster than ours.
fn is_timeout(error: &tonic::transport::Error) -> bool {
    sources(error).any(|source| source.is::<tonic::TimeoutExpired>())
}

fn chain(error: &tonic::transport::Error) -> String {
    sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Tells the services of the peer listener who called. It comes after the identity gate, and lets calls of the
/// `Peer` service itself through as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptForwarded;

impl<S> Layer<S> for AcceptForwarded {
    type Service = AcceptService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AcceptService(inner)
    }
}

/// A service that is told who called.
#[derive(Clone)]
pub struct AcceptService<S>(S);

impl<S, B, R> Service<Request<B>> for AcceptService<S>
where
    S: Service<Request<Checked<B>>, Response = Response<R>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<Summed<R>>;
    type Error = S::Error;
    type Future = Either<
        MapOk<S::Future, fn(Response<R>) -> Response<Summed<R>>>,
        BoxFuture<'static, Result<Self::Response, S::Error>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with("/meshstore.v1.Peer/") {
            let plain: fn(Response<R>) -> Response<Summed<R>> = |response| response.map(Summed::plain);
            return Either::Left(self.0.call(request.map(|body| Checked::new(body, None))).map_ok(plain));
        }
        let number = request.headers_mut().remove(CALL);
        match accept(&mut request) {
            Ok(forwarded) => {
                let sum = Checksum::of_call(request.uri().path(), forwarded.principal.to_string().as_bytes());
                request.extensions_mut().insert(forwarded);
                let answer = self.0.call(request.map(|body| Checked::new(body, Some(sum))));
                Either::Right(Box::pin(answer.map_ok(move |response| sealed(response, number))))
            }
            Err(status) => Either::Right(Box::pin(ready(Ok(sealed(status.into_http(), number))))),
        }
    }
}

/// An answer to a call that was passed on with this number.
fn sealed<R>(response: Response<R>, number: Option<HeaderValue>) -> Response<Summed<R>> {
    let (mut parts, body) = response.into_parts();
    if have_status(&parts.headers) {
        Checksum::default().put(&mut parts.headers, number);
        return Response::from_parts(parts, Summed::plain(body));
    }
    Response::from_parts(parts, Summed::new(body, number))
}

fn accept<B>(request: &mut Request<B>) -> Result<Forwarded, Status> {
    if request.extensions().get::<Caller>().is_none() {
        return Err(Status::permission_denied("only nodes of this cluster may pass calls on"));
    }
    let Some(value) = request.headers_mut().remove(FORWARDED) else {
        return Err(Status::permission_denied("clients call the client address of a node, not its peer address"));
    };
    let principal = value.to_str().ok().and_then(|text| text.parse().ok());
    let principal = principal.ok_or_else(|| Status::permission_denied(format!("{FORWARDED} is malformed")))?;
    Ok(Forwarded { principal })
}

#[cfg(test)]
mod tests;
