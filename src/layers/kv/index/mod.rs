//! Indexes on fields of the values of a namespace.
//!
//! **What an index is**: its definition, in the record of its namespace; a scope of the core in which each value of the
//! namespace has one entry, made of its fields by [`order::key`]; and a record of how far it is built. A value owns its
//! entries, so the core removes them with it. Every write of a value puts the entries of all indexes, also of those that
//! are not built yet: it has read the namespace anyway, and creating an index writes that, so none can be missed.
//! [`build::Build`] enters what was there before. Until it is done no query uses the index.
//!
//! **Invariants.** Each value, also one without any of the fields, has exactly one entry besides the one in the next line,
//! made of its value alone: so an index gives every order, and entries can be made anew at any time. A value of which a
//! field was cut ([`order::KEPT`]) has a second entry, [`CUT`]: an index that holds one is not asked for an order.
//!
//! *Why the definitions are in the namespace and how far they are built is not*: those change while values are being written,
//! and would make the guard of every write fail.
//!
//! Dropping an index drops its scope, and is done at once; values keep the names of dropped entries until they are written
//! again, which the core passes over. Entries do not count against the bounds of a namespace. Clearing a namespace gives
//! its indexes new, empty scopes. Left out: indexes on `$key`, whose order values have already, on attributes, which are
//! written without their value, and on the elements of lists.

pub mod build;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Write,
        query::{
            Document, Field,
            order::{self, By},
        },
        scopes::Scopes,
        search::{CUT, Usable},
    },
    namespace::{self, Namespace},
};
use crate::{
    Error, Result,
    error::Fault,
    layers::check,
    limits,
    model::{
        Entry, Key, Record, ScopeId,
        keyspace::{self, NO_SCOPE},
        kind,
        kv::{NamespaceSettings, Value},
        query::{Index, SortField},
        transaction::{Compare, Operation, Put, Relation, ScopeField, ScopeSettings},
    },
    state::View,
    storage::codec::{self, Kind},
};

const PROGRESS: ScopeId = ScopeId::new(keyspace::NAMESPACE_INDEXES, NO_SCOPE);

/// Frozen (in kind `Namespace`, version 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) name: String,
    /// The scope of its entries.
    scope: u32,
    fields: Vec<IndexedField>,
}

/// Frozen (in kind `Namespace`, version 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IndexedField {
    field: String,
    descending: bool,
}

/// Frozen (kind `NamespaceIndex`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    namespace: String,
    /// Values that were gone through.
    built: u64,
    /// The key of the last of them; `None`: all were.
    behind: Option<Bytes>,
}

impl Definition {
    /// The scope of its entries.
    fn home(&self) -> ScopeId {
        ScopeId::new(keyspace::ENTRIES, self.scope)
    }

    fn progress_key(&self) -> Key {
        PROGRESS.key(&self.scope.to_be_bytes())
    }

    fn set_progress(&self, namespace: &str, behind: Option<Bytes>) -> Operation {
        let progress = Progress { namespace: namespace.into(), built: 0, behind };
        Operation::Put { key: self.progress_key(), put: Put::value(codec::encode(Kind::NamespaceIndex, &progress)) }
    }

    /// What gives it a new scope, which has `all` entries that it needs. Errors: `Refused` if there are too many.
    pub(super) fn create(&mut self, namespace: &str, scopes: &mut Scopes, all: bool) -> Result<[Operation; 2]> {
        self.scope = scopes.create()?;
        let scope = Operation::SetScope { scope: self.home(), settings: ScopeSettings::default() };
        Ok([scope, self.set_progress(namespace, (!all).then(Bytes::new))])
    }

    /// What drops it.
    pub(super) fn drop(&self, scopes: &mut Scopes) -> [Operation; 2] {
        scopes.drop();
        [Operation::DropScope { scope: self.home() }, Operation::Delete { key: self.progress_key() }]
    }

    /// Whether this program knows all its fields.
    pub(super) fn is_known(&self) -> bool {
        !self.by().is_empty()
    }

    /// Its fields; the names were checked when it was created, and again when it was read.
    fn by(&self) -> Vec<By> {
        let by = |IndexedField { field, descending }: &IndexedField| {
            Field::parse("fields", field).map(|field| By { field, descending: *descending })
        };
        self.fields.iter().map(by).collect::<Result<_>>().unwrap_or_default()
    }

    /// What a value enters.
    fn entries(&self, document: &Document<'_>) -> impl Iterator<Item = Entry> {
        let (key, cut) = order::key(document, &self.by(), Some(order::KEPT));
        let scope = self.scope;
        let keys = [Some(Bytes::from(key)), cut.then_some(Bytes::from_static(CUT))];
        keys.into_iter().flatten().map(move |key| Entry { scope, key, payload: Bytes::new(), unique: false })
    }

    fn progress(&self, view: &View) -> Result<(Progress, Record)> {
        let broken = |why: String| view.fault(Fault::bug(format!("the index {:?} cannot be read: {why}", self.name)));
        let record = view.record(&self.progress_key())?;
        let record = record.ok_or_else(|| broken("its progress is missing".into()))?;
        let progress = codec::decode(Kind::NamespaceIndex, &record.value);
        Ok((progress.map_err(|error| broken(error.to_string()))?, record))
    }
}

/// What a value enters into the indexes of its namespace.
pub(super) fn entries(namespace: &Namespace, value: &Value) -> Vec<Entry> {
    let value = match value {
        Value::Json(text) => Some(text.as_str()),
        Value::Bytes(_) => None,
    };
    entries_of(namespace, value)
}

