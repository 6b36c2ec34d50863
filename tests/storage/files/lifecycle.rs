//! When to flush, what views cost, what is let go of.

use std::{sync::Arc, time::Duration};

use meshstore::{
    environment::{Disk, Step, disk::RealDisk},
    model::key::ScopeId,
    storage::{EngineKind, Options, ViewError},
};

use super::harness::{Bench, FLUSHER, MERGER, Model, key, key_of, latest, options, value};
use crate::support::sim_disk::SimDisk;

fn open(disk: &SimDisk, options: Options) -> Bench {
    Bench::open(Arc::new(disk.clone()), options, Model::default()).unwrap()
}

fn memory() -> Options {
    options("/data/store", EngineKind::Memory)
}

#[test]
fn a_memtable_is_flushed_by_size_by_age_and_on_request() {
    let mut bench = open(&SimDisk::new(1), Options { flush_bytes: 10_000, ..memory() });
    assert!(!bench.store.freeze_due());
    bench.clock.advance(Duration::from_secs(60));
    bench.put(1, "first");
    assert!(!bench.store.freeze_due(), "the age counts from the first write");
    bench.clock.advance(Duration::from_secs(30));
    assert!(bench.store.freeze_due());
    bench.freeze();
    assert!(!bench.store.freeze_due());
    bench.put(2, "x".repeat(10_000));
    assert!(bench.store.freeze_due());
    bench.freeze();
    assert!(!bench.store.freeze_due());
    bench.store.request_flush();
    assert!(bench.store.freeze_due());
    bench.freeze();
    assert!(!bench.store.freeze_due());
    assert_eq!(bench.store.status().frozen_tables, 2, "nothing had happened since the second");
    bench.clock.advance(Duration::from_secs(300));
    assert!(bench.store.freeze_due(), "for the sake of the log");
}

#[test]
fn no_run_goes_beyond_the_durable_log() {
    let mut bench = open(&SimDisk::new(1), memory());
    bench.put(1, "one");
    bench.durable.send_replace(0);
    bench.freeze();
    assert!(matches!(bench.step(FLUSHER).unwrap(), Step::WaitFor(_)));
    bench.settle().unwrap();
    assert_eq!(*bench.store.flushed().borrow(), None);
    bench.durable.send_replace(1);
    bench.settle().unwrap();
    assert_eq!(bench.store.flushed().borrow().map(|position| position.index), Some(1));
}

#[test]
fn the_writer_is_told_when_too_much_waits() {
    let mut bench = open(&SimDisk::new(1), Options { flush_bytes: 5_000, ..memory() });
    for _ in 0..2 {
        assert!(!bench.store.is_backed_up());
        bench.put(1, "x".repeat(5_000));
        bench.freeze();
    }
    assert!(bench.store.is_backed_up());
    bench.settle().unwrap();
    assert!(!bench.store.is_backed_up());
}

#[test]
fn a_checkpoint_without_writes_is_flushed_too() {
    let disk = SimDisk::new(1);
    let mut bench = open(&disk, memory());
    bench.put(1, "one");
    bench.flush().unwrap();
    bench.model.index += 10;
    bench.flush().unwrap();
    assert_eq!(bench.store.flushed().borrow().map(|position| position.index), Some(11));
    let again = Bench::open(Arc::new(disk), memory(), bench.model.clone()).unwrap();
    assert_eq!(again.store.checkpoint(), Some(bench.model.checkpoint()));
}

#[test]
fn what_is_kept_for_views_is_bounded_and_the_oldest_are_ended_first() {
    let mut bench = open(&SimDisk::new(1), Options { undo_bytes: 30_000, flush_bytes: 30_000, ..memory() });
    let rewrite = |bench: &mut Bench| {
        bench.write((0..20).map(|number| (key(number), Some(value("x".repeat(1_000))))));
        bench.flush().unwrap();
    };
    rewrite(&mut bench);
    let oldest = bench.store.view(1).unwrap();
    rewrite(&mut bench);
    let later = bench.store.view(2).unwrap();
    assert!(bench.store.status().undo_bytes > 20_000);
    for _ in 0..2 {
        assert_eq!(oldest.range(b"", None, 100).unwrap().len(), 20);
        rewrite(&mut bench);
    }
    assert!(matches!(oldest.get(&key(1)), Err(ViewError::TooOld { revision: 1, oldest: 4 })));
    assert_eq!(later.range(b"", None, 100).unwrap().len(), 20);
    assert!(bench.store.status().undo_bytes <= 60_000);
    drop((oldest, later));
    bench.settle().unwrap();
    assert_eq!(bench.store.status().undo_bytes, 0);
}

