//! The definition of meshes: constraints, cascades, whole meshes at once, confirmation, history and the way back.

use std::{collections::BTreeSet, time::Duration};

use meshstore::{
    Client, Error, Result,
    client::{
        PageRequest,
        topology::{
            Cause, Edit, HistoryEntry, Item, JoinPolicy, MeshChange, MeshTopology, NodeChange, NodeSpec, RegionChange,
            RouteChange, RouteSpec, Selector, Spec, Status, Topology,
        },
    },
    proto::{
        error_from_status,
        v1::{Attempt, JoinMeshRequest, MeshFields, NodeFields, SeedMeshRequest, topology_client::TopologyClient},
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::task::JoinSet;

use super::{assert_missing, invalid_field, leader, session, unique};

fn open() -> (MeshChange, Option<String>) {
    (MeshChange { join: Some(JoinPolicy::Open), ..MeshChange::default() }, None)
}

fn node(name: &str) -> NodeChange {
    NodeChange { name: Some(name.into()), ip_address: Some("10.0.0.1".into()), ..NodeChange::default() }
}

/// A mesh that everybody may join, with nodes: its id and theirs.
async fn mesh(topology: &Topology, count: usize) -> (String, Vec<String>) {
    let names: Vec<String> = (0..count).map(|_| unique("node")).collect();
    let (mesh_id, first) = topology.seed_mesh(&unique("mesh"), open(), node(&names[0])).await.unwrap();
    let mut nodes = vec![first];
    for name in &names[1..] {
        nodes.push(topology.join_mesh(&mesh_id, None, node(name)).await.unwrap());
    }
    (mesh_id, nodes)
}

fn refusal<T: std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

async fn revision(client: &Client) -> u64 {
    client.state().list("", PageRequest { limit: 1, ..PageRequest::default() }).await.unwrap().revision
}

/// The changes behind a revision.
async fn history(topology: &Topology, since: u64) -> Vec<HistoryEntry> {
    topology.history(since, PageRequest { limit: 1_000, ..PageRequest::default() }).await.unwrap().items
}

fn is_id(id: &str, prefix: &str) -> bool {
    let digits = id.strip_prefix(prefix).unwrap_or_default();
    digits.len() == 26 && digits.bytes().all(|byte| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&byte))
}

pub async fn a_seeded_mesh_has_the_defaults_of_the_tables(client: &Client) {
    let topology = client.topology();
    let (mesh_name, node_name) = (unique("mesh"), unique("node"));
    let (mesh_id, node_id) = topology.seed_mesh(&mesh_name, open(), node(&node_name)).await.unwrap();
    assert!(is_id(&mesh_id, "mesh_") && is_id(&node_id, "node_"), "{mesh_id} {node_id}");
    let mesh = topology.mesh(&mesh_id).await.unwrap();
    assert_eq!(mesh, topology.mesh_by_name(&mesh_name).await.unwrap());
    assert_eq!((mesh.value.status, mesh.value.join, mesh.version), (Status::Pending, JoinPolicy::Open, 1));
    let node = topology.node(&node_id).await.unwrap();
    assert_eq!(node, topology.node_by_name(&node_name).await.unwrap());
    assert_eq!(node.create_revision, mesh.create_revision, "one transaction");
    let node = node.value;
    assert_eq!((node.platform.as_str(), node.version.as_str(), node.port), ("linux-amd64", "1.0.0", 8443));
    assert_eq!((node.status, node.region_id, node.mesh_id.as_str()), (Status::Pending, None, mesh_id.as_str()));
    assert_eq!(topology.nodes(&mesh_id).await.unwrap().len(), 1);
    assert!(topology.meshes().await.unwrap().iter().any(|listed| listed.value.id == mesh_id));
}

pub async fn names_are_unique_and_nothing_changes_if_one_is_taken(client: &Client) {
    let topology = client.topology();
    let (name, taken) = (unique("mesh"), unique("node"));
    let (mesh_id, _) = topology.seed_mesh(&name, open(), node(&taken)).await.unwrap();
    let before = revision(client).await;
    let why = refusal(topology.seed_mesh(&name, open(), node(&unique("node"))).await);
    assert!(why.contains(&format!("a mesh with the name {name:?} already exists")), "{why}");
    let why = refusal(topology.seed_mesh(&unique("mesh"), open(), node(&taken)).await);
    assert!(why.contains("a node with the name"), "{why}");
    let other = topology.join_mesh(&mesh_id, None, node(&unique("node"))).await.unwrap();
    let rename = NodeChange { name: Some(taken), ..NodeChange::default() };
    refusal(topology.modify_node(&mesh_id, &other, rename).await);
    assert_eq!(history(&topology, before).await.len(), 1, "only the one that joined");
}

pub async fn who_may_join_is_the_mesh_s_to_say(client: &Client) {
    let topology = client.topology();
    let keyed = |key: Option<&str>| (MeshChange::default(), key.map(str::to_owned));
    assert_eq!(
        invalid_field(topology.seed_mesh(&unique("mesh"), keyed(None), node(&unique("node"))).await),
        "join_key"
    );
    let (mesh_id, _) = topology.seed_mesh(&unique("mesh"), keyed(Some("sesame")), node(&unique("node"))).await.unwrap();
    for wrong in [None, Some("open"), Some("")] {
        let refused = topology.join_mesh(&mesh_id, wrong, node(&unique("node"))).await;
        assert!(matches!(refused, Err(Error::PermissionDenied(_))), "{refused:?}");
    }
    topology.join_mesh(&mesh_id, Some("sesame"), node(&unique("node"))).await.unwrap();
    let closed = MeshChange { join: Some(JoinPolicy::Closed), ..MeshChange::default() };
    topology.modify_mesh(&mesh_id, closed, None).await.unwrap();
    let refused = topology.join_mesh(&mesh_id, Some("sesame"), node(&unique("node"))).await;
    assert!(matches!(&refused, Err(Error::PermissionDenied(why)) if why.contains("is closed")), "{refused:?}");
    assert_eq!(topology.nodes(&mesh_id).await.unwrap().len(), 2);
    assert!(history(&topology, 0).await.iter().all(|entry| {
        let shown = |item: &Option<Item>| matches!(item, Some(Item::Mesh(mesh)) if mesh.join_key_hash.is_some());
        !entry.change.edits.iter().any(|edit| shown(&edit.before) || shown(&edit.after))
    }));
}

pub async fn routes_connect_nodes_of_one_mesh_once(client: &Client) {
    let topology = client.topology();
    let (mesh_id, nodes) = mesh(&topology, 3).await;
    let (a, b) = (nodes[0].as_str(), nodes[1].as_str());
    let given = RouteChange { latency: Some(1.5), cost: Some(7), ..RouteChange::default() };
    let id = topology.add_route(&mesh_id, a, b, given).await.unwrap();
    assert!(is_id(&id, "route_"), "{id}");
    let stored = topology.routes_for_node(a).await.unwrap().remove(0);
    assert_eq!((stored.version, stored.create_revision), (1, stored.mod_revision));
    let route = stored.value;
    assert_eq!((route.latency, route.bandwidth, route.cost, route.bidirectional), (1.5, 0.0, 7, false));
    assert_eq!(route.status, Status::Pending);
    assert!(topology.routes_for_node(b).await.unwrap().is_empty(), "it begins elsewhere");
    refusal(topology.add_route(&mesh_id, a, b, RouteChange::default()).await);
    topology.add_route(&mesh_id, b, a, RouteChange::default()).await.unwrap();
    let both = RouteChange { bidirectional: Some(true), status: Some(Status::Healthy), ..RouteChange::default() };
    topology.modify_route(&mesh_id, a, b, both).await.unwrap();
    let stored = topology.routes_for_node(a).await.unwrap().remove(0);
    assert_eq!(stored.version, 2);
    let route = stored.value;
    assert_eq!((route.bidirectional, route.status, route.cost), (true, Status::Healthy, 7));
    topology.delete_route(&mesh_id, a, b).await.unwrap();
    assert_missing(topology.delete_route(&mesh_id, a, b).await, "mesh route", &format!("{a} -> {b}"));

    let with = |route| topology.add_route(&mesh_id, a, b, route);
    assert_eq!(invalid_field(with(RouteChange { cost: Some(-1), ..RouteChange::default() }).await), "cost");
    assert_eq!(invalid_field(with(RouteChange { latency: Some(-0.5), ..RouteChange::default() }).await), "latency");
    let nan = RouteChange { bandwidth: Some(f64::NAN), ..RouteChange::default() };
    assert_eq!(invalid_field(with(nan).await), "bandwidth");
    let to_itself = topology.add_route(&mesh_id, a, a, RouteChange::default()).await;
    assert_eq!(invalid_field(to_itself), "target_node_id");
    let (_, strangers) = mesh(&topology, 1).await;
    let abroad = topology.add_route(&mesh_id, a, &strangers[0], RouteChange::default()).await;
    assert_missing(abroad, "node", &strangers[0]);
    assert_eq!(invalid_field(topology.add_route(&mesh_id, a, "b", RouteChange::default()).await), "target_node_id");
}

pub async fn a_node_that_goes_takes_its_routes_along(client: &Client) {
    let topology = client.topology();
    let (mesh_id, nodes) = mesh(&topology, 3).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2)] {
        topology.add_route(&mesh_id, &nodes[from], &nodes[to], RouteChange::default()).await.unwrap();
    }
    assert_eq!(invalid_field(topology.evict_node(&mesh_id, &nodes[0]).await), "reason");
    let before = revision(client).await;
    let by = topology.clone().by("ops", "it babbles");
    by.evict_node(&mesh_id, &nodes[0]).await.unwrap();
    let shown = topology.show(&mesh_id).await.unwrap();
    assert_eq!((shown.nodes.len(), shown.routes.len()), (2, 1));
    assert_missing(topology.node(&nodes[0]).await, "node", &nodes[0]);
    let entry = history(&topology, before).await.remove(0);
    assert_eq!((entry.change.author.as_str(), entry.change.reason.as_str()), ("ops", "it babbles"));
    assert_eq!(entry.change.edits.len(), 4, "the node and its three routes: {:?}", entry.change.edits);
    assert!(entry.change.edits.iter().all(|edit| edit.before.is_some() && edit.after.is_none()));
    topology.leave_mesh(&mesh_id, &nodes[1]).await.unwrap();
    assert!(topology.show(&mesh_id).await.unwrap().routes.is_empty());
    topology.delete_mesh(&mesh_id).await.unwrap();
    assert_missing(topology.show(&mesh_id).await, "mesh", &mesh_id);
    assert_missing(topology.node(&nodes[2]).await, "node", &nodes[2]);
}

