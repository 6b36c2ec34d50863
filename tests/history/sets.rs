//! Sets that only grow.

use std::collections::BTreeSet;

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation, Outcome,
        set::{Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let (mut fresh, mut store) = (0, BTreeSet::new());
    let next = |rng: &mut StdRng| {
        fresh += 1;
        if rng.random_bool(0.3) { Call::Read } else { Call::Add(fresh) }
    };
    let apply = |call: &Call| match call {
        Call::Add(element) => {
            store.insert(*element);
            Reply::Added
        }
        Call::Read => Reply::Read(store.iter().copied().collect()),
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn sets() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("an acknowledged element lost", lost),
            ("an element that nobody added", phantom),
            ("an element whose add had failed", failed),
            ("an element twice", doubled),
            ("a stale read", stale),
            ("an element that goes away again", vanished),
            ("reads that saw different halves", halves),
        ],
    );
}

fn reads(history: &[Op]) -> Vec<usize> {
    (0..history.len()).filter(|at| matches!(history[*at].reply(), Some(Reply::Read(_)))).collect()
}

fn elements(operation: &mut Op) -> &mut Vec<u64> {
    match reply_mut(operation) {
        Some(Reply::Read(elements)) => elements,
        _ => unreachable!("a read was chosen"),
    }
}

fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let mut found = Vec::new();
    for (read, add) in reads(history).iter().flat_map(|read| (0..history.len()).map(move |add| (*read, add))) {
        if let Call::Add(element) = history[add].call
            && before(&history[add], &history[read])
        {
            found.push((read, element));
        }
    }
    let (read, element) = choose(&found, rng)?;
    elements(&mut history[read]).retain(|other| *other != element);
    Some(())
}

fn phantom(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = choose(&reads(history), rng)?;
    elements(&mut history[read]).push(1_000_000);
    Some(())
}

fn failed(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let failed = history.iter().filter_map(|operation| match operation.call {
        Call::Add(element) if operation.outcome == Outcome::Failed => Some(element),
        _ => None,
    });
    let element = choose(&failed.collect::<Vec<_>>(), rng)?;
    // Also in the last, so that it is not merely an element that comes and goes.
    let last = *reads(history).last()?;
    elements(&mut history[last]).push(element);
    Some(())
}

fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = choose(&reads(history), rng)?;
    let element = *elements(&mut history[read]).first()?;
    elements(&mut history[read]).push(element);
    Some(())
}

/// A read shows what an older one showed, though an add was acknowledged in between.
fn stale(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let mut found = Vec::new();
    let reads = reads(history);
    for (old, new) in reads.iter().flat_map(|old| reads.iter().map(move |new| (*old, *new))) {
        let between =
            |add: &Op| matches!(add.call, Call::Add(_)) && before(&history[old], add) && before(add, &history[new]);
        if history.iter().any(between) {
            found.push((old, new));
        }
    }
    let (old, new) = choose(&found, rng)?;
    *elements(&mut history[new]) = elements(&mut history[old]).clone();
    Some(())
}

/// Something of unknown outcome was read, and later is not there.
fn vanished(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let all = reads(history);
    let mut found = Vec::new();
    for (first, second) in all.windows(2).map(|pair| (pair[0], pair[1])) {
        if before(&history[first], &history[second])
            && let Some(element) = elements(&mut history[first].clone()).first()
        {
            found.push((first, second, *element));
        }
    }
    let (_, second, element) = choose(&found, rng)?;
    for operation in history.iter_mut() {
        if operation.call == Call::Add(element) {
            operation.outcome = Outcome::Unknown;
        }
    }
    elements(&mut history[second]).retain(|other| *other != element);
    Some(())
}

/// Two adds and two reads at the same time, of which each saw another one.
fn halves(history: &mut Vec<Op>, _: &mut StdRng) -> Option<()> {
    let last = *reads(history).last()?;
    let all = elements(&mut history[last].clone()).clone();
    let end = history.iter().map(|operation| operation.end.order.max(operation.start.order)).max()?;
    let mut add = |call: Call, outcome: Outcome<Reply>, from: u64, to: u64| {
        let mut operation = history[last].clone();
        (operation.call, operation.outcome) = (call, outcome);
        (operation.start.order, operation.end.order) = (end + from, end + to);
        history.push(operation);
    };
    // What had been acknowledged by the last read may be more than it shows, so everything is asked of both.
    let seen = |element: u64| Outcome::Ok(Reply::Read([&all[..], &[element]].concat()));
    add(Call::Add(2_000_001), Outcome::Unknown, 1, 2);
    add(Call::Add(2_000_002), Outcome::Unknown, 1, 2);
    add(Call::Read, seen(2_000_001), 3, 6);
    add(Call::Read, seen(2_000_002), 4, 5);
    Some(())
}
