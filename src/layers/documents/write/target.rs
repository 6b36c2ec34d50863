//! A collection that a call writes to: what it relies on, and what it does.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::super::{
    super::{Meaning, Write, check, json},
    access::{self, Actor},
    collection::Collection,
    index,
    path::{Document, ID, Known},
    seal,
};
use crate::{
    Error, Result, limits,
    model::{
        Key, Record,
        document::Permission,
        kind,
        transaction::{Compare, Operation, Put},
    },
    state::View,
};

/// What a guard or a deletion takes in a transaction beside its key.
pub(super) const AROUND: usize = 24;

/// A collection that documents are written to, and what that relies on.
pub(super) struct Target {
    pub(super) collection: Collection,
    /// Who writes, as documents say it.
    owner: String,
    pub(super) guards: Vec<Compare>,
    pub(super) operations: Vec<Operation>,
    written: HashSet<Key>,
    /// The unique entries of what was inserted, with whose they are.
    unique: HashMap<(u32, Bytes), String>,
    bytes: usize,
}

impl Target {
    /// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`.
    pub(super) fn open(view: &View, actor: &Actor, name: &str) -> Result<Self> {
        let collection = Collection::existing(view, &actor.full_name(name)?)?;
        let mut guards = vec![collection.guard()];
        guards.extend(access::check(view, actor, &collection, Permission::Write)?);
        let (owner, operations) = (actor.name().to_owned(), vec![]);
        let (written, unique) = (HashSet::new(), HashMap::new());
        Ok(Self { collection, owner, guards, operations, written, unique, bytes: 0 })
    }

    /// That a document is as it was seen. Errors: `InvalidArgument` if that is too much for a transaction.
    pub(super) fn guard(&mut self, key: &Key, record: Option<&Record>) -> Result<()> {
        self.weigh(key.as_bytes().len() + AROUND)?;
        self.guards.push(Compare::written_at(key.clone(), record.map_or(0, |record| record.mod_revision)));
        Ok(())
    }

    pub(super) fn weigh(&mut self, bytes: usize) -> Result<()> {
        if self.bytes + bytes > limits::TRANSACTION_BYTES {
            let most = limits::TRANSACTION_BYTES;
            let rule = format!("would be more than {most} bytes at once, with ids and index entries; do it in parts");
            return Err(Error::invalid("documents", "", rule));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// A document as it is to be written, with its entries and its weight. Errors: `InvalidArgument` if it is too large, too
    /// deep, or has too much for an index.
    fn sealed(&self, (id, json): (&str, &str), before: Option<(&Record, &str)>) -> Result<(Put, usize)> {
        check::check_size("document", json.len())?;
        json::check_depth("document", json)?;
        let (owner, known) = match before {
            Some((record, owner)) => (owner, known(record, owner)),
            None => (self.owner.as_str(), Known { owner: &self.owner, ..Known::default() }),
        };
        let entries = index::entries(&self.collection, &Document { id, text: json, known })?;
        let value = seal(owner, json);
        let bytes = value.len() + id.len() + entries.iter().map(|entry| entry.key.len() + AROUND).sum::<usize>();
        Ok((Put { entries, ttl_ms: self.collection.ttl_ms(), ..Put::value(value) }, bytes))
    }

    /// Writes a document anew. What is unique is the matter of the core, which looks when all is written.
    pub(super) fn put(&mut self, (id, json): (&str, &str), before: (&Record, &str)) -> Result<()> {
        let (put, bytes) = self.sealed((id, json), Some(before))?;
        self.weigh(bytes)?;
        let key = self.collection.key(id);
        self.written.insert(key.clone());
        self.operations.push(Operation::Put { key, put });
        Ok(())
    }

    /// Inserts a document. Errors: as of [`sealed`](Self::sealed); `AlreadyExists` for the id, or if another has the same in a
    /// unique index. Nothing has happened then.
    pub(super) fn insert(&mut self, view: &View, (id, text): (&str, &str)) -> Result<()> {
        check_id(id)?;
        let key = self.collection.key(id);
        if self.written.contains(&key) || view.record(&key)?.is_some() {
            let name = format!("{id} in {}", self.collection.name());
            return Err(Error::AlreadyExists { kind: kind::DOCUMENT, name });
        }
        let (put, bytes) = self.sealed((id, text), None)?;
        let unique: Vec<(u32, Bytes)> =
            put.entries.iter().filter(|entry| entry.unique).map(|entry| (entry.scope, entry.key.clone())).collect();
        for (scope, entry) in &unique {
            let there =
                view.owner(*scope, entry)?.map(|owner| String::from_utf8_lossy(&owner.user_bytes()).into_owned());
            if let Some(owner) = there.or_else(|| self.unique.get(&(*scope, entry.clone())).cloned()) {
                let labels = index::labels(&self.collection);
                let label = labels.into_iter().find(|(known, _)| known == scope).map(|(_, label)| label);
                return Err(taken(&owner, &label.unwrap_or_default()));
            }
        }
        self.weigh(bytes + key.as_bytes().len() + AROUND)?;
        self.unique.extend(unique.into_iter().map(|entry| (entry, id.to_owned())));
        self.guards.push(Compare::written_at(key.clone(), 0));
        self.written.insert(key.clone());
        self.operations.push(Operation::Put { key, put });
        Ok(())
    }

    /// `None` if nothing is to be done.
    pub(super) fn write(self) -> Option<Write> {
        let Self { collection, guards, operations, .. } = self;
        (!operations.is_empty()).then(|| {
            let taken = index::labels(&collection);
            let write = Write::guarded(guards, operations).if_full(collection.full());
            Write { meaning: Meaning { taken, ..write.meaning }, ..write }
        })
    }
}

fn known<'a>(record: &Record, owner: &'a str) -> Known<'a> {
    Known {
        created_at_ms: record.created_at_ms,
        updated_at_ms: record.updated_at_ms,
        revision: record.mod_revision,
        owner,
    }
}

/// What is told of a unique entry that another document has.
pub(in crate::layers) fn taken(id: &str, label: &str) -> Error {
    Error::AlreadyExists { kind: kind::DOCUMENT, name: format!("{id}, which has the same in the {label}") }
}

/// That an id is one. Errors: `InvalidArgument`.
pub(super) fn check_id(id: &str) -> Result<()> {
    check::check_name(ID, id, limits::KEY_BYTES)?;
    if id.trim().is_empty() {
        return Err(Error::invalid(ID, id, "must not be all spaces"));
    }
    Ok(())
}
