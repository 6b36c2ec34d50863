//! A whole mesh at once: what it is to be is compared with what it is, and the difference is one change.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    change::{self, Ids},
    draft::Draft,
};
use crate::{
    Error, Result,
    model::topology::{Item, ItemKind, NewNode, Node, NodeChange, NodeSpec, RouteSpec, Spec},
};

/// Makes a mesh what the specification says. Errors: `InvalidArgument` naming the place in it, like `nodes[3].port`;
/// `Refused` if a name belongs to another mesh.
pub fn apply(draft: &mut Draft<'_>, ids: &mut dyn Ids, spec: Spec) -> Result<()> {
    let Spec { mesh, mesh_change, regions, nodes, routes } = spec;
    let mesh_id = match draft.named(ItemKind::Mesh, &mesh)? {
        Some(there) => {
            let id = there.id().to_owned();
            change::modify_mesh(draft, &id, mesh_change).map_err(|error| at("mesh", None, error))?;
            id
        }
        None => change::create_mesh(draft, ids, mesh, mesh_change).map_err(|error| at("mesh", None, error))?,
    };
    let mut seen = BTreeMap::new();
    for (index, (name, wanted)) in regions.into_iter().enumerate() {
        let place = |error| at("regions", Some(index), error);
        once(&mut seen, ("region", name.clone()), index).map_err(place)?;
        match draft.named(ItemKind::Region, &name)? {
            Some(there) => change::modify_region(draft, there.id(), wanted).map_err(place)?,
            None => drop(change::add_region(draft, ids, name, wanted).map_err(place)?),
        }
    }
    // What goes frees its names first; what stays is kept by name.
    let names: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    for node in draft.nodes_of(&mesh_id)? {
        if !names.contains(node.name.as_str()) {
            draft.delete_node(&node)?;
        }
    }
    for (index, node) in nodes.into_iter().enumerate() {
        let place = |error| at("nodes", Some(index), error);
        once(&mut seen, ("node", node.name.clone()), index).map_err(place)?;
        put_node(draft, ids, &mesh_id, node).map_err(place)?;
    }
    put_routes(draft, ids, &mesh_id, routes)
}

fn put_node(draft: &mut Draft<'_>, ids: &mut dyn Ids, mesh_id: &str, spec: NodeSpec) -> Result<()> {
    let NodeSpec { name, region, change } = spec;
    let region_id = match &region {
        None => String::new(),
        Some(region) => match draft.named(ItemKind::Region, region)? {
            Some(there) => there.id().to_owned(),
            None => return Err(Error::invalid("region", region, "must be the name of a region, here or in the store")),
        },
    };
    let change = NodeChange { name: None, region_id: Some(region_id), ..change };
    let node = match draft.named(ItemKind::Node, &name)? {
        Some(Item::Node(node)) if node.mesh_id == mesh_id => node,
        Some(other) => {
            return Err(Error::Refused(format!("the node {name:?} belongs to another mesh ({})", other.id())));
        }
        None => {
            let ip_address = change.ip_address.clone().unwrap_or_default();
            let id = change::create_node(draft, ids, mesh_id, NewNode { name, ip_address, ..NewNode::default() })?;
            draft.node("node_id", &id)?
        }
    };
    let node = change::changed_node(draft, node, change)?;
    draft.put(Item::Node(node))
}

fn put_routes(draft: &mut Draft<'_>, ids: &mut dyn Ids, mesh_id: &str, routes: Vec<RouteSpec>) -> Result<()> {
    let nodes: BTreeMap<String, Node> =
        draft.nodes_of(mesh_id)?.into_iter().map(|node| (node.name.clone(), node)).collect();
    let mut gone = BTreeMap::new();
    for node in nodes.values() {
        for route in draft.routes_from(&node.id)? {
            gone.insert((route.source_node_id.clone(), route.target_node_id.clone()), route);
        }
    }
    let mut seen = BTreeMap::new();
    for (index, RouteSpec { source, target, change }) in routes.into_iter().enumerate() {
        let place = |error| at("routes", Some(index), error);
        let end = |field: &str, name: &str| {
            let node = nodes.get(name).map(|node| node.id.clone());
            node.ok_or_else(|| Error::invalid(field, name, "must be the name of a node of this mesh"))
        };
        let (from, to) = (end("source", &source).map_err(place)?, end("target", &target).map_err(place)?);
        if from == to {
            return Err(place(Error::invalid("target", target, "must be another node than the source")));
        }
        once(&mut seen, ("route", format!("{source} -> {target}")), index).map_err(place)?;
        let there = gone.remove(&(from.clone(), to.clone()));
        let route = there.unwrap_or_else(|| change::new_route(ids.next(ItemKind::Route), &from, &to));
        draft.put(Item::Route(change::changed_route(route, change).map_err(place)?))?;
    }
    gone.values().for_each(|route| draft.delete_route(route));
    Ok(())
}

/// That a name stands there once.
fn once(seen: &mut BTreeMap<(&'static str, String), usize>, name: (&'static str, String), index: usize) -> Result<()> {
    let (kind, text) = name.clone();
    match seen.insert(name, index) {
        None => Ok(()),
        Some(first) => {
            Err(Error::invalid("name", text, format!("must be of one {kind} only, as that of number {first}")))
        }
    }
}

/// The same error, saying where in the specification it is.
fn at(list: &str, index: Option<usize>, error: Error) -> Error {
    let place = index.map_or_else(|| list.to_owned(), |index| format!("{list}[{index}]"));
    match error {
        Error::InvalidArgument { field, value, rule } => {
            // `node_name` of a node is `name` in a list of nodes.
            let field = field
                .rsplit_once('_')
                .filter(|(kind, _)| place.starts_with(kind))
                .map_or(field.as_str(), |(_, field)| field);
            Error::InvalidArgument { field: format!("{place}.{field}"), value, rule }
        }
        Error::Refused(text) => Error::Refused(format!("{place}: {text}")),
        other => other,
    }
}
