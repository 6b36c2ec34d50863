//! Transactions that append to lists and read them, all at once: strictly serializable, so that no cycle of "came
//! before" (by what was read, by what was written over, by the clock) can be found among them.
//!
//! The search for cycles is the crate `adya`'s (Elle in Rust). Every element is appended once, so each read of a list
//! tells the order of all appends up to it.

use std::time::Duration;

use adya::{
    Opts, Valid, Workload,
    history::{History, Interner, Mop, Op, OpType, ReadValue, Scalar},
};
use serde::Serialize;

use super::{Operation, Outcome, Verdict};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    Append { key: u64, element: u64 },
    Read { key: u64 },
}

/// The actions of one transaction, in their order.
pub type Call = Vec<Action>;

/// For each action what it read; nothing for those that append.
pub type Reply = Vec<Option<Vec<u64>>>;

/// How long the search may take in each set of transactions that hang together.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn check(history: &[Operation<Call, Reply>]) -> Verdict {
    let options = Opts { timeout: PATIENCE, ..Opts::default() };
    let report = adya::check(&translate(history), Workload::ListAppend, &options);
    let told = || {
        let anomalies = report.anomalies.iter().flat_map(|(kind, all)| all.iter().take(2).map(move |one| (kind, one)));
        let lines: Vec<String> = anomalies.map(|(kind, one)| format!("{kind}: {}", one.explanation)).collect();
        format!("{:?}\n{}", report.anomaly_types, lines.join("\n"))
    };
    match report.valid {
        Valid::True => Verdict::Valid,
        // Nothing was asked, so nothing is wrong.
        Valid::Unknown if history.iter().all(|operation| !operation.is_ok()) => Verdict::Valid,
        Valid::False => Verdict::Invalid(told()),
        Valid::Unknown => Verdict::Unknown(told()),
    }
}

/// The history as the crate wants it. Each operation gets a process of its own, since the order in time says all that the
/// order in a process would; what nobody knows the end of ends last.
fn translate(history: &[Operation<Call, Reply>]) -> History {
    let mut interner = Interner::default();
    let mut events = Vec::new();
    for (number, operation) in history.iter().enumerate() {
        let (kind, end) = match operation.outcome {
            Outcome::Ok(_) => (OpType::Ok, operation.end.order),
            Outcome::Failed => (OpType::Fail, operation.end.order),
            Outcome::Unknown => (OpType::Info, u64::MAX),
        };
        let (asked, told) = (actions(operation, false, &mut interner), actions(operation, true, &mut interner));
        events.push((operation.start.order, number, OpType::Invoke, asked, operation.start.ns));
        events.push((end, number, kind, told, operation.end.ns));
    }
    events.sort_by_key(|(order, number, ..)| (*order, *number));
    let ops = events.into_iter().zip(0..).map(|((_, number, kind, value, ns), index)| Op {
        index,
        kind,
        process: Some(number as i64),
        value,
        time: Some(ns as i64),
    });
    History::from_ops(ops.collect(), interner)
}

fn actions(operation: &Operation<Call, Reply>, told: bool, interner: &mut Interner) -> Vec<Mop> {
    let mut id = |number: u64| interner.intern(Scalar::Int(number as i64));
    let reply = operation.reply().filter(|_| told);
    let actions = operation.call.iter().enumerate().map(|(place, action)| match *action {
        Action::Append { key, element } => Mop::Append { key: id(key), value: id(element) },
        Action::Read { key } => {
            let read = reply.and_then(|reply| reply[place].as_ref());
            let list = read.map(|list| list.iter().map(|element| id(*element)).collect());
            Mop::Read { key: id(key), value: list.map_or(ReadValue::Nil, ReadValue::List) }
        }
    });
    actions.collect()
}
