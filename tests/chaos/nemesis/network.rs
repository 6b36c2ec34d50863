//! Networks in parts, and bad ones. What is cut are the links between nodes; clients reach every node all the time, unless
//! they are what is cut off: so an isolated leader is asked, and must not answer with what is old.

use std::time::Duration;

use rand::Rng;

use super::{Nemesis, World, processes::names};
use crate::{
    cluster::Cluster,
    network::{Link, Network},
};

const CUT: Link = Link {
    cut: true,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    loss: 0.0,
    duplicate: 0.0,
    reorder: 0.0,
    damage: 0.0,
};

pub async fn inject(nemesis: Nemesis, world: &mut World) -> String {
    let leader = match nemesis {
        Nemesis::IsolateLeader | Nemesis::CutClients => world.leader().await,
        _ => world.any(),
    };
    let minority = world.minority();
    let seam = world.rng.random_range(0..world.cluster.nodes.len());
    let cluster = &world.cluster;
    let Some(network) = &cluster.network else { return "no network to cut".into() };
    let whole = Link::default();
    match nemesis {
        Nemesis::IsolateOne | Nemesis::IsolateLeader => {
            cut(cluster, network, |from, to| from == leader || to == leader);
            format!("isolate node {leader}")
        }
        Nemesis::Halves => {
            cut(cluster, network, |from, to| minority.contains(&from) != minority.contains(&to));
            format!("cut off {}", names(&minority))
        }
        Nemesis::OneWayIn => {
            cut(cluster, network, |_, to| to == leader);
            format!("nothing to node {leader}")
        }
        Nemesis::OneWayOut => {
            cut(cluster, network, |from, _| from == leader);
            format!("nothing from node {leader}")
        }
        Nemesis::Ring => ring(cluster, network, seam),
        Nemesis::Bridge => bridge(cluster, network, seam),
        Nemesis::CutClients => {
            let place = cluster.nodes.iter().find(|node| node.id == leader).unwrap().place as usize;
            network.set(0, place, CUT);
            network.set(place, 0, CUT);
            format!("clients do not reach node {leader}")
        }
        Nemesis::Delay => {
            let (delay, jitter) = (Duration::from_millis(20), Duration::from_millis(60));
            network.set_all(Link { delay, jitter, ..whole });
            "delay of 20 to 80 ms".into()
        }
        Nemesis::Loss => {
            network.set_all(Link { loss: 0.1, ..whole });
            "loss of 10 %".into()
        }
        Nemesis::Duplicates => {
            network.set_all(Link { duplicate: 0.33, ..whole });
            "duplicates".into()
        }
        Nemesis::Reorder => {
            network.set_all(Link { delay: Duration::from_millis(2), reorder: 0.25, ..whole });
            "reordering".into()
        }
        Nemesis::Damage => {
            network.set_all(Link { damage: 0.02, ..whole });
            "damaged payloads".into()
        }
        _ => unreachable!("{nemesis:?} is of another family"),
    }
}

fn cut(cluster: &Cluster, network: &Network, apart: impl Fn(u64, u64) -> bool) {
    for from in &cluster.nodes {
        for to in cluster.nodes.iter().filter(|to| to.id != from.id && apart(from.id, to.id)) {
            network.set(from.place as usize, to.place as usize, CUT);
        }
    }
}

/// Each reaches its neighbours only. Three are all neighbours: then it is a chain.
fn ring(cluster: &Cluster, network: &Network, seam: usize) -> String {
    let ids = cluster.ids();
    let count = ids.len();
    let place = |id: u64| (ids.iter().position(|other| *other == id).unwrap() + seam) % count;
    cut(cluster, network, |from, to| {
        let apart = place(from).abs_diff(place(to));
        let round = apart == count - 1;
        apart > 1 && (!round || count == 3)
    });
    "each node reaches its neighbours only".into()
}

/// Two parts, with one node that belongs to both.
fn bridge(cluster: &Cluster, network: &Network, seam: usize) -> String {
    let ids = cluster.ids();
    let bridge = ids[seam];
    let others: Vec<u64> = ids.iter().copied().filter(|id| *id != bridge).collect();
    let left = &others[..others.len() / 2];
    let part = |id: u64| left.contains(&id);
    cut(cluster, network, |from, to| from != bridge && to != bridge && part(from) != part(to));
    format!("two parts, node {bridge} between them")
}

pub fn heal(world: &mut World) {
    if let Some(network) = &world.cluster.network {
        network.clear();
    }
}
