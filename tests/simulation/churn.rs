//! Nodes that come and go while the faults of a seed come. About half of the seeds have some of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use meshstore::Client;
use rand::{Rng, rngs::StdRng};
use tokio::sync::Notify;

use super::{
    clients::{Ended, Plan},
    faults::Fault,
    ledger::Event,
    support::sim_disk::Loss,
};

/// One change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Churn {
    /// A node that has not run yet is started, and joins.
    Join(u64),
    /// An operator takes a node out. It may not be a member, or the last.
    Remove(u64),
    /// The same for whoever leads.
    RemoveLeader,
    /// Another is to lead.
    Transfer,
}

/// A node that waits to be started.
#[derive(Clone, Default)]
pub struct Gate {
    open: Arc<AtomicBool>,
    opened: Arc<Notify>,
}

impl Gate {
    /// The gate of a node that runs from the beginning.
    pub fn opened() -> Self {
        let gate = Self::default();
        gate.open();
        gate
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.opened.notify_one();
    }

    /// Waits until it is open; at once in every later life.
    pub async fn pass(&self) {
        while !self.is_open() {
            self.opened.notified().await;
        }
    }
}

/// What is to come and go, in order of time: how many nodes beside the founders, the changes, and the faults that only
/// newcomers have.
#[derive(Default)]
pub struct Coming {
    pub spares: u64,
    pub changes: Vec<(Duration, Churn)>,
    pub faults: Vec<(Duration, Fault)>,
}

/// The plan of a seed.
pub fn plan(rng: &mut StdRng, founders: u64, length: Duration) -> Coming {
    let mut coming = Coming::default();
    if rng.random_bool(0.5) {
        return coming;
    }
    let part = |rng: &mut StdRng, from: f64, to: f64| length.mul_f64(rng.random_range(from..to));
    coming.spares = rng.random_range(1..=2);
    let all = founders + coming.spares;
    for id in founders + 1..=all {
        let at = part(rng, 0.05, 0.6);
        coming.changes.push((at, Churn::Join(id)));
        if rng.random_bool(0.6) {
            let at = at + Duration::from_millis(rng.random_range(0..1_500));
            coming.faults.push((at, Fault::Crash(id, Loss::Torn)));
            coming.faults.push((at + Duration::from_millis(rng.random_range(10..2_000)), Fault::Restart(id)));
        }
    }
    for _ in 0..rng.random_range(0..=all.min(3)) {
        let at = part(rng, 0.3, 1.0);
        let change = if rng.random_bool(0.3) { Churn::RemoveLeader } else { Churn::Remove(rng.random_range(1..=all)) };
        coming.changes.push((at, change));
    }
    if rng.random_bool(0.5) {
        coming.changes.push((part(rng, 0.1, 1.0), Churn::Transfer));
    }
    coming.changes.sort_by_key(|(at, _)| *at);
    coming
}

/// The operator: makes the changes at their times, one after the other. What is refused, or not answered in time, is let be.
pub async fn operate(plan: Plan, changes: Vec<(Duration, Churn)>, gates: Vec<Gate>, seed: u64) -> Ended {
    let client = plan.client(seed)?;
    for (at, change) in changes {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        tokio::time::sleep(at.saturating_sub(now)).await;
        let told = make(&client, &change, &gates).await.map_or_else(|error| error.to_string(), |()| "done".into());
        plan.ledger.record(Event::Churned { change: format!("{change:?}"), told });
    }
    plan.working.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

async fn make(client: &Client, change: &Churn, gates: &[Gate]) -> meshstore::Result<()> {
    let cluster = client.cluster();
    match change {
        Churn::Join(id) => gates[usize::try_from(id - 1).unwrap()].open(),
        Churn::Remove(id) => drop(cluster.remove(*id).await?),
        Churn::RemoveLeader => drop(cluster.remove(cluster.members().await?.leader_id).await?),
        Churn::Transfer => drop(cluster.transfer_leadership(0).await?),
    }
    Ok(())
}
