//! `cluster.toml`, environment and flags, read once into one validated [`Config`], which is handed down
//! by value.
//!
//! What must be equal on all nodes ([`Cluster`]: storage, Raft timing, who is a node and where) stands
//! apart from what differs (which of them this process is, and where its data lies). The file describes
//! the whole cluster, so the same file goes to every node. Flags win over environment variables, which
//! win over the file.
//!
//! Invariant: a `Config` that came from [`Config::load`] or [`Config::parse`] can be used without another check.
//! Everything that is wrong is said with file and line, before a directory or socket is touched.

mod address;
mod file;
mod tls;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

pub use address::Address;
pub use tls::Tls;

/// What is logged unless told otherwise. openraft warns of every heartbeat to a node that is down; what matters of
/// that shows in the status.
const LOG_FILTER: &str = "info,openraft=error";

/// From which time on a call is logged as slow, unless told otherwise.
const SLOW_CALL: Duration = Duration::from_secs(1);

/// Everything that one node is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is equal on all nodes.
    pub cluster: Cluster,
    /// The node that this process is: one of `cluster.nodes`, or one that was or is to be added to them.
    pub node: Node,
    /// Where members of the cluster are reached that a new node is to ask to join; none: it does not ask.
    pub join: Vec<Address>,
    /// Whether a new node is to stay a learner.
    pub learner: bool,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// By what it knows other nodes and callers; `None`: it knows nobody, and whoever reaches it may do everything.
    pub tls: Option<Tls>,
    /// What is logged, and how.
    pub log: Log,
}

/// What must be equal on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Shown in logs.
    pub name: String,
    /// How data is kept.
    pub storage: Storage,
    /// Timing of the consensus, and what it keeps.
    pub raft: Raft,
    /// What callers may ask of a node at once.
    pub limits: Limits,
    /// All nodes, in order of their ids; never empty.
    pub nodes: Vec<Node>,
}

/// How data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The engine of the index.
    pub engine: Engine,
    /// Memory for the engine's cache, in bytes.
    pub cache_bytes: u64,
    /// The memtable is flushed when it holds this many bytes...
    pub flush_bytes: u64,
    /// ... or when its oldest write is this old.
    pub flush_after: Duration,
    /// What is to stay free on the disk beside all that is needed, in bytes.
    pub reserve_bytes: u64,
}

/// The index over the runs on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// sled, on disk.
    #[default]
    Sled,
    /// A map in memory, for tests.
    Memory,
}

/// Timing of the consensus, and what it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raft {
    /// How often the leader is heard of at least.
    pub heartbeat: Duration,
    /// A follower asks for votes after a silence of `election_max` and of a time that it draws from between the two: as
    /// long as `election_max` nobody votes against a leader that it has heard of.
    pub election_min: Duration,
    /// See `election_min`.
    pub election_max: Duration,
    /// How many entries of what is flushed stay in the log, for followers that lag: one that lags further gets
    /// everything as a snapshot.
    pub keep_entries: u64,
    /// Size of a file of the log, in bytes. One is always made ahead, so the log takes at least two on disk.
    pub segment_bytes: u64,
    /// The replicas compare their states at every log index divisible by this.
    pub check_entries: u64,
}

/// What callers may ask of a node at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls of one principal that a node has under way.
    pub calls_per_principal: usize,
    /// Changes that a node keeps in memory for watchers, in bytes.
    pub watch_bytes: usize,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id, from 1; never used again for another data directory.
    pub id: u64,
    /// Where it listens for clients.
    pub client: Address,
    /// Where it listens for the other nodes.
    pub peer: Address,
    /// Where it answers health checks and metrics.
    pub http: Address,
    /// Where its data lies, if the file says so.
    pub data_dir: Option<PathBuf>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level (`info`), or directives (`info,meshstore=debug`).
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Calls that take this long or longer are logged.
    pub slow_call: Duration,
}

/// What flags and environment variables say. `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Which node of the file to be. May be left out if the file has only one.
    pub node: Option<u64>,
    /// Where the data lies.
    pub data_dir: Option<PathBuf>,
    /// Another engine than the file's.
    pub engine: Option<Engine>,
    /// Whether to listen in plain text on addresses that other machines can reach.
    pub insecure: bool,
    /// What to log; without it `info`.
    pub log_filter: Option<String>,
    /// Whether to log JSON.
    pub log_json: bool,
    /// From which time on a call is logged as slow; without it a second.
    pub slow_call: Option<Duration>,
    /// Where members are reached by peers, for a new node that asks to join.
    pub join: Vec<String>,
    /// Whether it is to stay a learner.
    pub learner: bool,
    /// Where a node that does not stand in the file listens for peers.
    pub peer: Option<String>,
    /// And for clients.
    pub client: Option<String>,
    /// And for health checks and metrics.
    pub http: Option<String>,
}

/// Why a configuration cannot be used: one sentence with file and line where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    file: Option<PathBuf>,
    line: Option<usize>,
    rule: String,
}

impl Config {
    /// Reads the file and joins it with the flags.
    ///
    /// Errors: the first rule that is broken, with file and line.
    pub fn load(path: &Path, flags: &Flags) -> Result<Self, Invalid> {
        Self::parse(&text_of(path)?, path, flags)
    }

