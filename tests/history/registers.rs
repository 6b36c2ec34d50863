//! Registers: what is valid is accepted, what is broken rejected, and on small histories of every kind the search says
//! what trying all orders says.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, Plan, USUAL, before, choose, reply_mut},
    history::{
        Operation, Outcome,
        linearizable::{Action, Call, Reply, Value, check},
    },
};

type Op = Operation<Call, Reply>;

/// Two keys; values are written once each, unless there are few of them.
fn make(seed: u64, plan: &Plan, values: Option<u64>) -> Vec<Op> {
    let mut fresh = 0;
    let mut store: BTreeMap<u64, Value> = BTreeMap::new();
    let next = |rng: &mut StdRng| {
        fresh += 1;
        let value = |rng: &mut StdRng| Some(values.map_or(fresh, |count| rng.random_range(1..=count)));
        let action = match rng.random_range(0..10) {
            0..4 => Action::Read,
            4..7 => Action::Write(value(rng)),
            _ => {
                let to = value(rng);
                // A guess that is often right.
                let from = to.map(|to| to.saturating_sub(rng.random_range(1..4))).filter(|from| *from > 0);
                Action::Swap { from, to }
            }
        };
        Call { key: u64::from(rng.random_bool(0.4)), action }
    };
    let apply = |call: &Call| {
        let value = store.entry(call.key).or_default();
        match call.action {
            Action::Read => Reply::Read(*value),
            Action::Write(written) => {
                *value = written;
                Reply::Written
            }
            Action::Swap { from, to } => {
                let swaps = *value == from;
                if swaps {
                    *value = to;
                }
                Reply::Swapped(swaps)
            }
        }
    };
    generate::history(seed, plan, next, apply)
}

#[test]
fn registers() {
    accepts_and_rejects(
        |seed| make(seed, &USUAL, None),
        check,
        &[
            ("a stale read", stale),
            ("a value from nowhere", phantom),
            ("an acknowledged write lost", lost),
            ("a swap that both won", doubled),
            ("reads in the wrong order", reordered),
        ],
    );
}

/// Reads with two writes of their key before them, one before the other: (read, older write, newer write).
fn places(history: &[Op]) -> Vec<(usize, usize, usize)> {
    let writes: Vec<usize> =
        (0..history.len()).filter(|at| matches!(history[*at].call.action, Action::Write(_))).collect();
    let reads = (0..history.len()).filter(|at| history[*at].is_ok() && history[*at].call.action == Action::Read);
    let mut found = Vec::new();
    for read in reads {
        for (older, newer) in writes.iter().flat_map(|older| writes.iter().map(move |newer| (*older, *newer))) {
            let same = [older, newer].iter().all(|write| history[*write].call.key == history[read].call.key);
            if same && before(&history[older], &history[newer]) && before(&history[newer], &history[read]) {
                found.push((read, older, newer));
            }
        }
    }
    found
}

fn written(operation: &Op) -> Value {
    match operation.call.action {
        Action::Write(written) => written,
        Action::Read | Action::Swap { .. } => unreachable!("a write was chosen"),
    }
}

fn stale(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (read, older, _) = choose(&places(history), rng)?;
    let value = written(&history[older]);
    *reply_mut(&mut history[read])? = Reply::Read(value);
    Some(())
}

fn phantom(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (read, ..) = choose(&places(history), rng)?;
    *reply_mut(&mut history[read])? = Reply::Read(Some(1_000_000));
    Some(())
}

/// From some moment on the key reads as if nothing had ever been written.
fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (read, ..) = choose(&places(history), rng)?;
    let (key, from) = (history[read].call.key, history[read].start.order);
    for operation in history.iter_mut().filter(|operation| operation.call.key == key && operation.start.order >= from) {
        if let Some(reply @ Reply::Read(_)) = reply_mut(operation) {
            *reply = Reply::Read(None);
        }
    }
    Some(())
}

