//! What a node does of itself: lets log time pass when something is due, freezes the memtable in time, and
//! tells the log and Raft what has reached the disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Shared,
    fault::Faults,
    identity::{self, Address},
};
use crate::{
    error::Fault,
    model::proposal::Action,
    raft::{consensus::Leadership, types::NodeId},
};

/// How often the age of the memtable is looked at. A timer, because an idle node applies nothing that could
/// remind it.
const FREEZE_CHECK: Duration = Duration::from_secs(1);
/// How often a node that has heard of no leader looks whether it has.
const HEARD_CHECK: Duration = Duration::from_millis(500);
/// How long a leader waits at most before it looks again whether something is due.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);

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
            shared.log.set_purge_floor(position);
            shared.consensus.snapshot_advanced().await;
        }
        if flushed.changed().await.is_err() {
            return;
        }
    }
}

/// Starts the log clock when this node has become leader and has applied its first own entry.
pub(super) async fn keep_clock(shared: Arc<Shared>) {
    let mut progress = shared.machine.progress();
    loop {
        if let Leadership::Me { term } = shared.consensus.leadership() {
            let now = shared.environment.clock.monotonic();
            shared.log_clock.start(term, &progress.borrow_and_update(), now);
        }
        if progress.changed().await.is_err() {
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
                if now >= due {
                    // If it is lost, the next round tries again.
                    let _ = shared.propose_own(Action::Tick).await;
                    continue;
                }
                Duration::from_millis(due - now).min(EXPIRY_CHECK)
            }
            _ => EXPIRY_CHECK,
        };
        // What changes meanwhile may be due earlier.
        if let Ok(Err(_)) = tokio::time::timeout(wait, progress.changed()).await {
            return;
        }
    }
}

/// Stops a node whose data directory is another cluster's. Once a leader is heard it is known not to be; one that only
/// the vote of an earlier run names says nothing.
pub(super) async fn recognise(shared: Arc<Shared>, nodes: BTreeMap<NodeId, Address>) {
    let mut watch = shared.consensus.watch();
    let led = async {
        let applied = || shared.machine.progress().borrow().position.index;
        let heard = || match shared.consensus.leadership() {
            Leadership::Me { .. } => true,
            Leadership::Other { .. } => shared.network.freshness().age_ms(applied()) != u64::MAX,
            Leadership::Unknown => false,
        };
        while !heard() {
            // A heartbeat changes nothing that could be waited for.
            if let Ok(Err(_)) = tokio::time::timeout(HEARD_CHECK, shared.consensus.changed(&mut watch)).await {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = led => {}
        recognised = identity::recognise(&shared.directory, &shared.environment.net, &nodes) => {
            if let Err(fault) = recognised {
                shared.faults.report(fault);
            }
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