    /// Joins the text of a file with the flags. `path` is for messages, and relative data directories in
    /// the file are relative to its directory.
    ///
    /// Errors: the first rule that is broken, with file and line.
    pub fn parse(text: &str, path: &Path, flags: &Flags) -> Result<Self, Invalid> {
        let file = file::read(text, path)?;
        let mut cluster = file.cluster;
        let node = chosen(&cluster.nodes, path, flags)?;
        let join = joined(flags)?;
        let tls = file.tls.map(|tls| tls.of_node(node.id));
        if !flags.insecure {
            file::require_loopback(text, path, &node, tls.as_ref(), &file.lines)?;
        }
        let Some(data_dir) = flags.data_dir.clone().or_else(|| node.data_dir.clone()) else {
            let rule = format!(
                "node {} has no data directory: pass --data DIR, set MESHSTORE_DATA, or put data_dir under its [[node]] in {}",
                node.id,
                path.display()
            );
            return Err(Invalid::flags(rule));
        };
        if data_dir.as_os_str().is_empty() {
            return Err(Invalid::flags("the data directory must not be an empty path"));
        }
        if let Some(engine) = flags.engine {
            cluster.storage.engine = engine;
        }
        let slow_call = flags.slow_call.unwrap_or(SLOW_CALL);
        let filter = flags.log_filter.clone().unwrap_or_else(|| LOG_FILTER.into());
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&filter) {
            return Err(Invalid::flags(format!("--log-level {filter}: {error}; try info, or info,meshstore=debug")));
        }
        Ok(Self {
            cluster,
            node,
            join,
            learner: flags.learner,
            data_dir,
            tls,
            log: Log { filter, json: flags.log_json, slow_call },
        })
    }
}

impl Cluster {
    /// Reads what the file says of the cluster, for those who are none of its nodes.
    ///
    /// Errors: the first rule that is broken, with file and line.
    pub fn load(path: &Path) -> Result<Self, Invalid> {
        Ok(file::read(&text_of(path)?, path)?.cluster)
    }
}

fn text_of(path: &Path) -> Result<String, Invalid> {
    std::fs::read_to_string(path)
        .map_err(|error| Invalid::flags(format!("cannot read the configuration {}: {error}", path.display())))
}

/// The node to be: one of the file, or one whose addresses the flags name.
fn chosen(nodes: &[Node], path: &Path, flags: &Flags) -> Result<Node, Invalid> {
    let named = [("--peer", &flags.peer), ("--client", &flags.client), ("--http", &flags.http)];
    let given: Vec<&str> = named.iter().filter(|(_, address)| address.is_some()).map(|(name, _)| *name).collect();
    let listed = |id: u64| nodes.iter().any(|node| node.id == id);
    let id = match flags.node {
        Some(id) if !given.is_empty() && !listed(id) => id,
        id => {
            let node = listed_node(nodes, path, id)?;
            return match given.first() {
                None => Ok(node),
                Some(name) => Err(Invalid::flags(format!(
                    "{name}: node {} stands in {}, and its addresses with it; change them there",
                    node.id,
                    path.display()
                ))),
            };
        }
    };
    let address = |(name, text): (&str, &Option<String>)| {
        let Some(text) = text else {
            return Err(Invalid::flags(format!(
                "node {id} does not stand in {}, so it needs --peer, --client and --http; {name} is missing",
                path.display()
            )));
        };
        let address: Address = text.parse().map_err(|rule| Invalid::flags(format!("{name}: {rule}")))?;
        let taken = |node: &&Node| [&node.peer, &node.client, &node.http].contains(&&address);
        match nodes.iter().find(taken) {
            Some(Node { id: other, .. }) => Err(Invalid::flags(format!(
                "{name} {address} is an address of node {other} in {}: choose another, or take node {other} out of the file if \
                 it is gone",
                path.display()
            ))),
            None => Ok(address),
        }
    };
    let [peer, client, http] = named.map(address);
    let (peer, client, http) = (peer?, client?, http?);
    if id == 0 {
        return Err(Invalid::flags("--node 0: a node id must be at least 1"));
    }
    if peer == client || peer == http || client == http {
        return Err(Invalid::flags("--peer, --client and --http must be three addresses"));
    }
    Ok(Node { id, client, peer, http, data_dir: None })
}

/// Where to ask to join. Errors: what is no address, or makes no sense.
fn joined(flags: &Flags) -> Result<Vec<Address>, Invalid> {
    if flags.learner && flags.join.is_empty() {
        return Err(Invalid::flags("--learner is for a node that joins: it goes with --join"));
    }
    let parse = |text: &String| text.parse().map_err(|rule| Invalid::flags(format!("--join: {rule}")));
    flags.join.iter().map(parse).collect()
}

fn listed_node(nodes: &[Node], path: &Path, id: Option<u64>) -> Result<Node, Invalid> {
    let ids = nodes.iter().map(|node| node.id.to_string()).collect::<Vec<_>>().join(", ");
    match (id, nodes) {
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Invalid::flags(format!(
            "which node to be is not said: pass --node with one of {ids} ({})",
            path.display()
        ))),
        (Some(id), _) => nodes.iter().find(|node| node.id == id).cloned().ok_or_else(|| {
            Invalid::flags(format!(
                "--node {id}: {} has no such node, it has {ids}; for another give --peer, --client and --http",
                path.display()
            ))
        }),
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "sled" => Ok(Self::Sled),
            "memory" => Ok(Self::Memory),
            other => Err(format!("unknown engine \"{other}\"; there are \"sled\" and \"memory\"")),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sled => "sled",
            Self::Memory => "memory",
        })
    }
}

impl Invalid {
    fn flags(rule: impl Into<String>) -> Self {
        Self { file: None, line: None, rule: rule.into() }
    }

    fn at(file: &Path, line: Option<usize>, rule: impl Into<String>) -> Self {
        Self { file: Some(file.into()), line, rule: rule.into() }
    }

    /// The line of the file that is wrong, from 1; `None` if it is not a line that is wrong.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: {}", file.display(), self.rule),
            (Some(file), None) => write!(f, "{}: {}", file.display(), self.rule),
            (None, _) => f.write_str(&self.rule),
        }
    }
}

impl std::error::Error for Invalid {}
