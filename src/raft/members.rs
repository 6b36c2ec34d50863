//! Who is a member, and how that is changed: the membership entries of the log.
//!
//! Learners come and go in one entry, since no quorum counts them. Voters come and go one at a time, by a joint membership
//! in which both the old and the new voters must agree, and then the new one alone. A leader that dies between the two
//! leaves the joint one, and whoever leads next goes on from there ([`Consensus::settle`]). A second change waits for the
//! first to be committed.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    ChangeMembers,
    errors::{ChangeMembershipError, ClientWriteError, Fatal, RaftError},
};

use super::{
    consensus::{Consensus, not_leading},
    types::{Member, NodeId, TypeConfig},
};
use crate::error::{Error, Result};

/// The members, as the newest membership in the log here has them. It may not be committed yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that vote; of a joint membership those that will.
    pub voters: BTreeSet<NodeId>,
    /// All, learners too.
    pub all: BTreeMap<NodeId, Member>,
    /// Whether the voters are being changed: the old ones must agree as well.
    pub joint: bool,
}

impl Members {
    /// Whether this node is a member that does not vote, so that no write waits for it.
    pub fn is_learner(&self, node: NodeId) -> bool {
        !self.joint && !self.voters.contains(&node) && self.all.contains_key(&node)
    }
}

type Changes = ChangeMembers<NodeId, Member>;

impl Consensus {
    /// The members.
    pub fn members(&self) -> Members {
        let metrics = self.raft().server_metrics();
        let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        Members {
            voters: configs.last().cloned().unwrap_or_default(),
            all: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
            joint: configs.len() > 1,
        }
    }

    /// Adds a node that gets the log and votes for nobody.
    ///
    /// Errors, of this and the others: `Unavailable` if this node does not lead, or another change is under way; `Unknown`
    /// if it lost the lead meanwhile.
    pub async fn add_learner(&self, node: NodeId, member: Member) -> Result<()> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(node, member)])), true).await
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, node: NodeId) -> Result<()> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await
    }

    /// Takes a voter out of the membership altogether.
    pub async fn remove_voter(&self, node: NodeId) -> Result<()> {
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await
    }

    /// Takes a learner out.
    pub async fn remove_learner(&self, node: NodeId) -> Result<()> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await
    }

    /// Says where a member is reached. Its directory must be what it was: another would be another node.
    pub async fn replace_address(&self, node: NodeId, member: Member) -> Result<()> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(node, member)])), true).await
    }

    /// Ends a joint membership that an earlier leader has left.
    pub async fn settle(&self) -> Result<()> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await
    }

    async fn change(&self, changes: Changes, retain: bool) -> Result<()> {
        self.raft().change_membership(changes, retain).await.map(drop).map_err(answer)
    }
}

/// What a caller is told of a change that was not made.
fn answer(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Error {
    let unavailable = |reason: String| Error::Unavailable { reason, leader: None };
    match error {
        RaftError::Fatal(Fatal::Stopped) => Error::Unknown("the node stopped before it answered".into()),
        RaftError::Fatal(fatal) => Error::Unknown(format!("the node is stopping: {fatal}")),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leading(Some(&forward)),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            Error::Unknown("the leader changed before the change of the membership was acknowledged".into())
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                unavailable("another change of the membership is under way".into())
            }
            other => Error::Refused(other.to_string()),
        },
        RaftError::APIError(other) => Error::Unknown(other.to_string()),
    }
}
