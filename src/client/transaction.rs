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

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::{Client, Json, Transaction, endpoints::Preference, json, rpc::Read};
use crate::{
    Error, Result, limits,
    model::{
        ReadMode,
        mesh::{Change, Condition, Extent, Listed, Message, MessageFilter, Page, PageRequest, RecordId, Stored},
    },
    proto::{convert, v1},
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
    /// Begins a transaction over any records of mesh storage. Nothing is sent until it reads or commits.
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

/// Messages.
impl OpenTransaction {
    /// Stores a message; one with the same id is overwritten. Errors: the transaction has ended.
    pub fn store_message(&self, message: Message) -> Result<()> {
        self.write(RecordId::Message(message.id.clone()), Change::StoreMessage(message))
    }

    /// Reads a message; `None` if there is none.
    ///
    /// Errors: `ViewTooOld` if the transaction's revision is no longer kept; others as of any read.
    pub async fn get_message(&self, id: &str) -> Result<Option<Message>> {
        let record = RecordId::Message(id.into());
        match self.written(&record)? {
            Some(Change::StoreMessage(message)) => Ok(Some(message)),
            Some(_) => Ok(None),
            None => self.fetch(record, v1::GetMessageRequest { read: None, id: id.into() }, TryFrom::try_from).await,
        }
    }

    /// Deletes a message; whether there was one. Errors: as of [`get_message`](Self::get_message).
    pub async fn delete_message(&self, id: &str) -> Result<bool> {
        let there = self.get_message(id).await?.is_some();
        self.delete(RecordId::Message(id.into()), there)
    }

    /// All messages that the filter lets through, in order of time, then id. They must fit into memory.
    ///
    /// Errors: as of [`get_message`](Self::get_message).
    pub async fn list_messages(&self, filter: &MessageFilter) -> Result<Vec<Message>> {
        let request = |page| convert::list_messages_request(ReadMode::default(), filter.clone(), page);
        let stored = self.fetch_all(Extent::Messages, request, Page::<Stored<Message>>::try_from).await?;
        let mut messages: Vec<Message> = stored.into_iter().map(|stored| stored.value).collect();
        self.noted(|noted| {
            messages.retain(|message| !noted.written.contains_key(&RecordId::Message(message.id.clone())));
            for change in noted.written.values() {
                if let Change::StoreMessage(message) = change
                    && filter.selects(message)
                {
                    messages.push(message.clone());
                }
            }
        })?;
        messages.sort_by(|a, b| (a.timestamp, &a.id).cmp(&(b.timestamp, &b.id)));
        Ok(messages)
    }
}

/// Shared state.
impl OpenTransaction {
    /// Creates or overwrites a state value. Errors: the transaction has ended.
    pub fn put_state(&self, key: &str, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.to_owned(), value.into());
        self.write(RecordId::State(key.clone()), Change::PutState { key, value })
    }

    /// Reads a state value; `None` if there is none. Errors: as of [`get_message`](Self::get_message).
    pub async fn get_state(&self, key: &str) -> Result<Option<Bytes>> {
        let record = RecordId::State(key.into());
        match self.written(&record)? {
            Some(Change::PutState { value, .. }) => Ok(Some(value)),
            Some(_) => Ok(None),
            None => self.fetch(record, v1::GetStateRequest { read: None, key: key.into() }, keyed).await,
        }
    }

    /// Deletes a state value; whether there was one. Errors: as of [`get_message`](Self::get_message).
    pub async fn delete_state(&self, key: &str) -> Result<bool> {
        let there = self.get_state(key).await?.is_some();
        self.delete(RecordId::State(key.into()), there)
    }

    /// All state keys that begin with `prefix` and their values, in order. They must fit into memory.
    ///
    /// Errors: as of [`get_message`](Self::get_message).
    pub async fn list_state(&self, prefix: &str) -> Result<Vec<(String, Bytes)>> {
        let request = |page| v1::ListStateRequest { read: None, prefix: prefix.into(), page };
        let items = self.fetch_all(Extent::State(prefix.into()), paged(request), Page::try_from).await?;
        let items = items.into_iter().map(|(key, stored): (String, Stored<Bytes>)| (key, stored.value));
        self.with_written(items, prefix, |change| match change {
            Change::PutState { key, value } => Some((key.clone(), Some(value.clone()))),
            Change::Delete(RecordId::State(key)) => Some((key.clone(), None)),
            _ => None,
        })
    }
}

/// Node states, routes and configuration.
impl OpenTransaction {
    /// Creates or overwrites the state of a node. Errors: `InvalidArgument` if it cannot be JSON; the transaction has ended.
    pub fn save_node_state(&self, node_id: &str, state: &(impl Serialize + ?Sized)) -> Result<()> {
        let (node_id, state_json) = (node_id.to_owned(), json::text("state_json", state)?);
        self.write(RecordId::NodeState(node_id.clone()), Change::SaveNodeState { node_id, state_json })
    }

    /// Reads the state of a node; `None` if there is none. Errors: as of [`get_message`](Self::get_message).
    pub async fn get_node_state(&self, node_id: &str) -> Result<Option<Json>> {
        let request = v1::GetNodeStateRequest { read: None, node_id: node_id.into() };
        self.get_json(RecordId::NodeState(node_id.into()), request, keyed).await
    }

