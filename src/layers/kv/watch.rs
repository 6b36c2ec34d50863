//! What is watched of a namespace.
//!
//! A namespace is watched by name. Where its values stand is said by its record, which is watched, too: when it is cleared, or
//! deleted and created anew, it has other scopes from that revision on, and the watch goes on in them.

use super::{
    check_key,
    namespace::{self, Namespace, check_name, record_key},
    open, with_attributes,
};
use crate::{
    Result,
    layers::watch::{Filter, Part},
    model::{
        Key, Record, ScopeId,
        keyspace::{self, NO_SCOPE},
        kv::Entry,
        watch::{Change, Keys, NamespaceEvent},
    },
    state::{self, Commit, View},
};

const NAMESPACES: ScopeId = ScopeId::new(keyspace::NAMESPACES, NO_SCOPE);

/// The values of a namespace, as of the revision to which the watch has come.
#[derive(Debug)]
pub(in crate::layers) struct Values {
    name: String,
    /// Of the namespace.
    record: Key,
    attributes: bool,
    now: Option<Namespace>,
}

/// One record of a transaction, before and after.
type Pair<'a> = (&'a Option<Record>, &'a Option<Record>);

impl Values {
    /// Errors: `InvalidArgument`.
    pub(in crate::layers) fn open(name: &str, keys: &Keys, attributes: bool) -> Result<Self> {
        if let Keys::One(key) = keys {
            check_key(key)?;
        }
        let name = check_name(name)?;
        Ok(Self { name: name.into(), record: record_key(name), attributes, now: None })
    }

    /// What says where the values stand.
    pub(in crate::layers) fn home(&self) -> ScopeId {
        NAMESPACES
    }

    pub(in crate::layers) fn scopes(&self) -> Vec<ScopeId> {
        let mut scopes = vec![NAMESPACES];
        scopes.extend(self.now.as_ref().map(Namespace::values));
        scopes.extend(self.now.as_ref().filter(|_| self.attributes).map(Namespace::attributes));
        scopes
    }

    /// Stands where a view shows.
    pub(in crate::layers) fn stand(&mut self, view: &View) -> Result<()> {
        self.now = Namespace::find(view, &self.name)?;
        Ok(())
    }

    /// Stands before a transaction, if that changes where the values stand: whether it does.
    pub(in crate::layers) fn stand_before(&mut self, view: &View, commit: &Commit) -> Result<bool> {
        for change in &commit.changes {
            if let state::Change::Record { key, old, .. } = change
                && *key == self.record
            {
                self.now = self.opened(view, old)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn opened(&self, view: &View, record: &Option<Record>) -> Result<Option<Namespace>> {
        record.clone().map(|record| namespace::open(view, &self.name, record)).transpose()
    }

    /// What a transaction changes, and stands behind it.
    pub(in crate::layers) fn changes(
        &mut self,
        view: &View,
        commit: &Commit,
        (filter, previous): (&Filter, bool),
    ) -> Result<Vec<Change>> {
        let (mut told, mut values) = (Vec::new(), 0);
        for change in &commit.changes {
            // Dropped scopes need no look: they go with a change of the record.
            let state::Change::Record { key, old, new } = change else { continue };
            if *key == self.record {
                told.extend(self.moves(view, (old, new))?);
                values = told.len();
                continue;
            }
            let Some(now) = &self.now else { continue };
            let before = if previous { old } else { &None };
            if key.scope() == now.values() && filter.selects(&key.user_bytes()) {
                told.push(self.value(view, key, (before, new))?);
                values = told.len();
            } else if self.attributes && key.scope() == now.attributes() && filter.selects(&key.user_bytes()) {
                let alone = attributes(view, key, (before, new), told.get_mut(..values).unwrap_or_default())?;
                told.extend(alone.map(|(key, now, before)| Change::Attributes {
                    key,
                    now,
                    before,
                    revision: commit.revision,
                }));
            }
        }
        Ok(told)
    }

    /// What becomes of the namespace as a whole.
    fn moves(&mut self, view: &View, (old, new): Pair<'_>) -> Result<Option<Change>> {
        let (old, new) = (self.opened(view, old)?, self.opened(view, new)?);
        let event = match (&old, &new) {
            (None, Some(_)) => Some(NamespaceEvent::Created),
            (Some(_), None) => Some(NamespaceEvent::Deleted),
            (Some(old), Some(new)) if old.values() != new.values() => Some(NamespaceEvent::Cleared),
            _ => None,
        };
        self.now = new;
        Ok(event.map(Change::Namespace))
    }

    fn value(&self, view: &View, key: &Key, (old, new): Pair<'_>) -> Result<Change> {
        let name = super::key_text(view, key)?;
        let entry = |record: &Option<Record>| -> Result<Option<Entry>> {
            record.as_ref().map(|record| open(view, name.clone(), record)).transpose()
        };
        let (now, before) = (entry(new)?, entry(old)?);
        Ok(Change::Value { key: name, now, before })
    }

    /// A part of the values that there are, from a position on.
    pub(in crate::layers) fn part(&self, view: &View, filter: &Filter, from: &[u8]) -> Result<Part> {
        let Some(namespace) = &self.now else { return Ok(Part::default()) };
        filter.part(view, namespace.values(), from, |key, record| {
            let mut entry = open(view, super::key_text(view, &key)?, &record)?;
            if self.attributes {
                let found = view.record(&namespace.attributes().key(&key.user_bytes()))?;
                entry = with_attributes(view, entry, found.as_ref())?;
            }
            Ok(Change::Value { key: entry.key.clone(), now: Some(entry), before: None })
        })
    }
}

/// Attributes under their key, now and before.
type Alone = (String, Option<String>, Option<String>);

/// Adds what became of attributes to what became of their value, if that is told, too; else answers it. `values` are in the order
/// of their keys, what is of none before them.
fn attributes(view: &View, key: &Key, (old, new): Pair<'_>, values: &mut [Change]) -> Result<Option<Alone>> {
    let name = super::key_text(view, key)?;
    let at = values.binary_search_by(|change| change.key().cmp(&Some(name.as_str())));
    if let Ok(at) = at
        && let Some(Change::Value { now, before, .. }) = values.get_mut(at)
    {
        for (entry, record) in [(now, new), (before, old)] {
            if let Some(found) = entry.take() {
                *entry = Some(if record.is_some() { with_attributes(view, found, record.as_ref())? } else { found });
            }
        }
        return Ok(None);
    }
    let text = |record: &Option<Record>| record.as_ref().map(|record| super::attributes_of(view, record)).transpose();
    Ok(Some((name, text(new)?, text(old)?)))
}
