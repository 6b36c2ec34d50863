//! The calls that a client makes, as types: which method takes a request, and what its answer says.
//!
//! One generic function makes all calls (`call.rs`), so that deadlines, retries and the choice of an
//! endpoint exist once. This table is what it needs to know of each.

use std::sync::LazyLock;

use tonic::{Request, Response, Status, Streaming};

use super::{Written, line::Line};
use crate::{
    limits,
    model::session::Attempt,
    proto::v1::{
        self, broker_client::BrokerClient, cluster_client::ClusterClient, consensus_log_client::ConsensusLogClient,
        lease_client::LeaseClient, lock_client::LockClient, mesh_client::MeshClient, session_client::SessionClient,
        storage_client::StorageClient, topology_client::TopologyClient,
    },
};

/// A request, with the method that takes it.
pub(super) trait Rpc: prost::Message + Clone + 'static {
    /// What is answered.
    type Reply: Send;
    /// The method's name, for messages.
    const NAME: &'static str;
    /// Whether sending it twice may do more than sending it once.
    const CHANGES: bool;
    /// Whether it is refused when the fence is lost that the client carries.
    const FENCED: bool = Self::CHANGES;
    /// Sends it.
    fn send(request: Request<Self>, line: Line) -> impl Future<Output = Result<Response<Self::Reply>, Status>> + Send;
}

/// A request that changes the store, and so has a place in the session.
pub(super) trait Write: Rpc {
    /// Says which attempt of which call this is.
    fn set_attempt(&mut self, attempt: Attempt);
    /// What became of it.
    fn written(reply: &Self::Reply) -> Written;
}

/// A request that reads.
pub(super) trait Read: Rpc {
    /// Says how fresh the answer must be, and of which revision.
    fn set_options(&mut self, options: v1::ReadOptions);
    /// The revision that the answer shows.
    fn revision(reply: &Self::Reply) -> Option<u64>;
}

/// A method as gRPC names it: `/meshstore.v1.Mesh/PutState` of `MeshClient` and `put_state`.
fn path(client: &str, method: &str) -> String {
    let words = method.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    });
    format!("/meshstore.v1.{}/{}", client.trim_end_matches("Client"), words.collect::<String>())
}

macro_rules! rpc {
    ($client:ident.$method:ident($request:ident) -> $reply:ident, changes: $changes:literal $(, fenced: $fenced:literal)?) => {
        impl Rpc for v1::$request {
            type Reply = v1::$reply;
            const NAME: &'static str = stringify!($method);
            const CHANGES: bool = $changes;
            $(const FENCED: bool = $fenced;)?

            async fn send(request: Request<Self>, line: Line) -> Result<Response<v1::$reply>, Status> {
                static PATH: LazyLock<String> = LazyLock::new(|| path(stringify!($client), stringify!($method)));
                if let Some(answer) = line.call(&PATH, &request).await {
                    return answer;
                }
                $client::new(line.channel).max_decoding_message_size(limits::PEER_DECODE_BYTES).$method(request).await
            }
        }
    };
}

macro_rules! writes {
    ($client:ident: $($method:ident($request:ident) -> $reply:ident;)*) => {$(
        rpc!($client.$method($request) -> $reply, changes: true);

        impl Write for v1::$request {
            fn set_attempt(&mut self, attempt: Attempt) {
                self.attempt = Some(attempt.into());
            }

            fn written(reply: &v1::$reply) -> Written {
                Written { revision: reply.revision, leader_id: reply.leader_id }
            }
        }
    )*};
}

macro_rules! reads {
    ($client:ident: $($method:ident($request:ident) -> $reply:ident;)*) => {$(
        rpc!($client.$method($request) -> $reply, changes: false);

        impl Read for v1::$request {
            fn set_options(&mut self, options: v1::ReadOptions) {
                self.read = Some(options);
            }

            fn revision(reply: &v1::$reply) -> Option<u64> {
                reply.header.map(|header| header.revision)
            }
        }
    )*};
}

writes! {
    MeshClient:
    store_message(StoreMessageRequest) -> WriteResponse;
    delete_message(DeleteMessageRequest) -> WriteResponse;
    put_state(PutStateRequest) -> WriteResponse;
    delete_state(DeleteStateRequest) -> WriteResponse;
    save_node_state(SaveNodeStateRequest) -> WriteResponse;
    delete_node_state(DeleteNodeStateRequest) -> WriteResponse;
    save_route(SaveRouteRequest) -> WriteResponse;
    delete_route(DeleteRouteRequest) -> WriteResponse;
    save_config(SaveConfigRequest) -> WriteResponse;
    delete_config(DeleteConfigRequest) -> WriteResponse;
    transact(TransactRequest) -> TransactResponse;
    set_retention(SetRetentionRequest) -> WriteResponse;
    delete_retention(DeleteRetentionRequest) -> WriteResponse;
}

