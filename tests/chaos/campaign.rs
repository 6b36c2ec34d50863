//! Many histories, as `scripts/chaos` asks for them.
//!
//! `CHAOS_RUNS`, `CHAOS_SECONDS`, `CHAOS_SEED` (the first one), `CHAOS_NODES`, `CHAOS_WORKLOAD` and `CHAOS_NEMESIS` (names
//! with commas between them), `CHAOS_OUT`, `CHAOS_CYCLES`; `MESHSTORE_OTHER_BINARY` is the other build for upgrades.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    nemesis::Nemesis,
    report,
    run::{self, Plan, available},
    workloads,
};

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

pub fn number(name: &str) -> Option<u64> {
    text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn names(name: &str) -> Vec<String> {
    text(name).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

/// The first seed.
pub fn seed() -> u64 {
    number("CHAOS_SEED").unwrap_or(1)
}

/// Where reports go.
pub fn out() -> PathBuf {
    text("CHAOS_OUT").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/chaos"), PathBuf::from)
}

/// How many kinds of faults a run has, unless they were named.
const MIX: std::ops::Range<usize> = 4..9;

fn plan(seed: u64, nemeses: &[Nemesis], chosen: bool) -> Plan {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut mix = nemeses.to_vec();
    if !chosen {
        mix.shuffle(&mut rng);
        mix.truncate(rng.random_range(MIX));
    }
    let mut kinds = names("CHAOS_WORKLOAD");
    if kinds.is_empty() {
        // Two of all, side by side.
        kinds = workloads::all().iter().map(|workload| workload.name().to_owned()).collect();
        kinds.shuffle(&mut rng);
        kinds.truncate(2);
    }
    Plan {
        seed,
        seconds: number("CHAOS_SECONDS").unwrap_or(60),
        nodes: number("CHAOS_NODES").unwrap_or(if rng.random_bool(0.3) { 5 } else { 3 }),
        workloads: kinds,
        nemeses: mix,
        other_binary: text("MESHSTORE_OTHER_BINARY").map(PathBuf::from),
        out: out(),
    }
}

/// Runs them one after the other; what failed is told at the end, with its seed.
pub async fn run() {
    super::tools::sweep();
    let wanted = names("CHAOS_NEMESIS");
    if let Some(unknown) = wanted.iter().find(|name| Nemesis::by_name(name).is_none()) {
        panic!("there is no nemesis {unknown}; there are:\n{}", report::list());
    }
    let (nemeses, skipped) = available(&wanted, text("MESHSTORE_OTHER_BINARY").is_some());
    for why in &skipped {
        eprintln!("left out: {why}");
    }
    let (runs, first) = (number("CHAOS_RUNS").unwrap_or(1), seed());
    let (mut failures, mut answered, mut faults) = (Vec::new(), 0, 0);
    let mut summary = String::from("# Runs\n\n");
    for number in 0..runs {
        let plan = plan(first + number, &nemeses, !wanted.is_empty());
        let report = run::run(&plan).await;
        answered += report.answered();
        faults += report.faults.len();
        eprintln!("{} of {runs}: {}", number + 1, report.line());
        let _ = writeln!(summary, "- [{}]({}/report.md)", report.line(), plan.name());
        fs::write(out().join("summary.md"), &summary).unwrap();
        failures.extend(report.failure());
    }
    println!("{runs} runs, {faults} faults, {answered} answered calls, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Runs again what once found a bug.
pub async fn regress() {
    super::tools::sweep();
    let (mut failures, mut runs) = (Vec::new(), 0);
    for line in include_str!("../regress/chaos.txt").lines().filter(|line| !line.starts_with('#')) {
        let (schedule, found) = line.split_once(": ").expect("a schedule and what it found");
        let [seed, seconds, nodes, kinds, faults] = schedule.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not five words: {schedule}")
        };
        let of = |names: &str| names.split(',').map(str::to_owned).collect::<Vec<_>>();
        let (nemeses, skipped) = available(&of(faults), false);
        if !skipped.is_empty() {
            println!("skipped ({}): {found}", skipped.join("; "));
            continue;
        }
        let report = run::run(&Plan {
            seed: seed.parse().unwrap(),
            seconds: seconds.parse().unwrap(),
            nodes: nodes.parse().unwrap(),
            workloads: of(kinds),
            nemeses,
            other_binary: None,
            out: out(),
        })
        .await;
        runs += 1;
        println!("{}: {found}", report.line());
        failures.extend(report.failure());
    }
    println!("{runs} schedules that once found a bug, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// What there is to choose from.
pub fn list() {
    let kinds: Vec<&str> = workloads::all().iter().map(|workload| workload.name()).collect();
    println!("workloads: {}\nnemeses:\n{}", kinds.join(", "), report::list());
    let (_, skipped) = available(&[], text("MESHSTORE_OTHER_BINARY").is_some());
    for why in skipped {
        println!("not here: {why}");
    }
}
