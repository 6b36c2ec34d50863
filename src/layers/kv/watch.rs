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

    /// Whether something may be told of a record that a transaction changes. Attributes are told with their value, if that is
    /// changed, too.
    pub(in crate::layers) fn selects(&self, key: &Key, filter: &Filter, commit: &Commit) -> bool {
        if *key == self.record {
            return true;
        }
        let Some(now) = &self.now else { return false };
        let name = key.user_bytes();
        if key.scope() == now.values() {
            return filter.selects(&name);
        }
        self.attributes
            && key.scope() == now.attributes()
            && filter.selects(&name)
            && changed(commit, &now.values().key(&name)).is_none()
    }

    /// What becomes of a record, before and after, in a transaction; it stands behind that then.
    pub(in crate::layers) fn open_change(
        &mut self,
        view: &View,
        (key, old, new): (&Key, &Option<Record>, &Option<Record>),
        (commit, previous): (&Commit, bool),
    ) -> Result<Option<Change>> {
        if *key == self.record {
            return self.moves(view, (old, new));
        }
        let Some(now) = &self.now else { return Ok(None) };
        let (before, name) = (if previous { old } else { &None }, super::key_text(view, key)?);
        if key.scope() == now.values() {
            let attributes = now.attributes().key(&key.user_bytes());
            let attributes = changed(commit, &attributes).filter(|_| self.attributes);
            let entry = |record: &Option<Record>, of: fn(Pair<'_>) -> Option<&Record>| -> Result<Option<Entry>> {
                let Some(record) = record else { return Ok(None) };
                let entry = open(view, name.clone(), record)?;
                // Where they are in the transaction both sides of them are known.
                Ok(Some(match attributes {
                    Some(sides) => with_attributes(view, entry, of(sides))?,
                    None => entry,
                }))
            };
            let (now, before) = (entry(new, |(_, new)| new.as_ref())?, entry(before, |(old, _)| old.as_ref())?);
            return Ok(Some(Change::Value { key: name, now, before }));
        }
        let text =
            |record: &Option<Record>| record.as_ref().map(|record| super::attributes_of(view, record)).transpose();
        let (now, before) = (text(new)?, text(before)?);
        Ok(Some(Change::Attributes { key: name, now, before, revision: commit.revision }))
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

    /// A part of the values that there are, from a position on.
    pub(in crate::layers) fn part(&self, view: &View, filter: &Filter, from: &[u8]) -> Result<Part> {
        let Some(namespace) = &self.now else { return Ok(Part::default()) };
        filter.part(view, namespace.values(), from, |key, record| {
            let mut entry = open(view, super::key_text(view, &key)?, &record)?;
            if self.attributes {
                let found = view.record(&namespace.attributes().key(&key.user_bytes()))?;
                entry = with_attributes(view, entry, found.as_ref())?;
            }
            Ok(Some(Change::Value { key: entry.key.clone(), now: Some(entry), before: None }))
        })
    }
}

/// What a transaction makes of a record, before and after, if it changes it. Its records are in the order of their keys.
fn changed<'c>(commit: &'c Commit, key: &Key) -> Option<Pair<'c>> {
    let before = |change: &state::Change| matches!(change, state::Change::Record { key: at, .. } if at < key);
    match commit.changes.get(commit.changes.partition_point(before)) {
        Some(state::Change::Record { key: at, old, new }) if at == key => Some((old, new)),
        _ => None,
    }
}