reads! {
    MeshClient:
    get_message(GetMessageRequest) -> GetMessageResponse;
    list_messages(ListMessagesRequest) -> ListMessagesResponse;
    get_state(GetStateRequest) -> GetStateResponse;
    list_state(ListStateRequest) -> ListStateResponse;
    get_node_state(GetNodeStateRequest) -> GetNodeStateResponse;
    list_node_states(ListNodeStatesRequest) -> ListNodeStatesResponse;
    get_route(GetRouteRequest) -> GetRouteResponse;
    list_routes(ListRoutesRequest) -> ListRoutesResponse;
    get_config(GetConfigRequest) -> GetConfigResponse;
    list_config_keys(ListConfigKeysRequest) -> ListConfigKeysResponse;
    get_retention(GetRetentionRequest) -> GetRetentionResponse;
    list_retention(ListRetentionRequest) -> ListRetentionResponse;
}

impl Rpc for v1::ReadLargeMessageRequest {
    type Reply = Streaming<v1::ReadLargeMessageResponse>;
    const NAME: &'static str = "read_large_message";
    const CHANGES: bool = false;

    async fn send(request: Request<Self>, Line { channel, .. }: Line) -> Result<Response<Self::Reply>, Status> {
        MeshClient::new(channel).read_large_message(request).await
    }
}

writes! {
    ConsensusLogClient:
    append_to_raft(AppendToRaftRequest) -> AppendToRaftResponse;
    append_entry(AppendEntryRequest) -> WriteResponse;
    delete_entries(DeleteEntriesRequest) -> WriteResponse;
}

reads! {
    ConsensusLogClient:
    get_entry(GetEntryRequest) -> GetEntryResponse;
    list_entries(ListEntriesRequest) -> ListEntriesResponse;
}

rpc!(ConsensusLogClient.read_raft(ReadRaftRequest) -> ReadRaftResponse, changes: false);

writes! {
    TopologyClient:
    seed_mesh(SeedMeshRequest) -> SeedMeshResponse;
    join_mesh(JoinMeshRequest) -> CreatedResponse;
    leave_mesh(LeaveMeshRequest) -> WriteResponse;
    evict_node(EvictNodeRequest) -> WriteResponse;
    modify_mesh(ModifyMeshRequest) -> WriteResponse;
    delete_mesh(DeleteMeshRequest) -> WriteResponse;
    modify_node(ModifyNodeRequest) -> WriteResponse;
    add_route(AddRouteRequest) -> CreatedResponse;
    modify_route(ModifyRouteRequest) -> WriteResponse;
    delete_route(DeleteMeshRouteRequest) -> WriteResponse;
    add_region(AddRegionRequest) -> CreatedResponse;
    modify_region(ModifyRegionRequest) -> WriteResponse;
    delete_region(DeleteRegionRequest) -> WriteResponse;
    apply(ApplyRequest) -> ApplyResponse;
    confirm(ConfirmRequest) -> WriteResponse;
    rollback(RollbackRequest) -> ApplyResponse;
    set_local_identity(SetLocalIdentityRequest) -> WriteResponse;
    report_applied(ReportAppliedRequest) -> WriteResponse;
}

reads! {
    TopologyClient:
    show_mesh(ShowMeshRequest) -> ShowMeshResponse;
    list_meshes(ListMeshesRequest) -> ListMeshesResponse;
    show_node(ShowNodeRequest) -> ShowNodeResponse;
    list_nodes(ListNodesRequest) -> ListNodesResponse;
    show_topology(ShowTopologyRequest) -> ShowTopologyResponse;
    get_routes_for_node(GetRoutesForNodeRequest) -> GetRoutesForNodeResponse;
    list_regions(ListRegionsRequest) -> ListRegionsResponse;
    history(HistoryRequest) -> HistoryResponse;
    diff(DiffRequest) -> DiffResponse;
    get_local_identity(GetLocalIdentityRequest) -> GetLocalIdentityResponse;
    show_applied(ShowAppliedRequest) -> ShowAppliedResponse;
}

writes! {
    StorageClient:
    set(StorageSetRequest) -> StorageSetResponse;
    delete(StorageDeleteRequest) -> StorageDeleteResponse;
    set_many(StorageSetManyRequest) -> StorageSetManyResponse;
    delete_many(StorageDeleteManyRequest) -> StorageDeleteManyResponse;
    create_namespace(CreateNamespaceRequest) -> WriteResponse;
    modify_namespace(ModifyNamespaceRequest) -> WriteResponse;
    delete_namespace(DeleteNamespaceRequest) -> WriteResponse;
    set_metadata(SetMetadataRequest) -> WriteResponse;
    restore(StorageRestoreRequest) -> StorageSetResponse;
    clear(StorageClearRequest) -> WriteResponse;
    create_index(CreateIndexRequest) -> WriteResponse;
    drop_index(DropIndexRequest) -> WriteResponse;
    commit(CommitTransactionRequest) -> WriteResponse;
}

