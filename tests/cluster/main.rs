//! Clusters of real processes, which are killed, paused, stopped and started wrongly while clients write.
//!
//! `harness` runs the processes, `load` writes and remembers what it was told, `proof` compares that with what each node
//! holds. `faults` and `restarts` are about losing nothing, `refusals` and `damage` about starts that must not be, `garbage`
//! about what a network may send, `disk` about disks that fill, `repair` about storage
//! that is had from a peer, `recover` about the command of that name, `security` about TLS and who is served, `health` about
//! what a node says of itself, `stalls` about nodes that live and make no progress, `membership` about nodes that come and go,
//! `watches` about watchers meanwhile, `transactions` about those that are open when their leader dies.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod backup;
mod damage;
mod disk;
mod faults;
mod garbage;
mod harness;
mod health;
mod large;
mod load;
mod membership;
mod proof;
mod recover;
mod refusals;
mod repair;
mod restarts;
mod security;
mod stalls;
mod topology;
mod transactions;
mod transcripts;
mod upgrade;
mod watches;
