//! Many seeds, side by side, with a progress bar; for `scripts/simulate`.
//!
//! `SIMULATION_SEEDS`: how many; `SIMULATION_SEED`: the first; `SIMULATION_SECONDS`: simulated time of faults in each;
//! `SIMULATION_TWICE`: every so-manieth is run twice, and must give the same trace; `SIMULATION_VERBOSE`: node logs;
//! `SIMULATION_STOP`: no more after the first that fails.

use std::{
    cell::Cell,
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{number, world::Report};

/// What all threads have done.
#[derive(Default)]
struct Totals {
    seeds: AtomicU64,
    twice: AtomicU64,
    answered: AtomicU64,
    faults: AtomicU64,
    simulated_ms: AtomicU64,
    failed: Mutex<Vec<(u64, String)>>,
}

pub fn run() {
    let first = number("SIMULATION_SEED").unwrap_or(0);
    let seeds = number("SIMULATION_SEEDS").unwrap_or(100);
    let length = Duration::from_secs(number("SIMULATION_SECONDS").unwrap_or(120));
    let twice = number("SIMULATION_TWICE").unwrap_or(50).max(1);
    let stop = number("SIMULATION_STOP").is_some();
    if number("SIMULATION_VERBOSE").is_some() {
        tracing_subscriber::fmt().with_env_filter("info,turmoil=warn,openraft=warn").init();
    }
    // What fails is told at once in short, since a panic may end the whole process; and at the end with all there is.
    std::panic::set_hook(Box::new(|panic| {
        let told = panic.payload_as_str().unwrap_or("a panic without words");
        let line = told.lines().next().unwrap_or_default();
        let at = panic.location().map_or(String::new(), |place| format!(" ({}:{})", place.file(), place.line()));
        println!("seed {}: {line}{at}", SEED.get());
    }));
    let style = "{prefix} [{bar:30}] {pos}/{len} seeds, {msg}, {eta} left";
    let bar = ProgressBar::new(seeds).with_prefix("simulating");
    bar.set_style(ProgressStyle::with_template(style).unwrap().progress_chars("=> "));
    let (totals, next, began) = (Totals::default(), AtomicU64::new(first), Instant::now());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            // A seed that fails may leave its world behind on the thread, so each has one of its own.
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + seeds || (stop && !totals.failed.lock().unwrap().is_empty()) {
                        return;
                    }
                    thread::scope(|scope| drop(scope.spawn(|| one(seed, length, seed % twice == 0, &totals)).join()));
                    bar.set_message(format!("{} failed", totals.failed.lock().unwrap().len()));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let failed = totals.failed.into_inner().unwrap();
    let count = |number: &AtomicU64| number.load(Ordering::SeqCst);
    println!(
        "{} seeds of {} s ({} run twice), {:.1} simulated hours in {:.0} s: {} faults, {} answered calls, {} failed",
        count(&totals.seeds),
        length.as_secs(),
        count(&totals.twice),
        count(&totals.simulated_ms) as f64 / 3_600_000.0,
        began.elapsed().as_secs_f64(),
        count(&totals.faults),
        count(&totals.answered),
        failed.len()
    );
    for (seed, why) in failed.iter().take(3) {
        println!("\nseed {seed}: {why}");
    }
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
    assert!(seeds.is_empty(), "failed seeds: {seeds:?}");
}

thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn one(seed: u64, length: Duration, twice: bool, totals: &Totals) {
    SEED.set(seed);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let report = super::run(seed, length);
        if twice {
            totals.twice.fetch_add(1, Ordering::SeqCst);
            same_trace(&report, &super::run(seed, length))?;
        }
        Ok(report)
    }));
    totals.seeds.fetch_add(1, Ordering::SeqCst);
    let why = match ended {
        Ok(Ok(report)) => {
            totals.answered.fetch_add(report.answered as u64, Ordering::SeqCst);
            totals.faults.fetch_add(report.faults as u64, Ordering::SeqCst);
            totals.simulated_ms.fetch_add(report.simulated.as_millis() as u64, Ordering::SeqCst);
            return;
        }
        Ok(Err(why)) => why,
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "a panic without words".into(),
        },
    };
    totals.failed.lock().unwrap().push((seed, why));
}

/// Whether two runs of a seed were the same, event by event and call by call.
pub fn same_trace(first: &Report, second: &Report) -> Result<(), String> {
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
    let path = std::env::temp_dir().join(format!("meshstore-seed-{seed}.jsonl"));
    match std::fs::write(&path, text) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("not kept: {error}"),
    }
}
