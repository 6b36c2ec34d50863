//! Changes of a mesh that are decided on what it was some revisions ago: whatever their order, none leaves a route to a node that
//! is not there, a region that is not there, or a name twice; neither do they where the guard of the layer is taken away, and
//! only the references and unique entries of the core stand.

use std::collections::BTreeSet;

use meshstore::{
    Error, Result,
    layers::{
        Write,
        topology::{
            Draft,
            change::{self, Ids},
            show,
        },
    },
    model::{
        Outcome,
        proposal::{Action, Guards, Proposal},
        topology::{
            Cause, Item, ItemKind, JoinPolicy, MeshChange, NewNode, NodeChange, Note, RegionChange, RouteChange,
        },
    },
    state::View,
};
use proptest::prelude::*;

use crate::store::Store;

/// Ids one after the other.
#[derive(Default)]
struct Numbered(u32);

impl Ids for Numbered {
    fn next(&mut self, kind: ItemKind) -> String {
        self.0 += 1;
        format!("{}_{:026}", kind.prefix(), self.0)
    }
}

/// A change before it is known of what: numbers stand for the nodes and regions that there have ever been.
#[derive(Clone, Debug)]
enum Wish {
    Join { name: u8, region: Option<usize> },
    Leave { node: usize },
    Rename { node: usize, name: u8 },
    Move { node: usize, region: Option<usize> },
    AddRoute { ends: (usize, usize) },
    DeleteRoute { ends: (usize, usize) },
    AddRegion { name: u8 },
    DeleteRegion { region: usize },
}

fn wish() -> impl Strategy<Value = Wish> {
    let (node, name, region) = (0..8usize, 0..6u8, 0..4usize);
    let ends = || (0..8usize, 0..8usize);
    prop_oneof![
        3 => (name.clone(), prop::option::of(region.clone())).prop_map(|(name, region)| Wish::Join { name, region }),
        2 => node.clone().prop_map(|node| Wish::Leave { node }),
        1 => (node.clone(), name.clone()).prop_map(|(node, name)| Wish::Rename { node, name }),
        2 => (node, prop::option::of(region.clone())).prop_map(|(node, region)| Wish::Move { node, region }),
        6 => ends().prop_map(|ends| Wish::AddRoute { ends }),
        1 => ends().prop_map(|ends| Wish::DeleteRoute { ends }),
        1 => name.prop_map(|name| Wish::AddRegion { name }),
        1 => region.prop_map(|region| Wish::DeleteRegion { region }),
    ]
}

/// A mesh, and all that there has ever been in it.
struct Mesh {
    store: Store,
    ids: Numbered,
    mesh: String,
    nodes: Vec<String>,
    regions: Vec<String>,
}

impl Mesh {
    fn new() -> Self {
        let mut new =
            Self { store: Store::new(), ids: Numbered::default(), mesh: String::new(), nodes: vec![], regions: vec![] };
        let view = new.view();
        let mut draft = Draft::open(&view).unwrap();
        let open = MeshChange { join: Some(JoinPolicy::Open), ..MeshChange::default() };
        let first = NewNode { name: "first".into(), ip_address: "10.0.0.1".into(), ..NewNode::default() };
        let ids = change::seed_mesh(&mut draft, &mut new.ids, "m".into(), open, first).unwrap();
        let write = draft.finish(Note::default(), Cause::Edit).unwrap().unwrap();
        (new.mesh, new.nodes) = (ids.0, vec![ids.1]);
        assert!(new.propose(write).is_ok());
        new
    }

    fn view(&self) -> View {
        View::new(self.store.revision(), Box::new(self.store.readable()))
    }

