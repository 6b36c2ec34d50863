//! The state machine as openraft drives it: committed entries go into the core, snapshots are lists of
//! files.
//!
//! [`Machine`] is the one place where state changes: it owns the core's [`State`] behind a lock that only
//! apply, freezing and installing take. What readers need of it (how far it is, what log time it is) is
//! published in [`Progress`] after every entry, before anybody is answered, so that whoever saw an answer
//! finds its revision readable.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, RaftSnapshotBuilder,
    entry::RaftEntry,
    storage::{EntryResponder, RaftStateMachine, Snapshot as RaftSnapshot, SnapshotMeta as RaftSnapshotMeta},
};
use tokio::sync::watch;

pub use super::progress::Progress;
use super::{
    checks::Checks,
    network::snapshot::{SnapshotReader, SnapshotSource},
    progress::Told,
    types::{
        Applied, Command, CommittedLeaderId, LogEntry, LogId, Member, NodeId, StoredMembers, StoredMembership,
        StoredMembershipAt, TypeConfig, membership_at_from_stored, membership_at_to_stored, membership_from_stored,
    },
};
use crate::{
    environment::{
        Environment, executor,
        sabotage::{self, Sabotage},
    },
    error::Fault,
    metrics::Histogram,
    model::{Position, proposal::Batch},
    state::{self, Base, Commit, Meta, State, session::Sessions},
    storage::{
        self, Checkpoint, Store,
        codec::{self, Kind},
    },
};

/// openraft's snapshot of our files.
pub type Snapshot = RaftSnapshot<CommittedLeaderId, NodeId, Member, SnapshotData>;
/// What openraft knows of a snapshot.
pub type SnapshotMeta = RaftSnapshotMeta<CommittedLeaderId, NodeId, Member>;

/// By how much the revision leaps between two epochs: more than a cluster writes in one.
const EPOCH_REVISIONS: u64 = 1 << 32;

/// How often a full store is looked at again.
const BACKED_UP_CHECK: Duration = Duration::from_millis(2);

/// Who wants to see what a node does. It must be quick.
pub trait Observer: Send + Sync + 'static {
    /// The commits of one entry, in order. Called under the apply lock.
    fn committed(&self, position: Position, commits: &[Commit]);

    /// The same, to keep. The state is at `revision` by now, and readers can see it.
    fn applied(&self, _revision: u64, _commits: Vec<Commit>) {}

    /// This is the state, and nobody tells what led there: it comes from files.
    fn skipped(&self, _meta: &Meta) {}

    /// This node leads in this term, or did a moment ago.
    fn leads(&self, _term: u64) {}

    /// For tests: whether storage is to lose a record that this entry has just written, as broken hardware might.
    fn loses_a_record(&self, _position: Position) -> bool {
        false
    }
}

/// The files of a snapshot, on their way out or in.
pub enum SnapshotData {
    /// Of this node, to be streamed to another.
    Outgoing(storage::Snapshot),
    /// Received from another, verified and synced, to be installed.
    Incoming(storage::Received),
}

/// The state machine. Cheap to clone; all clones are one machine.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    environment: Environment,
    core: Mutex<Core>,
    store: Store,
    told: Told,
    checks: Checks,
    observer: Option<Arc<dyn Observer>>,
    /// How long entries take to be applied.
    applies: Histogram,
    /// Told of a fault, which stops the node.
    fault: Arc<dyn Fn(Fault) + Send + Sync>,
}

struct Core {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    frozen: Option<LogId>,
    /// Whether nothing more is applied, since the node has stopped.
    at_rest: bool,
}

/// Storage as the core sees it: everything written so far.
struct Latest<'a>(&'a Store);

impl Base for Latest<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.0.get_latest(key)
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        self.0.range_latest(start, end, limit)
    }

    fn write(&mut self, revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        self.0.write(revision, pairs);
        Ok(())
    }
}

