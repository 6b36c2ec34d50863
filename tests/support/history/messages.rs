//! Messages, each stored once under an id of its own, and lists of them: none lost, none doubled, none invented, and
//! what a list by an index shows is what a scan of everything would have shown.
//!
//! Each list says which revision it shows, and each message in it the revision that stored it. So one list tells what
//! every other must hold: exactly the messages that its filter lets through with a revision up to its own. That makes
//! the check exact, whatever the order in which answers came. A read of one message says no revision when it finds none; then
//! no store of it may have been acknowledged before.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

/// A message, as far as it is checked; its content is made from its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub id: u64,
    pub from: u64,
    pub to: u64,
    pub timestamp: i64,
}

/// Which messages are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Filter {
    pub from: Option<u64>,
    pub to: Option<u64>,
}

impl Filter {
    pub fn admits(&self, message: &Message) -> bool {
        self.from.is_none_or(|from| from == message.from) && self.to.is_none_or(|to| to == message.to)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Store(Message),
    List(Filter),
    /// A message by its id, with all of its content.
    Get(u64),
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub message: Message,
    /// The revision that stored it.
    pub revision: u64,
    pub version: u64,
    /// Whether its content is what was stored.
    pub whole: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Stored {
        revision: u64,
    },
    /// The list and the revision that it shows.
    Listed {
        revision: u64,
        listed: Vec<Listed>,
    },
    Got(Option<Listed>),
}

type Op = Operation<Call, Reply>;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let stores: BTreeMap<u64, &Op> = history
        .iter()
        .filter_map(|operation| match &operation.call {
            Call::Store(message) => Some((message.id, operation)),
            Call::List(_) | Call::Get(_) => None,
        })
        .collect();
    let stored_at = revisions(history, &stores, &mut problems);
    check_order(history, &mut problems);
    for operation in history {
        match (&operation.call, operation.reply()) {
            (Call::List(filter), Some(Reply::Listed { revision, listed })) => {
                let list = List { operation, filter: *filter, revision: *revision, listed };
                list.check_items(&stores, &mut problems);
                list.check_whole(&stored_at, &mut problems);
            }
            (Call::Get(id), Some(Reply::Got(found))) => {
                check_got(operation, *id, found.as_ref(), &stores, &mut problems);
            }
            _ => {}
        }
    }
    problems.verdict()
}

/// The revision that stored each message, as acknowledged or listed; they must not differ.
fn revisions<'a>(
    history: &'a [Op],
    stores: &BTreeMap<u64, &'a Op>,
    problems: &mut Problems,
) -> BTreeMap<u64, (u64, &'a Message)> {
    let mut known: BTreeMap<u64, (u64, &Message)> = BTreeMap::new();
    let mut learn = |message: &'a Message, revision: u64, operation: &Op| {
        let (first, _) = *known.entry(message.id).or_insert((revision, message));
        if first != revision {
            problems.add(|| {
                let id = message.id;
                format!("message {id} was stored at revision {first} and at {revision}, {}", place(operation))
            });
        }
    };
    for operation in stores.values() {
        if let (Call::Store(message), Some(Reply::Stored { revision })) = (&operation.call, operation.reply()) {
            learn(message, *revision, operation);
        }
    }
    for operation in history {
        let shown = match operation.reply() {
            Some(Reply::Listed { listed, .. }) => &listed[..],
            Some(Reply::Got(found)) => found.as_slice(),
            Some(Reply::Stored { .. }) | None => &[],
        };
        for item in shown {
            learn(&item.message, item.revision, operation);
        }
    }
    known
}

