//! Apply: a pure function of state and log entry.

use super::{
    base::Base,
    change::Commit,
    constants::{APPLY_VERSION, SESSIONS},
    derived,
    meta::{self, Meta},
    overlay::{Overlay, Stop},
    session::Known,
};
use crate::{
    error::Fault,
    model::{
        Outcome, Refusal, ScopeId, keyspace,
        proposal::{Action, Batch, Guards, Proposal},
        transaction::{Relation, Transaction},
    },
};

/// The replicated state, but for the pairs themselves, which stand in a [`Base`].
#[derive(Clone, Debug, Default)]
pub struct State {
    meta: Meta,
    /// When the next record is due, in milliseconds of log time; a lower bound, derived from the pairs.
    /// `None`: not known.
    next_expiry_ms: Option<u64>,
}

/// What a batch did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each proposal.
    pub outcomes: Vec<Outcome>,
    /// The transactions that changed something, expiries among them, in order of revision.
    pub commits: Vec<Commit>,
}

impl State {
    /// The state of a checkpoint.
    pub fn from_meta(meta: Meta) -> Self {
        Self { meta, next_expiry_ms: None }
    }

    /// The state beside the records.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// When the next record is due, if one has an expiry: when a leader should let log time pass.
    pub fn next_expiry_ms(&mut self, base: &impl Base) -> Result<Option<u64>, Fault> {
        if self.next_expiry_ms.is_none() && self.has_expiries() {
            let first = base.range(&derived::EXPIRY.prefix(), None, 1)?;
            self.next_expiry_ms = first.first().and_then(|(pair_key, _)| Some(derived::parse_expiry(pair_key)?.0));
        }
        Ok(self.next_expiry_ms.filter(|_| self.has_expiries()))
    }

    /// Applies the batch of one log entry. An `Err` is a broken node, never a refused proposal.
    pub fn apply(&mut self, base: &mut impl Base, batch: &Batch) -> Result<Applied, Fault> {
        let proposals = batch.proposals.len();
        let mut applied = Applied { outcomes: Vec::with_capacity(proposals), commits: Vec::with_capacity(proposals) };
        for proposal in &batch.proposals {
            self.pass_time(base, batch, &mut applied)?;
            let outcome = self.apply_one(base, batch, proposal, &mut applied)?;
            applied.outcomes.push(outcome);
        }
        Ok(applied)
    }

    fn has_expiries(&self) -> bool {
        self.meta.scopes.get(&derived::EXPIRY).is_some_and(|scope| scope.account.count > 0)
    }

    /// Lets log time pass, and deletes what is due by then.
    fn pass_time(&mut self, base: &mut impl Base, batch: &Batch, applied: &mut Applied) -> Result<(), Fault> {
        self.meta.log_time_ms = self.meta.log_time_ms.max(batch.log_time_ms);
        let now_ms = self.meta.log_time_ms;
        self.meta.sessions.expire(now_ms);
        if !self.has_expiries() || self.next_expiry_ms.is_some_and(|next| next > now_ms) {
            return Ok(());
        }
        let mut overlay = Overlay::new(&self.meta, &*base, batch.wall_ms);
        let next = match overlay.expire(now_ms) {
            Ok(next) => next,
            Err(Stop::Fault(fault)) => return Err(fault),
            Err(Stop::Refused(refusal)) => return Err(Fault::bug(format!("expiry was refused: {refusal}"))),
        };
        // Before it takes effect: that may bring an earlier one, of a record that was put off.
        let effect = overlay.has_changes().then(|| overlay.into_effect());
        self.next_expiry_ms = next;
        match effect {
            Some(effect) => self.take_effect(base, effect, applied),
            None => Ok(()),
        }
    }