impl Machine {
    /// The machine as of the newest checkpoint on disk; openraft replays the log from there.
    pub fn open(
        environment: Environment,
        store: Store,
        checks: Checks,
        observer: Option<Arc<dyn Observer>>,
        fault: Arc<dyn Fn(Fault) + Send + Sync>,
    ) -> Result<Self, Fault> {
        let core = match store.checkpoint() {
            Some(checkpoint) => Core::at(&checkpoint)?,
            None => Core {
                state: State::default(),
                applied: None,
                membership: StoredMembership::default(),
                frozen: None,
                at_rest: false,
            },
        };
        let told = Told::new(core.progress(None));
        let core = Mutex::new(core);
        let applies = Histogram::default();
        Ok(Self { inner: Arc::new(Inner { environment, core, store, told, checks, observer, applies, fault }) })
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// How long each entry took to be applied, without what it waited for.
    pub fn applies(&self) -> &Histogram {
        &self.inner.applies
    }

    /// What the hash of the state was at some indexes.
    pub fn checks(&self) -> &Checks {
        &self.inner.checks
    }

    /// How far the state is, and when that changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.inner.told.progress()
    }

    /// When locks or their queues change: the revision of the last time.
    pub fn locks(&self) -> watch::Receiver<u64> {
        self.inner.told.locks()
    }

    /// A look at the core's state beside the records, and how far it is, under the apply lock: it must be quick.
    pub fn with_state<T>(&self, look: impl FnOnce(Position, &Meta) -> T) -> T {
        let core = self.core();
        look(core.applied.map(Position::from).unwrap_or_default(), core.state.meta())
    }

