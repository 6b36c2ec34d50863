//! Keeps the GÉANT research network in a running local cluster, kills the leader in the middle of it, and
//! proves from the store that nothing acknowledged was lost. Run by `scripts/demo`.
//!
//! For each of the 22 nodes a node state; for each node a routing table, the shortest paths to all others;
//! for each of the 462 traffic demands a message, again and again while the cluster changes: the leader gets SIGKILL and is
//! started again, a node joins, and takes the place of the one that was killed, which is removed. The mesh itself was applied
//! before by `meshstore mesh apply`, and must come through as it was.

#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "a demonstration: it talks, and its input is known")]

use std::{
    collections::BTreeMap,
    error::Error,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use meshstore::{
    Client,
    client::{Message, ReadMode, Status, topology::MeshTopology},
};
use petgraph::graph::{NodeIndex, UnGraph};
use serde::Deserialize;
use tokio::{sync::Mutex, task::JoinSet, time::Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Writers that store messages at the same time.
const WRITERS: usize = 8;
/// Every writer takes a short rest after a message, so that the demo lasts long enough to watch.
const REST: Duration = Duration::from_millis(60);

#[derive(Deserialize)]
struct Network {
    graph: Graph,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

#[derive(Deserialize)]
struct Graph {
    demands: BTreeMap<String, BTreeMap<String, f64>>,
}

#[derive(Deserialize)]
struct Node {
    id: usize,
    name: String,
    pos: (f64, f64),
}

#[derive(Deserialize)]
struct Edge {
    source: usize,
    target: usize,
    dist: f64,
}

/// What was acknowledged: what must be found on every node at the end.
struct Acknowledged {
    mesh: MeshTopology,
    states: BTreeMap<String, String>,
    routes: BTreeMap<String, String>,
    messages: BTreeMap<String, Message>,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "examples/data/geant.json".into());
    let endpoints: Vec<String> = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403".into())
        .split(',')
        .map(Into::into)
        .collect();
    let network: Network = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let client = Client::builder().endpoints(endpoints.clone()).deadline(Duration::from_secs(20)).connect().await?;
    println!(
        "GÉANT: {} nodes, {} links, {} demands",
        network.nodes.len(),
        network.edges.len(),
        demands(&network).len()
    );

    let (states, routes, messages) = Default::default();
    let mut acknowledged = Acknowledged { mesh: mesh(&client).await?, states, routes, messages };
    save_states(&client, &network, &mut acknowledged).await?;
    save_routes(&client, &network, &mut acknowledged).await?;
    let outage = store_messages(&client, &network, &mut acknowledged).await?;
    let statuses = settle(&client).await?;
    for (endpoint, _) in &statuses {
        verify(&client.clone().pin(endpoint)?, endpoint, &acknowledged).await?;
    }
    summary(&acknowledged, &statuses, outage);
    Ok(())
}

/// The mesh, as it was applied.
async fn mesh(client: &Client) -> Outcome<MeshTopology> {
    let id = client.topology().mesh_by_name("geant").await?.value.id;
    Ok(client.topology().show(&id).await?)
}

fn bar(total: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:28} [{bar:40}] {pos}/{len}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total as u64).with_style(style.progress_chars("=> ")).with_message(what)
}

fn demands(network: &Network) -> Vec<(usize, usize, f64)> {
    let mut demands = Vec::new();
    for (from, row) in &network.graph.demands {
        for (to, traffic) in row {
            if let (Ok(from), Ok(to)) = (from.parse(), to.parse()) {
                demands.push((from, to, *traffic));
            }
        }
    }
    demands
}

async fn save_states(client: &Client, network: &Network, acknowledged: &mut Acknowledged) -> Outcome<()> {
    let progress = bar(network.nodes.len(), "node states");
    for node in &network.nodes {
        let state = serde_json::json!({ "status": "STATUS_HEALTHY", "longitude": node.pos.0, "latitude": node.pos.1 })
            .to_string();
        client.node_state().save_json(&node.name, &state).await?;
        acknowledged.states.insert(node.name.clone(), state);
        progress.inc(1);
    }
    progress.finish();
    Ok(())
}