/// Whatever is over before something else begins has a revision that is not higher.
fn check_order(history: &[Op], problems: &mut Problems) {
    let shown = |operation: &Op| match operation.reply() {
        Some(Reply::Stored { revision } | Reply::Listed { revision, .. }) => Some(*revision),
        Some(Reply::Got(_)) | None => None,
    };
    let mut by_start: Vec<(&Op, u64)> = history.iter().filter_map(|op| Some((op, shown(op)?))).collect();
    let mut by_end = by_start.clone();
    by_start.sort_by_key(|(operation, _)| operation.earliest());
    by_end.sort_by_key(|(operation, _)| operation.latest());
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<(&Op, u64)> = None;
    for (operation, revision) in by_start {
        while let Some((before, seen)) = ended.next_if(|(before, _)| before.latest() < operation.earliest()) {
            if highest.is_none_or(|(_, highest)| seen > highest) {
                highest = Some((before, seen));
            }
        }
        if let Some((before, seen)) = highest {
            let is_store = matches!(operation.call, Call::Store(_));
            if revision < seen || (is_store && revision == seen) {
                problems.add(|| {
                    let (after, before) = (place(operation), place(before));
                    format!("stale: {after} was shown revision {revision}, after {before} had been shown {seen}")
                });
            }
        }
    }
}

/// What was read of one message is that message, and it is there if its store was acknowledged before.
fn check_got(operation: &Op, id: u64, found: Option<&Listed>, stores: &BTreeMap<u64, &Op>, problems: &mut Problems) {
    let Some(item) = found else {
        let before = |store: &&Op| store.is_ok() && store.latest() < operation.earliest();
        if let Some(store) = stores.get(&id).copied().filter(before) {
            problems.add(|| format!("lost: message {id}, {}, is not found, {}", place(store), place(operation)));
        }
        return;
    };
    if item.message.id != id {
        problems.add(|| format!("message {} came where {id} was asked for, {}", item.message.id, place(operation)));
    }
    let listed = std::slice::from_ref(item);
    List { operation, filter: Filter::default(), revision: u64::MAX, listed }.check_items(stores, problems);
}

struct List<'a> {
    operation: &'a Op,
    filter: Filter,
    revision: u64,
    listed: &'a [Listed],
}

impl List<'_> {
    /// Each item by itself, and its place.
    fn check_items(&self, stores: &BTreeMap<u64, &Op>, problems: &mut Problems) {
        let place = || place(self.operation);
        for pair in self.listed.windows(2) {
            let key = |item: &Listed| (item.message.timestamp, text(item.message.id));
            if key(&pair[0]) >= key(&pair[1]) {
                let ids = (pair[0].message.id, pair[1].message.id);
                problems.add(|| format!("out of order or doubled: {ids:?} follow each other, {}", place()));
            }
        }
        for item in self.listed {
            let id = item.message.id;
            if item.version != 1 || !item.whole {
                problems
                    .add(|| format!("message {id} has version {}, whole: {}, {}", item.version, item.whole, place()));
            }
            let why = match stores.get(&id) {
                None => "nobody stored it",
                Some(store) if !store.may_have_applied() => "its store had failed",
                Some(store) if store.earliest() > self.operation.latest() => "its store had not begun",
                Some(store) if store.call != Call::Store(item.message.clone()) => "other fields were stored",
                Some(_) if !self.filter.admits(&item.message) => "it is not what was asked for",
                Some(_) if item.revision > self.revision => "its revision is above the list's",
                Some(_) => continue,
            };
            problems.add(|| format!("phantom: message {id} is listed, but {why}, {}", place()));
        }
    }

    /// Nothing is missing that was there at the revision of the list.
    fn check_whole(&self, stored_at: &BTreeMap<u64, (u64, &Message)>, problems: &mut Problems) {
        let listed: BTreeMap<u64, u64> = self.listed.iter().map(|item| (item.message.id, item.revision)).collect();
        for (id, (revision, message)) in stored_at {
            if *revision <= self.revision && self.filter.admits(message) && !listed.contains_key(id) {
                problems.add(|| {
                    let (filter, at, place) = (self.filter, self.revision, place(self.operation));
                    format!("lost: message {id} of revision {revision} is not in {filter:?} at revision {at}, {place}")
                });
            }
        }
    }
}

/// How an id is written, and so sorted.
pub fn text(id: u64) -> String {
    format!("m-{id:08}")
}
