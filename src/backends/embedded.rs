//! A node inside the process.
//!
//! It is the node that `meshstore serve` would run, with the same log and the same files, alone: its own quorum, and with a
//! network to which nothing leads. Calls go to the layers directly. What a data directory holds can be served later, or the
//! other way round, as long as its cluster has one node.

use std::{future, io, path::Path, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::timeout};

use super::calls::Backend;
use crate::{
    Error,
    config::{Config, Flags},
    environment::{
        Environment, Net,
        net::{Io, Listener},
    },
    error::Fault,
    model::Principal,
    node::{Faults, Node, Parts, Running, start},
    server,
    service::transactions::Transactions,
};

/// How an embedded node is set up. It has nobody to hear of, so it need not wait long before it leads; and nobody who lags, so
/// it need not keep much of its log. The addresses stand in its membership, for a server that it may become; nobody listens there.
const CLUSTER: &str = r#"
[cluster]
name = "embedded"
[storage]
reserve_mib = 64
[raft]
heartbeat_ms = 50
election_min_ms = 110
election_max_ms = 150
keep_entries = 1000
segment_mib = 8
[[node]]
id = 1
client = "127.0.0.1:7401"
peer = "127.0.0.1:7501"
http = "127.0.0.1:7601"
"#;

/// How long a node that is alone may take to lead.
const LEADS_WITHIN: Duration = Duration::from_secs(30);

/// One node inside this process. Cheap to clone; all clones are one node, which stops when the last goes, or at
/// [`close`](Self::close).
///
/// ```no_run
/// use std::sync::Arc;
///
/// use meshstore::{
///     backends::Embedded,
///     contract::{Storage, Value},
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Embedded::open("data".as_ref()).await?;
/// let storage: Arc<dyn Storage> = Arc::new(node.clone());
/// storage.set("greeting", Value::json("hello")?, "notes".into()).await?;
/// node.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Embedded {
    /// First: what they keep open goes before the store.
    transactions: Transactions,
    inner: Arc<Inner>,
    principal: Principal,
}

struct Inner {
    node: Node,
    /// Dropped or told, the node stops.
    stop: watch::Sender<bool>,
    /// How it has stopped, once it has.
    stopped: watch::Receiver<Option<Result<(), Fault>>>,
}

impl Embedded {
    /// Starts node 1 of a cluster of its own on a data directory, which is made if there is none. The node runs on the current
    /// runtime, beside threads of its own.
    ///
    /// Errors: another process has the directory open; it is another node's, of a cluster of several, damaged, or cannot be
    /// written.
    pub async fn open(directory: &Path) -> Result<Self, Fault> {
        let flags = Flags { data_dir: Some(directory.into()), ..Flags::default() };
        let config = Config::parse(CLUSTER, Path::new("(embedded)"), &flags);
        Self::start(config.map_err(|error| Fault::bug(format!("the built-in configuration: {error}")))?).await
    }

    /// The same with a configuration, which must have one node; what it says of addresses and TLS is of no effect.
    ///
    /// Errors: also if it has several.
    pub async fn start(config: Config) -> Result<Self, Fault> {
        let nodes = config.cluster.nodes.len();
        if nodes != 1 || !config.join.is_empty() {
            let reason =
                format!("an embedded node is alone, and this configuration has {nodes} nodes, or asks to join some");
            return Err(Fault::new(reason));
        }
        let environment = Environment { net: Arc::new(NoNetwork), ..Environment::real() };
        let faults = Faults::default();
        let parts =
            Parts { environment, observer: None, faults: faults.clone(), calls: Box::new(|_| Default::default()) };
        let running = start(parts, config).await?;
        let node = running.node.clone();
        if let Err(fault) = check_alone(&node).await {
            running.stop().await?;
            return Err(fault);
        }
        server::keep_house(&node);
        let (stop, told) = watch::channel(false);
        let (ended, stopped) = watch::channel(None);
        tokio::spawn(async move {
            ended.send_replace(Some(stop_when_told(running, told, faults).await));
        });
        Ok(Self {
            inner: Arc::new(Inner { node, stop, stopped }),
            principal: Principal::Anonymous,
            transactions: Transactions::default(),
        })
    }

    /// The same node, whose values are written as somebody.
    #[must_use]
    pub fn with_principal(self, principal: Principal) -> Self {
        Self { principal, ..self }
    }

    /// Finishes what is in flight, stops the node, and closes its files. Calls that come later are told so.
    ///
    /// Errors: why the node had stopped before, if it was broken.
    pub async fn close(&self) -> Result<(), Fault> {
        self.transactions.end_all();
        self.inner.stop.send_replace(true);
        let mut stopped = self.inner.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ok(())),
            Err(_) => Err(Fault::new("the runtime of the node ended before the node did")),
        }
    }
}

/// That the node leads a cluster of which it is the only member.
async fn check_alone(node: &Node) -> Result<(), Fault> {
    let stops = |error: Error| Fault::new(format!("the node does not come to lead: {error}"));
    let slow = |_| Fault::new(format!("the node does not lead after {} s", LEADS_WITHIN.as_secs()));
    let members = timeout(LEADS_WITHIN, node.member_ids()).await.map_err(slow)?.map_err(stops)?;
    let others: Vec<u64> = members.into_iter().filter(|id| *id != node.id()).collect();
    if !others.is_empty() {
        return Err(Fault::new(format!(
            "this directory belongs to a cluster that has other nodes ({others:?}), and an embedded node is alone: serve it \
             with them, or remove them from the cluster first"
        )));
    }
    timeout(LEADS_WITHIN, node.can_be_read()).await.map_err(slow)?.map_err(stops)
}

async fn stop_when_told(running: Running, mut told: watch::Receiver<bool>, faults: Faults) -> Result<(), Fault> {
    let broken = tokio::select! {
        fault = faults.wait() => Some(fault),
        // An error means that the last handle is gone.
        _ = told.wait_for(|told| *told) => None,
    };
    let stopped = running.stop().await;
    broken.map_or(stopped, Err)
}

impl Backend for Embedded {
    type Core = Node;
    type Handle = Box<Node>;

    fn core(&self) -> &Node {
        &self.inner.node
    }

    fn handle(&self) -> Box<Node> {
        Box::new(self.inner.node.clone())
    }

    fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    fn principal(&self) -> &Principal {
        &self.principal
    }

    fn is_durable(&self) -> bool {
        true
    }
}

/// A network to which nothing leads.
struct NoNetwork;

impl Net for NoNetwork {
    fn listen<'a>(&'a self, _address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(future::ready(Ok(Box::new(Nobody) as Box<dyn Listener>)))
    }

    fn connect<'a>(&'a self, _address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(future::ready(Err(nowhere())))
    }
}

/// Nobody calls.
struct Nobody;

impl Listener for Nobody {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Io>> {
        Box::pin(future::pending())
    }

    fn local_address(&self) -> io::Result<std::net::SocketAddr> {
        Err(nowhere())
    }
}

fn nowhere() -> io::Error {
    io::Error::new(io::ErrorKind::NetworkUnreachable, "an embedded node has no network")
}
