//! The two ways in which things go wrong.
//!
//! An [`Error`] is an *answer*: few variants, named by what the caller does next. A [`Fault`] is a
//! *broken node* (I/O, a checksum, an impossible state): it stops the node with its reason and never
//! becomes an answer. Nothing converts a `Fault` into an `Error`.

use std::{fmt, path::Path, sync::Arc};

/// The result of a call that a user made.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An answer that is not success. [`Error::is_retryable`] and [`Error::may_have_applied`] tell what a
/// caller may do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request breaks a rule; sent again it will break it again. Nothing changed.
    #[error("invalid {field}: {rule}{}", shown(value))]
    InvalidArgument {
        /// The field, as it is named in the API.
        field: String,
        /// What was given, shortened; empty where it says nothing (or is secret).
        value: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// The named thing does not exist. Nothing changed.
    #[error("{kind} not found: {name}")]
    NotFound {
        /// What kind of thing: `message`, `state`, `node state`, `route`, `config`...
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// There is one already, and it was not to be overwritten. Nothing changed.
    #[error("{kind} exists already: {name}")]
    AlreadyExists {
        /// What kind of thing, as with [`Error::NotFound`].
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The store's state forbids the change (a limit, a reference, a uniqueness). Nothing changed.
    #[error("refused: {0}")]
    Refused(String),
    /// Others changed what this call relied on. Nothing changed; try again.
    #[error("{0} was changed by others meanwhile; try again")]
    Conflict(String),
    /// What the caller made a condition is not so. Nothing changed; read again, and decide anew.
    #[error("the condition does not hold: {0}")]
    ConditionFailed(String),
    /// The write carried the token of a lock that is not held with it (any more). Nothing changed; whoever held the lock must
    /// stop.
    #[error("the lock {lock} is not held with token {token}: {}", held(newest))]
    Fenced {
        /// The lock.
        lock: String,
        /// The token that was carried.
        token: u64,
        /// The token with which it is held now; 0: nobody holds it.
        newest: u64,
    },
    /// The session is unknown or has expired, or its outcome is no longer kept: nothing was executed
    /// *now*, but an earlier attempt with this sequence may have been.
    #[error("session {session} has expired or is unknown; open a new one")]
    SessionExpired {
        /// The session's id.
        session: u64,
    },
    /// The revision that was asked for is no longer kept. Start the read again.
    #[error(
        "revision {revision} is no longer readable (the oldest is {oldest}); start the list again without a cursor"
    )]
    ViewTooOld {
        /// The revision asked for.
        revision: u64,
        /// The oldest that can still be read.
        oldest: u64,
    },
    /// The changes after this revision are no longer kept where they were asked for. Another node may have them; else what is
    /// there now is to be read.
    #[error("what changed after revision {revision} is no longer kept here, only what changed after {oldest}")]
    NoLongerCovered {
        /// The revision asked for.
        revision: u64,
        /// The oldest behind which all changes are kept.
        oldest: u64,
    },
    /// A read asked for data fresher than this node can now vouch for.
    #[error(
        "this node's data is {age_ms} ms old, more than the {max_age_ms} ms allowed; ask another node or the leader"
    )]
    TooStale {
        /// How old the data may be, in milliseconds; `u64::MAX` if unknown.
        age_ms: u64,
        /// What the caller allowed, in milliseconds.
        max_age_ms: u64,
    },
    /// The node cannot serve this now, and certainly did not apply it. Another node may.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
        /// The leader's client address, where it is known.
        leader: Option<String>,
    },
    /// The outcome is unknown: the change may have been applied, now or later.
    #[error("outcome unknown: {0}; it may have been applied")]
    Unknown(String),
    /// The deadline passed. For a write the outcome is unknown.
    #[error("deadline of {deadline_ms} ms passed while {waiting_for}")]
    DeadlineExceeded {
        /// The deadline, in milliseconds.
        deadline_ms: u64,
        /// What was being waited for.
        waiting_for: String,
        /// Whether the change may have been applied.
        may_have_applied: bool,
    },
    /// Too much is queued, or too little is free on the disks. Certainly not applied; try again after the hint.
    #[error("no room: {reason}; try again in {retry_after_ms} ms")]
    ResourceExhausted {
        /// What is full.
        reason: String,
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The caller may not do this.
    #[error("permission denied: {0}")]
    PermissionDenied(String),
    /// Who calls is not known: a token or certificate is missing, wrong or expired. Nothing changed.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// The transaction has ended without being committed: others changed what it had read, its time was over, or it was lost
    /// with its leader. Nothing of it was written; begin another.
    #[error("the transaction was aborted: {0}")]
    TransactionAborted(String),
    /// The server answered something that this client does not know.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

fn held(newest: &u64) -> String {
    match newest {
        0 => "nobody holds it".into(),
        newest => format!("it is held with token {newest}"),
    }
}

fn shown(value: &str) -> String {
    if value.is_empty() { String::new() } else { format!(" (given: {value})") }
}

impl Error {
    /// An [`Error::InvalidArgument`]; the value is shortened to 80 characters.
    pub fn invalid(field: impl Into<String>, value: impl AsRef<str>, rule: impl Into<String>) -> Self {
        let value = value.as_ref();
        let mut short: String = value.chars().take(80).collect();
        if short.len() < value.len() {
            short.push('…');
        }
        Self::InvalidArgument { field: field.into(), value: short, rule: rule.into() }
    }

    /// Whether the same call, sent again as it is, can succeed. A write without a session may be
    /// retried only if it also not [`Error::may_have_applied`].
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Conflict(_)
                | Self::Unavailable { .. }
                | Self::Unknown(_)
                | Self::ResourceExhausted { .. }
                | Self::TooStale { .. }
                | Self::DeadlineExceeded { .. }
        )
    }

    /// Whether the change that was asked for may have been made, now or later.
    pub fn may_have_applied(&self) -> bool {
        match self {
            Self::Unknown(_) | Self::SessionExpired { .. } | Self::Unexpected(_) => true,
            Self::DeadlineExceeded { may_have_applied, .. } => *may_have_applied,
            _ => false,
        }
    }
}

