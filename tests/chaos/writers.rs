//! Writers that go on whatever happens, and what they were told. Each write is a transaction of two keys that nobody else
//! writes: so whatever was acknowledged must be there, both halves at one revision, at version 1, and what certainly
//! failed must not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use meshstore::{
    Client, Error,
    client::{ReadMode, Transaction},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::cluster::Cluster;

const WRITERS: u64 = 8;
/// A writer rests after each write, so that what there is to read back stays within bounds.
const REST: Duration = Duration::from_millis(2);
/// Longest time without an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a value.
const BYTES: usize = 120;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Acknowledged,
    /// It may have been made.
    Unknown,
    /// It certainly was not made.
    Refused,
}

/// What was written, by the cycle in which it began.
pub type Ledger = BTreeMap<u64, BTreeMap<String, Told>>;

pub struct Writers {
    ledger: Arc<Mutex<Ledger>>,
    cycle: Arc<AtomicU64>,
    acknowledged: watch::Receiver<u64>,
    /// When the last write that was acknowledged had begun.
    newest_start: watch::Receiver<Option<Instant>>,
    pause: Arc<Mutex<Pause>>,
    stop: watch::Sender<bool>,
    running: JoinSet<()>,
}

/// The last acknowledgement, and the longest time between two.
#[derive(Clone, Copy)]
struct Pause {
    last: Instant,
    longest: Duration,
}

struct Shared {
    ledger: Arc<Mutex<Ledger>>,
    cycle: Arc<AtomicU64>,
    acknowledged: watch::Sender<u64>,
    newest_start: watch::Sender<Option<Instant>>,
    pause: Arc<Mutex<Pause>>,
}

impl Writers {
    pub fn start(cluster: &Cluster, cycle: u64) -> Self {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let cycle = Arc::new(AtomicU64::new(cycle));
        let ((count, acknowledged), (newest, newest_start)) = (watch::channel(0), watch::channel(None));
        let pause = Arc::new(Mutex::new(Pause { last: Instant::now(), longest: Duration::ZERO }));
        let shared = Shared {
            ledger: ledger.clone(),
            cycle: cycle.clone(),
            acknowledged: count,
            newest_start: newest,
            pause: pause.clone(),
        };
        let (shared, (stop, stopped)) = (Arc::new(shared), watch::channel(false));
        let mut running = JoinSet::new();
        for writer in 0..WRITERS {
            let client = cluster.client(Duration::from_secs(40));
            running.spawn(shared.clone().write(client, writer, stopped.clone()));
        }
        Self { ledger, cycle, acknowledged, newest_start, pause, stop, running }
    }

    /// From now on writes belong to this cycle.
    pub fn turn(&self, cycle: u64) {
        self.cycle.store(cycle, Ordering::SeqCst);
    }

    /// Waits until so many more writes than now are acknowledged.
    pub async fn more(&mut self, count: u64) -> Result<(), String> {
        let begin = *self.acknowledged.borrow();
        while *self.acknowledged.borrow_and_update() < begin + count {
            if !matches!(timeout(PATIENCE, self.acknowledged.changed()).await, Ok(Ok(()))) {
                return Err(format!("no write was acknowledged for {PATIENCE:?}"));
            }
        }
        Ok(())
    }

    /// Waits until a write is acknowledged that had begun after this: when that was.
    pub async fn acknowledged_after(&mut self, begun: Instant) -> Result<Instant, String> {
        let newer = self.newest_start.wait_for(|newest| newest.is_some_and(|newest| newest > begun));
        match timeout(PATIENCE, newer).await {
            Ok(Ok(_)) => Ok(Instant::now()),
            _ => Err(format!("no write was acknowledged for {PATIENCE:?}")),
        }
    }

    /// The longest time without an acknowledgement, from now on.
    pub fn forget_pauses(&self) {
        *self.pause.lock().unwrap() = Pause { last: Instant::now(), longest: Duration::ZERO };
    }

    /// The longest time without an acknowledgement since pauses were forgotten.
    pub fn longest_pause(&self) -> Duration {
        self.pause.lock().unwrap().longest
    }

