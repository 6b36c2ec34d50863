//! Disks that fill: file systems of their own for the nodes, and ballast that takes their room.
//!
//! Only root may mount; elsewhere these tests say that they are left out.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use meshstore::{Error, client::Status};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tempfile::TempDir;

use crate::{
    harness::{Cluster, Settings, http_get, until},
    load::{Load, content},
    proof::prove,
};

/// Little is needed: two segments of the log (128 MiB), and the reserve. A node is full when half of that is gone.
const SMALL: Settings = Settings { storage: "flush_mib = 1\nflush_after_s = 1\nreserve_mib = 64\n", raft: "" };
const BYTES: usize = 500;
const DISK_MIB: u64 = 384;

/// A file system of its own, unmounted when it is dropped. Drop it after the processes that use it.
struct Mount(TempDir);

impl Mount {
    /// `None` if this process may not mount.
    fn new() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_MIB}m"), "meshstore-test"]).arg(directory.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(directory)),
            other => {
                eprintln!("left out: this process cannot mount a file system ({other:?})");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn free_mib(&self) -> u64 {
        let stat = statvfs(self.path()).unwrap();
        (stat.f_bavail * stat.f_frsize) >> 20
    }

    /// Takes all room but this.
    fn leave(&self, mib: u64) {
        let file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        let length = file.metadata().unwrap().len();
        let more = self.free_mib().checked_sub(mib).expect("so much is free");
        fallocate(&file, FallocateFlags::empty(), length, more << 20).unwrap();
        assert!(self.free_mib() <= mib + 1, "{} MiB are free", self.free_mib());
    }

    fn relieve(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A cluster of which each node has a small disk; `None` if this process may not mount.
async fn cluster(count: u64) -> Option<(Vec<Mount>, Cluster)> {
    let mut cluster = Cluster::new(count, SMALL);
    let mut mounts = Vec::new();
    for node in &mut cluster.nodes {
        let mount = Mount::new()?;
        node.data = mount.path().join("data");
        mounts.push(mount);
    }
    cluster.start_all().await;
    Some((mounts, cluster))
}

async fn status_where(cluster: &Cluster, id: u64, what: &str, is: impl Fn(&Status) -> bool) -> Status {
    let node = cluster.nodes.iter().find(|node| node.id == id).unwrap();
    until(what, async || node.status(false).await.filter(&is)).await
}

fn short(status: &Status) -> bool {
    status.disk.is_some_and(|disk| disk.short)
}

async fn is_ready(cluster: &Cluster) {
    for node in &cluster.nodes {
        until("a node to be ready", async || http_get(&node.http, "/readyz").await.filter(|(code, _)| *code == 200))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_room_hands_over_and_writes_go_on() {
    let Some((mounts, cluster)) = cluster(3).await else { return };
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    let first = cluster.leader().await;
    let mount = &mounts[first as usize - 1];
    mount.leave(100);
    let seen = status_where(&cluster, first, "the alarm", |status| short(status) && status.role == "follower").await;
    let disk = seen.disk.unwrap();
    assert!(disk.free_bytes < disk.needed_bytes && disk.needed_bytes >= 192 << 20 && !disk.full, "{disk:?}");
    load.more(300).await;
    let leader = cluster.leader().await;
    assert_ne!(leader, first);
    // The new leader knows of the old one, and refuses nobody.
    let told = status_where(&cluster, leader, "the report of a follower", |status| {
        status.members.iter().any(|member| member.node_id == first && member.disk.is_some_and(|disk| disk.short))
    })
    .await;
    assert_eq!((told.writes_refused.as_str(), short(&told)), ("", false));
    let node = &cluster.nodes[first as usize - 1];
    assert_eq!(node.metric("disk_alarm").await, Some(1));
    assert!(node.metric("disk_free_bytes").await < node.metric("disk_needed_bytes").await);
    assert!(node.log().contains("short of disk space: handing over the lead"), "{}", node.log());
    is_ready(&cluster).await;

    mount.relieve();
    status_where(&cluster, first, "the end of the alarm", |status| !short(status)).await;
    assert!(node.log().contains("there is room on the disk again"), "{}", node.log());
    assert_eq!(node.metric("disk_alarm").await, Some(0));
    let ledger = load.finish().await;
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_a_quorum_only_deletes_and_reads_go_on_until_there_is_room() {
    let Some((mounts, cluster)) = cluster(3).await else { return };
    let client = cluster.client();
    for number in 0..20 {
        client.state().put(&format!("key-{number}"), content("before", BYTES)).await.unwrap();
    }
    let leader = cluster.leader().await;
    for (mount, node) in mounts.iter().zip(&cluster.nodes).filter(|(_, node)| node.id != leader) {
        mount.leave(100);
        status_where(&cluster, node.id, "the alarm", short).await;
    }
    let stopped = status_where(&cluster, leader, "the refusal", |status| !status.writes_refused.is_empty()).await;
    assert!(stopped.writes_refused.contains("of 3 voters only 1 "), "{}", stopped.writes_refused);
    let said = http_get(&cluster.nodes[leader as usize - 1].http, "/readyz").await.unwrap();
    assert!(said.0 == 200 && said.1.contains("but writes that grow the data are refused: "), "{said:?}");
    let error = client.state().put("more", content("more", BYTES)).await.unwrap_err();
    let Error::ResourceExhausted { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("MiB free") && reason.contains("deletes are taken"), "{reason}");
    client.state().delete("key-0").await.unwrap();
    assert!(client.state().get("key-1").await.is_ok());
    // So on the node that leads, whatever disk it has.
    mounts[leader as usize - 1].leave(100);
    status_where(&cluster, leader, "the leader's own alarm", short).await;
    let error = client.state().put("more", content("more", BYTES)).await.unwrap_err();
    let path = cluster.nodes[leader as usize - 1].data.display().to_string();
    assert!(error.to_string().contains(&path), "{error}");
    client.state().delete("key-1").await.unwrap();
    is_ready(&cluster).await;
    for node in &cluster.nodes {
        assert!(node.pinned().state().get("key-2").await.is_ok());
    }
    for mount in &mounts {
        mount.relieve();
    }
    until("writes to be taken again", async || client.state().put("more", content("more", BYTES)).await.ok()).await;
    let log = cluster.nodes[leader as usize - 1].log();
    // It may have handed over to the first that had room again.
    assert!(log.contains("writes that grow the data are refused"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_is_full_lags_and_catches_up() {
    let Some((mounts, cluster)) = cluster(3).await else { return };
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    let follower = cluster.follower().await;
    let mount = &mounts[follower as usize - 1];
    mount.leave(28);
    let full = |status: &Status| status.disk.is_some_and(|disk| disk.full);
    let seen = status_where(&cluster, follower, "a full disk", full).await;
    load.more(2_000).await;
    let later = status_where(&cluster, follower, "a full disk", full).await;
    let leader = cluster.leader().await;
    let ahead = status_where(&cluster, leader, "the leader", |status| status.role == "leader").await;
    // What had arrived before it was noticed may be in.
    assert!(later.last_log_index < ahead.last_log_index, "{seen:?} {later:?} {ahead:?}");
    let node = &cluster.nodes[follower as usize - 1];
    assert!(node.log().contains("the disk is full"), "{}", node.log());
    mount.relieve();
    let ledger = load.finish().await;
    prove(&cluster, &ledger, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_refuses_all_writes_when_even_the_reserve_goes_and_survives_it() {
    let Some((mounts, mut cluster)) = cluster(1).await else { return };
    let client = cluster.client();
    client.state().put("key", content("key", BYTES)).await.unwrap();
    mounts[0].leave(28);
    status_where(&cluster, 1, "a full disk", |status| status.disk.is_some_and(|disk| disk.full)).await;
    for error in [
        client.state().put("more", content("more", BYTES)).await.unwrap_err(),
        client.state().delete("key").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("nothing is taken"), "{error}");
        assert!(!error.may_have_applied());
    }
    assert!(client.state().get("key").await.is_ok());
    assert_eq!(cluster.nodes[0].metric("disk_alarm").await, Some(2));
    let (code, said) = http_get(&cluster.nodes[0].http, "/readyz").await.unwrap();
    assert!(code == 200 && said.contains("but the disk of this node is full, and takes no more entries"), "{said}");
    // It stops in order, and starts, with the disk as it is.
    drop(client);
    cluster.terminate_all().await;
    cluster.start_all().await;
    let client = cluster.client();
    assert!(client.state().get("key").await.is_ok());
    mounts[0].relieve();
    until("writes to be taken again", async || {
        client.clone().with_deadline(Duration::from_secs(5)).state().delete("key").await.ok()
    })
    .await;
    cluster.terminate_all().await;
}
