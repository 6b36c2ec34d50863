//! The storage contract: what its calls have in common, whoever they come from.

use tokio::time::Instant;

use super::{Caller, Core, Decision, change};
use crate::{
    Result,
    layers::{
        Write,
        kv::{
            index, namespace, read,
            write::{self, Deletes, Sets},
        },
    },
    limits,
    model::{
        OperationResult, Outcome, ReadMode, ReadStamp, ScopeId, features,
        kv::{DeleteResult, Deletion, Namespace, NamespaceChange, NamespaceSettings, Set, SetResult, StorageStatus},
        mesh::{Condition, Page, PageRequest},
        query::SortField,
    },
    state::{View, scope::Account},
};

/// What a change that answers nothing else makes of a view.
fn only(write: Write) -> Decision<()> {
    Decision { write: Some(write), found: () }
}

/// Writes values, all or none; with `per_key` those that can be. The revision, and what became of each key.
///
/// Errors: as of [`write::set`], and those of a write.
pub async fn set<C: Core>(
    core: &C,
    caller: Caller,
    namespace: &str,
    (sets, per_key): (Vec<Set>, bool),
) -> Result<(u64, Vec<SetResult>)> {
    core.require(features::STORAGE, caller.deadline).await?;
    let principal = caller.principal.clone();
    let decide = |view: &View| {
        let mut found = write::set(view, &principal, namespace, sets.clone(), per_key)?;
        Ok(Decision { write: found.write.take(), found })
    };
    let done = change(core, caller, decide).await?;
    let keys = || sets.iter().map(|set| set.key.clone()).collect();
    let found = done.found.unwrap_or_else(|| Sets::executed_before(keys(), per_key));
    Ok((done.revision, found.results(done.outcome.as_ref())))
}

/// Deletes values, all or none, or with `per_key` those that can be. The revision, and what became of each key.
///
/// Errors: as of [`write::delete`], and those of a write.
pub async fn delete<C: Core>(
    core: &C,
    caller: Caller,
    namespace: &str,
    (deletions, per_key): (Vec<Deletion>, bool),
) -> Result<(u64, Vec<DeleteResult>)> {
    let decide = |view: &View| {
        let mut found = write::delete(view, namespace, deletions.clone(), per_key)?;
        Ok(Decision { write: found.write.take(), found })
    };
    let done = change(core, caller, decide).await?;
    let found = done.found.unwrap_or_else(|| Deletes::executed_before(deletions.clone()));
    Ok((done.revision, found.results(done.outcome.as_ref())))
}

/// Sets the attributes of a value. The revision. Errors: as of [`write::set_attributes`], and those of a write.
pub async fn set_attributes<C: Core>(
    core: &C,
    caller: Caller,
    (namespace, key): (&str, &str),
    attributes: &str,
    how: (bool, Option<u64>),
) -> Result<u64> {
    let decide = |view: &View| write::set_attributes(view, namespace, key, attributes, how).map(only);
    Ok(change(core, caller, decide).await?.revision)
}

/// Makes a value what it was at a revision. The revision now, and the value's version. Errors: as of [`write::restore`], and
/// those of a write.
pub async fn restore<C: Core>(
    core: &C,
    caller: Caller,
    place: (&str, &str),
    what: (u64, Option<Condition>),
) -> Result<(u64, u64)> {
    let principal = caller.principal.clone();
    let decide = |view: &View| write::restore(view, &principal, place, what).map(only);
    let done = change(core, caller, decide).await?;
    let version = match done.outcome {
        Some(Outcome::Applied { results, .. }) => match results.first() {
            Some(OperationResult::Put { version, .. }) => *version,
            _ => 0,
        },
        _ => 0,
    };
    Ok((done.revision, version))
}

/// Creates a namespace. The revision. Errors: as of [`namespace::create`], and those of a write.
pub async fn create_namespace<C: Core>(
    core: &C,
    caller: Caller,
    (name, metadata): (&str, &str),
    settings: NamespaceSettings,
) -> Result<u64> {
    core.require(features::STORAGE, caller.deadline).await?;
    let decide = |view: &View| namespace::create(view, name, metadata, settings).map(only);
    Ok(change(core, caller, decide).await?.revision)
}

/// Changes a namespace. The revision. Errors: as of [`namespace::modify`], and those of a write.
pub async fn modify_namespace<C: Core>(core: &C, caller: Caller, name: &str, fields: NamespaceChange) -> Result<u64> {
    core.require(features::STORAGE, caller.deadline).await?;
    let decide = |view: &View| namespace::modify(view, name, fields.clone()).map(only);
    Ok(change(core, caller, decide).await?.revision)
}

