//! Writes of which each is attempted several times under one place in a session, at several nodes, also at the same time
//! and after the leader has changed: each is executed once, and every attempt that is answered is told the same.
//!
//! Every write of one key adds one to its version, so the version says how many were executed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    /// An attempt at the write with this place; each session writes to a key of its own.
    Attempt { session: u64, sequence: u64 },
    /// Reads the key of this session.
    Read { session: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Written {
        revision: u64,
    },
    /// Version of the key, and the revision that wrote it last; zeros if there is none.
    Read {
        version: u64,
        revision: u64,
    },
}

type Op = Operation<Call, Reply>;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut answers: BTreeMap<(u64, u64), (u64, &Op)> = BTreeMap::new();
    let mut revisions: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for operation in history {
        let (Call::Attempt { session, sequence }, Some(Reply::Written { revision })) =
            (&operation.call, operation.reply())
        else {
            continue;
        };
        let (first, other) = *answers.entry((*session, *sequence)).or_insert((*revision, operation));
        if first != *revision {
            problems.add(|| {
                let places = format!("{} and {}", place(other), place(operation));
                format!("executed twice: {sequence} of session {session} at revisions {first} and {revision}, {places}")
            });
        }
        let owner = *revisions.entry(*revision).or_insert((*session, *sequence));
        if owner != (*session, *sequence) {
            problems.add(|| format!("revision {revision} is of {owner:?} and of {:?}", (session, sequence)));
        }
    }
    for operation in history {
        if let (Call::Read { session }, Some(Reply::Read { version, .. })) = (&operation.call, operation.reply()) {
            let attempts = |holds: &dyn Fn(&Op) -> bool| {
                let of = history.iter().filter(|attempt| holds(attempt));
                let sequences: BTreeSet<u64> = of
                    .filter_map(|attempt| match attempt.call {
                        Call::Attempt { session: of, sequence } if of == *session => Some(sequence),
                        _ => None,
                    })
                    .collect();
                sequences.len() as u64
            };
            let least = attempts(&|attempt| attempt.is_ok() && attempt.latest() < operation.earliest());
            let most = attempts(&|attempt| attempt.may_have_applied() && attempt.earliest() < operation.latest());
            if !(least..=most).contains(version) {
                problems.add(|| {
                    let allowed = format!("from {least} to {most}");
                    format!("session {session} wrote {version} times, not {allowed}, {}", place(operation))
                });
            }
        }
    }
    problems.verdict()
}
