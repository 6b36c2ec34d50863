//! Log time at the leader: the state's log time when this leader applied its first own entry, plus the time since then in
//! which a quorum answered it. No log time passes without a leader, or while its leader reaches no quorum, so that what expires
//! keeps its remaining time until it can be kept alive again; and a leader cannot count time twice, because the clock is bound
//! to its term.
//!
//! Between two answers of a quorum at most so much counts as an election takes at the longest. More would have passed for nobody:
//! the nodes were cut off from each other, or this process did not run. Log time that is slow harms nobody; it never is fast.

use std::{sync::Mutex, time::Duration};

use crate::raft::state_machine::Progress;

/// The log clock of this node, while it leads.
pub(super) struct LogClock {
    reading: Mutex<Option<Reading>>,
    /// What counts at most between two answers.
    most: Duration,
}

#[derive(Clone, Copy)]
struct Reading {
    term: u64,
    /// Log time when a quorum had answered last.
    log_time: Duration,
    heard: Duration,
}

impl LogClock {
    /// `longest_election`: for how long a leader may go unheard before another can be elected.
    pub(super) fn new(longest_election: Duration) -> Self {
        Self { reading: Mutex::default(), most: longest_election }
    }

    fn reading(&self) -> std::sync::MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How often a quorum's answers are to be told at least, so that no time is lost that has passed.
    pub(super) fn rhythm(&self) -> Duration {
        self.most / 5
    }

    /// Starts the clock, if this leader has applied its first own entry. `now` is monotonic.
    pub(super) fn start(&self, term: u64, progress: &Progress, now: Duration) {
        let mut reading = self.reading();
        if progress.position.term == term && reading.is_none_or(|reading| reading.term != term) {
            *reading = Some(Reading { term, log_time: Duration::from_millis(progress.log_time_ms), heard: now });
        }
    }

    /// A quorum has answered the leader of `term` at this monotonic time.
    pub(super) fn hear(&self, term: u64, heard: Duration) {
        if let Some(reading) = self.reading().as_mut().filter(|reading| reading.term == term && reading.heard < heard) {
            reading.log_time += (heard - reading.heard).min(self.most);
            reading.heard = heard;
        }
    }

    /// Log time for an entry of `term`; 0 (which lets no time pass) before the clock runs.
    pub(super) fn now_ms(&self, term: u64, now: Duration) -> u64 {
        let Some(reading) = self.reading().filter(|reading| reading.term == term) else { return 0 };
        let time = reading.log_time + now.saturating_sub(reading.heard).min(self.most);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Position;

    fn progress(term: u64, log_time_ms: u64) -> Progress {
        Progress { position: Position { term, index: 9 }, log_time_ms, ..Progress::default() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn time_starts_with_the_first_own_entry_and_ends_with_the_term() {
        let clock = LogClock::new(ms(500));
        clock.start(2, &progress(1, 500), ms(10_000));
        assert_eq!(clock.now_ms(2, ms(11_000)), 0, "nothing of term 2 is applied yet");
        clock.start(2, &progress(2, 500), ms(20_000));
        clock.start(2, &progress(2, 9_000), ms(20_100));
        assert_eq!(clock.now_ms(2, ms(20_400)), 900, "started once");
        assert_eq!(clock.now_ms(3, ms(20_400)), 0, "another term, another clock");
        clock.hear(3, ms(20_400));
        assert_eq!(clock.now_ms(2, ms(20_400)), 900, "heard by another leader");
    }

    #[test]
    fn without_a_quorum_hardly_any_time_passes_also_when_it_is_back() {
        let clock = LogClock::new(ms(500));
        clock.start(1, &progress(1, 0), ms(0));
        let mut before = 0;
        for passed in (0..=10_000).step_by(100) {
            clock.hear(1, ms(passed));
            assert_eq!(clock.now_ms(1, ms(passed)), passed);
            before = passed;
        }
        // Cut off for half a minute: a quorum was heard last at 10 s.
        assert_eq!(clock.now_ms(1, ms(10_300)), before + 300);
        assert_eq!(clock.now_ms(1, ms(40_000)), before + 500);
        clock.hear(1, ms(9_000));
        clock.hear(1, ms(40_000));
        assert_eq!(clock.now_ms(1, ms(40_000)), before + 500, "and not half a minute more");
        clock.hear(1, ms(40_100));
        assert_eq!(clock.now_ms(1, ms(40_150)), before + 650);
    }
}
