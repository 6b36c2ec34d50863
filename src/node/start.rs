//! Starting and stopping a node, in the order that makes both safe.
//!
//! Start: the directory is locked and identified first; the log is recovered before storage, because storage
//! may hold nothing that the log has not made durable; Raft is recovered from both before a peer can reach
//! it; the cluster is formed (or joined) last. Stop runs the other way: leadership is handed over, what is in
//! flight is finished, Raft stops, storage and log are closed with their clean marks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport::Server;

use super::{
    Node, Shared,
    clock::LogClock,
    fault::Faults,
    identity::{self, Directory, Formed},
    jobs,
    propose::Proposer,
    read::{AskLeader, ReadIndex},
};
use crate::{
    config::{self, Config},
    environment::{Environment, executor::Running as RunningWorker, net},
    error::{Error, Fault, Result as Answer},
    raft::{
        consensus::{Consensus, Leadership, Timing},
        freshness::Freshness,
        log::{self, Log},
        log_store::LogStore,
        network::{PeerNetwork, Peers},
        peer::{Group, IdentityLayer, PeerParts, PeerService, ReadIndexSource, Standing},
        state_machine::{Machine, Observer},
        types::{Member, NodeId},
    },
    rpc_mount::ForwardedCalls,
    state::audit::Accounts,
    storage::{self, EngineKind, Store},
};

/// How long a leader that stops waits for another to take over.
const HAND_OVER: Duration = Duration::from_secs(3);
/// How long a node that stops waits for what is in flight.
const FINISH: Duration = Duration::from_secs(5);
