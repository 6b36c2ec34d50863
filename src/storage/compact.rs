//! Compaction: joins files into fewer, so that a start, a snapshot and the disk stay in proportion to the data.
//!
//! When the runs have outgrown the base everything becomes a new base: the base is rewritten only after as
//! much was written as it holds, so the cost is a constant factor. When there are many runs but they are
//! small, only the newest are joined, as many as keep each file larger than all that are newer: a store that is
//! flushed often and changes little does not rewrite its base again and again.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::{
    audit::Audit,
    file::{FileKind, Reader, Writer},
    files::{FileSet, StoredFile},
    merge::Merge,
    pace::Pace,
    shared::{EndOfWorker, Shared},
};
use crate::{
    environment::{Step, Worker},
    error::Fault,
};

/// Bytes of pairs that one step copies, about.
const STEP_BYTES: usize = 1 << 20;

/// How soon to look again whether there is room for a compaction. Nothing tells when space is freed.
const ROOM_CHECK: Duration = Duration::from_secs(1);

/// What to join.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// Which runs, oldest first.
    runs: Range<usize>,
    /// Whether the base, too: then the result is a base.
    with_base: bool,
}

/// What to do about a base and runs (oldest first) of these lengths; `None`: nothing.
fn plan(base: u64, runs: &[u64], min_bytes: u64, max_runs: usize) -> Option<Plan> {
    let total: u64 = runs.iter().sum();
    let everything = Some(Plan { runs: 0..runs.len(), with_base: true });
    if total >= base.max(min_bytes) {
        return everything;
    }
    if runs.len() <= max_runs {
        return None;
    }
    // At least half of them, or joining would have to be done again soon.
    let at_least = runs.len().div_ceil(2).max(2);
    let mut joined = 0;
    for (count, bytes) in runs.iter().rev().enumerate() {
        if count >= at_least && *bytes > joined {
            return Some(Plan { runs: runs.len() - count..runs.len(), with_base: false });
        }
        joined += bytes;
    }
    if base > joined { Some(Plan { runs: 0..runs.len(), with_base: false }) } else { everything }
}

/// See the module's text.
pub(super) struct Compactor {
    shared: Arc<Shared>,
    joining: Option<Joining>,
    _end: EndOfWorker,
}

struct Joining {
    index: u64,
    number: u64,
    kind: FileKind,
    inputs: Vec<u64>,
    pairs: Merge<Reader>,
    audit: Box<dyn Audit>,
    writer: Writer,
}

impl Compactor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let _end = EndOfWorker(shared.clone());
        Self { shared, joining: None, _end }
    }

    /// The files to join, newest first, and what the result is. Only files that the index holds: what is still on
    /// its way there is named in the manifest one by one.
    fn inputs(&self, set: &FileSet) -> Option<(Vec<Arc<StoredFile>>, FileKind)> {
        if set.base.as_ref().is_some_and(|base| !base.indexed) {
            return None;
        }
        let runs: Vec<_> = set.runs.iter().take_while(|run| run.indexed).cloned().collect();
        let lengths: Vec<u64> = runs.iter().map(|run| run.bytes).collect();
        let options = &self.shared.options;
        let base = set.base.as_ref().map_or(0, |base| base.bytes);
        let planned = plan(base, &lengths, options.compact_bytes, options.compact_runs);
        let Plan { runs: range, with_base } = planned.or_else(|| self.make_room(lengths.len()))?;
        let mut inputs: Vec<_> = runs.get(range)?.iter().rev().cloned().collect();
        if with_base {
            inputs.extend(set.base.clone());
        }
        Some((inputs, if with_base { FileKind::Base } else { FileKind::Run }))
    }

    /// What to do while the disk is short of space: deletions give back what they deleted only when all is joined.
    fn make_room(&self, runs: usize) -> Option<Plan> {
        let Shared { short_of_space, deletions, .. } = &*self.shared;
        let helps = runs > 0 && short_of_space.load(Ordering::Acquire) && deletions.load(Ordering::Acquire);
        helps.then_some(Plan { runs: 0..runs, with_base: true })
    }

    /// Whether the disk has room for a copy of these files. One that is begun without would fail, and stop the node.
    fn fits(&self, inputs: &[Arc<StoredFile>]) -> Result<bool, Fault> {
        let bytes: u64 = inputs.iter().map(|file| file.bytes).sum();
        Ok(self.shared.files.free_bytes()? >= bytes.saturating_add(self.shared.options.floor_bytes))
    }

    fn begin(&mut self) -> Result<Step, Fault> {
        let files = &self.shared.files;
        // In this order: should the index be replaced in between, the commit below will say so.
        let index = files.index();
        let set = files.set();
        let Some((inputs, kind)) = self.inputs(&set) else { return Ok(Step::Wait) };
        if !self.fits(&inputs)? {
            return Ok(Step::WaitFor(ROOM_CHECK));
        }
        if kind == FileKind::Base {
            self.shared.deletions.store(false, Ordering::Release);
        }
        let readers = inputs.iter().map(|file| files.read(file)).collect::<Result<Vec<_>, _>>()?;
        let Some(newest) = readers.first() else { return Ok(Step::Wait) };
        let checkpoint = newest.header().checkpoint.clone();
        let number = files.new_number();
        self.joining = Some(Joining {
            index,
            number,
            kind,
            inputs: inputs.iter().map(|file| file.number).collect(),
            pairs: Merge::new(readers),
            audit: self.shared.auditor.begin(&checkpoint.meta)?,
            writer: Writer::create(&files.disk, &files.path(number, kind), kind, files.cluster, &checkpoint)?,
        });
        Ok(Step::Again)
    }

    fn finish(&self, joining: Joining) -> Result<(), Fault> {
        let Joining { index, number, kind, inputs, writer, .. } = joining;
        let (bytes, place) = writer.finish()?;
        let file = Arc::new(StoredFile { number, bytes, indexed: true, place: Arc::new(place) });
        self.shared.files.commit(index, |set| {
            file.place.keep();
            let at = set.runs.iter().position(|run| inputs.contains(&run.number)).unwrap_or(0);
            set.runs.retain(|run| !inputs.contains(&run.number));
            match kind {
                FileKind::Base => set.base = Some(file.clone()),
                FileKind::Run => set.runs.insert(at, file.clone()),
            }
        })?;
        Ok(())
    }
}

