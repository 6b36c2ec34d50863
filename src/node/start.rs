//! Starting and stopping a node, in the order that makes both safe.
//!
//! Start: the directory is locked and identified first; a new one finds its cluster before it writes anything
//! that names one; the log is recovered before storage, because storage holds nothing that the log has not made
//! durable; Raft is recovered from both before a peer can reach it. Stop runs the other way: leadership is handed
//! over, what is in flight is finished, Raft stops, storage and log are closed with their clean marks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle};
use tonic::service::Routes;

use super::{
    LOG, Node, STORAGE, Shared,
    clock::LogClock,
    divergence,
    fault::Faults,
    identity::{self, Directory, Formed, Joining, form_cluster, join_cluster},
    jobs,
    measures::Measures,
    members,
    pages::PagedViews,
    peers::{self, AskOverPeers, PeerListener},
    propose::Proposer,
    read::ReadIndex,
    repair::{self, Repair},
    space,
    watch::Hub,
};
use crate::{
    config::{self, Config},
    environment::{Environment, Signal},
    error::Fault,
    raft::{
        checks::Checks,
        consensus::{Consensus, Leadership, Timing},
        freshness::Freshness,
        log::{self, Log},
        log_store::LogStore,
        network::{PeerNetwork, Peers},
        space::Space,
        state_machine::{Machine, Observer},
        types::NodeId,
    },
    state::audit::Accounts,
    storage::{self, EngineKind, NamedWorker, Store},
};

/// How long a node that stops waits for what is in flight.
const FINISH: Duration = Duration::from_secs(5);

/// What a node is started with, beside its configuration.
pub struct Parts {
    /// Files, time, chance, network.
    pub environment: Environment,
    /// Sees what transactions change.
    pub observer: Option<Arc<dyn Observer>>,
    /// Where faults are reported.
    pub faults: Faults,
    /// The client services of a node, for the calls that other nodes pass on to it.
    pub calls: Box<dyn FnOnce(&Node) -> Routes + Send>,
}

/// A started node, with what must be told when it stops.
pub struct Running {
    /// The node.
    pub node: Node,
    packer: JoinHandle<()>,
    listener: PeerListener,
}

/// Starts a node on the current runtime. May wait for the other nodes of a new cluster as long as it takes.
///
/// Errors: the directory cannot be used, is damaged, or is not this node's; an address is taken; the cluster does
/// not know this directory.
pub async fn start(parts: Parts, config: Config) -> Result<Running, Fault> {
    let Parts { environment, observer, faults, calls } = parts;
    let directory = Directory::open(&environment, &config.data_dir, config.node.id);
    let directory = Arc::new(directory.map_err(cannot_come_back)?);
    let log = open_log(&environment, &config, &faults)?;
    let freshness = Arc::new(Freshness::new(Arc::clone(&environment.clock)));
    let formed = form(&environment, &config, &directory, &log, &freshness, &faults).await?;

    let (store, workers) = open_or_repair(&environment, &config, &directory, &formed, &log).await?;
    for worker in workers {
        supervise(&environment, &faults, worker);
    }
    let (report, checks) = (faults.clone(), Checks::new(config.cluster.raft.check_entries));
    let report = Arc::new(move |fault| report.report(fault));
    let watches = Hub::new(config.cluster.limits.watch_bytes, observer);
    let observer: Arc<dyn Observer> = Arc::<Hub>::clone(&watches);
    let machine = Machine::open(environment.clone(), store, checks, Some(observer), report)?;
    machine.with_state(|_, meta| watches.skipped(meta));
    let room = Arc::new(Space::new(Arc::clone(&environment.clock), &config.data_dir));
    let network = Peers::new(Arc::clone(&environment.net), directory.identity(), Arc::clone(&freshness), room);
    let consensus = Consensus::build(
        config.node.id,
        (&config.cluster.name, timing(&config.cluster.raft)),
        random_seed(&environment),
        LogStore::new(log.clone()),
        machine.clone(),
        PeerNetwork::new(&environment, Arc::clone(&network)),
    )
    .await?;
    let (asked, progress) = (consensus.clone(), machine.progress());
    freshness.set_lead(move || asked.lead(|| progress.borrow().position));

    let (log_clock, places) = (Arc::new(LogClock::new(config.cluster.raft.election_max)), places(&config, &log));
    let (measures, clock) = (Measures::begin(&environment), Arc::clone(&environment.clock));
    let (proposer, packer) = Proposer::new(consensus.clone(), clock, (Arc::clone(&log_clock), Arc::clone(&measures)));
    let shared = Arc::new(Shared {
        node_id: config.node.id,
        directory,
        machine,
        consensus,
        log,
        proposer: Mutex::new(Some(proposer)),
        read_index: ReadIndex::default(),
        pages: PagedViews::default(),
        watches,
        network,
        log_clock,
        measures,
        faults,
        places,
        divergence: Default::default(),
        membership: Default::default(),
        refusing: Default::default(),
        longest_election: config.cluster.raft.election_max,
        stopping: false.into(),
        tasks: Mutex::default(),
        environment,
    });
    let node = Node { shared: Arc::clone(&shared) };
    node.check_known_features()?;
    watch_space(&shared);
    let listener = listen(&node, calls(&node), &config).await?;
    shared.consensus.run(random_seed(&shared.environment)).await;
    if let Formed::Initialise { members, .. } = formed {
        shared.consensus.initialise(members).await?;
    }
    let packer = tokio::spawn(packer.run());
    start_jobs(&node, &config);
    Ok(Running { node, packer, listener })
}

