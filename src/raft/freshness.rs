//! How old a node's data is, for reads that may be stale.
//!
//! A heartbeat tells what the leader had applied when it sent it, and how long ago the leader itself had heard from a
//! quorum (a leader that is cut off with one follower would else pass for a fresh one for ever). How long the heartbeat
//! was under way nobody knows; but it echoes the moment of the follower's answer before, so it was sent after that.
//!
//! Raft's commit index in the same message would not do: Raft may have made the message, and then waited for the answer
//! before, whose moment it would be taken to be as new as.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use crate::{environment::Clock, proto::v1::Pulse};

/// What a leader knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// How long ago it heard from a quorum, in milliseconds, rounded up.
    pub quorum_age_ms: u64,
    /// What it has applied, at least one entry of its own term among it: so all that was acknowledged before that quorum was
    /// heard, by it or by earlier leaders.
    pub applied_index: u64,
}

/// How old this node's data may be: the time since a heartbeat whose leader had applied no more than is applied here, plus
/// how long before it the leader itself last heard from a quorum.
pub struct Freshness {
    clock: Arc<dyn Clock>,
    /// Tells this process from earlier ones, whose clock began elsewhere.
    life: u64,
    heard: Mutex<Heard>,
    /// Asked when this node leads; set once Raft runs.
    lead: OnceLock<Box<dyn Fn() -> Option<Lead> + Send + Sync>>,
}

#[derive(Default)]
struct Heard {
    /// Up to this moment (monotonic) everything acknowledged is applied here.
    covered: Option<Duration>,
    /// Moments that will be covered once an index is applied; in order.
    pending: VecDeque<(Duration, u64)>,
}

/// How many moments may be pending. When there are more every second one is forgotten, which makes the age look greater
/// than it is for a while; but never the newest, since it may be long before anybody asks.
const PENDING: usize = 64;

impl Freshness {
    /// Nothing is known yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        // The low half of 128 random bits is random enough to tell one process from the next.
        let life = u64::try_from(clock.random() & u128::from(u64::MAX)).unwrap_or_default();
        Self { clock, life, heard: Mutex::default(), lead: OnceLock::new() }
    }

    /// This moment, for an answer to a leader.
    pub fn pulse(&self) -> Pulse {
        let at_ms = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        Pulse { life: self.life, at_ms }
    }

    /// How a leader learns what it knows of itself. Set once.
    pub fn set_lead(&self, ask: impl Fn() -> Option<Lead> + Send + Sync + 'static) {
        // A second time would be a second node in one: the first stays.
        let _ = self.lead.set(Box::new(ask));
    }

    /// What this leader knows of itself; nothing before it has applied an entry of its own term.
    pub fn lead(&self) -> Option<Lead> {
        self.lead.get().and_then(|ask| ask())
    }

    /// A leader was heard, which had seen this node's answer of `echo` before it knew this of itself.
    pub fn heard(&self, echo: Option<Pulse>, lead: Option<Lead>) {
        // A moment that is still to come was never given in an answer.
        let given = |echo: &Pulse| echo.life == self.life && echo.at_ms <= self.pulse().at_ms;
        let (Some(echo), Some(lead)) = (echo.filter(given), lead) else { return };
        let sent_after = Duration::from_millis(echo.at_ms);
        let mut at = sent_after.saturating_sub(Duration::from_millis(lead.quorum_age_ms));
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, _)) = heard.pending.pop_back_if(|(_, index)| *index == lead.applied_index) {
            at = at.max(before);
        }
        if heard.pending.len() >= PENDING {
            let mut keep = false;
            heard.pending.retain(|_| {
                keep = !keep;
                keep
            });
        }
        heard.pending.push_back((at, lead.applied_index));
    }

    /// Whether a leader was heard in this life of the node.
    pub fn has_heard(&self) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.covered.is_some() || !heard.pending.is_empty()
    }

    /// The age of what is applied up to `applied_index`, in milliseconds, rounded up; `u64::MAX` if nothing is known.
    pub fn age_ms(&self, applied_index: u64) -> u64 {
        let now = self.clock.monotonic();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, _)) = heard.pending.front().copied().filter(|(_, index)| *index <= applied_index) {
            heard.pending.pop_front();
            heard.covered = heard.covered.max(Some(at));
        }
        heard.covered.map_or(u64::MAX, |at| whole_ms(now.saturating_sub(at)))
    }
}

/// A duration in milliseconds, rounded up: an age is not to look less than it is.
pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::clock::testing::Hand;

    fn lead(quorum_age_ms: u64, applied_index: u64) -> Option<Lead> {
        Some(Lead { quorum_age_ms, applied_index })
    }

    #[test]
    fn age_counts_from_the_answer_before_a_heartbeat_whose_index_is_applied_here() {
        let hand = Arc::new(Hand::default());
        let freshness = Freshness::new(hand.clone());
        let at = |at_ms| {
            hand.set_ms(at_ms);
            Some(freshness.pulse())
        };
        freshness.heard(None, lead(0, 10));
        freshness.heard(Some(Pulse { life: 9, at_ms: 1 }), lead(0, 10));
        freshness.heard(Some(Pulse { at_ms: freshness.pulse().at_ms + 1, ..freshness.pulse() }), lead(0, 10));
        assert_eq!(freshness.age_ms(100), u64::MAX, "no heartbeat is known to be recent");
        freshness.heard(at(1_000), lead(40, 10));
        freshness.heard(at(1_050), None);
        freshness.heard(at(1_100), lead(0, 20));
        hand.set_ms(1_200);
        assert_eq!(freshness.age_ms(9), u64::MAX, "index 10 is not applied yet");
        assert_eq!(freshness.age_ms(10), 240, "the first heartbeat, and the leader's own age");
        assert_eq!(freshness.age_ms(25), 100);
        hand.set_ms(3_200);
        assert_eq!(freshness.age_ms(25), 2_100);
    }

    #[test]
    fn what_is_heard_last_counts_however_long_nobody_asked() {
        let hand = Arc::new(Hand::default());
        let freshness = Freshness::new(hand.clone());
        for (beat, index) in (1..=1_000).map(|beat| (beat, 5)).chain((1_001..=2_000).map(|beat| (beat, beat))) {
            hand.set_ms(beat * 100);
            freshness.heard(Some(freshness.pulse()), lead(0, index));
        }
        assert!(freshness.heard.lock().unwrap().pending.len() <= PENDING);
        assert_eq!(freshness.age_ms(5), 100_000, "the last heartbeat with this index");
        assert!(freshness.age_ms(1_900) < 20_000, "not all moments are kept, but some are");
        assert_eq!(freshness.age_ms(2_000), 0);
    }
}
