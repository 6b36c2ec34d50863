//! Journals.

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation, Outcome,
        journal::{Call, Items, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let (mut fresh, mut last, mut revision, mut items) = (0, 0, 100, Items::new());
    let next = |rng: &mut StdRng| {
        if rng.random_bool(0.4) {
            return Call::Read;
        }
        fresh += 1;
        Call::Append(fresh)
    };
    let apply = |call: &Call| match call {
        Call::Append(value) => {
            // Revisions that nobody here sees come in between.
            (last, revision) = (last + 1, revision + 1 + value % 2);
            items.push((last, *value));
            if items.len() > 8 {
                items.drain(..4);
            }
            Reply::Appended { number: last, revision }
        }
        Call::Read => Reply::Read { revision, last, log: items.clone(), messages: items.clone() },
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn journals() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("a message without its entry", half),
            ("a number that is behind", behind),
            ("an entry missing in the middle", gap),
            ("another value", changed),
            ("a value whose append had failed", failed),
            ("a value under two numbers", doubled),
            ("a stale read", stale),
            ("an append at a later revision", late),
        ],
    );
}

/// A read with at least so many items.
fn a_read(history: &[Op], least: usize, rng: &mut StdRng) -> Option<usize> {
    let shows = |at: &usize| matches!(history[*at].reply(), Some(Reply::Read { log, .. }) if log.len() >= least);
    choose(&(0..history.len()).filter(shows).collect::<Vec<_>>(), rng)
}

/// Changes log and messages of a read alike.
fn both(operation: &mut Op, change: impl Fn(&mut Items)) {
    if let Some(Reply::Read { log, messages, .. }) = reply_mut(operation) {
        change(log);
        change(messages);
    }
}

fn half(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, 1, rng)?;
    let Some(Reply::Read { log, .. }) = reply_mut(&mut history[read]) else { return None };
    let first = log.remove(0);
    // Which may be the only one.
    (first.1 > 0).then_some(())
}

fn behind(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, 1, rng)?;
    let Some(Reply::Read { last, .. }) = reply_mut(&mut history[read]) else { return None };
    *last -= 1;
    Some(())
}

fn gap(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, 3, rng)?;
    both(&mut history[read], |items| {
        items.remove(1);
    });
    Some(())
}

fn changed(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, 1, rng)?;
    both(&mut history[read], |items| items[0].1 += 1_000);
    Some(())
}

fn failed(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let seen = |value: u64| {
        let shows =
            |op: &Op| matches!(op.reply(), Some(Reply::Read { log, .. }) if log.iter().any(|item| item.1 == value));
        history.iter().any(shows)
    };
    let appends = (0..history.len()).filter(|at| match &history[*at] {
        Op { call: Call::Append(value), outcome: Outcome::Ok(_), .. } => seen(*value),
        _ => false,
    });
    let append = choose(&appends.collect::<Vec<_>>(), rng)?;
    history[append].outcome = Outcome::Failed;
    Some(())
}

fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, 2, rng)?;
    both(&mut history[read], |items| items[1].1 = items[0].1);
    Some(())
}

/// It shows the end of what is too old.
fn stale(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let acknowledged = |read: &usize| {
        let Some(Reply::Read { last, log, .. }) = history[*read].reply() else { return false };
        let appended = |op: &Op| matches!(op.reply(), Some(Reply::Appended { number, .. }) if number == last);
        log.len() > 1 && history.iter().any(|op| appended(op) && before(op, &history[*read]))
    };
    let read = choose(&(0..history.len()).filter(acknowledged).collect::<Vec<_>>(), rng)?;
    both(&mut history[read], |items| {
        items.pop();
    });
    let Some(Reply::Read { last, revision, .. }) = reply_mut(&mut history[read]) else { return None };
    (*last, *revision) = (*last - 1, *revision - 2);
    Some(())
}

fn late(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let shown = |number: u64, from: u64| {
        let shows = |op: &Op| matches!(op.reply(), Some(Reply::Read { last, revision, .. }) if number <= *last && *revision < from);
        history.iter().any(shows)
    };
    let appends = (0..history.len()).filter(|at| match history[*at].reply() {
        Some(Reply::Appended { number, revision }) => shown(*number, revision + 50),
        _ => false,
    });
    let append = choose(&appends.collect::<Vec<_>>(), rng)?;
    let Some(Reply::Appended { revision, .. }) = reply_mut(&mut history[append]) else { return None };
    *revision += 50;
    Some(())
}
