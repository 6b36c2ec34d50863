//! Leases: what their calls have in common, whoever they come from.

use super::{Caller, Core, Decision, change};
use crate::{
    Result,
    layers::lease,
    model::{OperationResult, Outcome, features, lease::Kept},
};

/// Makes a lease: the revision, and its id. `id`: the one that is asked for, if any; `chance`: what another is made of.
///
/// Errors: as of [`lease::grant`], and those of a write.
pub async fn grant<C: Core>(
    core: &C,
    caller: Caller,
    (id, chance): (Option<u64>, impl Fn() -> u128),
    ttl_ms: u64,
) -> Result<(u64, u64)> {
    core.require(features::LEASES, caller.deadline).await?;
    let principal = caller.principal.clone();
    let done = change(core, caller, |view| {
        let new = id.map_or_else(|| (lease::id_from(chance()), false), |id| (id, true));
        Ok(Decision { write: Some(lease::grant(view, &principal, new, ttl_ms)?), found: new.0 })
    })
    .await?;
    // A repeated call is answered by what its first attempt has made.
    let made = match &done.outcome {
        Some(Outcome::Applied { results, .. }) => results.iter().find_map(|result| match result {
            OperationResult::Put { key, .. } => lease::id_of_key(key),
            _ => None,
        }),
        _ => None,
    };
    Ok((done.revision, made.or(id).or(done.found).unwrap_or_default()))
}

/// Gives leases their whole time again. The revision, and which they are. Errors: as of [`lease::keep_alive`], and those of a
/// write.
pub async fn keep_alive<C: Core>(core: &C, caller: Caller, ids: &[u64]) -> Result<(u64, Kept)> {
    let done = change(core, caller, |view| {
        let (write, kept) = lease::keep_alive(view, ids)?;
        Ok(Decision { write: Some(write), found: kept })
    })
    .await?;
    Ok((done.revision, done.found.unwrap_or_default()))
}
