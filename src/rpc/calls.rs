//! What calls cost: of each RPC how many there were, how they ended, and how long they took; and a log line for each that
//! was slow.
//!
//! The outermost layer of the client listener, so it sees what callers see, also what the gate refuses. A call that is
//! passed on to the leader is counted where it came in. What nobody calls is not shown.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{pressure::Pressure, trace};
use crate::{
    environment::Clock,
    metrics::{Histogram, Text},
    security::matrix,
};

/// gRPC's codes are 0 to 16.
const CODES: usize = 17;
/// Calls that wait for something, and are not slow thereby.
const WAITS: [&str; 3] =
    ["/meshstore.v1.Topology/WaitUntilApplied", "/meshstore.v1.Lock/Acquire", "/meshstore.v1.Lock/Observe"];
/// What calls of methods that there are not are counted as.
const OTHER: &str = "other";

/// The calls of a node.
pub struct Calls {
    of: BTreeMap<&'static str, Counters>,
    other: Counters,
    slow: Duration,
    pressure: Arc<Pressure>,
}

#[derive(Default)]
struct Counters {
    times: Histogram,
    codes: [AtomicU64; CODES],
}

impl Calls {
    /// Nothing counted yet. Calls that take `slow` or longer are logged.
    pub fn new(slow: Duration, pressure: Pressure) -> Self {
        let of = matrix::paths().map(|path| (path, Counters::default())).collect();
        Self { of, other: Counters::default(), slow, pressure: Arc::new(pressure) }
    }

    /// What is under way.
    pub fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }

    fn note(&self, path: &str, code: Code, took: Duration, name: Option<&HeaderValue>) {
        let counters = self.of.get(path).unwrap_or(&self.other);
        if let Some(counter) = counters.codes.get(code as usize) {
            counter.fetch_add(1, Relaxed);
        }
        counters.times.note(took);
        if took >= self.slow && !WAITS.contains(&path) {
            tracing::warn!(path, ?code, ms = took.as_millis(), trace = trace::id(name), "a slow call");
        }
        match code {
            Code::Ok => {}
            // What is not to be expected of a node that is whole.
            Code::Internal | Code::DataLoss => tracing::error!(path, ?code, trace = trace::id(name), "a call failed"),
            code => tracing::debug!(path, ?code, trace = trace::id(name), "a call failed"),
        }
    }

    /// Adds the calls to a text of metrics.
    pub(super) fn write(&self, text: &mut Text) {
        let of = || self.of.iter().map(|(path, counters)| (method(path), counters)).chain([(OTHER, &self.other)]);
        text.head("calls_total", "counter", "Calls of clients, by method and how they ended.");
        for (method, counters) in of() {
            for (code, counter) in counters.codes.iter().enumerate() {
                let (count, code) = (counter.load(Relaxed), Code::from(i32::try_from(code).unwrap_or(i32::MAX)));
                if count > 0 {
                    text.value("calls_total", &format!("method=\"{method}\",code=\"{code:?}\""), count);
                }
            }
        }
        let (calls, unread) = (self.pressure.calls() as u64, self.pressure.unread_bytes() as u64);
        text.metric("calls_under_way", "gauge", "Calls of clients whose answers are not made or not read.", calls);
        text.metric("unread_bytes", "gauge", "Bytes of answers that are made and not read.", unread);
        text.head("call_seconds", "histogram", "How long calls of clients took.");
        for (method, counters) in of().filter(|(_, counters)| counters.times.count() > 0) {
            text.histogram("call_seconds", &format!("method=\"{method}\""), &counters.times);
        }
    }
}

