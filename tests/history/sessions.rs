//! Attempts that are repeated.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation,
        session::{Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let mut revision = 0;
    let mut sequences = [0; 3];
    let mut done: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let next = |rng: &mut StdRng| {
        let session = rng.random_range(0..3);
        match rng.random_range(0..4) {
            0 => Call::Read { session },
            // Again, or something new.
            1 if sequences[session as usize] > 0 => Call::Attempt { session, sequence: sequences[session as usize] },
            _ => {
                sequences[session as usize] += 1;
                Call::Attempt { session, sequence: sequences[session as usize] }
            }
        }
    };
    let apply = |call: &Call| match call {
        Call::Attempt { session, sequence } => {
            let at = *done.entry((*session, *sequence)).or_insert_with(|| {
                revision += 1;
                revision
            });
            Reply::Written { revision: at }
        }
        Call::Read { session } => {
            let of = done.iter().filter(|((of, _), _)| of == session);
            Reply::Read { version: of.clone().count() as u64, revision: of.map(|(_, at)| *at).max().unwrap_or(0) }
        }
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn sessions() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("two attempts, two revisions", executed_twice),
            ("one write too many", one_more),
            ("an acknowledged write lost", one_less),
        ],
    );
}

fn executed_twice(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let again = |at: &usize| {
        let answered = |other: &Op| other.is_ok() && other.call == history[*at].call;
        let attempt = matches!(history[*at].call, Call::Attempt { .. });
        attempt && history[*at].is_ok() && history.iter().filter(|other| answered(other)).count() > 1
    };
    let at = choose(&(0..history.len()).filter(again).collect::<Vec<_>>(), rng)?;
    *reply_mut(&mut history[at])? = Reply::Written { revision: 1_000_000 };
    Some(())
}

fn a_read(history: &[Op], rng: &mut StdRng) -> Option<(usize, u64)> {
    let reads = (0..history.len()).filter_map(|at| match (&history[at].call, history[at].reply()) {
        (Call::Read { session }, Some(_)) => Some((at, *session)),
        _ => None,
    });
    choose(&reads.collect::<Vec<_>>(), rng)
}

fn set_version(operation: &mut Op, to: u64) -> Option<()> {
    match reply_mut(operation)? {
        Reply::Read { version, .. } => *version = to,
        Reply::Written { .. } => return None,
    }
    Some(())
}

/// How many writes of a session have a property.
fn count(history: &[Op], of: u64, holds: impl Fn(&Op) -> bool) -> u64 {
    let mut sequences: Vec<u64> = history
        .iter()
        .filter(|operation| holds(operation))
        .filter_map(|operation| match operation.call {
            Call::Attempt { session, sequence } if session == of => Some(sequence),
            _ => None,
        })
        .collect();
    sequences.sort_unstable();
    sequences.dedup();
    sequences.len() as u64
}

fn one_more(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (read, session) = a_read(history, rng)?;
    let begun = |attempt: &Op| attempt.may_have_applied() && attempt.start.order < history[read].end.order;
    let most = count(history, session, begun);
    set_version(&mut history[read], most + 1)
}

fn one_less(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (read, session) = a_read(history, rng)?;
    let least = count(history, session, |attempt| before(attempt, &history[read]));
    let less = least.checked_sub(1)?;
    set_version(&mut history[read], less)
}
