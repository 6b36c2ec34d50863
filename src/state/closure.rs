//! Deletion with what cascades from it.

use std::collections::{BTreeSet, VecDeque};

use super::{base::Base, constants::DELETES, derived, overlay::Overlay, overlay::Stop};
use crate::{
    error::Fault,
    model::{Key, ReferenceMode, Refusal, key},
};

/// What goes when a record goes.
pub(super) struct Closure {
    /// The record and all that cascade from it, breadth first; cycles are fine.
    pub(super) keys: Vec<Key>,
    /// Whether there would be more than one transaction may delete; `keys` is then only the beginning.
    pub(super) too_many: bool,
}

impl<B: Base> Overlay<'_, B> {
    /// Who references a record, of the scopes that exist.
    pub(super) fn referrers(&self, target: &Key, limit: usize) -> Result<Vec<(Key, ReferenceMode)>, Fault> {
        let prefix = derived::referrers_prefix(target);
        let end = key::prefix_end(&prefix);
        let mut found = Vec::new();
        let mut start = prefix.clone();
        loop {
            let page = self.pairs_in(&start, end.as_deref(), limit.max(1))?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            let mut next = last.to_vec();
            next.push(0);
            for (pair_key, value) in &page {
                let (referrer, mode) = derived::parse_referrer(pair_key, value, prefix.len())
                    .ok_or_else(|| Fault::new(format!("a referrer of {target} is malformed")))?;
                if self.is_live(referrer.scope()) {
                    found.push((referrer, mode));
                }
                if found.len() >= limit {
                    return Ok(found);
                }
            }
            if page.len() < limit.max(1) {
                return Ok(found);
            }
            start = next.into();
        }
    }

    /// What would go with a record that exists.
    pub(super) fn closure(&self, root: &Key) -> Result<Closure, Fault> {
        let mut seen = BTreeSet::from([root.clone()]);
        let mut keys = Vec::new();
        let mut queue = VecDeque::from([root.clone()]);
        while let Some(next) = queue.pop_front() {
            for (referrer, mode) in self.referrers(&next, DELETES + 1)? {
                if mode == ReferenceMode::Cascade && seen.insert(referrer.clone()) {
                    queue.push_back(referrer);
                }
            }
            keys.push(next);
            if self.deleted + keys.len() + queue.len() > DELETES {
                keys.extend(queue);
                keys.truncate(DELETES + 1);
                return Ok(Closure { keys, too_many: true });
            }
        }
        Ok(Closure { keys, too_many: false })
    }

    /// Deletes a record and what cascades from it: how many went.
    pub(super) fn delete(&mut self, root: &Key) -> Result<u64, Stop> {
        if self.touched.get(root).is_some_and(|touched| touched.new.is_some()) {
            return Err(Refusal::KeyWrittenTwice(root.clone()).into());
        }
        if self.record(root)?.is_none() {
            return Ok(0);
        }
        let closure = self.closure(root)?;
        if closure.too_many {
            return Err(Refusal::TooManyReferrers(root.clone()).into());
        }
        self.delete_all(&closure.keys)
    }

    pub(super) fn delete_all(&mut self, keys: &[Key]) -> Result<u64, Stop> {
        for gone in keys {
            self.replace(gone, None, true)?;
            self.deleted += 1;
        }
        Ok(keys.len() as u64)
    }
}
