//! Transactions that read lists and append to them: such as the client keeps, and such as the leader keeps. The lists stand
//! in state (or in a namespace), configuration and routes, and half of the former are read by listing, so that what guards
//! lists is tried, too.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{HeldTransaction, Isolation, KeyFilter, OpenTransaction, Set, Value},
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
    /// Whether the leader keeps the transactions.
    held: bool,
    recorder: Recorder<Call, Reply>,
    begun: AtomicU64,
    elements: AtomicU64,
}

fn name(key: u64) -> String {
    format!("append/{key:08}")
}

/// Where the leader's transactions have their lists; the client's know no namespaces.
const NAMESPACE: &str = "append";

/// A transaction, whoever keeps it.
enum Open {
    Here(OpenTransaction),
    Held(HeldTransaction),
}

impl Open {
    async fn get(&self, key: u64) -> Result<Vec<u64>> {
        match self {
            Self::Here(open) => get(open, key).await,
            Self::Held(open) => match get_held(open, key).await {
                Err(Error::NotFound { .. }) => Ok(Vec::new()),
                found => found,
            },
        }
    }

    async fn put(&self, key: u64, list: &[u64]) -> Result<()> {
        match self {
            Self::Here(open) => put(open, key, list),
            Self::Held(open) => put_held(open, key, list).await,
        }
    }

    async fn commit(self) -> Result<()> {
        match self {
            Self::Here(open) => open.commit().await.map(drop),
            Self::Held(open) => open.commit().await.map(drop),
        }
    }
}

/// Each has names of its own.
fn held_name(key: u64) -> String {
    format!("held/{key:08}")
}

async fn get_held(open: &HeldTransaction, key: u64) -> Result<Vec<u64>> {
    let (name, values) = (held_name(key), open.kv(NAMESPACE));
    match key % LIVE {
        0 if (key / LIVE).is_multiple_of(2) => {
            let listed = values.list(KeyFilter { pattern: name.clone(), ..KeyFilter::default() }).await?;
            if listed.items.is_empty() { Ok(Vec::new()) } else { values.get(&name).await?.value.parse() }
        }
        0 => values.get(&name).await?.value.parse(),
        1 => open.config().get(&name).await?.value.parse(),
        _ => open.routes().get(&name).await?.value.parse(),
    }
}

async fn put_held(open: &HeldTransaction, key: u64, list: &[u64]) -> Result<()> {
    let name = held_name(key);
    match key % LIVE {
        0 => open.kv(NAMESPACE).set(Set::new(name, Value::json(list)?)).await.map(drop),
        1 => open.config().save(&name, list).await.map(drop),
        _ => open.routes().save(&name, list).await.map(drop),
    }
}

async fn get(open: &OpenTransaction, key: u64) -> Result<Vec<u64>> {
    let (name, written) = (name(key), "a list that was written");
    let list = match key % LIVE {
        0 if (key / LIVE).is_multiple_of(2) => {
            let listed = open.list_state(&name).await?;
            listed.first().map(|(_, list)| serde_json::from_slice(list).expect(written))
        }
        0 => open.get_state(&name).await?.map(|list| serde_json::from_slice(&list).expect(written)),
        1 => open.get_config(&name).await?.map(|list| list.parse().expect(written)),
        _ => open.get_route(&name).await?.map(|list| list.parse().expect(written)),
    };
    Ok(list.unwrap_or_default())
}

fn put(open: &OpenTransaction, key: u64, list: &[u64]) -> Result<()> {
    match key % LIVE {
        0 => open.put_state(&name(key), serde_json::to_vec(list).expect("numbers")),
        1 => open.save_config(&name(key), list),
        _ => open.save_route(&name(key), list),
    }
}

/// What the actions answer; `None` if others were faster.
async fn perform(client: &Client, held: bool, actions: &[Action]) -> Result<Option<Reply>> {
    let run = async {
        let open = match held {
            true => Open::Held(client.begin_held(Isolation::Serializable).await?),
            false => Open::Here(client.begin()),
        };
        let mut reply = Vec::new();
        for action in actions {
            match action {
                Action::Read { key } => reply.push(Some(open.get(*key).await?)),
                Action::Append { key, element } => {
                    let mut list = open.get(*key).await?;
                    list.push(*element);
                    open.put(*key, &list).await?;
                    reply.push(None);
                }
            }
        }
        open.commit().await?;
        Ok(reply)
    };
    match run.await {
        Ok(reply) => Ok(Some(reply)),
        Err(Error::Conflict(_) | Error::ViewTooOld { .. } | Error::TransactionAborted(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Append {
    /// The same with transactions that the leader keeps.
    pub fn held() -> Self {
        Self { held: true, ..Self::default() }
    }

    async fn transact(&self, seat: &Seat, actions: Call) -> Option<Reply> {
        let client = seat.client.clone();
        let run = perform(&client, self.held, &actions);
        seat.record(&self.recorder, actions.clone(), run).await
    }

    fn generation(&self) -> u64 {
        self.begun.load(Ordering::SeqCst) / TRANSACTIONS
    }
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        if self.held { "held" } else { "append" }
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
                self.transact(&seat, actions).await;
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            for generation in 0..=self.generation() {
                let keys = generation * LIVE..(generation + 1) * LIVE;
                let actions: Call = keys.map(|key| Action::Read { key }).collect();
                while self.transact(&seat, actions.clone()).await.is_none() {}
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
