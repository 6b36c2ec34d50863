//! What layers read: records and index entries of one revision.

use std::sync::Arc;

use bytes::Bytes;

use super::{derived, stored};
use crate::{
    error::{Fault, Result},
    model::{
        Key, Record, ScopeId,
        key::{self, PREFIX_BYTES},
        keyspace,
    },
};

/// Where a view's bytes come from. A source that meets a fault reports it to its node and answers
/// `Unavailable`.
pub trait Source: Send + Sync {
    /// The stored value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
    /// Up to `limit` stored pairs with `start <= key < end`, in order.
    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>>;
    /// Reports a fault, and answers what the reader is told.
    fn fault(&self, fault: Fault) -> crate::Error;

    /// That somebody still waits for what is read. Errors: `DeadlineExceeded`.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The same without what is not committed; `None` if nothing of that is in it.
    fn committed(&self) -> Option<Arc<dyn Source>> {
        None
    }
}

/// All records as of one revision. Clones read the same.
#[derive(Clone)]
pub struct View {
    revision: u64,
    source: Arc<dyn Source>,
}

/// One entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The key in the index.
    pub entry_key: Vec<u8>,
    /// The record that owns it.
    pub record_key: Key,
    /// The whole position in the index; `after` a page this is where the next begins.
    pub position: Bytes,
    /// What the record put there.
    pub payload: Bytes,
}

/// More than the history of a record ever holds: versions, and deletions between them.
const VERSIONS: usize = 2 * super::constants::HISTORY as usize + 2;

/// What the history of a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// The record as it was.
    Record(Record),
    /// It was deleted.
    Deleted {
        /// The revision that deleted it.
        revision: u64,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
}

impl Version {
    /// The revision that wrote it.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Record(record) => record.mod_revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }

    /// The record as it was, if it is not a deletion.
    pub fn record(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Deleted { .. } => None,
        }
    }
}

/// The bytes of a view, for another view that shows more than it.
impl Source for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.source.get(key)
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.source.range(start, end, limit)
    }

    fn fault(&self, fault: Fault) -> crate::Error {
        self.source.fault(fault)
    }

    fn check(&self) -> Result<()> {
        self.source.check()
    }

    fn committed(&self) -> Option<Arc<dyn Source>> {
        self.source.committed()
    }
}

impl View {
    /// A view of `source`, which shows `revision`.
    pub fn new(revision: u64, source: Box<dyn Source>) -> Self {
        Self { revision, source: source.into() }
    }

    /// The one revision that everything read here shows.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The same revision without what a transaction has written and not committed.
    #[must_use]
    pub fn committed(&self) -> Self {
        match self.source.committed() {
            Some(source) => Self { revision: self.revision, source },
            None => self.clone(),
        }
    }

    /// Whether it shows a transaction, of which something may not be committed.
    pub fn is_uncommitted(&self) -> bool {
        self.source.committed().is_some()
    }

    /// That somebody still waits for what is read: asked now and then where much is computed between two reads.
    ///
    /// Errors: `DeadlineExceeded`.
    pub fn check(&self) -> Result<()> {
        self.source.check()
    }

    /// The record of a key.
    pub fn record(&self, key: &Key) -> Result<Option<Record>> {
        let Some(stored) = self.source.get(key.as_bytes())? else { return Ok(None) };
        stored::decode(key.as_bytes(), &stored).map(Some).map_err(|fault| self.source.fault(fault))
    }

    /// Up to `limit` records of a scope whose user bytes are in `start..end` (`None`: to the scope's end).
    pub fn records(
        &self,
        scope: ScopeId,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Key, Record)>> {
        let mut records = Vec::new();
        for (key, stored) in self.pairs(scope, start, end, limit)? {
            let record = stored::decode(&key, &stored).map_err(|fault| self.source.fault(fault))?;
            let key = Key::from_bytes(key).ok_or_else(|| self.source.fault(Fault::bug("a key without a scope")))?;
            records.push((key, record));
        }
        Ok(records)
    }

    /// Up to `limit` entries of an index whose positions are in `start..end` (`None`: to its end). A
    /// position is the escaped entry key followed by the record key; see [`key::escape`].
    pub fn entries(&self, index: u32, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<IndexEntry>> {
        let malformed = || self.source.fault(Fault::new(format!("index {index} holds a malformed entry")));
        let mut entries = Vec::new();
        for (key, payload) in self.pairs(ScopeId::new(keyspace::ENTRIES, index), start, end, limit)? {
            let position = key.slice(PREFIX_BYTES.min(key.len())..);
            let (entry_key, record_key) = key::unescape(&position).ok_or_else(malformed)?;
            let record_key = Key::from_bytes(position.slice_ref(record_key)).ok_or_else(malformed)?;
            entries.push(IndexEntry { entry_key, record_key, position: position.clone(), payload });
        }
        Ok(entries)
    }

    /// The older versions of a record that its scope keeps, oldest first.
    pub fn versions(&self, key: &Key) -> Result<Vec<Version>> {
        let prefix = derived::history_prefix(key);
        let stored = self.source.range(&prefix, key::prefix_end(&prefix).as_deref(), VERSIONS)?;
        let mut versions = Vec::with_capacity(stored.len());
        for (pair_key, bytes) in stored {
            let record = stored::decode(&pair_key, &bytes).map_err(|fault| self.source.fault(fault))?;
            versions.push(match derived::is_deletion(&record) {
                true => Version::Deleted { revision: record.mod_revision, at_ms: record.updated_at_ms },
                false => Version::Record(record),
            });
        }
        Ok(versions)
    }

    /// Up to `limit` keys of records that reference a record, those of dropped scopes among them.
    pub fn referrers(&self, target: &Key, limit: usize) -> Result<Vec<Key>> {
        let malformed = || self.source.fault(Fault::new(format!("a referrer of {target} is malformed")));
        let prefix = derived::referrers_prefix(target);
        let pairs = self.source.range(&prefix, key::prefix_end(&prefix).as_deref(), limit)?;
        let parse = |(pair_key, value): (Bytes, Bytes)| derived::parse_referrer(&pair_key, &value, prefix.len());
        pairs.into_iter().map(|pair| parse(pair).map(|(key, _)| key).ok_or_else(malformed)).collect()
    }

    /// The record that owns a unique entry.
    pub fn owner(&self, index: u32, entry_key: &[u8]) -> Result<Option<Key>> {
        let Some(slot) = self.source.get(&derived::unique_slot(index, entry_key))? else { return Ok(None) };
        let malformed = || self.source.fault(Fault::new(format!("unique index {index} holds a malformed entry")));
        derived::parse_unique_owner(&slot).ok_or_else(malformed).map(Some)
    }

    /// Reports that what is stored cannot be, and answers what the reader is told.
    pub fn fault(&self, fault: Fault) -> crate::Error {
        self.source.fault(fault)
    }

    fn pairs(&self, scope: ScopeId, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let start = scope.key(start);
        let end = match end {
            Some(end) => Some(scope.key(end).as_bytes().clone()),
            None => key::prefix_end(&scope.prefix()),
        };
        // Sources may rely on it: an ordered map refuses a range that ends before it starts.
        if limit == 0 || end.as_ref().is_some_and(|end| end <= start.as_bytes()) {
            return Ok(Vec::new());
        }
        self.source.range(start.as_bytes(), end.as_deref(), limit)
    }
}
