//! Log, storage and core together, as openraft drives them: its own suite, restarts after every kind of step, a kill at
//! every change of the disk, one state however it came about, and syncs that fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod history;
mod kills;
mod one_state;
mod reopening;
mod replica;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod syncs;
