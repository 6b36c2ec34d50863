//! A replica without a network: log, store and machine, opened in the order in which a node does, over a disk that can
//! be crashed. Its workers are stepped by hand, so that one seed gives the same changes of the disk every time.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use meshstore::{
    environment::{Clock, Environment, Step, Worker, executor::Tasks},
    error::Fault,
    model::{Position, key},
    raft::{
        checks::Checks,
        log::{self, Log},
        log_store::LogStore,
        network::snapshot::SnapshotSource,
        peer::{SnapshotReceiver, SnapshotSink},
        snapshot::Receiver,
        state_machine::{Machine, Snapshot, SnapshotData, SnapshotMeta},
        types::{LogEntry, StoredMembership, StoredVote},
        wire::SnapshotHead,
    },
    state::audit::Accounts,
    storage::{EngineKind, Options, Store},
};
use openraft::{
    StorageHelper,
    storage::{RaftLogStorage, RaftStateMachine},
};
use tokio::runtime::Runtime;

use crate::support::sim_disk::SimDisk;

pub const CLUSTER: u128 = 0xC1;

/// What can be seen of a state; equal on all replicas at one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub applied: Position,
    pub revision: u64,
    pub hash: u128,
    pub pairs: BTreeMap<Bytes, Bytes>,
}

/// Time that stands still until a test moves it.
#[derive(Clone, Default)]
struct HandClock(Arc<AtomicU64>);

