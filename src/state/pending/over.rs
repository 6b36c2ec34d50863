//! What pending writes are laid over, as the core reads it: stored pairs with others over them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use bytes::Bytes;

use super::super::{base::Base, constants::DELETES, derived, overlay::merged, scope, stored, view::Source};
use crate::{
    Result,
    error::{Error, Fault},
    model::{Entry, Key, Record, Reference, ReferenceMode, ScopeId, key, keyspace, transaction::Operation},
};

/// The scopes on which the core will look when it does these operations, but for those that always exist.
pub(super) fn concerned(over: &Over<'_>, operations: &[Operation]) -> Result<BTreeSet<ScopeId>, Fault> {
    let (mut found, mut seen, mut going) = (BTreeSet::new(), BTreeSet::new(), VecDeque::new());
    for operation in operations {
        match operation {
            Operation::Put { key, put } => {
                of_record(key, &put.entries, &put.references, &mut found);
                if let Some(old) = over.record(key)? {
                    of_record(key, &old.entries, &old.references, &mut found);
                }
                for entry in put.entries.iter().filter(|entry| entry.unique) {
                    let taken = over.get(&derived::unique_slot(entry.scope, &entry.key))?;
                    found.extend(taken.as_ref().and_then(derived::parse_unique_owner).map(|owner| owner.scope()));
                }
            }
            Operation::PutStamped { prefix, put } => of_record(prefix, &put.entries, &put.references, &mut found),
            Operation::Delete { key } if seen.insert(key.clone()) => going.push_back(key.clone()),
            Operation::SetScope { scope, .. } => found.extend([*scope].into_iter().chain(scope.derived())),
            _ => {}
        }
    }
    while let Some(key) = going.pop_front() {
        if let Some(old) = over.record(&key)? {
            of_record(&key, &old.entries, &old.references, &mut found);
        }
        let prefix = derived::referrers_prefix(&key);
        let referrers = over.range(&prefix, key::prefix_end(&prefix).as_deref(), DELETES + 1)?;
        for (pair_key, value) in referrers {
            let Some((referrer, mode)) = derived::parse_referrer(&pair_key, &value, prefix.len()) else { continue };
            found.insert(referrer.scope());
            // Of more than may go the core refuses all.
            if mode == ReferenceMode::Cascade && seen.len() <= DELETES && seen.insert(referrer.clone()) {
                going.push_back(referrer);
            }
        }
    }
    found.retain(|scope| !scope::is_permanent(*scope));
    Ok(found)
}

fn of_record(key: &Key, entries: &[Entry], references: &[Reference], into: &mut BTreeSet<ScopeId>) {
    into.insert(key.scope());
    into.extend(key.scope().derived());
    for entry in entries {
        into.insert(ScopeId::new(if entry.unique { keyspace::UNIQUE } else { keyspace::ENTRIES }, entry.scope));
    }
    for reference in references {
        let target = reference.key.scope();
        into.extend([target, derived::referrers_scope(target)]);
    }
}

/// A source with pairs over it, as the core reads.
pub(super) struct Over<'a> {
    source: &'a dyn Source,
    pairs: &'a BTreeMap<Bytes, Option<Bytes>>,
    /// Why the source could not be read: an answer, for which the core has no words.
    failed: RefCell<Option<Error>>,
}

impl<'a> Over<'a> {
    pub(super) fn of(source: &'a dyn Source, pairs: &'a BTreeMap<Bytes, Option<Bytes>>) -> Self {
        Self { source, pairs, failed: RefCell::default() }
    }

    fn record(&self, key: &Key) -> Result<Option<Record>, Fault> {
        self.get(key.as_bytes())?.map(|bytes| stored::decode(key.as_bytes(), &bytes)).transpose()
    }

    /// What the reader is told: why the source could not be read, or else of the fault that was found in it.
    pub(super) fn error(&self, fault: Fault) -> Error {
        self.failed.take().unwrap_or_else(|| self.source.fault(fault))
    }

    fn read<T>(&self, read: Result<T>) -> Result<T, Fault> {
        read.map_err(|error| {
            let fault = Fault::new(format!("the view cannot be read: {error}"));
            self.failed.replace(Some(error));
            fault
        })
    }
}

impl Base for Over<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.pairs.get(key) {
            Some(pending) => Ok(pending.clone()),
            None => self.read(self.source.get(key)),
        }
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let range = |start: &[u8], end: Option<&[u8]>, limit| self.source.range(start, end, limit);
        self.read(merged(self.pairs, (start, end), limit, range))
    }

    fn write(&mut self, _revision: u64, _pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        Err(Fault::bug("a view was written to"))
    }
}
