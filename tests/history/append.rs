//! Transactions over lists.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation, Outcome, Recorder,
        append::{Action, Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let (mut fresh, mut lists) = (0, BTreeMap::<u64, Vec<u64>>::new());
    let next = |rng: &mut StdRng| {
        let count = rng.random_range(1..5);
        let action = |_| {
            fresh += 1;
            let key = rng.random_range(0..3);
            if rng.random_bool(0.5) { Action::Read { key } } else { Action::Append { key, element: fresh } }
        };
        (0..count).map(action).collect()
    };
    let apply = |call: &Call| {
        let one = |action: &Action| match action {
            Action::Append { key, element } => {
                lists.entry(*key).or_default().push(*element);
                None
            }
            Action::Read { key } => Some(lists.entry(*key).or_default().clone()),
        };
        call.iter().map(one).collect()
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn appends() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("an element lost in the middle", lost),
            ("two elements in another order", reordered),
            ("an element twice", doubled),
            ("a stale read", stale),
            ("an element whose transaction had failed", aborted),
        ],
    );
}

/// Reads of lists with at least so many elements: (operation, action).
fn reads(history: &[Op], least: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, operation) in history.iter().enumerate() {
        for (place, read) in operation.reply().into_iter().flatten().enumerate() {
            if read.as_ref().is_some_and(|list| list.len() >= least) {
                found.push((at, place));
            }
        }
    }
    found
}

fn list(history: &mut [Op], (at, place): (usize, usize)) -> &mut Vec<u64> {
    reply_mut(&mut history[at]).unwrap()[place].as_mut().unwrap()
}

fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = choose(&reads(history, 3), rng)?;
    list(history, read).remove(1);
    Some(())
}

/// Not the longest list, else it would only be what the others are compared with; and one that another read contains.
fn reordered(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = choose(&reads(history, 3), rng)?;
    let shown = list(history, read).clone();
    let others = reads(history, shown.len()).into_iter().filter(|other| *other != read);
    let another = others.filter(|other| list(&mut history.clone(), *other).starts_with(&shown)).count();
    list(history, read).swap(0, 1);
    (another > 0).then_some(())
}

fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = choose(&reads(history, 2), rng)?;
    let first = list(history, read)[0];
    list(history, read).push(first);
    Some(())
}

/// A read does not show an element that was acknowledged before it began, and that others did see.
fn stale(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let mut found = Vec::new();
    for read in reads(history, 1) {
        let key = match history[read.0].call[read.1] {
            Action::Read { key } => key,
            Action::Append { .. } => continue,
        };
        // Of a transaction that appends to the list itself the read would contradict that first.
        let reads_only = history[read.0].call.iter().all(|action| matches!(action, Action::Read { .. }));
        let last = *list(&mut history.clone(), read).last()?;
        let wrote = history.iter().find(|other| other.call.contains(&Action::Append { key, element: last }))?;
        if reads_only && before(wrote, &history[read.0]) {
            found.push(read);
        }
    }
    let read = choose(&found, rng)?;
    list(history, read).pop();
    Some(())
}

fn aborted(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let mut found = Vec::new();
    for operation in history.iter().filter(|operation| operation.outcome == Outcome::Failed) {
        found.extend(operation.call.iter().filter_map(|action| match action {
            Action::Append { key, element } => Some((*key, *element)),
            Action::Read { .. } => None,
        }));
    }
    let (key, element) = choose(&found, rng)?;
    let of_key = reads(history, 0).into_iter().filter(|(at, place)| history[*at].call[*place] == Action::Read { key });
    let read = choose(&of_key.collect::<Vec<_>>(), rng)?;
    list(history, read).push(element);
    Some(())
}

/// Each of two transactions read before the other appended: no order of the two explains it.
#[test]
fn write_skew_is_rejected() {
    let recorder = Recorder::<Call, Reply>::default();
    let (read, append) = (|key| Action::Read { key }, |key, element| Action::Append { key, element });
    let a = recorder.invoke(0, vec![read(1), append(2, 20)], 0);
    let b = recorder.invoke(1, vec![read(2), append(1, 10)], 0);
    recorder.complete(a, Outcome::Ok(vec![Some(vec![]), None]), 1);
    recorder.complete(b, Outcome::Ok(vec![Some(vec![]), None]), 1);
    let last = recorder.invoke(2, vec![read(1), read(2)], 2);
    recorder.complete(last, Outcome::Ok(vec![Some(vec![10]), Some(vec![20])]), 3);
    let verdict = check(&recorder.history());
    assert!(verdict.is_invalid() && verdict.to_string().contains("G2"), "{verdict}");
}

/// Two transactions that read the same and both appended.
#[test]
fn a_lost_update_is_rejected() {
    let recorder = Recorder::<Call, Reply>::default();
    for (process, element) in [(0, 1), (1, 2)] {
        recorder.invoke(process, vec![Action::Read { key: 1 }, Action::Append { key: 1, element }], 0);
    }
    for number in 0..2 {
        recorder.complete(number, Outcome::Ok(vec![Some(vec![]), None]), 1);
    }
    let last = recorder.invoke(2, vec![Action::Read { key: 1 }], 2);
    recorder.complete(last, Outcome::Ok(vec![Some(vec![1, 2])]), 3);
    assert!(check(&recorder.history()).is_invalid());
}
