//! A run of one seed: hosts, disks, clients, and the faults at their times.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::Path,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use meshstore::{
    config::{Config, Flags},
    model::Position,
    raft::log::{self, Log},
    server,
};
use openraft::entry::RaftEntry;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::sync::Notify;

use super::{
    churn::{self, Coming, Gate},
    clients::{self, Ended, Plan},
    environment::{self, Knobs},
    faults::{self, Fault},
    ledger::{Event, Ledger},
    support::{
        history::Verdict,
        sim_disk::{Loss, SimDisk},
        workloads::{self, Stage, Workload},
    },
};

/// Simulated time, after the last fault, after which a run that has not concluded is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// A multiple of how many shards tokio keeps the tasks of a host in.
const TASK_IDS: u64 = 64;
/// How long who lost power in a coup is away.
const COUP_BACK: Duration = Duration::from_millis(20);
/// How long the leader of a coup is cut off.
const COUP: Duration = Duration::from_secs(3);
/// What makes the chance of the membership's changes another than that of the rest.
const CHURN: u64 = 0xC0_4E5;
/// Bytes of a node's log segments: small, so that they are often finished and purged.
const SEGMENT_BYTES: u64 = 128 << 10;

/// What a run left behind.
pub struct Report {
    pub ledger: Ledger,
    pub faults: usize,
    pub verdicts: Vec<(&'static str, Verdict)>,
    /// Calls that were answered.
    pub answered: usize,
    /// The histories, as lines of JSON.
    pub lines: Vec<(&'static str, String)>,
    /// What stands in the logs at the end, by node.
    pub logs: Vec<(u64, StoredLog)>,
    pub simulated: Duration,
}

/// The entries of a log, with their terms, and how far they are known to be committed.
pub struct StoredLog {
    pub entries: BTreeMap<u64, (u64, Bytes)>,
    pub committed: u64,
}

/// What comes after a node that has ended of itself.
#[derive(Clone, Copy)]
enum Then {
    /// It starts again, as `meshstore serve` does for one that is to be rebuilt.
    Again,
    /// Nothing: it was removed. Nobody starts it, but at the very end, when it must refuse.
    Nothing,
}

/// A node, as the world sees it.
struct Host {
    disk: SimDisk,
    knobs: Arc<Knobs>,
    /// Tells it to stop in order.
    stop: Arc<Notify>,
    running: bool,
    /// Whether it may stop of itself: its disk has, or will have, a fault of the plan.
    excused: Rc<RefCell<bool>>,
    /// Set, its storage loses the next record.
    loses: Arc<AtomicBool>,
    /// It has ended, and what its process would do then.
    ended: Rc<Cell<Option<Then>>>,
    /// It was removed, and nobody runs it: its machine is there, and refuses connections.
    gone: Rc<Cell<bool>>,
    /// Closed until the node is to run for the first time.
    gate: Gate,
}

struct World<'a> {
    sim: turmoil::Sim<'a>,
    hosts: Vec<Host>,
    ledger: Ledger,
    /// A coup waits until there were more elections than these.
    coup: Option<usize>,
    /// What follows from faults of the plan, and when.
    later: Vec<(Duration, Fault)>,
}

/// What is alike on all nodes, by seed.
#[derive(Clone, Copy)]
struct Settings {
    /// Those that form the cluster.
    nodes: u64,
    /// Those that may join it.
    spares: u64,
    flush_bytes: u64,
    flush_after: Duration,
    keep_entries: u64,
    check_entries: u64,
}

impl Settings {
    fn of(rng: &mut StdRng) -> Self {
        Self {
            nodes: match rng.random_range(0..20) {
                0 => 1,
                1..15 => 3,
                _ => 5,
            },
            spares: 0,
            flush_bytes: 1 << rng.random_range(14..20),
            flush_after: Duration::from_millis(rng.random_range(300..6_000)),
            keep_entries: 1 << rng.random_range(0..12),
            check_entries: 1 << rng.random_range(4..9),
        }
    }
}

/// Makes tokio's ids of tasks, which it counts through the whole process, begin at a multiple of [`TASK_IDS`].
///
/// The tasks of a host that crashes end shard by shard, and the shard of a task is the remainder of its id: so they end in
/// the same order in every run of a seed. Only if no other thread starts tasks meanwhile.
fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        loop {
            let task = tokio::spawn(async {});
            let id: u64 = task.id().to_string().parse().unwrap();
            if (id + 1).is_multiple_of(TASK_IDS) {
                return;
            }
        }
    });
}