pub async fn a_region_that_goes_leaves_its_nodes(client: &Client) {
    let topology = client.topology();
    let region = RegionChange { latitude: Some(52.5), ..RegionChange::default() };
    let region_id = topology.add_region(&unique("region"), region).await.unwrap();
    let (mesh_id, nodes) = mesh(&topology, 2).await;
    let inside = NodeChange { region_id: Some(region_id.clone()), ..NodeChange::default() };
    topology.modify_node(&mesh_id, &nodes[0], inside.clone()).await.unwrap();
    assert_eq!(topology.show(&mesh_id).await.unwrap().regions[0].kind, "AWS");
    topology.delete_region(&region_id).await.unwrap();
    assert_eq!(topology.node(&nodes[0]).await.unwrap().value.region_id, None);
    assert_missing(topology.modify_node(&mesh_id, &nodes[1], inside).await, "region", &region_id);
    let off = RegionChange { longitude: Some(181.0), ..RegionChange::default() };
    assert_eq!(invalid_field(topology.add_region(&unique("region"), off).await), "longitude");
}

pub async fn nodes_are_checked(client: &Client) {
    let topology = client.topology();
    let (mesh_id, nodes) = mesh(&topology, 1).await;
    let modify = |change| topology.modify_node(&mesh_id, &nodes[0], change);
    for port in [0, 65_536] {
        assert_eq!(invalid_field(modify(NodeChange { port: Some(port), ..NodeChange::default() }).await), "port");
    }
    for address in ["", "a b", "http://a"] {
        let change = NodeChange { ip_address: Some(address.into()), ..NodeChange::default() };
        assert_eq!(invalid_field(modify(change).await), "ip_address");
    }
    let nameless = NodeChange { name: Some(String::new()), ..NodeChange::default() };
    assert_eq!(invalid_field(modify(nameless).await), "node_name");
    assert_eq!(invalid_field(topology.node("node_1").await), "node_id");
    assert_eq!(invalid_field(topology.routes_for_node("node_1").await), "node_id");
    let unknown = format!("node_{}", "0".repeat(26));
    assert!(topology.routes_for_node(&unknown).await.unwrap().is_empty(), "nothing begins there");
    let no_port = NodeChange { port: Some(0), ..node(&unique("node")) };
    assert_eq!(invalid_field(topology.join_mesh(&mesh_id, None, no_port).await), "port");
    let before = topology.node(&nodes[0]).await.unwrap();
    let seen = revision(client).await;
    let same = modify(NodeChange::default()).await.unwrap();
    assert!(same.revision >= seen, "nothing to change is no error");
    assert_eq!(topology.node(&nodes[0]).await.unwrap(), before);
}