/// Opens the peer listener of a running node.
async fn listen(node: &Node, calls: Routes, config: &Config) -> Result<PeerListener, Fault> {
    let (stop, closed) = watch::channel(false);
    let served = peers::formed(node, calls, own_addresses(config), closed);
    let (environment, faults) = (&node.shared.environment, node.shared.faults.clone());
    PeerListener::start(environment, &config.node.peer.to_string(), served, stop, faults).await
}

fn open_log(environment: &Environment, config: &Config, faults: &Faults) -> Result<Log, Fault> {
    let options = log::Options { segment_bytes: config.cluster.raft.segment_bytes, ..log::Options::default() };
    let directory = config.data_dir.join(LOG);
    let (log, writer, signal) = Log::open(environment, &directory, options).map_err(cannot_come_back)?;
    supervise(environment, faults, ("log-writer", writer, signal));
    Ok(log)
}

fn places(config: &Config, log: &Log) -> space::Places {
    space::Places {
        storage: config.data_dir.join(STORAGE),
        log: config.data_dir.join(LOG),
        segment_bytes: log.segment_bytes(),
        reserve: config.cluster.storage.reserve_bytes,
    }
}

/// Measures the room on the disk, which is known thereby before anybody can ask for it, and goes on to.
fn watch_space(shared: &Arc<Shared>) {
    space::measure(shared);
    let gauge = Box::new(space::Gauge(Arc::downgrade(shared)));
    supervise(&shared.environment, &shared.faults, ("disk-space", gauge, Signal::default()));
}

fn random_seed(environment: &Environment) -> u64 {
    // The low half of 128 random bits.
    u64::try_from(environment.clock.random() & u128::from(u64::MAX)).unwrap_or_default()
}

fn timing(raft: &config::Raft) -> Timing {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Timing {
        heartbeat_ms: ms(raft.heartbeat),
        election_min_ms: ms(raft.election_min),
        election_max_ms: ms(raft.election_max),
        keep_entries: raft.keep_entries,
    }
}

/// Starts a worker whose fault, or unexpected end, stops the node.
pub(super) fn supervise(environment: &Environment, faults: &Faults, (name, worker, signal): NamedWorker) {
    let running = environment.executor.start(name, worker, signal);
    tokio::spawn(jobs::watch_worker(name, running, faults.clone()));
}

