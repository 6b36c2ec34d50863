//! Calls that a layer decides on what it reads, however they come: over gRPC, or from a program that holds the store itself.
//!
//! A change is decided on a view, proposed with what it relied on, and decided anew if another was faster ([`change`]). The
//! first time it is decided on what is at hand, which may be behind: the guards see to it that nothing comes of that. Only
//! what would be refused, or would change nothing, is looked at again in the newest state, before it is said.

pub mod documents;
pub mod lease;
pub mod lock;
pub mod storage;
pub mod transactions;
pub mod watch;

use tokio::time::Instant;

use crate::{
    Result,
    layers::{Decided, Meaning, Write, lease::noted, lock as fences},
    model::{Outcome, ReadMode, ReadStamp, ScopeId, lease::Fence, proposal::Guards, session::Attempt},
    node::{Node, Request},
    state::{View, scope::Account},
};

/// What a call needs of the store that it is made to.
pub trait Core: Send + Sync {
    /// The newest state at hand. Errors: `Unavailable`.
    fn at_hand(&self) -> Result<View>;
    /// The same for a call that is of use until then only. Errors: `Unavailable`.
    fn at_hand_until(&self, _deadline: Instant) -> Result<View> {
        self.at_hand()
    }
    /// A view that is as fresh as `mode` asks, of `revision` if one is named. Errors: those of a read.
    fn read(
        &self,
        mode: ReadMode,
        revision: Option<u64>,
        deadline: Instant,
    ) -> impl Future<Output = Result<(View, ReadStamp)>> + Send;
    /// Proposes a transaction. Errors: those of a write.
    fn propose(&self, request: Request, deadline: Instant) -> impl Future<Output = Result<Outcome>> + Send;
    /// Closes a call of a session with a refusal, unless it was executed: then its outcome. Errors: those of a write.
    fn refuse(
        &self,
        principal: String,
        attempt: Attempt,
        reason: String,
        deadline: Instant,
    ) -> impl Future<Output = Result<Outcome>> + Send;
    /// What the newest state at hand holds of some scopes, as far as they exist, and its revision.
    fn accounts(&self, wanted: &[ScopeId]) -> (u64, Vec<Option<Account>>);
    /// Whether `accounts` count what a view shows, and no more than was committed since.
    fn accounts_are_shown(&self) -> bool {
        true
    }
    /// Whether it is known who leads.
    fn knows_leader(&self) -> bool;
    /// That all nodes know a feature level. Errors: `Refused`, `Unavailable`.
    fn require(&self, level: u32, deadline: Instant) -> impl Future<Output = Result<()>> + Send;
    /// Keeps the revision of a view readable for some seconds, for the next page of a list.
    fn keep_for_pages(&self, view: &View);
}

impl Core for Node {
    fn at_hand(&self) -> Result<View> {
        self.view_at_hand()
    }

    fn at_hand_until(&self, deadline: Instant) -> Result<View> {
        self.view_at_hand_until(deadline)
    }

    async fn read(&self, mode: ReadMode, revision: Option<u64>, deadline: Instant) -> Result<(View, ReadStamp)> {
        Self::read(self, mode, revision, deadline).await
    }

    async fn propose(&self, request: Request, deadline: Instant) -> Result<Outcome> {
        Self::propose(self, request, deadline).await
    }

    async fn refuse(&self, principal: String, attempt: Attempt, reason: String, deadline: Instant) -> Result<Outcome> {
        Self::refuse(self, principal, attempt, reason, deadline).await
    }

    fn accounts(&self, wanted: &[ScopeId]) -> (u64, Vec<Option<Account>>) {
        Self::accounts(self, wanted)
    }

    fn knows_leader(&self) -> bool {
        Self::knows_leader(self)
    }

    async fn require(&self, level: u32, deadline: Instant) -> Result<()> {
        Self::require(self, level, deadline).await
    }

    fn keep_for_pages(&self, view: &View) {
        Self::keep_for_pages(self, view);
    }
}

