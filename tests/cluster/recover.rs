//! `meshstore recover`, on what real clusters left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use meshstore::Client;
use serde_json::Value;

use crate::{
    harness::{
        self, Cluster, EAGER, Settings, addresses, assert_unchanged, binary, contents, copy, listed, text, until,
    },
    load::{Ledger, Load, Told, content},
};

const BYTES: usize = 300;
/// More than a cluster writes in one epoch.
const LEAP: u64 = 1 << 32;

/// `meshstore recover`: exit code, standard output, standard error.
fn recover(arguments: &[&str]) -> (i32, String, String) {
    harness::run(&[&["recover"], arguments].concat())
}

fn json(arguments: &[&str]) -> Value {
    harness::json(&[&["recover"], arguments].concat())
}

/// A cluster that was written to and killed.
async fn killed(settings: Settings) -> (Cluster, Ledger) {
    let mut cluster = Cluster::start(3, settings).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(400).await;
    let ledger = load.finish().await;
    cluster.kill_all();
    (cluster, ledger)
}

/// A `cluster.toml` of one node, on ports of its own.
fn alone(home: &Path, id: u64) -> (PathBuf, String, String) {
    let [client, peer, http] = addresses();
    let path = home.join("alone.toml");
    let node = listed(id, [&client, &peer, &http]);
    fs::write(&path, format!("[cluster]\nname = \"alone\"\n{node}")).unwrap();
    (path, client, http)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_survives_needs_nothing() {
    let (cluster, _) = killed(EAGER).await;
    let data: Vec<_> = cluster.nodes.iter().map(|node| node.data.clone()).collect();
    let before: Vec<_> = data.iter().map(|data| contents(data)).collect();
    let (code, out, _) = recover(&["plan", "--data", text(&data[0]), "--data", text(&data[1])]);
    assert_eq!(code, 0);
    assert!(out.contains("A quorum of cluster") && out.contains("Start these nodes as they are."), "{out}");
    assert!(!out.contains("recover apply"), "{out}");
    for (before, data) in before.iter().zip(&data) {
        assert_unchanged(before, data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_furthest_survivor_becomes_a_new_cluster_that_the_old_members_cannot_join() {
    let mut cluster = Cluster::start(5, EAGER).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(300).await;
    // One falls behind, and three are lost: two survive, of five.
    let leader = cluster.leader().await;
    let behind = cluster.nodes.iter().map(|node| node.id).find(|id| *id != leader).unwrap();
    cluster.node(behind).kill();
    load.more(300).await;
    let ledger = load.finish().await;
    let ahead = cluster.nodes.iter().map(|node| node.id).find(|id| ![leader, behind].contains(id)).unwrap();
    let applied = until("all to be applied", async || {
        let status = cluster.nodes[ahead as usize - 1].status(true).await?;
        (status.applied_index == status.last_log_index).then_some(status)
    })
    .await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    let [ahead_data, behind_data] = [ahead, behind].map(|id| cluster.nodes[id as usize - 1].data.clone());
    let plan = json(&["plan", "--data", text(&behind_data), "--data", text(&ahead_data)]);
    assert_eq!(plan["chosen"], text(&ahead_data), "{plan}");
    assert_eq!(plan["quorum_survives"], false, "{plan}");
    assert_eq!(plan["absent_voters"].as_array().unwrap().len(), 3, "{plan}");
    let id = plan["survivors"][1]["cluster_id"].as_str().unwrap().to_owned();
    let (_, shown, _) = recover(&["plan", "--data", text(&behind_data), "--data", text(&ahead_data)]);
    assert!(shown.contains("May be lost") && shown.contains(&format!("--confirm {id}")), "{shown}");

    let (toml, client, http) = alone(ahead_data.parent().unwrap(), ahead);
    let before = contents(&ahead_data);
    let arguments = ["apply", "--data", text(&ahead_data), "--config", text(&toml), "--confirm"];
    let wrong = [&arguments[..], &["0123456789abcdef0123456789abcdef"]].concat();
    let (code, _, error) = recover(&wrong);
    assert!(code == 1 && error.contains("is not the cluster of"), "{error}");
    assert_unchanged(&before, &ahead_data);
    let epoch = json(&[&arguments[..], &[&id]].concat());
    assert_ne!(epoch["cluster_id"], id.as_str());
    assert_eq!(epoch["node_id"], ahead);
    let revision = epoch["revision"].as_u64().unwrap();
    // What was open ends without a transaction of its own, so the leap is exact.
    assert!(revision >= applied.revision + LEAP && revision < applied.revision + LEAP + 100, "{epoch}");
    assert!(ahead_data.join("old-epoch-1/IDENTITY").is_file() && ahead_data.join("old-epoch-1/storage").is_dir());

    let node = cluster.node(ahead);
    (node.toml, node.client, node.http) = (toml, client.clone(), http);
    node.start();
    node.ready().await;
    let client = Client::builder().endpoints([client]).connect_lazy().unwrap();
    for (key, told) in &ledger.states {
        let found = client.state().get(key).await;
        match told {
            Told::Acknowledged => assert!(found.unwrap().value == content(key, BYTES), "{key}"),
            Told::Refused(_) => assert!(found.is_err(), "{key}"),
            Told::Unknown(_) => {}
        }
    }
    let written = client.state().put("after", content("after", BYTES)).await.unwrap();
    assert!(written.revision > revision);
    let status = cluster.node(ahead).status(false).await.unwrap();
    assert_eq!((status.role.as_str(), status.cluster_id.as_str()), ("leader", epoch["cluster_id"].as_str().unwrap()));
    assert_eq!(status.members.len(), 1);
    // A restart finds the same, and an old member finds nobody who lets it in.
    cluster.node(ahead).kill();
    cluster.node(ahead).start();
    cluster.node(ahead).ready().await;
    assert_eq!(client.state().get("after").await.unwrap().mod_revision, written.revision);
    let old = cluster.node(behind);
    old.start();
    let seen = until("the old member to be up", async || old.status(false).await).await;
    assert_ne!(seen.role, "leader");
    assert_eq!(seen.cluster_id, id);
    let again = cluster.node(ahead).status(false).await.unwrap();
    assert_eq!(again.members.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_that_is_cut_off_leaves_the_old_or_the_new() {
    let (mut cluster, _) = killed(EAGER).await;
    let node = &cluster.nodes[0];
    let id = json(&["plan", "--data", text(&node.data)])["survivors"][0]["cluster_id"].as_str().unwrap().to_owned();
    let home = node.data.parent().unwrap().to_owned();
    let (toml, client, http) = alone(&home, 1);
    let old_identity = fs::read(node.data.join("IDENTITY")).unwrap();
    let mut seen = [0, 0];
    // strace kills it at the n-th rename; without strace the whole of it is run once.
    for at in (1..).step_by(1) {
        let copied = home.join(format!("copy-{at}"));
        copy(&node.data, &copied);
        let mut strace = Command::new("strace");
        let inject = format!("inject=rename:signal=SIGKILL:when={at}");
        strace.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=rename", "-e", &inject]).arg(binary());
        strace.args(["recover", "apply", "--data", text(&copied), "--config", text(&toml), "--confirm", &id]);
        let Ok(output) = strace.stdin(Stdio::null()).output() else {
            eprintln!("left out: no strace");
            return;
        };
        let done = output.status.success();
        // Whoever looks next finishes what was begun, or finds what was.
        let plan = json(&["plan", "--data", text(&copied)]);
        assert_eq!(plan["survivors"][0]["damage"], Value::Null, "rename {at}: {plan}");
        let is_new = plan["survivors"][0]["cluster_id"].as_str().unwrap() != id;
        assert!(is_new || !done);
        seen[usize::from(is_new)] += 1;
        if is_new {
            assert_eq!(fs::read(copied.join("old-epoch-1/IDENTITY")).unwrap(), old_identity);
            assert!(!copied.join("new-epoch").exists());
        }
        if done {
            break;
        }
        fs::remove_dir_all(copied).unwrap();
        assert!(at < 100);
    }
    assert!(seen[0] > 0 && seen[1] > 1, "{seen:?}");
    // The last of them serves.
    let copied = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
    let copied = copied.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("copy-")).last().unwrap();
    let node = &mut cluster.nodes[0];
    (node.data, node.toml, node.client, node.http) = (copied, toml, client, http);
    node.start();
    node.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_changes_nothing() {
    let (mut cluster, _) = killed(EAGER).await;
    let data = cluster.nodes[0].data.clone();
    let home = data.parent().unwrap().to_owned();
    let before = contents(&data);
    let missing = home.join("missing");
    let (code, _, error) = recover(&["plan", "--data", text(&missing)]);
    assert!(code == 1 && error.contains("No such file"), "{error}");
    let empty = home.join("empty");
    fs::create_dir(&empty).unwrap();
    for command in ["plan", "node"] {
        let (code, _, error) = recover(&[command, "--data", text(&empty)]);
        assert!(code == 1 && error.contains("is no data directory of meshstore"), "{error}");
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    let copied = home.join("copied");
    copy(&data, &copied);
    let (code, _, error) = recover(&["plan", "--data", text(&data), "--data", text(&copied)]);
    assert!(code == 1 && error.contains("are copies of one data directory"), "{error}");
    let (toml, ..) = alone(&home, 9);
    let (code, _, error) = recover(&[
        "apply",
        "--data",
        text(&data),
        "--config",
        text(&toml),
        "--confirm",
        "00000000000000000000000000000001",
    ]);
    assert!(code == 2 && error.contains("has no such node"), "{error}");
    let (code, _, error) = recover(&["apply", "--data", text(&data), "--config", text(&toml), "--confirm", "yes"]);
    assert!(code == 2 && error.contains("32 hex digits"), "{error}");
    assert_unchanged(&before, &data);
    // A node that runs.
    cluster.start_all().await;
    for arguments in [&["plan"][..], &["node", "--confirm"]] {
        let (code, _, error) = recover(&[arguments, &["--data", text(&data)]].concat());
        assert!(code == 1 && error.contains("is in use by another process"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_is_damaged_frees_its_directory() {
    let (mut cluster, _) = killed(EAGER).await;
    let data = cluster.nodes[2].data.clone();
    let log = data.join("mesh_consensus_log");
    let segment = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "log")).min().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[14] ^= 4;
    fs::write(&segment, &bytes).unwrap();
    let said = cluster.nodes[2].refusal(1).await;
    assert!(said.starts_with(&format!("{} is damaged at offset 0", segment.display())), "{said}");
    assert!(said.contains("meshstore recover node"), "{said}");
    let plan = json_of_failure(&["plan", "--data", text(&data)]);
    assert!(plan["survivors"][0]["damage"].as_str().unwrap().contains("is damaged at offset 0"), "{plan}");
    let before = contents(&data);
    let (code, out, _) = recover(&["node", "--data", text(&data)]);
    assert!(code == 0 && out.contains("Nothing was changed."), "{out}");
    assert_unchanged(&before, &data);
    let (code, out, error) = recover(&["node", "--data", text(&data), "--confirm"]);
    assert!(code == 0 && out.contains("set-aside-1") && out.contains("may not come back under id 3"), "{out}{error}");
    assert!(data.join("set-aside-1/IDENTITY").is_file() && !data.join("mesh_consensus_log").exists());
    // The directory is a new node's: under the old id the others refuse it.
    cluster.nodes[0].start();
    cluster.nodes[1].start();
    cluster.nodes[0].ready().await;
    let said = cluster.nodes[2].refusal(1).await;
    assert!(said.contains("data directory was wiped or replaced"), "{said}");
}

/// What a command that fails still answers.
fn json_of_failure(arguments: &[&str]) -> Value {
    let (code, out, _) = recover(&[arguments, &["--json"]].concat());
    assert_eq!(code, 1);
    serde_json::from_str(&out).unwrap()
}
