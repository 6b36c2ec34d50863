//! Values in namespaces: reads, sets, creations, deletions, compare-and-set, several keys at once, and namespaces that are
//! cleared or dropped while others write into them.
//!
//! Each key is a register; what is done to all keys of a namespace at once is done to each of them at that time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{Condition, Kv, Set, Value},
};
use rand::Rng;

use super::{
    super::history::{
        Outcome, Recorder, Verdict,
        linearizable::{self, Action, Call, Reply},
    },
    Seat, Workload, answered, lines,
};

/// Keys of a namespace.
const KEYS: u64 = 4;
/// Operations on a namespace, about, until another takes its place: what the checker can take.
const OPERATIONS: u64 = 400;

#[derive(Default)]
pub struct Values {
    recorder: Recorder<Call, Reply>,
    begun: AtomicU64,
    written: AtomicU64,
}

fn namespace(client: &Client, number: u64) -> Kv {
    client.kv(format!("values-{number}"))
}

fn name(key: u64) -> String {
    format!("key/{}", key % KEYS)
}

fn set(key: u64, to: u64) -> Set {
    Set::new(name(key), Value::Json(to.to_string())).attributes(format!("{{\"by\":{to}}}"))
}

/// What a key holds, and what must be true for it to be that still. What a write leaves beside a value is part of it.
async fn read(kv: &Kv, key: u64) -> Result<(linearizable::Value, Condition)> {
    match kv.get(&name(key)).await {
        Ok(entry) => {
            let value: u64 = entry.value.parse()?;
            let attributes = entry.metadata.attributes;
            assert_eq!(attributes, Some(format!("{{\"by\":{value}}}")), "a value and its attributes are of one write");
            Ok((Some(value), Condition::ModRevision(entry.metadata.mod_revision)))
        }
        Err(Error::NotFound { .. }) => Ok((None, Condition::Missing)),
        Err(error) => Err(error),
    }
}

/// What a write is told that changed nothing, for a reason that was to be expected.
fn swapped<T>(answer: Result<T>) -> Result<Option<Reply>> {
    match answer {
        Ok(_) => Ok(Some(Reply::Swapped(true))),
        Err(Error::ConditionFailed(_) | Error::AlreadyExists { .. }) => Ok(Some(Reply::Swapped(false))),
        Err(error) => Err(error),
    }
}

/// A deletion where there is no namespace found nothing.
fn gone<T>(answer: Result<T>) -> Result<Option<Reply>> {
    match answer {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(Some(Reply::Written)),
        Err(error) => Err(error),
    }
}

impl Values {
    async fn step(&self, seat: &mut Seat) {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) / OPERATIONS;
        let key = number * KEYS + seat.rng.random_range(0..KEYS);
        let kv = namespace(&seat.client, number);
        let to = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        let call = |action| Call { key, action };
        match seat.rng.random_range(0..100) {
            0..40 => drop(self.read(seat, key).await),
            40..60 => {
                let write = async { kv.set(set(key, to)).await.map(|_| Some(Reply::Written)) };
                seat.record(&self.recorder, call(Action::Write(Some(to))), write).await;
            }
            60..65 => {
                let create = async { swapped(kv.set(set(key, to).create()).await) };
                seat.record(&self.recorder, call(Action::Swap { from: None, to: Some(to) }), create).await;
            }
            65..72 => {
                let delete = async { gone(kv.delete(&name(key)).await) };
                seat.record(&self.recorder, call(Action::Write(None)), delete).await;
            }
            72..87 => {
                let Ok((from, condition)) = read(&kv, key).await else { return };
                let swap = async { swapped(kv.set(set(key, to).only_if(condition)).await) };
                seat.record(&self.recorder, call(Action::Swap { from, to: Some(to) }), swap).await;
            }
            87..95 => {
                let sets = (0..KEYS).map(|key| set(key, to)).collect();
                self.record_all(seat, number, Some(to), async { kv.set_many(sets).await.map(drop) }).await;
            }
            95..98 => self.record_all(seat, number, None, async { kv.clear().await.map(drop) }).await,
            _ => {
                let namespaces = seat.client.namespaces();
                let name = format!("values-{number}");
                let drop = async { gone(namespaces.delete(&name, true).await).map(drop) };
                self.record_all(seat, number, None, drop).await;
            }
        }
    }

    /// Records what is done to all keys of a namespace at once.
    async fn record_all(
        &self,
        seat: &Seat,
        namespace: u64,
        to: linearizable::Value,
        answer: impl Future<Output = Result<()>>,
    ) {
        let now = seat.stage.now_ns;
        let calls = (0..KEYS).map(|key| Call { key: namespace * KEYS + key, action: Action::Write(to) });
        let numbers: Vec<_> = calls.map(|call| self.recorder.invoke(seat.process, call, now())).collect();
        let outcome = match answer.await {
            Ok(()) => Outcome::Ok(Reply::Written),
            Err(error) if error.may_have_applied() => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        for number in numbers {
            self.recorder.complete(number, outcome.clone(), now());
        }
    }

    async fn read(&self, seat: &Seat, key: u64) -> Option<Reply> {
        let kv = namespace(&seat.client, key / KEYS);
        let read = async { read(&kv, key).await.map(|(value, _)| Some(Reply::Read(value))) };
        seat.record(&self.recorder, Call { key, action: Action::Read }, read).await
    }
}

impl Workload for Values {
    fn name(&self) -> &'static str {
        "values"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                self.step(&mut seat).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let namespaces = self.begun.load(Ordering::SeqCst).div_ceil(OPERATIONS);
            for key in 0..namespaces * KEYS {
                while self.read(&seat, key).await.is_none() {}
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        linearizable::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
