//! What a search goes through: a range of the keys, or ranges of an index.
//!
//! A plan only ever narrows: whatever is found is held against the whole filter. So an index may be coarser than the filter
//! (cut texts, bounds that are part of it), and the worst that a bad choice costs is time.
//!
//! Of an index serve, from its first field: fields that must be equal to something, or to one of a list, and then one with
//! bounds: both of them, or one alone where a record may have several entries, since then it may be another entry that keeps
//! the other bound. In this order is taken:
//! 1. an index that narrows and gives the order that is wanted: it is left as soon as the page is full;
//! 2. the one key, if the filter names it;
//! 3. the index that narrows most, unless more than [`limits::INDEX_PICKED`] entries are in its ranges (bounds alone do not
//!    count against a range of the keys);
//! 4. an index that gives the order, if one is wanted, and the keys are not narrowed;
//! 5. the keys.

use bytes::Bytes;

use super::{
    super::{
        list::successor,
        query::{
            Field,
            filter::{Check, Test},
            order::{self, By},
            value::Value,
        },
    },
    FIRST, MARKS, Usable,
};
use crate::{
    Result, limits,
    model::{
        Key,
        key::{self, prefix_end},
        query::Access,
        transaction::Relation,
    },
    state::View,
};

/// Entries that are read at once.
pub(super) const ENTRIES: usize = 256;

/// A range of positions, or of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::layers) struct Span {
    pub(super) start: Vec<u8>,
    pub(super) end: Option<Bytes>,
}

/// What is gone through.
pub(in crate::layers) enum Plan<'a> {
    /// Records by their keys.
    Keys(Span),
    /// Records that an index has picked, by their keys.
    Picked(Reach<'a>, Vec<Bytes>),
    /// An index, which has the order that is wanted.
    Ordered(Reach<'a>),
}

/// How an index serves.
pub(in crate::layers) struct Reach<'a> {
    pub(super) index: &'a Usable,
    /// Fields that narrow.
    narrows: usize,
    /// Of these, from the first, how many have one value only.
    fixed: usize,
    pub(super) spans: Vec<Span>,
    ordered: bool,
    /// The one entry that all records in its ranges have, if there is but one.
    alike: Option<Vec<u8>>,
}

/// The plan for what must be true of all that is wanted, in this order (`None`: in one that no index gives); and how many keys of an index were gone through for it.
pub(in crate::layers) fn plan<'a>(
    view: &View,
    indexes: &'a [Usable],
    tests: &[&Test],
    sort: Option<&[By]>,
) -> Result<(Plan<'a>, u64)> {
    let mut reaches = Vec::new();
    for index in indexes {
        let mut reach = Reach::of(index, tests, sort);
        reach.ordered = reach.ordered && !index.several && view.entries(index.scope, MARKS, Some(FIRST), 1)?.is_empty();
        reaches.push(reach);
    }
    // Of equals the first.
    reaches.sort_by_key(|reach| std::cmp::Reverse((reach.narrows, reach.fixed)));
    let take = |reaches: &mut Vec<Reach<'a>>, wanted: &dyn Fn(&Reach<'a>) -> bool| {
        reaches.iter().position(wanted).map(|at| reaches.remove(at))
    };
    if let Some(reach) = take(&mut reaches, &|reach| reach.ordered && reach.narrows > 0) {
        return Ok((Plan::Ordered(reach), 0));
    }
    let keys = keys(tests);
    let one = keys.end.as_ref().is_some_and(|end| *end == successor(&keys.start));
    let narrowed = keys != Span { start: vec![], end: None };
    let mut examined = 0;
    if !one && let Some(reach) = take(&mut reaches, &|reach| reach.narrows > 0 && (reach.fixed > 0 || !narrowed)) {
        let picked = reach.pick(view, &mut examined)?;
        if let Some(picked) = picked {
            return Ok((Plan::Picked(reach, picked), examined));
        }
    }
    match take(&mut reaches, &|reach| reach.ordered) {
        Some(reach) if !narrowed && sort.is_some_and(|sort| !sort.is_empty()) => Ok((Plan::Ordered(reach), examined)),
        _ => Ok((Plan::Keys(keys), examined)),
    }
}

