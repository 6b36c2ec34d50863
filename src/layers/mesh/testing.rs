//! What the unit tests of this layer read: records laid out as the core lays them out. It knows nothing
//! of revisions, overwriting or compares; the contract suite tests those on the real core.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{
    Error, Result,
    error::Fault,
    layers::Write,
    model::{Entry, Key, Record, ScopeId, key, keyspace, transaction::Operation},
    state::{View, stored, view::Source},
};

/// Stored pairs.
#[derive(Clone, Default)]
pub(in crate::layers) struct Pairs(BTreeMap<Bytes, Bytes>);

impl Pairs {
    /// Lays out what the write puts, and removes what it deletes. Scopes are nothing here until they are dropped.
    pub(in crate::layers) fn put(&mut self, write: Write) {
        self.apply(write.transaction.then);
    }

    /// The same of operations.
    pub(in crate::layers) fn apply(&mut self, operations: Vec<Operation>) {
        for operation in operations {
            match operation {
                Operation::Put { key, put } => {
                    let record = Record {
                        value: put.value,
                        create_revision: 3,
                        mod_revision: 4,
                        version: 2,
                        created_at_ms: 10,
                        updated_at_ms: 20,
                        expires_at_ms: None,
                        entries: put.entries,
                        references: put.references,
                    };
                    self.replace(&key, Some(record));
                }
                Operation::Reindex { key, entries } => {
                    let Some(record) = self.record(&key) else { continue };
                    self.replace(&key, Some(Record { entries, ..record }));
                }
                Operation::Delete { key } => self.replace(&key, None),
                Operation::DropScope { scope } => self.0.retain(|key, _| !key.starts_with(&scope.prefix())),
                Operation::SetScope { .. } => {}
                other => panic!("{other:?} is not laid out here"),
            }
        }
    }

    fn record(&self, key: &Key) -> Option<Record> {
        self.0.get(key.as_bytes()).map(|bytes| stored::decode(key.as_bytes(), bytes).unwrap())
    }

    fn replace(&mut self, key: &Key, record: Option<Record>) {
        let place = |entry: &Entry| {
            let mut position = Vec::new();
            key::escape(&mut position, &entry.key);
            position.extend_from_slice(key.as_bytes());
            ScopeId::new(keyspace::ENTRIES, entry.scope).key(&position).as_bytes().clone()
        };
        for entry in self.record(key).iter().flat_map(|record| &record.entries) {
            self.0.remove(&place(entry));
        }
        match record {
            None => drop(self.0.remove(key.as_bytes())),
            Some(record) => {
                self.0.extend(record.entries.iter().map(|entry| (place(entry), entry.payload.clone())));
                self.0.insert(key.as_bytes().clone(), stored::encode(&record));
            }
        }
    }

    /// A view of the pairs that calls itself `revision`.
    pub(in crate::layers) fn view(&self, revision: u64) -> View {
        View::new(revision, Box::new(self.clone()))
    }
}

impl Source for Pairs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let pairs = self.0.range::<[u8], _>(bounds).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Unavailable { reason: fault.to_string(), leader: None }
    }
}
