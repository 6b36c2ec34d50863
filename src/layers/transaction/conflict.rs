//! Which record it was: what others have changed that a transaction stands on, in words of those who wrote it.

use std::collections::BTreeMap;

use crate::{
    Error, Result,
    layers::{consensus_log, kv::namespace::Namespace, list::successor},
    model::{
        Key, ScopeId,
        keyspace::{self, Keyspace},
        transaction::{Compare, ScopeField},
    },
    state::{Pending, View, pending::Ground},
};

/// The first of these compares that does not hold of a view, in words; `None` if all hold. Errors: those of the view.
pub fn conflict(ground: &Ground<'_>, view: &View, guards: &[Compare], since: u64) -> Result<Option<String>> {
    // What a key is called may depend on its namespace: if that has changed it is the better answer.
    let (namespaces, others): (Vec<_>, Vec<_>) =
        guards.iter().partition(|guard| guard.scope().keyspace == keyspace::NAMESPACES);
    for guard in namespaces.into_iter().chain(others) {
        if !Pending::holds(ground, guard)? {
            let what = Names::read(view, guards)?.what(view, guard)?;
            return Ok(Some(format!("{what} was changed by others after revision {since}")));
        }
    }
    Ok(None)
}

/// What a transaction is told that does not fit into a scope, if that is one of values. Errors: those of the view.
pub fn full(view: &View, guards: &[Compare], scope: ScopeId) -> Result<Option<Error>> {
    Ok(Names::read(view, guards)?.namespaces.get(&scope).map(Namespace::full))
}

/// A key in words that need no look at anything else.
pub(super) fn plain(key: &Key) -> String {
    let name = String::from_utf8_lossy(&key.user_bytes()).into_owned();
    match key.scope().keyspace {
        keyspace::NAMESPACES => format!("namespace {name}"),
        keyspace::SCOPE_NUMBERS => "the set of namespaces".into(),
        keyspace::CONSENSUS_LOG => consensus_log::name_of(key),
        keyspace::VALUES => format!("the value {name}"),
        keyspace::ATTRIBUTES => format!("the metadata of {name}"),
        keyspace::TOPOLOGY => "the topology".into(),
        other => format!("{} {name}", one_of(other)),
    }
}

/// What a record of a keyspace is called.
fn one_of(keyspace: Keyspace) -> String {
    match keyspace {
        keyspace::MESSAGES => "message".into(),
        keyspace::STATE => "state".into(),
        keyspace::NODE_STATE => "node state".into(),
        keyspace::ROUTING_TABLE => "route".into(),
        keyspace::RUNTIME_CONFIG => "config".into(),
        keyspace::LOCKS => "the lock".into(),
        other => keyspace::label(other),
    }
}

/// The namespaces that a transaction knows, by the scopes of their values and attributes.
struct Names {
    namespaces: BTreeMap<ScopeId, Namespace>,
}

impl Names {
    fn read(view: &View, guards: &[Compare]) -> Result<Self> {
        let mut namespaces = BTreeMap::new();
        for guard in guards {
            let (Compare::Number { key, .. } | Compare::Exists { key, .. }) = guard else { continue };
            if key.scope().keyspace != keyspace::NAMESPACES {
                continue;
            }
            let Some(found) = Namespace::find(view, &String::from_utf8_lossy(&key.user_bytes()))? else { continue };
            namespaces.insert(found.attributes(), found.clone());
            namespaces.insert(found.values(), found);
        }
        Ok(Self { namespaces })
    }

    fn what(&self, view: &View, guard: &Compare) -> Result<String> {
        Ok(match guard {
            Compare::Number { key, .. } | Compare::Exists { key, .. } | Compare::Value { key, .. } => self.key(key),
            Compare::Unchanged { start, end, since, .. } => match newer(view, start, end, *since)? {
                Some(key) => self.key(&key),
                None => format!("the list of {}", self.scope(start.scope())),
            },
            Compare::Scope { scope, field: ScopeField::LastRevision, .. } => {
                format!("the list of {}", self.scope(*scope))
            }
            Compare::Scope { scope, .. } => self.scope(*scope),
        })
    }

    fn key(&self, key: &Key) -> String {
        let plain = plain(key);
        match self.namespaces.get(&key.scope()) {
            Some(namespace) => format!("{plain} in namespace {}", namespace.name()),
            None => plain,
        }
    }

    fn scope(&self, scope: ScopeId) -> String {
        let values = ScopeId::new(keyspace::VALUES, scope.scope);
        let of = match scope.keyspace {
            keyspace::ENTRIES if scope.scope < keyspace::FIRST_DYNAMIC_SCOPE => "messages".into(),
            keyspace::HISTORY => "older versions".into(),
            keyspace::VALUES => "values".into(),
            keyspace::ENTRIES | keyspace::UNIQUE => "indexed values".into(),
            other => keyspace::label(other),
        };
        match self.namespaces.get(&values).or_else(|| self.namespaces.get(&scope)) {
            Some(namespace) => format!("{of} in namespace {}", namespace.name()),
            None => of,
        }
    }
}

/// A record of a range that was written after a revision.
fn newer(view: &View, start: &Key, end: &[u8], since: u64) -> Result<Option<Key>> {
    const CHUNK: usize = 64;
    let (scope, end) = (start.scope(), Key::from_bytes(bytes::Bytes::copy_from_slice(end)));
    let end = end.filter(|end| end.scope() == scope).map(|end| end.user_bytes());
    let mut from = start.user_bytes().to_vec();
    loop {
        let records = view.records(scope, &from, end.as_deref(), CHUNK)?;
        if let Some((key, _)) = records.iter().find(|(_, record)| record.mod_revision > since) {
            return Ok(Some(key.clone()));
        }
        match records.last() {
            Some((last, _)) if records.len() == CHUNK => from = successor(&last.user_bytes()),
            _ => return Ok(None),
        }
    }
}
