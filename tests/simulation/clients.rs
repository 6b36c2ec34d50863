//! The simulated clients: workloads in their seats, and the conclusion when all is healed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use meshstore::{
    Client,
    client::{MemberStatus, Status},
};
use rand::{SeedableRng, rngs::StdRng};
use tonic::transport::{Channel, Endpoint};

use super::{
    environment,
    ledger::{Event, Ledger},
    support::workloads::{Seat, Stage, Workload},
};

/// What a client is told about the run.
#[derive(Clone)]
pub struct Plan {
    pub ledger: Ledger,
    pub stage: Arc<Stage>,
    pub workloads: Vec<Arc<dyn Workload>>,
    /// Workloads that have what must be there before their clients begin.
    pub prepared: Arc<AtomicUsize>,
    /// Clients that still work.
    pub working: Arc<AtomicUsize>,
    /// Set by the world when all faults are undone.
    pub healed: Arc<Mutex<bool>>,
    /// What the conclusion waits for.
    pub waiting_for: Arc<Mutex<String>>,
}

pub type Ended = Result<(), Box<dyn std::error::Error>>;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two rounds of questions to all. The simulated network keeps a port for each connection that was refused.
const ROUND: Duration = Duration::from_millis(500);

pub fn now_ns() -> u64 {
    u64::try_from(turmoil::sim_elapsed().unwrap_or_default().as_nanos()).unwrap()
}

/// A connection to a node's client listener.
pub fn channel(endpoint: &str) -> Channel {
    environment::channel(Endpoint::from_shared(format!("http://{endpoint}")).unwrap())
}

impl Plan {
    pub fn client(&self, seed: u64) -> meshstore::Result<Client> {
        Client::builder()
            .endpoints(self.stage.endpoints.clone())
            .deadline(Duration::from_secs(5))
            .seed(seed)
            .connector(environment::channel)
            .connect_lazy()
    }

    /// Why it does not end.
    pub fn stuck(&self) -> String {
        match self.working.load(Ordering::SeqCst) {
            0 => format!("it waits for {}", self.waiting_for.lock().unwrap()),
            clients => format!("{clients} clients still work"),
        }
    }

    fn seat(&self, process: u64, seed: u64) -> meshstore::Result<Seat> {
        let rng = StdRng::seed_from_u64(seed);
        Ok(Seat { client: self.client(seed)?, process, rng, stage: self.stage.clone() })
    }
}

/// Does all of this, in tasks of one machine.
pub async fn side_by_side(tasks: Vec<LocalBoxFuture<'static, Ended>>) -> Ended {
    let tasks: Vec<_> = tasks.into_iter().map(tokio::task::spawn_local).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// One client of a workload.
pub async fn work(plan: Plan, workload: usize, process: u64, seed: u64) -> Ended {
    while plan.prepared.load(Ordering::SeqCst) < plan.workloads.len() {
        tokio::time::sleep(PAUSE).await;
    }
    plan.workloads[workload].clone().work(plan.seat(process, seed)?).await;
    plan.working.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

/// Prepares all workloads.
pub async fn prepare(plan: Plan, seed: u64) -> Ended {
    for workload in &plan.workloads {
        while workload.clone().prepare(plan.client(seed)?).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        plan.prepared.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// When all is healed: the last reads, until the nodes agree, and what each of them says of itself.
pub async fn conclude(plan: Plan, seed: u64) -> Ended {
    while !*plan.healed.lock().unwrap() || plan.working.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    let waits_for = |what: String| *plan.waiting_for.lock().unwrap() = what;
    for workload in &plan.workloads {
        waits_for(format!("the last reads of {}", workload.name()));
        workload.clone().conclude(plan.seat(0, seed)?).await?;
    }
    let client = plan.client(seed)?;
    let (statuses, members) = loop {
        let members = settled(&client).await;
        let answers = client.cluster().status_of_all(true).await;
        let mut statuses: Vec<_> = answers.into_iter().filter_map(|(_, status)| status.ok()).collect();
        statuses.sort_by_key(|status| status.node_id);
        let led = statuses.iter().any(|status| status.leader_id != 0);
        let level = statuses.windows(2).all(|pair| pair[0].applied_index == pair[1].applied_index);
        let whole = statuses.iter().all(|status| status.applied_index == status.last_log_index);
        // Those that were removed have stopped.
        let all = statuses.iter().map(|status| status.node_id).eq(members.iter().copied());
        if !members.is_empty() && all && led && level && whole {
            break (statuses, members);
        }
        let at = |status: &Status| (status.node_id, status.leader_id, status.applied_index, status.last_log_index);
        waits_for(format!("the members {members:?}; there are {:?}", statuses.iter().map(at).collect::<Vec<_>>()));
        tokio::time::sleep(ROUND).await;
    };
    plan.ledger.record(Event::Members { nodes: members });
    for status in statuses {
        plan.ledger.record(Event::Final {
            node: status.node_id,
            applied_index: status.applied_index,
            revision: status.revision,
            state_hash: status.state_hash,
        });
    }
    Ok(())
}

/// The members, once nothing that is wanted of any is left to be done; else nobody.
async fn settled(client: &Client) -> Vec<u64> {
    let Ok(listed) = client.cluster().members().await else { return Vec::new() };
    let open = |status: &MemberStatus| status.to_be_voter || status.to_be_removed || status.to_be_added;
    if listed.members.iter().any(open) {
        return Vec::new();
    }
    listed.members.into_iter().filter_map(|status| Some(status.member?.node_id)).collect()
}
