//! The bodies of the fuzz targets: one module for each, `run` takes the bytes of a case.
//!
//! `cargo fuzz` finds the bytes (`fuzz_targets/`, `scripts/fuzz`); `tests/corpus` of the store includes this file and
//! runs all that was ever kept (`corpus/`, `findings/`) in each `scripts/test`. So a target must be quick,
//! deterministic, and say what is broken by a panic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "test code, of which each program uses a part"
)]

pub mod apply;
pub mod config;
pub mod envelope;
pub mod file;
mod input;
pub mod log;
pub mod peer;
mod replica;
pub mod request;
pub mod stream;
pub mod topology;
mod wire;
mod world;

#[path = "../../tests/support/sim_disk.rs"]
mod sim_disk;
#[path = "../../tests/state/store.rs"]
mod store;

/// A target: its name, and what runs a case.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("apply", apply::run),
    ("config", config::run),
    ("envelope", envelope::run),
    ("file", file::run),
    ("log", log::run),
    ("peer", peer::run),
    ("request", request::run),
    ("stream", stream::run),
    ("topology", topology::run),
];