fn entries_of(namespace: &Namespace, value: Option<&str>) -> Vec<Entry> {
    let document = Document { key: "", value, attributes: None };
    namespace.indexes.iter().flat_map(|index| index.entries(&document)).collect()
}

/// The indexes of a namespace.
pub(super) fn all(view: &View, namespace: &Namespace) -> Result<Vec<Index>> {
    let shown = |index: &Definition| {
        let field = |IndexedField { field, descending }: &IndexedField| SortField {
            field: field.clone(),
            descending: *descending,
        };
        let (Progress { built, behind, .. }, _) = index.progress(view)?;
        let fields = index.fields.iter().map(field).collect();
        Ok(Index { name: index.name.clone(), fields, ready: behind.is_none(), built })
    };
    namespace.indexes.iter().map(shown).collect()
}

/// The indexes that are built, and the names of the others.
pub(super) fn usable(view: &View, namespace: &Namespace) -> Result<(Vec<Usable>, Vec<String>)> {
    let (mut ready, mut building) = (Vec::new(), Vec::new());
    for index in &namespace.indexes {
        match index.progress(view)?.0.behind {
            None => {
                let (name, by) = (index.name.clone(), index.by());
                ready.push(Usable { name, scope: index.scope, by, several: false });
            }
            Some(_) => building.push(index.name.clone()),
        }
    }
    Ok((ready, building))
}

/// The indexes of a namespace, in the order in which they were created. Errors: `InvalidArgument`, `NotFound`.
pub fn list(view: &View, namespace: &str) -> Result<Vec<Index>> {
    Namespace::existing(view, namespace)?.map_or(Ok(vec![]), |found| all(view, &found))
}

fn check(name: &str, fields: Vec<SortField>) -> Result<Vec<IndexedField>> {
    check::check_name("name", name, limits::ID_BYTES)?;
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(Error::invalid("name", name, "must not be all spaces, and hold no control characters"));
    }
    check::check_some("fields", fields.len(), limits::INDEX_FIELDS)?;
    let (mut checked, mut seen) = (Vec::new(), Vec::new());
    for (at, SortField { field, descending }) in fields.into_iter().enumerate() {
        let place = format!("fields[{at}]");
        let parsed = Field::parse(&place, &field)?;
        if !matches!(parsed, Field::Value(_)) {
            return Err(Error::invalid(place, field, "must be a field of the value"));
        }
        if seen.contains(&parsed) {
            return Err(Error::invalid(place, field, "must not be there twice"));
        }
        seen.push(parsed);
        checked.push(IndexedField { field, descending });
    }
    Ok(checked)
}

/// Creates an index. One on a namespace that holds values is built behind the call.
///
/// Errors: `InvalidArgument`; `NotFound` for the namespace; `AlreadyExists`; `Refused` if there are too many.
pub fn create(view: &View, namespace: &str, name: &str, fields: Vec<SortField>) -> Result<Write> {
    let fields = check(name, fields)?;
    let mut scopes = Scopes::read(view)?;
    let found = match Namespace::existing(view, namespace)? {
        Some(found) => found,
        None => Namespace::new(namespace, "{}".into(), NamespaceSettings::default(), &mut scopes)?,
    };
    if found.indexes.iter().any(|index| index.name == name) {
        return Err(Error::AlreadyExists { kind: kind::INDEX, name: named(found.name(), name) });
    }
    if found.indexes.len() >= limits::INDEXES {
        let rule = format!("namespace {} has {} indexes, the most that it may have", found.name(), limits::INDEXES);
        return Err(Error::Refused(rule));
    }
    let mut guards = vec![found.guard(), scopes.guard()];
    let mut operations = if found.is_written() { vec![] } else { found.set_scopes().to_vec() };
    let empty = !found.is_written() || view.records(found.values(), &[], None, 1)?.is_empty();
    if empty && found.is_written() {
        let (scope, field) = (found.values(), ScopeField::Count);
        guards.push(Compare::Scope { scope, field, relation: Relation::Equal, to: 0 });
    }
    let mut index = Definition { name: name.into(), scope: 0, fields };
    operations.extend(index.create(found.name(), &mut scopes, empty)?);
    let mut indexes = found.indexes.clone();
    indexes.push(index);
    operations.extend([found.reindexed(indexes).put(), scopes.operation()]);
    Ok(Write::guarded(guards, operations))
}

/// Drops an index, at once. Errors: `InvalidArgument`; `NotFound`.
pub fn drop(view: &View, namespace: &str, name: &str) -> Result<Write> {
    let found = Namespace::existing(view, namespace)?;
    let missing = || {
        let name = named(namespace::name_of(found.as_ref()), name);
        Error::NotFound { kind: kind::INDEX, name }
    };
    let namespace = found.as_ref().ok_or_else(missing)?;
    let index = namespace.indexes.iter().find(|index| index.name == name).ok_or_else(missing)?;
    let mut scopes = Scopes::read(view)?;
    let guards = vec![namespace.guard(), scopes.guard()];
    let mut operations = index.drop(&mut scopes).to_vec();
    let indexes = namespace.indexes.iter().filter(|index| index.name != name).cloned().collect();
    operations.extend([namespace.clone().reindexed(indexes).put(), scopes.operation()]);
    Ok(Write::guarded(guards, operations))
}

/// An index by its name towards people.
fn named(namespace: &str, name: &str) -> String {
    format!("{name} of namespace {namespace}")
}
