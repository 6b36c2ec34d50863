//! Clusters of real processes: `meshstore serve` with data directories, ports and a `cluster.toml` of their own.
//!
//! The binary is that of `MESHSTORE_BINARY`, else the one that cargo built for the tests. What a node logs goes to a file,
//! whose end is shown if the test fails. Processes are ended when their cluster is dropped. Nothing waits for a time:
//! [`until`] asks until something is so, and fails the test if it takes far too long.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use meshstore::{Client, client::Status};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

/// With openraft's warnings, which say what peers answer.
const LOG_LEVEL: &str = "info,openraft=warn";
/// What takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(60);
/// How many bytes of each log are shown when a test fails.
const SHOWN: usize = 6_000;

/// Asks until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < limit, "waited {LIMIT:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a test's `cluster.toml` says beyond names and addresses.
#[derive(Clone, Copy, Default)]
pub struct Settings {
    /// Lines of `[storage]`.
    pub storage: &'static str,
    /// Lines of `[raft]`.
    pub raft: &'static str,
}

/// Flushes as often as can be.
pub const EAGER: Settings = Settings { storage: "flush_mib = 1\nflush_after_s = 1\n", raft: "" };

/// A cluster. Its processes end with it.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _directory: TempDir,
}

/// A node: a place for a process, which may run or not.
pub struct Node {
    pub id: u64,
    pub client: String,
    pub peer: String,
    pub http: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Its `cluster.toml`.
    pub toml: PathBuf,
    /// How many files it may have open; `None`: as many as the test.
    pub open_files: Option<u32>,
    /// Its program.
    pub binary: PathBuf,
    /// What it logs.
    pub log_level: &'static str,
    /// Where it joins, for one that does not stand in `cluster.toml`.
    pub join: Vec<String>,
    /// Whether it stands in `cluster.toml`.
    listed: bool,
    log: PathBuf,
    /// Where in the log the current run begins.
    began: usize,
    process: Option<Child>,
    paused: bool,
}

impl Cluster {
    /// Lays out a cluster of so many nodes; none runs yet.
    pub fn new(count: u64, settings: Settings) -> Self {
        let directory = TempDir::new().unwrap();
        let toml = directory.path().join("cluster.toml");
        let mut text = format!(
            "[cluster]\nname = \"test\"\n[storage]\nengine = \"sled\"\n{}[raft]\nheartbeat_ms = 100\n{}",
            settings.storage, settings.raft
        );
        let mut nodes = Vec::new();
        for id in 1..=count {
            let node = Node::new(id, directory.path());
            text += &listed(id, [&node.client, &node.peer, &node.http]);
            nodes.push(Node { listed: true, ..node });
        }
        fs::write(&toml, text).unwrap();
        Self { nodes, _directory: directory }
    }

    /// Starts a cluster, and waits until all its nodes are ready.
    pub async fn start(count: u64, settings: Settings) -> Self {
        let mut cluster = Self::new(count, settings);
        cluster.start_all().await;
        cluster
    }

    /// Starts the nodes that do not run, and waits until all are ready.
    pub async fn start_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.process.is_none()) {
            node.start();
        }
        for node in &mut self.nodes {
            node.ready().await;
        }
    }

    /// SIGKILL to all, at once.
    pub fn kill_all(&mut self) {
        for node in &self.nodes {
            node.signal(Signal::KILL);
        }
        for node in &mut self.nodes {
            node.kill();
        }
    }

    /// SIGTERM to all, at once; all must stop in order.
    pub async fn terminate_all(&mut self) {
        for node in &self.nodes {
            node.signal(Signal::TERM);
        }
        for node in &mut self.nodes {
            assert!(node.exit().await.success(), "node {} stopped with an error", node.id);
        }
    }

    /// Lays out one more node, which does not stand in `cluster.toml`. It joins where the others are reached now.
    pub fn lay_out(&mut self, id: u64) -> &mut Node {
        let join = self.nodes.iter().map(|node| node.peer.clone()).collect();
        self.nodes.push(Node { join, ..Node::new(id, self._directory.path()) });
        self.node(id)
    }

    /// Waits until a node is a voter, as whoever leads sees it.
    pub async fn voter(&self, id: u64) {
        let client = self.client();
        until(&format!("node {id} to be a voter"), async || {
            let members = client.cluster().members().await.ok()?.members;
            members.into_iter().filter_map(|status| status.member).find(|member| member.node_id == id && member.voter)
        })
        .await;
    }

    /// A node that was removed from the cluster is none of it any more: its process has ended by itself, and refuses to run
    /// again.
    pub async fn retired(&mut self, id: u64) -> Node {
        let at = self.nodes.iter().position(|node| node.id == id).unwrap();
        let mut node = self.nodes.remove(at);
        if node.process.is_some() {
            assert_eq!(node.exit().await.code(), Some(1), "{}", node.log());
        }
        let said = node.refusal(1).await;
        assert!(said.contains(&format!("node {id} was removed from cluster ")), "{said}");
        node
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap()
    }

    /// A client of the whole cluster, with a session of its own.
    pub fn client(&self) -> Client {
        Client::builder().endpoints(self.endpoints()).deadline(Duration::from_secs(40)).connect_lazy().unwrap()
    }

    /// The node that a majority follows.
    pub async fn leader(&self) -> u64 {
        until("a leader that a majority follows", async || {
            let mut statuses = Vec::new();
            for node in self.nodes.iter().filter(|node| node.process.is_some() && !node.paused) {
                statuses.extend(node.status(false).await);
            }
            // Followers may name one that they followed before they were started again.
            let leader = statuses.iter().find(|status| status.role == "leader")?;
            let follows = |status: &&Status| (status.leader_id, status.term) == (leader.node_id, leader.term);
            let followers = statuses.iter().filter(follows).count();
            (followers > self.nodes.len() / 2).then_some(leader.node_id)
        })
        .await
    }

    /// A node that does not lead.
    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.nodes.iter().map(|node| node.id).find(|id| *id != leader).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                let text = node.whole_log();
                let from = text.len().saturating_sub(SHOWN);
                let from = (from..).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                eprintln!("== the end of the log of node {} ==\n{}", node.id, &text[from..]);
            }
        }
    }
}

