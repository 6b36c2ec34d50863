//! How a command fails: message, hint, exit code.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;

use crate::{Error, config, error::Fault};

/// Failed, or the outcome is unknown.
const FAILED: u8 = 1;
/// Wrong usage, or an invalid argument.
pub(super) const USAGE: u8 = 2;
pub(super) const NOT_FOUND: u8 = 3;
const UNAVAILABLE: u8 = 4;
const CONFLICT: u8 = 5;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// An answer of the cluster.
    Answer(Error),
    /// A wrong command line or configuration.
    Usage(String),
    /// Anything else.
    Failed(String),
    /// Fewer nodes answered than were needed.
    Unavailable(String),
    /// What a transaction required was not so.
    Unmet(String),
    /// The answer on standard output says it all; only the exit code is to tell.
    Said(u8),
    /// Nobody reads the output any more.
    OutputClosed,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Exit code, and the kind as it is named in JSON.
    fn kind(&self) -> (u8, &'static str) {
        match self {
            Self::OutputClosed => (0, "output_closed"),
            Self::Said(code) => (*code, "said"),
            Self::Usage(_) => (USAGE, "usage"),
            Self::Failed(_) => (FAILED, "failed"),
            Self::Unavailable(_) => (UNAVAILABLE, "unavailable"),
            Self::Unmet(_) => (CONFLICT, "unmet"),
            Self::Answer(error) => match error {
                Error::InvalidArgument { .. } => (USAGE, "invalid_argument"),
                Error::NotFound { .. } => (NOT_FOUND, "not_found"),
                Error::AlreadyExists { .. } => (CONFLICT, "already_exists"),
                Error::Refused(_) => (CONFLICT, "refused"),
                Error::Conflict(_) => (CONFLICT, "conflict"),
                Error::ConditionFailed(_) => (CONFLICT, "condition_failed"),
                Error::Fenced { .. } => (CONFLICT, "fenced"),
                Error::TransactionAborted(_) => (CONFLICT, "transaction_aborted"),
                Error::PermissionDenied(_) => (CONFLICT, "permission_denied"),
                Error::Unauthenticated(_) => (CONFLICT, "unauthenticated"),
                Error::ViewTooOld { .. } => (CONFLICT, "view_too_old"),
                Error::NoLongerCovered { .. } => (CONFLICT, "no_longer_covered"),
                Error::TooStale { .. } => (UNAVAILABLE, "too_stale"),
                Error::Unavailable { .. } => (UNAVAILABLE, "unavailable"),
                Error::ResourceExhausted { .. } => (UNAVAILABLE, "too_busy"),
                Error::DeadlineExceeded { may_have_applied: false, .. } => (UNAVAILABLE, "deadline_exceeded"),
                Error::DeadlineExceeded { .. } => (FAILED, "deadline_exceeded"),
                Error::SessionExpired { .. } => (FAILED, "session_expired"),
                Error::Unknown(_) => (FAILED, "unknown_outcome"),
                Error::Unexpected(_) => (FAILED, "unexpected"),
            },
        }
    }

    /// What the person may do next.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Answer(error) if error.may_have_applied() && !matches!(error, Error::Unexpected(_)) => {
                Some("the change may have been made, or not: read it back before you try again")
            }
            Self::Answer(Error::Unavailable { .. } | Error::DeadlineExceeded { .. }) => {
                Some("`meshstore status` shows which nodes answer; --endpoints says where to look")
            }
            Self::Answer(Error::Unauthenticated(_)) => {
                Some("say who you are with --token-file, or with --cert and --key; --ca says which cluster to trust")
            }
            Self::Answer(Error::Fenced { .. }) => Some("whoever held the lock must stop: another may hold it now"),
            Self::Answer(Error::TooStale { .. }) => Some("allow more age, or use --read linearizable"),
            Self::Answer(Error::NoLongerCovered { .. }) => {
                Some("what is there now comes first with --current; --after names a later revision")
            }
            Self::Answer(Error::ViewTooOld { .. }) => Some("begin the list again, without --cursor"),
            _ => None,
        }
    }

    /// Tells the person or program, and answers the exit code.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        let (code, kind) = self.kind();
        if matches!(self, Self::OutputClosed | Self::Said(_)) {
            return ExitCode::from(code);
        }
        let mut stderr = io::stderr().lock();
        // If not even this can be written, the exit code still tells.
        let _ = if json {
            let may_have_applied = matches!(self, Self::Answer(error) if error.may_have_applied());
            let error = json!({ "error": {
                "kind": kind, "message": self.to_string(), "hint": self.hint(),
                "may_have_applied": may_have_applied, "exit_code": code,
            }});
            writeln!(stderr, "{error}")
        } else {
            let hint = self.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            writeln!(stderr, "error: {self}{hint}")
        };
        ExitCode::from(code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(error) => fmt::Display::fmt(&super::output::visible(&error.to_string()), f),
            Self::Usage(message) => f.write_str(message.trim_end().trim_start_matches("error: ")),
            Self::Failed(message) | Self::Unavailable(message) | Self::Unmet(message) => f.write_str(message),
            Self::OutputClosed => f.write_str("standard output is closed"),
            Self::Said(_) => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl From<config::Invalid> for Failure {
    fn from(invalid: config::Invalid) -> Self {
        Self::Usage(invalid.to_string())
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(error.to_string()),
        }
    }
}
