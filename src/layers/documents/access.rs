//! Who may do what with a collection: its owner everything, others what was granted to them.
//!
//! A grant is a record, whose expiry is the core's own. A write is guarded by the grant that allows it, so none is applied
//! that was decided before the grant was revoked.

use serde::{Deserialize, Serialize};

use super::{
    super::{
        Write, check,
        list::{Range, Walk},
    },
    collection::{self, Collection},
    requests,
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Key, Principal, Record, ScopeId,
        document::{Grant, Permission},
        key::{self, prefix_end},
        keyspace::{self, NO_SCOPE},
        kind,
        mesh::{Page, PageRequest},
        transaction::{Compare, Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

const SCOPE: ScopeId = ScopeId::new(keyspace::GRANTS, NO_SCOPE);
/// Most grants of a collection: they go with it, in one transaction.
const GRANTS: usize = 1_000;
/// Longest reason of a grant, in bytes.
pub(super) const REASON_BYTES: usize = 1_024;

/// Frozen (kind `Grant`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredGrant {
    permission: StoredPermission,
    reason: String,
    granted_by: String,
    ttl_ms: u64,
}

/// Frozen: grows at the end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StoredPermission {
    Read,
    Write,
    Admin,
}

impl From<Permission> for StoredPermission {
    fn from(permission: Permission) -> Self {
        match permission {
            Permission::Read => Self::Read,
            Permission::Write => Self::Write,
            Permission::Admin => Self::Admin,
        }
    }
}

impl From<StoredPermission> for Permission {
    fn from(stored: StoredPermission) -> Self {
        match stored {
            StoredPermission::Read => Self::Read,
            StoredPermission::Write => Self::Write,
            StoredPermission::Admin => Self::Admin,
        }
    }
}

/// On whose behalf a call is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The service; `None`: whoever runs the cluster, who may do everything.
    service: Option<String>,
    principal: String,
}

impl Actor {
    /// Whom a call is made for: the service that it names, or else the one that makes it. Errors: `InvalidArgument` for a name
    /// that is none; `PermissionDenied` for a service that names another.
    pub fn new(principal: &Principal, named: &str) -> Result<Self> {
        let text = principal.to_string();
        let service = match (principal, named) {
            (Principal::Service(own), "") => Some(own.as_str()),
            (Principal::Service(own), named) if named != own => {
                return Err(Error::PermissionDenied(format!("service/{own} cannot act as the service {named}")));
            }
            (_, "") => None,
            (_, named) => Some(named),
        };
        let service = service.map(|service| collection::check_part("service", service).map(str::to_owned));
        Ok(Self { service: service.transpose()?, principal: text })
    }

    /// The service, if it is one.
    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    /// Who it is towards people, and in documents.
    pub fn name(&self) -> &str {
        self.service.as_deref().unwrap_or(&self.principal)
    }

    /// The whole name of a collection: one without a dot is the service's own. Errors: `InvalidArgument`.
    pub fn full_name(&self, name: &str) -> Result<String> {
        if name.contains('.') {
            return collection::check_full(name).map(str::to_owned);
        }
        collection::check_part("collection", name)?;
        match &self.service {
            Some(service) => Ok(format!("{service}.{name}")),
            None => {
                let rule = "must be SERVICE.COLLECTION, or the service be named for which the call is made";
                Err(Error::invalid("collection", name, rule))
            }
        }
    }
}

fn front(collection: &str) -> Vec<u8> {
    let mut front = Vec::new();
    key::escape(&mut front, collection.as_bytes());
    front
}

/// Where something stands of a service on a collection.
pub(super) fn position(collection: &str, service: &str) -> Vec<u8> {
    [front(collection).as_slice(), service.as_bytes()].concat()
}

/// The collection and the service of a [`position`].
pub(super) fn names(position: &[u8]) -> Option<(String, String)> {
    let (collection, service) = key::unescape(position)?;
    Some((String::from_utf8(collection).ok()?, String::from_utf8(service.to_vec()).ok()?))
}

/// What says what was granted to a service on a collection.
pub(super) fn grant_key(collection: &str, service: &str) -> Key {
    SCOPE.key(&position(collection, service))
}

fn open(view: &View, key: &Key, record: &Record) -> Result<Grant> {
    let broken = |why: String| view.fault(Fault::bug(format!("the grant {key} cannot be read: {why}")));
    let (collection, service) = names(&key.user_bytes()).ok_or_else(|| broken("its key is malformed".into()))?;
    let stored: StoredGrant = codec::decode(Kind::Grant, &record.value).map_err(|error| broken(error.to_string()))?;
    let StoredGrant { permission, reason, granted_by, ttl_ms } = stored;
    Ok(Grant {
        collection,
        service,
        permission: permission.into(),
        reason,
        granted_by,
        granted_at_ms: record.updated_at_ms,
        ttl_ms,
    })
}

