//! The pairs that the core derives from records, so that they can be found from the other side: index
//! entries, unique entries, referrers, expiries, older versions.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::model::{
    Key, Record, ReferenceMode, ScopeId,
    key::{self, PREFIX_BYTES},
    keyspace,
};

/// All pairs derived from a record, but for the unique entries. A later duplicate replaces an earlier one.
pub(super) fn pairs(record_key: &Key, record: &Record) -> BTreeMap<Bytes, Bytes> {
    let mut pairs = BTreeMap::new();
    for entry in record.entries.iter().filter(|entry| !entry.unique) {
        let scope = ScopeId::new(keyspace::ENTRIES, entry.scope);
        // A copy: it may be part of a log entry.
        let payload = Bytes::copy_from_slice(&entry.payload);
        pairs.insert(joined(scope, &entry.key, record_key.as_bytes()), payload);
    }
    for reference in &record.references {
        let mode = match reference.mode {
            ReferenceMode::Cascade => &[0],
            ReferenceMode::Restrict => &[1],
        };
        let target = reference.key.as_bytes();
        let scope = referrers_scope(reference.key.scope());
        pairs.insert(joined(scope, target, record_key.as_bytes()), Bytes::from_static(mode));
    }
    if let Some(at) = record.expires_at_ms {
        pairs.insert(expiry(at, record_key), Bytes::new());
    }
    pairs
}

/// Where it stands who references the records of a scope. It goes with the scope; those that always exist share one.
pub(super) fn referrers_scope(target: ScopeId) -> ScopeId {
    let shared = target.scope < keyspace::FIRST_DYNAMIC_SCOPE;
    ScopeId::new(keyspace::REFERRERS, if shared { keyspace::NO_SCOPE } else { target.scope })
}

/// The scope of all expiries.
pub(super) const EXPIRY: ScopeId = ScopeId::new(keyspace::EXPIRY, keyspace::NO_SCOPE);

fn joined(scope: ScopeId, first: &[u8], second: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + first.len() + second.len() + 4);
    bytes.extend_from_slice(&scope.prefix());
    key::escape(&mut bytes, first);
    bytes.extend_from_slice(second);
    bytes.into()
}

/// The pair key that says when a record expires.
pub(super) fn expiry(at_ms: u64, record_key: &Key) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + 8 + record_key.as_bytes().len());
    bytes.put_slice(&EXPIRY.prefix());
    bytes.put_u64(at_ms);
    bytes.put_slice(record_key.as_bytes());
    bytes.freeze()
}

/// The front of the keys of all expiries at one time.
pub(super) fn expiry_prefix(at_ms: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + 8);
    bytes.put_slice(&EXPIRY.prefix());
    bytes.put_u64(at_ms);
    bytes.freeze()
}

/// When, and which record, from an expiry pair's key.
pub(super) fn parse_expiry(pair_key: &Bytes) -> Option<(u64, Key)> {
    let (at, _) = pair_key.get(PREFIX_BYTES..)?.split_first_chunk::<8>()?;
    let record_key = Key::from_bytes(pair_key.slice(PREFIX_BYTES + 8..))?;
    Some((u64::from_be_bytes(*at), record_key))
}

/// The front of the keys of all referrers of a record.
pub(super) fn referrers_prefix(target: &Key) -> Bytes {
    joined(referrers_scope(target.scope()), target.as_bytes(), &[])
}

/// Who references, and how, from a referrer pair and the length of its prefix.
pub(super) fn parse_referrer(pair_key: &Bytes, value: &[u8], prefix_bytes: usize) -> Option<(Key, ReferenceMode)> {
    let mode = match value {
        [0] => ReferenceMode::Cascade,
        [1] => ReferenceMode::Restrict,
        _ => return None,
    };
    (pair_key.len() >= prefix_bytes).then_some(())?;
    Some((Key::from_bytes(pair_key.slice(prefix_bytes..))?, mode))
}

/// The slot of a unique entry.
pub(super) fn unique_slot(index: u32, entry_key: &[u8]) -> Bytes {
    ScopeId::new(keyspace::UNIQUE, index).key(entry_key).as_bytes().clone()
}

/// What stands in a unique slot: its owner and the payload.
pub(super) fn unique_value(owner: &Key, payload: &[u8]) -> Bytes {
    let owner = owner.as_bytes();
    let mut bytes = BytesMut::with_capacity(4 + owner.len() + payload.len());
    bytes.put_u32_le(u32::try_from(owner.len()).unwrap_or(u32::MAX));
    bytes.put_slice(owner);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// The owner of a unique slot, from what stands in it.
pub(super) fn parse_unique_owner(value: &Bytes) -> Option<Key> {
    let (length, _) = value.split_first_chunk::<4>()?;
    let end = usize::try_from(u32::from_le_bytes(*length)).ok()?.checked_add(4)?;
    (end <= value.len()).then_some(())?;
    Key::from_bytes(value.slice(4..end))
}

/// The scope in which older versions of a scope's records stand.
pub(super) fn history_scope(scope: ScopeId) -> ScopeId {
    ScopeId::new(keyspace::HISTORY, scope.scope)
}

/// What stands among the older versions of a record where it was deleted, at this revision and wall time. No record has
/// version 0.
pub(super) fn deletion(revision: u64, wall_ms: u64) -> Record {
    Record {
        value: Bytes::new(),
        create_revision: 0,
        mod_revision: revision,
        version: 0,
        created_at_ms: wall_ms,
        updated_at_ms: wall_ms,
        expires_at_ms: None,
        entries: Vec::new(),
        references: Vec::new(),
    }
}

/// Whether an older version of a record is none, but says that it was deleted.
pub(super) fn is_deletion(version: &Record) -> bool {
    version.version == 0
}

/// The front of the keys of all older versions of a record.
pub(super) fn history_prefix(record_key: &Key) -> Bytes {
    let scope = record_key.scope();
    let mut bytes = Vec::with_capacity(2 * PREFIX_BYTES + record_key.as_bytes().len());
    bytes.extend_from_slice(&history_scope(scope).prefix());
    bytes.push(scope.keyspace);
    key::escape(&mut bytes, &record_key.user_bytes());
    bytes.into()
}

/// The key of an older version.
pub(super) fn history(record_key: &Key, mod_revision: u64) -> Bytes {
    let mut bytes = BytesMut::from(history_prefix(record_key).as_ref());
    bytes.put_u64(mod_revision);
    bytes.freeze()
}
