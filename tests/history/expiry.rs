//! Sessions that end.

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::choose,
    history::{
        Operation, Outcome, Recorder,
        expiry::{Call, Reply, check},
    },
};

type Op = Operation<Call, Reply>;

const MS: u64 = 1_000_000;

/// Sessions that one client opens, keeps, and finds ended; each call takes up to 30 ms, and happens somewhere in between.
fn make(seed: u64) -> Vec<Op> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (recorder, mut now_ms) = (Recorder::default(), 0);
    let mut call = |rng: &mut StdRng, call: Call, told: &mut dyn FnMut(u64) -> Reply| {
        let number = recorder.invoke(1, call, now_ms * MS);
        let at_ms = now_ms + rng.random_range(0..15);
        now_ms = at_ms + rng.random_range(0..15);
        let reply = told(at_ms);
        let outcome = if rng.random_bool(0.05) { Outcome::Unknown } else { Outcome::Ok(reply) };
        recorder.complete(number, outcome, now_ms * MS);
        now_ms += rng.random_range(0..800);
        reply
    };
    for session in 0..6 {
        let ttl_ms = rng.random_range(200..600);
        let mut ends_ms = 0;
        call(&mut rng, Call::Open, &mut |at_ms| {
            ends_ms = at_ms + ttl_ms;
            Reply::Opened { session, ttl_ms }
        });
        let mut keep = |rng: &mut StdRng| {
            call(rng, Call::Keep { session }, &mut |at_ms| {
                if at_ms >= ends_ms {
                    return Reply::Expired;
                }
                ends_ms = at_ms + ttl_ms;
                Reply::Kept
            })
        };
        while keep(&mut rng) == Reply::Kept {}
        keep(&mut rng);
    }
    // Of a session whose opening nobody heard of nothing is known.
    let mut history = recorder.history();
    let known: Vec<u64> = history.iter().filter_map(opened).collect();
    history.retain(|operation| match operation.call {
        Call::Open => true,
        Call::Keep { session } => known.contains(&session),
    });
    history
}

fn opened(operation: &Op) -> Option<u64> {
    match operation.reply() {
        Some(Reply::Opened { session, .. }) => Some(*session),
        _ => None,
    }
}

fn set(
    history: &mut [Op],
    rng: &mut StdRng,
    from: Reply,
    to: Reply,
    places: impl Fn(&[Op], usize) -> bool,
) -> Option<()> {
    let fitting = |at: &usize| history[*at].reply() == Some(&from) && places(history, *at);
    let at = choose(&(0..history.len()).filter(fitting).collect::<Vec<_>>(), rng)?;
    history[at].outcome = Outcome::Ok(to);
    Some(())
}

#[test]
fn expiry() {
    accepts_and_rejects(
        make,
        check,
        &[
            ("ended too early", ended_too_early),
            ("lived again", lived_again),
            ("a lifetime longer than it was", longer),
        ],
    );
}

/// Right after it was opened or kept.
fn ended_too_early(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let soon = |history: &[Op], at: usize| {
        let (before, this) = (&history[at - 1], &history[at]);
        before.is_ok() && this.end.ns - before.start.ns < 150 * MS
    };
    set(history, rng, Reply::Kept, Reply::Expired, soon)
}

fn lived_again(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let second = |history: &[Op], at: usize| {
        history[at - 1].reply() == Some(&Reply::Expired) && history[at - 1].call == history[at].call
    };
    set(history, rng, Reply::Expired, Reply::Kept, second)
}

fn longer(history: &mut Vec<Op>, rng: &mut StdRng) -> Option<()> {
    let ended = |of: u64| {
        let ends = |other: &&Op| other.reply() == Some(&Reply::Expired);
        history.iter().filter(ends).any(|other| other.call == Call::Keep { session: of })
    };
    let places: Vec<usize> = (0..history.len()).filter(|at| opened(&history[*at]).is_some_and(ended)).collect();
    let at = choose(&places, rng)?;
    let session = opened(&history[at])?;
    history[at].outcome = Outcome::Ok(Reply::Opened { session, ttl_ms: 3_600_000 });
    Some(())
}
