//! meshstore, through its own client.

use std::{collections::VecDeque, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use meshstore::{
    Client as Store,
    client::{Declaration, Documents, IndexSpec, SortField, Transacted},
    model::{
        ReadMode,
        mesh::{Condition, Message, PageRequest, RecordId, Transaction},
        watch::{Change, Keys, Target},
    },
};
use serde_json::json;

use super::{CONNECTIONS, Client, Events};
use crate::{
    load::{BATCH, FOUND, Op, RANGE, TRANSACTION, Turn, document, group, key},
    processes::{Nodes, free_port, metric, page},
};

/// Keys that are written at once to fill it.
const FILL: u64 = 1_000;
/// How old a stale read may be.
const STALE: Duration = Duration::from_secs(5);

pub struct Meshstore {
    clients: Vec<Store>,
    endpoints: Vec<String>,
    http: Vec<String>,
}

pub async fn start(binary: &Path, home: &Path, stream: bool) -> Result<(Nodes, Meshstore)> {
    let mut nodes = Nodes::new(home);
    let (mut config, mut endpoints, mut http) = ("[cluster]\nname = \"bench\"\n".to_owned(), Vec::new(), Vec::new());
    for id in 1..=3 {
        let [client, peer, page] = [free_port().await?, free_port().await?, free_port().await?];
        config += &format!(
            "[[node]]\nid = {id}\nclient = \"127.0.0.1:{client}\"\npeer = \"127.0.0.1:{peer}\"\nhttp = \"127.0.0.1:{page}\"\n"
        );
        endpoints.push(format!("127.0.0.1:{client}"));
        http.push(format!("127.0.0.1:{page}"));
    }
    let file = home.join("cluster.toml");
    fs::write(&file, config)?;
    for id in 1..=3 {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(&file).args(["--node", &id.to_string(), "--data"]);
        command.arg(home.join(format!("node-{id}")));
        nodes.spawn(&format!("node-{id}"), command)?;
    }
    let ready = || async {
        for address in &http {
            if !page(address, "/readyz").await.is_ok_and(|page| page.contains(" 200 ")) {
                return false;
            }
        }
        true
    };
    nodes.ready(ready).await?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Store::builder().endpoints(&endpoints).streaming(stream).connect().await?);
    }
    Ok((nodes, Meshstore { clients, endpoints, http }))
}

impl Meshstore {
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    pub fn client(&self, number: u32) -> Result<Session> {
        let client = self.clients.get((number % CONNECTIONS) as usize).context("no connection")?;
        Ok(Session(client.clone()))
    }

    pub async fn fill(&self, keys: u64, value: &Bytes) -> Result<()> {
        let client = self.client(0)?.0;
        for first in (0..keys).step_by(FILL as usize) {
            let put = |transaction: Transaction, n| transaction.put_state(key(n), value.clone());
            done(client.commit((first..keys.min(first + FILL)).fold(Transaction::default(), put)).await?)?;
        }
        Ok(())
    }

    pub async fn fill_documents(&self, count: u64, text: usize) -> Result<()> {
        let documents = documents(&self.client(0)?.0);
        let both = [SortField::ascending("group"), SortField::ascending("n")];
        let indexes = Declaration::new().index(IndexSpec::ascending("number").unique()).index(IndexSpec::of(both));
        documents.declare(indexes).await?;
        for first in (0..count).step_by(FILL as usize) {
            let numbers = first..count.min(first + FILL);
            documents.insert_many(numbers.map(|number| document(number, &group(number), text))).await?;
        }
        Ok(())
    }

    pub async fn syncs(&self) -> Result<u64> {
        let mut syncs = 0;
        for address in &self.http {
            syncs += metric(&page(address, "/metrics").await?, "meshstore_log_syncs_total");
        }
        Ok(syncs)
    }
}

fn documents(client: &Store) -> Documents {
    client.broker("bench").collection("documents")
}

pub struct Session(Store);

#[async_trait]
impl Client for Session {
    async fn call(&self, op: Op, turn: &mut Turn) -> Result<()> {
        let state = self.0.state();
        let value = turn.value.clone();
        match op {
            Op::Put => drop(state.put(&turn.key(), value).await?),
            Op::New => drop(state.put(&turn.new_key(), value).await?),
            Op::Mixed if turn.calls % 5 == 4 => drop(state.put(&turn.key(), value).await?),
            Op::Get | Op::Mixed => drop(state.get(&turn.key()).await?),
            Op::Stale => drop(state.with_read(ReadMode::Stale(STALE)).get(&turn.key()).await?),
            Op::Cas => {
                let own = turn.own();
                let condition = Condition::ModRevision(turn.revision.unwrap_or(0));
                let change = Transaction::default().require(RecordId::State(own.clone()), condition);
                turn.revision = Some(done(self.0.commit(change.put_state(own, value)).await?)?);
            }
            Op::Txn8 | Op::Batch => {
                let count = if op == Op::Txn8 { TRANSACTION } else { BATCH };
                let mut keys: Vec<String> = (0..count).map(|_| turn.key()).collect();
                keys.sort_unstable();
                keys.dedup();
                let put = |transaction: Transaction, key| transaction.put_state(key, value.clone());
                done(self.0.commit(keys.into_iter().fold(Transaction::default(), put)).await?)?;
            }
            Op::Range => {
                let page = PageRequest { limit: RANGE as u32, ..PageRequest::default() };
                let found = state.list(&turn.range(), page).await?.items.len();
                if found != RANGE {
                    bail!("{found} keys instead of {RANGE}");
                }
            }
            Op::Delete => {
                state.put(&turn.own(), value).await?;
                state.delete(&turn.own()).await?;
            }
            Op::Message => {
                let message = Message {
                    id: turn.new_key(),
                    from: format!("node-{}", turn.client % 100),
                    to: format!("node-{}", turn.calls % 100),
                    content: value,
                    timestamp: turn.calls as i64,
                    large: None,
                };
                self.0.messages().store(message).await?;
            }
            Op::Insert => {
                let new = document(turn.new_number(), "new", value.len());
                documents(&self.0).insert(&new).await?;
            }
            Op::Find => {
                let (group, bound) = turn.place();
                let find = documents(&self.0).find(&json!({"group": group, "n": {"$lt": bound}}))?;
                let found = find.sort_by_descending("n").limit(FOUND as u32).page().await?.items.len();
                if found != FOUND {
                    bail!("{found} documents instead of {FOUND}");
                }
            }
            Op::Watch => bail!("not a call"),
        }
        Ok(())
    }

    async fn watch(&self) -> Result<Box<dyn Events>> {
        let target = Target::State(Keys::Prefix("bench/".into()));
        Ok(Box::new(Seen(self.0.watch(target).without_previous().start().await?, VecDeque::new())))
    }
}

/// The revision of a transaction. Errors: it was refused.
fn done(transacted: Transacted) -> Result<u64> {
    if !transacted.succeeded {
        bail!("another has written the key");
    }
    Ok(transacted.revision)
}

struct Seen(meshstore::client::Watch, VecDeque<Bytes>);

#[async_trait]
impl Events for Seen {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(value) = self.1.pop_front() {
                return Ok(Some(value));
            }
            if let meshstore::client::Event::Changes { changes, .. } = self.0.next().await? {
                self.1.extend(changes.into_iter().filter_map(|change| match change {
                    Change::State(changed) => Some(changed.now?.value),
                    _ => None,
                }));
            }
        }
    }
}
