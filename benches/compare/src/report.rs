//! The results: a table in Markdown, plots, and the raw rows as JSON.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::Result;
use serde::Serialize;

use crate::{
    chart::{self, Line, Scale},
    load::Op,
    systems::Kind,
};

/// One measurement.
#[derive(Clone, Serialize)]
pub struct Row {
    pub system: Kind,
    pub op: Op,
    pub clients: u32,
    pub value_bytes: usize,
    pub round: u32,
    /// Calls; of a batch values.
    pub per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub errors: u64,
    /// Processor time of all nodes for a call.
    pub server_cpu_us: f64,
    /// Processor time of the load for a call.
    pub client_cpu_us: f64,
    /// Syncs of all nodes for a call.
    pub syncs: f64,
    pub peak_mib: f64,
    pub disk_mib: f64,
}

impl Row {
    pub fn line(&self) -> String {
        format!(
            "{:<18} {:>5} clients {:>9.0}/s  p50 {:>7} us  p99 {:>7} us  servers {:>5.0} us  load {:>4.0} us  {:>5.3} syncs  {} errors",
            self.op.name(),
            self.clients,
            self.per_second,
            self.p50_us,
            self.p99_us,
            self.server_cpu_us,
            self.client_cpu_us,
            self.syncs,
            self.errors
        )
    }
}

/// What is compared: everything but the system.
type Case = (usize, Op, u32);

/// Medians over the rounds.
struct Median {
    per_second: f64,
    /// Over the rounds, of `per_second`.
    spread: (f64, f64),
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    errors: u64,
    server_cpu_us: f64,
    client_cpu_us: f64,
    syncs: f64,
    peak_mib: f64,
    disk_mib: f64,
}

fn median(rows: &[&Row]) -> Median {
    let of = |value: fn(&Row) -> f64| {
        let mut values: Vec<f64> = rows.iter().map(|row| value(row)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let rates = rows.iter().map(|row| row.per_second);
    Median {
        per_second: of(|row| row.per_second),
        spread: (rates.clone().fold(f64::INFINITY, f64::min), rates.fold(0.0, f64::max)),
        p50_us: of(|row| row.p50_us as f64),
        p99_us: of(|row| row.p99_us as f64),
        p999_us: of(|row| row.p999_us as f64),
        errors: rows.iter().map(|row| row.errors).sum(),
        server_cpu_us: of(|row| row.server_cpu_us),
        client_cpu_us: of(|row| row.client_cpu_us),
        syncs: of(|row| row.syncs),
        peak_mib: of(|row| row.peak_mib),
        disk_mib: of(|row| row.disk_mib),
    }
}

/// Writes `results.md`, `results.json` and a plot for each operation.
pub fn write(out: &Path, rows: &[Row]) -> Result<()> {
    fs::create_dir_all(out)?;
    let mut cases: BTreeMap<Case, BTreeMap<Kind, Vec<&Row>>> = BTreeMap::new();
    for row in rows {
        cases.entry((row.value_bytes, row.op, row.clients)).or_default().entry(row.system).or_default().push(row);
    }
    let cases: BTreeMap<Case, BTreeMap<Kind, Median>> = cases
        .into_iter()
        .map(|(case, systems)| (case, systems.into_iter().map(|(kind, rows)| (kind, median(&rows))).collect()))
        .collect();
    fs::write(out.join("results.json"), serde_json::to_string_pretty(rows)?)?;
    fs::write(out.join("results.md"), markdown(&cases))?;
    let drawn: BTreeMap<(usize, Op), ()> = cases.keys().map(|(bytes, op, _)| ((*bytes, *op), ())).collect();
    for (bytes, op) in drawn.into_keys() {
        let name = format!("{}-{bytes}.svg", op.name().replace([' ', ','], "-").replace("--", "-"));
        fs::write(out.join(name), plot(&cases, bytes, op))?;
    }
    eprintln!("written: {}", out.join("results.md").display());
    Ok(())
}

fn plot(cases: &BTreeMap<Case, BTreeMap<Kind, Median>>, bytes: usize, op: Op) -> String {
    let mut rates: BTreeMap<Kind, Vec<(f64, f64)>> = BTreeMap::new();
    let mut tails = rates.clone();
    for ((case_bytes, case_op, clients), systems) in cases {
        if (*case_bytes, *case_op) == (bytes, op) {
            for (kind, median) in systems {
                rates.entry(*kind).or_default().push((f64::from(*clients), median.per_second));
                tails.entry(*kind).or_default().push((f64::from(*clients), median.p99_us / 1_000.0));
            }
        }
    }
    let lines = |all: BTreeMap<Kind, Vec<(f64, f64)>>| {
        all.into_iter().map(|(kind, points)| Line { name: kind.name(), points }).collect::<Vec<_>>()
    };
    let title = format!("{}, values of {bytes} bytes", op.name());
    chart::draw(&title, Scale::Logarithmic, &[("a second", lines(rates)), ("p99, ms", lines(tails))], "clients")
}

fn markdown(cases: &BTreeMap<Case, BTreeMap<Kind, Median>>) -> String {
    let mut text = format!(
        "# meshstore beside others\n\n`{}`\n\n{}\n\nThree nodes of each as processes, the load beside them on the same \
         processors, the same disk, one system at a time. Medians of the rounds; in brackets the slowest and the fastest. \
         *Times* is against etcd, and PostgreSQL where etcd is not asked. Processor time and syncs are for one call, of all \
         nodes together. Memory is the most that one node has held until then, disk that of all nodes.\n",
        command(),
        machine()
    );
    let mut before = None;
    for ((bytes, op, clients), systems) in cases {
        if before != Some((*bytes, *op)) {
            let _ = write!(
                text,
                "\n## {op}, {bytes} bytes\n\n| clients | system | a second | times | p50 ms | p99 ms | p99.9 ms | servers µs | load µs | syncs | memory MiB | disk MiB | errors |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
            );
            before = Some((*bytes, *op));
        }
        let other = systems.get(&Kind::Etcd).or_else(|| systems.get(&Kind::Postgres)).map(|other| other.per_second);
        for (kind, m) in systems {
            let times = other
                .filter(|other| *other > 0.0)
                .map_or(String::new(), |other| format!("{:.2}", m.per_second / other));
            let ms = |us: f64| format!("{:.2}", us / 1_000.0);
            let _ = writeln!(
                text,
                "| {clients} | {kind} | {:.0} ({:.0}..{:.0}) | {times} | {} | {} | {} | {:.0} | {:.0} | {:.3} | {:.0} | {:.0} | {} |",
                m.per_second,
                m.spread.0,
                m.spread.1,
                ms(m.p50_us),
                ms(m.p99_us),
                ms(m.p999_us),
                m.server_cpu_us,
                m.client_cpu_us,
                m.syncs,
                m.peak_mib,
                m.disk_mib,
                m.errors
            );
        }
    }
    text
}

/// How it was called.
pub fn command() -> String {
    let rest: Vec<String> = std::env::args().skip(1).collect();
    format!("scripts/bench {}", rest.join(" ")).trim_end().to_owned()
}

/// What it ran on.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, model)| model);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processors} processors ({model}), Linux {}", kernel.trim())
}
