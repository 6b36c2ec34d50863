//! The definition of a mesh: who belongs to it, where they stand, how they are connected.
//!
//! Field names, defaults and statuses are those of the tables `mesh`, `nodes`, `routes` and `regions` that the seed
//! `mesh-storage.md` was written for. What is serialized here is frozen (kind `TopologyItem`, version 1).

mod vocabulary;

use serde::{Deserialize, Serialize};

pub use vocabulary::{JoinPolicy, Status};

/// A mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mesh {
    /// `mesh_` and a ULID.
    pub id: String,
    /// Its name; no other mesh has it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Who may join.
    pub join: JoinPolicy,
    /// The argon2 hash of the join key, if there is one. Never shown to callers.
    pub join_key_hash: Option<String>,
    /// How it is.
    pub status: Status,
}

/// A region that nodes may be in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// `region_` and a ULID.
    pub id: String,
    /// Its name; no other region has it.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Whose it is, like `AWS`.
    pub kind: String,
    /// Where it is, in words.
    pub location: String,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// Whether it stands for the whole world.
    pub global: bool,
    /// How it is.
    pub status: Status,
}

/// A node of a mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `node_` and a ULID.
    pub id: String,
    /// The mesh that it belongs to.
    pub mesh_id: String,
    /// Its name; no other node has it, of whatever mesh.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it runs on, like `linux-amd64`.
    pub platform: String,
    /// The version of its software.
    pub version: String,
    /// The region that it is in.
    pub region_id: Option<String>,
    /// Its public key, in whatever form the mesh uses.
    pub public_key: String,
    /// Host name or IP address.
    pub ip_address: String,
    /// Port, 1 to 65,535.
    pub port: u16,
    /// How it is.
    pub status: Status,
}

/// A route between two nodes of one mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// `route_` and a ULID.
    pub id: String,
    /// Where it begins.
    pub source_node_id: String,
    /// Where it ends. There is at most one route from one node to another.
    pub target_node_id: String,
    /// Whether it is used both ways.
    pub bidirectional: bool,
    /// Milliseconds, not negative.
    pub latency: f64,
    /// Megabits per second, not negative.
    pub bandwidth: f64,
    /// What it costs to use it, not negative.
    pub cost: u32,
    /// How it is.
    pub status: Status,
}

/// Any of them. Frozen: grows at the end only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// A mesh.
    Mesh(Mesh),
    /// A region.
    Region(Region),
    /// A node.
    Node(Node),
    /// A route.
    Route(Route),
}

/// What kind of item. In the order in which items may refer to others: to those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// A mesh.
    Mesh,
    /// A region.
    Region,
    /// A node.
    Node,
    /// A route.
    Route,
}

impl ItemKind {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Mesh, Self::Region, Self::Node, Self::Route];

    /// What stands in front of the ULID in an id, without the underscore.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Region => "region",
            Self::Node => "node",
            Self::Route => "route",
        }
    }
}

impl Item {
    /// Its kind.
    pub fn kind(&self) -> ItemKind {
        match self {
            Self::Mesh(_) => ItemKind::Mesh,
            Self::Region(_) => ItemKind::Region,
            Self::Node(_) => ItemKind::Node,
            Self::Route(_) => ItemKind::Route,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Mesh(mesh) => &mesh.id,
            Self::Region(region) => &region.id,
            Self::Node(node) => &node.id,
            Self::Route(route) => &route.id,
        }
    }

    /// Its name; routes have none.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Mesh(mesh) => Some(&mesh.name),
            Self::Region(region) => Some(&region.name),
            Self::Node(node) => Some(&node.name),
            Self::Route(_) => None,
        }
    }
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// As it was; `None`: there was none.
    pub before: Option<Item>,
    /// As it is; `None`: there is none any more.
    pub after: Option<Item>,
}

impl Edit {
    /// The item, as it was or else as it is.
    pub fn item(&self) -> Option<&Item> {
        self.before.as_ref().or(self.after.as_ref())
    }
}

/// Why the topology was changed. Frozen: grows at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Somebody changed it.
    Edit,
    /// A whole topology was applied, and is there to stay.
    Apply,
    /// A whole topology was applied, and goes unless it is confirmed within so many milliseconds.
    ApplyUnconfirmed(u64),
    /// The one applied at this revision was confirmed.
    Confirm(u64),
    /// It is again what it was at this revision, because somebody wanted it so.
    Rollback(u64),
    /// It is again what it was at this revision, because nobody confirmed the change.
    Unconfirmed(u64),
}

