//! The end of a transaction: the checks that wait for it, and taking effect.

use bytes::Bytes;

use super::{
    base::Base,
    change::{Change, Commit},
    meta::Meta,
    operation::may_have_scopes,
    overlay::{Displaced, Overlay, Stop},
    scope::{self, Scope},
};
use crate::model::{Entry, Key, Record, ReferenceMode, Refusal, ScopeId, keyspace};

/// What an overlay becomes when it takes effect: no longer borrows the state that it changes.
pub(super) struct Effect {
    pub(super) pairs: Vec<(Bytes, Option<Bytes>)>,
    pub(super) commit: Commit,
    scopes: Vec<(ScopeId, Option<Scope>)>,
    links: Vec<((ScopeId, ScopeId), i64)>,
    last_scope: u32,
}

impl<B: Base> Overlay<'_, B> {
    /// The checks that wait for the last operation: unique entries, references, scopes.
    pub(super) fn check(&self) -> Result<(), Stop> {
        for displaced in &self.displaced {
            let index = ScopeId::new(keyspace::UNIQUE, displaced.index);
            if self.is_live(index) && self.still_claims(displaced) {
                let Displaced { index, entry_key, owner } = displaced.clone();
                return Err(Refusal::UniqueTaken { scope: index, entry: entry_key, owner }.into());
            }
        }
        for (written, touched) in &self.touched {
            match &touched.new {
                Some(record) => self.check_references(written, record)?,
                None => self.check_referrers(written)?,
            }
        }
        self.check_scopes().map_err(Stop::Refused)
    }

    fn still_claims(&self, displaced: &Displaced) -> bool {
        let claims = |record: &Record| {
            let same =
                |entry: &Entry| entry.unique && entry.scope == displaced.index && entry.key == displaced.entry_key;
            record.entries.iter().any(same)
        };
        match self.touched.get(&displaced.owner) {
            Some(touched) => touched.new.as_ref().is_some_and(claims),
            // It owned the entry, and nothing was done to it; unless it went with its scope.
            None => self.is_live(displaced.owner.scope()),
        }
    }

    fn check_references(&self, referrer: &Key, record: &Record) -> Result<(), Stop> {
        for reference in &record.references {
            if !self.exists(&reference.key)? {
                let (referrer, missing) = (referrer.clone(), reference.key.clone());
                return Err(Refusal::MissingReference { referrer, missing }.into());
            }
        }
        Ok(())
    }

    fn check_referrers(&self, deleted: &Key) -> Result<(), Stop> {
        let key = deleted.clone();
        match self.referrers(deleted, 1)?.pop() {
            None => Ok(()),
            Some((referrer, ReferenceMode::Restrict)) => Err(Refusal::Restricted { key, referrer }.into()),
            Some((referrer, ReferenceMode::Cascade)) => {
                Err(Refusal::MissingReference { referrer, missing: key }.into())
            }
        }
    }

    fn check_scopes(&self) -> Result<(), Refusal> {
        if self.scopes.values().any(Option::is_none) {
            for ((from, to), count) in &self.meta.links {
                let count = count.saturating_add_signed(self.links.get(&(*from, *to)).copied().unwrap_or(0));
                if count > 0 && !self.is_live(*to) && self.is_live(*from) {
                    return Err(Refusal::ScopeReferenced(*to, *from));
                }
            }
        }
        for (id, delta) in &self.deltas {
            let Some(scope) = self.scope(*id) else { continue };
            let (settings, after) = (scope.settings, scope.account.changed(delta, self.revision));
            let over = |grew: bool, max: u64, now: u64| grew && max > 0 && now > max;
            if over(delta.count > 0, settings.max_keys, after.count)
                || over(delta.bytes > 0, settings.max_bytes, after.bytes)
            {
                return Err(Refusal::ScopeFull(*id));
            }
        }
        Ok(())
    }

    /// What this transaction does to the state.
    pub(super) fn into_effect(self) -> Effect {
        let mut scopes = Vec::new();
        for (id, changed) in &self.scopes {
            if !self.deltas.contains_key(id) {
                scopes.push((*id, *changed));
            }
        }
        for (id, delta) in &self.deltas {
            let after =
                self.scope(*id).map(|scope| Scope { account: scope.account.changed(delta, self.revision), ..scope });
            scopes.push((*id, after));
        }
        // The scope of older versions goes with the scope of the records: that is one event.
        let dropped = self
            .scopes
            .iter()
            .filter(|(id, scope)| scope.is_none() && self.meta.scopes.contains_key(id) && may_have_scopes(id.keyspace));
        let dropped: Vec<Change> = dropped.map(|(id, _)| Change::ScopeDropped { scope: *id }).collect();
        let seen = self.touched.into_iter().filter(|(_, touched)| touched.visible);
        let mut changes: Vec<Change> =
            seen.map(|(key, touched)| Change::Record { key, old: touched.old, new: touched.new }).collect();
        changes.extend(dropped);
        Effect {
            pairs: self.pairs.into_iter().collect(),
            commit: Commit { revision: self.revision, changes },
            scopes,
            links: self.links.into_iter().collect(),
            last_scope: self.last_scope,
        }
    }
}

impl Effect {
    /// Changes the state; the pairs are written by the caller.
    pub(super) fn apply_to(&self, meta: &mut Meta) {
        meta.revision = self.commit.revision;
        meta.last_scope = self.last_scope;
        for (pair, step) in &self.links {
            let count = meta.links.entry(*pair).or_default();
            *count = count.saturating_add_signed(*step);
            if *count == 0 {
                meta.links.remove(pair);
            }
        }
        for (id, scope) in &self.scopes {
            match scope {
                Some(scope) => {
                    meta.scopes.insert(*id, *scope);
                }
                None if scope::is_permanent(*id) => {}
                None => {
                    meta.scopes.remove(id);
                }
            }
        }
        if self.scopes.iter().any(|(_, scope)| scope.is_none()) {
            let Meta { links, scopes, .. } = meta;
            links.retain(|(from, _), _| scope::is_permanent(*from) || scopes.contains_key(from));
        }
    }
}
