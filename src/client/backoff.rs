//! How long to wait before the next attempt: exponential, with jitter, so that clients that failed
//! together do not come back together.
//!
//! The jitter comes from a small generator of the client's own (SplitMix64): a simulation gives it a
//! seed, and gets the same waits for the same calls.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::model::trace::TraceParent;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// A source of jitter.
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    /// From a seed; without one, from the randomness that std gives to its hash maps.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(AtomicU64::new(seed.unwrap_or_else(|| RandomState::new().hash_one(0))))
    }

    /// A number that looks random.
    pub(super) fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The name of a new call.
    pub(super) fn trace(&self) -> TraceParent {
        TraceParent::new(u128::from(self.next()) << 64 | u128::from(self.next()), self.next())
    }

    /// The wait after so many failed attempts (from 1): between a half and the whole of a step that doubles.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let step = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
        self.spread(step / 2)
    }

    /// At least `time`, at most twice that.
    pub(super) fn spread(&self, time: Duration) -> Duration {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        time + Duration::from_nanos(self.next() % nanos.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_repeat_with_the_seed() {
        let waits = |seed| {
            let jitter = Jitter::new(Some(seed));
            (1..40).map(|failures| jitter.backoff(failures)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
        assert!(waits(1).iter().all(|wait| (FIRST / 2..=LONGEST).contains(wait)));
        assert!(waits(1)[6..].iter().all(|wait| *wait >= LONGEST / 2));
    }
}