/// A ring of nodes in one region.
fn ring(mesh: &str, names: &[String]) -> Spec {
    let node = |name: &String| NodeSpec {
        name: name.clone(),
        region: Some(format!("{mesh}region")),
        change: NodeChange { ip_address: Some("10.0.0.9".into()), ..NodeChange::default() },
    };
    let route = |at: usize| RouteSpec {
        source: names[at].clone(),
        target: names[(at + 1) % names.len()].clone(),
        change: RouteChange { cost: Some(at as i64), ..RouteChange::default() },
    };
    Spec {
        mesh: mesh.into(),
        mesh_change: open().0,
        regions: vec![(format!("{mesh}region"), RegionChange::default())],
        nodes: names.iter().map(node).collect(),
        routes: (0..names.len()).map(route).collect(),
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|_| unique("node")).collect()
}

async fn shown(topology: &Topology, mesh: &str) -> MeshTopology {
    let id = topology.mesh_by_name(mesh).await.unwrap().value.id;
    MeshTopology { changed: 0, ..topology.show(&id).await.unwrap() }
}

pub async fn a_whole_mesh_is_applied_as_one_change(client: &Client) {
    let topology = client.topology();
    let (mesh, mut members) = (unique("mesh"), names(12));
    let before = revision(client).await;
    let plan = topology.plan(ring(&mesh, &members), None).await.unwrap();
    assert_eq!(plan.len(), 1 + 1 + 12 + 12);
    assert!(history(&topology, before).await.is_empty(), "a plan changes nothing");
    let applied = topology.apply(ring(&mesh, &members), None).await.unwrap();
    assert_eq!(applied.edits.len(), plan.len());
    let first = shown(&topology, &mesh).await;
    assert_eq!((first.nodes.len(), first.routes.len(), first.regions.len()), (12, 12, 1));
    // Again: nothing to do.
    assert!(topology.apply(ring(&mesh, &members), None).await.unwrap().edits.is_empty());
    assert_eq!(shown(&topology, &mesh).await, first);
    // A join key that is the present one is no change.
    let keyed = |key: &str| {
        let spec = Spec { mesh_change: MeshChange::default(), ..ring(&mesh, &members) };
        (
            Spec { mesh_change: MeshChange { join: Some(JoinPolicy::KeyRequired), ..spec.mesh_change }, ..spec },
            key.to_owned(),
        )
    };
    for (key, edits) in [("sesame", 1), ("sesame", 0), ("open", 1)] {
        let (spec, key) = keyed(key);
        assert_eq!(topology.apply(spec, Some(key)).await.unwrap().edits.len(), edits);
    }
    assert_eq!(topology.apply(ring(&mesh, &members), None).await.unwrap().edits.len(), 1, "open again");
    // One less, and the others keep their ids.
    let gone = members.remove(3);
    let edits = topology.apply(ring(&mesh, &members), None).await.unwrap().edits;
    let is_gone = |edit: &&Edit| edit.after.is_none();
    assert_eq!(edits.iter().filter(is_gone).count(), 3, "a node and two routes: {edits:?}");
    let second = shown(&topology, &mesh).await;
    let ids = |shown: &MeshTopology| -> BTreeSet<String> { shown.nodes.iter().map(|node| node.id.clone()).collect() };
    assert!(ids(&second).is_subset(&ids(&first)) && second.nodes.iter().all(|node| node.name != gone));
    assert_eq!(history(&topology, before).await.len(), 5);
}

