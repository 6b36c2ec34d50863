//! Runtime state of the mesh's nodes: JSON under a node id.

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

pub(super) const TABLE: Table =
    Table { keyspace: keyspace::NODE_STATE, kind: kind::NODE_STATE, key_field: "node_id", key_bytes: limits::ID_BYTES };

/// Creates or overwrites the state of a node. Errors: `InvalidArgument`.
pub fn save(node_id: &str, state_json: String) -> Result<Write> {
    json::check("state_json", &state_json)?;
    TABLE.put(node_id, Put::value(state_json))
}

/// Reads the state of a node. Errors: `InvalidArgument`, `NotFound`.
pub fn get(view: &View, node_id: &str) -> Result<Stored<String>> {
    table::stored_json(view, TABLE.get(view, node_id)?)
}

/// The key of a record. Errors: `InvalidArgument`.
pub(super) fn key(node_id: &str) -> Result<Key> {
    TABLE.key(node_id)
}

/// Deletes the state of a node; `NotFound` if there is none. Errors: `InvalidArgument`.
pub fn delete(node_id: &str) -> Result<Write> {
    TABLE.delete(node_id)
}

/// A page of all node states. Errors: `InvalidArgument`.
pub fn list(page: &PageRequest) -> Result<List<(String, Stored<String>)>> {
    TABLE.list("", page, table::json_item)
}
