//! `meshstore bench`: closed loops of clients against a running cluster.
//!
//! Each of N clients has one call under way at any time and begins the next when it has the answer. What is
//! reported is what a caller sees: retries count into the latency of their call, failed calls are counted
//! apart. A warm-up before each measurement is thrown away.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    failure::Failure,
    fill::{self, Fill},
    options::{Session, duration},
    output,
};
use crate::{Client, Error};

/// Latencies are kept in microseconds, up to this many.
const LONGEST_US: u64 = 600_000_000;

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Keys are bench/00000000 and so on; before reads are measured those that are missing are written.\n\nExamples:\n  meshstore bench\n  meshstore bench --clients 64 --op get --read stale:1s\n  meshstore bench --clients 1,64,256 --op mixed --value-bytes 1024 --seconds 30 --json\n  meshstore bench fill --records 1000000"
)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write many small records, as fast as it goes
    Fill(Fill),
}

#[derive(Args, Debug)]
struct Run {
    /// How many clients; several numbers make several measurements
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,64,256",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Vec<u32>,
    /// What they do; mixed is half and half
    #[arg(long, value_enum, default_value_t = Op::Put)]
    op: Op,
    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// How many keys, of which each call takes one by chance
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// How long each measurement takes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How long the clients run before each measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// Over how many connections to each node the clients are spread
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Op {
    Put,
    Get,
    Mixed,
}

/// What came of one measurement.
struct Measured {
    clients: u32,
    seconds: f64,
    latency_us: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// What all clients of a measurement share.
struct Course {
    op: Op,
    keys: u64,
    value: Bytes,
    measure_from: Instant,
    end: Instant,
    done: AtomicU64,
}

impl Bench {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self.command {
            Some(Command::Fill(fill)) => fill.run(session).await,
            None => self.run.run(session).await,
        }
    }
}

impl Run {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        if self.op == Op::Put && session.options.read.is_some() {
            return Err(Failure::usage("--read is for commands that read; --op put reads nothing"));
        }
        let clients = connect(session, self.connections).await?;
        let value = value(self.value_bytes, self.seed);
        if self.op != Op::Put {
            fill::missing(&clients, self.keys, &value).await?;
        }
        let mut results = Vec::new();
        for count in &self.clients {
            results.push(self.measure(*count, &clients, value.clone()).await?);
        }
        for client in clients {
            // The session expires by itself if nobody is there to end it.
            let _ = client.with_deadline(Duration::from_secs(1)).close_session().await;
        }
        let json = Value::Array(results.iter().map(|result| self.json(result)).collect());
        session.out.answer(&json, || self.text(&results))
    }

    async fn measure(&self, count: u32, clients: &[Client], value: Bytes) -> Result<Measured, Failure> {
        let measure_from = Instant::now() + self.warm_up;
        let end = measure_from + Duration::from_secs(self.seconds);
        let course =
            Arc::new(Course { op: self.op, keys: self.keys, value, measure_from, end, done: AtomicU64::new(0) });
        let mut loops = JoinSet::new();
        for (number, client) in (0..count).zip(clients.iter().cycle()) {
            let rng = StdRng::seed_from_u64(self.seed.wrapping_add(u64::from(number)));
            loops.spawn(closed_loop(client.clone(), course.clone(), rng));
        }
        let progress = tokio::spawn(show_progress(course.clone(), format!("{count} clients")));
        let mut latency_us = histogram()?;
        let mut errors = BTreeMap::new();
        while let Some(joined) = loops.join_next().await {
            let (latencies, failed) = joined.map_err(|error| Failure::Failed(error.to_string()))??;
            latency_us.add(latencies).map_err(|error| Failure::Failed(error.to_string()))?;
            for (kind, times) in failed {
                *errors.entry(kind).or_insert(0) += times;
            }
        }
        // It ends by itself at the same time; whether it could draw does not matter.
        let _ = progress.await;
        #[expect(clippy::cast_precision_loss, reason = "seconds of a measurement are few")]
        let seconds = self.seconds as f64;
        Ok(Measured { clients: count, seconds, latency_us, errors })
    }

