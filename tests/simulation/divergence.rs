//! A replica whose storage loses a record learns from the others that it differs, and is rebuilt.

use std::time::Duration;

use super::{
    faults::Fault,
    invariants,
    ledger::Event,
    world::{Script, run_script},
};

/// Runs with these faults only: the nodes that ended because they differ.
fn run(seed: u64, nodes: u64, faults: Vec<Fault>) -> Vec<u64> {
    let faults = faults.into_iter().map(|fault| (Duration::from_secs(5), fault)).collect();
    // Of all workloads the one that writes few records over and over, so that what is lost is noticed.
    let script = Script { nodes: Some(nodes), faults: Some(faults), workload: Some("freshness") };
    let report = run_script(seed, Duration::from_secs(20), script);
    invariants::check_but_states(&report)
        .unwrap_or_else(|broken| panic!("seed {seed}: {broken}\n{}", report.ledger.history()));
    let ended = |(_, event)| match event {
        Event::Stopped { node, reason } => {
            assert!(reason.contains("differs from the majority's at log index"), "{reason}");
            Some(node)
        }
        _ => None,
    };
    report.ledger.events().into_iter().filter_map(ended).collect()
}

#[test]
fn a_replica_that_has_lost_a_record_is_rebuilt() {
    for seed in 0..4 {
        let node = 1 + seed % 3;
        assert_eq!(run(seed, 3, vec![Fault::LoseRecord(node)]), [node], "seed {seed}");
    }
}

#[test]
fn a_leader_that_has_lost_a_record_hands_over_and_is_rebuilt() {
    for seed in 10..14 {
        assert_eq!(run(seed, 3, vec![Fault::LeaderLosesRecord]).len(), 1, "seed {seed}");
    }
}

#[test]
fn two_of_five_are_rebuilt() {
    let mut ended = run(20, 5, vec![Fault::LoseRecord(2), Fault::LoseRecord(4)]);
    ended.sort_unstable();
    assert_eq!(ended, [2, 4]);
}

#[test]
fn replicas_that_agree_rebuild_nothing() {
    assert!(run(30, 3, vec![]).is_empty());
}
