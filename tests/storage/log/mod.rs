//! `mesh_consensus_log`: what was acknowledged is there after every crash, and nothing comes back.

mod crashes;
mod damage;
mod model;
mod use_cases;

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use meshstore::{
    environment::{Clock, Disk, Environment, Step, Worker, executor::Tasks},
    error::Fault,
    model::Position,
    raft::{
        log::{Log, Options},
        types::{Command, LogEntry, Payload},
    },
};
use openraft::entry::RaftEntry;

use crate::support::sim_disk::SimDisk;

pub const DIRECTORY: &str = "/data/mesh_consensus_log";

/// Small, so that a few entries fill batches, segments and tail.
pub const SMALL: Options = Options { segment_bytes: 4096, batch_bytes: 1500, tail_bytes: 2000 };

/// Time that stands still until a test moves it.
#[derive(Default)]
pub struct HandClock(AtomicU64);

impl HandClock {
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> u64 {
        0
    }
    fn random(&self) -> u128 {
        0x1234_5678_9abc_def0
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A log whose writer is stepped by hand.
pub struct Stepped {
    pub log: Log,
    pub worker: Box<dyn Worker>,
    pub clock: Arc<HandClock>,
}

impl Stepped {
    pub fn open(disk: &SimDisk, options: Options) -> Result<Self, Fault> {
        let clock = Arc::new(HandClock::default());
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let executor = Arc::new(Tasks::default());
        let environment = Environment { disk, clock: clock.clone(), executor, ..Environment::real() };
        let (log, worker, _) = Log::open(&environment, Path::new(DIRECTORY), options)?;
        Ok(Self { log, worker, clock })
    }

    /// Steps until there is nothing to do at once.
    pub fn settle(&mut self) -> Result<Step, Fault> {
        loop {
            let step = self.worker.step()?;
            if step != Step::Again {
                return Ok(step);
            }
        }
    }

    /// Lets so much time pass that a marker is due.
    pub fn idle(&mut self) -> Result<Step, Fault> {
        self.settle()?;
        self.clock.advance(20);
        self.settle()
    }

    /// Steps the writer until the future is ready.
    pub fn finish<T>(&mut self, future: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return result;
            }
            self.worker.step()?;
        }
    }

    pub fn close(mut self) -> Result<(), Fault> {
        let log = self.log.clone();
        self.finish(log.close())
    }

    /// Appends; what the callback said is found in the answer when it was called.
    pub fn append(&self, entries: Vec<LogEntry>) -> Result<Told, Fault> {
        let told = Told::default();
        let teller = told.clone();
        self.log.append(entries, move |result| *teller.0.lock().unwrap() = Some(result))?;
        Ok(told)
    }

    pub fn all(&self) -> Vec<LogEntry> {
        self.log.entries(0..u64::MAX, usize::MAX).unwrap()
    }

    pub fn indexes(&self) -> Vec<u64> {
        self.all().iter().map(|entry| entry.log_id_parts().1).collect()
    }
}

/// What an append's callback said, if it was called.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<Option<Result<(), Fault>>>>);

impl Told {
    pub fn durable() -> Self {
        Self(Arc::new(Mutex::new(Some(Ok(())))))
    }

    pub fn get(&self) -> Option<Result<(), Fault>> {
        self.0.lock().unwrap().clone()
    }

    pub fn is_durable(&self) -> bool {
        matches!(self.get(), Some(Ok(())))
    }
}

pub fn at(term: u64, index: u64) -> Position {
    Position { term, index }
}

/// An entry with `bytes` bytes of payload, which differ by position; every fourth is all zeros.
pub fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let fill = if index % 4 == 3 { 0 } else { (term * 31 + index) as u8 | 1 };
    let payload = if bytes == 0 { Payload::Blank } else { Payload::Normal(Command(Bytes::from(vec![fill; bytes]))) };
    LogEntry::new(at(term, index).into(), payload)
}

pub fn entries(term: u64, indexes: std::ops::Range<u64>, bytes: usize) -> Vec<LogEntry> {
    indexes.map(|index| entry(term, index, bytes)).collect()
}

/// The segments that there are, oldest first.
pub fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIRECTORY)).unwrap();
    names.iter().filter(|name| name.ends_with(".log")).map(|name| Path::new(DIRECTORY).join(name)).collect()
}
