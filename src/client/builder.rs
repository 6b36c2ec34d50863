//! How a client is set up.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tonic::transport::{self, Channel};

use super::{
    Client, Shared,
    backoff::Jitter,
    endpoints::{Connect, Endpoints},
    lock,
    session::Session,
    tls::{self, Tls},
};
use crate::{Error, Result, limits, model::ReadMode};

/// Settings of a [`Client`], begun by [`Client::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until connect"]
pub struct Builder {
    endpoints: Vec<String>,
    deadline: Duration,
    session_ttl: Duration,
    mode: ReadMode,
    exactly_once: bool,
    connections: usize,
    streaming: bool,
    seed: Option<u64>,
    tls: Option<Tls>,
    token: Option<String>,
    connect: Connect,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            deadline: Duration::from_millis(limits::DEADLINE_DEFAULT_MS),
            session_ttl: Duration::from_secs(60),
            mode: ReadMode::Linearizable,
            exactly_once: true,
            connections: 1,
            streaming: true,
            seed: None,
            tls: None,
            token: None,
            connect: Arc::new(|endpoint: transport::Endpoint| endpoint.connect_lazy()),
        }
    }
}

impl Builder {
    /// Where nodes listen for clients: `host:port`, or with `http://` in front, with TLS `https://`. One is enough to find the
    /// others, several also when that one is down.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// The time that a call may take, all its attempts together; at most 5 minutes. Without it 10 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long the session outlives the last sign of this client, from 1 second to a day. Without it one
    /// minute.
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.session_ttl = ttl;
        self
    }

    /// How fresh reads must be. Without it linearizable.
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether writes are made in a session, and so retried until their outcome is known. Without a session
    /// (`false`) a write costs less to begin with, and the first unknown outcome is the call's answer.
    pub fn exactly_once(mut self, exactly_once: bool) -> Self {
        self.exactly_once = exactly_once;
        self
    }

    /// How many connections to keep to each endpoint, from 1 to 64. Without it one, which is best unless
    /// one core cannot drive it.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Whether small calls go together over one stream of each connection, which costs both sides a fraction of what calls of their
    /// own cost. Without it `true`; `false` is for what stands between and knows gRPC's ordinary calls only.
    pub fn streaming(mut self, streaming: bool) -> Self {
        self.streaming = streaming;
        self
    }

    /// Speaks TLS with the nodes. Without it everything is in plain text.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Says who the client is, by this token, in every call. Needs [`tls`](Self::tls).
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Makes the waits between attempts repeat, for simulations.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes connections another way than over TCP, for simulations: usually
    /// `|endpoint| endpoint.connect_with_connector_lazy(connector.clone())`.
    #[doc(hidden)]
    pub fn connector(mut self, connect: impl Fn(transport::Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        self.connect = Arc::new(connect);
        self
    }

    /// A client, once a node has answered.
    ///
    /// Errors: `InvalidArgument` if a setting is wrong; `Unauthenticated` if no node knows the client; `Unavailable` if
    /// no endpoint answers within the deadline.
    pub async fn connect(self) -> Result<Client> {
        let client = self.connect_lazy()?;
        let deadline = Instant::now() + client.deadline;
        let mut failures = 0;
        loop {
            let refused = match timeout_at(deadline, probe(&client)).await {
                Ok(Ok(())) => return Ok(client),
                Ok(Err(error)) if !error.is_retryable() => return Err(error),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".into(),
            };
            failures += 1;
            let again = Instant::now() + client.shared.jitter.backoff(failures);
            if again >= deadline {
                let refused = refused.trim_start_matches("unavailable: ");
                return Err(Error::Unavailable { reason: format!("no endpoint answers: {refused}"), leader: None });
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// A client that connects when it is first used. Must be called within a tokio runtime.
    ///
    /// Errors: `InvalidArgument` if a setting is wrong.
    pub fn connect_lazy(self) -> Result<Client> {
        let longest = Duration::from_millis(limits::DEADLINE_MAX_MS);
        if self.deadline < Duration::from_millis(1) || self.deadline > longest {
            let rule = format!("must be from 1 ms to {} ms", longest.as_millis());
            return Err(Error::invalid("deadline", format!("{:?}", self.deadline), rule));
        }
        let ttl_ms = self.session_ttl.as_millis();
        if ttl_ms < u128::from(limits::SESSION_TTL_MIN_MS) || ttl_ms > u128::from(limits::SESSION_TTL_MAX_MS) {
            let rule = format!("must be from {} ms to {} ms", limits::SESSION_TTL_MIN_MS, limits::SESSION_TTL_MAX_MS);
            return Err(Error::invalid("session_ttl", format!("{:?}", self.session_ttl), rule));
        }
        if !(1..=64).contains(&self.connections) {
            return Err(Error::invalid("connections", self.connections.to_string(), "must be from 1 to 64"));
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        } else if self.token.is_some() {
            return Err(Error::invalid("token", "", "needs TLS: in plain text it would not stay a secret"));
        }
        let shared = Shared {
            authorization: self.token.as_deref().map(tls::bearer).transpose()?,
            endpoints: Endpoints::new(&self.endpoints, (self.connections, self.streaming), self.tls, self.connect)?,
            session: Session::new(self.session_ttl),
            jitter: Jitter::new(self.seed),
            names: Jitter::new(self.seed.map(u64::reverse_bits)),
            exactly_once: self.exactly_once,
            deadline: self.deadline,
            mode: self.mode,
            last_seen: AtomicU64::new(0),
            begun: Instant::now(),
            learned_ms: AtomicU64::new(0),
            learning: tokio::sync::Mutex::default(),
            waits: tokio::sync::Semaphore::new(lock::WAITS),
        };
        Ok(Client::of(Arc::new(shared)))
    }
}

/// Asks all endpoints who they are, until one knows the leader or all have answered. Errors: nobody did; `Unavailable` if
/// that may change.
pub(super) async fn probe(client: &Client) -> Result<()> {
    let mut asked = JoinSet::new();
    for endpoint in client.shared.endpoints.all() {
        let client = client.clone();
        asked.spawn(async move {
            let answer = client.ask_once(endpoint.clone(), crate::proto::v1::StatusRequest::default()).await;
            (endpoint, answer)
        });
    }
    let (mut answered, mut refused, mut last) = (false, Vec::new(), None);
    while let Some(joined) = asked.join_next().await {
        match joined {
            Ok((endpoint, Ok(status))) => {
                answered = true;
                client.shared.endpoints.learn(&endpoint, &status);
                if status.leader_id != 0 {
                    break;
                }
            }
            Ok((endpoint, Err(error))) => {
                refused.push(format!("{}: {error}", endpoint.address));
                // One that may yet answer counts more than those that never will.
                last = last.filter(Error::is_retryable).or(Some(error));
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    refused.sort();
    match last {
        _ if answered => Ok(()),
        Some(error) if !error.is_retryable() => Err(error),
        _ => Err(Error::Unavailable { reason: refused.join("; "), leader: None }),
    }
}
