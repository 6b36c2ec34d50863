//! Namespaces: their names, settings and scopes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        Write, json,
        list::{Range, Walk, successor},
        scopes::Scopes,
    },
    index::{self, Definition},
};
use crate::{
    Error, Result,
    error::Fault,
    layers::check,
    limits,
    model::{
        Key, Record, ScopeId,
        keyspace::{self, NO_SCOPE},
        kind,
        kv::{self, DEFAULT_NAMESPACE, NamespaceChange, NamespaceSettings},
        mesh::{Page, PageRequest, Stored},
        transaction::{Compare, Operation, Put, Relation, ScopeField, ScopeSettings},
    },
    state::View,
    storage::codec::{self, Kind},
};

const SCOPE: ScopeId = ScopeId::new(keyspace::NAMESPACES, NO_SCOPE);
/// Most older versions of a value; what the core keeps at most.
const HISTORY: u32 = 64;
/// Namespaces that are read at once.
const CHUNK: usize = 64;
/// Most operations of a transaction that clears all namespaces.
const CLEARED: usize = limits::LAYER_OPERATIONS - 8;
/// What the namespace of a principal begins with.
const PRINCIPAL: &str = "principal://";

/// Frozen (kind `Namespace`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredNamespace {
    /// The scope of its values.
    values: u32,
    /// The scope of their attributes.
    attributes: u32,
    /// JSON.
    metadata: String,
    settings: NamespaceSettings,
}

/// Frozen (kind `Namespace`, version 2): one that has indexes, or had some. Whoever writes a value has read this, so that
/// there are none costs nothing, and a write that was decided without one fails by its guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IndexedNamespace {
    namespace: StoredNamespace,
    /// Since when it is what it is, if only its indexes have changed since; 0: since it was last written.
    since: u64,
    indexes: Vec<Definition>,
}

/// A namespace as a view has it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    stored: StoredNamespace,
    /// Its indexes, in the order in which they were created.
    pub(super) indexes: Vec<Definition>,
    since: u64,
    /// `None`: the transaction that it was made for creates it.
    record: Option<Record>,
}

/// That a name is one of a namespace; an empty one is the default. Errors: `InvalidArgument`.
pub fn check_name(name: &str) -> Result<&str> {
    if name.is_empty() {
        return Ok(DEFAULT_NAMESPACE);
    }
    check::check_length("namespace", name.len(), limits::ID_BYTES)?;
    let rest = name.strip_prefix(PRINCIPAL).unwrap_or(name);
    if rest.is_empty() || rest.contains(['/', ':', '*']) || rest.chars().any(char::is_control) {
        let rule = "must not hold / : * or control characters, but for the form principal://{id}";
        return Err(Error::invalid("namespace", name, rule));
    }
    if rest.trim().is_empty() {
        return Err(Error::invalid("namespace", name, "must not be all spaces"));
    }
    Ok(name)
}

/// What a namespace is called; one that was never written is the default one.
pub(super) fn name_of(namespace: Option<&Namespace>) -> &str {
    namespace.map_or(DEFAULT_NAMESPACE, |namespace| &namespace.name)
}

pub(super) fn record_key(name: &str) -> Key {
    SCOPE.key(name.as_bytes())
}

fn missing(name: &str) -> Error {
    Error::NotFound { kind: kind::NAMESPACE, name: name.into() }
}

pub(super) fn open(view: &View, name: &str, record: Record) -> Result<Namespace> {
    let broken = |error| view.fault(Fault::bug(format!("the namespace {name:?} cannot be read: {error}")));
    let envelope = codec::open(&record.value, Kind::Namespace, 2).map_err(broken)?;
    let IndexedNamespace { namespace: stored, since, indexes } = match envelope.version {
        1 => {
            let namespace = codec::decode_payload(envelope.payload).map_err(broken)?;
            IndexedNamespace { namespace, since: 0, indexes: vec![] }
        }
        _ => codec::decode_payload(envelope.payload).map_err(broken)?,
    };
    if let Some(unknown) = indexes.iter().find(|index| !index.is_known()) {
        return Err(view.fault(Fault::bug(format!("{:?} has an index of unknown fields: {unknown:?}", name))));
    }
    Ok(Namespace { name: name.into(), stored, indexes, since, record: Some(record) })
}