/// A swap that had come too late is told that it was not: another had swapped that very value away before.
fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let swaps = |at: &usize| matches!(history[*at].call.action, Action::Swap { .. });
    let all: Vec<usize> = (0..history.len()).filter(swaps).collect();
    let mut found = Vec::new();
    for (won, late) in all.iter().flat_map(|won| all.iter().map(move |late| (*won, *late))) {
        let (a, b) = (&history[won], &history[late]);
        let Action::Swap { from, to } = a.call.action else { continue };
        let same = a.call.key == b.call.key && from.is_some() && from != to;
        let wants = matches!(b.call.action, Action::Swap { from: wanted, .. } if wanted == from);
        let told = a.reply() == Some(&Reply::Swapped(true)) && b.reply() == Some(&Reply::Swapped(false));
        if same && wants && told {
            found.push(late);
        }
    }
    if found.is_empty() {
        // Else: two swaps of one value, of which the second is made up.
        let won = choose(
            &all.into_iter().filter(|at| history[*at].reply() == Some(&Reply::Swapped(true))).collect::<Vec<_>>(),
            rng,
        )?;
        let Action::Swap { from: Some(from), .. } = history[won].call.action else { return None };
        let mut again = history[won].clone();
        let end = history.iter().map(|operation| operation.end.order.max(operation.start.order)).max()?;
        (again.start.order, again.end.order) = (end + 1, end + 2);
        again.call.action = Action::Swap { from: Some(from), to: Some(2_000_000) };
        history.push(again);
        return Some(());
    }
    let late = choose(&found, rng)?;
    *reply_mut(&mut history[late])? = Reply::Swapped(true);
    Some(())
}

/// Two reads, one after the other, of values written one after the other: they change places.
fn reordered(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let all = places(history);
    let value = |at: usize| match history[at].reply() {
        Some(Reply::Read(value)) => *value,
        _ => None,
    };
    let mut found = Vec::new();
    for (second, older, newer) in all {
        let sees = |at: usize, write: usize| value(at) == written(&history[write]);
        let first = (0..history.len()).find(|first| {
            let same = history[*first].call.key == history[second].call.key;
            same && history[*first].call.action == Action::Read
                && before(&history[*first], &history[second])
                && sees(*first, older)
                && sees(second, newer)
        });
        found.extend(first.map(|first| (first, second)));
    }
    let (first, second) = choose(&found, rng)?;
    let outcomes = (history[first].outcome.clone(), history[second].outcome.clone());
    (history[second].outcome, history[first].outcome) = outcomes;
    Some(())
}

/// Whether there is an order, by trying them all.
fn all_orders(history: &[Op]) -> bool {
    let open: Vec<&Op> = history.iter().filter(|operation| operation.may_have_applied()).collect();
    (0..2).all(|key| extend(&open.iter().copied().filter(|op| op.call.key == key).collect::<Vec<_>>(), None))
}

fn extend(open: &[&Op], value: Value) -> bool {
    if open.iter().all(|operation| !operation.is_ok()) {
        return true;
    }
    open.iter().enumerate().any(|(at, operation)| {
        let first = open.iter().all(|other| other.latest() >= operation.earliest());
        let after = match (operation.call.action, operation.reply()) {
            (Action::Read, Some(Reply::Read(seen))) if *seen != value => None,
            (Action::Read, _) => Some(value),
            (Action::Write(written), _) => Some(written),
            (Action::Swap { from, .. }, Some(Reply::Swapped(told))) if *told != (from == value) => None,
            (Action::Swap { from, to }, _) => Some(if from == value { to } else { value }),
        };
        let mut rest = open.to_vec();
        rest.remove(at);
        first && after.is_some_and(|after| extend(&rest, after))
    })
}

#[test]
fn the_search_agrees_with_trying_all_orders() {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..crate::seeds().end * 40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan { processes: rng.random_range(2..5), operations: 8, unknown: 150, failed: 50 };
        // Few values, so that nothing can be told from who wrote what; or each its own.
        let mut history = make(seed, &plan, rng.random_bool(0.5).then_some(3));
        if rng.random_bool(0.6) {
            let reads: Vec<usize> =
                (0..history.len()).filter(|at| matches!(history[*at].reply(), Some(Reply::Read(_)))).collect();
            if let Some(read) = choose(&reads, &mut rng) {
                history[read].outcome = Outcome::Ok(Reply::Read(Some(rng.random_range(1..5))));
            }
        }
        let (found, expected) = (check(&history), all_orders(&history));
        assert_eq!(found.is_valid(), expected, "seed {seed}: {found}\n{history:#?}");
        assert_eq!(found.is_invalid(), !expected, "seed {seed}: {found}");
        *(if expected { &mut valid } else { &mut invalid }) += 1;
    }
    println!("{valid} valid, {invalid} invalid: no disagreement");
    assert!(valid > invalid / 4 && invalid > valid / 8);
}

#[test]
fn a_key_with_a_few_hundred_operations_of_ten_processes_is_quickly_decided() {
    let plan = Plan { processes: 10, operations: 600, unknown: 30, failed: 10 };
    for seed in 0..10 {
        assert!(check(&make(seed, &plan, None)).is_valid());
    }
}
