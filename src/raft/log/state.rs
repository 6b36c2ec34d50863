//! What the handles and the writer share: the log as it was accepted (readable at once), and the queue of what the
//! writer has still to make durable.

use std::{collections::VecDeque, mem, ops::Range};

use bytes::Bytes;
use openraft::entry::RaftEntry;
use tokio::sync::oneshot;

use super::{
    format::{Checkpoint, index_of},
    index::{Index, Run},
    tail::Tail,
    terms::Terms,
};
use crate::{
    error::Fault,
    model::Position,
    raft::types::{LogEntry, StoredVote},
};

/// Is told when all that was queued before it is durable, or never will be.
pub(super) type Done = Box<dyn FnOnce(Result<(), Fault>) + Send>;

/// One record to write, or somebody to tell.
pub(super) enum Operation {
    Entry(Position, Bytes),
    Vote(StoredVote),
    Truncate(Option<Position>),
    Purge(Position),
    Tell(Done),
}

impl Operation {
    fn bytes(&self) -> usize {
        match self {
            Self::Entry(_, sealed) => sealed.len(),
            // The small records are about as large as this.
            Self::Vote(_) | Self::Truncate(_) | Self::Purge(_) => 64,
            Self::Tell(_) => 0,
        }
    }
}

/// Where an entry of a batch now stands, or that a truncation is now written.
pub(super) enum Written {
    Entry { index: u64, offset: u64 },
    Truncation,
}

/// The log as it was accepted, whether durable yet or not. Under a mutex.
pub(super) struct State {
    /// The summary; its vote is the last *durable* one.
    pub(super) checkpoint: Checkpoint,
    pub(super) tail: Tail,
    pub(super) index: Index,
    terms: Terms,
    queue: VecDeque<Operation>,
    /// How many operations the writer ever took.
    taken: u64,
    /// Of each truncation that is not written yet: the index that it keeps. What is written meanwhile of the entries
    /// behind it is void already.
    cuts: VecDeque<Option<u64>>,
    /// The committed position is newer than what the log says: how many operations were ever queued when it became
    /// known.
    committed_unsaved: Option<u64>,
    /// Up to where storage needs no entries any more.
    pub(super) floor: Option<Position>,
    /// Up to where entries should be purged once the floor allows it.
    wanted: Option<Position>,
    /// The writer waits without a timer.
    pub(super) idle: bool,
    /// Why nothing is accepted any more.
    pub(super) ended: Option<Fault>,
    /// Who waits for the close.
    pub(super) closing: Option<Vec<oneshot::Sender<Result<(), Fault>>>>,
}

impl State {
    /// A log that was read from disk.
    pub(super) fn new(checkpoint: Checkpoint, index: Index, terms: Terms) -> Self {
        Self {
            checkpoint,
            tail: Tail::default(),
            index,
            terms,
            queue: VecDeque::new(),
            taken: 0,
            cuts: VecDeque::new(),
            committed_unsaved: None,
            floor: None,
            wanted: None,
            idle: false,
            ended: None,
            closing: None,
        }
    }

    /// Whether changes are accepted; else why not.
    pub(super) fn accepts(&self) -> Result<(), Fault> {
        match (&self.ended, &self.closing) {
            (Some(fault), _) => Err(fault.clone()),
            (None, Some(_)) => Err(Fault::new("the log is closed")),
            (None, None) => Ok(()),
        }
    }

    /// Adds entries; they can be read at once. None is added if one does not follow.
    pub(super) fn append(&mut self, entries: Vec<LogEntry>, done: Done) -> Result<(), Fault> {
        let mut after = self.checkpoint;
        for entry in &entries {
            after.append(position(entry)).map_err(Fault::bug)?;
        }
        self.checkpoint = after;
        for mut entry in entries {
            let (at, sealed) = (position(&entry), entry.sealed());
            self.terms.push(at);
            self.tail.push(entry, sealed.len());
            self.queue.push_back(Operation::Entry(at, sealed));
        }
        self.queue.push_back(Operation::Tell(done));
        Ok(())
    }

    /// Queues a vote.
    pub(super) fn save_vote(&mut self, vote: StoredVote, done: Done) {
        self.queue.push_back(Operation::Vote(vote));
        self.queue.push_back(Operation::Tell(done));
    }

    /// Notes the committed position.
    pub(super) fn save_committed(&mut self, committed: Option<Position>) {
        if self.checkpoint.committed != committed {
            self.checkpoint.committed = committed;
            self.committed_unsaved = Some(self.taken + self.queue.len() as u64);
        }
    }

    /// Voids the entries behind `after`.
    pub(super) fn truncate(&mut self, after: Option<Position>) {
        self.checkpoint.truncate(after);
        let kept = index_of(self.checkpoint.last);
        self.tail.truncate(kept);
        self.index.truncate(kept);
        self.terms.truncate(kept);
        self.cuts.push_back(kept);
        self.queue.push_back(Operation::Truncate(after));
    }

    /// Wants entries purged up to `upto`; does so now as far as the floor allows.
    pub(super) fn want_purge(&mut self, upto: Position) {
        if index_of(self.wanted) < Some(upto.index) {
            self.wanted = Some(upto);
        }
        self.purge_allowed();
    }

