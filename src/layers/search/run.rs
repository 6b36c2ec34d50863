//! A search under way: what a plan finds is looked at, put in order, and put on the page.

use std::collections::BinaryHeap;

use bytes::Bytes;

use super::{
    super::list::{Cursor, successor},
    Found, Home, Terms,
    plan::{ENTRIES, Plan, Reach, Span, position_of},
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{Key, Record, query::Explanation},
    state::View,
};

/// Records that are read at once, which bounds what is in memory beside the page.
const READ: usize = 32;
/// What a cursor of a sorted search says of the fields of its record.
const SUM_BYTES: usize = 4;
/// What a key that is kept for sorting takes beside its bytes.
const OVERHEAD: usize = 64;

/// What a page holds so far.
struct Page<T> {
    items: Vec<T>,
    bytes: usize,
    left_out: usize,
    /// Whether there is one more than fits.
    more: bool,
    /// The key of the last record, and the fields by which it is sorted.
    last: Option<(Bytes, Vec<u8>)>,
}

/// A search under way.
pub(in crate::layers) struct Run<'r, H: Home> {
    home: &'r H,
    view: &'r View,
    terms: &'r Terms,
    page: Page<H::Item>,
    explanation: Explanation,
}

impl<'r, H: Home> Run<'r, H> {
    pub(in crate::layers) fn new(home: &'r H, view: &'r View, (terms, explanation): (&'r Terms, Explanation)) -> Self {
        let page = Page { items: vec![], bytes: 0, left_out: terms.offset, more: false, last: None };
        Self { home, view, terms, page, explanation }
    }

    /// Puts on the page what belongs there. Errors: `InvalidArgument` for a cursor that is not of this store; `Refused` if more
    /// would have to be sorted than there is room for.
    pub(in crate::layers) fn fill(&mut self, plan: &Plan<'_>) -> Result<()> {
        let after = self.terms.after.as_ref().map(|cursor| cursor.position.clone());
        if self.terms.sorted {
            let after = after.map(|position| self.place(&position)).transpose()?;
            return match plan {
                Plan::Ordered(reach) => self.ordered(reach, after),
                plan => self.sorted(plan, after),
            };
        }
        match (plan, after) {
            (Plan::Ordered(reach), after) => {
                // All its entries are alike, so they are in the order of the keys.
                let key = after.map(|name| self.home.records().key(&name));
                let from = key.and_then(|key| reach.position(&key)).map(|position| successor(&position));
                self.walk(reach, from, |run, key| {
                    let record = run.record(&key)?;
                    run.offer(&key, &record)
                })
            }
            (plan, after) => {
                let from = after.map(|name| successor(&name));
                self.each(plan, from, |run, key, record| run.offer(&key, &record))
            }
        }
    }

    /// Shows each record that is wanted, in any order, until `visit` answers false.
    pub(in crate::layers) fn visit(
        mut self,
        plan: &Plan<'_>,
        mut visit: impl FnMut(Key, Record) -> Result<bool>,
    ) -> Result<()> {
        self.each(plan, None, |run, key, record| match run.order_if_wanted(&key, &record)? {
            Some(_) => visit(key, record),
            None => Ok(true),
        })
    }

    /// The page.
    pub(in crate::layers) fn found(self) -> Found<H::Item> {
        let Page { items, more, last, .. } = self.page;
        let cursor = last.filter(|_| more).map(|(key, order)| Cursor {
            revision: self.view.revision(),
            fingerprint: self.terms.fingerprint,
            position: match self.terms.sorted {
                false => key,
                true => [key.as_ref(), &order_sum(&order)].concat().into(),
            },
        });
        let explanation = Explanation { returned: items.len() as u64, ..self.explanation };
        Found { next_cursor: cursor.map(|cursor| cursor.text()).unwrap_or_default(), items, explanation }
    }

    /// Where the page before ended among what is sorted: the fields of its last record, and its key. Their sum is in the
    /// cursor, because a transaction may have changed the record since.
    fn place(&self, position: &Bytes) -> Result<(Vec<u8>, Bytes, Record)> {
        let wrong = || Error::invalid("cursor", "", "must be the next_cursor of the page before, unchanged");
        let at = position.len().checked_sub(SUM_BYTES).ok_or_else(wrong)?;
        let (name, sum) = (position.slice(..at), position.slice(at..));
        let key = self.home.records().key(&name);
        let changed = || {
            Error::Refused(
                "what the page before ended with was changed in this transaction since: begin the query anew".into(),
            )
        };
        // In what is committed it stands there at this revision, unless the cursor is forged.
        let committed = self.view.committed().record(&key)?.is_some();
        let record = self.view.record(&key)?.ok_or_else(|| if committed { changed() } else { wrong() })?;
        let order = self.home.order(self.view, &key, &record)?;
        if order_sum(&order) != *sum {
            return Err(changed());
        }
        Ok((order, name, record))
    }

    /// A record that an index names.
    fn record(&self, key: &Key) -> Result<Record> {
        let missing = || self.view.fault(Fault::bug(format!("an index names the record {key}, which is not there")));
        self.view.record(key)?.ok_or_else(missing)
    }

    /// The fields by which a record is ordered, if it is wanted.
    fn order_if_wanted(&mut self, key: &Key, record: &Record) -> Result<Option<Vec<u8>>> {
        self.explanation.values_examined += 1;
        // A record may be large, and a filter long.
        self.view.check()?;
        self.home.wanted(self.view, key, record)
    }

    /// Puts a record on the page, if it is wanted: whether to go on.
    fn offer(&mut self, key: &Key, record: &Record) -> Result<bool> {
        let Some(order) = self.order_if_wanted(key, record)? else { return Ok(true) };
        if self.page.left_out > 0 {
            self.page.left_out -= 1;
            return Ok(true);
        }
        self.put(key, record, order)
    }

    /// Puts a record on the page: whether to go on.
    fn put(&mut self, key: &Key, record: &Record, order: Vec<u8>) -> Result<bool> {
        if self.page.items.len() >= self.terms.limit || self.page.bytes >= limits::PAGE_BYTES {
            self.page.more = true;
            return Ok(false);
        }
        let (item, bytes) = self.home.item(self.view, key, record)?;
        self.page.bytes += bytes;
        self.page.items.push(item);
        self.page.last = Some((key.user_bytes(), order));
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
                    let page = self.view.records(self.home.records(), &start, end.as_deref(), READ)?;
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
                    let key = self.home.records().key(key);
                    let record = self.record(&key)?;
                    if !visit(self, key, record)? {
                        return Ok(());
                    }
                }
                Ok(())
            }
            Plan::Ordered(reach) => self.walk(reach, None, |run, key| {
                let record = run.record(&key)?;
                visit(run, key, record)
            }),
        }
    }

    /// Shows the records that an index names, in its order, until `visit` answers false. `from`: not before this position.
    fn walk(
        &mut self,
        reach: &Reach<'_>,
        from: Option<Vec<u8>>,
        mut visit: impl FnMut(&mut Self, Key) -> Result<bool>,
    ) -> Result<()> {
        let from = from.unwrap_or_default();
        // As many as a page is likely to take, and more if they do not fill it.
        let mut at_once = self.terms.limit.saturating_add(1).clamp(1, ENTRIES);
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
                let key = self.home.records().key(&name);
                let entry = self.home.entry(self.view, reach.index, &key, &record)?;
                Some(successor(&position_of(&entry, &key)))
            }
        };
        self.walk(reach, from, |run, key| {
            let record = run.record(&key)?;
            run.offer(&key, &record)
        })
    }

    /// Goes through all that the plan finds, and keeps of it what may come on the page.
    fn sorted(&mut self, plan: &Plan<'_>, after: Option<(Vec<u8>, Bytes, Record)>) -> Result<()> {
        self.explanation.sorted = true;
        let after = after.map(|(order, name, _)| (order, name));
        let most = self.terms.limit.saturating_add(self.terms.offset).saturating_add(1);
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
        for (order, name) in places.into_iter().skip(self.terms.offset) {
            let key = self.home.records().key(&name);
            let record = self.record(&key)?;
            if !self.put(&key, &record, order)? {
                break;
            }
        }
        Ok(())
    }
}

/// By which fields a record was sorted, in few bytes.
fn order_sum(order: &[u8]) -> [u8; SUM_BYTES] {
    crc32c::crc32c(order).to_be_bytes()
}

fn too_much() -> Error {
    Error::Refused(format!(
        "the query would have to keep more than {} MiB of keys to sort them; narrow its filter, ask for a smaller limit or \
         offset (a cursor instead of it), or create an index with the fields that it sorts by",
        limits::SORT_BYTES >> 20
    ))
}
