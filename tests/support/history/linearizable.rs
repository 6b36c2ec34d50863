//! Registers: is there, for each key, an order of its operations that explains every answer, in which none stands
//! outside its own time? (Wing and Gong, with Lowe's memory of what was tried.)
//!
//! Keys are looked at one by one, since linearizability is local. The search takes operations one after the other:
//! next may be whichever begins before the first that must be over. What was tried is remembered as (set of operations
//! taken, value). Two things keep it small: an operation with an unknown outcome whose value somebody saw must have
//! taken effect before that was seen, provided nobody else writes that value; and operations of which nobody
//! knows are tried last. The search ends when every operation with a known outcome is explained.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{Operation, Problems, Verdict, place};

/// How many (set, value) are remembered for one key, until the search gives up.
const MEMORY: usize = 2_000_000;

/// What a register holds: nothing, or a number.
pub type Value = Option<u64>;

/// A call about one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    pub key: u64,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    Read,
    Write(Value),
    /// Writes `to` if the value is `from`.
    Swap {
        from: Value,
        to: Value,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reply {
    Read(Value),
    Written,
    /// Whether the value was `from`.
    Swapped(bool),
}

/// Checks all keys.
pub fn check(history: &[Operation<Call, Reply>]) -> Verdict {
    let mut keys: BTreeMap<u64, Vec<&Operation<Call, Reply>>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.call.key).or_default().push(operation);
    }
    let (mut problems, mut undecided) = (Problems::default(), Vec::new());
    for (key, operations) in keys {
        match check_key(&operations) {
            Verdict::Valid => {}
            Verdict::Invalid(why) => problems.add(|| format!("key {key}: {why}")),
            Verdict::Unknown(why) => undecided.push(format!("key {key}: {why}")),
        }
    }
    match problems.verdict() {
        Verdict::Valid if !undecided.is_empty() => Verdict::Unknown(undecided.join("\n")),
        verdict => verdict,
    }
}

/// An operation as the search sees it.
struct Step<'a> {
    operation: &'a Operation<Call, Reply>,
    /// What it was told; `None` if nobody knows.
    reply: Option<Reply>,
    begin: u64,
    end: u64,
    /// Whether it must be in the order.
    definite: bool,
}

impl Step<'_> {
    /// The value afterwards, if it fits here.
    fn apply(&self, value: Value) -> Option<Value> {
        match (self.operation.call.action, self.reply) {
            (Action::Read, Some(Reply::Read(seen))) => (seen == value).then_some(value),
            (Action::Write(written), Some(Reply::Written) | None) => Some(written),
            (Action::Swap { from, to }, Some(Reply::Swapped(swapped))) => {
                (swapped == (from == value)).then_some(if swapped { to } else { value })
            }
            (Action::Swap { from, to }, None) => Some(if from == value { to } else { value }),
            (Action::Read, _) | (Action::Write(_), _) | (Action::Swap { .. }, _) => None,
        }
    }
}

fn check_key(operations: &[&Operation<Call, Reply>]) -> Verdict {
    let mut steps: Vec<Step<'_>> = operations.iter().filter_map(|operation| step(operation, operations)).collect();
    steps.sort_by_key(|step| step.begin);
    Search::new(&steps).run()
}

