//! The world that a case runs in: a disk in memory, and time that stands still until it is moved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use meshstore::environment::{Clock, Environment, executor::Threads, net::RealNet};

use super::sim_disk::SimDisk;

/// The random id of everything that asks for one.
pub const CHANCE: u128 = 0x1234_5678_9abc_def0;

/// Time, in milliseconds.
#[derive(Default)]
pub struct HandClock(AtomicU64);

impl HandClock {
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Relaxed);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> u64 {
        0
    }
    fn random(&self) -> u128 {
        CHANCE
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }
}

/// This disk, this clock; nothing else is used.
pub fn environment(disk: &SimDisk, clock: Arc<HandClock>) -> Environment {
    Environment { disk: Arc::new(disk.clone()), clock, executor: Arc::new(Threads::default()), net: Arc::new(RealNet) }
}
