//! Collections: their names, owners, bounds and indexes.
//!
//! A collection is a record under `service.collection`, and a scope of the core that holds its documents: so it is dropped at
//! once, however much it holds, and the core keeps its bounds. Whoever writes a document has read the record, and is guarded
//! by it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    super::{
        Write, check, json,
        list::{Range, Walk},
        scopes::Scopes,
    },
    access::{self, Actor},
    index::{self, Definition},
    requests,
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Key, Record, Reference, ReferenceMode, ScopeId,
        document::{self, CollectionSettings, Declaration, IndexSpec, IndexState, Permission},
        key::prefix_end,
        keyspace::{self, NO_SCOPE},
        kind,
        mesh::{Page, PageRequest},
        transaction::{Compare, Operation, Put, ScopeSettings},
    },
    state::View,
    storage::codec::{self, Kind},
};

const SCOPE: ScopeId = ScopeId::new(keyspace::COLLECTIONS, NO_SCOPE);
/// Longest name of a service or of a collection within it, in bytes.
const PART_BYTES: usize = 128;
/// Longest description, in bytes.
const DESCRIPTION_BYTES: usize = 4 << 10;
/// Longest schema hint, in bytes of JSON.
const HINT_BYTES: usize = 64 << 10;
/// The longest that documents may be asked to stay, in milliseconds: ten years.
const TTL_MAX_MS: u64 = 315_360_000_000;
/// The shortest.
const TTL_MIN_MS: u64 = 1_000;

/// Frozen (kind `Collection`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredCollection {
    /// The scope of its documents.
    documents: u32,
    owner: String,
    description: String,
    /// JSON, or empty.
    schema_hint: String,
    ttl_ms: u64,
    max_documents: u64,
    max_bytes: u64,
    indexes: Vec<Definition>,
}

/// A collection as a view has it.
#[derive(Clone, Debug)]
pub struct Collection {
    name: String,
    stored: StoredCollection,
    /// Its indexes, in the order in which they were created.
    pub(super) indexes: Vec<index::Index>,
    /// `None`: the transaction that it was made for creates it.
    record: Option<Record>,
}

/// That a name is one of a service, or of a collection within it. Errors: `InvalidArgument` naming `field`.
pub(super) fn check_part<'n>(field: &str, name: &'n str) -> Result<&'n str> {
    check::check_name(field, name, PART_BYTES)?;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match name.bytes().all(is_part) {
        true => Ok(name),
        false => Err(Error::invalid(field, name, "must be letters, digits, _ and -")),
    }
}

/// That a name is the whole name of a collection. Errors: `InvalidArgument`.
pub(super) fn check_full(name: &str) -> Result<&str> {
    let (service, collection) = name.split_once('.').unwrap_or((name, ""));
    let part = |part| check_part("collection", part).is_ok();
    match part(service) && part(collection) {
        true => Ok(name),
        false => {
            let rule = "must be SERVICE.COLLECTION, each of up to 128 letters, digits, _ and -";
            Err(Error::invalid("collection", name, rule))
        }
    }
}

/// What says what a collection is.
pub(super) fn record_key(name: &str) -> Key {
    SCOPE.key(name.as_bytes())
}

impl Collection {
    /// The collection of this whole name. Errors: `NotFound`.
    pub(super) fn existing(view: &View, name: &str) -> Result<Self> {
        Self::find(view, name)?.ok_or_else(|| Error::NotFound { kind: kind::COLLECTION, name: name.into() })
    }

    /// The collection of this whole name, if there is one.
    pub(super) fn find(view: &View, name: &str) -> Result<Option<Self>> {
        view.record(&record_key(name))?.map(|record| Self::open(view, name, record)).transpose()
    }

    /// What a record holds.
    pub(super) fn open(view: &View, name: &str, record: Record) -> Result<Self> {
        let broken = |why: String| view.fault(Fault::bug(format!("the collection {name:?} cannot be read: {why}")));
        let stored: StoredCollection =
            codec::decode(Kind::Collection, &record.value).map_err(|error| broken(error.to_string()))?;
        let indexes = stored.indexes.iter().cloned().map(index::Index::open).collect::<Result<_>>();
        let indexes = indexes.map_err(|error| broken(error.to_string()))?;
        Ok(Self { name: name.into(), stored, indexes, record: Some(record) })
    }

    /// Its whole name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The service that owns it.
    pub(super) fn owner(&self) -> &str {
        &self.stored.owner
    }

