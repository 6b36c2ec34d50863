//! Reading one revision of everything.
//!
//! The order in which a reader looks makes it right without any lock:
//!
//! 1. *The memtables, taken before the index is read*: a table leaves the list only when the index holds
//!    what it said. Versions above the reader's revision are passed over.
//! 2. *The index.*
//! 3. *The undo tables, taken after the index was read*: a merge keeps what the index says of a key before it
//!    changes it, so a reader who saw the change finds it undone here. The oldest undo table above
//!    the reader's revision decides: it holds what the index said before the first merge that the reader must not see.
//! 4. *Whether the view is still open*: what a view needs is dropped only after it was ended, so a view that
//!    is open after the read has missed nothing.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, vec};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::{
    engine::{Page, Pair},
    merge::Merge,
    tables::Tables,
};
use crate::error::Fault;

/// Pairs that are asked of the index at once.
const PAGE_MIN: usize = 16;
/// See [`PAGE_MIN`].
const PAGE_MAX: usize = 512;

/// What the writer reads at: everything that was written, and no merge has ever to be undone.
pub(super) const LATEST: u64 = u64::MAX;

/// The value of a key at a revision.
pub(super) fn get(tables: &ArcSwap<Tables>, key: &[u8], revision: u64) -> Result<Option<Bytes>, Fault> {
    let before = tables.load();
    if let Some(version) = before.in_memory(key, revision) {
        return Ok(version);
    }
    let indexed = before.index.engine.get(key)?;
    Ok(tables.load().undone(key, revision).unwrap_or(indexed))
}

/// Up to `limit` pairs with `start <= key < end` at a revision, in order.
pub(super) fn range(
    tables: &ArcSwap<Tables>,
    start: &[u8],
    end: Option<&[u8]>,
    limit: usize,
    revision: u64,
) -> Result<Vec<(Bytes, Bytes)>, Fault> {
    let mut found = Vec::new();
    if limit == 0 || end.is_some_and(|end| end <= start) {
        return Ok(found);
    }
    let before = tables.load_full();
    let mut sources: Vec<Box<dyn Iterator<Item = Result<Pair, Fault>> + '_>> = Vec::new();
    for table in before.memtables(revision).filter(|table| !table.is_empty()) {
        sources.push(Box::new(table.scan(Bound::Included(start), end, revision).map(Ok)));
    }
    sources.push(Box::new(Indexed {
        tables,
        before: before.clone(),
        next: Some(Bytes::copy_from_slice(start)),
        end: end.map(Bytes::copy_from_slice),
        revision,
        page: Vec::new().into_iter(),
        page_limit: limit.clamp(PAGE_MIN, PAGE_MAX),
    }));
    for pair in Merge::new(sources) {
        if let (key, Some(value)) = pair? {
            found.push((key, value));
            if found.len() == limit {
                break;
            }
        }
    }
    Ok(found)
}

/// The index as it stood at a revision, page by page.
struct Indexed<'a> {
    tables: &'a ArcSwap<Tables>,
    before: Arc<Tables>,
    /// Where the next page begins; `None` when there is none.
    next: Option<Bytes>,
    end: Option<Bytes>,
    revision: u64,
    page: vec::IntoIter<(Bytes, Bytes)>,
    page_limit: usize,
}

impl Indexed<'_> {
    fn fill(&mut self, start: &Bytes) -> Result<(), Fault> {
        let Page { mut pairs, complete } =
            self.before.index.engine.range(start, self.end.as_deref(), self.page_limit)?;
        let behind = match pairs.last() {
            Some((last, _)) if !complete => Some(successor(last)),
            _ => None,
        };
        let upper = behind.as_ref().or(self.end.as_ref());
        let after = self.tables.load();
        // A key that the merges have removed is missing in the page and stands in an undo table, so the whole
        // stretch of keys is looked at, not the pairs. Newest first: the oldest has the last word.
        let mut undone = BTreeMap::new();
        for undo in after.undo.iter().rev().filter(|undo| undo.revision > self.revision) {
            undone.extend(undo.range(start, upper.map(|upper| &**upper)));
        }
        if !undone.is_empty() {
            let mut corrected: BTreeMap<Bytes, Bytes> = pairs.into_iter().collect();
            for (key, value) in undone {
                match value {
                    Some(value) => corrected.insert(key, value),
                    None => corrected.remove(&key),
                };
            }
            pairs = corrected.into_iter().collect();
        }
        self.page = pairs.into_iter();
        self.next = behind;
        Ok(())
    }
}

impl Iterator for Indexed<'_> {
    type Item = Result<Pair, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.page.next() {
                return Some(Ok((key, Some(value))));
            }
            let start = self.next.take()?;
            if let Err(fault) = self.fill(&start) {
                return Some(Err(fault));
            }
        }
    }
}

/// The first key behind `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
