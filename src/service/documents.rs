//! The data broker: what its calls have in common, whoever they come from.

use super::{Caller, Core, Decision, change};
use crate::{
    Result,
    layers::documents::{
        access::Actor,
        collection::{self, Declared},
        manifest::{self, Manifest},
        read,
        write::{self, Inserts},
    },
    model::{
        ReadMode, ReadStamp, ScopeId,
        document::{
            AppliedManifest, Collection, Declaration, Document, FindAndUpdate, Inserted, Modification, Modified,
            NewDocument,
        },
        features,
    },
    service::storage::Freshness,
    state::{View, scope::Account},
};

/// Creates or changes a collection. The revision, and what became of it. Errors: as of [`collection::declare`], and those of a
/// write.
pub async fn declare<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    (declaration, exactly): (&Declaration, bool),
) -> Result<(u64, Declared)> {
    core.require(features::DOCUMENTS, caller.deadline).await?;
    let done = change(core, caller, |view| {
        let (write, found) = collection::declare(view, actor, (name, declaration, exactly))?;
        Ok(Decision { write, found })
    })
    .await?;
    let before = || Declared { name: actor.full_name(name).unwrap_or_default(), ..Declared::default() };
    Ok((done.revision, done.found.unwrap_or_else(before)))
}

/// Does what a manifest says, or only says what would be done. The revision, and what became of it. Errors: as of
/// [`manifest::apply`], and those of a write.
pub async fn apply_manifest<C: Core>(
    core: &C,
    caller: Caller,
    actor: &Actor,
    (manifest, dry_run): (&Manifest, bool),
) -> Result<(u64, AppliedManifest)> {
    if dry_run {
        let (view, _) = core.read(ReadMode::Linearizable, None, caller.deadline).await?;
        return Ok((view.revision(), manifest::apply(&view, actor, manifest)?.1));
    }
    core.require(features::DOCUMENTS, caller.deadline).await?;
    let done = change(core, caller, |view| {
        let (write, found) = manifest::apply(view, actor, manifest)?;
        Ok(Decision { write, found })
    })
    .await?;
    match done.found {
        Some(found) => Ok((done.revision, found)),
        // What an earlier attempt has done is what is there now.
        None => Ok((done.revision, manifest::apply(&core.at_hand()?, actor, manifest)?.1)),
    }
}

/// Inserts documents. The revision, and what became of each. Errors: as of [`write::insert`], and those of a write.
pub async fn insert<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    (documents, each): (&[NewDocument], bool),
) -> Result<(u64, Vec<Inserted>)> {
    let done = change(core, caller, |view| {
        let mut found = write::insert(view, actor, name, (documents, each))?;
        Ok(Decision { write: found.write.take(), found })
    })
    .await?;
    Ok((done.revision, Inserts::results(done.found, documents, done.outcome.as_ref())?))
}

/// Changes documents. The revision, and how many. Errors: as of [`write::update`], and those of a write.
pub async fn update<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    modification: &Modification,
) -> Result<(u64, Modified)> {
    let done = change(core, caller, |view| {
        let (write, found) = write::update(view, actor, name, modification)?;
        Ok(Decision { write, found })
    })
    .await?;
    let found = done.found.unwrap_or_else(|| Modified::before(done.outcome.as_ref()));
    Ok((done.revision, found))
}

/// Changes one document, and answers it. The revision, and what became of it. Errors: as of [`write::find_and_update`], and
/// those of a write.
pub async fn find_and_update<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    (wanted, projection): (&FindAndUpdate, (&[String], &[String])),
) -> Result<(u64, Modified, Option<Document>)> {
    // A projection that is none must not be found out when all is done.
    write::answered(None, projection)?;
    let done = change(core, caller, |view| {
        let (write, found) = write::find_and_update(view, actor, name, wanted)?;
        Ok(Decision { write, found })
    })
    .await?;
    let document = write::answered(done.outcome.as_ref(), projection)?;
    let found = done.found.unwrap_or_else(|| Modified::before(done.outcome.as_ref()));
    Ok((done.revision, found, document))
}

/// Deletes documents. The revision, and how many. Errors: as of [`write::delete`], and those of a write.
pub async fn delete<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    which: (&str, u64, Option<u64>),
) -> Result<(u64, u64)> {
    let done = change(core, caller, |view| {
        let (write, found) = write::delete(view, actor, name, which)?;
        Ok(Decision { write, found })
    })
    .await?;
    Ok((done.revision, write::deleted(done.outcome.as_ref())))
}

/// A change that answers nothing but its revision. Errors: those of `decide`, and those of a write.
pub async fn only<C: Core>(
    core: &C,
    caller: Caller,
    decide: impl Fn(&View) -> Result<crate::layers::Write>,
) -> Result<u64> {
    let decide = |view: &View| Ok(Decision { write: Some(decide(view)?), found: () });
    Ok(change(core, caller, decide).await?.revision)
}

/// How many documents a collection holds, by the core's account of the newest state. Errors: as of [`read::documents_of`], and
/// those of a read.
pub async fn count_all<C: Core>(
    core: &C,
    (actor, name): (&Actor, &str),
    (mode, revision, deadline): Freshness,
) -> Result<(u64, ReadStamp)> {
    loop {
        let (view, stamp) = core.read(mode, revision, deadline).await?;
        let scope = read::documents_of(&view, actor, name)?;
        let (revision, accounts) = core.accounts(&[scope]);
        // It may have been dropped in between.
        if let Some(Some(Account { count, .. })) = accounts.first() {
            return Ok((*count, ReadStamp { revision, ..stamp }));
        }
    }
}

/// Collections of a page with how much each holds.
pub fn measured<C: Core>(core: &C, shown: Vec<(Collection, ScopeId)>) -> Vec<Collection> {
    let scopes: Vec<ScopeId> = shown.iter().map(|(_, scope)| *scope).collect();
    let (_, accounts) = core.accounts(&scopes);
    let measure = |((collection, _), account): ((Collection, ScopeId), Option<Account>)| {
        let account = account.unwrap_or_default();
        Collection { documents: account.count, bytes: account.bytes, ..collection }
    };
    shown.into_iter().zip(accounts).map(measure).collect()
}