    /// The members, as far as that is applied: committed, and never taken back.
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.core().membership.membership().nodes().map(|(id, _)| *id).collect()
    }

    /// Freezes the memtable if storage finds it due and something was applied since the last time.
    pub fn freeze_if_due(&self) {
        if self.inner.store.freeze_due() {
            self.freeze(&mut self.core());
        }
    }

    /// Freezes the memtable now, so that a run reaches up to here.
    pub fn freeze_now(&self) {
        self.freeze(&mut self.core());
    }

    fn freeze(&self, core: &mut Core) {
        let Some(applied) = core.applied.filter(|applied| core.frozen.as_ref() != Some(applied)) else { return };
        let meta = core.state.meta();
        self.inner.store.freeze(Checkpoint {
            position: applied.into(),
            revision: meta.revision,
            membership: codec::encode_payload(&membership_at_to_stored(&core.membership)).into(),
            meta: meta.encode(),
            state_hash: meta.state_hash(),
            apply_version: meta.apply_version,
        });
        core.frozen = Some(applied);
    }

    /// A panic while the lock is held is a broken node, which stops; the poison itself says nothing new.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.inner.core.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Applies nothing more. openraft's worker may still be at it when Raft has stopped; what it is kept from applying
    /// stands in the log.
    pub fn rest(&self) {
        self.core().at_rest = true;
    }

    /// Applies one entry; what became of its proposals.
    fn apply_entry(&self, entry: &LogEntry) -> Result<Applied, Fault> {
        let clock = &self.inner.environment.clock;
        let began = clock.monotonic();
        let _span = tracing::debug_span!("apply", entry = %Position::from(entry.log_id())).entered();
        let applied = self.apply_to_core(entry)?;
        self.inner.applies.note(clock.monotonic().saturating_sub(began));
        tracing::debug!(proposals = applied.outcomes.len(), "applied");
        Ok(applied)
    }

    fn apply_to_core(&self, entry: &LogEntry) -> Result<Applied, Fault> {
        let mut core = self.core();
        if core.at_rest {
            return Err(Fault::new("the node has stopped"));
        }
        let log_id = entry.log_id();
        let mut base = Latest(&self.inner.store);
        let (mut outcomes, mut commits) = (Vec::new(), Vec::new());
        match entry.payload() {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                core.membership = StoredMembership::new(Some(log_id), membership.clone());
            }
            EntryPayload::Normal(Command(sealed)) => {
                let batch: Batch = codec::decode_shared(Kind::Batch, sealed)
                    .map_err(|error| Fault::new(format!("log entry {} cannot be applied: {error}", log_id.index)))?;
                let applied = apply(&mut core.state, &mut base, batch, log_id.index)?;
                self.forget_dropped(&applied.commits);
                self.inner.checks.committed(&applied.commits);
                if let Some(observer) = &self.inner.observer {
                    observer.committed(log_id.into(), &applied.commits);
                    if observer.loses_a_record(log_id.into()) {
                        self.lose_a_record(&applied.commits);
                    }
                }
                (outcomes, commits) = (applied.outcomes, applied.commits);
            }
        }
        core.applied = Some(log_id);
        if self.inner.checks.is_due(log_id.index) {
            self.inner.checks.note(log_id.index, core.state.meta().state_hash());
        }
        let next_expiry_ms = core.state.next_expiry_ms(&base)?;
        self.inner.told.tell(core.progress(next_expiry_ms), core.state.meta());
        if let Some(observer) = &self.inner.observer {
            observer.applied(core.state.meta().revision, commits);
        }
        self.inner.store.settle(core.state.meta().revision);
        if self.inner.store.freeze_due() {
            self.freeze(&mut core);
        }
        Ok(Applied { outcomes })
    }

    fn lose_a_record(&self, commits: &[Commit]) {
        for commit in commits {
            for change in &commit.changes {
                if let state::Change::Record { key, new: Some(_), .. } = change {
                    return self.inner.store.write(commit.revision, vec![(key.as_bytes().clone(), None)]);
                }
            }
        }
    }

    async fn ready_for_writes(&self) {
        // A timer, because a flush has many steps and nothing else tells that the last one is done.
        while self.inner.store.is_backed_up() {
            tokio::time::sleep(BACKED_UP_CHECK).await;
        }
    }

    fn forget_dropped(&self, commits: &[Commit]) {
        for commit in commits {
            for change in &commit.changes {
                if let crate::state::Change::ScopeDropped { scope } = change {
                    self.inner.store.forget_scope(scope.prefix(), commit.revision);
                    for home in scope.derived() {
                        self.inner.store.forget_scope(home.prefix(), commit.revision);
                    }
                }
            }
        }
    }

    fn current_snapshot(&self) -> Result<Option<Snapshot>, Fault> {
        let Some(files) = self.inner.store.snapshot() else { return Ok(None) };
        let core = Core::at(files.checkpoint())?;
        let meta = SnapshotMeta { last_log_id: core.applied, last_membership: core.membership };
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::Outgoing(files) }))
    }

    /// The newest files as a snapshot, and its bytes.
    ///
    /// Errors: there are none yet, or they cannot be read.
    pub fn own_snapshot(&self) -> Result<(SnapshotMeta, Box<dyn SnapshotReader>), Fault> {
        let snapshot = self.current_snapshot()?.ok_or_else(|| Fault::new("nothing is flushed yet"))?;
        Ok((snapshot.meta, snapshot.snapshot.reader()?))
    }

    /// Applies entries that nobody waits for, in order.
    pub async fn replay(&self, entries: Vec<LogEntry>) -> Result<(), Fault> {
        for entry in entries {
            self.ready_for_writes().await;
            self.apply_entry(&entry)?;
        }
        Ok(())
    }

    /// Begins a new epoch at a position behind all that is applied: the revision leaps, so that nobody takes one history
    /// for the other, the sessions are gone, and these are the members. Freezes that state.
    pub fn begin_epoch(&self, position: Position, members: StoredMembers) -> Result<(), Fault> {
        let unusable = |error| Fault::bug(format!("members that are none: {error}"));
        let membership = membership_from_stored(members).map_err(unusable)?;
        let mut core = self.core();
        let mut meta = core.state.meta().clone();
        meta.revision = meta.revision.saturating_add(EPOCH_REVISIONS);
        meta.sessions = Sessions::default();
        let applied = LogId::from(position);
        core.state = State::from_meta(meta);
        core.membership = StoredMembership::new(Some(applied), membership);
        core.applied = Some(applied);
        self.freeze(&mut core);
        self.inner.told.tell(core.progress(None), core.state.meta());
        Ok(())
    }

    fn install(&self, received: storage::Received) -> Result<(), Fault> {
        let mut core = self.core();
        let checkpoint = self.inner.store.install(received)?;
        *core = Core::at(&checkpoint)?;
        let next_expiry_ms = core.state.next_expiry_ms(&Latest(&self.inner.store))?;
        self.inner.told.tell(core.progress(next_expiry_ms), core.state.meta());
        if let Some(observer) = &self.inner.observer {
            observer.skipped(core.state.meta());
        }
        Ok(())
    }

    /// A fault stops the node; openraft is told as well, so that it does nothing further.
    fn stopped(&self, fault: Fault) -> io::Error {
        let error = io::Error::other(fault.to_string());
        if !self.core().at_rest {
            (self.inner.fault)(fault);
        }
        error
    }
}

