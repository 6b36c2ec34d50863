//! Queries over the values of a namespace.
//!
//! What a filter means is said in [`layers::query`](crate::layers::query), how pages are made in
//! [`layers::search`](crate::layers::search); here is what both are asked of a namespace. Types are ordered as in
//! [`order`]; values without a field come last in both directions.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::{
    super::{
        list::fingerprint,
        query::{
            Document, Field,
            filter::Matcher,
            order::{self, By},
        },
        search::{self, Home, Run, Terms, Usable, plan},
    },
    index,
    namespace::{Namespace, check_name},
    open, text, with_attributes,
};
use crate::{
    Error, Result,
    layers::check,
    limits,
    model::{
        Key, Record, ScopeId,
        filter::Filter,
        keyspace,
        kv::Entry,
        query::{Explanation, Found, Query, SortField},
    },
    state::View,
};

/// A page of a query.
#[derive(Debug)]
pub struct Search {
    namespace: String,
    matcher: Matcher,
    sort: Vec<By>,
    terms: Terms,
    /// Whether attributes are answered.
    attributes: bool,
}

/// Errors: `InvalidArgument` for a filter, a sort field, a limit or a cursor that is none, or not of this query.
pub fn search(namespace: &str, query: &Query) -> Result<Search> {
    let Query { filter, sort, limit, offset, cursor, attributes } = query;
    let namespace = check_name(namespace)?.to_owned();
    let (matcher, filter_text) = checked(filter)?;
    let fields: Vec<(&str, bool)> = sort.iter().map(|by| (by.field.as_str(), by.descending)).collect();
    let fingerprint = fingerprint(keyspace::VALUES, &(&namespace, "query", filter_text, fields));
    let sort = order_of(sort)?;
    let terms = Terms::new((*limit, *offset, cursor), fingerprint, !sort.is_empty())?;
    Ok(Search { namespace, matcher, sort, terms, attributes: *attributes })
}

/// A filter that was checked, and its text.
fn checked(filter: &Filter) -> Result<(Matcher, String)> {
    let matcher = Matcher::of(filter)?;
    let text = filter.to_json();
    check::check_length("filter", text.len(), limits::FILTER_BYTES)?;
    Ok((matcher, text))
}

fn order_of(sort: &[SortField]) -> Result<Vec<By>> {
    check::check_count("sort", sort.len(), limits::SORT_FIELDS)?;
    let mut order = Vec::new();
    for (at, SortField { field, descending }) in sort.iter().enumerate() {
        let by = By { field: Field::parse(&format!("sort[{at}]"), field)?, descending: *descending };
        if order.iter().any(|before: &By| before.field == by.field) {
            return Err(Error::invalid(format!("sort[{at}]"), field, "must not be there twice"));
        }
        order.push(by);
    }
    // No two have the same key, and what is equal is in their order anyway.
    if let Some(at) = order.iter().position(|by| by.field == Field::Key) {
        let descending = order.get(at).is_some_and(|by| by.descending);
        order.truncate(if descending { at + 1 } else { at });
    }
    Ok(order)
}

impl Search {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.terms.revision()
    }

    /// The page. Errors: `NotFound` for the namespace; `InvalidArgument` for a cursor that is not of this store; `Refused` if
    /// more would have to be sorted than there is room for.
    pub fn read(&self, view: &View) -> Result<Found> {
        let namespace = Namespace::existing(view, &self.namespace)?;
        let Some(namespace) = namespace else { return Ok(nothing(Explanation::default())) };
        self.terms.check(view)?;
        let (indexes, building) = index::usable(view, &namespace)?;
        let (plan, keys_examined) = plan(view, &indexes, &self.matcher.conjuncts(), Some(&self.sort))?;
        let explanation = Explanation { access: plan.access(), keys_examined, building, ..Explanation::default() };
        if self.terms.is_for_none() {
            return Ok(nothing(explanation));
        }
        let values = Values::new(self, &namespace);
        let mut run = Run::new(&values, view, (&self.terms, explanation));
        run.fill(&plan)?;
        let search::Found { items: entries, next_cursor, explanation } = run.found();
        Ok(Found { entries, next_cursor, explanation })
    }
}

