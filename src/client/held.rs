//! Transactions that the leader keeps.
//!
//! Unlike an [`OpenTransaction`](super::OpenTransaction), which lives in this client and sends nothing before its commit, a
//! [`HeldTransaction`] is known to the leader: any language can use it, all values of the storage contract can be in it, and
//! its reads, writes and conditions are decided there as those of any call. It ends with its commit, after a time, or with
//! its leader, and each is told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Client, Config, GroupLog, Kv, Messages, Namespaces, NodeStates, Routes, State, Topology, Written,
    endpoints::Preference,
};
use crate::{
    Error, Result,
    model::{
        ReadMode,
        isolation::{Begun, Isolation},
    },
    proto::v1,
};

/// A transaction that the leader keeps; see [`Client::begin_held`]. Clones are the same transaction.
///
/// Dropped without [`commit`](Self::commit) it is rolled back, as far as the leader can still be told; else its time ends it.
#[derive(Clone, Debug)]
pub struct HeldTransaction {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    /// Whose calls belong to it.
    client: Client,
    begun: Begun,
    ended: AtomicBool,
}

impl Client {
    /// Begins a transaction that the leader keeps for 30 seconds. What it writes is seen by it alone until it is committed.
    ///
    /// ```no_run
    /// use meshstore::client::{Isolation, Set, Value};
    ///
    /// # async fn example(client: meshstore::Client) -> meshstore::Result<()> {
    /// let transaction = client.begin_held(Isolation::Serializable).await?;
    /// let accounts = transaction.kv("accounts");
    /// let balance = accounts.get("ada").await?.value;
    /// accounts.set(Set::new("ada/before", balance)).await?;
    /// accounts.set(Set::new("ada", Value::Json("17".into()))).await?;
    /// transaction.state().put("audit/last", "ada").await?;
    /// transaction.commit().await?; // or `TransactionAborted`, and nothing is changed
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: `ResourceExhausted` if too many are open.
    pub async fn begin_held(&self, isolation: Isolation) -> Result<HeldTransaction> {
        self.held(self.begin_held_ms(isolation, 0).await?)
    }

    /// The same for another time, at most 5 minutes.
    ///
    /// Errors: as of [`begin_held`](Self::begin_held); `InvalidArgument` if it is longer.
    pub async fn begin_held_for(&self, isolation: Isolation, time: Duration) -> Result<HeldTransaction> {
        self.held(self.begin_held_id(isolation, time).await?)
    }

    /// The same for somebody who keeps its id, and not a handle that ends it.
    ///
    /// Errors: as of [`begin_held_for`](Self::begin_held_for).
    pub async fn begin_held_id(&self, isolation: Isolation, time: Duration) -> Result<Begun> {
        self.begin_held_ms(isolation, u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)).await
    }

    async fn begin_held_ms(&self, isolation: Isolation, timeout_ms: u64) -> Result<Begun> {
        let isolation = v1::Isolation::from(isolation) as i32;
        let request = v1::BeginTransactionRequest { isolation, timeout_ms };
        Ok(self.outside().ask(Preference::Leader, request).await?.into())
    }

    fn held(&self, begun: Begun) -> Result<HeldTransaction> {
        let client = self.inside(&begun.id)?;
        Ok(HeldTransaction { held: Arc::new(Held { client, begun, ended: AtomicBool::new(false) }) })
    }

    /// This client with all its calls belonging to a transaction that the leader keeps, which somebody else may have begun.
    /// Calls that cannot are refused.
    ///
    /// Errors: `InvalidArgument` if it can be no id.
    pub fn inside(&self, transaction: &str) -> Result<Self> {
        let id =
            transaction.parse().map_err(|_| Error::invalid("transaction", transaction, "is no id of a transaction"))?;
        Ok(Self { transaction: Some(id), ..self.clone().with_read(ReadMode::Linearizable) })
    }

    /// This client with its calls belonging to no transaction.
    #[must_use]
    pub fn outside(&self) -> Self {
        Self { transaction: None, ..self.clone() }
    }

    /// Commits a transaction that the leader keeps, by its id; see [`HeldTransaction::commit`].
    pub async fn commit_held(&self, transaction: &str) -> Result<Written> {
        let request = v1::CommitTransactionRequest { attempt: None, transaction: transaction.into() };
        self.outside().write(request).await
    }

    /// Ends a transaction that the leader keeps without writing anything, by its id.
    ///
    /// Errors: `InvalidArgument` if there is none of this id, or it has been committed; `TransactionAborted` if it ended
    /// without.
    pub async fn rollback_held(&self, transaction: &str) -> Result<()> {
        let request = v1::RollbackTransactionRequest { transaction: transaction.into() };
        self.outside().ask(Preference::Leader, request).await.map(drop)
    }

    /// Runs `body` in a transaction that the leader keeps and commits it; if that was aborted it is run again, until this
    /// client's deadline. So `body` may run several times, and does its work through the transaction only.
    ///
    /// Errors: those of `body`, which then has changed nothing; `TransactionAborted` if it lost every race until the deadline.
    pub async fn transact_held<T, F>(&self, isolation: Isolation, body: impl Fn(HeldTransaction) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let until = Instant::now() + self.deadline;
        let mut races = 0;
        loop {
            let transaction = self.begin_held(isolation).await?;
            let ended = match body(transaction.clone()).await {
                Ok(value) => transaction.commit().await.map(|_| value),
                Err(error) => Err(error),
            };
            races += 1;
            let pause = self.shared.jitter.backoff(races);
            match ended {
                Err(Error::TransactionAborted(_)) if Instant::now() + pause < until => tokio::time::sleep(pause).await,
                ended => return ended,
            }
        }
    }
}

