//! Streams of calls to handlers that are scripted.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    codegen::http::Uri,
    transport::{Endpoint, Server},
};
use tower::service_fn;

use super::*;
use crate::proto::v1::{CallHeader, calls_client::CallsClient};

/// Counts the calls that are under way.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A stream to handlers that answer with the path and the headers, or never, if the method is `Hang`.
struct Bench {
    calls: mpsc::Sender<MultiplexRequest>,
    answers: Streaming<MultiplexResponse>,
    under_way: Arc<AtomicUsize>,
    drain: watch::Sender<bool>,
}

impl Bench {
    async fn open() -> Self {
        let under_way = Arc::<AtomicUsize>::default();
        let counter = under_way.clone();
        let handlers = service_fn(move |request: http::Request<Body>| {
            counter.fetch_add(1, SeqCst);
            let held = UnderWay(counter.clone());
            async move {
                let _held = held;
                let path = request.uri().path().to_owned();
                match path.as_str() {
                    "/Hang" => std::future::pending().await,
                    "/Refuse" => return Ok(Status::not_found("nothing").into_http()),
                    _ => {}
                }
                let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
                let text = Bytes::from(format!("{path} {names:?}"));
                let mut trailers = http::HeaderMap::new();
                Status::ok("").add_header(&mut trailers).unwrap();
                let data = [Framed::new(text.clone()).head(), text].map(|data| Ok(http_body::Frame::data(data)));
                let frames = data.into_iter().chain([Ok(http_body::Frame::trailers(trailers))]);
                let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, Infallible>(http::Response::new(Body::new(http_body_util::BodyExt::map_err(
                    body,
                    |never: Infallible| match never {},
                ))))
            }
        });
        let (drain, drained) = watch::channel(false);
        let service = Multiplex::new(BoxCloneSyncService::new(handlers), drained);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = Server::builder().add_service(calls_server::CallsServer::new(service));
        tokio::spawn(server.serve_with_incoming(tokio_stream::iter([Ok::<_, io::Error>(theirs)])));
        let mut ours = Some(ours);
        let connector = service_fn(move |_: Uri| {
            std::future::ready(ours.take().map(TokioIo::new).ok_or(io::Error::from(io::ErrorKind::NotFound)))
        });
        let channel = Endpoint::from_static("http://node").connect_with_connector(connector).await.unwrap();
        let (calls, outgoing) = mpsc::channel(16);
        let answers = CallsClient::new(channel).multiplex(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { calls, answers, under_way, drain }
    }

    async fn send(&self, calls: impl IntoIterator<Item = MultiplexedCall>) {
        let calls = calls.into_iter().collect();
        self.calls.send(MultiplexRequest { calls, given_up: Vec::new() }).await.unwrap();
    }

    /// So many answers: text or code by number.
    async fn answers(&mut self, count: usize) -> BTreeMap<u64, Result<String, (Code, String)>> {
        let mut found = BTreeMap::new();
        while found.len() < count {
            for answer in self.answers.message().await.unwrap().expect("more answers").answers {
                let told = match answer.status {
                    Some(status) => Err((Code::from(status.code), status.message)),
                    None => Ok(String::from_utf8(answer.response.to_vec()).unwrap()),
                };
                assert!(found.insert(answer.number, told).is_none(), "answered twice");
            }
        }
        found
    }
}

fn call(number: u64, method: &str) -> MultiplexedCall {
    MultiplexedCall { number, method: method.into(), ..MultiplexedCall::default() }
}

#[tokio::test]
async fn calls_are_answered_in_any_order_and_those_that_are_given_up_end() {
    let mut bench = Bench::open().await;
    bench.send([call(1, "/Hang"), call(2, "/Refuse"), call(5, "/a.Service/Method")]).await;
    let answers = bench.answers(2).await;
    assert_eq!(answers[&2], Err((Code::NotFound, "nothing".into())));
    assert_eq!(answers[&5], Ok(r#"/a.Service/Method ["content-type", "te"]"#.into()));
    assert_eq!(bench.under_way.load(SeqCst), 1);
    let request = MultiplexRequest { calls: vec![call(6, "/Other")], given_up: vec![1, 4_000] };
    bench.calls.send(request).await.unwrap();
    assert_eq!(bench.answers(1).await.into_keys().collect::<Vec<_>>(), [6], "nothing of the first");
    assert_eq!(bench.under_way.load(SeqCst), 0);
}

#[tokio::test]
async fn headers_are_metadata_and_the_caller_is_that_of_the_stream() {
    let mut bench = Bench::open().await;
    let header = |name: &str, value: &'static [u8]| CallHeader { name: name.into(), value: value.into() };
    let headers = vec![
        header("grpc-timeout", b"5S"),
        header("authorization", b"Bearer somebody else"),
        header("fence-bin", &[0, 255]),
    ];
    bench.send([MultiplexedCall { headers, ..call(1, "/Method") }]).await;
    let answers = bench.answers(1).await;
    assert_eq!(answers[&1], Ok(r#"/Method ["content-type", "te", "grpc-timeout", "fence-bin"]"#.into()));
}

#[tokio::test]
async fn what_is_no_call_is_refused_and_disturbs_no_other() {
    let mut bench = Bench::open().await;
    let header = vec![CallHeader { name: "not a name".into(), value: Bytes::new() }];
    let odd = MultiplexedCall { headers: header, ..call(3, "/Method") };
    bench.send([call(1, PATH), call(2, "no path at all"), odd, call(4, "/Method")]).await;
    let answers = bench.answers(4).await;
    for number in 1..=3 {
        assert_eq!(answers[&number].as_ref().unwrap_err().0, Code::InvalidArgument, "{answers:?}");
    }
    assert!(answers[&4].is_ok());
    // A number that is not new would leave two calls with one answer.
    bench.send([call(4, "/Method")]).await;
    let ended = bench.answers.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::InvalidArgument, "{ended}");
}

#[tokio::test]
async fn no_more_calls_are_taken_than_may_be_under_way() {
    let bench = Bench::open().await;
    let most = limits::MULTIPLEXED_CALLS as u64;
    bench.send((1..=most).map(|number| call(number, "/Hang"))).await;
    bench.send([call(most + 1, "/Hang")]).await;
    while bench.under_way.load(SeqCst) < limits::MULTIPLEXED_CALLS {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.under_way.load(SeqCst), limits::MULTIPLEXED_CALLS);
    drop((bench.calls, bench.answers));
    while bench.under_way.load(SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_works_on_until_the_caller_ends() {
    let mut bench = Bench::open().await;
    bench.send([call(1, "/Method")]).await;
    bench.answers(1).await;
    bench.drain.send_replace(true);
    let told = bench.answers.message().await.unwrap().unwrap();
    assert!(told.closing && told.answers.is_empty());
    bench.send([call(2, "/Method")]).await;
    assert!(bench.answers(1).await[&2].is_ok());
    drop(bench.calls);
    assert!(bench.answers.message().await.unwrap().is_none());
}
