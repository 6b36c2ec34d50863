//! A transaction in the making: what it has written so far, over the state before it. Dropped as a whole
//! if the transaction is refused.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use super::{
    base::Base,
    constants::HISTORY,
    derived,
    meta::Meta,
    scope::{self, Delta, Scope},
    stored,
};
use crate::{
    error::Fault,
    model::{Key, Record, Refusal, ScopeId, key, keyspace},
};

/// Pairs that are read from the base at a time where their number is not known, or their values may be large.
const PAGE: usize = 64;

/// Why a transaction ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The state forbids it.
    Refused(Refusal),
    /// The node is broken.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A record that the transaction has written or deleted.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    /// The record before.
    pub(super) old: Option<Record>,
    /// The record from now on.
    pub(super) new: Option<Record>,
    /// Whether readers see a change (`Reindex` and a put-off expiry are not seen).
    pub(super) visible: bool,
}

/// A unique entry that a record took from another, which must let it go before the end.
#[derive(Clone, Debug)]
pub(super) struct Displaced {
    /// The index.
    pub(super) index: u32,
    /// The entry key.
    pub(super) entry_key: Bytes,
    /// Whose it was.
    pub(super) owner: Key,
}

/// What a transaction has written so far.
pub(super) struct Overlay<'a, B> {
    pub(super) meta: &'a Meta,
    pub(super) base: &'a B,
    /// The revision that it makes.
    pub(super) revision: u64,
    pub(super) wall_ms: u64,
    pub(super) pairs: BTreeMap<Bytes, Option<Bytes>>,
    pub(super) touched: BTreeMap<Key, Touched>,
    pub(super) deltas: BTreeMap<ScopeId, Delta>,
    pub(super) links: BTreeMap<(ScopeId, ScopeId), i64>,
    pub(super) scopes: BTreeMap<ScopeId, Option<Scope>>,
    pub(super) last_scope: u32,
    pub(super) displaced: Vec<Displaced>,
    /// Records deleted.
    pub(super) deleted: usize,
    /// Bytes of the records replaced and deleted.
    pub(super) replaced_bytes: usize,
    /// Bytes answered.
    pub(super) answered_bytes: usize,
    pub(super) stamped: u32,
}

impl<'a, B: Base> Overlay<'a, B> {
    pub(super) fn new(meta: &'a Meta, base: &'a B, wall_ms: u64) -> Self {
        Self {
            meta,
            base,
            revision: meta.revision + 1,
            wall_ms,
            pairs: BTreeMap::new(),
            touched: BTreeMap::new(),
            deltas: BTreeMap::new(),
            links: BTreeMap::new(),
            scopes: BTreeMap::new(),
            last_scope: meta.last_scope,
            displaced: Vec::new(),
            deleted: 0,
            replaced_bytes: 0,
            answered_bytes: 0,
            stamped: 0,
        }
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.pairs.is_empty() || !self.scopes.is_empty()
    }

    pub(super) fn scope(&self, scope: ScopeId) -> Option<Scope> {
        match self.scopes.get(&scope) {
            Some(changed) => *changed,
            None => match self.meta.scopes.get(&scope) {
                Some(scope) => Some(*scope),
                None => scope::is_permanent(scope).then(Scope::default),
            },
        }
    }

    pub(super) fn is_live(&self, scope: ScopeId) -> bool {
        self.scope(scope).is_some()
    }

    pub(super) fn pair(&self, pair_key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.pairs.get(pair_key) {
            Some(pending) => Ok(pending.clone()),
            None => self.base.get(pair_key),
        }
    }

    /// Up to `limit` pairs in `start..end`, as they stand now.
    pub(super) fn pairs_in(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        merged(&self.pairs, (start, end), limit, |start, end, limit| self.base.range(start, end, limit))
    }

