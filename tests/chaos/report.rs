//! What a run leaves for people: `report.md`, `report.svg`, and the histories.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use super::{
    chart,
    cluster::Settings,
    history::Verdict,
    nemesis::ALL,
    run::{Fault, Plan},
};

/// A call that was answered, or not.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub start_ns: u64,
    pub end_ns: u64,
    pub ok: bool,
}

/// What one workload recorded.
pub struct History {
    pub name: &'static str,
    pub verdict: Verdict,
    pub calls: Vec<Call>,
    /// How many calls ended as ok, fail, info.
    pub counts: [usize; 3],
}

pub struct Report {
    pub plan: Plan,
    pub settings: Settings,
    pub histories: Vec<History>,
    pub faults: Vec<Fault>,
    pub violations: Vec<String>,
    pub begin_ns: u64,
    pub end_ns: u64,
    pub directory: PathBuf,
}

impl History {
    /// From the lines of a history file.
    pub fn new(name: &'static str, verdict: Verdict, lines: &str) -> Self {
        let (mut open, mut calls, mut counts) = (BTreeMap::<(u64, String), Vec<u64>>::new(), Vec::new(), [0; 3]);
        for line in lines.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let at = event["time"].as_u64().unwrap();
            let call = (event["process"].as_u64().unwrap(), event["call"].to_string());
            let kind = match event["type"].as_str().unwrap() {
                "invoke" => {
                    open.entry(call).or_default().push(at);
                    continue;
                }
                "ok" => 0,
                "fail" => 1,
                _ => 2,
            };
            counts[kind] += 1;
            if let Some(start_ns) = open.get_mut(&call).and_then(Vec::pop) {
                calls.push(Call { start_ns, end_ns: at, ok: kind == 0 });
            }
        }
        Self { name, verdict, calls, counts }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Report {
    pub fn is_valid(&self) -> bool {
        self.violations.is_empty() && self.histories.iter().all(|history| history.verdict.is_valid())
    }

    pub fn answered(&self) -> usize {
        self.histories.iter().map(|history| history.counts[0]).sum()
    }

    /// Why it failed, in one text.
    pub fn failure(&self) -> Option<String> {
        let invalid = self.histories.iter().filter(|history| !history.verdict.is_valid());
        let mut told: Vec<String> = invalid.map(|history| format!("{}: {}", history.name, history.verdict)).collect();
        told.extend(self.violations.iter().cloned());
        (!told.is_empty())
            .then(|| format!("seed {}: {}\nsee {}", self.plan.seed, told.join("\n"), self.directory.display()))
    }

    /// One line for a list of runs.
    pub fn line(&self) -> String {
        let kinds: Vec<String> = self.histories.iter().map(|history| history.name.to_owned()).collect();
        let verdict = if self.is_valid() { "valid" } else { "FAILED" };
        format!(
            "seed {}, {} nodes, {}: {} answered, {} faults, longest silence {:.1} s: {verdict}",
            self.plan.seed,
            self.plan.nodes,
            kinds.join("+"),
            self.answered(),
            self.faults.len(),
            seconds(self.silence().0)
        )
    }

    fn calls(&self) -> Vec<Call> {
        self.histories.iter().flat_map(|history| history.calls.iter().copied()).collect()
    }

    /// The longest time without an answer, and when it began.
    fn silence(&self) -> (u64, u64) {
        let mut ends: Vec<u64> = self.calls().iter().filter(|call| call.ok).map(|call| call.end_ns).collect();
        ends.extend([self.begin_ns, self.end_ns]);
        ends.sort_unstable();
        ends.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max().unwrap_or_default()
    }

    /// Of the tenths of a second, how many had an answer, in percent.
    fn availability(&self) -> f64 {
        let slots = ((self.end_ns - self.begin_ns) / 100_000_000).max(1);
        let slot = |call: &Call| call.end_ns.saturating_sub(self.begin_ns) / 100_000_000;
        let mut answered: Vec<u64> = self.calls().iter().filter(|call| call.ok).map(slot).collect();
        answered.sort_unstable();
        answered.dedup();
        100.0 * (answered.len() as f64 / slots as f64).min(1.0)
    }

    pub fn write(&self) {
        let svg = chart::draw(&self.calls(), &self.faults, self.begin_ns, self.end_ns);
        fs::write(self.directory.join("report.svg"), svg).unwrap();
        fs::write(self.directory.join("report.md"), self.text()).unwrap();
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let verdict = if self.is_valid() { "valid" } else { "FAILED" };
        let _ = writeln!(text, "# {}: {verdict}\n", self.plan.name());
        let volumes = self.settings.volumes.map_or("none".into(), |kind| format!("{kind:?}"));
        let _ = writeln!(
            text,
            "{} nodes, {:.1} s. Namespaces: {}. Volumes: {volumes}. Clocks of their own: {}.\n",
            self.plan.nodes,
            seconds(self.end_ns - self.begin_ns),
            self.settings.network,
            self.settings.clocks
        );
        let again = format!(
            "scripts/chaos --seed {} --seconds {} --nodes {} --workload {} --nemesis {}",
            self.plan.seed,
            self.plan.seconds,
            self.plan.nodes,
            self.plan.workloads.join(","),
            self.plan.nemeses.iter().map(|nemesis| nemesis.name()).collect::<Vec<_>>().join(",")
        );
        let _ = writeln!(text, "The same choices again: `{again}`\n");
        for violation in &self.violations {
            let _ = writeln!(text, "- **violation**: {violation}");
        }
        let _ = writeln!(
            text,
            "\n| history | verdict | ok | fail | info | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|---|---|---|"
        );
        for history in &self.histories {
            let [ok, fail, info] = history.counts;
            let [half, most, all] = latencies(&history.calls);
            let verdict = history.verdict.to_string();
            let short = verdict.lines().next().unwrap_or_default();
            let _ = writeln!(
                text,
                "| {} | {short} | {ok} | {fail} | {info} | {half:.1} | {most:.1} | {all:.1} |",
                history.name
            );
        }
        let (silence, at) = self.silence();
        let _ = writeln!(
            text,
            "\nAvailable in {:.1} % of all tenths of a second; the longest time without an answer was {:.2} s, from {:.2} s on.\n",
            self.availability(),
            seconds(silence),
            seconds(at - self.begin_ns)
        );
        let _ = writeln!(
            text,
            "![Answers and their latency over time, faults marked](report.svg)\n\n| from s | until s | fault | what was done |\n|---|---|---|---|"
        );
        for fault in &self.faults {
            let (from, until) = (seconds(fault.from_ns - self.begin_ns), seconds(fault.until_ns - self.begin_ns));
            let _ = writeln!(text, "| {from:.2} | {until:.2} | {} | {} |", fault.name, fault.what);
        }
        for history in self.histories.iter().filter(|history| !history.verdict.is_valid()) {
            let _ = writeln!(text, "\n## {}\n\n```\n{}\n```", history.name, history.verdict);
        }
        text
    }
}

/// Half of all, 99 of a hundred, and all answers came within so many milliseconds.
fn latencies(calls: &[Call]) -> [f64; 3] {
    let mut all: Vec<u64> = calls.iter().filter(|call| call.ok).map(|call| call.end_ns - call.start_ns).collect();
    all.sort_unstable();
    [0.5, 0.99, 1.0].map(|part| share(&all, part).map_or(0.0, |ns| ns as f64 / 1e6))
}

/// The value below which this part of sorted ones lies.
pub fn share(sorted: &[u64], part: f64) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get(((last as f64) * part).round() as usize).copied()
}

/// The names of all faults with what they do.
pub fn list() -> String {
    let rows = ALL.iter().map(|(_, name, needs, what)| format!("  {name:<16} {what} [{needs:?}]\n"));
    rows.collect()
}