/// That somebody may do this with a collection; answers what else that relies on. Errors: `PermissionDenied`.
pub(super) fn check(view: &View, actor: &Actor, of: &Collection, needed: Permission) -> Result<Option<Compare>> {
    let Some(service) = actor.service().filter(|service| *service != of.owner()) else { return Ok(None) };
    let (granted, guard) = granted(view, of.name(), service)?;
    if granted.is_some_and(|granted| granted >= needed) {
        return Ok(Some(guard));
    }
    let has =
        granted.map_or("nothing was granted to it".into(), |granted| format!("what was granted to it is {granted}"));
    Err(Error::PermissionDenied(format!(
        "{service} may not {} the collection {}: {has}; {} can grant {needed}",
        match needed {
            Permission::Read => "read",
            Permission::Write => "change",
            Permission::Admin => "administer",
        },
        of.name(),
        of.owner(),
    )))
}

/// What was granted to a service on a collection, and what makes sure that it is that.
pub(super) fn granted(view: &View, collection: &str, service: &str) -> Result<(Option<Permission>, Compare)> {
    let key = grant_key(collection, service);
    let record = view.record(&key)?;
    let guard = Compare::written_at(key.clone(), record.as_ref().map_or(0, |record| record.mod_revision));
    let granted = record.map(|record| open(view, &key, &record)).transpose()?;
    Ok((granted.map(|grant| grant.permission), guard))
}

/// Grants a service something on a collection, in place of what it had. Errors: `InvalidArgument`; `NotFound` for the
/// collection; `PermissionDenied`.
pub fn grant(view: &View, actor: &Actor, grant: &Grant) -> Result<Write> {
    let Grant { collection, service, permission, reason, ttl_ms, .. } = grant;
    collection::check_part("service", service)?;
    check::check_length("reason", reason.len(), REASON_BYTES)?;
    if *ttl_ms > limits::LEASE_TTL_MAX_MS || (1..limits::LEASE_TTL_MIN_MS).contains(ttl_ms) {
        let rule = format!("must be 0, or {} to {}", limits::LEASE_TTL_MIN_MS, limits::LEASE_TTL_MAX_MS);
        return Err(Error::invalid("ttl_ms", ttl_ms.to_string(), rule));
    }
    let found = Collection::existing(view, &actor.full_name(collection)?)?;
    let mut guards = vec![found.guard()];
    guards.extend(self::check(view, actor, &found, Permission::Admin)?);
    if actor.service() == Some(service.as_str()) {
        return Err(Error::invalid("service", service, "cannot grant itself anything"));
    }
    let start = front(found.name());
    let present = view.records(SCOPE, &start, prefix_end(&start).as_deref(), GRANTS)?;
    if present.len() >= GRANTS && view.record(&grant_key(found.name(), service))?.is_none() {
        let name = found.name();
        return Err(Error::Refused(format!(
            "{name} has {GRANTS} grants, the most that it may have; revoke some first"
        )));
    }
    if found.owner() == service {
        return Err(Error::invalid("service", service, format!("owns {}, and may do everything", found.name())));
    }
    let stored = StoredGrant {
        permission: (*permission).into(),
        reason: reason.clone(),
        granted_by: actor.name().into(),
        ttl_ms: *ttl_ms,
    };
    let put = Put {
        ttl_ms: (*ttl_ms > 0).then_some(*ttl_ms),
        references: vec![found.reference()],
        ..Put::value(codec::encode(Kind::Grant, &stored))
    };
    let put = Operation::Put { key: grant_key(found.name(), service), put };
    // What was asked for is answered with it.
    Ok(Write::guarded(guards, vec![put, requests::forget(found.name(), service)]))
}

/// Takes back what was granted to a service. Errors: `InvalidArgument`; `NotFound` for the collection or the grant;
/// `PermissionDenied`.
pub fn revoke(view: &View, actor: &Actor, (name, service): (&str, &str)) -> Result<Write> {
    collection::check_part("service", service)?;
    let found = Collection::existing(view, &actor.full_name(name)?)?;
    let mut guards = vec![found.guard()];
    guards.extend(check(view, actor, &found, Permission::Admin)?);
    let key = grant_key(found.name(), service);
    match view.record(&key)? {
        None => Err(Error::NotFound { kind: kind::GRANT, name: format!("{service} on {}", found.name()) }),
        Some(record) => {
            guards.push(Compare::written_at(key.clone(), record.mod_revision));
            Ok(Write::guarded(guards, vec![Operation::Delete { key }]))
        }
    }
}

/// A page of what was granted on a collection, in order of the services.
#[derive(Debug)]
pub struct Grants {
    actor: Actor,
    collection: String,
    walk: Walk,
}

/// Errors: `InvalidArgument`.
pub fn grants(actor: &Actor, collection: &str, page: &PageRequest) -> Result<Grants> {
    let collection = actor.full_name(collection)?;
    let start = front(&collection);
    let end = prefix_end(&start);
    let walk = Walk::open(keyspace::GRANTS, &collection, Range { start, end }, page)?;
    Ok(Grants { actor: actor.clone(), collection, walk })
}

impl Grants {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page. Errors: `NotFound` for the collection; `PermissionDenied` for who may not even read it.
    pub fn read(&self, view: &View) -> Result<Page<Grant>> {
        let found = Collection::existing(view, &self.collection)?;
        check(view, &self.actor, &found, Permission::Read)?;
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(SCOPE, start, end, limit)?;
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), (key, record))).collect())
        };
        self.walk.read(view, fetch, |_, (key, record)| {
            let grant = open(view, &key, &record)?;
            let bytes = grant.reason.len() + grant.collection.len() + grant.service.len();
            Ok((grant, bytes))
        })
    }
}
