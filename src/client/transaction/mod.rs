//! Transactions that read, decide, and then write.
//!
//! An [`OpenTransaction`] lives in the client. Its reads all show one revision, that of the first; its writes are kept
//! here, and what it reads afterwards shows them. `commit` sends all of it as one compare-and-write transaction: the
//! writes are made if every record that was read is as it was read, and every list still shows what it showed; else
//! nothing is done and the answer is `Conflict`. So transactions are serializable, the committed ones as if each had
//! happened at once at its commit, and nothing is locked: who gives up, or is dropped, has cost the store nothing.
//!
//! A list of messages is guarded by all messages, not by those that it filtered: the indexes of messages do not say when
//! their records were written.

mod log;
mod records;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{Client, Json, Transaction, endpoints::Preference, rpc::Read};
use crate::{
    Error, Result, limits,
    model::mesh::{Change, Condition, Extent, Listed, Page, PageRequest, RecordId, Stored},
    proto::v1,
};

/// A transaction that reads and writes; see [`Client::begin`]. Clones are the same transaction.
///
/// Dropped without [`commit`](Self::commit) it has changed nothing.
#[derive(Clone)]
pub struct OpenTransaction {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    /// The revision that all reads show, once there was one. Held while the first one is under way.
    revision: tokio::sync::Mutex<Option<u64>>,
    /// `None`: it has ended.
    noted: Mutex<Option<Noted>>,
}

/// What was read, and what is to be written.
#[derive(Default)]
struct Noted {
    /// The revision of the last write of each record that was read; 0: there was none.
    read: BTreeMap<RecordId, u64>,
    listed: BTreeMap<Extent, Listed>,
    written: BTreeMap<RecordId, Change>,
}

impl Client {
    /// Begins a transaction over any records of mesh storage and of groups' logs. Nothing is sent until it reads or commits.
    ///
    /// ```no_run
    /// # async fn example(client: meshstore::Client) -> meshstore::Result<()> {
    /// let transaction = client.begin();
    /// if let Some(leader) = transaction.get_state("leader").await? {
    ///     transaction.put_state("leader/before", leader)?;
    /// }
    /// transaction.put_state("leader", "node-2")?;
    /// transaction.save_config("failover/last", &serde_json::json!({ "to": "node-2" }))?;
    /// transaction.commit().await?; // or `Conflict`, and nothing is changed
    /// # Ok(())
    /// # }
    /// ```
    pub fn begin(&self) -> OpenTransaction {
        let shared =
            Shared { client: self.clone(), revision: Default::default(), noted: Mutex::new(Some(Noted::default())) };
        OpenTransaction { shared: Arc::new(shared) }
    }

    /// Runs `body` in a transaction and commits it; if others changed what it had read it is run again, until this
    /// client's deadline. So `body` may run several times, and does its work through the transaction only.
    ///
    /// ```no_run
    /// # async fn example(client: meshstore::Client) -> meshstore::Result<()> {
    /// let seen = client
    ///     .transact(|transaction| async move {
    ///         let seen = match transaction.get_config("seen").await? {
    ///             Some(seen) => seen.parse::<u64>()? + 1,
    ///             None => 1,
    ///         };
    ///         transaction.save_config("seen", &seen)?;
    ///         Ok(seen)
    ///     })
    ///     .await?;
    /// # let _ = seen;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: those of `body`, which then has changed nothing; `Conflict` if it lost every race until the deadline.
    pub async fn transact<T, F>(&self, body: impl Fn(OpenTransaction) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let until = Instant::now() + self.deadline;
        let mut races = 0;
        loop {
            let transaction = self.begin();
            let ended = match body(transaction.clone()).await {
                Ok(value) => transaction.commit().await.map(|_| value),
                Err(error) => {
                    transaction.rollback();
                    Err(error)
                }
            };
            races += 1;
            let pause = self.shared.jitter.backoff(races);
            match ended {
                Err(Error::Conflict(_) | Error::ViewTooOld { .. }) if Instant::now() + pause < until => {
                    tokio::time::sleep(pause).await;
                }
                ended => return ended,
            }
        }
    }
}

/// The end of it.
impl OpenTransaction {
    /// Makes the writes, all at one revision, if everything that was read is as it was read. The revision; of a
    /// transaction that wrote nothing, the one that it read, or 0.
    ///
    /// Errors: `Conflict` if others changed what was read; `InvalidArgument` if a write breaks a rule, or there are over
    /// 1,024 of them, or over 4,096 records and lists were read. Then nothing was changed.
    pub async fn commit(self) -> Result<u64> {
        let Noted { read, listed, written } = self.ended().take().ok_or_else(over)?;
        if written.is_empty() {
            return Ok(self.shared.revision.lock().await.unwrap_or_default());
        }
        let transaction = Transaction {
            preconditions: read.into_iter().map(|(record, at)| (record, Condition::ModRevision(at))).collect(),
            unchanged: listed.into_iter().collect(),
            changes: written.into_values().collect(),
        };
        let done = self.shared.client.commit(transaction).await?;
        if done.succeeded { Ok(done.revision) } else { Err(Error::Conflict("what the transaction had read".into())) }
    }