/// What a test wants otherwise than a seed would choose.
#[derive(Default)]
pub struct Script {
    /// How many nodes.
    pub nodes: Option<u64>,
    /// These faults, at their times.
    pub faults: Option<Vec<(Duration, Fault)>>,
    /// This workload only.
    pub workload: Option<&'static str>,
}

/// Runs a seed with so long a time of faults.
pub fn run(seed: u64, length: Duration) -> Report {
    run_script(seed, length, Script::default())
}

/// Runs a seed, but for what the script says.
pub fn run_script(seed: u64, length: Duration, script: Script) -> Report {
    align_task_ids();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut settings = Settings::of(&mut rng);
    settings.nodes = script.nodes.unwrap_or(settings.nodes);
    let mut chance = StdRng::seed_from_u64(seed ^ CHURN);
    let coming = match script.faults {
        Some(_) => Coming::default(),
        None => churn::plan(&mut chance, settings.nodes, length),
    };
    settings.spares = coming.spares;
    let ledger = Ledger::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(rng.random())
        .simulation_duration(length + STUCK * 2)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(faults::DELAY)
        .tcp_capacity(65_536)
        // All clients are on one machine, which keeps a port for each connection that was refused.
        .ephemeral_ports(10_000..=65_535)
        .build();
    let mut hosts: Vec<Host> = (1..=settings.nodes).map(|id| host(&mut sim, id, settings, &ledger, &mut rng)).collect();
    let plan = seat_clients(&mut sim, settings, script.workload, &ledger, &mut rng);
    let mut faults = faults::plan(&mut rng, settings.nodes, length);
    if let Some(scripted) = script.faults {
        faults = scripted;
    }
    faults.extend(coming.faults.iter().cloned());
    faults.sort_by_key(|(at, _)| *at);
    if !coming.changes.is_empty() {
        seat_newcomers(&mut sim, &mut hosts, coming, &plan, settings, &mut chance);
    }
    let count = faults.len();
    let mut world = World { sim, hosts, ledger, coup: None, later: Vec::new() };
    let mut faults = faults.into_iter().peekable();
    let mut healed_at = None;
    loop {
        let now = world.sim.elapsed();
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
            world.inflict(fault);
        }
        world.go_on(now);
        if faults.peek().is_none() && now > length && healed_at.is_none() {
            plan.stage.close();
            world.heal_all();
            *plan.healed.lock().unwrap() = true;
            healed_at = Some(now);
        }
        let stuck = healed_at.is_some_and(|healed| now > healed + STUCK);
        assert!(!stuck, "not concluded after {now:?}: {}\n{}", plan.stuck(), world.ledger.history());
        world.see_to_ended();
        match world.sim.step() {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => panic!("{error}\n{}", world.ledger.history()),
        }
    }
    world.report(&plan, count)
}

/// Nodes that are to join, and the operator who lets nodes come and go.
fn seat_newcomers(
    sim: &mut turmoil::Sim<'_>,
    hosts: &mut Vec<Host>,
    coming: Coming,
    plan: &Plan,
    settings: Settings,
    rng: &mut StdRng,
) {
    for id in settings.nodes + 1..=settings.nodes + settings.spares {
        hosts.push(host(sim, id, settings, &plan.ledger, rng));
    }
    plan.working.fetch_add(1, Ordering::SeqCst);
    let gates = hosts.iter().map(|host| host.gate.clone()).collect();
    sim.client("operator", churn::operate(plan.clone(), coming.changes, gates, rng.random()));
}

