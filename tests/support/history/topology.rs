//! Changes of the topology, each with a reason of its own, and the history that the store keeps of them: every change that
//! was acknowledged stands in it once, at its revision; none stands in it that was refused; and each item's changes follow
//! from each other.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Outcome, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    /// A change with this reason.
    Change { reason: String },
    /// Reads the whole history, and the mesh.
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Changed {
        revision: u64,
    },
    /// Revisions and reasons, in order; and what is wrong with what was read.
    Read {
        changes: Vec<(u64, String)>,
        problem: Option<String>,
    },
}

type Op = Operation<Call, Reply>;

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let changes: BTreeMap<&str, &Op> = history
        .iter()
        .filter_map(|operation| match &operation.call {
            Call::Change { reason } => Some((reason.as_str(), operation)),
            Call::Read => None,
        })
        .collect();
    for read in history {
        let Some(Reply::Read { changes: kept, problem }) = read.reply() else { continue };
        if let Some(problem) = problem {
            problems.add(|| format!("{problem}, {}", place(read)));
        }
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for (revision, reason) in kept {
            if let Some(first) = seen.insert(reason, *revision) {
                problems
                    .add(|| format!("{reason:?} was done twice, at revisions {first} and {revision}, {}", place(read)));
            }
            match changes.get(reason.as_str()).map(|change| (&change.outcome, *change)) {
                Some((Outcome::Failed, change)) => {
                    problems.add(|| format!("{reason:?} was refused ({}), and is there", place(change)));
                }
                Some((Outcome::Ok(Reply::Changed { revision: told }), change)) if told != revision => {
                    problems.add(|| format!("{reason:?} is at revision {revision}, not {told}, {}", place(change)));
                }
                _ => {}
            }
        }
        for (reason, change) in &changes {
            if change.is_ok() && change.end.order < read.start.order && !seen.contains_key(reason) {
                problems.add(|| format!("{reason:?} is lost: {}, not there {}", place(change), place(read)));
            }
        }
    }
    problems.verdict()
}
