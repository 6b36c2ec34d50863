//! Locks, which leases hold, and elections, which are locks whose holder says something.
//!
//! A lock that is held is a record under its name; its create revision is the *fencing token*. So tokens grow from holder to
//! holder, and a write that carries one is guarded by one comparison with that record: however long the queue is, fenced writes
//! cost what others cost.
//!
//! Whoever must wait has a place in the queue: a record behind the lock's, under the revision that made it. When the lock is
//! free the first of the queue takes it, one transaction that makes the lock and deletes the place; nobody else can, since
//! everybody looks at the queue, and guards on it. Lock and place reference their lease, so whoever vanishes lets go of both.
//!
//! A lease has one place or the lock itself, never more: what is attached to it is guarded while that is decided
//! ([`lease::counted`]). So asking again is harmless, and is how waiting goes on after an answer that was lost.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Write,
    check::{check_length, check_name},
    lease,
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Key, Record, ScopeId,
        key::{self, prefix_end},
        keyspace, kind,
        lease::{AttachedKey, Fence, Holder},
        transaction::{Compare, NumberField, Operation, Put, Relation},
    },
    state::View,
    storage::codec::{self, Kind},
};

/// Where locks and their queues stand.
pub const SCOPE: ScopeId = ScopeId::new(keyspace::LOCKS, keyspace::NO_SCOPE);
/// What stands behind the name in the key of a place: revision and ordinal.
const PLACE_BYTES: usize = 12;
/// As many that wait are counted.
const COUNTED: usize = 1_000;

/// Frozen (kind `Lock`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    lease: u64,
    /// Who asked for it.
    principal: String,
    value: Bytes,
}

/// Who wants a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lock.
    pub name: String,
    /// The lease that is to hold it.
    pub lease: u64,
    /// What the holder says of itself.
    pub value: Bytes,
    /// Whether nobody is to wait.
    pub only_if_free: bool,
}

/// How it is with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The lease holds the lock, with this token.
    Holds(u64),
    /// It does when this is written; the token is the revision.
    Takes,
    /// Another holds it, or comes before.
    Waits,
}

fn in_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2 + PLACE_BYTES);
    key::escape(&mut bytes, name.as_bytes());
    bytes
}

fn lock_key(name: &str) -> Key {
    SCOPE.key(&in_name(name))
}

/// The first position of the queue, and the first behind it.
fn queue(name: &str) -> (Vec<u8>, Option<Bytes>) {
    let bytes = in_name(name);
    let end = prefix_end(&bytes);
    let mut start = bytes;
    start.push(0);
    (start, end)
}

/// What a key of this keyspace is of a lease.
pub(super) fn named(key: &Key) -> Option<AttachedKey> {
    let bytes = key.user_bytes();
    let (name, rest) = key::unescape(&bytes)?;
    let name = String::from_utf8(name).ok()?;
    Some(if rest.is_empty() { AttachedKey::Lock(name) } else { AttachedKey::WaitsFor(name) })
}

fn check_lock(name: &str) -> Result<()> {
    check_name("name", name, limits::ID_BYTES)
}

fn open(view: &View, key: &Key, record: &Record) -> Result<Stored> {
    let broken = |error| view.fault(Fault::bug(format!("the lock {key} cannot be read: {error}")));
    codec::decode(Kind::Lock, &record.value).map_err(broken)
}

fn put(key: Key, stored: &Stored) -> Operation {
    let references = vec![lease::reference(stored.lease)];
    Operation::Put { key, put: Put { references, ..Put::value(codec::encode(Kind::Lock, stored)) } }
}

/// The first that waits.
fn first(view: &View, name: &str) -> Result<Option<Key>> {
    let (start, end) = queue(name);
    Ok(view.records(SCOPE, &start, end.as_deref(), 1)?.pop().map(|(key, _)| key))
}

/// The place of a lease in the queue.
fn place(view: &View, name: &str, lease: u64) -> Result<Option<Key>> {
    let prefix = lock_key(name);
    let is_place = |key: &Key| key.as_bytes().starts_with(prefix.as_bytes()) && *key != prefix;
    Ok(lease::keys(view, lease)?.into_iter().find(is_place))
}

