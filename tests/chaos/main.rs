//! Chaos on real processes: `meshstore serve` in namespaces and on volumes of its own, workloads whose histories are
//! checked, and everything done to it that can be done on one machine.
//!
//! `run` is one history: a cluster (`cluster`, `node`, `network`, `volume`), workloads (`tests/support/workloads`), faults by
//! a seed (`nemesis`), checkers (`tests/support/history`), a report (`report`, `chart`). `cycles` are many short lives
//! that end in a kill, a power cut or damaged files; `failover` measures. What is not ignored here is a slice of all
//! that; `scripts/chaos` and `scripts/failover` run the ignored ones, with what they are asked for in `CHAOS_*`.
//!
//! What needs root, or a program that is not here, is left out, and that is printed.

#![cfg(feature = "cli")]
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

mod campaign;
mod chart;
mod cluster;
mod cycles;
mod damage;
mod failover;
#[allow(dead_code, reason = "the cluster tests use more of it")]
#[path = "../cluster/harness.rs"]
mod harness;
#[path = "../support/history/mod.rs"]
mod history;
mod joining;
mod nemesis;
mod network;
mod node;
mod report;
mod run;
mod tools;
mod volume;
#[path = "../support/workloads/mod.rs"]
mod workloads;
mod writers;

use campaign::{number, out};
use run::Plan;

/// Seconds of faults in a history of the slice.
const SHORT: u64 = 8;

async fn short_history(seed: u64, nodes: u64, workloads: &[&str], nemeses: &[&str]) {
    let names: Vec<String> = nemeses.iter().map(|name| (*name).to_owned()).collect();
    let (nemeses, skipped) = run::available(&names, false);
    if !skipped.is_empty() {
        println!("left out: {}", skipped.join("; "));
    }
    let workloads = workloads.iter().map(|name| (*name).to_owned()).collect();
    let plan = Plan { seed, seconds: SHORT, nodes, workloads, nemeses, other_binary: None, out: out().join("slice") };
    let report = run::run(&plan).await;
    println!("{}", report.line());
    if let Some(failure) = report.failure() {
        panic!("{failure}");
    }
    assert!(report.answered() > 0, "a history in which nothing is answered proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn short_history_of_registers_in_a_cut_network() {
    let nemeses = ["isolate-leader", "halves", "one-way-in", "one-way-out", "bridge", "kill-leader", "pause-leader"];
    short_history(1, 3, &["register", "freshness"], &nemeses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_history_of_sets_and_messages_on_bad_disks() {
    let nemeses = ["power", "power-all", "failing-sync", "slow-sync", "read-only", "flip", "kill-at-sync"];
    short_history(2, 3, &["set", "messages"], &nemeses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_history_of_transactions_in_a_bad_network() {
    let nemeses = ["delay", "loss", "duplicates", "reorder", "pause", "kill-majority", "ring"];
    short_history(3, 5, &["append", "bank"], &nemeses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_history_of_sessions_and_counters_with_processes_that_come_and_go() {
    let nemeses = ["kill", "kill-all", "restart", "pause-majority", "wipe", "truncate", "starve", "clock-jump"];
    short_history(4, 3, &["session", "counter", "expiry"], &nemeses).await;
}

fn judge(totals: &cycles::Totals) {
    println!("{}", totals.line());
    assert!(totals.wrong.is_empty(), "{}", totals.wrong.join("\n"));
    assert!(totals.acknowledged > 0, "cycles in which nothing is acknowledged prove nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_nothing() {
    judge(&cycles::kills(20, 1, &out().join("slice")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_power_cuts_lose_nothing() {
    if let Some(why) = volume::Volume::missing() {
        println!("skipped: {why}");
        return;
    }
    judge(&cycles::power_cuts(14, false, 1, &out().join("slice/one")).await);
    judge(&cycles::power_cuts(6, true, 1, &out().join("slice/all")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_loses_acknowledged_writes() {
    if let Some(why) = volume::Volume::missing().or(tools::missing(true, &["strace"])) {
        println!("skipped: {why}");
        return;
    }
    let lost = cycles::control(&out().join("slice")).await;
    println!("{lost} acknowledged writes were lost on a disk that lies");
    assert!(lost > 0, "power cuts are not what they are meant to be here");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/chaos runs it"]
async fn campaign_of_histories() {
    campaign::run().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/chaos runs it"]
async fn what_once_found_a_bug() {
    campaign::regress().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/chaos runs it"]
async fn campaign_of_kills() {
    judge(&cycles::kills(number("CHAOS_CYCLES").unwrap_or(500), campaign::seed(), &out()).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/chaos runs it"]
async fn campaign_of_power_cuts() {
    assert_eq!(volume::Volume::missing(), None, "this cannot be run here");
    let (cycles, all) = (number("CHAOS_CYCLES").unwrap_or(200), number("CHAOS_ALL").is_some());
    judge(&cycles::power_cuts(cycles, all, campaign::seed(), &out()).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/chaos runs it"]
async fn campaign_of_damages() {
    judge(&cycles::damages(number("CHAOS_CYCLES").unwrap_or(200), campaign::seed(), &out()).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/failover runs it"]
async fn failover() {
    failover::measure(number("CHAOS_CYCLES").unwrap_or(50), &out()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/join runs it"]
async fn joining() {
    joining::measure(number("CHAOS_RECORDS").unwrap_or(1_000_000), &out()).await;
}

#[test]
#[ignore = "scripts/chaos runs it"]
fn list() {
    campaign::list();
}
