//! Leases: records that expire, and what is attached to them.
//!
//! A lease is a record with an expiry. What is attached to it references it, and so goes with it in one transaction of the
//! core, whether it expires or is revoked. Keeping it alive writes the record again: it stays the same record, so the
//! references hold. A write that says nothing of a lease leaves its record without one, as it leaves it without anything else
//! that is not written.
//!
//! **All of it goes at once.** The core deletes so many records, of so many bytes, in one transaction, and lets what is more go
//! in parts; a lease that went in parts could be kept alive in between, with some of its keys gone. So [`limits::LEASE_KEYS`]
//! and [`limits::LEASED_VALUE_BYTES`] keep every lease below those bounds.
//!
//! **Counting.** Who attaches notes how many in a counter beside the lease, which the core adds to without anybody reading it,
//! and guards on that there is room. What is detached is not noted, so the counter is at least what is there. When it says that
//! there is no more room, what is there is counted, and the counter set to that, guarded by the counter as it was seen. In a
//! transaction it is always counted: what waits for its commit is not added to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Write,
    check::check_some,
    kv,
    list::{Range, Walk},
    lock,
    query::order::KEPT,
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Key, Record, Reference, ReferenceMode, ScopeId, keyspace, kind,
        lease::{AttachedKey, Kept, Lease},
        mesh::{Page, PageRequest, RecordId},
        transaction::{Compare, NumberField, Operation, Put, Relation},
    },
    state::{View, constants},
    storage::codec::{self, Kind},
};

pub(super) const SCOPE: ScopeId = ScopeId::new(keyspace::LEASES, keyspace::NO_SCOPE);
const LOADS: ScopeId = ScopeId::new(keyspace::LEASE_LOADS, keyspace::NO_SCOPE);
/// Most that ever was attached to a lease, what is gone with the namespaces in which it was among it: that is left over until the
/// lease ends. So all of it can be looked at.
const REFERRERS: usize = 8 * limits::LEASE_KEYS;
/// The largest id that is chosen: numbers up to it are exact in JSON, whoever reads it.
const CHOSEN: u64 = (1 << 53) - 1;

// A value of the storage contract takes its attributes along; the lease and its counter go, too.
const _: () = assert!(2 * limits::LEASE_KEYS + 2 <= constants::DELETES);
/// Around each value: its key three times, principals, envelopes, what the core counts for a record.
const AROUND_BYTES: usize = 3 * limits::KEY_BYTES + 1_024;
/// Its entries in the indexes of its namespace, which may be created later; each byte of a text may be escaped.
const ENTRIES_BYTES: usize = limits::INDEXES * (limits::INDEX_FIELDS * (2 * KEPT + 8) + 64);
const _: () = assert!(
    limits::LEASE_KEYS * (limits::LEASED_VALUE_BYTES + limits::ATTRIBUTES_BYTES + AROUND_BYTES + ENTRIES_BYTES)
        <= constants::REPLACED_BYTES
);

/// Frozen (kind `Lease`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    ttl_ms: u64,
    /// Who asked for it.
    principal: String,
}

fn key(id: u64) -> Key {
    SCOPE.key(&id.to_be_bytes())
}

/// The id of the lease whose record stands under a key, if one does.
pub fn id_of_key(key: &Key) -> Option<u64> {
    let bytes = <[u8; 8]>::try_from(key.user_bytes().as_ref()).ok()?;
    (key.scope() == SCOPE).then(|| u64::from_be_bytes(bytes))
}

fn missing(id: u64) -> Error {
    Error::NotFound { kind: kind::LEASE, name: id.to_string() }
}

fn open(view: &View, id: u64, record: &Record) -> Result<Stored> {
    let broken = |error| view.fault(Fault::bug(format!("the lease {id} cannot be read: {error}")));
    codec::decode(Kind::Lease, &record.value).map_err(broken)
}

/// What a record relies on that goes with a lease.
pub(super) fn reference(lease: u64) -> Reference {
    Reference { key: key(lease), mode: ReferenceMode::Cascade }
}

