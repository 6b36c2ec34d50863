//! Locks that are held for a while by clients that write with their tokens, also when they have lost them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{Fence, ReadMode},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        lock::{self, Call, Reply},
    },
    Seat, Workload, answered, lines,
};

const LOCKS: u64 = 2;
/// How long the leases of holders live; a second is the shortest that there is.
const TTL: Duration = Duration::from_secs(1);
/// How long a client waits for a lock.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub struct Locks {
    recorder: Recorder<Call, Reply>,
    numbers: AtomicU64,
}

fn name(lock: u64) -> String {
    format!("lock/{lock}")
}

async fn write(client: &Client, lock: u64, token: u64, number: u64) -> Result<Option<Reply>> {
    let fence = Fence { lock: name(lock), token };
    match client.with_fence(fence).state().put(&name(lock), format!("{token} {number}")).await {
        Ok(written) => Ok(Some(Reply::Written { revision: written.revision })),
        Err(Error::Fenced { newest, .. }) => Ok(Some(Reply::Fenced { newest })),
        Err(error) => Err(error),
    }
}

async fn read(client: &Client, lock: u64) -> Result<Option<Reply>> {
    match client.state().with_read(ReadMode::Linearizable).get(&name(lock)).await {
        Ok(stored) => {
            let text = std::str::from_utf8(&stored.value).expect("it was written as text");
            let (token, number) = text.split_once(' ').expect("two numbers were written");
            let (token, number) = (token.parse().expect("a number"), number.parse().expect("a number"));
            Ok(Some(Reply::Found { token, number, revision: stored.mod_revision }))
        }
        Err(Error::NotFound { .. }) => Ok(Some(Reply::Nothing)),
        Err(error) => Err(error),
    }
}

impl Locks {
    async fn read(&self, seat: &Seat, lock: u64) -> Option<Reply> {
        seat.record(&self.recorder, Call::Read { lock }, read(&seat.client, lock)).await
    }

    async fn write(&self, seat: &Seat, lock: u64, token: u64) -> Option<Reply> {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        let call = Call::Write { lock, token, number };
        seat.record(&self.recorder, call, write(&seat.client, lock, token, number)).await
    }

    /// Holds a lock, and writes; also when it is lost, which the store must notice.
    async fn hold(&self, seat: &mut Seat, lock: u64) {
        let client = seat.client.clone();
        let mut held = None;
        let acquire = async {
            let guard = client.lock(name(lock)).with_ttl(TTL).acquire(PATIENCE).await?;
            let token = guard.token();
            held = Some(guard);
            Ok(Some(Reply::Acquired { token }))
        };
        let acquired = seat.record(&self.recorder, Call::Acquire { lock }, acquire).await;
        let Some(Reply::Acquired { token }) = acquired else { return };
        // One in three lets go and goes on writing, as one that does not know what became of its lock.
        if seat.rng.random_range(0..3) == 0 {
            drop(held.take());
        }
        for _ in 0..seat.rng.random_range(1..6) {
            self.write(seat, lock, token).await;
            if !seat.next().await {
                break;
            }
            if held.is_none() {
                tokio::time::sleep(TTL.mul_f64(seat.rng.random_range(0.0..0.7))).await;
            }
        }
        if let Some(held) = held {
            // If nobody answers its lease expires.
            let _ = held.release().await;
            // Late, as one that does not know that it is over.
            self.write(seat, lock, token).await;
        }
    }
}

impl Workload for Locks {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                let lock = seat.rng.random_range(0..LOCKS);
                if seat.rng.random_bool(0.3) {
                    self.read(&seat, lock).await;
                } else {
                    self.hold(&mut seat, lock).await;
                }
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            for lock in 0..LOCKS {
                while self.read(&seat, lock).await.is_none() {}
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        lock::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
