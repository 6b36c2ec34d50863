//! A node's peer side for tests: the real service on a real socket, around a Raft that only notes what it
//! is asked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use futures_util::future::BoxFuture;
use openraft::{errors::Fatal, raft::TransferLeaderError};
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport::{Server, server::Router};

use super::*;
use crate::{
    environment::net::{Net, RealNet, incoming},
    raft::wire::SnapshotHead,
};

/// What was said of a snapshot, and its bytes.
pub(crate) type FakeSnapshot = (SnapshotMeta, Vec<u8>);

/// A Raft that notes what it is asked. Its log has the entries up to index 2, and all that it is sent.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    pub(crate) stopped: Arc<AtomicBool>,
    pub(crate) installed: Arc<Mutex<Vec<FakeSnapshot>>>,
    pub(crate) receiver: FakeReceiver,
    /// Appends of streams that were taken, of which as many are answered as are released.
    pub(crate) taken: watch::Sender<usize>,
    pub(crate) released: watch::Sender<usize>,
    /// Whether the listener is closed.
    pub(crate) closed: watch::Sender<bool>,
    /// Whether its log has another entry at index 2.
    pub(crate) differs: Arc<AtomicBool>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            seen: Arc::default(),
            stopped: Arc::default(),
            installed: Arc::default(),
            receiver: FakeReceiver::default(),
            taken: watch::Sender::new(0),
            released: watch::Sender::new(usize::MAX),
            closed: watch::Sender::new(false),
            differs: Arc::default(),
        }
    }
}

impl Fake {
    #[expect(clippy::result_large_err, reason = "it is openraft's own error")]
    fn note(&self, what: impl ToString) -> Result<(), Fatal<TypeConfig>> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(Fatal::Stopped);
        }
        self.seen.lock().unwrap().push(what.to_string());
        Ok(())
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Consensus for Fake {
    type Receiver = FakeReceiver;

    async fn append(&self, request: Append) -> Result<Appended, Fatal<TypeConfig>> {
        self.note(format!("append {request}"))?;
        let last = request.entries.last().map(openraft::entry::RaftEntry::log_id);
        Ok(Appended::PartialSuccess(last.or(request.prev_log_id)))
    }

    fn append_all(
        &self,
        requests: BoxStream<'static, Append>,
    ) -> BoxStream<'static, Result<Appended, Fatal<TypeConfig>>> {
        let raft = self.clone();
        let appended = move |request: Append| {
            let raft = raft.clone();
            async move {
                let differs = request.prev_log_id.is_none() || raft.differs.load(Ordering::SeqCst);
                let answer = if differs { Ok(Appended::Conflict) } else { raft.append(request).await };
                let mut number = 0;
                raft.taken.send_modify(|taken| {
                    *taken += 1;
                    number = *taken;
                });
                let _ = raft.released.subscribe().wait_for(|released| number <= *released).await;
                answer
            }
        };
        requests.map(appended).buffered(64).boxed()
    }

    async fn vote(&self, request: Ballot) -> Result<Balloted, Fatal<TypeConfig>> {
        self.note(format!("vote {request}"))?;
        Ok(Balloted::new(request.vote, request.last_log_id, true))
    }

    async fn pre_vote(&self, request: Ballot) -> Result<Balloted, Fatal<TypeConfig>> {
        self.note(format!("pre-vote {request}"))?;
        Ok(Balloted::new(request.vote, None, false))
    }

    async fn transfer(&self, request: Transfer) -> Result<Transferred, Fatal<TypeConfig>> {
        self.note(format!("transfer {request}"))?;
        Ok(Err(TransferLeaderError::VoteChanged { expected: *request.from_leader(), actual: *request.from_leader() }))
    }

    fn receiver(&self) -> &FakeReceiver {
        &self.receiver
    }

    async fn install(&self, vote: Vote, meta: SnapshotMeta, data: Vec<u8>) -> Result<Installed, Fatal<TypeConfig>> {
        self.note(format!("install {vote}"))?;
        self.installed.lock().unwrap().push((meta, data));
        Ok(Installed { vote })
    }
}

/// Receives into memory. A snapshot is whole if it ends with `END`.
#[derive(Clone)]
pub(crate) struct FakeReceiver {
    /// Snapshots that are being received.
    pub(crate) open: watch::Sender<usize>,
    /// Bytes received by all.
    pub(crate) bytes: watch::Sender<usize>,
    /// If set, a push takes place only once something comes out.
    pub(crate) hold: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Default for FakeReceiver {
    fn default() -> Self {
        Self { open: watch::Sender::new(0), bytes: watch::Sender::new(0), hold: Arc::default() }
    }
}

pub(crate) struct FakeSink(FakeReceiver, Vec<u8>);

impl SnapshotReceiver for FakeReceiver {
    type Data = Vec<u8>;
    type Sink = FakeSink;

    fn receive(&self) -> Result<FakeSink, Fault> {
        self.open.send_modify(|open| *open += 1);
        Ok(FakeSink(self.clone(), Vec::new()))
    }
}

impl SnapshotSink for FakeSink {
    type Data = Vec<u8>;

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if let Some(hold) = self.0.hold.lock().unwrap().as_ref() {
            let _ = hold.recv();
        }
        if bytes.starts_with(b"bad") {
            return Err(Fault::new("chunk 3 is damaged"));
        }
        self.1.extend_from_slice(bytes);
        self.0.bytes.send_modify(|sum| *sum += bytes.len());
        Ok(())
    }

