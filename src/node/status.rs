//! What a node knows of itself and of its cluster.

use super::Node;
use crate::{
    model::keyspace,
    raft::{consensus::RaftStatus, space::Room},
    state::Meta,
};

/// What a node knows of itself and the cluster.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// This node.
    pub node_id: u64,
    /// Its cluster; `None` before it is initialised.
    pub cluster: Option<u128>,
    /// leader, follower, candidate, learner, or stopped.
    pub role: &'static str,
    /// The leader, where one is known.
    pub leader_id: Option<u64>,
    /// The term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_log_index: u64,
    /// Index of the last entry known to be committed.
    pub committed_index: u64,
    /// Index of the last entry applied here.
    pub applied_index: u64,
    /// The log position up to which the newest run on disk reaches.
    pub flushed_index: u64,
    /// Index of the last entry that was purged.
    pub purged_index: u64,
    /// The revision.
    pub revision: u64,
    /// Log time, in milliseconds.
    pub log_time_ms: u64,
    /// Open sessions.
    pub sessions: u64,
    /// The state hash, if it was asked for.
    pub state_hash: Option<u128>,
    /// The members.
    pub members: Vec<MemberStatus>,
    /// The room on this node's disk.
    pub disk: Option<Room>,
    /// On the leader: why nothing is taken that grows the data.
    pub writes_refused: Option<String>,
    /// What is wrong with the state here, or, on the leader, with that of the replicas.
    pub divergence: Option<String>,
    /// The feature level that the cluster has reached; `None` if that cannot be read, since the node ends.
    pub feature_level: Option<u32>,
    /// Keyspace number, records, bytes; those that hold records only.
    pub keyspaces: Vec<(u8, u64, u64)>,
}

/// A member, as this node knows it.
#[derive(Clone, Debug, Default)]
pub struct MemberStatus {
    /// Its id.
    pub node_id: u64,
    /// Where clients reach it.
    pub client_address: String,
    /// Where peers reach it.
    pub peer_address: String,
    /// Voter or learner.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// On the leader: the last log index known to be on its disk.
    pub matched_index: Option<u64>,
    /// On the leader: the room on its disk, as it told lately.
    pub disk: Option<Room>,
}

/// Number, records and bytes of the keyspaces that hold records.
pub(super) fn keyspaces(meta: &Meta) -> Vec<(u8, u64, u64)> {
    let mut keyspaces: Vec<(u8, u64, u64)> = Vec::new();
    for (id, scope) in meta.scopes.iter().filter(|(id, _)| id.keyspace <= keyspace::LAST_RECORD) {
        match keyspaces.last_mut().filter(|(number, _, _)| *number == id.keyspace) {
            Some((_, count, bytes)) => {
                *count += scope.account.count;
                *bytes += scope.account.bytes;
            }
            None => keyspaces.push((id.keyspace, scope.account.count, scope.account.bytes)),
        }
    }
    keyspaces
}

impl Node {
    /// What this node knows of itself and the cluster. The hash takes time in proportion to the sessions.
    pub fn status(&self, with_hash: bool) -> Status {
        let shared = &self.shared;
        let raft =
            shared.consensus.status().unwrap_or_else(|_| RaftStatus { role: "stopped", ..RaftStatus::default() });
        let progress = *shared.machine.progress().borrow();
        let flushed = *shared.machine.store().flushed().borrow();
        // One look, so that revision, index and hash belong together.
        let (position, revision, log_time_ms, sessions, state_hash, keyspaces) =
            shared.machine.with_state(|position, meta| {
                let hash = with_hash.then(|| meta.state_hash());
                (position, meta.revision, meta.log_time_ms, meta.sessions.len() as u64, hash, keyspaces(meta))
            });
        let (space, leads) = (shared.network.space(), raft.role == "leader");
        let (disk, others) = (space.own(), if leads { space.others() } else { Default::default() });
        let members = raft.members.iter().map(|(id, member, voter)| MemberStatus {
            node_id: *id,
            client_address: member.client_address.clone(),
            peer_address: member.peer_address.clone(),
            voter: *voter,
            leader: raft.leader_id == Some(*id),
            matched_index: raft.matched.get(id).copied(),
            disk: if *id == shared.node_id { disk } else { others.get(id).copied() },
        });
        Status {
            node_id: shared.node_id,
            cluster: shared.cluster(),
            role: raft.role,
            leader_id: raft.leader_id,
            term: raft.term,
            last_log_index: raft.last_log_index,
            committed_index: raft.committed_index.max(progress.position.index),
            applied_index: position.index,
            flushed_index: flushed.map_or(0, |position| position.index),
            purged_index: raft.purged_index,
            revision,
            log_time_ms,
            sessions,
            state_hash,
            members: members.collect(),
            disk,
            writes_refused: shared.writes_refused(),
            divergence: shared.divergence(),
            feature_level: self.feature_level().ok(),
            keyspaces,
        }
    }
}
