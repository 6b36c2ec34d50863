//! Processes that are killed, paused, stopped and started.

use std::time::Duration;

use rand::Rng;

use super::{Nemesis, World};
use crate::cluster::within;

/// How long the next one waits for the one before.
const READY: Duration = Duration::from_secs(5);

pub async fn inject(nemesis: Nemesis, world: &mut World) -> String {
    match nemesis {
        Nemesis::KillOne => {
            let id = world.any();
            kill(world, &[id])
        }
        Nemesis::KillLeader => {
            let id = world.leader().await;
            kill(world, &[id])
        }
        Nemesis::KillMajority => {
            let ids = world.majority();
            kill(world, &ids)
        }
        Nemesis::KillAll => {
            let ids = world.cluster.ids();
            kill(world, &ids)
        }
        Nemesis::KillAtSync => {
            let (id, when) = (world.leader().await, world.rng.random_range(1..60));
            let node = world.cluster.node(id);
            node.may_end = true;
            node.inject("fdatasync", &format!("signal=SIGKILL:when={when}"));
            format!("kill node {id} in fdatasync {when}")
        }
        Nemesis::PauseOne => {
            let id = world.any();
            pause(world, &[id])
        }
        Nemesis::PauseLeader => {
            let id = world.leader().await;
            pause(world, &[id])
        }
        Nemesis::PauseMajority => {
            let ids = world.majority();
            pause(world, &ids)
        }
        Nemesis::Restart => roll(world, false).await,
        Nemesis::Upgrade => roll(world, true).await,
        _ => unreachable!("{nemesis:?} is of another family"),
    }
}

fn kill(world: &mut World, ids: &[u64]) -> String {
    world.cluster.kill(ids);
    // Half of the time they come back at once, while the others still are about to notice.
    let at_once = world.rng.random_bool(0.5);
    if at_once {
        for id in ids {
            world.cluster.node(*id).start();
        }
    }
    format!("kill {}{}", names(ids), if at_once { ", start" } else { "" })
}

fn pause(world: &mut World, ids: &[u64]) -> String {
    for id in ids {
        world.cluster.node(*id).pause();
    }
    format!("pause {}", names(ids))
}

/// One node after the other is stopped in order and started, with the other build or the same.
async fn roll(world: &mut World, other: bool) -> String {
    let other_binary = world.other_binary.clone();
    for id in world.cluster.ids() {
        // Who is about to be taken out ends by itself, and with an error.
        if world.leaving.contains(&id) {
            continue;
        }
        let node = world.cluster.node(id);
        if node.runs()
            && let Err(error) = node.terminate().await
        {
            world.violations.push(error);
        }
        let node = world.cluster.node(id);
        if let (true, Some(binary)) = (other, &other_binary) {
            // And the next time back again.
            node.binary = if node.binary == *binary { super::super::node::binary() } else { binary.clone() };
        }
        node.start();
        // While something else is wrong, too, it may not find the others; then healing waits for it.
        let node = world.cluster.node(id);
        within(READY, async || (node.has_ended() || node.is_ready().await).then_some(())).await;
    }
    if other { "start all with the other build".into() } else { "stop and start all in turn".into() }
}

pub fn heal(world: &mut World) {
    for node in &mut world.cluster.nodes {
        node.resume();
        node.detach();
    }
}

pub fn names(ids: &[u64]) -> String {
    let names: Vec<String> = ids.iter().map(u64::to_string).collect();
    format!("node {}", names.join("+"))
}
