//! A counter that only grows: what is read lies between what was acknowledged before and what was attempted by then,
//! and never goes back.

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Add(u64),
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    /// The value with the addition in, where the store tells it.
    Added(Option<u64>),
    Read(u64),
}

type Op = Operation<Call, Reply>;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let (mut reads, mut sums) = (Vec::<(&Op, u64)>::new(), Vec::<(&Op, u64)>::new());
    for operation in history {
        match (&operation.call, operation.reply()) {
            (_, Some(Reply::Read(value) | Reply::Added(Some(value)))) => reads.push((operation, *value)),
            (Call::Add(_) | Call::Read, _) => {}
        }
        if let Call::Add(amount) = operation.call
            && operation.may_have_applied()
        {
            sums.push((operation, amount));
        }
    }
    for (read, value) in &reads {
        let sum = |holds: &dyn Fn(&Op) -> bool| -> u64 {
            sums.iter().filter(|(add, _)| holds(add)).map(|(_, amount)| amount).sum()
        };
        // An addition that tells the value counts itself; as it began before it ended, it is in neither by its time.
        let own = |add: &Op| std::ptr::eq(add, *read);
        let least = sum(&|add| own(add) || (add.is_ok() && add.latest() < read.earliest()));
        let most = sum(&|add| add.earliest() < read.latest());
        if *value < least {
            problems.add(|| format!("lost: {value} was read, but {least} was acknowledged, {}", place(read)));
        }
        if *value > most {
            problems.add(|| format!("too much: {value} was read, but only {most} was attempted, {}", place(read)));
        }
    }
    reads.sort_by_key(|(read, _)| read.earliest());
    check_direction(&reads, &mut problems);
    problems.verdict()
}

fn check_direction(by_start: &[(&Op, u64)], problems: &mut Problems) {
    let mut by_end = by_start.to_vec();
    by_end.sort_by_key(|(read, _)| read.latest());
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<(&Op, u64)> = None;
    for (read, value) in by_start {
        while let Some((before, seen)) = ended.next_if(|(before, _)| before.latest() < read.earliest()) {
            if highest.is_none_or(|(_, highest)| seen > highest) {
                highest = Some((before, seen));
            }
        }
        if let Some((before, seen)) = highest
            && *value < seen
        {
            problems
                .add(|| format!("backwards: {value} was read by {}, after {seen} by {}", place(read), place(before)));
        }
    }
}
