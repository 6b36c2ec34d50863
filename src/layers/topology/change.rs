//! The single changes of meshes, nodes, routes and regions. Each works on a [`Draft`], which becomes one transaction.

use super::{draft::Draft, item};
use crate::{
    Error, Result,
    layers::check::{check_length, check_name},
    limits,
    model::topology::{
        Item, ItemKind, JoinPolicy, Mesh, MeshChange, NewNode, Node, NodeChange, Region, RegionChange, Route,
        RouteChange, Status,
    },
};

/// Longest description, public key, address or location, in bytes.
const TEXT_BYTES: usize = 4 << 10;
const PLATFORM: &str = "linux-amd64";
const VERSION: &str = "1.0.0";
const PORT: u32 = 8443;
const COST: u32 = 100;
const REGION_KIND: &str = "AWS";

/// Makes ids: `prefix_` and a ULID each.
pub trait Ids {
    /// An id that nobody has yet.
    fn next(&mut self, kind: ItemKind) -> String;
}

/// The text, if it is one that may stand there.
fn text(field: &str, text: String) -> Result<String> {
    check_length(field, text.len(), TEXT_BYTES)?;
    Ok(text)
}

fn name(field: &str, name: String) -> Result<String> {
    check_name(field, &name, limits::ID_BYTES)?;
    Ok(name)
}

fn port(field: &str, port: u32) -> Result<u16> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::invalid(field, port.to_string(), "must be a port, 1 to 65535")),
    }
}

fn address(field: &str, address: String) -> Result<String> {
    check_name(field, &address, limits::ID_BYTES)?;
    if address.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
        return Err(Error::invalid(field, address, "must be a host name or an IP address"));
    }
    Ok(address)
}

fn amount(field: &str, amount: f64) -> Result<f64> {
    if amount.is_finite() && amount >= 0.0 {
        return Ok(amount);
    }
    Err(Error::invalid(field, amount.to_string(), "must be a number that is not negative"))
}

fn cost(field: &str, cost: i64) -> Result<u32> {
    u32::try_from(cost).map_err(|_| Error::invalid(field, cost.to_string(), format!("must be from 0 to {}", u32::MAX)))
}

fn degrees(field: &str, degrees: f64, most: f64) -> Result<f64> {
    if degrees.is_finite() && degrees.abs() <= most {
        return Ok(degrees);
    }
    Err(Error::invalid(field, degrees.to_string(), format!("must be from -{most} to {most} degrees")))
}

/// `text` or its default.
fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

/// Founds a mesh with its first node: the ids of both. Errors: `InvalidArgument`; `Refused` if a name is taken.
pub fn seed_mesh(
    draft: &mut Draft<'_>,
    ids: &mut dyn Ids,
    mesh_name: String,
    change: MeshChange,
    node: NewNode,
) -> Result<(String, String)> {
    let mesh_id = create_mesh(draft, ids, mesh_name, change)?;
    let node_id = create_node(draft, ids, &mesh_id, node)?;
    Ok((mesh_id, node_id))
}

/// Creates a mesh without nodes: its id.
pub(super) fn create_mesh(
    draft: &mut Draft<'_>,
    ids: &mut dyn Ids,
    mesh_name: String,
    change: MeshChange,
) -> Result<String> {
    let mesh = Mesh {
        id: ids.next(ItemKind::Mesh),
        name: name("mesh_name", mesh_name)?,
        description: String::new(),
        join: JoinPolicy::default(),
        join_key_hash: None,
        status: Status::Pending,
    };
    let mesh = changed_mesh(mesh, MeshChange { name: None, ..change })?;
    let id = mesh.id.clone();
    draft.put(Item::Mesh(mesh))?;
    Ok(id)
}

fn changed_mesh(mesh: Mesh, change: MeshChange) -> Result<Mesh> {
    let MeshChange { name: new_name, description, join, join_key_hash, status } = change;
    let mesh = Mesh {
        name: new_name.map_or(Ok(mesh.name), |new| name("mesh_name", new))?,
        description: description.map_or(Ok(mesh.description), |new| text("mesh_description", new))?,
        join: join.unwrap_or(mesh.join),
        join_key_hash: join_key_hash.or(mesh.join_key_hash),
        status: status.unwrap_or(mesh.status),
        id: mesh.id,
    };
    if mesh.join == JoinPolicy::KeyRequired && mesh.join_key_hash.is_none() {
        return Err(Error::invalid("join_key", "", "must be given where joining requires a key"));
    }
    Ok(mesh)
}

/// Changes a mesh. Errors: `InvalidArgument`; `NotFound`; `Refused` if the name is taken.
pub fn modify_mesh(draft: &mut Draft<'_>, mesh_id: &str, change: MeshChange) -> Result<()> {
    let mesh = changed_mesh(draft.mesh(mesh_id)?, change)?;
    draft.put(Item::Mesh(mesh))
}