#[test]
fn beside_an_open_view_its_revision_stays_readable() {
    let mut bench = open(&SimDisk::new(1), memory());
    bench.put(1, "old");
    bench.flush().unwrap();
    let view = bench.store.view(1).unwrap();
    bench.put(1, "new");
    bench.flush().unwrap();
    bench.check_view(1);
    drop(view);
    assert!(matches!(bench.store.view(1), Err(ViewError::TooOld { revision: 1, oldest: 2 })));
    bench.check_view(2);
}

#[test]
fn a_view_inside_a_frozen_table_keeps_it() {
    let mut bench = open(&SimDisk::new(1), memory());
    for round in 0..3 {
        for number in 0..10 {
            bench.put(number, format!("{round} {number}"));
        }
        bench.flush().unwrap();
    }
    for number in 0..10 {
        bench.put(number, format!("3 {number}"));
    }
    let view = bench.store.view(35).unwrap();
    for _ in 0..2 {
        bench.flush().unwrap();
        bench.put(3, "later");
    }
    let content: super::harness::Content = view.range(b"", None, 100).unwrap().into_iter().collect();
    assert_eq!(content, bench.model.at(35));
    bench.check_latest();
}

fn dropped_scopes_vanish(disk: Arc<dyn Disk>, options: Options) {
    let mut bench = Bench::open(disk.clone(), options.clone(), Model::default()).unwrap();
    for number in 0..30 {
        bench.write([(key_of(2_000, number), Some(value("goes"))), (key_of(2_001, number), Some(value("stays")))]);
    }
    bench.flush().unwrap();
    bench.write([(key_of(2_000, 99), Some(value("goes, not yet merged")))]);
    let view = bench.store.view(bench.model.revision).unwrap();
    bench.drop_scope(ScopeId::new(0x11, 2_000).prefix());
    bench.settle().unwrap();
    assert_eq!(latest(&bench.store).len(), 61, "the drop is not on disk yet");
    bench.flush().unwrap();
    assert_eq!(view.range(b"", None, 100).unwrap().len(), 61, "an older view still reads it");
    drop(view);
    bench.settle().unwrap();
    bench.check_latest();
    assert_eq!(latest(&bench.store).len(), 30);
    // Neither in a snapshot, nor after a restart.
    let bytes = super::snapshot::bytes_of(&bench.store.snapshot().unwrap());
    assert_eq!(super::snapshot::receive(&bench.store, &bytes).unwrap().pairs(), 30);
    drop(bench.store);
    drop(bench.workers);
    let mut again = Bench::open(disk, options, bench.model).unwrap();
    again.settle().unwrap();
    again.check_latest();
}

#[test]
fn dropped_scopes_vanish_from_memory() {
    dropped_scopes_vanish(Arc::new(SimDisk::new(1)), memory());
}

#[test]
fn dropped_scopes_vanish_from_sled() {
    let directory = tempfile::tempdir().unwrap();
    dropped_scopes_vanish(Arc::new(RealDisk), options(directory.path().join("store"), EngineKind::Sled));
}

#[test]
fn garbage_that_a_crash_left_is_found_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path().join("store"), EngineKind::Sled);
    let mut bench = Bench::open(Arc::new(RealDisk), options.clone(), Model::default()).unwrap();
    for number in 0..30 {
        bench.write([(key_of(2_000, number), Some(value("goes")))]);
    }
    bench.flush().unwrap();
    bench.drop_scope(ScopeId::new(0x11, 2_000).prefix());
    bench.freeze();
    while bench.store.flushed().borrow().is_none_or(|position| position.index < bench.model.index) {
        bench.step(FLUSHER).unwrap();
    }
    // Closed in order while there is something to reclaim: the next start must look.
    let model = bench.close().unwrap();
    let mut again = Bench::open(Arc::new(RealDisk), options, model).unwrap();
    assert_eq!(latest(&again.store).len(), 30);
    while again.step(MERGER).unwrap() == Step::Again {}
    again.check_latest();
}

