//! Bounds as callers meet them: places for calls, answers in pieces, and a client of HTTP/2 that reads everything but makes no
//! room, which no ordinary client can be told to be.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tonic::Code;
use tonic::{service::Routes, transport::Server};
use tower::ServiceExt;

use super::*;
use crate::environment::net::Io;

const PUT: &str = "/meshstore.v1.Mesh/PutState";
const BYTES: usize = limits::PIECE_BYTES * 2 + 1;

fn service(
    pressure: &Arc<Pressure>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone {
    let answer = |_: Request<Body>| async {
        let body = Full::new(Bytes::from(vec![7; BYTES])).map_err(|never| match never {});
        Ok::<_, Infallible>(Response::new(Body::new(body)))
    };
    Bound(Arc::clone(pressure)).layer(tower::service_fn(answer))
}

fn request(path: &str, name: &str) -> Request<Body> {
    let mut request = Request::builder().uri(format!("http://node{path}")).body(Body::empty()).unwrap();
    request.extensions_mut().insert(Principal::Service(name.into()));
    request
}

fn code(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn a_principal_has_so_many_calls_under_way_until_their_answers_are_read() {
    let pressure = Arc::new(Pressure::new(2));
    let service = service(&pressure);
    let call = async |path: &str, name: &str| service.clone().oneshot(request(path, name)).await.unwrap();
    let answers = [call(PUT, "a").await, call(PUT, "a").await];
    let refused = call(PUT, "a").await;
    assert_eq!(code(&refused), Code::ResourceExhausted);
    let error = Error::from(Status::from_header_map(refused.headers()).unwrap());
    assert!(
        matches!(&error, Error::ResourceExhausted { reason, retry_after_ms: RETRY_AFTER_MS } if reason.contains("service/a has 2 calls")),
        "{error:?}"
    );
    assert_eq!(code(&call(PUT, "b").await), Code::Ok, "others are not touched");
    assert_eq!(code(&call("/grpc.health.v1.Health/Check", "a").await), Code::Ok);
    assert_eq!(pressure.calls(), 2);
    drop(answers);
    assert_eq!((pressure.calls(), pressure.unread_bytes()), (0, 0));
    assert_eq!(code(&call(PUT, "a").await), Code::Ok);
}

#[tokio::test]
async fn an_answer_is_handed_out_in_pieces_and_is_unread_until_the_next_is_wanted() {
    let pressure = Arc::new(Pressure::new(2));
    let mut request = request(PUT, "a");
    let connection = Connection::default();
    request.extensions_mut().insert(connection.clone());
    let mut body = service(&pressure).oneshot(request).await.unwrap().into_body();
    let mut next = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap().len());
    assert_eq!((next().await, pressure.unread_bytes()), (Some(limits::PIECE_BYTES), BYTES));
    assert_eq!((next().await, pressure.unread_bytes()), (Some(limits::PIECE_BYTES), limits::PIECE_BYTES + 1));
    assert_eq!((next().await, pressure.unread_bytes()), (Some(1), 1));
    assert_eq!(next().await, None);
    assert_eq!(pressure.unread_bytes(), 0);
}

#[tokio::test]
async fn while_too_much_is_unread_nothing_is_taken() {
    let pressure = Arc::new(Pressure::new(usize::MAX));
    let (mut bodies, mut refused) = (Vec::new(), false);
    for _ in 0..limits::UNREAD_BYTES / BYTES + 2 {
        let response = service(&pressure).oneshot(request(PUT, "a")).await.unwrap();
        refused |= code(&response) == Code::ResourceExhausted;
        let mut body = response.into_body();
        // Of all together one piece of memory: each is counted for itself.
        drop(body.frame().await);
        bodies.push(body);
    }
    assert!(refused);
    drop(bodies);
    let response = service(&pressure).oneshot(request(PUT, "a")).await.unwrap();
    assert_eq!(code(&response), Code::Ok);
}

/// A client of HTTP/2, as far as it goes: it reads all that comes, answers pings, and never makes room for an answer.
struct Hoarder(DuplexStream);

impl Hoarder {
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // Who is cut off reads the end next.
        let _ = self.0.write_all(&frame).await;
    }

    async fn call(&mut self, path: &str) {
        self.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        self.send(4, 0, 0, &[]).await;
        // POST, http, and two literals: path and authority.
        let mut headers = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        headers.extend(path.as_bytes());
        headers.extend(b"\x01\x04node");
        // End of headers, end of stream.
        self.send(1, 0x4 | 0x1, 1, &headers).await;
    }

    /// Until the other end closes: bytes of the answer, and pings.
    async fn until_the_end(&mut self) -> (usize, usize) {
        let (mut bytes, mut pings) = (0, 0);
        loop {
            let mut head = [0; 9];
            if self.0.read_exact(&mut head).await.is_err() {
                return (bytes, pings);
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            match (head[3], head[4]) {
                (0, _) => bytes += payload.len(),
                (4, 0) => self.send(4, 1, 0, &[]).await,
                (6, 0) => {
                    pings += 1;
                    self.send(6, 1, 0, &payload).await;
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_makes_room_is_cut_off_though_it_answers_pings() {
    const WINDOW: usize = 65_535;
    let pressure = Arc::new(Pressure::new(2));
    let answer = || async {
        Response::new(Body::new(Full::new(Bytes::from(vec![7; 4 * WINDOW])).map_err(|never| match never {})))
    };
    let routes = Routes::from(axum::Router::new().fallback(answer));
    let (ours, theirs) = duplex(1 << 20);
    let server = Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .layer(Bound(Arc::clone(&pressure)))
        .add_routes(routes)
        .serve_with_incoming(tokio_stream::iter([Ok::<_, std::io::Error>(Io::new(theirs, None, None))]));
    let serving = tokio::spawn(server);
    let mut hoarder = Hoarder(ours);
    hoarder.call(PUT).await;
    let (bytes, pings) = hoarder.until_the_end().await;
    assert_eq!(bytes, WINDOW, "what there was room for");
    assert!(pings > 1, "the connection lived");
    serving.await.unwrap().unwrap();
    assert_eq!((pressure.calls(), pressure.unread_bytes()), (0, 0), "nothing of it is left");
}