impl Plan<'_> {
    /// What is gone through, as people are told.
    pub(in crate::layers) fn access(&self) -> Access {
        let of = |reach: &Reach<'_>, ordered| Access::Index {
            name: reach.index.name.clone(),
            fields: u32::try_from(reach.narrows).unwrap_or(u32::MAX),
            ranges: u32::try_from(reach.spans.len()).unwrap_or(u32::MAX),
            ordered,
        };
        match self {
            Self::Keys(span) if *span == (Span { start: vec![], end: None }) => Access::Scan,
            Self::Keys(_) => Access::Keys,
            Self::Picked(reach, _) => of(reach, false),
            Self::Ordered(reach) => of(reach, reach.ordered),
        }
    }
}

impl<'a> Reach<'a> {
    fn of(index: &'a Usable, tests: &[&Test], sort: Option<&[By]>) -> Self {
        let (mut prefixes, mut narrows, mut fixed) = (vec![Vec::new()], 0, 0);
        let mut spans = None;
        for by in &index.by {
            let of_field = || tests.iter().filter(|test| test.field == by.field).map(|test| &test.check);
            if let Some(points) = points(of_field(), by.descending)
                && prefixes.len() * points.len() <= limits::INDEX_RANGES
            {
                if points.len() == 1 && fixed == narrows {
                    fixed += 1;
                }
                narrows += 1;
                prefixes =
                    prefixes.iter().flat_map(|prefix| points.iter().map(move |point| joined(prefix, point))).collect();
                continue;
            }
            if let Some((low, high)) = bounds(of_field(), by.descending, index.several) {
                narrows += 1;
                let span = |prefix: &Vec<u8>| Span {
                    start: position(&joined(prefix, &low)),
                    end: prefix_end(&position(&joined(prefix, &high))),
                };
                spans = Some(prefixes.iter().map(span).collect());
            }
            break;
        }
        let alike = (fixed == index.by.len()).then(|| prefixes.first().cloned().unwrap_or_default());
        let spans = spans.unwrap_or_else(|| {
            let whole = |prefix: &Vec<u8>| match prefix.is_empty() {
                true => Span { start: FIRST.to_vec(), end: None },
                false => Span { start: position(prefix), end: prefix_end(&position(prefix)) },
            };
            prefixes.iter().map(whole).collect()
        });
        // Behind fields of one value the index is in the order of the others, and then of the keys.
        let ordered = sort.is_some() && (0..=fixed).any(|from| index.by.get(from..) == sort);
        Self { index, narrows, fixed, spans, ordered, alike }
    }

    /// The keys of the records in its ranges, each once, in their order; `None` if they are too many.
    fn pick(&self, view: &View, examined: &mut u64) -> Result<Option<Vec<Bytes>>> {
        let mut picked = Vec::new();
        for Span { start, end } in &self.spans {
            let mut start = start.clone();
            loop {
                let page = view.entries(self.index.scope, &start, end.as_deref(), ENTRIES)?;
                *examined += page.len() as u64;
                let last = page.len() < ENTRIES;
                for entry in page {
                    start = successor(&entry.position);
                    picked.push(entry.record_key.user_bytes());
                }
                if picked.len() > limits::INDEX_PICKED {
                    return Ok(None);
                }
                if last {
                    break;
                }
            }
        }
        picked.sort_unstable();
        picked.dedup();
        Ok(Some(picked))
    }

    /// Where a record stands that is one of those it reaches, if these are alike in all fields.
    pub(super) fn position(&self, key: &Key) -> Option<Vec<u8>> {
        let entry = self.alike.as_ref()?;
        Some(position_of(entry, key))
    }
}

fn joined(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
    [prefix, rest].concat()
}

/// The position of an entry of a record.
pub(super) fn position_of(entry: &[u8], key: &Key) -> Vec<u8> {
    let mut position = Vec::with_capacity(entry.len() + key.as_bytes().len() + 8);
    key::escape(&mut position, entry);
    position.extend_from_slice(key.as_bytes());
    position
}

