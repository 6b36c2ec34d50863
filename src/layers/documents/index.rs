//! Indexes on fields of the documents of a collection.
//!
//! **What an index is**: its definition, in the record of its collection; a scope of the core in which each document has
//! entries, made of its fields; and a record of how far it is built. Documents own their entries, so the core removes them
//! with them. Every write of a document puts the entries of all indexes, also of those that are not built yet: it has read the
//! collection anyway, and creating an index writes that, so none can be missed. [`Build`] enters what was there before.
//!
//! **Entries.** Of each field an index knows every value under its path, and every element of one that is a list
//! ([`path::components`]); of several fields every combination. So whatever a filter asks of a field in one of its forms, one
//! entry of a document that it lets through is within what the plan goes through. A document with a list in it has the mark
//! [`LISTS`] beside its entries, one of which a field was cut the mark [`CUT`]: an index that holds such marks gives no order.
//!
//! **Unique indexes** have a second scope, in which the core sees to it that no two documents have one entry. Nothing is cut
//! there: what is too long is refused. Documents that the index was built too late for, because two of them have the same,
//! make it fail: then it is dropped, and says why, and which documents they are.
//!
//! **Partial indexes** have entries of documents only that their filter lets through, and serve queries that repeat it.

mod build;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::build::Build;
use super::{
    super::{
        check,
        query::order::{self, By},
        scopes::Scopes,
        search::{CUT, Usable},
    },
    Document, collection,
    collection::{Collection, Declared},
    filter::Matcher,
    path::{self, Path},
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Entry, Key, ScopeId,
        document::{CollectionIndex, IndexSpec, IndexState},
        key::prefix_end,
        keyspace::{self, NO_SCOPE},
        query::SortField,
        transaction::{Operation, Put, ScopeSettings},
    },
    state::View,
    storage::codec::{self, Kind},
};

const PROGRESS: ScopeId = ScopeId::new(keyspace::COLLECTION_INDEXES, NO_SCOPE);
/// The mark that says that a document has a list in a field.
const LISTS: &[u8] = &[1, 1];
/// Most entries of one document in one index.
const ENTRIES: usize = 1_000;
/// Longest entry of a unique index, in bytes.
const UNIQUE_BYTES: usize = 1_024;
/// What an entry takes beside its bytes.
const ENTRY_AROUND: usize = 16;
/// Most bytes of entries of one document, in all indexes.
const ENTRY_BYTES: usize = 256 << 10;
/// Longest filter of an index, in bytes of JSON.
const INDEX_FILTER_BYTES: usize = 4 << 10;
/// Longest name that is made of fields, in bytes.
const NAME_BYTES: usize = limits::ID_BYTES;

/// Frozen (in kind `Collection`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    name: String,
    /// The scope of its entries.
    scope: u32,
    /// The scope of its unique entries; 0: it is not unique.
    unique: u32,
    fields: Vec<IndexedField>,
    /// JSON, or empty.
    filter: String,
    /// Whether it was given up.
    failed: bool,
}

/// Frozen (in kind `Collection`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IndexedField {
    field: String,
    descending: bool,
}

/// Frozen (kind `CollectionIndex`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    collection: String,
    /// Documents that were gone through.
    built: u64,
    /// The id of the last of them; `None`: all were.
    behind: Option<Bytes>,
    /// Why it was given up; empty: it was not.
    failed: String,
}

/// An index, with what its definition means.
#[derive(Clone, Debug)]
pub(super) struct Index {
    pub(super) definition: Definition,
    fields: Vec<(Path, bool)>,
    /// `None`: all documents are in it.
    filter: Option<Matcher>,
}

/// Specs that were checked, with their names. Errors: `InvalidArgument`.
pub(super) fn check_all(specs: &[IndexSpec]) -> Result<Vec<IndexSpec>> {
    let specs: Vec<IndexSpec> = specs.iter().enumerate().map(|(at, spec)| checked(spec, at)).collect::<Result<_>>()?;
    collection::check_names(&specs)?;
    Ok(specs)
}