/// Deletes a mesh, its nodes and their routes. Errors: `InvalidArgument`; `NotFound`.
pub fn delete_mesh(draft: &mut Draft<'_>, mesh_id: &str) -> Result<()> {
    let mesh = draft.mesh(mesh_id)?;
    draft.delete_mesh(&mesh)
}

/// What a joining node must show: the hash that its key must match, or nothing.
///
/// Errors: `NotFound`; `PermissionDenied` for a closed mesh.
pub fn join_key_hash(draft: &Draft<'_>, mesh_id: &str) -> Result<Option<String>> {
    let mesh = draft.mesh(mesh_id)?;
    match mesh.join {
        JoinPolicy::Open => Ok(None),
        JoinPolicy::KeyRequired => Ok(mesh.join_key_hash),
        JoinPolicy::Closed => {
            Err(Error::PermissionDenied(format!("the mesh {:?} is closed: nobody may join", mesh.name)))
        }
    }
}

/// Adds a node to a mesh: its id. Whether it may join was decided before ([`join_key_hash`]).
/// Errors: `InvalidArgument`; `NotFound`; `Refused` if the name is taken.
pub fn join_mesh(draft: &mut Draft<'_>, ids: &mut dyn Ids, mesh_id: &str, node: NewNode) -> Result<String> {
    draft.mesh(mesh_id)?;
    create_node(draft, ids, mesh_id, node)
}

pub(super) fn create_node(draft: &mut Draft<'_>, ids: &mut dyn Ids, mesh_id: &str, new: NewNode) -> Result<String> {
    let NewNode { name: node_name, description, platform, version, region_id, public_key, ip_address, port: number } =
        new;
    if !region_id.is_empty() {
        draft.region(&region_id)?;
    }
    let node = Node {
        id: ids.next(ItemKind::Node),
        mesh_id: mesh_id.to_owned(),
        name: name("node_name", node_name)?,
        description: text("node_description", description)?,
        platform: or(text("node_platform", platform)?, PLATFORM),
        version: or(text("node_version", version)?, VERSION),
        region_id: Some(region_id).filter(|id| !id.is_empty()),
        public_key: text("public_key", public_key)?,
        ip_address: address("ip_address", ip_address)?,
        port: port("port", number.unwrap_or(PORT))?,
        status: Status::Pending,
    };
    let id = node.id.clone();
    draft.put(Item::Node(node))?;
    Ok(id)
}

/// Takes a node out of its mesh, with the routes from and to it. Errors: `InvalidArgument`; `NotFound`.
pub fn remove_node(draft: &mut Draft<'_>, mesh_id: &str, node_id: &str) -> Result<()> {
    draft.mesh(mesh_id)?;
    let node = draft.member("node_id", mesh_id, node_id)?;
    draft.delete_node(&node)
}

/// Changes a node. Errors: `InvalidArgument`; `NotFound`; `Refused` if the name is taken.
pub fn modify_node(draft: &mut Draft<'_>, mesh_id: &str, node_id: &str, change: NodeChange) -> Result<()> {
    draft.mesh(mesh_id)?;
    let node = draft.member("node_id", mesh_id, node_id)?;
    let node = changed_node(draft, node, change)?;
    draft.put(Item::Node(node))
}

pub(super) fn changed_node(draft: &Draft<'_>, node: Node, change: NodeChange) -> Result<Node> {
    let NodeChange {
        name: new_name,
        description,
        platform,
        version,
        region_id,
        public_key,
        ip_address,
        port: number,
        status,
    } = change;
    if let Some(region_id) = region_id.as_ref().filter(|id| !id.is_empty()) {
        draft.region(region_id)?;
    }
    Ok(Node {
        name: new_name.map_or(Ok(node.name), |new| name("node_name", new))?,
        description: description.map_or(Ok(node.description), |new| text("node_description", new))?,
        platform: platform.map_or(Ok(node.platform), |new| text("node_platform", new))?,
        version: version.map_or(Ok(node.version), |new| text("node_version", new))?,
        region_id: region_id.map_or(node.region_id, |id| Some(id).filter(|id| !id.is_empty())),
        public_key: public_key.map_or(Ok(node.public_key), |new| text("public_key", new))?,
        ip_address: ip_address.map_or(Ok(node.ip_address), |new| address("ip_address", new))?,
        port: number.map_or(Ok(node.port), |new| port("port", new))?,
        status: status.unwrap_or(node.status),
        id: node.id,
        mesh_id: node.mesh_id,
    })
}

