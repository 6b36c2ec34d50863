//! What [`Error::NotFound`](crate::Error::NotFound) calls the things that can be missing.

/// A message.
pub const MESSAGE: &str = "message";
/// A shared state value.
pub const STATE: &str = "state";
/// The runtime state of a node.
pub const NODE_STATE: &str = "node state";
/// An entry of the routing table.
pub const ROUTE: &str = "route";
/// A runtime configuration value.
pub const CONFIG: &str = "config";
/// A mesh.
pub const MESH: &str = "mesh";
/// A node of a mesh.
pub const NODE: &str = "node";
/// A route between two nodes of a mesh.
pub const MESH_ROUTE: &str = "mesh route";
/// A region.
pub const REGION: &str = "region";
/// Which node of a mesh a storage node belongs to.
pub const LOCAL_IDENTITY: &str = "local identity";
/// A rule of how long messages are kept.
pub const RETENTION: &str = "retention rule";
/// A member of the cluster.
pub const MEMBER: &str = "member";
/// An entry of the consensus log.
pub const LOG_ENTRY: &str = "log entry";
/// A namespace of the storage contract.
pub const NAMESPACE: &str = "namespace";
/// A value of the storage contract.
pub const VALUE: &str = "value";
/// An index on the values of a namespace.
pub const INDEX: &str = "index";
/// A collection of documents.
pub const COLLECTION: &str = "collection";
/// A document.
pub const DOCUMENT: &str = "document";
/// That a service may do something with a collection.
pub const GRANT: &str = "grant";
/// That a service asks to be allowed something with a collection.
pub const ACCESS_REQUEST: &str = "access request";
/// A lease.
pub const LEASE: &str = "lease";
/// A lock that is held, or waited for.
pub const LOCK: &str = "lock";
/// Whatever this program has no name for.
pub const ITEM: &str = "item";

/// The constant that equals `name`; [`ITEM`] if there is none.
pub fn known(name: &str) -> &'static str {
    let all = [
        MESSAGE,
        STATE,
        NODE_STATE,
        ROUTE,
        CONFIG,
        NAMESPACE,
        VALUE,
        INDEX,
        MESH,
        NODE,
        MESH_ROUTE,
        REGION,
        LOCAL_IDENTITY,
        RETENTION,
        MEMBER,
        LOG_ENTRY,
        COLLECTION,
        DOCUMENT,
        GRANT,
        ACCESS_REQUEST,
        LEASE,
        LOCK,
    ];
    all.into_iter().find(|kind| *kind == name).unwrap_or(ITEM)
}