/// Who asks for a change, and until when.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As proposals name it.
    pub principal: String,
    /// The session call, if it is made in a session.
    pub attempt: Option<Attempt>,
    /// Until when an answer is of use.
    pub deadline: Instant,
    /// What the change depends on, if it carries a fence.
    pub fence: Option<Fence>,
}

impl Caller {
    /// What the layer makes of the call, if its fence still holds; with what that and leases add to it.
    fn decide<T>(&self, view: &View, decide: impl Fn(&View) -> Result<Decision<T>>) -> Result<Decision<T>> {
        if let Some(fence) = &self.fence {
            fences::check_fence(view, fence)?;
        }
        let Decision { write, found } = decide(view)?;
        let mut write = write.map(|write| noted(view, write)).transpose()?;
        if let (Some(write), Some(fence)) = (&mut write, &self.fence) {
            write.guards.push(fences::guard(fence));
        }
        Ok(Decision { write, found })
    }
}

/// What a layer made of a call.
pub struct Decision<T> {
    /// `None`: there is nothing to change.
    pub write: Option<Write>,
    /// What else it found.
    pub found: T,
}

impl<T> Decision<T> {
    fn nothing(self, revision: u64) -> Done<T> {
        Done { revision, outcome: None, found: Some(self.found) }
    }
}

/// What became of a change.
pub struct Done<T> {
    /// The revision with it in; the present one if there was nothing to change.
    pub revision: u64,
    /// Of the transaction, if there was one.
    pub outcome: Option<Outcome>,
    /// What the layer found when it was decided; `None` if all that is known is what an earlier attempt has done.
    pub found: Option<T>,
}

impl<T> Done<T> {
    /// What became of what was compared.
    pub fn decided(&self) -> Decided {
        let succeeded = match &self.outcome {
            Some(Outcome::Applied { succeeded, .. } | Outcome::AppliedEarlier { succeeded, .. }) => *succeeded,
            _ => true,
        };
        Decided { revision: self.revision, succeeded }
    }
}

/// Decides and proposes until it has taken effect, or cannot.
///
/// Errors: those of `decide`; those of a write.
pub async fn change<C: Core, T>(
    core: &C,
    caller: Caller,
    decide: impl Fn(&View) -> Result<Decision<T>>,
) -> Result<Done<T>> {
    let Caller { principal, attempt, deadline, .. } = caller.clone();
    let session = attempt.map(|attempt| attempt.session);
    let mut newest = false;
    loop {
        let view = match newest {
            true => core.read(ReadMode::Linearizable, None, deadline).await?.0,
            false => core.at_hand_until(deadline)?,
        };
        let (present, decision) = (view.revision(), caller.decide(&view, &decide));
        drop(view);
        let (found, outcome, meaning) = match decision {
            Ok(Decision { write: Some(write), found }) => {
                let Write { transaction, guards: compares, meaning, .. } = write;
                let guards = Guards { compares, ..Guards::default() };
                let request = Request { principal: principal.clone(), attempt, guards, transaction };
                match core.propose(request, deadline).await? {
                    Outcome::Raced => {
                        newest = true;
                        continue;
                    }
                    outcome => (Some(found), outcome, meaning),
                }
            }
            _ if !newest => {
                newest = true;
                continue;
            }
            decision => match attempt.filter(|attempt| attempt.attempt > 1) {
                // What an earlier attempt has done is no reason to refuse this one.
                Some(attempt) => {
                    let reason = decision.as_ref().err().map_or_else(String::new, ToString::to_string);
                    match core.refuse(principal.clone(), attempt, reason, deadline).await? {
                        Outcome::Refused { .. } => return decision.map(|decision| decision.nothing(present)),
                        outcome => (decision.ok().map(|decision| decision.found), outcome, Meaning::default()),
                    }
                }
                None => return decision.map(|decision| decision.nothing(present)),
            },
        };
        let Decided { revision, .. } = meaning.of(outcome.clone(), session)?;
        return Ok(Done { revision, outcome: Some(outcome), found });
    }
}
