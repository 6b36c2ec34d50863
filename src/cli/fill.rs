//! `meshstore bench fill`: many small records, as fast as it goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::{bench, failure::Failure, options::Session};
use crate::{Client, Error};

#[derive(Args, Debug)]
#[command(
    after_help = "Keys are fill/0000000000 and so on.\n\nExample:\n  meshstore bench fill --records 1000000 --value-bytes 100"
)]
pub(super) struct Fill {
    /// How many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// The number of the first
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// How many writes are under way at any time
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    writers: u32,
    /// Over how many connections to each node they are spread
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
}

impl Fill {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        if session.options.read.is_some() {
            return Err(Failure::usage("--read is for commands that read; fill reads nothing"));
        }
        let clients = bench::connect(session, self.connections).await?;
        let value = bench::value(self.value_bytes, 1);
        let began = Instant::now();
        let key: fn(u64) -> String = |number| format!("fill/{number:010}");
        let last = self.first.saturating_add(self.records);
        write(&clients, self.first..last, self.writers, key, &value).await?;
        let seconds = began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown in few digits")]
        let rate = self.records as f64 / seconds;
        for client in clients {
            // The session expires by itself if nobody is there to end it.
            let _ = client.with_deadline(Duration::from_secs(1)).close_session().await;
        }
        let json = json!({ "records": self.records, "seconds": seconds, "records_per_second": rate });
        session.out.answer(&json, || format!("{} records in {seconds:.1} s: {rate:.0} a second", self.records))
    }
}

/// Writes the keys of a benchmark, unless that was done before: then a mark stands behind them.
pub(super) async fn missing(clients: &[Client], keys: u64, value: &Bytes) -> Result<(), Failure> {
    let Some(client) = clients.first() else { return Ok(()) };
    let state = client.clone().with_read(crate::client::ReadMode::Linearizable).state();
    let mark = format!("bench/filled/{keys}");
    match state.get(&mark).await {
        Ok(_) => return Ok(()),
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    write(clients, 0..keys, 1_024, bench::key, value).await?;
    state.put(&mark, Bytes::new()).await?;
    Ok(())
}

async fn write(
    clients: &[Client],
    numbers: std::ops::Range<u64>,
    writers: u32,
    key: fn(u64) -> String,
    value: &Bytes,
) -> Result<(), Failure> {
    let bar = ProgressBar::new(numbers.end.saturating_sub(numbers.start)).with_prefix("records");
    bar.set_style(bench::style("{prefix:>14} [{bar:30}] {human_pos}/{human_len} {per_sec} {eta}"));
    let next = Arc::new(AtomicU64::new(numbers.start));
    let mut tasks = JoinSet::new();
    for (_, client) in (0..writers).zip(clients.iter().cycle()) {
        let (state, value, next, bar) = (client.state(), value.clone(), next.clone(), bar.clone());
        let end = numbers.end;
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok::<(), Error>(());
                }
                state.put(&key(number), value.clone()).await?;
                bar.inc(1);
            }
        });
    }
    // The first failure ends all writers, which are dropped with the set.
    while let Some(joined) = tasks.join_next().await {
        joined.map_err(|error| Failure::Failed(error.to_string()))??;
    }
    bar.finish_and_clear();
    Ok(())
}
