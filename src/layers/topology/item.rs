//! Meshes, nodes, routes and regions as records: their keys, index entries and references.

use bytes::Bytes;

use super::draft::{SCOPE, broken};
use crate::{
    Error, Result,
    model::{
        Entry, Key, Record, Reference, ReferenceMode,
        key::{escape, prefix_end},
        keyspace::{
            INDEX_NODE_MESH, INDEX_NODE_REGION, INDEX_ROUTE_SOURCE, INDEX_ROUTE_TARGET, UNIQUE_MESH_NAME,
            UNIQUE_NODE_NAME, UNIQUE_REGION_NAME, UNIQUE_ROUTE_ENDS,
        },
        kind,
        topology::{Item, ItemKind},
        transaction::Put,
    },
    state::View,
    storage::codec::{self, Kind},
};

/// Characters of a ULID.
const ULID_CHARS: usize = 26;

/// The key of an item.
pub(super) fn key(id: &str) -> Key {
    SCOPE.key(id.as_bytes())
}

/// The id of the item with this key.
pub(super) fn id_of(key: &Key) -> String {
    String::from_utf8_lossy(&key.user_bytes()).into_owned()
}

/// That an id is one of this kind. Errors: `InvalidArgument`.
pub(super) fn check_id<'a>(field: &str, id: &'a str, kind: ItemKind) -> Result<&'a str> {
    let digits = id.strip_prefix(kind.prefix()).and_then(|rest| rest.strip_prefix('_'));
    let is_digit =
        |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'H' | b'J' | b'K' | b'M' | b'N' | b'P'..=b'T' | b'V'..=b'Z');
    match digits {
        Some(digits) if digits.len() == ULID_CHARS && digits.bytes().all(is_digit) => Ok(id),
        _ => {
            let rule = format!("must be the id of a {0}: {0}_ and 26 characters of Crockford's base 32", kind.prefix());
            Err(Error::invalid(field, id, rule))
        }
    }
}

/// That there is none.
pub(super) fn missing(kind: ItemKind, name: &str) -> Error {
    let kind = match kind {
        ItemKind::Mesh => kind::MESH,
        ItemKind::Region => kind::REGION,
        ItemKind::Node => kind::NODE,
        ItemKind::Route => kind::MESH_ROUTE,
    };
    Error::NotFound { kind, name: name.into() }
}

/// An item from its record.
pub(super) fn open(view: &View, key: &Key, record: &Record) -> Result<Item> {
    codec::decode(Kind::TopologyItem, &record.value).map_err(|error| broken(view, key, &error))
}

/// An item, if there is one.
pub(super) fn read(view: &View, id: &str) -> Result<Option<Item>> {
    let key = key(id);
    view.record(&key)?.map(|record| open(view, &key, &record)).transpose()
}

/// Where the names of a kind are unique.
pub(super) fn unique_names(kind: ItemKind) -> Option<u32> {
    match kind {
        ItemKind::Mesh => Some(UNIQUE_MESH_NAME),
        ItemKind::Region => Some(UNIQUE_REGION_NAME),
        ItemKind::Node => Some(UNIQUE_NODE_NAME),
        ItemKind::Route => None,
    }
}

/// The two ends of a route as one key.
pub(super) fn ends(source: &str, target: &str) -> Vec<u8> {
    joined(source, target)
}

fn joined(first: &str, second: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(first.len() + second.len() + 2);
    escape(&mut key, first.as_bytes());
    key.extend_from_slice(second.as_bytes());
    key
}

/// What only one item of a kind may have.
pub(super) fn unique_key(item: &Item) -> Vec<u8> {
    match item {
        Item::Route(route) => ends(&route.source_node_id, &route.target_node_id),
        _ => item.name().unwrap_or_default().as_bytes().to_vec(),
    }
}

/// A record that an index names.
pub(super) fn gone(view: &View, key: &Key) -> Error {
    broken(view, key, &"an index names it, and it is missing")
}

/// Where the entries of an index begin that stand under a name: entry keys begin with it, escaped, and the core escapes
/// them once more.
pub(super) fn under(name: &str) -> Vec<u8> {
    let (mut prefix, mut start) = (Vec::new(), Vec::new());
    escape(&mut prefix, name.as_bytes());
    for byte in prefix {
        start.push(byte);
        if byte == 0 {
            start.push(0xFF);
        }
    }
    start
}

/// The ids that an index holds under a name, in its order.
pub(super) fn ids_under(view: &View, index: u32, name: &str, chunk: usize) -> Result<Vec<String>> {
    let mut start = under(name);
    let end = prefix_end(&start);
    let mut ids = Vec::new();
    loop {
        let entries = view.entries(index, &start, end.as_deref(), chunk)?;
        let count = entries.len();
        for entry in entries {
            ids.push(id_of(&entry.record_key));
            start = entry.position.to_vec();
            start.push(0);
        }
        if count < chunk {
            return Ok(ids);
        }
    }
}

/// The record of an item.
pub(super) fn put(item: &Item) -> Put {
    let unique = |scope| Entry { scope, key: unique_key(item).into(), payload: Bytes::new(), unique: true };
    let index = |scope, under: &str, then: &str| Entry {
        scope,
        key: joined(under, then).into(),
        payload: Bytes::new(),
        unique: false,
    };
    let reference = |id: &str, mode| Reference { key: key(id), mode };
    let (entries, references) = match item {
        Item::Mesh(_) => (vec![unique(UNIQUE_MESH_NAME)], vec![]),
        Item::Region(_) => (vec![unique(UNIQUE_REGION_NAME)], vec![]),
        Item::Node(node) => {
            let mut entries = vec![unique(UNIQUE_NODE_NAME), index(INDEX_NODE_MESH, &node.mesh_id, &node.name)];
            let mut references = vec![reference(&node.mesh_id, ReferenceMode::Cascade)];
            if let Some(region_id) = &node.region_id {
                entries.push(index(INDEX_NODE_REGION, region_id, &node.name));
                // Who deletes a region takes its nodes out of it first.
                references.push(reference(region_id, ReferenceMode::Restrict));
            }
            (entries, references)
        }
        Item::Route(route) => {
            let (source, target) = (&route.source_node_id, &route.target_node_id);
            let entries = vec![
                unique(UNIQUE_ROUTE_ENDS),
                index(INDEX_ROUTE_SOURCE, source, target),
                index(INDEX_ROUTE_TARGET, target, source),
            ];
            (entries, vec![reference(source, ReferenceMode::Cascade), reference(target, ReferenceMode::Cascade)])
        }
    };
    Put { entries, references, ..Put::value(codec::encode(Kind::TopologyItem, item)) }
}