#[test]
fn compaction_leaves_one_base_without_deletions() {
    let disk = SimDisk::new(1);
    let mut bench = open(&disk, Options { compact_bytes: 1, ..memory() });
    for number in 0..50 {
        bench.put(number, "one");
    }
    bench.flush().unwrap();
    bench.write((0..50).map(|number| (key(number), None)));
    bench.write([(key(7), Some(value("left")))]);
    bench.flush().unwrap();
    let status = bench.store.status();
    assert!(status.base_bytes > 0);
    let names = disk.list("/data/store".as_ref()).unwrap();
    assert_eq!(names.iter().filter(|name| name.ends_with(".base")).count(), 1, "{names:?}");
    let again = Bench::open(Arc::new(disk), memory(), bench.model.clone()).unwrap();
    again.check_latest();
    assert_eq!(again.store.checkpoint(), Some(bench.model.checkpoint()));
}

#[tokio::test]
async fn a_store_whose_workers_are_gone_closes() {
    let Bench { store, workers, .. } = open(&SimDisk::new(1), memory());
    drop(workers);
    store.close().await;
}

#[test]
fn who_reads_after_the_close_is_told_so() {
    let bench = open(&SimDisk::new(1), memory());
    let store = bench.store.clone();
    bench.close().unwrap();
    assert!(store.get_latest(&key(1)).unwrap_err().is_closed());
}

#[test]
fn deletions_give_their_room_back_while_the_disk_is_short() {
    let disk = SimDisk::new(1);
    let mut bench = open(&disk, Options { compact_bytes: 1, ..memory() });
    for number in 0..200 {
        bench.put(number, format!("{number} {}", "x".repeat(200)));
    }
    bench.flush().unwrap();
    let base = bench.store.status().base_bytes;
    assert!(base > 0);
    bench.write((0..190).map(|number| (key(number), None)));
    bench.flush().unwrap();
    let status = bench.store.status();
    assert_eq!((status.base_bytes, status.runs), (base, 1), "the run has not outgrown the base");
    bench.store.set_short_of_space(true);
    bench.settle().unwrap();
    let status = bench.store.status();
    assert!(status.base_bytes < base / 2 && status.runs == 0, "{status:?}");
    bench.check_latest();
    // What deletes nothing is not joined again and again.
    bench.put(7, "again");
    bench.flush().unwrap();
    assert_eq!(bench.store.status().runs, 1);
    assert_eq!(bench.store.status().compacting_bytes, 0);
}

#[test]
fn a_compaction_waits_for_the_room_that_it_needs() {
    let disk = SimDisk::new(1);
    let mut bench = open(&disk, Options { compact_bytes: 1, floor_bytes: 10_000, ..memory() });
    bench.put(1, "one");
    disk.set_capacity(Some(10_100));
    bench.flush().unwrap();
    assert_eq!(bench.store.status().runs, 1, "10,000 bytes are to stay free");
    disk.set_capacity(Some(12_000));
    bench.settle().unwrap();
    assert_eq!(bench.store.status().runs, 0);
    assert!(bench.store.status().base_bytes > 0);
}

#[test]
fn a_snapshot_is_not_received_into_the_last_room() {
    let disk = SimDisk::new(1);
    let bench = open(&disk, Options { floor_bytes: 1 << 20, ..memory() });
    disk.set_capacity(Some(20 << 20));
    let mut incoming = bench.store.receive().unwrap();
    let refused = (0..20).find_map(|_| incoming.push(&vec![1; 1 << 20]).err()).unwrap().to_string();
    assert!(refused.starts_with("there is no room for /data/store/"), "{refused}");
    drop(incoming);
    assert!(disk.available_bytes("/data".as_ref()).unwrap() > 19 << 20, "nothing is left behind");
}
