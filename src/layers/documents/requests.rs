//! Access that services ask for: it waits until the owner of the collection grants or denies it.
//!
//! One that was denied stays so when it, or more, is asked for again, so that a service that is started anew does not ask anew; the
//! owner can still grant it. A collection may be asked for before it exists. What is asked for goes when it is granted, and with
//! the collection.

use serde::{Deserialize, Serialize};

use super::{
    super::{
        Write, check,
        list::{Range, Walk},
    },
    access::{self, Actor, REASON_BYTES},
    collection::{self, Collection},
};
use crate::{
    Error, Result,
    error::Fault,
    model::{
        Key, Record, ScopeId,
        document::{AccessRequest, Grant, Permission, RequestState},
        key::prefix_end,
        keyspace::{self, NO_SCOPE},
        kind,
        mesh::{Page, PageRequest},
        transaction::{Compare, Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

const SCOPE: ScopeId = ScopeId::new(keyspace::ACCESS_REQUESTS, NO_SCOPE);

/// Frozen (kind `AccessRequest`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredRequest {
    permission: access::StoredPermission,
    reason: String,
    /// Empty: it waits.
    denied_by: String,
}

fn request_key(collection: &str, service: &str) -> Key {
    SCOPE.key(&access::position(collection, service))
}

fn open(view: &View, key: &Key, record: &Record) -> Result<AccessRequest> {
    let broken = |why: String| view.fault(Fault::bug(format!("the access request {key} cannot be read: {why}")));
    let (collection, service) =
        access::names(&key.user_bytes()).ok_or_else(|| broken("its key is malformed".into()))?;
    let stored = codec::decode(Kind::AccessRequest, &record.value);
    let StoredRequest { permission, reason, denied_by } = stored.map_err(|error| broken(error.to_string()))?;
    let permission = permission.into();
    Ok(AccessRequest { collection, service, permission, reason, at_ms: record.updated_at_ms, denied_by })
}

fn put(request: &AccessRequest) -> Operation {
    let AccessRequest { collection, service, permission, reason, denied_by, .. } = request;
    let stored =
        StoredRequest { permission: (*permission).into(), reason: reason.clone(), denied_by: denied_by.clone() };
    let value = codec::encode(Kind::AccessRequest, &stored);
    Operation::Put { key: request_key(collection, service), put: Put::value(value) }
}

/// Asks for access, for a service: where it stands then, what that relies on, and what is to be done. Errors: `InvalidArgument`.
pub(super) fn ask(
    view: &View,
    service: &str,
    (collection, permission, reason): (&str, Permission, &str),
) -> Result<(RequestState, Vec<Compare>, Vec<Operation>)> {
    let collection = collection::check_full(collection)?;
    check::check_length("reason", reason.len(), REASON_BYTES)?;
    if collection.split_once('.').is_some_and(|(owner, _)| owner == service) {
        return Err(Error::invalid("collection", collection, "is the service's own"));
    }
    let (granted, guard) = access::granted(view, collection, service)?;
    let mut guards = vec![guard];
    if granted.is_some_and(|granted| granted >= permission) {
        return Ok((RequestState::Granted, guards, vec![]));
    }
    let key = request_key(collection, service);
    let record = view.record(&key)?;
    guards.push(Compare::written_at(key.clone(), record.as_ref().map_or(0, |record| record.mod_revision)));
    let before = record.map(|record| open(view, &key, &record)).transpose()?;
    let wanted = AccessRequest {
        collection: collection.into(),
        service: service.into(),
        permission,
        reason: reason.into(),
        at_ms: 0,
        denied_by: String::new(),
    };
    Ok(match before {
        // Who was denied something was denied more than that, too.
        Some(before) if !before.denied_by.is_empty() && permission >= before.permission => {
            (RequestState::Denied, guards, vec![])
        }
        Some(before) if before.denied_by.is_empty() && before.permission == permission && before.reason == reason => {
            (RequestState::Pending, guards, vec![])
        }
        _ => (RequestState::Pending, guards, vec![put(&wanted)]),
    })
}

/// Grants or denies what a service asked for. Granted is what it asked for, or `permission`.
///
/// Errors: `InvalidArgument`; `NotFound` for the collection or the request; `PermissionDenied`.
pub fn decide(
    view: &View,
    actor: &Actor,
    (name, service): (&str, &str),
    (allow, permission, ttl_ms): (bool, Option<Permission>, u64),
) -> Result<Write> {
    let name = actor.full_name(name)?;
    let key = request_key(&name, collection::check_part("service", service)?);
    let found = Collection::find(view, &name)?;
    let mut guards = vec![];
    match &found {
        Some(found) => {
            guards.push(found.guard());
            guards.extend(access::check(view, actor, found, Permission::Admin)?);
        }
        // Of what does not exist yet, by whose it would be.
        None if actor
            .service()
            .is_none_or(|service| name.split_once('.').is_some_and(|(owner, _)| owner == service)) => {}
        None => return Err(Error::NotFound { kind: kind::COLLECTION, name }),
    }
    let Some(record) = view.record(&key)? else {
        return Err(Error::NotFound { kind: kind::ACCESS_REQUEST, name: format!("{service} on {name}") });
    };
    let request = open(view, &key, &record)?;
    guards.push(Compare::written_at(key, record.mod_revision));
    if allow {
        let permission = permission.unwrap_or(request.permission);
        let AccessRequest { collection, service, reason, .. } = request;
        let (granted_by, granted_at_ms) = (String::new(), 0);
        let grant = Grant { collection, service, permission, reason, granted_by, granted_at_ms, ttl_ms };
        let mut write = access::grant(view, actor, &grant)?;
        write.guards.extend(guards);
        return Ok(write);
    }
    let denied = AccessRequest { denied_by: actor.name().into(), ..request };
    Ok(Write::guarded(guards, vec![put(&denied)]))
}

/// What forgets what a service has asked for on a collection.
pub(super) fn forget(collection: &str, service: &str) -> Operation {
    Operation::Delete { key: request_key(collection, service) }
}

/// What forgets all that was asked for on a collection.
pub(super) fn forget_all(collection: &str) -> Operation {
    let start = access::position(collection, "");
    let end = prefix_end(&start).map(|end| SCOPE.key(&end).as_bytes().clone()).unwrap_or_default();
    Operation::DeleteRange { start: SCOPE.key(&start), end }
}

/// A page of what services ask for, in order of the collections: of a service's own collections, or of all.
#[derive(Debug)]
pub struct Requests {
    denied: bool,
    walk: Walk,
}

/// With `denied` also those that were denied. Errors: `InvalidArgument`.
pub fn requests(actor: &Actor, owner: &str, denied: bool, page: &PageRequest) -> Result<Requests> {
    let owner = match (actor.service(), owner) {
        (Some(service), "") => service,
        (Some(service), owner) if owner != service => {
            let rule = "must be the service itself: only an owner sees what others ask of it";
            return Err(Error::invalid("owner", owner, rule));
        }
        (_, owner) => owner,
    };
    let start = match owner {
        "" => Vec::new(),
        owner => format!("{}.", collection::check_part("owner", owner)?).into_bytes(),
    };
    let end = prefix_end(&start);
    let walk = Walk::open(keyspace::ACCESS_REQUESTS, &(owner, denied), Range { start, end }, page)?;
    Ok(Requests { denied, walk })
}

impl Requests {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page.
    pub fn read(&self, view: &View) -> Result<Page<AccessRequest>> {
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(SCOPE, start, end, limit)?;
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), (key, record))).collect())
        };
        self.walk.read_some(view, fetch, |_, (key, record)| {
            let request = open(view, &key, &record)?;
            let bytes = request.reason.len() + request.collection.len() + request.service.len();
            Ok((self.denied || request.denied_by.is_empty()).then_some((request, bytes)))
        })
    }
}
