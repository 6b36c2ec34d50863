//! What is done to a cluster: each fault has a name, needs something of the machine, is injected, and healed.
//!
//! A file for each family: `processes`, `network`, `disk`, `machine`, `members`. To add one: a variant, a line in
//! [`ALL`], an arm in [`Nemesis::inject`]; what it leaves behind is undone in the `heal` of its family, which also must
//! do no harm if there is nothing to undo.

mod disk;
mod machine;
mod members;
mod network;
mod processes;

use std::{collections::BTreeSet, path::PathBuf};

use rand::{Rng, rngs::StdRng};

use super::{
    cluster::{Cluster, Settings},
    network::Network,
    tools::{faketime, missing},
    volume::Volume,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nemesis {
    KillOne,
    KillLeader,
    KillMajority,
    KillAll,
    KillAtSync,
    Restart,
    PauseOne,
    PauseLeader,
    PauseMajority,
    PowerCutOne,
    PowerCutAll,
    IsolateOne,
    IsolateLeader,
    Halves,
    OneWayIn,
    OneWayOut,
    Ring,
    Bridge,
    CutClients,
    Delay,
    Loss,
    Duplicates,
    Reorder,
    Damage,
    FailingSync,
    LyingSync,
    SlowSync,
    DiskFull,
    ReadOnly,
    FlippedBit,
    Truncated,
    Wiped,
    ClockJump,
    ClockRate,
    StarvedProcessor,
    Replace,
    ReplaceLeader,
    Transfer,
    Upgrade,
}

/// What a nemesis needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Network,
    Volumes,
    Tracing,
    Clocks,
    Groups,
    /// Another build.
    Binary,
}

use Nemesis::*;

/// All of them: name, need, what it does.
pub const ALL: &[(Nemesis, &str, Needs, &str)] = &[
    (KillOne, "kill", Needs::Nothing, "SIGKILL of one node"),
    (KillLeader, "kill-leader", Needs::Nothing, "SIGKILL of the leader"),
    (KillMajority, "kill-majority", Needs::Nothing, "SIGKILL of a majority"),
    (KillAll, "kill-all", Needs::Nothing, "SIGKILL of all nodes at once"),
    (KillAtSync, "kill-at-sync", Needs::Tracing, "SIGKILL in the Nth call of fdatasync"),
    (Restart, "restart", Needs::Nothing, "SIGTERM of one node after the other"),
    (PauseOne, "pause", Needs::Nothing, "SIGSTOP of one node"),
    (PauseLeader, "pause-leader", Needs::Nothing, "SIGSTOP of the leader"),
    (PauseMajority, "pause-majority", Needs::Nothing, "SIGSTOP of a majority"),
    (PowerCutOne, "power", Needs::Volumes, "power cut of one node: unsynced pages are gone"),
    (PowerCutAll, "power-all", Needs::Volumes, "power cut of all nodes at once"),
    (IsolateOne, "isolate", Needs::Network, "one node is cut off from the others"),
    (IsolateLeader, "isolate-leader", Needs::Network, "the leader is cut off from the others"),
    (Halves, "halves", Needs::Network, "a minority is cut off from the majority"),
    (OneWayIn, "one-way-in", Needs::Network, "one node hears nothing, but is heard"),
    (OneWayOut, "one-way-out", Needs::Network, "one node is not heard, but hears"),
    (Ring, "ring", Needs::Network, "each node reaches its two neighbours only"),
    (Bridge, "bridge", Needs::Network, "two parts that reach each other by one node only"),
    (CutClients, "cut-clients", Needs::Network, "clients do not reach the leader, its peers do"),
    (Delay, "delay", Needs::Network, "20 to 80 ms each way"),
    (Loss, "loss", Needs::Network, "a tenth of all packets is lost"),
    (Duplicates, "duplicates", Needs::Network, "a third of all packets comes twice"),
    (Reorder, "reorder", Needs::Network, "a quarter of all packets is overtaken"),
    (Damage, "damage", Needs::Network, "one packet in fifty is damaged, with a right checksum"),
    (FailingSync, "failing-sync", Needs::Tracing, "fsync and fdatasync of one node fail with EIO"),
    (LyingSync, "lying-sync", Needs::Tracing, "fsync of one node does nothing; then SIGKILL"),
    (SlowSync, "slow-sync", Needs::Tracing, "each sync of one node takes 300 ms more"),
    (DiskFull, "full", Needs::Volumes, "the disk of one node is full"),
    (ReadOnly, "read-only", Needs::Volumes, "the file system of one node takes no more writes"),
    (FlippedBit, "flip", Needs::Nothing, "one bit of a stopped node's files"),
    (Truncated, "truncate", Needs::Nothing, "a stopped node's file loses its end"),
    (Wiped, "wipe", Needs::Nothing, "a stopped node loses its directory"),
    (ClockJump, "clock-jump", Needs::Clocks, "the clock of one node jumps by up to a day"),
    (ClockRate, "clock-rate", Needs::Clocks, "the clock of one node runs up to 5 times as fast, or slower"),
    (StarvedProcessor, "starve", Needs::Groups, "one node gets a twentieth of a processor"),
    (Replace, "replace", Needs::Nothing, "one node is taken out for good, and a new one joins in its place"),
    (ReplaceLeader, "replace-leader", Needs::Nothing, "the same for the leader"),
    (Transfer, "transfer", Needs::Nothing, "another node is to lead"),
    (Upgrade, "upgrade", Needs::Binary, "one node after the other is started with the other build"),
];

