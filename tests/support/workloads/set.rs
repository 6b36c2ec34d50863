//! A set: each element is added once, and all are read as of one revision.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use meshstore::Result;
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        set::{self, Call, Reply},
    },
    Seat, Workload, answered, lines, number,
};

#[derive(Default)]
pub struct Set {
    recorder: Recorder<Call, Reply>,
    next: AtomicU64,
}

impl Set {
    async fn add(&self, seat: &Seat) {
        let element = self.next.fetch_add(1, Ordering::SeqCst);
        let state = seat.client.state();
        let add =
            async { state.put(&format!("set/{element:08}"), element.to_string()).await.map(|_| Some(Reply::Added)) };
        seat.record(&self.recorder, Call::Add(element), add).await;
    }

    async fn read(&self, seat: &Seat) -> Option<Reply> {
        let state = seat.client.state();
        let read = async {
            let all = state.list_all("set/").await?;
            Ok(Some(Reply::Read(all.iter().map(|(_, stored)| number(&stored.value)).collect())))
        };
        seat.record(&self.recorder, Call::Read, read).await
    }
}

impl Workload for Set {
    fn name(&self) -> &'static str {
        "set"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                match seat.rng.random_bool(0.9) {
                    true => self.add(&seat).await,
                    false => drop(self.read(&seat).await),
                }
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
        set::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
