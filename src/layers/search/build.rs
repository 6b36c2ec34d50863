//! Builds indexes: enters the records that were there before them.
//!
//! A step goes through a bounded part of the records, in the order of their keys, and makes one transaction: entries of
//! those that lack some, and how far it has come. It holds only if what has the index, the progress and each of these records
//! are as they were seen, so it does not matter who makes it, or how often: another leader goes on where the last one was.
//!
//! *Why this ends while others write*: whatever is written after the index was created has its entries, so a record that
//! made a step fail is not in the next one. Steps that fail get smaller all the same, so that few records are gone through
//! in vain.

use std::marker::PhantomData;

use bytes::Bytes;

use super::super::list::successor;
use crate::{
    Result,
    error::Fault,
    model::{
        Entry, Key, Record, ScopeId,
        transaction::{Compare, Operation, Transaction},
    },
    state::{
        View,
        sweep::{Sight, Step, Sweep},
    },
};

/// Between two looks whether there is something to do.
const REST_MS: u64 = 1_000;
/// Indexes that are looked at together.
const PAGE: usize = 64;
/// Records that are read at once.
const READ: usize = 32;
/// Records of a step, of which so many get entries.
const RECORDS: usize = 2_048;
const ENTERED: usize = 256;
/// Bytes of records and of entries that a step takes; the last may be above it.
const RECORD_BYTES: usize = 8 << 20;
const ENTRY_BYTES: usize = 1 << 20;

/// How far an index is that is not built.
pub(in crate::layers) struct Unfinished {
    /// What has the index.
    pub(in crate::layers) home: String,
    /// Records that were gone through.
    pub(in crate::layers) built: u64,
    /// The key of the last of them; empty: none was.
    pub(in crate::layers) behind: Bytes,
}

/// An index that a record cannot be in.
pub(in crate::layers) struct Unfit {
    /// Where its progress stands.
    pub(in crate::layers) progress: Key,
    /// Why not.
    pub(in crate::layers) why: String,
}

/// What has indexes: a namespace, a collection.
pub(in crate::layers) trait Indexed: Sized {
    /// Where it stands how far each index is built.
    const PROGRESS: ScopeId;

    /// How far an index is; `None`: it is built, or given up.
    fn unfinished(view: &View, key: &Key, record: &Record) -> Result<Option<Unfinished>>;
    /// What has the index whose progress stands under this key.
    fn find(view: &View, key: &Key, home: &str) -> Result<Option<Self>>;
    /// That it is as it was seen.
    fn guard(&self) -> Compare;
    /// Where its records stand.
    fn records(&self) -> ScopeId;
    /// What a record enters, into all of its indexes; or which of these it cannot be in.
    fn entries(&self, view: &View, key: &Key, record: &Record) -> Result<std::result::Result<Vec<Entry>, Unfit>>;
    /// What gives an index up.
    fn give_up(&self, view: &View, unfit: Unfit) -> Result<(Vec<Compare>, Vec<Operation>)>;
    /// What notes how far the index under `progress` is.
    fn note(&self, progress: &Key, built: u64, behind: Option<Bytes>) -> Operation;
}

/// Goes from index to index, as long as there is one that is not built.
#[derive(Debug)]
pub struct Build<H> {
    /// The last change of any index when all were built.
    idle: Option<u64>,
    /// Most records that the next step enters.
    entered: usize,
    homes: PhantomData<fn() -> H>,
}

impl<H> Default for Build<H> {
    fn default() -> Self {
        Self { idle: None, entered: ENTERED, homes: PhantomData }
    }
}

impl<H: Indexed> Sweep for Build<H> {
    fn step(&mut self, sight: &Sight<'_>) -> Result<Step> {
        let changed = (sight.account)(H::PROGRESS).last_revision;
        if self.idle == Some(changed) {
            return Ok(Step::Rest(REST_MS));
        }
        let view = (sight.view)()?;
        let Some((key, unfinished, revision)) = first_unfinished::<H>(&view)? else {
            // A change that the view does not show is looked at the next time.
            self.idle = (changed <= view.revision()).then_some(changed);
            return Ok(Step::Rest(REST_MS));
        };
        let entered = self.entered;
        self.entered = (entered * 2).min(ENTERED);
        let mut part = Part { compares: vec![Compare::written_at(key.clone(), revision)], operations: vec![] };
        part.fill::<H>(&view, &key, unfinished, entered)?;
        Ok(Step::Propose(part.compares, Transaction::blind(part.operations)))
    }

    fn begin_anew(&mut self) {
        self.idle = None;
        self.entered = (self.entered / 4).max(1);
    }
}

/// The first index that is not built, where its progress stands, and the revision of that.
fn first_unfinished<H: Indexed>(view: &View) -> Result<Option<(Key, Unfinished, u64)>> {
    let mut start = Vec::new();
    loop {
        let page = view.records(H::PROGRESS, &start, None, PAGE)?;
        let ended = page.len() < PAGE;
        for (key, record) in page {
            if let Some(unfinished) = H::unfinished(view, &key, &record)? {
                return Ok(Some((key, unfinished, record.mod_revision)));
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
    fn fill<H: Indexed>(&mut self, view: &View, progress: &Key, unfinished: Unfinished, most: usize) -> Result<()> {
        let Unfinished { home: name, mut built, mut behind } = unfinished;
        // Both go in one transaction.
        let Some(home) = H::find(view, progress, &name)? else {
            return Err(view.fault(Fault::bug(format!("the record {progress} is of no index"))));
        };
        self.compares.push(home.guard());
        let mut start = if behind.is_empty() { vec![] } else { successor(&behind) };
        let (mut records, mut record_bytes, mut entry_bytes) = (0, 0, 0);
        let full = |operations: usize, records: usize, record_bytes: usize, entry_bytes: usize| {
            operations >= most || records >= RECORDS || record_bytes >= RECORD_BYTES || entry_bytes >= ENTRY_BYTES
        };
        let ended = 'all: loop {
            let page = view.records(home.records(), &start, None, READ)?;
            let last = page.len() < READ;
            for (key, record) in page {
                if full(self.operations.len(), records, record_bytes, entry_bytes) {
                    break 'all false;
                }
                behind = key.user_bytes();
                (records, built, record_bytes) = (records + 1, built + 1, record_bytes + record.value.len());
                let entries = match home.entries(view, &key, &record)? {
                    Ok(entries) => entries,
                    Err(unfit) => {
                        let (compares, operations) = home.give_up(view, unfit)?;
                        self.compares.extend(compares);
                        self.operations = operations;
                        return Ok(());
                    }
                };
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
        tracing::debug!(home = name, built, done = ended, "building an index");
        self.operations.push(home.note(progress, built, (!ended).then_some(behind)));
        Ok(())
    }
}
