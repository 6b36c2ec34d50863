//! A follower and a leader, on real sockets.

use std::{collections::BTreeMap, sync::Mutex};

use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::Notify;
use tonic::{Code, metadata::MetadataMap, service::Routes, transport::Server};

use super::*;
use crate::{
    environment::clock::RealClock,
    model::lease::Fence,
    proto::lease::{FENCE, fence_header},
    raft::{freshness::Freshness, space::Space},
};
use crate::{
    environment::net::{ChannelOptions, Net, RealNet, channel},
    proto::v1::{
        CloseSessionRequest, CloseSessionResponse, KeepSessionRequest, KeepSessionResponse, OpenSessionRequest,
        OpenSessionResponse,
        session_client::SessionClient,
        session_server::{Session, SessionServer},
    },
    raft::{
        network::Identity,
        peer::{
            IdentityLayer, Standing,
            testing::{Served, bind, serve},
        },
    },
    security::{Access, matrix},
};

/// For whom a call was, and its headers.
type Seen = (Option<Forwarded>, MetadataMap);

/// Serves sessions: answers its own name as the session's id, and notes what it was asked.
#[derive(Clone, Default)]
struct Service {
    name: u64,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Raised when a call has come that will never be answered.
    stuck: Arc<Notify>,
}

#[tonic::async_trait]
impl Session for Service {
    async fn open_session(
        &self,
        request: tonic::Request<OpenSessionRequest>,
    ) -> Result<tonic::Response<OpenSessionResponse>, Status> {
        let forwarded = request.extensions().get::<Forwarded>().cloned();
        self.seen.lock().unwrap().push((forwarded, request.metadata().clone()));
        Ok(tonic::Response::new(OpenSessionResponse { session: self.name, ttl_ms: request.get_ref().ttl_ms }))
    }

    async fn keep_session(
        &self,
        request: tonic::Request<KeepSessionRequest>,
    ) -> Result<tonic::Response<KeepSessionResponse>, Status> {
        let details = request.get_ref().session.to_be_bytes().to_vec().into();
        Err(Status::with_details(Code::FailedPrecondition, "expired", details))
    }

    async fn close_session(
        &self,
        _: tonic::Request<CloseSessionRequest>,
    ) -> Result<tonic::Response<CloseSessionResponse>, Status> {
        self.stuck.notify_one();
        std::future::pending().await
    }
}

fn room() -> Arc<Space> {
    Arc::new(Space::new(Arc::new(RealClock), "data".as_ref()))
}

struct NoMembers;

impl Standing for NoMembers {
    fn is_empty(&self) -> bool {
        false
    }

    fn members(&self) -> BTreeMap<NodeId, u128> {
        BTreeMap::new()
    }
}

struct Lead(Mutex<LeaderView>);

impl Leadership for Lead {
    fn leader(&self) -> LeaderView {
        self.0.lock().unwrap().clone()
    }
}

fn identity(node: NodeId) -> Identity {
    Identity::new(node, 0xD0 + u128::from(node), Some(0xC))
}