reads! {
    StorageClient:
    get(StorageGetRequest) -> StorageGetResponse;
    has(StorageHasRequest) -> StorageHasResponse;
    get_many(StorageGetManyRequest) -> StorageGetManyResponse;
    list(StorageListRequest) -> StorageListResponse;
    count(StorageCountRequest) -> StorageCountResponse;
    query(StorageQueryRequest) -> StorageQueryResponse;
    list_indexes(ListIndexesRequest) -> ListIndexesResponse;
    show_namespace(ShowNamespaceRequest) -> ShowNamespaceResponse;
    list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
    get_metadata(GetMetadataRequest) -> GetMetadataResponse;
    history(StorageHistoryRequest) -> StorageHistoryResponse;
    get_status(StorageStatusRequest) -> StorageStatusResponse;
}

writes! {
    BrokerClient:
    request_collection(RequestCollectionRequest) -> RequestCollectionResponse;
    drop_collection(DropCollectionRequest) -> WriteResponse;
    insert(InsertRequest) -> InsertResponse;
    update(UpdateRequest) -> UpdateResponse;
    find_and_update(FindAndUpdateRequest) -> FindAndUpdateResponse;
    replace(ReplaceRequest) -> WriteResponse;
    delete_documents(DeleteDocumentsRequest) -> DeleteDocumentsResponse;
    grant_access(GrantAccessRequest) -> WriteResponse;
    revoke_access(RevokeAccessRequest) -> WriteResponse;
    apply_manifest(ApplyManifestRequest) -> ApplyManifestResponse;
    decide_access_request(DecideAccessRequestRequest) -> WriteResponse;
}

reads! {
    BrokerClient:
    show_collection(ShowCollectionRequest) -> ShowCollectionResponse;
    list_collections(ListCollectionsRequest) -> ListCollectionsResponse;
    get_document(GetDocumentRequest) -> GetDocumentResponse;
    find(FindRequest) -> FindResponse;
    count_documents(CountDocumentsRequest) -> CountDocumentsResponse;
    distinct(DistinctRequest) -> DistinctResponse;
    list_grants(ListGrantsRequest) -> ListGrantsResponse;
    list_access_requests(ListAccessRequestsRequest) -> ListAccessRequestsResponse;
}

writes! {
    LeaseClient:
    grant(GrantLeaseRequest) -> GrantLeaseResponse;
    revoke(RevokeLeaseRequest) -> WriteResponse;
}

reads! {
    LeaseClient:
    show(ShowLeaseRequest) -> ShowLeaseResponse;
    list(ListLeasesRequest) -> ListLeasesResponse;
}

writes! {
    LockClient:
    release(ReleaseLockRequest) -> WriteResponse;
}

reads! {
    LockClient:
    show(ShowLockRequest) -> ShowLockResponse;
    observe(ObserveLockRequest) -> ShowLockResponse;
}

// Sent again these do nothing more: a lease has its whole time, and a place in a queue is found again.
rpc!(LeaseClient.keep_alive(KeepAliveRequest) -> KeepAliveResponse, changes: false, fenced: true);
rpc!(LockClient.acquire(AcquireLockRequest) -> AcquireLockResponse, changes: false, fenced: true);

impl Rpc for v1::BackupRequest {
    type Reply = Streaming<v1::BackupPart>;
    const NAME: &'static str = "backup";
    const CHANGES: bool = false;

    async fn send(request: Request<Self>, Line { channel, .. }: Line) -> Result<Response<Self::Reply>, Status> {
        ClusterClient::new(channel).max_decoding_message_size(limits::PEER_DECODE_BYTES).backup(request).await
    }
}

rpc!(TopologyClient.wait_until_applied(WaitUntilAppliedRequest) -> ShowAppliedResponse, changes: false);
// One that was begun twice, because an answer got lost, is ended by its time; one that was rolled back stays so.
rpc!(StorageClient.begin_transaction(BeginTransactionRequest) -> BeginTransactionResponse, changes: false);
rpc!(StorageClient.rollback(RollbackTransactionRequest) -> RollbackTransactionResponse, changes: false);
// A session that was opened twice, because an answer got lost, expires by itself.
rpc!(SessionClient.open_session(OpenSessionRequest) -> OpenSessionResponse, changes: false);
rpc!(SessionClient.keep_session(KeepSessionRequest) -> KeepSessionResponse, changes: false);
rpc!(SessionClient.close_session(CloseSessionRequest) -> CloseSessionResponse, changes: false);
rpc!(ClusterClient.status(StatusRequest) -> StatusResponse, changes: false);
rpc!(ClusterClient.list_members(ListMembersRequest) -> ListMembersResponse, changes: false);
// Sent again each of these does nothing more: a request has a number, or says how things are to be.
rpc!(ClusterClient.add_member(AddMemberRequest) -> MemberResponse, changes: true);
rpc!(ClusterClient.remove_member(RemoveMemberRequest) -> MemberResponse, changes: true);
rpc!(ClusterClient.promote_member(PromoteMemberRequest) -> MemberResponse, changes: true);
rpc!(ClusterClient.update_member(UpdateMemberRequest) -> MemberResponse, changes: true);
rpc!(ClusterClient.transfer_leadership(TransferLeadershipRequest) -> MemberResponse, changes: true);
