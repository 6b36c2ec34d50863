//! Values and what is known of them, in both faces.

use serde_json::{Map, Value as Json, json};

use super::super::{
    failure::Failure,
    options::Session,
    output::{self, List, time},
};
use crate::client::{Entry, Metadata, StorageStatus, Value, Version};

/// The bytes of a value.
pub(in crate::cli) fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::Json(text) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
    }
}

/// A value with what is known of it, as one object.
pub(in crate::cli) fn object(entry: &Entry) -> Json {
    let mut object = Map::from_iter([("key".to_owned(), Json::from(entry.key.as_str()))]);
    match &entry.value {
        Value::Json(text) => drop(object.insert("value".into(), output::parsed(text))),
        Value::Bytes(bytes) => output::put_bytes(&mut object, "bytes", bytes),
    }
    object.extend(metadata(&entry.metadata));
    Json::Object(object)
}

/// What is known of a value, as members.
pub(super) fn metadata(metadata: &Metadata) -> Map<String, Json> {
    let mut members = Map::from_iter([
        ("version".to_owned(), metadata.version.into()),
        ("create_revision".to_owned(), metadata.create_revision.into()),
        ("mod_revision".to_owned(), metadata.mod_revision.into()),
        ("created_at_ms".to_owned(), metadata.created_at_ms.into()),
        ("updated_at_ms".to_owned(), metadata.updated_at_ms.into()),
        ("principal".to_owned(), metadata.principal.as_str().into()),
    ]);
    if let Some(attributes) = &metadata.attributes {
        members.insert("metadata".into(), output::parsed(attributes));
        members.insert("metadata_revision".into(), metadata.attributes_revision.into());
    }
    members
}

/// A value with what is known of it, as lines.
pub(super) fn lines(entry: &Entry) -> String {
    let mut lines = vec![("key", output::visible(&entry.key).into_owned()), ("value", value(&entry.value))];
    lines.extend(metadata_lines(&entry.metadata));
    output::fields(&lines)
}

fn value(value: &Value) -> String {
    output::shown(bytes(value))
}

/// What is known of a value, as lines.
pub(super) fn metadata_lines(metadata: &Metadata) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("version", metadata.version.to_string()),
        ("created", format!("{} ({})", time(metadata.created_at_ms), output::revision(metadata.create_revision))),
        ("updated", format!("{} ({})", time(metadata.updated_at_ms), output::revision(metadata.mod_revision))),
        ("by", output::visible(&metadata.principal).into_owned()),
    ];
    if let Some(attributes) = metadata.attributes.as_ref().filter(|_| metadata.attributes_revision > 0) {
        let revision = output::revision(metadata.attributes_revision);
        lines.push(("metadata", format!("{} ({revision})", output::visible(attributes))));
    }
    lines
}

/// The columns of [`row`].
pub(super) const COLUMNS: [&str; 5] = ["key", "value", "version", "revision", "updated"];

/// A value as a row of a table.
pub(super) fn row(entry: &Entry) -> Vec<String> {
    let metadata = &entry.metadata;
    vec![
        output::cell(&output::visible(&entry.key)),
        output::cell(&value(&entry.value)),
        metadata.version.to_string(),
        metadata.mod_revision.to_string(),
        time(metadata.updated_at_ms),
    ]
}

/// The versions of a value.
pub(super) fn history(session: &Session, versions: &[Version]) -> Result<(), Failure> {
    let item = |version: &Version| match version {
        Version::Value(entry) => object(entry),
        Version::Deleted { revision, at_ms } => json!({ "deleted_revision": revision, "deleted_at_ms": at_ms }),
    };
    let row = |version: &Version| match version {
        Version::Value(Entry { value: found, metadata, .. }) => vec![
            metadata.mod_revision.to_string(),
            metadata.version.to_string(),
            output::cell(&value(found)),
            time(metadata.updated_at_ms),
            output::cell(&output::visible(&metadata.principal)),
        ],
        Version::Deleted { revision, at_ms } => {
            vec![revision.to_string(), String::new(), "(deleted)".into(), time(*at_ms), String::new()]
        }
    };
    let (items, rows) = (versions.iter().map(item).collect(), versions.iter().map(row).collect());
    let list = List { items, rows, ..List::default() };
    session.out.list(&["revision", "version", "value", "written", "by"], list)
}

/// How much is stored.
pub(super) fn status(session: &Session, status: &StorageStatus) -> Result<(), Failure> {
    let StorageStatus { healthy, entries, bytes, namespaces, capacity } = status;
    let json = json!({
        "healthy": healthy, "size": entries, "bytes": bytes, "namespaces": namespaces, "capacity": capacity,
    });
    session.out.answer(&json, || {
        output::fields(&[
            ("healthy", if *healthy { "yes" } else { "no" }.into()),
            ("values", entries.to_string()),
            ("bytes", bytes.to_string()),
            ("namespaces", namespaces.to_string()),
            ("capacity", capacity.map_or("no bound".into(), |capacity| format!("{capacity} values"))),
        ])
    })
}
