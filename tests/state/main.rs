//! The core, held to its promises.
//!
//! `semantics` says each promise in one small test; `golden` pins every byte that is persisted; `model` compares the
//! core with a naive one over random histories. `messages` runs on it what the layer above leaves to the leader, `topology`
//! changes of meshes that conflict. What fails here is never fixed by changing the test: log entries and checkpoints out there
//! rely on it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a test"
)]

mod golden;
mod messages;
mod model;
mod pending;
mod semantics;
mod store;
mod topology;
