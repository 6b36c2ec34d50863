//! Nodes inside the test's process: the real server on real sockets and files.

use std::{net::TcpListener, path::Path};

use meshstore::{
    config::{Config, Flags},
    environment::Environment,
    server,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

/// A cluster that runs inside this process, until it is stopped.
pub struct Nodes {
    pub endpoints: Vec<String>,
    running: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    _directory: TempDir,
}

impl Nodes {
    /// Starts a cluster of so many nodes with this engine.
    pub async fn start(count: usize, engine: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let text = configuration(count, engine);
        let mut nodes = Self { endpoints: Vec::new(), running: Vec::new(), _directory: directory };
        for id in 1..=count as u64 {
            let data_dir = nodes._directory.path().join(format!("node-{id}"));
            let flags = Flags { node: Some(id), data_dir: Some(data_dir), ..Flags::default() };
            let config = Config::parse(&text, Path::new("test.toml"), &flags).unwrap();
            nodes.endpoints.push(config.node.client.to_string());
            let (stop, stopped) = oneshot::channel();
            let stopped = async move {
                // A dropped sender stops the node as well.
                let _ = stopped.await;
            };
            let raft = tokio::runtime::Handle::current();
            let node = tokio::spawn(async move {
                server::serve(Environment::real(), config, None, raft, stopped).await.expect("the node runs");
            });
            nodes.running.push((stop, node));
        }
        nodes
    }

    /// Stops all nodes gracefully.
    pub async fn stop(self) {
        let (stops, nodes): (Vec<_>, Vec<_>) = self.running.into_iter().unzip();
        drop(stops);
        for node in nodes {
            node.await.expect("the node stops cleanly");
        }
    }
}

/// A `cluster.toml` of so many nodes on free ports of the loopback.
fn configuration(count: usize, engine: &str) -> String {
    // All are held until all are found, so that no port comes twice.
    let ports: Vec<TcpListener> = (0..count * 3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut ports = ports.iter().map(|listener| listener.local_addr().unwrap().port());
    let mut text = format!("[cluster]\nname = \"test\"\n[storage]\nengine = \"{engine}\"\n");
    for id in 1..=count {
        let mut address = || format!("127.0.0.1:{}", ports.next().unwrap());
        let (client, peer, http) = (address(), address(), address());
        text.push_str(&format!("[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\"\n"));
    }
    text
}
