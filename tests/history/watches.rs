//! Watches.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::{self, USUAL, choose},
    history::{
        Moment, Operation, Outcome,
        watch::{Call, Change, Event, Reply, Values, check},
    },
};

type Op = Operation<Call, Reply>;

/// What each revision changed.
type Log = Vec<(u64, Vec<Change>)>;

const KEYS: u64 = 6;

fn apply(call: &Call, log: &mut Log, values: &mut Values) -> Reply {
    let revision = log.last().map_or(100, |(last, _)| *last) + 1 + log.len() as u64 % 2;
    let Call::Write(write) = call else { panic!("only writes are executed") };
    let mut changes = Vec::new();
    for (key, now) in write {
        let before = values.get(key).copied();
        if before.is_some() || now.is_some() {
            changes.push(Change { key: *key, before, now: *now });
        }
        match now {
            Some(value) => values.insert(*key, *value),
            None => values.remove(key),
        };
    }
    log.push((revision, changes));
    Reply::Written(revision)
}

/// What a watcher is told from some revision on, perhaps with a reset in between.
fn told(log: &Log, rng: &mut StdRng) -> Vec<Event> {
    let begin = rng.random_range(0..log.len() / 4);
    let reset = rng.random_bool(0.5).then(|| rng.random_range(log.len() / 3..log.len() * 2 / 3));
    let mut mirror = Values::new();
    let (mut events, mut lost) = (Vec::new(), None::<Values>);
    for (at, (revision, changes)) in log.iter().enumerate() {
        let held = mirror.clone();
        for change in changes {
            match change.now {
                Some(value) => mirror.insert(change.key, value),
                None => mirror.remove(&change.key),
            };
        }
        if at == begin {
            events.extend([Event::Content(mirror.clone()), Event::Current(*revision)]);
        } else if reset == Some(at) {
            events.push(Event::Reset(log[at - 1].0));
            lost = Some(held);
        } else if at > begin && lost.is_none() {
            events.push(Event::Changes { revision: *revision, changes: changes.clone(), resynced: false });
        }
        if let Some(shown) = lost.take_if(|_| reset.is_some_and(|reset| at >= reset + 5)) {
            let keys = (0..KEYS).filter(|key| shown.get(key) != mirror.get(key));
            let changes = keys.map(|key| Change { key, before: None, now: mirror.get(&key).copied() }).collect();
            events.push(Event::Changes { revision: *revision, changes, resynced: true });
            events.push(Event::Current(*revision));
        }
    }
    events.push(Event::Until(log[log.len() - 1].0));
    events
}

fn make(seed: u64) -> Vec<Op> {
    let (mut log, mut values, mut fresh) = (Log::new(), Values::new(), 0);
    let next = |rng: &mut StdRng| {
        let first = rng.random_range(0..KEYS);
        let mut write = BTreeMap::new();
        for key in 0..rng.random_range(1..4) {
            fresh += 1;
            write.insert((first + key) % KEYS, (key == 0 || rng.random_bool(0.7)).then_some(fresh));
        }
        Call::Write(write)
    };
    let mut history = generate::history(seed, &USUAL, next, |call| apply(call, &mut log, &mut values));
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut order = 1_000_000;
    let mut add = |process, call, reply| {
        order += 2;
        let moment = |order| Moment { order, ns: order };
        let (start, end) = (moment(order), moment(order + 1));
        history.push(Operation { process, call, outcome: Outcome::Ok(reply), start, end });
    };
    for watcher in 0..3 {
        for event in told(&log, &mut rng) {
            add(100 + watcher, Call::Watch(watcher), Reply::Told(event));
        }
    }
    let revision = log[log.len() - 1].0;
    add(200, Call::Read, Reply::Read { revision, values });
    history
}

#[test]
fn watches() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("a change that is lost", lost),
            ("a change that comes twice", doubled),
            ("two changes in the wrong order", swapped),
            ("another value before", before),
            ("half a transaction", half),
            ("another value now", now),
            ("a change of a write that had failed", failed),
            ("a change that is too much", invented),
            ("a part of the content that is missing", content),
            ("a difference that leaves something out", difference),
            ("a difference without a reset", silent),
            ("a reset that goes back", back),
        ],
    );
}

/// The events of a kind.
fn events(history: &[Op], wanted: impl Fn(&Event) -> bool) -> Vec<usize> {
    let is = |at: &usize| matches!(history[*at].reply(), Some(Reply::Told(event)) if wanted(event));
    (0..history.len()).filter(is).collect()
}

fn transactions(history: &[Op], least: usize) -> Vec<usize> {
    events(history, |event| matches!(event, Event::Changes { changes, resynced: false, .. } if changes.len() >= least))
}

fn changes(operation: &mut Op) -> &mut Vec<Change> {
    match generate::reply_mut(operation) {
        Some(Reply::Told(Event::Changes { changes, .. })) => changes,
        other => panic!("no changes: {other:?}"),
    }
}

fn lost(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&transactions(history, 1), rng)?;
    history.remove(at);
    Some(())
}

fn doubled(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&transactions(history, 1), rng)?;
    history.insert(at, history[at].clone());
    Some(())
}

fn swapped(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let all = transactions(history, 1);
    let follows = |at: &usize| all.contains(&(at + 1)) && history[*at].call == history[at + 1].call;
    let at = choose(&all.iter().copied().filter(follows).collect::<Vec<_>>(), rng)?;
    history.swap(at, at + 1);
    Some(())
}

fn before(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&transactions(history, 1), rng)?;
    let change = &mut changes(&mut history[at])[0];
    change.before = change.before.map_or(Some(7_777), |_| None);
    Some(())
}

fn half(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&transactions(history, 2), rng)?;
    changes(&mut history[at]).pop();
    Some(())
}

fn now(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&transactions(history, 1), rng)?;
    changes(&mut history[at])[0].now = Some(7_777);
    Some(())
}

fn failed(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let shown = |revision: u64| {
        let shows = |op: &Op| matches!(op.reply(), Some(Reply::Told(Event::Changes { revision: at, resynced: false, .. })) if *at == revision);
        history.iter().any(shows)
    };
    let writes = (0..history.len()).filter(|at| matches!(history[*at].reply(), Some(Reply::Written(at)) if shown(*at)));
    let at = choose(&writes.collect::<Vec<_>>(), rng)?;
    history[at].outcome = Outcome::Failed;
    Some(())
}

fn invented(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&transactions(history, 1), rng)?;
    changes(&mut history[at]).push(Change { key: KEYS, before: None, now: Some(7_777) });
    Some(())
}

fn content(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&events(history, |event| matches!(event, Event::Content(values) if !values.is_empty())), rng)?;
    let Some(Reply::Told(Event::Content(values))) = generate::reply_mut(&mut history[at]) else { return None };
    values.pop_first();
    Some(())
}

fn difference(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let resynced =
        |event: &Event| matches!(event, Event::Changes { changes, resynced: true, .. } if !changes.is_empty());
    let at = choose(&events(history, resynced), rng)?;
    changes(&mut history[at]).pop();
    Some(())
}

fn silent(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&events(history, |event| matches!(event, Event::Reset(_))), rng)?;
    history.remove(at);
    Some(())
}

fn back(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let at = choose(&events(history, |event| matches!(event, Event::Reset(_))), rng)?;
    let Some(Reply::Told(Event::Reset(after))) = generate::reply_mut(&mut history[at]) else { return None };
    *after -= 1;
    Some(())
}
