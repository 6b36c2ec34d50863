//! Counters.

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation,
        counter::{Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let mut value = 0;
    let tells = seed.is_multiple_of(2);
    let next = |rng: &mut StdRng| if rng.random_bool(0.3) { Call::Read } else { Call::Add(rng.random_range(1..4)) };
    let apply = |call: &Call| match call {
        Call::Add(amount) => {
            value += amount;
            Reply::Added(tells.then_some(value))
        }
        Call::Read => Reply::Read(value),
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn counters() {
    accepts_and_rejects(
        make,
        check,
        &[("an addition lost", lost), ("an addition made twice", doubled), ("a value that goes back", backwards)],
    );
}

fn value(operation: &mut Op) -> &mut u64 {
    match reply_mut(operation) {
        Some(Reply::Read(value)) => value,
        _ => unreachable!("a read was chosen"),
    }
}

fn reads(history: &[Op]) -> Vec<usize> {
    (0..history.len()).filter(|at| matches!(history[*at].reply(), Some(Reply::Read(_)))).collect()
}

/// What was acknowledged before a read, and what was attempted until its end.
fn bounds(history: &[Op], read: usize) -> (u64, u64) {
    let sum = |holds: &dyn Fn(&Op) -> bool| -> u64 {
        let amounts = history.iter().filter(|operation| holds(operation)).map(|operation| match operation.call {
            Call::Add(amount) => amount,
            Call::Read => 0,
        });
        amounts.sum()
    };
    let begun = |add: &Op| add.may_have_applied() && add.start.order < history[read].end.order;
    (sum(&|add| before(add, &history[read])), sum(&begun))
}

fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = choose(&reads(history), rng)?;
    let (least, _) = bounds(history, read);
    *value(&mut history[read]) = least.checked_sub(1)?;
    Some(())
}

fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = choose(&reads(history), rng)?;
    let (_, most) = bounds(history, read);
    *value(&mut history[read]) = most + 1;
    Some(())
}

fn backwards(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let reads = reads(history);
    let mut found = Vec::new();
    for (first, second) in reads.iter().flat_map(|a| reads.iter().map(move |b| (*a, *b))) {
        if before(&history[first], &history[second]) && *value(&mut history[first].clone()) > 0 {
            found.push((first, second));
        }
    }
    let (first, second) = choose(&found, rng)?;
    *value(&mut history[second]) = *value(&mut history[first]) - 1;
    Some(())
}
