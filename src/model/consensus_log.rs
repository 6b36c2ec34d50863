//! The consensus log, as clients and layers see it.

use super::{Position, mesh::Stored, proposal::Batch};

/// An entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
    /// What it holds: JSON, exactly as it was appended.
    pub entry_json: String,
}

/// An entry of a group's log, by its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The group.
    pub group: String,
    /// The index.
    pub index: u64,
    /// The term.
    pub term: u64,
}

/// Which entries of a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Indexes {
    /// The first.
    pub first: u64,
    /// The last, included; 0 stands for as far as it goes.
    pub last: u64,
}

impl Indexes {
    /// The last index that is meant.
    pub fn end(self) -> u64 {
        if self.last == 0 { u64::MAX } else { self.last }
    }
}

/// An entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftEntry {
    /// Where it stands.
    pub position: Position,
    /// What it holds.
    pub payload: RaftPayload,
}

/// What an entry of the Raft log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftPayload {
    /// Nothing: a leader's first entry in its term.
    Blank,
    /// The members of the cluster.
    Membership {
        /// Two sets while the membership changes.
        voters: Vec<Vec<u64>>,
        /// All members, learners too, with their client addresses.
        members: Vec<(u64, String)>,
    },
    /// Proposals.
    Batch(Batch),
}

/// A part of a node's Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftPart {
    /// The first index that the log still holds.
    pub first_index: u64,
    /// The last index that is committed, and applied on the node.
    pub committed_index: u64,
    /// In order, without gaps.
    pub entries: Vec<RaftEntry>,
}

/// Where an entry of the application landed in the Raft log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The log entry.
    pub position: Position,
    /// Its place among the proposals that share the log entry.
    pub ordinal: u32,
}

/// An entry with what the store knows of it.
pub type StoredEntry = Stored<LogEntry>;
