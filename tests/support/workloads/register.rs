//! Registers: reads, writes, and compare-and-set of a few live keys.
//!
//! No two writes write the same value, so a key that is at another revision holds another value: comparing revisions is
//! comparing values.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{Condition, RecordId, Transaction},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        linearizable::{self, Action, Call, Reply, Value},
    },
    Seat, Workload, answered, lines, number,
};

/// Keys that are used at a time.
const LIVE: u64 = 5;
/// Operations on a key, about, until another takes its place: what the checker can take.
const OPERATIONS: u64 = 200;

#[derive(Default)]
pub struct Register {
    recorder: Recorder<Call, Reply>,
    begun: AtomicU64,
    written: AtomicU64,
}

fn name(key: u64) -> String {
    format!("register/{key}")
}

async fn read(client: &Client, key: u64) -> Result<(Value, Condition)> {
    match client.state().get(&name(key)).await {
        Ok(stored) => Ok((Some(number(&stored.value)), Condition::ModRevision(stored.mod_revision))),
        Err(Error::NotFound { .. }) => Ok((None, Condition::Missing)),
        Err(error) => Err(error),
    }
}

impl Register {
    async fn step(&self, seat: &mut Seat) {
        let live = self.begun.fetch_add(1, Ordering::SeqCst) / (LIVE * OPERATIONS) * LIVE;
        let key = live + seat.rng.random_range(0..LIVE);
        let client = seat.client.clone();
        let to = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        match seat.rng.random_range(0..10) {
            0..4 => drop(self.read(seat, key).await),
            4..7 => {
                let write =
                    async { client.state().put(&name(key), to.to_string()).await.map(|_| Some(Reply::Written)) };
                let call = Call { key, action: Action::Write(Some(to)) };
                seat.record(&self.recorder, call, write).await;
            }
            7 => {
                let delete = Transaction::default().delete(RecordId::State(name(key)));
                let write = async { client.commit(delete).await.map(|_| Some(Reply::Written)) };
                seat.record(&self.recorder, Call { key, action: Action::Write(None) }, write).await;
            }
            _ => {
                let Ok((from, condition)) = read(&client, key).await else { return };
                let swap = Transaction::default()
                    .require(RecordId::State(name(key)), condition)
                    .put_state(name(key), to.to_string());
                let swap = async { client.commit(swap).await.map(|done| Some(Reply::Swapped(done.succeeded))) };
                let call = Call { key, action: Action::Swap { from, to: Some(to) } };
                seat.record(&self.recorder, call, swap).await;
            }
        }
    }

    async fn read(&self, seat: &Seat, key: u64) -> Option<Reply> {
        let read = async { read(&seat.client, key).await.map(|(value, _)| Some(Reply::Read(value))) };
        seat.record(&self.recorder, Call { key, action: Action::Read }, read).await
    }
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
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
            let keys = self.begun.load(Ordering::SeqCst) / (LIVE * OPERATIONS) * LIVE + LIVE;
            for key in 0..keys {
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
