//! The entities of mesh storage, as clients and layers see them.

use bytes::Bytes;

use super::consensus_log::{EntryId, Indexes, LogEntry};

/// A message between two mesh nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its id; storing another message under the same id overwrites it.
    pub id: String,
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// The content.
    pub content: Bytes,
    /// The sender's time; the unit is the caller's (lists order by it).
    pub timestamp: i64,
    /// Of a message that was read: there if its content is too large to be part of it; `content` is then empty.
    pub large: Option<LargeContent>,
}

/// Content that comes in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeContent {
    /// Its bytes.
    pub size: u64,
    /// The chunks of which it consists.
    pub chunks: u32,
    /// CRC32C of the whole.
    pub crc32c: u32,
}

/// What is said of a message before its content comes in chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The message without its content.
    pub message: Message,
    /// Bytes that will come.
    pub size: u64,
    /// Chunks that will come.
    pub chunks: u32,
    /// CRC32C of the whole, if it is to be checked.
    pub crc32c: Option<u32>,
}

/// A part of a message's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the content, from 0.
    pub number: u32,
    /// The bytes.
    pub data: Bytes,
    /// Their CRC32C.
    pub crc32c: u32,
}

/// What is kept of the messages to one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Messages that were stored longer ago go; in milliseconds, at least 1,000.
    pub max_age_ms: Option<u64>,
    /// Of more messages than this the oldest go, by timestamp and id.
    pub max_count: Option<u64>,
}

/// A value with what the store knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The thing itself.
    pub value: T,
    /// When it was created, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When it was last written, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// The revision that created it.
    pub create_revision: u64,
    /// The revision that wrote it last.
    pub mod_revision: u64,
    /// 1 when created, +1 with each write.
    pub version: u64,
}

/// Which messages to list; they come in order of time, then id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Only from this sender.
    pub from: Option<String>,
    /// Only to this receiver.
    pub to: Option<String>,
    /// Only at or after this time.
    pub since: Option<i64>,
    /// Only before this time.
    pub until: Option<i64>,
}

impl MessageFilter {
    /// Whether it lets a message through.
    pub fn selects(&self, message: &Message) -> bool {
        let Self { from, to, since, until } = self;
        from.as_ref().is_none_or(|from| *from == message.from)
            && to.as_ref().is_none_or(|to| *to == message.to)
            && since.is_none_or(|since| message.timestamp >= since)
            && until.is_none_or(|until| message.timestamp < until)
    }
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Most items; 0 stands for the default of 100.
    pub limit: u32,
    /// Where the page before ended; empty for the first.
    pub cursor: String,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Where to go on; empty at the end.
    pub next_cursor: String,
    /// The one revision that all pages of this list show.
    pub revision: u64,
}

/// A record of mesh storage or of a group's log: what it is, and its id or key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordId {
    /// A message, by id.
    Message(String),
    /// A state value, by key.
    State(String),
    /// The runtime state of a node, by node id.
    NodeState(String),
    /// A route, by destination.
    Route(String),
    /// A configuration value, by key.
    Config(String),
    /// An entry of a group's log.
    LogEntry(EntryId),
}

/// What must be true of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It exists.
    Exists,
    /// It does not exist.
    Missing,
    /// It has this version; 0 stands for none.
    Version(u64),
    /// It was last written at this revision; 0 stands for never.
    ModRevision(u64),
}

/// What a list covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    /// State values whose keys begin so.
    State(String),
    /// All node states.
    NodeStates,
    /// Routes whose destinations begin so.
    Routes(String),
    /// Configuration values whose keys begin so.
    Config(String),
    /// All messages, whatever a list of them filtered.
    Messages,
    /// Entries of a group's log.
    LogEntries(String, Indexes),
}

/// What was read of an extent: it is as it was as long as nothing in it was written, created or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// How many records were there. Over 1,000 nothing of the whole kind may have changed.
    pub count: u64,
    /// The revision at which they were.
    pub since_revision: u64,
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a message.
    StoreMessage(Message),
    /// Creates or overwrites a state value.
    PutState {
        /// Its key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// Creates or overwrites the runtime state of a node.
    SaveNodeState {
        /// The node.
        node_id: String,
        /// Its state.
        state_json: String,
    },
    /// Creates or overwrites a route.
    SaveRoute {
        /// Its destination.
        destination: String,
        /// The route.
        route_json: String,
    },
    /// Creates or overwrites a configuration value.
    SaveConfig {
        /// Its key.
        key: String,
        /// Its value.
        value_json: String,
    },
    /// Appends an entry to a group's log. That the log has none with this term and index is a precondition.
    AppendEntry {
        /// The group.
        group: String,
        /// The entry.
        entry: LogEntry,
    },
    /// Deletes a record, if there is one.
    Delete(RecordId),
    /// Writes a record that goes with a lease. Log entries and deletions take none.
    Attached {
        /// The lease.
        lease: u64,
        /// What is written.
        change: Box<Change>,
    },
}

impl Change {
    /// The same, whose record goes with a lease.
    #[must_use]
    pub fn attached_to(self, lease: u64) -> Self {
        Self::Attached { lease, change: Box::new(self) }
    }
}

/// Changes that are made together or not at all: if all preconditions hold, at one revision. Each change is of
/// another record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must be true before any change.
    pub preconditions: Vec<(RecordId, Condition)>,
    /// What must be as it was read.
    pub unchanged: Vec<(Extent, Listed)>,
    /// The changes.
    pub changes: Vec<Change>,
}

impl Transaction {
    /// Adds a precondition.
    #[must_use]
    pub fn require(mut self, record: RecordId, condition: Condition) -> Self {
        self.preconditions.push((record, condition));
        self
    }

    /// Adds a list that must be as it was read.
    #[must_use]
    pub fn require_unchanged(mut self, extent: Extent, listed: Listed) -> Self {
        self.unchanged.push((extent, listed));
        self
    }

    /// Adds a change.
    #[must_use]
    pub fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Adds a write of a state value.
    #[must_use]
    pub fn put_state(self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.change(Change::PutState { key: key.into(), value: value.into() })
    }

    /// Adds a deletion.
    #[must_use]
    pub fn delete(self, record: RecordId) -> Self {
        self.change(Change::Delete(record))
    }
}
