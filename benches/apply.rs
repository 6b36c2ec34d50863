//! What apply costs, over a plain map: batches of 64 proposals, as the leader packs them under load.
//!
//! `put/new` writes keys that were not there, `put/overwrite` keys among 100,000; `message` stores a message with its
//! four index entries. Throughput is in proposals.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::{
    collections::BTreeMap,
    hint::black_box,
    ops::Bound::{Excluded, Included, Unbounded},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use meshstore::{
    error::Fault,
    model::{
        Entry, Key, ScopeId, key, keyspace,
        proposal::{Action, Batch, Guards, Proposal},
        transaction::{Operation, Put, Transaction},
    },
    state::{Base, State},
};

const BATCH: u64 = 64;
const VALUE: &[u8] = &[b'v'; 256];

#[derive(Default)]
struct Pairs(BTreeMap<Bytes, Bytes>);

impl Base for Pairs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let within = self.0.range::<[u8], _>((Included(start), end.map_or(Unbounded, Excluded)));
        Ok(within.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, _revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        for (key, value) in pairs {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        Ok(())
    }
}

fn batch(operation: impl Fn(u64) -> Operation, numbers: impl Iterator<Item = u64>) -> Batch {
    let proposal = |number| Proposal {
        principal: "service:bench".to_owned(),
        call: None,
        guards: Guards::default(),
        action: Action::Transact(Transaction::blind(vec![operation(number)])),
    };
    Batch { log_time_ms: 1, wall_ms: 1_700_000_000_000, proposals: numbers.map(proposal).collect() }
}

fn state_key(number: u64) -> Key {
    ScopeId::new(keyspace::STATE, 0).key(format!("key/{number:012}").as_bytes())
}

fn put(number: u64) -> Operation {
    Operation::Put { key: state_key(number), put: Put::value(VALUE) }
}

fn message(number: u64) -> Operation {
    let (from, to, time) = (format!("node-{}", number % 100), format!("node-{}", number % 97), number.to_be_bytes());
    let entry = |scope, parts: &[&str]| {
        let mut entry_key = Vec::new();
        parts.iter().for_each(|part| key::escape(&mut entry_key, part.as_bytes()));
        entry_key.extend_from_slice(&time);
        Entry { scope, key: entry_key.into(), payload: Bytes::new(), unique: false }
    };
    let entries = vec![
        entry(keyspace::INDEX_MESSAGE_TIME, &[]),
        entry(keyspace::INDEX_MESSAGE_FROM, &[&from]),
        entry(keyspace::INDEX_MESSAGE_TO, &[&to]),
        entry(keyspace::INDEX_MESSAGE_PAIR, &[&from, &to]),
    ];
    let key = ScopeId::new(keyspace::MESSAGES, 0).key(format!("message-{number:016x}").as_bytes());
    Operation::Put { key, put: Put { entries, ..Put::value(VALUE) } }
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(BATCH));

    let (mut state, mut pairs, mut next) = (State::default(), Pairs::default(), 0);
    let mut following = || {
        next += BATCH;
        next - BATCH..next
    };
    group.bench_function("put/new", |bencher| {
        bencher.iter_batched(
            || batch(put, following()),
            |batch| black_box(state.apply(&mut pairs, &batch).unwrap()),
            BatchSize::SmallInput,
        );
    });

    let (mut state, mut pairs, mut at) = (State::default(), Pairs::default(), 0);
    for first in (0..100_000).step_by(1_000) {
        state.apply(&mut pairs, &batch(put, first..first + 1_000)).unwrap();
    }
    // A step that shares no factor with 100,000 visits all keys, far from one another.
    let mut scattered = || {
        at += BATCH;
        (at..at + BATCH).map(|place| place * 61_803 % 100_000)
    };
    group.bench_function("put/overwrite", |bencher| {
        bencher.iter_batched(
            || batch(put, scattered()),
            |batch| black_box(state.apply(&mut pairs, &batch).unwrap()),
            BatchSize::SmallInput,
        );
    });

    let (mut state, mut pairs, mut next) = (State::default(), Pairs::default(), 0);
    let mut following = || {
        next += BATCH;
        next - BATCH..next
    };
    group.bench_function("message", |bencher| {
        bencher.iter_batched(
            || batch(message, following()),
            |batch| black_box(state.apply(&mut pairs, &batch).unwrap()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
