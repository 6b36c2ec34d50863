//! Time and chance. The only place that asks the machine for either.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time and chance. Monotonic time is tokio's, so that a simulation can pause it.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, in milliseconds since 1970. May jump.
    fn wall_ms(&self) -> u64;
    /// 128 random bits, for ids.
    fn random(&self) -> u128;
    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's.
pub struct RealClock;

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine for time and chance")]
impl Clock for RealClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u128 {
        rand::random()
    }

    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::{Clock, Duration};

    /// Monotonic time that a test sets, in milliseconds.
    #[derive(Default)]
    pub(crate) struct Hand(AtomicU64);

    impl Hand {
        pub(crate) fn set_ms(&self, ms: u64) {
            self.0.store(ms, Relaxed);
        }
    }

    impl Clock for Hand {
        fn wall_ms(&self) -> u64 {
            0
        }

        fn random(&self) -> u128 {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Relaxed))
        }
    }
}