fn step<'a>(operation: &'a Operation<Call, Reply>, all: &[&'a Operation<Call, Reply>]) -> Option<Step<'a>> {
    let mut step = Step {
        operation,
        reply: operation.reply().copied(),
        begin: operation.earliest(),
        end: operation.latest(),
        definite: operation.is_ok(),
    };
    if step.definite || !operation.may_have_applied() {
        return step.definite.then_some(step);
    }
    let written = match operation.call.action {
        Action::Read => return None,
        Action::Write(written) | Action::Swap { to: written, .. } => written,
    };
    let writers = all.iter().filter(|other| other.may_have_applied() && writes(other) == Some(written)).count();
    let seen = all.iter().filter(|other| sees(other, written)).map(|other| other.latest()).min();
    if let Some(seen) = seen
        && writers == 1
        && written.is_some()
    {
        (step.end, step.definite) = (seen, true);
        // Whoever saw it says that a swap swapped.
        step.reply = Some(match operation.call.action {
            Action::Swap { .. } => Reply::Swapped(true),
            Action::Read | Action::Write(_) => Reply::Written,
        });
    }
    Some(step)
}

/// What an operation may write.
fn writes(operation: &Operation<Call, Reply>) -> Option<Value> {
    match (operation.call.action, operation.reply()) {
        (Action::Write(written), _) => Some(written),
        (Action::Swap { to, .. }, None | Some(Reply::Swapped(true))) => Some(to),
        _ => None,
    }
}

/// Whether an operation has seen this value.
fn sees(operation: &Operation<Call, Reply>, value: Value) -> bool {
    match (operation.call.action, operation.reply()) {
        (Action::Read, Some(Reply::Read(seen))) => *seen == value,
        (Action::Swap { from, .. }, Some(Reply::Swapped(true))) => from == value,
        _ => false,
    }
}

/// A point of the search: what may come next, and what was taken to get here.
struct Point {
    value: Value,
    candidates: Vec<usize>,
    next: usize,
    /// The operation that was taken to come here.
    taken: Option<usize>,
}

struct Search<'a> {
    steps: &'a [Step<'a>],
    taken: Vec<u64>,
    /// How many operations with a known outcome are not yet taken.
    left: usize,
    tried: HashSet<(Box<[u64]>, Value)>,
    /// The furthest that it came: how many are left, the value, what did not fit.
    furthest: (usize, Value, Vec<usize>),
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step<'a>]) -> Self {
        let left = steps.iter().filter(|step| step.definite).count();
        let taken = vec![0; steps.len().div_ceil(64)];
        Self { steps, taken, left, tried: HashSet::new(), furthest: (usize::MAX, None, Vec::new()) }
    }

    fn run(mut self) -> Verdict {
        let mut path = vec![self.point(None, None)];
        while self.left > 0 {
            let Some(point) = path.last_mut() else { return Verdict::Invalid(self.explain()) };
            let Some(candidate) = point.candidates.get(point.next).copied() else {
                if let Some(taken) = path.pop().and_then(|point| point.taken) {
                    self.put_back(taken);
                }
                continue;
            };
            point.next += 1;
            let Some(value) = self.steps[candidate].apply(point.value) else { continue };
            self.take(candidate);
            if self.tried.len() >= MEMORY {
                return Verdict::Unknown(format!("{} operations, gave up after {MEMORY} states", self.steps.len()));
            }
            if self.tried.insert((self.taken.clone().into(), value)) {
                path.push(self.point(Some(candidate), value));
            } else {
                self.put_back(candidate);
            }
        }
        Verdict::Valid
    }

    fn take(&mut self, step: usize) {
        self.taken[step / 64] |= 1 << (step % 64);
        self.left -= usize::from(self.steps[step].definite);
    }

    fn put_back(&mut self, step: usize) {
        self.taken[step / 64] &= !(1 << (step % 64));
        self.left += usize::from(self.steps[step].definite);
    }

    /// Where the search now is. Candidates begin before the first operation ends that is not yet taken: first those
    /// that must be over soonest.
    fn point(&mut self, taken: Option<usize>, value: Value) -> Point {
        let (mut candidates, mut first_end) = (Vec::new(), u64::MAX);
        for (number, step) in self.steps.iter().enumerate() {
            if self.taken[number / 64] & (1 << (number % 64)) != 0 {
                continue;
            }
            if step.begin > first_end {
                break;
            }
            first_end = first_end.min(step.end);
            candidates.push(number);
        }
        candidates.retain(|candidate| self.steps[*candidate].begin <= first_end);
        candidates.sort_by_key(|candidate| (!self.steps[*candidate].definite, self.steps[*candidate].end));
        if self.left < self.furthest.0 {
            self.furthest = (self.left, value, candidates.clone());
        }
        Point { value, candidates, next: 0, taken }
    }

    fn explain(&self) -> String {
        let (left, value, candidates) = &self.furthest;
        let all = self.steps.iter().filter(|step| step.definite).count();
        let mut text = format!("no order explains its {all} operations; at best {} of them, ", all - left);
        text += &format!("after which the value is {value:?} and none of these can be next:");
        for step in candidates.iter().take(12).map(|candidate| &self.steps[*candidate]) {
            let told = step.reply.map_or("nobody knows".to_owned(), |reply| format!("{reply:?}"));
            text += &format!("\n    {:?} -> {told}, {}", step.operation.call.action, place(step.operation));
        }
        text
    }
}