    fn op_name(&self) -> &'static str {
        match self.op {
            Op::Put => "put",
            Op::Get => "get",
            Op::Mixed => "mixed",
        }
    }

    fn json(&self, result: &Measured) -> Value {
        let us = |quantile| result.latency_us.value_at_quantile(quantile);
        json!({
            "clients": result.clients, "op": self.op_name(), "value_bytes": self.value_bytes, "keys": self.keys,
            "seconds": result.seconds, "operations": result.latency_us.len(),
            "operations_per_second": result.rate(), "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999),
            "max_us": result.latency_us.max(), "errors": result.errors.values().sum::<u64>(),
            "errors_by_kind": result.errors,
        })
    }

    fn text(&self, results: &[Measured]) -> String {
        let columns = ["clients", "op", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "errors"];
        let rows = results.iter().map(|result| {
            let quantiles = [0.5, 0.99, 0.999].map(|at| milliseconds(result.latency_us.value_at_quantile(at)));
            let mut row = vec![result.clients.to_string(), self.op_name().into(), format!("{:.0}", result.rate())];
            row.extend(quantiles);
            row.extend([milliseconds(result.latency_us.max()), result.errors.values().sum::<u64>().to_string()]);
            row
        });
        let mut text = output::table(&columns, rows);
        for result in results {
            for (kind, times) in &result.errors {
                text.push_str(&format!("\n{} clients: {times} times {}", result.clients, output::visible(kind)));
            }
        }
        text
    }
}

impl Measured {
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown in few digits")]
    fn rate(&self) -> f64 {
        self.latency_us.len() as f64 / self.seconds
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are shown in few digits")]
fn milliseconds(us: u64) -> String {
    format!("{:.2}", us as f64 / 1_000.0)
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|error| Failure::Failed(error.to_string()))
}

/// Clients with a connection of their own each; so many as there shall be connections to a node.
pub(super) async fn connect(session: &Session, connections: u32) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(session.options.client()?.connect().await?);
    }
    Ok(clients)
}

/// Bytes that do not compress.
pub(super) fn value(bytes: u32, seed: u64) -> Bytes {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..bytes).map(|_| rng.random::<u8>()).collect::<Vec<_>>().into()
}

/// The name of a key by its number.
pub(super) fn key(number: u64) -> String {
    format!("bench/{number:08}")
}

type Counted = (Histogram<u64>, BTreeMap<String, u64>);

async fn closed_loop(client: Client, course: Arc<Course>, mut rng: StdRng) -> Result<Counted, Failure> {
    let state = client.state();
    let mut latency_us = histogram()?;
    let mut errors = BTreeMap::new();
    loop {
        let began = Instant::now();
        if began >= course.end {
            return Ok((latency_us, errors));
        }
        let key = key(rng.random_range(0..course.keys));
        let put = course.op == Op::Put || (course.op == Op::Mixed && rng.random());
        let done =
            if put { state.put(&key, course.value.clone()).await.map(drop) } else { state.get(&key).await.map(drop) };
        course.done.fetch_add(1, Ordering::Relaxed);
        if began < course.measure_from {
            continue;
        }
        match done {
            Ok(()) => {
                let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(LONGEST_US);
                latency_us.saturating_record(us.clamp(1, LONGEST_US));
            }
            Err(error) => *errors.entry(kind(&error)).or_insert(0) += 1,
        }
    }
}

/// The front of an error's message, which is what the same failures share.
fn kind(error: &Error) -> String {
    match error {
        Error::DeadlineExceeded { deadline_ms, .. } => format!("deadline of {deadline_ms} ms passed"),
        Error::NotFound { kind, .. } => format!("{kind} not found"),
        error => error.to_string(),
    }
}

async fn show_progress(course: Arc<Course>, what: String) {
    let total = course.end.saturating_duration_since(Instant::now());
    let bar = ProgressBar::new(u64::try_from(total.as_millis()).unwrap_or(u64::MAX)).with_prefix(what);
    bar.set_style(style("{prefix:>14} [{bar:30}] {msg}"));
    let began = Instant::now();
    while Instant::now() < course.end {
        bar.set_position(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let phase = if Instant::now() < course.measure_from { "warming up" } else { "measuring" };
        bar.set_message(format!("{phase}, {} calls", course.done.load(Ordering::Relaxed)));
        sleep_until(course.end.min(Instant::now() + Duration::from_millis(200))).await;
    }
    bar.finish_and_clear();
}

/// A style of a bar; the plain one if the template is wrong.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