/// What the positions of all entries begin with that begin so.
fn position(entry: &[u8]) -> Vec<u8> {
    let mut position = Vec::with_capacity(entry.len() + 8);
    key::escape(&mut position, entry);
    // Without the end of the entry.
    position.truncate(position.len() - 2);
    position
}

fn encoded(value: &Value<'_>) -> Vec<u8> {
    order::component(Some(value), false, Some(order::KEPT)).0
}

/// The values that a field must be one of, in the order of the index.
fn points<'t>(checks: impl Iterator<Item = &'t Check>, descending: bool) -> Option<Vec<Vec<u8>>> {
    let of = |check: &Check| match check {
        Check::Equal(value) => Some(vec![encoded(value)]),
        Check::In(values) => Some(values.iter().map(encoded).collect()),
        _ => None,
    };
    // One is enough, since the whole filter is asked: the shortest.
    let mut points: Vec<Vec<u8>> = checks.filter_map(of).min_by_key(Vec::len)?;
    points = points.into_iter().map(|point| order::directed(point, descending)).collect();
    points.sort_unstable();
    points.dedup();
    Some(points)
}

/// What a field must lie between, in the order of the index: both bounds, and what begins with them.
/// With `first` only the first of these is kept.
fn bounds<'t>(checks: impl Iterator<Item = &'t Check>, descending: bool, first: bool) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut found: Option<(Vec<u8>, Vec<u8>)> = None;
    for check in checks {
        if first && found.is_some() {
            break;
        }
        let (low, high) = match check {
            Check::Relates(relation, value) => {
                let Some((first, last)) = order::type_bounds(value) else { continue };
                match relation {
                    Relation::Greater | Relation::GreaterOrEqual => (encoded(value), vec![last]),
                    Relation::Less | Relation::LessOrEqual => (vec![first], encoded(value)),
                    Relation::Equal | Relation::NotEqual => continue,
                }
            }
            Check::StartsWith(text) => {
                let prefix = order::text_prefix(text, false, order::KEPT);
                (prefix.clone(), prefix)
            }
            _ => continue,
        };
        found = Some(match found {
            None => (low, high),
            Some((lowest, highest)) => {
                // What begins with a bound is within it, so of two the longer is the narrower.
                let narrower = if high.starts_with(&highest) || highest.starts_with(&high) {
                    if high.len() > highest.len() { high } else { highest }
                } else {
                    high.min(highest)
                };
                (low.max(lowest), narrower)
            }
        });
    }
    let (low, high) = found?;
    Some(if descending { (order::directed(high, true), order::directed(low, true)) } else { (low, high) })
}

/// The range of keys in which all must be that is wanted.
fn keys(tests: &[&Test]) -> Span {
    let mut span = Span { start: vec![], end: None };
    for Test { field, check } in tests {
        if *field != Field::Key {
            continue;
        }
        let (start, end) = match check {
            Check::Equal(Value::Text(key)) => (key.to_vec(), Some(successor(key))),
            Check::Relates(Relation::Greater, Value::Text(key)) => (successor(key), None),
            Check::Relates(Relation::GreaterOrEqual, Value::Text(key)) => (key.to_vec(), None),
            Check::Relates(Relation::Less, Value::Text(key)) => (vec![], Some(key.to_vec())),
            Check::Relates(Relation::LessOrEqual, Value::Text(key)) => (vec![], Some(successor(key))),
            Check::StartsWith(prefix) => (prefix.clone(), prefix_end(prefix).map(Vec::from)),
            Check::In(keys) => {
                let text = |key: &Value<'_>| if let Value::Text(key) = key { Some(key.to_vec()) } else { None };
                let keys: Vec<Vec<u8>> = keys.iter().filter_map(text).collect();
                // None at all: nothing is wanted.
                let (least, greatest) = (keys.iter().min().cloned(), keys.iter().max());
                (least.unwrap_or_default(), Some(greatest.map_or_else(Vec::new, |key| successor(key))))
            }
            _ => continue,
        };
        span.start = span.start.max(start);
        if let Some(end) = end.map(Bytes::from) {
            span.end = Some(span.end.map_or_else(|| end.clone(), |before| before.min(end.clone())));
        }
    }
    span
}
