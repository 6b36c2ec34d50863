//! A store whose workers are stepped by hand, beside a model that remembers everything.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use meshstore::{
    environment::{Clock, Disk, Environment, Step, executor::Threads},
    error::Fault,
    model::{
        Position,
        key::{PREFIX_BYTES, ScopeId, scope_of},
    },
    storage::{
        Checkpoint, EngineKind, NamedWorker, Options, Store,
        audit::{Audit, Auditor},
        codec,
        engine::Pair,
    },
};
use tokio::sync::watch;

pub const CLUSTER: u128 = 0xC1;

pub type Content = BTreeMap<Bytes, Bytes>;
pub type Prefix = [u8; PREFIX_BYTES];

/// What the model keeps beside the pairs: number of pairs, a sum over them, dropped scopes.
type Meta = (u64, u64, Vec<Prefix>);

/// Counts pairs of live scopes and compares.
pub struct TestAuditor;

struct TestAudit {
    expected: Meta,
    pairs: u64,
    sum: u64,
}

impl Auditor for TestAuditor {
    fn begin(&self, meta: &[u8]) -> Result<Box<dyn Audit>, Fault> {
        let expected = codec::decode_payload(meta).map_err(|error| Fault::new(format!("test meta: {error}")))?;
        Ok(Box::new(TestAudit { expected, pairs: 0, sum: 0 }))
    }
}

impl Audit for TestAudit {
    fn is_live(&self, key: &[u8]) -> bool {
        scope_of(key).is_none_or(|scope| !self.expected.2.contains(&scope.prefix()))
    }

    fn count(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.pairs += 1;
        self.sum = self.sum.wrapping_add(weight(key, value));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        let (pairs, sum, _) = self.expected;
        if (self.pairs, self.sum) == (pairs, sum) {
            return Ok(());
        }
        Err(format!("{} pairs, sum {:x}; expected {pairs}, sum {sum:x}", self.pairs, self.sum))
    }
}

fn weight(key: &[u8], value: &[u8]) -> u64 {
    u64::from(crc32c::crc32c(key)) << 32 | u64::from(crc32c::crc32c(value))
}

/// A clock that stands still until it is moved.
#[derive(Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn random(&self) -> u128 {
        7
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub fn options(directory: impl AsRef<Path>, engine: EngineKind) -> Options {
    Options { engine, cache_bytes: 8 << 20, merge_pairs: 4, ..Options::new(directory.as_ref(), CLUSTER) }
}

/// Keys of scope 1 unless said otherwise.
pub fn key(number: u32) -> Bytes {
    key_of(1, number)
}

pub fn key_of(scope: u32, number: u32) -> Bytes {
    ScopeId::new(0x11, scope).key(format!("key {number:05}").as_bytes()).as_bytes().clone()
}

pub fn value(text: impl AsRef<str>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref().as_bytes())
}

/// All versions of everything.
#[derive(Clone, Default)]
pub struct Model {
    pub revision: u64,
    pub index: u64,
    pub writes: Vec<(u64, Vec<Pair>)>,
    pub dropped: Vec<(u64, Prefix)>,
}

impl Model {
    /// The content at a revision, without the scopes dropped by then.
    pub fn at(&self, revision: u64) -> Content {
        let mut content = Content::new();
        for (_, pairs) in self.writes.iter().take_while(|(at, _)| *at <= revision) {
            for (key, value) in pairs {
                match value {
                    Some(value) => content.insert(key.clone(), value.clone()),
                    None => content.remove(key),
                };
            }
        }
        let dropped = self.dropped_at(revision);
        content.retain(|key, _| !dropped.iter().any(|prefix| key.starts_with(prefix)));
        content
    }

    fn dropped_at(&self, revision: u64) -> Vec<Prefix> {
        self.dropped.iter().filter(|(at, _)| *at <= revision).map(|(_, prefix)| *prefix).collect()
    }