    /// How long a document stays after it was last written, in milliseconds.
    pub(super) fn ttl_ms(&self) -> Option<u64> {
        Some(self.stored.ttl_ms).filter(|ttl_ms| *ttl_ms > 0)
    }

    /// Where its documents stand.
    pub(super) fn documents(&self) -> ScopeId {
        ScopeId::new(keyspace::DOCUMENTS, self.stored.documents)
    }

    /// Where a document stands.
    pub(super) fn key(&self, id: &str) -> Key {
        self.documents().key(id.as_bytes())
    }

    /// That it is as it was seen.
    pub(super) fn guard(&self) -> Compare {
        Compare::written_at(record_key(&self.name), self.record.as_ref().map_or(0, |record| record.mod_revision))
    }

    /// What goes with it.
    pub(super) fn reference(&self) -> Reference {
        Reference { key: record_key(&self.name), mode: ReferenceMode::Cascade }
    }

    /// What a write that does not fit is told.
    pub(super) fn full(&self) -> Error {
        let bounds = [(self.stored.max_documents, "documents"), (self.stored.max_bytes, "bytes")];
        let bounds = bounds.iter().filter(|(most, _)| *most > 0).map(|(most, what)| format!("{most} {what}"));
        let bounds: Vec<String> = bounds.collect();
        Error::Refused(format!(
            "storage capacity exceeded: collection {} holds at most {}; delete from it, or declare it larger",
            self.name,
            bounds.join(" and ")
        ))
    }

    /// The same with these indexes.
    pub(super) fn with_indexes(&self, indexes: Vec<index::Index>) -> Self {
        Self { indexes, ..self.clone() }
    }

    pub(super) fn put(&self) -> Operation {
        let indexes = self.indexes.iter().map(|index| index.definition.clone()).collect();
        let stored = StoredCollection { indexes, ..self.stored.clone() };
        Operation::Put { key: record_key(&self.name), put: Put::value(codec::encode(Kind::Collection, &stored)) }
    }

    fn set_scope(&self) -> Operation {
        let StoredCollection { max_documents: max_keys, max_bytes, .. } = self.stored;
        let settings = ScopeSettings { max_keys, max_bytes, ..ScopeSettings::default() };
        Operation::SetScope { scope: self.documents(), settings }
    }

    fn settings(&self) -> CollectionSettings {
        let StoredCollection { ttl_ms, max_documents, max_bytes, .. } = self.stored;
        CollectionSettings { ttl_ms, max_documents, max_bytes }
    }

    /// As callers see it, without how much it holds.
    fn shown(&self, view: &View) -> Result<document::Collection> {
        let StoredCollection { owner, description, schema_hint, .. } = self.stored.clone();
        let (created_at_ms, create_revision) =
            self.record.as_ref().map_or((0, 0), |record| (record.created_at_ms, record.create_revision));
        Ok(document::Collection {
            name: self.name.clone(),
            owner,
            description,
            schema_hint,
            settings: self.settings(),
            indexes: self.indexes.iter().map(|index| index.shown(view)).collect::<Result<_>>()?,
            created_at_ms,
            create_revision,
            documents: 0,
            bytes: 0,
        })
    }
}

fn check_declaration(declaration: &Declaration) -> Result<()> {
    let Declaration { description, schema_hint, settings, indexes } = declaration;
    check::check_length("description", description.len(), DESCRIPTION_BYTES)?;
    if !schema_hint.is_empty() {
        json::check_object("schema_hint", schema_hint, HINT_BYTES)?;
    }
    let CollectionSettings { ttl_ms, .. } = settings.unwrap_or_default();
    if ttl_ms > TTL_MAX_MS || (1..TTL_MIN_MS).contains(&ttl_ms) {
        let rule = format!("must be 0, or {TTL_MIN_MS} to {TTL_MAX_MS}");
        return Err(Error::invalid("settings.ttl_ms", ttl_ms.to_string(), rule));
    }
    check::check_count("indexes", indexes.as_ref().map_or(0, Vec::len), limits::INDEXES)
}

/// What a declaration makes of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// `service.collection`.
    pub name: String,
    /// Whether it was created.
    pub created: bool,
    /// Whether description, hint or bounds were changed.
    pub changed: bool,
    /// Indexes that are built from now on.
    pub added_indexes: Vec<String>,
    /// Indexes that are gone.
    pub dropped_indexes: Vec<String>,
}