    /// Ends it; nothing was changed. Its clones can then do nothing more, either.
    pub fn rollback(self) {
        self.ended().take();
    }

    fn ended(&self) -> MutexGuard<'_, Option<Noted>> {
        self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted<T>(&self, note: impl FnOnce(&mut Noted) -> T) -> Result<T> {
        self.ended().as_mut().map(note).ok_or_else(over)
    }

    fn written(&self, record: &RecordId) -> Result<Option<Change>> {
        self.noted(|noted| noted.written.get(record).cloned())
    }

    fn write(&self, record: RecordId, change: Change) -> Result<()> {
        self.noted(|noted| noted.written.insert(record, change)).map(drop)
    }

    fn delete(&self, record: RecordId, there: bool) -> Result<bool> {
        if there {
            self.write(record.clone(), Change::Delete(record))?;
        }
        Ok(there)
    }

    /// Reads one record and remembers what it was.
    async fn fetch<R: Read, T>(
        &self,
        record: RecordId,
        request: R,
        open: impl Fn(R::Reply) -> Result<Stored<T>>,
    ) -> Result<Option<T>> {
        let stored = match self.read(request).await {
            Ok(reply) => Some(open(reply)?),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let mod_revision = stored.as_ref().map_or(0, |stored| stored.mod_revision);
        self.noted(|noted| noted.read.insert(record, mod_revision))?;
        Ok(stored.map(|stored| stored.value))
    }

    async fn get_json<R: Read>(
        &self,
        record: RecordId,
        request: R,
        open: impl Fn(R::Reply) -> Result<Stored<String>>,
    ) -> Result<Option<Json>> {
        match self.written(&record)? {
            Some(
                Change::SaveNodeState { state_json: text, .. }
                | Change::SaveRoute { route_json: text, .. }
                | Change::SaveConfig { value_json: text, .. },
            ) => Ok(Some(Json::of(text))),
            Some(_) => Ok(None),
            None => Ok(self.fetch(record, request, open).await?.map(Json::of)),
        }
    }

    /// Reads a whole list and remembers how many it showed.
    async fn fetch_all<R: Read, T>(
        &self,
        extent: Extent,
        request: impl Fn(PageRequest) -> R,
        open: impl Fn(R::Reply) -> Result<Page<T>>,
    ) -> Result<Vec<T>> {
        let limit = u32::try_from(limits::PAGE_MAX).unwrap_or(u32::MAX);
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut page = open(self.read(request(PageRequest { limit, cursor })).await?)?;
            items.append(&mut page.items);
            cursor = page.next_cursor;
            if cursor.is_empty() {
                let listed = Listed { count: items.len() as u64, since_revision: page.revision };
                self.noted(|noted| noted.listed.insert(extent, listed))?;
                return Ok(items);
            }
        }
    }

    /// A list as this transaction sees it: what was read, with what it has written.
    fn with_written<T>(
        &self,
        items: impl Iterator<Item = (String, T)>,
        prefix: &str,
        written: impl Fn(&Change) -> Option<(String, Option<T>)>,
    ) -> Result<Vec<(String, T)>> {
        let mut items: BTreeMap<String, T> = items.collect();
        self.noted(|noted| {
            for (key, value) in noted.written.values().filter_map(written).filter(|(key, _)| key.starts_with(prefix)) {
                match value {
                    Some(value) => items.insert(key, value),
                    None => items.remove(&key),
                };
            }
        })?;
        Ok(items.into_iter().collect())
    }

    /// Reads at the transaction's revision; the first read decides which that is.
    async fn read<R: Read>(&self, request: R) -> Result<R::Reply> {
        self.noted(|_| ())?;
        let client = &self.shared.client;
        let mut first = self.shared.revision.lock().await;
        let revision = match *first {
            Some(revision) => revision,
            None => {
                let (revision, reply) = self.read_first(request.clone()).await?;
                *first = Some(revision);
                if let Some(reply) = reply {
                    return Ok(reply);
                }
                revision
            }
        };
        drop(first);
        client.read_at(revision, request).await
    }

    /// The first read. An answer that there is nothing does not say of which revision it is, so that is asked.
    async fn read_first<R: Read>(&self, request: R) -> Result<(u64, Option<R::Reply>)> {
        let client = &self.shared.client;
        let options = v1::ReadOptions { keep: true, ..client.mode.into() };
        let no_revision = || Error::Unexpected("a read that does not say of which revision it is".into());
        match client.read_from(Preference::Leader, options, request).await {
            Ok(reply) => Ok((R::revision(&reply).ok_or_else(no_revision)?, Some(reply))),
            Err(Error::NotFound { .. }) => {
                let page = Some(PageRequest { limit: 1, cursor: String::new() }.into());
                let any = v1::ListConfigKeysRequest { read: None, prefix: String::new(), page };
                let reply = client.read_from(Preference::Leader, options, any).await?;
                Ok((v1::ListConfigKeysRequest::revision(&reply).ok_or_else(no_revision)?, None))
            }
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for OpenTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenTransaction").field("ended", &self.ended().is_none()).finish_non_exhaustive()
    }
}

fn over() -> Error {
    Error::Refused("the transaction has ended; begin another".into())
}