/// That a lease exists. Errors: `InvalidArgument`, `NotFound`.
pub(super) fn check_exists(view: &View, id: u64) -> Result<()> {
    check_id("lease", id)?;
    if view.record(&key(id))?.is_some() { Ok(()) } else { Err(missing(id)) }
}

fn check_id(field: &str, id: u64) -> Result<()> {
    if id == 0 { Err(Error::invalid(field, "0", "must be the id of a lease")) } else { Ok(()) }
}

/// An id for a lease, by chance.
pub fn id_from(chance: u128) -> u64 {
    (u64::try_from(chance & u128::from(CHOSEN)).unwrap_or(CHOSEN)).max(1)
}

/// Makes a lease. Errors: `InvalidArgument`; `AlreadyExists` for an id that was asked for; `Conflict` for one that was chosen.
pub fn grant(view: &View, principal: &str, (id, asked_for): (u64, bool), ttl_ms: u64) -> Result<Write> {
    let bounds = limits::LEASE_TTL_MIN_MS..=limits::LEASE_TTL_MAX_MS;
    if !bounds.contains(&ttl_ms) {
        let rule = format!("must be from {} to {} milliseconds", bounds.start(), bounds.end());
        return Err(Error::invalid("ttl_ms", ttl_ms.to_string(), rule));
    }
    let key = key(id);
    if view.record(&key)?.is_some() {
        return Err(match asked_for {
            true => Error::AlreadyExists { kind: kind::LEASE, name: id.to_string() },
            false => Error::Conflict(format!("the lease {id}, which was to be a new one,")),
        });
    }
    let guard = Compare::Exists { key: key.clone(), exists: false };
    Ok(Write::guarded(vec![guard], vec![put(key, &Stored { ttl_ms, principal: principal.into() })]))
}

fn put(key: Key, stored: &Stored) -> Operation {
    let put = Put { ttl_ms: Some(stored.ttl_ms), ..Put::value(codec::encode(Kind::Lease, stored)) };
    Operation::Put { key, put }
}

/// Gives leases their whole time again. Errors: `InvalidArgument`; `NotFound` if there is none of them.
pub fn keep_alive(view: &View, ids: &[u64]) -> Result<(Write, Kept)> {
    check_some("ids", ids.len(), limits::LEASES)?;
    let (mut guards, mut operations, mut answer) = (vec![], vec![], Kept::default());
    let mut absent = vec![];
    for id in ids.iter().copied().collect::<BTreeSet<_>>() {
        check_id("ids", id)?;
        let key = key(id);
        let Some(record) = view.record(&key)? else {
            answer.missing.push(id);
            // Granted before, and not applied here yet: then it is decided anew.
            absent.push(Compare::Exists { key, exists: false });
            continue;
        };
        let stored = open(view, id, &record)?;
        answer.kept.push((id, stored.ttl_ms));
        // It may have been kept alive in between, but must not be another one.
        let (field, relation) = (NumberField::CreateRevision, Relation::Equal);
        guards.push(Compare::Number { key: key.clone(), field, relation, to: record.create_revision });
        operations.push(put(key, &stored));
    }
    if answer.kept.is_empty() {
        let names: Vec<String> = answer.missing.iter().map(u64::to_string).collect();
        return Err(Error::NotFound { kind: kind::LEASE, name: names.join(", ") });
    }
    // Last: each operation has its guard at its place.
    guards.extend(absent);
    Ok((Write::guarded(guards, operations), answer))
}

/// Ends a lease, with all that is attached to it; `NotFound` if there is none. Errors: `InvalidArgument`.
pub fn revoke(id: u64) -> Result<Write> {
    check_id("id", id)?;
    let key = key(id);
    Ok(Write::if_exists(key.clone(), vec![Operation::Delete { key }], missing(id)))
}

/// Records that are to be attached to leases: how many to each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments(BTreeMap<u64, usize>);

impl Attachments {
    /// Whether nothing is to be attached.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Attaches what is put to a lease. Errors: `InvalidArgument` if its value, of so many bytes, is too large for that.
    pub(super) fn attach(&mut self, lease: u64, (field, bytes): (&str, usize), put: &mut Put) -> Result<()> {
        let most = limits::LEASED_VALUE_BYTES;
        if bytes > most {
            let rule = format!("must be at most {most} bytes long to go with a lease, is {bytes}");
            return Err(Error::invalid(field, "", rule));
        }
        put.references.push(reference(lease));
        *self.0.entry(lease).or_default() += 1;
        Ok(())
    }

