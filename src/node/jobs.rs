//! What a node does of itself: lets log time pass when something is due, freezes the memtable in time, and
//! tells the log and Raft what has reached the disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Shared,
    fault::Faults,
    identity::{self, Address},
};
use crate::{
    environment::sabotage::{self, Sabotage},
    error::Fault,
    model::proposal::Action,
    raft::{consensus::Leadership, state_machine::Observer, types::NodeId},
};

/// How often the age of the memtable is looked at. A timer, because an idle node applies nothing that could
/// remind it.
const FREEZE_CHECK: Duration = Duration::from_secs(1);
/// How long a leader waits at most before it looks again whether something is due.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);
/// And before it tries again what was refused.
const EXPIRY_RETRY: Duration = Duration::from_millis(100);

/// Once something is applied the directory remembers it: from then on an empty log is a lost one.
pub(super) async fn remember_start(shared: Arc<Shared>) {
    let mut progress = shared.machine.progress();
    if progress.wait_for(|progress| progress.position.index > 0).await.is_ok()
        && let Err(fault) = shared.directory.set_started()
    {
        shared.faults.report(fault);
    }
}

/// Freezes the memtable when it is old enough, and lets go of revisions that nobody pages through any more.
pub(super) async fn freeze(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(FREEZE_CHECK);
    loop {
        ticks.tick().await;
        shared.machine.freeze_if_due();
        shared.pages.expire();
    }
}

/// After every flush: the log may be purged up to there, and Raft has a newer snapshot.
pub(super) async fn advance_snapshot(shared: Arc<Shared>) {
    let mut flushed = shared.machine.store().flushed();
    loop {
        let position = *flushed.borrow_and_update();
        if let Some(position) = position {
            if sabotage::on(Sabotage::PurgeEarly) {
                let applied = shared.machine.progress().borrow().position;
                shared.log.set_purge_floor(applied);
                let _ = shared.log.purge(applied).await;
            }
            shared.log.set_purge_floor(position);
            shared.consensus.snapshot_advanced().await;
        }
        if flushed.changed().await.is_err() {
            return;
        }
        shared.measures.flushed(shared.environment.clock.monotonic());
    }
}

/// Starts the log clock when this node has become leader and has applied its first own entry, and lets it go on while a quorum
/// answers.
pub(super) async fn keep_clock(shared: Arc<Shared>) {
    let mut progress = shared.machine.progress();
    loop {
        let leadership = shared.consensus.leadership();
        let leads = if let Leadership::Me { term } = leadership {
            // Asked first: what a quorum answers from here on is heard next time.
            let age = shared.consensus.quorum_age_ms();
            let now = shared.environment.clock.monotonic();
            shared.log_clock.start(term, &progress.borrow_and_update(), now);
            if let Some(heard) = age.and_then(|age| now.checked_sub(Duration::from_millis(age))) {
                shared.log_clock.hear(term, heard);
            }
            true
        } else {
            progress.borrow_and_update();
            false
        };
        let stopped = if leads {
            tokio::time::sleep(shared.log_clock.rhythm()).await;
            progress.has_changed().is_err()
        } else {
            progress.changed().await.is_err()
        };
        if stopped {
            return;
        }
    }
}

/// On the leader: proposes a tick when a record is due, so that it expires though nobody writes.
pub(super) async fn expire(shared: Arc<Shared>) {
    let mut progress = shared.machine.progress();
    loop {
        let due = progress.borrow_and_update().next_expiry_ms;
        let wait = match (due, shared.consensus.leadership()) {
            (Some(due), Leadership::Me { term }) => {
                let now = shared.log_clock.now_ms(term, shared.environment.clock.monotonic());
                if now < due {
                    Duration::from_millis(due - now).min(EXPIRY_CHECK)
                } else if shared.propose_own(Action::Tick).await.is_ok() {
                    continue;
                } else {
                    // Who no longer leads may be refused at once, and know it only later.
                    EXPIRY_RETRY
                }
            }
            _ => EXPIRY_CHECK,
        };
        // What changes meanwhile may be due earlier.
        if let Ok(Err(_)) = tokio::time::timeout(wait, progress.changed()).await {
            return;
        }
    }
}

/// Stops a node whose data directory is another cluster's. A leader that was voted for in an earlier life is no sign that
/// it is not; one that leads or is heard now is.
pub(super) async fn recognise(shared: Arc<Shared>, nodes: BTreeMap<NodeId, Address>) {
    let in_place = || {
        let leads = matches!(shared.consensus.leadership(), Leadership::Me { .. });
        leads || shared.network.freshness().has_heard()
    };
    if let Err(fault) = identity::recognise(&shared.directory, &shared.environment.net, &nodes, in_place).await {
        shared.faults.report(fault);
    }
}

/// Says who leads, when that changes.
pub(super) async fn watch_lead(shared: Arc<Shared>) {
    let mut watch = shared.consensus.watch();
    let mut before = Leadership::Unknown;
    loop {
        let leadership = shared.consensus.leadership();
        if leadership != before {
            match &leadership {
                Leadership::Me { term } => {
                    tracing::info!(term, "this node leads");
                    shared.watches.leads(*term);
                }
                Leadership::Other { id, .. } => tracing::info!(leader = id, "another node leads"),
                Leadership::Unknown => tracing::info!("no leader is known"),
            }
            before = leadership;
        }
        if shared.consensus.changed(&mut watch).await.is_err() {
            return;
        }
    }
}

/// A Raft that has stopped of itself is a fault.
pub(super) async fn watch_raft(shared: Arc<Shared>) {
    let mut watch = shared.consensus.watch();
    loop {
        if let Err(fault) = shared.consensus.status() {
            return shared.faults.report(fault);
        }
        if shared.consensus.changed(&mut watch).await.is_err() {
            return;
        }
    }
}

/// A worker that ends with a fault, or without having been told to, stops the node.
pub(super) async fn watch_worker(name: &'static str, running: crate::environment::executor::Running, faults: Faults) {
    match running.await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => faults.report(fault),
        Err(_) => faults.report(Fault::new(format!("the {name} thread ended unexpectedly (see the log for a panic)"))),
    }
}
