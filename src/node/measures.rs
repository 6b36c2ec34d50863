//! What a node measures of its own work, beside what log and state machine do of theirs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Node, vitals::Pace};
use crate::{environment::Environment, metrics::Histogram, model::ReadMode};

/// What a node measures.
#[derive(Default)]
pub struct Measures {
    /// From when a proposal was queued here until it was applied here and its caller was told.
    pub commit: Histogram,
    /// Rounds that found a read index: on the leader to a quorum, elsewhere to the leader.
    pub read_index: Histogram,
    /// Log entries that this node proposed as the leader.
    pub(super) entries: AtomicU64,
    /// Proposals in them.
    pub(super) proposals: AtomicU64,
    /// Linearizable, at least, stale.
    reads: [AtomicU64; 3],
    /// When storage last reached further on disk, in milliseconds of the monotonic clock.
    flushed_ms: AtomicU64,
    pub(super) pace: Mutex<Pace>,
}

/// Numbers of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Log entries that this node proposed.
    pub entries: u64,
    /// Proposals in them.
    pub proposals: u64,
    /// Reads in the mode `linearizable`.
    pub linearizable: u64,
    /// Reads in the mode `at_least`.
    pub at_least: u64,
    /// Reads in the mode `stale`.
    pub stale: u64,
    /// Proposals that wait for a place in an entry.
    pub waiting: u64,
    /// Bytes of the proposals that wait or are under way.
    pub waiting_bytes: u64,
    /// How long ago storage last reached further on disk (or the node started), in milliseconds.
    pub since_flush_ms: u64,
}

impl Measures {
    /// Nothing measured yet.
    pub(super) fn begin(environment: &Environment) -> Arc<Self> {
        let measures = Arc::<Self>::default();
        measures.flushed(environment.clock.monotonic());
        measures
    }

    pub(super) fn count_read(&self, mode: ReadMode) {
        let [linearizable, at_least, stale] = &self.reads;
        let counter = match mode {
            ReadMode::Linearizable => linearizable,
            ReadMode::AtLeast(_) => at_least,
            ReadMode::Stale(_) => stale,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn flushed(&self, now: Duration) {
        self.flushed_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Node {
    /// How long things took.
    pub fn measures(&self) -> &Measures {
        &self.shared.measures
    }

    /// How long the log took to sync a batch.
    pub fn log_syncs(&self) -> &Histogram {
        self.shared.log.syncs()
    }

    /// How long entries took to be applied.
    pub fn applies(&self) -> &Histogram {
        self.shared.machine.applies()
    }

    /// What was counted, and how much waits.
    pub fn counts(&self) -> Counts {
        let Measures { entries, proposals, reads, flushed_ms, .. } = &*self.shared.measures;
        let [linearizable, at_least, stale] = reads.each_ref().map(|counter| counter.load(Relaxed));
        let proposer = self.shared.proposer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (waiting, waiting_bytes) = proposer.map_or((0, 0), |proposer| proposer.waiting());
        let now = self.shared.environment.clock.monotonic();
        let since_flush = now.saturating_sub(Duration::from_millis(flushed_ms.load(Relaxed)));
        Counts {
            entries: entries.load(Relaxed),
            proposals: proposals.load(Relaxed),
            linearizable,
            at_least,
            stale,
            waiting: waiting as u64,
            waiting_bytes: waiting_bytes as u64,
            since_flush_ms: u64::try_from(since_flush.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
