//! A place in the Raft log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Term and index of a log entry: what Raft calls a log id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}
