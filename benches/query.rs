//! Queries over 100,000 values of a namespace, with and without an index, and what evaluating a filter costs. The store is
//! a plain map behind the real core: what a disk adds is not measured here.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::{
    collections::BTreeMap,
    hint::black_box,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meshstore::{
    Error,
    error::Fault,
    layers::{
        Write,
        kv::{index, namespace, query, write},
        query::{Document, filter::Matcher},
    },
    model::{
        filter::Filter,
        kv::{NamespaceSettings, Set, Value},
        proposal::{Action, Batch, Guards, Proposal},
        query::{Query, SortField},
    },
    state::{Base, State, View, view::Source},
};

const VALUES: u64 = 100_000;
const NAMESPACE: &str = "people";

#[derive(Clone, Default)]
struct Pairs(Arc<RwLock<BTreeMap<Bytes, Bytes>>>);

impl Pairs {
    fn within(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Vec<(Bytes, Bytes)> {
        let pairs = self.0.read().unwrap();
        let within = pairs.range::<[u8], _>((Included(start), end.map_or(Unbounded, Excluded)));
        within.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Base for Pairs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.read().unwrap().get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        Ok(self.within(start, end, limit))
    }

    fn write(&mut self, _revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        let mut all = self.0.write().unwrap();
        for (key, value) in pairs {
            match value {
                Some(value) => all.insert(key, value),
                None => all.remove(&key),
            };
        }
        Ok(())
    }
}

impl Source for Pairs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.read().unwrap().get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Error> {
        Ok(self.within(start, end, limit))
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Unexpected(fault.to_string())
    }
}

/// One replica.
#[derive(Default)]
struct Replica {
    state: State,
    pairs: Pairs,
}

impl Replica {
    fn view(&self) -> View {
        View::new(self.state.meta().revision, Box::new(self.pairs.clone()))
    }

    fn apply(&mut self, write: Write) {
        let action = Action::Transact(write.transaction);
        let guards = Guards { compares: write.guards, ..Guards::default() };
        let proposal = Proposal { principal: "service:bench".into(), call: None, guards, action };
        let batch = Batch { log_time_ms: 1, wall_ms: 1_700_000_000_000, proposals: vec![proposal] };
        self.state.apply(&mut self.pairs, &batch).unwrap();
    }

    /// With so many values, and these indexes, which are there before the values, and so need not be built.
    fn filled(indexes: &[&[&str]]) -> Self {
        let mut replica = Self::default();
        replica.apply(namespace::create(&replica.view(), NAMESPACE, "{}", NamespaceSettings::default()).unwrap());
        for fields in indexes {
            let by = fields.iter().map(|field| SortField::ascending(*field)).collect();
            replica.apply(index::create(&replica.view(), NAMESPACE, &fields.join(","), by).unwrap());
        }
        let set = |n: u64| Set::new(format!("person/{n:08}"), Value::Json(person(n)));
        for first in (0..VALUES).step_by(1_000) {
            let sets = (first..first + 1_000).map(set).collect();
            replica.apply(write::set(&replica.view(), "bench", NAMESPACE, sets, false).unwrap().write.unwrap());
        }
        replica
    }

    fn page(&self, query: &Query) -> usize {
        query::search(NAMESPACE, query).unwrap().read(&self.view()).unwrap().entries.len()
    }
}

fn person(n: u64) -> String {
    let scattered = n * 61_803 % VALUES;
    format!(
        r#"{{"name": "person {scattered}", "age": {}, "number": {scattered}, "address": {{"city": "city {}", "zip": "{n:05}"}}, "tags": ["a", "b", "c"]}}"#,
        n % 90,
        n % 1_000
    )
}

fn query(filter: &str, sort: Option<&str>) -> Query {
    let filter = Filter::parse(filter).unwrap();
    Query { filter, sort: sort.map(SortField::ascending).into_iter().collect(), ..Query::default() }
}

fn evaluation(criterion: &mut Criterion) {
    let text = person(4_711);
    let document = Document { key: "person/00004711", value: Some(&text), attributes: None };
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(1));
    for (name, filter) in [
        ("one number", r#"{"field":"age","operator":"gte","value":18}"#),
        ("one text in an object", r#"{"field":"address.city","operator":"eq","value":"city 711"}"#),
        (
            "a tree of three",
            r#"[{"field":"age","operator":"gte","value":18},{"or":[{"field":"tags","operator":"contains","value":"x"},{"field":"name","operator":"startsWith","value":"p"}]}]"#,
        ),
    ] {
        let matcher = Matcher::of(&Filter::parse(filter).unwrap()).unwrap();
        group.bench_function(name, |bencher| bencher.iter(|| black_box(matcher.matches(&document))));
    }
    group.finish();
}

fn queries(criterion: &mut Criterion) {
    let plain = Replica::filled(&[]);
    let indexed = Replica::filled(&[&["number"], &["address.city"]]);
    let city = query(r#"{"field":"address.city","operator":"eq","value":"city 711"}"#, None);
    let range = query(
        r#"[{"field":"number","operator":"gte","value":5000},{"field":"number","operator":"lt","value":5100}]"#,
        None,
    );
    let first = query("[]", Some("number"));
    let mut group = criterion.benchmark_group("query of 100,000");
    group.sample_size(10);
    for (name, replica) in [("scan", &plain), ("index", &indexed)] {
        for (what, query) in
            [("equal: 100 found", &city), ("range: 100 found", &range), ("the first 100, sorted", &first)]
        {
            assert_eq!(replica.page(query), 100, "{name}: {what}");
            group.bench_function(format!("{what}, {name}"), |bencher| bencher.iter(|| black_box(replica.page(query))));
        }
    }
    group.finish();
}

criterion_group!(benches, evaluation, queries);
criterion_main!(benches);
