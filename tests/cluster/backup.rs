//! Backups of running clusters, and the check of directories whose nodes do not run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    harness::{Cluster, EAGER, assert_unchanged, contents, json, run, text, until},
    load::Load,
};

const BYTES: usize = 300;

/// Every file of the store in a data directory, the index left out.
fn store_files(data: &Path) -> Vec<PathBuf> {
    let truth = |path: &Path| path.extension().is_some_and(|extension| extension == "run" || extension == "base");
    contents(data).into_iter().map(|(path, _)| path).filter(|path| truth(path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_under_load_holds_what_was_acknowledged_before() {
    let cluster = Cluster::start(3, EAGER).await;
    let directory = tempfile::tempdir().unwrap();
    let mut load = Load::start(&cluster, BYTES);
    load.more(400).await;
    let written = cluster.client().state().put("before", "the backup").await.unwrap();
    let file = directory.path().join("under-load");
    for endpoint in cluster.endpoints() {
        let made = json(&["--endpoints", &endpoint, "backup", "create", text(&file)]);
        assert!(made["revision"].as_u64().unwrap() >= written.revision, "{made}");
        assert_eq!(made["members"].as_array().unwrap().len(), 3, "{made}");
        assert_eq!(made, json(&["backup", "inspect", text(&file)]));
        fs::remove_file(&file).unwrap();
    }
    load.finish().await;

    let endpoints = cluster.endpoints().join(",");
    let (made, status) = until("a backup and a status of one log entry", async || {
        let _ = fs::remove_file(&file);
        let made = json(&["--endpoints", &endpoints, "backup", "create", text(&file)]);
        let status = cluster.client().cluster().status(true).await.ok()?;
        (made["position"]["index"] == status.applied_index).then_some((made, status))
    })
    .await;
    assert_eq!(made["state_hash"], status.state_hash.as_str());
    assert_eq!(made["revision"], status.revision);
    let kept = status.keyspaces.iter().map(|keyspace| (keyspace.name.as_str(), keyspace.records));
    let held = made["keyspaces"].as_array().unwrap();
    let held = held.iter().map(|keyspace| (keyspace["name"].as_str().unwrap(), keyspace["records"].as_u64().unwrap()));
    assert!(kept.eq(held), "{made} {status:?}");

    let before = fs::read(&file).unwrap();
    let (code, _, error) = run(&["--endpoints", &endpoints, "backup", "create", text(&file)]);
    assert!(code == 2 && error.contains("exists; a backup replaces nothing"), "{code} {error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_damage_to_a_backup_is_found() {
    let cluster = Cluster::start(1, EAGER).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(200).await;
    load.finish().await;
    let directory = tempfile::tempdir().unwrap();
    let (file, damaged) = (directory.path().join("whole"), directory.path().join("damaged"));
    json(&["--endpoints", &cluster.endpoints().join(","), "backup", "create", text(&file)]);
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&damaged, bytes).unwrap();
        let (code, out, error) = run(&["backup", "inspect", text(&damaged)]);
        assert!(code == 1 && error.contains(text(&damaged)), "{what}: {code} {out}{error}");
    };
    for part in 0..24 {
        let mut bytes = whole.clone();
        bytes[whole.len() * part / 24] ^= 1 << (part % 8);
        refused(&bytes, "a flipped bit");
        refused(&whole[..whole.len() * part / 24], "cut short");
    }
    refused(&[whole.as_slice(), b"x"].concat(), "a byte behind the end");
    refused(b"[cluster]\nname = \"local\"\n", "another file");
    let run_file = store_files(&cluster.nodes[0].data).pop().unwrap();
    if run_file.extension().is_some_and(|extension| extension == "run") {
        refused(&fs::read(&run_file).unwrap(), "a run, which is no backup by itself");
    }
    let (code, _, error) = run(&["backup", "inspect", text(&directory.path().join("none"))]);
    assert!(code == 1 && error.contains("none"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_verified_while_its_node_does_not_run() {
    let mut cluster = Cluster::start(3, EAGER).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(400).await;
    let data: Vec<_> = cluster.nodes.iter().map(|node| node.data.clone()).collect();
    let (code, _, error) = run(&["verify", text(&data[0])]);
    assert!(code == 1 && error.contains("in use"), "{code} {error}");
    load.finish().await;
    // Which flushes: what is to be damaged is there.
    let file = tempfile::tempdir().unwrap();
    json(&["--endpoints", &cluster.endpoints()[1], "backup", "create", text(&file.path().join("backup"))]);
    cluster.kill_all();

    let before: Vec<_> = data.iter().map(|data| contents(data)).collect();
    let all: Vec<&str> = data.iter().map(|data| text(data)).collect();
    let found = json(&[&["verify"], &all[..]].concat());
    for (number, found) in found.as_array().unwrap().iter().enumerate() {
        assert_eq!((&found["whole"], &found["node_id"]), (&Value::Bool(true), &Value::from(number + 1)), "{found}");
    }
    for (before, data) in before.iter().zip(&data) {
        assert_unchanged(before, data);
    }

    let file = store_files(&data[1]).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&file, bytes).unwrap();
    let (code, out, error) = run(&[&["verify"], &all[..]].concat());
    assert!(code == 1 && error.contains("1 of 3 directories are damaged"), "{error}");
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(out.contains("DAMAGED") && out.contains(name) && out.contains("offset"), "{out}");

    let empty = tempfile::tempdir().unwrap();
    let (code, _, error) = run(&["verify", text(empty.path())]);
    assert!(code != 0 && !error.is_empty(), "{error}");
}
