//! Health and metrics over HTTP, for what watches a node: `/livez`, `/readyz`, `/metrics`.
//!
//! `/livez` says that the process serves; `/readyz` that calls will be answered, and if not, why; `/metrics` is
//! Prometheus' text format.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::sync::{Semaphore, watch};

use crate::{
    environment::{
        Environment,
        net::{Io, Listener},
    },
    error::Fault,
    node::Node,
    rpc::{calls::Calls, metrics},
};

/// Looks at the metrics at once.
const LOOKS: usize = 4;

/// How far the node is.
#[derive(Clone)]
enum Phase {
    Starting,
    /// With the places for looks at the metrics.
    Serving(Node, Arc<Calls>, Arc<Semaphore>),
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
            .route("/metrics", get(show))
            .with_state(watch);
        // It never ends of itself; without it the node still does its work.
        tokio::spawn(async move { axum::serve(Accept(listener), router).await });
        Ok(Self { phase })
    }

    /// The node serves calls.
    pub fn serves(&self, node: &Node, calls: Arc<Calls>) {
        self.phase.send_replace(Phase::Serving(node.clone(), calls, Arc::new(Semaphore::new(LOOKS))));
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
        Phase::Serving(node, ..) => {
            let vitals = node.vitals();
            match vitals.check(node.silence()) {
                Ok(()) => {
                    let warnings = vitals.warnings().map(|warning| format!("but {warning}\n")).collect::<String>();
                    return (StatusCode::OK, format!("ready\n{warnings}"));
                }
                Err(reason) => reason,
            }
        }
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
}

async fn show(State(phase): State<watch::Receiver<Phase>>) -> (StatusCode, String) {
    let phase = phase.borrow().clone();
    let unavailable = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("# {reason}\n"));
    let Phase::Serving(node, calls, looks) = phase else { return unavailable("the node does not serve") };
    // A look waits for the entry that is being applied. Should that never end, the threads that answer `/livez` and
    // `/readyz` must not wait, too; nor may those that do grow in number.
    let Ok(look) = looks.try_acquire_owned() else { return unavailable("the looks before have not ended") };
    let of = node.clone();
    let text = move || {
        let _until_it_ends = look;
        metrics::text(&of, &calls)
    };
    match node.run_blocking("metrics", text).await {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => unavailable(&error.to_string()),
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