    /// Adds those of another write of the same transaction.
    pub(super) fn join(&mut self, other: Self) {
        for (lease, count) in other.0 {
            *self.0.entry(lease).or_default() += count;
        }
    }

    /// What must hold for that, and what notes it. Errors: `NotFound` for a lease; `Refused` if one would hold too much.
    fn noted(self, view: &View, writes: &[Operation]) -> Result<(Vec<Compare>, Vec<Operation>)> {
        let (mut guards, mut operations) = (vec![], vec![]);
        for (lease, count) in self.0 {
            check_exists(view, lease)?;
            let room = if view.is_uncommitted() { None } else { room(view, lease, count)? };
            let (more, operation) = match room {
                Some(room) => room,
                None => recounted(view, lease, writes)?,
            };
            guards.extend(more);
            operations.push(operation);
        }
        Ok((guards, operations))
    }
}

/// A write with what notes what it attaches to leases, as a view has them. Errors: `NotFound` for a lease; `Refused` if one
/// would hold too much.
pub fn noted(view: &View, mut write: Write) -> Result<Write> {
    if !write.attached.is_empty() {
        let attached = std::mem::take(&mut write.attached);
        let (guards, operations) = attached.noted(view, &write.transaction.then)?;
        write.guards.extend(guards);
        write.transaction.then.extend(operations);
    }
    Ok(write)
}

fn number(count: usize) -> [u8; 8] {
    (count as u64).to_be_bytes()
}

/// Notes that so many more are attached, if the counter says that there is room.
fn room(view: &View, lease: u64, more: usize) -> Result<Option<(Vec<Compare>, Operation)>> {
    let key = LOADS.key(&lease.to_be_bytes());
    let Some(most) = limits::LEASE_KEYS.checked_sub(more) else { return Ok(None) };
    // Not negative, so the bytes are ordered as the numbers are.
    if view.record(&key)?.is_none_or(|record| record.value.as_ref() > number(most).as_slice()) {
        return Ok(None);
    }
    let to = number(most).to_vec().into();
    let guard = Compare::Value { key: key.clone(), relation: Relation::LessOrEqual, to };
    let add = Operation::Add {
        key,
        delta: i64::try_from(more).unwrap_or(i64::MAX),
        min: 0,
        max: i64::try_from(limits::LEASE_KEYS).unwrap_or(i64::MAX),
    };
    Ok(Some((vec![guard], add)))
}

/// Notes what is attached when these operations are done: some of it may be attached already.
fn recounted(view: &View, lease: u64, writes: &[Operation]) -> Result<(Vec<Compare>, Operation)> {
    let (reference, mut added) = (reference(lease), BTreeSet::new());
    for operation in writes {
        if let Operation::Put { key, put } = operation
            && put.references.contains(&reference)
        {
            added.insert(key);
        }
    }
    let there = keys(view, lease)?;
    for key in &there {
        added.remove(key);
    }
    let more = added.len();
    counted_among(view, lease, there, more)
}

/// Notes that so many more are attached than are there now. Whoever attaches to this lease meanwhile stands in the way, so what
/// is decided on what is attached holds, too.
pub(super) fn counted(view: &View, lease: u64, more: usize) -> Result<(Vec<Compare>, Operation)> {
    counted_among(view, lease, keys(view, lease)?, more)
}