/// A broken node: it stops, with this reason. Cheap to clone, so that all who wait can be told.
#[derive(Clone, Debug)]
pub struct Fault {
    reason: Arc<str>,
    kind: FaultKind,
}

/// What a fault asks of whoever starts the node again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    /// A look at it.
    Broken,
    /// Other files, from others that have the same.
    Damage,
    /// The same, and that this process does it at once.
    Rebuild,
    /// Nothing: what was to be used is closed, because the node stops.
    Closed,
}

impl Fault {
    /// A fault with its whole reason: what happened, to what, and what to do.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: Arc::from(reason.into()), kind: FaultKind::Broken }
    }

    /// Files that are not what was written, in words that name them.
    pub fn damage(reason: impl Into<String>) -> Self {
        Self { kind: FaultKind::Damage, ..Self::new(reason) }
    }

    /// Whether files are not what was written: then others that have the same may help.
    pub fn is_damage(&self) -> bool {
        matches!(self.kind, FaultKind::Damage | FaultKind::Rebuild)
    }

    /// State that is known to be wrong, and marked so: the node is to be started again, and gets it from a peer.
    pub fn rebuild(reason: impl Into<String>) -> Self {
        Self { kind: FaultKind::Rebuild, ..Self::new(reason) }
    }

    /// Whether the node is to be started again by the process that ran it.
    pub fn asks_for_rebuild(&self) -> bool {
        self.kind == FaultKind::Rebuild
    }

    /// Something was used after it was closed. That follows from a stop and is no reason for one.
    pub fn closed(what: impl fmt::Display) -> Self {
        Self { kind: FaultKind::Closed, ..Self::new(format!("{what} is closed")) }
    }

    /// Whether only a stop is behind it.
    pub fn is_closed(&self) -> bool {
        self.kind == FaultKind::Closed
    }

    /// The same fault, with what to do about it.
    #[must_use]
    pub fn with_advice(&self, advice: impl fmt::Display) -> Self {
        Self { reason: Arc::from(format!("{}; {advice}", self.reason)), kind: self.kind }
    }

    /// An I/O failure on a file or directory.
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(format!("{doing} {}: {error}", path.display()))
    }

    /// Bytes on disk that are not what was written.
    pub fn damaged(path: &Path, offset: u64, what: impl fmt::Display) -> Self {
        Self::damage(format!("{} is damaged at offset {offset}: {what}", path.display()))
    }

    /// A broken promise of our own code.
    pub fn bug(what: impl fmt::Display) -> Self {
        Self::new(format!("internal invariant broken: {what}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}
