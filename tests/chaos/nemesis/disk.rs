//! Disks that lose, refuse, lie, fill up, or come back with other bytes.
//!
//! A node whose disk refuses something stops with the reason, and is started again when the disk is well. A node whose
//! files were changed either does not start and names the file, or starts and then holds what the others hold.

use std::{fs, path::Path, time::Duration};

use rand::Rng;

use super::{Nemesis, World};
use crate::{
    cluster::{copy, within},
    damage::{self, Kind},
    tools::must,
};

pub async fn inject(nemesis: Nemesis, world: &mut World) -> String {
    let id = world.any();
    if world.leaving.contains(&id) {
        return format!("node {id} is about to go; its disk is spared");
    }
    match nemesis {
        Nemesis::PowerCutOne => cut(world, &[id]),
        Nemesis::PowerCutAll => {
            let ids = world.cluster.ids();
            cut(world, &ids)
        }
        Nemesis::FailingSync => {
            let from = world.rng.random_range(1..5);
            trace(world, id, &format!("error=EIO:when={from}+"), true);
            world.broken.insert(id);
            format!("syncs of node {id} fail")
        }
        Nemesis::LyingSync => {
            trace(world, id, "retval=0", false);
            tokio::time::sleep(Duration::from_millis(500)).await;
            // What it believes to have on disk is in the kernel's memory, which outlives it.
            world.cluster.kill(&[id]);
            // With a power cut on top the node would have lost what it promised, and rightly so.
            must("sync", &["-f", world.cluster.node(id).data.to_str().unwrap()]);
            format!("syncs of node {id} do nothing, kill")
        }
        Nemesis::SlowSync => {
            trace(world, id, "delay_enter=300000", false);
            format!("syncs of node {id} take 300 ms more")
        }
        Nemesis::DiskFull => {
            let leave_kib = [0, 16, 512][world.rng.random_range(0..3)];
            let node = world.cluster.node(id);
            node.may_end = true;
            match node.volume.as_ref().map(|volume| volume.fill(leave_kib)) {
                Some(Ok(())) => format!("disk of node {id} full, but for {leave_kib} KiB"),
                failed => format!("disk of node {id} could not be filled: {failed:?}"),
            }
        }
        Nemesis::ReadOnly => {
            world.broken.insert(id);
            let node = world.cluster.node(id);
            node.may_end = true;
            match node.volume.as_ref().map(crate::volume::Volume::turn_read_only) {
                Some(Ok(())) => format!("disk of node {id} takes no writes"),
                failed => format!("disk of node {id} could not be made read-only: {failed:?}"),
            }
        }
        Nemesis::FlippedBit | Nemesis::Truncated | Nemesis::Wiped if world.is_aside(id) => {
            format!("the files of node {id} are damaged already")
        }
        Nemesis::FlippedBit | Nemesis::Truncated | Nemesis::Wiped if world.broken.contains(&id) => {
            format!("the disk of node {id} is broken already")
        }
        Nemesis::FlippedBit => damaged(world, id, Kind::Flip).await,
        Nemesis::Truncated => damaged(world, id, Kind::Truncate).await,
        Nemesis::Wiped => wiped(world, id).await,
        _ => unreachable!("{nemesis:?} is of another family"),
    }
}

fn cut(world: &mut World, ids: &[u64]) -> String {
    let frozen = world.rng.random_bool(0.5);
    match world.cluster.cut_power(ids, frozen) {
        Ok(()) => format!("power cut of {}", super::processes::names(ids)),
        Err(error) => format!("no power cut: {error}"),
    }
}

fn trace(world: &mut World, id: u64, what: &str, may_end: bool) {
    let node = world.cluster.node(id);
    node.may_end = may_end;
    node.inject("fsync,fdatasync", what);
}

/// Whether a stopped node has a directory: one that took another's place a moment ago may have none yet.
fn has_files(world: &mut World, id: u64) -> bool {
    world.cluster.node(id).data.exists()
}

/// Puts the directory of a stopped node aside; `heal` puts it back.
fn put_aside(world: &mut World, id: u64, keep_copy: bool) {
    let data = world.cluster.node(id).data.clone();
    let aside = data.with_extension("aside");
    fs::rename(&data, &aside).unwrap();
    if keep_copy {
        copy(&aside, &data);
    }
    settle(&data);
    world.aside.push((id, aside, data));
}

/// Has the disk keep what the test did to its files: a power cut is to lose only what the node did not sync.
fn settle(data: &Path) {
    let home = data.parent().unwrap();
    rustix::fs::syncfs(fs::File::open(home).unwrap()).unwrap();
}

