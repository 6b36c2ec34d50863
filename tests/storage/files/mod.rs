//! The store above the log: memtable, files, index, views, snapshots.

#![allow(unreachable_pub, reason = "a test")]

mod crash;
mod damage;
mod harness;
mod index;
mod lifecycle;
mod model;
mod race;
mod replace;
mod snapshot;
