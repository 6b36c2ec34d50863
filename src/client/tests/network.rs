//! Scripted nodes behind in-memory connections, for what the client does about transports and outcomes.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};
use tokio_stream::{Stream, wrappers::UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, codegen::http::Uri, service::Routes, transport};
use tower::util::BoxCloneSyncService;

use crate::{
    Error,
    client::{Builder, Client},
    proto::v1::{
        self, calls_server::CallsServer, cluster_server::ClusterServer, mesh_server::MeshServer,
        session_server::SessionServer,
    },
    rpc::multiplex::Multiplex,
};

/// What a node does with the next write or read.
#[derive(Debug)]
pub(super) enum Act {
    /// Answers, with the revision.
    Answer(u64),
    /// Answers an error, as a node does.
    Tell(Error),
    /// Fails as a broken connection does: nobody knows what was done.
    Break,
    /// Never answers.
    Hang,
}

/// What a node was asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) node: u64,
    pub(super) what: &'static str,
    pub(super) attempt: Option<v1::Attempt>,
}

/// What all nodes share.
#[derive(Default)]
pub(super) struct World {
    pub(super) asked: Vec<Asked>,
    pub(super) scripts: HashMap<u64, VecDeque<Act>>,
    pub(super) opened: u64,
    pub(super) leader: u64,
    pub(super) expired: Vec<u64>,
    /// Streams of calls that were opened.
    pub(super) streams: usize,
    /// Nodes that know no such streams.
    pub(super) old: Vec<u64>,
    /// Tells the streams of calls of a node that it stops.
    pub(super) drains: HashMap<u64, watch::Sender<bool>>,
    /// The timeout that the last call carried.
    pub(super) timeout: Option<String>,
    listeners: HashMap<String, mpsc::UnboundedSender<io::Result<DuplexStream>>>,
}

/// A network of scripted nodes; node `i` is at `node<i>:7401`.
#[derive(Clone, Default)]
pub(super) struct Network(pub(super) Arc<Mutex<World>>);

#[derive(Clone)]
struct Node {
    id: u64,
    network: Network,
}

impl Network {
    pub(super) fn with(nodes: u64, leader: u64) -> Self {
        let network = Self::default();
        network.0.lock().unwrap().leader = leader;
        (1..=nodes).for_each(|id| network.start(id));
        network
    }

    pub(super) fn start(&self, id: u64) {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().unwrap().listeners.insert(format!("node{id}:7401"), sender);
        let node = Node { id, network: self.clone() };
        let routes = Routes::new(MeshServer::new(node.clone()))
            .add_service(SessionServer::new(node.clone()))
            .add_service(ClusterServer::new(node));
        let (drain, drained) = watch::channel(false);
        let network = self.clone();
        let counted = move |request: Request<()>| {
            let mut world = network.0.lock().unwrap();
            world.streams += 1;
            match world.old.contains(&id) {
                true => Err(Status::unimplemented("")),
                false => Ok(request),
            }
        };
        let calls = Multiplex::new(BoxCloneSyncService::new(routes.clone()), drained);
        let routes = routes.add_service(CallsServer::with_interceptor(calls, counted));
        self.0.lock().unwrap().drains.insert(id, drain);
        let server = transport::Server::builder().add_routes(routes);
        tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(receiver)));
    }

    /// Nobody can connect to it any more.
    pub(super) fn stop(&self, id: u64) {
        self.0.lock().unwrap().listeners.remove(&format!("node{id}:7401"));
    }

    pub(super) fn script(&self, id: u64, acts: impl IntoIterator<Item = Act>) {
        self.0.lock().unwrap().scripts.entry(id).or_default().extend(acts);
    }

    pub(super) fn client(&self, nodes: &[u64]) -> Builder {
        let network = self.clone();
        let connector = tower::service_fn(move |uri: Uri| {
            let listener = network.0.lock().unwrap().listeners.get(&uri.authority().unwrap().to_string()).cloned();
            std::future::ready(match listener {
                None => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                Some(listener) => {
                    let (ours, theirs) = tokio::io::duplex(1 << 16);
                    listener.send(Ok(theirs)).map(|()| TokioIo::new(ours)).map_err(io::Error::other)
                }
            })
        });
        Client::builder()
            .endpoints(nodes.iter().map(|id| format!("node{id}:7401")))
            .seed(7)
            .connector(move |endpoint| endpoint.connect_with_connector_lazy(connector.clone()))
    }

    /// What was asked of nodes, other than their status.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().asked.clone()
    }

    /// The attempts at writes, as (node, session, sequence, attempt, answered below).
    pub(super) fn attempts(&self) -> Vec<(u64, u64, u64, u32, u64)> {
        let place = |asked: &Asked| {
            let v1::Attempt { session, sequence, answered_below, attempt } = asked.attempt?;
            Some((asked.node, session, sequence, attempt, answered_below))
        };
        self.asked().iter().filter_map(place).collect()
    }
}