async fn damaged(world: &mut World, id: u64, kind: Kind) -> String {
    world.cluster.kill(&[id]);
    // The end of a log that was cut off in a kill looks like one that never was written. So no more than one node may
    // lack its end: the others must have everything first.
    if !others_are_whole(world, id).await {
        return format!("kill node {id}; its files are spared, since others lack something");
    }
    if !has_files(world, id) {
        return format!("kill node {id} before it has files");
    }
    put_aside(world, id, true);
    let data = world.cluster.node(id).data.clone();
    let done = damage::damage(&data, kind, &mut world.rng);
    match start_damaged(world, id).await {
        Some(said) if damage::is_clear(&said) => format!("{done} of node {id}: refused"),
        Some(said) => {
            world.violations.push(format!("{done} of node {id}: it stopped without saying what is wrong: {said}"));
            format!("{done} of node {id}: stopped")
        }
        None => {
            // It goes on with what it has: then that is whole, and the other copy is not needed.
            world.aside.retain(|(of, aside, _)| *of != id || fs::remove_dir_all(aside).is_err());
            format!("{done} of node {id}: it starts")
        }
    }
}

/// Waits until all others have applied all that their leader has.
async fn others_are_whole(world: &World, id: u64) -> bool {
    let others: Vec<_> = world.cluster.nodes.iter().filter(|node| node.id != id).collect();
    if others.iter().any(|node| !node.serves()) {
        return false;
    }
    let mut wanted = None;
    let whole = within(Duration::from_secs(8), async || {
        let mut statuses = Vec::new();
        for node in &others {
            statuses.push(node.status(false).await?);
        }
        let leader = statuses.iter().filter(|status| status.role == "leader").max_by_key(|status| status.term)?;
        let (term, index) = *wanted.get_or_insert((leader.term, leader.last_log_index));
        let all = statuses.iter().all(|status| status.term == term && status.applied_index >= index);
        if leader.term != term {
            wanted = None;
        }
        all.then_some(())
    });
    whole.await.is_some()
}

/// Starts a node that may refuse: what it then says; nothing if it runs.
async fn start_damaged(world: &mut World, id: u64) -> Option<String> {
    let node = world.cluster.node(id);
    node.start();
    node.may_end = true;
    let ended = within(Duration::from_secs(20), async || match node.has_ended() {
        true => Some(true),
        false => node.is_ready().await.then_some(false),
    })
    .await;
    (ended == Some(true)).then(|| world.cluster.node(id).last_words())
}

async fn wiped(world: &mut World, id: u64) -> String {
    world.cluster.kill(&[id]);
    if !has_files(world, id) {
        return format!("kill node {id} before it has files");
    }
    put_aside(world, id, false);
    // A founder looks for those that its configuration names: where one was replaced meanwhile, another answers.
    let is_clear = |said: &str| said.contains("was wiped or replaced") || said.contains("correct the addresses in");
    match start_damaged(world, id).await {
        Some(said) if is_clear(&said) => {}
        Some(said) => world.violations.push(format!("wiped node {id} stopped, but said: {said}")),
        None => {
            // Without a quorum of others nobody can tell it; else it must not join under its old name.
            let alone = world.cluster.nodes.iter().filter(|node| node.id != id && node.serves()).count();
            if alone > world.cluster.nodes.len() / 2 && world.cluster.node(id).is_ready().await {
                world.violations.push(format!("wiped node {id} serves under its old id"));
            }
        }
    }
    format!("node {id} wiped")
}

pub async fn heal(world: &mut World) {
    for node in &mut world.cluster.nodes {
        if let Some(volume) = &node.volume {
            volume.relieve();
        }
    }
    for id in std::mem::take(&mut world.broken) {
        let node = world.cluster.node(id);
        // Of a disk that failed it is known what it holds only when it is opened again.
        if node.runs() && node.exit(Duration::from_millis(1_500)).await.is_none() {
            node.kill();
        }
        if let Some(volume) = &mut node.volume {
            volume.remount();
        }
    }
    // Last: what is put back needs a disk that takes writes.
    for (id, aside, data) in std::mem::take(&mut world.aside) {
        world.cluster.kill(&[id]);
        put_back(&aside, &data);
    }
}

fn put_back(aside: &Path, data: &Path) {
    if data.exists() {
        fs::remove_dir_all(data).unwrap();
    }
    fs::rename(aside, data).unwrap();
    settle(data);
}