/// Applies a batch. (As it should be: the rest is what tests must find.)
fn apply(state: &mut State, base: &mut Latest<'_>, mut batch: Batch, index: u64) -> Result<state::Applied, Fault> {
    if sabotage::on(Sabotage::SessionSkipped) {
        batch.proposals.iter_mut().for_each(|proposal| proposal.call = None);
    }
    let applied = state.apply(base, &batch)?;
    if sabotage::on(Sabotage::ApplyTwice) && index.is_multiple_of(50) {
        batch.proposals.iter_mut().for_each(|proposal| proposal.call = None);
        state.apply(base, &batch)?;
    }
    Ok(applied)
}

impl Core {
    fn at(checkpoint: &Checkpoint) -> Result<Self, Fault> {
        let unreadable = |error| Fault::new(format!("the membership of a checkpoint cannot be read: {error}"));
        let membership: StoredMembershipAt = codec::decode_payload(&checkpoint.membership).map_err(unreadable)?;
        let applied = Some(LogId::from(checkpoint.position));
        Ok(Self {
            state: State::from_meta(Meta::decode(&checkpoint.meta)?),
            applied,
            membership: membership_at_from_stored(membership).map_err(unreadable)?,
            frozen: applied,
            at_rest: false,
        })
    }

    fn progress(&self, next_expiry_ms: Option<u64>) -> Progress {
        let meta = self.state.meta();
        Progress {
            position: self.applied.map(Position::from).unwrap_or_default(),
            revision: meta.revision,
            log_time_ms: meta.log_time_ms,
            next_expiry_ms,
            security_revision: meta.security_revision(),
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let core = self.core();
        Ok((core.applied, core.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            // While flushing cannot keep up nothing more is applied, so memory stays bounded; the wait ends
            // because a flush depends only on the disk, not on what is applied.
            self.ready_for_writes().await;
            let applied = self.apply_entry(&entry).map_err(|fault| self.stopped(fault))?;
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        match snapshot {
            SnapshotData::Incoming(received) => {
                let machine = self.clone();
                let install = move || machine.install(received);
                let executor = self.inner.environment.executor.as_ref();
                let installed = executor::run_blocking(executor, "snapshot-install", install).await;
                installed.map_err(|fault| self.stopped(fault))
            }
            // openraft restores a state machine that forgot what it had; ours starts where its files end.
            SnapshotData::Outgoing(_) if meta.last_log_id <= self.core().applied => Ok(()),
            SnapshotData::Outgoing(_) => Err(self.stopped(Fault::bug("the state is behind its own files"))),
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.current_snapshot().map_err(|fault| self.stopped(fault))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;

    /// There is nothing to build: a snapshot is the files of the newest run and all before it. Only before
    /// the first run one must be written.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let mut flushed = self.inner.store.flushed();
        loop {
            if let Some(snapshot) = self.current_snapshot().map_err(|fault| self.stopped(fault))? {
                return Ok(snapshot);
            }
            if self.core().applied.is_none() {
                // It would wait for ever. openraft asks for this only if the log was purged.
                let reason = "the log begins later than the state, which is empty: storage was lost, or is another's";
                return Err(self.stopped(Fault::new(reason)));
            }
            self.freeze_now();
            flushed.changed().await.map_err(|_| io::Error::other("storage has stopped"))?;
        }
    }
}
