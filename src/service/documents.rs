//! The data broker: what its calls have in common, whoever they come from.

use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Caller, Core, Decision, Done, change};
use crate::{
    Error, Result,
    layers::documents::{
        access::Actor,
        collection::{self, Declared},
        manifest::{self, Manifest},
        read,
        write::{self, Inserts},
    },
    model::{
        Outcome, ReadMode, ReadStamp, ScopeId,
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

/// What was decided and done, of which the answer is made: what was found is right for the outcome only if this was the first
/// attempt, since a repeated one is answered with the outcome of that.
///
/// Errors: `Unexpected` if all that is known is that an earlier attempt was executed.
fn told<T>(done: Done<T>, repeated: bool) -> Result<(u64, Option<T>, Option<Outcome>)> {
    let Done { revision, outcome, found } = done;
    if matches!(outcome, Some(Outcome::AppliedEarlier { .. })) {
        return Err(Error::Unexpected(format!(
            "an earlier attempt of this call was executed, at revision {revision} or before, but its answer was too large to keep: \
             read what became of it"
        )));
    }
    let found = found.filter(|_| outcome.is_none() || !repeated);
    Ok((revision, found, outcome))
}

fn is_repeated(caller: &Caller) -> bool {
    caller.attempt.is_some_and(|attempt| attempt.attempt > 1)
}

/// Does this on a thread that others do not wait for: it may go through many documents.
fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Inserts documents. The revision, and what became of each. Errors: as of [`write::insert`], and those of a write; `Conflict` if
/// others were faster with what is unique, and those that can be were wanted.
pub async fn insert<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    (documents, each): (&[NewDocument], bool),
) -> Result<(u64, Vec<Inserted>)> {
    let repeated = is_repeated(&caller);
    let done = change(core, caller, |view| {
        let mut found = write::insert(view, actor, name, (documents, each))?;
        Ok(Decision { write: found.write.take(), found })
    })
    .await
    .map_err(|error| match error {
        Error::AlreadyExists { .. } if each => Error::Conflict("what is unique in the collection".into()),
        error => error,
    })?;
    let (revision, found, outcome) = told(done, repeated)?;
    Ok((revision, Inserts::results(found, documents, outcome.as_ref())))
}

/// Changes documents. The revision, and how many. Errors: as of [`write::update`], and those of a write.
pub async fn update<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    modification: &Modification,
) -> Result<(u64, Modified)> {
    let repeated = is_repeated(&caller);
    let done = change(core, caller, |view| {
        let (write, found) = apart(|| write::update(view, actor, name, modification))?;
        Ok(Decision { write, found })
    })
    .await?;
    let (revision, found, outcome) = told(done, repeated)?;
    Ok((revision, found.unwrap_or_else(|| Modified::before(outcome.as_ref()))))
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
    let repeated = is_repeated(&caller);
    let done = change(core, caller, |view| {
        let (write, found) = apart(|| write::find_and_update(view, actor, name, wanted))?;
        Ok(Decision { write, found })
    })
    .await?;
    let (revision, found, outcome) = told(done, repeated)?;
    let document = write::answered(outcome.as_ref(), projection)?;
    Ok((revision, found.unwrap_or_else(|| Modified::before(outcome.as_ref())), document))
}

/// Deletes documents. The revision, and how many. Errors: as of [`write::delete`], and those of a write.
pub async fn delete<C: Core>(
    core: &C,
    caller: Caller,
    (actor, name): (&Actor, &str),
    which: (&str, u64, Option<u64>),
) -> Result<(u64, u64)> {
    let repeated = is_repeated(&caller);
    let done = change(core, caller, |view| {
        let (write, found) = apart(|| write::delete(view, actor, name, which))?;
        Ok(Decision { write, found })
    })
    .await?;
    let (revision, _, outcome) = told(done, repeated)?;
    Ok((revision, write::deleted(outcome.as_ref())))
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

/// That somebody may still read a collection, whatever older state he is shown of it: by the newest at hand. Asked behind the read
/// that it is about. Errors: `NotFound`, `PermissionDenied`, `Unavailable`.
pub fn may_read<C: Core>(core: &C, actor: &Actor, name: &str) -> Result<()> {
    read::documents_of(&core.at_hand()?, actor, name).map(drop)
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
        may_read(core, actor, name)?;
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
