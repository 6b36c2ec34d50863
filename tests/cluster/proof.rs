//! The proof at the end of each test: all nodes hold the same, and exactly what they should.

use std::{collections::BTreeMap, fmt::Debug};

use meshstore::client::{MessageFilter, ReadMode, Status, Stored};

use crate::{
    harness::{Cluster, until},
    load::{Ledger, Told, content, message},
};

/// Waits until all nodes have applied all of one log, and compares their states' hashes.
pub async fn settle(cluster: &Cluster) -> Vec<Status> {
    let statuses = until("all nodes to have applied all of one log", async || {
        let mut statuses = Vec::new();
        for node in &cluster.nodes {
            statuses.push(node.status(true).await?);
        }
        let one = statuses[0].clone();
        let caught_up = |status: &Status| {
            status.applied_index == status.last_log_index
                && status.last_log_index == one.last_log_index
                && status.leader_id == one.leader_id
        };
        statuses.iter().all(caught_up).then_some(statuses)
    })
    .await;
    for status in &statuses {
        assert_eq!(status.state_hash.len(), 32);
        assert_eq!(
            (status.revision, &status.state_hash, &status.keyspaces),
            (statuses[0].revision, &statuses[0].state_hash, &statuses[0].keyspaces),
            "node {} and node {} differ",
            status.node_id,
            statuses[0].node_id
        );
    }
    statuses
}

/// Waits until the nodes agree, then reads everything from each of them. `bytes` as the load was started with.
pub async fn prove(cluster: &Cluster, ledger: &Ledger, bytes: usize) {
    let revision = settle(cluster).await[0].revision;
    let mut first = None;
    for node in &cluster.nodes {
        let client = node.pinned().with_read(ReadMode::AtLeast(revision));
        let messages = client.messages().list_all(MessageFilter::default()).await.unwrap();
        let states = client.state().list_all("").await.unwrap();
        let messages: BTreeMap<_, _> = messages.into_iter().map(|stored| (stored.value.id.clone(), stored)).collect();
        let states: BTreeMap<_, _> = states.into_iter().collect();
        let place = format!("on node {}", node.id);
        check(&place, &ledger.messages, &messages, |id| message(id, bytes));
        check(&place, &ledger.states, &states, |key| content(key, bytes).into());
        let all = (messages, states);
        let first = first.get_or_insert_with(|| all.clone());
        assert!(*first == all, "times, revisions or values {place} are not those of node {}", cluster.nodes[0].id);
    }
}

fn check<T: PartialEq + Debug>(
    place: &str,
    ledger: &BTreeMap<String, Told>,
    found: &BTreeMap<String, Stored<T>>,
    expected: impl Fn(&str) -> T,
) {
    for (name, told) in ledger {
        match (told, found.get(name)) {
            (Told::Acknowledged, None) => panic!("LOST {place}: {name} was acknowledged"),
            (Told::Refused(error), Some(_)) => panic!("{place}: {name} is there, but was refused: {error}"),
            _ => {}
        }
    }
    for (name, stored) in found {
        assert!(ledger.contains_key(name), "{place}: nobody wrote {name}");
        assert_eq!(stored.version, 1, "{place}: {name} was applied more than once");
        assert!(stored.value == expected(name), "{place}: {name} is not what was written");
    }
}
