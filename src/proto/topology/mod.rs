//! The topology between model and wire: what stands there, its history, how far nodes are; [`fields`] what is to be.

mod fields;

pub use fields::{mesh_fields, spec, spec_message};

use super::{
    convert::{expected, stored, version_of},
    v1,
};
use crate::{
    Error, Result,
    model::{
        mesh::{Page, Stored},
        topology::{
            Applied, Cause, Change, Edit, HistoryEntry, Item, JoinPolicy, Mesh, MeshTopology, Node, Note, Pending,
            Region, Route, Selector, Status,
        },
    },
};

/// A status by its name. Errors: `InvalidArgument` naming `field`.
fn status(field: &str, name: &str) -> Result<Status> {
    Status::named(name).ok_or_else(|| Error::invalid(field, name, "must be a status, like STATUS_HEALTHY"))
}

fn join_policy(name: &str) -> Result<JoinPolicy> {
    JoinPolicy::named(name).ok_or_else(|| Error::invalid("allow_join", name, "must be OPEN, KEY_REQUIRED or CLOSED"))
}

/// The same error, as one of an answer.
fn told<T>(read: Result<T>) -> Result<T> {
    read.map_err(|error| Error::Unexpected(format!("the answer is malformed: {error}")))
}

impl From<Note> for v1::Note {
    fn from(Note { author, reason }: Note) -> Self {
        Self { author, reason }
    }
}

impl From<v1::Note> for Note {
    fn from(v1::Note { author, reason }: v1::Note) -> Self {
        Self { author, reason }
    }
}

impl From<Mesh> for v1::MeshInfo {
    fn from(mesh: Mesh) -> Self {
        Self {
            mesh_id: mesh.id,
            mesh_name: mesh.name,
            mesh_description: mesh.description,
            allow_join: mesh.join.name().into(),
            status: mesh.status.name().into(),
            version: None,
        }
    }
}

impl TryFrom<v1::MeshInfo> for Mesh {
    type Error = Error;

    /// Without the hash of the join key, which is never sent.
    fn try_from(mesh: v1::MeshInfo) -> Result<Self> {
        Ok(Self {
            id: mesh.mesh_id,
            name: mesh.mesh_name,
            description: mesh.mesh_description,
            join: told(join_policy(&mesh.allow_join))?,
            join_key_hash: None,
            status: told(status("status", &mesh.status))?,
        })
    }
}

impl From<Node> for v1::NodeInfo {
    fn from(node: Node) -> Self {
        Self {
            node_id: node.id,
            mesh_id: node.mesh_id,
            node_name: node.name,
            node_description: node.description,
            node_platform: node.platform,
            node_version: node.version,
            region_id: node.region_id.unwrap_or_default(),
            public_key: node.public_key,
            ip_address: node.ip_address,
            port: node.port.into(),
            status: node.status.name().into(),
            version: None,
        }
    }
}

impl TryFrom<v1::NodeInfo> for Node {
    type Error = Error;

    fn try_from(node: v1::NodeInfo) -> Result<Self> {
        let port = u16::try_from(node.port);
        Ok(Self {
            id: node.node_id,
            mesh_id: node.mesh_id,
            name: node.node_name,
            description: node.node_description,
            platform: node.node_platform,
            version: node.node_version,
            region_id: Some(node.region_id).filter(|id| !id.is_empty()),
            public_key: node.public_key,
            ip_address: node.ip_address,
            port: port.map_err(|_| Error::Unexpected(format!("the answer has the port {}", node.port)))?,
            status: told(status("status", &node.status))?,
        })
    }
}

impl From<Route> for v1::RouteInfo {
    fn from(route: Route) -> Self {
        Self {
            route_id: route.id,
            source_node_id: route.source_node_id,
            target_node_id: route.target_node_id,
            bidirectional: route.bidirectional,
            latency: route.latency,
            bandwidth: route.bandwidth,
            cost: route.cost,
            status: route.status.name().into(),
            version: None,
        }
    }
}

impl TryFrom<v1::RouteInfo> for Route {
    type Error = Error;

