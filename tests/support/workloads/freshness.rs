//! Reads of all modes, at all nodes: none is older than its mode allows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use meshstore::{
    Result,
    client::{PageRequest, ReadMode},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        freshness::{self, Call, Reply},
    },
    Seat, Workload, answered, lines,
};

#[derive(Default)]
pub struct Freshness {
    recorder: Recorder<Call, Reply>,
    acknowledged: AtomicU64,
}

fn mode(call: &Call) -> ReadMode {
    match call {
        Call::Write | Call::Linearizable => ReadMode::Linearizable,
        Call::AtLeast(revision) => ReadMode::AtLeast(*revision),
        Call::Stale { max_age_ms } => ReadMode::Stale(Duration::from_millis(*max_age_ms)),
    }
}

impl Freshness {
    async fn write(&self, seat: &Seat) {
        let state = seat.client.state();
        let write = async {
            let written = state.put(&format!("freshness/{}", seat.process), "x").await?;
            self.acknowledged.fetch_max(written.revision, Ordering::SeqCst);
            Ok(Some(Reply { revision: written.revision }))
        };
        seat.record(&self.recorder, Call::Write, write).await;
    }

    async fn read(&self, seat: &mut Seat, call: Call) -> Option<Reply> {
        let endpoint = seat.somewhere();
        let pinned = seat.client.clone().pin(&endpoint).expect("an endpoint");
        let state = pinned.with_read(mode(&call)).state();
        let read = async {
            let page = state.list("freshness/", PageRequest { limit: 1, ..PageRequest::default() }).await?;
            Ok(Some(Reply { revision: page.revision }))
        };
        seat.record(&self.recorder, call, read).await
    }
}

impl Workload for Freshness {
    fn name(&self) -> &'static str {
        "freshness"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                let call = match seat.rng.random_range(0..10) {
                    0..4 => {
                        self.write(&seat).await;
                        continue;
                    }
                    4..6 => Call::Linearizable,
                    6..8 => Call::AtLeast(self.acknowledged.load(Ordering::SeqCst)),
                    _ => Call::Stale { max_age_ms: seat.rng.random_range(10..2_000) },
                };
                self.read(&mut seat, call).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            while self.read(&mut seat, Call::Linearizable).await.is_none() {}
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        freshness::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
