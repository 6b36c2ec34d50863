//! The log and the files of storage on disks that lose, tear, fill up and flip.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod files;
mod log;
#[path = "../support/mod.rs"]
mod support;
