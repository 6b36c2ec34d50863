//! What an append to `mesh_consensus_log` costs until its callback says that it is durable, on a real disk: by entries
//! in one append, and by appends in flight. One sync for all that queued is what these numbers show; beside them
//! stands what the disk does for one write and its sync without a log.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::{hint::black_box, path::Path, sync::mpsc};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meshstore::{
    environment::{Environment, disk::OpenMode},
    model::Position,
    raft::{
        log::{Log, Options},
        types::{Command, LogEntry, Payload},
    },
};
use openraft::entry::RaftEntry;

const ENTRY_BYTES: usize = 256;

fn entries(from: u64, count: u64) -> Vec<LogEntry> {
    let payload = Bytes::from_static(&[7; ENTRY_BYTES]);
    let entry = |index| LogEntry::new(Position { term: 1, index }.into(), Payload::Normal(Command(payload.clone())));
    (from..from + count).map(entry).collect()
}

/// A log, and how many entries it holds.
struct Appender {
    log: Log,
    next: u64,
    durable: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl Appender {
    fn open(environment: &Environment, directory: &Path) -> Self {
        let (log, worker, signal) = Log::open(environment, directory, Options::default()).unwrap();
        drop(environment.executor.start("log", worker, signal));
        // Everything may be purged, so that the benchmark does not fill the disk.
        log.set_purge_floor(Position { term: u64::MAX, index: u64::MAX });
        Self { log, next: 0, durable: mpsc::channel() }
    }

    fn append(&mut self, count: u64) {
        let sender = self.durable.0.clone();
        let told = move |result: Result<(), _>| result.map(|()| sender.send(()).unwrap()).unwrap();
        self.log.append(black_box(entries(self.next, count)), told).unwrap();
        self.next += count;
    }

    fn await_one(&self) {
        self.durable.1.recv().unwrap();
    }

    fn purge(&self) {
        let upto = Position { term: 1, index: self.next.saturating_sub(1) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.log.purge(upto)).unwrap();
    }
}

/// So many appends of `count` entries, never more than `in_flight` of them unanswered.
fn run(appender: &mut Appender, appends: u64, count: u64, in_flight: u64) {
    for done in 0..appends {
        if done >= in_flight {
            appender.await_one();
        }
        appender.append(count);
    }
    for _ in 0..appends.min(in_flight) {
        appender.await_one();
    }
    appender.purge();
}

fn appends(criterion: &mut Criterion) {
    let environment = Environment::real();
    for in_flight in [1, 64] {
        let mut group = criterion.benchmark_group(format!("append until durable, {in_flight} in flight"));
        for count in [1, 16, 256] {
            let directory = tempfile::tempdir().unwrap();
            let mut appender = Appender::open(&environment, &directory.path().join("mesh_consensus_log"));
            group.throughput(Throughput::Elements(count));
            group.bench_function(BenchmarkId::new("entries of 256 bytes", count), |bencher| {
                bencher.iter_custom(|appends| {
                    let start = environment.clock.monotonic();
                    run(&mut appender, appends, count, in_flight);
                    environment.clock.monotonic() - start
                });
            });
        }
        group.finish();
    }
}

/// The floor: 256 bytes written into zeros that the file owns already, and one sync.
fn disk(criterion: &mut Criterion) {
    let environment = Environment::real();
    let directory = tempfile::tempdir().unwrap();
    let file = environment.disk.open(&directory.path().join("file"), OpenMode::Create).unwrap();
    let size = 16 << 20;
    file.write_all_at(&vec![0; size], 0).unwrap();
    file.sync().unwrap();
    let mut at = 0;
    criterion.bench_function("the disk alone: 256 bytes and a sync", |bencher| {
        bencher.iter(|| {
            file.write_all_at(&[7; ENTRY_BYTES], at).unwrap();
            file.sync().unwrap();
            at = (at + ENTRY_BYTES as u64) % (size as u64 - ENTRY_BYTES as u64);
        });
    });
}

criterion_group!(benches, disk, appends);
criterion_main!(benches);
