//! Any byte of any file damaged, any length cut: a fault that names the file, and never a wrong answer.

use std::{path::Path, sync::Arc};

use meshstore::{
    environment::Disk,
    error::Fault,
    storage::{
        EngineKind, Options,
        codec::{HEADER_BYTES, Kind, open_any, seal},
    },
};

use super::harness::{Bench, CLUSTER, Model, key, options, value};
use crate::support::sim_disk::SimDisk;

fn memory() -> Options {
    Options { compact_bytes: 1 << 20, ..options("/data/store", EngineKind::Memory) }
}

/// A base, two runs, a manifest.
fn filled() -> (SimDisk, Model) {
    let disk = SimDisk::new(1);
    let first = Options { compact_bytes: 1, ..memory() };
    let mut bench = Bench::open(Arc::new(disk.clone()), first, Model::default()).unwrap();
    bench.write((0..20).map(|number| (key(number), Some(value(format!("base {number}"))))));
    bench.flush().unwrap();
    let mut bench = Bench::open(Arc::new(disk.clone()), memory(), bench.model.clone()).unwrap();
    for round in 0..2 {
        bench.write((0..9).map(|number| (key(number * 2), Some(value(format!("run {round} {number}"))))));
        bench.write([(key(round), None)]);
        bench.flush().unwrap();
    }
    (disk, bench.model.clone())
}

fn names(disk: &SimDisk) -> Vec<String> {
    let names = disk.list("/data/store".as_ref()).unwrap();
    assert_eq!(names.len(), 4, "{names:?}");
    names.iter().map(|name| format!("/data/store/{name}")).collect()
}

fn open(disk: &SimDisk, model: &Model) -> Result<Bench, Fault> {
    Bench::open(Arc::new(disk.clone()), memory(), model.clone())
}

#[track_caller]
fn is_fault(disk: &SimDisk, model: &Model, name: &str, what: &str) -> String {
    match open(disk, model) {
        Ok(_) => panic!("{name}: {what} was not noticed"),
        Err(fault) => {
            let text = fault.to_string();
            assert!(text.contains(name), "{what}: {text}");
            text
        }
    }
}

#[test]
fn every_damaged_byte_is_a_fault() {
    let (disk, model) = filled();
    open(&disk, &model).unwrap().check_latest();
    for name in names(&disk) {
        for at in 0..disk.bytes(&name).len() as u64 {
            let disk = disk.fork();
            disk.flip_bit(&name, at);
            let text = is_fault(&disk, &model, &name, &format!("byte {at}"));
            assert!(text.contains("offset"), "{text}");
        }
    }
}

#[test]
fn every_cut_is_a_fault() {
    let (disk, model) = filled();
    for name in names(&disk) {
        for length in 0..disk.bytes(&name).len() {
            let disk = disk.fork();
            disk.edit(&name, |bytes| bytes.truncate(length));
            is_fault(&disk, &model, &name, &format!("cut at {length}"));
        }
    }
}

#[test]
fn bytes_behind_the_end_are_a_fault() {
    let (disk, model) = filled();
    for name in names(&disk) {
        let disk = disk.fork();
        disk.edit(&name, |bytes| bytes.push(0));
        is_fault(&disk, &model, &name, "a byte more");
    }
}

#[test]
fn a_missing_file_is_a_fault() {
    let (disk, model) = filled();
    for name in names(&disk) {
        let disk = disk.fork();
        disk.remove_file(Path::new(&name)).unwrap();
        let fault = open(&disk, &model).err().unwrap().to_string();
        assert!(fault.contains(&name) || fault.contains("no manifest"), "{fault}");
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, model) = filled();
    for name in names(&disk) {
        let disk = disk.fork();
        disk.edit(&name, |bytes| {
            let kind = if name.ends_with("manifest") { Kind::Manifest } else { Kind::FileHeader };
            let (front, length) = open_any(bytes).map(|(front, length)| (front.payload.to_vec(), length)).unwrap();
            bytes.splice(..length, seal(kind, 2, 0, &front));
        });
        assert!(is_fault(&disk, &model, &name, "version 2").contains("use a newer meshstore"));
    }
}

