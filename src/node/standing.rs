//! Work that a layer wants done while the node leads, whenever the state says so.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Node, OWN, OWN_DEADLINE, Request};
use crate::{
    error::{Error, Result},
    model::{
        Outcome,
        proposal::Guards,
        transaction::{Compare, Transaction},
    },
    raft::consensus::Leadership,
    state::{
        View,
        sweep::{Sight, Step, Sweep},
    },
};

/// Between two looks at the state at most so often, however often it changes.
const PAUSE: Duration = Duration::from_millis(200);

/// What the state refuses is proposed again after twice the time each time, up to this.
const REFUSED: Duration = Duration::from_secs(60);

/// How often a sweep looks whether it may go on while this node does not lead, and how long it waits after an error.
const IDLE: Duration = Duration::from_secs(1);

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
        let mut pause = PAUSE;
        loop {
            // Everything that counts as seen is seen by the view, which is opened after.
            let applied = progress.borrow_and_update().position;
            if matches!(self.leadership(), Leadership::Me { term } if term == applied.term) {
                match self.view(None, None).and_then(|view| decide(&view)) {
                    Ok(None) => {}
                    Ok(Some((compares, transaction))) => {
                        let guards = Guards { compares, ..Guards::default() };
                        let request = Request { principal: OWN.into(), attempt: None, guards, transaction };
                        pause = match self.do_once(name, request).await {
                            None => PAUSE,
                            Some(reason) => {
                                let longer = (pause * 2).min(REFUSED);
                                tracing::warn!(job = name, reason, again_in = ?longer, "refused");
                                longer
                            }
                        };
                        tokio::time::sleep(pause).await;
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

    /// Proposes what is to be done. If the state refuses it: why. What is lost otherwise is decided anew.
    async fn do_once(&self, name: &'static str, request: Request) -> Option<String> {
        match self.propose(request, Instant::now() + OWN_DEADLINE).await {
            Ok(Outcome::Applied { revision, .. }) => tracing::info!(job = name, revision, "done"),
            Ok(Outcome::Raced) => {}
            Ok(outcome) => return Some(format!("{outcome:?}")),
            Err(error @ (Error::InvalidArgument { .. } | Error::Refused(_))) => return Some(error.to_string()),
            Err(error) => tracing::debug!(job = name, %error, "to be tried again"),
        }
        None
    }

    /// Lets a sweep go on as long as this node runs and whenever it leads. Each time that it comes to lead the sweep begins
    /// anew, and also when something that it wanted was not done.
    pub fn keep_sweeping(&self, name: &'static str, sweep: impl Sweep + 'static) {
        let node = self.clone();
        let task = tokio::spawn(async move { node.sweep(name, Box::new(sweep)).await });
        self.shared.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(task);
    }

    async fn sweep(&self, name: &'static str, mut sweep: Box<dyn Sweep>) {
        let mut led_in = None;
        loop {
            let applied = self.shared.machine.progress().borrow().position.term;
            let leads = matches!(self.leadership(), Leadership::Me { term } if term == applied).then_some(applied);
            if leads != led_in {
                sweep.begin_anew();
                led_in = leads;
            }
            let mut pause = IDLE;
            if leads.is_some() {
                // On a thread of its own: a step waits for apply, which a disk may hold up, and reads records.
                let node = self.clone();
                let stepping = self.run_blocking(name, move || {
                    let step = node.step_of(&mut *sweep);
                    (sweep, step)
                });
                let step;
                (sweep, step) = match stepping.await {
                    Ok(stepped) => stepped,
                    Err(error) => return tracing::error!(job = name, %error, "the job has ended"),
                };
                pause = self.sweep_on(name, &mut *sweep, step).await;
            }
            if pause.is_zero() {
                // Others have a turn, however much there is to do.
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// The next step of a sweep.
    fn step_of(&self, sweep: &mut dyn Sweep) -> Result<Step> {
        let account = |id| {
            let look = |_, meta: &crate::state::Meta| meta.scopes.get(&id).map(|scope| scope.account);
            self.shared.machine.with_state(look).unwrap_or_default()
        };
        let wall_ms = self.shared.environment.clock.wall_ms();
        sweep.step(&Sight { view: &|| self.view(None, None), wall_ms, account: &account })
    }

    /// Does what a step wants: how long the sweep waits for the next.
    async fn sweep_on(&self, name: &'static str, sweep: &mut dyn Sweep, step: Result<Step>) -> Duration {
        let failed = match step {
            Ok(Step::Next) => return Duration::ZERO,
            Ok(Step::Rest(rest_ms)) => return Duration::from_millis(rest_ms),
            Ok(Step::Propose(compares, transaction)) => {
                let guards = Guards { compares, ..Guards::default() };
                let request = Request { principal: OWN.into(), attempt: None, guards, transaction };
                match self.propose(request, Instant::now() + OWN_DEADLINE).await {
                    Ok(Outcome::Applied { .. }) => return Duration::ZERO,
                    Ok(outcome) => format!("{outcome:?}"),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        tracing::debug!(job = name, reason = failed, "to be begun anew");
        sweep.begin_anew();
        IDLE
    }
}
