//! The cluster's own state, as this node knows it, and who belongs to it.

use std::sync::Arc;

use futures_util::{
    StreamExt, TryFutureExt,
    stream::{self, BoxStream, Stream},
};
use tonic::{Request, Response, Status};

use super::Call;

use crate::{
    Error, Result as Answer,
    model::{features, keyspace},
    node::{self, Asked, MemberStatus, NewAddresses, Node, backup},
    proto::v1::{
        self, AddMemberRequest, BackupPart, BackupRequest, KeyspaceStatus, ListMembersRequest, ListMembersResponse,
        Member, MemberResponse, PromoteMemberRequest, RemoveMemberRequest, StatusRequest, StatusResponse,
        TransferLeadershipRequest, UpdateMemberRequest, backup_part::Part, cluster_server,
    },
};

/// The `Cluster` service.
pub(super) struct Cluster {
    node: Arc<Node>,
}

impl Cluster {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// What a change of the membership is answered, once it is made.
    fn changed(&self) -> Response<MemberResponse> {
        let status = self.node.status(false);
        let leader_id = status.leader_id.unwrap_or_default();
        Response::new(MemberResponse { leader_id, revision: status.revision })
    }
}

/// Who asks, and under which number. Errors: `InvalidArgument`.
fn asked(call: Call, request_id: &str) -> Answer<Asked> {
    let request = match request_id {
        "" => 0,
        text => Some(text)
            .filter(|text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| u128::from_str_radix(text, 16).ok())
            .ok_or_else(|| Error::invalid("request_id", text, "must be 32 hex digits, or empty"))?,
    };
    Ok(Asked { by: call.principal, request, deadline: call.deadline })
}

/// A node id that was given. Errors: `InvalidArgument`.
fn given(node_id: u64) -> Answer<u64> {
    if node_id == 0 { Err(Error::invalid("node_id", "0", "must be the id of a node, from 1")) } else { Ok(node_id) }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.node.status(request.into_inner().with_hash);
        Ok(Response::new(status.into()))
    }

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Result<Response<ListMembersResponse>, Status> {
        Ok(Response::new(self.node.list_members().await?.into()))
    }

    async fn add_member(&self, request: Request<AddMemberRequest>) -> Result<Response<MemberResponse>, Status> {
        let (call, AddMemberRequest { node_id, peer_address, learner, request_id }) = Call::open(request)?;
        self.node.add_member(asked(call, &request_id)?, given(node_id)?, &peer_address, learner).await?;
        Ok(self.changed())
    }

    async fn remove_member(&self, request: Request<RemoveMemberRequest>) -> Result<Response<MemberResponse>, Status> {
        let (call, RemoveMemberRequest { node_id, request_id }) = Call::open(request)?;
        self.node.remove_member(asked(call, &request_id)?, given(node_id)?).await?;
        Ok(self.changed())
    }

    async fn promote_member(&self, request: Request<PromoteMemberRequest>) -> Result<Response<MemberResponse>, Status> {
        let (call, PromoteMemberRequest { node_id }) = Call::open(request)?;
        self.node.promote_member(asked(call, "")?, given(node_id)?).await?;
        Ok(self.changed())
    }

    async fn update_member(&self, request: Request<UpdateMemberRequest>) -> Result<Response<MemberResponse>, Status> {
        let (call, UpdateMemberRequest { node_id, peer_address, client_address }) = Call::open(request)?;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let to = NewAddresses { peer: some(peer_address), client: some(client_address) };
        self.node.update_member(asked(call, "")?, given(node_id)?, to).await?;
        Ok(self.changed())
    }

    type BackupStream = BoxStream<'static, Result<BackupPart, Status>>;

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let (call, BackupRequest { read }) = Call::open(request)?;
        let outgoing = self.node.backup(read.into(), call.deadline).await?;
        // The flush that it begins with may take longer than the call waits for its first answer.
        let messages = async move { outgoing.await.map(parts).map_err(Status::from) };
        Ok(Response::new(messages.try_flatten_stream().boxed()))
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<MemberResponse>, Status> {
        let (call, TransferLeadershipRequest { node_id }) = Call::open(request)?;
        self.node.transfer_leadership(asked(call, "")?, node_id).await?;
        Ok(self.changed())
    }
}

