//! Valid histories from a seed: clients call a pretended store, which executes each call at one moment between its start
//! and its end. Some answers get lost, before or after the call was executed; some calls are refused.

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::history::{Operation, Outcome, Recorder};

/// How a history is made.
pub struct Plan {
    pub processes: u64,
    pub operations: usize,
    /// Of a thousand calls, how many end with nobody knowing.
    pub unknown: u32,
    /// Of a thousand calls, how many are refused.
    pub failed: u32,
}

pub const USUAL: Plan = Plan { processes: 5, operations: 150, unknown: 40, failed: 40 };

/// What a client waits for.
struct Open<C, R> {
    number: usize,
    call: C,
    reply: Option<R>,
    /// Nobody waits any more, but it may still be executed.
    abandoned: bool,
    refused: bool,
}

/// A history of calls from `next`, executed by `apply`.
pub fn history<C: Clone, R: Clone>(
    seed: u64,
    plan: &Plan,
    mut next: impl FnMut(&mut StdRng) -> C,
    mut apply: impl FnMut(&C) -> R,
) -> Vec<Operation<C, R>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let recorder = Recorder::default();
    let mut open: Vec<Option<Open<C, R>>> = (0..plan.processes).map(|_| None).collect();
    let mut adrift: Vec<Open<C, R>> = Vec::new();
    let (mut process, mut begun, mut ns) = (plan.processes, 0, 0);
    let mut names: Vec<u64> = (0..plan.processes).collect();
    while begun < plan.operations || open.iter().any(Option::is_some) {
        ns += rng.random_range(1..1_000);
        let client = rng.random_range(0..open.len());
        if !adrift.is_empty() && rng.random_bool(0.05) {
            // Long after its client gave up, it is executed after all.
            let late = adrift.swap_remove(rng.random_range(0..adrift.len()));
            apply(&late.call);
        }
        match &mut open[client] {
            None if begun < plan.operations => {
                begun += 1;
                let call = next(&mut rng);
                let number = recorder.invoke(names[client], call.clone(), ns);
                let chance = rng.random_range(0..1_000);
                let (abandoned, refused) =
                    (chance < plan.unknown, chance >= plan.unknown && chance < plan.unknown + plan.failed);
                open[client] = Some(Open { number, call, reply: None, abandoned, refused });
            }
            None => {}
            Some(call) if call.refused => {
                recorder.complete(call.number, Outcome::Failed, ns);
                open[client] = None;
            }
            Some(call) if call.abandoned => {
                recorder.complete(call.number, Outcome::Unknown, ns);
                adrift.extend(open[client].take());
                // Whoever does not know what became of its call goes on as another.
                names[client] = process;
                process += 1;
            }
            Some(call) => match call.reply.take() {
                None => call.reply = Some(apply(&call.call)),
                Some(reply) => {
                    recorder.complete(call.number, Outcome::Ok(reply), ns);
                    open[client] = None;
                }
            },
        }
    }
    recorder.history()
}

/// One of the places in a history that will do.
pub fn choose<T: Copy>(places: &[T], rng: &mut StdRng) -> Option<T> {
    if places.is_empty() { None } else { Some(places[rng.random_range(0..places.len())]) }
}

/// The reply of an operation, to be changed.
pub fn reply_mut<C, R>(operation: &mut Operation<C, R>) -> Option<&mut R> {
    match &mut operation.outcome {
        Outcome::Ok(reply) => Some(reply),
        Outcome::Failed | Outcome::Unknown => None,
    }
}

/// Whether one operation was over before the other began.
pub fn before<C, R>(a: &Operation<C, R>, b: &Operation<C, R>) -> bool {
    a.is_ok() && a.end.order < b.start.order
}
