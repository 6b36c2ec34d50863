//! Shared state.

use bytes::Bytes;

use super::{Client, Page, PageRequest, ReadMode, Stored, Written, pages};
use crate::{Result, proto::v1};

/// Shared state, bytes by key; see [`Client::state`].
#[derive(Clone, Debug)]
pub struct State {
    client: Client,
}

impl State {
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
    /// Errors: `InvalidArgument` if the key is empty or over 1,024 bytes, or the value over 1 MiB.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<Written> {
        let (key, value, lease) = (key.into(), value.into(), self.client.lease);
        self.client.write(v1::PutStateRequest { attempt: None, key, value, lease }).await
    }

    /// Reads a value.
    ///
    /// Errors: `NotFound` if there is none; `TooStale` if no node can keep what the read mode asks.
    pub async fn get(&self, key: &str) -> Result<Stored<Bytes>> {
        let reply = self.client.read(v1::GetStateRequest { read: None, key: key.into() }).await?;
        <(String, Stored<Bytes>)>::try_from(reply).map(|(_, stored)| stored)
    }

    /// Deletes a value.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn delete(&self, key: &str) -> Result<Written> {
        self.client.write(v1::DeleteStateRequest { attempt: None, key: key.into() }).await
    }

    /// One page of the keys that begin with `prefix` and their values, in order of the keys.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list; `ViewTooOld` if it is too old.
    pub async fn list(&self, prefix: &str, page: PageRequest) -> Result<Page<(String, Stored<Bytes>)>> {
        let request = v1::ListStateRequest { read: None, prefix: prefix.into(), page: Some(page.into()) };
        self.client.read(request).await?.try_into()
    }

    /// All keys that begin with `prefix` and their values, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`list`](Self::list).
    pub async fn list_all(&self, prefix: &str) -> Result<Vec<(String, Stored<Bytes>)>> {
        pages::all(move |page| self.list(prefix, page)).await
    }
}
