//! What is watched of a collection: its documents that a filter lets through.
//!
//! To a watcher there is nothing else: a document that comes to be let through is new, one that no longer is, is gone. A watch
//! ends with its collection, and with the right to read it: whoever watches is asked for that again when a grant of his
//! changes, and before each message, by a view that shows all of it.

use super::{
    access::{self, Actor},
    collection::{self, Collection},
    filter::Matcher,
    opened,
    projection::Projection,
};
use crate::{
    Error, Result,
    layers::watch::{Filter, Part},
    model::{
        Key, Principal, Record, ScopeId,
        document::{self, Permission},
        kind,
        watch::Change,
    },
    state::{self, Commit, View},
};

/// The documents of a collection, as of the revision to which the watch has come.
#[derive(Debug)]
pub(in crate::layers) struct Watched {
    actor: Actor,
    /// `service.collection`.
    name: String,
    /// Of the collection.
    record: Key,
    /// Of what was granted; `None`: whoever runs the cluster needs no grant.
    grant: Option<Key>,
    matcher: Matcher,
    documents: Option<ScopeId>,
}

impl Watched {
    /// Errors: `InvalidArgument`; `PermissionDenied` for a service that names another.
    pub(in crate::layers) fn open(principal: &Principal, service: &str, (name, filter): (&str, &str)) -> Result<Self> {
        let actor = Actor::new(principal, service)?;
        let name = actor.full_name(name)?;
        let record = collection::record_key(&name);
        let grant = actor.service().map(|service| access::grant_key(&name, service));
        Ok(Self { matcher: Matcher::parse(filter)?, actor, name, record, grant, documents: None })
    }

    /// That whoever watches may read what he watches. Errors: `NotFound`; `PermissionDenied`.
    pub(in crate::layers) fn check(&self, view: &View) -> Result<()> {
        access::check(view, &self.actor, &Collection::existing(view, &self.name)?, Permission::Read).map(drop)
    }

    /// What says where the documents stand.
    pub(in crate::layers) fn home(&self) -> ScopeId {
        self.record.scope()
    }

    /// Whether what may be read depends on this record, or where it stands.
    pub(in crate::layers) fn depends_on(&self, key: &Key) -> bool {
        *key == self.record || self.grant.as_ref() == Some(key)
    }

    pub(in crate::layers) fn scopes(&self) -> Vec<ScopeId> {
        let mut scopes = vec![self.home()];
        scopes.extend(self.grant.as_ref().map(Key::scope));
        scopes.extend(self.documents);
        scopes
    }

    /// Stands where a view shows.
    pub(in crate::layers) fn stand(&mut self, view: &View) -> Result<()> {
        self.documents = Some(Collection::existing(view, &self.name)?.documents());
        Ok(())
    }

    /// Stands before a transaction, if that changes where the documents stand: whether it does.
    pub(in crate::layers) fn stand_before(&mut self, view: &View, commit: &Commit) -> Result<bool> {
        for change in &commit.changes {
            if let state::Change::Record { key, old, .. } = change
                && *key == self.record
            {
                self.documents = self.opened(view, old)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn opened(&self, view: &View, record: &Option<Record>) -> Result<Option<ScopeId>> {
        let Some(record) = record else { return Ok(None) };
        Ok(Some(Collection::open(view, &self.name, record.clone())?.documents()))
    }

    /// Whether a record that a transaction changes is of a document, or of what this depends on.
    pub(in crate::layers) fn selects(&self, key: &Key) -> bool {
        Some(key.scope()) == self.documents || self.depends_on(key)
    }

    /// What becomes of a record; it stands behind that then. Errors: `NotFound` when the collection is dropped.
    pub(in crate::layers) fn open_change(
        &mut self,
        view: &View,
        (key, old, new): (&Key, &Option<Record>, &Option<Record>),
        previous: bool,
    ) -> Result<Option<Change>> {
        if *key == self.record {
            let documents = self.opened(view, new)?;
            if self.documents.is_some() && documents != self.documents {
                return Err(Error::NotFound { kind: kind::COLLECTION, name: self.name.clone() });
            }
            self.documents = documents;
            return Ok(None);
        }
        if self.grant.as_ref() == Some(key) {
            return Ok(None);
        }
        let side = |record: &Option<Record>| record.as_ref().map_or(Ok(None), |record| self.shown(view, key, record));
        let (now, before) = (side(new)?, side(old)?);
        let Some(id) = now.as_ref().or(before.as_ref()).map(|document| document.id.clone()) else { return Ok(None) };
        Ok(Some(Change::Document { id, now, before: before.filter(|_| previous) }))
    }

    /// A document that the filter lets through.
    fn shown(&self, view: &View, key: &Key, record: &Record) -> Result<Option<document::Document>> {
        let opened = opened(view, key, record)?;
        let wanted = self.matcher.matches(&opened.document(record));
        Ok(wanted.then(|| opened.shown(record, &Projection::default())))
    }

    /// A part of the documents that there are, from a position on.
    pub(in crate::layers) fn part(&self, view: &View, filter: &Filter, from: &[u8]) -> Result<Part> {
        let Some(documents) = self.documents else { return Ok(Part::default()) };
        filter.part(view, documents, from, |key, record| {
            let shown = self.shown(view, &key, &record)?;
            Ok(shown.map(|now| Change::Document { id: now.id.clone(), now: Some(now), before: None }))
        })
    }
}