/// Creates a collection, or returns the one that is there, changed to what is declared: indexes that it lacks are added, those
/// that are declared otherwise are built anew, and with `exactly` those that are not declared are dropped. `None`: there is
/// nothing to change.
///
/// Errors: `InvalidArgument`; `PermissionDenied` for a collection of another service; `Refused` if there are too many.
pub fn declare(
    view: &View,
    actor: &Actor,
    (name, declaration, exactly): (&str, &Declaration, bool),
) -> Result<(Option<Write>, Declared)> {
    let mut all = Declaring::new(view, actor)?;
    let declared = all.add(name, declaration, exactly)?;
    Ok((all.write(), declared))
}

/// Collections that one transaction creates and changes.
pub(super) struct Declaring<'v> {
    view: &'v View,
    actor: &'v Actor,
    scopes: Scopes,
    guards: Vec<Compare>,
    operations: Vec<Operation>,
}

impl<'v> Declaring<'v> {
    pub(super) fn new(view: &'v View, actor: &'v Actor) -> Result<Self> {
        let scopes = Scopes::read(view)?;
        Ok(Self { view, actor, guards: vec![scopes.guard()], scopes, operations: vec![] })
    }

    /// One more collection. Errors: as of [`declare`]; then the others are as they were.
    pub(super) fn add(&mut self, name: &str, declaration: &Declaration, exactly: bool) -> Result<Declared> {
        let mut scopes = self.scopes.clone();
        let (declared, guards, operations) = self.one(&mut scopes, (name, declaration, exactly))?;
        if !operations.is_empty() {
            self.scopes = scopes;
            self.guards.extend(guards);
            self.operations.extend(operations);
        }
        Ok(declared)
    }

    fn one(
        &self,
        scopes: &mut Scopes,
        (name, declaration, exactly): (&str, &Declaration, bool),
    ) -> Result<(Declared, Vec<Compare>, Vec<Operation>)> {
        let Self { view, actor, .. } = *self;
        check_declaration(declaration)?;
        let name = actor.full_name(name)?;
        let owner = name.split_once('.').map_or("", |(owner, _)| owner).to_owned();
        let wanted = declaration.indexes.as_deref().map(index::check_all).transpose()?;
        let found = Collection::find(view, &name)?;
        let mut declared = Declared { name: name.clone(), created: found.is_none(), ..Declared::default() };
        let (mut collection, empty) = match found {
            Some(found) => {
                let empty = view.records(found.documents(), &[], None, 1)?.is_empty();
                (found, empty)
            }
            None => {
                if actor.service().is_some_and(|service| service != owner) {
                    let actor = actor.name();
                    let why = format!("{actor} cannot create {name}, which would be {owner}'s");
                    return Err(Error::PermissionDenied(why));
                }
                (create(&name, owner, scopes)?, true)
            }
        };
        let mut guards = vec![collection.guard()];
        access::check(view, actor, &collection, Permission::Read)?;
        let mut operations = Vec::new();
        declared.changed = collection.change(declaration) && !declared.created;
        if declared.created || declared.changed {
            operations.push(collection.set_scope());
        }
        if let Some(wanted) = wanted {
            let mut plan = index::Plan { name: &name, scopes, declared: &mut declared, empty };
            let (indexes, changes) = plan.carry_out(&collection.indexes, wanted, exactly)?;
            collection.indexes = indexes;
            operations.extend(changes);
        }
        if operations.is_empty() {
            return Ok((declared, vec![], vec![]));
        }
        guards.extend(access::check(view, actor, &collection, Permission::Admin)?);
        // An index on what is empty needs no building, if it still is.
        if empty && !declared.created {
            guards.push(Compare::unchanged_since(collection.documents(), view.revision()));
        }
        operations.push(collection.put());
        Ok((declared, guards, operations))
    }

    /// Also does this, if that relies on what `guards` say.
    pub(super) fn also(&mut self, guards: Vec<Compare>, operations: Vec<Operation>) {
        self.guards.extend(guards);
        self.operations.extend(operations);
    }

    /// `None`: there is nothing to change.
    pub(super) fn write(mut self) -> Option<Write> {
        if self.operations.is_empty() {
            return None;
        }
        self.operations.push(self.scopes.operation());
        Some(Write::guarded(self.guards, self.operations))
    }
}

