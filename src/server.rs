//! Wiring: runtimes, listeners, signals, shutdown.
//!
//! Raft and the peers have a runtime of their own, so that a flood of clients delays no heartbeat. Everything
//! else runs on the caller's.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tonic::transport::Server;
use tower::{ServiceBuilder, util::BoxCloneSyncService};

use crate::{
    config::Config,
    environment::{Environment, net},
    error::Fault,
    layers::{documents, kv, mesh, topology},
    limits,
    node::{self, Faults, Node, Running},
    proto::status::status_from_error,
    raft::{consensus::Leadership, state_machine::Observer},
    rpc::{
        self,
        calls::{Calls, Count},
        forward::{self, Forward, ForwardLayer, LeaderView},
        gate::{Authenticate, Authorise},
        pressure::{Bound, Pressure},
        trace::Trace,
        transaction::Belongs,
    },
    security::{Callers, Policy, Security},
    service::transactions::Transactions,
    state::View,
};

/// A silent connection is probed this often, and closed if it does not answer in time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// See [`KEEP_ALIVE`].
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);
/// How long open calls may go on after the node was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop (SIGTERM, SIGINT) or is broken. Whoever sees a fault that
/// [`asks_for_rebuild`](Fault::asks_for_rebuild) is to run it again, in a process that holds nothing of this one.
pub fn run(config: Config) -> Result<(), Fault> {
    net::raise_file_limit();
    let runtime = |name: &str, threads: usize| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|error| Fault::new(format!("cannot start the {name} threads: {error}")))
    };
    let raft = runtime("raft", 2)?;
    let clients = runtime("clients", std::thread::available_parallelism().map_or(2, usize::from))?;
    let ended = clients.block_on(serve(Environment::real(), config, None, raft.handle().clone(), told_to_stop()));
    clients.shutdown_timeout(Duration::from_secs(1));
    raft.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
        }
        // Without handlers the signals end the process the hard way, which is safe, too.
        _ => std::future::pending().await,
    }
}

/// Runs a node on the current runtime, with Raft and peers on `raft`, until `stop` resolves or it is broken.
pub async fn serve(
    environment: Environment,
    config: Config,
    observer: Option<Arc<dyn Observer>>,
    raft: Handle,
    stop: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let faults = Faults::default();
    let doors = Doors::open(&environment, &config)?;
    // Ends with this function.
    let mut watching = JoinSet::new();
    if let Some(security) = doors.security.clone() {
        watching.spawn(security.watch());
    }
    let http = rpc::http::Http::start(&doors.watchers, &config.node.http.to_string()).await?;
    tokio::pin!(stop);
    let policy = doors.policy();
    let transactions = Transactions::default();
    let passed_on = transactions.clone();
    let calls = move |node: &Node| rpc::forwarded_routes(Arc::new(node.clone()), passed_on.clone(), policy);
    let parts =
        node::Parts { environment: doors.peers.clone(), observer, faults: faults.clone(), calls: Box::new(calls) };
    let starting = raft.spawn(node::start(parts, config.clone()));
    let running = tokio::select! {
        started = starting => started.map_err(|error| Fault::new(format!("starting panicked: {error}")))??,
        () = &mut stop => return Ok(()),
    };
    keep_house(&running.node);
    watching.spawn(transactions.clone().keep(running.node.clone()));
    let (drain, drained) = watch::channel(false);
    let calls = Arc::new(Calls::new(config.log.slow_call, Pressure::new(config.cluster.limits.calls_per_principal)));
    let clients = serve_clients(&doors, &config, (&running.node, &calls, transactions), drained).await?;
    http.serves(&running.node, calls);
    let broken = tokio::select! {
        fault = faults.wait() => Some(fault),
        () = &mut stop => None,
    };
    http.stops();
    if let Some(fault) = broken.filter(|fault| !fault.asks_for_rebuild()) {
        // A broken node answers nobody, writes nothing more, and hands nothing over: others elect without it.
        return Err(fault);
    }
    shut_down(running, raft, drain, clients).await
}

/// Has a node do, whenever it leads, what layers want done though nobody calls.
pub fn keep_house(node: &Node) {
    let overdue = |view: &View| {
        let back = topology::confirm::overdue(view)?;
        Ok(back.map(|write| (write.guards, write.transaction)))
    };
    node.keep_doing("rollback of unconfirmed changes", Arc::new(overdue));
    node.keep_sweeping("reclaim of large messages", mesh::large::Reclaim::default());
    node.keep_sweeping("retention of messages", mesh::retention::Trim::default());
    node.keep_sweeping("building of indexes", kv::index::build::Build::default());
    node.keep_sweeping("building of indexes of documents", documents::index::Build::default());
}

