//! A query under way: what a plan finds is looked at, put in order, and put on the page.

use std::collections::BinaryHeap;

use bytes::Bytes;

use super::{
    super::{
        super::{
            list::{Cursor, successor},
            query::{Document, Field, order},
        },
        namespace::Namespace,
        open, text, with_attributes,
    },
    Search,
    plan::{ENTRIES, Plan, Reach, Span, position_of},
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Key, Record,
        kv::Entry,
        query::{Explanation, Found},
    },
    state::View,
};

/// Values that are read at once, which bounds what is in memory beside the page.
const READ: usize = 32;
/// What a cursor of a sorted query says of the fields of its value.
const SUM_BYTES: usize = 4;
/// What a key that is kept for sorting takes beside its bytes.
const OVERHEAD: usize = 64;

/// What a page holds so far.
struct Page {
    entries: Vec<Entry>,
    bytes: usize,
    left_out: usize,
    /// Whether there is one more than fits.
    more: bool,
    /// The fields by which the last value is sorted, if it is.
    last: Option<Vec<u8>>,
}

/// A query under way.
pub(super) struct Run<'r> {
    search: &'r Search,
    view: &'r View,
    namespace: &'r Namespace,
    /// Whether filter or order ask for attributes.
    attributes: bool,
    page: Page,
    explanation: Explanation,
}

impl<'r> Run<'r> {
    pub(super) fn new(
        search: &'r Search,
        (view, namespace): (&'r View, &'r Namespace),
        explanation: Explanation,
    ) -> Self {
        let by_attributes = search.sort.iter().any(|by| matches!(by.field, Field::Attributes(_)));
        let attributes = by_attributes || search.matcher.asks_for_attributes();
        let page = Page { entries: vec![], bytes: 0, left_out: search.offset, more: false, last: None };
        Self { search, view, namespace, attributes, page, explanation }
    }

    /// Puts on the page what belongs there.
    pub(super) fn fill(&mut self, plan: &Plan<'_>) -> Result<()> {
        let after = self.search.after.as_ref().map(|cursor| cursor.position.clone());
        if !self.search.sort.is_empty() {
            let after = after.map(|position| self.place(&position)).transpose()?;
            return match plan {
                Plan::Ordered(reach) => self.ordered(reach, after),
                plan => self.sorted(plan, after),
            };
        }
        match (plan, after) {
            (Plan::Ordered(reach), after) => {
                // All its entries are alike, so they are in the order of the keys.
                let key = after.map(|name| self.namespace.values().key(&name));
                let from = key.and_then(|key| reach.position(&key)).map(|position| successor(&position));
                self.walk(reach, from, |run, key| {
                    let record = run.value(&key)?;
                    run.offer(&key, &record)
                })
            }
            (plan, after) => {
                let from = after.map(|name| successor(&name));
                self.each(plan, from, |run, key, record| run.offer(&key, &record))
            }
        }
    }

    /// How many values are wanted.
    pub(super) fn count(mut self, plan: &Plan<'_>) -> Result<u64> {
        let mut count = 0;
        self.each(plan, None, |run, key, record| {
            count += u64::from(run.order_if_wanted(&key, &record)?.is_some());
            Ok(true)
        })?;
        Ok(count)
    }

    /// The page.
    pub(super) fn found(self) -> Found {
        let Page { entries, more, ref last, .. } = self.page;
        let order = last.as_ref();
        let last = entries.last().filter(|_| more);
        let cursor = last.map(|last| Cursor {
            revision: self.view.revision(),
            fingerprint: self.search.fingerprint,
            position: match order {
                None => last.key.clone().into(),
                Some(order) => [last.key.as_bytes(), &order_sum(order)].concat().into(),
            },
        });
        let explanation = Explanation { returned: entries.len() as u64, ..self.explanation };
        Found { next_cursor: cursor.map(|cursor| cursor.text()).unwrap_or_default(), entries, explanation }
    }

