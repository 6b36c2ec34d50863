//! What openraft and storage rely on, one promise a test.

use std::{path::Path, sync::Arc};

use meshstore::{
    environment::{Disk, Environment, Step, clock::RealClock, disk::RealDisk, executor::Tasks},
    limits,
    raft::{
        log::{Log, Options},
        log_store::LogStore,
        types::{StoredVote, Vote},
    },
};
use openraft::{
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogReader, RaftLogStorage, RaftLogStorageExt},
};

use super::{SMALL, Stepped, at, entries, entry, segments};
use crate::support::sim_disk::SimDisk;

fn stepped() -> (SimDisk, Stepped) {
    let disk = SimDisk::new(1);
    let log = Stepped::open(&disk, SMALL).unwrap();
    (disk, log)
}

#[test]
fn entries_are_readable_at_once_and_told_of_only_after_the_sync() {
    let (disk, mut log) = stepped();
    let durable = log.log.durable_index();
    let told = log.append(entries(1, 0..4, 30)).unwrap();
    assert_eq!(log.indexes(), [0, 1, 2, 3]);
    assert_eq!((told.get().is_some(), *durable.borrow()), (false, 0));
    let syncs = disk.syncs();
    log.settle().unwrap();
    assert!(told.is_durable());
    assert_eq!((*durable.borrow(), disk.syncs()), (3, syncs + 1));
}

#[test]
fn what_queues_together_is_synced_once() {
    let (disk, mut log) = stepped();
    let told: Vec<_> = (0..20).map(|index| log.append(vec![entry(1, index, 10)]).unwrap()).collect();
    let syncs = disk.syncs();
    log.worker.step().unwrap();
    assert_eq!(disk.syncs(), syncs + 1);
    assert!(told.iter().all(super::Told::is_durable));
    let statistics = log.log.statistics();
    assert_eq!((statistics.batches, statistics.entries, statistics.segments), (1, 20, 1));
}

#[test]
fn a_batch_is_bounded_and_whoever_waits_for_its_last_entry_is_told_with_it() {
    let (_, mut log) = stepped();
    let first = log.append(entries(1, 0..3, 600)).unwrap();
    let second = log.append(entries(1, 3..4, 600)).unwrap();
    log.worker.step().unwrap();
    assert_eq!((first.is_durable(), second.is_durable()), (true, false));
    log.worker.step().unwrap();
    assert!(second.is_durable());
}

#[test]
fn the_committed_position_causes_no_sync_until_the_log_is_idle() {
    let (disk, mut log) = stepped();
    log.append(entries(1, 0..2, 10)).unwrap();
    assert!(matches!(log.settle().unwrap(), Step::WaitFor(_)));
    let operations = disk.operations();
    log.log.save_committed(Some(at(1, 1))).unwrap();
    assert!(matches!(log.settle().unwrap(), Step::WaitFor(_)));
    assert_eq!(disk.operations(), operations);
    assert_eq!(log.idle().unwrap(), Step::Wait);
    let operations = disk.operations();
    assert_eq!(log.idle().unwrap(), Step::Wait, "one marker is enough");
    assert_eq!(disk.operations(), operations);
    drop(log);
    disk.crash();
    assert_eq!(Stepped::open(&disk, SMALL).unwrap().log.committed(), Some(at(1, 1)));
}

#[test]
fn truncation_keeps_the_position_and_none_keeps_nothing() {
    let (_, mut log) = stepped();
    log.append(entries(1, 0..6, 10)).unwrap();
    log.settle().unwrap();
    let durable = log.log.durable_index();
    log.log.truncate_after(Some(at(1, 3))).unwrap();
    assert_eq!((log.indexes(), *durable.borrow()), (vec![0, 1, 2, 3], 3));
    log.append(entries(2, 4..6, 10)).unwrap();
    assert_eq!(*durable.borrow(), 3, "what comes instead is not durable yet");
    log.settle().unwrap();
    assert_eq!((log.log.last(), *durable.borrow()), (Some(at(2, 5)), 5));
    log.log.truncate_after(None).unwrap();
    assert_eq!((log.indexes(), log.log.last()), (vec![], None));
    log.close().unwrap();
}

