//! Locks: taking, waiting, watching.
//!
//! Who waits for a lock is woken when locks change, and then looks at very little: most find that another still holds it. A call
//! waits for some seconds at most, so that a node that stops is not held up; its place in the queue outlives it.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Caller, Decision, change};
use crate::{
    Error, Result,
    layers::lock::{self, Claim, Standing},
    model::{
        ReadMode, ReadStamp,
        lease::{Fence, Holder},
    },
    node::Node,
    state::View,
};

/// What a call that waits leaves of its deadline for the answer.
const ANSWER: Duration = Duration::from_millis(100);
/// How long a call waits at most.
const LONGEST: Duration = Duration::from_secs(3);

/// Until when a call with this deadline waits.
fn patience(deadline: Instant) -> Instant {
    let latest = deadline.checked_sub(ANSWER).unwrap_or(deadline);
    latest.min(Instant::now() + LONGEST)
}

/// Waits for a change of locks; whether there was one in time. Errors: `Unavailable` when the node stops.
async fn changed(locks: &mut watch::Receiver<u64>, until: Instant) -> Result<bool> {
    match timeout_at(until, locks.changed()).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(_)) => Err(Error::Unavailable { reason: "the node is stopping".into(), leader: None }),
        Err(_) => Ok(false),
    }
}

/// Takes a lock, and waits for it if it must: the revision at which it was found so, and the token if it is held.
///
/// Errors: as of [`lock::acquire`], and those of a write.
pub async fn acquire(node: &Node, caller: Caller, claim: &Claim) -> Result<(u64, Option<u64>)> {
    let until = patience(caller.deadline);
    let principal = caller.principal.clone();
    let mut locks = node.locks();
    loop {
        // From here on: what changes while this is decided must not be missed.
        locks.borrow_and_update();
        let decide = |view: &View| {
            let (write, found) = lock::acquire(view, &principal, claim)?;
            Ok(Decision { write, found })
        };
        let done = change(node, caller.clone(), decide).await?;
        match done.found {
            Some(Standing::Holds(token)) => return Ok((done.revision, Some(token))),
            Some(Standing::Takes) => return Ok((done.revision, Some(done.revision))),
            _ if claim.only_if_free => return Ok((done.revision, None)),
            _ => {}
        }
        loop {
            if !changed(&mut locks, until).await? {
                return Ok((done.revision, None));
            }
            if lock::is_due(&node.view_at_hand()?, claim)? {
                break;
            }
        }
    }
}

/// Who holds a lock and how many wait for it, as soon as its token is not `known` any more (0: nobody holds it), or some time
/// has passed. Errors: `InvalidArgument`; those of a read.
pub async fn observe(
    node: &Node,
    (name, known): (&str, Option<u64>),
    (mut mode, deadline): (ReadMode, Instant),
) -> Result<((Option<Holder>, u64), ReadStamp)> {
    let until = patience(deadline);
    let mut locks = node.locks();
    locks.borrow_and_update();
    // Who waits is counted once, for the answer.
    let is_known = |view: &View| {
        let token = lock::holder(view, name)?.map_or(0, |holder| holder.token);
        Ok::<_, Error>(known == Some(token))
    };
    loop {
        let (view, stamp) = node.read(mode, None, deadline).await?;
        if !is_known(&view)? {
            return Ok((lock::show(&view, name)?, stamp));
        }
        mode = ReadMode::AtLeast(stamp.revision);
        drop(view);
        if !changed(&mut locks, until).await? {
            let (view, stamp) = node.read(mode, None, deadline).await?;
            return Ok((lock::show(&view, name)?, stamp));
        }
    }
}

/// Says why a write with a fence was overtaken, if that was the fence. Errors: `Fenced`; those of a read.
pub async fn check_fence(node: &Node, fence: &Fence, deadline: Instant) -> Result<()> {
    let (view, _) = node.read(ReadMode::Linearizable, None, deadline).await?;
    lock::check_fence(&view, fence)
}
