//! A running node: propose, read, lifecycle.

pub mod identity;

use tokio::time::Instant;

use crate::{
    error::Result,
    model::{Outcome, ReadMode, ReadStamp, proposal::Guards, session::Attempt, transaction::Transaction},
    state::View,
};

/// A running node.
pub struct Node {}

/// A change that a layer wants, for somebody.
pub struct Request {
    /// Who asks.
    pub principal: String,
    /// The session call, if it is made in a session.
    pub attempt: Option<Attempt>,
    /// What the layer relied on.
    pub guards: Guards,
    /// The change.
    pub transaction: Transaction,
}

impl Node {
    /// This node's id.
    pub fn id(&self) -> u64 {
        unimplemented!()
    }

    /// A view at a revision that is as fresh as `mode` asks. `revision`: an older one, for the next page of a list.
    pub async fn read(&self, _mode: ReadMode, _revision: Option<u64>, _deadline: Instant) -> Result<(View, ReadStamp)> {
        unimplemented!()
    }

    /// Proposes a transaction; only a leader can. Answers once a quorum has it on disk and it is applied here.
    pub async fn propose(&self, _request: Request, _deadline: Instant) -> Result<Outcome> {
        unimplemented!()
    }

    /// Opens a session: its id.
    pub async fn open_session(&self, _principal: String, _ttl_ms: u64, _deadline: Instant) -> Result<u64> {
        unimplemented!()
    }

    /// Keeps a session alive.
    pub async fn keep_session(&self, _principal: String, _session: u64, _deadline: Instant) -> Result<()> {
        unimplemented!()
    }

    /// Ends a session.
    pub async fn close_session(&self, _principal: String, _session: u64, _deadline: Instant) -> Result<()> {
        unimplemented!()
    }

    /// What this node knows of itself and the cluster.
    pub fn status(&self, _with_hash: bool) -> Status {
        unimplemented!()
    }
}

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
}
