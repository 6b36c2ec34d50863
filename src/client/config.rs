//! Runtime configuration.

use serde::Serialize;

use super::{Client, Json, Page, PageRequest, ReadMode, Stored, Written, json, pages};
use crate::{Result, proto::v1};

/// Runtime configuration, JSON by key; see [`Client::config`].
#[derive(Clone, Debug)]
pub struct Config {
    client: Client,
}

impl Config {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode) }
    }

    /// Creates or overwrites a value.
    ///
    /// Errors: `InvalidArgument` if the key is empty or over 1,024 bytes, or the value over 1 MiB as JSON.
    pub async fn save(&self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<Written> {
        self.save_json(key, &json::text("value_json", value)?).await
    }

    /// The same with the value as JSON text, which is kept exactly as it is.
    ///
    /// Errors: also `InvalidArgument` if it is not JSON.
    pub async fn save_json(&self, key: &str, raw: &str) -> Result<Written> {
        let (key, value_json, lease) = (key.into(), raw.into(), self.client.lease);
        self.client.write(v1::SaveConfigRequest { attempt: None, key, value_json, lease }).await
    }

    /// Reads a value.
    ///
    /// Errors: `NotFound` if there is none; `TooStale` if no node can keep what the read mode asks.
    pub async fn get(&self, key: &str) -> Result<Stored<Json>> {
        let reply = self.client.read(v1::GetConfigRequest { read: None, key: key.into() }).await?;
        <(String, Stored<String>)>::try_from(reply).map(|(_, stored)| json::stored(stored))
    }

    /// Deletes a value.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn delete(&self, key: &str) -> Result<Written> {
        self.client.write(v1::DeleteConfigRequest { attempt: None, key: key.into() }).await
    }

    /// One page of the keys that begin with `prefix`, in order.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list; `ViewTooOld` if it is too old.
    pub async fn list_keys(&self, prefix: &str, page: PageRequest) -> Result<Page<String>> {
        let request = v1::ListConfigKeysRequest { read: None, prefix: prefix.into(), page: Some(page.into()) };
        self.client.read(request).await?.try_into()
    }

    /// All keys that begin with `prefix`, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`list_keys`](Self::list_keys).
    pub async fn list_all_keys(&self, prefix: &str) -> Result<Vec<String>> {
        pages::all(move |page| self.list_keys(prefix, page)).await
    }
}
