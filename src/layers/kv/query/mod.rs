//! Queries over the values of a namespace.
//!
//! What a filter means is said in [`layers::query`](crate::layers::query); [`mod@plan`] chooses what to go through; here pages
//! are made.
//!
//! * **Order**: by the sort fields (types as in [`order`](crate::layers::query::order); values without a field come last in
//!   both directions), and what is equal in these by key. Without sort fields: by key. The plan does not show in what is
//!   answered.
//! * **Pages** show the revision of the first. A cursor names the last value that was given out and nothing of the plan:
//!   where it stands in an index, or among what is sorted, is looked up in that revision. So it stays good across nodes and
//!   releases. Only a transaction can change what it pages over: unsorted it goes on behind the key, whatever has become of
//!   it; sorted by what was changed it is told to begin anew.
//! * **Memory**: a page holds what it answers. If it has to be sorted, of all that is wanted only the keys (and fields) of
//!   those that may come on this page are kept, so the hundred first of a million take room for a hundred; what is left out
//!   before the first page takes room, too. Over [`limits::SORT_BYTES`] the query is refused, and told what helps.
//! * **Time**: before each value it is asked whether somebody still waits, so what is searched for nobody is one value.

mod plan;
mod run;
#[cfg(test)]
mod tests;

use self::{
    plan::{Plan, Reach, Span, plan},
    run::Run,
};
use super::{
    super::{
        list::{Cursor, fingerprint, page_limit},
        query::{Field, filter::Matcher, order::By},
    },
    index,
    namespace::{Namespace, check_name},
};
use crate::{
    Error, Result,
    layers::check,
    limits,
    model::{
        filter::Filter,
        keyspace,
        query::{Access, Explanation, Found, Query, SortField},
    },
    state::View,
};

/// A page of a query.
#[derive(Debug)]
pub struct Search {
    namespace: String,
    matcher: Matcher,
    sort: Vec<By>,
    limit: usize,
    offset: usize,
    after: Option<Cursor>,
    fingerprint: u64,
    /// Whether no value is wanted at all.
    none: bool,
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
    if *offset > 0 && !cursor.is_empty() {
        let rule = "must be 0 with a cursor: the first page left them out";
        return Err(Error::invalid("offset", offset.to_string(), rule));
    }
    Ok(Search {
        namespace,
        matcher,
        sort: order_of(sort)?,
        limit: page_limit(limit.unwrap_or_default())?,
        offset: usize::try_from(*offset).unwrap_or(usize::MAX),
        after: Cursor::parse(cursor, fingerprint)?,
        fingerprint,
        none: *limit == Some(0),
        attributes: *attributes,
    })
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
        self.after.as_ref().map(|cursor| cursor.revision)
    }

    /// The page. Errors: `NotFound` for the namespace; `InvalidArgument` for a cursor that is not of this store; `Refused` if
    /// more would have to be sorted than there is room for.
    pub fn read(&self, view: &View) -> Result<Found> {
        let namespace = Namespace::existing(view, &self.namespace)?;
        let Some(namespace) = namespace else { return Ok(empty()) };
        if let Some(cursor) = &self.after {
            cursor.check_revision(view)?;
        }
        let (indexes, building) = index::usable(view, &namespace)?;
        let (plan, keys_examined) = plan(view, &indexes, &self.matcher.conjuncts(), &self.sort)?;
        let explanation = Explanation { access: access(&plan), keys_examined, building, ..Explanation::default() };
        if self.none {
            return Ok(Found { explanation, ..empty() });
        }
        let mut run = Run::new(self, (view, &namespace), explanation);
        run.fill(&plan)?;
        Ok(run.found())
    }

    /// One that only asks what is wanted.
    fn of(matcher: Matcher) -> Self {
        Self {
            namespace: String::new(),
            matcher,
            sort: vec![],
            limit: limits::PAGE_MAX,
            offset: 0,
            after: None,
            fingerprint: 0,
            none: false,
            attributes: false,
        }
    }
}

/// Counts the values that a filter lets through. Errors: `InvalidArgument`; `NotFound` for the namespace.
pub fn count(view: &View, namespace: &str, filter: &Filter) -> Result<u64> {
    let search = Search::of(checked(filter)?.0);
    let Some(namespace) = Namespace::existing(view, namespace)? else { return Ok(0) };
    let (indexes, _) = index::usable(view, &namespace)?;
    let (plan, _) = plan(view, &indexes, &search.matcher.conjuncts(), &[])?;
    Run::new(&search, (view, &namespace), Explanation::default()).count(&plan)
}

fn empty() -> Found {
    Found { entries: vec![], next_cursor: String::new(), explanation: Explanation::default() }
}

fn access(plan: &Plan<'_>) -> Access {
    let of = |reach: &Reach<'_>, ordered| Access::Index {
        name: reach.index.name.clone(),
        fields: u32::try_from(reach.narrows).unwrap_or(u32::MAX),
        ranges: u32::try_from(reach.spans.len()).unwrap_or(u32::MAX),
        ordered,
    };
    match plan {
        Plan::Keys(span) if *span == (Span { start: vec![], end: None }) => Access::Scan,
        Plan::Keys(_) => Access::Keys,
        Plan::Picked(reach, _) => of(reach, false),
        Plan::Ordered(reach) => of(reach, reach.is_ordered()),
    }
}
