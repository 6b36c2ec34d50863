//! The systems that are measured, and what they do for each operation.

mod etcd;
mod meshstore;
mod postgres;

use std::{fmt, path::Path, time::Duration};

use anyhow::{Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    Shared,
    load::{Op, Turn},
    processes::{Nodes, PATIENCE, Usage},
};

/// Connections over which the clients of a system are spread, as long as it does not need one for each.
const CONNECTIONS: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Three nodes of etcd
    Etcd,
    /// Three nodes of meshstore, each call a call of gRPC
    Unary,
    /// Three nodes of meshstore, calls in a stream
    Stream,
    /// PostgreSQL with two standbys, of which each commit waits for one
    Postgres,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Unary => "meshstore, unary",
            Self::Stream => "meshstore",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// Whether it is asked to do this.
    pub fn does(self, op: Op) -> bool {
        match self {
            Self::Etcd => op != Op::Message && !op.is_of_documents(),
            Self::Unary | Self::Stream => true,
            Self::Postgres => op == Op::Message || op.is_of_documents(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What calls it.
#[async_trait]
pub trait Client: Send + Sync {
    /// Does it once. Errors: it was not done.
    async fn call(&self, op: Op, turn: &mut Turn) -> Result<()>;

    /// Watches the keys.
    async fn watch(&self) -> Result<Box<dyn Events>>;
}

/// What a watcher sees.
#[async_trait]
pub trait Events: Send {
    /// The next value that was written; `None` when it has ended.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

enum Target {
    Etcd(etcd::Etcd),
    Meshstore(meshstore::Meshstore),
    Postgres(postgres::Postgres),
}

/// A running system.
pub struct System {
    nodes: Nodes,
    target: Target,
}

impl System {
    /// Starts it, and waits until it answers.
    pub async fn start(kind: Kind, options: &Shared, home: &Path) -> Result<Self> {
        let (nodes, target) = match kind {
            Kind::Etcd => {
                let (nodes, etcd) = etcd::start(&options.etcd, home).await?;
                (nodes, Target::Etcd(etcd))
            }
            Kind::Unary | Kind::Stream => {
                let (nodes, meshstore) = meshstore::start(&options.meshstore, home, kind == Kind::Stream).await?;
                (nodes, Target::Meshstore(meshstore))
            }
            Kind::Postgres => {
                let (nodes, postgres) = postgres::start(&options.postgres, home).await?;
                (nodes, Target::Postgres(postgres))
            }
        };
        Ok(Self { nodes, target })
    }

    /// A client of its own, over a connection that others may use, too.
    pub async fn client(&self, number: u32) -> Result<Box<dyn Client>> {
        Ok(match &self.target {
            Target::Etcd(etcd) => Box::new(etcd.client(number)?),
            Target::Meshstore(meshstore) => Box::new(meshstore.client(number)?),
            Target::Postgres(postgres) => Box::new(postgres.client(number).await?),
        })
    }

    /// Writes all keys, in batches.
    pub async fn fill(&self, keys: u64, value: &Bytes) -> Result<()> {
        match &self.target {
            Target::Etcd(etcd) => etcd.fill(keys, value).await,
            Target::Meshstore(meshstore) => meshstore.fill(keys, value).await,
            Target::Postgres(_) => Ok(()),
        }
    }

    /// Inserts as many documents, in batches, behind their indexes.
    pub async fn fill_documents(&self, count: u64, text: usize) -> Result<()> {
        match &self.target {
            Target::Etcd(_) => Ok(()),
            Target::Meshstore(meshstore) => meshstore.fill_documents(count, text).await,
            Target::Postgres(postgres) => postgres.fill_documents(count, text).await,
        }
    }

    /// What it has used so far.
    pub async fn usage(&self) -> Result<Usage> {
        let syncs = match &self.target {
            Target::Etcd(etcd) => etcd.syncs().await?,
            Target::Meshstore(meshstore) => meshstore.syncs().await?,
            Target::Postgres(postgres) => postgres.syncs().await?,
        };
        self.nodes.usage(syncs)
    }

    /// Ends all nodes at once, in order or as a crash would, and starts them: how long it takes until a read is answered.
    pub async fn restart(&mut self, in_order: bool, turn: &mut Turn) -> Result<Duration> {
        self.nodes.end(in_order).await;
        let began = Instant::now();
        self.nodes.start_again()?;
        let client = self.client(0).await?;
        while client.call(Op::Get, turn).await.is_err() {
            if began.elapsed() > PATIENCE {
                bail!("no answer within {PATIENCE:?} of the start");
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(began.elapsed())
    }

    /// Where nodes listen for clients.
    pub fn endpoints(&self) -> &[String] {
        match &self.target {
            Target::Etcd(etcd) => etcd.endpoints(),
            Target::Meshstore(meshstore) => meshstore.endpoints(),
            Target::Postgres(_) => &[],
        }
    }

    /// Ends its processes.
    pub async fn stop(mut self) {
        self.nodes.end(true).await;
    }
}
