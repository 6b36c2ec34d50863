//! Nodes inside the test's process: the real server on real sockets and files.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use meshstore::{
    Client,
    client::{Builder, Tls},
    config::{Config, Flags},
    environment::Environment,
    model::Principal,
    security::{issue::Authority, tokens::Tokens},
    server,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

/// A cluster that runs inside this process, until it is stopped.
pub struct Nodes {
    pub endpoints: Vec<String>,
    /// What a client needs to be served, if the nodes have TLS.
    pub access: Option<Access>,
    running: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    directory: TempDir,
}

/// An authority's certificate, a token, and one of another principal.
#[derive(Clone)]
pub struct Access {
    pub ca: String,
    pub token: String,
    #[allow(dead_code, reason = "not every test program has strangers")]
    pub of_a_stranger: String,
}

impl Nodes {
    /// Starts a cluster of so many nodes with this engine.
    pub async fn start(count: usize, engine: &str) -> Self {
        Self::start_in(TempDir::new().unwrap(), configuration(count, engine), None).await
    }

    /// Serves a data directory that there is already.
    pub async fn serve(data: &Path) -> Self {
        let text = configuration(1, "sled");
        Self::start_at(TempDir::new().unwrap(), text, None, |_| data.to_owned()).await
    }

    /// The same with TLS, certificates of the nodes, and a token for clients.
    pub async fn start_with_tls(count: usize, engine: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let access = issue(directory.path(), count);
        let files = "[tls]\nca = \"ca.crt\"\ncert = \"node-{node}.crt\"\nkey = \"node-{node}.key\"\n\
                     [auth]\ntokens = \"tokens.toml\"\n";
        Self::start_in(directory, files.to_owned() + &configuration(count, engine), Some(access)).await
    }

    /// A client of all nodes.
    pub fn client(&self) -> Builder {
        let builder = Client::builder().endpoints(&self.endpoints);
        match &self.access {
            None => builder,
            Some(Access { ca, token, .. }) => builder.tls(Tls::new(ca.as_str())).token(token),
        }
    }

    async fn start_in(directory: TempDir, text: String, access: Option<Access>) -> Self {
        let home = directory.path().to_owned();
        Self::start_at(directory, text, access, |id| home.join(format!("node-{id}"))).await
    }

    async fn start_at(directory: TempDir, text: String, access: Option<Access>, data: impl Fn(u64) -> PathBuf) -> Self {
        let count = text.matches("[[node]]").count();
        let mut nodes = Self { endpoints: Vec::new(), access, running: Vec::new(), directory };
        for id in 1..=count as u64 {
            let flags = Flags { node: Some(id), data_dir: Some(data(id)), ..Flags::default() };
            let config = Config::parse(&text, &nodes.directory.path().join("test.toml"), &flags).unwrap();
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
        drop(self.stop_and_keep().await);
    }

    /// The same; what they leave in their directories stays as long as what is answered.
    pub async fn stop_and_keep(self) -> TempDir {
        let (stops, nodes): (Vec<_>, Vec<_>) = self.running.into_iter().unzip();
        drop(stops);
        for node in nodes {
            node.await.expect("the node stops cleanly");
        }
        self.directory
    }
}

/// Makes an authority, and lays out what so many nodes need.
fn issue(directory: &Path, count: usize) -> Access {
    let now_ms = Environment::real().clock.wall_ms();
    let write = |name: &str, content: &str| fs::write(directory.join(name), content).unwrap();
    let (authority, ca) = Authority::found("test", now_ms).unwrap();
    for id in 1..=count as u64 {
        let issued = authority.node(id, &["127.0.0.1".into()], now_ms, Duration::from_secs(86_400)).unwrap();
        write(&format!("node-{id}.crt"), &issued.cert);
        write(&format!("node-{id}.key"), &issued.key);
    }
    let mut tokens = Tokens::default();
    let token = tokens.add(Principal::Person("contract".into()), now_ms, None).unwrap();
    let of_a_stranger = tokens.add(Principal::Service("stranger".into()), now_ms, None).unwrap();
    write("ca.crt", &ca.cert);
    write("tokens.toml", &tokens.text());
    Access { ca: ca.cert, token, of_a_stranger }
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