/// The status of an error, as far as these tests look at it.
fn status(error: &Error) -> Status {
    let code = match error {
        Error::InvalidArgument { .. } => Code::InvalidArgument,
        Error::Unavailable { .. } => Code::Unavailable,
        Error::Unknown(_) => Code::Unknown,
        Error::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    Status::new(code, format!("{error}; may have applied: {}", error.may_have_applied()))
}

fn member(peer_address: String, node: NodeId) -> Member {
    Member { peer_address, client_address: format!("client-of-{node}:1"), directory: 0xD0 + u128::from(node) }
}

/// Node 2, whose peer listener is served.
async fn leader(service: Service) -> (LeaderView, Served) {
    let (listener, address) = bind().await;
    let routes = Routes::new(SessionServer::new(service)).into_axum_router().layer(AcceptForwarded);
    let identity = IdentityLayer::new(identity(2), Arc::new(NoMembers));
    let router = Server::builder().layer(identity).add_routes(routes.into());
    (LeaderView::Other { id: 2, member: member(address, 2) }, serve(router, listener))
}

/// Node 1, whose client listener is served.
struct Follower {
    leadership: Arc<Lead>,
    service: Service,
    channel: Channel,
    _served: Served,
}

async fn follower(view: LeaderView) -> Follower {
    let net: Arc<dyn Net> = Arc::new(RealNet);
    let (listener, address) = bind().await;
    let leadership = Arc::new(Lead(Mutex::new(view)));
    let service = Service { name: 1, ..Service::default() };
    let layer = ForwardLayer::new(Forward {
        leadership: leadership.clone(),
        peers: Peers::new(net.clone(), identity(1), Arc::new(Freshness::new(Arc::new(RealClock))), room()),
        status,
        principal: |_| Principal::Service("billing".into()),
    });
    let router = Server::builder().layer(layer).add_service(SessionServer::new(service.clone()));
    let _served = serve(router, listener);
    let channel = channel(&net, &address, &ChannelOptions::default()).unwrap();
    Follower { leadership, service, channel, _served }
}

impl Follower {
    fn client(&self) -> SessionClient<Channel> {
        SessionClient::new(self.channel.clone())
    }

    async fn open(&self) -> Result<u64, Status> {
        let answer = self.client().open_session(OpenSessionRequest { ttl_ms: 5 }).await?;
        Ok(answer.into_inner().session)
    }
}

#[tokio::test]
async fn a_write_is_served_by_the_leader_for_the_caller_that_the_follower_verified() {
    let service = Service { name: 2, ..Service::default() };
    let (view, _leader) = leader(service.clone()).await;
    let follower = follower(view).await;
    let mut request = tonic::Request::new(OpenSessionRequest { ttl_ms: 5 });
    request.set_timeout(Duration::from_secs(77));
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("x-meshstore-forwarded", "root"),
        ("x-meshstore-from", "3"),
        ("x-meshstore-anything", "1"),
        ("trace", "abc"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    // What a call depends on goes with it: a write without its fence would be one that depends on nothing.
    let fence = fence_header(&Fence { lock: "l".into(), token: 7 });
    request.metadata_mut().insert_bin(FENCE, fence);
    request.metadata_mut().insert(TRANSACTION, "tx".parse().unwrap());
    let answer = follower.client().open_session(request).await.unwrap();
    assert_eq!(*answer.get_ref(), OpenSessionResponse { session: 2, ttl_ms: 5 });

    let seen = service.seen.lock().unwrap().clone();
    let [(forwarded, headers)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(*forwarded, Some(Forwarded { principal: Principal::Service("billing".into()) }));
    assert_eq!(headers.get("x-meshstore-from").unwrap(), "1");
    assert_eq!(headers.get("grpc-timeout").unwrap(), "77000m");
    assert_eq!(headers.get("trace").unwrap(), "abc");
    assert_eq!(headers.get(TRANSACTION).unwrap(), "tx");
    assert!(headers.contains_key(FENCE), "a fence goes where its write goes");
    for gone in ["authorization", "x-meshstore-anything", "x-meshstore-forwarded"] {
        assert!(headers.get(gone).is_none(), "{gone}");
    }
    assert!(follower.service.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refusal_comes_back_as_the_leader_said_it() {
    let (view, _leader) = leader(Service::default()).await;
    let follower = follower(view).await;
    let refusal = follower.client().keep_session(KeepSessionRequest { session: 9 }).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::FailedPrecondition, "expired"));
    assert_eq!(refusal.details(), 9u64.to_be_bytes());
}

#[tokio::test]
async fn without_another_leader_the_node_answers_itself() {
    let follower = follower(LeaderView::Me).await;
    assert_eq!(follower.open().await.unwrap(), 1);
    *follower.leadership.0.lock().unwrap() = LeaderView::Unknown;
    assert_eq!(follower.open().await.unwrap(), 1);
    let (view, _leader) = leader(Service { name: 2, ..Service::default() }).await;
    *follower.leadership.0.lock().unwrap() = view;
    assert_eq!(follower.open().await.unwrap(), 2);
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_has_certainly_applied_nothing() {
    let (listener, address) = bind().await;
    drop(listener);
    let follower = follower(LeaderView::Other { id: 2, member: member(address, 2) }).await;
    let error = follower.open().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("refused") && error.message().contains("may have applied: false"), "{error}");
    let nowhere = member("no address".into(), 2);
    *follower.leadership.0.lock().unwrap() = LeaderView::Other { id: 2, member: nowhere };
    assert_eq!(follower.open().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_leader_that_dies_meanwhile_may_have_applied_it() {
    let service = Service::default();
    let stuck = service.stuck.clone();
    // A runtime of its own, so that it can be taken away with all that the leader has.
    let machine = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (view, _leader) = machine.spawn(leader(service)).await.unwrap();
    let follower = follower(view).await;
    let mut client = follower.client();
    let call = tokio::spawn(async move { client.close_session(CloseSessionRequest { session: 1 }).await });
    stuck.notified().await;
    machine.shutdown_background();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unknown, "{error}");
    assert!(error.message().contains("may have applied: true"), "{error}");
}

#[tokio::test]
async fn the_callers_deadline_holds_on_the_way_to_the_leader() {
    let (view, _leader) = leader(Service::default()).await;
    let follower = follower(view).await;
    // A bare request: tonic's client would keep the deadline itself.
    let request = Request::post("http://node/meshstore.v1.Session/CloseSession")
        .header("grpc-timeout", "50m")
        .header("content-type", "application/grpc")
        .body(Body::new(Full::new(Bytes::from_static(&[0; 5]))))
        .unwrap();
    let service = ForwardLayer::new(Forward {
        leadership: follower.leadership.clone(),
        peers: Peers::new(Arc::new(RealNet), identity(1), Arc::new(Freshness::new(Arc::new(RealClock))), room()),
        status,
        principal: |_| Principal::Anonymous,
    })
    .layer(tower::service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::empty())) }));
    let response = service.oneshot(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("deadline of 50 ms"), "{status}");
}

