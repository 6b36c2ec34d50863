//! Changes of the topology in transactions that the leader keeps.

use std::time::Duration;

use meshstore::{
    Client, Error, Result,
    client::{
        HeldTransaction, Isolation, PageRequest, Set, Value,
        topology::{
            Edit, HistoryEntry, Item, JoinPolicy, MeshChange, NodeChange, NodeSpec, RouteChange, RouteSpec, Spec,
            Topology,
        },
    },
};

use super::{assert_missing, unique};

const LEVELS: [Isolation; 2] = [Isolation::Serializable, Isolation::ReadCommitted];

fn open() -> (MeshChange, Option<String>) {
    (MeshChange { join: Some(JoinPolicy::Open), ..MeshChange::default() }, None)
}

fn node(name: &str) -> NodeChange {
    NodeChange { name: Some(name.into()), ip_address: Some("10.0.0.1".into()), ..NodeChange::default() }
}

async fn seeded(topology: &Topology) -> (String, String) {
    topology.seed_mesh(&unique("mesh"), open(), node(&unique("node"))).await.unwrap()
}

async fn history(topology: &Topology, since: u64) -> Vec<HistoryEntry> {
    topology.history(since, PageRequest { limit: 1_000, ..PageRequest::default() }).await.unwrap().items
}

async fn begin(client: &Client, isolation: Isolation) -> HeldTransaction {
    client.begin_held(isolation).await.unwrap()
}

fn refusal<T: std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn changes_of_the_topology_go_with_other_records(client: &Client) {
    for isolation in LEVELS {
        let transaction = begin(client, isolation).await;
        let topology = transaction.topology().by("ops", "together");
        let name = unique("together");
        let (mesh_id, first) = topology.seed_mesh(&name, open(), node(&unique("node"))).await.unwrap();
        let second = topology.join_mesh(&mesh_id, None, node(&unique("node"))).await.unwrap();
        let route = topology.add_route(&mesh_id, &first, &second, RouteChange::default()).await.unwrap();
        transaction.state().put(&name, "wired").await.unwrap();
        transaction.kv(&name).set(Set::new("k", Value::Json("1".into()))).await.unwrap();
        // It sees what it has done, and nobody else does.
        assert_eq!(topology.mesh_by_name(&name).await.unwrap().value.id, mesh_id);
        assert_eq!(topology.nodes(&mesh_id).await.unwrap().len(), 2);
        assert_eq!(topology.routes_for_node(&first).await.unwrap()[0].value.id, route);
        let shown = topology.show(&mesh_id).await.unwrap();
        assert_eq!((shown.nodes.len(), shown.routes.len()), (2, 1));
        assert_missing(client.topology().mesh_by_name(&name).await, "mesh", &name);

        let revision = transaction.commit().await.unwrap().revision;
        let outside = client.topology();
        assert_eq!(outside.mesh(&mesh_id).await.unwrap().create_revision, revision);
        assert_eq!(outside.routes_for_node(&first).await.unwrap()[0].create_revision, revision);
        assert_eq!(client.state().get(&name).await.unwrap().mod_revision, revision);
        assert_eq!(client.kv(&name).get("k").await.unwrap().metadata.mod_revision, revision);
        assert_eq!(outside.show(&mesh_id).await.unwrap().nodes, shown.nodes);
        let told: Vec<HistoryEntry> = history(&outside, revision - 1).await;
        let of_it: Vec<_> = told.iter().filter(|entry| entry.revision == revision).collect();
        assert_eq!(of_it.len(), 3, "one for each change");
        assert!(of_it.iter().all(|entry| entry.change.author == "ops" && entry.change.reason == "together"));
        assert_eq!(outside.diff(revision - 1, revision).await.unwrap().len(), 4);
        outside.rollback(revision - 1).await.unwrap();
        assert_missing(outside.mesh(&mesh_id).await, "mesh", &mesh_id);
    }
}