    /// Deletes the state of a node; whether there was one. Errors: as of [`get_message`](Self::get_message).
    pub async fn delete_node_state(&self, node_id: &str) -> Result<bool> {
        let there = self.get_node_state(node_id).await?.is_some();
        self.delete(RecordId::NodeState(node_id.into()), there)
    }

    /// All node states, in order of their ids. They must fit into memory. Errors: as of [`get_message`](Self::get_message).
    pub async fn list_node_states(&self) -> Result<Vec<(String, Json)>> {
        let request = |page| v1::ListNodeStatesRequest { read: None, page };
        let items = self.fetch_all(Extent::NodeStates, paged(request), Page::try_from).await?;
        self.with_written(items.into_iter().map(json_item), "", |change| match change {
            Change::SaveNodeState { node_id, state_json } => Some((node_id.clone(), Some(Json::of(state_json)))),
            Change::Delete(RecordId::NodeState(node_id)) => Some((node_id.clone(), None)),
            _ => None,
        })
    }

    /// Creates or overwrites a route. Errors: `InvalidArgument` if it cannot be JSON; the transaction has ended.
    pub fn save_route(&self, destination: &str, route: &(impl Serialize + ?Sized)) -> Result<()> {
        let (destination, route_json) = (destination.to_owned(), json::text("route_json", route)?);
        self.write(RecordId::Route(destination.clone()), Change::SaveRoute { destination, route_json })
    }

    /// Reads a route; `None` if there is none. Errors: as of [`get_message`](Self::get_message).
    pub async fn get_route(&self, destination: &str) -> Result<Option<Json>> {
        let request = v1::GetRouteRequest { read: None, destination: destination.into() };
        self.get_json(RecordId::Route(destination.into()), request, keyed).await
    }

    /// Deletes a route; whether there was one. Errors: as of [`get_message`](Self::get_message).
    pub async fn delete_route(&self, destination: &str) -> Result<bool> {
        let there = self.get_route(destination).await?.is_some();
        self.delete(RecordId::Route(destination.into()), there)
    }

    /// All routes whose destinations begin with `prefix`, in order. They must fit into memory.
    ///
    /// Errors: as of [`get_message`](Self::get_message).
    pub async fn list_routes(&self, prefix: &str) -> Result<Vec<(String, Json)>> {
        let request = |page| v1::ListRoutesRequest { read: None, prefix: prefix.into(), page };
        let items = self.fetch_all(Extent::Routes(prefix.into()), paged(request), Page::try_from).await?;
        self.with_written(items.into_iter().map(json_item), prefix, |change| match change {
            Change::SaveRoute { destination, route_json } => Some((destination.clone(), Some(Json::of(route_json)))),
            Change::Delete(RecordId::Route(destination)) => Some((destination.clone(), None)),
            _ => None,
        })
    }

    /// Creates or overwrites a configuration value. Errors: `InvalidArgument` if it cannot be JSON; the transaction has
    /// ended.
    pub fn save_config(&self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<()> {
        let (key, value_json) = (key.to_owned(), json::text("value_json", value)?);
        self.write(RecordId::Config(key.clone()), Change::SaveConfig { key, value_json })
    }

    /// Reads a configuration value; `None` if there is none. Errors: as of [`get_message`](Self::get_message).
    pub async fn get_config(&self, key: &str) -> Result<Option<Json>> {
        let request = v1::GetConfigRequest { read: None, key: key.into() };
        self.get_json(RecordId::Config(key.into()), request, keyed).await
    }

    /// Deletes a configuration value; whether there was one. Errors: as of [`get_message`](Self::get_message).
    pub async fn delete_config(&self, key: &str) -> Result<bool> {
        let there = self.get_config(key).await?.is_some();
        self.delete(RecordId::Config(key.into()), there)
    }

    /// All configuration keys that begin with `prefix`, in order. They must fit into memory.
    ///
    /// Errors: as of [`get_message`](Self::get_message).
    pub async fn list_config_keys(&self, prefix: &str) -> Result<Vec<String>> {
        let request = |page| v1::ListConfigKeysRequest { read: None, prefix: prefix.into(), page };
        let keys = self.fetch_all(Extent::Config(prefix.into()), paged(request), Page::<String>::try_from).await?;
        let items = self.with_written(keys.into_iter().map(|key| (key, ())), prefix, |change| match change {
            Change::SaveConfig { key, .. } => Some((key.clone(), Some(()))),
            Change::Delete(RecordId::Config(key)) => Some((key.clone(), None)),
            _ => None,
        })?;
        Ok(items.into_iter().map(|(key, ())| key).collect())
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
        client.read_from(Preference::Leader, exactly(revision), request).await
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

/// Options of a read at one revision, which the node that answers keeps readable for the next.
fn exactly(revision: u64) -> v1::ReadOptions {
    v1::ReadOptions { revision, keep: true, ..ReadMode::AtLeast(revision).into() }
}

fn over() -> Error {
    Error::Refused("the transaction has ended; begin another".into())
}

fn keyed<A, T>(reply: A) -> Result<Stored<T>>
where
    (String, Stored<T>): TryFrom<A, Error = Error>,
{
    <(String, Stored<T>)>::try_from(reply).map(|(_, stored)| stored)
}

fn json_item((key, stored): (String, Stored<String>)) -> (String, Json) {
    (key, Json::of(stored.value))
}

fn paged<R>(request: impl Fn(Option<v1::PageRequest>) -> R) -> impl Fn(PageRequest) -> R {
    move |page| request(Some(page.into()))
}
