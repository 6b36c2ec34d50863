//! Messages and their lists.

use rand::{Rng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, before, choose, reply_mut},
    history::{
        Operation, Outcome,
        messages::{Call, Filter, Listed, Message, Reply, check, text},
    },
};

type Op = Operation<Call, Reply>;

fn make(seed: u64) -> Vec<Op> {
    let (mut fresh, mut store) = (0, Vec::<Listed>::new());
    // Revisions that nobody here sees come in between.
    let mut revision = 100;
    let next = |rng: &mut StdRng| {
        let mut node = |likely| rng.random_bool(likely).then(|| rng.random_range(0..3));
        if let (Some(_), from, to) = (node(0.4), node(0.4), node(0.4)) {
            return Call::List(Filter { from, to });
        }
        if fresh > 0 && rng.random_bool(0.2) {
            return Call::Get(rng.random_range(1..=fresh + 1));
        }
        fresh += 1;
        let (from, to) = (rng.random_range(0..3), rng.random_range(0..3));
        Call::Store(Message { id: fresh, from, to, timestamp: rng.random_range(0..20) })
    };
    let apply = |call: &Call| match call {
        Call::Store(message) => {
            revision += 1 + u64::from(message.timestamp % 2 == 0);
            store.push(Listed { message: message.clone(), revision, version: 1, whole: true });
            Reply::Stored { revision }
        }
        Call::List(filter) => {
            let mut listed: Vec<Listed> = store.iter().filter(|item| filter.admits(&item.message)).cloned().collect();
            listed.sort_by_key(|item| (item.message.timestamp, text(item.message.id)));
            Reply::Listed { revision, listed }
        }
        Call::Get(id) => Reply::Got(store.iter().find(|item| item.message.id == *id).cloned()),
    };
    generate::history(seed, &USUAL, next, apply)
}

#[test]
fn messages() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("a message missing in one list", gap),
            ("a message twice", doubled),
            ("a message that nobody stored", phantom),
            ("a message whose store had failed", failed),
            ("a message with another receiver", changed),
            ("a message of which the content is not whole", torn),
            ("a message stored twice", stored_twice),
            ("two messages in another order", reordered),
            ("a stale list", stale),
            ("an acknowledged message in no list", lost),
            ("an acknowledged message that is not found", not_found),
            ("another message than was asked for", another),
            ("a message that was read in part", read_in_part),
        ],
    );
}

fn lists(history: &[Op], least: usize) -> Vec<usize> {
    let shows =
        |at: &usize| matches!(history[*at].reply(), Some(Reply::Listed { listed, .. }) if listed.len() >= least);
    (0..history.len()).filter(shows).collect()
}

fn listed(operation: &mut Op) -> &mut Vec<Listed> {
    match reply_mut(operation) {
        Some(Reply::Listed { listed, .. }) => listed,
        _ => unreachable!("a list was chosen"),
    }
}

/// An item of a list that can be changed.
fn item<'a>(history: &'a mut [Op], rng: &mut StdRng) -> Option<&'a mut Listed> {
    let list = choose(&lists(history, 1), rng)?;
    let items = listed(&mut history[list]);
    let at = rng.random_range(0..items.len());
    items.get_mut(at)
}

/// It must be known from somewhere else, else it might never have been stored.
fn gap(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let list = choose(&lists(history, 1), rng)?;
    let items = listed(&mut history[list]);
    let gone = items.remove(rng.random_range(0..items.len()));
    let stored = history.iter().any(|other| other.is_ok() && other.call == Call::Store(gone.message.clone()));
    stored.then_some(())
}

fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let list = choose(&lists(history, 1), rng)?;
    let items = listed(&mut history[list]);
    let at = rng.random_range(0..items.len());
    items.insert(at, items[at].clone());
    Some(())
}

fn phantom(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    item(history, rng)?.message.id += 1_000_000;
    Some(())
}

fn failed(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let shown = item(history, rng)?.message.clone();
    let store = history.iter_mut().find(|operation| operation.call == Call::Store(shown.clone()))?;
    store.outcome = Outcome::Failed;
    Some(())
}

fn changed(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    item(history, rng)?.message.to += 1;
    Some(())
}

fn torn(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    item(history, rng)?.whole = false;
    Some(())
}

fn stored_twice(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    item(history, rng)?.version += 1;
    Some(())
}

fn reordered(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let list = choose(&lists(history, 2), rng)?;
    listed(&mut history[list]).swap(0, 1);
    Some(())
}

/// A list as it was before a message was acknowledged that had been acknowledged before it was asked for.
fn stale(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let lists = lists(history, 0);
    let mut found = Vec::new();
    for (old, new) in lists.iter().flat_map(|old| lists.iter().map(move |new| (*old, *new))) {
        let between = |store: &Op| {
            matches!(store.call, Call::Store(_)) && before(&history[old], store) && before(store, &history[new])
        };
        if history[old].call == history[new].call && history.iter().any(between) {
            found.push((old, new));
        }
    }
    let (old, new) = choose(&found, rng)?;
    history[new].outcome = history[old].outcome.clone();
    Some(())
}

fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let shown = item(history, rng)?.message.clone();
    let stored = history.iter().any(|other| other.is_ok() && other.call == Call::Store(shown.clone()));
    for list in lists(history, 0) {
        listed(&mut history[list]).retain(|item| item.message != shown);
    }
    stored.then_some(())
}

/// Reads of one message that found it.
fn found(history: &[Op]) -> Vec<usize> {
    let shows = |at: &usize| matches!(history[*at].reply(), Some(Reply::Got(Some(_))));
    (0..history.len()).filter(shows).collect()
}

fn got<'a>(history: &'a mut [Op], rng: &mut StdRng) -> Option<&'a mut Option<Listed>> {
    let at = choose(&found(history), rng)?;
    match reply_mut(&mut history[at]) {
        Some(Reply::Got(got)) => Some(got),
        _ => unreachable!("a read was chosen"),
    }
}

fn not_found(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let acknowledged = |read: &Op| {
        let of = |store: &Op| matches!((&store.call, &read.call), (Call::Store(m), Call::Get(id)) if m.id == *id);
        history.iter().any(|store| of(store) && store.is_ok() && before(store, read))
    };
    let reads: Vec<usize> = found(history).into_iter().filter(|at| acknowledged(&history[*at])).collect();
    let at = choose(&reads, rng)?;
    history[at].outcome = Outcome::Ok(Reply::Got(None));
    Some(())
}

fn another(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let other = item(history, rng)?.clone();
    let got = got(history, rng)?;
    let changed = got.as_ref().is_some_and(|got| got.message.id != other.message.id);
    *got = Some(other);
    changed.then_some(())
}

fn read_in_part(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    got(history, rng)?.as_mut()?.whole = false;
    Some(())
}
