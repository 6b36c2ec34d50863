//! The Rust client.
//!
//! A [`Client`] is a handle on a whole cluster, cheap to clone. It is told some endpoints, learns the
//! others, finds the leader and follows it, and retries what can be retried until the call's deadline.
//!
//! * **Writes happen once.** They are made in a session (`session.rs`), so that an attempt whose answer got
//!   lost is repeated without being executed again. A call that ends with an unknown outcome says so:
//!   [`Error::may_have_applied`](crate::Error::may_have_applied).
//! * **Reads say how fresh they must be**: [`ReadMode`].
//! * **Every call has a deadline**, which travels with it.
//!
//! ```no_run
//! use meshstore::{Client, client::Message};
//!
//! # async fn example() -> meshstore::Result<()> {
//! let client = Client::connect(["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"]).await?;
//!
//! let hello = Message {
//!     id: "m-1".into(), from: "node-1".into(), to: "node-2".into(), content: "hello".into(), timestamp: 1,
//!     ..Message::default()
//! };
//! let written = client.messages().store(hello).await?;
//! println!("stored at revision {} by leader {}", written.revision, written.leader_id);
//! let message = client.messages().get("m-1").await?.value;
//! assert_eq!(message.content, "hello");
//!
//! client.routes().save("10.0.0.0/8", &serde_json::json!({ "via": "node-2", "metric": 5 })).await?;
//! let route: serde_json::Value = client.routes().get("10.0.0.0/8").await?.value.parse()?;
//! assert_eq!(route["via"], "node-2");
//! # Ok(())
//! # }
//! ```
//!
//! Layout: `call.rs` makes one call, `endpoints.rs` knows where, `session.rs` numbers the writes, `rpc.rs`
//! lists the methods, and each surface has a file of its own.

mod access;
pub(crate) mod backoff;
mod broker;
mod builder;
mod call;
mod cluster;
mod config;
pub mod connection;
pub mod consensus_log;
mod data_client;
mod endpoints;
mod find;
pub(crate) mod finite;
mod held;
mod json;
mod kv;
mod large;
mod lease;
mod line;
mod lock;
mod messages;
mod node_state;
mod pages;
mod query;
mod retention;
mod routes;
mod rpc;
mod session;
mod state;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
mod tls;
pub mod topology;
pub mod transaction;
mod watch;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use endpoints::{Endpoint, Endpoints};
use session::Session;
use tokio::time::Instant;

pub use self::{
    broker::{Broker, Documents},
    builder::Builder,
    cluster::{Backup, Cluster},
    config::Config,
    consensus_log::{GroupLog, RaftLog},
    data_client::{DataClient, DataClientError, DataQuery},
    find::Find,
    held::HeldTransaction,
    json::Json,
    kv::{Kv, Namespaces},
    large::{LargeMessage, Progress},
    lease::{KeptLease, Leases},
    lock::{Election, Lock, LockGuard, Observer},
    messages::Messages,
    node_state::NodeStates,
    query::{KvQuery, QueryPages},
    retention::Retentions,
    routes::Routes,
    state::State,
    tls::Tls,
    topology::Topology,
    transaction::OpenTransaction,
    watch::{Event, Watch, Watching},
};
use crate::{Result, limits, proto::v1};
pub use crate::{
    model::{
        ReadMode,
        consensus_log::{EntryId, LogEntry},
        document::{
            AccessRequest, AppliedManifest, Collection, CollectionIndex, CollectionSettings, Declaration,
            DeclaredCollection, Document, DocumentQuery, FindAndUpdate, FoundDocuments, Grant, IndexSpec, IndexState,
            Inserted, Modification, Modified, Permission, RequestState, RequestedAccess,
        },
        filter::{Comparison, Filter, Operator},
        isolation::{Begun, Isolation},
        kv::{
            DeleteResult, Deletion, Entry, KeyFilter, Metadata, Namespace, NamespaceChange, NamespaceSettings, Saved,
            Set, SetResult, StorageStatus, Value, Version,
        },
        lease::{AttachedKey, Fence, Holder, Kept, Lease},
        mesh::{
            Change, Condition, Extent, LargeContent, Listed, Message, MessageFilter, Page, PageRequest, RecordId,
            Retention, Stored, Transaction,
        },
        query::{Access, Explanation, Found, Index, SortField},
        watch::{Change as Watched, Changed, Keys, NamespaceEvent, Target},
    },
    proto::v1::{
        DiskSpace, KeyspaceStatus, ListMembersResponse as Members, Member, MemberStatus, RemovedMember,
        StatusResponse as Status,
    },
};

/// How long what was learned of the nodes is good for, in milliseconds.
const LEARN_EVERY_MS: u64 = 5_000;