async fn post(follower: &Follower, headers: &[(&str, &str)], body: Bytes) -> Status {
    let mut request = Request::post("/meshstore.v1.Session/OpenSession").header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::new(Full::new(body))).unwrap();
    let response = follower.channel.clone().oneshot(request).await.unwrap();
    match Status::from_header_map(response.headers()) {
        Some(status) => status,
        None => Status::from_header_map(response.into_body().collect().await.unwrap().trailers().unwrap()).unwrap(),
    }
}

#[tokio::test]
async fn what_is_too_large_or_malformed_never_reaches_the_leader() {
    let service = Service::default();
    let (view, _leader) = leader(service.clone()).await;
    let follower = follower(view).await;
    let status = post(&follower, &[], vec![0; limits::CLIENT_DECODE_BYTES + FRAME_BYTES + 1].into()).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("must not take more than"), "{status}");
    assert!(service.seen.lock().unwrap().is_empty());
}

#[test]
fn a_timeout_is_digits_and_a_unit() {
    let of = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT, text.parse().unwrap());
        time_allowed(&headers)
    };
    assert_eq!(of("2S"), Ok(Duration::from_secs(2)));
    assert_eq!(of("99999999n"), Ok(Duration::from_nanos(99_999_999)));
    assert_eq!(of("99999999H"), Ok(Duration::from_millis(limits::DEADLINE_MAX_MS)));
    assert_eq!(time_allowed(&HeaderMap::new()), Ok(Duration::from_millis(limits::DEADLINE_DEFAULT_MS)));
    for wrong in ["", "m", "5", "5x", "-5m", "123456789m", "5é"] {
        assert!(matches!(of(wrong), Err(Error::InvalidArgument { .. })), "{wrong:?}");
    }
}

