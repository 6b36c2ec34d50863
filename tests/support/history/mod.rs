//! Histories of what clients asked and were told, and checkers of them. Pure: no clock, no network, no tokio.
//!
//! An [`Operation`] lasts from its invocation to its end. Each of the two gets a number when it is recorded, under one
//! lock: if one operation's end has a lower number than another's start, it really was over before the other began. An
//! operation that was certainly not executed has [`Outcome::Failed`]; one of which nobody knows has
//! [`Outcome::Unknown`], and may take effect at any time after its start, or never.
//!
//! A file for each kind of history: `linearizable` (registers, one key at a time), `set`, `append` (transactions over
//! lists), `bank`, `counter`, `messages`, `session` (attempts that are repeated), `expiry` (sessions that end), `freshness`
//! (reads of all modes), `journal` (transactions over several kinds of records), `topology` (changes with their reasons),
//! `query` (queries beside reads of everything), `watch` (what watchers are told), `lease` (what goes with one), `lock`
//! (tokens), `jobs` (unique numbers, each taken once). Each holds the calls, the replies, and `check`. A checker that gives up says [`Verdict::Unknown`], which counts
//! as failed.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::collapsible_match,
    clippy::type_complexity,
    reason = "each test program uses a part of it"
)]

pub mod append;
pub mod bank;
pub mod counter;
pub mod expiry;
pub mod freshness;
pub mod jobs;
pub mod journal;
pub mod lease;
pub mod linearizable;
pub mod lock;
pub mod messages;
pub mod query;
pub mod session;
pub mod set;
pub mod topology;
pub mod watch;

use std::{
    fmt::{self, Debug, Write as _},
    sync::Mutex,
};

use serde::Serialize;

/// When something was recorded: its place in the order of all records, and a time for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub order: u64,
    pub ns: u64,
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// It was executed, and this was the answer.
    Ok(R),
    /// It certainly was not and will not be executed.
    Failed,
    /// It may have been executed, or will be.
    Unknown,
}

/// One call of one client.
#[derive(Clone, Debug)]
pub struct Operation<C, R> {
    pub process: u64,
    pub call: C,
    pub outcome: Outcome<R>,
    pub start: Moment,
    /// When the client was told, or gave up.
    pub end: Moment,
}

impl<C, R> Operation<C, R> {
    /// Its answer, if it has one.
    pub fn reply(&self) -> Option<&R> {
        match &self.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    pub fn is_ok(&self) -> bool {
        self.reply().is_some()
    }

    /// Whether it may have had an effect.
    pub fn may_have_applied(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed)
    }

    /// The first moment at which it may have taken effect.
    pub fn earliest(&self) -> u64 {
        self.start.order
    }

    /// The last moment at which it may take effect; never over if nobody knows.
    pub fn latest(&self) -> u64 {
        match self.outcome {
            Outcome::Unknown => u64::MAX,
            Outcome::Ok(_) | Outcome::Failed => self.end.order,
        }
    }
}

/// Records a history while it happens. The time is the caller's.
pub struct Recorder<C, R>(Mutex<Records<C, R>>);

struct Records<C, R> {
    operations: Vec<Operation<C, R>>,
    next: u64,
}

impl<C, R> Default for Recorder<C, R> {
    fn default() -> Self {
        Self(Mutex::new(Records { operations: Vec::new(), next: 0 }))
    }
}

impl<C, R> Recorder<C, R> {
    /// A call is about to be made: the number under which its outcome is to be recorded.
    pub fn invoke(&self, process: u64, call: C, ns: u64) -> usize {
        let mut records = self.0.lock().unwrap();
        let start = Moment { order: records.tick(), ns };
        records.operations.push(Operation { process, call, outcome: Outcome::Unknown, start, end: start });
        records.operations.len() - 1
    }

    /// The call has its answer, or none.
    pub fn complete(&self, number: usize, outcome: Outcome<R>, ns: u64) {
        let mut records = self.0.lock().unwrap();
        let end = Moment { order: records.tick(), ns };
        let operation = &mut records.operations[number];
        (operation.outcome, operation.end) = (outcome, end);
    }

    /// The history: what has not ended has an unknown outcome.
    pub fn history(&self) -> Vec<Operation<C, R>>
    where
        C: Clone,
        R: Clone,
    {
        self.0.lock().unwrap().operations.clone()
    }
}

impl<C, R> Records<C, R> {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// What a checker says of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// What cannot be, in a few lines.
    Invalid(String),
    /// Why it could not be decided.
    Unknown(String),
}

impl Verdict {
    pub fn is_valid(&self) -> bool {
        matches!(self, Self::Valid)
    }

    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::Invalid(why) => write!(f, "INVALID: {why}"),
            Self::Unknown(why) => write!(f, "UNKNOWN: {why}"),
        }
    }
}

/// How many problems a verdict tells of; more only make it longer.
const TOLD: usize = 8;

/// Problems as they are found; some of them are told.
#[derive(Default)]
pub struct Problems {
    told: Vec<String>,
    count: usize,
}

impl Problems {
    pub fn add(&mut self, problem: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD {
            self.told.push(problem());
        }
    }

    pub fn verdict(self) -> Verdict {
        if self.count == 0 {
            return Verdict::Valid;
        }
        let more = self.count - self.told.len();
        let rest = if more == 0 { String::new() } else { format!("\nand {more} more") };
        Verdict::Invalid(self.told.join("\n") + &rest)
    }
}

/// Who did it, and when: for explanations.
pub fn place<C, R>(operation: &Operation<C, R>) -> String {
    let ms = |moment: Moment| moment.ns as f64 / 1e6;
    format!("process {} from {:.1} to {:.1} ms", operation.process, ms(operation.start), ms(operation.end))
}

/// A history as lines of JSON, an event each, in the order in which they were recorded.
pub fn json_lines<C: Serialize, R: Serialize>(history: &[Operation<C, R>]) -> String {
    let mut events = Vec::new();
    for operation in history {
        let (kind, reply) = match &operation.outcome {
            Outcome::Ok(reply) => ("ok", Some(reply)),
            Outcome::Failed => ("fail", None),
            Outcome::Unknown => ("info", None),
        };
        events.push((operation.start, "invoke", operation, None));
        if operation.end > operation.start {
            events.push((operation.end, kind, operation, reply));
        }
    }
    events.sort_by_key(|(moment, ..)| *moment);
    let mut text = String::new();
    for (moment, kind, operation, reply) in events {
        let line = serde_json::json!({
            "type": kind, "process": operation.process, "time": moment.ns, "call": operation.call, "reply": reply,
        });
        writeln!(text, "{line}").unwrap();
    }
    text
}
