//! The faults of a seed: what happens to whom, when, and when it is over. A seed uses only some of the kinds, so that runs
//! differ in more than their order. All is undone before the end, so that the cluster can show what it has kept.

use std::time::Duration;

use rand::{
    Rng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};

use super::support::sim_disk::Loss;

/// One fault, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine of a node loses power: what its disk had not synced is lost in this way.
    Crash(u64, Loss),
    /// The same for whoever leads now.
    CrashLeader(Loss),
    /// Whoever leads now loses power; and when another has been elected, all who may have voted for it lose power too,
    /// come back, and elect among themselves, since the new leader is cut off.
    Coup,
    /// It is started again, with a sound disk.
    Restart(u64),
    /// It is told to stop, and started again when it has.
    Stop(u64),
    /// No packet passes from the first to the second of each pair.
    Cut(Vec<(u64, u64)>),
    /// Whoever leads now is cut off from all others.
    CutLeader,
    /// All packets pass again.
    Mend,
    /// Packets take up to this long.
    Delay(Duration),
    /// Packets between two nodes take this long.
    SlowLink(u64, u64, Duration),
    /// So many packets of a million are lost.
    Lose(u32),
    /// The node dies in the middle of its n-th disk operation from now.
    DieAt(u64, u64),
    /// The next sync of a file fails, and what it should have written is gone.
    FailSync(u64),
    /// So many bytes are left on the node's disk.
    Fill(u64, u64),
    /// Each step of the node's disk takes up to this long.
    SlowDisk(u64, Duration),
    /// The node's wall clock is so many milliseconds ahead.
    Clock(u64, i64),
    /// The node's storage loses the next record that is written. Not part of any plan: until it is noticed, clients may
    /// be told what is wrong.
    LoseRecord(u64),
    /// The same for whoever leads now.
    LeaderLosesRecord,
}

/// The usual time of a disk step, at most.
pub const DISK_STEP: Duration = Duration::from_millis(3);
/// The usual delay of a packet, at most.
pub const DELAY: Duration = Duration::from_millis(2);

/// A kind of episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    CrashOne,
    CrashSome,
    CrashAll,
    DieAt,
    FailSync,
    Full,
    SlowDisk,
    Stop,
    CutOne,
    CutLeader,
    CutHalves,
    CutBridge,
    CutRing,
    CutOneWay,
    Delay,
    SlowLink,
    Lose,
    Clock,
    Storm,
    Coup,
}

const KINDS: [Kind; 20] = [
    Kind::CrashOne,
    Kind::CrashSome,
    Kind::CrashAll,
    Kind::DieAt,
    Kind::FailSync,
    Kind::Full,
    Kind::SlowDisk,
    Kind::Stop,
    Kind::CutOne,
    Kind::CutLeader,
    Kind::CutHalves,
    Kind::CutBridge,
    Kind::CutRing,
    Kind::CutOneWay,
    Kind::Delay,
    Kind::SlowLink,
    Kind::Lose,
    Kind::Clock,
    Kind::Storm,
    Kind::Coup,
];