#[tokio::test]
async fn only_peers_pass_calls_on() {
    let service = Service::default();
    let (view, _leader) = leader(service.clone()).await;
    let LeaderView::Other { member, .. } = &view else { panic!("{view:?}") };
    let net: Arc<dyn Net> = Arc::new(RealNet);
    let channel = channel(&net, &member.peer_address, &ChannelOptions::default()).unwrap();
    // A client that found the peer address.
    let error = SessionClient::new(channel.clone()).open_session(OpenSessionRequest { ttl_ms: 1 }).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    // A peer that passes on without saying for whom.
    let introduction = identity(1).introduce(2, Some(member.directory));
    let mut client = SessionClient::with_interceptor(channel, introduction);
    let error = client.open_session(OpenSessionRequest { ttl_ms: 1 }).await.unwrap_err();
    assert!(error.message().contains("clients call the client address"), "{error}");
    assert!(service.seen.lock().unwrap().is_empty());
}

/// A call as it comes to the peer listener, from node 1: the status of the answer.
async fn passed_on(service: &Service, message: &'static [u8], trailers: HeaderMap) -> Status {
    let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from_static(message))), Ok(Frame::trailers(trailers))];
    let mut request = Request::post("/meshstore.v1.Session/OpenSession").header("content-type", "application/grpc");
    request = request.header(FORWARDED, "service/billing").extension(Caller { node: 1, directory: 0xD1 });
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let routes = Routes::new(SessionServer::new(service.clone())).into_axum_router().layer(AcceptForwarded);
    let response = routes.oneshot(request.body(axum::body::Body::new(body)).unwrap()).await.unwrap();
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
}