fn counted_among(view: &View, lease: u64, all: Vec<Key>, more: usize) -> Result<(Vec<Compare>, Operation)> {
    let key = LOADS.key(&lease.to_be_bytes());
    let revision = view.record(&key)?.map_or(0, |record| record.mod_revision);
    let refused = |text: String| Err(Error::Refused(format!("{text}: take another lease")));
    let ever = all.len();
    if ever + more > REFERRERS {
        return refused(format!(
            "{ever} keys were attached to lease {lease}, those in namespaces that were cleared or deleted among them, and \
             {REFERRERS} may be"
        ));
    }
    let mut there = ever;
    if there + more > limits::LEASE_KEYS {
        there = named_of(view, lease, all)?.len();
    }
    if there + more > limits::LEASE_KEYS {
        let most = limits::LEASE_KEYS;
        return refused(format!("at most {most} keys are attached to a lease; {there} are to lease {lease}"));
    }
    let value = number(there + more).to_vec();
    let put = Put { references: vec![reference(lease)], ..Put::value(value) };
    let exists = Compare::Exists { key: self::key(lease), exists: true };
    Ok((vec![exists, Compare::written_at(key.clone(), revision)], Operation::Put { key, put }))
}

/// The keys of what is attached to a lease, and of what was in namespaces that were dropped.
pub(super) fn keys(view: &View, lease: u64) -> Result<Vec<Key>> {
    // The counter is one, and what is attached between two counts comes on top.
    let mut keys = view.referrers(&key(lease), REFERRERS + limits::LEASE_KEYS + 1)?;
    keys.retain(|key| key.scope() != LOADS);
    Ok(keys)
}

/// What is attached to a lease, as people call it.
fn named(view: &View, lease: u64) -> Result<Vec<AttachedKey>> {
    named_of(view, lease, keys(view, lease)?)
}

fn named_of(view: &View, lease: u64, keys: Vec<Key>) -> Result<Vec<AttachedKey>> {
    let scopes = keys.iter().map(Key::scope).filter(|scope| scope.keyspace == keyspace::VALUES).collect();
    let namespaces = kv::namespace::names_of(view, scopes)?;
    let mut named = Vec::with_capacity(keys.len());
    for key in keys {
        let broken = || view.fault(Fault::bug(format!("{key} is attached to lease {lease}")));
        let text = || String::from_utf8(key.user_bytes().into()).map_err(|_| broken());
        named.push(match key.scope().keyspace {
            keyspace::MESSAGES => AttachedKey::Record(RecordId::Message(text()?)),
            keyspace::STATE => AttachedKey::Record(RecordId::State(text()?)),
            keyspace::NODE_STATE => AttachedKey::Record(RecordId::NodeState(text()?)),
            keyspace::ROUTING_TABLE => AttachedKey::Record(RecordId::Route(text()?)),
            keyspace::RUNTIME_CONFIG => AttachedKey::Record(RecordId::Config(text()?)),
            keyspace::VALUES => match namespaces.get(&key.scope()) {
                Some(namespace) => AttachedKey::Value { namespace: namespace.clone(), key: text()? },
                None => continue,
            },
            keyspace::LOCKS => lock::named(&key).ok_or_else(broken)?,
            _ => return Err(broken()),
        });
    }
    Ok(named)
}

fn shown(view: &View, id: u64, record: &Record, now_ms: u64) -> Result<Lease> {
    let Stored { ttl_ms, principal } = open(view, id, record)?;
    let Record { create_revision, mod_revision, version, .. } = *record;
    Ok(Lease {
        id,
        ttl_ms,
        remaining_ms: record.expires_at_ms.unwrap_or(u64::MAX).saturating_sub(now_ms).min(ttl_ms),
        principal,
        granted_at_ms: record.created_at_ms,
        kept_at_ms: record.updated_at_ms,
        create_revision,
        mod_revision,
        version,
    })
}

/// A lease, and what is attached to it. `now_ms`: log time. Errors: `InvalidArgument`, `NotFound`.
pub fn show(view: &View, id: u64, now_ms: u64) -> Result<(Lease, Vec<AttachedKey>)> {
    check_id("id", id)?;
    let record = view.record(&key(id))?.ok_or_else(|| missing(id))?;
    Ok((shown(view, id, &record, now_ms)?, named(view, id)?))
}

/// A page of the leases, in order of their ids.
#[derive(Debug)]
pub struct List {
    walk: Walk,
}

