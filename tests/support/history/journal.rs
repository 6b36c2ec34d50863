//! A journal that is kept in three places at once: the log of a group, messages, and a state value with the last number. Each
//! append, and each removal of old items, is one transaction over all three; each read is one transaction that sees all
//! three. So every read shows the same items in log and messages, without a gap, up to the number in the state.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    /// A value that nobody else appends.
    Append(u64),
    Read,
}

/// Values by their numbers, in order.
pub type Items = Vec<(u64, u64)>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Appended { number: u64, revision: u64 },
    Read { revision: u64, last: u64, log: Items, messages: Items },
}

type Op = Operation<Call, Reply>;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut truth = BTreeMap::new();
    for operation in history {
        match (&operation.call, operation.reply()) {
            (Call::Append(value), Some(Reply::Appended { number, .. })) => {
                hold(&mut truth, *number, *value, operation, &mut problems);
            }
            (Call::Read, Some(Reply::Read { last, log, messages, .. })) => {
                whole(operation, *last, log, messages, &mut problems);
                for (number, value) in log {
                    hold(&mut truth, *number, *value, operation, &mut problems);
                }
            }
            _ => {}
        }
    }
    origins(history, &truth, &mut problems);
    revisions(history, &mut problems);
    problems.verdict()
}

/// Under a number there is one value for all time.
fn hold(truth: &mut BTreeMap<u64, u64>, number: u64, value: u64, operation: &Op, problems: &mut Problems) {
    let held = *truth.entry(number).or_insert(value);
    if held != value {
        problems.add(|| format!("number {number} is {held} and {value}, {}", place(operation)));
    }
}

/// What one read shows fits together.
fn whole(operation: &Op, last: u64, log: &Items, messages: &Items, problems: &mut Problems) {
    if log != messages {
        problems.add(|| format!("half a transaction: log {log:?}, messages {messages:?}, {}", place(operation)));
    }
    if log.windows(2).any(|pair| pair[0].0 + 1 != pair[1].0) {
        problems.add(|| format!("gap: {log:?}, {}", place(operation)));
    }
    if log.last().map_or(0, |(number, _)| *number) != last {
        problems.add(|| format!("half a transaction: the last is {last}, the log {log:?}, {}", place(operation)));
    }
}

/// Each value was appended by somebody, and once.
fn origins(history: &[Op], truth: &BTreeMap<u64, u64>, problems: &mut Problems) {
    let appended = history.iter().filter(|operation| operation.may_have_applied());
    let appended: BTreeSet<u64> = appended
        .filter_map(|operation| match operation.call {
            Call::Append(value) => Some(value),
            Call::Read => None,
        })
        .collect();
    let mut seen = BTreeMap::new();
    for (number, value) in truth {
        if !appended.contains(value) {
            problems.add(|| format!("nobody appended {value}, which is number {number}"));
        }
        if let Some(other) = seen.insert(value, number) {
            problems.add(|| format!("{value} is number {other} and {number}"));
        }
    }
}

/// A read shows what was appended up to its revision, and what was acknowledged before it began.
fn revisions(history: &[Op], problems: &mut Problems) {
    let appends = || {
        history.iter().filter_map(|operation| match operation.reply() {
            Some(Reply::Appended { number, revision }) => Some((operation, *number, *revision)),
            _ => None,
        })
    };
    for read in history {
        let Some(Reply::Read { revision: shown, last, .. }) = read.reply() else { continue };
        for (append, number, revision) in appends() {
            if (number <= *last) != (revision <= *shown) {
                problems.add(|| {
                    format!("number {number} came at {revision}, but {last} is the last at {shown}, {}", place(read))
                });
            }
            if append.latest() < read.earliest() && number > *last {
                problems.add(|| format!("stale: number {number}, {}, is not in {}", place(append), place(read)));
            }
        }
    }
}
