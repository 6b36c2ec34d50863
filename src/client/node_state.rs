//! The runtime state of mesh nodes.

use serde::Serialize;

use super::{Client, Json, Page, PageRequest, ReadMode, Stored, Written, json, pages};
use crate::{Result, proto::v1};

/// The runtime state of mesh nodes, JSON by node id; see [`Client::node_state`].
#[derive(Clone, Debug)]
pub struct NodeStates {
    client: Client,
}

impl NodeStates {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode) }
    }

    /// Creates or overwrites the state of a node.
    ///
    /// Errors: `InvalidArgument` if the id is empty or over 255 bytes, or the state over 1 MiB as JSON.
    pub async fn save(&self, node_id: &str, state: &(impl Serialize + ?Sized)) -> Result<Written> {
        self.save_json(node_id, &json::text("state_json", state)?).await
    }

    /// The same with the state as JSON text, which is kept exactly as it is.
    ///
    /// Errors: also `InvalidArgument` if it is not JSON.
    pub async fn save_json(&self, node_id: &str, raw: &str) -> Result<Written> {
        let (node_id, state_json, lease) = (node_id.into(), raw.into(), self.client.lease);
        self.client.write(v1::SaveNodeStateRequest { attempt: None, node_id, state_json, lease }).await
    }

    /// Reads the state of a node.
    ///
    /// Errors: `NotFound` if there is none; `TooStale` if no node can keep what the read mode asks.
    pub async fn get(&self, node_id: &str) -> Result<Stored<Json>> {
        let reply = self.client.read(v1::GetNodeStateRequest { read: None, node_id: node_id.into() }).await?;
        <(String, Stored<String>)>::try_from(reply).map(|(_, stored)| json::stored(stored))
    }

    /// Deletes the state of a node.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn delete(&self, node_id: &str) -> Result<Written> {
        self.client.write(v1::DeleteNodeStateRequest { attempt: None, node_id: node_id.into() }).await
    }

    /// One page of node ids and their states, in order of the ids.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list; `ViewTooOld` if it is too old.
    pub async fn list(&self, page: PageRequest) -> Result<Page<(String, Stored<Json>)>> {
        let reply = self.client.read(v1::ListNodeStatesRequest { read: None, page: Some(page.into()) }).await?;
        Page::try_from(reply).map(json::page)
    }

    /// All node ids and their states, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`list`](Self::list).
    pub async fn list_all(&self) -> Result<Vec<(String, Stored<Json>)>> {
        pages::all(move |page| self.list(page)).await
    }
}