pub async fn what_is_wrong_in_a_specification_is_named_with_its_place(client: &Client) {
    let topology = client.topology();
    let (mesh, members) = (unique("mesh"), names(3));
    let before = revision(client).await;
    let wrong = async |change: &(dyn Fn(&mut Spec) + Sync)| {
        let mut spec = ring(&mesh, &members);
        change(&mut spec);
        invalid_field(topology.apply(spec, None).await)
    };
    assert_eq!(wrong(&|spec| spec.nodes[1].change.port = Some(70_000)).await, "nodes[1].port");
    assert_eq!(wrong(&|spec| spec.nodes[2].change.ip_address = None).await, "nodes[2].ip_address");
    assert_eq!(wrong(&|spec| spec.nodes[2].region = Some("nowhere".into())).await, "nodes[2].region");
    assert_eq!(wrong(&|spec| spec.nodes[2].name = spec.nodes[0].name.clone()).await, "nodes[2].name");
    assert_eq!(wrong(&|spec| spec.routes[0].target = "nobody".into()).await, "routes[0].target");
    assert_eq!(wrong(&|spec| spec.routes[1].change.cost = Some(-3)).await, "routes[1].cost");
    assert_eq!(wrong(&|spec| spec.routes[2] = spec.routes[1].clone()).await, "routes[2].name");
    assert_eq!(wrong(&|spec| spec.mesh_change.join = None).await, "mesh.join_key");
    assert_eq!(wrong(&|spec| spec.mesh.clear()).await, "mesh.name");
    assert!(history(&topology, before).await.is_empty(), "nothing changed");
    let (_, strangers) = self::mesh(&topology, 1).await;
    let mut spec = ring(&mesh, &members);
    spec.nodes[0].name = topology.node(&strangers[0]).await.unwrap().value.name;
    let why = refusal(topology.apply(spec, None).await);
    assert!(why.starts_with("nodes[0]: ") && why.contains("another mesh"), "{why}");
}

