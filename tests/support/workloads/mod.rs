//! What clients do while faults come: one file a workload, for simulated clusters and for real ones.
//!
//! A [`Workload`] makes calls through the public client, records each in a history, and has that checked. It knows
//! neither where the cluster runs nor what happens to it: time, chance and connections come with its [`Seat`]. To add
//! one: a file with a type that implements the trait, its checker in `history`, and a line in [`all`].

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

mod append;
mod bank;
mod counter;
mod documents;
mod expiry;
mod freshness;
mod journal;
mod lease;
mod lock;
mod messages;
mod query;
mod register;
mod session;
mod set;
mod topology;
mod values;
mod watch;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use meshstore::{Client, Result};
use rand::{Rng, rngs::StdRng};
use serde::Serialize;
use tonic::transport::Channel;

use super::history::{Outcome, Recorder, Verdict, json_lines};

/// What all clients of a run share.
pub struct Stage {
    /// The time of the run, in nanoseconds.
    pub now_ns: fn() -> u64,
    /// `host:port` of the nodes' client listeners.
    pub endpoints: Vec<String>,
    /// A connection to one of them.
    pub channel: fn(&str) -> Channel,
    /// Longest pause of a client between two calls.
    pub pause: Duration,
    closed: AtomicBool,
}

impl Stage {
    pub fn new(
        now_ns: fn() -> u64,
        endpoints: Vec<String>,
        channel: fn(&str) -> Channel,
        pause: Duration,
    ) -> Arc<Self> {
        Arc::new(Self { now_ns, endpoints, channel, pause, closed: AtomicBool::new(false) })
    }

    /// No new call is to begin.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

/// One client's place in a run.
pub struct Seat {
    pub client: Client,
    pub process: u64,
    pub rng: StdRng,
    pub stage: Arc<Stage>,
}

impl Seat {
    /// Waits a little, by chance; whether there is to be another call.
    async fn next(&mut self) -> bool {
        let most_us = u64::try_from(self.stage.pause.as_micros()).unwrap().max(1);
        tokio::time::sleep(Duration::from_micros(self.rng.random_range(0..most_us))).await;
        !self.stage.closed.load(Ordering::SeqCst)
    }

    /// One of the endpoints, by chance. Nobody may be there: its node may be down, or not a member any more.
    fn somewhere(&mut self) -> String {
        let at = self.rng.random_range(0..self.stage.endpoints.len());
        self.stage.endpoints[at].clone()
    }

    /// Makes a call and records it. `Ok(None)`: it was answered, and changed nothing for sure.
    async fn record<C, R: Clone>(
        &self,
        recorder: &Recorder<C, R>,
        call: C,
        answer: impl Future<Output = Result<Option<R>>>,
    ) -> Option<R> {
        let number = recorder.invoke(self.process, call, (self.stage.now_ns)());
        let outcome = match answer.await {
            Ok(Some(reply)) => Outcome::Ok(reply),
            Ok(None) => Outcome::Failed,
            Err(error) if error.may_have_applied() => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        recorder.complete(number, outcome.clone(), (self.stage.now_ns)());
        match outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }
}

/// See the module's text.
pub trait Workload: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// Makes what must be there before the clients begin; called until it succeeds.
    fn prepare(self: Arc<Self>, _client: Client) -> BoxFuture<'static, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    /// One client's calls, until the stage closes.
    fn work(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, ()>;
    /// The last reads, when all faults are over; called until it succeeds.
    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>>;
    /// What the checker says of all that happened.
    fn verdict(&self) -> Verdict;
    /// How many calls were answered.
    fn answered(&self) -> usize;
    /// Calls and answers, as lines of JSON.
    fn lines(&self) -> String;
}

/// All workloads, by name.
pub fn all() -> Vec<Arc<dyn Workload>> {
    vec![
        Arc::<register::Register>::default(),
        Arc::<set::Set>::default(),
        Arc::<append::Append>::default(),
        Arc::new(append::Append::held()),
        Arc::<bank::Bank>::default(),
        Arc::<counter::Counter>::default(),
        Arc::<messages::Messages>::default(),
        Arc::<session::Sessions>::default(),
        Arc::<freshness::Freshness>::default(),
        Arc::<expiry::Expiry>::default(),
        Arc::<topology::Topology>::default(),
        Arc::<journal::Journal>::default(),
        Arc::<values::Values>::default(),
        Arc::<query::Queries>::default(),
        Arc::<documents::Documents>::default(),
        Arc::<watch::Watch>::default(),
        Arc::<lease::Leases>::default(),
        Arc::<lock::Locks>::default(),
    ]
}

fn answered<C: Clone, R: Clone>(recorder: &Recorder<C, R>) -> usize {
    recorder.history().iter().filter(|operation| operation.is_ok()).count()
}

fn lines<C: Clone + Serialize, R: Clone + Serialize>(recorder: &Recorder<C, R>) -> String {
    json_lines(&recorder.history())
}

/// A number that was written as a state value.
fn number(value: &[u8]) -> u64 {
    let read = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    read.unwrap_or_else(|| panic!("{:?} is no number that was written", String::from_utf8_lossy(value)))
}