/// A handle on a cluster. Clones share connections and the session; the last one to go ends the session's
/// keep-alive.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    mode: ReadMode,
    deadline: Duration,
    pin: Option<Arc<Endpoint>>,
    /// The lease with which goes what is written; 0: it stays.
    lease: u64,
    /// What all writes depend on.
    fence: Option<Fence>,
    /// The id of the transaction to which all calls belong.
    transaction: Option<tonic::metadata::AsciiMetadataValue>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The revision of the store with the write in.
    pub revision: u64,
    /// The node that led when it was applied.
    pub leader_id: u64,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a transaction whose preconditions did not hold has changed nothing"]
pub struct Transacted {
    /// The revision of the store with the changes in; if nothing was changed, the one at which that was decided.
    pub revision: u64,
    /// The node that led when it was applied.
    pub leader_id: u64,
    /// Whether all preconditions held. If not, nothing was changed.
    pub succeeded: bool,
}

/// What all clones of a client share.
struct Shared {
    endpoints: Endpoints,
    /// What says in each call who the client is.
    authorization: Option<tonic::metadata::AsciiMetadataValue>,
    session: Session,
    jitter: backoff::Jitter,
    /// What names calls. Apart from the jitter, which it must not change.
    names: backoff::Jitter,
    exactly_once: bool,
    deadline: Duration,
    mode: ReadMode,
    last_seen: AtomicU64,
    begun: Instant,
    /// When the nodes were last asked who and where they are, in milliseconds since `begun`.
    learned_ms: AtomicU64,
    learning: tokio::sync::Mutex<()>,
    /// Places for calls that wait at the store.
    waits: tokio::sync::Semaphore,
}

impl Client {
    /// A client of the cluster that these endpoints (`host:port`) belong to, once one of them has answered.
    ///
    /// Errors: `InvalidArgument` if an endpoint is malformed; `Unavailable` if none answers within 10 seconds.
    pub async fn connect(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        Self::builder().endpoints(endpoints).connect().await
    }

    /// A client with the settings of a [connection string](Builder::parse), once a node has answered.
    ///
    /// Errors: `InvalidArgument` if it is wrong; `Unavailable` if no endpoint answers within its deadline.
    pub async fn connect_to(connection: &str) -> Result<Self> {
        Builder::parse(connection)?.connect().await
    }

