//! Snapshots: taken while everything goes on, received, refused, installed.

use std::sync::Arc;

use bytes::Bytes;
use meshstore::{
    environment::Disk,
    limits,
    storage::{EngineKind, Options, ReceiveError, Received, Snapshot, Store, ViewError},
};

use super::harness::{Bench, Model, key, latest, options, value};
use crate::support::sim_disk::SimDisk;

fn bench(disk: &SimDisk, name: &str) -> Bench {
    let mut options = options(format!("/data/{name}"), EngineKind::Memory);
    (options.compact_bytes, options.compact_runs) = (1 << 30, 3);
    Bench::open(Arc::new(disk.clone()), options, Model::default()).unwrap()
}

fn filled(disk: &SimDisk, name: &str) -> Bench {
    let mut bench = bench(disk, name);
    for number in 0..200 {
        bench.put(number, format!("first {number}"));
    }
    bench.flush().unwrap();
    for number in (0..200).step_by(3) {
        bench.write([(key(number), None), (key(number + 1), Some(value("second")))]);
    }
    bench.flush().unwrap();
    bench
}

pub fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let pieces: Vec<Bytes> = snapshot.reader().unwrap().map(|piece| piece.unwrap()).collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= limits::SNAPSHOT_CHUNK_BYTES));
    pieces.concat()
}

pub fn receive(store: &Store, bytes: &[u8]) -> Result<Received, ReceiveError> {
    let mut incoming = store.receive()?;
    for piece in bytes.chunks(1_000) {
        incoming.push(piece)?;
    }
    incoming.finish()
}

#[test]
fn an_empty_store_has_none() {
    let bench = bench(&SimDisk::new(1), "empty");
    assert!(bench.store.snapshot().is_none());
    assert!(bench.store.checkpoint().is_none());
}

