//! Storage that is damaged or lost while the log is whole: the node has it from a peer before Raft starts, and keeps its id.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{Cluster, EAGER, Settings, until},
    load::Load,
    proof::prove,
};

const BYTES: usize = 500;
/// Flushes as often as can be, and keeps nothing of the log beyond that: what the storage holds stands nowhere else.
const PURGED: Settings = Settings { storage: EAGER.storage, raft: "keep_entries = 0\n" };

async fn purged() -> (Cluster, Load) {
    let cluster = Cluster::start(3, PURGED).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(600).await;
    for node in &cluster.nodes {
        until("a purge", async || node.metric("log_purged_index").await.filter(|purged| *purged > 100)).await;
    }
    (cluster, load)
}

fn files(directory: &Path, ends: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(ends));
    paths.sort();
    paths
}

/// The first run or base.
fn data_file(storage: &Path) -> PathBuf {
    let mut found = files(storage, ".base");
    found.extend(files(storage, ".run"));
    found.first().unwrap_or_else(|| panic!("no file in {}", storage.display())).clone()
}

fn flip(path: &Path, at: impl FnOnce(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_storage_is_had_from_a_peer_and_the_node_keeps_its_id() {
    let (mut cluster, mut load) = purged().await;
    type Damage = fn(&Path) -> PathBuf;
    let damages: [(&str, bool, Damage); 6] = [
        ("the front of a file", true, |storage| {
            let path = data_file(storage);
            flip(&path, |_| 20);
            path
        }),
        // Nobody reads it at a clean start, so this one is not clean.
        ("the middle of a file", false, |storage| {
            let path = data_file(storage);
            flip(&path, |length| length / 2);
            path
        }),
        ("a file that is cut short", true, |storage| {
            let path = data_file(storage);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            path
        }),
        ("a file that is gone", true, |storage| {
            let path = data_file(storage);
            fs::remove_file(&path).unwrap();
            path
        }),
        ("the manifest", true, |storage| {
            flip(&storage.join("manifest"), |length| length - 1);
            storage.join("manifest")
        }),
        ("a manifest that is gone", true, |storage| {
            fs::remove_file(storage.join("manifest")).unwrap();
            storage.join("manifest")
        }),
    ];
    for (count, (what, clean, damage)) in (1..).zip(damages) {
        // A leader would hand over, or be followed by another; whoever it is comes back.
        let id = count % 3 + 1;
        let node = cluster.node(id);
        if clean {
            assert!(node.terminate().await.success())
        } else {
            node.kill()
        }
        let identity = fs::read(node.data.join("IDENTITY")).unwrap();
        let path = damage(&node.data.join("storage"));
        load.more(100).await;
        let node = cluster.node(id);
        node.start();
        node.ready().await;
        let log = node.log();
        let named = format!("{} is damaged at offset ", path.display());
        assert!(log.contains(&named) && log.contains("the damaged files are set aside"), "{what}: {log}");
        assert_eq!(fs::read(node.data.join("IDENTITY")).unwrap(), identity, "{what}");
        let aside = (count - 1) / 3 + 1;
        assert!(node.data.join(format!("storage.damaged-{aside}")).is_dir(), "{what}");
        assert!(!node.data.join("storage.new").exists(), "{what}");
    }
    let ledger = load.finish().await;
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_peer_it_waits_and_touches_nothing() {
    let (mut cluster, load) = purged().await;
    let ledger = load.finish().await;
    cluster.terminate_all().await;
    let storage = cluster.nodes[2].data.join("storage");
    let path = data_file(&storage);
    flip(&path, |_| 20);
    let damaged = fs::read(&path).unwrap();
    cluster.nodes[2].start();
    until("the node to wait", async || cluster.nodes[2].log().contains("waiting for a peer").then_some(())).await;
    // Killed while it waits, and started again, it still knows.
    cluster.nodes[2].kill();
    assert!(fs::read(&path).unwrap() == damaged);
    cluster.nodes[2].start();
    until("the node to wait", async || cluster.nodes[2].log().contains("waiting for a peer").then_some(())).await;
    cluster.start_all().await;
    prove(&cluster, &ledger, BYTES).await;
    let log = cluster.nodes[2].log();
    assert!(log.contains("is damaged at offset 0") && log.contains("set aside"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_gone_is_had_from_a_peer() {
    let (mut cluster, load) = purged().await;
    let ledger = load.finish().await;
    let node = cluster.node(2);
    assert!(node.terminate().await.success());
    // As a kill between the two renames of a repair leaves it, with half of another repair.
    let storage = node.data.join("storage");
    fs::rename(&storage, node.data.join("storage.damaged-1")).unwrap();
    fs::create_dir(node.data.join("storage.new")).unwrap();
    fs::write(node.data.join("storage.new/00000001.base"), b"half of one").unwrap();
    node.start();
    node.ready().await;
    assert!(node.log().contains("the log begins behind"), "{}", node.log());
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn if_nobody_has_the_data_the_fault_says_so() {
    let (mut cluster, load) = purged().await;
    load.finish().await;
    cluster.terminate_all().await;
    for node in &cluster.nodes[..2] {
        fs::remove_dir_all(&node.data).unwrap();
    }
    let path = data_file(&cluster.nodes[2].data.join("storage"));
    flip(&path, |_| 20);
    // They wait for each other, and for the third.
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    let said = cluster.nodes[2].refusal(1).await;
    assert!(said.starts_with(&format!("{} is damaged at offset 0: ", path.display())), "{said}");
    assert!(said.contains("no peer has the data (node 1 is empty itself; node 2 is empty itself)"), "{said}");
    assert!(said.contains("meshstore recover node"), "{said}");
}

/// strace on a running process, ended when it is dropped.
struct Strace(Child);

impl Strace {
    /// Has the calls of this name fail that are on this file; `None` if there is no strace.
    fn fail(process: u32, call: &str, path: &Path) -> Option<Self> {
        let inject = format!("inject={call}:error=EIO");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-e", &format!("trace={call}"), "-e", &inject, "-P"]).arg(path);
        strace.args(["-p", &process.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match strace.spawn() {
            Ok(child) => Some(Self(child)),
            Err(error) => {
                eprintln!("left out: no strace ({error})");
                None
            }
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_sync_that_fails_ends_the_process_and_the_others_go_on() {
    let mut cluster = Cluster::start(3, EAGER).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    for index in [false, true] {
        let id = cluster.follower().await;
        let node = cluster.node(id);
        until("an index", async || node.metric("flushed_index").await.filter(|flushed| *flushed > 0)).await;
        let (path, call) = if index {
            let directory = fs::read_dir(node.data.join("storage")).unwrap().map(|entry| entry.unwrap().path());
            let mut found: Vec<_> = directory.filter(|path| path.is_dir()).collect();
            (found.pop().unwrap().join("db"), "fsync")
        } else {
            (files(&node.data.join("mesh_consensus_log"), ".log").pop().unwrap(), "fdatasync")
        };
        let Some(strace) = Strace::fail(node.process_id(), call, &path) else { return };
        assert_eq!(node.exit().await.code(), Some(1));
        drop(strace);
        let log = node.log();
        let said = log.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or_else(|| panic!("{log}"));
        assert!(said.contains(path.to_str().unwrap()) && said.contains("sync"), "{said}");
        load.more(100).await;
        let node = cluster.node(id);
        node.start();
        node.ready().await;
    }
    let ledger = load.finish().await;
    prove(&cluster, &ledger, BYTES).await;
}