/// Counts the values that a filter lets through. Errors: `InvalidArgument`; `NotFound` for the namespace.
pub fn count(view: &View, namespace: &str, filter: &Filter) -> Result<u64> {
    let (matcher, _) = checked(filter)?;
    let search = Search { namespace: String::new(), matcher, sort: vec![], terms: Terms::all(), attributes: false };
    let Some(namespace) = Namespace::existing(view, namespace)? else { return Ok(0) };
    let (indexes, _) = index::usable(view, &namespace)?;
    let (plan, _) = plan(view, &indexes, &search.matcher.conjuncts(), Some(&[]))?;
    let (values, mut count) = (Values::new(&search, &namespace), 0);
    Run::new(&values, view, (&search.terms, Explanation::default())).visit(&plan, |_, _| {
        count += 1;
        Ok(true)
    })?;
    Ok(count)
}

fn nothing(explanation: Explanation) -> Found {
    Found { entries: vec![], next_cursor: String::new(), explanation }
}

/// The values of a namespace, as a query sees them.
struct Values<'s> {
    search: &'s Search,
    namespace: &'s Namespace,
    /// Whether filter or order ask for attributes.
    attributes: bool,
}

impl<'s> Values<'s> {
    fn new(search: &'s Search, namespace: &'s Namespace) -> Self {
        let by_attributes = search.sort.iter().any(|by| matches!(by.field, Field::Attributes(_)));
        Self { search, namespace, attributes: by_attributes || search.matcher.asks_for_attributes() }
    }

    /// What is made of a value as the query sees it.
    fn look<T>(&self, view: &View, (key, record): (&Key, &Record), look: impl FnOnce(&Document<'_>) -> T) -> Result<T> {
        let name = key.user_bytes();
        let value = text(view, record)?;
        let attributes = match self.attributes {
            true => {
                let record = view.record(&self.namespace.attributes().key(&name))?;
                // As it is shown.
                Some(record.map_or(Bytes::from_static(b"{}"), |record| record.value))
            }
            false => None,
        };
        Ok(look(&Document {
            key: str_of(&name).unwrap_or_default(),
            value: value.as_ref().and_then(str_of),
            attributes: attributes.as_ref().and_then(str_of),
        }))
    }
}

impl Home for Values<'_> {
    type Item = Entry;

    fn records(&self) -> ScopeId {
        self.namespace.values()
    }

    fn wanted(&self, view: &View, key: &Key, record: &Record) -> Result<Option<Vec<u8>>> {
        let Search { matcher, sort, .. } = self.search;
        self.look(view, (key, record), |document| matcher.matches(document).then(|| order::key(document, sort, None).0))
    }

    fn order(&self, view: &View, key: &Key, record: &Record) -> Result<Vec<u8>> {
        self.look(view, (key, record), |document| order::key(document, &self.search.sort, None).0)
    }

    fn entry(&self, view: &View, index: &Usable, key: &Key, record: &Record) -> Result<Vec<u8>> {
        self.look(view, (key, record), |document| order::key(document, &index.by, Some(order::KEPT)).0)
    }

    fn item(&self, view: &View, key: &Key, record: &Record) -> Result<(Entry, usize)> {
        let name = String::from_utf8_lossy(&key.user_bytes()).into_owned();
        let mut entry = open(view, name, record)?;
        if self.search.attributes {
            let attributes = view.record(&self.namespace.attributes_key(&entry.key))?;
            entry = with_attributes(view, entry, attributes.as_ref())?;
        }
        let attributes = entry.metadata.attributes.as_ref().map_or(0, String::len);
        let bytes = entry.key.len() + entry.value.len() + attributes;
        Ok((entry, bytes))
    }
}

fn str_of(bytes: &Bytes) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