#[test]
fn it_is_one_checkpoint_whatever_goes_on() {
    let disk = SimDisk::new(1);
    let mut bench = filled(&disk, "donor");
    let snapshot = bench.store.snapshot().unwrap();
    let checkpoint = snapshot.checkpoint().clone();
    let expected = bench.model.at(checkpoint.revision);
    let mut reader = snapshot.reader().unwrap();
    let first = reader.next().unwrap().unwrap();
    drop(snapshot);
    // Writes, flushes and a compaction that replaces every file that is being read.
    for number in 0..2_000 {
        bench.put(number % 300, format!("later {number}"));
        if number % 100 == 0 {
            bench.flush().unwrap();
        }
    }
    let mut bytes = first.to_vec();
    for piece in reader {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let receiver = self::bench(&disk, "receiver");
    let received = receive(&receiver.store, &bytes).unwrap();
    assert_eq!(received.checkpoint(), &checkpoint);
    assert_eq!(received.pairs(), expected.len() as u64);
    receiver.store.install(received).unwrap();
    assert_eq!(latest(&receiver.store), expected);
}

#[test]
fn its_files_are_removed_when_the_last_reader_is_done() {
    let disk = SimDisk::new(1);
    let options = Options { compact_bytes: 1, ..options("/data/donor", EngineKind::Memory) };
    let mut bench = Bench::open(Arc::new(disk.clone()), options, Model::default()).unwrap();
    let count = || disk.list("/data/donor".as_ref()).unwrap().iter().filter(|name| *name != "manifest").count();
    let rewrite = |bench: &mut Bench| {
        let revision = bench.model.revision;
        bench.write((0..500).map(|number| (key(number), Some(value(format!("{number} {revision}"))))));
        bench.flush().unwrap();
    };
    rewrite(&mut bench);
    assert_eq!(count(), 1);
    let snapshot = bench.store.snapshot().unwrap();
    let reader = snapshot.reader().unwrap();
    drop(snapshot);
    rewrite(&mut bench);
    assert_eq!(count(), 2);
    assert!(reader.map(|piece| piece.unwrap().len()).sum::<usize>() > 0);
    assert_eq!(count(), 1);
}

#[test]
fn installing_replaces_everything() {
    let disk = SimDisk::new(1);
    let donor = filled(&disk, "donor");
    let bytes = bytes_of(&donor.store.snapshot().unwrap());
    let mut bench = bench(&disk, "receiver");
    for number in 0..50 {
        bench.put(number + 10_000, "of before");
    }
    bench.flush().unwrap();
    bench.put(20_000, "only in memory");
    let (flushed_view, view) = (bench.store.view(50).unwrap(), bench.store.view(51).unwrap());
    let received = receive(&bench.store, &bytes).unwrap();
    assert_eq!(view.get(&key(20_000)).unwrap(), Some(value("only in memory")));
    let checkpoint = bench.store.install(received).unwrap();
    assert_eq!(bench.store.checkpoint().as_ref(), Some(&checkpoint));
    assert_eq!(*bench.store.flushed().borrow(), Some(checkpoint.position));
    assert!(matches!(view.get(&key(20_000)), Err(ViewError::TooOld { .. })));
    assert!(matches!(flushed_view.range(b"", None, 10), Err(ViewError::TooOld { .. })));
    assert!(matches!(bench.store.view(51), Err(ViewError::TooOld { .. })));
    assert_eq!(latest(&bench.store), donor.model.at(checkpoint.revision));
    // Life goes on from there.
    bench.model = donor.model.clone();
    bench.settle().unwrap();
    bench.put(3, "after");
    bench.flush().unwrap();
    bench.check_latest();
    let options = options("/data/receiver", EngineKind::Memory);
    let again = Bench::open(Arc::new(disk), options, bench.model.clone()).unwrap();
    again.check_latest();
}

#[test]
fn an_install_in_the_middle_of_flush_and_merge_wins() {
    let disk = SimDisk::new(1);
    let donor = filled(&disk, "donor");
    let bytes = bytes_of(&donor.store.snapshot().unwrap());
    for steps in 0..12 {
        let name = format!("receiver{steps}");
        let mut bench = bench(&disk, &name);
        for round in 0..2 {
            for number in 0..20 {
                bench.put(number + 10_000 * round, "of before");
            }
            bench.freeze();
        }
        for step in 0..steps {
            bench.step(step % 2).unwrap();
        }
        let received = receive(&bench.store, &bytes).unwrap();
        let checkpoint = bench.store.install(received).unwrap();
        bench.settle().unwrap();
        assert_eq!(latest(&bench.store), donor.model.at(checkpoint.revision));
        let options = options(format!("/data/{name}"), EngineKind::Memory);
        let again = Bench::open(Arc::new(disk.clone()), options, donor.model.clone()).unwrap();
        assert_eq!(again.store.checkpoint(), Some(checkpoint));
        again.check_latest();
    }
}

#[test]
fn what_is_not_whole_is_refused_and_leaves_nothing() {
    let disk = SimDisk::new(1);
    let donor = filled(&disk, "donor");
    let bytes = bytes_of(&donor.store.snapshot().unwrap());
    let mut bench = bench(&disk, "receiver");
    bench.put(1, "mine");
    bench.flush().unwrap();
    let before = files(&disk);
    let refused = |bytes: &[u8]| match receive(&bench.store, bytes) {
        Err(ReceiveError::Refused(why)) => why,
        other => panic!("{:?}", other.map(|received| received.pairs())),
    };
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        refused(&bytes[..cut]);
    }
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        refused(&damaged);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(refused(&longer).contains("follow"));
    // Whole and undamaged, but a run, or contradicting the core's accounts.
    let run = files(&disk).into_iter().find(|name| name.starts_with("/data/donor") && name.ends_with(".run")).unwrap();
    assert!(refused(&disk.bytes(&run)).contains("not a base"));
    assert_eq!(files(&disk), before);
    bench.check_latest();
}

#[test]
fn a_snapshot_that_contradicts_its_accounts_is_refused() {
    let disk = SimDisk::new(1);
    let mut donor = bench(&disk, "donor");
    donor.put(1, "counted");
    let mut checkpoint = donor.model.checkpoint();
    donor.put(2, "not counted");
    checkpoint.position = donor.model.checkpoint().position;
    donor.store.freeze(checkpoint);
    donor.settle().unwrap();
    let bytes = bytes_of(&donor.store.snapshot().unwrap());
    let receiver = bench(&disk, "receiver");
    let refused = receive(&receiver.store, &bytes).map(|received| received.pairs());
    assert!(matches!(refused, Err(ReceiveError::Refused(why)) if why.contains("2 pairs")));
}

fn files(disk: &SimDisk) -> Vec<String> {
    let list = |name: &str| {
        let directory = format!("/data/{name}");
        disk.list(directory.as_ref()).unwrap().into_iter().map(move |file| format!("{directory}/{file}"))
    };
    list("donor").chain(list("receiver")).collect()
}
