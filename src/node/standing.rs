//! Work that a layer wants done while the node leads, whenever the state says so.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Node, OWN, OWN_DEADLINE, Request};
use crate::{
    error::Result,
    model::{
        proposal::Guards,
        transaction::{Compare, Transaction},
    },
    raft::consensus::Leadership,
    state::View,
};

/// Between two looks at the state at most so often, however often it changes.
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be done now, from what the newest state says: a transaction and what it relies on.
pub type Decide = Arc<dyn Fn(&View) -> Result<Option<(Vec<Compare>, Transaction)>> + Send + Sync>;

impl Node {
    /// Does what `decide` says, as long as this node runs and whenever it leads. What is lost (the leader changed, somebody
    /// else was faster) is decided anew. A state machine's work: the state says what is left to do, nothing is kept here.
    pub fn keep_doing(&self, name: &'static str, decide: Decide) {
        let node = self.clone();
        let task = tokio::spawn(async move { node.work(name, decide).await });
        self.shared.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(task);
    }

    async fn work(&self, name: &'static str, decide: Decide) {
        let mut progress = self.shared.machine.progress();
        loop {
            // Everything that counts as seen is seen by the view, which is opened after.
            let applied = progress.borrow_and_update().position;
            if matches!(self.leadership(), Leadership::Me { term } if term == applied.term) {
                match self.view(None, None).and_then(|view| decide(&view)) {
                    Ok(None) => {}
                    Ok(Some((compares, transaction))) => {
                        let guards = Guards { compares, ..Guards::default() };
                        let request = Request { principal: OWN.into(), attempt: None, guards, transaction };
                        match self.propose(request, Instant::now() + OWN_DEADLINE).await {
                            Ok(outcome) => tracing::info!(job = name, ?outcome, "done"),
                            Err(error) => tracing::debug!(job = name, %error, "to be tried again"),
                        }
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    Err(error) => tracing::warn!(job = name, %error, "cannot be decided"),
                }
            }
            if progress.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
