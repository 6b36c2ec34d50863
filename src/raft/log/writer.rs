//! The only one that writes: takes what has queued, writes it as one batch, syncs once, and tells those who wait.
//!
//! A write or a sync that fails is never tried again: after a failed sync nobody knows what is on the disk, and the
//! next one may succeed without having written anything. The log ends, with this reason for all who wait.

use std::{mem, path::PathBuf, sync::Arc, time::Duration};

use super::{
    Shared,
    format::{BATCH_BYTES, Batch, Checkpoint, Place, SegmentHeader, header_place, index_of},
    index::Segment,
    segment::Spare,
    state::{Done, Operation, Written},
};
use crate::{
    environment::{Environment, Step, Worker, disk::File},
    error::Fault,
    model::Position,
    storage::codec::{self, Kind},
};

/// A marker is written after this long without a batch.
const IDLE: Duration = Duration::from_millis(20);

/// The writer of a log, as recovery left it.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) environment: Environment,
    pub(super) directory: PathBuf,
    /// The log's random id.
    pub(super) log: u128,
    /// The segment that is written to.
    pub(super) current: Current,
    /// What the log says up to its end.
    pub(super) checkpoint: Checkpoint,
    /// The segment that comes next, as far as it is made.
    pub(super) spare: Option<Spare>,
    /// No marker stands behind the last batch.
    pub(super) unmarked: bool,
    /// When the last batch was written.
    pub(super) active: Duration,
    /// The bytes of the batch being built.
    pub(super) buffer: Vec<u8>,
    /// Who is to be told of it.
    pub(super) told: Vec<Done>,
}

/// The segment that is written to. All of it before `end` is synced between steps.
pub(super) struct Current {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
    pub(super) end: u64,
}

impl Worker for Writer {
    fn step(&mut self) -> Result<Step, Fault> {
        self.shared.busy.begin(self.environment.clock.monotonic());
        let turn = self.turn();
        self.shared.busy.end();
        turn.inspect_err(|fault| {
            let told = mem::take(&mut self.told);
            self.shared.end(fault, told);
        })
    }
}

impl Drop for Writer {
    /// Whoever still waits must not wait for ever.
    fn drop(&mut self) {
        self.shared.end(&Fault::new("the log's writer is gone"), mem::take(&mut self.told));
    }
}

impl Writer {
    fn turn(&mut self) -> Result<Step, Fault> {
        let (operations, committed, closing) = {
            let mut state = self.shared.state();
            state.idle = false;
            let operations = state.take(self.shared.options.batch_bytes);
            let committed = if operations.is_empty() { None } else { state.take_committed() };
            (operations, committed, state.closing.is_some())
        };
        if !operations.is_empty() {
            self.write(operations, committed)?;
            self.remove_purged()?;
            self.prepare()?;
            return Ok(Step::Again);
        }
        if closing {
            self.mark()?;
            self.shared.closed();
            return Ok(Step::Done);
        }
        if self.is_markable() {
            let idle = self.environment.clock.monotonic().saturating_sub(self.active);
            if let Some(rest) = IDLE.checked_sub(idle).filter(|rest| !rest.is_zero()) {
                return Ok(Step::WaitFor(rest));
            }
            self.mark()?;
        }
        Ok(if self.shared.state().rests() { Step::Wait } else { Step::Again })
    }

    /// Writes and syncs one batch, and tells those who wait for it.
    fn write(&mut self, operations: Vec<Operation>, committed: Option<Position>) -> Result<(), Fault> {
        let mut written = Vec::new();
        let before = self.checkpoint;
        self.begin_batch();
        for operation in operations {
            self.put(operation, &mut written)?;
        }
        self.put_committed(committed);
        let start = if self.buffer.len() as u64 == BATCH_BYTES { None } else { Some(self.place(&before)?) };
        if let Some(start) = start {
            self.seal_batch(start);
            self.write_and_sync(start)?;
            (self.unmarked, self.active) = (true, self.environment.clock.monotonic());
        }
        for entry in &mut written {
            if let Written::Entry { offset, .. } = entry {
                *offset += start.unwrap_or(0);
            }
        }
        self.shared.publish(written, &self.checkpoint)?;
        for done in mem::take(&mut self.told) {
            done(Ok(()));
        }
        Ok(())
    }

    /// Leaves room for the batch's header, which is known when the batch is whole.
    fn begin_batch(&mut self) {
        self.buffer.clear();
        // One huge entry must not keep its memory for ever.
        self.buffer.shrink_to(2 * self.shared.options.batch_bytes);
        self.buffer.resize(BATCH_BYTES as usize, 0);
    }

    fn put(&mut self, operation: Operation, written: &mut Vec<Written>) -> Result<(), Fault> {
        match operation {
            Operation::Entry(position, sealed) => {
                self.checkpoint.append(position).map_err(Fault::bug)?;
                written.push(Written::Entry { index: position.index, offset: self.buffer.len() as u64 });
                self.buffer.extend_from_slice(&sealed);
                self.shared.statistics.count_entry();
            }
            Operation::Vote(vote) => {
                self.checkpoint.vote = Some(vote);
                self.buffer.extend_from_slice(&codec::encode(Kind::LogVote, &vote));
            }
            Operation::Truncate(after) => {
                self.checkpoint.truncate(after);
                written.push(Written::Truncation);
                self.buffer.extend_from_slice(&codec::encode(Kind::LogTruncate, &after));
            }
            Operation::Purge(upto) => {
                self.checkpoint.purge(upto);
                self.buffer.extend_from_slice(&codec::encode(Kind::LogPurge, &upto));
            }
            Operation::Tell(done) => self.told.push(done),
        }
        Ok(())
    }

