//! openraft's own suite, on our log, store and state machine, on real files.
//!
//! What stands between the suite and the machine is what a node does around it: the suite applies without a log, so
//! the harness says that all is durable and that all may be purged; it wants a snapshot of this moment, so the
//! memtable is frozen first (a node freezes by size and age); it hands one machine's snapshot to another, which here
//! goes through bytes as it does between nodes; and it wants one of a machine that has applied nothing, though its log
//! is purged, which on a node is a fault.

use std::{io, sync::Arc};

use futures_util::Stream;
use meshstore::{
    environment::Environment,
    model::Position,
    raft::{
        checks::Checks,
        log::{self, Log},
        log_store::LogStore,
        state_machine::{Machine, Snapshot, SnapshotData, SnapshotMeta},
        types::{CommittedLeaderId, LogId, Member, NodeId, StoredMembership, TypeConfig},
    },
    state::audit::Accounts,
    storage::{EngineKind, Options, Store},
};
use openraft::{
    RaftSnapshotBuilder, StorageError,
    storage::{EntryResponder, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use tokio::sync::watch;

use super::replica::{CLUSTER, receive};

struct Builder(EngineKind);

/// Closes log and store when the suite has done with them; the workers must end before their directory goes.
struct Guard {
    log: Log,
    store: Store,
    _durable: watch::Sender<u64>,
    _directory: TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (log, store) = (self.log.clone(), self.store.clone());
        let close = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                store.close().await;
                log.close().await.unwrap();
            });
        };
        std::thread::spawn(close).join().unwrap();
    }
}

impl StoreBuilder<TypeConfig, LogStore, Node, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, Node), StorageError<TypeConfig>> {
        let directory = TempDir::new().unwrap();
        let environment = Environment::real();
        let path = directory.path().join("mesh_consensus_log");
        let (log, writer, signal) = Log::open(&environment, &path, log::Options::default()).unwrap();
        log.set_purge_floor(Position { term: u64::MAX, index: u64::MAX });
        let durable = watch::Sender::new(u64::MAX);
        let options = Options { engine: self.0, ..Options::new(directory.path().join("storage"), CLUSTER) };
        let (store, workers) = Store::open(&environment, options, Arc::new(Accounts), durable.subscribe()).unwrap();
        for (name, worker, signal) in [("log-writer", writer, signal)].into_iter().chain(workers) {
            environment.executor.start(name, worker, signal);
        }
        // Whoever called is told as well.
        let machine = Machine::open(environment, store.clone(), Checks::new(4_096), None, Arc::new(drop)).unwrap();
        let guard = Guard { log: log.clone(), store, _durable: durable, _directory: directory };
        Ok((guard, LogStore::new(log), Node(machine)))
    }
}

/// The machine, with what a node does around it.
#[derive(Clone)]
struct Node(Machine);

impl Node {
    async fn flush(&self) {
        self.0.freeze_now();
        let applied = self.0.with_state(|position, _| position);
        let mut flushed = self.0.store().flushed();
        flushed.wait_for(|flushed| *flushed == Some(applied)).await.unwrap();
    }
}

/// A snapshot; nothing in it if nothing was applied.
type Data = Option<SnapshotData>;
type NodeSnapshot = openraft::storage::Snapshot<CommittedLeaderId, NodeId, Member, Data>;

fn with_data(Snapshot { meta, snapshot }: Snapshot) -> NodeSnapshot {
    NodeSnapshot { meta, snapshot: Some(snapshot) }
}

impl RaftStateMachine<TypeConfig> for Node {
    type SnapshotData = Data;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        self.0.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Data) -> Result<(), io::Error> {
        let received = receive(self.0.store(), meta, snapshot.unwrap()).map_err(io::Error::other)?;
        self.0.install_snapshot(meta, received).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<NodeSnapshot>, io::Error> {
        Ok(self.0.get_current_snapshot().await?.map(with_data))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Node {
    type SnapshotData = Data;

    async fn build_snapshot(&mut self) -> Result<NodeSnapshot, io::Error> {
        if self.0.applied_state().await?.0.is_none() {
            assert!(self.0.build_snapshot().await.is_err(), "and it does not wait for ever");
            return Ok(NodeSnapshot { meta: SnapshotMeta::default(), snapshot: None });
        }
        self.flush().await;
        self.0.build_snapshot().await.map(with_data)
    }
}

#[tokio::test]
async fn openrafts_suite_in_memory() {
    Suite::test_all(Builder(EngineKind::Memory)).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_on_sled() {
    Suite::test_all(Builder(EngineKind::Sled)).await.unwrap();
}