/// A backup, as messages.
fn parts(outgoing: backup::Outgoing) -> impl Stream<Item = Result<BackupPart, Status>> {
    let backup::Outgoing { contents, bytes, pieces } = outgoing;
    let head = v1::BackupHead {
        revision: contents.revision,
        index: contents.position.index,
        term: contents.position.term,
        about_bytes: bytes,
    };
    let head = stream::once(std::future::ready(Ok(Part::Head(head))));
    let data = pieces.map(|piece| piece.map(Part::Data).map_err(Status::internal));
    head.chain(data).map(|part| part.map(|part| BackupPart { part: Some(part) }))
}

impl From<node::Listed> for ListMembersResponse {
    fn from(listed: node::Listed) -> Self {
        let member = |member: node::ListedMember| {
            let (version, unreachable) = match member.version {
                Ok(version) => (version, String::new()),
                Err(problem) => (String::new(), problem),
            };
            v1::MemberStatus {
                member: Some(member.status.into()),
                to_be_voter: member.to_be_voter,
                to_be_removed: member.to_be_removed,
                to_be_added: member.to_be_added,
                lag: member.lag,
                unreachable,
                version,
            }
        };
        let removed = |node::RemovedMember { node_id, removed_at_ms, removed_by }| v1::RemovedMember {
            node_id,
            removed_at_ms,
            removed_by,
        };
        Self {
            members: listed.members.into_iter().map(member).collect(),
            removed: listed.removed.into_iter().map(removed).collect(),
            leader_id: listed.leader_id,
            term: listed.term,
            last_log_index: listed.last_log_index,
        }
    }
}

impl From<node::Status> for StatusResponse {
    fn from(status: node::Status) -> Self {
        let hex = |id: Option<u128>| id.map(|id| format!("{id:032x}")).unwrap_or_default();
        Self {
            node_id: status.node_id,
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_id: hex(status.cluster),
            role: status.role.into(),
            leader_id: status.leader_id.unwrap_or_default(),
            term: status.term,
            last_log_index: status.last_log_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            flushed_index: status.flushed_index,
            purged_index: status.purged_index,
            revision: status.revision,
            log_time_ms: status.log_time_ms,
            sessions: status.sessions,
            state_hash: hex(status.state_hash),
            members: status.members.into_iter().map(Into::into).collect(),
            disk: status.disk.map(Into::into),
            writes_refused: status.writes_refused.unwrap_or_default(),
            divergence: status.divergence.unwrap_or_default(),
            feature_level: status.feature_level.unwrap_or_default(),
            known_feature_level: features::LEVEL,
            keyspaces: status.keyspaces.into_iter().map(keyspace_status).collect(),
        }
    }
}

impl From<MemberStatus> for Member {
    fn from(member: MemberStatus) -> Self {
        let MemberStatus { node_id, client_address, peer_address, voter, leader, matched_index, disk } = member;
        Self { node_id, client_address, peer_address, voter, leader, matched_index, disk: disk.map(Into::into) }
    }
}

fn keyspace_status((number, records, bytes): (u8, u64, u64)) -> KeyspaceStatus {
    // A keyspace of a newer version still shows, by its number.
    let name = keyspace::name(number).map_or_else(|| format!("keyspace_{number:02x}"), Into::into);
    KeyspaceStatus { name, records, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_empty_and_what_has_no_name_has_a_number() {
        let status = node::Status {
            cluster: Some(0xAB),
            keyspaces: vec![(keyspace::ROUTING_TABLE, 1, 2), (0xD0, 3, 4)],
            ..node::Status::default()
        };
        let wire = StatusResponse::from(status);
        assert_eq!(wire.cluster_id, "000000000000000000000000000000ab");
        assert_eq!((wire.state_hash.as_str(), wire.leader_id), ("", 0));
        let names: Vec<_> = wire.keyspaces.iter().map(|keyspace| keyspace.name.as_str()).collect();
        assert_eq!(names, ["mesh_routing_table", "keyspace_d0"]);
    }
}