/// `Mesh/PutState` of `/meshstore.v1.Mesh/PutState`.
fn method(path: &'static str) -> &'static str {
    path.trim_start_matches("/meshstore.v1.")
}

/// The layer that counts.
#[derive(Clone)]
pub struct Count {
    calls: Arc<Calls>,
    clock: Arc<dyn Clock>,
}

impl Count {
    /// The layer. `clock` names calls that have no name.
    pub fn new(calls: Arc<Calls>, clock: Arc<dyn Clock>) -> Self {
        Self { calls, clock }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub struct Counted<S> {
    count: Count,
    inner: S,
}

impl<S> Layer<S> for Count {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { count: self.clone(), inner }
    }
}

/// A call under way. One that its caller gives up is counted as cancelled.
struct UnderWay {
    calls: Arc<Calls>,
    path: String,
    name: Option<HeaderValue>,
    since: Instant,
    code: Code,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.note(&self.path, self.code, self.since.elapsed(), self.name.as_ref());
    }
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let calls = Arc::clone(&self.count.calls);
        let name = trace::named(request.headers_mut(), || self.count.clock.random());
        let call = UnderWay { calls, path, name, since: Instant::now(), code: Code::Cancelled };
        let answer = self.inner.call(request);
        Box::pin(async move {
            // All of it: a block takes the fields that it names, and only of the whole it is the end that counts.
            let mut call = call;
            let answer = answer.await;
            call.code = match &answer {
                // An error is told in the headers already; where there is none the body follows.
                Ok(answer) => Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code()),
                Err(_) => Code::Unknown,
            };
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::body::Body;

    use super::*;
    use crate::environment::clock::RealClock;

    fn text(calls: &Calls) -> String {
        let mut text = Text::default();
        calls.write(&mut text);
        text.into_text()
    }

    #[test]
    fn calls_are_counted_by_method_code_and_time() {
        let calls = Calls::new(Duration::from_secs(1), Pressure::new(100));
        let put = "/meshstore.v1.Mesh/PutState";
        for (path, code, ms) in [
            (put, Code::Ok, 1),
            (put, Code::Ok, 3),
            (put, Code::NotFound, 60_000),
            ("/meshstore.v1.Mesh/DropEverything", Code::Unimplemented, 0),
        ] {
            calls.note(path, code, Duration::from_millis(ms), None);
        }
        let text = text(&calls);
        for line in [
            "meshstore_calls_total{method=\"Mesh/PutState\",code=\"Ok\"} 2",
            "meshstore_calls_total{method=\"Mesh/PutState\",code=\"NotFound\"} 1",
            "meshstore_calls_total{method=\"other\",code=\"Unimplemented\"} 1",
            "meshstore_call_seconds_bucket{method=\"Mesh/PutState\",le=\"0.001\"} 1",
            "meshstore_call_seconds_bucket{method=\"Mesh/PutState\",le=\"0.005\"} 2",
            "meshstore_call_seconds_bucket{method=\"Mesh/PutState\",le=\"10\"} 2",
            "meshstore_call_seconds_bucket{method=\"Mesh/PutState\",le=\"+Inf\"} 3",
            "meshstore_call_seconds_sum{method=\"Mesh/PutState\"} 60.004",
            "meshstore_call_seconds_count{method=\"Mesh/PutState\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("GetState"), "what nobody calls is not shown");
    }

    #[tokio::test]
    async fn a_call_is_counted_when_it_ends_or_is_given_up() {
        let calls = Arc::new(Calls::new(Duration::from_secs(1), Pressure::new(100)));
        let answer = async |path: &'static str| match path {
            "/meshstore.v1.Mesh/GetState" => Ok::<_, Infallible>(Response::new(Body::empty())),
            "/meshstore.v1.Mesh/PutState" => Ok(Status::not_found("no").into_http()),
            _ => std::future::pending().await,
        };
        let service = tower::service_fn(move |request: Request<&'static str>| answer(request.into_body()));
        let mut counted = Count::new(Arc::clone(&calls), Arc::new(RealClock)).layer(service);
        let mut call =
            |path: &'static str| counted.call(Request::builder().uri(format!("http://node{path}")).body(path).unwrap());
        call("/meshstore.v1.Mesh/GetState").await.unwrap();
        call("/meshstore.v1.Mesh/PutState").await.unwrap();
        let given_up = call("/meshstore.v1.Mesh/ListState");
        assert!(!text(&calls).contains("ListState"), "it is under way");
        drop(given_up);
        let text = text(&calls);
        for (method, code) in [("GetState", "Ok"), ("PutState", "NotFound"), ("ListState", "Cancelled")] {
            let line = format!("meshstore_calls_total{{method=\"Mesh/{method}\",code=\"{code}\"}} 1");
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
