//! Deterministic simulation: whole nodes (real Raft, log, memtable, flush and gRPC code) on turmoil's network
//! and clock, over disks that lose what was not synced. A seed chooses topology, settings, workloads and faults, and
//! gives the same trace every time. `docs/testing.md` tells how to add to it.
//!
//! The tests here run a fixed handful of seeds and some fresh ones; `scripts/simulate` runs as many as one likes
//! ([`campaign`]). A failure prints the seed, the faults and what the nodes did, and the histories go to a file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

/// As in the program itself; a run allocates a lot.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod campaign;
mod churn;
mod clients;
mod divergence;
mod environment;
mod faults;
mod invariants;
mod ledger;
#[path = "../support"]
mod support {
    pub mod history;
    pub mod sim_disk;
    pub mod workloads;
}
mod world;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use world::Report;

/// Simulated time of faults in each run of these tests.
const LENGTH: Duration = Duration::from_secs(15);
/// How many tests share the seeds, so that a test runner can run the shares side by side.
const SHARES: u64 = 4;
/// Fixed seeds of each share, and fresh ones.
const SEEDS: (u64, u64) = (10, 2);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one seed and checks every invariant. What failed is in the panic, with the seed.
fn run(seed: u64, length: Duration) -> Report {
    let report = world::run(seed, length);
    if let Err(broken) = invariants::check(&report) {
        let seconds = length.as_secs();
        let history = report.ledger.history();
        let kept = campaign::keep_histories(seed, &report);
        panic!(
            "{broken}\nreplay: scripts/simulate --seed {seed} --seeds 1 --seconds {seconds}\n\
             histories: {kept}\n{history}"
        );
    }
    report
}

fn run_share(share: u64) {
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let fixed = (0..SEEDS.0).map(|number| share * SEEDS.0 + number);
    let fresh = (0..SEEDS.1).map(|number| 1_000_000 + u64::from(fresh) * SEEDS.1 + number);
    let (mut answered, mut faults) = (0, 0);
    for seed in fixed.chain(fresh) {
        println!("seed {seed}");
        let report = run(seed, LENGTH);
        answered += report.answered;
        faults += report.faults;
    }
    println!("{faults} faults, {answered} answered calls");
    assert!(answered > 100, "a simulation in which nothing is answered proves nothing");
}

#[test]
fn all_invariants_hold_in_share_1() {
    run_share(0);
}

#[test]
fn all_invariants_hold_in_share_2() {
    run_share(1);
}

#[test]
fn all_invariants_hold_in_share_3() {
    run_share(2);
}

#[test]
fn all_invariants_hold_in_share_4() {
    run_share(SHARES - 1);
}

/// Seeds that once found a bug.
#[test]
fn what_once_failed_does_not() {
    for line in include_str!("../regress/simulation.txt").lines().filter(|line| !line.starts_with('#')) {
        let (seed, found) = line.split_once(": ").expect("a seed and what it found");
        let (seed, seconds) = seed.split_once(' ').expect("a seed and its length");
        println!("seed {seed}: {found}");
        let seconds = Duration::from_secs(seconds.parse().unwrap());
        campaign::run_twice(seed.parse().unwrap(), seconds).unwrap();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 11] {
        campaign::run_twice(seed, LENGTH).unwrap();
    }
}

/// For `scripts/simulate`.
#[test]
#[ignore = "run by scripts/simulate"]
fn many() {
    campaign::run();
}

/// A worker of `many`.
#[test]
#[ignore = "run by other tests, as a process"]
fn a_share() {
    campaign::work();
}