fn host(sim: &mut turmoil::Sim<'_>, id: u64, settings: Settings, ledger: &Ledger, rng: &mut StdRng) -> Host {
    let host = Host {
        disk: SimDisk::new(rng.random()),
        knobs: Arc::default(),
        stop: Arc::default(),
        running: true,
        excused: Rc::default(),
        loses: Arc::default(),
        ended: Rc::default(),
        gone: Rc::default(),
        gate: if id > settings.nodes { Gate::default() } else { Gate::opened() },
    };
    let (loses, ended) = (host.loses.clone(), host.ended.clone());
    let (disk, knobs, stop) = (host.disk.clone(), host.knobs.clone(), host.stop.clone());
    let (excused, ledger, seed) = (host.excused.clone(), ledger.clone(), rng.random::<u64>());
    let (gate, gone) = (host.gate.clone(), host.gone.clone());
    sim.host(format!("n{id}"), move || {
        let life = Life { id, settings, disk: disk.clone(), knobs: knobs.clone(), stop: stop.clone(), seed };
        let running = life.run(ledger.clone(), excused.clone(), loses.clone(), ended.clone());
        let (gate, gone) = (gate.clone(), gone.get());
        async move {
            if gone {
                return std::future::pending().await;
            }
            gate.pass().await;
            running.await
        }
    });
    host
}

fn seat_clients(
    sim: &mut turmoil::Sim<'_>,
    settings: Settings,
    workload: Option<&str>,
    ledger: &Ledger,
    rng: &mut StdRng,
) -> Plan {
    let mut chosen = workloads::all();
    chosen.shuffle(rng);
    chosen.truncate(rng.random_range(1..=3));
    if let Some(name) = workload {
        chosen = workloads::all().into_iter().filter(|workload| workload.name() == name).collect();
    }
    let clients = rng.random_range(2..=4u64);
    // The newcomers' too: in the end the founders may all be gone.
    let endpoints = (1..=settings.nodes + settings.spares).map(|id| format!("n{id}:7401")).collect();
    let pause = Duration::from_millis(rng.random_range(5..80));
    let plan = Plan {
        ledger: ledger.clone(),
        stage: Stage::new(clients::now_ns, endpoints, clients::channel, pause),
        prepared: Arc::default(),
        working: Arc::new(AtomicUsize::new(chosen.len() * usize::try_from(clients).unwrap())),
        workloads: chosen,
        healed: Arc::new(Mutex::new(false)),
        waiting_for: Arc::default(),
    };
    let mut tasks: Vec<LocalBoxFuture<'static, Ended>> = Vec::new();
    for workload in 0..plan.workloads.len() {
        for process in 1..=clients {
            tasks.push(clients::work(plan.clone(), workload, process, rng.random()).boxed_local());
        }
    }
    tasks.push(clients::prepare(plan.clone(), rng.random()).boxed_local());
    tasks.push(clients::conclude(plan.clone(), rng.random()).boxed_local());
    // All on one machine: each one more costs a look at every millisecond, and at its links to all others.
    sim.client("clients", clients::side_by_side(tasks));
    plan
}