fn create(name: &str, owner: String, scopes: &mut Scopes) -> Result<Collection> {
    let stored = StoredCollection {
        documents: scopes.create()?,
        owner,
        description: String::new(),
        schema_hint: String::new(),
        ttl_ms: 0,
        max_documents: 0,
        max_bytes: 0,
        indexes: vec![],
    };
    Ok(Collection { name: name.into(), stored, indexes: vec![], record: None })
}

impl Collection {
    /// Takes over what is declared beside indexes: whether anything changed. What a declaration does not say stays.
    fn change(&mut self, declaration: &Declaration) -> bool {
        let Declaration { description, schema_hint, settings, .. } = declaration;
        let before = self.stored.clone();
        if !description.is_empty() {
            self.stored.description.clone_from(description);
        }
        if !schema_hint.is_empty() {
            self.stored.schema_hint.clone_from(schema_hint);
        }
        if let Some(CollectionSettings { ttl_ms, max_documents, max_bytes }) = *settings {
            self.stored = StoredCollection { ttl_ms, max_documents, max_bytes, ..self.stored.clone() };
        }
        self.stored != before
    }
}

/// Drops a collection, with all that it holds, at once. Errors: `InvalidArgument`; `NotFound`; `PermissionDenied`.
pub fn drop(view: &View, actor: &Actor, name: &str) -> Result<Write> {
    let found = Collection::existing(view, &actor.full_name(name)?)?;
    let mut scopes = Scopes::read(view)?;
    let mut guards = vec![found.guard(), scopes.guard()];
    guards.extend(access::check(view, actor, &found, Permission::Admin)?);
    scopes.drop();
    let mut operations = vec![Operation::DropScope { scope: found.documents() }];
    for index in &found.indexes {
        operations.extend(index.drop(&mut scopes));
    }
    operations.push(requests::forget_all(found.name()));
    operations.extend([Operation::Delete { key: record_key(found.name()) }, scopes.operation()]);
    Ok(Write::guarded(guards, operations))
}

/// One collection, without how much it holds, and the scope of its documents. Errors: `InvalidArgument`; `NotFound`;
/// `PermissionDenied`.
pub fn show(view: &View, actor: &Actor, name: &str) -> Result<(document::Collection, ScopeId)> {
    let found = Collection::existing(view, &actor.full_name(name)?)?;
    access::check(view, actor, &found, Permission::Read)?;
    Ok((found.shown(view)?, found.documents()))
}

/// A page of collections, in order of their names: those of a service, or all; a service sees those that it may read.
#[derive(Debug)]
pub struct List {
    actor: Actor,
    walk: Walk,
}

/// Errors: `InvalidArgument`.
pub fn list(actor: &Actor, service: &str, page: &PageRequest) -> Result<List> {
    let start = match service {
        "" => Vec::new(),
        service => format!("{}.", check_part("service", service)?).into_bytes(),
    };
    let end = prefix_end(&start);
    let query = (service, actor.service());
    let walk = Walk::open(keyspace::COLLECTIONS, &query, Range { start, end }, page)?;
    Ok(List { actor: actor.clone(), walk })
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page; see [`show`].
    pub fn read(&self, view: &View) -> Result<Page<(document::Collection, ScopeId)>> {
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(SCOPE, start, end, limit)?;
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), (key, record))).collect())
        };
        self.walk.read_some(view, fetch, |_, (key, record)| {
            let name = String::from_utf8_lossy(&key.user_bytes()).into_owned();
            let found = Collection::open(view, &name, record)?;
            match access::check(view, &self.actor, &found, Permission::Read) {
                Err(Error::PermissionDenied(_)) => return Ok(None),
                checked => checked?,
            };
            let shown = found.shown(view)?;
            let of = |index: &document::CollectionIndex| {
                let fields: usize = index.spec.fields.iter().map(|field| field.field.len()).sum();
                let failed = if let IndexState::Failed(why) = &index.state { why.len() } else { 0 };
                index.spec.name.len() + index.spec.filter.len() + fields + failed
            };
            let indexes: usize = shown.indexes.iter().map(of).sum();
            let bytes = shown.description.len() + shown.schema_hint.len() + indexes + name.len();
            Ok(Some(((shown, found.documents()), bytes)))
        })
    }
}

/// What a list of specs is called in which two have one name. Errors: `InvalidArgument`.
pub(super) fn check_names(specs: &[IndexSpec]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match specs.iter().find(|spec| !seen.insert(spec.name.as_str())) {
        Some(twice) => Err(Error::invalid("indexes", &twice.name, "must not be there twice")),
        None => Ok(()),
    }
}
