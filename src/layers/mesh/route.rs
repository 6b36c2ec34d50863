//! The dynamic routing table: JSON under a destination.

use super::table::{self, List, Table};
use crate::{
    Result,
    layers::{Write, json},
    limits,
    model::{
        Key, keyspace, kind,
        mesh::{PageRequest, Stored},
        transaction::Put,
    },
    state::View,
};

pub(super) const TABLE: Table = Table {
    keyspace: keyspace::ROUTING_TABLE,
    kind: kind::ROUTE,
    key_field: "destination",
    key_bytes: limits::KEY_BYTES,
};

/// Creates or overwrites the route to a destination. Errors: `InvalidArgument`.
pub fn save(destination: &str, route_json: String) -> Result<Write> {
    json::check("route_json", &route_json)?;
    TABLE.put(destination, Put::value(route_json))
}

/// Reads the route to a destination. Errors: `InvalidArgument`, `NotFound`.
pub fn get(view: &View, destination: &str) -> Result<Stored<String>> {
    table::stored_json(view, TABLE.get(view, destination)?)
}

/// The key of a record. Errors: `InvalidArgument`.
pub(super) fn key(destination: &str) -> Result<Key> {
    TABLE.key(destination)
}

/// Deletes the route to a destination; `NotFound` if there is none. Errors: `InvalidArgument`.
pub fn delete(destination: &str) -> Result<Write> {
    TABLE.delete(destination)
}

/// A page of the routes whose destination begins with `prefix`. Errors: `InvalidArgument`.
pub fn list(prefix: &str, page: &PageRequest) -> Result<List<(String, Stored<String>)>> {
    TABLE.list(prefix, page, table::json_item)
}
