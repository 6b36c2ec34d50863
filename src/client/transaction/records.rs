//! What a transaction reads and writes, kind by kind.

use bytes::Bytes;
use serde::Serialize;

use super::OpenTransaction;
use crate::{
    Error, Result,
    client::{Json, json},
    model::{
        ReadMode,
        mesh::{Change, Extent, Message, MessageFilter, Page, PageRequest, RecordId, Stored},
    },
    proto::{convert, v1},
};

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
