//! Values that are written several at once, and watchers of all of them.
//!
//! A watcher that knows all there is at one revision, and is told what each transaction changed, knows what there is at any later
//! one. So of each watcher a mirror is kept. What it is told comes in order; what was there before is what the mirror holds; a
//! transaction is there wholly; what was acknowledged is there, unless a reset said that it may not be; what two watchers are told
//! of one revision is the same; and in the end the mirror holds what a read shows.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

/// Values by their keys.
pub type Values = BTreeMap<u64, u64>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    /// Keys with what they are to be, each value one that nobody else writes; at least one is.
    Write(BTreeMap<u64, Option<u64>>),
    /// The next event of this watcher.
    Watch(u64),
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub key: u64,
    pub before: Option<u64>,
    pub now: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Event {
    /// A part of what there is.
    Content(Values),
    /// That was all.
    Current(u64),
    Changes {
        revision: u64,
        changes: Vec<Change>,
        resynced: bool,
    },
    /// What changed after this revision is not known; the difference to what was told comes next.
    Reset(u64),
    /// All up to this revision was told.
    Until(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Written(u64),
    Told(Event),
    Read { revision: u64, values: Values },
}

type Op = Operation<Call, Reply>;

/// What a watcher knows.
#[derive(Default)]
struct Watcher {
    mirror: Values,
    /// Up to where it was told all.
    at: u64,
    /// Where it began.
    began: Option<u64>,
    /// Of what it was told only the outcome: behind the first, up to the second.
    gaps: Vec<(u64, u64)>,
    /// Since a reset, until it knows all again: where it was.
    lost: Option<u64>,
    seen: BTreeMap<u64, Vec<Change>>,
}

impl Watcher {
    /// Whether it must have seen a revision.
    fn covers(&self, revision: u64) -> bool {
        let in_gap = self.gaps.iter().any(|(from, until)| (from + 1..=*until).contains(&revision));
        self.began.is_some_and(|began| began < revision) && revision <= self.at && !in_gap
    }

    fn take(&mut self, event: &Event, operation: &Op, problems: &mut Problems) {
        match event {
            Event::Content(values) => self.mirror.extend(values),
            Event::Current(revision) => {
                match self.lost.take() {
                    Some(from) if self.began.is_some() => self.gaps.push((from, *revision)),
                    _ => self.began = Some(*revision),
                }
                self.at = *revision;
            }
            Event::Reset(after) => {
                if *after < self.at {
                    problems.add(|| format!("a reset to {after}, behind {}, {}", self.at, place(operation)));
                }
                self.lost = Some(self.at);
            }
            Event::Until(revision) => self.at = self.at.max(*revision),
            Event::Changes { changes, resynced: true, .. } => {
                if self.lost.is_none() && self.began.is_some() {
                    problems.add(|| format!("a difference without a reset, {}", place(operation)));
                }
                changes.iter().for_each(|change| self.apply(change));
            }
            Event::Changes { revision, changes, resynced: false } => {
                if *revision <= self.at {
                    problems.add(|| format!("{revision} comes after {}, {}", self.at, place(operation)));
                }
                for change in changes {
                    let held = self.mirror.get(&change.key).copied();
                    if change.before != held {
                        let Change { key, before, .. } = change;
                        problems.add(|| {
                            format!(
                                "at {revision} {key} was {held:?}, and is told to have been {before:?}, {}",
                                place(operation)
                            )
                        });
                    }
                    self.apply(change);
                }
                self.at = *revision;
                self.seen.insert(*revision, changes.clone());
            }
        }
    }

    fn apply(&mut self, change: &Change) {
        match change.now {
            Some(value) => self.mirror.insert(change.key, value),
            None => self.mirror.remove(&change.key),
        };
    }
}

pub fn check(history: &[Op]) -> Verdict {
    let (mut problems, mut watchers) = (Problems::default(), BTreeMap::<u64, Watcher>::new());
    for operation in history {
        if let (Call::Watch(number), Some(Reply::Told(event))) = (&operation.call, operation.reply()) {
            watchers.entry(*number).or_default().take(event, operation, &mut problems);
        }
    }
    agree(&watchers, &mut problems);
    origins(history, &watchers, &mut problems);
    for operation in history {
        match (&operation.call, operation.reply()) {
            (Call::Write(write), Some(Reply::Written(revision))) => {
                for (number, watcher) in watchers.iter().filter(|(_, watcher)| watcher.covers(*revision)) {
                    whole(write, *revision, watcher.seen.get(revision), (*number, operation), &mut problems);
                }
            }
            (Call::Read, Some(Reply::Read { revision, values })) => {
                for (number, watcher) in watchers.iter().filter(|(_, watcher)| watcher.at == *revision) {
                    if watcher.mirror != *values {
                        let mirror = &watcher.mirror;
                        problems.add(|| format!("watcher {number} knows {mirror:?} at {revision}, it is {values:?}"));
                    }
                }
            }
            _ => {}
        }
    }
    problems.verdict()
}

/// What is told of one revision is the same for all.
fn agree(watchers: &BTreeMap<u64, Watcher>, problems: &mut Problems) {
    let mut truth = BTreeMap::new();
    for (number, watcher) in watchers {
        for (revision, changes) in &watcher.seen {
            let (first, told) = truth.entry(*revision).or_insert((*number, changes));
            if *told != changes {
                problems
                    .add(|| format!("at {revision} watcher {first} was told {told:?}, watcher {number} {changes:?}"));
            }
        }
    }
    let covered = |revision: u64| watchers.iter().filter(move |(_, watcher)| watcher.covers(revision));
    for (revision, (first, _)) in &truth {
        for (number, _) in covered(*revision).filter(|(_, watcher)| !watcher.seen.contains_key(revision)) {
            problems.add(|| format!("watcher {first} was told of {revision}, watcher {number} was not"));
        }
    }
}

/// Each value was written by somebody, and shown at one revision only.
fn origins(history: &[Op], watchers: &BTreeMap<u64, Watcher>, problems: &mut Problems) {
    let mut written = BTreeSet::new();
    for operation in history.iter().filter(|operation| operation.may_have_applied()) {
        if let Call::Write(write) = &operation.call {
            written.extend(write.iter().filter_map(|(key, value)| Some((*key, (*value)?))));
        }
    }
    for (number, watcher) in watchers {
        let mut shown = BTreeMap::new();
        for (revision, change) in watcher.seen.iter().flat_map(|(at, changes)| changes.iter().map(move |it| (at, it))) {
            let Some(value) = change.now else { continue };
            if !written.contains(&(change.key, value)) {
                problems.add(|| format!("watcher {number}: nobody wrote {value} to {}", change.key));
            }
            if let Some(other) = shown.insert((change.key, value), revision) {
                problems.add(|| {
                    format!("watcher {number}: {value} was written to {} at {other} and {revision}", change.key)
                });
            }
        }
    }
}

/// A transaction that was acknowledged is told, and all of it.
fn whole(
    write: &BTreeMap<u64, Option<u64>>,
    revision: u64,
    seen: Option<&Vec<Change>>,
    (watcher, operation): (u64, &Op),
    problems: &mut Problems,
) {
    let Some(seen) = seen else {
        return problems.add(|| format!("lost: watcher {watcher} was not told of {revision}, {}", place(operation)));
    };
    let told: BTreeMap<u64, Option<u64>> = seen.iter().map(|change| (change.key, change.now)).collect();
    // What was not there could not be deleted.
    let is_told = |(key, value): (&u64, &Option<u64>)| told.get(key).map_or(value.is_none(), |now| now == value);
    if told.len() != seen.len() || !write.iter().all(is_told) || told.keys().any(|key| !write.contains_key(key)) {
        problems
            .add(|| format!("at {revision} watcher {watcher} was told {seen:?} of {write:?}, {}", place(operation)));
    }
}
