//! One run: a cluster, workloads, faults by a seed, and what the checkers say in the end.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use meshstore::Client;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::{
    cluster::{Cluster, Settings, fresh},
    nemesis::{ALL, Nemesis, World},
    report::{self, Report},
    workloads::{self, Seat, Stage, Workload},
};

/// What a run is made of. The same plan gives the same choices, but not the same run: processes and kernels have their
/// own mind.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub seconds: u64,
    pub nodes: u64,
    /// Names of workloads, which run side by side.
    pub workloads: Vec<String>,
    pub nemeses: Vec<Nemesis>,
    /// The other build, for upgrades.
    pub other_binary: Option<PathBuf>,
    /// Where a directory for the run is made.
    pub out: PathBuf,
}

/// A fault as it happened, in nanoseconds of [`now_ns`].
#[derive(Clone, Debug)]
pub struct Fault {
    pub name: &'static str,
    pub what: String,
    pub from_ns: u64,
    pub until_ns: u64,
}

/// Clients of each workload.
const CLIENTS: u64 = 6;
/// How long clients wait at most for an answer. The impatient ones often do not know what became of their calls.
const DEADLINES_MS: [u64; 3] = [3_000, 600, 1_500];
/// The largest history of a valid run that is kept.
const KEPT_BYTES: u64 = 16 << 20;
/// Longest pause of a client between two calls.
const PAUSE: Duration = Duration::from_millis(40);

/// Time since the program's start.
pub fn now_ns() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap()
}

fn channel(endpoint: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).unwrap();
    endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy()
}

impl Plan {
    pub fn name(&self) -> String {
        format!("seed-{}-{}", self.seed, self.workloads.join("+"))
    }

    fn settings(&self, rng: &mut StdRng) -> Settings {
        let mut settings = Settings::plain(self.nodes);
        settings.seed = self.seed;
        settings.raft = if rng.random_bool(0.5) { "keep_entries = 200\n" } else { "keep_entries = 5000\n" };
        for nemesis in &self.nemeses {
            nemesis.ask(&mut settings);
        }
        if settings.volumes.is_some() && !self.nemeses.contains(&Nemesis::ReadOnly) && rng.random_bool(0.3) {
            settings.volumes = Some(super::volume::FileSystem::Xfs);
        }
        settings
    }

    fn chosen(&self) -> Vec<Arc<dyn Workload>> {
        let all = workloads::all();
        let of = |name: &String| all.iter().find(|workload| workload.name() == name).cloned();
        self.workloads.iter().map(|name| of(name).unwrap_or_else(|| panic!("no workload {name}"))).collect()
    }
}

/// Carries out a plan. The report is also written to files.
pub async fn run(plan: &Plan) -> Report {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let directory = fresh(plan.out.join(plan.name()));
    let settings = plan.settings(&mut rng);
    let cluster = Cluster::start(&settings, &directory).await;
    let chosen = plan.chosen();
    let stage = Stage::new(now_ns, cluster.endpoints(), channel, PAUSE);
    for workload in &chosen {
        prepare(workload, cluster.client(Duration::from_secs(20))).await;
    }
    let begin_ns = now_ns();
    let mut clients = JoinSet::new();
    for (number, workload) in chosen.iter().enumerate() {
        for process in 0..CLIENTS {
            let id = number as u64 * CLIENTS + process;
            let seat = Seat {
                client: client(&cluster, process),
                process,
                rng: StdRng::seed_from_u64(plan.seed ^ id << 32),
                stage: stage.clone(),
            };
            clients.spawn(workload.clone().work(seat));
        }
    }
    let mut world = World::new(cluster, rng, plan.other_binary.clone());
    let faults = torment(plan, &mut world, begin_ns).await;
    stage.close();
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended {
            world.violations.push(format!("a client met what it never wrote: {error}"));
        }
    }
    for (number, workload) in chosen.iter().enumerate() {
        let client = world.cluster.client(Duration::from_secs(20));
        let rng = StdRng::seed_from_u64(plan.seed);
        let seat = Seat { client, process: 100 + number as u64, rng, stage: stage.clone() };
        let concluded = tokio::time::timeout(Duration::from_secs(120), workload.clone().conclude(seat)).await;
        if !matches!(concluded, Ok(Ok(()))) {
            world.violations.push(format!("{}: the last reads were not answered: {concluded:?}", workload.name()));
        }
    }
    if let Err(error) = world.cluster.settle().await {
        world.violations.push(error);
    }
    world.violations.extend(world.cluster.complaints());
    conclude(plan, &settings, &chosen, world, faults, (begin_ns, now_ns()), &directory)
}

