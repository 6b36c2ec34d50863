//! The routing table.

use serde::Serialize;

use super::{Client, Json, Page, PageRequest, ReadMode, Stored, Written, json, pages};
use crate::{Result, proto::v1};

/// The routing table, JSON by destination; see [`Client::routes`].
#[derive(Clone, Debug)]
pub struct Routes {
    client: Client,
}

impl Routes {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode) }
    }

    /// Creates or overwrites the route to a destination.
    ///
    /// Errors: `InvalidArgument` if the destination is empty or over 1,024 bytes, or the route over 1 MiB as JSON.
    pub async fn save(&self, destination: &str, route: &(impl Serialize + ?Sized)) -> Result<Written> {
        self.save_json(destination, &json::text("route_json", route)?).await
    }

    /// The same with the route as JSON text, which is kept exactly as it is.
    ///
    /// Errors: also `InvalidArgument` if it is not JSON.
    pub async fn save_json(&self, destination: &str, raw: &str) -> Result<Written> {
        let (destination, route_json, lease) = (destination.into(), raw.into(), self.client.lease);
        self.client.write(v1::SaveRouteRequest { attempt: None, destination, route_json, lease }).await
    }

    /// Reads the route to a destination.
    ///
    /// Errors: `NotFound` if there is none; `TooStale` if no node can keep what the read mode asks.
    pub async fn get(&self, destination: &str) -> Result<Stored<Json>> {
        let reply = self.client.read(v1::GetRouteRequest { read: None, destination: destination.into() }).await?;
        <(String, Stored<String>)>::try_from(reply).map(|(_, stored)| json::stored(stored))
    }

    /// Deletes the route to a destination.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn delete(&self, destination: &str) -> Result<Written> {
        self.client.write(v1::DeleteRouteRequest { attempt: None, destination: destination.into() }).await
    }

    /// One page of the destinations that begin with `prefix` and their routes, in order of the destinations.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list; `ViewTooOld` if it is too old.
    pub async fn list(&self, prefix: &str, page: PageRequest) -> Result<Page<(String, Stored<Json>)>> {
        let request = v1::ListRoutesRequest { read: None, prefix: prefix.into(), page: Some(page.into()) };
        Page::try_from(self.client.read(request).await?).map(json::page)
    }

    /// All destinations that begin with `prefix` and their routes, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`list`](Self::list).
    pub async fn list_all(&self, prefix: &str) -> Result<Vec<(String, Stored<Json>)>> {
        pages::all(move |page| self.list(prefix, page)).await
    }
}
