//! Writers that go on whatever happens, and a ledger of what they were told.
//!
//! Every message and every key is written once, under a name that nobody else uses. So in the end each that was
//! acknowledged must be there at version 1, each that certainly failed must not be there, and of those with an unknown
//! outcome either may be.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use meshstore::{Error, client::Message};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::harness::Cluster;

/// Writers that write at the same time, each with a session of its own.
const WRITERS: usize = 8;
/// A writer rests after each write, so that what there is to read back stays within bounds.
const REST: Duration = Duration::from_millis(2);
/// Longest time without a single acknowledgement.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a writer was told of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Acknowledged,
    /// It may have been made.
    Unknown(Error),
    /// It certainly was not made.
    Refused(Error),
}

/// What was attempted, and what came of it.
#[derive(Default)]
pub struct Ledger {
    pub messages: BTreeMap<String, Told>,
    pub states: BTreeMap<String, Told>,
}

impl Ledger {
    fn enter(&mut self, name: String, is_state: bool, told: Told) {
        let of = if is_state { &mut self.states } else { &mut self.messages };
        of.insert(name, told);
    }

    /// Everything that did not succeed.
    pub fn failures(&self) -> Vec<(&String, &Told)> {
        self.messages.iter().chain(&self.states).filter(|(_, told)| **told != Told::Acknowledged).collect()
    }
}

/// Running writers.
pub struct Load {
    ledger: Arc<Mutex<Ledger>>,
    acknowledged: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    writers: JoinSet<()>,
}

impl Load {
    /// Starts writers of messages with so many bytes; one write in four puts a key instead.
    pub fn start(cluster: &Cluster, bytes: usize) -> Self {
        let (acknowledge, acknowledged) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let acknowledge = Arc::new(acknowledge);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, ledger, acknowledge) = (cluster.client(), ledger.clone(), acknowledge.clone());
            let stopped = stopped.clone();
            writers.spawn(async move {
                for number in 0.. {
                    if *stopped.borrow() {
                        break;
                    }
                    let name = format!("{writer}-{number}");
                    let is_state = number % 4 == 3;
                    let written = if is_state {
                        client.state().put(&name, content(&name, bytes)).await
                    } else {
                        client.messages().store(message(&name, bytes)).await
                    };
                    let told = match written {
                        Ok(_) => Told::Acknowledged,
                        Err(error) if error.may_have_applied() => Told::Unknown(error),
                        Err(error) => Told::Refused(error),
                    };
                    if told == Told::Acknowledged {
                        acknowledge.send_modify(|count| *count += 1);
                    }
                    ledger.lock().unwrap().enter(name, is_state, told);
                    tokio::time::sleep(REST).await;
                }
            });
        }
        Self { ledger, acknowledged, stop, writers }
    }

    /// Waits until so many more writes than now are acknowledged.
    pub async fn more(&mut self, count: usize) {
        let (begin, limit) = (*self.acknowledged.borrow(), Instant::now() + PATIENCE);
        while *self.acknowledged.borrow_and_update() < begin + count {
            let change = timeout(limit - Instant::now(), self.acknowledged.changed()).await;
            change.ok().and_then(Result::ok).unwrap_or_else(|| {
                let ledger = self.ledger.lock().unwrap();
                let acknowledged = *self.acknowledged.borrow() - begin;
                panic!("{acknowledged} of {count} writes acknowledged in {PATIENCE:?}: {:?}", ledger.failures())
            });
        }
    }

    /// Lets every writer finish what it has begun.
    pub async fn finish(mut self) -> Ledger {
        self.stop.send_replace(true);
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
        Arc::into_inner(self.ledger).unwrap().into_inner().unwrap()
    }
}

/// The one message with this id.
pub fn message(id: &str, bytes: usize) -> Message {
    let (from, to) = (format!("from-{}", &id[..1]), "to".to_owned());
    let timestamp = id.len() as i64;
    Message { id: id.into(), from, to, content: content(id, bytes).into(), timestamp, large: None }
}

/// The one value with this name.
pub fn content(name: &str, bytes: usize) -> Vec<u8> {
    name.bytes().cycle().take(bytes).collect()
}
