//! Reads of all modes: a linearizable one shows all that was acknowledged before it began, one of at least a revision
//! shows that, one that may be stale shows all that was acknowledged longer ago than it may be old.

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Write,
    Linearizable,
    AtLeast(u64),
    Stale { max_age_ms: u64 },
}

/// The revision of the write, or the one that the read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reply {
    pub revision: u64,
}

type Op = Operation<Call, Reply>;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut writes: Vec<(&Op, u64)> = Vec::new();
    for operation in history {
        if let (Call::Write, Some(reply)) = (operation.call, operation.reply()) {
            writes.push((operation, reply.revision));
        }
    }
    // By the end, each with the highest revision acknowledged by then.
    writes.sort_by_key(|(write, _)| write.end);
    let mut highest = 0;
    for (_, revision) in &mut writes {
        highest = highest.max(*revision);
        *revision = highest;
    }
    let known = |before: &dyn Fn(&Op) -> bool| {
        let count = writes.partition_point(|(write, _)| before(write));
        count.checked_sub(1).map_or(0, |last| writes[last].1)
    };
    for read in history {
        let Some(Reply { revision }) = read.reply().copied() else { continue };
        let needed = match read.call {
            Call::Write => continue,
            Call::Linearizable => known(&|write| write.end < read.start),
            Call::AtLeast(needed) => needed,
            Call::Stale { max_age_ms } => {
                let since = read.start.ns.saturating_sub(max_age_ms * 1_000_000);
                known(&|write| write.end.ns < since)
            }
        };
        if revision < needed {
            problems
                .add(|| format!("stale: {:?} showed revision {revision}, not {needed}, {}", read.call, place(read)));
        }
    }
    problems.verdict()
}
