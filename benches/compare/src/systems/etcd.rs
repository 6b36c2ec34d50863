//! etcd, through the crate `etcd-client`.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Client as Etcd3, Compare, CompareOp, GetOptions, Txn, TxnOp, WatchOptions, WatchStream};

use super::{CONNECTIONS, Client, Events};
use crate::{
    load::{BATCH, Op, RANGE, TRANSACTION, Turn, key},
    processes::{Nodes, free_port, metric, page},
};

/// Keys that are written at once to fill it.
const FILL: u64 = 1_000;

pub struct Etcd {
    /// Connections to the leader: one that follows would only pass calls on.
    leader: Vec<Etcd3>,
    /// Connections to all nodes, for reads from any.
    any: Vec<Etcd3>,
    addresses: Vec<String>,
}

pub async fn start(binary: &Path, home: &Path) -> Result<(Nodes, Etcd)> {
    let mut nodes = Nodes::new(home);
    let mut ports = Vec::new();
    for _ in 0..3 {
        ports.push((free_port().await?, free_port().await?));
    }
    let addresses: Vec<String> = ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect();
    let members: Vec<String> =
        ports.iter().enumerate().map(|(n, (_, peer))| format!("n{n}=http://127.0.0.1:{peer}")).collect();
    for (n, (client, peer)) in ports.iter().enumerate() {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new(binary);
        command.args(["--name", &format!("n{n}"), "--data-dir"]).arg(home.join(format!("etcd-{n}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
        // Room for what is measured, batches as large as ours, and old revisions dropped, as Kubernetes has it done.
        command.args(["--quota-backend-bytes", "8589934592", "--max-txn-ops", "1024", "--log-level", "error"]);
        command.args(["--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"]);
        nodes.spawn(&format!("etcd-{n}"), command)?;
    }
    nodes.ready(|| async { leader(&addresses).await.is_ok() }).await?;
    let leader = leader(&addresses).await?;
    let mut etcd = Etcd { leader: Vec::new(), any: Vec::new(), addresses };
    for _ in 0..CONNECTIONS {
        etcd.leader.push(Etcd3::connect([&leader], None).await?);
        etcd.any.push(Etcd3::connect(&etcd.addresses, None).await?);
    }
    Ok((nodes, etcd))
}

async fn leader(addresses: &[String]) -> Result<String> {
    for address in addresses {
        let status = Etcd3::connect([address], None).await?.status().await?;
        if status.leader() != 0 && status.header().is_some_and(|header| header.member_id() == status.leader()) {
            return Ok(address.clone());
        }
    }
    bail!("no leader")
}

impl Etcd {
    pub fn endpoints(&self) -> &[String] {
        &self.addresses
    }

    pub fn client(&self, number: u32) -> Result<Session> {
        let at = (number % CONNECTIONS) as usize;
        let pick = |all: &[Etcd3]| all.get(at).cloned().context("no connection");
        Ok(Session { leader: pick(&self.leader)?, any: pick(&self.any)? })
    }

    pub async fn fill(&self, keys: u64, value: &Bytes) -> Result<()> {
        let mut client = self.client(0)?.leader;
        for first in (0..keys).step_by(FILL as usize) {
            let puts = (first..keys.min(first + FILL)).map(|n| TxnOp::put(key(n), value.to_vec(), None));
            client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await?;
        }
        Ok(())
    }

    /// Syncs of the logs, and commits of the databases behind them, which sync, too.
    pub async fn syncs(&self) -> Result<u64> {
        let mut syncs = 0;
        for address in &self.addresses {
            let page = page(address, "/metrics").await?;
            syncs += metric(&page, "etcd_disk_wal_fsync_duration_seconds_count");
            syncs += metric(&page, "etcd_disk_backend_commit_duration_seconds_count");
        }
        Ok(syncs)
    }
}

pub struct Session {
    leader: Etcd3,
    any: Etcd3,
}

#[async_trait]
impl Client for Session {
    async fn call(&self, op: Op, turn: &mut Turn) -> Result<()> {
        let mut leader = self.leader.clone();
        let value = turn.value.to_vec();
        match op {
            Op::Put => drop(leader.put(turn.key(), value, None).await?),
            Op::New => drop(leader.put(turn.new_key(), value, None).await?),
            Op::Mixed if turn.calls % 5 == 4 => drop(leader.put(turn.key(), value, None).await?),
            Op::Get | Op::Mixed => found(leader.get(turn.key(), None).await?.kvs().len(), 1)?,
            Op::Stale => {
                let options = Some(GetOptions::new().with_serializable());
                found(self.any.clone().get(turn.key(), options).await?.kvs().len(), 1)?;
            }
            Op::Cas => {
                let own = turn.own();
                let compare = Compare::mod_revision(own.clone(), CompareOp::Equal, turn.revision.unwrap_or(0) as i64);
                let answer = leader.txn(Txn::new().when([compare]).and_then([TxnOp::put(own, value, None)])).await?;
                if !answer.succeeded() {
                    bail!("another has written the key");
                }
                turn.revision = answer.header().map(|header| header.revision() as u64);
            }
            Op::Txn8 | Op::Batch => {
                let count = if op == Op::Txn8 { TRANSACTION } else { BATCH };
                drop(leader.txn(Txn::new().and_then(puts(turn, count))).await?);
            }
            Op::Range => {
                let options = Some(GetOptions::new().with_prefix());
                found(leader.get(turn.range(), options).await?.kvs().len(), RANGE)?;
            }
            Op::Delete => {
                leader.put(turn.own(), value, None).await?;
                found(leader.delete(turn.own(), None).await?.deleted() as usize, 1)?;
            }
            Op::Watch | Op::Message | Op::Insert | Op::Find => bail!("not a call of etcd"),
        }
        Ok(())
    }

    async fn watch(&self) -> Result<Box<dyn Events>> {
        let options = Some(WatchOptions::new().with_prefix());
        let stream = self.leader.clone().watch("bench/", options).await?;
        Ok(Box::new(Seen { stream, waiting: Vec::new() }))
    }
}

/// Puts of different keys: etcd takes a key once in a transaction.
fn puts(turn: &mut Turn, count: usize) -> Vec<TxnOp> {
    let mut keys: Vec<String> = (0..count).map(|_| turn.key()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| TxnOp::put(key, turn.value.to_vec(), None)).collect()
}

fn found(count: usize, wanted: usize) -> Result<()> {
    if count != wanted {
        bail!("{count} keys instead of {wanted}");
    }
    Ok(())
}

struct Seen {
    stream: WatchStream,
    /// Values that have come and were not handed out, the last first.
    waiting: Vec<Bytes>,
}

#[async_trait]
impl Events for Seen {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(value) = self.waiting.pop() {
                return Ok(Some(value));
            }
            let Some(answer) = self.stream.message().await? else { return Ok(None) };
            let values = answer.events().iter().rev().filter_map(|event| event.kv());
            self.waiting = values.map(|kv| Bytes::copy_from_slice(kv.value())).collect();
        }
    }
}
