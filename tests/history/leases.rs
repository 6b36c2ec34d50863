//! Leases with their keys, and locks with their tokens.

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    accepts_and_rejects,
    generate::choose,
    history::{
        Operation, Outcome, Recorder,
        lease::{self, KEYS},
        lock,
    },
};

const MS: u64 = 1_000_000;

type LeaseOp = Operation<lease::Call, lease::Reply>;

/// Leases that clients grant, keep, look at and revoke, one after the other; each call takes up to 30 ms.
fn leases(seed: u64) -> Vec<LeaseOp> {
    use lease::{Call, Reply};
    let mut rng = StdRng::seed_from_u64(seed);
    let (recorder, mut now_ms) = (Recorder::default(), 0);
    let mut call = |rng: &mut StdRng, call: Call, told: &mut dyn FnMut(u64) -> Reply| {
        let number = recorder.invoke(rng.random_range(0..3), call, now_ms * MS);
        let at_ms = now_ms + rng.random_range(0..15);
        now_ms = at_ms + rng.random_range(0..15);
        let reply = told(at_ms);
        let first = matches!(reply, Reply::Granted { .. } | Reply::Attached);
        let outcome = if !first && rng.random_bool(0.05) { Outcome::Unknown } else { Outcome::Ok(reply) };
        recorder.complete(number, outcome, now_ms * MS);
        now_ms += rng.random_range(0..300);
        reply
    };
    for lease in 1..6 {
        let ttl_ms = rng.random_range(300..700);
        let mut ends_ms = 0;
        call(&mut rng, Call::Grant, &mut |at_ms| {
            ends_ms = at_ms + ttl_ms;
            Reply::Granted { lease, ttl_ms }
        });
        let attached = call(&mut rng, Call::Attach { lease }, &mut |at_ms| match at_ms < ends_ms {
            true => Reply::Attached,
            false => Reply::Gone,
        });
        if attached == Reply::Gone {
            continue;
        }
        for step in 0..20 {
            match rng.random_range(0..8) {
                0..3 => call(&mut rng, Call::Keep { lease }, &mut |at_ms| {
                    if at_ms >= ends_ms {
                        return Reply::Gone;
                    }
                    ends_ms = at_ms + ttl_ms;
                    Reply::Kept
                }),
                3 if step > 15 => call(&mut rng, Call::Revoke { lease }, &mut |at_ms| {
                    let gone = at_ms >= ends_ms;
                    ends_ms = ends_ms.min(at_ms);
                    if gone { Reply::Gone } else { Reply::Revoked }
                }),
                _ => call(&mut rng, Call::Look { lease }, &mut |at_ms| Reply::Seen {
                    keys: if at_ms < ends_ms { KEYS } else { 0 },
                }),
            };
        }
    }
    recorder.history()
}

fn answer<C, R: PartialEq>(
    history: &mut [Operation<C, R>],
    rng: &mut StdRng,
    to: R,
    fits: impl Fn(&[Operation<C, R>], usize) -> bool,
) -> Option<()> {
    let places: Vec<usize> = (0..history.len()).filter(|at| fits(history, *at)).collect();
    let at = choose(&places, rng)?;
    history[at].outcome = Outcome::Ok(to);
    Some(())
}

#[test]
fn leases_and_their_keys() {
    accepts_and_rejects(
        leases,
        lease::check,
        &[
            ("some of the keys", some_keys),
            ("keys gone too early", gone_early),
            ("keys that stay", keys_stay),
            ("a lease that is kept after its end", kept_after),
        ],
    );
}

fn some_keys(history: &mut Vec<LeaseOp>, rng: &mut StdRng) -> Option<()> {
    let seen = |history: &[LeaseOp], at: usize| history[at].reply() == Some(&lease::Reply::Seen { keys: KEYS });
    answer(history, rng, lease::Reply::Seen { keys: KEYS - 1 }, seen)
}

/// Right after the lease had its whole time.
fn gone_early(history: &mut Vec<LeaseOp>, rng: &mut StdRng) -> Option<()> {
    let early = |history: &[LeaseOp], at: usize| {
        let seen = history[at].reply() == Some(&lease::Reply::Seen { keys: KEYS });
        let before = at.checked_sub(1).map(|before| &history[before]);
        seen && before.is_some_and(|before| {
            before.reply() == Some(&lease::Reply::Kept) && history[at].end.ns - before.start.ns < 250 * MS
        })
    };
    answer(history, rng, lease::Reply::Seen { keys: 0 }, early)
}

fn of(call: lease::Call) -> Option<u64> {
    use lease::Call;
    match call {
        Call::Attach { lease } | Call::Keep { lease } | Call::Revoke { lease } | Call::Look { lease } => Some(lease),
        Call::Grant => None,
    }
}

/// Whether the lease was told to be gone before.
fn was_gone(history: &[LeaseOp], at: usize) -> bool {
    let lease = of(history[at].call);
    let gone = |before: &LeaseOp| matches!(before.reply(), Some(lease::Reply::Gone | lease::Reply::Revoked));
    history[..at].iter().any(|before| of(before.call) == lease && gone(before))
}

fn keys_stay(history: &mut Vec<LeaseOp>, rng: &mut StdRng) -> Option<()> {
    let late = |history: &[LeaseOp], at: usize| {
        history[at].reply() == Some(&lease::Reply::Seen { keys: 0 }) && was_gone(history, at)
    };
    answer(history, rng, lease::Reply::Seen { keys: KEYS }, late)
}

