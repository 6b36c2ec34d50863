//! What a transaction that the leader keeps sees of others, as clients and layers say it.

use std::time::Duration;

/// The header that names the transaction to which a call belongs. It does not begin as those that only nodes may send: they
/// are taken off a call that is passed on to the leader.
pub const TRANSACTION: &str = "meshstore-transaction";
/// What a transaction is shown as the revision of what only it has written. It is greater than any, so a condition that names it
/// means the writer's own record and nobody else's, whatever becomes of the transaction.
pub const UNCOMMITTED: u64 = u64::MAX;

/// What a transaction sees of others, and what they may have changed when it is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All reads show the revision at which it began, and nothing that was read may have been changed by others when it is
    /// committed: committed transactions are as if they had happened one after the other.
    #[default]
    Serializable,
    /// Each read shows the newest state, and what was read may change: only what a write was decided on, a condition for
    /// instance, must still be so. An update may be lost.
    ReadCommitted,
    /// The same as [`ReadCommitted`](Self::ReadCommitted): nothing is ever shown that was not committed.
    ReadUncommitted,
}

/// A transaction that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// The revision at which it began.
    pub revision: u64,
    /// How long it stays open.
    pub expires_in: Duration,
}
