//! One mesh that many change at once: nodes come and go with their routes, whole meshes are applied, and confirmed or not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use meshstore::{
    Client, Error, Result,
    client::{
        PageRequest,
        topology::{
            Cause, HistoryEntry, Item, JoinPolicy, MeshChange, MeshTopology, NodeChange, NodeSpec, RouteChange,
            RouteSpec, Spec, Topology as Handle,
        },
    },
};
use rand::{Rng, seq::IndexedRandom};

use super::{
    super::history::{
        Recorder, Verdict,
        topology::{self, Call, Reply},
    },
    Seat, Workload, answered, lines,
};

const MESH: &str = "the-mesh";

#[derive(Default)]
pub struct Topology {
    recorder: Recorder<Call, Reply>,
}

/// A ring of so many nodes, which has what `tag` says.
fn ring(tag: u64, count: usize) -> Spec {
    let name = |at: usize| format!("ring-{}", at % count);
    let node = |at| NodeSpec {
        name: name(at),
        region: None,
        change: NodeChange {
            ip_address: Some("10.0.0.1".into()),
            version: Some(tag.to_string()),
            ..NodeChange::default()
        },
    };
    let route = |at: usize| RouteSpec { source: name(at), target: name(at + 1), change: RouteChange::default() };
    Spec {
        mesh: MESH.into(),
        mesh_change: MeshChange { join: Some(JoinPolicy::Open), ..MeshChange::default() },
        nodes: (0..count).map(node).collect(),
        routes: if count > 1 { (0..count).map(route).collect() } else { vec![] },
        ..Spec::default()
    }
}

impl Topology {
    async fn change(&self, seat: &mut Seat) {
        let topology = seat.client.topology();
        let Ok(mesh) = topology.mesh_by_name(MESH).await else { return };
        let mesh_id = mesh.value.id;
        let Ok(nodes) = topology.nodes(&mesh_id).await else { return };
        let reason = format!("{}-{}", seat.process, seat.rng.random::<u32>());
        let by = topology.by(seat.process.to_string(), reason.clone());
        let mut node = || nodes.choose(&mut seat.rng).map(|node| node.value.id.clone()).unwrap_or_default();
        let (a, b) = (node(), node());
        let choice = seat.rng.random_range(0..100);
        let (tag, count) = (seat.rng.random(), seat.rng.random_range(1..6));
        let confirms = seat.rng.random_bool(0.5);
        let change = async || -> Result<Option<Reply>> {
            let revision = match choice {
                0..15 => {
                    let name = format!("node-{reason}");
                    let node =
                        NodeChange { name: Some(name), ip_address: Some("10.0.0.2".into()), ..NodeChange::default() };
                    by.join_mesh(&mesh_id, None, node).await?;
                    return Ok(None);
                }
                15..50 => {
                    by.add_route(&mesh_id, &a, &b, RouteChange::default()).await?;
                    return Ok(None);
                }
                50..65 => by.delete_route(&mesh_id, &a, &b).await?.revision,
                65..75 => by.leave_mesh(&mesh_id, &a).await?.revision,
                75..85 => {
                    let change = NodeChange { version: Some(reason.clone()), ..NodeChange::default() };
                    by.modify_node(&mesh_id, &a, change).await?.revision
                }
                85..95 => by.apply(ring(tag, count), None).await?.revision,
                _ => {
                    let applied = by.apply_to_confirm(ring(tag, count), None, Duration::from_secs(1)).await?;
                    if confirms {
                        // Without a reason of its own; it may come too late.
                        let _ = by.clone().by("confirms", "").confirm(applied.revision).await;
                    }
                    applied.revision
                }
            };
            Ok(Some(Reply::Changed { revision }))
        };
        // What answers no revision may have been done all the same.
        let number = self.recorder.invoke(seat.process, Call::Change { reason: reason.clone() }, (seat.stage.now_ns)());
        let outcome = match change().await {
            Ok(Some(reply)) => super::Outcome::Ok(reply),
            Ok(None) => super::Outcome::Unknown,
            Err(error) if error.may_have_applied() => super::Outcome::Unknown,
            Err(_) => super::Outcome::Failed,
        };
        self.recorder.complete(number, outcome, (seat.stage.now_ns)());
    }