#[test]
fn a_truncation_while_its_entries_are_written_leaves_none_of_them() {
    let (disk, mut log) = stepped();
    log.append(entries(1, 0..3, 600)).unwrap();
    log.append(entries(1, 3..6, 600)).unwrap();
    log.worker.step().unwrap();
    log.log.truncate_after(Some(at(1, 1))).unwrap();
    log.append(entries(2, 2..4, 900)).unwrap();
    log.settle().unwrap();
    let positions: Vec<_> = (0..5).map(|index| log.log.position_at(index)).collect();
    assert_eq!(positions, [Some(at(1, 0)), Some(at(1, 1)), Some(at(2, 2)), Some(at(2, 3)), None]);
    let read = log.all();
    drop(log);
    assert_eq!(Stepped::open(&disk, SMALL).unwrap().all(), read);
}

#[test]
fn a_hole_is_refused() {
    let (_, log) = stepped();
    log.append(entries(1, 0..2, 10)).unwrap();
    assert!(log.append(entries(1, 3..4, 10)).is_err());
    assert!(log.append(vec![entry(1, 2, 0), entry(1, 2, 0)]).is_err());
    assert_eq!(log.indexes(), [0, 1], "none of them was taken");
    log.close().unwrap();
}

#[test]
fn nothing_is_purged_beyond_the_floor_and_the_rest_follows_it() {
    let (disk, mut log) = stepped();
    for index in 0..30 {
        log.append(vec![entry(1, index, 700)]).unwrap();
        log.settle().unwrap();
    }
    let many = segments(&disk).len();
    let handle = log.log.clone();
    log.finish(handle.purge(at(1, 20))).unwrap();
    assert_eq!((log.log.purged(), log.log.first_index()), (None, 0), "no floor yet");
    log.log.set_purge_floor(at(1, 9));
    assert_eq!((log.log.purged(), log.log.first_index()), (Some(at(1, 9)), 10));
    log.settle().unwrap();
    let fewer = segments(&disk).len();
    assert!(fewer < many);
    log.log.set_purge_floor(at(1, 25));
    assert_eq!((log.log.purged(), log.log.first_index()), (Some(at(1, 20)), 21), "only what was asked for");
    log.settle().unwrap();
    assert!(segments(&disk).len() < fewer);
    log.log.set_purge_floor(at(1, 3));
    assert_eq!(log.indexes(), (21..30).collect::<Vec<_>>());
    drop(log);
    disk.crash();
    let log = Stepped::open(&disk, SMALL).unwrap();
    assert_eq!((log.log.purged(), log.indexes()), (Some(at(1, 20)), (21..30).collect()));
}

#[test]
fn a_purge_beyond_the_end_waits_for_the_floor_and_becomes_the_end() {
    let (disk, mut log) = stepped();
    log.append(entries(1, 0..5, 600)).unwrap();
    log.settle().unwrap();
    let handle = log.log.clone();
    let waiting = async {
        let (purged, ()) = tokio::join!(handle.purge(at(4, 100)), async {
            tokio::task::yield_now().await;
            assert_eq!(handle.purged(), None);
            handle.set_purge_floor(at(4, 100));
        });
        purged
    };
    log.finish(waiting).unwrap();
    assert_eq!((log.log.last(), log.log.purged(), log.indexes()), (Some(at(4, 100)), Some(at(4, 100)), vec![]));
    log.append(entries(5, 101..103, 10)).unwrap();
    log.settle().unwrap();
    assert_eq!(*log.log.durable_index().borrow(), 102);
    drop(log);
    disk.crash();
    let log = Stepped::open(&disk, SMALL).unwrap();
    assert_eq!((log.log.purged(), log.log.last(), log.indexes()), (Some(at(4, 100)), Some(at(5, 102)), vec![101, 102]));
}

