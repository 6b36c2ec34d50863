//! Starting and stopping a node, in the order that makes both safe.
//!
//! Start: the directory is locked and identified first; the log is recovered before storage, because storage
//! may hold nothing that the log has not made durable; Raft is recovered from both before a peer can reach
//! it; the cluster is formed (or joined) last. Stop runs the other way: leadership is handed over, what is in
//! flight is finished, Raft stops, storage and log are closed with their clean marks.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinHandle;

use super::{
    Node, Shared,
    clock::LogClock,
    fault::Faults,
    identity::{self, Directory, Formed},
    jobs,
    propose::Proposer,
    read::{AskLeader, Freshness, ReadIndex},
};
use crate::{
    config::{self, Config},
    environment::{Environment, executor::Running as RunningWorker},
    error::Fault,
    model::Position,
    raft::{
        consensus::{Consensus, Leadership, Timing},
        log::{self, Log},
        log_store::LogStore,
        network::PeerNetwork,
        peer::{PeerListener, PeerService},
        state_machine::{Machine, Observer},
        types::{Member, NodeId},
    },
    state::audit::Accounts,
    storage::{self, EngineKind, Store},
};

/// How long a leader that stops waits for another to take over.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long a node that stops waits for what is in flight.
const FINISH: Duration = Duration::from_secs(5);

/// A started node, with what must be told when it stops.
pub struct Running {
    /// The node.
    pub node: Node,
    store: Store,
    workers: Vec<RunningWorker>,
    packer: JoinHandle<()>,
    peers: PeerListener,
}
