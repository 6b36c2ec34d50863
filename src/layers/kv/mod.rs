//! The storage contract: values by key, in namespaces.
//!
//! A namespace is a record under its name and two scopes of the core, one for values and one for the attributes that
//! callers give them ([`namespace`]). So it is dropped or cleared at once, however much it holds, its bounds and older
//! versions are kept by the core, and a value that is set without attributes is written without being read.
//!
//! Every write is decided on a view, and guarded by what it saw there: the namespace, and what it was told to look at
//! ([`mod@write`]). So a write that is refused is refused by name, and one that another overtook is decided anew. Reads are
//! in [`read`]; [`query`] finds values by what is in them, with the help of [`index`].
//!
//! Where the original left open what happens: a write creates the namespace that it names; overwriting replaces the value and
//! merges the attributes; deleting what is not there is no error, reading it is; keys are ordered by their bytes.

mod glob;
pub mod index;
pub mod namespace;
pub mod query;
pub mod read;
pub(super) mod watch;
pub mod write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    error::Fault,
    layers::{check, json},
    limits,
    model::{
        Key, Record, kind,
        kv::{Entry, Metadata, Value},
        mesh::Condition,
        transaction::Compare,
    },
    state::View,
    storage::codec::{self, Kind},
};

/// Frozen (kind `StoredValue`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    format: Format,
    /// Who wrote it.
    principal: String,
    data: Bytes,
}

/// Frozen: grows at the end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Format {
    Json,
    Bytes,
}

/// A value as it is stored.
fn seal(value: Value, principal: &str) -> Bytes {
    let (format, data) = match value {
        Value::Json(text) => (Format::Json, text.into()),
        Value::Bytes(bytes) => (Format::Bytes, bytes),
    };
    codec::encode(Kind::StoredValue, &Stored { format, principal: principal.into(), data })
}

/// A value with what is known of it, but for its attributes.
fn open(view: &View, key: String, record: &Record) -> Result<Entry> {
    let broken =
        |error: &dyn std::fmt::Display| view.fault(Fault::bug(format!("the value {key:?} is broken: {error}")));
    let stored: Stored = codec::decode(Kind::StoredValue, &record.value).map_err(|error| broken(&error))?;
    let value = match stored.format {
        Format::Json => Value::Json(String::from_utf8(stored.data.into()).map_err(|error| broken(&error))?),
        Format::Bytes => Value::Bytes(stored.data),
    };
    let metadata = Metadata {
        created_at_ms: record.created_at_ms,
        updated_at_ms: record.updated_at_ms,
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        version: record.version,
        principal: stored.principal,
        attributes: None,
        attributes_revision: 0,
    };
    Ok(Entry { key, value, metadata })
}

/// What queries see of a stored value: its JSON text; `None`: it is bytes.
fn text(view: &View, record: &Record) -> Result<Option<Bytes>> {
    let broken = |error| view.fault(Fault::bug(format!("a stored value is broken: {error}")));
    let Stored { format, data, .. } = codec::decode(Kind::StoredValue, &record.value).map_err(broken)?;
    Ok(matches!(format, Format::Json).then_some(data))
}

/// The same with the attributes of a record of them.
fn with_attributes(view: &View, mut entry: Entry, attributes: Option<&Record>) -> Result<Entry> {
    let metadata = &mut entry.metadata;
    metadata.attributes = Some(attributes.map_or(Ok("{}".into()), |record| attributes_of(view, record))?);
    metadata.attributes_revision = attributes.map_or(0, |record| record.mod_revision);
    metadata.updated_at_ms = attributes.map_or(0, |record| record.updated_at_ms).max(metadata.updated_at_ms);
    Ok(entry)
}

/// The text of attributes that were checked when they were written.
fn attributes_of(view: &View, record: &Record) -> Result<String> {
    let broken = |error| view.fault(Fault::bug(format!("stored attributes are not UTF-8: {error}")));
    String::from_utf8(record.value.to_vec()).map_err(broken)
}

/// The key of a value, which was checked when it was written.
fn key_text(view: &View, key: &Key) -> Result<String> {
    let broken = |error| view.fault(Fault::bug(format!("a stored key is not UTF-8: {error}")));
    String::from_utf8(key.user_bytes().into()).map_err(broken)
}

/// That a key is one. Errors: `InvalidArgument`.
fn check_key(key: &str) -> Result<()> {
    check::check_name("key", key, limits::KEY_BYTES)?;
    if key.trim().is_empty() {
        return Err(Error::invalid("key", key, "must not be all spaces"));
    }
    Ok(())
}

/// That a value can be stored. Errors: `InvalidArgument`.
fn check_value(value: &Value) -> Result<()> {
    match value {
        Value::Json(text) => json::check("value", text),
        Value::Bytes(bytes) => check::check_size("value", bytes.len()),
    }
}

/// A value by its name towards people.
fn named(namespace: &str, key: &str) -> String {
    format!("{key} in namespace {namespace}")
}

fn missing(namespace: &str, key: &str) -> Error {
    Error::NotFound { kind: kind::VALUE, name: named(namespace, key) }
}

/// What makes sure that a record is as it was seen.
fn unchanged(key: &Key, record: Option<&Record>) -> Compare {
    Compare::written_at(key.clone(), record.map_or(0, |record| record.mod_revision))
}

/// Whether a condition holds of a record.
fn holds(condition: Condition, record: Option<&Record>) -> bool {
    match condition {
        Condition::Exists => record.is_some(),
        Condition::Missing => record.is_none(),
        Condition::Version(version) => record.map_or(0, |record| record.version) == version,
        Condition::ModRevision(revision) => record.map_or(0, |record| record.mod_revision) == revision,
    }
}
