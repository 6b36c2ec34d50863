//! What a system occupies: memory with many records, disk while few are overwritten again and again, and how long it takes to
//! be back.

use std::{
    fmt::Write as _,
    fs,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Shared,
    load::{self, Op, Turn},
    report,
    systems::{Kind, System},
};

/// Clients that overwrite.
const CLIENTS: u32 = 64;
/// How often the disk is looked at meanwhile.
const LOOKS: u64 = 4;
/// What a system has to come to rest after it was filled.
const REST: Duration = Duration::from_secs(10);

/// How much.
#[derive(Debug, clap::Args)]
pub struct Footprint {
    /// What is measured
    #[arg(long, value_delimiter = ',', default_value = "etcd,stream")]
    systems: Vec<Kind>,
    /// How many records there are when memory and the restart are looked at
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// How many keys are overwritten when the disk is looked at
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// How often
    #[arg(long, default_value_t = 1_000_000)]
    overwrites: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    value_bytes: u32,
}

#[derive(Serialize)]
struct Found {
    system: Kind,
    /// What stood on the disks of all nodes after so many overwrites, in MiB.
    disk_mib: Vec<(u64, f64)>,
    /// With all records: of the node that holds most, and of all disks.
    resident_mib: f64,
    peak_mib: f64,
    filled_mib: f64,
    /// From the start of the processes until a linearizable read is answered, in seconds.
    after_stop: f64,
    after_kill: f64,
}

pub async fn run(shared: &Shared, plan: &Footprint) -> Result<()> {
    let mut found = Vec::new();
    for kind in &plan.systems {
        let one = measure(shared, plan, *kind).await.with_context(|| format!("{kind}"))?;
        eprintln!("  {}", serde_json::to_string(&one)?);
        found.push(one);
    }
    fs::create_dir_all(&shared.out)?;
    fs::write(shared.out.join("footprint.json"), serde_json::to_string_pretty(&found)?)?;
    fs::write(shared.out.join("footprint.md"), markdown(plan, &found))?;
    eprintln!("written: {}", shared.out.join("footprint.md").display());
    Ok(())
}

async fn measure(shared: &Shared, plan: &Footprint, kind: Kind) -> Result<Found> {
    let value = load::value(plan.value_bytes);
    let home = shared.home()?;
    eprintln!("{kind}: {} keys are overwritten {} times", plan.keys, plan.overwrites);
    let system = System::start(kind, shared, home.path()).await?;
    system.fill(plan.keys, &value).await?;
    let mut disk_mib = Vec::new();
    for look in 1..=LOOKS {
        overwrite(&system, plan, look, plan.overwrites / LOOKS).await?;
        disk_mib.push((look * plan.overwrites / LOOKS, mib(system.usage().await?.disk_bytes)));
    }
    system.stop().await;

    let home = shared.home()?;
    eprintln!("{kind}: {} records", plan.records);
    let mut system = System::start(kind, shared, home.path()).await?;
    system.fill(plan.records, &value).await?;
    sleep(REST).await;
    let used = system.usage().await?;
    let mut turn = Turn::new(plan.records, value, (0, 0));
    let after_stop = system.restart(true, &mut turn).await?.as_secs_f64();
    sleep(REST).await;
    let after_kill = system.restart(false, &mut turn).await?.as_secs_f64();
    system.stop().await;
    Ok(Found {
        system: kind,
        disk_mib,
        resident_mib: mib(used.resident_bytes),
        peak_mib: mib(used.peak_bytes),
        filled_mib: mib(used.disk_bytes),
        after_stop,
        after_kill,
    })
}

async fn overwrite(system: &System, plan: &Footprint, look: u64, times: u64) -> Result<()> {
    let left = Arc::new(AtomicI64::new(times.try_into()?));
    let mut loops = JoinSet::new();
    for number in 0..CLIENTS {
        let (client, left) = (system.client(number).await?, left.clone());
        let mut turn = Turn::new(plan.keys, load::value(plan.value_bytes), (look, number));
        loops.spawn(async move {
            while left.fetch_sub(1, Relaxed) > 0 {
                client.call(Op::Put, &mut turn).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn markdown(plan: &Footprint, found: &[Found]) -> String {
    let mut text = format!(
        "# What it occupies\n\n`{}`\n\n{}\n\nValues of {} bytes. Memory is that of the node which holds most, {} s after it was \
         filled with {} records; disk is that of three nodes together. Back: from the start of all three processes until a \
         linearizable read is answered.\n\n| | {} |\n|---|{}\n",
        report::command(),
        report::machine(),
        plan.value_bytes,
        REST.as_secs(),
        plan.records,
        found.iter().map(|one| one.system.name()).collect::<Vec<_>>().join(" | "),
        "---:|".repeat(found.len())
    );
    let mut row = |name: String, value: &dyn Fn(&Found) -> String| {
        let values: Vec<String> = found.iter().map(value).collect();
        let _ = writeln!(text, "| {name} | {} |", values.join(" | "));
    };
    row("memory, MiB".into(), &|one| format!("{:.0}", one.resident_mib));
    row("the most memory before, MiB".into(), &|one| format!("{:.0}", one.peak_mib));
    row("disk with all records, MiB".into(), &|one| format!("{:.0}", one.filled_mib));
    row("back after a stop, s".into(), &|one| format!("{:.2}", one.after_stop));
    row("back after a kill, s".into(), &|one| format!("{:.2}", one.after_kill));
    let looks = found.first().map(|one| one.disk_mib.len()).unwrap_or_default();
    for look in 0..looks {
        let times = found.first().and_then(|one| one.disk_mib.get(look)).map_or(0, |(times, _)| *times);
        let name = format!("disk after {times} overwrites of {} keys, MiB", plan.keys);
        row(name, &|one| one.disk_mib.get(look).map_or(String::new(), |(_, mib)| format!("{mib:.0}")));
    }
    text
}