/// Finds the cluster that the directory belongs to; a new one is founded or joined, with the peer listener open so
/// that the others can ask.
async fn form(
    environment: &Environment,
    config: &Config,
    directory: &Arc<Directory>,
    log: &Log,
    freshness: &Arc<Freshness>,
    faults: &Faults,
) -> Result<Formed, Fault> {
    let empty = log.last().is_none() && log.purged().is_none() && log.vote().is_none();
    if empty && storage::holds_data(environment, &config.data_dir.join(STORAGE))? {
        return Err(identity::lost_log(directory));
    }
    let nodes = addresses(config);
    let (peer, client) = own_addresses(config);
    let (own, members) = (identity::Address { peer, client }, join_addresses(config));
    let joining = Joining { directory, net: &environment.net, members, own, learner: config.learner };
    if !empty {
        joining.check_place().await?;
        return form_cluster(directory, &environment.net, &nodes, empty).await;
    }
    let (stop, closed) = watch::channel(false);
    let served = peers::unformed(environment, directory, freshness, own_addresses(config), closed);
    let address = config.node.peer.to_string();
    let listener = PeerListener::start(environment, &address, served, stop, faults.clone()).await?;
    let formed = if config.join.is_empty() {
        form_cluster(directory, &environment.net, &nodes, empty).await
    } else {
        join_cluster(joining).await
    };
    listener.stop().await;
    directory.check()?;
    formed
}

/// Where this node is reached: by peers, by clients.
fn own_addresses(config: &Config) -> (String, String) {
    (config.node.peer.to_string(), config.node.client.to_string())
}

fn join_addresses(config: &Config) -> Vec<String> {
    config.join.iter().map(ToString::to_string).collect()
}

fn addresses(config: &Config) -> BTreeMap<NodeId, identity::Address> {
    let address = |node: &config::Node| {
        (node.id, identity::Address { peer: node.peer.to_string(), client: node.client.to_string() })
    };
    config.cluster.nodes.iter().map(address).collect()
}

/// What a node says that has forgotten what it promised.
fn cannot_come_back(fault: Fault) -> Fault {
    if !fault.is_damage() {
        return fault;
    }
    fault.with_advice(
        "this holds what the node voted and acknowledged, so it is not repaired: restore the file, or bring the node back \
         under a new id (`meshstore recover node --help`)",
    )
}

/// Opens the storage. If it is damaged, or ends before the log begins, it is had from a peer first.
async fn open_or_repair(
    environment: &Environment,
    config: &Config,
    directory: &Arc<Directory>,
    formed: &Formed,
    log: &Log,
) -> Result<(Store, Vec<NamedWorker>), Fault> {
    let storage = config.data_dir.join(STORAGE);
    let opened = match divergence::marked(environment.disk.as_ref(), &storage)? {
        Some(fault) => Err(fault),
        None => open_store(environment, config, formed, log),
    };
    let fault = match opened {
        Ok((store, workers)) if !repair::is_behind(log, store.checkpoint().as_ref()) => {
            level(log, &store)?;
            return Ok((store, workers));
        }
        Ok(_) => repair::lost(log, &storage),
        Err(fault) if fault.is_damage() => fault,
        Err(fault) => return Err(fault),
    };
    let (Formed::Initialise { cluster, .. } | Formed::Adopted { cluster }) = formed;
    let nodes = addresses(config);
    let repair = Repair { environment, directory, log, nodes: &nodes, storage, cluster: *cluster };
    repair.run(fault).await?;
    let (store, workers) = open_store(environment, config, formed, log)?;
    level(log, &store)?;
    Ok((store, workers))
}

/// Tells the log what storage has. Before Raft is recovered, which may have to purge what an installed snapshot has
/// replaced.
fn level(log: &Log, store: &Store) -> Result<(), Fault> {
    if let Some(checkpoint) = store.checkpoint() {
        repair::reconcile(log, &checkpoint)?;
        log.set_purge_floor(checkpoint.position);
    }
    Ok(())
}

fn open_store(
    environment: &Environment,
    config: &Config,
    formed: &Formed,
    log: &Log,
) -> Result<(Store, Vec<NamedWorker>), Fault> {
    let (Formed::Initialise { cluster, .. } | Formed::Adopted { cluster }) = formed;
    let settings = &config.cluster.storage;
    let options = storage::Options {
        engine: engine(settings.engine),
        cache_bytes: settings.cache_bytes,
        flush_bytes: usize::try_from(settings.flush_bytes).unwrap_or(usize::MAX),
        flush_after: settings.flush_after,
        floor_bytes: settings.reserve_bytes / 2,
        ..storage::Options::new(config.data_dir.join(STORAGE), *cluster)
    };
    Store::open(environment, options, Arc::new(Accounts), log.durable_index())
}