    /// A client with other settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn of(shared: Arc<Shared>) -> Self {
        let (mode, deadline) = (shared.mode, shared.deadline);
        Self { shared, mode, deadline, pin: None, lease: 0, fence: None, transaction: None }
    }

    /// Makes changes of any kind together: all at one revision if all preconditions hold, else none. Together with
    /// reads of [`Stored::mod_revision`] this is compare-and-set of as many records as one likes. For a transaction that
    /// keeps track of what it has read see [`begin`](Self::begin) and [`transact`](Self::transact).
    ///
    /// ```no_run
    /// use meshstore::client::{Client, Condition, RecordId, Transaction};
    ///
    /// # async fn example(client: Client) -> meshstore::Result<()> {
    /// let read = client.state().get("leader").await?;
    /// let take_over = Transaction::default()
    ///     .require(RecordId::State("leader".into()), Condition::ModRevision(read.mod_revision))
    ///     .put_state("leader", "node-2")
    ///     .put_state("leader/before", read.value);
    /// if !client.commit(take_over).await?.succeeded {
    ///     println!("somebody else was faster");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: `InvalidArgument` if there are no changes or too many, or two of one record.
    pub async fn commit(&self, transaction: Transaction) -> Result<Transacted> {
        let v1::TransactResponse { revision, leader_id, succeeded } =
            self.execute(v1::TransactRequest::from(transaction)).await?;
        Ok(Transacted { revision, leader_id, succeeded })
    }

    /// This client with another read mode.
    #[must_use]
    pub fn with_read(mut self, mode: ReadMode) -> Self {
        self.mode = mode;
        self
    }

    /// This client with another deadline for each call, at most 5 minutes.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.clamp(Duration::from_millis(1), Duration::from_millis(limits::DEADLINE_MAX_MS));
        self
    }

    /// This client with all calls going to one endpoint, and no other when that fails.
    ///
    /// Errors: `InvalidArgument` if it is no `host:port`.
    pub fn pin(mut self, endpoint: &str) -> Result<Self> {
        self.pin = Some(self.shared.endpoints.at(endpoint)?);
        Ok(self)
    }

    /// This client with everything attached to a lease that it writes into shared state, node states, the routing table,
    /// configuration and the storage contract: it goes with the lease. Values are at most 56 KiB then, and at most 400 keys are
    /// attached to a lease. For transactions see [`Change::attached_to`].
    ///
    /// A write with another client leaves what it overwrites without a lease.
    #[must_use]
    pub fn with_lease(&self, lease: u64) -> Self {
        Self { lease, ..self.clone() }
    }

    /// This client with all writes fenced: they are refused with `Fenced` unless the lock is held with this token when they are
    /// applied.
    #[must_use]
    pub fn with_fence(&self, fence: Fence) -> Self {
        Self { fence: Some(fence), ..self.clone() }
    }

    /// This client with writes that depend on no lock.
    fn without_fence(&self) -> Self {
        Self { fence: None, ..self.clone() }
    }

    /// The highest revision that any answer to this client or its clones has shown. With
    /// `ReadMode::AtLeast` of it a read on any node sees what they wrote and read before.
    pub fn last_seen_revision(&self) -> u64 {
        self.shared.last_seen.load(Ordering::Acquire)
    }

    /// Messages between mesh nodes.
    pub fn messages(&self) -> Messages {
        Messages::of(self.clone())
    }

    /// How long messages are kept, and how many.
    pub fn retention(&self) -> Retentions {
        Retentions::of(self.clone())
    }

    /// Shared state: bytes by key.
    pub fn state(&self) -> State {
        State::of(self.clone())
    }

    /// Changes, as they come: a watch that is to be set up.
    pub fn watch(&self, target: Target) -> Watching {
        Watching::of(self.clone(), target)
    }

    /// Values by key in a namespace: the storage contract. An empty name stands for `default`.
    pub fn kv(&self, namespace: impl Into<String>) -> Kv {
        Kv::of(self.clone(), namespace.into())
    }

    /// The data broker, for a service. An empty name stands for the caller itself: the service that it is known as, or else
    /// whoever runs the cluster.
    pub fn broker(&self, service: impl Into<String>) -> Broker {
        Broker::of(self.clone(), service.into())
    }

    /// The namespaces of the storage contract.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces::of(self.clone())
    }

    /// Leases: what is attached to one goes with it.
    pub fn leases(&self) -> Leases {
        Leases::of(self.clone())
    }

    /// A lock with fencing tokens. Locks and elections share their names.
    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock::of(self.clone(), name.into())
    }

    /// An election of a leader.
    pub fn election(&self, name: impl Into<String>) -> Election {
        Election::of(self.clone(), name.into())
    }

    /// The runtime state of mesh nodes: JSON by node id.
    pub fn node_state(&self) -> NodeStates {
        NodeStates::of(self.clone())
    }

    /// The routing table: JSON by destination.
    pub fn routes(&self) -> Routes {
        Routes::of(self.clone())
    }

    /// Runtime configuration: JSON by key.
    pub fn config(&self) -> Config {
        Config::of(self.clone())
    }

    /// The definition of meshes: nodes, routes and regions, with their history.
    pub fn topology(&self) -> Topology {
        Topology::of(self.clone())
    }

    /// The Raft log of the cluster.
    pub fn raft_log(&self) -> RaftLog {
        RaftLog::of(self.clone())
    }

    /// The log of a consensus group that a mesh engine keeps here.
    pub fn group_log(&self, group: &str) -> GroupLog {
        GroupLog::of(self.clone(), group.to_owned())
    }

    /// The cluster itself.
    pub fn cluster(&self) -> Cluster {
        Cluster::of(self.clone())
    }

    /// Ends the session now, instead of letting it expire. The client can still be used: its next write
    /// opens another.
    ///
    /// Errors: as of any call; the session then ends by itself.
    pub async fn close_session(&self) -> Result<()> {
        match self.shared.session.take() {
            None => Ok(()),
            Some(session) => {
                let request = crate::proto::v1::CloseSessionRequest { session };
                self.outside().ask(endpoints::Preference::Leader, request).await.map(drop)
            }
        }
    }
}

impl Shared {
    /// Takes note of an answer. The nodes may change, all that this client knows included, while everything goes well: so they
    /// are asked now and then also when nothing is missing.
    fn seen(self: &Arc<Self>, revision: u64) {
        self.last_seen.fetch_max(revision, Ordering::AcqRel);
        let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let learned_ms = self.learned_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(learned_ms) >= LEARN_EVERY_MS
            && self.learned_ms.compare_exchange(learned_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.learn_later();
        }
    }

    /// Asks the nodes in the background who and where they are; once at a time.
    fn learn_later(self: &Arc<Self>) {
        let shared = self.clone();
        tokio::spawn(async move {
            if let Ok(_learning) = shared.learning.try_lock() {
                // Whoever does not answer now is asked the next time that a node is missing.
                let _ = builder::probe(&Client::of(shared.clone())).await;
            }
        });
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.shared.endpoints.all().iter().map(|known| known.address.clone()).collect();
        f.debug_struct("Client").field("endpoints", &endpoints).field("read", &self.mode).finish_non_exhaustive()
    }
}
