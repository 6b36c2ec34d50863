//! Calls without the client's own retries, for workloads that are about single attempts.

use std::time::Duration;

use meshstore::{Error, Result, proto::error_from_status};
use tonic::Request;

const PATIENCE: Duration = Duration::from_secs(3);

/// A request with a deadline.
pub fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

/// What one attempt was told.
pub async fn opened<T>(answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE * 2, answer).await {
        Ok(answer) => answer.map(tonic::Response::into_inner).map_err(|status| error_from_status(&status)),
        Err(_) => Err(Error::Unknown("no answer".into())),
    }
}
