//! Queries beside reads of everything.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, choose, reply_mut},
    history::{
        Operation,
        query::{Call, Reply, Row, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let (mut store, mut revision) = (BTreeMap::<String, Row>::new(), 0);
    let next = |rng: &mut StdRng| {
        let (key, group, number) = (rng.random_range(0..6u64), rng.random_range(0..2), rng.random_range(0..4));
        match rng.random_range(0..10) {
            0..4 => Call::Query { group, least: number },
            4..7 => Call::Scan,
            7 => Call::Change(format!("delete {key}")),
            _ => Call::Change(format!("set {key} {group} {number}")),
        }
    };
    let apply = |call: &Call| {
        match call {
            Call::Query { group, least } => {
                let mut rows: Vec<Row> = store.values().cloned().collect();
                rows.retain(|row| row.group == *group && row.number >= *least);
                rows.sort_by_key(|row| (std::cmp::Reverse(row.number), row.key.clone()));
                return Reply::Found { revision, rows };
            }
            Call::Scan => return Reply::Found { revision, rows: store.values().cloned().collect() },
            Call::Change(what) => {
                revision += 1;
                let words: Vec<&str> = what.split(' ').collect();
                let key = words[1].to_owned();
                if words[0] == "delete" {
                    store.remove(&key);
                } else {
                    let (group, number) = (words[2].parse().unwrap(), words[3].parse().unwrap());
                    store.insert(key.clone(), Row { key, written: revision, group, number });
                }
            }
        }
        Reply::Changed
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn queries() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("a value that was missed", missed),
            ("a value that is not there", phantom),
            ("a value as it was before", stale),
            ("a value that was not asked for", unasked),
            ("the wrong order", disordered),
        ],
    );
}

/// Queries with a read of everything at the same revision: their places.
fn compared(history: &[Op]) -> Vec<usize> {
    let at = |operation: &Op, scan: bool| match (&operation.call, operation.reply()) {
        (Call::Scan, Some(Reply::Found { revision, .. })) if scan => Some(*revision),
        (Call::Query { .. }, Some(Reply::Found { revision, .. })) if !scan => Some(*revision),
        _ => None,
    };
    let scans: Vec<u64> = history.iter().filter_map(|operation| at(operation, true)).collect();
    (0..history.len())
        .filter(|place| at(&history[*place], false).is_some_and(|revision| scans.contains(&revision)))
        .collect()
}

fn rows(operation: &mut Op) -> &mut Vec<Row> {
    match reply_mut(operation) {
        Some(Reply::Found { rows, .. }) => rows,
        _ => unreachable!("an answer was chosen"),
    }
}

/// One of those that answer at least so many.
fn one(history: &mut Vec<Op>, rng: &mut StdRng, least: usize) -> Option<usize> {
    let mut places = compared(history);
    places.retain(|place| rows(&mut history[*place]).len() >= least);
    choose(&places, rng)
}

fn missed(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let place = one(history, rng, 1)?;
    rows(&mut history[place]).pop();
    Some(())
}

fn phantom(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let place = one(history, rng, 0)?;
    let Call::Query { group, .. } = history[place].call else { return None };
    rows(&mut history[place]).insert(0, Row { key: "x".into(), written: 0, group, number: 99 });
    Some(())
}

fn stale(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let place = one(history, rng, 1)?;
    rows(&mut history[place]).last_mut()?.written -= 1;
    Some(())
}

fn unasked(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let place = one(history, rng, 1)?;
    rows(&mut history[place]).first_mut()?.group += 1;
    Some(())
}

fn disordered(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let place = one(history, rng, 2)?;
    rows(&mut history[place]).reverse();
    Some(())
}
