//! `mesh_consensus_log`: the Raft log of this node, a segmented write-ahead log.
//!
//! Votes, entries, truncations, purges and the committed position go into one sequence of records, written by one
//! writer ([`writer`]): whatever queues while a sync runs becomes the next batch, with one sync for all of it. So
//! nothing is ever reordered, a vote and the entries around it least of all, and the more is asked of the log the
//! less a record costs.
//!
//! * Appended entries can be read at once, from an in-memory tail ([`tail`]); who appended is told when they are
//!   durable. Older ones are read from the segments through an index of four bytes an entry ([`index`]).
//! * Segments are files filled with zeros ahead of time ([`segment`]); the bytes in them are [`mod@format`].
//! * What cannot be read at start is either the torn end of the last batch, which nobody was told of and which is cut,
//!   or damage, which is a fault that names file and offset ([`recovery`]).
//! * Nothing is purged beyond the *purge floor*, which storage raises when a run of its own is durable, whatever Raft
//!   asks: the log and the runs together always hold everything.
//! * The first write or sync that fails ends the log.
//!
//! Exclusive use of the directory is its owner's concern.

mod format;
mod index;
mod reading;
mod recovery;
mod segment;
mod state;
mod tail;
mod terms;
mod writer;

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use self::{
    format::{Checkpoint, index_of},
    state::{Done, State, Written},
};
use crate::{
    environment::{
        Environment, Signal, Worker,
        sabotage::{self, Sabotage},
    },
    error::Fault,
    metrics::{Histogram, UnderWay},
    model::Position,
    raft::types::{LogEntry, StoredVote},
};

/// How a log is laid out and how much memory it takes. May differ from start to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of new segments, in bytes; at least 4 KiB, at most 1 GiB. A batch that is larger gets a larger one.
    pub segment_bytes: u64,
    /// A batch is closed when it has this size, in bytes.
    pub batch_bytes: usize,
    /// What the tail may take in memory, in bytes. What is not synced yet stays in it even beyond that.
    pub tail_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, batch_bytes: 4 << 20, tail_bytes: 16 << 20 }
    }
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Batches written, markers too. Each was one sync.
    pub batches: u64,
    /// Bytes written in them.
    pub bytes: u64,
    /// Entries written.
    pub entries: u64,
    /// Segments that there are now.
    pub segments: u64,
    /// Bytes that the tail takes in memory now, about.
    pub tail_bytes: u64,
}

/// A handle on the log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

/// What the handles and the writer share.
struct Shared {
    options: Options,
    state: Mutex<State>,
    signal: Signal,
    durable: watch::Sender<u64>,
    /// Moves when the purge floor does, and when the log ends.
    floor: watch::Sender<()>,
    statistics: Counters,
    /// How long syncs take.
    syncs: Histogram,
    /// What the writer is at.
    busy: UnderWay,
}

#[derive(Default)]
struct Counters {
    batches: AtomicU64,
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Counters {
    fn count_batch(&self, bytes: u64) {
        self.batches.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn count_entry(&self) {
        self.entries.fetch_add(1, Relaxed);
    }
}

impl Log {
    /// Opens the log in `directory`, which is created if it does not exist. The worker is its writer, to be started by
    /// the caller with the signal; until then nothing becomes durable.
    ///
    /// Errors: damage, with file and offset; a missing segment; a newer format; a failing disk.
    pub fn open(
        environment: &Environment,
        directory: &Path,
        options: Options,
    ) -> Result<(Self, Box<dyn Worker>, Signal), Fault> {
        let options = Options { segment_bytes: options.segment_bytes.clamp(4 << 10, 1 << 30), ..options };
        let recovered = recovery::recover(environment, directory, options)?;
        let durable = index_of(recovered.checkpoint.last).unwrap_or(0);
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(State::new(recovered.checkpoint, recovered.index, recovered.terms)),
            signal: Signal::default(),
            durable: watch::Sender::new(durable),
            floor: watch::Sender::new(()),
            statistics: Counters::default(),
            syncs: Histogram::default(),
            busy: UnderWay::default(),
        });
        let writer = writer::Writer {
            shared: shared.clone(),
            environment: environment.clone(),
            directory: directory.to_owned(),
            log: recovered.log,
            current: recovered.current,
            checkpoint: recovered.checkpoint,
            spare: None,
            unmarked: recovered.unmarked,
            active: environment.clock.monotonic(),
            buffer: Vec::new(),
            told: Vec::new(),
        };
        let signal = shared.signal.clone();
        Ok((Self(shared), Box::new(writer), signal))
    }