/// What nemeses act upon.
pub struct World {
    pub cluster: Cluster,
    pub rng: StdRng,
    /// The other build, for upgrades.
    pub other_binary: Option<PathBuf>,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Directories that were put aside: node, place, its own place.
    aside: Vec<(u64, PathBuf, PathBuf)>,
    /// Nodes whose disk has failed.
    broken: BTreeSet<u64>,
    /// Nodes that are to be taken out, if they have not been yet.
    leaving: BTreeSet<u64>,
}

impl World {
    pub fn new(cluster: Cluster, rng: StdRng, other_binary: Option<PathBuf>) -> Self {
        let (broken, leaving) = (BTreeSet::new(), BTreeSet::new());
        Self { cluster, rng, other_binary, violations: Vec::new(), aside: Vec::new(), broken, leaving }
    }

    /// Whether the directory of a node was put aside, and another is in its place, or none.
    fn is_aside(&self, id: u64) -> bool {
        self.aside.iter().any(|(of, ..)| *of == id)
    }

    /// One of the nodes.
    fn any(&mut self) -> u64 {
        let ids = self.cluster.ids();
        ids[self.rng.random_range(0..ids.len())]
    }

    /// The leader, or whoever if there is none.
    async fn leader(&mut self) -> u64 {
        match self.cluster.leader().await {
            Some(leader) => leader,
            None => self.any(),
        }
    }

    /// Several nodes, so many, by chance.
    fn some(&mut self, count: usize) -> Vec<u64> {
        let mut ids = self.cluster.ids();
        while ids.len() > count {
            let out = self.rng.random_range(0..ids.len());
            ids.remove(out);
        }
        ids
    }

    fn majority(&mut self) -> Vec<u64> {
        self.some(self.cluster.nodes.len() / 2 + 1)
    }

    fn minority(&mut self) -> Vec<u64> {
        self.some((self.cluster.nodes.len() - 1) / 2)
    }

    /// Takes note of nodes that ended by themselves, though nothing was done to them that may end one.
    pub fn watch(&mut self) {
        for node in &mut self.cluster.nodes {
            if node.has_ended() && !node.may_end && !self.leaving.contains(&node.id) {
                self.violations.push(format!("node {} ended by itself: {}", node.id, node.last_words()));
            }
        }
    }

    /// Undoes everything, and waits until all nodes are ready.
    pub async fn heal(&mut self) {
        self.watch();
        network::heal(self);
        processes::heal(self);
        machine::heal(self);
        disk::heal(self).await;
        members::heal(self).await;
        for node in &mut self.cluster.nodes {
            // What it was allowed to end of may have happened only now.
            if node.may_end && !node.has_ended() {
                node.may_end = false;
            }
        }
        if let Err(error) = self.cluster.start_all().await {
            self.violations.push(format!("after healing: {error}"));
        }
    }
}

impl Nemesis {
    pub fn by_name(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, other, ..)| *other == name).map(|(nemesis, ..)| *nemesis)
    }

    fn row(self) -> &'static (Self, &'static str, Needs, &'static str) {
        ALL.iter().find(|(nemesis, ..)| *nemesis == self).expect("all are listed")
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }

    fn needs(self) -> Needs {
        self.row().2
    }

    /// Why it cannot be had here; nothing if it can.
    pub fn missing(self, other_binary: bool) -> Option<String> {
        match self.needs() {
            Needs::Nothing => None,
            Needs::Network => Network::missing(),
            Needs::Volumes => Volume::missing(),
            Needs::Tracing => missing(true, &["strace"]),
            Needs::Clocks => faketime().is_none().then(|| "needs libfaketime".into()),
            Needs::Groups => {
                let there = std::path::Path::new("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists();
                missing(true, &[]).or((!there).then(|| "needs the cpu controller of cgroups v1".into()))
            }
            Needs::Binary => (!other_binary).then(|| "needs another build: MESHSTORE_OTHER_BINARY".into()),
        }
    }

    /// What a cluster must have for it.
    pub fn ask(self, settings: &mut Settings) {
        match self.needs() {
            Needs::Network => settings.network = true,
            Needs::Volumes if settings.volumes.is_none() => {
                settings.volumes = Some(super::volume::FileSystem::Ext4);
            }
            Needs::Clocks => settings.clocks = true,
            _ => {}
        }
    }

    /// Injects it: what was done, for people.
    pub async fn inject(self, world: &mut World) -> String {
        match self {
            KillOne | KillLeader | KillMajority | KillAll | KillAtSync | Restart | PauseOne | PauseLeader
            | PauseMajority | Upgrade => processes::inject(self, world).await,
            IsolateOne | IsolateLeader | Halves | OneWayIn | OneWayOut | Ring | Bridge | CutClients | Delay | Loss
            | Duplicates | Reorder | Damage => network::inject(self, world).await,
            PowerCutOne | PowerCutAll | FailingSync | LyingSync | SlowSync | DiskFull | ReadOnly | FlippedBit
            | Truncated | Wiped => disk::inject(self, world).await,
            ClockJump | ClockRate | StarvedProcessor => machine::inject(self, world),
            Replace | ReplaceLeader | Transfer => members::inject(self, world).await,
        }
    }
}
