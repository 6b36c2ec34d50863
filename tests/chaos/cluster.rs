//! A cluster of real processes, each in a namespace and on a volume of its own where that is asked for.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use meshstore::{Client, client::Status};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    harness::addresses,
    network::Network,
    node::Node,
    volume::{FileSystem, Volume},
};

/// What takes longer is a failure.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How the directories of clusters begin; the number of the process follows.
pub const DIRECTORY: &str = "meshstore-chaos-";

/// Asks until there is an answer, or the time is over.
pub async fn within<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    pub nodes: u64,
    /// A namespace for each node, with a switch between them.
    pub network: bool,
    /// A volume for each node.
    pub volumes: Option<FileSystem>,
    /// A clock of its own for each node.
    pub clocks: bool,
    /// Lines of `[storage]` and `[raft]`.
    pub storage: &'static str,
    pub raft: &'static str,
    pub seed: u64,
}

impl Settings {
    /// Plain processes, which need no root, and write runs often.
    pub fn plain(nodes: u64) -> Self {
        let storage = "flush_mib = 1\nflush_after_s = 2\n";
        let raft = "keep_entries = 2000\n";
        Self { nodes, network: false, volumes: None, clocks: false, storage, raft, seed: 0 }
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub network: Option<Network>,
    /// The highest id that a node ever had.
    youngest: u64,
    /// What all configurations say, before the nodes.
    common: String,
    /// Where everything lies that goes with the cluster.
    _directory: TempDir,
}

impl Cluster {
    /// Lays out a cluster; none of it runs yet. Logs go to this directory.
    pub fn new(settings: &Settings, logs: &Path) -> Self {
        let prefix = format!("{DIRECTORY}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        let network = settings.network.then(|| Network::create(settings.nodes as usize, settings.seed));
        let toml = directory.path().join("cluster.toml");
        let mut text = format!(
            "[cluster]\nname = \"chaos\"\n[storage]\nengine = \"sled\"\n{}[raft]\n{}",
            settings.storage, settings.raft
        );
        let common = text.clone();
        let mut nodes = Vec::new();
        for id in 1..=settings.nodes {
            let addresses = match &network {
                Some(network) => [7_401, 7_402, 7_403].map(|port| format!("{}:{port}", network.address(id as usize))),
                None => addresses(),
            };
            let volume = settings.volumes.map(|kind| Volume::create(directory.path(), &format!("node-{id}"), kind));
            let data = match &volume {
                Some(volume) => volume.path().join("data"),
                None => directory.path().join(format!("node-{id}")),
            };
            let log = logs.join(format!("node-{id}.log"));
            let mut node = Node::new(id, addresses, toml.clone(), data, log);
            text += &node.listed();
            node.volume = volume;
            node.enter = network.as_ref().map(|network| network.enter(id as usize)).unwrap_or_default();
            if settings.clocks {
                let clock = directory.path().join(format!("node-{id}.clock"));
                fs::write(&clock, "+0\n").unwrap();
                node.clock = Some(clock);
            }
            nodes.push(node);
        }
        fs::write(&toml, text).unwrap();
        Self { nodes, network, youngest: settings.nodes, common, _directory: directory }
    }

    /// A cluster that runs and is ready.
    pub async fn start(settings: &Settings, logs: &Path) -> Self {
        let mut cluster = Self::new(settings, logs);
        cluster.start_all().await.unwrap_or_else(|error| panic!("{error}"));
        cluster
    }

    /// Starts the nodes that do not run, and waits until all are ready.
    pub async fn start_all(&mut self) -> Result<(), String> {
        for node in self.nodes.iter_mut().filter(|node| !node.runs()) {
            node.start();
        }
        self.ready().await
    }

    /// Waits until all are ready.
    pub async fn ready(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            let ready = within(LIMIT, async || match node.has_ended() {
                true => Some(false),
                false => node.is_ready().await.then_some(true),
            });
            match ready.await {
                Some(true) => {}
                Some(false) => return Err(format!("node {} ended while it started: {}", node.id, node.last_words())),
                None => return Err(format!("node {} is not ready after {LIMIT:?}", node.id)),
            }
        }
        Ok(())
    }

    /// SIGKILL to these, at once.
    pub fn kill(&mut self, ids: &[u64]) {
        for node in self.nodes.iter().filter(|node| ids.contains(&node.id)) {
            node.signal(Signal::KILL);
        }
        for node in self.nodes.iter_mut().filter(|node| ids.contains(&node.id)) {
            node.kill();
        }
    }

