//! Builds indexes: enters the values that were there before them.
//!
//! A step goes through a bounded part of the values, in the order of their keys, and makes one transaction: entries of
//! those that lack some, and how far it has come. It holds only if the namespace, the progress and each of these values are
//! as they were seen, so it does not matter who makes it, or how often: another leader goes on where the last one was.
//!
//! *Why this ends while others write*: whatever is written after the index was created has its entries, so a value that
//! made a step fail is not in the next one. Steps that fail get smaller all the same, so that few values are gone through
//! in vain.

use bytes::Bytes;

use super::{
    super::{super::list::successor, text},
    Definition, Namespace, PROGRESS, Progress, entries_of,
};
use crate::{
    Result,
    error::Fault,
    model::{
        Key,
        transaction::{Compare, Operation, Transaction},
    },
    state::{
        View,
        sweep::{Sight, Step, Sweep},
    },
    storage::codec::{self, Kind},
};

/// Between two looks whether there is something to do.
const REST_MS: u64 = 1_000;
/// Indexes that are looked at together.
const PAGE: usize = 64;
/// Values that are read at once.
const READ: usize = 32;
/// Values of a step, of which so many get entries.
const VALUES: usize = 2_048;
const ENTERED: usize = 256;
/// Bytes of values and of entries that a step takes; the last may be above it.
const VALUE_BYTES: usize = 8 << 20;
const ENTRY_BYTES: usize = 1 << 20;

/// Goes from index to index, as long as there is one that is not built.
#[derive(Debug)]
pub struct Build {
    /// The last change of any index when all were built.
    idle: Option<u64>,
    /// Most values that the next step enters.
    entered: usize,
}

impl Default for Build {
    fn default() -> Self {
        Self { idle: None, entered: ENTERED }
    }
}

impl Sweep for Build {
    fn step(&mut self, sight: &Sight<'_>) -> Result<Step> {
        let changed = (sight.account)(PROGRESS).last_revision;
        if self.idle == Some(changed) {
            return Ok(Step::Rest(REST_MS));
        }
        let view = (sight.view)()?;
        let Some((key, progress, revision)) = unfinished(&view)? else {
            // A change that the view does not show is looked at the next time.
            self.idle = (changed <= view.revision()).then_some(changed);
            return Ok(Step::Rest(REST_MS));
        };
        let entered = self.entered;
        self.entered = (entered * 2).min(ENTERED);
        let mut part = Part { compares: vec![Compare::written_at(key.clone(), revision)], operations: vec![] };
        part.fill(&view, &key, progress, entered)?;
        Ok(Step::Propose(part.compares, Transaction::blind(part.operations)))
    }

    fn begin_anew(&mut self) {
        self.idle = None;
        self.entered = (self.entered / 4).max(1);
    }
}

/// The first index that is not built, where its progress stands, and the revision of that.
fn unfinished(view: &View) -> Result<Option<(Key, Progress, u64)>> {
    let mut start = Vec::new();
    loop {
        let page = view.records(PROGRESS, &start, None, PAGE)?;
        let ended = page.len() < PAGE;
        for (key, record) in page {
            let broken = |error| view.fault(Fault::bug(format!("the record {key} cannot be read: {error}")));
            let progress: Progress = codec::decode(Kind::NamespaceIndex, &record.value).map_err(broken)?;
            if progress.behind.is_some() {
                return Ok(Some((key, progress, record.mod_revision)));
            }
            start = successor(&key.user_bytes());
        }
        if ended {
            return Ok(None);
        }
    }
}

/// A part of the work, as a transaction.
struct Part {
    compares: Vec<Compare>,
    operations: Vec<Operation>,
}

impl Part {
    fn fill(&mut self, view: &View, key: &Key, progress: Progress, most: usize) -> Result<()> {
        let Progress { namespace: name, mut built, behind } = progress;
        let mut behind = behind.unwrap_or_default();
        let found = Namespace::find(view, &name)?;
        let index = found.as_ref().and_then(|found| {
            let index = found.indexes.iter().find(|index| index.progress_key() == *key)?;
            Some((found, index))
        });
        // Both go in one transaction.
        let Some((namespace, index)) = index else {
            return Err(view.fault(Fault::bug(format!("the record {key} is of no index"))));
        };
        self.compares.push(namespace.guard());
        let mut start = if behind.is_empty() { vec![] } else { successor(&behind) };
        let (mut values, mut value_bytes, mut entry_bytes) = (0, 0, 0);
        let full = |operations: usize, values: usize, value_bytes: usize, entry_bytes: usize| {
            operations >= most || values >= VALUES || value_bytes >= VALUE_BYTES || entry_bytes >= ENTRY_BYTES
        };
        let ended = 'all: loop {
            let page = view.records(namespace.values(), &start, None, READ)?;
            let last = page.len() < READ;
            for (key, record) in page {
                if full(self.operations.len(), values, value_bytes, entry_bytes) {
                    break 'all false;
                }
                behind = key.user_bytes();
                (values, built, value_bytes) = (values + 1, built + 1, value_bytes + record.value.len());
                let json = text(view, &record)?;
                let entries = entries_of(namespace, json.as_deref().and_then(|json| std::str::from_utf8(json).ok()));
                if record.entries != entries {
                    entry_bytes += entries.iter().map(|entry| entry.key.len()).sum::<usize>();
                    self.compares.push(Compare::written_at(key.clone(), record.mod_revision));
                    self.operations.push(Operation::Reindex { key, entries });
                }
            }
            if last {
                break true;
            }
            start = successor(&behind);
        };
        self.finish(&name, index, built, (!ended).then_some(behind));
        Ok(())
    }

    fn finish(&mut self, namespace: &str, index: &Definition, built: u64, behind: Option<Bytes>) {
        tracing::debug!(namespace, index = index.name, built, done = behind.is_none(), "building an index");
        self.operations.push(index.set_progress(namespace, built, behind));
    }
}
