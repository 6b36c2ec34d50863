//! What calls cost: of each RPC how many there were, how they ended, and how long they took; and a log line for each that
//! was slow.
//!
//! The outermost layer of the client listener, so it sees what callers see, also what the gate refuses. A call that is
//! passed on to the leader is counted where it came in. What nobody calls is not shown.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::security::matrix;

/// The upper bounds of the buckets of the histogram, in milliseconds.
const BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
/// gRPC's codes are 0 to 16.
const CODES: usize = 17;
/// Calls that wait for something, and are not slow thereby.
const WAITS: [&str; 1] = ["/meshstore.v1.Topology/WaitUntilApplied"];
/// What calls of methods that there are not are counted as.
const OTHER: &str = "other";

/// The calls of a node.
pub struct Calls {
    of: BTreeMap<&'static str, Counters>,
    other: Counters,
    slow: Duration,
}

#[derive(Default)]
struct Counters {
    /// The last is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    microseconds: AtomicU64,
    codes: [AtomicU64; CODES],
}

impl Calls {
    /// Nothing counted yet. Calls that take `slow` or longer are logged.
    pub fn new(slow: Duration) -> Self {
        let of = matrix::paths().map(|path| (path, Counters::default())).collect();
        Self { of, other: Counters::default(), slow }
    }

    fn note(&self, path: &str, code: Code, took: Duration) {
        let counters = self.of.get(path).unwrap_or(&self.other);
        let bucket = BOUNDS_MS.iter().take_while(|bound| took > Duration::from_millis(**bound)).count();
        let counted = [counters.buckets.get(bucket), counters.codes.get(code as usize)];
        for counter in counted.into_iter().flatten() {
            counter.fetch_add(1, Relaxed);
        }
        counters.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if took >= self.slow && !WAITS.contains(&path) {
            tracing::warn!(path, ?code, ms = took.as_millis(), "a slow call");
        }
    }

    /// The calls as Prometheus' text format.
    pub(super) fn text(&self) -> String {
        let of = || self.of.iter().map(|(path, counters)| (method(path), counters)).chain([(OTHER, &self.other)]);
        let mut text = String::from(
            "# HELP meshstore_calls_total Calls of clients, by method and how they ended.\n# TYPE meshstore_calls_total counter\n",
        );
        for (method, counters) in of() {
            for (code, counter) in counters.codes.iter().enumerate() {
                let (count, code) = (counter.load(Relaxed), Code::from(i32::try_from(code).unwrap_or(i32::MAX)));
                if count > 0 {
                    // Writing into a string cannot fail.
                    let _ = writeln!(text, "meshstore_calls_total{{method=\"{method}\",code=\"{code:?}\"}} {count}");
                }
            }
        }
        text.push_str(
            "# HELP meshstore_call_seconds How long calls of clients took.\n# TYPE meshstore_call_seconds histogram\n",
        );
        for (method, counters) in of() {
            counters.histogram(method, &mut text);
        }
        text
    }
}

impl Counters {
    fn histogram(&self, method: &str, text: &mut String) {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return;
        }
        let mut up_to = 0;
        for (count, bound) in counts.iter().zip(BOUNDS_MS) {
            up_to += count;
            let le = Duration::from_millis(bound).as_secs_f64();
            let _ = writeln!(text, "meshstore_call_seconds_bucket{{method=\"{method}\",le=\"{le}\"}} {up_to}");
        }
        let sum = Duration::from_micros(self.microseconds.load(Relaxed)).as_secs_f64();
        let _ = writeln!(
            text,
            "meshstore_call_seconds_bucket{{method=\"{method}\",le=\"+Inf\"}} {all}\nmeshstore_call_seconds_sum{{method=\"{method}\"}} {sum}\nmeshstore_call_seconds_count{{method=\"{method}\"}} {all}"
        );
    }
}

/// `Mesh/PutState` of `/meshstore.v1.Mesh/PutState`.
fn method(path: &'static str) -> &'static str {
    path.trim_start_matches("/meshstore.v1.")
}

/// The layer that counts.
#[derive(Clone)]
pub struct Count(pub Arc<Calls>);

/// A service whose calls are counted.
#[derive(Clone)]
pub struct Counted<S> {
    calls: Arc<Calls>,
    inner: S,
}

impl<S> Layer<S> for Count {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { calls: Arc::clone(&self.0), inner }
    }
}

/// A call under way. One that its caller gives up is counted as cancelled.
struct UnderWay {
    calls: Arc<Calls>,
    path: String,
    since: Instant,
    code: Code,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.note(&self.path, self.code, self.since.elapsed());
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let calls = Arc::clone(&self.calls);
        let call = UnderWay { calls, path, since: Instant::now(), code: Code::Cancelled };
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

    #[test]
    fn calls_are_counted_by_method_code_and_time() {
        let calls = Calls::new(Duration::from_secs(1));
        let put = "/meshstore.v1.Mesh/PutState";
        for (path, code, ms) in [
            (put, Code::Ok, 1),
            (put, Code::Ok, 3),
            (put, Code::NotFound, 60_000),
            ("/meshstore.v1.Mesh/DropEverything", Code::Unimplemented, 0),
        ] {
            calls.note(path, code, Duration::from_millis(ms));
        }
        let text = calls.text();
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
        let calls = Arc::new(Calls::new(Duration::from_secs(1)));
        let answer = async |path: &'static str| match path {
            "/meshstore.v1.Mesh/GetState" => Ok::<_, Infallible>(Response::new(Body::empty())),
            "/meshstore.v1.Mesh/PutState" => Ok(Status::not_found("no").into_http()),
            _ => std::future::pending().await,
        };
        let service = tower::service_fn(move |request: Request<&'static str>| answer(request.into_body()));
        let mut counted = Count(Arc::clone(&calls)).layer(service);
        let mut call =
            |path: &'static str| counted.call(Request::builder().uri(format!("http://node{path}")).body(path).unwrap());
        call("/meshstore.v1.Mesh/GetState").await.unwrap();
        call("/meshstore.v1.Mesh/PutState").await.unwrap();
        let given_up = call("/meshstore.v1.Mesh/ListState");
        assert!(!calls.text().contains("ListState"), "it is under way");
        drop(given_up);
        let text = calls.text();
        for (method, code) in [("GetState", "Ok"), ("PutState", "NotFound"), ("ListState", "Cancelled")] {
            let line = format!("meshstore_calls_total{{method=\"Mesh/{method}\",code=\"{code}\"}} 1");
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
