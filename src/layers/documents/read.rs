//! Reads: documents by id, and pages of those that a filter lets through.

use std::collections::BTreeMap;

use super::{
    super::{
        check,
        list::fingerprint,
        query::order::By,
        search::{Found, Home, Run, Terms, Usable, plan},
    },
    access::{self, Actor},
    collection::Collection,
    filter::Matcher,
    index, opened,
    path::{self, Document, Path},
    projection::Projection,
};
use crate::{
    Error, Result, limits,
    model::{
        Key, Record, ScopeId,
        document::{self, DocumentQuery, FoundDocuments, Permission},
        keyspace, kind,
        query::{Explanation, SortField},
    },
    state::View,
};

/// Most different values that are answered at once, and most bytes of them.
const DISTINCT: usize = 10_000;
const DISTINCT_BYTES: usize = limits::PAGE_BYTES;

/// A page of a query.
#[derive(Debug)]
pub struct Search {
    actor: Actor,
    collection: String,
    matcher: Matcher,
    order: Order,
    projection: Projection,
    terms: Terms,
}

/// Fields by which documents are ordered.
#[derive(Clone, Debug, Default)]
pub(super) struct Order(Vec<(Path, bool)>);

impl Order {
    /// Errors: `InvalidArgument`.
    pub(super) fn parse(sort: &[SortField]) -> Result<Self> {
        check::check_count("sort", sort.len(), limits::SORT_FIELDS)?;
        let mut order: Vec<(Path, bool)> = Vec::new();
        for (at, SortField { field, descending }) in sort.iter().enumerate() {
            let place = format!("sort[{at}]");
            let path = path::parse(&place, field)?;
            if order.iter().any(|(before, _)| *before == path) {
                return Err(Error::invalid(place, field, "must not be there twice"));
            }
            order.push((path, *descending));
        }
        // No two have the same id, and what is equal is in their order anyway.
        if let Some(at) = order.iter().position(|(path, _)| *path == Path::Id) {
            let descending = order.get(at).is_some_and(|(_, descending)| *descending);
            order.truncate(if descending { at + 1 } else { at });
        }
        Ok(Self(order))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields of a document, one behind the other.
    fn of(&self, document: &Document<'_>) -> Vec<u8> {
        self.0.iter().flat_map(|(path, descending)| path::order_component(document, path, *descending)).collect()
    }

    /// The same as an index knows it; `None` if one of them is in no index.
    fn by(&self) -> Option<Vec<By>> {
        let by = |(path, descending): &(Path, bool)| Some(By { field: path.field()?, descending: *descending });
        self.0.iter().map(by).collect()
    }
}

/// Errors: `InvalidArgument` for a name, a filter, a projection, a sort field, a limit or a cursor that is none, or not of this
/// query.
pub fn search(actor: &Actor, collection: &str, query: &DocumentQuery) -> Result<Search> {
    let DocumentQuery { filter, include, exclude, sort, limit, skip, cursor } = query;
    let collection = actor.full_name(collection)?;
    let (matcher, order) = (Matcher::parse(filter)?, Order::parse(sort)?);
    let fields: Vec<(&str, bool)> = sort.iter().map(|by| (by.field.as_str(), by.descending)).collect();
    let fingerprint = fingerprint(keyspace::DOCUMENTS, &(&collection, filter.trim(), fields));
    let terms = Terms::new((*limit, *skip, cursor), fingerprint, !order.is_empty()).map_err(|error| match error {
        Error::InvalidArgument { field, value, rule } if field == "offset" => {
            Error::InvalidArgument { field: "skip".into(), value, rule }
        }
        error => error,
    })?;
    let projection = Projection::parse(include, exclude)?;
    Ok(Search { actor: actor.clone(), collection, matcher, order, projection, terms })
}

impl Search {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.terms.revision()
    }

    /// The page. Errors: `NotFound` for the collection; `PermissionDenied`; `InvalidArgument` for a cursor that is not of this
    /// store; `Refused` if more would have to be sorted than there is room for.
    pub fn read(&self, view: &View) -> Result<FoundDocuments> {
        let collection = readable(view, &self.actor, &self.collection)?;
        self.terms.check(view)?;
        let documents = Documents::new(&collection, &self.matcher, &self.order, &self.projection);
        let Found { items, next_cursor, explanation } = documents.page(view, &self.terms)?;
        Ok(FoundDocuments { documents: items, next_cursor, explanation })
    }
}

/// A collection that somebody may read. Errors: `NotFound`; `PermissionDenied`.
fn readable(view: &View, actor: &Actor, name: &str) -> Result<Collection> {
    let collection = Collection::existing(view, name)?;
    access::check(view, actor, &collection, Permission::Read)?;
    Ok(collection)
}

/// The documents of a collection, as a query sees them.
pub(super) struct Documents<'s> {
    collection: &'s Collection,
    matcher: &'s Matcher,
    order: &'s Order,
    projection: &'s Projection,
}

impl<'s> Documents<'s> {
    pub(super) fn new(
        collection: &'s Collection,
        matcher: &'s Matcher,
        order: &'s Order,
        projection: &'s Projection,
    ) -> Self {
        Self { collection, matcher, order, projection }
    }