    /// Adds the committed position, if it has moved: it travels with others and causes no sync of its own. Behind the
    /// entries of the batch, so it never names one that is not there.
    fn put_committed(&mut self, committed: Option<Position>) {
        if let Some(committed) = committed {
            self.checkpoint.committed = Some(committed);
            self.buffer.extend_from_slice(&codec::encode(Kind::LogCommitted, &committed));
        }
    }

    /// Where the batch in the buffer goes: in the current segment, or, if it does not fit, in a new one.
    fn place(&mut self, before: &Checkpoint) -> Result<u64, Fault> {
        let bytes = self.buffer.len() as u64;
        let start = header_place(self.current.end);
        // The room for a marker behind it is kept free.
        let room = |start: u64| start.saturating_add(bytes).saturating_add(2 * BATCH_BYTES);
        if room(start) <= self.current.bytes {
            return Ok(start);
        }
        let header_bytes = 512;
        let needed = room(header_bytes).next_multiple_of(4096);
        self.begin_segment(needed, *before)?;
        Ok(header_place(self.current.end))
    }

    fn begin_segment(&mut self, needed: u64, checkpoint: Checkpoint) -> Result<(), Fault> {
        let bytes = self.shared.options.segment_bytes.max(needed);
        let (disk, directory) = (&*self.environment.disk, &self.directory);
        let spare = match self.spare.take() {
            Some(spare) if spare.bytes() >= bytes => spare,
            _ => Spare::begin(disk, directory, bytes)?,
        };
        let sequence = self.current.sequence + 1;
        let header =
            SegmentHeader { log: self.log, sequence, bytes: spare.bytes(), previous_end: self.current.end, checkpoint };
        let bytes = spare.bytes();
        let made = spare.into_segment(disk, directory, &header)?;
        self.shared.state().index.add(Segment::new(sequence, made.path.clone(), made.file.clone()));
        self.current = Current { sequence, path: made.path, file: made.file, bytes, end: made.header_end };
        Ok(())
    }

    fn header(&self, at: u64, bytes: u64) -> Batch {
        let segment = self.current.sequence;
        Batch {
            log: self.log,
            at: Place { segment, offset: at },
            bytes,
            synced: Place { segment, offset: self.current.end },
        }
    }

    fn seal_batch(&mut self, start: u64) {
        let sealed = self.header(start, self.buffer.len() as u64 - BATCH_BYTES).encode(Kind::LogBatch);
        if let Some(front) = self.buffer.get_mut(..sealed.len()) {
            front.copy_from_slice(&sealed);
        }
    }

    fn write_and_sync(&mut self, start: u64) -> Result<(), Fault> {
        let Current { file, path, end, .. } = &mut self.current;
        file.write_all_at(&self.buffer, start).map_err(|error| Fault::io("cannot write to", path, &error))?;
        let began = self.environment.clock.monotonic();
        file.sync().map_err(|error| Fault::io("cannot sync", path, &error))?;
        self.shared.syncs.note(self.environment.clock.monotonic().saturating_sub(began));
        *end = start + self.buffer.len() as u64;
        self.shared.statistics.count_batch(self.buffer.len() as u64);
        Ok(())
    }

    fn is_markable(&self) -> bool {
        self.unmarked || self.shared.state().unsaved_committed().is_some()
    }

    /// Writes a marker: all before it was synced, so from now on what cannot be read there is damage. The committed
    /// position goes in front of it, if it has moved; the marker does not vouch for that.
    fn mark(&mut self) -> Result<(), Fault> {
        if !self.is_markable() {
            return Ok(());
        }
        let before = self.checkpoint;
        let committed = self.shared.state().take_committed();
        self.begin_batch();
        self.put_committed(committed);
        let mut start = self.place(&before)?;
        let mut marker_at = start;
        if self.buffer.len() as u64 > BATCH_BYTES {
            self.seal_batch(start);
            marker_at = header_place(start + self.buffer.len() as u64);
        } else {
            self.buffer.clear();
        }
        start = start.min(marker_at);
        self.buffer.resize((marker_at - start) as usize, 0);
        self.buffer.extend_from_slice(&self.header(marker_at, 0).encode(Kind::LogSynced));
        self.write_and_sync(start)?;
        self.unmarked = false;
        Ok(())
    }

    /// Removes the segments that nobody needs now that the last batch, with its purges, is durable. One by one, so that
    /// after a crash none is missing between two that are there.
    fn remove_purged(&mut self) -> Result<(), Fault> {
        loop {
            let Some(path) = self.shared.state().index.remove_purged(index_of(self.checkpoint.purged)) else {
                return Ok(());
            };
            let disk = &self.environment.disk;
            disk.remove_file(&path)
                .and_then(|()| disk.sync_dir(&self.directory))
                .map_err(|error| Fault::io("cannot remove", &path, &error))?;
        }
    }

    /// Goes on with the next segment, so far that it is ready when three quarters of this one are used.
    fn prepare(&mut self) -> Result<(), Fault> {
        let bytes = self.shared.options.segment_bytes;
        let upto = (self.current.end.saturating_mul(4) / 3).saturating_mul(bytes) / self.current.bytes.max(1);
        let spare = match &mut self.spare {
            Some(spare) => spare,
            None => self.spare.insert(Spare::begin(&*self.environment.disk, &self.directory, bytes)?),
        };
        spare.fill(upto)
    }
}
