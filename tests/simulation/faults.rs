//! The faults of a seed: what happens to whom, and when. Every fault is undone before the end, so that the
//! cluster can show what it has kept.

use std::time::Duration;

use rand::{Rng, rngs::StdRng, seq::SliceRandom};

use super::support::sim_disk::Loss;

/// One fault, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine of a node loses power: what its disk had not synced is lost in this way.
    Crash(u64, Loss),
    /// It is started again.
    Restart(u64),
    /// No packet passes between these sides.
    Partition(Vec<u64>, Vec<u64>),
    /// No packet passes from the first to the second.
    OneWay(u64, u64),
    /// All packets pass again.
    Heal,
    /// Packets take up to this long.
    Delay(Duration),
    /// The node dies in the middle of its n-th disk operation from now.
    DieAt(u64, u64),
}

/// The plan of a seed, in order of time.
pub fn plan(rng: &mut StdRng, nodes: u64, length: Duration) -> Vec<(Duration, Fault)> {
    let mut plan = Vec::new();
    let mut at = Duration::from_millis(rng.random_range(2_000..4_000));
    while at < length {
        let pause = Duration::from_millis(rng.random_range(200..2_500));
        for fault in faults(rng, nodes) {
            plan.push((at, fault));
        }
        for fault in ends(rng, nodes) {
            plan.push((at + pause, fault));
        }
        at += pause + Duration::from_millis(rng.random_range(100..2_000));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn faults(rng: &mut StdRng, nodes: u64) -> Vec<Fault> {
    let node = rng.random_range(1..=nodes);
    let mut others: Vec<u64> = (1..=nodes).filter(|other| *other != node).collect();
    others.shuffle(rng);
    let loss = if rng.random_bool(0.5) { Loss::Torn } else { Loss::Everything };
    match rng.random_range(0..10) {
        0..=2 => vec![Fault::Crash(node, loss)],
        3 => vec![Fault::Crash(node, loss), Fault::Crash(others[0], loss)],
        4 => (1..=nodes).map(|node| Fault::Crash(node, loss)).collect(),
        5 => vec![Fault::DieAt(node, rng.random_range(0..40))],
        6 | 7 => vec![Fault::Partition(vec![node], others)],
        8 => vec![Fault::OneWay(node, others[0])],
        _ => vec![Fault::Delay(Duration::from_millis(rng.random_range(5..60)))],
    }
}

fn ends(rng: &mut StdRng, nodes: u64) -> Vec<Fault> {
    let mut ends = vec![Fault::Heal, Fault::Delay(Duration::from_millis(2))];
    let mut all: Vec<u64> = (1..=nodes).collect();
    all.shuffle(rng);
    ends.extend(all.into_iter().map(Fault::Restart));
    ends
}