fn kept_after(history: &mut Vec<LeaseOp>, rng: &mut StdRng) -> Option<()> {
    let late = |history: &[LeaseOp], at: usize| {
        history[at].reply() == Some(&lease::Reply::Gone)
            && matches!(history[at].call, lease::Call::Keep { .. })
            && was_gone(history, at)
    };
    answer(history, rng, lease::Reply::Kept, late)
}

type LockOp = Operation<lock::Call, lock::Reply>;

/// Holders one after the other, each of which writes, sometimes when it is over; each call takes up to 30 ms.
fn locks(seed: u64) -> Vec<LockOp> {
    use lock::{Call, Reply};
    let mut rng = StdRng::seed_from_u64(seed);
    let (recorder, mut now_ms, mut revision, mut number) = (Recorder::default(), 0, 0, 0);
    let (mut held, mut there, mut old) = (0, None, Vec::new());
    let (lock, mut next) = (1, 0);
    for _ in 0..120 {
        let call = match rng.random_range(0..10) {
            0 => Call::Acquire { lock },
            1..4 => Call::Read { lock },
            4 if !old.is_empty() => Call::Write { lock, token: old[rng.random_range(0..old.len())], number },
            _ if held > 0 => Call::Write { lock, token: held, number },
            _ => Call::Acquire { lock },
        };
        let invoked = recorder.invoke(rng.random_range(0..3), call, now_ms * MS);
        now_ms += rng.random_range(1..30);
        let reply = match call {
            Call::Acquire { .. } => {
                revision += 1;
                old.extend(Some(held).filter(|held| *held > 0));
                held = revision;
                Reply::Acquired { token: held }
            }
            Call::Write { token, .. } if token != held => Reply::Fenced { newest: held },
            Call::Write { token, .. } => {
                revision += 1;
                there = Some((token, number, revision));
                Reply::Written { revision }
            }
            Call::Read { .. } => match there {
                Some((token, number, revision)) => Reply::Found { token, number, revision },
                None => Reply::Nothing,
            },
        };
        next += 1;
        number = next;
        let outcome = if rng.random_bool(0.05) { Outcome::Unknown } else { Outcome::Ok(reply) };
        recorder.complete(invoked, outcome, now_ms * MS);
    }
    recorder.history()
}

#[test]
fn locks_and_their_tokens() {
    accepts_and_rejects(
        locks,
        lock::check,
        &[
            ("a write under an older token", under_older),
            ("a write that was refused", refused_and_there),
            ("one token for two", shared_token),
            ("a token that is smaller than one before", smaller_token),
        ],
    );
}

/// A refused write of a former holder, as if it had been done after the newer one wrote.
fn under_older(history: &mut Vec<LockOp>, rng: &mut StdRng) -> Option<()> {
    let written = |history: &[LockOp], until: usize, token: u64| {
        history[..until].iter().rev().find_map(|before| match (before.call, before.reply()) {
            (lock::Call::Write { token: newer, .. }, Some(lock::Reply::Written { revision })) if newer > token => {
                Some(*revision)
            }
            _ => None,
        })
    };
    let places: Vec<(usize, u64)> = (0..history.len())
        .filter_map(|at| match (history[at].call, history[at].reply()) {
            (lock::Call::Write { token, .. }, Some(lock::Reply::Fenced { .. })) => {
                Some((at, written(history, at, token)?))
            }
            _ => None,
        })
        .collect();
    let (at, revision) = choose(&places, rng)?;
    // Behind what the newer one wrote; another's revision would be another mistake.
    let last = history.iter().filter_map(|other| match other.reply() {
        Some(lock::Reply::Written { revision } | lock::Reply::Acquired { token: revision }) => Some(*revision),
        _ => None,
    });
    let behind = last.max().unwrap_or(revision) + 1;
    history[at].outcome = Outcome::Ok(lock::Reply::Written { revision: behind });
    Some(())
}

fn refused_and_there(history: &mut Vec<LockOp>, rng: &mut StdRng) -> Option<()> {
    let found: Vec<u64> = history
        .iter()
        .filter_map(|other| match other.reply() {
            Some(lock::Reply::Found { number, .. }) => Some(*number),
            _ => None,
        })
        .collect();
    let read = |call| matches!(call, lock::Call::Write { number, .. } if found.contains(&number));
    let places: Vec<usize> = (0..history.len()).filter(|at| read(history[*at].call)).collect();
    let at = choose(&places, rng)?;
    history[at].outcome = Outcome::Failed;
    Some(())
}

fn acquired(history: &[LockOp]) -> Vec<(usize, u64)> {
    let token = |(at, operation): (usize, &LockOp)| match operation.reply() {
        Some(lock::Reply::Acquired { token }) => Some((at, *token)),
        _ => None,
    };
    history.iter().enumerate().filter_map(token).collect()
}

fn shared_token(history: &mut Vec<LockOp>, rng: &mut StdRng) -> Option<()> {
    let acquired = acquired(history);
    let pairs: Vec<((usize, u64), (usize, u64))> = acquired.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let ((_, token), (at, _)) = choose(&pairs, rng)?;
    history[at].outcome = Outcome::Ok(lock::Reply::Acquired { token });
    Some(())
}

fn smaller_token(history: &mut Vec<LockOp>, rng: &mut StdRng) -> Option<()> {
    let acquired = acquired(history);
    let pairs: Vec<((usize, u64), (usize, u64))> = acquired.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let ((first, small), (second, great)) = choose(&pairs, rng)?;
    history[first].outcome = Outcome::Ok(lock::Reply::Acquired { token: great });
    history[second].outcome = Outcome::Ok(lock::Reply::Acquired { token: small });
    Some(())
}
