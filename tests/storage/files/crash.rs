//! A kill at every change of the disk, with every kind of loss: what is opened afterwards is a whole
//! checkpoint, not older than what was promised.

use std::sync::Arc;

use meshstore::{
    error::Fault,
    model::Position,
    storage::{EngineKind, Options},
};

use super::{
    harness::{Bench, Model, key, latest, options, value},
    snapshot::{bytes_of, receive},
};
use crate::support::{
    failing_disk::FailingDisk,
    sim_disk::{Loss, SimDisk},
};

fn small() -> Options {
    Options { compact_bytes: 300, compact_runs: 3, ..options("/data/store", EngineKind::Memory) }
}

/// What was promised to the log before the kill, and all states that may be found after it.
#[derive(Default)]
struct Promise {
    flushed: Option<Position>,
    model: Model,
}

/// Flushes, merges, compactions.
fn flushes(disk: &SimDisk, promise: &mut Promise) -> Result<(), Fault> {
    let mut bench = Bench::open(Arc::new(disk.clone()), small(), promise.model.clone())?;
    for round in 0..7 {
        bench.write((0..6).map(|number| (key(number * round), Some(value(format!("{round} {number}"))))));
        bench.write([(key(round), None)]);
        bench.freeze();
        // The model knows what was frozen even if the flush is cut off.
        promise.model = bench.model.clone();
        let settled = bench.settle();
        promise.flushed = *bench.store.flushed().borrow();
        settled?;
    }
    bench.check_latest();
    bench.close().map(drop)
}

/// After every kill the checkpoint is whole, and what was promised is there.
fn check(disk: &SimDisk, promise: &Promise, what: &str) {
    let bench = Bench::open(Arc::new(disk.clone()), small(), promise.model.clone()).unwrap();
    let checkpoint = bench.store.checkpoint().unwrap_or_default();
    assert!(checkpoint.position >= promise.flushed.unwrap_or_default(), "{what}");
    assert_eq!(latest(&bench.store), promise.model.at(checkpoint.revision), "{what}");
    if checkpoint.revision > 0 {
        let Model { writes, dropped, .. } = promise.model.clone();
        let (revision, index) = (checkpoint.revision, checkpoint.position.index);
        assert_eq!(Model { revision, index, writes, dropped }.checkpoint(), checkpoint, "{what}");
    }
}

fn losses() -> impl Iterator<Item = (Loss, u64)> {
    let torn = (0..6).map(|seed| (Loss::Torn, seed));
    [(Loss::Everything, 0), (Loss::Nothing, 0)].into_iter().chain(torn)
}

#[test]
fn a_kill_at_any_moment_of_flush_merge_and_compaction() {
    let whole = SimDisk::new(0);
    flushes(&whole, &mut Promise::default()).unwrap();
    let changes = whole.operations();
    assert!(whole.trace().iter().any(|change| change.contains("remove") && change.ends_with(".base")), "compacted");
    for (loss, seed) in losses() {
        for at in 1..=changes {
            let disk = SimDisk::new(seed);
            disk.set_loss(loss);
            disk.fail_at(at);
            let mut promise = Promise::default();
            let ended = flushes(&disk, &mut promise);
            assert!(ended.is_err() || at == changes, "{at} of {changes}");
            disk.crash();
            check(&disk, &promise, &format!("{loss:?}, seed {seed}, change {at} of {changes}"));
        }
    }
}

#[test]
fn a_second_kill_during_the_start_changes_nothing() {
    let disk = SimDisk::new(3);
    let mut promise = Promise::default();
    disk.fail_at(60);
    assert!(flushes(&disk, &mut promise).is_err());
    disk.crash();
    for at in 1..20 {
        let disk = disk.fork();
        disk.set_loss(Loss::Torn);
        disk.fail_at(at);
        drop(Bench::open(Arc::new(disk.clone()), small(), promise.model.clone()));
        disk.crash();
        check(&disk, &promise, &format!("change {at}"));
    }
}