impl Clock for HandClock {
    fn wall_ms(&self) -> u64 {
        0
    }
    fn random(&self) -> u128 {
        0x1234_5678_9abc_def0
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

pub struct Replica {
    pub log: Log,
    pub machine: Machine,
    workers: Vec<Box<dyn Worker>>,
    clock: HandClock,
    runtime: Arc<Runtime>,
}

impl Replica {
    /// Opens everything as `node::start` does, small enough that a few entries fill batches, segments and files.
    pub fn open(disk: &SimDisk) -> Result<Self, Fault> {
        let clock = HandClock::default();
        let environment = Environment {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(clock.clone()),
            executor: Arc::new(Tasks::default()),
            ..Environment::real()
        };
        let small = log::Options { segment_bytes: 4096, batch_bytes: 1500, tail_bytes: 2000 };
        let (log, writer, _) = Log::open(&environment, Path::new("/data/mesh_consensus_log"), small)?;
        let options = Options {
            engine: EngineKind::Memory,
            merge_pairs: 4,
            compact_bytes: 800,
            compact_runs: 3,
            ..Options::new("/data/storage", CLUSTER)
        };
        let (store, workers) = Store::open(&environment, options, Arc::new(Accounts), log.durable_index())?;
        if let Some(checkpoint) = store.checkpoint() {
            log.set_purge_floor(checkpoint.position);
        }
        // Whoever called is told as well.
        let machine = Machine::open(environment, store, Checks::new(4_096), None, Arc::new(drop))?;
        let workers = [writer].into_iter().chain(workers.into_iter().map(|(_, worker, _)| worker)).collect();
        let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
        Ok(Self { log, machine, workers, clock, runtime })
    }

    /// What openraft does with log and machine when it starts: it checks them against each other, applies again what is
    /// known to be committed, and purges what a snapshot has replaced.
    pub fn recover(&mut self) -> Result<(), Fault> {
        let (mut log, mut machine) = (LogStore::new(self.log.clone()), self.machine.clone());
        let recovered = async move { StorageHelper::new(&mut log, &mut machine).with_id(1).get_initial_state().await };
        self.finish(recovered)?.map(drop).map_err(|error| Fault::new(error.to_string()))
    }

    /// Steps each worker once, and does what a node does after a flush; whether there was nothing to do.
    fn pass(&mut self) -> Result<bool, Fault> {
        let mut idle = true;
        for worker in &mut self.workers {
            idle &= worker.step()? != Step::Again;
        }
        if let Some(flushed) = *self.store().flushed().borrow() {
            self.log.set_purge_floor(flushed);
        }
        Ok(idle)
    }

    /// Steps all workers until none has anything to do.
    pub fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..10_000 {
            // Once more after a pass without work, since that may have raised the purge floor.
            if self.pass()? && self.pass()? {
                return Ok(());
            }
        }
        panic!("the workers never settle");
    }

    /// Lets so much time pass that the log writes a marker.
    pub fn idle(&mut self) -> Result<(), Fault> {
        self.settle()?;
        self.clock.0.fetch_add(20, Ordering::Relaxed);
        self.settle()
    }

    /// Steps the workers until the future is ready.
    pub fn finish<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Fault> {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
                    return Ok(done);
                }
                self.pass()?;
                tokio::task::yield_now().await;
            }
        })
    }

    pub fn store(&self) -> &Store {
        self.machine.store()
    }

    /// Appends; returns when the entries are acknowledged.
    pub fn append(&mut self, entries: &[LogEntry]) -> Result<(), Fault> {
        let (told, acknowledged) = tokio::sync::oneshot::channel();
        self.log.append(entries.to_vec(), |result| drop(told.send(result)))?;
        self.finish(acknowledged)?.unwrap()
    }

    pub fn vote(&mut self, term: u64) -> Result<(), Fault> {
        let vote = StoredVote { term, node: 1, committed: true };
        let log = self.log.clone();
        self.finish(async move { log.save_vote(vote).await })?
    }

    /// Purges up to what a run holds.
    pub fn purge(&mut self, upto: Position) -> Result<(), Fault> {
        let mut log = LogStore::new(self.log.clone());
        self.finish(async move { log.purge(upto.into()).await })?.map_err(as_fault)?;
        self.settle()
    }

    pub fn apply(&mut self, entries: Vec<LogEntry>) -> Result<(), Fault> {
        let mut machine = self.machine.clone();
        let entries = stream::iter(entries.into_iter().map(|entry| Ok((entry, None))));
        self.finish(async move { machine.apply(entries).await })?.map_err(as_fault)
    }

    /// Freezes the memtable, and steps until it is written, merged, and perhaps compacted.
    pub fn flush(&mut self) -> Result<(), Fault> {
        self.machine.freeze_now();
        self.settle()
    }

    pub fn snapshot(&mut self) -> Snapshot {
        let mut machine = self.machine.clone();
        self.finish(async move { machine.get_current_snapshot().await })
            .unwrap()
            .unwrap()
            .expect("something is flushed")
    }

    /// Receives what another has streamed, installs it, and purges the log up to it meanwhile, as openraft does.
    pub fn install(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), Fault> {
        let received = receive(self.store(), meta, data)?;
        let (mut log, mut machine) = (LogStore::new(self.log.clone()), self.machine.clone());
        let both = async move {
            let purge = log.purge(meta.last_log_id.unwrap());
            let install = machine.install_snapshot(meta, received);
            futures_util::future::try_join(purge, install).await.map(drop)
        };
        self.finish(both)?.map_err(as_fault)?;
        self.settle()
    }

    /// Closes in order, as a node that stops.
    pub fn close(mut self) -> Result<(), Fault> {
        let (log, store) = (self.log.clone(), self.store().clone());
        let closing = self.runtime.spawn(async move { store.close().await });
        self.runtime.clone().block_on(tokio::task::yield_now());
        // A worker that is done is dropped at once, as its thread does: others may wait for that.
        let mut working: Vec<_> = self.workers.drain(1..).collect();
        while !working.is_empty() {
            for mut worker in std::mem::take(&mut working) {
                if worker.step()? != Step::Done {
                    working.push(worker);
                }
            }
        }
        self.runtime.clone().block_on(closing).unwrap();
        let closing = self.runtime.spawn(async move { log.close().await });
        self.runtime.clone().block_on(tokio::task::yield_now());
        while self.workers[0].step()? != Step::Done {}
        self.runtime.clone().block_on(closing).unwrap()
    }

    /// The index that comes next to be applied.
    pub fn next_to_apply(&mut self) -> u64 {
        self.applied().map_or(0, |applied| applied.index + 1)
    }

    pub fn applied(&mut self) -> Option<Position> {
        self.applied_state().0
    }

    /// Position and membership, as openraft sees them.
    pub fn applied_state(&mut self) -> (Option<Position>, StoredMembership) {
        let mut machine = self.machine.clone();
        let (applied, membership) = self.finish(async move { machine.applied_state().await }).unwrap().unwrap();
        (applied.map(Position::from), membership)
    }

    /// The index that comes next in the log.
    pub fn next_index(&self) -> u64 {
        self.log.last().map_or(0, |last| last.index + 1)
    }

    pub fn seen(&self) -> Seen {
        let pairs = self.store().range_latest(b"", None, usize::MAX).unwrap();
        self.machine.with_state(|applied, meta| {
            let is_live = |key: &Bytes| key::scope_of(key).is_some_and(|scope| meta.is_live(scope));
            let pairs = pairs.into_iter().filter(|(key, _)| is_live(key)).collect();
            Seen { applied, revision: meta.revision, hash: meta.state_hash(), pairs }
        })
    }
}

fn as_fault(error: std::io::Error) -> Fault {
    Fault::new(error.to_string())
}

/// Takes a snapshot through bytes, as it goes between nodes.
pub fn receive(store: &Store, meta: &SnapshotMeta, data: SnapshotData) -> Result<SnapshotData, Fault> {
    let mut sink = Receiver::new(store.clone(), Arc::new(drop)).receive()?;
    let mut reader = data.reader()?;
    while let Some(chunk) = reader.next_chunk()? {
        sink.push(&chunk)?;
    }
    let vote = StoredVote { term: u64::MAX, node: 1, committed: true }.into();
    sink.finish(&SnapshotHead { vote, transfer: 1, meta: meta.clone() })
}
