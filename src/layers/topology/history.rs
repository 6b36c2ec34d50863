//! What has become of the topology, change by change: a list, the difference of two revisions, and the way back.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::draft::{Draft, broken};
use crate::{
    Error, Result,
    layers::list::{Range, Walk},
    model::{
        Key, Record, ScopeId, keyspace,
        mesh::{Page, PageRequest},
        topology::{Cause, Change, Edit, HistoryEntry, Item, Note},
        transaction::{Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

const SCOPE: ScopeId = ScopeId::new(keyspace::TOPOLOGY_CHANGES, keyspace::NO_SCOPE);
/// Encoded bytes of edits in one entry; more take several.
const ENTRY_BYTES: usize = 128 << 10;
/// Entries that are read at once.
const CHUNK: usize = 64;

/// The entries that tell of a change.
pub(super) fn entries(note: &Note, cause: &Cause, edits: Vec<Edit>) -> Vec<Operation> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for edit in edits {
        bytes += codec::payload_len(&edit);
        if bytes > ENTRY_BYTES && parts.last().is_some_and(|part| !part.is_empty()) {
            parts.push(Vec::new());
            bytes = 0;
        }
        if let Some(part) = parts.last_mut() {
            part.push(edit);
        }
    }
    let entry = |edits| {
        let Note { author, reason } = note.clone();
        let change = Change { author, reason, cause: cause.clone(), edits };
        let put = Put::value(codec::encode(Kind::TopologyChange, &change));
        Operation::PutStamped { prefix: SCOPE.key(&[]), put }
    };
    parts.into_iter().map(entry).collect()
}

/// What the entries say that a transaction, which is not committed yet, has written under these keys.
///
/// Errors: those of the view.
pub fn told(view: &View, keys: &[Key]) -> Result<Vec<Edit>> {
    let mut edits = Vec::new();
    for key in keys {
        if let Some(record) = view.record(key)? {
            edits.extend(entry(view, key, &record)?.change.edits);
        }
    }
    Ok(edits)
}

/// Whether an entry of the history stands there.
pub fn is_entry(key: &Key) -> bool {
    key.scope() == SCOPE
}

fn open(view: &View, key: &Key, value: &[u8], at_ms: u64) -> Result<HistoryEntry> {
    let change = codec::decode(Kind::TopologyChange, value).map_err(|error| broken(view, key, &error))?;
    let position = key.user_bytes();
    let revision = position.first_chunk::<8>().ok_or_else(|| broken(view, key, &"no revision"))?;
    Ok(HistoryEntry { revision: u64::from_be_bytes(*revision), at_ms, change })
}

/// A page of the history that is wanted, from the oldest entry on.
#[derive(Debug)]
pub struct List(Walk);

/// A page of the entries behind a revision. Errors: `InvalidArgument`.
pub fn list(since: u64, page: &PageRequest) -> Result<List> {
    let range = Range { start: after(since), end: None };
    Ok(List(Walk::open(keyspace::TOPOLOGY_CHANGES, &since, range, page)?))
}

/// The first position behind the entries of a revision.
pub(in crate::layers) fn after(revision: u64) -> Vec<u8> {
    revision.saturating_add(1).to_be_bytes().to_vec()
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.0.revision()
    }

    /// The page. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View) -> Result<Page<HistoryEntry>> {
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(SCOPE, start, end, limit)?;
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), (key, record))).collect())
        };
        self.0.read(view, fetch, |_, (key, record)| {
            Ok((open(view, &key, &record.value, record.created_at_ms)?, record.value.len()))
        })
    }
}

/// The scope in which the entries stand.
pub(in crate::layers) const fn scope() -> ScopeId {
    SCOPE
}

/// An entry from its record.
pub(in crate::layers) fn entry(view: &View, key: &Key, record: &Record) -> Result<HistoryEntry> {
    open(view, key, &record.value, record.created_at_ms)
}

/// The entries behind a position, in order, some at a time: each with its position.
pub(in crate::layers) fn behind(view: &View, position: &[u8]) -> Result<Vec<(Bytes, HistoryEntry)>> {
    let records = view.records(SCOPE, position, None, CHUNK)?;
    records.iter().map(|(key, record)| Ok((key.user_bytes(), entry(view, key, record)?))).collect()
}

/// Calls `each` with the entries of `since < revision <= until`, in order.
fn walk(view: &View, since: u64, until: u64, mut each: impl FnMut(HistoryEntry)) -> Result<()> {
    let (mut start, end) = (after(since), after(until));
    loop {
        let records = view.records(SCOPE, &start, Some(&end), CHUNK)?;
        let count = records.len();
        for (key, record) in records {
            start = key.user_bytes().to_vec();
            start.push(0);
            each(open(view, &key, &record.value, record.created_at_ms)?);
        }
        if count < CHUNK {
            return Ok(());
        }
    }
}

/// What changed between two revisions, item by item. Errors: `InvalidArgument` for revisions that are not there.
pub fn diff(view: &View, from: u64, to: u64) -> Result<Vec<Edit>> {
    let to = if to == 0 { view.revision() } else { to };
    check_revision(view, "to", to)?;
    if from > to {
        return Err(Error::invalid("from", from.to_string(), format!("must not be after revision {to}")));
    }
    let mut edits: BTreeMap<String, Edit> = BTreeMap::new();
    walk(view, from, to, |entry| {
        for edit in entry.change.edits {
            let Some(id) = edit.item().map(|item| item.id().to_owned()) else {
                continue;
            };
            edits.entry(id).and_modify(|earlier| earlier.after.clone_from(&edit.after)).or_insert(edit);
        }
    })?;
    let mut edits: Vec<Edit> = edits.into_values().filter(|edit| edit.before != edit.after).collect();
    edits.sort_by_key(|edit| edit.item().map(Item::kind));
    Ok(edits)
}

fn check_revision(view: &View, field: &str, revision: u64) -> Result<()> {
    if revision <= view.revision() {
        return Ok(());
    }
    let rule = format!("must not be after the present one, {}", view.revision());
    Err(Error::invalid(field, revision.to_string(), rule))
}

/// Makes everything as it was at a revision. Errors: `InvalidArgument` for one that is not there yet.
pub(super) fn back_to(draft: &mut Draft<'_>, view: &View, revision: u64) -> Result<()> {
    check_revision(view, "revision", revision)?;
    for edit in diff(view, revision, 0)? {
        if let Some(id) = edit.item().map(|item| item.id().to_owned()) {
            draft.restore(id, edit.before);
        }
    }
    Ok(())
}

/// What became of the change at a revision that was to be confirmed: the last entry that tells of it.
pub(super) fn fate(view: &View, revision: u64) -> Result<Option<(u64, Cause)>> {
    let mut fate = None;
    walk(view, revision, view.revision(), |entry| {
        let tells = match entry.change.cause {
            Cause::Confirm(of) => of == revision,
            Cause::Unconfirmed(_) | Cause::Rollback(_) => true,
            Cause::Edit | Cause::Apply | Cause::ApplyUnconfirmed(_) => false,
        };
        if tells && fate.is_none() {
            fate = Some((entry.revision, entry.change.cause));
        }
    })?;
    Ok(fate)
}