impl Joining {
    /// Copies some pairs; false if there are no more.
    fn advance(&mut self) -> Result<bool, Fault> {
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            let Some(pair) = self.pairs.next() else { return Ok(false) };
            let (key, value) = pair?;
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            // Below a base lies nothing that a deletion could hide.
            let needed = value.is_some() || self.kind == FileKind::Run;
            if needed && self.audit.is_live(&key) {
                self.writer.push(&key, value.as_deref())?;
            }
        }
        Ok(true)
    }
}

impl Worker for Compactor {
    fn step(&mut self) -> Result<Step, Fault> {
        if self.shared.is_closing() {
            self.joining = None;
            return Ok(Step::Done);
        }
        let Some(mut joining) = self.joining.take() else { return self.begin() };
        let clock = &*self.shared.environment.clock;
        let pace = Pace::begin(clock);
        if joining.advance()? {
            self.shared.compacting_bytes.store(joining.writer.written(), Ordering::Release);
            self.joining = Some(joining);
        } else {
            self.finish(joining)?;
            self.shared.compacting_bytes.store(0, Ordering::Release);
        }
        Ok(pace.next(clock, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: u64 = 64;

    #[test]
    fn a_base_is_rewritten_when_the_runs_have_outgrown_it() {
        let everything = |runs| Some(Plan { runs: 0..runs, with_base: true });
        assert_eq!(plan(0, &[], MIN, 8), None);
        assert_eq!(plan(0, &[63], MIN, 8), None);
        assert_eq!(plan(0, &[64], MIN, 8), everything(1));
        assert_eq!(plan(1_000, &[500, 499], MIN, 8), None);
        assert_eq!(plan(1_000, &[500, 500], MIN, 8), everything(2));
    }

    #[test]
    fn many_small_runs_are_joined_without_the_base() {
        assert_eq!(plan(1_000, &[1; 8], MIN, 8), None);
        assert_eq!(plan(1_000, &[1; 9], MIN, 8), Some(Plan { runs: 0..9, with_base: false }));
        let grown = [100, 30, 9, 1, 1, 1, 1, 1, 1];
        assert_eq!(plan(1_000, &grown, MIN, 8), Some(Plan { runs: 3..9, with_base: false }));
        assert_eq!(plan(5, &[1; 9], MIN, 8), Some(Plan { runs: 0..9, with_base: true }));
    }

    #[test]
    fn joining_again_and_again_keeps_few_files_and_costs_little() {
        let (mut runs, mut written, base) = (Vec::<u64>::new(), 0, 1_000_000);
        for _ in 0..10_000 {
            runs.push(10);
            if let Some(Plan { runs: range, with_base }) = plan(base, &runs, MIN, 8) {
                assert!(!with_base);
                let joined: u64 = runs.drain(range.clone()).sum();
                runs.insert(range.start, joined);
                written += joined;
            }
            assert!(runs.len() <= 9);
        }
        // 100 kB came in; each byte was rewritten as often as sizes double on the way, and not 10,000 times.
        assert!(written < 100_000 * 20, "{written}");
    }
}
