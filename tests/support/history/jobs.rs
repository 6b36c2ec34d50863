//! Jobs that are added under a unique number, and taken once each.
//!
//! A number is added by at most one call that says so; what was added is there from then on. A job is taken by at most one call,
//! which every later read names; a call that found none is right only if each job that was there may have been taken by then.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    /// Adds a job of this number.
    Add(u64),
    /// Takes a job, for a taker that is another with each call.
    Take(u64),
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Added,
    /// There is a job of this number.
    Exists,
    /// The number of the job; `None`: there was none.
    Taken(Option<u64>),
    /// All jobs, each with who has taken it.
    Jobs(Vec<(u64, Option<u64>)>),
}

type Op = Operation<Call, Reply>;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut adds: BTreeMap<u64, Vec<&Op>> = BTreeMap::new();
    let mut takes: BTreeMap<u64, &Op> = BTreeMap::new();
    for operation in history.iter().filter(|operation| operation.may_have_applied()) {
        match operation.call {
            Call::Add(number) => adds.entry(number).or_default().push(operation),
            Call::Take(taker) => {
                let other = takes.insert(taker, operation);
                other.inspect(|_| problems.add(|| format!("{taker} took twice: not a history of this kind")));
            }
            Call::Read => {}
        }
    }
    check_adds(&adds, &mut problems);
    // Who took which job, as far as anybody was told.
    let mut takers: BTreeMap<u64, u64> = BTreeMap::new();
    for (taker, take) in &takes {
        if let Some(Reply::Taken(Some(number))) = take.reply() {
            if !adds.contains_key(number) {
                problems.add(|| format!("invented: job {number} was taken, {}", place(*take)));
            }
            if let Some(other) = takers.insert(*number, *taker) {
                problems.add(|| format!("doubled: job {number} was taken by {other} and by {taker}, {}", place(*take)));
            }
        }
    }
    for read in history {
        if let Some(Reply::Jobs(jobs)) = read.reply() {
            check_read((read, jobs), (&adds, &takes), &mut takers, &mut problems);
        }
    }
    for take in takes.values() {
        if let Some(Reply::Taken(None)) = take.reply() {
            check_none(take, (&adds, &takes, &takers), &mut problems);
        }
    }
    problems.verdict()
}

fn check_adds(adds: &BTreeMap<u64, Vec<&Op>>, problems: &mut Problems) {
    for (number, tried) in adds {
        let added = tried.iter().filter(|add| add.reply() == Some(&Reply::Added)).count();
        if added > 1 {
            problems.add(|| format!("not unique: {added} calls have added {number}"));
        }
        for add in tried.iter().filter(|add| add.reply() == Some(&Reply::Exists)) {
            let other = |other: &&&Op| other.reply() != Some(&Reply::Exists) && other.start < add.end;
            if tried.iter().find(other).is_none() {
                problems.add(|| format!("refused: nobody had added {number}, {}", place(*add)));
            }
        }
    }
}

fn check_read(
    (read, jobs): (&Op, &[(u64, Option<u64>)]),
    (adds, takes): (&BTreeMap<u64, Vec<&Op>>, &BTreeMap<u64, &Op>),
    takers: &mut BTreeMap<u64, u64>,
    problems: &mut Problems,
) {
    let shown: BTreeMap<u64, Option<u64>> = jobs.iter().copied().collect();
    if shown.len() < jobs.len() {
        problems.add(|| format!("not unique: a number is there twice, {}", place(read)));
    }
    for (number, taker) in &shown {
        if !adds.contains_key(number) {
            problems.add(|| format!("invented: job {number} is there, {}", place(read)));
        }
        let Some(taker) = taker else { continue };
        let told = takes.get(taker).map(|take| take.reply());
        match told {
            None => problems.add(|| format!("invented: {taker} has job {number}, {}", place(read))),
            Some(Some(reply)) if *reply != Reply::Taken(Some(*number)) => {
                problems.add(|| format!("wrong: {taker} has job {number}, but was told {reply:?}, {}", place(read)));
            }
            Some(_) => {}
        }
        if let Some(other) = takers.insert(*number, *taker).filter(|other| other != taker) {
            problems.add(|| format!("doubled: job {number} was {other}'s, and is {taker}'s, {}", place(read)));
        }
    }
    for (number, tried) in adds {
        let before = |add: &&Op| add.reply() == Some(&Reply::Added) && add.end < read.start;
        if tried.iter().any(before) && !shown.contains_key(number) {
            problems.add(|| format!("lost: job {number} is not there, {}", place(read)));
        }
    }
    for (taker, take) in takes {
        if let Some(Reply::Taken(Some(number))) = take.reply()
            && take.end < read.start
            && shown.get(number) != Some(&Some(*taker))
        {
            problems.add(|| format!("lost: {taker} had taken job {number}, {}", place(read)));
        }
    }
}

/// Each job that was surely there may have been taken when none was found.
fn check_none(
    none: &Op,
    (adds, takes, takers): (&BTreeMap<u64, Vec<&Op>>, &BTreeMap<u64, &Op>, &BTreeMap<u64, u64>),
    problems: &mut Problems,
) {
    let unknown = takes.values().any(|take| take.reply().is_none() && take.start < none.end);
    for (number, tried) in adds {
        if !tried.iter().any(|add| add.reply() == Some(&Reply::Added) && add.end < none.start) {
            continue;
        }
        let by_then = match takers.get(number).and_then(|taker| takes.get(taker)) {
            Some(take) => take.start < none.end,
            None => unknown,
        };
        if !by_then {
            problems.add(|| format!("overlooked: job {number} was there, {}", place(none)));
        }
    }
}