async fn prepare(workload: &Arc<dyn Workload>, client: Client) {
    let prepared =
        super::cluster::within(super::cluster::LIMIT, async || workload.clone().prepare(client.clone()).await.ok());
    assert!(prepared.await.is_some(), "{} could not be prepared", workload.name());
}

/// Every other client goes to one node only, whatever that node says.
fn client(cluster: &Cluster, process: u64) -> Client {
    let client = cluster.client(Duration::from_millis(DEADLINES_MS[process as usize % DEADLINES_MS.len()]));
    if process.is_multiple_of(2) {
        return client;
    }
    let node = &cluster.nodes[(process / 2) as usize % cluster.nodes.len()];
    client.pin(&node.client).unwrap()
}

/// Faults, one after the other, sometimes two at a time, until the time is over; in the end all is well.
async fn torment(plan: &Plan, world: &mut World, begin_ns: u64) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let end_ns = begin_ns + plan.seconds * 1_000_000_000;
    // Longer runs have longer faults.
    let (rest, hold) = if plan.seconds < 20 { (400..1_200, 600..2_000) } else { (1_000..3_000, 1_500..6_000) };
    while now_ns() < end_ns {
        tokio::time::sleep(Duration::from_millis(world.rng.random_range(rest.clone()))).await;
        if plan.nemeses.is_empty() {
            continue;
        }
        let count = if world.rng.random_bool(0.25) { 2 } else { 1 };
        let first = faults.len();
        for _ in 0..count {
            let nemesis = plan.nemeses[world.rng.random_range(0..plan.nemeses.len())];
            world.watch();
            let from_ns = now_ns();
            let what = nemesis.inject(world).await;
            faults.push(Fault { name: nemesis.name(), what, from_ns, until_ns: from_ns });
        }
        tokio::time::sleep(Duration::from_millis(world.rng.random_range(hold.clone()))).await;
        world.heal().await;
        for fault in &mut faults[first..] {
            fault.until_ns = now_ns();
        }
    }
    world.heal().await;
    faults
}

fn conclude(
    plan: &Plan,
    settings: &Settings,
    chosen: &[Arc<dyn Workload>],
    world: World,
    faults: Vec<Fault>,
    (begin_ns, end_ns): (u64, u64),
    directory: &Path,
) -> Report {
    let mut histories = Vec::new();
    for workload in chosen {
        let lines = workload.lines();
        std::fs::write(directory.join(format!("history-{}.jsonl", workload.name())), &lines).unwrap();
        histories.push(report::History::new(workload.name(), workload.verdict(), &lines));
    }
    let report = Report {
        plan: plan.clone(),
        settings: settings.clone(),
        histories,
        faults,
        violations: world.violations,
        begin_ns,
        end_ns,
        directory: directory.to_owned(),
    };
    report.write();
    if report.is_valid() {
        // The logs of nodes are worth their space only if something is to be found in them; so are large histories.
        for node in &world.cluster.nodes {
            let _ = std::fs::remove_file(&node.log);
        }
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            if entry.metadata().is_ok_and(|metadata| metadata.len() > KEPT_BYTES) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
    report
}

/// What can be had here of the faults with these names (all if there are none), and why not the others.
pub fn available(names: &[String], other_binary: bool) -> (Vec<Nemesis>, Vec<String>) {
    let (mut there, mut skipped) = (Vec::new(), Vec::new());
    for (nemesis, name, ..) in ALL {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        match nemesis.missing(other_binary) {
            None => there.push(*nemesis),
            Some(why) => skipped.push(format!("{name}: {why}")),
        }
    }
    (there, skipped)
}
