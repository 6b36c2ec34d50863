//! Before every client call: who is it ([`Authenticate`]), and may it do that ([`Authorise`])?
//!
//! On the client listener both stand before the layer that passes calls on, so nothing of a stranger goes further than
//! this node. On the peer listener the caller is who the first node says it is, and the leader decides again. A handler
//! finds the caller in its request, and cannot be reached by a way that has not asked.
//!
//! A node without TLS knows no callers and asks nothing: each layer is one branch then.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use tonic::Status;
use tower::{Layer, Service};

use super::{goes_on, health, principal_of, transaction};
use crate::{
    environment::net::{Connection, Proof},
    error::Error,
    model::Principal,
    proto::lease::FENCE,
    security::{Access, Action, Policy, Security, Surface, decide, matrix},
};

/// What a call must pass.
pub trait Gate {
    /// Lets a call through, with what is known of it from now on; or says what the caller is told.
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Status>;
}

/// Finds out who calls, and leaves it in the call. For the client listener.
#[derive(Clone)]
pub struct Authenticate(Option<Arc<Security>>);

impl Authenticate {
    /// With what the node knows of callers; `None`: it knows nobody.
    pub fn new(security: Option<Arc<Security>>) -> Self {
        Self(security)
    }
}

impl Gate for Authenticate {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Status> {
        let Some(security) = &self.0 else { return Ok(()) };
        if request.uri().path().starts_with(health::PATHS) {
            return Ok(());
        }
        let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
        let principal = security.authenticate(&connection.proof, request.headers())?;
        request.extensions_mut().insert(principal);
        if goes_on(request.uri().path()) {
            let headers = request.headers().get_all(AUTHORIZATION).iter();
            let headers = headers.map(|header| (AUTHORIZATION, header.clone())).collect();
            let credentials = Credentials { security: Arc::clone(security), proof: connection.proof, headers };
            request.extensions_mut().insert(credentials);
        }
        Ok(())
    }
}

/// By what somebody was known who is answered for long. An extension of such calls.
#[derive(Clone)]
pub(super) struct Credentials {
    security: Arc<Security>,
    proof: Proof,
    headers: HeaderMap,
}

impl Credentials {
    /// Who that is by now. Errors: `Unauthenticated`.
    pub(super) fn authenticate(&self) -> Result<Principal, Error> {
        self.security.authenticate(&self.proof, &self.headers)
    }
}

/// Asks whether the caller may do what it calls for.
#[derive(Clone, Copy)]
pub struct Authorise(Policy);

impl Authorise {
    /// With the rules that hold.
    pub fn new(policy: Policy) -> Self {
        Self(policy)
    }
}

impl Gate for Authorise {
    fn check<B>(&self, request: &mut Request<B>) -> Result<(), Status> {
        // Who answers for long asks again.
        request.extensions_mut().insert(self.0);
        check_fence(request)?;
        if self.0 == Policy::Open {
            return Ok(());
        }
        let path = request.uri().path();
        if path.starts_with(health::PATHS) {
            return Ok(());
        }
        let Some(action) = matrix::action(path) else {
            return Err(Status::unimplemented(format!("there is no {path}")));
        };
        let principal = principal_of(request.extensions());
        Ok(decide(&principal, action, self.0).map_err(|denied| {
            tracing::debug!(%principal, path, %denied, "denied");
            Error::PermissionDenied(denied.to_string())
        })?)
    }
}

/// That a call which carries a fence heeds it. Errors: `InvalidArgument`.
fn check_fence<B>(request: &Request<B>) -> Result<(), Error> {
    if !request.headers().contains_key(FENCE) {
        return Ok(());
    }
    let path = request.uri().path();
    let heeds = |action: Action| action.access == Access::Write && action.surface != Surface::Session;
    if matrix::action(path).is_some_and(heeds) && !transaction::WRITE_NOTHING.contains(&path) {
        return Ok(());
    }
    Err(Error::invalid(
        "fence",
        "",
        "is for writes; neither reads nor sessions, nor the beginning of a transaction, nor changes of the cluster take one",
    ))
}

impl<S> Layer<S> for Authenticate {
    type Service = Gated<Self, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(self.clone(), inner)
    }
}

impl<S> Layer<S> for Authorise {
    type Service = Gated<Self, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(*self, inner)
    }
}

/// A service behind a gate.
#[derive(Clone)]
pub struct Gated<G, S> {
    gate: G,
    inner: S,
}

impl<G, S> Gated<G, S> {
    pub(super) fn new(gate: G, inner: S) -> Self {
        Self { gate, inner }
    }
}

impl<G, S, B, R> Service<Request<B>> for Gated<G, S>
where
    G: Gate,
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.gate.check(&mut request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::{Code, body::Body};
    use tower::ServiceExt;

    use super::*;
    use crate::model::Principal;

    async fn call(policy: Policy, principal: Option<Principal>, path: &str) -> Code {
        let service = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let mut request = Request::builder().uri(format!("http://node{path}")).body(Body::empty()).unwrap();
        request.extensions_mut().extend(
            principal
                .map(|principal| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(principal);
                    extensions
                })
                .unwrap_or_default(),
        );
        let response = Authorise::new(policy).layer(service).oneshot(request).await.unwrap();
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn what_nobody_vouched_for_or_nobody_listed_goes_nowhere() {
        let (put, peer) = ("/meshstore.v1.Mesh/PutState", "/meshstore.v1.Peer/Append");
        let ada = || Some(Principal::Person("ada".into()));
        assert_eq!(call(Policy::Open, None, put).await, Code::Ok);
        assert_eq!(call(Policy::Known, None, put).await, Code::PermissionDenied);
        assert_eq!(call(Policy::Known, Some(Principal::Anonymous), put).await, Code::PermissionDenied);
        assert_eq!(call(Policy::Known, ada(), put).await, Code::Ok);
        assert_eq!(call(Policy::Known, ada(), peer).await, Code::PermissionDenied);
        assert_eq!(call(Policy::Known, ada(), "/meshstore.v1.Mesh/DropEverything").await, Code::Unimplemented);
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(call(Policy::Known, None, "/grpc.health.v1.Health/Check").await, Code::Ok);
        assert_eq!(call(Policy::Known, None, reflection).await, Code::PermissionDenied);
        assert_eq!(call(Policy::Known, ada(), reflection).await, Code::Ok);
    }
}