    /// The write that a wish becomes on what a view shows; `None`: there is nothing to change.
    fn decide(&mut self, view: &View, wish: &Wish) -> Result<Option<Write>> {
        let mut draft = Draft::open(view)?;
        let Self { ids, mesh, nodes, regions, .. } = self;
        let node = |number: usize| nodes[number % nodes.len()].clone();
        let region = |number: usize| match regions.len() {
            0 => String::new(),
            count => regions[number % count].clone(),
        };
        match wish {
            Wish::Join { name, region: of } => {
                let region_id = of.map(region).unwrap_or_default();
                let ip_address = "10.0.0.2".to_owned();
                let node = NewNode { name: format!("n{name}"), region_id, ip_address, ..NewNode::default() };
                let joined = change::join_mesh(&mut draft, ids, mesh, node)?;
                nodes.push(joined);
            }
            Wish::Leave { node: number } => change::remove_node(&mut draft, mesh, &node(*number))?,
            Wish::Rename { node: number, name } => {
                let renamed = NodeChange { name: Some(format!("n{name}")), ..NodeChange::default() };
                change::modify_node(&mut draft, mesh, &node(*number), renamed)?;
            }
            Wish::Move { node: number, region: to } => {
                let moved = NodeChange { region_id: Some(to.map(region).unwrap_or_default()), ..NodeChange::default() };
                change::modify_node(&mut draft, mesh, &node(*number), moved)?;
            }
            Wish::AddRoute { ends: (from, to) } => {
                let ends = (node(*from), node(*to));
                change::add_route(&mut draft, ids, mesh, (&ends.0, &ends.1), RouteChange::default())?;
            }
            Wish::DeleteRoute { ends: (from, to) } => {
                let ends = (node(*from), node(*to));
                change::delete_route(&mut draft, mesh, (&ends.0, &ends.1))?;
            }
            Wish::AddRegion { name } => {
                regions.push(change::add_region(&mut draft, ids, format!("r{name}"), RegionChange::default())?);
            }
            Wish::DeleteRegion { region: number } => change::delete_region(&mut draft, &region(*number))?,
        }
        draft.finish(Note::default(), Cause::Edit)
    }

    /// `Err`: what it relied on was no longer so.
    fn propose(&mut self, write: Write) -> Result<(), ()> {
        let security_revision = self.store.state.meta().security_revision();
        let guards = Guards { security_revision, compares: write.guards, ..Guards::default() };
        let action = Action::Transact(write.transaction);
        self.store.wall_ms += 10;
        match self.store.propose(Proposal { principal: "tester".into(), call: None, guards, action }) {
            Outcome::Applied { .. } | Outcome::Refused { .. } => Ok(()),
            Outcome::Raced => Err(()),
            other => panic!("{other:?}"),
        }
    }

    /// That all that is named is there, and no name is there twice.
    fn check(&self) {
        let view = self.view();
        let shown = show::topology(&view, &self.mesh).unwrap();
        let members: BTreeSet<&str> = shown.nodes.iter().map(|node| node.id.as_str()).collect();
        let names: BTreeSet<&str> = shown.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!((members.len(), names.len()), (shown.nodes.len(), shown.nodes.len()), "a name is there twice");
        for route in &shown.routes {
            let ends = [route.source_node_id.as_str(), route.target_node_id.as_str()];
            assert!(ends.iter().all(|end| members.contains(end)), "{route:?} leads to a node that is not there");
        }
        let ends: BTreeSet<_> =
            shown.routes.iter().map(|route| (&route.source_node_id, &route.target_node_id)).collect();
        assert_eq!(ends.len(), shown.routes.len(), "a route is there twice");
        for id in shown.nodes.iter().filter_map(|node| node.region_id.as_ref()) {
            let region = show::get(&view, "region_id", ItemKind::Region, id).unwrap();
            assert!(matches!(&region.value, Item::Region(region) if region.id == *id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn conflicting_changes_leave_nothing_dangling(
        wishes in prop::collection::vec((wish(), 0..5usize, prop::bool::weighted(0.8)), 1..40),
    ) {
        let mut mesh = Mesh::new();
        let mut seen = vec![mesh.view()];
        for (wish, ago, guarded) in wishes {
            let was = &seen[seen.len() - 1 - ago.min(seen.len() - 1)];
            let mut decided = mesh.decide(was, &wish);
            loop {
                let write = match decided {
                    Ok(Some(write)) => write,
                    Ok(None) | Err(Error::Refused(_) | Error::NotFound { .. } | Error::InvalidArgument { .. }) => break,
                    Err(error) => panic!("{error}"),
                };
                let guards = if guarded { write.guards } else { vec![] };
                match mesh.propose(Write { guards, ..write }) {
                    Ok(()) => break,
                    Err(()) => decided = mesh.decide(&mesh.view(), &wish),
                }
            }
            mesh.check();
            seen.push(mesh.view());
        }
    }
}
