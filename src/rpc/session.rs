//! Sessions: open, keep, close.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Call;
use crate::{
    Error, Result, limits,
    node::Node,
    proto::v1::{
        CloseSessionRequest, CloseSessionResponse, KeepSessionRequest, KeepSessionResponse, OpenSessionRequest,
        OpenSessionResponse, session_server,
    },
};

/// Idle life of a session whose client names none, in milliseconds.
const TTL_DEFAULT_MS: u64 = 60_000;

/// The `Session` service.
pub(super) struct Session {
    node: Arc<Node>,
}

impl Session {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl session_server::Session for Session {
    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let (call, OpenSessionRequest { ttl_ms }) = Call::open(request)?;
        let ttl_ms = checked_ttl(ttl_ms)?;
        let session = self.node.open_session(call.principal, ttl_ms, call.deadline).await?;
        Ok(Response::new(OpenSessionResponse { session, ttl_ms }))
    }

    async fn keep_session(
        &self,
        request: Request<KeepSessionRequest>,
    ) -> Result<Response<KeepSessionResponse>, Status> {
        let (call, KeepSessionRequest { session }) = Call::open(request)?;
        self.node.keep_session(call.principal, checked_session(session)?, call.deadline).await?;
        Ok(Response::new(KeepSessionResponse {}))
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        let (call, CloseSessionRequest { session }) = Call::open(request)?;
        self.node.close_session(call.principal, checked_session(session)?, call.deadline).await?;
        Ok(Response::new(CloseSessionResponse {}))
    }
}

fn checked_ttl(ttl_ms: u64) -> Result<u64> {
    let (least, most) = (limits::SESSION_TTL_MIN_MS, limits::SESSION_TTL_MAX_MS);
    match ttl_ms {
        0 => Ok(TTL_DEFAULT_MS),
        ttl_ms if (least..=most).contains(&ttl_ms) => Ok(ttl_ms),
        _ => Err(Error::invalid("ttl_ms", ttl_ms.to_string(), format!("must be between {least} and {most}, or 0"))),
    }
}

fn checked_session(session: u64) -> Result<u64> {
    if session == 0 { Err(Error::invalid("session", "0", "must be the id of a session")) } else { Ok(session) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_as_long_as_is_allowed() {
        assert_eq!(checked_ttl(0), Ok(60_000));
        assert_eq!(checked_ttl(1_000), Ok(1_000));
        assert_eq!(checked_ttl(86_400_000), Ok(86_400_000));
        assert!(checked_ttl(999).is_err() && checked_ttl(86_400_001).is_err());
        assert!(checked_session(0).is_err());
        assert_eq!(checked_session(1), Ok(1));
    }
}
