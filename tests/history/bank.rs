//! Banks.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation,
        bank::{Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn begin() -> BTreeMap<u64, i64> {
    (0..4).map(|account| (account, 20)).collect()
}

fn make(seed: u64) -> Vec<Op> {
    let mut accounts = begin();
    let next = |rng: &mut StdRng| {
        if rng.random_bool(0.3) {
            return Call::Read;
        }
        let (from, by) = (rng.random_range(0..4), rng.random_range(1..4));
        Call::Transfer { from, to: (from + by) % 4, amount: rng.random_range(1..12) }
    };
    let apply = |call: &Call| match call {
        Call::Transfer { from, amount, .. } if accounts[from] < *amount => Reply::Refused,
        Call::Transfer { from, to, amount } => {
            *accounts.entry(*from).or_default() -= amount;
            *accounts.entry(*to).or_default() += amount;
            Reply::Transferred
        }
        Call::Read => Reply::Read(accounts.clone()),
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn banks() {
    accepts_and_rejects(
        make,
        |history| check(history, &begin()),
        &[
            ("half a transfer", half),
            ("an account below zero", negative),
            ("an account missing", gap),
            ("a transfer forgotten", forgotten),
        ],
    );
}

fn balances(operation: &mut Op) -> &mut BTreeMap<u64, i64> {
    match reply_mut(operation) {
        Some(Reply::Read(balances)) => balances,
        _ => unreachable!("a read was chosen"),
    }
}

fn a_read(history: &[Op], rng: &mut StdRng) -> Option<usize> {
    let reads = (0..history.len()).filter(|at| matches!(history[*at].reply(), Some(Reply::Read(_))));
    choose(&reads.collect::<Vec<_>>(), rng)
}

fn half(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, rng)?;
    *balances(&mut history[read]).get_mut(&rng.random_range(0..4))? += rng.random_range(1..12);
    Some(())
}

fn negative(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, rng)?;
    let balances = balances(&mut history[read]);
    let much = balances[&0] + 1;
    *balances.get_mut(&0)? -= much;
    *balances.get_mut(&1)? += much;
    Some(())
}

fn gap(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, rng)?;
    balances(&mut history[read]).remove(&rng.random_range(0..4));
    Some(())
}

/// An account holds less than it can, even if everything that nobody knows of went against it; another holds the rest.
fn forgotten(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = a_read(history, rng)?;
    let account = rng.random_range(0..4);
    let mut least = begin()[&account];
    for other in history.iter().filter(|other| other.may_have_applied() && other.reply() != Some(&Reply::Refused)) {
        let Call::Transfer { from, to, amount } = other.call else { continue };
        if to == account && before(other, &history[read]) {
            least += amount;
        }
        if from == account && other.start.order < history[read].end.order {
            least -= amount;
        }
    }
    let balances = balances(&mut history[read]);
    let less = least - 1 - balances[&account];
    *balances.get_mut(&account)? += less;
    *balances.get_mut(&((account + 1) % 4))? -= less;
    Some(())
}