impl Namespace {
    /// One that is to be created. Errors: `InvalidArgument`; `Refused` if there are too many.
    pub(super) fn new(name: &str, metadata: String, settings: NamespaceSettings, scopes: &mut Scopes) -> Result<Self> {
        let (values, attributes) = (scopes.create()?, scopes.create()?);
        let stored = StoredNamespace { values, attributes, metadata, settings };
        Ok(Self { name: check_name(name)?.into(), stored, indexes: vec![], since: 0, record: None })
    }

    /// The namespace of this name, if it was ever written. Errors: `InvalidArgument`.
    pub(in crate::layers) fn find(view: &View, name: &str) -> Result<Option<Self>> {
        let name = check_name(name)?;
        view.record(&record_key(name))?.map(|record| open(view, name, record)).transpose()
    }

    /// The same, and `NotFound` if there is none; the default one always is, and empty before it is first written.
    pub(super) fn existing(view: &View, name: &str) -> Result<Option<Self>> {
        let found = Self::find(view, name)?;
        match found {
            None if check_name(name)? != DEFAULT_NAMESPACE => Err(missing(name)),
            found => Ok(found),
        }
    }

    pub(in crate::layers) fn name(&self) -> &str {
        &self.name
    }

    /// Where its values stand.
    pub fn values(&self) -> ScopeId {
        ScopeId::new(keyspace::VALUES, self.stored.values)
    }

    pub(in crate::layers) fn attributes(&self) -> ScopeId {
        ScopeId::new(keyspace::ATTRIBUTES, self.stored.attributes)
    }

    pub(super) fn value_key(&self, key: &str) -> Key {
        self.values().key(key.as_bytes())
    }

    pub(super) fn attributes_key(&self, key: &str) -> Key {
        self.attributes().key(key.as_bytes())
    }

    /// The revision since which it is what it is: before it may have kept less, held other values, or been another.
    pub(super) fn since(&self) -> u64 {
        if self.since > 0 { self.since } else { self.record.as_ref().map_or(0, |record| record.mod_revision) }
    }

    /// The same, of which only the indexes change.
    pub(super) fn reindexed(self, indexes: Vec<Definition>) -> Self {
        Self { since: self.since(), indexes, ..self }
    }

    /// Whether it was ever written.
    pub(super) fn is_written(&self) -> bool {
        self.record.is_some()
    }

    /// Where the value stands that attributes under this key are of.
    pub(super) fn value_key_of(&self, attributes: &Key) -> Key {
        self.values().key(&attributes.user_bytes())
    }

    /// How many older versions it keeps of each value.
    pub(super) fn history(&self) -> usize {
        self.stored.settings.history as usize
    }

    /// That it is as it was seen.
    pub(super) fn guard(&self) -> Compare {
        super::unchanged(&record_key(&self.name), self.record.as_ref())
    }

    /// What a write that does not fit is told.
    pub(in crate::layers) fn full(&self) -> Error {
        let NamespaceSettings { max_entries, max_bytes, .. } = self.stored.settings;
        let bounds = [(max_entries, "values"), (max_bytes, "bytes")];
        let bounds = bounds.iter().filter(|(most, _)| *most > 0).map(|(most, what)| format!("{most} {what}"));
        let bounds: Vec<String> = bounds.collect();
        Error::Refused(format!(
            "storage capacity exceeded: namespace {} holds at most {}; delete from it, or modify it",
            self.name,
            bounds.join(" and ")
        ))
    }

