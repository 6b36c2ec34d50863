//! A place in the log at which state is whole.

use bytes::Bytes;

use crate::model::Position;

/// A place in the log at which state is whole, and everything of the state beside the pairs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log position that is applied, with everything before it.
    pub position: Position,
    /// The revision.
    pub revision: u64,
    /// The membership as of `position`: opaque here.
    pub membership: Bytes,
    /// What the core keeps beside the pairs (accounts, sessions, log time...): opaque here.
    pub meta: Bytes,
    /// The core's hash of its state.
    pub state_hash: u128,
    /// The version of apply that is in force.
    pub apply_version: u32,
}
