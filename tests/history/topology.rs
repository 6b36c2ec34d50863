//! Changes with reasons, and the history that is kept of them.

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation, Outcome,
        topology::{Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let mut changes = Vec::new();
    let (mut revision, mut next) = (0, 0);
    let call = |rng: &mut StdRng| {
        if rng.random_bool(0.2) {
            return Call::Read;
        }
        next += 1;
        Call::Change { reason: next.to_string() }
    };
    let apply = |call: &Call| match call {
        Call::Read => Reply::Read { changes: changes.clone(), problem: None },
        Call::Change { reason } => {
            revision += 1;
            changes.push((revision, reason.clone()));
            Reply::Changed { revision }
        }
    };
    generate::history(seed, &USUAL, call, apply)
}

#[test]
fn topologies() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("an acknowledged change lost", lost),
            ("a change done twice", twice),
            ("a refused change is there", refused),
            ("another revision than was told", elsewhere),
            ("a problem that was seen", seen),
        ],
    );
}

/// A read that shows a change which was over before.
fn shown(history: &[Op], rng: &mut StdRng) -> Option<(usize, usize)> {
    let mut places = Vec::new();
    for (at, read) in history.iter().enumerate() {
        let Some(Reply::Read { changes, .. }) = read.reply() else { continue };
        for (number, (_, reason)) in changes.iter().enumerate() {
            let over = |change: &Op| change.call == Call::Change { reason: reason.clone() } && before(change, read);
            if history.iter().any(over) {
                places.push((at, number));
            }
        }
    }
    choose(&places, rng)
}

fn kept(operation: &mut Op) -> Option<&mut Vec<(u64, String)>> {
    match reply_mut(operation)? {
        Reply::Read { changes, .. } => Some(changes),
        Reply::Changed { .. } => None,
    }
}

fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (at, number) = shown(history, rng)?;
    kept(&mut history[at])?.remove(number);
    Some(())
}

fn twice(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (at, number) = shown(history, rng)?;
    let changes = kept(&mut history[at])?;
    let (revision, reason) = changes[number].clone();
    changes.push((revision + 1_000, reason));
    Some(())
}

fn elsewhere(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (at, number) = shown(history, rng)?;
    kept(&mut history[at])?[number].0 += 1_000;
    Some(())
}

fn refused(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (at, number) = shown(history, rng)?;
    let reason = kept(&mut history[at])?[number].1.clone();
    let change = history.iter_mut().find(|change| change.call == Call::Change { reason: reason.clone() })?;
    change.outcome = Outcome::Failed;
    Some(())
}

fn seen(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let (at, _) = shown(history, rng)?;
    match reply_mut(&mut history[at])? {
        Reply::Read { problem, .. } => *problem = Some("a route leads nowhere".into()),
        Reply::Changed { .. } => return None,
    }
    Some(())
}