/// The engine that the configuration names.
pub(super) fn engine(engine: config::Engine) -> EngineKind {
    match engine {
        config::Engine::Sled => EngineKind::Sled,
        config::Engine::Memory => EngineKind::Memory,
    }
}

fn start_jobs(node: &Node, config: &Config) {
    let shared = &node.shared;
    let limit = config.cluster.raft.election_max * 2;
    let ask = Arc::new(AskOverPeers { peers: Arc::clone(&shared.network), limit });
    let round = shared.read_index.clone().run(shared.consensus.clone(), ask, limit, Arc::clone(&shared.measures));
    let mut tasks = shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
    tasks.push(tokio::spawn(round));
    tasks.push(tokio::spawn(Arc::clone(&shared.watches).run()));
    tasks.push(tokio::spawn(jobs::remember_start(Arc::clone(shared))));
    tasks.push(tokio::spawn(jobs::freeze(Arc::clone(shared))));
    tasks.push(tokio::spawn(jobs::advance_snapshot(Arc::clone(shared))));
    tasks.push(tokio::spawn(jobs::keep_clock(Arc::clone(shared))));
    tasks.push(tokio::spawn(jobs::expire(Arc::clone(shared))));
    tasks.push(tokio::spawn(jobs::recognise(Arc::clone(shared), addresses(config))));
    let storage = config.data_dir.join(STORAGE);
    tasks.push(tokio::spawn(divergence::compare(Arc::clone(shared))));
    tasks.push(tokio::spawn(divergence::leave(Arc::clone(shared), storage)));
    tasks.push(tokio::spawn(jobs::watch_lead(Arc::clone(shared))));
    tasks.push(tokio::spawn(jobs::watch_raft(Arc::clone(shared))));
    tasks.push(tokio::spawn(space::keep_room(Arc::clone(shared))));
    let nodes = addresses(config).into_iter().filter(|(id, _)| *id != shared.node_id).map(|(_, address)| address.peer);
    let places = nodes.chain(join_addresses(config)).collect();
    tasks.push(tokio::spawn(members::follow(node.clone())));
    tasks.push(tokio::spawn(members::keep(node.clone())));
    tasks.push(tokio::spawn(members::notice_removal(node.clone(), places)));
}

impl Running {
    /// If this node leads: has the member take over that is furthest, and waits until it has.
    pub async fn hand_over(&self) {
        let shared = &self.node.shared;
        let Ok(status) = shared.consensus.status() else { return };
        if !matches!(shared.consensus.leadership(), Leadership::Me { .. }) {
            return;
        }
        if let Some(to) = status.furthest_voter(|id| id != shared.node_id) {
            tracing::info!(to, "handing over the lead");
            shared.consensus.hand_over(to).await;
        }
    }

    /// Finishes what is in flight, then stops everything and closes the files with their clean marks.
    pub async fn stop(self) -> Result<(), Fault> {
        let shared = self.node.shared;
        shared.stopping.store(true, Ordering::Release);
        // The packer ends when the last proposer is gone, after what is in flight.
        drop(shared.proposer.lock().unwrap_or_else(PoisonError::into_inner).take());
        if tokio::time::timeout(FINISH, self.packer).await.is_err() {
            tracing::warn!("some writes were still in flight when the node stopped");
        }
        let tasks = std::mem::take(&mut *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in &tasks {
            task.abort();
        }
        // Raft ends only after a purge that it has begun, and that may wait for the floor.
        let floor = tokio::spawn(jobs::advance_snapshot(Arc::clone(&shared)));
        self.listener.stop().await;
        shared.pages.clear();
        shared.consensus.shutdown().await;
        floor.abort();
        shared.machine.rest();
        shared.machine.store().close().await;
        shared.log.close().await?;
        // Also if somebody still has a handle on this node, whose calls are refused.
        shared.directory.unlock();
        tracing::info!("stopped");
        shared.faults.first().map_or(Ok(()), Err)
    }
}
