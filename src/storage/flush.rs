//! The flusher: writes frozen memtables to disk as runs, oldest first.
//!
//! A run is written only once the log is durable behind it, so that no run ever holds what the log could
//! still lose. When the run and its name are synced the manifest names it, and only then is anybody told.

use std::{
    ops::Bound,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    file::{FileKind, Writer},
    files::StoredFile,
    shared::{EndOfWorker, Shared},
    tables::Frozen,
};
use crate::{
    environment::{Step, Worker},
    error::Fault,
};

/// Bytes of pairs that one step writes, about.
const STEP_BYTES: usize = 1 << 20;
/// How soon to look again whether the log has become durable. It nearly always is already: entries are
/// applied after a quorum synced them.
const DURABLE_POLL: Duration = Duration::from_millis(5);
/// A run that took longer than this to write is worth a line in the log.
const SLOW: Duration = Duration::from_secs(10);

/// See the module's text.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    writing: Option<Writing>,
    _end: EndOfWorker,
}

struct Writing {
    frozen: Arc<Frozen>,
    index: u64,
    number: u64,
    writer: Writer,
    last_key: Option<Bytes>,
    deletes: bool,
    began: Duration,
}

impl Flusher {
    pub(super) fn new(shared: Arc<Shared>, durable: watch::Receiver<u64>) -> Self {
        let _end = EndOfWorker(shared.clone());
        Self { shared, durable, writing: None, _end }
    }

    fn begin(&mut self) -> Result<Step, Fault> {
        let tables = self.shared.tables.load();
        let Some(frozen) = tables.next_to_flush() else { return Ok(Step::Wait) };
        // An install is replacing all of this.
        if self.shared.files.index() != tables.number || *self.durable.borrow() < frozen.checkpoint.position.index {
            return Ok(Step::WaitFor(DURABLE_POLL));
        }
        let files = &self.shared.files;
        let number = files.new_number();
        let path = files.path(number, FileKind::Run);
        let writer = Writer::create(&files.disk, &path, FileKind::Run, files.cluster, &frozen.checkpoint)?;
        self.writing = Some(Writing {
            frozen: frozen.clone(),
            index: tables.number,
            number,
            writer,
            last_key: None,
            deletes: false,
            began: self.shared.environment.clock.monotonic(),
        });
        Ok(Step::Again)
    }

    fn finish(&mut self, writing: Writing) -> Result<(), Fault> {
        let Writing { frozen, index, number, writer, began, deletes, .. } = writing;
        let (bytes, place) = writer.finish()?;
        let file = StoredFile { number, bytes, indexed: false, place: Arc::new(place) };
        let file = Arc::new(file);
        let committed = self.shared.files.commit(index, |set| {
            file.place.keep();
            set.runs.push(file.clone());
            set.checkpoint = Some(Arc::new(frozen.checkpoint.clone()));
        })?;
        if !committed {
            return Ok(());
        }
        if deletes {
            self.shared.deletions.store(true, Ordering::Release);
        }
        if frozen.run.set(number).is_err() {
            return Err(Fault::bug("a memtable was flushed twice"));
        }
        let took = self.shared.environment.clock.monotonic().saturating_sub(began);
        if took > SLOW {
            tracing::warn!(bytes, took_ms = took.as_millis(), position = %frozen.checkpoint.position, "slow flush");
        }
        self.shared.merger.raise();
        self.shared.compactor.raise();
        Ok(())
    }
}

impl Worker for Flusher {
    fn step(&mut self) -> Result<Step, Fault> {
        if self.shared.closing.load(Ordering::Acquire) {
            // The log has all of it.
            self.writing = None;
            return Ok(Step::Done);
        }
        let Some(mut writing) = self.writing.take() else { return self.begin() };
        let mut bytes = 0;
        let start = writing.last_key.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last_key = None;
        for (key, value) in writing.frozen.table.scan(start, None, u64::MAX) {
            writing.writer.push(&key, value.as_deref())?;
            writing.deletes |= value.is_none();
            bytes += key.len() + value.map_or(0, |value| value.len());
            last_key = Some(key);
            if bytes >= STEP_BYTES {
                break;
            }
        }
        if bytes >= STEP_BYTES {
            writing.last_key = last_key;
            self.writing = Some(writing);
        } else {
            self.finish(writing)?;
        }
        Ok(Step::Again)
    }
}
