//! Watches: a stream each.
//!
//! Who watches, and whether he may, is found out when it begins and again before each message ([`Reader::may_go_on`]): a token
//! that was taken back ends the watch with the next message, or mark of progress. What is granted on a collection the watch asks
//! for itself.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::{StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status};

use super::{Call, gate::Credentials, principal_of};
use crate::{
    Error, Result,
    environment::net::Connection,
    limits,
    model::Principal,
    node::Node,
    proto::{v1, v1::watch_server},
    security::{Action, Policy, decide, matrix},
    service,
};

/// How the call is called.
pub(super) const PATH: &str = "/meshstore.v1.Watch/Watch";
/// When a caller that found all places of its connection taken should come again, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// The `Watch` service.
pub(super) struct Watch(pub(super) Arc<Node>);

/// Messages on their way to a watcher.
type Messages = BoxStream<'static, Result<v1::WatchResponse, Status>>;

#[tonic::async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = Messages;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Messages>, Status> {
        let place = Place::take(&request)?;
        let reader = Reader::of(&request)?;
        let (call, request) = Call::open(request)?;
        let watch = service::watch::Watch::open(&self.0, &reader.principal, request.try_into()?, call.deadline).await?;
        let messages = futures_util::stream::unfold(Some((watch, reader, place)), |open| async {
            let (mut watch, reader, place) = open?;
            let told = match watch.next().await {
                Ok(told) => reader.may_go_on().map(|()| told),
                Err(error) => Err(error),
            };
            // After an error nothing more comes.
            Some(match told {
                Ok(told) => (Ok(told.into()), Some((watch, reader, place))),
                Err(error) => (Err(error.into()), None),
            })
        });
        Ok(Response::new(messages.boxed()))
    }
}

/// Who watches, and by which rules.
struct Reader {
    principal: Principal,
    /// By what he was known; `None`: nobody is.
    credentials: Option<Credentials>,
    action: Action,
    policy: Policy,
}

impl Reader {
    fn of<T>(request: &Request<T>) -> Result<Self> {
        let action = matrix::action(PATH).ok_or_else(|| Error::Unexpected(format!("{PATH} is not listed")))?;
        let policy = request.extensions().get::<Policy>().copied().unwrap_or(Policy::Known);
        let credentials = request.extensions().get().cloned();
        Ok(Self { principal: principal_of(request.extensions()), credentials, action, policy })
    }

    /// Whether the caller may still be told something. Errors: `PermissionDenied`; `Unauthenticated`.
    fn may_go_on(&self) -> Result<()> {
        if let Some(credentials) = &self.credentials
            && credentials.authenticate()? != self.principal
        {
            return Err(Error::Unauthenticated("the watch was begun by somebody else".into()));
        }
        let allowed = decide(&self.principal, self.action, self.policy);
        allowed.map_err(|denied| Error::PermissionDenied(denied.to_string()))
    }
}

/// A watch's place among those of its connection.
struct Place(Arc<AtomicUsize>);

impl Place {
    /// Errors: `ResourceExhausted`.
    fn take<T>(request: &Request<T>) -> Result<Self> {
        let watches = request.extensions().get::<Connection>().map(|connection| Arc::clone(&connection.watches));
        let place = Self(watches.unwrap_or_default());
        if place.0.fetch_add(1, SeqCst) >= limits::WATCHES_PER_CONNECTION {
            let most = limits::WATCHES_PER_CONNECTION;
            let reason = format!("this connection has {most} watches, as many as it may; use another");
            return Err(Error::ResourceExhausted { reason, retry_after_ms: RETRY_AFTER_MS });
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
