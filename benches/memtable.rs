//! The memtable, and how fast a run is written and read: 200,000 records of about 300 bytes, one flush.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::{hint::black_box, ops::Bound, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use meshstore::{
    environment::{Disk, disk::RealDisk},
    storage::{
        Checkpoint,
        file::{FileKind, Reader, Writer},
        memtable::Memtable,
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

const RECORDS: u64 = 200_000;

/// Half of each value is random, so that it compresses as ordinary data does.
fn records() -> Vec<(Bytes, Bytes)> {
    let mut rng = StdRng::seed_from_u64(1);
    (0..RECORDS)
        .map(|number| {
            let mut value = vec![b'x'; 280];
            rng.fill(value.get_mut(..140).unwrap());
            (format!("\u{11}\0\0\0\u{1}key {number:012}").into(), value.into())
        })
        .collect()
}

fn filled(records: &[(Bytes, Bytes)]) -> Memtable {
    let table = Memtable::default();
    for (revision, (key, value)) in (1..).zip(records) {
        table.insert(revision, key.clone(), Some(value.clone()));
    }
    table
}

fn memtable(criterion: &mut Criterion) {
    let sorted = records();
    let mut shuffled = sorted.clone();
    shuffled.shuffle(&mut StdRng::seed_from_u64(2));
    let mut group = criterion.benchmark_group("memtable");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.bench_function("insert, random order", |bencher| {
        bencher.iter_batched(|| (), |()| filled(&shuffled), BatchSize::PerIteration);
    });
    let table = filled(&shuffled);
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            for (key, _) in &shuffled {
                black_box(table.get(key, u64::MAX));
            }
        });
    });
    group.bench_function("scan", |bencher| {
        bencher.iter(|| table.scan(Bound::Unbounded, None, u64::MAX).map(black_box).count());
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("scan of 100", |bencher| {
        bencher.iter(|| table.scan(Bound::Included(&sorted.get(777).unwrap().0), None, RECORDS).take(100).count());
    });
}

fn run(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let records = records();
    let bytes: usize = records.iter().map(|(key, value)| key.len() + value.len()).sum();
    let write = || {
        let mut writer = Writer::create(&disk, &path, FileKind::Run, 1, &Checkpoint::default()).unwrap();
        for (key, value) in &records {
            writer.push(key, Some(value)).unwrap();
        }
        let (length, place) = writer.finish().unwrap();
        place.keep();
        length
    };
    let mut group = criterion.benchmark_group("run");
    group.sample_size(10).throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("write and sync", |bencher| bencher.iter(write));
    group.bench_function("read and verify", |bencher| {
        bencher.iter(|| Reader::open(&disk, &path, 1).unwrap().fold(0, |count, pair| pair.map(|_| count + 1).unwrap()));
    });
}

criterion_group!(benches, memtable, run);
criterion_main!(benches);