    /// Where the page before ended among what is sorted: the fields of its last value, and its key. Their sum is in the cursor,
    /// because a transaction may have changed the value since.
    fn place(&self, position: &Bytes) -> Result<(Vec<u8>, Bytes, Record)> {
        let wrong = || Error::invalid("cursor", "", "must be the next_cursor of the page before, unchanged");
        let at = position.len().checked_sub(SUM_BYTES).ok_or_else(wrong)?;
        let (name, sum) = (position.slice(..at), position.slice(at..));
        let key = self.namespace.values().key(&name);
        let changed = || {
            Error::Refused(
                "the value at which the page before ended was changed in this transaction since: begin the query anew"
                    .into(),
            )
        };
        // In what is committed it stands there at this revision, unless the cursor is forged.
        let committed = self.view.committed().record(&key)?.is_some();
        let record = self.view.record(&key)?.ok_or_else(|| if committed { changed() } else { wrong() })?;
        let order = self.look(&key, &record, |document| order::key(document, &self.search.sort, None).0)?;
        if order_sum(&order) != *sum {
            return Err(changed());
        }
        Ok((order, name, record))
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
            true => {
                let record = self.view.record(&self.namespace.attributes().key(&name))?;
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

    /// The fields by which a value is ordered, if it is wanted.
    fn order_if_wanted(&mut self, key: &Key, record: &Record) -> Result<Option<Vec<u8>>> {
        self.explanation.values_examined += 1;
        // A value may be large, and a filter long.
        self.view.check()?;
        let Search { matcher, sort, .. } = self.search;
        self.look(key, record, |document| matcher.matches(document).then(|| order::key(document, sort, None).0))
    }

    /// Puts a value on the page, if it is wanted: whether to go on.
    fn offer(&mut self, key: &Key, record: &Record) -> Result<bool> {
        let Some(order) = self.order_if_wanted(key, record)? else { return Ok(true) };
        if self.page.left_out > 0 {
            self.page.left_out -= 1;
            return Ok(true);
        }
        self.put(key, record, order)
    }

    /// Puts a value on the page: whether to go on.
    fn put(&mut self, key: &Key, record: &Record, order: Vec<u8>) -> Result<bool> {
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
        self.page.last = (!self.search.sort.is_empty()).then_some(order);
        Ok(true)
    }

    /// Shows what the plan finds, until `visit` answers false; unless an index gives it, in the order of the keys. `from`:
    /// not before this key, in that order.
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
        // As many as a page is likely to take, and more if they do not fill it.
        let mut at_once = self.search.limit.saturating_add(1).clamp(1, ENTRIES);
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
                at_once = (at_once * 2).min(ENTRIES);
            }
        }
        Ok(())
    }

    fn ordered(&mut self, reach: &Reach<'_>, after: Option<(Vec<u8>, Bytes, Record)>) -> Result<()> {
        let from = match after {
            None => None,
            Some((_, name, record)) => {
                let key = self.namespace.values().key(&name);
                let most = Some(order::KEPT);
                let entry = self.look(&key, &record, |document| order::key(document, &reach.index.by, most).0)?;
                Some(successor(&position_of(&entry, &key)))
            }
        };
        self.walk(reach, from, |run, key| {
            let record = run.value(&key)?;
            run.offer(&key, &record)
        })
    }

    /// Goes through all that the plan finds, and keeps of it what may come on the page.
    fn sorted(&mut self, plan: &Plan<'_>, after: Option<(Vec<u8>, Bytes, Record)>) -> Result<()> {
        self.explanation.sorted = true;
        let after = after.map(|(order, name, _)| (order, name));
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
        for (order, name) in places.into_iter().skip(self.search.offset) {
            let key = self.namespace.values().key(&name);
            let record = self.value(&key)?;
            if !self.put(&key, &record, order)? {
                break;
            }
        }
        Ok(())
    }
}

/// By which fields a value was sorted, in few bytes.
fn order_sum(order: &[u8]) -> [u8; SUM_BYTES] {
    crc32c::crc32c(order).to_be_bytes()
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
