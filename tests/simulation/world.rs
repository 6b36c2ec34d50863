//! A run of one seed: hosts, disks, clients, and the faults at their times.

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use meshstore::{
    config::{Config, Flags},
    server,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    environment,
    faults::{self, Fault},
    ledger::{Event, Ledger},
    support::sim_disk::SimDisk,
    workload::{self, Plan},
};

const NODES: u64 = 3;
const CLIENTS: u64 = 2;
/// Simulated time in which faults come.
const FAULTY: Duration = Duration::from_secs(15);
/// Simulated time after which a run that has not concluded is stuck.
const STUCK: Duration = Duration::from_secs(120);

/// What a run left behind.
pub struct Report {
    pub ledger: Ledger,
    pub nodes: usize,
    pub faults: usize,
}

struct World<'a> {
    sim: turmoil::Sim<'a>,
    disks: Vec<SimDisk>,
    running: Vec<bool>,
    ledger: Ledger,
}

pub fn run(seed: u64) -> Report {
    let mut rng = StdRng::seed_from_u64(seed);
    let ledger = Ledger::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(rng.random())
        .simulation_duration(STUCK * 2)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(2))
        .tcp_capacity(65_536)
        .build();
    let disks: Vec<SimDisk> = (0..NODES).map(|_| SimDisk::new(rng.random())).collect();
    for (id, disk) in (1..=NODES).zip(&disks) {
        let (ledger, disk, seed) = (ledger.clone(), disk.clone(), rng.random());
        sim.host(format!("n{id}"), move || node(id, disk.clone(), ledger.clone(), seed));
    }
    let plan = Plan {
        endpoints: (1..=NODES).map(|id| format!("n{id}:7401")).collect(),
        ledger: ledger.clone(),
        length: FAULTY,
        writing: Arc::new(AtomicUsize::new(usize::try_from(CLIENTS).unwrap())),
        healed: Arc::new(Mutex::new(false)),
    };
    for client in 1..=CLIENTS {
        sim.client(format!("client{client}"), workload::write(plan.clone(), client, rng.random()));
    }
    sim.client("conclusion", workload::conclude(plan.clone(), rng.random()));

    let faults = faults::plan(&mut rng, NODES, FAULTY);
    let count = faults.len();
    let mut world = World { sim, disks, running: vec![true; usize::try_from(NODES).unwrap()], ledger };
    let mut faults = faults.into_iter().peekable();
    loop {
        let now = world.sim.elapsed();
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
            world.inflict(fault);
        }
        if faults.peek().is_none() && now > FAULTY && !*plan.healed.lock().unwrap() {
            world.heal_all();
            *plan.healed.lock().unwrap() = true;
        }
        assert!(now < STUCK, "seed {seed}: not concluded after {now:?}\n{}", world.ledger.history());
        match world.sim.step() {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => panic!("seed {seed}: {error}\n{}", world.ledger.history()),
        }
    }
    Report { ledger: world.ledger, nodes: usize::try_from(NODES).unwrap(), faults: count }
}

impl World<'_> {
    fn inflict(&mut self, fault: Fault) {
        self.ledger.record_at(self.sim.elapsed(), Event::Fault(format!("{fault:?}")));
        let name = |id: &u64| format!("n{id}");
        match fault {
            Fault::Crash(id, loss) => self.crash(id, loss),
            Fault::Restart(id) => self.restart(id),
            Fault::Partition(left, right) => {
                for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (a, b))) {
                    self.sim.partition(name(a), name(b));
                }
            }
            Fault::OneWay(from, to) => self.sim.partition_oneway(name(&from), name(&to)),
            Fault::Heal => {
                for (a, b) in (1..=NODES).flat_map(|a| (1..=NODES).map(move |b| (a, b))).filter(|(a, b)| a < b) {
                    self.sim.repair(name(&a), name(&b));
                }
            }
            Fault::Delay(most) => self.sim.set_max_message_latency(most),
            Fault::DieAt(id, operation) => self.disk(id).fail_at(operation),
        }
    }

    fn crash(&mut self, id: u64, loss: super::support::sim_disk::Loss) {
        let index = usize::try_from(id - 1).unwrap();
        if std::mem::replace(&mut self.running[index], false) {
            self.sim.crash(format!("n{id}"));
            self.disk(id).set_loss(loss);
            self.disk(id).crash();
        }
    }

    fn restart(&mut self, id: u64) {
        let index = usize::try_from(id - 1).unwrap();
        // A node whose disk died under it has stopped of itself; its machine loses the rest.
        if self.running[index] && self.disk(id).is_dead() {
            self.crash(id, super::support::sim_disk::Loss::Torn);
        }
        if !std::mem::replace(&mut self.running[index], true) {
            self.sim.bounce(format!("n{id}"));
        }
    }

    fn heal_all(&mut self) {
        self.inflict(Fault::Heal);
        self.inflict(Fault::Delay(Duration::from_millis(2)));
        for id in 1..=NODES {
            self.inflict(Fault::Restart(id));
        }
    }

    fn disk(&self, id: u64) -> &SimDisk {
        &self.disks[usize::try_from(id - 1).unwrap()]
    }
}

async fn node(id: u64, disk: SimDisk, ledger: Ledger, seed: u64) -> turmoil::Result {
    let config = config(id);
    // Another life, other choices; the same life, the same.
    let life = seed ^ turmoil::sim_elapsed().unwrap_or_default().as_nanos() as u64;
    let environment = environment::environment(&disk, life);
    let observer = Some(ledger.observer(id));
    let runtime = tokio::runtime::Handle::current();
    let ended = server::serve(environment, config, observer, runtime, std::future::pending()).await;
    let reason = ended.err().map_or_else(|| "it was told to".to_string(), |fault| fault.to_string());
    // A disk that dies is a fault of the plan; anything else is one of ours.
    if !disk.is_dead() {
        return Err(format!("node {id} stopped: {reason}").into());
    }
    ledger.record(Event::Stopped { node: id, reason });
    std::future::pending().await
}

fn config(id: u64) -> Config {
    let mut text = String::from(
        "[cluster]\nname = \"simulation\"\n[storage]\nengine = \"memory\"\nflush_mib = 1\nflush_after_s = 2\n",
    );
    for node in 1..=NODES {
        text.push_str(&format!(
            "[[node]]\nid = {node}\nclient = \"n{node}:7401\"\npeer = \"n{node}:7501\"\nhttp = \"n{node}:7601\"\n"
        ));
    }
    let flags = Flags { node: Some(id), data_dir: Some("/data/node".into()), insecure: true, ..Flags::default() };
    Config::parse(&text, Path::new("simulation.toml"), &flags).unwrap()
}