    pub(super) fn put(&self) -> Operation {
        let value = if self.indexes.is_empty() && self.since == 0 {
            codec::encode(Kind::Namespace, &self.stored)
        } else {
            let (namespace, indexes) = (self.stored.clone(), self.indexes.clone());
            let payload = codec::encode_payload(&IndexedNamespace { namespace, since: self.since, indexes });
            codec::seal(Kind::Namespace, 2, 0, &payload)
        };
        Operation::Put { key: record_key(&self.name), put: Put::value(value) }
    }

    /// What its scopes are to be.
    pub(super) fn set_scopes(&self) -> [Operation; 2] {
        let NamespaceSettings { history, max_entries, max_bytes } = self.stored.settings;
        let settings = ScopeSettings { history, max_keys: max_entries, max_bytes };
        [
            Operation::SetScope { scope: self.values(), settings },
            Operation::SetScope { scope: self.attributes(), settings: ScopeSettings { history, ..Default::default() } },
        ]
    }

    /// What drops all that it holds, its indexes too. Attributes reference values, so they go first.
    fn drop_scopes(&self, scopes: &mut Scopes) -> Vec<Operation> {
        scopes.drop();
        scopes.drop();
        let mut operations =
            vec![Operation::DropScope { scope: self.attributes() }, Operation::DropScope { scope: self.values() }];
        operations.extend(self.indexes.iter().flat_map(|index| index.drop(scopes)));
        operations
    }

    /// As callers see it, without how much it holds.
    fn shown(&self) -> kv::Namespace {
        let StoredNamespace { metadata: value, settings, .. } = self.stored.clone();
        let metadata = match &self.record {
            Some(record) => check::stored(record, value),
            None => {
                Stored { value, created_at_ms: 0, updated_at_ms: 0, create_revision: 0, mod_revision: 0, version: 0 }
            }
        };
        kv::Namespace { name: self.name.clone(), settings, metadata, entries: 0, bytes: 0, indexes: vec![] }
    }

    /// The same with its indexes.
    fn shown_of(&self, view: &View) -> Result<kv::Namespace> {
        Ok(kv::Namespace { indexes: index::all(view, self)?, ..self.shown() })
    }
}

/// A namespace that a transaction creates, with what it relies on and does for it.
pub(super) struct Creation {
    pub(super) namespace: Namespace,
    pub(super) guards: Vec<Compare>,
    pub(super) operations: Vec<Operation>,
}

impl Creation {
    fn write(self) -> Write {
        Write::guarded(self.guards, self.operations)
    }
}

/// Errors: `InvalidArgument`; `Refused` if there are too many.
pub(super) fn creation(view: &View, name: &str, metadata: String, settings: NamespaceSettings) -> Result<Creation> {
    let mut scopes = Scopes::read(view)?;
    let namespace = Namespace::new(name, metadata, settings, &mut scopes)?;
    let mut operations = namespace.set_scopes().to_vec();
    operations.extend([namespace.put(), scopes.operation()]);
    Ok(Creation { guards: vec![namespace.guard(), scopes.guard()], namespace, operations })
}

fn check_settings(settings: NamespaceSettings) -> Result<NamespaceSettings> {
    if settings.history > HISTORY {
        return Err(Error::invalid("history", settings.history.to_string(), format!("must be at most {HISTORY}")));
    }
    Ok(settings)
}

fn check_metadata(metadata: &str) -> Result<()> {
    json::check_object("metadata", metadata, limits::ATTRIBUTES_BYTES)
}

/// Creates a namespace. Errors: `InvalidArgument`, `AlreadyExists`.
pub fn create(view: &View, name: &str, metadata: &str, settings: NamespaceSettings) -> Result<Write> {
    let metadata = if metadata.is_empty() { "{}" } else { metadata };
    check_metadata(metadata)?;
    let settings = check_settings(settings)?;
    if name.is_empty() {
        return Err(Error::invalid("namespace", "", "must not be empty"));
    }
    if check_name(name)? == DEFAULT_NAMESPACE || Namespace::find(view, name)?.is_some() {
        return Err(Error::AlreadyExists { kind: kind::NAMESPACE, name: name.into() });
    }
    Ok(creation(view, name, metadata.into(), settings)?.write())
}

