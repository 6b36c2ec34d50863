//! Crashes: at random, and at every single change of the disk.

use proptest::prelude::*;

use super::{
    Stepped, entries,
    model::{Action, Run},
};
use crate::support::sim_disk::{Loss, SimDisk};

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![Just(Loss::Everything), Just(Loss::Nothing), Just(Loss::Torn), Just(Loss::Torn)]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![4 => 0..40usize, 3 => 100..900usize, 1 => 900..6000usize];
    prop::collection::vec(size, 0..6)
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => sizes().prop_map(Action::Append),
        3 => Just(Action::Vote),
        2 => (0..6u64).prop_map(Action::Truncate),
        4 => (0..4u64).prop_map(Action::Commit),
        2 => (0..4u64).prop_map(Action::Purge),
        2 => Just(Action::RaiseFloor),
        1 => (0..4u64).prop_map(Action::Snapshot),
        6 => (1..3usize).prop_map(Action::Step),
        4 => Just(Action::Settle),
        2 => Just(Action::Idle),
        1 => Just(Action::Reopen),
        2 => loss().prop_map(Action::Crash),
        2 => (1..30u64, 0..12u64, loss()).prop_map(|(after, again, loss)| Action::Kill(after, again, loss)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_it_was_after_some_change(seed: u64, actions in prop::collection::vec(action(), 1..60)) {
        let mut run = Run::new(seed);
        for action in &actions {
            run.act(action);
        }
        run.act(&Action::Crash(Loss::Everything));
    }
}

/// Something of everything, over several segments.
fn scenario() -> Vec<Action> {
    use Action::*;
    vec![
        Vote,
        Append(vec![0, 30, 300]),
        Settle,
        Append(vec![700, 20]),
        Append(vec![5, 900]),
        Commit(2),
        Settle,
        Idle,
        Append(vec![10; 4]),
        Step(1),
        Truncate(3),
        Append(vec![400, 400]),
        Vote,
        Commit(0),
        RaiseFloor,
        Append(vec![1200, 50]),
        Settle,
        Append(vec![5000, 60]),
        Settle,
        Purge(0),
        Settle,
        Commit(1),
        Idle,
        Purge(0),
        RaiseFloor,
        Append(vec![600, 600, 600]),
        Settle,
        Reopen,
        Append(vec![40; 3]),
        Settle,
        Snapshot(7),
        Append(vec![70; 3]),
        Settle,
        Reopen,
    ]
}

#[test]
fn a_kill_at_any_change_of_the_disk_loses_nothing_acknowledged() {
    let changes = {
        let mut run = Run::new(0);
        let before = run.disk.operations();
        scenario().iter().for_each(|action| run.act(action));
        run.disk.operations() - before
    };
    assert!(changes > 60, "{changes} changes");
    for at in 1..=changes {
        for (seed, loss) in
            [(1, Loss::Everything), (2, Loss::Nothing), (3, Loss::Torn), (4, Loss::Torn), (5, Loss::Torn)]
        {
            for again in [0, 1 + at % 7] {
                let mut run = Run::new(seed * 1000 + at);
                run.act(&Action::Kill(at, again, loss));
                scenario().iter().for_each(|action| run.act(action));
                run.crash(Loss::Everything, 0);
            }
        }
    }
}

#[test]
fn a_kill_while_the_log_is_created_leaves_a_log_or_none() {
    for at in 1..20 {
        for (seed, loss) in
            (0..6).zip([Loss::Everything, Loss::Nothing, Loss::Torn, Loss::Torn, Loss::Torn, Loss::Torn])
        {
            let disk = SimDisk::new(seed);
            disk.set_loss(loss);
            disk.fail_at(at);
            let opened = Stepped::open(&disk, super::SMALL);
            assert_eq!(opened.is_err(), disk.is_dead());
            drop(opened);
            disk.crash();
            let mut log = Stepped::open(&disk, super::SMALL).unwrap();
            let told = log.append(entries(1, 0..3, 50)).unwrap();
            log.settle().unwrap();
            assert!(told.is_durable());
            drop(log);
            disk.set_loss(Loss::Everything);
            disk.crash();
            assert_eq!(Stepped::open(&disk, super::SMALL).unwrap().indexes(), [0, 1, 2]);
        }
    }
}

#[test]
fn bytes_that_a_failed_sync_left_in_the_cache_are_written_again() {
    let disk = SimDisk::new(1);
    let mut log = Stepped::open(&disk, super::SMALL).unwrap();
    log.append(entries(1, 0..2, 50)).unwrap();
    log.settle().unwrap();
    disk.fail_next_sync();
    let told = log.append(entries(1, 2..4, 50)).unwrap();
    let fault = log.settle().unwrap_err();
    assert!(fault.to_string().contains("cannot sync"), "{fault}");
    assert!(matches!(told.get(), Some(Err(_))), "whoever waits is told");
    assert!(log.append(entries(1, 4..5, 0)).is_err(), "nothing is accepted any more");
    assert!(log.log.truncate_after(None).is_err());
    let handle = log.log.clone();
    let vote = meshstore::raft::types::StoredVote { term: 9, node: 1, committed: false };
    assert!(log.finish(handle.save_vote(vote)).is_err());
    assert!(log.finish(handle.close()).is_err());
    drop(log);
    // The program starts again: it reads the bytes from the cache, so it has to make sure of them itself.
    let log = Stepped::open(&disk, super::SMALL).unwrap();
    let found = log.indexes();
    drop(log);
    disk.crash();
    assert_eq!(Stepped::open(&disk, super::SMALL).unwrap().indexes(), found);
}

#[test]
fn a_full_disk_ends_the_log_and_harms_nothing() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(20_000));
    let mut log = Stepped::open(&disk, super::SMALL).unwrap();
    let mut durable = Vec::new();
    for index in 0.. {
        let told = log.append(entries(1, index..index + 1, 400)).unwrap();
        let settled = log.settle();
        if told.is_durable() {
            durable.push(index);
        }
        if settled.is_err() {
            break;
        }
    }
    assert!(durable.len() > 20, "{}", durable.len());
    drop(log);
    disk.crash();
    disk.set_capacity(None);
    assert!(Stepped::open(&disk, super::SMALL).unwrap().indexes().starts_with(&durable));
}
