//! A span for each call: its trace id, method, and who calls.
//!
//! The span is of level debug; while that is not logged it costs one branch. What is said within it (which log entry a
//! proposal became, say) carries the trace id, so a call can be followed from its client through the node that it called to
//! the leader. Replication is of entries, which hold many calls: followers say the entry.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request};
use tower::{Layer, Service};
use tracing::{Instrument, Span, instrument::Instrumented};

use super::principal_of;
use crate::model::trace::{TRACEPARENT, TRACESTATE, TraceParent};

/// Sees to it that a call has a name, before anything is logged of it. `name` makes one.
pub(super) fn named(headers: &mut HeaderMap, name: impl FnOnce() -> u128) -> Option<HeaderValue> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    if let (Some(only), None) = (given.next(), given.next())
        && TraceParent::parse(only.as_bytes()).is_some()
    {
        return Some(only.clone());
    }
    let name = name();
    // The low half of 128 random bits is random, too.
    let parent = TraceParent::new(name, u64::try_from(name & u128::from(u64::MAX)).unwrap_or_default());
    let header = HeaderValue::try_from(parent.to_string()).ok()?;
    headers.remove(TRACESTATE);
    headers.insert(TRACEPARENT, header.clone());
    Some(header)
}

/// What is logged of a call's name.
pub(super) fn id(header: Option<&HeaderValue>) -> String {
    let parent = header.and_then(|header| TraceParent::parse(header.as_bytes()));
    parent.map(|parent| parent.trace_id().to_string()).unwrap_or_default()
}

/// The layer that opens the spans. It comes after those that find out who calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace;

impl<S> Layer<S> for Trace {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Traced(inner)
    }
}

/// A service whose calls are in spans.
#[derive(Clone)]
pub struct Traced<S>(S);

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let span = span(&request);
        // What is done before the first poll belongs to it, too.
        let _within = span.enter();
        self.0.call(request).instrument(span.clone())
    }
}

fn span<B>(request: &Request<B>) -> Span {
    // The fields are made only if somebody wants them.
    tracing::debug_span!(
        "call",
        trace = id(request.headers().get(TRACEPARENT)),
        method = request.uri().path(),
        principal = %principal_of(request.extensions()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const MADE: &str = "00-00000000000000000000000000000007-0000000000000007-00";

    #[test]
    fn a_call_keeps_its_name_and_gets_one_if_it_has_none() {
        for (given, named_then) in
            [(vec![GIVEN], GIVEN), (vec![], MADE), (vec!["nonsense"], MADE), (vec![GIVEN, GIVEN], MADE)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
            for given in &given {
                headers.append(TRACEPARENT, HeaderValue::from_static(given));
            }
            let name = named(&mut headers, || 7);
            assert_eq!(name.as_ref().unwrap(), named_then, "{given:?}");
            let all: Vec<_> = headers.get_all(TRACEPARENT).iter().collect();
            assert_eq!(all, [named_then], "{given:?}");
            assert_eq!(headers.contains_key(TRACESTATE), named_then == GIVEN);
            assert_eq!(id(name.as_ref()).len(), 32);
        }
        assert_eq!(id(None), "");
    }
}
