//! Deterministic simulation: whole nodes (real Raft, log, memtable, flush and gRPC code) on turmoil's network
//! and clock, over disks that lose what was not synced. A seed chooses topology, workload and faults, and
//! gives the same trace every time.
//!
//! `SIMULATION_SEEDS=N` runs N seeds instead of the usual 20, `SIMULATION_SEED=S` only that one.

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

mod environment;
mod faults;
mod invariants;
mod ledger;
#[path = "../support/mod.rs"]
mod support;
mod workload;
mod world;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one seed and checks every invariant. What failed is in the panic, with the seed.
fn run(seed: u64) -> world::Report {
    let report = world::run(seed);
    if let Err(broken) = invariants::check(&report) {
        let history = report.ledger.history();
        panic!("seed {seed}: {broken}\nreplay: SIMULATION_SEED={seed} cargo test --test simulation\n{history}");
    }
    report
}

/// A share of the seeds, so that a test runner can run the shares side by side.
fn run_share(share: u64) {
    let (first, count) = match (number("SIMULATION_SEED"), number("SIMULATION_SEEDS")) {
        (Some(seed), _) if share == 0 => (seed, 1),
        (Some(_), _) => return,
        (None, count) => {
            let count = count.unwrap_or(20).div_ceil(SHARES);
            (share * count, count)
        }
    };
    let seeds = first..first + count;
    let (mut acknowledged, mut faults) = (0, 0);
    for seed in seeds.clone() {
        let report = run(seed);
        acknowledged += report.ledger.acknowledged();
        faults += report.faults;
    }
    println!("{} seeds, {faults} faults, {acknowledged} acknowledged writes", seeds.end - seeds.start);
    assert!(acknowledged > 0, "a simulation in which nothing is acknowledged proves nothing");
}

/// How many tests share the seeds.
const SHARES: u64 = 4;

#[test]
fn nothing_is_lost_and_nothing_applied_twice_in_share_1() {
    run_share(0);
}

#[test]
fn nothing_is_lost_and_nothing_applied_twice_in_share_2() {
    run_share(1);
}

#[test]
fn nothing_is_lost_and_nothing_applied_twice_in_share_3() {
    run_share(2);
}

#[test]
fn nothing_is_lost_and_nothing_applied_twice_in_share_4() {
    run_share(3);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seed = number("SIMULATION_SEED").unwrap_or(7);
    let (first, second) = (run(seed), run(seed));
    let (first, second) = (first.ledger.events(), second.ledger.events());
    for (index, (a, b)) in first.iter().zip(&second).enumerate() {
        assert_eq!(a, b, "event {index} of seed {seed} differs");
    }
    assert_eq!(first.len(), second.len(), "seed {seed}");
}