/// Adds a route between two nodes of a mesh: its id. Errors: `InvalidArgument`; `NotFound`; `Refused` if there is one.
pub fn add_route(
    draft: &mut Draft<'_>,
    ids: &mut dyn Ids,
    mesh_id: &str,
    (source, target): (&str, &str),
    change: RouteChange,
) -> Result<String> {
    draft.mesh(mesh_id)?;
    let from = draft.member("source_node_id", mesh_id, source)?;
    let to = draft.member("target_node_id", mesh_id, target)?;
    if source == target {
        return Err(Error::invalid("target_node_id", target, "must be another node than the source"));
    }
    if let Some(route) = draft.route(source, target)? {
        let text = format!("a route from {:?} to {:?} already exists ({})", from.name, to.name, route.id);
        return Err(Error::Refused(text));
    }
    let id = ids.next(ItemKind::Route);
    let route = changed_route(new_route(id.clone(), source, target), change)?;
    draft.put(Item::Route(route))?;
    Ok(id)
}

pub(super) fn new_route(id: String, source: &str, target: &str) -> Route {
    Route {
        id,
        source_node_id: source.to_owned(),
        target_node_id: target.to_owned(),
        bidirectional: false,
        latency: 0.0,
        bandwidth: 0.0,
        cost: COST,
        status: Status::Pending,
    }
}

pub(super) fn changed_route(route: Route, change: RouteChange) -> Result<Route> {
    let RouteChange { bidirectional, latency, bandwidth, cost: new_cost, status } = change;
    Ok(Route {
        bidirectional: bidirectional.unwrap_or(route.bidirectional),
        latency: latency.map_or(Ok(route.latency), |new| amount("latency", new))?,
        bandwidth: bandwidth.map_or(Ok(route.bandwidth), |new| amount("bandwidth", new))?,
        cost: new_cost.map_or(Ok(route.cost), |new| cost("cost", new))?,
        status: status.unwrap_or(route.status),
        ..route
    })
}

fn existing_route(draft: &Draft<'_>, mesh_id: &str, (source, target): (&str, &str)) -> Result<Route> {
    draft.mesh(mesh_id)?;
    draft.member("source_node_id", mesh_id, source)?;
    draft.member("target_node_id", mesh_id, target)?;
    draft.route(source, target)?.ok_or_else(|| item::missing(ItemKind::Route, &format!("{source} -> {target}")))
}

/// Changes the route between two nodes. Errors: `InvalidArgument`; `NotFound`.
pub fn modify_route(draft: &mut Draft<'_>, mesh_id: &str, ends: (&str, &str), change: RouteChange) -> Result<()> {
    let route = changed_route(existing_route(draft, mesh_id, ends)?, change)?;
    draft.put(Item::Route(route))
}

/// Deletes the route between two nodes. Errors: `InvalidArgument`; `NotFound`.
pub fn delete_route(draft: &mut Draft<'_>, mesh_id: &str, ends: (&str, &str)) -> Result<()> {
    let route = existing_route(draft, mesh_id, ends)?;
    draft.delete_route(&route);
    Ok(())
}

/// Adds a region: its id. Errors: `InvalidArgument`; `Refused` if the name is taken.
pub fn add_region(
    draft: &mut Draft<'_>,
    ids: &mut dyn Ids,
    region_name: String,
    change: RegionChange,
) -> Result<String> {
    let region = Region {
        id: ids.next(ItemKind::Region),
        name: name("region_name", region_name)?,
        description: String::new(),
        kind: REGION_KIND.to_owned(),
        location: String::new(),
        latitude: None,
        longitude: None,
        global: false,
        status: Status::Empty,
    };
    let region = changed_region(region, RegionChange { name: None, ..change })?;
    let id = region.id.clone();
    draft.put(Item::Region(region))?;
    Ok(id)
}

pub(super) fn changed_region(region: Region, change: RegionChange) -> Result<Region> {
    let RegionChange { name: new_name, description, kind, location, latitude, longitude, global, status } = change;
    Ok(Region {
        name: new_name.map_or(Ok(region.name), |new| name("region_name", new))?,
        description: description.map_or(Ok(region.description), |new| text("region_description", new))?,
        kind: kind.map_or(Ok(region.kind), |new| text("region_type", new))?,
        location: location.map_or(Ok(region.location), |new| text("region_location", new))?,
        latitude: latitude.map(|new| degrees("latitude", new, 90.0)).transpose()?.or(region.latitude),
        longitude: longitude.map(|new| degrees("longitude", new, 180.0)).transpose()?.or(region.longitude),
        global: global.unwrap_or(region.global),
        status: status.unwrap_or(region.status),
        id: region.id,
    })
}

/// Changes a region. Errors: `InvalidArgument`; `NotFound`; `Refused` if the name is taken.
pub fn modify_region(draft: &mut Draft<'_>, region_id: &str, change: RegionChange) -> Result<()> {
    let region = changed_region(draft.region(region_id)?, change)?;
    draft.put(Item::Region(region))
}

/// Deletes a region; its nodes are in none then. Errors: `InvalidArgument`; `NotFound`.
pub fn delete_region(draft: &mut Draft<'_>, region_id: &str) -> Result<()> {
    let region = draft.region(region_id)?;
    draft.delete_region(&region)
}
