//! Queries over the values of a namespace.
//!
//! What a filter means is said in [`layers::query`](crate::layers::query); [`plan`] chooses what to go through; here pages are made.
//!
//! * **Order**: by the sort fields (types as in [`order`]; values without a field come last in both directions), and
//!   what is equal in these by key. Without sort fields: by key. The plan does not show in what is answered.
//! * **Pages** show the revision of the first. A cursor names the last value that was given out and nothing of the plan: where it stands in
//!   an index, or among what is sorted, is looked up in that revision. So it stays good across nodes and releases.
//! * **Memory**: a page holds what it answers. If it has to be sorted, of all that is wanted only the keys (and fields) of those
//!   that may come on this page are kept, so the hundred first of a million take room for a hundred; what is left out
//!   before the first page takes room, too. Over [`limits::SORT_BYTES`] the query is refused, and told what helps.
//! * **Time**: views answer no reads behind the deadline of the call, so nothing is searched that nobody waits for.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BinaryHeap;

use bytes::Bytes;

use self::plan::{ENTRIES, Plan, Reach, Span, plan};
use super::{
    super::{
        list::{Cursor, fingerprint, page_limit, successor},
        query::{
            Document, Field,
            filter::Matcher,
            order::{self, By},
        },
    },
    index,
    namespace::{Namespace, check_name},
    open, text, with_attributes,
};
use crate::{
    Error, Result,
    error::Fault,
    layers::check,
    limits,
    model::{
        Key, Record,
        filter::Filter,
        key, keyspace,
        kv::Entry,
        query::{Access, Explanation, Found, Query, SortField},
    },
    state::View,
};

/// Values that are read at once, which bounds what is in memory beside the page.
const READ: usize = 32;
/// What a key that is kept for sorting takes beside its bytes.
const OVERHEAD: usize = 64;

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
        let Some(namespace) = namespace.filter(|_| !self.none) else { return Ok(empty()) };
        if let Some(cursor) = &self.after {
            cursor.check_revision(view)?;
        }
        let (indexes, building) = index::usable(view, &namespace)?;
        let (plan, keys_examined) = plan(view, &indexes, &self.matcher.conjuncts(), &self.sort)?;
        let explanation = Explanation { access: access(&plan), keys_examined, building, ..Explanation::default() };
        let attributes =
            self.matcher.asks_for_attributes() || self.sort.iter().any(|by| matches!(by.field, Field::Attributes(_)));
        let page = Page { entries: vec![], bytes: 0, left_out: self.offset, more: false };
        let mut run = Run { search: self, view, namespace: &namespace, attributes, page, explanation };
        let after = run.after()?;
        match plan {
            Plan::Ordered(reach) => run.ordered(&reach, after.as_ref())?,
            plan if self.sort.is_empty() => {
                let from = after.as_ref().map(|(key, _)| successor(&key.user_bytes()));
                run.each(&plan, from, |run, key, record| run.offer(&key, &record))?;
            }
            plan => run.sorted(&plan, after)?,
        }
        Ok(run.found())
    }
}

/// Counts the values that a filter lets through. Errors: `InvalidArgument`; `NotFound` for the namespace.
pub fn count(view: &View, namespace: &str, filter: &Filter) -> Result<u64> {
    let (matcher, _) = checked(filter)?;
    let Some(namespace) = Namespace::existing(view, namespace)? else { return Ok(0) };
    let (indexes, _) = index::usable(view, &namespace)?;
    // No order is wanted, and none is given up: what is picked is as good as what is ordered.
    let (plan, _) = plan(view, &indexes, &matcher.conjuncts(), &[])?;
    let search = Search {
        namespace: String::new(),
        attributes: false,
        sort: vec![],
        limit: usize::MAX,
        offset: 0,
        after: None,
        fingerprint: 0,
        none: false,
        matcher,
    };
    let page = Page { entries: vec![], bytes: 0, left_out: 0, more: false };
    let (attributes, explanation) = (search.matcher.asks_for_attributes(), Explanation::default());
    let mut run = Run { search: &search, view, namespace: &namespace, attributes, page, explanation };
    let mut count = 0;
    let mut tally = |run: &mut Run<'_>, key: Key, record: Record| {
        count += u64::from(run.order_if_wanted(&key, &record)?.is_some());
        Ok(true)
    };
    match plan {
        Plan::Ordered(reach) => run.walk(&reach, None, |run, key| {
            let record = run.value(&key)?;
            tally(run, key, record)
        })?,
        plan => run.each(&plan, None, tally)?,
    }
    Ok(count)
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

