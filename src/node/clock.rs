//! Log time at the leader: the state's log time when this leader applied its first own entry, plus
//! monotonic time since then. No log time passes without a leader, so what expires keeps its remaining time
//! across leaders; and a leader cannot count time twice, because the clock is bound to its term.

use std::{sync::Mutex, time::Duration};

use crate::raft::state_machine::Progress;

/// The log clock of this node, while it leads.
#[derive(Default)]
pub(super) struct LogClock(Mutex<Option<Reading>>);

#[derive(Clone, Copy)]
struct Reading {
    term: u64,
    log_time_ms: u64,
    at: Duration,
}

impl LogClock {
    /// Starts the clock, if this leader has applied its first own entry. `now` is monotonic.
    pub(super) fn start(&self, term: u64, progress: &Progress, now: Duration) {
        let mut reading = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if progress.position.term == term && reading.is_none_or(|reading| reading.term != term) {
            *reading = Some(Reading { term, log_time_ms: progress.log_time_ms, at: now });
        }
    }

    /// Log time for an entry of `term`; 0 (which lets no time pass) before the clock runs.
    pub(super) fn now_ms(&self, term: u64, now: Duration) -> u64 {
        let reading = *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(reading) = reading.filter(|reading| reading.term == term) else { return 0 };
        let passed = u64::try_from(now.saturating_sub(reading.at).as_millis()).unwrap_or(u64::MAX);
        reading.log_time_ms.saturating_add(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Position;

    fn progress(term: u64, log_time_ms: u64) -> Progress {
        Progress { position: Position { term, index: 9 }, log_time_ms, ..Progress::default() }
    }

    #[test]
    fn time_starts_with_the_first_own_entry_and_ends_with_the_term() {
        let clock = LogClock::default();
        let seconds = Duration::from_secs;
        clock.start(2, &progress(1, 500), seconds(10));
        assert_eq!(clock.now_ms(2, seconds(11)), 0, "nothing of term 2 is applied yet");
        clock.start(2, &progress(2, 500), seconds(20));
        clock.start(2, &progress(2, 9_000), seconds(21));
        assert_eq!(clock.now_ms(2, seconds(25)), 5_500, "started once");
        assert_eq!(clock.now_ms(3, seconds(25)), 0, "another term, another clock");
    }
}
