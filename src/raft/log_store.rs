//! The log as openraft wants it. All that is hard is in [`crate::raft::log`]; here are only its words.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
};

use openraft::{
    OptionalSend,
    entry::RaftEntry,
    storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage},
};

use crate::{
    error::Fault,
    limits,
    model::Position,
    raft::{
        log::Log,
        types::{LogEntry, LogId, TypeConfig, Vote},
    },
};

/// [`Log`] behind openraft's traits. Its clones, and the readers it gives away, are handles on the same log.
#[derive(Clone)]
pub struct LogStore {
    log: Log,
}

impl LogStore {
    /// The log, for openraft.
    pub fn new(log: Log) -> Self {
        Self { log }
    }
}

fn failed(fault: Fault) -> io::Error {
    io::Error::other(fault)
}

fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<LogEntry>> {
        self.log.entries(indexes(&range), usize::MAX).map_err(failed)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let bytes = if self.log.is_in_memory(start) { limits::APPEND_BYTES } else { limits::CATCH_UP_BYTES };
        self.log.entries(start..end, bytes).map_err(failed)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.vote().map(Into::into))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let (purged, last) = self.log.bounds();
        Ok(LogState { last_purged_log_id: purged.map(Into::into), last_log_id: last.map(Into::into) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log.save_vote((*vote).into()).await.map_err(failed)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(committed.map(Into::into)).map_err(failed)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(Into::into))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let at = |entry: Option<&LogEntry>| entry.map(|entry| Position::from(entry.log_id())).unwrap_or_default();
        let (first, last) = (at(entries.first()), at(entries.last()));
        let _span = tracing::debug_span!("append", %first, %last).entered();
        tracing::debug!("appended to the log");
        let done = move |result: Result<(), Fault>| {
            if result.is_ok() {
                tracing::debug!(%first, %last, "synced");
            }
            callback.io_completed(result.map_err(failed));
        };
        self.log.append(entries, done).map_err(failed)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log.truncate_after(last.map(Into::into)).map_err(failed)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log.purge(upto.into()).await.map_err(failed)
    }
}
