//! Sessions: the memory that makes a retried call safe.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::constants::{OUTCOME_BYTES, SESSION_OUTCOMES};
use crate::{
    model::{OperationResult, Outcome, Refusal, proposal::Call},
    storage::codec,
};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Who opened it; for everybody else it does not exist.
    pub principal: String,
    /// How long it lives without a call, in milliseconds of log time.
    pub ttl_ms: u64,
    /// Log time after which it is gone.
    pub deadline_ms: u64,
    /// Calls below this are answered; a call below it is never executed.
    pub answered_below: u64,
    /// What became of the calls from there on.
    pub outcomes: BTreeMap<u64, Outcome>,
}

/// All sessions, by id. The queue of deadlines is derived from them: an entry may be early, never late.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    by_id: BTreeMap<u64, Session>,
    queue: BTreeSet<(u64, u64)>,
}

impl PartialEq for Sessions {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Eq for Sessions {}

/// What is known of a call before it is executed.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// It is new: execute it, then [`Sessions::record`].
    New,
    /// It was executed: this became of it.
    Answered(Outcome),
    /// Its session is gone, or no longer knows it.
    Expired,
}

impl Sessions {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> &BTreeMap<u64, Session> {
        &self.by_id
    }

    /// The sessions of a checkpoint.
    pub fn from_all(by_id: BTreeMap<u64, Session>) -> Self {
        Self { queue: queue(&by_id), by_id }
    }

    /// Opens a session.
    pub fn open(&mut self, id: u64, principal: &str, ttl_ms: u64, now_ms: u64) {
        let deadline_ms = now_ms.saturating_add(ttl_ms);
        let principal = principal.to_owned();
        let session = Session { principal, ttl_ms, deadline_ms, answered_below: 1, outcomes: BTreeMap::new() };
        self.by_id.insert(id, session);
        self.queue.insert((deadline_ms, id));
    }

    /// Keeps a principal's session alive; false if there is none.
    pub fn keep(&mut self, id: u64, principal: &str, now_ms: u64) -> bool {
        self.kept(id, principal, now_ms).is_some()
    }

    fn kept(&mut self, id: u64, principal: &str, now_ms: u64) -> Option<&mut Session> {
        let session = self.by_id.get_mut(&id).filter(|session| session.principal == principal)?;
        // The queue keeps the earlier deadline; `expire` puts it right when that comes.
        session.deadline_ms = session.deadline_ms.max(now_ms.saturating_add(session.ttl_ms));
        Some(session)
    }

    /// Ends a principal's session; false if there is none.
    pub fn close(&mut self, id: u64, principal: &str) -> bool {
        if self.by_id.get(&id).is_none_or(|session| session.principal != principal) {
            return false;
        }
        self.by_id.remove(&id);
        // Its place in the queue is left until its time comes, which may be far: now and then they go together.
        if self.queue.len() > 2 * self.by_id.len() + 64 {
            self.queue = queue(&self.by_id);
        }
        true
    }

    /// Ends the sessions whose deadline lies before `now_ms`.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some((queued, id)) = self.queue.first().copied().filter(|(queued, _)| *queued < now_ms) {
            self.queue.remove(&(queued, id));
            match self.by_id.get(&id).map(|session| session.deadline_ms) {
                Some(deadline) if deadline >= now_ms => {
                    self.queue.insert((deadline, id));
                }
                Some(_) => {
                    self.by_id.remove(&id);
                }
                None => {}
            }
        }
    }

    /// What is known of a call. Keeps its session alive and forgets what the client has seen answered.
    pub fn look_up(&mut self, call: &Call, principal: &str, now_ms: u64) -> Known {
        let Some(session) = self.kept(call.session, principal, now_ms) else { return Known::Expired };
        if call.answered_below > session.answered_below {
            session.answered_below = call.answered_below;
            while session.outcomes.first_key_value().is_some_and(|(sequence, _)| *sequence < call.answered_below) {
                session.outcomes.pop_first();
            }
        }
        if call.sequence < session.answered_below {
            return Known::Expired;
        }
        session.outcomes.get(&call.sequence).map_or(Known::New, |outcome| Known::Answered(outcome.clone()))
    }

    /// Keeps what became of a call.
    pub fn record(&mut self, call: &Call, outcome: &Outcome) {
        let Some(session) = self.by_id.get_mut(&call.session) else { return };
        session.outcomes.insert(call.sequence, brief(outcome));
        while session.outcomes.len() > SESSION_OUTCOMES {
            if let Some((sequence, _)) = session.outcomes.pop_first() {
                session.answered_below = session.answered_below.max(sequence.saturating_add(1));
            }
        }
    }
}

fn queue(by_id: &BTreeMap<u64, Session>) -> BTreeSet<(u64, u64)> {
    by_id.iter().map(|(id, session)| (session.deadline_ms, *id)).collect()
}

/// The outcome as it is kept: large results and reasons are dropped, and what is kept keeps nothing else in memory.
fn brief(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Applied { revision, succeeded, results } if codec::payload_len(results) > OUTCOME_BYTES => {
            Outcome::AppliedEarlier { revision: *revision, succeeded: *succeeded }
        }
        Outcome::Applied { revision, succeeded, results } => {
            let results = results.iter().map(OperationResult::detached).collect();
            Outcome::Applied { revision: *revision, succeeded: *succeeded, results }
        }
        Outcome::Refused { revision, refusal } => {
            let payload = codec::encode_payload(refusal);
            let kept = Some(payload).filter(|payload| payload.len() <= OUTCOME_BYTES);
            let reason = || "refused earlier, for a reason that was too large to keep".to_owned();
            let kept = kept.and_then(|payload| codec::decode_payload(&payload).ok());
            Outcome::Refused { revision: *revision, refusal: kept.unwrap_or_else(|| Refusal::Layer(reason())) }
        }
        other => other.clone(),
    }
}