/// The plan of a seed, in order of time.
pub fn plan(rng: &mut StdRng, nodes: u64, length: Duration) -> Vec<(Duration, Fault)> {
    let share = rng.random_range(0.1..0.8);
    let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| rng.random_bool(share)).collect();
    kinds.extend(KINDS.choose(rng));
    let calm_ms = rng.random_range(100..4_000);
    let mut plan = Vec::new();
    let mut at = Duration::from_millis(rng.random_range(1_000..4_000));
    while at < length {
        let lasts = Duration::from_millis(rng.random_range(50..4_000));
        let kind = *kinds.choose(rng).unwrap();
        if kind == Kind::Storm {
            let storm = storm(rng, nodes);
            plan.extend(storm.into_iter().map(|(after, fault)| (at + after, fault)));
            at += STORM + lasts;
            continue;
        }
        let (faults, ends) = episode(rng, kind, nodes);
        plan.extend(faults.into_iter().map(|fault| (at, fault)));
        plan.extend(ends.into_iter().map(|end| (at + lasts, end)));
        // The next may begin before this one is over.
        at += Duration::from_millis(rng.random_range(0..calm_ms)) + lasts.mul_f64(rng.random_range(0.2..1.2));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// How long a storm lasts.
const STORM: Duration = Duration::from_secs(4);

/// Elections under crashes, on slow disks: leaders are cut off or lose power as soon as they are there, and so do those who
/// have just voted, who come back at once.
fn storm(rng: &mut StdRng, nodes: u64) -> Vec<(Duration, Fault)> {
    let mut storm: Vec<(Duration, Fault)> = Vec::new();
    let step = Duration::from_millis(rng.random_range(20..200));
    storm.extend((1..=nodes).map(|node| (Duration::ZERO, Fault::SlowDisk(node, step))));
    let mut at = Duration::ZERO;
    while at < STORM {
        let fault = match rng.random_range(0..10) {
            0..3 => Fault::CrashLeader(Loss::Everything),
            3..6 => Fault::Crash(rng.random_range(1..=nodes), Loss::Everything),
            6..8 => Fault::CutLeader,
            _ => Fault::Mend,
        };
        storm.push((at, fault));
        let back = Duration::from_millis(rng.random_range(5..60));
        storm.extend((1..=nodes).map(|node| (at + back, Fault::Restart(node))));
        at += back + Duration::from_millis(rng.random_range(0..500));
    }
    storm.push((at, Fault::Mend));
    storm.extend((1..=nodes).map(|node| (at, Fault::SlowDisk(node, DISK_STEP))));
    storm
}

/// Both directions between each of the left and each of the right.
fn between(left: &[u64], right: &[u64]) -> Vec<(u64, u64)> {
    left.iter().flat_map(|a| right.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).filter(|(a, b)| a != b).collect()
}

fn episode(rng: &mut StdRng, kind: Kind, nodes: u64) -> (Vec<Fault>, Vec<Fault>) {
    let mut all: Vec<u64> = (1..=nodes).collect();
    all.shuffle(rng);
    let (node, others) = all.split_first().unwrap();
    let node = *node;
    let loss = *[Loss::Torn, Loss::Everything, Loss::Nothing].choose(rng).unwrap();
    let crash = |who: &[u64]| {
        let ends = who.iter().map(|node| Fault::Restart(*node)).collect();
        (who.iter().map(|node| Fault::Crash(*node, loss)).collect::<Vec<_>>(), ends)
    };
    let cut = |pairs| (vec![Fault::Cut(pairs)], vec![Fault::Mend]);
    match kind {
        Kind::CrashOne => crash(&[node]),
        Kind::CrashSome => crash(&all[..rng.random_range(1..=all.len())]),
        Kind::CrashAll => crash(&all),
        Kind::DieAt => (vec![Fault::DieAt(node, rng.random_range(1..60))], vec![Fault::Restart(node)]),
        Kind::FailSync => (vec![Fault::FailSync(node)], vec![Fault::Restart(node)]),
        Kind::Full => (vec![Fault::Fill(node, rng.random_range(0..200_000))], vec![Fault::Restart(node)]),
        Kind::SlowDisk => {
            let step = Duration::from_millis(rng.random_range(10..400));
            (vec![Fault::SlowDisk(node, step)], vec![Fault::SlowDisk(node, DISK_STEP)])
        }
        Kind::Stop => (vec![Fault::Stop(node)], vec![Fault::Restart(node)]),
        Kind::CutOne => cut(between(&[node], others)),
        Kind::CutLeader => (vec![Fault::CutLeader], vec![Fault::Mend]),
        Kind::CutHalves => {
            let (left, right) = all.split_at(all.len() / 2);
            cut(between(left, right))
        }
        // Two halves that both reach one node between them.
        Kind::CutBridge => {
            let (left, right) = others.split_at(others.len() / 2);
            cut(between(left, right))
        }
        // Each reaches only the two beside it.
        Kind::CutRing => {
            let apart = |a: usize, b: usize| a.abs_diff(b) > 1 && a.abs_diff(b) < all.len() - 1;
            let places = 0..all.len();
            cut(places
                .clone()
                .flat_map(|a| places.clone().filter(move |b| apart(a, *b)).map(move |b| (a, b)))
                .map(|(a, b)| (all[a], all[b]))
                .collect())
        }
        Kind::Storm => (vec![], vec![]),
        Kind::Coup => (vec![Fault::Coup], vec![]),
        Kind::CutOneWay => {
            let inward = rng.random_bool(0.5);
            cut(others.iter().map(|other| if inward { (*other, node) } else { (node, *other) }).collect())
        }
        Kind::Delay => (vec![Fault::Delay(Duration::from_millis(rng.random_range(5..300)))], vec![Fault::Delay(DELAY)]),
        Kind::SlowLink => match others.first() {
            Some(other) => {
                let slow = Duration::from_millis(rng.random_range(20..800));
                (vec![Fault::SlowLink(node, *other, slow)], vec![Fault::SlowLink(node, *other, DELAY)])
            }
            None => (vec![], vec![]),
        },
        Kind::Lose => (vec![Fault::Lose(rng.random_range(100..50_000))], vec![Fault::Lose(0)]),
        Kind::Clock => {
            let ahead = *[-86_400_000, -3_600_000, -1_000, 1_000, 3_600_000, 86_400_000].choose(rng).unwrap();
            (vec![Fault::Clock(node, ahead)], vec![Fault::Clock(node, 0)])
        }
    }
}