#[tokio::test]
async fn a_call_that_was_damaged_on_its_way_is_not_executed() {
    let service = Service::default();
    let whole = b"\0\0\0\0\x02\x08\x05";
    let mut sum = Checksum::of_call("/meshstore.v1.Session/OpenSession", b"service/billing");
    sum.add(whole);
    let mut trailers = HeaderMap::new();
    sum.put(&mut trailers, None);
    let of_another = passed_on(&service, b"\0\0\0\0\x02\x08\x04", trailers.clone()).await;
    let without = passed_on(&service, whole, HeaderMap::new()).await;
    for status in [of_another, without] {
        assert!(matches!(Error::from(status.clone()), Error::Unavailable { .. }), "{status}");
        assert!(status.message().contains("was damaged on its way between two nodes"), "{status}");
    }
    assert!(service.seen.lock().unwrap().is_empty());
    assert_eq!(passed_on(&service, whole, trailers).await.code(), Code::Ok);
    assert_eq!(service.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_sent_says_that_the_outcome_is_unknown() {
    let data = || Ok(Frame::data(Bytes::from_static(b"\0\0\0")));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let unsummed = trailers.clone();
    let mut sum = Checksum::default();
    sum.add(b"\0\0\0");
    let (mut of_another, mut of_an_older) = (trailers.clone(), trailers.clone());
    sum.put(&mut of_another, Some(HeaderValue::from(8)));
    sum.put(&mut of_an_older, None);
    sum.put(&mut trailers, Some(HeaderValue::from(7)));
    let mut damaged = trailers.clone();
    damaged.insert("grpc-status", HeaderValue::from_static("1"));
    let lost = (Code::Unknown, "lost".to_owned());
    for (frames, told) in [
        (vec![data(), Err(Status::internal("connection reset"))], &lost),
        (vec![data()], &lost),
        (vec![data(), Ok(Frame::trailers(unsummed))], &lost),
        (vec![data(), Ok(Frame::trailers(damaged))], &lost),
        (vec![data(), data(), Ok(Frame::trailers(trailers.clone()))], &lost),
        // Whole, and come to this call by a bit that was flipped in the number of a stream.
        (vec![data(), Ok(Frame::trailers(of_another))], &lost),
        (vec![data(), Ok(Frame::trailers(of_an_older))], &(Code::Ok, String::new())),
        (vec![data(), Ok(Frame::trailers(trailers))], &(Code::Ok, String::new())),
    ] {
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let answer = Answer::new(Body::new(body), HeaderValue::from(7), Status::unknown("lost"), Box::new(|| ()))
            .collect()
            .await
            .unwrap();
        let status = Status::from_header_map(answer.trailers().unwrap()).unwrap();
        assert_eq!(&(status.code(), status.message().to_owned()), told);
    }
}

#[test]
fn a_refusal_of_another_call_is_not_taken_for_this_ones() {
    let (mut refusal, this) = (HeaderMap::new(), HeaderValue::from(7));
    refusal.insert("grpc-status", HeaderValue::from_static("9"));
    let sealed = |call: Option<u64>| {
        let mut headers = refusal.clone();
        Checksum::default().put(&mut headers, call.map(HeaderValue::from));
        headers
    };
    let taken = |mut headers: HeaderMap| Checksum::default().take(&mut headers, Some(&this));
    assert_eq!(taken(sealed(Some(7))), Some(true));
    assert_eq!(taken(sealed(Some(8))), Some(false));
    assert_eq!(taken(sealed(None)), Some(true), "a leader of an older version");
    assert_eq!(taken(refusal.clone()), None);
    let mut renumbered = sealed(Some(8));
    renumbered.insert(CALL, this.clone());
    assert_eq!(taken(renumbered), Some(false));
    let mut unnumbered = sealed(Some(8));
    unnumbered.remove(CALL);
    assert_eq!(taken(unnumbered), Some(false));
}

#[test]
fn the_table_has_every_write_of_the_protos() {
    let protos = [
        include_str!("../../../proto/meshstore/v1/mesh.proto"),
        include_str!("../../../proto/meshstore/v1/topology.proto"),
        include_str!("../../../proto/meshstore/v1/storage.proto"),
        include_str!("../../../proto/meshstore/v1/broker.proto"),
        include_str!("../../../proto/meshstore/v1/lease.proto"),
        include_str!("../../../proto/meshstore/v1/watch.proto"),
        include_str!("../../../proto/meshstore/v1/consensus_log.proto"),
        include_str!("../../../proto/meshstore/v1/cluster.proto"),
    ];
    let answers = [
        "WriteResponse",
        "AppendToRaftResponse",
        "TransactResponse",
        "CreatedResponse",
        "SeedMeshResponse",
        "ApplyResponse",
        "StorageSetResponse",
        "StorageDeleteResponse",
        "StorageSetManyResponse",
        "StorageDeleteManyResponse",
        "BeginTransactionResponse",
        "RollbackTransactionResponse",
        "RequestCollectionResponse",
        "InsertResponse",
        "UpdateResponse",
        "FindAndUpdateResponse",
        "DeleteDocumentsResponse",
        "ApplyManifestResponse",
        "GrantLeaseResponse",
        "KeepAliveResponse",
        "AcquireLockResponse",
        "MemberResponse",
        // A read that only the leader can answer.
        "ListMembersResponse",
    ];
    let (mut writes, mut service) = (Vec::new(), "");
    for line in protos.iter().flat_map(|proto| proto.lines()) {
        let mut words = line.split_whitespace();
        let (Some(word), Some(signature)) = (words.next(), words.next()) else { continue };
        if word == "service" {
            service = signature;
        }
        if word != "rpc" {
            continue;
        }
        let method = signature.split('(').next().unwrap();
        if answers.iter().any(|answer| line.contains(&format!("returns ({answer})"))) || method.ends_with("Session") {
            writes.push(format!("/meshstore.v1.{service}/{method}"));
        }
    }
    assert_eq!(WRITES.as_slice(), writes.as_slice());
    for path in WRITES {
        let access = matrix::action(path).unwrap().access;
        assert!(
            matches!(access, Access::Write | Access::Admin) || path.ends_with("/ListMembers"),
            "{path} is passed on as a write, and listed as {access:?}"
        );
    }
}
