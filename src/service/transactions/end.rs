//! The end of a transaction: commit and rollback.
//!
//! A commit that was sent is answered by what it did, or by that nothing of it was done and never will be. Only if a client
//! without a session loses the answer nobody can tell; with one, the repeated commit finds what the first did in the state,
//! which remembers calls of sessions whoever leads.

use std::sync::Arc;

use super::{Ending, Found, Home, Phase, Slot, Transactions, finished, lock};
use crate::{
    Error, Result,
    layers::{Meaning, lock as fences, transaction},
    model::{Outcome, ReadMode, Refusal, ScopeId, lease::Fence, proposal::Guards, transaction::Compare},
    node::Request,
    service::Caller,
    state::{pending::Ground, view::Source},
};

/// How often a commit is proposed anew that raced although everything is as it was: the permissions were changed.
const PROPOSED: usize = 4;

impl Transactions {
    /// Commits a transaction: the revision with its writes in; of one that wrote nothing, the one that it read.
    ///
    /// Errors: `TransactionAborted` if others have changed what it stands on, if its time was over, or if it was lost with its
    /// leader: nothing of it was written. `Refused` if the state forbids it: it is ended, too. `InvalidArgument` if there is
    /// none of this name, or it is finished. Others as of any write: it stays open, and its commit may be repeated.
    pub async fn commit<H: Home>(&self, home: &H, caller: Caller, id: &str) -> Result<u64> {
        let found = self.find(home, id, &caller.principal)?;
        let Found::Open(slot) = found else { return self.earlier(home, &caller, found, id).await };
        let _turn = self.turn(&slot, caller.deadline).await?;
        let phase = lock(&slot.phase).clone();
        let place = place_of(&caller);
        match phase {
            Phase::Open => {}
            Phase::Doubtful(before) if before.is_some() && before == place => {}
            Phase::Doubtful(_) => {
                let text = "a commit of this transaction was sent, and only who repeats it in its session is told";
                return Err(Error::Unknown(text.into()));
            }
            Phase::Ended => {
                let found = self.find(home, id, &caller.principal)?;
                return self.earlier(home, &caller, found, id).await;
            }
        }
        let (revision, read_only) = {
            let transaction = lock(&slot.transaction);
            (transaction.revision(), transaction.is_read_only())
        };
        if read_only {
            if let Some(fence) = &caller.fence {
                let (view, _) = home.read(ReadMode::Linearizable, None, caller.deadline).await?;
                fences::check_fence(&view, fence)?;
            }
            // It has happened when it began, before anything that came later.
            self.end(&slot, Ending::Committed { revision, proposed: false });
            return Ok(revision);
        }
        self.propose(home, &caller, &slot, phase != Phase::Open).await
    }

