//! Members that come and go. Who is taken out never comes back: a new node, with an id that there never was, takes its place,
//! its disk and its addresses, and joins.
//!
//! With another fault at the same time a change may be refused, or nobody knows what became of it. Then `heal` ends what was
//! begun: whoever was to go is replaced when all is well again.

use std::time::Duration;

use super::{Nemesis, World};
use crate::cluster::{LIMIT, within};

/// How long a change may take while other faults last.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a node that was taken out has to notice.
const GONE: Duration = Duration::from_secs(3);

pub async fn inject(nemesis: Nemesis, world: &mut World) -> String {
    let id = match nemesis {
        Nemesis::Replace => world.any(),
        Nemesis::ReplaceLeader => world.leader().await,
        Nemesis::Transfer => return transfer(world).await,
        _ => unreachable!("{nemesis:?} is of another family"),
    };
    if world.cluster.nodes.len() == 1 {
        return "nobody is left if the only node goes".into();
    }
    world.leaving.insert(id);
    match world.cluster.client(DEADLINE).cluster().remove(id).await {
        Ok(_) if world.broken.contains(&id) || world.is_aside(id) => {
            format!("node {id} is taken out, its place waits for a new disk")
        }
        Ok(_) => format!("node {id} is taken out, node {} takes its place", replace(world, id).await),
        Err(error) => format!("node {id} is to be taken out: {error}"),
    }
}

async fn transfer(world: &World) -> String {
    match world.cluster.client(DEADLINE).cluster().transfer_leadership(0).await {
        Ok(written) => format!("node {} leads", written.leader_id),
        Err(error) => format!("another is to lead: {error}"),
    }
}

/// Starts a new node in the place of one that was taken out: its id.
async fn replace(world: &mut World, id: u64) -> u64 {
    let node = world.cluster.node(id);
    // It stops by itself, unless it is cut off from all who could tell it.
    if node.runs() && node.exit(GONE).await.is_none() {
        node.kill();
    }
    world.leaving.remove(&id);
    // If its disk is full, the new one meets that, too.
    let may_end = world.cluster.node(id).may_end;
    let new = world.cluster.renew(id);
    world.cluster.node(new).start();
    world.cluster.node(new).may_end = may_end;
    new
}

pub async fn heal(world: &mut World) {
    while let Some(id) = world.leaving.first().copied() {
        for node in world.cluster.nodes.iter_mut().filter(|node| node.id != id && !node.runs()) {
            node.start();
        }
        let client = world.cluster.client(DEADLINE);
        let out = within(LIMIT, async || {
            let members = client.cluster().members().await.ok()?;
            let is_member =
                members.members.iter().filter_map(|known| known.member.as_ref()).any(|known| known.node_id == id);
            if is_member {
                // Refused until the others are well; then it is tried again.
                drop(client.cluster().remove(id).await);
            }
            (!is_member).then_some(())
        });
        if out.await.is_none() {
            world.violations.push(format!("node {id} could not be taken out within {LIMIT:?}"));
            world.leaving.clear();
            return;
        }
        replace(world, id).await;
    }
}