/// Errors: `InvalidArgument`.
pub fn list(page: &PageRequest) -> Result<List> {
    let range = Range { start: vec![], end: None };
    Ok(List { walk: Walk::open(keyspace::LEASES, &"", range, page)? })
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page. `now_ms`: log time. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View, now_ms: u64) -> Result<Page<Lease>> {
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(SCOPE, start, end, limit)?;
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), (key, record))).collect())
        };
        self.walk.read(view, fetch, |_, (key, record): (Key, Record)| {
            let size = record.value.len() + 64;
            let broken = || view.fault(Fault::damage(format!("{key} is no key of a lease")));
            Ok((shown(view, id_of_key(&key).ok_or_else(broken)?, &record, now_ms)?, size))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::mesh::testing::Pairs, *};

    #[test]
    fn a_lease_has_exactly_these_bytes() {
        let view = Pairs::default().view(1);
        let write = grant(&view, "ada", (258, true), 60_000).unwrap();
        let [Operation::Put { key, put }] = write.transaction.then.as_slice() else { panic!("{write:?}") };
        assert_eq!(key.as_bytes().as_ref(), b"\x50\0\0\0\0\0\0\0\0\0\0\x01\x02");
        assert_eq!(put.value.as_ref(), b"MS\x3d\x01\0\x07\0\0\0\xe7\x36\x53\xe8\xfb\x60\xea\x03ada");
        assert_eq!((put.ttl_ms, &put.references), (Some(60_000), &vec![]));
        let (guards, load) = counted(&view, 258, 3).unwrap();
        let Operation::Put { key, put } = load else { panic!("{load:?}") };
        assert_eq!(key.as_bytes().as_ref(), b"\x52\0\0\0\0\0\0\0\0\0\0\x01\x02");
        assert_eq!((put.value.as_ref(), put.references), (&b"\0\0\0\0\0\0\0\x03"[..], vec![reference(258)]));
        assert_eq!(guards.len(), 2, "that there is the lease, and no counter yet");
    }

    #[test]
    fn an_id_that_is_chosen_is_exact_in_json_and_not_nothing() {
        assert_eq!([0, 1, u128::MAX].map(id_from), [1, 1, (1 << 53) - 1]);
    }

    #[test]
    fn what_is_attached_is_counted_and_bounded() {
        let value = |bytes| Write::always(vec![Operation::Put { key: key(1), put: Put::value(vec![0; bytes]) }]);
        let attached = value(limits::LEASED_VALUE_BYTES).attached_to(7).unwrap();
        assert_eq!(attached.attached, Attachments([(7, 1)].into()));
        let Some(Operation::Put { put, .. }) = attached.transaction.then.first() else { panic!("{attached:?}") };
        assert_eq!(put.references, [reference(7)]);
        assert!(matches!(value(limits::LEASED_VALUE_BYTES + 1).attached_to(7), Err(Error::InvalidArgument { .. })));
        let not = value(limits::VALUE_BYTES).attached_to(0).unwrap();
        assert!(not.attached.is_empty());
        assert_eq!(noted(&Pairs::default().view(1), not.clone()), Ok(not));
        assert_eq!(noted(&Pairs::default().view(1), attached), Err(missing(7)));
    }

    #[test]
    fn a_counter_is_added_to_as_long_as_it_says_that_there_is_room() {
        let mut pairs = Pairs::default();
        let there = |count: usize| Operation::Put {
            key: LOADS.key(&7u64.to_be_bytes()),
            put: Put::value(number(count).to_vec()),
        };
        pairs.put(Write::always(vec![there(limits::LEASE_KEYS - 2)]));
        let view = pairs.view(1);
        let (guards, add) = room(&view, 7, 2).unwrap().unwrap();
        assert!(matches!(add, Operation::Add { delta: 2, min: 0, max: 400, .. }), "{add:?}");
        let Some(Compare::Value { relation: Relation::LessOrEqual, to, .. }) = guards.first() else {
            panic!("{guards:?}")
        };
        assert_eq!(to.as_ref(), number(limits::LEASE_KEYS - 2));
        assert_eq!(room(&view, 7, 3).unwrap(), None);
        assert_eq!(room(&view, 7, limits::LEASE_KEYS + 1).unwrap(), None);
        assert_eq!(room(&view, 8, 1).unwrap(), None, "nothing is counted yet");
    }
}