    /// The last durable vote.
    pub fn vote(&self) -> Option<StoredVote> {
        self.0.state().checkpoint.vote
    }

    /// Up to where entries are known to be committed; after a crash possibly an older position.
    pub fn committed(&self) -> Option<Position> {
        let Checkpoint { committed, last, .. } = self.0.state().checkpoint;
        if index_of(committed) > index_of(last) { last } else { committed }
    }

    /// Up to where entries are purged.
    pub fn purged(&self) -> Option<Position> {
        self.0.state().checkpoint.purged
    }

    /// The last entry; if there is none, up to where entries are purged.
    pub fn last(&self) -> Option<Position> {
        self.0.state().checkpoint.last
    }

    /// [`Self::purged`] and [`Self::last`] of one moment.
    pub fn bounds(&self) -> (Option<Position>, Option<Position>) {
        let Checkpoint { purged, last, .. } = self.0.state().checkpoint;
        (purged, last)
    }

    /// The index of the first entry; if there is none, the one that it will have.
    pub fn first_index(&self) -> u64 {
        self.0.state().first_index()
    }

    /// The position of the entry with this index (or of the purged position); `None` if it is not there.
    pub fn position_at(&self, index: u64) -> Option<Position> {
        self.0.state().position_at(index)
    }

    /// Whether the entry with this index and all that follow are read without going to disk.
    pub fn is_in_memory(&self, index: u64) -> bool {
        self.0.state().is_in_memory(index)
    }

    /// The entries of `range` that there are, up to `max_bytes` of envelopes, but at least one if there is any. Entries
    /// may miss at both ends, never between. May read files.
    ///
    /// Errors: damage, with file and offset.
    pub fn entries(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, Fault> {
        let (runs, tail) = self.0.state().plan(range, max_bytes)?;
        let mut entries = Vec::new();
        for run in runs {
            entries.extend(run.read()?);
        }
        entries.extend(tail);
        // The plan is made of offsets, which count other records too, so it is cut to the byte only here.
        let mut bytes = 0;
        let fits = |entry: &mut LogEntry| {
            bytes += entry.sealed().len();
            bytes <= max_bytes
        };
        let fit = entries.iter_mut().map(fits).take_while(|fits| *fits).count();
        entries.truncate(fit.max(1));
        Ok(entries)
    }

    /// Adds entries. When this returns they can be read; `done` is called (from the writer's thread) when they are
    /// durable, or never will be.
    ///
    /// Errors: the log has ended, or the entries do not follow the last; then `done` is dropped uncalled.
    pub fn append(
        &self,
        entries: Vec<LogEntry>,
        done: impl FnOnce(Result<(), Fault>) + Send + 'static,
    ) -> Result<(), Fault> {
        if sabotage::on(Sabotage::AckBeforeSync) {
            self.change(|state| state.append(entries, Box::new(|_| ())))?;
            done(Ok(()));
            return Ok(());
        }
        self.change(|state| state.append(entries, Box::new(done)))
    }

    /// Saves a vote; durable when this returns.
    pub async fn save_vote(&self, vote: StoredVote) -> Result<(), Fault> {
        let (sender, saved) = oneshot::channel();
        // Who gave up waiting needs no answer.
        let done = Box::new(move |result| drop(sender.send(result)));
        self.change(|state| {
            state.save_vote(vote, done);
            Ok(())
        })?;
        if sabotage::on(Sabotage::VoteNotSynced) {
            return Ok(());
        }
        saved.await.unwrap_or_else(|_| Err(Fault::bug("the log forgot a vote")))
    }

    /// Notes up to where entries are committed. It becomes durable with the next batch, or when the log is idle or
    /// closed: a crash may lose it, which costs no more than applying some entries again.
    pub fn save_committed(&self, committed: Option<Position>) -> Result<(), Fault> {
        let mut state = self.0.state();
        state.accepts()?;
        state.save_committed(committed);
        if state.idle {
            self.0.signal.raise();
        }
        Ok(())
    }

    /// Voids the entries behind `after`; `None`: all. Durable before anything that is appended later.
    pub fn truncate_after(&self, after: Option<Position>) -> Result<(), Fault> {
        self.change(|state| {
            state.truncate(after);
            self.0.durable.send_if_modified(|durable| {
                let kept = index_of(state.checkpoint.last).unwrap_or(0);
                std::mem::replace(durable, kept.min(*durable)) > kept
            });
            Ok(())
        })
    }

    /// Purges entries up to `upto`, as far as the purge floor allows; the rest when it rises. If `upto` is behind the
    /// last entry (a snapshot was installed), it becomes the log's end; there is no less of that, so this waits until
    /// the floor is there.
    pub async fn purge(&self, upto: Position) -> Result<(), Fault> {
        let mut moved = self.0.floor.subscribe();
        loop {
            {
                let mut state = self.0.state();
                state.accepts()?;
                if !state.must_wait(upto) {
                    state.want_purge(upto);
                    self.0.signal.raise();
                    return Ok(());
                }
            }
            tracing::warn!(%upto, "a purge beyond the log's end waits until storage has what it covers");
            if moved.changed().await.is_err() {
                return Err(Fault::bug("the log is gone while it is used"));
            }
        }
    }

    /// Allows purging up to `floor`: storage has all that comes before, durably. Never goes back.
    pub fn set_purge_floor(&self, floor: Position) {
        let mut state = self.0.state();
        if index_of(state.floor) < Some(floor.index) {
            state.floor = Some(floor);
            if state.accepts().is_ok() && state.purge_allowed() {
                self.0.signal.raise();
            }
            self.0.floor.send_replace(());
        }
    }

    /// The index up to which the log is durable here, entries or what replaces them; 0 if nothing is. Goes back only
    /// when entries are truncated.
    pub fn durable_index(&self) -> watch::Receiver<u64> {
        self.0.durable.subscribe()
    }

    /// The size of new segments, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.0.options.segment_bytes
    }