/// Each is decided on what the one before left, though none is there yet.
pub async fn changes_follow_each_other_in_a_transaction(client: &Client) {
    let (outside, name) = (client.topology(), unique("node"));
    let (mesh_id, first) = seeded(&outside).await;
    let second = outside.join_mesh(&mesh_id, None, node(&name)).await.unwrap();
    outside.add_route(&mesh_id, &first, &second, RouteChange::default()).await.unwrap();
    let transaction = begin(client, Isolation::Serializable).await;
    let topology = transaction.topology();
    topology.leave_mesh(&mesh_id, &second).await.unwrap();
    assert_missing(topology.node(&second).await, "node", &second);
    assert!(topology.routes_for_node(&first).await.unwrap().is_empty(), "its routes went with it");
    let third = topology.join_mesh(&mesh_id, None, node(&name)).await.expect("the name is free again");
    let why = refusal(topology.join_mesh(&mesh_id, None, node(&name)).await);
    assert!(why.contains("already exists"), "{why}");
    topology.modify_node(&mesh_id, &third, NodeChange { port: Some(7), ..NodeChange::default() }).await.unwrap();
    topology.add_route(&mesh_id, &third, &first, RouteChange::default()).await.unwrap();
    topology
        .modify_route(&mesh_id, &third, &first, RouteChange { cost: Some(3), ..RouteChange::default() })
        .await
        .unwrap();
    topology.delete_route(&mesh_id, &third, &first).await.unwrap();
    topology.add_route(&mesh_id, &first, &third, RouteChange::default()).await.unwrap();
    let spec = |cost| Spec {
        mesh: unique("other"),
        mesh_change: open().0,
        regions: vec![],
        nodes: vec!["a", "b"]
            .into_iter()
            .map(|end| NodeSpec {
                name: format!("{name}{end}"),
                region: None,
                change: NodeChange { ip_address: Some("10.0.0.2".into()), ..NodeChange::default() },
            })
            .collect(),
        routes: vec![RouteSpec {
            source: format!("{name}a"),
            target: format!("{name}b"),
            change: RouteChange { cost: Some(cost), ..RouteChange::default() },
        }],
    };
    let wanted = spec(5);
    assert_eq!(topology.apply(wanted.clone(), None).await.unwrap().edits.len(), 4);
    assert!(topology.apply(wanted.clone(), None).await.unwrap().edits.is_empty(), "it is so");
    let cheaper = Spec { routes: spec(4).routes, ..wanted };
    assert_eq!(topology.apply(cheaper, None).await.unwrap().edits.len(), 1, "those of this change alone");
    let revision = transaction.commit().await.unwrap().revision;
    let there = outside.node_by_name(&name).await.unwrap();
    assert_eq!((there.value.id.as_str(), there.value.port, there.version), (third.as_str(), 7, 1), "written once");
    assert_missing(outside.node(&second).await, "node", &second);
    assert_eq!(outside.routes_for_node(&first).await.unwrap()[0].value.target_node_id, third);
    let diff = outside.diff(revision - 1, revision).await.unwrap();
    let gone = |edit: &&Edit| edit.after.is_none();
    assert_eq!(diff.iter().filter(gone).count(), 2, "a node and its route: {diff:?}");
    let cost = diff.iter().find_map(|edit| match &edit.after {
        Some(Item::Route(route)) if route.target_node_id != third => Some(route.cost),
        _ => None,
    });
    assert_eq!(cost, Some(4));
    outside.rollback(revision - 1).await.unwrap();
    assert_eq!(outside.routes_for_node(&first).await.unwrap()[0].value.target_node_id, second, "all of it went back");
}

pub async fn who_was_faster_aborts_it_by_name(client: &Client) {
    let outside = client.topology();
    let (mesh_id, _) = seeded(&outside).await;
    let transaction = begin(client, Isolation::Serializable).await;
    let key = unique("late");
    transaction.state().put(&key, "x").await.unwrap();
    transaction.topology().join_mesh(&mesh_id, None, node(&unique("node"))).await.unwrap();
    outside.join_mesh(&mesh_id, None, node(&unique("node"))).await.unwrap();
    match transaction.commit().await {
        Err(Error::TransactionAborted(why)) => assert!(why.contains("the topology was changed by others"), "{why}"),
        other => panic!("not aborted: {other:?}"),
    }
    assert_missing(client.state().get(&key).await, "state", &key);
    // What reads the topology alone is aborted, too, if a write depends on it.
    let transaction = begin(client, Isolation::Serializable).await;
    let count = transaction.topology().nodes(&mesh_id).await.unwrap().len();
    transaction.state().put(&key, count.to_string()).await.unwrap();
    outside.join_mesh(&mesh_id, None, node(&unique("node"))).await.unwrap();
    assert!(matches!(transaction.commit().await, Err(Error::TransactionAborted(_))));
}

pub async fn what_cannot_wait_for_a_commit_is_refused(client: &Client) {
    let outside = client.topology();
    let (mesh_id, node_id) = seeded(&outside).await;
    let transaction = begin(client, Isolation::Serializable).await;
    let topology = transaction.topology();
    let spec = Spec { mesh: unique("mesh"), mesh_change: open().0, regions: vec![], nodes: vec![], routes: vec![] };
    let why = refusal(topology.apply_to_confirm(spec, None, Duration::from_secs(60)).await);
    assert!(why.contains("cannot be part of a transaction"), "{why}");
    let calls = [
        topology.confirm(0).await.map(drop),
        topology.rollback(1).await.map(drop),
        topology.history(0, PageRequest::default()).await.map(drop),
        topology.diff(0, 0).await.map(drop),
    ];
    for answer in calls {
        assert!(refusal(answer).contains("cannot be part of a transaction"));
    }
    topology.report_applied(&node_id, 1).await.unwrap();
    topology.by("ops", "over").evict_node(&mesh_id, &node_id).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(outside.nodes(&mesh_id).await.unwrap().len(), 1);
}