/// What a page holds so far.
struct Page {
    entries: Vec<Entry>,
    bytes: usize,
    left_out: usize,
    /// Whether there is one more than fits.
    more: bool,
}

/// A query under way.
struct Run<'r> {
    search: &'r Search,
    view: &'r View,
    namespace: &'r Namespace,
    /// Whether filter or order ask for attributes.
    attributes: bool,
    page: Page,
    explanation: Explanation,
}

impl Run<'_> {
    /// The last value of the page before.
    fn after(&self) -> Result<Option<(Key, Record)>> {
        let Some(cursor) = &self.search.after else { return Ok(None) };
        let key = self.namespace.values().key(&cursor.position);
        match self.view.record(&key)? {
            Some(record) => Ok(Some((key, record))),
            // Only a forged one names what is not there.
            None => Err(Error::invalid("cursor", "", "must be the next_cursor of the page before, unchanged")),
        }
    }

    /// A value that an index names.
    fn value(&self, key: &Key) -> Result<Record> {
        let missing = || self.view.fault(Fault::bug(format!("an index names the value {key}, which is not there")));
        self.view.record(key)?.ok_or_else(missing)
    }

    /// What is made of a value as the query sees it.
    fn look<T>(&self, key: &Key, record: &Record, look: impl FnOnce(&Document<'_>) -> T) -> Result<T> {
        let name = key.user_bytes();
        let value = text(self.view, record)?;
        let attributes = match self.attributes {
            true => self.view.record(&self.namespace.attributes().key(&name))?.map(|record| record.value),
            false => None,
        };
        Ok(look(&Document {
            key: str_of(&name).unwrap_or_default(),
            value: value.as_ref().and_then(str_of),
            attributes: attributes.as_ref().and_then(str_of),
        }))
    }

    /// The fields by which a value is ordered, if it is wanted.
    fn order_if_wanted(&mut self, key: &Key, record: &Record) -> Result<Option<Vec<u8>>> {
        self.explanation.values_examined += 1;
        let Search { matcher, sort, .. } = self.search;
        self.look(key, record, |document| matcher.matches(document).then(|| order::key(document, sort, None).0))
    }

    /// Puts a value on the page, if it is wanted: whether to go on.
    fn offer(&mut self, key: &Key, record: &Record) -> Result<bool> {
        if self.order_if_wanted(key, record)?.is_none() {
            return Ok(true);
        }
        if self.page.left_out > 0 {
            self.page.left_out -= 1;
            return Ok(true);
        }
        self.put(key, record)
    }

    /// Puts a value on the page: whether to go on.
    fn put(&mut self, key: &Key, record: &Record) -> Result<bool> {
        if self.page.entries.len() >= self.search.limit || self.page.bytes >= limits::PAGE_BYTES {
            self.page.more = true;
            return Ok(false);
        }
        let name = String::from_utf8_lossy(&key.user_bytes()).into_owned();
        let mut entry = open(self.view, name, record)?;
        if self.search.attributes {
            let attributes = self.view.record(&self.namespace.attributes_key(&entry.key))?;
            entry = with_attributes(self.view, entry, attributes.as_ref())?;
        }
        let attributes = entry.metadata.attributes.as_ref().map_or(0, String::len);
        self.page.bytes += entry.key.len() + entry.value.len() + attributes;
        self.page.entries.push(entry);
        Ok(true)
    }

    /// Shows what the plan finds, in the order of the keys, until `visit` answers false. `from`: not before this key.
    fn each(
        &mut self,
        plan: &Plan<'_>,
        from: Option<Vec<u8>>,
        mut visit: impl FnMut(&mut Self, Key, Record) -> Result<bool>,
    ) -> Result<()> {
        match plan {
            Plan::Keys(Span { start, end }) => {
                let mut start = from.unwrap_or_default().max(start.clone());
                loop {
                    let page = self.view.records(self.namespace.values(), &start, end.as_deref(), READ)?;
                    let last = page.len() < READ;
                    for (key, record) in page {
                        self.explanation.keys_examined += 1;
                        start = successor(&key.user_bytes());
                        if !visit(self, key, record)? {
                            return Ok(());
                        }
                    }
                    if last {
                        return Ok(());
                    }
                }
            }
            Plan::Picked(_, keys) => {
                let from = from.unwrap_or_default();
                let first = keys.partition_point(|key| key.as_ref() < from.as_slice());
                for key in keys.iter().skip(first) {
                    let key = self.namespace.values().key(key);
                    let record = self.value(&key)?;
                    if !visit(self, key, record)? {
                        return Ok(());
                    }
                }
                Ok(())
            }
            Plan::Ordered(reach) => self.walk(reach, None, |run, key| {
                let record = run.value(&key)?;
                visit(run, key, record)
            }),
        }
    }

    /// Shows the values that an index names, in its order, until `visit` answers false. `from`: not before this position.
    fn walk(
        &mut self,
        reach: &Reach<'_>,
        from: Option<Vec<u8>>,
        mut visit: impl FnMut(&mut Self, Key) -> Result<bool>,
    ) -> Result<()> {
        let from = from.unwrap_or_default();
        // As many as a page is likely to take; most pages are small.
        let at_once = self.search.limit.saturating_add(1).clamp(1, ENTRIES);
        for Span { start, end } in &reach.spans {
            let mut start = from.clone().max(start.clone());
            loop {
                let page = self.view.entries(reach.index.scope, &start, end.as_deref(), at_once)?;
                let last = page.len() < at_once;
                for entry in page {
                    self.explanation.keys_examined += 1;
                    start = successor(&entry.position);
                    if !visit(self, entry.record_key)? {
                        return Ok(());
                    }
                }
                if last {
                    break;
                }
            }
        }
        Ok(())
    }

    fn ordered(&mut self, reach: &Reach<'_>, after: Option<&(Key, Record)>) -> Result<()> {
        let from = match after {
            None => None,
            Some((key, record)) => {
                let most = Some(limits::INDEX_COMPONENT_BYTES);
                let entry = self.look(key, record, |document| order::key(document, &reach.index.by, most).0)?;
                let mut position = Vec::new();
                key::escape(&mut position, &entry);
                position.extend_from_slice(key.as_bytes());
                Some(successor(&position))
            }
        };
        self.walk(reach, from, |run, key| {
            let record = run.value(&key)?;
            run.offer(&key, &record)
        })
    }

    /// Goes through all that the plan finds, and keeps of it what may come on the page.
    fn sorted(&mut self, plan: &Plan<'_>, after: Option<(Key, Record)>) -> Result<()> {
        self.explanation.sorted = true;
        let after = match after {
            None => None,
            Some((key, record)) => {
                let order = self.look(&key, &record, |document| order::key(document, &self.search.sort, None).0)?;
                Some((order, key.user_bytes()))
            }
        };
        let most = self.search.limit.saturating_add(self.search.offset).saturating_add(1);
        let (mut first, mut bytes) = (BinaryHeap::new(), 0usize);
        let weight = |(order, key): &(Vec<u8>, Bytes)| order.len() + key.len() + OVERHEAD;
        self.each(plan, None, |run, key, record| {
            let Some(order) = run.order_if_wanted(&key, &record)? else { return Ok(true) };
            let place = (order, key.user_bytes());
            if after.as_ref().is_some_and(|after| place <= *after)
                || first.len() >= most && first.peek().is_some_and(|last| place > *last)
            {
                return Ok(true);
            }
            bytes += weight(&place);
            first.push(place);
            if first.len() > most {
                bytes -= first.pop().as_ref().map_or(0, weight);
            }
            if bytes > limits::SORT_BYTES { Err(too_much()) } else { Ok(true) }
        })?;
        let places = first.into_sorted_vec();
        for (_, name) in places.iter().skip(self.search.offset) {
            let key = self.namespace.values().key(name);
            let record = self.value(&key)?;
            if !self.put(&key, &record)? {
                break;
            }
        }
        Ok(())
    }

    fn found(self) -> Found {
        let Page { entries, more, .. } = self.page;
        let last = entries.last().filter(|_| more);
        let cursor = last.map(|last| Cursor {
            revision: self.view.revision(),
            fingerprint: self.search.fingerprint,
            position: last.key.clone().into(),
        });
        let explanation = Explanation { returned: entries.len() as u64, ..self.explanation };
        Found { next_cursor: cursor.map(|cursor| cursor.text()).unwrap_or_default(), entries, explanation }
    }
}

fn str_of(bytes: &Bytes) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn too_much() -> Error {
    Error::Refused(format!(
        "the query would have to keep more than {} MiB of keys to sort them; narrow its filter, ask for a smaller limit or \
         offset (a cursor instead of it), or create an index with the fields that it sorts by",
        limits::SORT_BYTES >> 20
    ))
}
