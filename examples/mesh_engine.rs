//! A small mesh engine on top of meshstore: three nodes of a mesh that find each other, compute their
//! routes, and talk.
//!
//! Everything they know of each other they know from the store: there is no other connection between them.
//! Start a cluster and run it:
//!
//! ```text
//! scripts/cluster up
//! cargo run --example mesh_engine
//! ```

#![expect(clippy::print_stdout, reason = "this is what the example is for")]

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use meshstore::{
    Client, Error, Result,
    client::{Message, MessageFilter, ReadMode},
};
use serde::{Deserialize, Serialize};

/// What a node tells the others about itself, again and again.
#[derive(Serialize, Deserialize)]
struct NodeState {
    heartbeat_ms: u64,
    /// Who can be reached directly, and at what cost.
    links: BTreeMap<String, u32>,
}

/// The way to a destination.
#[derive(Debug, Serialize, Deserialize)]
struct Route {
    via: String,
    cost: u32,
}

/// One node of the mesh.
struct Engine {
    name: String,
    links: BTreeMap<String, u32>,
    store: Client,
    inbox_from: i64,
}

impl Engine {
    fn new(store: Client, name: &str, links: &[(&str, u32)]) -> Self {
        let links = links.iter().map(|(node, cost)| ((*node).to_owned(), *cost)).collect();
        Self { name: name.to_owned(), links, store, inbox_from: now_ms() as i64 }
    }

    /// Registers the node, and later shows that it is alive.
    async fn beat(&self) -> Result<()> {
        let state = NodeState { heartbeat_ms: now_ms(), links: self.links.clone() };
        self.store.node_state().save(&self.name, &state).await?;
        Ok(())
    }

    /// Computes the cheapest way to every node that is alive (Bellman-Ford), and saves it.
    async fn route(&self) -> Result<usize> {
        let mut mesh = BTreeMap::new();
        for (node, stored) in self.store.node_state().list_all().await? {
            // Whatever else keeps its state there is no node of this mesh.
            let Ok(state) = stored.value.parse::<NodeState>() else { continue };
            if now_ms().saturating_sub(state.heartbeat_ms) < 10_000 {
                mesh.insert(node, state.links);
            }
        }
        let mut ways: BTreeMap<String, Route> = BTreeMap::new();
        for (node, cost) in self.links.iter().filter(|(node, _)| mesh.contains_key(*node)) {
            ways.insert(node.clone(), Route { via: node.clone(), cost: *cost });
        }
        for _ in 0..mesh.len() {
            for (node, links) in &mesh {
                let Some((via, so_far)) = ways.get(node).map(|way| (way.via.clone(), way.cost)) else { continue };
                for (next, cost) in links.iter().filter(|(next, _)| **next != self.name && mesh.contains_key(*next)) {
                    let cost = so_far + cost;
                    if ways.get(next).is_none_or(|known| cost < known.cost) {
                        ways.insert(next.clone(), Route { via: via.clone(), cost });
                    }
                }
            }
        }
        for (destination, way) in &ways {
            self.store.routes().save(&format!("{}/{destination}", self.name), way).await?;
        }
        Ok(ways.len())
    }

    /// Sends a message along the route, whose first hop it names.
    async fn send(&self, to: &str, text: &str) -> Result<()> {
        let route: Route = self.store.routes().get(&format!("{}/{to}", self.name)).await?.value.parse()?;
        let timestamp = now_ms() as i64;
        let message = Message {
            id: format!("{}-{to}-{timestamp}", self.name),
            from: self.name.clone(),
            to: to.to_owned(),
            content: text.to_owned().into(),
            timestamp,
            large: None,
        };
        let written = self.store.messages().store(message).await?;
        println!("{} -> {to} via {} (cost {}), revision {}", self.name, route.via, route.cost, written.revision);
        Ok(())
    }

    /// Takes what has arrived out of the inbox. Any node of the store may answer, if it knows all that this
    /// client has seen: that is enough to miss nothing that was announced to it.
    async fn receive(&mut self) -> Result<()> {
        let seen = ReadMode::AtLeast(self.store.last_seen_revision());
        let arrived =
            MessageFilter { to: Some(self.name.clone()), since: Some(self.inbox_from), ..MessageFilter::default() };
        for message in self.store.messages().with_read(seen).list_all(arrived).await? {
            let message = message.value;
            println!("{} <- {}: {}", self.name, message.from, String::from_utf8_lossy(&message.content));
            match self.store.messages().delete(&message.id).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
            self.inbox_from = message.timestamp;
        }
        Ok(())
    }
}

fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "an engine has a clock of its own")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let store = Client::connect(["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"]).await?;
    // a - b - c, and a slow link from a to c.
    let mut mesh = [
        Engine::new(store.clone(), "mesh-a", &[("mesh-b", 1), ("mesh-c", 10)]),
        Engine::new(store.clone(), "mesh-b", &[("mesh-a", 1), ("mesh-c", 1)]),
        Engine::new(store.clone(), "mesh-c", &[("mesh-b", 1), ("mesh-a", 10)]),
    ];
    for round in 1..=3 {
        for engine in &mesh {
            engine.beat().await?;
        }
        for engine in &mesh {
            println!("{} knows {} ways", engine.name, engine.route().await?);
        }
        let [a, _, c] = &mut mesh;
        a.send("mesh-c", &format!("hello number {round}")).await?;
        c.receive().await?;
        c.send("mesh-a", "and hello to you").await?;
        a.receive().await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    store.close_session().await
}