    fn finish(mut self, _: &SnapshotHead) -> Result<Vec<u8>, Fault> {
        let bytes = std::mem::take(&mut self.1);
        if bytes.ends_with(b"END") { Ok(bytes) } else { Err(Fault::new("the trailer is missing")) }
    }
}

impl Drop for FakeSink {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// What a node knows, as the test says.
#[derive(Default)]
pub(crate) struct FakeStanding {
    pub(crate) filled: AtomicBool,
    pub(crate) members: Mutex<BTreeMap<NodeId, u128>>,
    /// The read index; 0: not the leader.
    pub(crate) index: AtomicU64,
    pub(crate) removed: Mutex<BTreeMap<NodeId, u128>>,
    /// What whoever wants to join is answered, in turn; without one: not now.
    pub(crate) joins: Mutex<Vec<Result<Joined, Error>>>,
    /// Who wanted to join.
    pub(crate) newcomers: Mutex<Vec<Newcomer>>,
}

impl Admission for FakeStanding {
    fn join(&self, newcomer: Newcomer) -> BoxFuture<'_, Result<Joined, Error>> {
        self.newcomers.lock().unwrap().push(newcomer);
        let answer = self.joins.lock().unwrap().pop();
        let later = || Err(Error::Unavailable { reason: "not now".into(), leader: None });
        Box::pin(async move { answer.unwrap_or_else(later) })
    }
}

impl Standing for FakeStanding {
    fn is_empty(&self) -> bool {
        !self.filled.load(Ordering::SeqCst)
    }

    fn members(&self) -> BTreeMap<NodeId, u128> {
        self.members.lock().unwrap().clone()
    }

    fn removed(&self) -> BTreeMap<NodeId, u128> {
        self.removed.lock().unwrap().clone()
    }
}

impl ReadIndexSource for FakeStanding {
    fn read_index(&self) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async {
            match self.index.load(Ordering::SeqCst) {
                0 => Err(Error::Unavailable { reason: "not the leader".into(), leader: None }),
                index => Ok(index),
            }
        })
    }
}

/// Nothing to fetch.
pub(crate) struct NoSnapshots;

impl super::SnapshotStock for NoSnapshots {
    fn newest(&self, _: u64) -> BoxFuture<'_, super::Stocked> {
        Box::pin(async { Err("there is no snapshot".into()) })
    }
}

/// A data directory that forgets.
pub(crate) struct NoDirectory(pub(crate) Identity);

impl Adopt for NoDirectory {
    fn adopt(&self, cluster: u128) -> Result<u128, Fault> {
        if self.0.cluster().is_none() {
            self.0.join(cluster);
        }
        Ok(self.0.cluster().unwrap())
    }
}

/// A listener whose port is known before anything is served on it.
pub(crate) async fn bind() -> (Box<dyn crate::environment::net::Listener>, String) {
    let listener = RealNet.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    (listener, address)
}

/// A peer listener that is served until this is dropped.
pub(crate) struct Served(JoinHandle<()>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn serve<L>(router: Router<L>, listener: Box<dyn crate::environment::net::Listener>) -> Served
where
    L: tower::Layer<tonic::service::Routes> + Send + 'static,
    L::Service: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>>
        + Clone
        + Send
        + 'static,
    <L::Service as tower::Service<http::Request<tonic::body::Body>>>::Future: Send,
    <L::Service as tower::Service<http::Request<tonic::body::Body>>>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    Served(tokio::spawn(async move {
        router.serve_with_incoming(incoming(listener)).await.unwrap();
    }))
}

/// A node: its service is served as long as this lives.
pub(crate) struct FakeNode {
    pub(crate) identity: Identity,
    pub(crate) address: String,
    pub(crate) raft: Fake,
    pub(crate) standing: Arc<FakeStanding>,
    pub(crate) _served: Served,
}

impl FakeNode {
    pub(crate) fn new(
        listener: Box<dyn crate::environment::net::Listener>,
        identity: Identity,
        directory: Arc<dyn Adopt>,
        standing: Arc<FakeStanding>,
    ) -> Self {
        let address = listener.local_address().unwrap().to_string();
        let raft = Fake::default();
        let parts = PeerParts {
            freshness: Arc::new(crate::raft::freshness::Freshness::new(Environment::real().clock)),
            space: Arc::new(crate::raft::space::Space::new(Environment::real().clock, "data".as_ref())),
            identity: identity.clone(),
            consensus: raft.clone(),
            standing: standing.clone(),
            directory,
            reads: standing.clone(),
            snapshots: Arc::new(NoSnapshots),
            admission: standing.clone(),
            addresses: (address.clone(), String::new()),
            closed: raft.closed.subscribe(),
        };
        let service = PeerService::new(&Environment::real(), parts).into_server();
        let gate = IdentityLayer::new(identity.clone(), standing.clone());
        let router = Server::builder().layer(gate).add_service(service);
        Self { identity, address, raft, standing, _served: serve(router, listener) }
    }

    /// Node 2 of cluster 0xC, with directory 0xD2.
    pub(crate) async fn second() -> Self {
        let identity = Identity::new(2, 0xD2, Some(0xC));
        let (listener, _) = bind().await;
        Self::new(listener, identity.clone(), Arc::new(NoDirectory(identity)), Arc::default())
    }

    pub(crate) fn member(&self) -> crate::raft::types::Member {
        crate::raft::types::Member {
            peer_address: self.address.clone(),
            client_address: String::new(),
            directory: self.identity.directory(),
        }
    }
}