fn checked(spec: &IndexSpec, at: usize) -> Result<IndexSpec> {
    let place = format!("indexes[{at}]");
    let IndexSpec { name, fields, unique, filter } = spec;
    check::check_some(&format!("{place}.fields"), fields.len(), limits::INDEX_FIELDS)?;
    let mut seen = Vec::new();
    for SortField { field, .. } in fields {
        let place = format!("{place}.fields");
        match path::parse(&place, field)? {
            path @ Path::Of(_) if !seen.contains(&path) => seen.push(path),
            Path::Of(_) => return Err(Error::invalid(place, field, "must not be there twice")),
            Path::Id | Path::Known(_) => {
                return Err(Error::invalid(place, field, "must be a field of the document itself"));
            }
        }
    }
    let wrong = |rule: String| Error::invalid(format!("{place}.filter"), "", rule);
    if filter.len() > INDEX_FILTER_BYTES {
        return Err(wrong(format!("must be at most {INDEX_FILTER_BYTES} bytes long, is {}", filter.len())));
    }
    if !Matcher::parse(filter).map_err(|error| inside(&place, error))?.can_be_of_an_index() {
        return Err(wrong("must ask for what is in the documents, and not by $regex".into()));
    }
    let name = if name.is_empty() { name_of(fields) } else { name.clone() };
    if name.len() > NAME_BYTES {
        let rule = format!("must be given, and at most {NAME_BYTES} bytes long: the fields are too long for one");
        return Err(Error::invalid(format!("{place}.name"), "", rule));
    }
    check::check_name(&format!("{place}.name"), &name, NAME_BYTES)?;
    if name.chars().any(char::is_control) || name.trim().is_empty() {
        return Err(Error::invalid(
            format!("{place}.name"),
            name,
            "must not be all spaces, and hold no control characters",
        ));
    }
    Ok(IndexSpec { name, fields: fields.clone(), unique: *unique, filter: filter.trim().to_owned() })
}

/// The same error, of what stands in `place`.
fn inside(place: &str, error: Error) -> Error {
    match error {
        Error::InvalidArgument { field, value, rule } => {
            Error::InvalidArgument { field: format!("{place}.{field}"), value, rule }
        }
        error => error,
    }
}

/// A name made of fields, as MongoDB makes it.
fn name_of(fields: &[SortField]) -> String {
    let part =
        |SortField { field, descending }: &SortField| format!("{field}_{}", if *descending { "-1" } else { "1" });
    fields.iter().map(part).collect::<Vec<_>>().join("_")
}

impl Index {
    /// One that was stored. Errors: its fields or its filter are none that this program knows.
    pub(super) fn open(definition: Definition) -> Result<Self> {
        let field = |IndexedField { field, descending }: &IndexedField| Ok((path::parse("field", field)?, *descending));
        let fields = definition.fields.iter().map(field).collect::<Result<_>>()?;
        let filter = match definition.filter.as_str() {
            "" => None,
            filter => Some(Matcher::parse(filter)?),
        };
        Ok(Self { definition, fields, filter })
    }

    fn new(spec: IndexSpec, scopes: &mut Scopes) -> Result<Self> {
        let IndexSpec { name, fields, unique, filter } = spec;
        let field = |SortField { field, descending }| IndexedField { field, descending };
        Self::open(Definition {
            name,
            scope: scopes.create()?,
            unique: if unique { scopes.create()? } else { 0 },
            fields: fields.into_iter().map(field).collect(),
            filter,
            failed: false,
        })
    }

    fn spec(&self) -> IndexSpec {
        let Definition { name, unique, fields, filter, .. } = &self.definition;
        let field = |IndexedField { field, descending }: &IndexedField| SortField {
            field: field.clone(),
            descending: *descending,
        };
        let fields = fields.iter().map(field).collect();
        IndexSpec { name: name.clone(), fields, unique: *unique > 0, filter: filter.clone() }
    }

    fn scopes(&self) -> impl Iterator<Item = ScopeId> {
        let Definition { scope, unique, .. } = self.definition;
        let unique = (unique > 0).then(|| ScopeId::new(keyspace::UNIQUE, unique));
        [Some(ScopeId::new(keyspace::ENTRIES, scope)), unique].into_iter().flatten()
    }

    fn progress_key(&self) -> Key {
        PROGRESS.key(&self.definition.scope.to_be_bytes())
    }

    /// What gives it its scopes, which have `all` entries that they need.
    fn create(&self, collection: &str, all: bool) -> Vec<Operation> {
        let set = |scope| Operation::SetScope { scope, settings: ScopeSettings::default() };
        let progress = Progress {
            collection: collection.into(),
            built: 0,
            behind: (!all).then(Bytes::new),
            failed: String::new(),
        };
        self.scopes().map(set).chain([self.note(&progress)]).collect()
    }

