//! The entities of mesh storage, as clients and layers see them.

use bytes::Bytes;

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