async fn shut_down(
    running: Running,
    raft: Handle,
    drain: watch::Sender<bool>,
    clients: tokio::task::JoinHandle<()>,
) -> Result<(), Fault> {
    // First the lead: calls that arrive meanwhile are passed on to the next leader.
    running.hand_over().await;
    // Who watches does so elsewhere: these calls have no end of their own.
    running.node.watches().close();
    drain.send_replace(true);
    if tokio::time::timeout(DRAIN, clients).await.is_err() {
        tracing::warn!("some calls were still open when the node stopped");
    }
    raft.spawn(running.stop()).await.map_err(|error| Fault::new(format!("stopping panicked: {error}")))?
}

/// The world as each listener sees it: with TLS around its network, or as it is.
struct Doors {
    security: Option<Arc<Security>>,
    clients: Environment,
    peers: Environment,
    watchers: Environment,
}

impl Doors {
    fn open(environment: &Environment, config: &Config) -> Result<Self, Fault> {
        let plain = || environment.clone();
        let Some(files) = &config.tls else {
            return Ok(Self { security: None, clients: plain(), peers: plain(), watchers: plain() });
        };
        let security = Security::open(files, config.node.id, &environment.clock)?;
        let over = |callers| Environment { net: security.net(&environment.net, callers), ..plain() };
        Ok(Self {
            clients: over(Callers::Clients),
            peers: over(Callers::Peers),
            watchers: if files.http { over(Callers::Watchers) } else { plain() },
            security: Some(security),
        })
    }

    fn policy(&self) -> Policy {
        if self.security.is_some() { Policy::Known } else { Policy::Open }
    }
}

async fn serve_clients(
    doors: &Doors,
    config: &Config,
    (node, calls, transactions): (&Node, &Arc<Calls>, Transactions),
    mut drain: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<()>, Fault> {
    let address = config.node.client.to_string();
    let listener = doors.clients.net.listen(&address).await;
    let listener = listener.map_err(|error| Fault::new(format!("cannot listen for clients on {address}: {error}")))?;
    let (health, keep_health) = rpc::health::service(node.clone());
    let services = rpc::Services::new(Arc::new(node.clone()), transactions.clone());
    let routes = services.routes();
    let count = Count::new(Arc::clone(calls), Arc::clone(&doors.clients.clock));
    // What every call goes through, whether it came alone or in a stream of calls.
    let rules = ServiceBuilder::new()
        .layer(Authorise::new(doors.policy()))
        .layer(Bound(Arc::clone(calls.pressure())))
        .layer(Trace)
        .layer(Belongs::to(transactions))
        .layer(forwarding(node))
        .into_inner();
    let handlers = ServiceBuilder::new().layer(count.clone()).layer(rules.clone());
    let handlers = handlers.service(services.direct(routes.clone()));
    let routes = routes.add_service(rpc::multiplexed(BoxCloneSyncService::new(handlers), drain.clone()));
    let routes = routes.add_service(health).add_service(rpc::reflection::service()?);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        // Handlers keep the deadlines of their calls; this is for a request whose message never comes to its end.
        .timeout(Duration::from_millis(limits::DEADLINE_MAX_MS))
        .max_concurrent_streams(Some(limits::STREAMS_PER_CONNECTION))
        .layer(count)
        .layer(Authenticate::new(doors.security.clone()))
        .layer(rules)
        .add_routes(routes)
        .serve_with_incoming_shutdown(net::incoming(listener), async move {
            // A dropped sender means that the node is gone.
            let _ = drain.wait_for(|drain| *drain).await;
        });
    tracing::info!(%address, tls = doors.security.is_some(), "serving clients");
    let faults = node.faults().clone();
    Ok(tokio::spawn(async move {
        let served = tokio::select! {
            served = server => served,
            () = keep_health => Ok(()),
        };
        if let Err(error) = served {
            faults.report(Fault::new(format!("the client listener failed: {error}")));
        }
    }))
}

fn forwarding(node: &Node) -> ForwardLayer {
    ForwardLayer::new(Forward {
        leadership: Arc::new(Led(node.clone())),
        peers: Arc::clone(node.network()),
        status: status_from_error,
        principal: rpc::principal_of,
    })
}

/// Who leads, as the forwarding layer asks.
struct Led(Node);

impl forward::Leadership for Led {
    fn leader(&self) -> LeaderView {
        match self.0.leadership() {
            Leadership::Me { .. } => LeaderView::Me,
            Leadership::Other { id, member } => LeaderView::Other { id, member },
            Leadership::Unknown => LeaderView::Unknown,
        }
    }
}