impl World<'_> {
    fn inflict(&mut self, fault: Fault) {
        self.ledger.record_at(self.sim.elapsed(), Event::Fault(format!("{fault:?}")));
        let name = |id: u64| format!("n{id}");
        match fault {
            Fault::Crash(id, loss) => self.crash(id, loss),
            Fault::CrashLeader(loss) => {
                if let Some(leader) = self.ledger.leader() {
                    self.crash(leader, loss);
                }
            }
            Fault::Coup => {
                self.coup = Some(self.ledger.elections());
                if let Some(leader) = self.ledger.leader() {
                    self.crash(leader, Loss::Everything);
                    self.later.push((self.sim.elapsed() + COUP_BACK, Fault::Restart(leader)));
                }
            }
            Fault::Restart(id) => self.restart(id),
            Fault::Stop(id) => {
                *self.host(id).excused.borrow_mut() = true;
                self.host(id).stop.notify_one();
            }
            Fault::Cut(pairs) => self.cut(&pairs),
            Fault::CutLeader => {
                if let Some(leader) = self.ledger.leader() {
                    self.cut_off(leader);
                }
            }
            Fault::Mend => {
                let ids = 1..=self.hosts.len() as u64;
                for (a, b) in ids.clone().flat_map(|a| ids.clone().map(move |b| (a, b))).filter(|(a, b)| a < b) {
                    self.sim.repair(name(a), name(b));
                }
            }
            Fault::Delay(most) => self.sim.set_max_message_latency(most),
            Fault::SlowLink(a, b, most) => self.sim.set_link_max_message_latency(name(a), name(b), most),
            Fault::Lose(per_million) => self.sim.set_fail_rate(f64::from(per_million) / 1e6),
            Fault::DieAt(id, operation) => {
                self.excuse(id);
                self.host(id).disk.fail_at(operation);
            }
            Fault::FailSync(id) => {
                self.excuse(id);
                self.host(id).disk.fail_next_sync();
            }
            Fault::Fill(id, left) => {
                self.excuse(id);
                self.host(id).disk.fill_up(left);
            }
            Fault::SlowDisk(id, step) => self.host(id).knobs.set_disk_step(step),
            Fault::LoseRecord(id) => self.host(id).loses.store(true, Ordering::SeqCst),
            Fault::LeaderLosesRecord => {
                if let Some(leader) = self.ledger.leader() {
                    self.host(leader).loses.store(true, Ordering::SeqCst);
                }
            }
            Fault::Clock(id, ahead_ms) => self.host(id).knobs.set_clock(ahead_ms),
        }
    }

    /// Ends the processes of nodes that have ended of themselves, and starts those again that ask for it.
    fn see_to_ended(&mut self) {
        for id in 1..=self.hosts.len() as u64 {
            let Some(then) = self.host(id).ended.take() else { continue };
            self.crash(id, Loss::Nothing);
            self.host(id).gone.set(matches!(then, Then::Nothing));
            self.restart(id);
        }
    }

    /// What has come of earlier faults, and is due.
    fn go_on(&mut self, now: Duration) {
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Duration, Fault)> = due;
        due.into_iter().for_each(|(_, fault)| self.inflict(fault));
        if let Some(before) = self.coup
            && self.ledger.elections() > before
            && let Some(leader) = self.ledger.leader()
        {
            self.coup = None;
            self.cut_off(leader);
            for other in (1..=self.hosts.len() as u64).filter(|id| *id != leader) {
                self.inflict(Fault::Crash(other, Loss::Everything));
                self.later.push((now + COUP_BACK, Fault::Restart(other)));
            }
            self.later.push((now + COUP, Fault::Mend));
        }
    }

    fn cut_off(&mut self, id: u64) {
        let others = (1..=self.hosts.len() as u64).filter(|other| *other != id);
        self.cut(&others.flat_map(|other| [(id, other), (other, id)]).collect::<Vec<_>>());
    }

    fn cut(&mut self, pairs: &[(u64, u64)]) {
        for (from, to) in pairs {
            self.sim.partition_oneway(format!("n{from}"), format!("n{to}"));
        }
    }

    fn excuse(&mut self, id: u64) {
        *self.host(id).excused.borrow_mut() = true;
    }

    fn crash(&mut self, id: u64, loss: Loss) {
        if std::mem::replace(&mut self.host(id).running, false) {
            self.sim.crash(format!("n{id}"));
            self.host(id).disk.set_loss(loss);
            self.host(id).disk.crash();
        }
    }

    fn restart(&mut self, id: u64) {
        // A node that may have stopped of itself is ended for good first; a disk that was full or broken, or was going to
        // be, is made sound.
        if *self.host(id).excused.borrow() {
            self.crash(id, Loss::Torn);
        }
        let host = self.host(id);
        if !host.running {
            host.disk.crash();
        }
        host.disk.set_capacity(None);
        // What it was told in its last life.
        let _ = host.stop.notified().now_or_never();
        *host.excused.borrow_mut() = false;
        if !std::mem::replace(&mut host.running, true) {
            self.sim.bounce(format!("n{id}"));
        }
    }

    fn heal_all(&mut self) {
        self.coup = None;
        self.later.clear();
        self.inflict(Fault::Mend);
        self.inflict(Fault::Delay(faults::DELAY));
        self.inflict(Fault::Lose(0));
        for id in 1..=self.hosts.len() as u64 {
            self.inflict(Fault::SlowDisk(id, faults::DISK_STEP));
            if self.host(id).gone.replace(false) {
                self.crash(id, Loss::Nothing);
            }
            self.inflict(Fault::Restart(id));
        }
    }

    fn host(&mut self, id: u64) -> &mut Host {
        &mut self.hosts[usize::try_from(id - 1).unwrap()]
    }

    fn report(self, plan: &Plan, faults: usize) -> Report {
        let of = |workload: &Arc<dyn Workload>| (workload.name(), workload.verdict());
        Report {
            faults,
            verdicts: plan.workloads.iter().map(of).collect(),
            answered: plan.workloads.iter().map(|workload| workload.answered()).sum(),
            lines: plan.workloads.iter().map(|workload| (workload.name(), workload.lines())).collect(),
            logs: (1..)
                .zip(&self.hosts)
                .filter(|(_, host)| host.gate.is_open())
                .map(|(id, host)| (id, stored_log(&host.disk.fork())))
                .collect(),
            simulated: self.sim.elapsed(),
            ledger: self.ledger,
        }
    }
}

