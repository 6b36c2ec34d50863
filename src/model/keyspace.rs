//! The key schema, on one page. A keyspace is the first byte of every key; its number never changes
//! and is never used again for something else.

/// A numbered table of the core: the first byte of every key.
pub type Keyspace = u8;

/// Messages between mesh nodes, by message id.
pub const MESSAGES: Keyspace = 0x10;
/// Shared state (bytes), by key.
pub const STATE: Keyspace = 0x11;
/// Runtime state of a node (JSON), by node id.
pub const NODE_STATE: Keyspace = 0x12;
/// The dynamic routing table (JSON), by destination.
pub const ROUTING_TABLE: Keyspace = 0x13;
/// Runtime configuration (JSON), by key.
pub const RUNTIME_CONFIG: Keyspace = 0x14;
/// Meshes, nodes, routes and regions by id; `head`, which every change of them writes; `pending`, which expires when a
/// change was not confirmed in time; `identity/` and a storage node's id: which node of a mesh it belongs to.
pub const TOPOLOGY: Keyspace = 0x15;
/// The history of [`TOPOLOGY`]: `revision u64 BE | ordinal u32 BE`.
pub const TOPOLOGY_CHANGES: Keyspace = 0x16;
/// Which revision of the topology a node has applied, by its id.
pub const APPLIED_REVISIONS: Keyspace = 0x17;
/// Logs of consensus groups: `escaped group | index u64 BE | term u64 BE` (JSON); and under the empty group the last entry
/// that the application appended to the Raft log.
pub const CONSENSUS_LOG: Keyspace = 0x18;

/// Content of messages that is not in their records: one record for each upload, finished or not, by its id (16 bytes).
pub const UPLOADS: Keyspace = 0x19;
/// The uploads that are under way, by id: how many bytes have arrived (i64). They expire.
pub const OPEN_UPLOADS: Keyspace = 0x1A;
/// The chunks of uploads: `upload id | number u32 BE` (bytes).
pub const MESSAGE_CHUNKS: Keyspace = 0x1B;
/// How long and how many messages are kept, by receiver; under the empty key the rule of those that have none.
pub const RETENTION: Keyspace = 0x1C;

/// Permissions: every proposal names the revision of the last change here that it was decided on.
pub const SECURITY: Keyspace = 0x20;

/// What a majority of the replicas agreed their state to be, at the log index that it names: key `agreed`.
pub const STATE_CHECKS: Keyspace = 0x21;

/// The greatest number that a scope was given: key `last`. Whoever creates a scope writes it.
pub const SCOPE_NUMBERS: Keyspace = 0x22;

/// Every node id that the cluster has given out or taken back: `id u64 BE`. What is wanted of the node; who votes is said
/// by the Raft membership alone.
pub const MEMBERS: Keyspace = 0x30;

/// Which feature levels all members have known: `level u32 BE`. A program that knows less does not run on it.
pub const FEATURES: Keyspace = 0x31;

/// Namespaces of the storage contract, by name.
pub const NAMESPACES: Keyspace = 0x40;
/// The values of a namespace, by key; a scope for each namespace.
pub const VALUES: Keyspace = 0x41;
/// The attributes that callers have given to values, by their keys; a scope for each namespace.
pub const ATTRIBUTES: Keyspace = 0x42;
/// How far the indexes of namespaces are built, by the number of their scope (u32 BE).
pub const NAMESPACE_INDEXES: Keyspace = 0x44;

/// Collections of documents, by `service.collection`.
pub const COLLECTIONS: Keyspace = 0x60;
/// The documents of a collection, by id; a scope for each collection.
pub const DOCUMENTS: Keyspace = 0x61;
/// How far the indexes of collections are built, by the number of their scope (u32 BE).
pub const COLLECTION_INDEXES: Keyspace = 0x62;
/// Who may do what with a collection of another: `escaped service.collection | service`.
pub const GRANTS: Keyspace = 0x63;

/// Who asks to be allowed something with a collection: `escaped service.collection | service`.
pub const ACCESS_REQUESTS: Keyspace = 0x64;

/// Leases, by id (u64 BE). They expire, and what is attached to one references it.
pub const LEASES: Keyspace = 0x50;
/// Locks: `escaped name`, which exists while somebody holds it; and behind it those that wait, in their order: `escaped name |
/// revision u64 BE | ordinal u32 BE`. Both reference the lease that holds or waits.
pub const LOCKS: Keyspace = 0x51;
/// At most how many keys are attached to a lease, by its id (i64).
pub const LEASE_LOADS: Keyspace = 0x52;

/// The first and last keyspace that a transaction may write records to.
pub const FIRST_RECORD: Keyspace = 0x10;
/// See [`FIRST_RECORD`].
pub const LAST_RECORD: Keyspace = 0xDF;