    /// What was told so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger.lock().unwrap().clone()
    }

    /// Lets every writer finish what it has begun.
    pub async fn finish(mut self) -> Ledger {
        self.stop.send_replace(true);
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
        self.ledger()
    }
}

impl Shared {
    async fn write(self: Arc<Self>, client: Client, writer: u64, stopped: watch::Receiver<bool>) {
        for number in 0.. {
            if *stopped.borrow() {
                return;
            }
            let cycle = self.cycle.load(Ordering::SeqCst);
            let name = format!("{writer}-{number}");
            let [a, b] = keys(cycle, &name);
            let begun = Instant::now();
            let write = Transaction::default().put_state(&a, content(&a)).put_state(&b, content(&b));
            let told = match client.commit(write).await {
                Ok(_) => Told::Acknowledged,
                Err(error) if error.may_have_applied() => Told::Unknown,
                Err(_) => Told::Refused,
            };
            if told == Told::Acknowledged {
                self.acknowledged.send_modify(|count| *count += 1);
                self.newest_start.send_modify(|newest| *newest = (*newest).max(Some(begun)));
                let (mut pause, now) = (self.pause.lock().unwrap(), Instant::now());
                *pause = Pause { last: now, longest: pause.longest.max(now - pause.last) };
            }
            self.ledger.lock().unwrap().entry(cycle).or_default().insert(name, told);
            tokio::time::sleep(REST).await;
        }
    }
}

fn keys(cycle: u64, name: &str) -> [String; 2] {
    ["a", "b"].map(|half| format!("cycle/{cycle:05}/{name}/{half}"))
}

fn content(key: &str) -> Vec<u8> {
    key.bytes().cycle().take(BYTES).collect()
}

/// How many writes of a ledger were told what.
pub fn count(ledger: &Ledger, told: &Told) -> usize {
    ledger.values().flat_map(BTreeMap::values).filter(|other| *other == told).count()
}

/// Compares what is there with what was told, for one cycle: what must not be.
pub async fn check(client: &Client, ledger: &Ledger, cycle: u64) -> Result<Vec<String>, Error> {
    let empty = BTreeMap::new();
    let told = ledger.get(&cycle).unwrap_or(&empty);
    let found = client.state().list_all(&format!("cycle/{cycle:05}/")).await?;
    let found: BTreeMap<_, _> = found.into_iter().collect();
    let mut wrong = Vec::new();
    for (name, told) in told {
        let [a, b] = keys(cycle, name).map(|key| found.get(&key));
        match (told, a, b) {
            (Told::Acknowledged, None, None) => wrong.push(format!("LOST: {name} of cycle {cycle} was acknowledged")),
            (Told::Refused, Some(_), _) | (Told::Refused, _, Some(_)) => {
                wrong.push(format!("{name} of cycle {cycle} is there, but was refused"));
            }
            (_, Some(a), Some(b)) if a.mod_revision != b.mod_revision => {
                wrong.push(format!("TORN: {name} of cycle {cycle} is of two revisions"));
            }
            (_, Some(_), None) | (_, None, Some(_)) => {
                wrong.push(format!("TORN: {name} of cycle {cycle} is half there"))
            }
            _ => {}
        }
    }
    for (key, stored) in found {
        if stored.version != 1 || *stored.value != content(&key) {
            wrong.push(format!("{key} has version {} or other bytes", stored.version));
        }
    }
    Ok(wrong)
}

/// Reads everything from every node and compares.
pub async fn check_all(cluster: &Cluster, ledger: &Ledger) -> Vec<String> {
    let revision = match cluster.settle().await {
        Ok(statuses) => statuses[0].revision,
        Err(error) => return vec![error],
    };
    let mut wrong = Vec::new();
    for node in &cluster.nodes {
        let client = node.pinned(Duration::from_secs(20)).with_read(ReadMode::AtLeast(revision));
        for cycle in ledger.keys() {
            match check(&client, ledger, *cycle).await {
                Ok(found) => wrong.extend(found.into_iter().map(|what| format!("on node {}: {what}", node.id))),
                Err(error) => wrong.push(format!("node {} did not answer: {error}", node.id)),
            }
        }
    }
    wrong
}