#[test]
fn a_failed_sync_is_a_fault() {
    for round in 0..3 {
        let disk = SimDisk::new(1);
        let mut bench = Bench::open(Arc::new(disk.clone()), small(), Model::default()).unwrap();
        for _ in 0..round {
            bench.put(1, "before");
            bench.flush().unwrap();
        }
        bench.put(2, "lost");
        let told = *bench.store.flushed().borrow();
        disk.fail_next_sync();
        assert!(bench.flush().unwrap_err().to_string().contains("sync"));
        assert_eq!(*bench.store.flushed().borrow(), told);
    }
}

#[test]
fn a_failed_sync_is_named_and_never_tried_again() {
    for (ends, skip) in [(".run", 0), (".base", 0), ("manifest.tmp", 1), ("manifest.tmp", 2), ("/data/store", 2)] {
        let disk = FailingDisk::new(Arc::new(SimDisk::new(1)));
        let mut bench = Bench::open(Arc::new(disk.clone()), small(), Model::default()).unwrap();
        disk.fail_sync_of(ends, skip);
        let mut fault = None;
        for round in 0..20 {
            bench.put(round, "x".repeat(100));
            fault = fault.or(bench.flush().err());
        }
        let (fault, struck) = (fault.unwrap().to_string(), disk.struck().unwrap());
        assert!(fault.contains(struck.with_extension("").to_str().unwrap()), "{ends}: {fault}");
        // A node stops at the first; here its workers are driven on, and must not make of it a success.
        if ends == "manifest.tmp" {
            assert_eq!(disk.tried_again(), 0);
            assert!(bench.flush().is_err());
        }
    }
}

#[test]
fn a_full_disk_is_a_fault_and_costs_nothing_that_was_promised() {
    let whole = SimDisk::new(0);
    flushes(&whole, &mut Promise::default()).unwrap();
    for capacity in (0..whole.written()).step_by(97) {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(capacity));
        let mut promise = Promise::default();
        let ended = flushes(&disk, &mut promise);
        disk.set_capacity(None);
        disk.crash();
        check(&disk, &promise, &format!("{capacity} bytes: {ended:?}"));
    }
}

#[test]
fn a_kill_at_any_moment_of_an_install() {
    let donor_disk = SimDisk::new(1);
    let mut donor = Bench::open(Arc::new(donor_disk), small(), Model::default()).unwrap();
    for number in 0..30 {
        donor.put(number, "of the donor");
    }
    donor.flush().unwrap();
    let bytes = bytes_of(&donor.store.snapshot().unwrap());
    let install = |disk: &SimDisk| -> Result<Model, Fault> {
        let mut bench = Bench::open(Arc::new(disk.clone()), small(), Model::default())?;
        for number in 0..4 {
            bench.put(number, "of before");
            bench.flush()?;
        }
        bench.put(9, "only in memory");
        let (before, model) = (disk.operations(), bench.model.clone());
        let received = receive(&bench.store, &bytes).map_err(|error| Fault::new(error.to_string()))?;
        bench.store.install(received)?;
        assert!(disk.operations() > before);
        Ok(model)
    };
    let whole = SimDisk::new(0);
    let before = install(&whole).unwrap();
    let first = whole.trace().iter().rposition(|change| change.contains("create") && change.contains(".base")).unwrap();
    for (loss, seed) in losses() {
        for at in first as u64..=whole.operations() {
            let disk = SimDisk::new(seed);
            disk.set_loss(loss);
            disk.fail_at(at);
            let ended = install(&disk);
            disk.crash();
            let bench = Bench::open(Arc::new(disk), small(), Model::default()).unwrap();
            let checkpoint = bench.store.checkpoint().unwrap();
            let what = format!("{loss:?}, seed {seed}, change {at}");
            if checkpoint.position == donor.model.checkpoint().position {
                assert_eq!(latest(&bench.store), donor.model.at(checkpoint.revision), "{what}");
            } else {
                assert!(ended.is_err(), "{what}");
                assert_eq!(checkpoint.revision, 4, "{what}");
                assert_eq!(latest(&bench.store), before.at(4), "{what}");
            }
        }
    }
}