#[test]
fn a_range_is_read_from_disk_and_memory_and_capped_but_never_empty() {
    let (_, mut log) = stepped();
    for index in 0..20 {
        log.append(vec![entry(1, index, 500)]).unwrap();
        log.settle().unwrap();
    }
    assert!(log.log.statistics().tail_bytes <= SMALL.tail_bytes as u64);
    let count = |range: std::ops::Range<u64>, bytes| log.log.entries(range, bytes).unwrap().len();
    assert_eq!(count(0..20, usize::MAX), 20);
    assert_eq!(count(3..3, usize::MAX), 0);
    assert_eq!(count(20..30, usize::MAX), 0);
    assert_eq!(count(3..10, 0), 1);
    let one = log.log.entries(3..4, 1).unwrap()[0].sealed().len();
    assert_eq!(count(3..20, 4 * one - 1), 3);
    assert_eq!(count(3..20, 4 * one), 4);
    assert_eq!(count(17..20, 2 * one), 2);
    assert_eq!(count(10..20, 9 * one), 9, "over several segments and the tail");
}

#[test]
fn a_marker_is_written_at_idle_and_segments_are_prepared_ahead() {
    let (disk, mut log) = stepped();
    for index in 0..9 {
        log.append(vec![entry(1, index, 400)]).unwrap();
        log.settle().unwrap();
    }
    let trace = disk.trace();
    let renamed = trace.iter().filter(|change| change.starts_with("rename")).count();
    assert_eq!(renamed, segments(&disk).len());
    let spare = disk.bytes(Path::new(super::DIRECTORY).join("spare"));
    assert_eq!(spare.len() % 4096, 0);
    log.close().unwrap();
    let log = Stepped::open(&disk, SMALL).unwrap();
    assert!(!disk.exists(&Path::new(super::DIRECTORY).join("spare")).unwrap(), "what was prepared is forgotten");
    assert_eq!(log.indexes().len(), 9);
}

#[test]
fn whoever_waits_when_the_writer_goes_is_told() {
    let (_, mut log) = stepped();
    let told = log.append(entries(1, 0..2, 10)).unwrap();
    let closing = log.log.clone();
    log.worker = Box::new(Nothing);
    assert!(told.get().unwrap().is_err());
    assert!(log.finish(closing.close()).is_err());
}

struct Nothing;

impl meshstore::environment::Worker for Nothing {
    fn step(&mut self) -> Result<Step, meshstore::error::Fault> {
        Ok(Step::Done)
    }
}

/// openraft's own traits, on real files, with the writer as a task.
#[tokio::test]
async fn openraft_finds_what_it_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let environment = Environment {
        disk: Arc::new(RealDisk),
        clock: Arc::new(RealClock),
        executor: Arc::new(Tasks::default()),
        ..Environment::real()
    };
    let path = directory.path().join("mesh_consensus_log");
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let start = || {
        let (log, worker, signal) = Log::open(&environment, &path, options).unwrap();
        (log, environment.executor.start("log", worker, signal))
    };

    let (log, running) = start();
    let mut store = LogStore::new(log.clone());
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), []);
    let vote = Vote::from(StoredVote { term: 3, node: 1, committed: true });
    store.save_vote(&vote).await.unwrap();
    store.blocking_append(entries(3, 0..200, 1000)).await.unwrap();
    store.save_committed(Some(at(3, 150).into())).await.unwrap();
    log.set_purge_floor(at(3, 60));
    store.purge(at(3, 99).into()).await.unwrap();
    store.truncate_after(Some(at(3, 180).into())).await.unwrap();
    store.append(entries(3, 181..182, limits::APPEND_BYTES), IOFlushed::noop()).await.unwrap();
    store.append(entries(3, 182..185, 8), IOFlushed::noop()).await.unwrap();
    assert_eq!(store.limited_get_log_entries(181, 185).await.unwrap().len(), 1);
    log.close().await.unwrap();
    running.await.unwrap().unwrap();
    assert!(store.save_vote(&vote).await.is_err());

    let (log, running) = start();
    let mut store = LogStore::new(log.clone());
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    assert_eq!(store.read_committed().await.unwrap(), Some(at(3, 150).into()));
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(at(3, 60).into()));
    assert_eq!(state.last_log_id, Some(at(3, 184).into()));
    let read = reader.try_get_log_entries(0..=300).await.unwrap();
    assert_eq!(read.iter().map(|entry| entry.log_id_parts().1).collect::<Vec<_>>(), (61..185).collect::<Vec<_>>());
    let key = reader.get_key_log_ids(at(3, 61).into()..=at(3, 184).into()).await.unwrap();
    assert_eq!(key.last(), Some(&at(3, 184).into()));
    log.close().await.unwrap();
    running.await.unwrap().unwrap();
}