/// Changes a namespace. Errors: `InvalidArgument`, `NotFound`.
pub fn modify(view: &View, name: &str, change: NamespaceChange) -> Result<Write> {
    let NamespaceChange { metadata, history, max_entries, max_bytes } = change;
    if let Some(metadata) = &metadata {
        check_metadata(metadata)?;
    }
    let found = Namespace::existing(view, name)?;
    let before = found.as_ref().map(|found| found.stored.settings).unwrap_or_default();
    let settings = check_settings(NamespaceSettings {
        history: history.unwrap_or(before.history),
        max_entries: max_entries.unwrap_or(before.max_entries),
        max_bytes: max_bytes.unwrap_or(before.max_bytes),
    })?;
    let Some(mut namespace) = found else {
        return Ok(creation(view, name, metadata.unwrap_or_else(|| "{}".into()), settings)?.write());
    };
    let metadata = metadata.unwrap_or_else(|| namespace.stored.metadata.clone());
    namespace.stored = StoredNamespace { metadata, settings, ..namespace.stored };
    namespace.since = 0;
    let mut operations = namespace.set_scopes().to_vec();
    operations.push(namespace.put());
    Ok(Write::guarded(vec![namespace.guard()], operations))
}

/// Deletes a namespace, at once, with all that it holds if `recursive`. Errors: `InvalidArgument` for the default one,
/// `NotFound`, `Refused` if it holds values that are not to go.
pub fn delete(view: &View, name: &str, recursive: bool) -> Result<Write> {
    if check_name(name)? == DEFAULT_NAMESPACE {
        return Err(Error::invalid("namespace", DEFAULT_NAMESPACE, "the default namespace cannot be deleted"));
    }
    let namespace = Namespace::find(view, name)?.ok_or_else(|| missing(name))?;
    let mut scopes = Scopes::read(view)?;
    let mut guards = vec![namespace.guard(), scopes.guard()];
    if !recursive {
        if !view.records(namespace.values(), &[], None, 1)?.is_empty() {
            let rule = format!("namespace {name} holds values; delete them first, or ask for a recursive deletion");
            return Err(Error::Refused(rule));
        }
        let (scope, field) = (namespace.values(), ScopeField::Count);
        guards.push(Compare::Scope { scope, field, relation: Relation::Equal, to: 0 });
    }
    let mut operations = namespace.drop_scopes(&mut scopes);
    operations.extend([Operation::Delete { key: record_key(name) }, scopes.operation()]);
    Ok(Write::guarded(guards, operations))
}

/// Deletes all that a namespace holds, or every one, at once; `None` if nothing is there. Its scopes are dropped, and new
/// ones created. Errors: `InvalidArgument`; `Refused` if there are too many namespaces for one transaction.
pub fn clear(view: &View, name: Option<&str>) -> Result<Option<Write>> {
    let mut scopes = Scopes::read(view)?;
    let (mut guards, mut operations) = (vec![scopes.guard()], Vec::new());
    let mut clear = |mut namespace: Namespace| {
        guards.push(namespace.guard());
        operations.extend(namespace.drop_scopes(&mut scopes));
        let (values, attributes) = (scopes.create()?, scopes.create()?);
        namespace.stored = StoredNamespace { values, attributes, ..namespace.stored };
        namespace.since = 0;
        operations.extend(namespace.set_scopes());
        for index in &mut namespace.indexes {
            operations.extend(index.create(&namespace.name, &mut scopes, true)?);
        }
        operations.push(namespace.put());
        Ok::<_, Error>(operations.len())
    };
    match name {
        Some(name) => {
            let Some(namespace) = Namespace::find(view, name)? else { return Ok(None) };
            clear(namespace)?;
        }
        None => {
            let (mut start, mut any) = (Vec::new(), false);
            loop {
                let records = view.records(SCOPE, &start, None, CHUNK)?;
                let ended = records.len() < CHUNK;
                for (key, record) in records {
                    start = successor(&key.user_bytes());
                    any = true;
                    if clear(open(view, &text_of(&key), record)?)? > CLEARED {
                        let text = "there are too many namespaces to clear at once; clear them one by one";
                        return Err(Error::Refused(text.into()));
                    }
                }
                if ended {
                    break;
                }
            }
            if !any {
                return Ok(None);
            }
        }
    }
    operations.push(scopes.operation());
    Ok(Some(Write::guarded(guards, operations)))
}

