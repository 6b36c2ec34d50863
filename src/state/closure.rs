//! Deletion with what cascades from it.

use std::collections::{BTreeSet, VecDeque};

use super::{base::Base, constants::DELETES, derived, overlay::Overlay, overlay::Stop};
use crate::{
    error::Fault,
    model::{Key, ReferenceMode, Refusal, key},
};

/// Referrers that are read at a time where one would do: those of dropped scopes are passed over.
const PAGE: usize = 64;

/// What goes when a record goes.
pub(super) struct Closure {
    /// The record and all that cascade from it, breadth first; cycles are fine.
    pub(super) keys: Vec<Key>,
    /// Whether there would be more than one transaction may delete; `keys` is then only the beginning.
    pub(super) too_many: bool,
    /// Who references one of them with `restrict`; of more than one transaction may delete only as many, and
    /// one.
    restricting: BTreeSet<Key>,
}

impl Closure {
    /// Whether a `restrict` reference from outside holds one of the records.
    pub(super) fn is_held(&self) -> bool {
        let going: BTreeSet<&Key> = self.keys.iter().collect();
        self.restricting.iter().any(|referrer| !going.contains(referrer))
    }
}

impl<B: Base> Overlay<'_, B> {
    /// Who references a record, of the scopes that exist.
    pub(super) fn referrers(&self, target: &Key, limit: usize) -> Result<Vec<(Key, ReferenceMode)>, Fault> {
        let prefix = derived::referrers_prefix(target);
        let end = key::prefix_end(&prefix);
        let mut found = Vec::new();
        let mut start = prefix.clone();
        loop {
            let asked = limit.max(PAGE);
            let page = self.pairs_in(&start, end.as_deref(), asked)?;
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
            if page.len() < asked {
                return Ok(found);
            }
            start = next.into();
        }
    }

    /// What would go with a record that exists.
    pub(super) fn closure(&self, root: &Key) -> Result<Closure, Fault> {
        let mut seen = BTreeSet::from([root.clone()]);
        let mut keys = Vec::new();
        let mut restricting = BTreeSet::new();
        let mut queue = VecDeque::from([root.clone()]);
        while let Some(next) = queue.pop_front() {
            for (referrer, mode) in self.referrers(&next, DELETES + 1)? {
                match mode {
                    ReferenceMode::Cascade if seen.insert(referrer.clone()) => queue.push_back(referrer),
                    ReferenceMode::Cascade => {}
                    // More than can go with the record cannot all be inside: one of them holds it, whichever.
                    ReferenceMode::Restrict if restricting.len() > DELETES => {}
                    ReferenceMode::Restrict => {
                        restricting.insert(referrer);
                    }
                }
            }
            keys.push(next);
            if self.deleted + keys.len() + queue.len() > DELETES {
                keys.extend(queue);
                keys.truncate(DELETES + 1);
                return Ok(Closure { keys, too_many: true, restricting });
            }
        }
        Ok(Closure { keys, too_many: false, restricting })
    }

    /// Deletes a record and what cascades from it: how many went.
    pub(super) fn delete(&mut self, root: &Key) -> Result<u64, Stop> {
        if self.touched.get(root).is_some_and(|touched| touched.new.is_some()) {
            return Err(Refusal::KeyWrittenTwice(root.clone()).into());
        }
        if !self.exists(root)? {
            return Ok(0);
        }
        let closure = self.closure(root)?;
        if closure.too_many {
            return Err(Refusal::TooManyReferrers(root.clone()).into());
        }
        for gone in &closure.keys {
            self.delete_one(gone)?;
            self.check_replaced()?;
        }
        Ok(closure.keys.len() as u64)
    }

    /// Deletes a record and nothing else.
    pub(super) fn delete_one(&mut self, gone: &Key) -> Result<(), Stop> {
        let old = self.record(gone)?;
        self.replace(gone, old, None, true)?;
        self.deleted += 1;
        Ok(())
    }
}
