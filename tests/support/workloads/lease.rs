//! Leases with keys attached, which are kept alive, left alone or revoked, and looked at by all.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use meshstore::{
    Error, Result,
    client::{Change, PageRequest, ReadMode, Transaction},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        lease::{self, Call, KEYS, Reply},
    },
    Seat, Workload, answered, lines,
};

/// Lifetimes, in milliseconds; a second is the shortest that there is.
const TTL_MS: std::ops::Range<u64> = 1_000..2_500;
/// How many of the newest leases are worked with.
const NEWEST: usize = 6;

#[derive(Default)]
pub struct Leases {
    recorder: Recorder<Call, Reply>,
    granted: Mutex<Vec<u64>>,
}

fn prefix(lease: u64) -> String {
    format!("lease/{lease}/")
}

/// What a call is told of a lease that may be gone.
fn or_gone<T>(answer: Result<T>, reply: Reply) -> Result<Option<Reply>> {
    match answer {
        Ok(_) => Ok(Some(reply)),
        Err(Error::NotFound { .. }) => Ok(Some(Reply::Gone)),
        Err(error) => Err(error),
    }
}

impl Leases {
    async fn grant(&self, seat: &mut Seat) {
        let ttl_ms = seat.rng.random_range(TTL_MS);
        let client = seat.client.clone();
        let grant = async {
            let lease = client.leases().grant_only(Duration::from_millis(ttl_ms), None).await?;
            Ok(Some(Reply::Granted { lease, ttl_ms }))
        };
        let Some(Reply::Granted { lease, .. }) = seat.record(&self.recorder, Call::Grant, grant).await else { return };
        let mut attach = Transaction::default();
        for key in 0..KEYS {
            let put = Change::PutState { key: format!("{}{key}", prefix(lease)), value: "1".into() };
            attach = attach.change(put.attached_to(lease));
        }
        let attach = async { or_gone(client.commit(attach).await, Reply::Attached) };
        seat.record(&self.recorder, Call::Attach { lease }, attach).await;
        self.granted.lock().unwrap().push(lease);
    }

    fn some(&self, seat: &mut Seat) -> Option<u64> {
        let granted = self.granted.lock().unwrap();
        let newest = &granted[granted.len().saturating_sub(NEWEST)..];
        (!newest.is_empty()).then(|| newest[seat.rng.random_range(0..newest.len())])
    }

    async fn keep(&self, seat: &Seat, lease: u64) -> Option<Reply> {
        let keep = async { or_gone(seat.client.leases().keep_alive(lease).await, Reply::Kept) };
        seat.record(&self.recorder, Call::Keep { lease }, keep).await
    }

    async fn look(&self, seat: &Seat, lease: u64) -> Option<Reply> {
        let state = seat.client.state().with_read(ReadMode::Linearizable);
        let look = async {
            let page = state.list(&prefix(lease), PageRequest::default()).await?;
            Ok(Some(Reply::Seen { keys: page.items.len() as u64 }))
        };
        seat.record(&self.recorder, Call::Look { lease }, look).await
    }

    async fn step(&self, seat: &mut Seat) {
        let Some(lease) = self.some(seat) else { return self.grant(seat).await };
        match seat.rng.random_range(0..100) {
            0..12 => self.grant(seat).await,
            12..50 => drop(self.keep(seat, lease).await),
            50..55 => {
                let revoke = async { or_gone(seat.client.leases().revoke(lease).await, Reply::Revoked) };
                seat.record(&self.recorder, Call::Revoke { lease }, revoke).await;
            }
            _ => drop(self.look(seat, lease).await),
        }
    }
}

impl Workload for Leases {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                self.step(&mut seat).await;
            }
        })
    }

    /// Every lease comes to its end if it is left alone for long enough, and its keys with it.
    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let mut left = self.granted.lock().unwrap().clone();
            let mut wait = Duration::from_millis(TTL_MS.end);
            while !left.is_empty() {
                tokio::time::sleep(wait).await;
                wait *= 2;
                let mut stay = Vec::new();
                for lease in left {
                    let seen = loop {
                        if let Some(seen) = self.look(&seat, lease).await {
                            break seen;
                        }
                    };
                    if seen != (Reply::Seen { keys: 0 }) {
                        stay.push(lease);
                    }
                }
                left = stay;
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        lease::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
