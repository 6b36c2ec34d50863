//! Sessions that are kept alive, late or not at all.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use meshstore::{
    Error, Result,
    proto::v1::{KeepSessionRequest, OpenSessionRequest, session_client::SessionClient},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        expiry::{self, Call, Reply},
    },
    Seat, Workload, answered, lines,
    wire::{opened, request},
};

/// Lifetimes of sessions, in milliseconds; a second is the shortest that there is.
const TTL_MS: std::ops::Range<u64> = 1_000..2_500;

#[derive(Default)]
pub struct Expiry {
    recorder: Recorder<Call, Reply>,
}

impl Expiry {
    fn client(seat: &mut Seat) -> SessionClient<tonic::transport::Channel> {
        SessionClient::new((seat.stage.channel)(&seat.somewhere()))
    }

    async fn open(&self, seat: &mut Seat) -> Option<Reply> {
        let ttl_ms = seat.rng.random_range(TTL_MS);
        let mut client = Self::client(seat);
        let open = async {
            let opened = opened(client.open_session(request(OpenSessionRequest { ttl_ms }))).await?;
            Ok(Some(Reply::Opened { session: opened.session, ttl_ms: opened.ttl_ms }))
        };
        seat.record(&self.recorder, Call::Open, open).await
    }

    async fn keep(&self, seat: &mut Seat, session: u64) -> Option<Reply> {
        let mut client = Self::client(seat);
        let keep = async {
            match opened(client.keep_session(request(KeepSessionRequest { session }))).await {
                Ok(_) => Ok(Some(Reply::Kept)),
                Err(Error::SessionExpired { .. }) => Ok(Some(Reply::Expired)),
                Err(error) => Err(error),
            }
        };
        seat.record(&self.recorder, Call::Keep { session }, keep).await
    }
}

impl Workload for Expiry {
    fn name(&self) -> &'static str {
        "expiry"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                let Some(Reply::Opened { session, ttl_ms }) = self.open(&mut seat).await else { continue };
                while seat.next().await {
                    // Mostly in time, sometimes just too late.
                    let wait_ms = seat.rng.random_range(0..ttl_ms * 5 / 4);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    if self.keep(&mut seat, session).await == Some(Reply::Expired) {
                        break;
                    }
                }
            }
        })
    }

    /// Every session comes to its end, if it is left alone for long enough.
    fn conclude(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let opened = self.recorder.history().into_iter().filter_map(|operation| match operation.reply() {
                Some(Reply::Opened { session, .. }) => Some(*session),
                _ => None,
            });
            let mut alive: Vec<u64> = opened.collect();
            let mut wait = Duration::from_millis(TTL_MS.end);
            while !alive.is_empty() {
                tokio::time::sleep(wait).await;
                wait *= 2;
                let mut left = Vec::new();
                for session in alive {
                    let answer = loop {
                        if let Some(answer) = self.keep(&mut seat, session).await {
                            break answer;
                        }
                    };
                    if answer != Reply::Expired {
                        left.push(session);
                    }
                }
                alive = left;
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        expiry::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