/// The shortest paths from every node to every other: the first hop, and the length of the way.
async fn save_routes(client: &Client, network: &Network, acknowledged: &mut Acknowledged) -> Outcome<()> {
    let mut graph = UnGraph::<usize, f64>::new_undirected();
    let vertices: Vec<NodeIndex> = network.nodes.iter().map(|node| graph.add_node(node.id)).collect();
    for edge in &network.edges {
        graph.add_edge(vertices[edge.source], vertices[edge.target], edge.dist);
    }
    let pairs = network.nodes.len() * (network.nodes.len() - 1);
    let progress = bar(pairs, "routing tables");
    for from in &network.nodes {
        for to in network.nodes.iter().filter(|to| to.id != from.id) {
            let goal = vertices[to.id];
            let path =
                petgraph::algo::astar(&graph, vertices[from.id], |at| at == goal, |edge| *edge.weight(), |_| 0.0);
            let (length_km, hops) = path.ok_or_else(|| format!("there is no way from {} to {}", from.name, to.name))?;
            let next = &network.nodes[graph[hops[1]]].name;
            let route =
                serde_json::json!({ "next_hop": next, "hops": hops.len() - 1, "length_km": length_km }).to_string();
            let destination = format!("{}/{}", from.name, to.name);
            client.routes().save_json(&destination, &route).await?;
            acknowledged.routes.insert(destination, route);
            progress.inc(1);
        }
    }
    progress.finish();
    Ok(())
}

/// A message for each demand, and again until the cluster is what it is to become. Answers the longest time in which no
/// message was acknowledged.
async fn store_messages(client: &Client, network: &Network, acknowledged: &mut Acknowledged) -> Outcome<Duration> {
    let demands = Arc::new(demands(network));
    let names: Arc<Vec<String>> = Arc::new(network.nodes.iter().map(|node| node.name.clone()).collect());
    let progress = bar(demands.len(), "messages");
    let (next, changed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let stored = Arc::new(Mutex::new((BTreeMap::new(), Instant::now(), Duration::ZERO)));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (client, demands, names) = (client.clone(), demands.clone(), names.clone());
        let (next, changed, stored, progress) = (next.clone(), changed.clone(), stored.clone(), progress.clone());
        writers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let (from, to, traffic) = demands[number % demands.len()];
                match number / demands.len() {
                    0 => {}
                    _ if changed.load(Ordering::Relaxed) => break,
                    _ => progress.inc_length(1),
                }
                let message = Message {
                    id: format!("demand-{from}-{to}-{}", number / demands.len()),
                    from: names[from].clone(),
                    to: names[to].clone(),
                    content: format!("{traffic} Mbit/s").into(),
                    timestamp: (from * 100 + to) as i64,
                    large: None,
                };
                client.messages().store(message.clone()).await?;
                let mut stored = stored.lock().await;
                let waited = stored.1.elapsed();
                stored.2 = stored.2.max(waited);
                stored.1 = Instant::now();
                stored.0.insert(message.id.clone(), message);
                drop(stored);
                progress.inc(1);
                tokio::time::sleep(REST).await;
            }
            Ok::<(), meshstore::Error>(())
        });
    }
    let leader = client.cluster().status(false).await?.leader_id.to_string();
    let tell = |what: String| progress.suspend(|| println!("-- {what}"));
    reach(&next, demands.len() / 3).await;
    cluster(&["kill", &leader]).await?;
    tell(format!("node {leader}, the leader, was killed with SIGKILL"));
    reach(&next, demands.len() * 2 / 3).await;
    cluster(&["restart", &leader]).await?;
    tell(format!("node {leader} was started again"));
    cluster(&["add", "4"]).await?;
    tell("node 4 joined, caught up, and votes".into());
    cluster(&["remove", &leader]).await?;
    tell(format!("node {leader} was removed, for good: node 4 is in its place"));
    changed.store(true, Ordering::Relaxed);
    while let Some(written) = writers.join_next().await {
        written??;
    }
    progress.finish();
    let stored = stored.lock().await;
    acknowledged.messages = stored.0.clone();
    Ok(stored.2)
}