pub async fn a_rollback_restores_exactly(client: &Client) {
    let topology = client.topology();
    let (mesh, mut members) = (unique("mesh"), names(4));
    topology.apply(ring(&mesh, &members), None).await.unwrap();
    let (then, at) = (shown(&topology, &mesh).await, revision(client).await);
    // Many changes: gone, renamed in a circle, added, changed.
    members.remove(0);
    topology.apply(ring(&mesh, &members), None).await.unwrap();
    let (id, nodes) = (then.mesh.id.clone(), shown(&topology, &mesh).await.nodes);
    let rename = |to: &str| NodeChange { name: Some(to.into()), ..NodeChange::default() };
    let (first, second) = (&nodes[0], &nodes[1]);
    topology.modify_node(&id, &first.id, rename(&unique("aside"))).await.unwrap();
    topology.modify_node(&id, &second.id, rename(&first.name)).await.unwrap();
    topology.modify_node(&id, &first.id, rename(&second.name)).await.unwrap();
    topology.join_mesh(&id, None, node(&then.nodes[0].name)).await.unwrap();
    topology.delete_region(&then.regions[0].id).await.unwrap();
    topology.add_region(&then.regions[0].name, RegionChange::default()).await.unwrap();
    let now = shown(&topology, &mesh).await;
    assert_ne!(now, then);

    let plan = topology.plan_rollback(at).await.unwrap();
    assert_eq!(shown(&topology, &mesh).await, now, "a plan changes nothing");
    let back = topology.clone().by("ops", "a mistake").rollback(at).await.unwrap();
    assert_eq!(back.edits, plan);
    assert_eq!(shown(&topology, &mesh).await, then);
    let last = history(&topology, at).await.pop().unwrap();
    assert_eq!((last.revision, last.change.cause), (back.revision, Cause::Rollback(at)));
    // And forward again.
    topology.rollback(back.revision - 1).await.unwrap();
    assert_eq!(shown(&topology, &mesh).await, now);
    assert!(topology.rollback(revision(client).await).await.unwrap().edits.is_empty(), "nothing to do");
    assert_eq!(invalid_field(topology.rollback(u64::MAX).await), "revision");
    assert_eq!(invalid_field(topology.diff(5, 4).await), "from");
    assert!(topology.diff(at, back.revision).await.unwrap().is_empty(), "there and back");
}