    fn apply_one(
        &mut self,
        base: &mut impl Base,
        batch: &Batch,
        proposal: &Proposal,
        applied: &mut Applied,
    ) -> Result<Outcome, Fault> {
        let now_ms = self.meta.log_time_ms;
        if let Some(call) = &proposal.call {
            match self.meta.sessions.look_up(call, &proposal.principal, now_ms) {
                Known::New => {}
                Known::Answered(outcome) => return Ok(outcome),
                Known::Expired => return Ok(Outcome::SessionExpired),
            }
        }
        let outcome = match &proposal.action {
            Action::Transact(transaction) => self.transact(base, batch, &proposal.guards, transaction, applied)?,
            Action::OpenSession { ttl_ms } => self.open_session(&proposal.principal, *ttl_ms, now_ms),
            Action::KeepSession { session } if self.meta.sessions.keep(*session, &proposal.principal, now_ms) => {
                self.unchanged(true)
            }
            Action::KeepSession { .. } => Outcome::SessionExpired,
            Action::CloseSession { session } => {
                let closed = self.meta.sessions.close(*session, &proposal.principal);
                self.unchanged(closed)
            }
            Action::Refuse { reason } => self.refused(Refusal::Layer(reason.clone())),
            Action::Tick => self.unchanged(true),
            Action::SetApplyVersion(version) if *version > APPLY_VERSION => {
                return Err(meta::unknown_version(*version));
            }
            Action::SetApplyVersion(version) => {
                self.meta.apply_version = self.meta.apply_version.max(*version);
                self.unchanged(true)
            }
        };
        if let Some(call) = proposal.call.as_ref().filter(|_| outcome != Outcome::Raced) {
            self.meta.sessions.record(call, &outcome);
        }
        Ok(outcome)
    }

    fn transact(
        &mut self,
        base: &mut impl Base,
        batch: &Batch,
        guards: &Guards,
        transaction: &Transaction,
        applied: &mut Applied,
    ) -> Result<Outcome, Fault> {
        let mut overlay = Overlay::new(&self.meta, &*base, batch.wall_ms);
        if !overlay.guarded(guards)? {
            return Ok(Outcome::Raced);
        }
        let succeeded = overlay.all_hold(&transaction.compares)?;
        let operations = if succeeded { &transaction.then } else { &transaction.otherwise };
        let run = |overlay: &mut Overlay<'_, _>| {
            let mut results = Vec::with_capacity(operations.len());
            for operation in operations {
                results.push(overlay.operate(operation, self.meta.log_time_ms)?);
            }
            overlay.check()?;
            Ok(results)
        };
        let results = match run(&mut overlay) {
            Ok(results) => results,
            Err(Stop::Refused(refusal)) => return Ok(self.refused(refusal)),
            Err(Stop::Fault(fault)) => return Err(fault),
        };
        if overlay.has_changes() {
            let effect = overlay.into_effect();
            self.take_effect(base, effect, applied)?;
        }
        Ok(Outcome::Applied { revision: self.meta.revision, succeeded, results })
    }

    fn take_effect(
        &mut self,
        base: &mut impl Base,
        effect: super::commit::Effect,
        applied: &mut Applied,
    ) -> Result<(), Fault> {
        effect.apply_to(&mut self.meta);
        for (pair_key, value) in &effect.pairs {
            // A new expiry may be earlier than the one that was next.
            if value.is_some() && pair_key.starts_with(&derived::EXPIRY.prefix()) {
                let at_ms = derived::parse_expiry(pair_key).map(|(at_ms, _)| at_ms);
                self.next_expiry_ms = self.next_expiry_ms.zip(at_ms).map(|(next, at_ms)| next.min(at_ms));
            }
        }
        base.write(effect.commit.revision, effect.pairs)?;
        applied.commits.push(effect.commit);
        Ok(())
    }

    fn open_session(&mut self, principal: &str, ttl_ms: u64, now_ms: u64) -> Outcome {
        if self.meta.sessions.len() >= SESSIONS {
            return self.refused(Refusal::TooManySessions);
        }
        self.meta.revision += 1;
        self.meta.sessions.open(self.meta.revision, principal, ttl_ms, now_ms);
        self.unchanged(true)
    }

    fn unchanged(&self, succeeded: bool) -> Outcome {
        Outcome::Applied { revision: self.meta.revision, succeeded, results: Vec::new() }
    }

    fn refused(&self, refusal: Refusal) -> Outcome {
        Outcome::Refused { revision: self.meta.revision, refusal }
    }
}

impl<B: Base> Overlay<'_, B> {
    /// Whether everything still is as the layer relied on.
    fn guarded(&self, guards: &Guards) -> Result<bool, Fault> {
        let security = self.scope(ScopeId::new(keyspace::SECURITY, keyspace::NO_SCOPE));
        if security.map_or(0, |scope| scope.account.last_revision) != guards.security_revision {
            return Ok(false);
        }
        for (scope, incarnation) in &guards.incarnations {
            if !self.scope(*scope).is_some_and(|scope| Relation::Equal.holds(&scope.incarnation, incarnation)) {
                return Ok(false);
            }
        }
        self.all_hold(&guards.compares)
    }
}