/// Waits until so many messages were begun.
async fn reach(next: &AtomicUsize, count: usize) {
    while next.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs `scripts/cluster`; what it prints is shown if it fails.
async fn cluster(arguments: &[&str]) -> Outcome<()> {
    let mut command = Command::new("scripts/cluster");
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    if output.status.success() { Ok(()) } else { Err(format!("scripts/cluster {} failed", arguments.join(" ")).into()) }
}

/// Waits until all nodes show one revision and one hash.
async fn settle(client: &Client) -> Outcome<Vec<(String, Status)>> {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let mut statuses = Vec::new();
        for (endpoint, status) in client.cluster().status_of_all(true).await {
            if let Ok(status) = status {
                statuses.push((endpoint, status));
            }
        }
        let equal = statuses.windows(2).all(|pair| {
            (pair[0].1.applied_index, &pair[0].1.state_hash) == (pair[1].1.applied_index, &pair[1].1.state_hash)
        });
        if statuses.len() == 3 && equal {
            return Ok(statuses);
        }
        if Instant::now() > limit {
            return Err(format!("the nodes do not agree after 30 s: {statuses:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads everything that was acknowledged from one node, and compares.
async fn verify(node: &Client, endpoint: &str, acknowledged: &Acknowledged) -> Outcome<()> {
    let node = node.clone().with_read(ReadMode::AtLeast(node.last_seen_revision()));
    let lost = |what: &str, name: &str| format!("LOST on {endpoint}: {what} {name}");
    let states: BTreeMap<String, String> =
        node.node_state().list_all().await?.into_iter().map(|(id, stored)| (id, stored.value.into_raw())).collect();
    let routes: BTreeMap<String, String> =
        node.routes().list_all("").await?.into_iter().map(|(to, stored)| (to, stored.value.into_raw())).collect();
    let messages: BTreeMap<String, Message> = node
        .messages()
        .list_all(Default::default())
        .await?
        .into_iter()
        .map(|stored| (stored.value.id.clone(), stored.value))
        .collect();
    if mesh(&node).await? != acknowledged.mesh {
        return Err(lost("the mesh", "geant").into());
    }
    for (id, state) in &acknowledged.states {
        if states.get(id) != Some(state) {
            return Err(lost("the state of node", id).into());
        }
    }
    for (destination, route) in &acknowledged.routes {
        if routes.get(destination) != Some(route) {
            return Err(lost("route", destination).into());
        }
    }
    for (id, message) in &acknowledged.messages {
        if messages.get(id) != Some(message) {
            return Err(lost("message", id).into());
        }
    }
    Ok(())
}

fn summary(acknowledged: &Acknowledged, statuses: &[(String, Status)], outage: Duration) {
    println!();
    println!(
        "acknowledged: a mesh of {} nodes and {} links, {} node states, {} routes, {} messages",
        acknowledged.mesh.nodes.len(),
        acknowledged.mesh.routes.len(),
        acknowledged.states.len(),
        acknowledged.routes.len(),
        acknowledged.messages.len()
    );
    for (endpoint, status) in statuses {
        println!(
            "  {endpoint}  node {} {:9} revision {}  log index {}  hash {}",
            status.node_id, status.role, status.revision, status.applied_index, status.state_hash
        );
    }
    println!(
        "longest pause between two acknowledged messages: {} ms (the leader was killed in it)",
        outage.as_millis()
    );
    println!("every one of them was read back from each of the three nodes. Nothing was lost.");
}