    fn note(&self, progress: &Progress) -> Operation {
        Operation::Put { key: self.progress_key(), put: Put::value(codec::encode(Kind::CollectionIndex, progress)) }
    }

    /// What drops its scopes, unless it was given up, when they were.
    fn drop_scopes(&self, scopes: &mut Scopes) -> Vec<Operation> {
        if self.definition.failed {
            return Vec::new();
        }
        let mut drop = |scope| {
            scopes.drop();
            Operation::DropScope { scope }
        };
        self.scopes().map(&mut drop).collect()
    }

    /// What drops it.
    pub(super) fn drop(&self, scopes: &mut Scopes) -> Vec<Operation> {
        let mut operations = self.drop_scopes(scopes);
        operations.push(Operation::Delete { key: self.progress_key() });
        operations
    }

    fn progress(&self, view: &View) -> Result<Progress> {
        let name = &self.definition.name;
        let broken = |why: String| view.fault(Fault::bug(format!("the index {name:?} cannot be read: {why}")));
        let record = view.record(&self.progress_key())?;
        let record = record.ok_or_else(|| broken("its progress is missing".into()))?;
        codec::decode(Kind::CollectionIndex, &record.value).map_err(|error| broken(error.to_string()))
    }

    /// As callers see it.
    pub(super) fn shown(&self, view: &View) -> Result<CollectionIndex> {
        let Progress { built, behind, failed, .. } = self.progress(view)?;
        let state = match (failed.is_empty(), behind) {
            (false, _) => IndexState::Failed(failed),
            (true, Some(_)) => IndexState::Building,
            (true, None) => IndexState::Ready,
        };
        Ok(CollectionIndex { spec: self.spec(), state, built })
    }

    /// What it is called towards people.
    fn label(&self, collection: &str) -> String {
        format!("unique index {} of {collection}", self.definition.name)
    }

    /// What a document enters, beside what it has entered into others. Errors: `InvalidArgument` if that is too much.
    fn enter(&self, document: &Document<'_>, into: &mut Vec<Entry>) -> Result<()> {
        self.enter_all(document, into)?;
        if into.iter().map(|entry| entry.key.len() + ENTRY_AROUND).sum::<usize>() > ENTRY_BYTES {
            let rule = format!(
                "would make more than {ENTRY_BYTES} bytes of index entries with the index {} (document {})",
                self.definition.name, document.id
            );
            return Err(Error::invalid("document", "", rule));
        }
        Ok(())
    }

    fn enter_all(&self, document: &Document<'_>, into: &mut Vec<Entry>) -> Result<()> {
        if self.definition.failed || self.filter.as_ref().is_some_and(|filter| !filter.matches(document)) {
            return Ok(());
        }
        let mut cut = false;
        let keys = self.combined(document, |path| {
            let (components, shortened) = path::components(document, path, Some(order::KEPT));
            cut |= shortened;
            components
        })?;
        let Definition { scope, unique, .. } = self.definition;
        let entry = |scope, key: Bytes, unique| Entry { scope, key, payload: Bytes::new(), unique };
        let lists = self.fields.iter().any(|(path, _)| path::is_plural(document, path));
        for mark in [cut.then_some(CUT), lists.then_some(LISTS)].into_iter().flatten() {
            into.push(entry(scope, Bytes::from_static(mark), false));
        }
        into.extend(keys.into_iter().map(|key| entry(scope, key.into(), false)));
        if unique > 0 {
            for key in self.combined(document, |path| path::unique_components(document, path))? {
                if key.len() > UNIQUE_BYTES {
                    let rule = format!(
                        "must be at most {UNIQUE_BYTES} bytes in the fields of the unique index {} (in document {})",
                        self.definition.name, document.id
                    );
                    return Err(Error::invalid("document", "", rule));
                }
                into.push(entry(unique, key.into(), true));
            }
        }
        Ok(())
    }

    /// Every combination of the components of its fields.
    fn combined(
        &self,
        document: &Document<'_>,
        mut components: impl FnMut(&Path) -> Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut keys = vec![Vec::new()];
        for (path, descending) in &self.fields {
            let components = components(path);
            if keys.len().saturating_mul(components.len()) > ENTRIES {
                let rule = format!(
                    "has lists in it that would make more than {ENTRIES} entries in the index {} (document {})",
                    self.definition.name, document.id
                );
                return Err(Error::invalid("document", "", rule));
            }
            let directed: Vec<Vec<u8>> =
                components.into_iter().map(|component| order::directed(component, *descending)).collect();
            let joined = |key: &Vec<u8>, next: &Vec<u8>| [key.as_slice(), next.as_slice()].concat();
            keys = keys.iter().flat_map(|key| directed.iter().map(move |next| joined(key, next))).collect();
        }
        Ok(keys)
    }