/// Takes a lock, or a place in its queue; or finds that there is nothing to do but to wait.
///
/// Errors: `InvalidArgument`; `NotFound` for the lease; `Refused` if too much is attached to it.
pub fn acquire(view: &View, principal: &str, claim: &Claim) -> Result<(Option<Write>, Standing)> {
    let Claim { name, lease, value, only_if_free } = claim;
    check_lock(name)?;
    check_length("value", value.len(), limits::LEASED_VALUE_BYTES)?;
    lease::check_exists(view, *lease)?;
    let key = lock_key(name);
    let held = view.record(&key)?;
    if let Some(record) = &held
        && open(view, &key, record)?.lease == *lease
    {
        return Ok((None, Standing::Holds(record.create_revision)));
    }
    let stored = Stored { lease: *lease, principal: principal.into(), value: value.clone() };
    let (first, place) = (first(view, name)?, place(view, name, *lease)?);
    let free = Compare::Exists { key: key.clone(), exists: false };
    Ok(match (held.is_none(), first, place) {
        (true, Some(first), Some(place)) if first == place => {
            let waited = view.record(&place)?.map(|record| open(view, &place, &record)).transpose()?;
            let guards = vec![free, Compare::Exists { key: place.clone(), exists: true }];
            // As many are attached as before.
            let operations = vec![put(key, &waited.unwrap_or(stored)), Operation::Delete { key: place }];
            (Some(Write::guarded(guards, operations)), Standing::Takes)
        }
        (true, None, _) => {
            let (mut guards, load) = lease::counted(view, *lease, 1)?;
            let (start, end) = queue(name);
            let start = SCOPE.key(&start);
            let end = end.map_or_else(Bytes::new, |end| SCOPE.key(&end).as_bytes().clone());
            guards.extend([free, Compare::Unchanged { start, end, count: 0, since: view.revision() }]);
            (Some(Write::guarded(guards, vec![put(key, &stored), load])), Standing::Takes)
        }
        (_, _, Some(_)) => (None, Standing::Waits),
        (_, _, None) if *only_if_free => (None, Standing::Waits),
        (_, _, None) => {
            let (guards, load) = lease::counted(view, *lease, 1)?;
            let Operation::Put { key: prefix, put } = put(key, &stored) else {
                return Err(view.fault(Fault::bug("a lock is not put")));
            };
            (Some(Write::guarded(guards, vec![Operation::PutStamped { prefix, put }, load])), Standing::Waits)
        }
    })
}

/// Whether there is something to do for a claim that waits: its turn has come, or its lease is gone.
pub fn is_due(view: &View, Claim { name, lease, .. }: &Claim) -> Result<bool> {
    let key = lock_key(name);
    match view.record(&key)? {
        Some(record) if open(view, &key, &record)?.lease == *lease => Ok(true),
        Some(_) => Ok(lease::check_exists(view, *lease).is_err()),
        None => match first(view, name)? {
            None => Ok(true),
            Some(first) => Ok(place(view, name, *lease)?.is_none_or(|place| place == first)),
        },
    }
}

/// Lets go of a lock, and gives up a place in its queue. `end_lease`: with the lease itself and all that is attached to it, so that
/// whoever holds the lock by it is told, and cannot ask again.
///
/// Errors: `InvalidArgument`; `NotFound` if the lease has neither.
pub fn release(view: &View, name: &str, lease: u64, end_lease: bool) -> Result<Write> {
    check_lock(name)?;
    let key = lock_key(name);
    let (mut guards, mut operations) = (vec![], vec![]);
    if let Some(record) = view.record(&key)?
        && open(view, &key, &record)?.lease == lease
    {
        guards.push(Compare::written_at(key.clone(), record.mod_revision));
        operations.push(Operation::Delete { key });
    }
    if let Some(key) = place(view, name, lease)? {
        guards.push(Compare::Exists { key: key.clone(), exists: true });
        operations.push(Operation::Delete { key });
    }
    if operations.is_empty() {
        return Err(Error::NotFound { kind: kind::LOCK, name: format!("{name}, held or waited for by lease {lease}") });
    }
    if end_lease {
        // The others go with it.
        operations = vec![Operation::Delete { key: lease::reference(lease).key }];
    }
    Ok(Write::guarded(guards, operations))
}

/// Who holds a lock, and how many wait for it. Errors: `InvalidArgument`.
pub fn show(view: &View, name: &str) -> Result<(Option<Holder>, u64)> {
    let (start, end) = queue(name);
    let waiting = view.records(SCOPE, &start, end.as_deref(), COUNTED)?.len() as u64;
    Ok((holder(view, name)?, waiting))
}

/// Who holds a lock. Errors: `InvalidArgument`.
pub fn holder(view: &View, name: &str) -> Result<Option<Holder>> {
    check_lock(name)?;
    let key = lock_key(name);
    let Some(record) = view.record(&key)? else { return Ok(None) };
    let Stored { lease, principal, value } = open(view, &key, &record)?;
    Ok(Some(Holder { token: record.create_revision, lease, principal, value, since_ms: record.created_at_ms }))
}

