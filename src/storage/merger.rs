//! The merger: brings the index up to the runs, in small steps beside the readers.
//!
//! One frozen table at a time, oldest first, once its run is on disk: plain writes of a few hundred pairs a
//! step, unhurried while no other table waits, then one sync, then the manifest says that the index holds the run. While
//! a view older than the table is open, what the index said of each key is kept first. With nothing to merge it lets go of what
//! no view needs any more and removes the pairs of dropped scopes. At the end it closes the index.

use std::{
    ops::Bound,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::{
    engine::{Closed, Pair},
    pace::Pace,
    reclaim::Dropped,
    shared::{EndOfWorker, Shared},
    tables::{Frozen, Index, Tables},
    undo::Undo,
};
use crate::{
    environment::{Step, Worker},
    error::Fault,
    model::key,
};

/// Bytes of pairs that one step writes, about.
const STEP_BYTES: usize = 1 << 20;
/// How soon to look again whether the last reader has let go of the index that is to be closed.
const CLOSE_POLL: Duration = Duration::from_millis(1);

/// See the module's text.
pub(super) struct Merger {
    shared: Arc<Shared>,
    merging: Option<Merging>,
    closing: Option<Arc<Index>>,
    _end: EndOfWorker,
}

struct Merging {
    frozen: Arc<Frozen>,
    undo: Arc<Undo>,
    tables: Arc<Tables>,
    last_key: Option<Bytes>,
}

impl Merger {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let _end = EndOfWorker(shared.clone());
        Self { shared, merging: None, closing: None, _end }
    }

    fn begin(&mut self) -> Result<Step, Fault> {
        let tables = self.shared.tables.load_full();
        let Some(frozen) = tables.unmerged().next().filter(|frozen| frozen.run.get().is_some()) else {
            return self.reclaim(&tables);
        };
        // From here on no view older than this can be opened, so those that are open now are all that
        // can need an undo.
        self.shared.views().raise_oldest(frozen.checkpoint.revision);
        let undo = Arc::new(Undo::new(frozen.checkpoint.revision));
        let mut current = false;
        self.shared.update(|now| {
            current = now.number == tables.number;
            if current {
                now.undo.push(undo.clone());
            }
        });
        if current {
            self.merging = Some(Merging { frozen: frozen.clone(), undo, tables, last_key: None });
        }
        Ok(Step::Again)
    }

    /// Writes the next pairs; false if there are no more.
    fn advance(&self, merging: &mut Merging) -> Result<bool, Fault> {
        let start = merging.last_key.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let limit = self.shared.options.merge_pairs.max(1);
        let mut pairs: Vec<Pair> = Vec::with_capacity(limit);
        let mut bytes = 0;
        for (key, value) in merging.frozen.table.scan(start, None, u64::MAX) {
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            pairs.push((key, value));
            if pairs.len() >= limit || bytes >= STEP_BYTES {
                break;
            }
        }
        let Some((last_key, _)) = pairs.last() else { return Ok(false) };
        merging.last_key = Some(last_key.clone());
        let engine = &merging.tables.index.engine;
        if self.shared.views().any_within(0, merging.undo.revision) {
            for (key, _) in &pairs {
                merging.undo.keep((key.clone(), engine.get(key)?));
            }
            self.shared.bound_undo();
        }
        engine.write(&pairs)?;
        Ok(true)
    }

    fn finish(&self, merging: &Merging) -> Result<(), Fault> {
        let Merging { frozen, undo, tables, .. } = merging;
        tables.index.engine.sync()?;
        let run = frozen.run.get().copied();
        if !self.shared.files.commit(tables.number, |set| set.mark_indexed(|number| Some(number) == run))? {
            // A snapshot was installed: this index is no more.
            return Ok(());
        }
        // In this order: the index is whole before readers may stop looking at the table.
        frozen.merged.store(true, Ordering::Release);
        undo.merging.store(false, Ordering::Release);
        self.shared.merged_revision.fetch_max(frozen.checkpoint.revision, Ordering::AcqRel);
        self.shared.collect();
        self.shared.compactor.raise();
        Ok(())
    }

    /// Removes some pairs of a dropped scope, once the index holds the drop and no view is older.
    fn reclaim(&self, tables: &Tables) -> Result<Step, Fault> {
        let merged = self.shared.merged_revision.load(Ordering::Acquire);
        let queue = || self.shared.reclaim.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = |at| at <= merged && !self.shared.views().any_within(0, at);
        let Some(Dropped { prefix, .. }) = queue().next(ready) else { return Ok(Step::Wait) };
        let end = key::prefix_end(&prefix);
        let page = tables.index.engine.range(&prefix, end.as_deref(), self.shared.options.merge_pairs.max(1))?;
        if page.pairs.is_empty() {
            queue().done(prefix);
        } else {
            let removals: Vec<Pair> = page.pairs.into_iter().map(|(key, _)| (key, None)).collect();
            tables.index.engine.write(&removals)?;
        }
        Ok(Step::Again)
    }

    /// Closes the index. If it holds exactly what the manifest says, the next start is told that the stop was clean.
    fn close(&mut self) -> Result<Step, Fault> {
        // The last to end: what the others commit on their way out takes the clean mark away again.
        if *self.shared.ended.borrow() < 2 {
            return Ok(Step::WaitFor(CLOSE_POLL));
        }
        let index = match self.closing.take() {
            Some(index) => index,
            None => {
                let index = self.shared.tables.load().index.clone();
                let closed = Arc::new(Index { engine: Box::new(Closed), place: None });
                self.shared.update(|tables| tables.index = closed);
                index
            }
        };
        match Arc::try_unwrap(index) {
            Err(index) => {
                // A reader is still at it; it holds the index only while it reads.
                self.closing = Some(index);
                Ok(Step::WaitFor(CLOSE_POLL))
            }
            Ok(index) => {
                let reclaimed = self.shared.reclaim.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
                if index.engine.close()? && reclaimed {
                    self.shared.files.commit_clean(true)?;
                }
                Ok(Step::Done)
            }
        }
    }
}

impl Worker for Merger {
    fn step(&mut self) -> Result<Step, Fault> {
        let clock = &*self.shared.environment.clock;
        let pace = Pace::begin(clock);
        self.shared.collect();
        let Some(mut merging) = self.merging.take() else {
            return if self.shared.is_closing() { self.close() } else { self.begin() };
        };
        let tables = self.shared.tables.load();
        if tables.number != merging.tables.number {
            // A snapshot was installed: this index is no more.
            return Ok(Step::Again);
        }
        if self.advance(&mut merging)? {
            self.merging = Some(merging);
        } else {
            self.finish(&merging)?;
        }
        Ok(pace.next(clock, self.shared.is_closing() || tables.unmerged().nth(1).is_some()))
    }
}
