//! meshstore beside etcd and PostgreSQL: three nodes of each as processes, in turn, on this machine and its disk, with the same
//! load and the same promise (acknowledged is synced on a quorum). `scripts/bench` installs what is missing and calls this.

mod chart;
mod footprint;
mod load;
mod processes;
mod report;
mod systems;
mod timeline;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    footprint::Footprint,
    load::{Measured, Op, Plan},
    processes::Usage,
    report::Row,
    systems::{Kind, System},
    timeline::Timeline,
};

/// Measures meshstore beside etcd and PostgreSQL
#[derive(Debug, Parser)]
#[command(
    name = "scripts/bench",
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  scripts/bench --quick\n  scripts/bench --ops put,get --clients 256 --rounds 3\n  scripts/bench footprint\n  scripts/bench timeline --minutes 30"
)]
struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    speed: Speed,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Measures memory, disk, and how long a restart takes
    Footprint(Footprint),
    /// Loads meshstore for a long time, and shows how speed, memory and disk go
    Timeline(Timeline),
}

/// Where things are.
#[derive(Debug, Args)]
struct Shared {
    /// The meshstore binary
    #[arg(long, global = true, env = "MESHSTORE_BINARY", default_value = "target/release/meshstore")]
    meshstore: PathBuf,
    /// The etcd binary
    #[arg(long, global = true, env = "ETCD_BINARY", default_value = "etcd")]
    etcd: PathBuf,
    /// The directory of PostgreSQL's binaries
    #[arg(long, global = true, env = "POSTGRES_BIN", default_value = "/usr/lib/postgresql/15/bin")]
    postgres: PathBuf,
    /// Where the systems keep their data, each run in a directory of its own that is removed
    #[arg(long, global = true, env = "BENCH_DATA", default_value = "/var/tmp")]
    data: PathBuf,
    /// Where tables, plots and raw figures go
    #[arg(long, global = true, default_value = "benches/results")]
    out: PathBuf,
}

impl Shared {
    /// A directory for one run of a system, which goes with what is answered.
    fn home(&self) -> Result<TempDir> {
        Ok(tempfile::Builder::new().prefix("meshstore-bench-").tempdir_in(&self.data)?)
    }
}

/// What is measured of speed.
#[derive(Debug, Args)]
struct Speed {
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
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let Options { other, speed, shared } = Options::parse();
    let measured = async {
        match &other {
            None => measure(&shared, speed).await,
            Some(Other::Footprint(plan)) => footprint::run(&shared, plan).await,
            Some(Other::Timeline(plan)) => timeline::run(&shared, plan).await,
        }
    };
    let ended = tokio::select! {
        ended = measured => ended,
        ended = interrupted() => ended,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scripts/bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Until this process is to end: then the nodes are ended, too.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Err(anyhow!("interrupted"))
}

async fn measure(shared: &Shared, mut speed: Speed) -> Result<()> {
    if speed.quick {
        speed.ops = vec![Op::Put, Op::Get];
        speed.clients = vec![64, 256];
        (speed.rounds, speed.seconds) = (1, 3);
    }
    if speed.rounds == 0 || speed.seconds == 0 || speed.clients.contains(&0) || speed.keys == 0 {
        bail!("rounds, seconds, clients and keys must be at least 1");
    }
    let mut rows = Vec::new();
    for round in 0..speed.rounds {
        let mut order = speed.systems.clone();
        order.rotate_left(round as usize % speed.systems.len().max(1));
        for kind in order {
            for bytes in &speed.value_bytes {
                rows.extend(system(shared, &speed, (kind, *bytes, round)).await?);
            }
        }
    }
    report::write(&shared.out, &rows).context("cannot write the results")
}

/// One system, started anew, filled, measured, stopped.
async fn system(shared: &Shared, speed: &Speed, (kind, value_bytes, round): (Kind, u32, u32)) -> Result<Vec<Row>> {
    let ops: Vec<Op> = speed.ops.iter().copied().filter(|op| kind.does(*op)).collect();
    if ops.is_empty() {
        return Ok(Vec::new());
    }
    let home = shared.home()?;
    eprintln!("round {}: {kind}, values of {value_bytes} bytes", round + 1);
    let system = System::start(kind, shared, home.path()).await.with_context(|| format!("cannot start {kind}"))?;
    let value = load::value(value_bytes);
    system.fill(speed.keys, &value).await.with_context(|| format!("cannot fill {kind}"))?;
    if ops.iter().any(|op| op.is_of_documents()) {
        let text = value_bytes as usize;
        system.fill_documents(speed.keys, text).await.with_context(|| format!("cannot fill {kind} with documents"))?;
    }
    let mut rows = Vec::new();
    for op in ops {
        for clients in &speed.clients {
            let plan = Plan {
                op,
                clients: *clients,
                keys: speed.keys,
                value: value.clone(),
                seconds: Duration::from_secs(speed.seconds),
                warm_up: Duration::from_secs(speed.seconds) / 5,
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
