//! Mixed load for a long time, looked at every few seconds: does anything grow, or sag? Meanwhile memtables are flushed, logs
//! purged, and once all is backed up.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, interval},
};

use crate::{
    Shared,
    chart::{self, Line, Scale},
    load::{self, Op, Turn, histogram},
    report,
    systems::{Kind, System},
};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// How long, and of what.
#[derive(Debug, clap::Args)]
pub struct Timeline {
    /// For how many minutes
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// How many clients, of which every fourth writes and the others read
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// How many keys there are
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 1_024)]
    value_bytes: u32,
}

#[derive(Clone, Copy, Serialize)]
struct Look {
    second: u64,
    puts: f64,
    gets: f64,
    put_p50_ms: f64,
    put_p99_ms: f64,
    get_p99_ms: f64,
    /// Of the node that holds most.
    resident_mib: f64,
    /// Of all nodes.
    disk_mib: f64,
    /// Whether a backup was being made.
    backup: bool,
}

/// What clients note between two looks, in microseconds.
struct Notes {
    puts: Mutex<Histogram<u64>>,
    gets: Mutex<Histogram<u64>>,
}

fn taken(histogram: &Mutex<Histogram<u64>>) -> Histogram<u64> {
    let mut held = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = held.clone();
    held.reset();
    taken
}

pub async fn run(shared: &Shared, plan: &Timeline) -> Result<()> {
    let home = shared.home()?;
    let value = load::value(plan.value_bytes);
    let system = System::start(Kind::Stream, shared, home.path()).await?;
    eprintln!("writing {} records", plan.keys);
    system.fill(plan.keys, &value).await?;
    let end = Instant::now() + Duration::from_secs(plan.minutes * 60);
    let mut loops = JoinSet::new();
    let mut all = Vec::new();
    for number in 0..plan.clients {
        let client = system.client(number).await?;
        let mut turn = Turn::new(plan.keys, value.clone(), (1, number));
        let notes = Arc::new(Notes { puts: Mutex::new(histogram()?), gets: Mutex::new(histogram()?) });
        all.push(notes.clone());
        let (op, noted) = if number % 4 == 0 { (Op::Put, true) } else { (Op::Get, false) };
        loops.spawn(async move {
            while Instant::now() < end {
                let began = Instant::now();
                client.call(op, &mut turn).await?;
                let us = began.elapsed().as_micros().max(1) as u64;
                let histogram = if noted { &notes.puts } else { &notes.gets };
                histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(us);
            }
            anyhow::Ok(())
        });
    }
    let looks = look(shared, &system, (&all, end), home.path()).await?;
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    system.stop().await;
    fs::create_dir_all(&shared.out)?;
    fs::write(shared.out.join("timeline.json"), serde_json::to_string_pretty(&looks)?)?;
    fs::write(shared.out.join("timeline.svg"), plot(plan, &looks))?;
    fs::write(shared.out.join("timeline.md"), markdown(plan, &looks))?;
    eprintln!("written: {}", shared.out.join("timeline.md").display());
    Ok(())
}

async fn look(
    shared: &Shared,
    system: &System,
    (all, end): (&[Arc<Notes>], Instant),
    home: &Path,
) -> Result<Vec<Look>> {
    let (began, mut looks) = (Instant::now(), Vec::<Look>::new());
    let (mut ticks, mut backup, mut last) = (interval(LOOK), None, Instant::now());
    ticks.tick().await;
    loop {
        let was_made = backup.is_some();
        ticks.tick().await;
        let took = last.elapsed().as_secs_f64();
        last = Instant::now();
        let (mut puts, mut gets) = (histogram()?, histogram()?);
        for notes in all {
            puts.add(taken(&notes.puts))?;
            gets.add(taken(&notes.gets))?;
        }
        let used = system.usage().await?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        let now = Look {
            second: began.elapsed().as_secs(),
            puts: puts.len() as f64 / took,
            gets: gets.len() as f64 / took,
            put_p50_ms: ms(&puts, 0.5),
            put_p99_ms: ms(&puts, 0.99),
            get_p99_ms: ms(&gets, 0.99),
            resident_mib: mib(used.resident_bytes),
            disk_mib: mib(used.disk_bytes),
            backup: was_made,
        };
        eprintln!("  {}", serde_json::to_string(&now)?);
        looks.push(now);
        if last + LOOK > end {
            return Ok(looks);
        }
        if let Some(status) = backup.as_mut().map(Child::try_wait).transpose()?.flatten() {
            if !status.success() {
                bail!("the backup failed with {status}");
            }
            backup = None;
        } else if backup.is_none() && !looks.iter().any(|look| look.backup) && last >= end - (end - began) / 2 {
            backup = Some(begin_backup(shared, system, home).context("cannot make a backup")?);
        }
    }
}

fn begin_backup(shared: &Shared, system: &System, home: &Path) -> Result<Child> {
    let mut command = Command::new(&shared.meshstore);
    command.args(["backup", "create", "--endpoints", &system.endpoints().join(",")]).arg(home.join("backup"));
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?)
}

/// The middle one.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn plot(plan: &Timeline, looks: &[Look]) -> String {
    let line = |name, value: fn(&Look) -> f64| Line {
        name,
        points: looks.iter().map(|look| (look.second as f64 / 60.0, value(look))).collect(),
    };
    let panels = [
        ("calls a second", vec![line("puts", |look| look.puts), line("gets", |look| look.gets)]),
        ("p99, ms", vec![line("puts", |look| look.put_p99_ms), line("gets", |look| look.get_p99_ms)]),
        ("MiB", vec![line("memory of a node", |look| look.resident_mib), line("all disks", |look| look.disk_mib)]),
    ];
    let title = format!("{} clients, {} records of {} bytes", plan.clients, plan.keys, plan.value_bytes);
    chart::draw(&title, Scale::Even, &panels, "minutes")
}

fn markdown(plan: &Timeline, looks: &[Look]) -> String {
    let mut text = format!(
        "# A long run\n\n`{}`\n\n{}\n\n{} clients, of which every fourth overwrites and the others read, linearizable; {} records of {} \
         bytes on three nodes. Medians of looks every {} s; memory is that of the node that holds most, disk that of all three.\n\n\
         ![over time](timeline.svg)\n\n| | puts a second | gets a second | put p50 ms | put p99 ms | get p99 ms | memory MiB | disk MiB |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
        report::command(),
        report::machine(),
        plan.clients,
        plan.keys,
        plan.value_bytes,
        LOOK.as_secs()
    );
    let plain: Vec<&Look> = looks.iter().filter(|look| !look.backup).collect();
    let third = plain.len() / 3;
    let parts: [(&str, Vec<&Look>); 4] = [
        ("the first third", plain.iter().take(third).copied().collect()),
        ("the second", plain.iter().skip(third).take(third).copied().collect()),
        ("the last", plain.iter().skip(2 * third).copied().collect()),
        ("while a backup is made", looks.iter().filter(|look| look.backup).collect()),
    ];
    for (name, part) in parts {
        let of = |value: fn(&Look) -> f64| median(part.iter().map(|look| value(look)));
        let _ = writeln!(
            text,
            "| {name} ({} looks) | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
            part.len(),
            of(|look| look.puts),
            of(|look| look.gets),
            of(|look| look.put_p50_ms),
            of(|look| look.put_p99_ms),
            of(|look| look.get_p99_ms),
            of(|look| look.resident_mib),
            of(|look| look.disk_mib)
        );
    }
    text
}