/// An entry of the history. A change of very many items takes several, of one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Who made it.
    pub author: String,
    /// Why, in the author's words.
    pub reason: String,
    /// Why, in ours.
    pub cause: Cause,
    /// What became of the items.
    pub edits: Vec<Edit>,
}

/// A change that waits to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The revision to which it goes back.
    pub before: u64,
    /// Who made it.
    pub author: String,
    /// In how many milliseconds of log time it had to be confirmed.
    pub confirm_ms: u64,
}

/// An entry of the history with what the store knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// The revision of the change.
    pub revision: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The change, or a part of it.
    pub change: Change,
}

/// A mesh with everything in it.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTopology {
    /// The mesh.
    pub mesh: Mesh,
    /// Its nodes, by name.
    pub nodes: Vec<Node>,
    /// The routes between them.
    pub routes: Vec<Route>,
    /// The regions that its nodes are in.
    pub regions: Vec<Region>,
    /// The revision of the last change of any mesh.
    pub changed: u64,
}

/// Which nodes are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Those of this mesh.
    pub mesh_id: String,
    /// Only these; none: all.
    pub node_ids: Vec<String>,
    /// Only those in this region; empty: in any.
    pub region_id: String,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The node's id.
    pub node_id: String,
    /// Its name.
    pub node_name: String,
    /// The revision that it has applied; 0 if it has never reported one.
    pub revision: u64,
    /// When it reported that, in milliseconds since 1970; 0 if never.
    pub reported_at_ms: u64,
}

/// What is said of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Who makes it.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// A node that is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewNode {
    /// See [`Node`]; so the others. What is empty or `None` gets its default.
    pub name: String,
    /// May be empty.
    pub description: String,
    /// `linux-amd64` if empty.
    pub platform: String,
    /// `1.0.0` if empty.
    pub version: String,
    /// None if empty.
    pub region_id: String,
    /// May be empty.
    pub public_key: String,
    /// Must not be empty.
    pub ip_address: String,
    /// 8443 if `None`.
    pub port: Option<u32>,
}

/// What is to become of a mesh; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshChange {
    /// The name.
    pub name: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// The join policy.
    pub join: Option<JoinPolicy>,
    /// The hash of a new join key.
    pub join_key_hash: Option<String>,
    /// The status.
    pub status: Option<Status>,
}

/// What is to become of a node; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// The name.
    pub name: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// The platform.
    pub platform: Option<String>,
    /// The version.
    pub version: Option<String>,
    /// The region; none if empty.
    pub region_id: Option<String>,
    /// The public key.
    pub public_key: Option<String>,
    /// Host name or IP address.
    pub ip_address: Option<String>,
    /// The port.
    pub port: Option<u32>,
    /// The status.
    pub status: Option<Status>,
}

/// What is to become of a route, or of a new one; `None` stays, or gets its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteChange {
    /// Whether it is used both ways.
    pub bidirectional: Option<bool>,
    /// Milliseconds.
    pub latency: Option<f64>,
    /// Megabits per second.
    pub bandwidth: Option<f64>,
    /// What it costs.
    pub cost: Option<i64>,
    /// The status.
    pub status: Option<Status>,
}

/// What is to become of a region, or of a new one; `None` stays, or gets its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionChange {
    /// The name.
    pub name: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// Whose it is; `AWS` by default.
    pub kind: Option<String>,
    /// Where it is.
    pub location: Option<String>,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// Whether it stands for the whole world.
    pub global: Option<bool>,
    /// The status.
    pub status: Option<Status>,
}

/// A whole mesh as it is to be. Nodes, regions and the ends of routes go by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// The mesh's name; it is created if there is none.
    pub mesh: String,
    /// What else is said of the mesh.
    pub mesh_change: MeshChange,
    /// Regions that are to be there. Others stay, since other meshes may use them.
    pub regions: Vec<(String, RegionChange)>,
    /// The nodes. Others of this mesh go.
    pub nodes: Vec<NodeSpec>,
    /// The routes. Others between nodes of this mesh go.
    pub routes: Vec<RouteSpec>,
}

/// A node of a [`Spec`]. What is `None` stays, or gets its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// The region's name; `None`: in no region.
    pub region: Option<String>,
    /// The rest. `name` and `region_id` are not looked at.
    pub change: NodeChange,
}

/// A route of a [`Spec`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteSpec {
    /// The name of the node where it begins.
    pub source: String,
    /// The name of the node where it ends.
    pub target: String,
    /// The rest.
    pub change: RouteChange,
}
