//! The cluster's own state, as this node knows it.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::{
    model::keyspace,
    node::{self, MemberStatus, Node},
    proto::v1::{KeyspaceStatus, Member, StatusRequest, StatusResponse, cluster_server},
};

/// The `Cluster` service.
pub(super) struct Cluster {
    node: Arc<Node>,
}

impl Cluster {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.node.status(request.into_inner().with_hash);
        Ok(Response::new(status.into()))
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