#[test]
fn a_chunk_lost_repeated_or_moved_is_a_fault() {
    let disk = SimDisk::new(1);
    let mut bench = Bench::open(Arc::new(disk.clone()), memory(), Model::default()).unwrap();
    // Values that do not compress, so that there are many chunks.
    let text = |number: u32| {
        (0..40_000u32).map(|at| char::from(b'a' + (at.wrapping_mul(at ^ number) >> 7) as u8 % 26)).collect::<String>()
    };
    bench.write((0..8).map(|number| (key(number), Some(value(text(number))))));
    bench.flush().unwrap();
    let model = bench.model.clone();
    let name = "/data/store/00000002.run";
    let whole = disk.bytes(name);
    let mut envelopes = Vec::new();
    let mut rest = &whole[..];
    while rest.len() >= HEADER_BYTES {
        let (_, length) = open_any(rest).unwrap();
        envelopes.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    assert_eq!(envelopes.len(), 10);
    let check = |what: &str, change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut changed = envelopes.clone();
        change(&mut changed);
        let disk = disk.fork();
        disk.edit(name, |bytes| {
            *bytes = changed.concat();
        });
        is_fault(&disk, &model, name, what);
    };
    check("lost", &|envelopes| drop(envelopes.remove(3)));
    check("repeated", &|envelopes| envelopes.insert(3, envelopes[3].clone()));
    check("swapped", &|envelopes| envelopes.swap(3, 4));
    check("no trailer", &|envelopes| drop(envelopes.pop()));
    check("two headers", &|envelopes| envelopes.insert(0, envelopes[0].clone()));
}

#[test]
fn files_of_another_cluster_are_refused() {
    let (disk, model) = filled();
    let foreign = Options { cluster: CLUSTER + 1, ..memory() };
    let fault = Bench::open(Arc::new(disk.clone()), foreign.clone(), model.clone()).err().unwrap();
    assert!(fault.to_string().contains("belongs to cluster"), "{fault}");
    // A file that was put among ours.
    let other = SimDisk::new(1);
    let mut bench = Bench::open(Arc::new(other.clone()), foreign, Model::default()).unwrap();
    bench.put(1, "foreign");
    bench.flush().unwrap();
    let run = other.bytes("/data/store/00000002.run");
    let ours = names(&disk).into_iter().find(|name| name.ends_with(".run")).unwrap();
    disk.edit(&ours, |bytes| *bytes = run.clone());
    assert!(is_fault(&disk, &model, &ours, "a foreign run").contains("belongs to cluster"));
}

#[test]
fn files_that_contradict_their_accounts_are_a_fault() {
    let disk = SimDisk::new(1);
    let mut bench = Bench::open(Arc::new(disk.clone()), memory(), Model::default()).unwrap();
    bench.put(1, "counted");
    let checkpoint = bench.model.checkpoint();
    bench.put(2, "not counted");
    bench.store.freeze(checkpoint);
    bench.settle().unwrap();
    assert!(is_fault(&disk, &bench.model, "/data/store", "2 pairs for 1").contains("contradict their accounts"));
}

#[test]
fn leftovers_of_a_crash_are_removed_and_strangers_are_left() {
    let (disk, model) = filled();
    let add = |name: &str| {
        disk.open(Path::new(name), meshstore::environment::disk::OpenMode::Create).unwrap();
    };
    for name in ["/data/store/00000099.run", "/data/store/00000098.base", "/data/store/notes.txt"] {
        add(name);
    }
    disk.create_dir_all("/data/store/index-77".as_ref()).unwrap();
    open(&disk, &model).unwrap().check_latest();
    let names = disk.list("/data/store".as_ref()).unwrap();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.contains(&"notes.txt".to_owned()));
}
