//! What is to be: changes of items, and whole meshes.

use super::{join_policy, status};
use crate::{
    Error, Result,
    model::topology::{MeshChange, NewNode, NodeChange, NodeSpec, RegionChange, RouteChange, RouteSpec, Spec},
    proto::{convert::required, v1},
};

impl v1::MeshFields {
    /// The change, but for the join key, which is hashed elsewhere: it and the change. Errors: `InvalidArgument`.
    pub fn open(self) -> Result<(MeshChange, Option<String>)> {
        let Self { mesh_name, mesh_description, allow_join, join_key, status: status_name } = self;
        if join_key.as_deref() == Some("") {
            return Err(Error::invalid("join_key", "", "must not be empty"));
        }
        let change = MeshChange {
            name: mesh_name,
            description: mesh_description,
            join: allow_join.map(|name| join_policy(&name)).transpose()?,
            join_key_hash: None,
            status: status_name.map(|name| status("status", &name)).transpose()?,
        };
        Ok((change, join_key))
    }
}

/// The fields of a mesh; a join key goes as it is.
pub fn mesh_fields(change: MeshChange, join_key: Option<String>) -> v1::MeshFields {
    v1::MeshFields {
        mesh_name: change.name,
        mesh_description: change.description,
        allow_join: change.join.map(|policy| policy.name().into()),
        join_key,
        status: change.status.map(|status| status.name().into()),
    }
}

impl TryFrom<v1::NodeFields> for NodeChange {
    type Error = Error;

    fn try_from(fields: v1::NodeFields) -> Result<Self> {
        Ok(Self {
            name: fields.node_name,
            description: fields.node_description,
            platform: fields.node_platform,
            version: fields.node_version,
            region_id: fields.region_id,
            public_key: fields.public_key,
            ip_address: fields.ip_address,
            port: fields.port,
            status: fields.status.map(|name| status("status", &name)).transpose()?,
        })
    }
}

/// A node that is to be: all that it needs is given, and its status is not. Errors: `InvalidArgument`.
impl TryFrom<v1::NodeFields> for NewNode {
    type Error = Error;

    fn try_from(fields: v1::NodeFields) -> Result<Self> {
        let NodeChange { name, description, platform, version, region_id, public_key, ip_address, port, status } =
            fields.try_into()?;
        if let Some(status) = status {
            return Err(Error::invalid(
                "status",
                status.name(),
                "must not be given for a new node, which is STATUS_PENDING",
            ));
        }
        Ok(Self {
            name: required("node_name", name)?,
            description: description.unwrap_or_default(),
            platform: platform.unwrap_or_default(),
            version: version.unwrap_or_default(),
            region_id: region_id.unwrap_or_default(),
            public_key: public_key.unwrap_or_default(),
            ip_address: required("ip_address", ip_address)?,
            port,
        })
    }
}

impl From<NodeChange> for v1::NodeFields {
    fn from(change: NodeChange) -> Self {
        Self {
            node_name: change.name,
            node_description: change.description,
            node_platform: change.platform,
            node_version: change.version,
            region_id: change.region_id,
            public_key: change.public_key,
            ip_address: change.ip_address,
            port: change.port,
            status: change.status.map(|status| status.name().into()),
        }
    }
}

impl TryFrom<v1::RouteFields> for RouteChange {
    type Error = Error;

    fn try_from(fields: v1::RouteFields) -> Result<Self> {
        let v1::RouteFields { bidirectional, latency, bandwidth, cost, status: name } = fields;
        let status = name.map(|name| status("status", &name)).transpose()?;
        Ok(Self { bidirectional, latency, bandwidth, cost, status })
    }
}

impl From<RouteChange> for v1::RouteFields {
    fn from(change: RouteChange) -> Self {
        let RouteChange { bidirectional, latency, bandwidth, cost, status } = change;
        Self { bidirectional, latency, bandwidth, cost, status: status.map(|status| status.name().into()) }
    }
}

impl TryFrom<v1::RegionFields> for RegionChange {
    type Error = Error;

    fn try_from(fields: v1::RegionFields) -> Result<Self> {
        Ok(Self {
            name: fields.region_name,
            description: fields.region_description,
            kind: fields.region_type,
            location: fields.region_location,
            latitude: fields.latitude,
            longitude: fields.longitude,
            global: fields.global_region,
            status: fields.status.map(|name| status("status", &name)).transpose()?,
        })
    }
}

impl From<RegionChange> for v1::RegionFields {
    fn from(change: RegionChange) -> Self {
        Self {
            region_name: change.name,
            region_description: change.description,
            region_type: change.kind,
            region_location: change.location,
            latitude: change.latitude,
            longitude: change.longitude,
            global_region: change.global,
            status: change.status.map(|status| status.name().into()),
        }
    }
}

/// The specification of a mesh, and its join key. Errors: `InvalidArgument` naming the place in it.
pub fn spec(spec: v1::TopologySpec) -> Result<(Spec, Option<String>)> {
    let v1::TopologySpec { mesh, regions, nodes, routes } = spec;
    let (mut mesh_change, join_key) =
        required("mesh", mesh).and_then(v1::MeshFields::open).map_err(|error| at("mesh", error))?;
    let mesh = required("mesh.name", mesh_change.name.take())?;
    let spec = Spec {
        mesh,
        mesh_change,
        regions: each("regions", regions, |fields| {
            let mut change = RegionChange::try_from(fields)?;
            Ok((required("name", change.name.take())?, change))
        })?,
        nodes: each("nodes", nodes, |node| {
            let mut change: NodeChange = node.fields.unwrap_or_default().try_into()?;
            Ok(NodeSpec { name: required("name", change.name.take())?, region: node.region, change })
        })?,
        routes: each("routes", routes, |route| {
            let change = route.fields.unwrap_or_default().try_into()?;
            Ok(RouteSpec { source: route.source, target: route.target, change })
        })?,
    };
    Ok((spec, join_key))
}

fn each<T, U>(list: &str, items: Vec<T>, one: impl Fn(T) -> Result<U>) -> Result<Vec<U>> {
    let placed = |(index, item)| one(item).map_err(|error| at(&format!("{list}[{index}]"), error));
    items.into_iter().enumerate().map(placed).collect()
}

fn at(place: &str, error: Error) -> Error {
    match error {
        Error::InvalidArgument { field, value, rule } if field != place => {
            Error::InvalidArgument { field: format!("{place}.{field}"), value, rule }
        }
        other => other,
    }
}

/// The specification of a mesh for the wire.
pub fn spec_message(spec: Spec, join_key: Option<String>) -> v1::TopologySpec {
    let Spec { mesh, mesh_change, regions, nodes, routes } = spec;
    let region = |(name, change)| v1::RegionFields { region_name: Some(name), ..v1::RegionFields::from(change) };
    let node = |NodeSpec { name, region, change }| v1::NodeSpec {
        fields: Some(v1::NodeFields { node_name: Some(name), ..v1::NodeFields::from(change) }),
        region,
    };
    let route = |RouteSpec { source, target, change }| v1::RouteSpec { source, target, fields: Some(change.into()) };
    v1::TopologySpec {
        mesh: Some(mesh_fields(MeshChange { name: Some(mesh), ..mesh_change }, join_key)),
        regions: regions.into_iter().map(region).collect(),
        nodes: nodes.into_iter().map(node).collect(),
        routes: routes.into_iter().map(route).collect(),
    }
}
