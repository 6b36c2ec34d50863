//! A set that only grows: nothing acknowledged is missing, nothing is there that nobody added, nothing is there twice,
//! and all reads lie on one line, in which each holds all that the one before held.
//!
//! Each element is added once. So the check is exact: the reads are sorted by size, each must contain the one
//! before; then what must be in a read is whatever was acknowledged before the last start of anything that the read
//! shows or comes after.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Add(u64),
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Added,
    /// Every element, as the store lists them.
    Read(Vec<u64>),
}

type Op = Operation<Call, Reply>;

struct Read<'a> {
    operation: &'a Op,
    elements: BTreeSet<u64>,
}

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut adds: BTreeMap<u64, &Op> = BTreeMap::new();
    let mut reads = Vec::new();
    for operation in history {
        match (&operation.call, operation.reply()) {
            (Call::Add(element), _) => {
                let other = adds.insert(*element, operation);
                other.inspect(|_| problems.add(|| format!("{element} was added twice: not a history of this kind")));
            }
            (Call::Read, Some(Reply::Read(elements))) => {
                let set: BTreeSet<u64> = elements.iter().copied().collect();
                if set.len() < elements.len() {
                    let twice = elements.iter().find(|one| elements.iter().filter(|other| other == one).count() > 1);
                    problems.add(|| format!("duplicate: {twice:?} is listed twice, {}", place(operation)));
                }
                reads.push(Read { operation, elements: set });
            }
            _ => {}
        }
    }
    // Reads of the same elements may be taken in any order; by their time they surely may.
    reads.sort_by_key(|read| (read.elements.len(), read.operation.start.order));
    check_back(&reads, &adds, &mut problems);
    check_line(&reads, &adds, &mut problems);
    problems.verdict()
}

fn check_back(reads: &[Read<'_>], adds: &BTreeMap<u64, &Op>, problems: &mut Problems) {
    // What a read shows was begun before the first end of all reads that show as much, and so was the read.
    let mut first_end = u64::MAX;
    for read in reads.iter().rev() {
        if read.operation.earliest() > first_end {
            problems.add(|| format!("vanished: less was read than by a read before, {}", place(read.operation)));
        }
        first_end = first_end.min(read.operation.latest());
        for element in &read.elements {
            let why = match adds.get(element) {
                None => "nobody added it",
                Some(add) if !add.may_have_applied() => "its add had failed",
                Some(add) if add.earliest() > first_end => "its add had not begun",
                Some(_) => continue,
            };
            problems.add(|| format!("phantom: {element} was read, but {why}, {}", place(read.operation)));
        }
    }
}

fn check_line(reads: &[Read<'_>], adds: &BTreeMap<u64, &Op>, problems: &mut Problems) {
    let mut acknowledged: Vec<(u64, u64)> =
        adds.iter().filter(|(_, add)| add.is_ok()).map(|(element, add)| (add.latest(), *element)).collect();
    acknowledged.sort_unstable();
    let mut last_start = 0;
    let mut before: Option<&Read<'_>> = None;
    for read in reads {
        if let Some(before) = before
            && let Some(gone) = before.elements.difference(&read.elements).next()
        {
            problems.add(|| {
                let (read, before) = (place(read.operation), place(before.operation));
                format!("vanished: {gone} was read by {before}, but not in the larger answer to {read}")
            });
        }
        let begun = read.elements.iter().filter_map(|element| adds.get(element)).map(|add| add.earliest()).max();
        last_start = last_start.max(read.operation.earliest()).max(begun.unwrap_or(0));
        for (end, element) in acknowledged.iter().take_while(|(end, _)| *end < last_start) {
            if !read.elements.contains(element) {
                problems.add(|| {
                    let when = if *end < read.operation.earliest() { "before" } else { "before what it shows" };
                    format!("lost: {element} was acknowledged {when}, but not read, {}", place(read.operation))
                });
            }
        }
        before = Some(read);
    }
}
