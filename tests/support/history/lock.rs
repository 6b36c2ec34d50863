//! Locks with fencing tokens: each token is one holder's, tokens grow from holder to holder, and once something was written
//! under a token nothing is under an older one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Acquire {
        lock: u64,
    },
    /// Writes what no other write does, under a token.
    Write {
        lock: u64,
        token: u64,
        number: u64,
    },
    Read {
        lock: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Acquired {
        token: u64,
    },
    Written {
        revision: u64,
    },
    /// Refused: the lock is held with another token, or by nobody (0).
    Fenced {
        newest: u64,
    },
    /// What stands there, under which token it was written, and at which revision.
    Found {
        token: u64,
        number: u64,
        revision: u64,
    },
    Nothing,
}

type Op = Operation<Call, Reply>;

/// Something that stood there from a revision on.
struct Sign<'a> {
    token: u64,
    number: u64,
    of: &'a Op,
}

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut acquired = BTreeMap::<u64, Vec<(u64, &Op)>>::new();
    let mut written = BTreeMap::<u64, BTreeMap<u64, Vec<Sign<'_>>>>::new();
    // What certainly was not written.
    let mut refused = BTreeMap::new();
    for operation in history {
        if let Call::Write { number, .. } = operation.call
            && (!operation.may_have_applied() || matches!(operation.reply(), Some(Reply::Fenced { .. })))
        {
            refused.insert(number, operation);
        }
    }
    for operation in history {
        let mut sign = |lock, revision, token, number| {
            let signs = written.entry(lock).or_default().entry(revision).or_default();
            signs.push(Sign { token, number, of: operation });
        };
        match (operation.call, operation.reply().copied()) {
            (Call::Acquire { lock }, Some(Reply::Acquired { token })) => {
                acquired.entry(lock).or_default().push((token, operation));
            }
            (Call::Write { lock, token, number }, Some(Reply::Written { revision })) => {
                sign(lock, revision, token, number);
            }
            (Call::Write { token, .. }, Some(Reply::Fenced { newest })) if newest > 0 && newest <= token => {
                problems.add(|| format!("token {token} was refused for {newest}, {}", place(operation)));
            }
            (Call::Read { lock }, Some(Reply::Found { token, number, revision })) => {
                sign(lock, revision, token, number);
                if let Some(refused) = refused.get(&number) {
                    let places = format!("refused {}, read {}", place(refused), place(operation));
                    problems.add(|| format!("number {number} was written though it was refused: {places}"));
                }
            }
            _ => {}
        }
    }
    for (lock, mut holders) in acquired {
        holders.sort_by_key(|(token, _)| *token);
        for pair in holders.windows(2) {
            let [(before, earlier), (after, later)] = pair else { continue };
            if before == after {
                problems.add(|| format!("lock {lock}: token {before} {}, and again {}", place(earlier), place(later)));
            }
            if later.end.order < earlier.start.order {
                let places = format!("{before} {}, {after} {}", place(earlier), place(later));
                problems.add(|| format!("lock {lock}: a token is smaller than an earlier one: {places}"));
            }
        }
    }
    for (lock, revisions) in written {
        let mut last: Option<&Sign<'_>> = None;
        for (revision, signs) in &revisions {
            for sign in signs {
                if let Some(last) = last.filter(|last| last.token > sign.token) {
                    let places = format!("{} {}, {} {}", last.token, place(last.of), sign.token, place(sign.of));
                    problems
                        .add(|| format!("lock {lock}: written under an older token at revision {revision}: {places}"));
                }
                if signs.iter().any(|other| (other.token, other.number) != (sign.token, sign.number)) {
                    problems
                        .add(|| format!("lock {lock}: revision {revision} shows several things, {}", place(sign.of)));
                }
            }
            last = signs.first();
        }
    }
    problems.verdict()
}