    /// Its entry of a document that has one only.
    pub(super) fn entry(usable: &Usable, document: &Document<'_>) -> Vec<u8> {
        let component = |By { field, descending }: &By| {
            let path = match field {
                super::super::query::Field::Value(path) => Path::Of(path.clone()),
                _ => Path::Id,
            };
            let components = path::components(document, &path, Some(order::KEPT)).0;
            order::directed(components.into_iter().next().unwrap_or_default(), *descending)
        };
        usable.by.iter().flat_map(component).collect()
    }

    fn usable(&self, view: &View) -> Result<Usable> {
        let by = self
            .fields
            .iter()
            .filter_map(|(path, descending)| Some(By { field: path.field()?, descending: *descending }));
        let (name, scope) = (self.definition.name.clone(), self.definition.scope);
        let several = !view.entries(scope, LISTS, prefix_end(LISTS).as_deref(), 1)?.is_empty();
        Ok(Usable { name, scope, by: by.collect(), several })
    }
}

/// What a document enters into all indexes of its collection. Errors: `InvalidArgument` if that is too much.
pub(super) fn entries(collection: &Collection, document: &Document<'_>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    collection.indexes.iter().try_for_each(|index| index.enter(document, &mut entries))?;
    Ok(entries)
}

/// What the scopes of the unique indexes of a collection are called, for refusals of the core.
pub(super) fn labels(collection: &Collection) -> Vec<(u32, String)> {
    let unique = collection.indexes.iter().filter(|index| index.definition.unique > 0);
    unique.map(|index| (index.definition.unique, index.label(collection.name()))).collect()
}

/// The indexes that are built and know all that a query wants, and the names of those that are not built.
pub(super) fn usable(view: &View, collection: &Collection, matcher: &Matcher) -> Result<(Vec<Usable>, Vec<String>)> {
    let (mut ready, mut building) = (Vec::new(), Vec::new());
    for index in collection.indexes.iter().filter(|index| !index.definition.failed) {
        match index.progress(view)?.behind {
            Some(_) => building.push(index.definition.name.clone()),
            None if index.filter.as_ref().is_none_or(|filter| matcher.implies(filter)) => {
                ready.push(index.usable(view)?);
            }
            None => {}
        }
    }
    Ok((ready, building))
}

/// How the indexes of a collection become those that are declared.
pub(super) struct Plan<'p> {
    pub(super) name: &'p str,
    pub(super) scopes: &'p mut Scopes,
    pub(super) declared: &'p mut Declared,
    /// Whether the collection holds nothing.
    pub(super) empty: bool,
}

impl Plan<'_> {
    /// The indexes afterwards, and what makes them. Errors: `Refused` if there are too many.
    pub(super) fn carry_out(
        &mut self,
        present: &[Index],
        wanted: Vec<IndexSpec>,
        exactly: bool,
    ) -> Result<(Vec<Index>, Vec<Operation>)> {
        let (mut indexes, mut operations) = (Vec::new(), Vec::new());
        for index in present {
            let spec = wanted.iter().find(|spec| spec.name == index.definition.name);
            let keep = match spec {
                Some(spec) => *spec == index.spec() && !index.definition.failed,
                None => !exactly,
            };
            if keep {
                indexes.push(index.clone());
            } else {
                operations.extend(index.drop(self.scopes));
                self.declared.dropped_indexes.push(index.definition.name.clone());
            }
        }
        for spec in wanted {
            if indexes.iter().any(|index: &Index| index.definition.name == spec.name) {
                continue;
            }
            self.declared.added_indexes.push(spec.name.clone());
            let index = Index::new(spec, self.scopes)?;
            operations.extend(index.create(self.name, self.empty));
            indexes.push(index);
        }
        if indexes.len() > limits::INDEXES {
            let rule = format!("collection {} would have more than {} indexes", self.name, limits::INDEXES);
            return Err(Error::Refused(rule));
        }
        Ok((indexes, operations))
    }
}
