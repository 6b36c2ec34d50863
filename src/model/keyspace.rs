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

/// Permissions: every proposal names the revision of the last change here that it was decided on.
pub const SECURITY: Keyspace = 0x20;

/// What a majority of the replicas agreed their state to be, at the log index that it names: key `agreed`.
pub const STATE_CHECKS: Keyspace = 0x21;

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

/// What a keyspace of records is called towards people; `None` if this program does not know it.
pub fn name(keyspace: Keyspace) -> Option<&'static str> {
    match keyspace {
        MESSAGES => Some("mesh_messages"),
        STATE => Some("mesh_state"),
        NODE_STATE => Some("mesh_node_state"),
        ROUTING_TABLE => Some("mesh_routing_table"),
        RUNTIME_CONFIG => Some("mesh_runtime_config"),
        STATE_CHECKS => Some("state_checks"),
        _ => None,
    }
}