impl Node {
    async fn act(
        &self,
        what: &'static str,
        metadata: &tonic::metadata::MetadataMap,
        attempt: Option<v1::Attempt>,
    ) -> Result<u64, Status> {
        let act = {
            let mut world = self.network.0.lock().unwrap();
            world.asked.push(Asked { node: self.id, what, attempt });
            world.timeout = metadata.get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
            if let Some(attempt) = attempt
                && world.expired.contains(&attempt.session)
            {
                return Err(Error::SessionExpired { session: attempt.session }.into());
            }
            world.scripts.get_mut(&self.id).and_then(VecDeque::pop_front).unwrap_or(Act::Answer(1))
        };
        match act {
            Act::Answer(revision) => Ok(revision),
            Act::Tell(error) => Err(error.into()),
            Act::Break => Err(Status::unavailable("connection reset")),
            Act::Hang => std::future::pending().await,
        }
    }

    async fn write(
        &self,
        what: &'static str,
        metadata: &tonic::metadata::MetadataMap,
        attempt: Option<v1::Attempt>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let revision = self.act(what, metadata, attempt).await?;
        let leader_id = self.network.0.lock().unwrap().leader;
        Ok(Response::new(v1::WriteResponse { revision, leader_id }))
    }

    fn header(&self, revision: u64) -> Option<v1::ReadHeader> {
        Some(v1::ReadHeader { revision, age_ms: 0, node_id: self.id })
    }
}

/// The service with the methods that the tests use; the others are not implemented.
macro_rules! mesh {
    ($($other:ident($request:ident) -> $reply:ident;)*) => {
        #[tonic::async_trait]
        impl v1::mesh_server::Mesh for Node {
            async fn put_state(
                &self,
                request: Request<v1::PutStateRequest>,
            ) -> Result<Response<v1::WriteResponse>, Status> {
                self.write("put", request.metadata(), request.get_ref().attempt).await
            }

            async fn get_state(
                &self,
                request: Request<v1::GetStateRequest>,
            ) -> Result<Response<v1::GetStateResponse>, Status> {
                let revision = self.act("get", request.metadata(), None).await?;
                let (header, version) = (self.header(revision), Some(v1::Version::default()));
                Ok(Response::new(v1::GetStateResponse { header, version, ..Default::default() }))
            }

            async fn list_config_keys(
                &self,
                request: Request<v1::ListConfigKeysRequest>,
            ) -> Result<Response<v1::ListConfigKeysResponse>, Status> {
                // The revision says how many pages are still to come.
                let left = self.act("list", request.metadata(), None).await?;
                let cursor = request.into_inner().page.unwrap_or_default().cursor;
                let next_cursor = if left == 0 { String::new() } else { format!("{cursor}+") };
                let (header, keys) = (self.header(9), vec![format!("key{cursor}")]);
                Ok(Response::new(v1::ListConfigKeysResponse { header, keys, next_cursor }))
            }

            async fn store_large_message(
                &self,
                request: Request<Streaming<v1::StoreLargeMessageRequest>>,
            ) -> Result<Response<v1::WriteResponse>, Status> {
                let (metadata, _, mut frames) = request.into_parts();
                let Some(v1::store_large_message_request::Frame::Header(header)) =
                    frames.message().await?.and_then(|frame| frame.frame)
                else {
                    return Err(Status::invalid_argument("no header"));
                };
                let mut chunks = 0;
                while frames.message().await?.is_some() {
                    chunks += 1;
                }
                assert_eq!(chunks, header.chunks);
                self.write("large", &metadata, header.attempt).await
            }

            type ReadLargeMessageStream = Pin<Box<dyn Stream<Item = Result<v1::ReadLargeMessageResponse, Status>> + Send>>;

            async fn read_large_message(
                &self,
                _: Request<v1::ReadLargeMessageRequest>,
            ) -> Result<Response<Self::ReadLargeMessageStream>, Status> {
                Err(Status::unimplemented("not in this test"))
            }

            $(async fn $other(&self, _: Request<v1::$request>) -> Result<Response<v1::$reply>, Status> {
                Err(Status::unimplemented("not in this test"))
            })*
        }
    };
}

