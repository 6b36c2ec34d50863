//! What it costs to turn records and batches into bytes and back: it is paid once for each write, on every
//! node, and bounds what a core can apply.

#![allow(missing_docs, reason = "criterion's macros")]
#![expect(clippy::expect_used, reason = "a benchmark")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meshstore::{
    layers::mesh::message,
    model::{
        Record,
        mesh::Message,
        proposal::{Action, Batch, Call, Guards, Proposal},
        transaction::Operation,
    },
    state::stored,
    storage::codec::{self, Kind},
};

const VALUE_BYTES: usize = 256;
const PROPOSALS: usize = 64;

fn message(number: usize) -> Message {
    Message {
        id: format!("message-{number:08}"),
        from: "node-a".into(),
        to: "node-b".into(),
        content: Bytes::from(vec![0xA5; VALUE_BYTES]),
        timestamp: 1_700_000_000,
        large: None,
    }
}

/// The record of a stored message: a value of 256 bytes and four index entries.
fn record() -> Record {
    let write = message::store(message(1)).expect("a valid message");
    let Some(Operation::Put { put, .. }) = write.transaction.then.into_iter().next() else {
        unreachable!("storing a message is a put")
    };
    Record {
        value: put.value,
        create_revision: 1_000_000,
        mod_revision: 1_000_001,
        version: 2,
        created_at_ms: 1_700_000_000_000,
        updated_at_ms: 1_700_000_000_001,
        expires_at_ms: None,
        entries: put.entries,
        references: vec![],
    }
}

fn batch() -> Batch {
    let proposal = |number: usize| Proposal {
        principal: "anonymous".into(),
        call: Some(Call { session: 7, sequence: 1_000 + number as u64, answered_below: 1_000 }),
        guards: Guards::default(),
        action: Action::Transact(message::store(message(number)).expect("a valid message").transaction),
    };
    Batch { log_time_ms: 123_456_789, wall_ms: 1_700_000_000_000, proposals: (0..PROPOSALS).map(proposal).collect() }
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record of a 256 B message");
    group.throughput(Throughput::Elements(1));
    let record = record();
    let bytes = stored::encode(&record);
    group.bench_function("encode", |bencher| bencher.iter(|| stored::encode(black_box(&record))));
    group.bench_function("decode", |bencher| bencher.iter(|| stored::decode(b"key", black_box(&bytes))));

    let plain = Record { entries: vec![], value: Bytes::from(vec![0xA5; VALUE_BYTES]), ..record };
    let bytes = stored::encode(&plain);
    group.bench_function("encode without entries", |bencher| bencher.iter(|| stored::encode(black_box(&plain))));
    group.bench_function("decode without entries", |bencher| {
        bencher.iter(|| stored::decode(b"key", black_box(&bytes)));
    });
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch of 64 proposals");
    group.throughput(Throughput::Elements(PROPOSALS as u64));
    let batch = batch();
    let bytes = codec::encode(Kind::Batch, &batch);
    group.bench_function("encode", |bencher| bencher.iter(|| codec::encode(Kind::Batch, black_box(&batch))));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| codec::decode::<Batch>(Kind::Batch, black_box(&bytes)));
    });
    group.finish();
}

criterion_group!(benches, records, batches);
criterion_main!(benches);
