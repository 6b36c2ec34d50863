//! Accounts between which money moves: every read shows all accounts, none below zero, and the total that there was at
//! the beginning. Beyond that each balance lies between what the acknowledged and the attempted transfers allow.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Call {
    Transfer { from: u64, to: u64, amount: i64 },
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Transferred,
    /// The account held too little.
    Refused,
    Read(BTreeMap<u64, i64>),
}

type Op = Operation<Call, Reply>;

/// Checks a history that began with these balances.
pub fn check(history: &[Op], begin: &BTreeMap<u64, i64>) -> Verdict {
    let mut problems = Problems::default();
    let total: i64 = begin.values().sum();
    for operation in history {
        let Some(Reply::Read(balances)) = operation.reply() else { continue };
        if !balances.keys().eq(begin.keys()) {
            problems.add(|| format!("gap: the accounts read are {:?}, {}", balances.keys(), place(operation)));
            continue;
        }
        let sum: i64 = balances.values().sum();
        if sum != total {
            problems.add(|| format!("half a transfer: the total read is {sum}, not {total}, {}", place(operation)));
        }
        for (account, balance) in balances {
            if *balance < 0 {
                problems.add(|| format!("negative: account {account} holds {balance}, {}", place(operation)));
            }
            let (least, most) = bounds(history, operation, *account, begin[account]);
            if *balance < least || *balance > most {
                problems.add(|| {
                    let allowed = format!("from {least} to {most}");
                    format!("account {account} holds {balance}, but may hold {allowed}, {}", place(operation))
                });
            }
        }
    }
    problems.verdict()
}

/// What an account may hold when it is read.
fn bounds(history: &[Op], read: &Op, account: u64, begin: i64) -> (i64, i64) {
    let (mut least, mut most) = (begin, begin);
    for operation in history {
        let Call::Transfer { from, to, amount } = operation.call else { continue };
        let refused = matches!(operation.reply(), Some(Reply::Refused));
        if from == to || refused || !operation.may_have_applied() {
            continue;
        }
        let surely = operation.is_ok() && operation.latest() < read.earliest();
        let perhaps = operation.earliest() < read.latest();
        if to == account {
            least += if surely { amount } else { 0 };
            most += if perhaps { amount } else { 0 };
        }
        if from == account {
            least -= if perhaps { amount } else { 0 };
            most -= if surely { amount } else { 0 };
        }
    }
    (least, most)
}
