//! What is watched, and what is told of it, as clients and layers see it.

use bytes::Bytes;

use super::{
    document::Document,
    kv::Entry,
    mesh::{Message, Stored},
    topology::HistoryEntry,
};

/// Which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// All.
    #[default]
    All,
    /// This one.
    One(String),
    /// Those that begin so.
    Prefix(String),
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Values of a namespace, which need not exist.
    Values {
        /// Its name; empty: `default`.
        namespace: String,
        /// Which values.
        keys: Keys,
        /// Whether the callers' attributes are told, too.
        attributes: bool,
    },
    /// Messages, by id.
    Messages(Keys),
    /// State values, by key.
    State(Keys),
    /// Runtime states of nodes, by node id.
    NodeStates(Keys),
    /// Routes, by destination.
    Routes(Keys),
    /// Configuration values, by key.
    Config(Keys),
    /// The history of the topology.
    Topology,
    /// Documents of a collection, by id.
    Documents {
        /// On whose behalf; empty: the caller's own.
        service: String,
        /// The collection: the service's own, or `service.collection`.
        collection: String,
        /// Which documents, in JSON; empty: all. To the watcher there are no others.
        filter: String,
    },
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what changes from now on.
    #[default]
    Now,
    /// With what changed after this revision.
    After(u64),
    /// With all that there is, as of one revision.
    Current,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// Its key.
    pub key: String,
    /// What it is now; `None`: it was deleted, or has expired.
    pub now: Option<Stored<T>>,
    /// What it was; `None`: it was created, or this is not known.
    pub before: Option<Stored<T>>,
}

/// What became of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceEvent {
    /// It was created, and is empty but for what else is told of this revision.
    Created,
    /// All its values are gone.
    Cleared,
    /// It is gone, with all its values.
    Deleted,
}

/// One change; also one record that is shown because it is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A value was written or deleted. Attributes are there if the same transaction wrote them, too, and they are watched.
    Value {
        /// Its key.
        key: String,
        /// What it is now; `None`: it was deleted, or has expired.
        now: Option<Entry>,
        /// What it was; `None`: it was created, or this is not known.
        before: Option<Entry>,
    },
    /// The attributes of a value were written, and the value was not.
    Attributes {
        /// Its key.
        key: String,
        /// What they are now, a JSON object; `None`: there are none.
        now: Option<String>,
        /// What they were; `None`: there were none, or this is not known.
        before: Option<String>,
        /// The revision of this write.
        revision: u64,
    },
    /// Something became of the whole namespace.
    Namespace(NamespaceEvent),
    /// A message.
    Message(Changed<Message>),
    /// A state value.
    State(Changed<Bytes>),
    /// The runtime state of a node, JSON.
    NodeState(Changed<String>),
    /// A route, JSON.
    Route(Changed<String>),
    /// A configuration value, JSON.
    Config(Changed<String>),
    /// An entry of the history of the topology. A change of very many items has several.
    Topology(HistoryEntry),
    /// A document came, was changed or went, or came to be what the filter lets through, or no longer is.
    Document {
        /// Its id.
        id: String,
        /// What it is now; `None`: it was deleted, has expired, or the filter no longer lets it through.
        now: Option<Document>,
        /// What it was; `None`: it was inserted, the filter did not let it through, or this is not known.
        before: Option<Document>,
    },
}

impl Change {
    /// The key of the record that it is of; `None` for what is of more than one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Value { key, .. } | Self::Attributes { key, .. } => Some(key),
            Self::Message(changed) => Some(&changed.key),
            Self::State(changed) => Some(&changed.key),
            Self::NodeState(changed) | Self::Route(changed) | Self::Config(changed) => Some(&changed.key),
            Self::Document { id, .. } => Some(id),
            Self::Namespace(_) | Self::Topology(_) => None,
        }
    }

    /// How much it takes, about, in bytes.
    pub fn bytes(&self) -> usize {
        const AROUND: usize = 128;
        const ENTRY: usize = 128 << 10;
        fn of<T>(changed: &Changed<T>, length: impl Fn(&T) -> usize) -> usize {
            let stored = [&changed.now, &changed.before].into_iter().flatten();
            changed.key.len() + stored.map(|stored| length(&stored.value) + AROUND).sum::<usize>()
        }
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let entry = |entry: &Entry| entry.value.len() + text(&entry.metadata.attributes) + AROUND;
        AROUND
            + match self {
                Self::Value { key, now, before } => {
                    key.len() + [now, before].into_iter().flatten().map(entry).sum::<usize>()
                }
                Self::Attributes { key, now, before, .. } => key.len() + text(now) + text(before),
                Self::Message(changed) => {
                    of(changed, |message| message.content.len() + message.from.len() + message.to.len())
                }
                Self::State(changed) => of(changed, Bytes::len),
                Self::NodeState(changed) | Self::Route(changed) | Self::Config(changed) => of(changed, String::len),
                Self::Namespace(_) => 0,
                Self::Topology(_) => ENTRY,
                Self::Document { id, now, before } => {
                    let sides = [now, before].into_iter().flatten();
                    id.len() + sides.map(|side| side.id.len() + side.json.len() + AROUND).sum::<usize>()
                }
            }
    }

    /// The revision of the last write of the record that is there now; `None`: there is none, or it is of more than one.
    pub fn mod_revision(&self) -> Option<u64> {
        match self {
            Self::Value { now, .. } => {
                now.as_ref().map(|entry| entry.metadata.mod_revision.max(entry.metadata.attributes_revision))
            }
            Self::Attributes { revision, .. } => Some(*revision),
            Self::Message(changed) => changed.now.as_ref().map(|stored| stored.mod_revision),
            Self::State(changed) => changed.now.as_ref().map(|stored| stored.mod_revision),
            Self::NodeState(changed) | Self::Route(changed) | Self::Config(changed) => {
                changed.now.as_ref().map(|stored| stored.mod_revision)
            }
            Self::Document { now, .. } => now.as_ref().map(|document| document.revision),
            Self::Namespace(_) | Self::Topology(_) => None,
        }
    }
}

/// What a node tells a watcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// First: changes after this revision will be told.
    Started {
        /// The node that tells.
        node_id: u64,
        /// The revision.
        revision: u64,
    },
    /// A part of what there is, in key order.
    Content {
        /// As of this revision.
        revision: u64,
        /// The records.
        records: Vec<Change>,
        /// Whether this was all.
        last: bool,
    },
    /// What one transaction changed.
    Changes {
        /// Its revision.
        revision: u64,
        /// The changes.
        changes: Vec<Change>,
        /// Whether the next goes on with the same transaction.
        more: bool,
    },
    /// All changes up to a revision have been told.
    Progress {
        /// The revision.
        revision: u64,
        /// How old the data of the node may be, in milliseconds.
        age_ms: u64,
    },
}

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// What is watched.
    pub target: Target,
    /// From where on.
    pub start: Start,
    /// How fresh the state must be from which it begins, if no revision is named.
    pub mode: super::ReadMode,
    /// How often progress is told, in milliseconds.
    pub progress_ms: u64,
    /// Whether what was there before is told.
    pub previous: bool,
}
