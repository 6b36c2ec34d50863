//! Sessions as they are on the wire: each write is attempted several times under one place in its session, at several
//! nodes at once, and again later.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use meshstore::{
    Error, Result,
    proto::v1::{
        Attempt, GetStateRequest, OpenSessionRequest, PutStateRequest, mesh_client::MeshClient,
        session_client::SessionClient,
    },
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        session::{self, Call, Reply},
    },
    Seat, Workload, answered, lines,
    wire::{opened, request},
};

#[derive(Default)]
pub struct Sessions {
    recorder: Recorder<Call, Reply>,
}

impl Sessions {
    async fn open(&self, seat: &mut Seat) -> Option<u64> {
        let mut client = SessionClient::new((seat.stage.channel)(&seat.somewhere()));
        let open = request(OpenSessionRequest { ttl_ms: 86_400_000 });
        opened(client.open_session(open)).await.ok().map(|opened| opened.session)
    }

    async fn attempt(&self, seat: &Seat, endpoint: &str, session: u64, sequence: u64, answered_below: u64) -> bool {
        let mut client = MeshClient::new((seat.stage.channel)(endpoint));
        let attempt = Some(Attempt { session, sequence, answered_below, attempt: 1 });
        let (key, value) = (format!("session/{session}"), sequence.to_string().into());
        let put = PutStateRequest { attempt, key, value, lease: 0 };
        let write = async {
            opened(client.put_state(request(put)))
                .await
                .map(|written| Some(Reply::Written { revision: written.revision }))
        };
        seat.record(&self.recorder, Call::Attempt { session, sequence }, write).await.is_some()
    }

    /// The writes of one session, each until at least one attempt was answered.
    async fn session(&self, seat: &mut Seat, session: u64) {
        for sequence in 1..=seat.rng.random_range(1..30u64) {
            // What was answered stays kept for a while, so that late attempts find it.
            let answered_below = sequence.saturating_sub(4).max(1);
            loop {
                if !seat.next().await {
                    return;
                }
                let endpoints = seat.stage.endpoints.clone();
                let chosen: Vec<_> = endpoints.iter().filter(|_| seat.rng.random_bool(0.6)).collect();
                let place = &*seat;
                let attempts =
                    chosen.iter().map(|endpoint| self.attempt(place, endpoint, session, sequence, answered_below));
                if join_all(attempts).await.contains(&true) {
                    break;
                }
            }
            if sequence > 2 && seat.rng.random_bool(0.2) {
                let late = sequence - seat.rng.random_range(0..3);
                let endpoint = seat.somewhere();
                self.attempt(seat, &endpoint, session, late, answered_below).await;
            }
        }
        self.read(seat, session).await;
    }

    async fn read(&self, seat: &mut Seat, session: u64) -> Option<Reply> {
        let mut client = MeshClient::new((seat.stage.channel)(&seat.somewhere()));
        let get = GetStateRequest { read: None, key: format!("session/{session}") };
        let read = async {
            match opened(client.get_state(request(get))).await {
                Ok(found) => {
                    let version = found.version.unwrap_or_default();
                    Ok(Some(Reply::Read { version: version.version, revision: version.mod_revision }))
                }
                Err(Error::NotFound { .. }) => Ok(Some(Reply::Read { version: 0, revision: 0 })),
                Err(error) => Err(error),
            }
        };
        seat.record(&self.recorder, Call::Read { session }, read).await
    }
}

impl Workload for Sessions {
    fn name(&self) -> &'static str {
        "session"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                if let Some(session) = self.open(&mut seat).await {
                    self.session(&mut seat, session).await;
                }
            }
        })
    }

    fn conclude(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let history = self.recorder.history();
            let sessions: std::collections::BTreeSet<u64> = history
                .iter()
                .map(|operation| match operation.call {
                    Call::Attempt { session, .. } | Call::Read { session } => session,
                })
                .collect();
            for session in sessions {
                while self.read(&mut seat, session).await.is_none() {}
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        session::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
