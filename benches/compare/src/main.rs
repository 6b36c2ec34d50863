//! meshstore beside etcd and PostgreSQL: three nodes of each as processes, in turn, on this machine and its disk, with the same
//! load and the same promise (acknowledged is synced on a quorum). `scripts/bench` installs what is missing and calls this.

mod chart;
mod load;
mod processes;
mod report;
mod systems;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;

use self::{
    load::{Measured, Op, Plan},
    processes::Usage,
    report::Row,
    systems::{Kind, System},
};

/// Measures meshstore beside etcd and PostgreSQL
#[derive(Debug, Parser)]
#[command(
    name = "scripts/bench",
    after_help = "Examples:\n  scripts/bench --quick\n  scripts/bench --ops put,get --clients 256 --rounds 3"
)]
struct Options {
    /// What is measured
    #[arg(long, value_delimiter = ',', default_value = "etcd,unary,stream,postgres")]
    systems: Vec<Kind>,
    /// Which operations
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "put,get,stale,mixed,cas,txn8,range,delete,batch,watch,message"
    )]
    ops: Vec<Op>,
    /// How many clients, each with one call under way
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1024")]
    clients: Vec<u32>,
    /// Bytes of a value
    #[arg(long, value_delimiter = ',', default_value = "256")]
    value_bytes: Vec<u32>,
    /// How many keys there are
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Seconds of each measurement, after a fifth of it to warm up
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often all is measured: in each round every system is started anew, in another order
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// One round of what tells most: put and get with 64 and 256 clients, 3 s each
    #[arg(long)]
    quick: bool,
    /// The meshstore binary
    #[arg(long, env = "MESHSTORE_BINARY", default_value = "target/release/meshstore")]
    meshstore: PathBuf,
    /// The etcd binary
    #[arg(long, env = "ETCD_BINARY", default_value = "etcd")]
    etcd: PathBuf,
    /// The directory of PostgreSQL's binaries
    #[arg(long, env = "POSTGRES_BIN", default_value = "/usr/lib/postgresql/15/bin")]
    postgres: PathBuf,
    /// Where the systems keep their data, each run in a directory of its own that is removed
    #[arg(long, env = "BENCH_DATA", default_value = "/var/tmp")]
    data: PathBuf,
    /// Where the table, the plots and the raw figures go
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scripts/bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut options: Options) -> Result<()> {
    if options.quick {
        options.ops = vec![Op::Put, Op::Get];
        options.clients = vec![64, 256];
        (options.rounds, options.seconds) = (1, 3);
    }
    if options.rounds == 0 || options.seconds == 0 || options.clients.contains(&0) || options.keys == 0 {
        bail!("rounds, seconds, clients and keys must be at least 1");
    }
    let mut rows = Vec::new();
    for round in 0..options.rounds {
        let mut order = options.systems.clone();
        order.rotate_left(round as usize % options.systems.len().max(1));
        for kind in order {
            for bytes in options.value_bytes.clone() {
                let measured = tokio::select! {
                    measured = system(&options, kind, bytes, round) => measured?,
                    _ = tokio::signal::ctrl_c() => bail!("interrupted"),
                };
                rows.extend(measured);
            }
        }
    }
    report::write(&options.out, &rows, &command()).context("cannot write the results")
}

fn command() -> String {
    let rest: Vec<String> = std::env::args().skip(1).collect();
    format!("scripts/bench {}", rest.join(" ")).trim_end().to_owned()
}

/// One system, started anew, filled, measured, stopped.
async fn system(options: &Options, kind: Kind, value_bytes: u32, round: u32) -> Result<Vec<Row>> {
    let ops: Vec<Op> = options.ops.iter().copied().filter(|op| kind.does(*op)).collect();
    if ops.is_empty() {
        return Ok(Vec::new());
    }
    let home = tempfile::Builder::new().prefix("meshstore-bench-").tempdir_in(&options.data)?;
    eprintln!("round {}: {kind}, values of {value_bytes} bytes", round + 1);
    let system = System::start(kind, options, home.path()).await.with_context(|| format!("cannot start {kind}"))?;
    let value = load::value(value_bytes);
    system.fill(options.keys, &value).await.with_context(|| format!("cannot fill {kind}"))?;
    let mut rows = Vec::new();
    for op in ops {
        for clients in &options.clients {
            let plan = Plan {
                op,
                clients: *clients,
                keys: options.keys,
                value: value.clone(),
                seconds: Duration::from_secs(options.seconds),
                warm_up: Duration::from_secs(options.seconds) / 5,
                run: u64::from(round) << 32 | rows.len() as u64,
            };
            let before = system.usage().await?;
            let measured = load::run(&system, &plan).await.with_context(|| format!("{kind}, {}", op.name()))?;
            let used = system.usage().await?.since(&before);
            let row = row(kind, &plan, round, &measured, &used);
            eprintln!("  {}", row.line());
            rows.push(row);
        }
    }
    system.stop().await;
    Ok(rows)
}

fn row(kind: Kind, plan: &Plan, round: u32, measured: &Measured, used: &Usage) -> Row {
    let us = |quantile| measured.latency_us.value_at_quantile(quantile);
    // What was used in the warm-up is in `used`, and so are its calls.
    let calls = measured.all_calls.max(1) as f64;
    Row {
        system: kind,
        op: plan.op,
        clients: plan.clients,
        value_bytes: plan.value.len(),
        round,
        per_second: measured.latency_us.len() as f64 * plan.op.items() as f64 / plan.seconds.as_secs_f64(),
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: us(0.999),
        errors: measured.errors,
        server_cpu_us: used.server_cpu.as_secs_f64() * 1e6 / calls,
        client_cpu_us: used.client_cpu.as_secs_f64() * 1e6 / calls,
        syncs: used.syncs as f64 / calls,
        peak_mib: used.peak_bytes as f64 / f64::from(1 << 20),
        disk_mib: used.disk_bytes as f64 / f64::from(1 << 20),
    }
}
