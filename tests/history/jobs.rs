//! Jobs that are taken once each.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation,
        jobs::{Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let (mut store, mut taker) = (BTreeMap::<u64, Option<u64>>::new(), 0);
    let next = |rng: &mut StdRng| match rng.random_range(0..10) {
        0..4 => Call::Add(rng.random_range(0..40)),
        4..8 => {
            taker += 1;
            Call::Take(taker)
        }
        _ => Call::Read,
    };
    let apply = |call: &Call| match call {
        Call::Add(number) if store.contains_key(number) => Reply::Exists,
        Call::Add(number) => {
            store.insert(*number, None);
            Reply::Added
        }
        Call::Take(taker) => {
            let free = store.iter_mut().find(|(_, taken)| taken.is_none());
            Reply::Taken(free.map(|(number, taken)| {
                *taken = Some(*taker);
                *number
            }))
        }
        Call::Read => Reply::Jobs(store.iter().map(|(number, taken)| (*number, *taken)).collect()),
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn jobs() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("a job that two have taken", doubled),
            ("a job that was lost", lost),
            ("a job that is there twice", twice),
            ("a job that somebody else has", stolen),
            ("a job that was overlooked", overlooked),
            ("a number that two have added", added_twice),
        ],
    );
}

fn with(history: &[Op], wanted: impl Fn(&Reply) -> bool) -> Vec<usize> {
    (0..history.len()).filter(|at| history[*at].reply().is_some_and(&wanted)).collect()
}

fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let takes = with(history, |reply| matches!(reply, Reply::Taken(Some(_))));
    let (one, other) = (choose(&takes, rng)?, choose(&takes, rng)?);
    if one == other {
        return None;
    }
    let reply = history[one].reply().cloned()?;
    *reply_mut(&mut history[other])? = reply;
    Some(())
}

fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let reads = with(history, |reply| matches!(reply, Reply::Jobs(_)));
    let mut found = Vec::new();
    for (read, add) in reads.iter().flat_map(|read| (0..history.len()).map(move |add| (*read, add))) {
        if let (Call::Add(number), Some(Reply::Added)) = (&history[add].call, history[add].reply())
            && before(&history[add], &history[read])
        {
            found.push((read, *number));
        }
    }
    let (read, number) = choose(&found, rng)?;
    match reply_mut(&mut history[read]) {
        Some(Reply::Jobs(jobs)) => jobs.retain(|(other, _)| *other != number),
        _ => unreachable!("a read was chosen"),
    }
    Some(())
}

fn read_of_some(history: &mut Vec<Op>, rng: &mut StdRng, wanted: fn(&(u64, Option<u64>)) -> bool) -> Option<usize> {
    let reads = with(history, |reply| matches!(reply, Reply::Jobs(jobs) if jobs.iter().any(wanted)));
    choose(&reads, rng)
}

fn twice(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = read_of_some(history, rng, |_| true)?;
    match reply_mut(&mut history[read]) {
        Some(Reply::Jobs(jobs)) => jobs.push(jobs[0]),
        _ => unreachable!("a read was chosen"),
    }
    Some(())
}

fn stolen(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let read = read_of_some(history, rng, |(_, taken)| taken.is_some())?;
    match reply_mut(&mut history[read]) {
        Some(Reply::Jobs(jobs)) => jobs.iter_mut().find(|(_, taken)| taken.is_some())?.1 = Some(1_000_000),
        _ => unreachable!("a read was chosen"),
    }
    Some(())
}

fn overlooked(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    // A call that is answered none, before which a job was added that is first taken afterwards.
    let unknown =
        (0..history.len()).find(|at| matches!(history[*at].call, Call::Take(_)) && history[*at].reply().is_none());
    let end = unknown.map_or(history.len(), |at| at);
    let mut found = Vec::new();
    for at in 0..end {
        if matches!(history[at].reply(), Some(Reply::Taken(Some(_)))) {
            let Some(Reply::Taken(Some(number))) = history[at].reply() else { continue };
            let added = |add: &&Op| add.call == Call::Add(*number) && add.reply() == Some(&Reply::Added);
            let overlooks = |other: usize| {
                history.iter().find(added).is_some_and(|add| before(add, &history[other]))
                    && before(&history[other], &history[at])
            };
            found.extend(
                (0..at).filter(|other| matches!(history[*other].reply(), Some(Reply::Taken(_))) && overlooks(*other)),
            );
        }
    }
    let chosen = choose(&found, rng)?;
    *reply_mut(&mut history[chosen])? = Reply::Taken(None);
    Some(())
}

fn added_twice(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let refused = with(history, |reply| *reply == Reply::Exists);
    let mut found = refused;
    found.retain(|at| history.iter().any(|add| add.call == history[*at].call && add.reply() == Some(&Reply::Added)));
    let chosen = choose(&found, rng)?;
    *reply_mut(&mut history[chosen])? = Reply::Added;
    Some(())
}