pub async fn an_unconfirmed_change_is_rolled_back(client: &Client) {
    let topology = client.topology();
    let (mesh, mut members) = (unique("mesh"), names(3));
    topology.apply(ring(&mesh, &members), None).await.unwrap();
    let then = shown(&topology, &mesh).await;
    members.push(unique("node"));
    let spec = ring(&mesh, &members);
    let short = topology.apply_to_confirm(spec.clone(), None, Duration::from_millis(5)).await;
    assert_eq!(invalid_field(short), "confirm_within_ms");
    let applied = topology.apply_to_confirm(spec, None, Duration::from_secs(1)).await.unwrap();
    assert_eq!(shown(&topology, &mesh).await.nodes.len(), 4, "it is in force");
    let back = loop {
        let found = history(&topology, applied.revision).await.into_iter().next();
        if let Some(entry) = found {
            break entry;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(matches!(back.change.cause, Cause::Unconfirmed(_)), "{back:?}");
    assert_eq!(shown(&topology, &mesh).await, then);
    let why = refusal(topology.confirm(applied.revision).await);
    assert!(why.contains(&format!("was rolled back at revision {}", back.revision)), "{why}");
}

/// What could not be undone in one transaction is not done to be confirmed; what just can is, and goes back.
pub async fn a_large_change_waits_only_if_there_is_a_way_back(client: &Client) {
    let topology = client.topology();
    let mesh = unique("mesh");
    let of = |count: usize| Spec { routes: vec![], ..ring(&mesh, &names(count)) };
    let before = revision(client).await;
    let time = Duration::from_secs(1);
    let why = refusal(topology.apply_to_confirm(of(2_000), None, time).await);
    assert!(why.contains("could not be rolled back at once") && why.contains("4002 records"), "{why}");
    // Bytes that the way back would write: what goes, and its history.
    let long = |spec: Spec, text: &str| Spec {
        nodes: spec.nodes.into_iter().map(|node| described(node, text)).collect(),
        ..spec
    };
    let many = long(of(900), &"x".repeat(4_000));
    let too_large = topology.apply(many, None).await;
    assert!(too_large.is_err(), "one change is one transaction");
    assert!(history(&topology, before).await.is_empty(), "nothing changed");
    let applied = topology.apply_to_confirm(of(1_998), None, time).await.unwrap();
    assert_eq!(applied.edits.len(), 2_000);
    while history(&topology, applied.revision).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_missing(topology.mesh_by_name(&mesh).await, "mesh", &mesh);
    // What came in two changes goes in one, but could not come back in one.
    let half = long(of(400), &"x".repeat(4_000));
    topology.apply(half.clone(), None).await.unwrap();
    let nodes = half.nodes.iter().cloned().chain(long(of(400), &"y".repeat(4_000)).nodes).collect();
    topology.apply(Spec { nodes, ..half.clone() }, None).await.unwrap();
    let none = Spec { nodes: vec![], ..half };
    let why = refusal(topology.apply_to_confirm(none.clone(), None, time).await);
    assert!(why.contains("could not be rolled back at once") && why.contains("bytes"), "{why}");
    topology.apply(none, None).await.unwrap();
    // A mesh of more than can go at once goes in parts.
    topology.apply(of(2_001), None).await.unwrap();
    let id = topology.mesh_by_name(&mesh).await.unwrap().value.id;
    let why = refusal(topology.delete_mesh(&id).await);
    assert!(why.contains("deletes too much at once"), "{why}");
    topology.apply(of(0), None).await.expect_err("the same");
    let some = shown(&topology, &mesh).await.nodes;
    for gone in &some[..4] {
        topology.leave_mesh(&id, &gone.id).await.unwrap();
    }
    topology.delete_mesh(&id).await.unwrap();
}

fn described(node: NodeSpec, text: &str) -> NodeSpec {
    NodeSpec { change: NodeChange { description: Some(text.into()), ..node.change }, ..node }
}

pub async fn while_a_change_waits_others_are_refused(client: &Client) {
    let topology = client.topology();
    let why = refusal(topology.confirm(0).await);
    assert!(why.contains("no change of the topology waits"), "{why}");
    let (mesh, members) = (unique("mesh"), names(3));
    let applied = topology.apply_to_confirm(ring(&mesh, &members), None, Duration::from_secs(3_600)).await.unwrap();
    let why = refusal(topology.seed_mesh(&unique("mesh"), open(), node(&unique("node"))).await);
    assert!(why.contains(&format!("at revision {} waits to be confirmed", applied.revision)), "{why}");
    refusal(topology.apply(ring(&unique("mesh"), &names(2)), None).await);
    let (_, pending) = topology.mesh_and_pending(&mesh).await.unwrap();
    assert_eq!(pending.map(|(revision, pending)| (revision, pending.confirm_ms)), Some((applied.revision, 3_600_000)));
    refusal(topology.confirm(applied.revision - 1).await);
    topology.confirm(applied.revision).await.unwrap();
    assert_eq!(topology.mesh_and_pending(&mesh).await.unwrap().1, None);
    let why = refusal(topology.confirm(applied.revision).await);
    assert!(why.contains("was confirmed at revision"), "{why}");
    self::mesh(&topology, 1).await;
    // A rollback ends the waiting, too.
    let other = unique("mesh");
    let at = revision(client).await;
    topology.apply_to_confirm(ring(&other, &names(2)), None, Duration::from_secs(3_600)).await.unwrap();
    topology.rollback(at).await.unwrap();
    assert_missing(topology.mesh_by_name(&other).await, "mesh", &other);
    self::mesh(&topology, 1).await;
}

pub async fn who_has_applied_a_revision_is_known(client: &Client) {
    let topology = client.topology();
    let (mesh_id, nodes) = mesh(&topology, 3).await;
    let all = Selector { mesh_id: mesh_id.clone(), ..Selector::default() };
    let applied = topology.applied(all.clone()).await.unwrap();
    assert_eq!((applied.converged, applied.nodes.len(), applied.nodes[0].revision), (false, 3, 0));
    let target = applied.revision;
    for id in &nodes[1..] {
        topology.report_applied(id, target).await.unwrap();
    }
    let behind = topology.wait_until_applied(all.clone(), target, Duration::from_millis(30)).await.unwrap();
    let late: Vec<&str> =
        behind.nodes.iter().filter(|node| node.revision < target).map(|node| node.node_id.as_str()).collect();
    assert_eq!((behind.converged, late), (false, vec![nodes[0].as_str()]));
    let waiting = tokio::spawn({
        let (topology, all) = (topology.clone(), all.clone());
        async move { topology.wait_until_applied(all, target, Duration::from_secs(60)).await }
    });
    assert_eq!(invalid_field(topology.report_applied(&nodes[0], u64::MAX).await), "revision");
    topology.report_applied(&nodes[0], revision(client).await).await.unwrap();
    assert!(waiting.await.unwrap().unwrap().converged);
    let some = Selector { node_ids: vec![nodes[2].clone()], ..all.clone() };
    assert_eq!(topology.applied(some).await.unwrap().nodes.len(), 1);
    topology.leave_mesh(&mesh_id, &nodes[2]).await.unwrap();
    assert_missing(topology.report_applied(&nodes[2], target).await, "node", &nodes[2]);
    assert_eq!(topology.applied(all).await.unwrap().nodes.len(), 2, "who has left is not asked for");
}

pub async fn a_storage_node_knows_whom_it_serves(client: &Client) {
    let topology = client.topology();
    let (mesh_id, nodes) = mesh(&topology, 1).await;
    let storage_node = 1_000_000 + u64::from(std::process::id());
    assert_eq!(topology.local_identity(storage_node).await.unwrap(), (storage_node, None));
    topology.set_local_identity(storage_node, &nodes[0]).await.unwrap();
    assert_eq!(topology.local_identity(storage_node).await.unwrap().1.as_ref(), Some(&nodes[0]));
    assert_ne!(topology.local_identity(0).await.unwrap().0, 0, "the one that answers");
    topology.leave_mesh(&mesh_id, &nodes[0]).await.unwrap();
    assert_eq!(topology.local_identity(storage_node).await.unwrap().1, None);
    assert_missing(topology.set_local_identity(storage_node, &nodes[0]).await, "node", &nodes[0]);
}

pub async fn a_repeated_attempt_founds_one_mesh(client: &Client) {
    let wire = leader(client).await;
    let session = session(&wire).await;
    let (mesh_name, node_name) = (unique("mesh"), unique("node"));
    let request = |attempt: u32, mesh_name: &str| SeedMeshRequest {
        attempt: Some(Attempt { session, sequence: 1, answered_below: 1, attempt }),
        note: None,
        mesh: Some(MeshFields {
            mesh_name: Some(mesh_name.into()),
            allow_join: Some("OPEN".into()),
            ..MeshFields::default()
        }),
        node: Some(NodeFields {
            node_name: Some(node_name.clone()),
            ip_address: Some("10.0.0.1".into()),
            ..NodeFields::default()
        }),
    };
    let mut topology = TopologyClient::new(wire);
    let first = topology.seed_mesh(request(1, &mesh_name)).await.unwrap().into_inner();
    let again = topology.seed_mesh(request(2, &mesh_name)).await.unwrap().into_inner();
    assert_eq!(first, again);
    // A call that was refused is refused again, also when it could be executed by now.
    let mut refused = request(2, &mesh_name);
    refused.attempt = Some(Attempt { session, sequence: 2, answered_below: 2, attempt: 2 });
    let error = error_from_status(&topology.seed_mesh(refused.clone()).await.unwrap_err());
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    client.topology().delete_mesh(&first.mesh_id).await.unwrap();
    let error = error_from_status(&topology.seed_mesh(refused).await.unwrap_err());
    assert!(matches!(&error, Error::Refused(why) if why.contains("already exists")), "{error:?}");
}

/// Whoever has joined is told so again, whatever has become of the mesh meanwhile.
pub async fn a_repeated_attempt_joins_once(client: &Client) {
    let topology = client.topology();
    let (mesh_id, _) = mesh(&topology, 1).await;
    let wire = leader(client).await;
    let session = session(&wire).await;
    let request = |attempt: u32, name: &str| JoinMeshRequest {
        attempt: Some(Attempt { session, sequence: 1, answered_below: 1, attempt }),
        note: None,
        mesh_id: mesh_id.clone(),
        node: Some(NodeFields {
            node_name: Some(name.into()),
            ip_address: Some("10.0.0.1".into()),
            ..NodeFields::default()
        }),
        join_key: String::new(),
    };
    let name = unique("node");
    let mut direct = TopologyClient::new(wire);
    let first = direct.join_mesh(request(1, &name)).await.unwrap().into_inner();
    let closed = MeshChange { join: Some(JoinPolicy::Closed), ..MeshChange::default() };
    topology.modify_mesh(&mesh_id, closed, None).await.unwrap();
    assert_eq!(direct.join_mesh(request(2, &name)).await.unwrap().into_inner(), first);
    topology.delete_mesh(&mesh_id).await.unwrap();
    assert_eq!(direct.join_mesh(request(3, &name)).await.unwrap().into_inner(), first);
}

pub async fn regions_are_changed_and_listed(client: &Client) {
    let topology = client.topology();
    let name = unique("region");
    let id = topology.add_region(&name, RegionChange::default()).await.unwrap();
    let change = RegionChange { location: Some("Bern".into()), latitude: Some(46.9), ..RegionChange::default() };
    topology.modify_region(&id, change).await.unwrap();
    let regions = topology.regions().await.unwrap();
    let region = regions.iter().find(|region| region.value.id == id).unwrap();
    assert_eq!((region.value.location.as_str(), region.value.latitude, region.version), ("Bern", Some(46.9), 2));
    let wrong = RegionChange { latitude: Some(91.0), ..RegionChange::default() };
    assert_eq!(invalid_field(topology.modify_region(&id, wrong).await), "latitude");
}

pub async fn conflicting_changes_leave_no_dangling_route(client: &Client) {
    let topology = client.topology();
    let (mesh_id, nodes) = mesh(&topology, 6).await;
    let mut tasks = JoinSet::new();
    for seed in 0..6u64 {
        let (topology, mesh_id, nodes) = (topology.clone(), mesh_id.clone(), nodes.clone());
        tasks.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            for _ in 0..12 {
                let (a, b) = (nodes.choose(&mut rng).unwrap(), nodes.choose(&mut rng).unwrap());
                let answer = match rng.random_range(0..10) {
                    0 => topology.leave_mesh(&mesh_id, a).await.map(drop),
                    1..3 => topology.delete_route(&mesh_id, a, b).await.map(drop),
                    _ => topology.add_route(&mesh_id, a, b, RouteChange::default()).await.map(drop),
                };
                match answer {
                    Ok(()) | Err(Error::Refused(_) | Error::NotFound { .. } | Error::InvalidArgument { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let shown = topology.show(&mesh_id).await.unwrap();
    let members: BTreeSet<&str> = shown.nodes.iter().map(|node| node.id.as_str()).collect();
    for route in &shown.routes {
        assert!(members.contains(route.source_node_id.as_str()) && members.contains(route.target_node_id.as_str()));
    }
}
