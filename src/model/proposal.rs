//! What a log entry carries: a batch of proposals, stamped by the leader. Frozen: enums grow at the end.

use serde::{Deserialize, Serialize};

use super::{
    ScopeId,
    session::Attempt,
    transaction::{Compare, Transaction},
};

/// The application part of one log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Log time at the leader, in milliseconds; apply takes the maximum with its own.
    pub log_time_ms: u64,
    /// Wall time at the leader, in milliseconds since 1970. Only stamped into records.
    pub wall_ms: u64,
    /// Applied one after the other.
    pub proposals: Vec<Proposal>,
}

/// One change that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Who asked, as the leader verified it.
    pub principal: String,
    /// The session call that makes it exactly-once, if it is made in a session.
    pub call: Option<Call>,
    /// What the layer relied on.
    pub guards: Guards,
    /// What is to be done.
    pub action: Action,
}

/// What a layer relied on when it decided. If it no longer holds the outcome is `Raced`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// Last revision of the keyspace `SECURITY` that the permission was decided on.
    pub security_revision: u64,
    /// The incarnation of each scope that the proposal was decided on.
    pub incarnations: Vec<(ScopeId, u64)>,
    /// Anything else.
    pub compares: Vec<Compare>,
}

/// Place of a call in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The session's id: the revision that opened it.
    pub session: u64,
    /// The call's number, the same for every attempt.
    pub sequence: u64,
    /// All calls below this have been answered: their outcomes may go.
    pub answered_below: u64,
}

impl From<Attempt> for Call {
    fn from(attempt: Attempt) -> Self {
        let Attempt { session, sequence, answered_below, attempt: _ } = attempt;
        Self { session, sequence, answered_below }
    }
}

/// What is to be done. Frozen: grows at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A compare-and-write transaction.
    Transact(Transaction),
    /// Opens a session that lives for this long without a call, in milliseconds of log time.
    OpenSession {
        /// Its idle life.
        ttl_ms: u64,
    },
    /// Keeps a session alive.
    KeepSession {
        /// Its id.
        session: u64,
    },
    /// Ends a session.
    CloseSession {
        /// Its id.
        session: u64,
    },
    /// Closes a sequence with the layer's refusal, so that a later attempt gets the same answer.
    Refuse {
        /// What the layer answered.
        reason: String,
    },
    /// Lets log time pass: expires what is due.
    Tick,
    /// Switches the constants of apply, once every member knows the version.
    SetApplyVersion(u32),
}