/// What stands in the log on a disk, read as a start would read it.
fn stored_log(disk: &SimDisk) -> StoredLog {
    let environment = environment::offline(disk);
    let (log, _writer, _signal) =
        Log::open(&environment, Path::new("/data/node/mesh_consensus_log"), log::Options::default()).unwrap();
    let last = log.last().map_or(0, |last| last.index);
    let entries = log.entries(log.first_index()..last + 1, usize::MAX).unwrap();
    let entries = entries.into_iter().map(|mut entry| {
        let at = entry.log_id();
        (at.index, (Position::from(at).term, entry.sealed()))
    });
    StoredLog { entries: entries.collect(), committed: log.committed().map_or(0, |committed| committed.index) }
}

/// A node from one start to its end.
struct Life {
    id: u64,
    settings: Settings,
    disk: SimDisk,
    knobs: Arc<Knobs>,
    stop: Arc<Notify>,
    seed: u64,
}

impl Life {
    async fn run(
        self,
        ledger: Ledger,
        excused: Rc<RefCell<bool>>,
        loses: Arc<AtomicBool>,
        then: Rc<Cell<Option<Then>>>,
    ) -> turmoil::Result {
        let id = self.id;
        ledger.record(Event::Started { node: id });
        let config = config(id, self.settings);
        // Another life, other choices; the same life, the same.
        let life = self.seed ^ turmoil::sim_elapsed().unwrap_or_default().as_nanos() as u64;
        let environment = environment::environment(&self.disk, &self.knobs, life);
        let observer = Some(ledger.observer(id, loses));
        let runtime = tokio::runtime::Handle::current();
        let ended = server::serve(environment, config, observer, runtime, self.stop.notified()).await;
        let asks = ended.as_ref().err().is_some_and(meshstore::error::Fault::asks_for_rebuild);
        let reason = ended.err().map_or_else(|| "it was told to".to_string(), |fault| fault.to_string());
        // A disk that breaks is a fault of the plan, and who is removed is told so; anything else is a fault of ours.
        let removed = reason.contains("its id is retired");
        then.set(if asks { Some(Then::Again) } else { removed.then_some(Then::Nothing) });
        if !asks && !removed && !*excused.borrow() {
            return Err(format!("node {id} stopped: {reason}").into());
        }
        ledger.record(Event::Stopped { node: id, reason });
        std::future::pending().await
    }
}

fn config(id: u64, settings: Settings) -> Config {
    let mut text = String::from("[cluster]\nname = \"simulation\"\n[storage]\nengine = \"memory\"\n");
    for node in 1..=settings.nodes {
        text.push_str(&format!(
            "[[node]]\nid = {node}\nclient = \"n{node}:7401\"\npeer = \"n{node}:7501\"\nhttp = \"n{node}:7601\"\n"
        ));
    }
    let mut flags = Flags { node: Some(id), data_dir: Some("/data/node".into()), insecure: true, ..Flags::default() };
    if id > settings.nodes {
        let at = |port: u16| Some(format!("n{id}:{port}"));
        (flags.client, flags.peer, flags.http) = (at(7401), at(7501), at(7601));
        flags.join = (1..=settings.nodes).map(|node| format!("n{node}:7501")).collect();
    }
    let mut config = Config::parse(&text, Path::new("simulation.toml"), &flags).unwrap();
    // Smaller than the file could say, so that flushes, snapshots and purges come often.
    config.cluster.storage.flush_bytes = settings.flush_bytes;
    config.cluster.storage.flush_after = settings.flush_after;
    config.cluster.raft.keep_entries = settings.keep_entries;
    config.cluster.raft.segment_bytes = SEGMENT_BYTES;
    config.cluster.raft.check_entries = settings.check_entries;
    config
}