/// Deletes a namespace. The revision. Errors: as of [`namespace::delete`], and those of a write.
pub async fn delete_namespace<C: Core>(core: &C, caller: Caller, name: &str, recursive: bool) -> Result<u64> {
    let decide = |view: &View| namespace::delete(view, name, recursive).map(only);
    Ok(change(core, caller, decide).await?.revision)
}

/// Creates an index. The revision. Errors: as of [`index::create`], and those of a write.
pub async fn create_index<C: Core>(
    core: &C,
    caller: Caller,
    (namespace, name): (&str, &str),
    fields: Vec<SortField>,
) -> Result<u64> {
    core.require(features::VALUE_INDEXES, caller.deadline).await?;
    let decide = |view: &View| index::create(view, namespace, name, fields.clone()).map(only);
    Ok(change(core, caller, decide).await?.revision)
}

/// Drops an index. The revision. Errors: as of [`index::drop`], and those of a write.
pub async fn drop_index<C: Core>(core: &C, caller: Caller, (namespace, name): (&str, &str)) -> Result<u64> {
    let decide = |view: &View| index::drop(view, namespace, name).map(only);
    Ok(change(core, caller, decide).await?.revision)
}

/// Deletes all that a namespace holds, or every one. The revision. Errors: as of [`namespace::clear`], and those of a write.
pub async fn clear<C: Core>(core: &C, caller: Caller, name: Option<&str>) -> Result<u64> {
    let decide = |view: &View| Ok(Decision { write: namespace::clear(view, name)?, found: () });
    Ok(change(core, caller, decide).await?.revision)
}

/// How fresh a read must be, of which revision, and until when it is of use.
pub type Freshness = (ReadMode, Option<u64>, Instant);

/// How many values a namespace holds: by the core's account of the newest state, or counted if it is to be of one revision.
///
/// Errors: `InvalidArgument`; `NotFound`; those of a read.
pub async fn count<C: Core>(
    core: &C,
    namespace: &str,
    (mode, revision, deadline): Freshness,
) -> Result<(u64, ReadStamp)> {
    loop {
        let (view, stamp) = core.read(mode, revision, deadline).await?;
        let Some(scope) = read::values_of(&view, namespace)? else { return Ok((0, stamp)) };
        if revision.is_some() || !core.accounts_are_shown() {
            return Ok((read::count(&view, scope)?, stamp));
        }
        let (revision, accounts) = core.accounts(&[scope]);
        // It may have been dropped in between.
        if let Some(Some(Account { count, .. })) = accounts.first() {
            return Ok((*count, ReadStamp { revision, ..stamp }));
        }
    }
}

/// A namespace with how much it holds. Errors: `InvalidArgument`, `NotFound`, those of a read.
pub async fn show_namespace<C: Core>(
    core: &C,
    name: &str,
    (mode, revision, deadline): Freshness,
) -> Result<(Namespace, ReadStamp)> {
    let (view, stamp) = core.read(mode, revision, deadline).await?;
    let shown = namespace::show(&view, name)?;
    Ok((measured(core, vec![shown]).remove(0), stamp))
}

/// Namespaces of a page with how much each holds.
pub fn measured<C: Core>(core: &C, shown: Vec<(Namespace, Option<ScopeId>)>) -> Vec<Namespace> {
    let scopes: Vec<ScopeId> = shown.iter().filter_map(|(_, scope)| *scope).collect();
    let (_, accounts) = core.accounts(&scopes);
    let mut accounts = accounts.into_iter();
    let measure = |(namespace, scope): (Namespace, Option<ScopeId>)| {
        let account = scope.and_then(|_| accounts.next().flatten()).unwrap_or_default();
        Namespace { entries: account.count, bytes: account.bytes, ..namespace }
    };
    shown.into_iter().map(measure).collect()
}

/// How much is stored in all namespaces. Errors: those of a read.
pub async fn status<C: Core>(core: &C, (mode, revision, deadline): Freshness) -> Result<(StorageStatus, ReadStamp)> {
    let (view, stamp) = core.read(mode, revision, deadline).await?;
    let mut status = StorageStatus { healthy: core.knows_leader(), capacity: Some(0), ..StorageStatus::default() };
    let mut cursor = String::new();
    loop {
        let limit = u32::try_from(limits::PAGE_MAX).unwrap_or(u32::MAX);
        let Page { items, next_cursor, .. } = namespace::list(&PageRequest { limit, cursor })?.read(&view)?;
        for namespace in measured(core, items) {
            status.namespaces += 1;
            status.entries += namespace.entries;
            status.bytes += namespace.bytes;
            status.capacity = match namespace.settings.max_entries {
                0 => None,
                most => status.capacity.map(|sum| sum.saturating_add(most)),
            };
        }
        if next_cursor.is_empty() {
            return Ok((status, stamp));
        }
        cursor = next_cursor;
    }
}
