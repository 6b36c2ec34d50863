//! The storage contract's values as wire messages, and back.

use std::time::Duration;

use super::{
    convert::{expected, required, stored, version_of},
    query::fields,
    v1::{self, storage_value, storage_version, write_condition},
};
use crate::{
    Error, Result,
    model::{
        isolation::{Begun, Isolation},
        kv::{
            DeleteResult, Deletion, Entry, KeyFilter, Metadata, Namespace, NamespaceChange, NamespaceSettings, Set,
            SetResult, StorageStatus, Value, Version,
        },
        mesh::Condition,
    },
};

impl From<Value> for v1::StorageValue {
    fn from(value: Value) -> Self {
        let value = match value {
            Value::Json(text) => storage_value::Value::Json(text),
            Value::Bytes(bytes) => storage_value::Value::Data(bytes),
        };
        Self { value: Some(value) }
    }
}

/// Errors: the field that is not there.
fn value(value: Option<v1::StorageValue>) -> Option<Value> {
    match value?.value? {
        storage_value::Value::Json(text) => Some(Value::Json(text)),
        storage_value::Value::Data(bytes) => Some(Value::Bytes(bytes)),
    }
}

impl From<Metadata> for v1::StorageMetadata {
    fn from(metadata: Metadata) -> Self {
        let Metadata { created_at_ms, updated_at_ms, create_revision, mod_revision, version, .. } = metadata;
        Self {
            created_at_ms,
            updated_at_ms,
            create_revision,
            mod_revision,
            version,
            principal: metadata.principal,
            attributes_json: metadata.attributes,
            attributes_revision: metadata.attributes_revision,
        }
    }
}

impl From<v1::StorageMetadata> for Metadata {
    fn from(metadata: v1::StorageMetadata) -> Self {
        let v1::StorageMetadata { created_at_ms, updated_at_ms, create_revision, mod_revision, version, .. } = metadata;
        Self {
            created_at_ms,
            updated_at_ms,
            create_revision,
            mod_revision,
            version,
            principal: metadata.principal,
            attributes: metadata.attributes_json,
            attributes_revision: metadata.attributes_revision,
        }
    }
}

impl From<Entry> for v1::StorageEntry {
    fn from(entry: Entry) -> Self {
        let Entry { key, value, metadata } = entry;
        Self { key, value: Some(value.into()), metadata: Some(metadata.into()) }
    }
}

impl TryFrom<v1::StorageEntry> for Entry {
    type Error = Error;

    fn try_from(entry: v1::StorageEntry) -> Result<Self> {
        let v1::StorageEntry { key, value: sent, metadata } = entry;
        Ok(Self { key, value: expected("value", value(sent))?, metadata: expected("metadata", metadata)?.into() })
    }
}

impl From<Condition> for v1::WriteCondition {
    fn from(condition: Condition) -> Self {
        use write_condition::Condition as Wire;
        let condition = match condition {
            Condition::Exists => Wire::Exists(true),
            Condition::Missing => Wire::Exists(false),
            Condition::Version(version) => Wire::Version(version),
            Condition::ModRevision(revision) => Wire::ModRevision(revision),
        };
        Self { condition: Some(condition) }
    }
}

/// What a write is made to depend on. Errors: `InvalidArgument` for a condition that says nothing.
pub fn condition(condition: Option<v1::WriteCondition>) -> Result<Option<Condition>> {
    use write_condition::Condition as Wire;
    let Some(condition) = condition else { return Ok(None) };
    Ok(Some(match required("condition", condition.condition)? {
        Wire::Exists(true) => Condition::Exists,
        Wire::Exists(false) => Condition::Missing,
        Wire::Version(version) => Condition::Version(version),
        Wire::ModRevision(revision) => Condition::ModRevision(revision),
    }))
}

impl From<Set> for v1::SetValue {
    fn from(set: Set) -> Self {
        let Set { key, value, attributes: metadata_json, overwrite, condition, lease } = set;
        let (condition, lease) = (condition.map(Into::into), lease.unwrap_or_default());
        Self { key, value: Some(value.into()), metadata_json, overwrite: Some(overwrite), condition, lease }
    }
}

impl TryFrom<v1::SetValue> for Set {
    type Error = Error;