    /// Shows up to `limit` pairs in `start..end`, as they stand now, until `visit` answers false. Few are in
    /// memory at a time.
    pub(super) fn scan<E: From<Fault>>(
        &self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        mut visit: impl FnMut(Bytes, Bytes) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (mut from, mut left) = (Bytes::copy_from_slice(start), limit);
        while left > 0 {
            let asked = left.min(PAGE);
            let page = self.pairs_in(&from, Some(end), asked)?;
            left = if page.len() < asked { 0 } else { left - asked };
            if let Some((last, _)) = page.last() {
                from = behind(last);
            }
            for (key, value) in page {
                if !visit(key, value)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A record as it stands now. Records of dropped scopes do not exist, and derived pairs are no records.
    pub(super) fn record(&self, record_key: &Key) -> Result<Option<Record>, Fault> {
        if let Some(touched) = self.touched.get(record_key) {
            return Ok(touched.new.clone());
        }
        let Some(bytes) = self.untouched(record_key)? else { return Ok(None) };
        stored::decode(record_key.as_bytes(), &bytes).map(Some)
    }

    /// Whether a record exists now: as [`Overlay::record`], without the cost of looking into it.
    pub(super) fn exists(&self, record_key: &Key) -> Result<bool, Fault> {
        match self.touched.get(record_key) {
            Some(touched) => Ok(touched.new.is_some()),
            None => Ok(self.untouched(record_key)?.is_some()),
        }
    }

    fn untouched(&self, record_key: &Key) -> Result<Option<Bytes>, Fault> {
        let scope = record_key.scope();
        if is_record_keyspace(scope.keyspace) && self.is_live(scope) {
            self.base.get(record_key.as_bytes())
        } else {
            Ok(None)
        }
    }

    /// Replaces a record, which the caller has read, with all that is derived from it.
    pub(super) fn replace(
        &mut self,
        record_key: &Key,
        old: Option<Record>,
        new: Option<Record>,
        visible: bool,
    ) -> Result<(), Stop> {
        if self.touched.contains_key(record_key) {
            return Err(Refusal::KeyWrittenTwice(record_key.clone()).into());
        }
        // An index that was dropped stays dropped, its entries are let go; one that was never created may still
        // come to be, and would then miss what was not entered.
        for entry in new.iter().flat_map(|record| &record.entries) {
            if entry.scope > self.last_scope {
                let keyspace = if entry.unique { keyspace::UNIQUE } else { keyspace::ENTRIES };
                return Err(Refusal::NoSuchScope(ScopeId::new(keyspace, entry.scope)).into());
            }
        }
        if visible {
            self.keep_history(record_key, old.as_ref(), new.is_none())?;
        }
        self.replace_derived(record_key, old.as_ref(), new.as_ref())?;
        self.replace_unique(record_key, old.as_ref(), new.as_ref())?;
        let delta = self.deltas.entry(record_key.scope()).or_default();
        if let Some(old) = &old {
            self.replaced_bytes += scope::answer_bytes(record_key.as_bytes(), old);
            delta.subtract(scope::weigh_record(record_key.as_bytes(), old));
        }
        if let Some(new) = &new {
            delta.add(scope::weigh_record(record_key.as_bytes(), new));
        }
        delta.visible |= visible;
        let (stored, new) = new.map(stored::encode_shared).unzip();
        self.pairs.insert(record_key.as_bytes().clone(), stored);
        self.touched.insert(record_key.clone(), Touched { old, new, visible });
        Ok(())
    }

    fn replace_derived(&mut self, record_key: &Key, old: Option<&Record>, new: Option<&Record>) -> Result<(), Fault> {
        for reference in new.iter().flat_map(|record| &record.references) {
            self.open_home(reference.key.scope(), derived::referrers_scope(reference.key.scope()));
        }
        let before = old.map(|record| derived::pairs(record_key, record)).unwrap_or_default();
        let after = new.map(|record| derived::pairs(record_key, record)).unwrap_or_default();
        for (pair_key, value) in before.iter().filter(|(pair_key, value)| after.get(*pair_key) != Some(value)) {
            self.set_derived(pair_key, Some(value), None);
        }
        for (pair_key, value) in after.iter().filter(|(pair_key, value)| before.get(*pair_key) != Some(value)) {
            self.set_derived(pair_key, None, Some(value));
        }
        let from = record_key.scope();
        for (references, step) in
            [(old.map(|record| &record.references), -1), (new.map(|record| &record.references), 1)]
        {
            let mut targets: Vec<&Key> = references.into_iter().flatten().map(|reference| &reference.key).collect();
            targets.sort_unstable();
            targets.dedup();
            for target in targets.into_iter().filter(|target| target.scope() != from) {
                *self.links.entry((from, target.scope())).or_default() += step;
            }
        }
        Ok(())
    }

    /// Writes or removes one derived pair, and accounts for it. A pair whose index was dropped is not written.
    pub(super) fn set_derived(&mut self, pair_key: &Bytes, old: Option<&Bytes>, new: Option<&Bytes>) {
        let Some(scope) = key::scope_of(pair_key) else { return };
        if !self.is_live(scope) {
            return;
        }
        let delta = self.deltas.entry(scope).or_default();
        if let Some(old) = old {
            delta.subtract(scope::weigh_derived(pair_key, old));
        }
        if let Some(new) = new {
            delta.add(scope::weigh_derived(pair_key, new));
        }
        delta.visible = true;
        self.pairs.insert(pair_key.clone(), new.cloned());
    }

    fn replace_unique(&mut self, record_key: &Key, old: Option<&Record>, new: Option<&Record>) -> Result<(), Stop> {
        for entry in old.iter().flat_map(|record| &record.entries).filter(|entry| entry.unique) {
            let slot = derived::unique_slot(entry.scope, &entry.key);
            let Some(value) = self.pair(&slot)? else { continue };
            if derived::parse_unique_owner(&value).as_ref() == Some(record_key) {
                self.set_derived(&slot, Some(&value), None);
            }
        }
        for entry in new.iter().flat_map(|record| &record.entries).filter(|entry| entry.unique) {
            if !self.is_live(ScopeId::new(keyspace::UNIQUE, entry.scope)) {
                continue;
            }
            let slot = derived::unique_slot(entry.scope, &entry.key);
            let before = self.pair(&slot)?;
            let owner = before.as_ref().and_then(derived::parse_unique_owner);
            if let Some(owner) = owner.filter(|owner| owner != record_key) {
                self.displaced.push(Displaced { index: entry.scope, entry_key: entry.key.clone(), owner });
            }
            let value = derived::unique_value(record_key, &entry.payload);
            self.set_derived(&slot, before.as_ref(), Some(&value));
        }
        Ok(())
    }

    /// Keeps the version that is being replaced, if its scope keeps history, and that it is deleted if it is; drops the
    /// oldest over the bound. Deletions count for nothing, and none is kept without the version that it ended.
    fn keep_history(&mut self, record_key: &Key, old: Option<&Record>, deleted: bool) -> Result<(), Fault> {
        let (Some(old), Some(scope)) = (old, self.scope(record_key.scope())) else { return Ok(()) };
        let keep = scope.settings.history.min(HISTORY) as usize;
        let home = derived::history_scope(record_key.scope());
        let kept_before = self.scope(home).is_some_and(|home| home.account.count > 0);
        if keep == 0 && !kept_before {
            return Ok(());
        }
        self.open_home(record_key.scope(), home);
        self.set_history(&derived::history(record_key, old.mod_revision), None, Some(old))?;
        if deleted {
            let deletion = derived::deletion(self.revision, self.wall_ms);
            self.set_history(&derived::history(record_key, self.revision), None, Some(&deletion))?;
        }
        let prefix = derived::history_prefix(record_key);
        let most = 2 * (HISTORY as usize + 1);
        let pairs = self.pairs_in(&prefix, key::prefix_end(&prefix).as_deref(), most)?;
        let all = pairs.into_iter().map(|(pair_key, bytes)| Ok((stored::decode(&pair_key, &bytes)?, pair_key)));
        let all = all.collect::<Result<Vec<_>, Fault>>()?;
        let mut excess = all.iter().filter(|(version, _)| !derived::is_deletion(version)).count().saturating_sub(keep);
        for (version, pair_key) in &all {
            if derived::is_deletion(version) {
                self.set_history(pair_key, Some(version), None)?;
            } else if excess > 0 {
                excess -= 1;
                self.set_history(pair_key, Some(version), None)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Creates the scope of what is derived from the records of a scope that exists, and goes with it.
    fn open_home(&mut self, of: ScopeId, home: ScopeId) {
        if !self.is_live(home)
            && let Some(scope) = self.scope(of)
        {
            self.scopes.insert(home, Some(Scope { incarnation: scope.incarnation, ..Scope::default() }));
        }
    }

    fn set_history(&mut self, pair_key: &Bytes, old: Option<&Record>, new: Option<&Record>) -> Result<(), Fault> {
        let scope = key::scope_of(pair_key).ok_or_else(|| Fault::bug("a history key without a scope"))?;
        let delta = self.deltas.entry(scope).or_default();
        if let Some(old) = old {
            delta.subtract(scope::weigh_record(pair_key, old));
        }
        if let Some(new) = new {
            delta.add(scope::weigh_record(pair_key, new));
        }
        delta.visible = true;
        self.pairs.insert(pair_key.clone(), new.map(stored::encode));
        Ok(())
    }
}

/// Up to `limit` pairs in `start..end`: what `range` answers of the state before, with what is pending over it.
pub(super) fn merged<E>(
    pending: &BTreeMap<Bytes, Option<Bytes>>,
    (start, end): (&[u8], Option<&[u8]>),
    limit: usize,
    mut range: impl FnMut(&[u8], Option<&[u8]>, usize) -> Result<Vec<(Bytes, Bytes)>, E>,
) -> Result<Vec<(Bytes, Bytes)>, E> {
    if limit == 0 || end.is_some_and(|end| end <= start) {
        return Ok(Vec::new());
    }
    let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
    let mut pending = pending.range::<[u8], _>((Bound::Included(start), upper)).peekable();
    if pending.peek().is_none() {
        return range(start, end, limit);
    }
    // Both sides are walked no further than the answer reaches: a transaction may ask often while much is pending.
    let mut found = Vec::new();
    let mut from = Bytes::copy_from_slice(start);
    loop {
        let page = range(&from, end, limit.max(PAGE))?;
        let next = page.last().filter(|_| page.len() >= limit.max(PAGE)).map(|(key, _)| behind(key));
        for (key, value) in page {
            while let Some((earlier, value)) = pending.next_if(|(pending, _)| **pending < key) {
                found.extend(value.clone().map(|value| (earlier.clone(), value)));
            }
            match pending.next_if(|(pending, _)| **pending == key) {
                Some((_, newer)) => found.extend(newer.clone().map(|newer| (key, newer))),
                None => found.push((key, value)),
            }
            if found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
        let Some(next) = next else { break };
        from = next;
    }
    let rest = pending.filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    let missing = limit.saturating_sub(found.len());
    found.extend(rest.take(missing));
    Ok(found)
}

/// The first key behind a key.
pub(super) fn behind(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Whether transactions write records there.
pub(super) fn is_record_keyspace(keyspace: keyspace::Keyspace) -> bool {
    (keyspace::FIRST_RECORD..=keyspace::LAST_RECORD).contains(&keyspace)
}
