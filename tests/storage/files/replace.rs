//! Storage that is made anew beside what cannot be used: a kill at every change of the disk leaves the one or the other,
//! or a place that is empty, which its owner knows to fill again.

use std::{path::Path, sync::Arc};

use meshstore::{
    environment::{Disk, Environment},
    error::Fault,
    storage::{EngineKind, Options, Prepared, ReceiveError, Replacement},
};

use super::{
    harness::{Bench, CLUSTER, Model, TestAuditor, latest, options},
    snapshot::bytes_of,
};
use crate::support::{
    failing_disk::FailingDisk,
    sim_disk::{Loss, SimDisk},
};

const STORE: &str = "/data/store";

fn memory() -> Options {
    options(STORE, EngineKind::Memory)
}

fn filled(disk: &SimDisk, numbers: std::ops::Range<u32>) -> Bench {
    let mut bench = Bench::open(Arc::new(disk.clone()), memory(), Model::default()).unwrap();
    for number in numbers {
        bench.put(number, format!("value {number}"));
    }
    bench.flush().unwrap();
    bench
}

fn begin(disk: Arc<dyn Disk>) -> Result<Replacement, Fault> {
    let environment = Environment { disk, ..Environment::real() };
    Replacement::begin(&environment, Path::new(STORE), CLUSTER, Arc::new(TestAuditor))
}

fn received(disk: Arc<dyn Disk>, bytes: &[u8]) -> Result<Prepared, ReceiveError> {
    let mut replacement = begin(disk)?;
    for piece in bytes.chunks(1_000) {
        replacement.push(piece)?;
    }
    replacement.finish()
}

#[test]
fn a_kill_at_any_moment_of_a_replacement() {
    let donor = filled(&SimDisk::new(1), 100..140);
    let bytes = bytes_of(&donor.store.snapshot().unwrap());
    let whole = SimDisk::new(2);
    let old = filled(&whole, 0..20).close().unwrap();
    whole.crash();
    let (mut done, mut at) = (false, 0);
    while !done {
        at += 1;
        for (loss, seed) in
            [(Loss::Everything, 0), (Loss::Nothing, 0), (Loss::Torn, 1), (Loss::Torn, 2), (Loss::Torn, 3)]
        {
            let disk = whole.fork();
            disk.reseed(seed);
            disk.set_loss(loss);
            disk.fail_at(at);
            let replaced =
                received(Arc::new(disk.clone()), &bytes).is_ok_and(|prepared| prepared.put_in_place().is_ok());
            disk.crash();
            if replaced {
                done = true;
            }
            let is_there = disk.exists(STORE.as_ref()).unwrap();
            let aside = disk.exists("/data/store.damaged-1".as_ref()).unwrap();
            assert!(is_there || aside, "change {at}, {loss:?}: the old files are gone");
            let model = if aside { donor.model.clone() } else { old.clone() };
            let bench = Bench::open(Arc::new(disk.clone()), memory(), model).unwrap();
            match (replaced, is_there) {
                (true, _) | (_, true) => bench.check_latest(),
                (false, false) => assert!(latest(&bench.store).is_empty(), "change {at}, {loss:?}"),
            }
        }
    }
    assert!(at > 10, "{at}");
}

#[test]
fn what_is_not_whole_replaces_nothing() {
    let donor = filled(&SimDisk::new(1), 100..140);
    let bytes = bytes_of(&donor.store.snapshot().unwrap());
    let disk = SimDisk::new(2);
    let old = filled(&disk, 0..20);
    for broken in [bytes[..bytes.len() - 1].to_vec(), Vec::new(), [&bytes[..], b"more"].concat()] {
        let refused = received(Arc::new(disk.clone()), &broken);
        assert!(matches!(refused, Err(ReceiveError::Refused(_))), "{:?}", refused.err());
    }
    old.check_latest();
    let sync = FailingDisk::new(Arc::new(disk.clone()));
    sync.fail_sync_of(".base", 0);
    let Err(ReceiveError::Fault(fault)) = received(Arc::new(sync), &bytes) else { panic!("the sync failed") };
    assert!(fault.to_string().starts_with("syncing /data/store.new/00000001.base"), "{fault}");
    // Unfinished work is no hindrance, and goes.
    let prepared = received(Arc::new(disk.clone()), &bytes).unwrap();
    assert_eq!((prepared.pairs(), prepared.checkpoint().revision), (40, 40));
}

#[test]
fn what_is_set_aside_takes_a_name_that_nobody_has() {
    let donor = filled(&SimDisk::new(1), 0..5);
    let disk = SimDisk::new(2);
    drop(filled(&disk, 0..5));
    for number in 1..4 {
        let prepared = received(Arc::new(disk.clone()), &bytes_of(&donor.store.snapshot().unwrap())).unwrap();
        let aside = prepared.put_in_place().unwrap().unwrap();
        assert_eq!(aside, Path::new(&format!("/data/store.damaged-{number}")));
    }
}