impl Node {
    /// A place in a directory, at ports of its own, which does not stand in `cluster.toml` yet.
    fn new(id: u64, home: &Path) -> Self {
        let [client, peer, http] = addresses();
        Self {
            id,
            client,
            peer,
            http,
            data: home.join(format!("node-{id}")),
            toml: home.join("cluster.toml"),
            open_files: None,
            binary: binary(),
            log_level: LOG_LEVEL,
            join: Vec::new(),
            listed: false,
            log: home.join(format!("node-{id}.log")),
            began: 0,
            process: None,
            paused: false,
        }
    }

    /// Starts the process. Waits for nothing.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        self.began = self.whole_log().len();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = match self.open_files {
            None => Command::new(&self.binary),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", "ulimit -n $0; exec \"$@\"", &files.to_string()]).arg(&self.binary);
                shell
            }
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MESHSTORE_")) {
            command.env_remove(name);
        }
        command
            .args(["serve", "--log-level", self.log_level, "--node", &self.id.to_string(), "--config"])
            .arg(&self.toml)
            .arg("--data")
            .arg(&self.data);
        if !self.listed {
            command.args(["--client", &self.client, "--peer", &self.peer, "--http", &self.http]);
        }
        if !self.join.is_empty() {
            command.args(["--join", &self.join.join(",")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    fn child(&self) -> &Child {
        self.process.as_ref().unwrap_or_else(|| panic!("node {} does not run", self.id))
    }

    pub fn process_id(&self) -> u32 {
        self.child().id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child()), signal).unwrap();
    }

    /// SIGKILL, if it runs.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        self.paused = false;
    }

    /// SIGTERM; how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit().await
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }

    /// Waits until the process has ended: how.
    pub async fn exit(&mut self) -> ExitStatus {
        let process = self.process.as_mut().unwrap();
        let status = until("the end of a process", async || process.try_wait().unwrap()).await;
        self.process = None;
        status
    }

    /// Waits until the node serves and knows a leader.
    pub async fn ready(&mut self) {
        let (id, http) = (self.id, self.http.clone());
        until(&format!("node {id} to be ready"), async || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "node {id} has ended: {}", self.log());
            http_get(&http, "/readyz").await.filter(|(code, _)| *code == 200).map(drop)
        })
        .await;
    }

    /// Starts the process, which must refuse to run: the sentence with which it does. That its exit code says so,
    /// too, is checked.
    pub async fn refusal(&mut self, code: i32) -> String {
        self.start();
        let status = self.exit().await;
        let log = self.log();
        assert_eq!(status.code(), Some(code), "{log}");
        let said = log.lines().rev().find_map(|line| line.strip_prefix("error: "));
        said.unwrap_or_else(|| panic!("no error was said: {log}")).to_owned()
    }

    fn whole_log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// What it has logged since it was last started.
    pub fn log(&self) -> String {
        self.whole_log()[self.began..].to_owned()
    }

    /// A client that asks this node only.
    pub fn pinned(&self) -> Client {
        let client = Client::builder().endpoints([&self.client]).deadline(Duration::from_secs(20));
        client.connect_lazy().unwrap().pin(&self.client).unwrap()
    }

    /// What the node says of itself; `None` if it does not answer.
    pub async fn status(&self, with_hash: bool) -> Option<Status> {
        self.pinned().with_deadline(Duration::from_secs(2)).cluster().status(with_hash).await.ok()
    }

    /// A value of `/metrics`.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = http_get(&self.http, "/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix("meshstore_")?.strip_prefix(name)?.trim().parse().ok())
    }
}

/// Status code and body; `None` if nobody answers in time.
pub async fn http_get(address: &str, path: &str) -> Option<(u16, String)> {
    let get = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    timeout(Duration::from_secs(2), get).await.ok().flatten()
}

pub fn binary() -> PathBuf {
    std::env::var_os("MESHSTORE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_meshstore").into(), Into::into)
}

/// Runs the command: exit code, standard output, standard error.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// What the command answers with `--json`; it must succeed.
pub fn json(arguments: &[&str]) -> Value {
    let (code, out, error) = run(&[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{out}{error}");
    serde_json::from_str(&out).unwrap()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How a node stands in a `cluster.toml`.
pub fn listed(id: u64, [client, peer, http]: [&str; 3]) -> String {
    format!("[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\"\n")
}

/// Where a node is reached by clients, by peers and by HTTP.
pub fn addresses() -> [String; 3] {
    [(); 3].map(|()| format!("127.0.0.1:{}", free_port()))
}

/// A port that nobody uses. Below those that the kernel gives to connections, so that a node that is started again
/// finds its ports free; each process of tests looks in a range of its own, so that two do not choose the same one.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = u16::try_from(std::process::id() % 180).unwrap() * 100;
    loop {
        let port = 12_000 + range + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Everything in a directory: path and bytes of each file.
pub fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}

/// Whether two states of a directory are the same; names the first file that differs.
pub fn assert_unchanged(before: &[(PathBuf, Vec<u8>)], directory: &Path) {
    let after = contents(directory);
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(before), names(&after), "files came or went");
    for ((path, before), (_, after)) in before.iter().zip(&after) {
        assert!(before == after, "{} was changed", path.display());
    }
}

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        File::create(target).unwrap().write_all(&bytes).unwrap();
    }
}
