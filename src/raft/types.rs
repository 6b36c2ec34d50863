//! The types with which openraft is configured, and their frozen form on disk and between peers.
//!
//! openraft's own types are never serialised: an alpha may change them, our bytes may not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use openraft::{
    EntryPayload,
    entry::RaftEntry,
    impls::{InlineBatch, OneshotResponder, leader_id_std},
};
use serde::{Deserialize, Serialize};

pub use crate::model::Position;
use crate::{
    error::Fault,
    model::{
        Outcome,
        consensus_log::{self, RaftPayload},
        proposal::Batch,
    },
    storage::codec::{self, DecodeError, Kind},
};

/// A node's number in its cluster; never used again for another directory.
pub type NodeId = u64;

/// Where a member is reached, and which data directory it is. Part of the Raft membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` for peers.
    pub peer_address: String,
    /// `host:port` for clients.
    pub client_address: String,
    /// The random id of its data directory.
    pub directory: u128,
}

/// The application part of an entry: a sealed [`crate::model::proposal::Batch`], opaque to Raft.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply answers to an entry: one outcome for each proposal of its batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each proposal, in order.
    pub outcomes: Vec<Outcome>,
}

/// The configuration of openraft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

/// One leader per term.
pub type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
/// The term of the leader that proposed an entry.
pub type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
/// openraft's log id: term and index.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// openraft's vote.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// What an entry holds.
pub type Payload = EntryPayload<Command, NodeId, Member>;
/// openraft's membership.
pub type Membership = openraft::Membership<NodeId, Member>;
/// openraft's membership with the log id that set it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Member>;
/// tokio, with openraft's random choices (election timeouts) drawn from a seed.
pub type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Applied;
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = LogEntry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// An entry of the log. Sealed once: the same bytes go to the local log, to peers, and to their logs.
#[derive(Clone, PartialEq)]
pub struct LogEntry {
    term: CommittedLeaderId,
    index: u64,
    payload: Payload,
    sealed: Option<Bytes>,
}

impl LogEntry {
    /// What the entry holds.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The members, if the entry sets them.
    pub fn members(&self) -> Option<StoredMembers> {
        match &self.payload {
            EntryPayload::Membership(membership) => Some(membership_to_stored(membership)),
            _ => None,
        }
    }

    /// The entry in plain terms.
    ///
    /// Errors: its batch cannot be read, which has passed every checksum: a broken node.
    pub fn opened(&self) -> Result<consensus_log::RaftEntry, Fault> {
        let position = Position { term: *self.term, index: self.index };
        let payload = match &self.payload {
            EntryPayload::Blank => RaftPayload::Blank,
            EntryPayload::Membership(membership) => RaftPayload::Membership {
                voters: membership.get_joint_config().iter().map(|voters| voters.iter().copied().collect()).collect(),
                members: membership.nodes().map(|(id, member)| (*id, member.client_address.clone())).collect(),
            },
            EntryPayload::Normal(Command(batch)) => {
                let batch: Batch = codec::decode(Kind::Batch, batch)
                    .map_err(|error| Fault::new(format!("the log entry at {position} cannot be read: {error}")))?;
                RaftPayload::Batch(batch)
            }
        };
        Ok(consensus_log::RaftEntry { position, payload })
    }

    /// The entry's envelope, as it stands in the log.
    pub fn sealed(&mut self) -> Bytes {
        let Self { term, index, payload, sealed } = self;
        sealed
            .get_or_insert_with(|| {
                let payload = match payload {
                    EntryPayload::Blank => StoredPayload::Blank,
                    EntryPayload::Normal(Command(batch)) => StoredPayload::Batch(batch.clone()),
                    EntryPayload::Membership(membership) => StoredPayload::Membership(membership_to_stored(membership)),
                };
                codec::encode(Kind::LogEntry, &StoredEntry { term: **term, index: *index, payload })
            })
            .clone()
    }

    /// Opens an entry's envelope.
    pub fn open(sealed: Bytes) -> Result<Self, DecodeError> {
        let stored: StoredEntry = codec::decode(Kind::LogEntry, &sealed)?;
        let payload = match stored.payload {
            StoredPayload::Blank => EntryPayload::Blank,
            StoredPayload::Batch(batch) => EntryPayload::Normal(Command(batch)),
            StoredPayload::Membership(stored) => EntryPayload::Membership(membership_from_stored(stored)?),
        };
        let term = CommittedLeaderId::new(stored.term);
        Ok(Self { term, index: stored.index, payload, sealed: Some(sealed) })
    }
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {}", *self.term, self.index, self.payload)
    }
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        Self { term: log_id.leader_id, index: log_id.index, payload, sealed: None }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (&self.term, self.index)
    }

    fn set_log_id(&mut self, new: LogId) {
        (self.term, self.index, self.sealed) = (new.leader_id, new.index, None);
    }

    fn get_membership(&self) -> Option<Membership> {
        match &self.payload {
            EntryPayload::Membership(membership) => Some(membership.clone()),
            _ => None,
        }
    }
}

impl From<LogId> for Position {
    fn from(id: LogId) -> Self {
        Self { term: *id.leader_id, index: id.index }
    }
}

impl From<Position> for LogId {
    fn from(position: Position) -> Self {
        Self { leader_id: CommittedLeaderId::new(position.term), index: position.index }
    }
}

/// A vote, frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVote {
    /// The term.
    pub term: u64,
    /// Whom it is for.
    pub node: NodeId,
    /// Whether a quorum granted it.
    pub committed: bool,
}

impl From<Vote> for StoredVote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<StoredVote> for Vote {
    fn from(vote: StoredVote) -> Self {
        let leader_id = LeaderId { term: vote.term, voted_for: vote.node };
        Self { leader_id, committed: vote.committed }
    }
}

/// A membership, frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMembers {
    /// Voters; two sets while the membership changes.
    pub configs: Vec<BTreeSet<NodeId>>,
    /// All members, learners too.
    pub members: BTreeMap<NodeId, Member>,
}

/// A membership with the log position that set it, frozen. What runs and snapshots carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMembershipAt {
    /// Which entry set it.
    pub position: Option<Position>,
    /// The membership.
    pub membership: StoredMembers,
}

#[derive(Serialize, Deserialize)]
struct StoredEntry {
    term: u64,
    index: u64,
    payload: StoredPayload,
}

/// Grows at the end only.
#[derive(Serialize, Deserialize)]
enum StoredPayload {
    Blank,
    Batch(Bytes),
    Membership(StoredMembers),
}

/// The frozen form of a membership.
pub fn membership_to_stored(membership: &Membership) -> StoredMembers {
    StoredMembers {
        configs: membership.get_joint_config().to_vec(),
        members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
    }
}

/// A membership from its frozen form.
pub fn membership_from_stored(stored: StoredMembers) -> Result<Membership, DecodeError> {
    Membership::new(stored.configs, stored.members).map_err(|error| DecodeError::Payload(error.to_string()))
}

/// The frozen form of a membership with its position.
pub fn membership_at_to_stored(at: &StoredMembership) -> StoredMembershipAt {
    StoredMembershipAt { position: at.log_id().map(Into::into), membership: membership_to_stored(at.membership()) }
}

/// A membership with its position, from its frozen form.
pub fn membership_at_from_stored(stored: StoredMembershipAt) -> Result<StoredMembership, DecodeError> {
    Ok(StoredMembership::new(stored.position.map(Into::into), membership_from_stored(stored.membership)?))
}
