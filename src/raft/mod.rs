//! Consensus: openraft with our own log, state machine and network. The only module that names openraft.

pub mod checks;
pub mod consensus;
pub mod freshness;
pub mod log;
pub mod log_store;
pub mod members;
pub mod network;
pub mod offline;
pub mod peer;
mod progress;
pub mod snapshot;
pub mod space;
pub mod state_machine;
pub mod types;
pub mod wire;
