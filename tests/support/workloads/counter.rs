//! A counter: additions by compare-and-set, and reads.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{Condition, RecordId, Transaction},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        counter::{self, Call, Reply},
    },
    Seat, Workload, answered, lines, number,
};

const NAME: &str = "counter";

#[derive(Default)]
pub struct Counter {
    recorder: Recorder<Call, Reply>,
}

async fn read(client: &Client) -> Result<(u64, Condition)> {
    match client.state().get(NAME).await {
        Ok(stored) => Ok((number(&stored.value), Condition::Version(stored.version))),
        Err(Error::NotFound { .. }) => Ok((0, Condition::Missing)),
        Err(error) => Err(error),
    }
}

async fn add(client: &Client, amount: u64) -> Result<Option<Reply>> {
    let (value, condition) = read(client).await?;
    let sum = value + amount;
    let add = Transaction::default().require(RecordId::State(NAME.into()), condition).put_state(NAME, sum.to_string());
    Ok(client.commit(add).await?.succeeded.then_some(Reply::Added(Some(sum))))
}

impl Counter {
    async fn read(&self, seat: &Seat) -> Option<Reply> {
        let read = async { read(&seat.client).await.map(|(value, _)| Some(Reply::Read(value))) };
        seat.record(&self.recorder, Call::Read, read).await
    }
}

impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                if seat.rng.random_bool(0.2) {
                    self.read(&seat).await;
                    continue;
                }
                let (client, amount) = (seat.client.clone(), seat.rng.random_range(1..5));
                seat.record(&self.recorder, Call::Add(amount), add(&client, amount)).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            while self.read(&seat).await.is_none() {}
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        counter::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