mesh! {
    store_message(StoreMessageRequest) -> WriteResponse;
    get_message(GetMessageRequest) -> GetMessageResponse;
    delete_message(DeleteMessageRequest) -> WriteResponse;
    list_messages(ListMessagesRequest) -> ListMessagesResponse;
    delete_state(DeleteStateRequest) -> WriteResponse;
    list_state(ListStateRequest) -> ListStateResponse;
    save_node_state(SaveNodeStateRequest) -> WriteResponse;
    get_node_state(GetNodeStateRequest) -> GetNodeStateResponse;
    delete_node_state(DeleteNodeStateRequest) -> WriteResponse;
    list_node_states(ListNodeStatesRequest) -> ListNodeStatesResponse;
    save_route(SaveRouteRequest) -> WriteResponse;
    get_route(GetRouteRequest) -> GetRouteResponse;
    list_routes(ListRoutesRequest) -> ListRoutesResponse;
    delete_route(DeleteRouteRequest) -> WriteResponse;
    save_config(SaveConfigRequest) -> WriteResponse;
    get_config(GetConfigRequest) -> GetConfigResponse;
    delete_config(DeleteConfigRequest) -> WriteResponse;
    transact(TransactRequest) -> TransactResponse;
    set_retention(SetRetentionRequest) -> WriteResponse;
    get_retention(GetRetentionRequest) -> GetRetentionResponse;
    delete_retention(DeleteRetentionRequest) -> WriteResponse;
    list_retention(ListRetentionRequest) -> ListRetentionResponse;
}

#[tonic::async_trait]
impl v1::session_server::Session for Node {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let mut world = self.network.0.lock().unwrap();
        world.opened += 1;
        let session = 100 * world.opened;
        world.asked.push(Asked { node: self.id, what: "open", attempt: None });
        Ok(Response::new(v1::OpenSessionResponse { session, ttl_ms: request.get_ref().ttl_ms }))
    }

    async fn keep_session(
        &self,
        request: Request<v1::KeepSessionRequest>,
    ) -> Result<Response<v1::KeepSessionResponse>, Status> {
        let mut world = self.network.0.lock().unwrap();
        world.asked.push(Asked { node: self.id, what: "keep", attempt: None });
        let session = request.get_ref().session;
        if world.expired.contains(&session) {
            return Err(Error::SessionExpired { session }.into());
        }
        Ok(Response::new(v1::KeepSessionResponse {}))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let mut world = self.network.0.lock().unwrap();
        world.asked.push(Asked { node: self.id, what: "close", attempt: None });
        world.expired.push(request.get_ref().session);
        Ok(Response::new(v1::CloseSessionResponse {}))
    }
}

macro_rules! cluster {
    ($($other:ident($request:ident) -> $reply:ident;)*) => {
        #[tonic::async_trait]
        impl v1::cluster_server::Cluster for Node {
            async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
                let world = self.network.0.lock().unwrap();
                let member = |id| v1::Member { node_id: id, client_address: format!("node{id}:7401"), ..Default::default() };
                let mut members: Vec<v1::Member> = (1..=3).map(member).collect();
                members.retain(|member| world.listeners.contains_key(&member.client_address));
                let leader_id = world.leader;
                Ok(Response::new(v1::StatusResponse { node_id: self.id, leader_id, members, ..Default::default() }))
            }

            type BackupStream = tokio_stream::Empty<Result<v1::BackupPart, Status>>;

            async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
                Err(Status::unimplemented("backup"))
            }

            $(async fn $other(&self, _: Request<v1::$request>) -> Result<Response<v1::$reply>, Status> {
                Err(Status::unimplemented(stringify!($other)))
            })*
        }
    };
}

cluster! {
    list_members(ListMembersRequest) -> ListMembersResponse;
    add_member(AddMemberRequest) -> MemberResponse;
    remove_member(RemoveMemberRequest) -> MemberResponse;
    promote_member(PromoteMemberRequest) -> MemberResponse;
    update_member(UpdateMemberRequest) -> MemberResponse;
    transfer_leadership(TransferLeadershipRequest) -> MemberResponse;
}
