//! Sessions that are kept alive, or left alone: none ends before its time, and none that has ended lives again.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Open,
    Keep { session: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Opened { session: u64, ttl_ms: u64 },
    Kept,
    Expired,
}

type Op = Operation<Call, Reply>;

/// The cluster counts in whole milliseconds, so a lifetime may seem shorter by one.
const GRAIN_NS: u64 = 1_000_000;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut ttl_ms = BTreeMap::new();
    // What kept each session alive, and how it was found to have ended.
    let mut signs: BTreeMap<u64, Vec<&Op>> = BTreeMap::new();
    let mut ends: BTreeMap<u64, Vec<&Op>> = BTreeMap::new();
    for operation in history {
        match (operation.call, operation.reply().copied()) {
            (_, Some(Reply::Opened { session, ttl_ms: lives })) => {
                ttl_ms.insert(session, lives);
                signs.entry(session).or_default().push(operation);
            }
            (Call::Keep { session }, Some(Reply::Kept)) => signs.entry(session).or_default().push(operation),
            (Call::Keep { session }, Some(Reply::Expired)) => ends.entry(session).or_default().push(operation),
            _ => {}
        }
    }
    for (session, ends) in &ends {
        let Some(lives_ms) = ttl_ms.get(session) else {
            problems.add(|| format!("session {session} ended, and was never opened, {}", place(ends[0])));
            continue;
        };
        for sign in &signs[session] {
            for end in ends {
                let needed_ns = (lives_ms * 1_000_000).saturating_sub(GRAIN_NS);
                if sign.end.order < end.start.order && end.end.ns - sign.start.ns < needed_ns {
                    problems.add(|| {
                        let places = format!("kept {}, ended {}", place(sign), place(end));
                        format!("session {session} ended before its {lives_ms} ms were over: {places}")
                    });
                }
                if end.end.order < sign.start.order {
                    let places = format!("ended {}, kept {}", place(end), place(sign));
                    problems.add(|| format!("session {session} lived again after its end: {places}"));
                }
            }
        }
    }
    problems.verdict()
}
