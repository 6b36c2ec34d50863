//! Health and metrics over HTTP, for what watches a node: `/livez`, `/readyz`, `/metrics`.
//!
//! `/livez` says that the process serves; `/readyz` that calls will be answered, and if not, why; `/metrics` is
//! Prometheus' text format.

use std::{fmt::Write as _, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::sync::watch;

use crate::{
    environment::{
        Environment,
        net::{Io, Listener},
    },
    error::Fault,
    node::Node,
    rpc::{calls::Calls, readiness},
};

/// How far the node is.
#[derive(Clone)]
enum Phase {
    Starting,
    /// With the longest silence of the leader, or of a quorum, that it is still ready with.
    Serving(Node, Duration, Arc<Calls>),
    Stopping,
}

/// The HTTP listener of a node. Ends with its runtime.
pub struct Http {
    phase: watch::Sender<Phase>,
}

impl Http {
    /// Listens on `address`, and says until told otherwise that the node is starting.
    ///
    /// Errors: the address cannot be listened on.
    pub async fn start(environment: &Environment, address: &str) -> Result<Self, Fault> {
        let listener = environment.net.listen(address).await;
        let listener = listener.map_err(|error| Fault::new(format!("cannot listen for HTTP on {address}: {error}")))?;
        let (phase, watch) = watch::channel(Phase::Starting);
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(watch);
        // It never ends of itself; without it the node still does its work.
        tokio::spawn(async move { axum::serve(Accept(listener), router).await });
        Ok(Self { phase })
    }

    /// The node serves calls. It is ready as long as it leads with a quorum, or has applied what a leader told it that
    /// long ago.
    pub fn serves(&self, node: &Node, silence: Duration, calls: Arc<Calls>) {
        self.phase.send_replace(Phase::Serving(node.clone(), silence, calls));
    }

    /// The node is stopping.
    pub fn stops(&self) {
        self.phase.send_replace(Phase::Stopping);
    }
}

async fn ready(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, String) {
    let phase = phase.borrow().clone();
    let reason = match phase {
        Phase::Starting => "starting: the log is being recovered, or the other nodes are waited for".to_owned(),
        Phase::Stopping => "stopping".to_owned(),
        Phase::Serving(node, silence, _) => match readiness::check(&node, silence) {
            Ok(()) => return (StatusCode::OK, "ready\n".into()),
            Err(reason) => reason,
        },
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
}

async fn metrics(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, String) {
    let phase = phase.borrow().clone();
    match phase {
        Phase::Serving(node, _, calls) => (StatusCode::OK, Text::default().of(&node) + &calls.text()),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "# the node does not serve\n".into()),
    }
}

/// Prometheus' text format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        // Writing into a string cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP meshstore_{name} {help}\n# TYPE meshstore_{name} {kind}\nmeshstore_{name} {value}"
        );
    }

    fn of(mut self, node: &Node) -> String {
        let (status, storage, log) = (node.status(false), node.storage_status(), node.log_statistics());
        let disk = status.disk.unwrap_or_default();
        let gauges = [
            ("disk_free_bytes", "Free bytes on the file system of the data.", disk.free),
            ("disk_needed_bytes", "Bytes that should be free.", disk.needed),
            ("disk_alarm", "1 while this node is short of disk space, 2 while its disk is full.", disk.level as u64),
            (
                "writes_refused",
                "Whether this leader refuses what grows the data.",
                u64::from(status.writes_refused.is_some()),
            ),
            (
                "state_diverged",
                "Whether replicas differ: this node from the majority, or, on the leader, too many from each other.",
                u64::from(status.divergence.is_some()),
            ),
            ("is_leader", "Whether this node leads.", u64::from(status.role == "leader")),
            ("leader_id", "The leader, 0 if none is known.", status.leader_id.unwrap_or(0)),
            ("term", "Raft term.", status.term),
            ("log_last_index", "Last index in the log.", status.last_log_index),
            ("log_committed_index", "Last index known to be committed.", status.committed_index),
            ("log_applied_index", "Last index applied.", status.applied_index),
            ("log_purged_index", "Last index purged.", status.purged_index),
            ("flushed_index", "Log index up to which the newest run on disk reaches.", status.flushed_index),
            ("revision", "Revision of the state.", status.revision),
            ("sessions", "Open sessions.", status.sessions),
            ("data_age_milliseconds", "How old the data here may be.", node.age_ms()),
            ("memtable_bytes", "Bytes of the memtable that is written.", storage.memtable_bytes as u64),
            ("frozen_bytes", "Bytes of memtables that wait to be merged.", storage.frozen_bytes as u64),
            ("runs", "Runs on disk.", storage.runs as u64),
            ("run_bytes", "Bytes of the runs.", storage.run_bytes),
            ("base_bytes", "Bytes of the base.", storage.base_bytes),
            ("open_views", "Open views.", storage.open_views as u64),
            ("undo_bytes", "Bytes kept for open views only.", storage.undo_bytes as u64),
            ("log_segments", "Segments of the log.", log.segments),
            ("log_tail_bytes", "Bytes of the log held in memory.", log.tail_bytes),
        ];
        for (name, help, value) in gauges {
            self.metric(name, "gauge", help, value);
        }
        let counters = [
            ("log_syncs_total", "Batches written to the log, one fdatasync each.", log.batches),
            ("log_entries_total", "Entries written to the log.", log.entries),
            ("log_bytes_total", "Bytes written to the log.", log.bytes),
        ];
        for (name, help, value) in counters {
            self.metric(name, "counter", help, value);
        }
        self.0
    }
}

/// Our listener, as axum wants it.
struct Accept(Box<dyn Listener>);

impl axum::serve::Listener for Accept {
    type Io = Io;
    type Addr = Option<SocketAddr>;

    async fn accept(&mut self) -> (Io, Option<SocketAddr>) {
        loop {
            match self.0.accept().await {
                Ok(io) => {
                    let remote = io.remote_address();
                    return (io, remote);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    // Out of file descriptors, most likely: a pause is all that helps.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.0.local_address().map(Some)
    }
}