    fn try_from(set: v1::SetValue) -> Result<Self> {
        let v1::SetValue { key, value: sent, metadata_json: attributes, overwrite, condition: only_if, lease } = set;
        Ok(Self {
            key,
            value: required("value", value(sent))?,
            attributes,
            overwrite: overwrite.unwrap_or(true),
            condition: condition(only_if)?,
            lease: Some(lease).filter(|lease| *lease > 0),
        })
    }
}

impl From<SetResult> for v1::SetResult {
    fn from(result: SetResult) -> Self {
        let SetResult { key, version, error } = result;
        Self { key, version, error }
    }
}

impl v1::StorageDeleteManyRequest {
    /// What is to be deleted. Errors: `InvalidArgument` for conditions that are not as many as the keys.
    pub fn deletions(self) -> Result<Vec<Deletion>> {
        let Self { keys, conditions, .. } = self;
        if !conditions.is_empty() && conditions.len() != keys.len() {
            let rule = format!("must be as many as the keys ({}), or none", keys.len());
            return Err(Error::invalid("conditions", conditions.len().to_string(), rule));
        }
        let mut conditions = conditions.into_iter();
        let deletion = |key| {
            let demanded = conditions.next().filter(|only_if| only_if.condition.is_some());
            Ok(Deletion { key, condition: condition(demanded)? })
        };
        keys.into_iter().map(deletion).collect()
    }
}

impl From<DeleteResult> for v1::DeleteResult {
    fn from(DeleteResult { key, deleted, error }: DeleteResult) -> Self {
        Self { key, deleted, error }
    }
}

impl From<v1::DeleteResult> for DeleteResult {
    fn from(v1::DeleteResult { key, deleted, error }: v1::DeleteResult) -> Self {
        Self { key, deleted, error }
    }
}

impl From<v1::SetResult> for SetResult {
    fn from(result: v1::SetResult) -> Self {
        let v1::SetResult { key, version, error } = result;
        Self { key, version, error }
    }
}

impl From<(v1::ReadHeader, Entry)> for v1::StorageGetResponse {
    fn from((header, entry): (v1::ReadHeader, Entry)) -> Self {
        Self { header: Some(header), entry: Some(entry.into()) }
    }
}

impl From<(v1::ReadHeader, bool)> for v1::StorageHasResponse {
    fn from((header, exists): (v1::ReadHeader, bool)) -> Self {
        Self { header: Some(header), exists }
    }
}

impl From<(v1::ReadHeader, (Vec<Entry>, Vec<String>))> for v1::StorageGetManyResponse {
    fn from((header, (entries, missing)): (v1::ReadHeader, (Vec<Entry>, Vec<String>))) -> Self {
        Self { header: Some(header), entries: entries.into_iter().map(Into::into).collect(), missing }
    }
}

impl From<(v1::ReadHeader, Metadata)> for v1::GetMetadataResponse {
    fn from((header, metadata): (v1::ReadHeader, Metadata)) -> Self {
        Self { header: Some(header), metadata: Some(metadata.into()) }
    }
}

impl From<(v1::ReadHeader, (Vec<Version>, Option<u64>))> for v1::StorageHistoryResponse {
    fn from((header, (versions, more_before)): (v1::ReadHeader, (Vec<Version>, Option<u64>))) -> Self {
        let version = |version| match version {
            Version::Value(entry) => storage_version::Version::Entry(entry.into()),
            Version::Deleted { revision, at_ms } => {
                storage_version::Version::Deletion(v1::StorageDeletion { revision, deleted_at_ms: at_ms })
            }
        };
        let versions = versions.into_iter().map(|sent| v1::StorageVersion { version: Some(version(sent)) });
        Self { header: Some(header), versions: versions.collect(), more_before }
    }
}

impl TryFrom<v1::StorageVersion> for Version {
    type Error = Error;

    fn try_from(sent: v1::StorageVersion) -> Result<Self> {
        Ok(match expected("version", sent.version)? {
            storage_version::Version::Entry(entry) => Self::Value(entry.try_into()?),
            storage_version::Version::Deletion(v1::StorageDeletion { revision, deleted_at_ms }) => {
                Self::Deleted { revision, at_ms: deleted_at_ms }
            }
        })
    }
}

impl From<NamespaceSettings> for v1::NamespaceSettings {
    fn from(settings: NamespaceSettings) -> Self {
        let NamespaceSettings { history, max_entries, max_bytes } = settings;
        Self { history, max_entries, max_bytes }
    }
}

