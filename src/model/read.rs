//! How fresh a read must be, and what its answer says of itself.

use std::time::Duration;

/// What a read promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// It sees every write that was acknowledged before it began.
    #[default]
    Linearizable,
    /// It sees at least this revision; the node waits until it has it.
    AtLeast(u64),
    /// It is not older than this, else an error.
    Stale(Duration),
}

/// What every read answer says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStamp {
    /// The one revision that the answer shows.
    pub revision: u64,
    /// How old the data may be, in milliseconds; 0 for linearizable reads.
    pub age_ms: u64,
}