    /// Purges up to what is wanted and the floor allows.
    /// Whether anything was purged.
    pub(super) fn purge_allowed(&mut self) -> bool {
        let (Some(wanted), Some(floor)) = (self.wanted, self.floor) else { return false };
        let upto = if floor.index < wanted.index { floor } else { wanted };
        let (purged, last) = (index_of(self.checkpoint.purged), index_of(self.checkpoint.last));
        // A floor ahead of the log's end does not purge beyond it: only a snapshot that the log's user asks for does.
        if Some(upto.index) <= purged || (Some(upto.index) > last && upto != wanted) {
            return false;
        }
        self.checkpoint.purge(upto);
        self.tail.purge(upto.index);
        self.index.purge(upto.index);
        self.terms.purge(upto.index, index_of(self.checkpoint.last));
        self.queue.push_back(Operation::Purge(upto));
        true
    }

    /// Whether a purge up to `upto` leaps over the log's end, and the floor does not allow that yet.
    pub(super) fn must_wait(&self, upto: Position) -> bool {
        index_of(self.checkpoint.last) < Some(upto.index) && index_of(self.floor) < Some(upto.index)
    }

    /// The index of the first entry; where the next will be, if there is none.
    pub(super) fn first_index(&self) -> u64 {
        match self.checkpoint.purged {
            Some(purged) => purged.index.saturating_add(1),
            None => self.terms.first().unwrap_or(0),
        }
    }

    /// The position of the entry with this index, or of the purged position.
    pub(super) fn position_at(&self, index: u64) -> Option<Position> {
        if let Some(purged) = self.checkpoint.purged.filter(|purged| purged.index == index) {
            return Some(purged);
        }
        if index < self.first_index() || Some(index) > index_of(self.checkpoint.last) {
            return None;
        }
        self.terms.at(index).map(|term| Position { term, index })
    }

    /// Whether the entry with this index and all that follow are in the tail.
    pub(super) fn is_in_memory(&self, index: u64) -> bool {
        self.tail.first().is_some_and(|first| first <= index)
    }

    /// How to read the entries of `range` that there are, up to about `max_bytes`: runs on disk, then entries from the
    /// tail. Made under one lock, so that it shows the log of one moment.
    pub(super) fn plan(&self, range: Range<u64>, max_bytes: usize) -> Result<(Vec<Run>, Vec<LogEntry>), Fault> {
        let end = range.end.min(index_of(self.checkpoint.last).map_or(0, |last| last.saturating_add(1)));
        let start = range.start.max(self.first_index());
        let on_disk = self.tail.first().map_or(end, |first| first.min(end));
        let runs = self.index.runs(start..on_disk, max_bytes);
        let (runs, left) = runs.map_err(|at| Fault::bug(format!("log entry {at} is neither in memory nor on disk")))?;
        let at = runs.last().map_or(start, Run::end);
        let whole = at >= on_disk && at < end && (left > 0 || runs.is_empty());
        let tail = if whole { self.tail.read(at..end, left) } else { Vec::new() };
        Ok((runs, tail))
    }

    /// Takes operations for one batch of about `max_bytes`, at least one if there is any.
    pub(super) fn take(&mut self, max_bytes: usize) -> Vec<Operation> {
        let mut bytes = 0;
        let fit = self.queue.iter().take_while(|operation| {
            let fits = bytes < max_bytes;
            bytes += operation.bytes();
            // Whoever waits for the last of a batch is told with it.
            fits || matches!(operation, Operation::Tell(_))
        });
        let fit = fit.count();
        self.taken += fit as u64;
        self.queue.drain(..fit).collect()
    }

    /// The committed position, if it is to be written and can be: all that was queued when it became known is taken.
    /// (Before that the log on disk may hold, at its index, another entry that is to be truncated.)
    pub(super) fn unsaved_committed(&self) -> Option<Position> {
        self.checkpoint.committed.filter(|_| self.committed_unsaved.is_some_and(|queued| queued <= self.taken))
    }

    /// The same, to be written now.
    pub(super) fn take_committed(&mut self) -> Option<Position> {
        let committed = self.unsaved_committed()?;
        self.committed_unsaved = None;
        Some(committed)
    }

    /// Whether the writer has nothing to do; from then on it is to be woken.
    pub(super) fn rests(&mut self) -> bool {
        self.idle = self.queue.is_empty() && self.closing.is_none() && self.unsaved_committed().is_none();
        self.idle
    }

    /// Makes known what is durable now: `written` in order, the log's end with it. The answer: the durable index.
    pub(super) fn publish(
        &mut self,
        written: Vec<Written>,
        end: &Checkpoint,
        tail_bytes: usize,
    ) -> Result<Option<u64>, Fault> {
        for written in written {
            match written {
                Written::Truncation => drop(self.cuts.pop_front()),
                Written::Entry { index, offset } => {
                    self.index.wrote(index);
                    let cut = self.cuts.iter().min().is_some_and(|kept| Some(index) > *kept);
                    if !cut && Some(index) > index_of(self.checkpoint.purged) {
                        self.index.push(index, offset)?;
                    }
                }
            }
        }
        self.checkpoint.vote = end.vote;
        let durable = self.cuts.iter().copied().fold(index_of(end.last), Ord::min);
        self.tail.evict(tail_bytes, durable.map_or(0, |durable| durable.saturating_add(1)));
        Ok(durable)
    }

    /// Ends it: nothing is accepted any more, and all who wait in the queue are to be told.
    pub(super) fn end(&mut self, fault: &Fault) -> Vec<Done> {
        self.ended.get_or_insert_with(|| fault.clone());
        let told = |operation| if let Operation::Tell(done) = operation { Some(done) } else { None };
        mem::take(&mut self.queue).into_iter().filter_map(told).collect()
    }
}

/// An entry's position.
pub(super) fn position(entry: &LogEntry) -> Position {
    let (term, index) = entry.log_id_parts();
    Position { term: **term, index }
}
