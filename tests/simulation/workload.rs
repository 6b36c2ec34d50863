//! What the simulated clients do: store messages, each under an id of its own, and read back what was
//! acknowledged.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use meshstore::{
    Client,
    client::{Message, MessageFilter, ReadMode},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    environment,
    ledger::{Event, Ledger},
};

/// What a client is told about the run.
#[derive(Clone)]
pub struct Plan {
    pub endpoints: Vec<String>,
    pub ledger: Ledger,
    /// Simulated time after which no new write begins.
    pub length: Duration,
    /// Clients that still write.
    pub writing: Arc<AtomicUsize>,
    /// Set by the world when all faults are undone.
    pub healed: Arc<Mutex<bool>>,
}

/// One client: writes until the plan's end.
pub async fn write(plan: Plan, client_id: u64, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let client = connect(&plan, seed)?;
    let mut acknowledged: Vec<String> = Vec::new();
    let mut count = 0;
    while turmoil::sim_elapsed().unwrap_or_default() < plan.length {
        count += 1;
        let id = format!("c{client_id}-{count}");
        let message = Message {
            id: id.clone(),
            from: format!("node-{}", rng.random_range(0..4)),
            to: format!("node-{}", rng.random_range(0..4)),
            content: vec![b'x'; rng.random_range(0..300)].into(),
            timestamp: count,
        };
        match client.messages().store(message).await {
            Ok(written) => {
                plan.ledger.record(Event::Acknowledged {
                    client: client_id,
                    id: id.clone(),
                    revision: written.revision,
                });
                acknowledged.push(id);
            }
            Err(error) => plan.ledger.record(Event::Failed { client: client_id, id, error: error.to_string() }),
        }
        if rng.random_bool(0.3) && !acknowledged.is_empty() {
            read_back(&plan, &client, client_id, &acknowledged[rng.random_range(0..acknowledged.len())]).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..40))).await;
    }
    plan.writing.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

async fn read_back(plan: &Plan, client: &Client, client_id: u64, id: &str) {
    match client.messages().get(id).await {
        Ok(_) => {}
        Err(meshstore::Error::NotFound { .. }) => {
            let what = format!("a linearizable read did not find {id}, which had been acknowledged before");
            plan.ledger.record(Event::WrongRead { client: client_id, what });
        }
        // Nobody could answer in time: nothing is claimed.
        Err(_) => {}
    }
}

/// When all is healed: waits until the nodes agree, and records what each of them holds.
pub async fn conclude(plan: Plan, seed: u64) -> Result<(), Box<dyn std::error::Error>> {
    while !*plan.healed.lock().unwrap() || plan.writing.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = connect(&plan, seed)?;
    let statuses = loop {
        let answers = client.cluster().status_of_all(true).await;
        let statuses: Vec<_> =
            answers.into_iter().filter_map(|(endpoint, status)| Some((endpoint, status.ok()?))).collect();
        let led = statuses.iter().any(|(_, status)| status.leader_id != 0);
        let level = statuses.windows(2).all(|pair| pair[0].1.applied_index == pair[1].1.applied_index);
        let whole = statuses.iter().all(|(_, status)| status.applied_index == status.last_log_index);
        if statuses.len() == plan.endpoints.len() && led && level && whole {
            break statuses;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for (endpoint, status) in statuses {
        let (node, applied_index, revision) = (status.node_id, status.applied_index, status.revision);
        let state_hash = status.state_hash;
        plan.ledger.record(Event::Final { node, applied_index, revision, state_hash });
        let pinned = client.clone().pin(&endpoint)?.with_read(ReadMode::AtLeast(revision));
        let held = pinned.messages().list_all(MessageFilter::default()).await?;
        let messages = held.into_iter().map(|stored| (stored.value.id.clone(), stored.version)).collect();
        plan.ledger.record(Event::Held { node, messages });
    }
    Ok(())
}

fn connect(plan: &Plan, seed: u64) -> meshstore::Result<Client> {
    Client::builder()
        .endpoints(plan.endpoints.clone())
        .deadline(Duration::from_secs(5))
        .seed(seed)
        .connector(environment::channel)
        .connect_lazy()
}