    fn try_from(route: v1::RouteInfo) -> Result<Self> {
        Ok(Self {
            id: route.route_id,
            source_node_id: route.source_node_id,
            target_node_id: route.target_node_id,
            bidirectional: route.bidirectional,
            latency: route.latency,
            bandwidth: route.bandwidth,
            cost: route.cost,
            status: told(status("status", &route.status))?,
        })
    }
}

impl From<Region> for v1::RegionInfo {
    fn from(region: Region) -> Self {
        Self {
            region_id: region.id,
            region_name: region.name,
            region_description: region.description,
            region_type: region.kind,
            region_location: region.location,
            latitude: region.latitude,
            longitude: region.longitude,
            global_region: region.global,
            status: region.status.name().into(),
            version: None,
        }
    }
}

impl TryFrom<v1::RegionInfo> for Region {
    type Error = Error;

    fn try_from(region: v1::RegionInfo) -> Result<Self> {
        Ok(Self {
            id: region.region_id,
            name: region.region_name,
            description: region.region_description,
            kind: region.region_type,
            location: region.region_location,
            latitude: region.latitude,
            longitude: region.longitude,
            global: region.global_region,
            status: told(status("status", &region.status))?,
        })
    }
}

impl From<Item> for v1::TopologyItem {
    fn from(item: Item) -> Self {
        use v1::topology_item::Item as Wire;
        let item = match item {
            Item::Mesh(mesh) => Wire::Mesh(mesh.into()),
            Item::Node(node) => Wire::Node(node.into()),
            Item::Route(route) => Wire::Route(route.into()),
            Item::Region(region) => Wire::Region(region.into()),
        };
        Self { item: Some(item) }
    }
}

impl TryFrom<v1::TopologyItem> for Item {
    type Error = Error;

    fn try_from(item: v1::TopologyItem) -> Result<Self> {
        use v1::topology_item::Item as Wire;
        Ok(match expected("item", item.item)? {
            Wire::Mesh(mesh) => Self::Mesh(mesh.try_into()?),
            Wire::Node(node) => Self::Node(node.try_into()?),
            Wire::Route(route) => Self::Route(route.try_into()?),
            Wire::Region(region) => Self::Region(region.try_into()?),
        })
    }
}

impl From<Edit> for v1::Edit {
    fn from(edit: Edit) -> Self {
        Self { before: edit.before.map(Into::into), after: edit.after.map(Into::into) }
    }
}

impl TryFrom<v1::Edit> for Edit {
    type Error = Error;

    fn try_from(edit: v1::Edit) -> Result<Self> {
        Ok(Self {
            before: edit.before.map(TryInto::try_into).transpose()?,
            after: edit.after.map(TryInto::try_into).transpose()?,
        })
    }
}

/// Edits of an answer.
pub fn edits(edits: Vec<v1::Edit>) -> Result<Vec<Edit>> {
    edits.into_iter().map(TryInto::try_into).collect()
}

macro_rules! stored_item {
    ($($kind:ident $info:ident $one:ident;)*) => {
        $(
            impl TryFrom<Stored<Item>> for v1::$info {
                type Error = Error;

                fn try_from(stored: Stored<Item>) -> Result<Self> {
                    let version = Some(version_of(&stored));
                    match stored.value {
                        Item::$kind(item) => Ok(Self { version, ..item.into() }),
                        other => Err(Error::Unexpected(format!("{} is of another kind", other.id()))),
                    }
                }
            }

            /// An item of an answer, with what the store knows of it.
            pub fn $one(mut info: v1::$info) -> Result<Stored<$kind>> {
                let version = info.version.take();
                stored(info.try_into()?, version)
            }
        )*
    };
}

stored_item! {
    Mesh MeshInfo stored_mesh;
    Node NodeInfo stored_node;
    Route RouteInfo stored_route;
    Region RegionInfo stored_region;
}

