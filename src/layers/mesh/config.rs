//! Runtime configuration: JSON under a key.

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
    Table { keyspace: keyspace::RUNTIME_CONFIG, kind: kind::CONFIG, key_field: "key", key_bytes: limits::KEY_BYTES };

/// Creates or overwrites a configuration value. Errors: `InvalidArgument`.
pub fn save(key: &str, value_json: String) -> Result<Write> {
    json::check("value_json", &value_json)?;
    TABLE.put(key, Put::value(value_json))
}

/// Reads a configuration value. Errors: `InvalidArgument`, `NotFound`.
pub fn get(view: &View, key: &str) -> Result<Stored<String>> {
    table::stored_json(view, TABLE.get(view, key)?)
}

/// The key of a record. Errors: `InvalidArgument`.
pub(super) fn key(key: &str) -> Result<Key> {
    TABLE.key(key)
}

/// Deletes a configuration value; `NotFound` if there is none. Errors: `InvalidArgument`.
pub fn delete(key: &str) -> Result<Write> {
    TABLE.delete(key)
}

/// A page of the keys that begin with `prefix`. Errors: `InvalidArgument`.
pub fn list_keys(prefix: &str, page: &PageRequest) -> Result<List<String>> {
    TABLE.list(prefix, page, |_, key, _| Ok(key))
}