/// What a write that carries a fence is guarded by.
pub fn guard(Fence { lock, token }: &Fence) -> Compare {
    let (field, relation) = (NumberField::CreateRevision, Relation::Equal);
    Compare::Number { key: lock_key(lock), field, relation, to: *token }
}

/// That a lock is held as a fence says. Errors: `InvalidArgument`, `Fenced`.
pub fn check_fence(view: &View, fence: &Fence) -> Result<()> {
    let newest = match view.record(&lock_key(&fence.lock))? {
        Some(record) if record.create_revision == fence.token => return Ok(()),
        record => record.map_or(0, |record| record.create_revision),
    };
    Err(Error::Fenced { lock: fence.lock.clone(), token: fence.token, newest })
}

#[cfg(test)]
mod tests {
    use super::{super::mesh::testing::Pairs, *};

    fn claim(lease: u64, only_if_free: bool) -> Claim {
        Claim { name: "n".into(), lease, value: "v".into(), only_if_free }
    }

    /// A store with lease 7 in it.
    fn pairs() -> Pairs {
        let mut pairs = Pairs::default();
        let view = pairs.view(1);
        pairs.put(lease::grant(&view, "ada", (7, true), 60_000).unwrap());
        pairs
    }

    #[test]
    fn a_lock_has_exactly_these_bytes() {
        let (write, standing) = acquire(&pairs().view(1), "ada", &claim(7, true)).unwrap();
        assert_eq!(standing, Standing::Takes);
        let write = write.unwrap();
        let Some(Operation::Put { key, put }) = write.transaction.then.first() else { panic!("{write:?}") };
        assert_eq!(key.as_bytes().as_ref(), b"\x51\0\0\0\0n\0\x01");
        assert_eq!(put.value.as_ref(), b"MS\x3e\x01\0\x07\0\0\0\x30\xe5\x57\xf1\x07\x03ada\x01v");
        assert_eq!(put.references, [lease::reference(7)]);
        let place = SCOPE.key(b"n\0\x01\0\0\0\0\0\0\0\x05\0\0\0\0");
        assert_eq!(named(key), Some(AttachedKey::Lock("n".into())));
        assert_eq!(named(&place), Some(AttachedKey::WaitsFor("n".into())));
        let (start, end) = queue("n");
        let inside = |key: &Key| key.user_bytes() >= start && end.as_ref().is_some_and(|end| key.user_bytes() < *end);
        assert!(inside(&place) && !inside(key) && !inside(&lock_key("n\0")) && !inside(&lock_key("o")));
    }

    #[test]
    fn a_lock_that_others_hold_is_waited_for_or_let_be() {
        let mut pairs = pairs();
        let stored = Stored { lease: 8, principal: "bob".into(), value: Bytes::new() };
        pairs.put(Write::always(vec![put(lock_key("n"), &stored)]));
        let view = pairs.view(5);
        assert_eq!(acquire(&view, "ada", &claim(7, true)), Ok((None, Standing::Waits)));
        let (write, standing) = acquire(&view, "ada", &claim(7, false)).unwrap();
        assert_eq!(standing, Standing::Waits);
        let then = write.unwrap().transaction.then;
        assert!(
            matches!(then.first(), Some(Operation::PutStamped { prefix, .. }) if *prefix == lock_key("n")),
            "{then:?}"
        );
        assert!(!is_due(&view, &claim(7, false)).unwrap());
        assert!(is_due(&view, &claim(8, false)).unwrap(), "it holds the lock, or its lease is gone");
        assert!(matches!(release(&view, "n", 7, false), Err(Error::NotFound { kind: kind::LOCK, .. })));
        assert_eq!(holder(&view, "n").unwrap().map(|holder| (holder.token, holder.lease)), Some((3, 8)));
        assert_eq!(show(&view, "m"), Ok((None, 0)));
    }

    #[test]
    fn a_fence_names_the_newest_token() {
        let mut pairs = pairs();
        let fence = |token| Fence { lock: "n".into(), token };
        let fenced = |token, newest| Err(Error::Fenced { lock: "n".into(), token, newest });
        assert_eq!(check_fence(&pairs.view(5), &fence(3)), fenced(3, 0));
        let stored = Stored { lease: 7, principal: "ada".into(), value: Bytes::new() };
        pairs.put(Write::always(vec![put(lock_key("n"), &stored)]));
        assert_eq!(check_fence(&pairs.view(5), &fence(3)), Ok(()));
        assert_eq!(check_fence(&pairs.view(5), &fence(2)), fenced(2, 3));
    }
}
