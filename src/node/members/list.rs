//! The members, with what only the leader knows of them.

use super::{Node, Wish};
use crate::{error::Result, node::MemberStatus, raft::types::NodeId};

/// Who belongs to the cluster.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The members, and nodes that are about to become some, by id.
    pub members: Vec<ListedMember>,
    /// Those that were, by id.
    pub removed: Vec<RemovedMember>,
    /// The leader: this node.
    pub leader_id: NodeId,
    /// Its term.
    pub term: u64,
    /// Index of its last entry.
    pub last_log_index: u64,
}

/// A member.
#[derive(Clone, Debug)]
pub struct ListedMember {
    /// What the status says of it, too.
    pub status: MemberStatus,
    /// A learner that becomes a voter as soon as it has caught up.
    pub to_be_voter: bool,
    /// Its removal is under way.
    pub to_be_removed: bool,
    /// Its addition is under way.
    pub to_be_added: bool,
    /// How many entries it is behind.
    pub lag: Option<u64>,
    /// The version of its program, or why it is not reached.
    pub version: Result<String, String>,
}

/// A node that was a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedMember {
    /// Its id, which nobody gets again.
    pub node_id: NodeId,
    /// When that was decided, in milliseconds since 1970.
    pub removed_at_ms: u64,
    /// By whom.
    pub removed_by: String,
}

impl Node {
    /// The members. Errors: `Unavailable` if this node does not lead.
    pub async fn list_members(&self) -> Result<Listed> {
        self.check_leads()?;
        let (status, records, mut all) = (self.status(false), self.records()?, self.shared.consensus.members().all);
        let wish = |id: &NodeId| records.get(id).map(|found| found.record.wish);
        let mut listed: Vec<MemberStatus> = status.members.clone();
        for (id, found) in
            records.iter().filter(|(id, found)| found.record.wish != Wish::Removed && !all.contains_key(id))
        {
            let member = &found.record.member;
            let (client_address, peer_address) = (member.client_address.clone(), member.peer_address.clone());
            listed.push(MemberStatus { node_id: *id, client_address, peer_address, ..MemberStatus::default() });
        }
        listed.sort_by_key(|member| member.node_id);
        all.remove(&self.id());
        let mut answers = self.ask_members(&all).await;
        let members = listed.into_iter().map(|member| {
            let id = member.node_id;
            let version = match answers.remove(&id) {
                _ if id == self.id() => Ok(env!("CARGO_PKG_VERSION").into()),
                Some(answer) => answer.map(|answer| answer.version),
                None => Err("is not added yet".into()),
            };
            let matched = if id == self.id() { Some(status.last_log_index) } else { member.matched_index };
            ListedMember {
                to_be_voter: !member.voter && wish(&id) == Some(Wish::Voter),
                to_be_removed: wish(&id) == Some(Wish::Removed),
                to_be_added: id != self.id() && !all.contains_key(&id),
                lag: matched.map(|matched| status.last_log_index.saturating_sub(matched)),
                version,
                status: member,
            }
        });
        let members = members.collect::<Vec<_>>();
        let gone = |id: &NodeId| members.iter().all(|member| member.status.node_id != *id);
        let removed = records.iter().filter(|(id, found)| found.record.wish == Wish::Removed && gone(id));
        let removed = removed.map(|(id, found)| RemovedMember {
            node_id: *id,
            removed_at_ms: found.at_ms,
            removed_by: found.record.by.clone(),
        });
        Ok(Listed {
            removed: removed.collect(),
            leader_id: self.id(),
            term: status.term,
            last_log_index: status.last_log_index,
            members,
        })
    }
}
