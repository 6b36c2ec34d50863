//! Which views are open. They never block the flusher: what they need is kept for them, up to a bound,
//! beyond which the oldest are ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Shared by the views of one revision: whether they have been ended.
#[derive(Default)]
pub(super) struct Token(AtomicBool);

impl Token {
    pub(super) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn end(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The open views, by revision.
pub(super) struct Views {
    open: BTreeMap<u64, (usize, Arc<Token>)>,
    /// The oldest revision at which a view can be opened.
    oldest: u64,
}

impl Views {
    /// None are open, and none can be before `oldest`.
    pub(super) fn new(oldest: u64) -> Self {
        Self { open: BTreeMap::new(), oldest }
    }

    /// The oldest revision at which a view can be opened.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.values().map(|(count, _)| *count).sum()
    }

    /// Opens one; `None` if it is too old. Beside a view that is open another of the same revision can
    /// always be opened: what it needs is there.
    pub(super) fn open(&mut self, revision: u64) -> Option<Arc<Token>> {
        if revision < self.oldest && !self.open.contains_key(&revision) {
            return None;
        }
        let (count, token) = self.open.entry(revision).or_default();
        *count += 1;
        Some(token.clone())
    }

    /// Closes one: whether it was the last of its revision, and something may no longer be needed.
    pub(super) fn close(&mut self, revision: u64, token: &Arc<Token>) -> bool {
        let Some((count, current)) = self.open.get_mut(&revision) else { return false };
        // After an end the revision may have been opened anew, by others.
        if !Arc::ptr_eq(current, token) {
            return false;
        }
        *count -= 1;
        let last = *count == 0;
        if last {
            self.open.remove(&revision);
        }
        last && revision < self.oldest
    }

    /// From now on none can be opened before `revision`.
    pub(super) fn raise_oldest(&mut self, revision: u64) {
        self.oldest = self.oldest.max(revision);
    }

    /// From now on none can be opened before `revision`, or before the oldest that is open; which of them it is.
    pub(super) fn settle(&mut self, revision: u64) -> u64 {
        let open = self.open.first_key_value().map_or(u64::MAX, |(open, _)| *open);
        self.raise_oldest(revision.min(open));
        revision.min(open)
    }

    /// Whether one is open at `from..before`.
    pub(super) fn any_within(&self, from: u64, before: u64) -> bool {
        from < before && self.open.range(from..before).next().is_some()
    }

    /// Ends the views of the oldest revision, if that is below `before`: whether there were any.
    pub(super) fn end_oldest(&mut self, before: u64) -> bool {
        let Some((&revision, _)) = self.open.range(..before).next() else { return false };
        if let Some((_, token)) = self.open.remove(&revision) {
            token.end();
        }
        true
    }

    /// Ends all, and none can be opened before `oldest`.
    pub(super) fn end_all(&mut self, oldest: u64) {
        for (_, token) in std::mem::take(&mut self.open).into_values() {
            token.end();
        }
        self.oldest = oldest;
    }
}
