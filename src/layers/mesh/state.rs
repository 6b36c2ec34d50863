//! Shared state of the mesh: bytes under a key.

use bytes::Bytes;

use super::table::{List, Table};
use crate::{
    Result,
    layers::{
        Write,
        check::{check_size, stored},
    },
    limits,
    model::{
        Key, keyspace, kind,
        mesh::{PageRequest, Stored},
        transaction::Put,
    },
    state::View,
};

pub(super) const TABLE: Table =
    Table { keyspace: keyspace::STATE, kind: kind::STATE, key_field: "key", key_bytes: limits::KEY_BYTES };

/// Creates or overwrites a value. Errors: `InvalidArgument`.
pub fn put(key: &str, value: Bytes) -> Result<Write> {
    check_size("value", value.len())?;
    TABLE.put(key, Put::value(value))
}

/// Reads a value. Errors: `InvalidArgument`, `NotFound`.
pub fn get(view: &View, key: &str) -> Result<Stored<Bytes>> {
    TABLE.get(view, key).map(|record| stored(&record, record.value.clone()))
}

/// The key of a record. Errors: `InvalidArgument`.
pub(super) fn key(key: &str) -> Result<Key> {
    TABLE.key(key)
}

/// Deletes a value; `NotFound` if there is none. Errors: `InvalidArgument`.
pub fn delete(key: &str) -> Result<Write> {
    TABLE.delete(key)
}

/// A page of the values whose key begins with `prefix`. Errors: `InvalidArgument`.
pub fn list(prefix: &str, page: &PageRequest) -> Result<List<(String, Stored<Bytes>)>> {
    TABLE.list(prefix, page, |_, key, record| Ok((key, stored(&record, record.value.clone()))))
}
