//! Many seeds, side by side, with a progress bar; for `scripts/simulate`.
//!
//! `SIMULATION_SEEDS`: how many; `SIMULATION_SEED`: the first; `SIMULATION_SECONDS`: simulated time of faults in each;
//! `SIMULATION_TWICE`: every so-manieth is run twice, and must give the same trace; `SIMULATION_VERBOSE`: node logs;
//! `SIMULATION_STOP`: no more after the first that fails.
//!
//! The seeds are run by worker processes, one per processor (`SIMULATION_EVERY`: a worker's share): what a process
//! counts through its whole life, as tokio its tasks, is then the same in every run of a seed.

use std::{
    cell::Cell,
    env,
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{number, world::Report};

/// What the lines of a worker that are meant for the campaign begin with.
const MARK: &str = "campaign: ";

/// What a worker tells.
#[derive(Serialize, Deserialize)]
enum Told {
    Begun(u64),
    Ended(Outcome),
}

/// How a seed ended.
#[derive(Serialize, Deserialize)]
struct Outcome {
    seed: u64,
    twice: bool,
    answered: usize,
    faults: usize,
    simulated: Duration,
    failed: Option<String>,
}

/// What all workers have done.
#[derive(Default)]
struct Totals {
    seeds: usize,
    twice: usize,
    answered: usize,
    faults: usize,
    simulated: Duration,
    failed: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.twice += usize::from(outcome.twice);
        self.answered += outcome.answered;
        self.faults += outcome.faults;
        self.simulated += outcome.simulated;
        self.failed.extend(outcome.failed.map(|why| (outcome.seed, why)));
    }
}

fn length() -> Duration {
    Duration::from_secs(number("SIMULATION_SECONDS").unwrap_or(120))
}

/// Runs a campaign and prints what came of it.
///
/// # Panics
///
/// If a seed failed.
pub fn run() {
    let first = number("SIMULATION_SEED").unwrap_or(0);
    let seeds = number("SIMULATION_SEEDS").unwrap_or(100);
    let stop = number("SIMULATION_STOP").is_some();
    let style = "{prefix} [{bar:30}] {pos}/{len} seeds, {msg}, {eta} left";
    let bar = ProgressBar::new(seeds).with_prefix("simulating");
    bar.set_style(ProgressStyle::with_template(style).unwrap().progress_chars("=> "));
    let (totals, began) = (Mutex::new(Totals::default()), Instant::now());
    let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
    thread::scope(|scope| {
        for worker in 0..workers.min(seeds) {
            let count = (seeds - worker).div_ceil(workers);
            let (totals, bar) = (&totals, &bar);
            scope.spawn(move || {
                follow(start(first + worker, count, workers), |outcome| {
                    let mut totals = totals.lock().unwrap();
                    totals.add(outcome);
                    bar.set_message(format!("{} failed", totals.failed.len()));
                    bar.inc(1);
                    !stop || totals.failed.is_empty()
                });
            });
        }
    });
    bar.finish_and_clear();
    let totals = totals.into_inner().unwrap();
    println!(
        "{} seeds of {} s ({} run twice), {:.1} simulated hours in {:.0} s: {} faults, {} answered calls, {} failed",
        totals.seeds,
        length().as_secs(),
        totals.twice,
        totals.simulated.as_secs_f64() / 3_600.0,
        began.elapsed().as_secs_f64(),
        totals.faults,
        totals.answered,
        totals.failed.len()
    );
    for (seed, why) in totals.failed.iter().take(3) {
        println!("\nseed {seed}: {why}");
    }
    let seeds: Vec<u64> = totals.failed.iter().map(|(seed, _)| *seed).collect();
    assert!(seeds.is_empty(), "failed seeds: {seeds:?}");
}

/// Runs one seed twice in a process of its own: why it failed, if so.
pub fn run_twice(seed: u64, length: Duration) -> Result<(), String> {
    let mut command = worker(seed, 1, 1);
    command.env("SIMULATION_SECONDS", length.as_secs().to_string()).env("SIMULATION_TWICE", "1");
    let mut failed = Err("the worker did nothing".to_owned());
    follow(command.spawn().unwrap(), |outcome| {
        assert!(outcome.twice);
        failed = outcome.failed.map_or(Ok(()), Err);
        true
    });
    failed
}