    async fn propose<H: Home>(&self, home: &H, caller: &Caller, slot: &Arc<Slot>, mut doubtful: bool) -> Result<u64> {
        let Caller { principal, attempt, deadline, fence } = caller.clone();
        let (mut guards, transaction) = lock(&slot.transaction).commit();
        guards.extend(fence.as_ref().map(fences::guard));
        let session = attempt.map(|attempt| attempt.session);
        for _ in 0..PROPOSED {
            let compares = Guards { compares: guards.clone(), ..Guards::default() };
            let (principal, transaction) = (principal.clone(), transaction.clone());
            let request = Request { principal, attempt, guards: compares, transaction };
            // Before anything is sent: whoever gives this call up leaves it so.
            *lock(&slot.phase) = Phase::Doubtful(place_of(caller));
            let outcome = match home.propose(request, deadline).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    doubtful |= error.may_have_applied();
                    if !doubtful {
                        *lock(&slot.phase) = Phase::Open;
                    }
                    return Err(error);
                }
            };
            match outcome {
                Outcome::Raced | Outcome::SessionExpired if !doubtful => *lock(&slot.phase) = Phase::Open,
                _ => {}
            }
            match outcome {
                Outcome::Raced => {}
                Outcome::SessionExpired => return Err(Error::SessionExpired { session: session.unwrap_or_default() }),
                outcome => return self.ended(home, slot, &guards, outcome),
            }
            if let Some(error) = self.conflict(home, slot, &guards, caller).await? {
                return self.raced(home, caller, slot, (error, doubtful)).await;
            }
        }
        let error = aborted("the permissions were changed again and again");
        self.raced(home, caller, slot, (error, doubtful)).await
    }

    /// It was overtaken. If an earlier attempt is in doubt the call is closed in the log first: what that did is the answer.
    async fn raced<H: Home>(
        &self,
        home: &H,
        caller: &Caller,
        slot: &Arc<Slot>,
        (error, doubtful): (Error, bool),
    ) -> Result<u64> {
        if doubtful && caller.attempt.is_some() {
            let answer = self.close(home, caller, error).await;
            if let Some(ending) = ending_of(&answer) {
                self.end(slot, ending);
            }
            return answer;
        }
        let answer = Err(error);
        if let Some(ending) = ending_of(&answer) {
            self.end(slot, ending);
        }
        answer
    }

    /// What the state says of it is the end of it.
    fn ended<H: Home>(&self, home: &H, slot: &Slot, guards: &[Compare], outcome: Outcome) -> Result<u64> {
        let answer = match &outcome {
            Outcome::Refused { refusal: Refusal::ScopeFull(scope), .. } => {
                let full = home.at_hand().and_then(|view| transaction::full(&view, guards, *scope));
                full.ok().flatten().map_or_else(|| Meaning::default().of(outcome, None), Err)
            }
            _ => Meaning::default().of(outcome, None),
        };
        match answer {
            Ok(done) => {
                self.end(slot, Ending::Committed { revision: done.revision, proposed: true });
                Ok(done.revision)
            }
            Err(error) => {
                self.end(slot, Ending::Aborted(format!("its commit was refused ({error}); nothing of it was written")));
                Err(error)
            }
        }
    }

    /// What others have changed of what a transaction stands on, in the newest state.
    async fn conflict<H: Home>(
        &self,
        home: &H,
        slot: &Slot,
        guards: &[Compare],
        caller: &Caller,
    ) -> Result<Option<Error>> {
        let (view, _) = home.read(ReadMode::Linearizable, None, caller.deadline).await?;
        let relied: Vec<Fence> = lock(&slot.fences).iter().chain(&caller.fence).cloned().collect();
        for fence in relied {
            match fences::check_fence(&view, &fence) {
                Err(error @ Error::Fenced { .. }) => return Ok(Some(error)),
                other => other?,
            }
        }
        let since = lock(&slot.transaction).revision();
        let scopes = |wanted: &[ScopeId]| home.scopes(wanted);
        let ground = Ground { source: &view as &dyn Source, scopes: &scopes, wall_ms: 0 };
        Ok(transaction::conflict(&ground, &view, guards, since)?.map(|why| aborted(&why)))
    }

    /// The answer of a commit of a transaction that is not open. If an earlier attempt may have committed it, the state is
    /// asked; nothing else knows.
    async fn earlier<H: Home>(&self, home: &H, caller: &Caller, found: Found, id: &str) -> Result<u64> {
        let repeated = caller.attempt.is_some_and(|attempt| attempt.attempt > 1);
        match &found {
            Found::Ended(Ending::Committed { revision, proposed: false }) if repeated => Ok(*revision),
            Found::Ended(Ending::Unknown(call)) if repeated && *call == place_of(caller) => {
                let answer = self.close(home, caller, aborted("its time was over before its commit was done")).await;
                if let Some(ending) = ending_of(&answer) {
                    self.known(id, ending);
                }
                answer
            }
            _ if repeated => self.close(home, caller, found.error(id)).await,
            _ => Err(found.error(id)),
        }
    }

    /// Closes the call in the log with `error`, unless an earlier attempt of it was executed: then what that did.
    async fn close<H: Home>(&self, home: &H, caller: &Caller, error: Error) -> Result<u64> {
        let Caller { principal, attempt, deadline, .. } = caller.clone();
        let Some(attempt) = attempt else { return Err(error) };
        match home.refuse(principal, attempt, error.to_string(), deadline).await? {
            Outcome::Refused { refusal: Refusal::Layer(_), .. } => Err(error),
            outcome => Ok(Meaning::default().of(outcome, Some(attempt.session))?.revision),
        }
    }

    /// Ends a transaction without writing anything. One that was rolled back already is no error.
    ///
    /// Errors: as of [`enter`](Self::enter); `InvalidArgument` also if its commit was sent.
    pub async fn rollback<H: Home>(&self, home: &H, caller: Caller, id: &str) -> Result<()> {
        let found = self.find(home, id, &caller.principal)?;
        let Found::Open(slot) = found else {
            return match found {
                Found::Ended(Ending::RolledBack) => Ok(()),
                found => Err(found.error(id)),
            };
        };
        let _turn = self.turn(&slot, caller.deadline).await?;
        let phase = lock(&slot.phase).clone();
        match phase {
            Phase::Open => {
                self.end(&slot, Ending::RolledBack);
                Ok(())
            }
            Phase::Doubtful(call) => Err(finished(id, &Ending::Unknown(call))),
            Phase::Ended => match self.find(home, id, &caller.principal)? {
                Found::Ended(Ending::RolledBack) => Ok(()),
                found => Err(found.error(id)),
            },
        }
    }
}

/// Which call of a session it is.
fn place_of(caller: &Caller) -> Option<(u64, u64)> {
    caller.attempt.map(|attempt| (attempt.session, attempt.sequence))
}

fn aborted(why: &str) -> Error {
    Error::TransactionAborted(format!("{why}; nothing of it was written"))
}

/// How a transaction has ended whose commit is answered so, if that says it.
fn ending_of(answer: &Result<u64>) -> Option<Ending> {
    match answer {
        Ok(revision) => Some(Ending::Committed { revision: *revision, proposed: true }),
        Err(Error::TransactionAborted(why)) => Some(Ending::Aborted(why.clone())),
        Err(error @ Error::Fenced { .. }) => Some(Ending::Aborted(format!("{error}; nothing of it was written"))),
        Err(_) => None,
    }
}
