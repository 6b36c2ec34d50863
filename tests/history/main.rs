//! The checkers of histories can tell right from wrong: histories that are valid because of how they were made are
//! accepted, and the same ones, broken on purpose in one place, are rejected.
//!
//! `generate` runs a pretended store with pretended clients from a seed, which also lose answers. `registers` and
//! `others` break what it made, a kind of damage each; `registers` also compares the search with one that tries every
//! order. `HISTORY_SEEDS=N` makes N histories of each kind instead of the usual 60.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::ptr_arg,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod append;
mod bank;
mod expiry;
mod generate;
#[path = "../support/history/mod.rs"]
mod history;
mod jobs;
mod journal;
mod leases;
mod messages;
mod numbers;
mod queries;
mod recording;
mod registers;
mod sessions;
mod sets;
mod topology;
mod watches;

use history::{Operation, Verdict};
use rand::{SeedableRng, rngs::StdRng};

fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("HISTORY_SEEDS").map_or(60, |count| count.parse().unwrap())
}

/// Every valid history is accepted; every one that could be broken this way is rejected. Each damage must have been
/// possible often enough to mean something.
fn accepts_and_rejects<C: Clone, R: Clone>(
    make: impl Fn(u64) -> Vec<Operation<C, R>>,
    check: impl Fn(&[Operation<C, R>]) -> Verdict,
    damages: &[(&str, Damage<C, R>)],
) {
    let mut broken = vec![0; damages.len()];
    for seed in seeds() {
        let valid = make(seed);
        let verdict = check(&valid);
        assert!(verdict.is_valid(), "seed {seed}: a valid history was not accepted: {verdict}");
        for (count, (name, damage)) in broken.iter_mut().zip(damages) {
            let mut history = valid.clone();
            if damage(&mut history, &mut StdRng::seed_from_u64(seed)).is_none() {
                continue;
            }
            *count += 1;
            let verdict = check(&history);
            assert!(verdict.is_invalid(), "seed {seed}: {name}: not rejected: {verdict}");
        }
    }
    for (count, (name, _)) in broken.iter().zip(damages) {
        println!("{name}: {count} of {} rejected", seeds().end);
        assert!(*count >= seeds().end / 4, "{name}: only {count} of {} histories could be broken so", seeds().end);
    }
}

/// Breaks a history in one place; `None` if it offers no place for that.
type Damage<C, R> = fn(&mut Vec<Operation<C, R>>, &mut StdRng) -> Option<()>;
