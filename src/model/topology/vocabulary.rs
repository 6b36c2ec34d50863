//! The words in which the state of a mesh is told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines the status vocabulary: variants in an order that never changes, and their names.
macro_rules! statuses {
    ($($variant:ident $name:literal,)*) => {
        /// The status of a mesh, node, route or region. Frozen: grows at the end only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Status {
            $($variant,)*
        }

        impl Status {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name, as it is written.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("STATUS_", $name),)*
                }
            }
        }
    };
}

statuses! {
    Healthy "HEALTHY",
    Degraded "DEGRADED",
    Unhealthy "UNHEALTHY",
    Pending "PENDING",
    Unknown "UNKNOWN",
    Success "SUCCESS",
    Failure "FAILURE",
    Starting "STARTING",
    Stopping "STOPPING",
    Stopped "STOPPED",
    Started "STARTED",
    Created "CREATED",
    Deleted "DELETED",
    Updated "UPDATED",
    Connected "CONNECTED",
    Disconnected "DISCONNECTED",
    Connecting "CONNECTING",
    Disconnecting "DISCONNECTING",
    Reconnecting "RECONNECTING",
    Error "ERROR",
    Warning "WARNING",
    Info "INFO",
    Debug "DEBUG",
    Trace "TRACE",
    Empty "EMPTY",
    Joining "JOINING",
    Leaving "LEAVING",
    Seeding "SEEDING",
    Orphaned "ORPHANED",
    Sent "SENT",
    Cancelled "CANCELLED",
    Processing "PROCESSING",
    Done "DONE",
    Received "RECEIVED",
    Active "ACTIVE",
    Clean "CLEAN",
    Inconsistent "INCONSISTENT",
}

impl Status {
    /// The status of this name, with or without `STATUS_`.
    pub fn named(name: &str) -> Option<Self> {
        let short = |status: &&Self| status.name() == name || status.name().strip_prefix("STATUS_") == Some(name);
        Self::ALL.iter().find(short).copied()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who may join a mesh. Frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinPolicy {
    /// Everybody.
    Open,
    /// Who has the key.
    #[default]
    KeyRequired,
    /// Nobody.
    Closed,
}

impl JoinPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::KeyRequired, Self::Closed];

    /// Its name, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::KeyRequired => "KEY_REQUIRED",
            Self::Closed => "CLOSED",
        }
    }

    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

impl fmt::Display for JoinPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!(Status::ALL.len(), 37);
        for status in Status::ALL {
            assert_eq!(Status::named(status.name()), Some(*status));
        }
        assert_eq!(Status::named("PENDING"), Some(Status::Pending));
        assert_eq!(Status::named("pending"), None);
        for policy in JoinPolicy::ALL {
            assert_eq!(JoinPolicy::named(policy.name()), Some(policy));
        }
    }
}
