//! Files that are not what was written, or that a newer program wrote: the node names the file, and stays down.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    harness::{Cluster, EAGER, until},
    load::{Ledger, Load},
    proof::prove,
};

const BYTES: usize = 500;

/// A node that was stopped in order, with a run on disk and entries in the log.
async fn stopped() -> (Cluster, Ledger) {
    let mut cluster = Cluster::start(1, EAGER).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(300).await;
    let ledger = load.finish().await;
    let node = &cluster.nodes[0];
    let applied = node.status(false).await.unwrap().applied_index;
    until("a flush of it all", async || node.metric("flushed_index").await.filter(|flushed| *flushed >= applied)).await;
    cluster.terminate_all().await;
    (cluster, ledger)
}

/// The file in a directory whose name ends like this.
fn file(directory: &Path, ends: &str) -> PathBuf {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(ends));
    paths.sort();
    paths.first().unwrap_or_else(|| panic!("no {ends} in {}", directory.display())).clone()
}

/// A place in the middle of what a file holds.
fn middle(bytes: &[u8]) -> usize {
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let full = |at: &usize| bytes[*at..].iter().take(32).all(|byte| *byte != 0);
    (used / 2..used).find(full).unwrap() + 16
}

/// Starts the node with a file changed, and puts the file back: what the node says. It leaves the file as it found it.
async fn refusal_with(cluster: &mut Cluster, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let whole = fs::read(path).unwrap();
    let mut changed = whole.clone();
    change(&mut changed);
    fs::write(path, &changed).unwrap();
    let said = cluster.nodes[0].refusal(1).await;
    assert!(fs::read(path).unwrap() == changed, "the damaged {} was changed", path.display());
    fs::write(path, &whole).unwrap();
    said
}

/// The offset in `PATH is damaged at offset N: ...`.
fn offset(said: &str, path: &Path) -> usize {
    let rest = said.strip_prefix(&format!("{} is damaged at offset ", path.display()));
    let number = rest.and_then(|rest| rest.split_once(": ")).unwrap_or_else(|| panic!("{said}")).0;
    number.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_named_with_the_offset() {
    let (mut cluster, ledger) = stopped().await;
    let path = file(&cluster.nodes[0].data.join("mesh_consensus_log"), ".log");
    let at = middle(&fs::read(&path).unwrap());
    let said = refusal_with(&mut cluster, &path, |bytes| bytes[at] ^= 4).await;
    let named = offset(&said, &path);
    assert!(named <= at && at < named + (64 << 10), "{at} was damaged: {said}");
    cluster.start_all().await;
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_run_is_named_with_the_offset() {
    let (mut cluster, ledger) = stopped().await;
    let storage = cluster.nodes[0].data.join("storage");
    let path = file(&storage, ".run");
    let said = refusal_with(&mut cluster, &path, |bytes| bytes[20] ^= 4).await;
    assert_eq!(offset(&said, &path), 0, "{said}");
    let said = refusal_with(&mut cluster, &path, |bytes| bytes.truncate(bytes.len() - 1)).await;
    assert!(offset(&said, &path) < fs::read(&path).unwrap().len(), "{said}");
    // What stands in the middle is read when it is needed: without an index to build it from.
    for entry in fs::read_dir(&storage).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let at = middle(&fs::read(&path).unwrap());
    let said = refusal_with(&mut cluster, &path, |bytes| bytes[at] ^= 4).await;
    let named = offset(&said, &path);
    assert!(named <= at && at < named + (128 << 10), "{at} was damaged: {said}");
    // With the file as it was the index is built, and nothing is missing.
    cluster.start_all().await;
    let log = cluster.nodes[0].log();
    assert!(log.contains("built the index") || log.contains("scanned the index"), "{log}");
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pointers_are_named() {
    let (mut cluster, ledger) = stopped().await;
    let data = cluster.nodes[0].data.clone();
    for path in [data.join("IDENTITY"), data.join("storage/manifest")] {
        let said = refusal_with(&mut cluster, &path, |bytes| *bytes.last_mut().unwrap() ^= 4).await;
        assert_eq!(offset(&said, &path), 0);
        let said = refusal_with(&mut cluster, &path, Vec::clear).await;
        assert_eq!(offset(&said, &path), 0);
    }
    cluster.start_all().await;
    prove(&cluster, &ledger, BYTES).await;
}

/// Makes the envelope at the front one of the next version, with the right checksum.
fn next_version(bytes: &mut [u8]) {
    bytes[3] += 1;
    let length = u32::from_le_bytes(bytes[5..9].try_into().unwrap()) as usize;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[2..9]), &bytes[13..13 + length]);
    bytes[9..13].copy_from_slice(&checksum.to_le_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_program_wrote_is_refused_as_such() {
    let (mut cluster, ledger) = stopped().await;
    let data = cluster.nodes[0].data.clone();
    let (log, storage) = (data.join("mesh_consensus_log"), data.join("storage"));
    let files = [data.join("IDENTITY"), file(&log, ".log"), storage.join("manifest"), file(&storage, ".run")];
    for path in files {
        let said = refusal_with(&mut cluster, &path, |bytes| next_version(bytes)).await;
        assert!(said.starts_with(path.to_str().unwrap()), "{said}");
        assert!(
            said.contains("format version 2 is newer than this program knows (1); use a newer meshstore"),
            "{said}"
        );
        assert!(!said.contains("damaged"), "{said}");
    }
    cluster.start_all().await;
    prove(&cluster, &ledger, BYTES).await;
}
