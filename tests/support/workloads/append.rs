//! Transactions that read lists and append to them. A transaction reads all its lists at one revision and commits on the
//! condition that none has changed since.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Result,
    client::{Condition, RecordId, Transaction},
};
use rand::Rng;

use super::{
    super::history::{
        Recorder, Verdict,
        append::{self, Action, Call, Reply},
    },
    Seat, Workload, answered, lines,
};

/// Lists that are used at a time.
const LIVE: u64 = 3;
/// Transactions on them until others take their place.
const TRANSACTIONS: u64 = 150;

#[derive(Default)]
pub struct Append {
    recorder: Recorder<Call, Reply>,
    begun: AtomicU64,
    elements: AtomicU64,
}

struct List {
    elements: Vec<u64>,
    condition: Condition,
}

fn name(key: u64) -> String {
    format!("append/{:06}/{key:08}", key / LIVE)
}

/// All lists of a generation, as of one revision.
async fn read(client: &Client, generation: u64) -> Result<BTreeMap<u64, List>> {
    let keys = generation * LIVE..(generation + 1) * LIVE;
    let stored = client.state().list_all(&format!("append/{generation:06}/")).await?;
    Ok(keys
        .map(|key| {
            let found = stored.iter().find(|(stored, _)| *stored == name(key)).map(|(_, stored)| stored);
            let list = match found {
                Some(stored) => List {
                    elements: serde_json::from_slice(&stored.value).expect("a list that was written"),
                    condition: Condition::ModRevision(stored.mod_revision),
                },
                None => List { elements: Vec::new(), condition: Condition::Missing },
            };
            (key, list)
        })
        .collect())
}

/// What the actions read, and the transaction that commits them.
fn perform(actions: &[Action], mut lists: BTreeMap<u64, List>) -> (Reply, Transaction) {
    let mut transaction = Transaction::default();
    let mut reply = Vec::new();
    for action in actions {
        match action {
            Action::Read { key } => reply.push(Some(lists[key].elements.clone())),
            Action::Append { key, element } => {
                lists.get_mut(key).expect("a list of this generation").elements.push(*element);
                reply.push(None);
            }
        }
    }
    let touched = |key: u64| {
        actions
            .iter()
            .any(|action| matches!(action, Action::Read { key: k } | Action::Append { key: k, .. } if *k == key))
    };
    let appended = |key: u64| actions.iter().any(|action| matches!(action, Action::Append { key: k, .. } if *k == key));
    for (key, list) in lists {
        if touched(key) {
            transaction = transaction.require(RecordId::State(name(key)), list.condition);
        }
        if appended(key) {
            transaction = transaction.put_state(name(key), serde_json::to_vec(&list.elements).expect("numbers"));
        }
    }
    (reply, transaction)
}

impl Append {
    async fn transact(&self, seat: &Seat, generation: u64, actions: Call) -> Option<Reply> {
        let client = seat.client.clone();
        let run = async {
            let (reply, transaction) = perform(&actions, read(&client, generation).await?);
            if transaction.changes.is_empty() {
                // All of it was read at one revision, which is fresh: there is nothing to commit.
                return Ok(Some(reply));
            }
            Ok(client.commit(transaction).await?.succeeded.then_some(reply))
        };
        seat.record(&self.recorder, actions.clone(), run).await
    }

    fn generation(&self) -> u64 {
        self.begun.load(Ordering::SeqCst) / TRANSACTIONS
    }
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                let generation = self.generation();
                self.begun.fetch_add(1, Ordering::SeqCst);
                let actions = (0..seat.rng.random_range(1..=4))
                    .map(|_| {
                        let key = generation * LIVE + seat.rng.random_range(0..LIVE);
                        match seat.rng.random_bool(0.5) {
                            true => Action::Append { key, element: self.elements.fetch_add(1, Ordering::SeqCst) },
                            false => Action::Read { key },
                        }
                    })
                    .collect();
                self.transact(&seat, generation, actions).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            for generation in 0..=self.generation() {
                let keys = generation * LIVE..(generation + 1) * LIVE;
                let actions: Call = keys.map(|key| Action::Read { key }).collect();
                while self.transact(&seat, generation, actions.clone()).await.is_none() {}
            }
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        append::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