impl From<v1::NamespaceSettings> for NamespaceSettings {
    fn from(settings: v1::NamespaceSettings) -> Self {
        let v1::NamespaceSettings { history, max_entries, max_bytes } = settings;
        Self { history, max_entries, max_bytes }
    }
}

impl v1::ModifyNamespaceRequest {
    /// What is to change of a namespace.
    pub fn of(name: &str, change: NamespaceChange) -> Self {
        let NamespaceChange { metadata: metadata_json, history, max_entries, max_bytes } = change;
        Self { attempt: None, name: name.into(), metadata_json, history, max_entries, max_bytes }
    }

    /// The name, and what is to change.
    pub fn open(self) -> (String, NamespaceChange) {
        let Self { attempt: _, name, metadata_json: metadata, history, max_entries, max_bytes } = self;
        (name, NamespaceChange { metadata, history, max_entries, max_bytes })
    }
}

impl From<Namespace> for v1::NamespaceInfo {
    fn from(namespace: Namespace) -> Self {
        let Namespace { name, settings, metadata, entries, bytes, indexes } = namespace;
        let (version, settings, indexes) = (Some(version_of(&metadata)), Some(settings.into()), fields(indexes));
        Self { name, settings, metadata_json: metadata.value, version, entries, bytes, indexes }
    }
}

impl TryFrom<v1::NamespaceInfo> for Namespace {
    type Error = Error;

    fn try_from(sent: v1::NamespaceInfo) -> Result<Self> {
        let v1::NamespaceInfo { name, settings, metadata_json, version, entries, bytes, indexes } = sent;
        let (settings, metadata) = (expected("settings", settings)?.into(), stored(metadata_json, version)?);
        Ok(Self { name, settings, metadata, entries, bytes, indexes: fields(indexes) })
    }
}

impl From<v1::StorageListRequest> for KeyFilter {
    fn from(request: v1::StorageListRequest) -> Self {
        let v1::StorageListRequest { pattern, limit, offset, cursor, .. } = request;
        Self { pattern, limit, offset, cursor }
    }
}

impl From<(v1::ReadHeader, StorageStatus)> for v1::StorageStatusResponse {
    fn from((header, status): (v1::ReadHeader, StorageStatus)) -> Self {
        let StorageStatus { healthy, entries, bytes, namespaces, capacity } = status;
        Self { header: Some(header), healthy, entries, bytes, namespaces, capacity: capacity.unwrap_or_default() }
    }
}

impl From<v1::StorageStatusResponse> for StorageStatus {
    fn from(answer: v1::StorageStatusResponse) -> Self {
        let v1::StorageStatusResponse { header: _, healthy, entries, bytes, namespaces, capacity } = answer;
        Self { healthy, entries, bytes, namespaces, capacity: (capacity > 0).then_some(capacity) }
    }
}

impl From<Isolation> for v1::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::Serializable => Self::Serializable,
            Isolation::ReadCommitted => Self::ReadCommitted,
            Isolation::ReadUncommitted => Self::ReadUncommitted,
        }
    }
}

/// Errors: `InvalidArgument` for a number that means nothing.
pub fn isolation(number: i32) -> Result<Isolation> {
    match v1::Isolation::try_from(number) {
        Ok(v1::Isolation::Unspecified | v1::Isolation::Serializable) => Ok(Isolation::Serializable),
        Ok(v1::Isolation::ReadCommitted) => Ok(Isolation::ReadCommitted),
        Ok(v1::Isolation::ReadUncommitted) => Ok(Isolation::ReadUncommitted),
        Err(_) => {
            let rule = "must be serializable (1), read-committed (2) or read-uncommitted (3)";
            Err(Error::invalid("isolation", number.to_string(), rule))
        }
    }
}

impl From<(u64, Begun)> for v1::BeginTransactionResponse {
    fn from((leader_id, begun): (u64, Begun)) -> Self {
        let Begun { id: transaction, revision, expires_in } = begun;
        let expires_in_ms = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX);
        Self { transaction, revision, expires_in_ms, leader_id }
    }
}

impl From<v1::BeginTransactionResponse> for Begun {
    fn from(answer: v1::BeginTransactionResponse) -> Self {
        let v1::BeginTransactionResponse { transaction: id, revision, expires_in_ms, leader_id: _ } = answer;
        Self { id, revision, expires_in: Duration::from_millis(expires_in_ms) }
    }
}
