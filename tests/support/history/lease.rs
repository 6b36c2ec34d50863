//! Leases with keys attached to them: the keys go together and with their lease, never before its time, and nothing that is
//! gone lives again.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

/// How many keys are attached to each lease, in one transaction.
pub const KEYS: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Grant,
    Attach {
        lease: u64,
    },
    Keep {
        lease: u64,
    },
    Revoke {
        lease: u64,
    },
    /// Counts the keys, at one revision.
    Look {
        lease: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Granted {
        lease: u64,
        ttl_ms: u64,
    },
    Attached,
    Kept,
    Revoked,
    Seen {
        keys: u64,
    },
    /// There is no such lease.
    Gone,
}

type Op = Operation<Call, Reply>;

/// The cluster counts in whole milliseconds, so a lifetime may seem shorter by one.
const GRAIN_NS: u64 = 1_000_000;

/// What is known of one lease.
#[derive(Default)]
struct Life<'a> {
    ttl_ms: Option<u64>,
    /// What gave it its whole time.
    renewed: Vec<&'a Op>,
    /// What shows that it lived.
    alive: Vec<&'a Op>,
    /// What shows that it was gone.
    gone: Vec<&'a Op>,
    /// What may have ended it.
    revokes: Vec<&'a Op>,
    attached: Option<&'a Op>,
    looks: Vec<(&'a Op, u64)>,
}

pub fn check(history: &[Op]) -> Verdict {
    let mut problems = Problems::default();
    let mut lives = BTreeMap::<u64, Life<'_>>::new();
    for operation in history {
        if let Call::Revoke { lease } = operation.call
            && operation.may_have_applied()
        {
            lives.entry(lease).or_default().revokes.push(operation);
        }
        match (operation.call, operation.reply().copied()) {
            (_, Some(Reply::Granted { lease, ttl_ms })) => {
                let life = lives.entry(lease).or_default();
                if life.ttl_ms.replace(ttl_ms).is_some() {
                    problems.add(|| format!("lease {lease} was granted twice, {}", place(operation)));
                }
                life.renewed.push(operation);
                life.alive.push(operation);
            }
            (Call::Attach { lease }, Some(Reply::Attached)) => {
                let life = lives.entry(lease).or_default();
                life.attached = Some(operation);
                life.alive.push(operation);
            }
            (Call::Keep { lease }, Some(Reply::Kept)) => {
                let life = lives.entry(lease).or_default();
                life.renewed.push(operation);
                life.alive.push(operation);
            }
            (Call::Look { lease }, Some(Reply::Seen { keys })) => {
                lives.entry(lease).or_default().looks.push((operation, keys));
            }
            (Call::Revoke { lease }, Some(Reply::Revoked))
            | (Call::Attach { lease } | Call::Keep { lease } | Call::Revoke { lease }, Some(Reply::Gone)) => {
                lives.entry(lease).or_default().gone.push(operation);
            }
            _ => {}
        }
    }
    for (lease, mut life) in lives {
        for (look, keys) in std::mem::take(&mut life.looks) {
            match keys {
                KEYS => life.alive.push(look),
                // Before they were attached there were none either.
                0 if life.attached.is_some_and(|attached| attached.end.order < look.start.order) => {
                    life.gone.push(look)
                }
                0 => {}
                keys => problems.add(|| format!("lease {lease} had {keys} of its {KEYS} keys, {}", place(look))),
            }
        }
        judge(lease, &life, &mut problems);
    }
    problems.verdict()
}

fn judge(lease: u64, life: &Life<'_>, problems: &mut Problems) {
    let ttl_ns = life.ttl_ms.unwrap_or(0) * 1_000_000;
    for gone in &life.gone {
        for alive in life.alive.iter().filter(|alive| gone.end.order < alive.start.order) {
            problems.add(|| format!("lease {lease} was gone {}, and lived {}", place(gone), place(alive)));
        }
        if life.revokes.iter().any(|revoke| revoke.start.order < gone.end.order) {
            continue;
        }
        for renewed in life.renewed.iter().filter(|renewed| renewed.end.order < gone.start.order) {
            if gone.end.ns - renewed.start.ns < ttl_ns.saturating_sub(GRAIN_NS) {
                let places = format!("renewed {}, gone {}", place(renewed), place(gone));
                problems
                    .add(|| format!("lease {lease} ended before its {} ms were over: {places}", ttl_ns / 1_000_000));
            }
        }
    }
}