    /// A page of those that are wanted.
    pub(super) fn page(&self, view: &View, terms: &Terms) -> Result<Found<document::Document>> {
        let tests = self.matcher.conjuncts();
        let tests: Vec<_> = tests.iter().collect();
        let (indexes, building) = index::usable(view, self.collection, self.matcher)?;
        let (plan, keys_examined) = plan(view, &indexes, &tests, self.order.by().as_deref())?;
        let explanation = Explanation { access: plan.access(), keys_examined, building, ..Explanation::default() };
        if terms.is_for_none() {
            return Ok(Found { items: vec![], next_cursor: String::new(), explanation });
        }
        let mut run = Run::new(self, view, (terms, explanation));
        run.fill(&plan)?;
        Ok(run.found())
    }

    /// Shows each document that is wanted, in any order, until `visit` answers false.
    pub(super) fn visit(&self, view: &View, visit: impl FnMut(Key, Record) -> Result<bool>) -> Result<()> {
        let tests = self.matcher.conjuncts();
        let tests: Vec<_> = tests.iter().collect();
        let (indexes, _) = index::usable(view, self.collection, self.matcher)?;
        let (plan, _) = plan(view, &indexes, &tests, Some(&[]))?;
        Run::new(self, view, (&Terms::all(), Explanation::default())).visit(&plan, visit)
    }
}

impl Home for Documents<'_> {
    type Item = document::Document;

    fn records(&self) -> ScopeId {
        self.collection.documents()
    }

    fn wanted(&self, view: &View, key: &Key, record: &Record) -> Result<Option<Vec<u8>>> {
        let opened = opened(view, key, record)?;
        let document = opened.document(record);
        Ok(self.matcher.matches(&document).then(|| self.order.of(&document)))
    }

    fn order(&self, view: &View, key: &Key, record: &Record) -> Result<Vec<u8>> {
        Ok(self.order.of(&opened(view, key, record)?.document(record)))
    }

    fn entry(&self, view: &View, index: &Usable, key: &Key, record: &Record) -> Result<Vec<u8>> {
        Ok(index::Index::entry(index, &opened(view, key, record)?.document(record)))
    }

    fn item(&self, view: &View, key: &Key, record: &Record) -> Result<(document::Document, usize)> {
        let shown = opened(view, key, record)?.shown(record, self.projection);
        let bytes = shown.id.len() + shown.json.len() + shown.owner.len();
        Ok((shown, bytes))
    }
}

/// One document by its id. Errors: `InvalidArgument`; `NotFound` for the collection or the document; `PermissionDenied`.
pub fn get(
    view: &View,
    actor: &Actor,
    (name, id): (&str, &str),
    (include, exclude): (&[String], &[String]),
) -> Result<document::Document> {
    let projection = Projection::parse(include, exclude)?;
    check::check_name("id", id, limits::KEY_BYTES)?;
    let collection = readable(view, actor, &actor.full_name(name)?)?;
    let key = collection.key(id);
    match view.record(&key)? {
        Some(record) => Ok(opened(view, &key, &record)?.shown(&record, &projection)),
        None => Err(missing(&collection, id)),
    }
}

pub(super) fn missing(collection: &Collection, id: &str) -> Error {
    Error::NotFound { kind: kind::DOCUMENT, name: format!("{id} in {}", collection.name()) }
}

/// How many documents a filter lets through.
///
/// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`.
pub fn count(view: &View, actor: &Actor, (name, filter): (&str, &str)) -> Result<u64> {
    let matcher = Matcher::parse(filter)?;
    let collection = readable(view, actor, &actor.full_name(name)?)?;
    let (order, projection, mut count) = (Order::default(), Projection::default(), 0);
    Documents::new(&collection, &matcher, &order, &projection).visit(view, |_, _| {
        count += 1;
        Ok(true)
    })?;
    Ok(count)
}

/// Where the documents of a collection stand that somebody may read. Errors: as of [`count`].
pub fn documents_of(view: &View, actor: &Actor, name: &str) -> Result<ScopeId> {
    Ok(readable(view, actor, &actor.full_name(name)?)?.documents())
}

/// The different values that stand in a field of the documents which a filter lets through, as JSON texts, in the order of a
/// sort. The elements of a list are values of their own; where nothing is there is no value.
///
/// Errors: `InvalidArgument`; `NotFound` for the collection; `PermissionDenied`; `Refused` if they are too many.
pub fn distinct(view: &View, actor: &Actor, name: &str, (field, filter): (&str, &str)) -> Result<Vec<String>> {
    let (matcher, path) = (Matcher::parse(filter)?, path::parse("field", field)?);
    let collection = readable(view, actor, &actor.full_name(name)?)?;
    let (order, projection) = (Order::default(), Projection::default());
    let (mut found, mut bytes) = (BTreeMap::new(), 0);
    Documents::new(&collection, &matcher, &order, &projection).visit(view, |key, record| {
        let opened = opened(view, &key, &record)?;
        for (place, text) in path::distinct(&opened.document(&record), &path) {
            let length = text.len();
            if found.insert(place, text).is_none() {
                bytes += length;
            }
            if found.len() > DISTINCT || bytes > DISTINCT_BYTES {
                return Err(Error::Refused(format!(
                    "there are more than {DISTINCT} different values, or {DISTINCT_BYTES} bytes of them; narrow the filter"
                )));
            }
        }
        Ok(true)
    })?;
    Ok(found.into_values().collect())
}