    /// The checkpoint at the newest revision.
    pub fn checkpoint(&self) -> Checkpoint {
        let content = self.at(self.revision);
        let sum = content.iter().fold(0u64, |sum, (key, value)| sum.wrapping_add(weight(key, value)));
        let meta: Meta = (content.len() as u64, sum, self.dropped_at(self.revision));
        Checkpoint {
            position: Position { term: 1, index: self.index },
            revision: self.revision,
            membership: Bytes::from_static(b"members"),
            meta: codec::encode_payload(&meta).into(),
            state_hash: u128::from(sum) << 64 | 5,
            apply_version: 1,
        }
    }
}

/// A running store.
pub struct Bench {
    pub store: Store,
    pub workers: Vec<NamedWorker>,
    pub durable: watch::Sender<u64>,
    pub model: Model,
    pub clock: ManualClock,
}

pub const FLUSHER: usize = 0;
pub const MERGER: usize = 1;

impl Bench {
    pub fn open(disk: Arc<dyn Disk>, options: Options, model: Model) -> Result<Self, Fault> {
        let clock = ManualClock::default();
        let environment = Environment {
            disk,
            clock: Arc::new(clock.clone()),
            executor: Arc::new(Threads::default()),
            net: Arc::new(meshstore::environment::net::RealNet),
        };
        let durable = watch::Sender::new(u64::MAX);
        let (store, workers) = Store::open(&environment, options, Arc::new(TestAuditor), durable.subscribe())?;
        Ok(Self { store, workers, durable, model, clock })
    }

    pub fn write(&mut self, pairs: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
        let pairs: Vec<_> = pairs.into_iter().collect();
        self.model.revision += 1;
        self.model.index += 1;
        self.model.writes.push((self.model.revision, pairs.clone()));
        self.store.write(self.model.revision, pairs);
    }

    pub fn put(&mut self, number: u32, text: impl AsRef<str>) {
        self.write([(key(number), Some(value(text)))]);
    }

    pub fn drop_scope(&mut self, prefix: Prefix) {
        self.model.revision += 1;
        self.model.index += 1;
        self.model.dropped.push((self.model.revision, prefix));
        self.store.forget_scope(prefix, self.model.revision);
    }

    pub fn freeze(&mut self) {
        self.store.freeze(self.model.checkpoint());
    }

    pub fn step(&mut self, worker: usize) -> Result<Step, Fault> {
        self.workers[worker].1.step()
    }

    /// Steps all workers in turn until none has anything to do.
    pub fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..100_000 {
            let mut idle = true;
            for worker in 0..self.workers.len() {
                idle &= self.step(worker)? != Step::Again;
            }
            if idle {
                return Ok(());
            }
        }
        panic!("the workers never settle");
    }

    pub fn flush(&mut self) -> Result<(), Fault> {
        self.freeze();
        self.settle()
    }

    /// Closes in order.
    pub fn close(mut self) -> Result<Model, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = self.store.clone();
        let closing = runtime.spawn(async move { store.close().await });
        runtime.block_on(tokio::task::yield_now());
        // A worker that is done is dropped at once, as its thread does: others may wait for that.
        while !self.workers.is_empty() {
            for (name, mut worker, signal) in std::mem::take(&mut self.workers) {
                if worker.step()? != Step::Done {
                    self.workers.push((name, worker, signal));
                }
            }
        }
        runtime.block_on(closing).unwrap();
        Ok(self.model)
    }

    /// Everything that the writer sees is what the model says.
    pub fn check_latest(&self) {
        assert_eq!(latest(&self.store), self.model.at(self.model.revision));
    }

    /// Everything at a revision is what the model says.
    pub fn check_view(&self, revision: u64) {
        let view = self.store.view(revision).unwrap();
        let content: Content = view.range(b"", None, usize::MAX).unwrap().into_iter().collect();
        assert_eq!(content, self.model.at(revision), "revision {revision}");
    }
}

pub fn latest(store: &Store) -> Content {
    let pairs = store.range_latest(b"", None, usize::MAX).unwrap();
    for (key, value) in &pairs {
        assert_eq!(store.get_latest(key).unwrap().as_ref(), Some(value));
    }
    pairs.into_iter().collect()
}
