//! The load: closed loops of clients, the same for every system.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use crate::systems::System;

/// Values that a batch writes in one call.
pub const BATCH: usize = 256;
/// Puts in one transaction.
pub const TRANSACTION: usize = 8;
/// Keys of a range: those that share all digits of the number but the last two.
pub const RANGE: usize = 100;
/// Writes under way at most while watching.
const WATCH_WRITERS: u32 = 16;

/// What a client does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Overwrites one of the keys
    Put,
    /// Writes a key that was never there
    New,
    /// Reads one of the keys, linearizable
    Get,
    /// Reads one of the keys from any node
    Stale,
    /// Four gets and a put
    Mixed,
    /// Overwrites a key of its own if it still has the revision of the last write
    Cas,
    /// Eight puts in one transaction
    Txn8,
    /// Reads 100 neighbouring keys
    Range,
    /// Writes a key of its own and deletes it
    Delete,
    /// 256 puts in one call
    Batch,
    /// Writes while somebody watches: from the write until it is seen
    Watch,
    /// Stores a message that is found by time, sender, receiver, and both
    Message,
    /// Inserts a document into a collection with a unique index and one of two fields
    Insert,
    /// Finds the ten documents with the greatest numbers of a group and below a bound, by the index of both
    Find,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::New => "put of new keys",
            Self::Get => "get, linearizable",
            Self::Stale => "get, stale",
            Self::Mixed => "4 gets, 1 put",
            Self::Cas => "compare and set",
            Self::Txn8 => "transaction of 8",
            Self::Range => "range of 100",
            Self::Delete => "put and delete",
            Self::Batch => "batch of 256",
            Self::Watch => "watch delivery",
            Self::Message => "store message",
            Self::Insert => "insert document",
            Self::Find => "find 10 documents",
        }
    }

    /// Whether it is of documents.
    pub fn is_of_documents(self) -> bool {
        matches!(self, Self::Insert | Self::Find)
    }

    /// What one call counts for.
    pub fn items(self) -> usize {
        if self == Self::Batch { BATCH } else { 1 }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One measurement.
pub struct Plan {
    pub op: Op,
    pub clients: u32,
    pub keys: u64,
    pub value: Bytes,
    pub seconds: Duration,
    pub warm_up: Duration,
    /// Of no other measurement on this system: new keys are made of it.
    pub run: u64,
}

/// What one client knows from call to call.
pub struct Turn {
    pub rng: StdRng,
    pub keys: u64,
    pub value: Bytes,
    pub client: u32,
    pub run: u64,
    /// Calls so far.
    pub calls: u64,
    /// The revision of its last write of its own key; `None` before.
    pub revision: Option<u64>,
}

impl Turn {
    /// The first call of a client in a run.
    pub fn new(keys: u64, value: Bytes, (run, client): (u64, u32)) -> Self {
        let rng = StdRng::seed_from_u64(run << 20 | u64::from(client));
        Self { rng, keys, value, client, run, calls: 0, revision: None }
    }

    /// One of the keys, by chance.
    pub fn key(&mut self) -> String {
        key(self.rng.random_range(0..self.keys))
    }

    /// What all keys of one range begin with.
    pub fn range(&mut self) -> String {
        let mut first = self.key();
        first.truncate(first.len() - 2);
        first
    }

    /// A key that only this client writes.
    pub fn own(&self) -> String {
        format!("own/{:x}/{:06}", self.run, self.client)
    }

    /// The number of a document that was never inserted.
    pub fn new_number(&self) -> u64 {
        (self.run + 1) << 40 | u64::from(self.client) << 24 | self.calls
    }

    /// A group of documents, and a number in it.
    pub fn place(&mut self) -> (String, u64) {
        let number = self.rng.random_range(0..self.keys);
        (group(number), (number % GROUP).max(FOUND as u64))
    }

    /// A key that was never written.
    pub fn new_key(&self) -> String {
        format!("new/{:x}/{:06}/{:09}", self.run, self.client, self.calls)
    }
}

/// Documents of one group, as far as they are there before anything is measured.
pub const GROUP: u64 = 1_000;
/// What a query of documents answers.
pub const FOUND: usize = 10;

/// A document by its number: as many bytes of text as a value has.
pub fn document(number: u64, group: &str, text: usize) -> serde_json::Value {
    serde_json::json!({
        "number": number, "group": group, "n": number % GROUP, "tags": ["new", "gift"], "text": "x".repeat(text),
    })
}

/// The group in which the document of this number stands.
pub fn group(number: u64) -> String {
    format!("group-{:05}", number / GROUP)
}

/// The name of a key by its number.
pub fn key(number: u64) -> String {
    format!("bench/{number:08}")
}

/// Bytes that do not compress.
pub fn value(bytes: u32) -> Bytes {
    let mut rng = StdRng::seed_from_u64(1);
    (0..bytes).map(|_| rng.random::<u8>()).collect::<Vec<_>>().into()
}

pub struct Measured {
    pub latency_us: Histogram<u64>,
    /// Those of the warm-up, too.
    pub all_calls: u64,
    pub errors: u64,
}

pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

/// Runs the plan. Errors: every call failed, or a client could not be made.
pub async fn run(system: &System, plan: &Plan) -> Result<Measured> {
    if plan.op == Op::Watch {
        return watch(system, plan).await;
    }
    let from = Instant::now() + plan.warm_up;
    let end = from + plan.seconds;
    let calls = Arc::new(AtomicU64::new(0));
    let mut loops = JoinSet::new();
    for number in 0..plan.clients {
        let client = system.client(number).await?;
        let mut turn = turn(plan, number);
        let (op, calls) = (plan.op, calls.clone());
        loops.spawn(async move {
            let mut latency_us = histogram()?;
            let mut errors = BTreeMap::<String, u64>::new();
            loop {
                let began = Instant::now();
                if began >= end {
                    return anyhow::Ok((latency_us, errors));
                }
                let done = client.call(op, &mut turn).await;
                turn.calls += 1;
                calls.fetch_add(1, Relaxed);
                match done {
                    _ if began < from => {}
                    Ok(()) => latency_us.saturating_record(began.elapsed().as_micros().max(1) as u64),
                    Err(error) => *errors.entry(format!("{error:#}")).or_default() += 1,
                }
            }
        });
    }
    let mut all = Measured { latency_us: histogram()?, all_calls: 0, errors: 0 };
    let mut said = BTreeMap::<String, u64>::new();
    while let Some(ended) = loops.join_next().await {
        let (latencies, errors) = ended??;
        all.latency_us.add(latencies)?;
        all.errors += errors.values().sum::<u64>();
        for (text, times) in errors {
            *said.entry(text).or_default() += times;
        }
    }
    all.all_calls = calls.load(Relaxed);
    for (text, times) in &said {
        eprintln!("    {times} times: {text}");
    }
    if all.latency_us.is_empty() {
        bail!("no call succeeded");
    }
    Ok(all)
}

fn turn(plan: &Plan, client: u32) -> Turn {
    Turn::new(plan.keys, plan.value.clone(), (plan.run, client))
}

/// `clients` watchers see what a few writers write; the latency is from before the write until a watcher has it.
async fn watch(system: &System, plan: &Plan) -> Result<Measured> {
    let from = Instant::now() + plan.warm_up;
    let end = from + plan.seconds;
    let mut watchers = JoinSet::new();
    for number in 0..plan.clients {
        let mut events = system.client(number).await?.watch().await?;
        watchers.spawn(async move {
            let mut latency_us = histogram()?;
            while let Ok(Some(value)) = tokio::time::timeout_at(end, events.next()).await.unwrap_or(Ok(None)) {
                let stamp = value.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                if Instant::now() >= from {
                    latency_us.saturating_record(now_us().saturating_sub(stamp).max(1));
                }
            }
            anyhow::Ok(latency_us)
        });
    }
    let mut writers = JoinSet::new();
    for number in 0..WATCH_WRITERS {
        let client = system.client(number).await?;
        let mut turn = turn(plan, number);
        writers.spawn(async move {
            let mut calls = 0_u64;
            while Instant::now() < end {
                let mut stamped = turn.value.to_vec();
                if let Some(front) = stamped.first_chunk_mut::<8>() {
                    *front = now_us().to_le_bytes();
                }
                turn.value = stamped.into();
                client.call(Op::Put, &mut turn).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        });
    }
    let mut all = Measured { latency_us: histogram()?, all_calls: 0, errors: 0 };
    while let Some(ended) = writers.join_next().await {
        all.all_calls += ended??;
    }
    while let Some(ended) = watchers.join_next().await {
        all.latency_us.add(ended??)?;
    }
    if all.latency_us.is_empty() {
        bail!("no watcher saw anything");
    }
    Ok(all)
}

/// Microseconds since the first look.
fn now_us() -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    FIRST.elapsed().as_micros() as u64
}