/// Index entries: `scope | escaped entry key | record key` -> payload. Written by the core only.
pub const ENTRIES: Keyspace = 0xE0;
/// Unique index entries: `scope | entry key` -> owner and payload. Written by the core only.
pub const UNIQUE: Keyspace = 0xE1;
/// Who references a record: `escaped target key | referrer key` -> mode. Written by the core only.
pub const REFERRERS: Keyspace = 0xE2;
/// What expires when: `log time u64 BE | record key` -> nothing. Written by the core only.
pub const EXPIRY: Keyspace = 0xE3;
/// Older versions of records: `scope | keyspace u8 | escaped key | mod revision u64 BE` -> record.
pub const HISTORY: Keyspace = 0xE4;

/// The scope of a keyspace that has no scopes.
pub const NO_SCOPE: u32 = 0;
/// Scopes below this number always exist and are never dropped; the ones that transactions create
/// begin here.
pub const FIRST_DYNAMIC_SCOPE: u32 = 1_024;

/// Index: messages by time: `timestamp i64 (order-preserving)`.
pub const INDEX_MESSAGE_TIME: u32 = 1;
/// Index: messages by sender: `escaped from | timestamp`.
pub const INDEX_MESSAGE_FROM: u32 = 2;
/// Index: messages by receiver: `escaped to | timestamp`.
pub const INDEX_MESSAGE_TO: u32 = 3;
/// Index: messages by pair: `escaped from | escaped to | timestamp`.
pub const INDEX_MESSAGE_PAIR: u32 = 4;
/// Index: nodes by mesh: `escaped mesh id | name`.
pub const INDEX_NODE_MESH: u32 = 5;
/// Index: nodes by region: `escaped region id | name`.
pub const INDEX_NODE_REGION: u32 = 6;
/// Index: routes by where they begin: `escaped source id | target id`.
pub const INDEX_ROUTE_SOURCE: u32 = 7;
/// Index: routes by where they end: `escaped target id | source id`.
pub const INDEX_ROUTE_TARGET: u32 = 8;
/// Index: messages whose content is an upload: `upload id`.
pub const INDEX_MESSAGE_UPLOAD: u32 = 9;

/// Unique: names of meshes.
pub const UNIQUE_MESH_NAME: u32 = 1;
/// Unique: names of regions.
pub const UNIQUE_REGION_NAME: u32 = 2;
/// Unique: names of nodes.
pub const UNIQUE_NODE_NAME: u32 = 3;
/// Unique: the ends of routes: `escaped source id | target id`.
pub const UNIQUE_ROUTE_ENDS: u32 = 4;

/// What a keyspace is called towards people: its name, or its number.
pub fn label(keyspace: Keyspace) -> String {
    name(keyspace).map_or_else(|| format!("{keyspace:#04x}"), str::to_owned)
}

/// What a keyspace of records is called towards people; `None` if this program does not know it.
pub fn name(keyspace: Keyspace) -> Option<&'static str> {
    match keyspace {
        MESSAGES => Some("mesh_messages"),
        STATE => Some("mesh_state"),
        NODE_STATE => Some("mesh_node_state"),
        ROUTING_TABLE => Some("mesh_routing_table"),
        RUNTIME_CONFIG => Some("mesh_runtime_config"),
        TOPOLOGY => Some("mesh_topology"),
        TOPOLOGY_CHANGES => Some("mesh_topology_changes"),
        APPLIED_REVISIONS => Some("mesh_applied_revisions"),
        CONSENSUS_LOG => Some("mesh_consensus_log"),
        UPLOADS => Some("mesh_message_uploads"),
        OPEN_UPLOADS => Some("mesh_message_open_uploads"),
        MESSAGE_CHUNKS => Some("mesh_message_chunks"),
        RETENTION => Some("mesh_message_retention"),
        STATE_CHECKS => Some("state_checks"),
        SCOPE_NUMBERS => Some("scope_numbers"),
        MEMBERS => Some("cluster_members"),
        FEATURES => Some("cluster_features"),
        NAMESPACES => Some("storage_namespaces"),
        VALUES => Some("storage_values"),
        ATTRIBUTES => Some("storage_attributes"),
        NAMESPACE_INDEXES => Some("storage_indexes"),
        COLLECTIONS => Some("broker_collections"),
        DOCUMENTS => Some("broker_documents"),
        COLLECTION_INDEXES => Some("broker_indexes"),
        GRANTS => Some("broker_grants"),
        ACCESS_REQUESTS => Some("broker_access_requests"),
        LEASES => Some("leases"),
        LOCKS => Some("locks"),
        LEASE_LOADS => Some("lease_loads"),
        _ => None,
    }
}