fn worker(first: u64, count: u64, every: u64) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "a_share", "--nocapture"]).stdout(Stdio::piped());
    for (name, number) in [("SEED", first), ("SEEDS", count), ("EVERY", every)] {
        command.env(format!("SIMULATION_{name}"), number.to_string());
    }
    command
}

fn start(first: u64, count: u64, every: u64) -> Child {
    worker(first, count, every).spawn().unwrap()
}

/// Hands on what a worker tells, as long as more is wanted.
fn follow(mut worker: Child, mut ended: impl FnMut(Outcome) -> bool) {
    let mut running = None;
    for line in BufReader::new(worker.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // A test runner's own words may stand before the mark.
        let Some((_, told)) = line.split_once(MARK) else { continue };
        match serde_json::from_str(told).unwrap() {
            Told::Begun(seed) => running = Some(seed),
            Told::Ended(outcome) => {
                running = None;
                if !ended(outcome) {
                    // It may be over by itself.
                    let _ = worker.kill();
                    break;
                }
            }
        }
    }
    let status = worker.wait().unwrap();
    if let Some(seed) = running {
        let (why, nothing) = (format!("its process ended: {status}"), Duration::ZERO);
        ended(Outcome { seed, twice: false, answered: 0, faults: 0, simulated: nothing, failed: Some(why) });
    }
}

/// A worker: runs its share of the seeds, one after the other.
pub fn work() {
    let first = number("SIMULATION_SEED").unwrap_or(0);
    let (seeds, every) = (number("SIMULATION_SEEDS").unwrap_or(1), number("SIMULATION_EVERY").unwrap_or(1));
    let again = number("SIMULATION_TWICE").unwrap_or(50).max(1);
    if number("SIMULATION_VERBOSE").is_some() {
        let filter = "info,turmoil=warn,openraft=warn";
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    // What fails is told at once in short, since a panic may end the whole process; and at the end with all there is.
    std::panic::set_hook(Box::new(|panic| {
        let told = panic.payload_as_str().unwrap_or("a panic without words");
        let line = told.lines().next().unwrap_or_default();
        let at = panic.location().map_or(String::new(), |place| format!(" ({}:{})", place.file(), place.line()));
        eprintln!("seed {}: {line}{at}", SEED.get());
    }));
    for seed in (0..seeds).map(|number| first + number * every) {
        tell(&Told::Begun(seed));
        // A seed that fails may leave its world behind on the thread, so each has one of its own.
        let ran = thread::spawn(move || one(seed, length(), seed % again == 0)).join();
        tell(&Told::Ended(ran.unwrap()));
    }
}

fn tell(told: &Told) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{}", serde_json::to_string(told).unwrap()).unwrap();
}

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn one(seed: u64, length: Duration, twice: bool) -> Outcome {
    SEED.set(seed);
    let mut outcome = Outcome { seed, twice, answered: 0, faults: 0, simulated: Duration::ZERO, failed: None };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let report = super::run(seed, length);
        if twice {
            same_trace(&report, &super::run(seed, length))?;
        }
        Ok(report)
    }));
    match ended {
        Ok(Ok(report)) => {
            (outcome.answered, outcome.faults) = (report.answered, report.faults);
            outcome.simulated = report.simulated;
        }
        Ok(Err(why)) => outcome.failed = Some(why),
        Err(panic) => {
            outcome.failed = Some(match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(text), _) => text.clone(),
                (None, Some(text)) => (*text).to_owned(),
                (None, None) => "a panic without words".into(),
            });
        }
    }
    outcome
}

/// Whether two runs of a seed were the same, event by event and call by call.
fn same_trace(first: &Report, second: &Report) -> Result<(), String> {
    let (a, b) = (first.ledger.events(), second.ledger.events());
    for (number, (a, b)) in a.iter().zip(&b).enumerate() {
        if a != b {
            return Err(format!("not deterministic: event {number} was\n{a:?}\nand then\n{b:?}"));
        }
    }
    if a.len() != b.len() || first.lines != second.lines {
        return Err(format!("not deterministic: {} and {} events, or other calls", a.len(), b.len()));
    }
    Ok(())
}

/// Writes the histories of a failed seed to a file: where it is.
pub fn keep_histories(seed: u64, report: &Report) -> String {
    let mut text = String::new();
    for (workload, lines) in &report.lines {
        let _ = writeln!(text, "# {workload}\n{lines}");
    }
    let path = env::temp_dir().join(format!("meshstore-seed-{seed}.jsonl"));
    match std::fs::write(&path, text) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("not kept: {error}"),
    }
}