    async fn read(&self, seat: &Seat) -> Option<Reply> {
        let topology = seat.client.topology();
        let read = async {
            let (entries, shown) = everything(&topology).await?;
            let problem = problem(&entries, &shown);
            let mut changes: Vec<(u64, String)> = Vec::new();
            for entry in entries.into_iter().filter(|entry| !entry.change.reason.is_empty()) {
                if changes.last().is_none_or(|(revision, _)| *revision != entry.revision) {
                    changes.push((entry.revision, entry.change.reason));
                }
            }
            Ok(Some(Reply::Read { changes, problem }))
        };
        seat.record(&self.recorder, Call::Read, read).await
    }
}

/// The whole history, and the mesh at the revision of its end.
async fn everything(topology: &Handle) -> Result<(Vec<HistoryEntry>, MeshTopology)> {
    loop {
        let mut entries = Vec::new();
        let mut page = PageRequest { limit: 1_000, ..PageRequest::default() };
        loop {
            let found = topology.history(0, page.clone()).await?;
            entries.extend(found.items);
            page.cursor = found.next_cursor;
            if page.cursor.is_empty() {
                break;
            }
        }
        let shown = topology.show(&topology.mesh_by_name(MESH).await?.value.id).await?;
        // Otherwise somebody was in between.
        if entries.last().is_some_and(|last| last.revision == shown.changed) {
            return Ok((entries, shown));
        }
    }
}

/// What cannot be: an edit that does not follow from the one before, a mesh that is not what its history says, a route
/// without ends, a change while another waited to be confirmed.
fn problem(entries: &[HistoryEntry], shown: &MeshTopology) -> Option<String> {
    let mut items: BTreeMap<&str, &Item> = BTreeMap::new();
    let mut waits = None;
    for HistoryEntry { revision, change, .. } in entries {
        match (waits, &change.cause) {
            (Some(at), Cause::ApplyUnconfirmed(_)) if at == *revision => {}
            (None, Cause::ApplyUnconfirmed(_)) => waits = Some(*revision),
            (Some(at), Cause::Confirm(of)) if of == &at => waits = None,
            (Some(_), Cause::Unconfirmed(_) | Cause::Rollback(_)) => waits = None,
            (Some(at), cause) => return Some(format!("{cause:?} at {revision} while the change at {at} waited")),
            (None, _) => {}
        }
        for edit in &change.edits {
            let Some(id) = edit.item().map(Item::id) else { continue };
            if items.get(id).copied() != edit.before.as_ref() {
                return Some(format!("at revision {revision} {id} was not what the change before had left"));
            }
            match &edit.after {
                Some(item) => items.insert(id, item),
                None => items.remove(id),
            };
        }
    }
    let count = items.len();
    let there = |item: Item| items.get(item.id()) == Some(&&item);
    let nodes = shown.nodes.iter().all(|node| there(Item::Node(node.clone())));
    let routes = shown.routes.iter().all(|route| there(Item::Route(route.clone())));
    if !nodes || !routes || count != 1 + shown.nodes.len() + shown.routes.len() {
        return Some(format!("the mesh at revision {} is not what its history says", shown.changed));
    }
    let member = |id: &String| shown.nodes.iter().any(|node| node.id == *id);
    let dangling = shown.routes.iter().find(|route| !member(&route.source_node_id) || !member(&route.target_node_id));
    dangling.map(|route| format!("{} leads to a node that is not there", route.id))
}

impl Workload for Topology {
    fn name(&self) -> &'static str {
        "topology"
    }

    fn prepare(self: Arc<Self>, client: Client) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            match client.topology().apply(ring(0, 4), None).await {
                // Somebody was faster.
                Ok(_) | Err(Error::Refused(_)) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn work(self: Arc<Self>, mut seat: Seat) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while seat.next().await {
                if seat.rng.random_bool(0.05) {
                    self.read(&seat).await;
                } else {
                    self.change(&mut seat).await;
                }
            }
        })
    }

    fn conclude(self: Arc<Self>, seat: Seat) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            while self.read(&seat).await.is_none() {}
            Ok(())
        })
    }

    fn verdict(&self) -> Verdict {
        topology::check(&self.recorder.history())
    }

    fn answered(&self) -> usize {
        answered(&self.recorder)
    }

    fn lines(&self) -> String {
        lines(&self.recorder)
    }
}