impl HeldTransaction {
    /// Its id, by which others may take part in it.
    pub fn id(&self) -> &str {
        &self.held.begun.id
    }

    /// The revision at which it began.
    pub fn revision(&self) -> u64 {
        self.held.begun.revision
    }

    /// How long it stays open, from its beginning.
    pub fn expires_in(&self) -> Duration {
        self.held.begun.expires_in
    }

    /// A client whose calls belong to it.
    pub fn client(&self) -> &Client {
        &self.held.client
    }

    /// Values by key in a namespace.
    pub fn kv(&self, namespace: impl Into<String>) -> Kv {
        self.client().kv(namespace)
    }

    /// The namespaces. Deleting and clearing them cannot be part of a transaction.
    pub fn namespaces(&self) -> Namespaces {
        self.client().namespaces()
    }

    /// Messages between mesh nodes, but for large ones.
    pub fn messages(&self) -> Messages {
        self.client().messages()
    }

    /// Shared state: bytes by key.
    pub fn state(&self) -> State {
        self.client().state()
    }

    /// The runtime state of mesh nodes.
    pub fn node_state(&self) -> NodeStates {
        self.client().node_state()
    }

    /// The routing table.
    pub fn routes(&self) -> Routes {
        self.client().routes()
    }

    /// Runtime configuration.
    pub fn config(&self) -> Config {
        self.client().config()
    }

    /// The definition of meshes. Its history, confirming and the way back cannot be part of a transaction.
    pub fn topology(&self) -> Topology {
        self.client().topology()
    }

    /// The log of a consensus group. Deleting entries cannot be part of a transaction.
    pub fn group_log(&self, group: &str) -> GroupLog {
        self.client().group_log(group)
    }

    /// Makes all its writes, at one revision; of a transaction that wrote nothing the revision is the one that it read.
    ///
    /// Errors: `TransactionAborted`, with what was changed by others, if one that is serializable read what is no longer so or
    /// a write was decided on it, or if its time was over, or it was lost with its leader: then nothing of it was written.
    /// `Refused` if the state forbids it (a namespace is full): nothing was written, either. `InvalidArgument` if it has ended
    /// already.
    pub async fn commit(self) -> Result<Written> {
        // Whatever comes of it: after a commit that was sent there is nothing to roll back.
        self.held.ended.store(true, Ordering::Relaxed);
        self.client().commit_held(self.id()).await
    }

    /// Ends it; nothing of it is written. That it has ended without being committed already is no error.
    ///
    /// Errors: `InvalidArgument` if it has been committed.
    pub async fn rollback(self) -> Result<()> {
        self.held.ended.store(true, Ordering::Relaxed);
        match self.client().rollback_held(self.id()).await {
            Err(Error::TransactionAborted(_)) => Ok(()),
            answer => answer,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        // Nobody waits for it, and without a runtime nobody can do it: its time ends it then.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, id) = (self.client.outside(), self.begun.id.clone());
            drop(runtime.spawn(async move { client.rollback_held(&id).await }));
        }
    }
}
