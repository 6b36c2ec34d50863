//! One replica in memory, and what layers read of it.

use std::sync::Arc;

use bytes::Bytes;
use meshstore::{
    Error, Result,
    error::Fault,
    model::{
        Outcome,
        proposal::{Action, Batch, Guards, Proposal},
        transaction::Compare,
    },
    state::{Commit, Meta, State, View, view::Source},
};

use super::store::{Pairs, logged};

/// A state machine and its pairs. Copying it is cheap until it is written to.
#[derive(Clone, Default)]
pub struct Replica {
    state: State,
    pairs: Arc<Pairs>,
    /// Log time of the next batch.
    pub log_time_ms: u64,
    /// Wall time of the next batch.
    pub wall_ms: u64,
}

impl Replica {
    /// Nothing yet, at these times.
    pub fn at(log_time_ms: u64, wall_ms: u64) -> Self {
        Self { log_time_ms, wall_ms, ..Self::default() }
    }

    /// Applies what nobody can have raced, and audits everything.
    pub fn apply(&mut self, action: Action) -> Outcome {
        let (outcome, _) = self.propose(vec![], action);
        self.audit();
        outcome
    }

    /// Applies a proposal that relies on `compares`: its outcome, and what became of the state.
    pub fn propose(&mut self, compares: Vec<Compare>, action: Action) -> (Outcome, Vec<Commit>) {
        let guards = Guards { compares, ..Guards::default() };
        let proposal = Proposal { principal: "p".into(), call: None, guards, action };
        let (log_time_ms, wall_ms) = (self.log_time_ms, self.wall_ms);
        let batch = logged(&Batch { log_time_ms, wall_ms, proposals: vec![proposal] });
        let applied = self.state.apply(Arc::make_mut(&mut self.pairs), &batch).expect("no proposal breaks a node");
        (applied.outcomes.into_iter().next().expect("one outcome for one proposal"), applied.commits)
    }

    /// Compares the accounts with all pairs.
    pub fn audit(&self) {
        self.pairs.audit(self.state.meta());
    }

    pub fn meta(&self) -> &Meta {
        self.state.meta()
    }

    pub fn revision(&self) -> u64 {
        self.state.meta().revision
    }

    pub fn view(&self) -> View {
        View::new(self.revision(), Box::new(Shown(Arc::clone(&self.pairs))))
    }
}

struct Shown(Arc<Pairs>);

impl Source for Shown {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        use meshstore::state::Base;
        Ok(self.0.range(start, end, limit).expect("a map does not fail"))
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Unavailable { reason: fault.to_string(), leader: None }
    }
}