impl From<HistoryEntry> for v1::HistoryEntry {
    fn from(HistoryEntry { revision, at_ms, change }: HistoryEntry) -> Self {
        use v1::history_entry::Cause as Wire;
        let Change { author, reason, cause, edits } = change;
        let cause = match cause {
            Cause::Edit => Wire::Edit(true),
            Cause::Apply => Wire::Apply(true),
            Cause::ApplyUnconfirmed(ms) => Wire::ApplyToConfirmMs(ms),
            Cause::Confirm(of) => Wire::ConfirmOf(of),
            Cause::Rollback(to) => Wire::RollbackTo(to),
            Cause::Unconfirmed(to) => Wire::UnconfirmedTo(to),
        };
        let edits = edits.into_iter().map(Into::into).collect();
        Self { revision, at_ms, author, reason, cause: Some(cause), edits }
    }
}

impl TryFrom<v1::HistoryEntry> for HistoryEntry {
    type Error = Error;

    fn try_from(entry: v1::HistoryEntry) -> Result<Self> {
        use v1::history_entry::Cause as Wire;
        let v1::HistoryEntry { revision, at_ms, author, reason, cause, edits: edited } = entry;
        let cause = match expected("cause", cause)? {
            Wire::Edit(_) => Cause::Edit,
            Wire::Apply(_) => Cause::Apply,
            Wire::ApplyToConfirmMs(ms) => Cause::ApplyUnconfirmed(ms),
            Wire::ConfirmOf(of) => Cause::Confirm(of),
            Wire::RollbackTo(to) => Cause::Rollback(to),
            Wire::UnconfirmedTo(to) => Cause::Unconfirmed(to),
        };
        Ok(Self { revision, at_ms, change: Change { author, reason, cause, edits: edits(edited)? } })
    }
}

impl From<(u64, Pending)> for v1::PendingChange {
    fn from((revision, pending): (u64, Pending)) -> Self {
        let Pending { before, author, confirm_ms } = pending;
        Self { revision, author, confirm_within_ms: confirm_ms, before }
    }
}

impl From<v1::PendingChange> for (u64, Pending) {
    fn from(pending: v1::PendingChange) -> Self {
        let v1::PendingChange { revision, author, confirm_within_ms: confirm_ms, before } = pending;
        (revision, Pending { before, author, confirm_ms })
    }
}

impl From<Selector> for v1::NodeSelector {
    fn from(Selector { mesh_id, node_ids, region_id }: Selector) -> Self {
        Self { mesh_id, node_ids, region_id }
    }
}

impl From<v1::NodeSelector> for Selector {
    fn from(v1::NodeSelector { mesh_id, node_ids, region_id }: v1::NodeSelector) -> Self {
        Self { mesh_id, node_ids, region_id }
    }
}

impl From<Applied> for v1::AppliedInfo {
    fn from(applied: Applied) -> Self {
        let Applied { node_id, node_name, revision, reported_at_ms } = applied;
        Self { node_id, node_name, revision, reported_at_ms }
    }
}

impl From<v1::AppliedInfo> for Applied {
    fn from(info: v1::AppliedInfo) -> Self {
        let v1::AppliedInfo { node_id, node_name, revision, reported_at_ms } = info;
        Self { node_id, node_name, revision, reported_at_ms }
    }
}

impl From<(v1::ReadHeader, MeshTopology)> for v1::ShowTopologyResponse {
    fn from((header, topology): (v1::ReadHeader, MeshTopology)) -> Self {
        Self {
            header: Some(header),
            mesh: Some(topology.mesh.into()),
            nodes: topology.nodes.into_iter().map(Into::into).collect(),
            routes: topology.routes.into_iter().map(Into::into).collect(),
            regions: topology.regions.into_iter().map(Into::into).collect(),
            changed_revision: topology.changed,
        }
    }
}

impl TryFrom<v1::ShowTopologyResponse> for MeshTopology {
    type Error = Error;

    fn try_from(shown: v1::ShowTopologyResponse) -> Result<Self> {
        Ok(Self {
            mesh: expected("mesh", shown.mesh)?.try_into()?,
            nodes: shown.nodes.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            routes: shown.routes.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            regions: shown.regions.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            changed: shown.changed_revision,
        })
    }
}

/// A page of an answer.
pub fn page<T>(items: Vec<T>, next_cursor: String, header: Option<v1::ReadHeader>) -> Result<Page<T>> {
    Ok(Page { items, next_cursor, revision: expected("header", header)?.revision })
}