    /// What the log has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        let (segments, tail_bytes) = {
            let state = self.0.state();
            (state.index.segments() as u64, state.tail.bytes() as u64)
        };
        let Counters { batches, bytes, entries } = &self.0.statistics;
        let [batches, bytes, entries] = [batches, bytes, entries].map(|counter| counter.load(Relaxed));
        Statistics { batches, bytes, entries, segments, tail_bytes }
    }

    /// How long each sync of a batch took.
    pub fn syncs(&self) -> &Histogram {
        &self.0.syncs
    }

    /// Since when the writer has been at what it does now (writing, syncing, making a segment), on the monotonic clock;
    /// `None` if it waits for work. Long ago: the disk hangs.
    pub fn busy_since(&self) -> Option<Duration> {
        self.0.busy.since()
    }

    /// Closes the log: what is queued is written, a marker follows, the worker is done. Nothing is accepted any more.
    pub async fn close(&self) -> Result<(), Fault> {
        let (sender, closed) = oneshot::channel();
        {
            let mut state = self.0.state();
            if let Some(fault) = &state.ended {
                return Err(fault.clone());
            }
            state.closing.get_or_insert_default().push(sender);
        }
        self.0.signal.raise();
        closed.await.unwrap_or_else(|_| Err(Fault::bug("the log forgot that it is being closed")))
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut state = self.0.state();
        state.accepts()?;
        change(&mut state)?;
        drop(state);
        self.0.signal.raise();
        Ok(())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere stops the node; until then the state is as good as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, written: Vec<Written>, end: &Checkpoint) -> Result<(), Fault> {
        let mut state = self.state();
        let durable = state.publish(written, end, self.options.tail_bytes)?.unwrap_or(0);
        // Under the lock, so that a truncation cannot come between.
        self.durable.send_if_modified(|known| std::mem::replace(known, durable) != durable);
        Ok(())
    }

    fn closed(&self) {
        let waiting = {
            let mut state = self.state();
            state.ended = Some(Fault::new("the log is closed"));
            state.closing.take()
        };
        for sender in waiting.into_iter().flatten() {
            // Who gave up waiting needs no answer.
            drop(sender.send(Ok(())));
        }
    }

    /// Ends the log, and tells all who wait why: those of the batch that failed, the queue's, those who close it.
    fn end(&self, fault: &Fault, told: Vec<Done>) {
        let (queued, waiting) = {
            let mut state = self.state();
            (state.end(fault), state.closing.take())
        };
        for done in told.into_iter().chain(queued) {
            done(Err(fault.clone()));
        }
        for sender in waiting.into_iter().flatten() {
            // Who gave up waiting needs no answer.
            drop(sender.send(Err(fault.clone())));
        }
        self.floor.send_replace(());
    }
}