    /// The power of these goes away: what was not synced is lost. They do not run afterwards.
    pub fn cut_power(&mut self, ids: &[u64], frozen: bool) -> Result<(), String> {
        for node in self.nodes.iter().filter(|node| ids.contains(&node.id)) {
            // Frozen they cannot answer anybody between the one's end and the other's.
            if frozen {
                node.signal(Signal::STOP);
            }
        }
        for node in self.nodes.iter().filter(|node| ids.contains(&node.id)) {
            node.volume.as_ref().ok_or("it has no volume")?.cut()?;
        }
        self.kill(ids);
        for node in self.nodes.iter_mut().filter(|node| ids.contains(&node.id)) {
            node.volume.as_mut().ok_or("it has no volume")?.remount();
        }
        Ok(())
    }

    /// Makes the place of a node that was taken out that of a new one, which is to join and has never run: its id.
    pub fn renew(&mut self, id: u64) -> u64 {
        self.youngest += 1;
        let (common, new, join) = (self.common.clone(), self.youngest, self.nodes.iter().filter(|node| node.id != id));
        let join = join.map(|node| node.peer.clone()).collect();
        let node = self.node(id);
        node.kill();
        // One that was taken out before it had begun to join has none.
        if node.data.exists() {
            fs::remove_dir_all(&node.data).unwrap();
        }
        (node.id, node.join) = (new, join);
        // `cluster.toml` names the founders, whose addresses are theirs.
        node.toml = node.toml.with_file_name(format!("node-{new}.toml"));
        fs::write(&node.toml, format!("{common}{}", node.listed())).unwrap();
        new
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap()
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// A client of the whole cluster, with a session of its own.
    pub fn client(&self, deadline: Duration) -> Client {
        Client::builder().endpoints(self.endpoints()).deadline(deadline).connect_lazy().unwrap()
    }

    /// The node that leads in the highest term, if one says so now.
    pub async fn leader(&self) -> Option<u64> {
        let mut leader: Option<(u64, u64)> = None;
        for node in self.nodes.iter().filter(|node| node.serves()) {
            if let Some(status) = node.status(false).await
                && status.role == "leader"
            {
                leader = leader.max(Some((status.term, node.id)));
            }
        }
        leader.map(|(_, id)| id)
    }

    /// Waits until all nodes have applied all of one log, and compares what they hold by its hash.
    pub async fn settle(&self) -> Result<Vec<Status>, String> {
        let mut last = Vec::new();
        let settled = within(LIMIT, async || {
            let mut statuses = Vec::new();
            for node in &self.nodes {
                statuses.push(node.status(true).await?);
            }
            last = statuses.clone();
            let one = &statuses[0];
            let caught_up = |status: &Status| {
                (status.applied_index, status.last_log_index) == (one.last_log_index, one.last_log_index)
                    && status.leader_id == one.leader_id
            };
            statuses.iter().all(caught_up).then_some(statuses.clone())
        })
        .await;
        let Some(statuses) = settled else {
            let told: Vec<String> = last.iter().map(brief).collect();
            return Err(format!("the nodes do not agree after {LIMIT:?}: {}", told.join("; ")));
        };
        let differs = |status: &&Status| {
            let one = &statuses[0];
            (status.revision, &status.state_hash, &status.keyspaces) != (one.revision, &one.state_hash, &one.keyspaces)
        };
        match statuses.iter().find(differs) {
            None => Ok(statuses),
            Some(other) => Err(format!("replicas differ: {} and {}", brief(&statuses[0]), brief(other))),
        }
    }

    /// What the logs say that no fault explains.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in &self.nodes {
            for line in node.whole_log().lines() {
                // The index panics over damage; that is caught, and it is built anew.
                let caught = line.contains("/sled-");
                if (line.contains("panicked at") && !caught) || line.contains("internal invariant broken") {
                    found.push(format!("node {}: {line}", node.id));
                }
            }
        }
        found
    }
}

fn brief(status: &Status) -> String {
    format!(
        "node {} ({}, term {}, leader {}, log {}, applied {}, revision {}, hash {})",
        status.node_id,
        status.role,
        status.term,
        status.leader_id,
        status.last_log_index,
        status.applied_index,
        status.revision,
        status.state_hash
    )
}

/// Everything in a directory but its own place: what was copied there is the same data.
pub fn copy(from: &Path, to: &Path) {
    super::harness::copy(from, to);
}

/// A directory for what a run leaves behind.
pub fn fresh(path: PathBuf) -> PathBuf {
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}