fn text_of(key: &Key) -> String {
    String::from_utf8_lossy(&key.user_bytes()).into_owned()
}

/// One namespace, without how much it holds, and the scope of its values, if it has one yet. Errors: `InvalidArgument`,
/// `NotFound`.
pub fn show(view: &View, name: &str) -> Result<(kv::Namespace, Option<ScopeId>)> {
    match Namespace::existing(view, name)? {
        None => Ok(unwritten()),
        Some(found) => Ok((found.shown_of(view)?, Some(found.values()))),
    }
}

/// The default namespace before it is first written.
fn unwritten() -> (kv::Namespace, Option<ScopeId>) {
    let settings = NamespaceSettings::default();
    let stored = StoredNamespace { values: 0, attributes: 0, metadata: "{}".into(), settings };
    let name = DEFAULT_NAMESPACE.into();
    (Namespace { name, stored, indexes: vec![], since: 0, record: None }.shown(), None)
}

/// What the namespaces are called that have these scopes for their values; those of dropped ones are left out.
pub(in crate::layers) fn names_of(view: &View, mut wanted: BTreeSet<ScopeId>) -> Result<BTreeMap<ScopeId, String>> {
    let (mut names, mut start) = (BTreeMap::new(), Vec::new());
    while !wanted.is_empty() {
        let records = view.records(SCOPE, &start, None, CHUNK)?;
        let ended = records.len() < CHUNK;
        for (key, record) in records {
            start = successor(&key.user_bytes());
            let namespace = open(view, &text_of(&key), record)?;
            if wanted.remove(&namespace.values()) {
                names.insert(namespace.values(), namespace.name);
            }
        }
        if ended {
            break;
        }
    }
    Ok(names)
}

/// A page of the namespaces in order of their names.
#[derive(Debug)]
pub struct List {
    walk: Walk,
}

/// Errors: `InvalidArgument`.
pub fn list(page: &PageRequest) -> Result<List> {
    let range = Range { start: vec![], end: None };
    Ok(List { walk: Walk::open(keyspace::NAMESPACES, &"", range, page)? })
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page; see [`show`]. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View) -> Result<Page<(kv::Namespace, Option<ScopeId>)>> {
        let default = SCOPE.key(DEFAULT_NAMESPACE.as_bytes());
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let mut records: Vec<(Key, Option<Record>)> =
                view.records(SCOPE, start, end, limit)?.into_iter().map(|(key, record)| (key, Some(record))).collect();
            // The default namespace is always there.
            let behind = records.last().filter(|_| records.len() == limit).is_some_and(|(last, _)| *last < default);
            if start <= DEFAULT_NAMESPACE.as_bytes()
                && !behind
                && let Err(at) = records.binary_search_by(|(key, _)| key.cmp(&default))
            {
                records.insert(at, (default.clone(), None));
                records.truncate(limit);
            }
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), (key, record))).collect())
        };
        self.walk.read(view, fetch, |_, (key, record)| {
            let shown = match record {
                Some(record) => {
                    let found = open(view, &text_of(&key), record)?;
                    (found.shown_of(view)?, Some(found.values()))
                }
                None => unwritten(),
            };
            let indexes = shown.0.indexes.len() * (limits::INDEX_FIELDS * limits::FIELD_BYTES + limits::ID_BYTES);
            let size = shown.0.metadata.value.len() + limits::ID_BYTES + indexes;
            Ok((shown, size))
        })
    }
}
