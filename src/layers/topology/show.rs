//! What stands in the topology: single items, lists, and all that belongs to a mesh.

use super::{
    draft::{CHUNK, Draft, SCOPE, Stand},
    item,
};
use crate::{
    Result,
    layers::{
        check::stored,
        list::{Range, Walk},
    },
    model::{
        Key,
        key::{escape, prefix_end},
        keyspace::{self, INDEX_NODE_MESH, INDEX_ROUTE_SOURCE},
        mesh::{Page, PageRequest, Stored},
        topology::{Item, ItemKind, MeshTopology, Region},
    },
    state::View,
};

/// An item with what the store knows of it. Errors: `InvalidArgument`; `NotFound`.
pub fn get(view: &View, field: &str, kind: ItemKind, id: &str) -> Result<Stored<Item>> {
    let key = item::key(item::check_id(field, id, kind)?);
    let record = view.record(&key)?.ok_or_else(|| item::missing(kind, id))?;
    Ok(stored(&record, item::open(view, &key, &record)?))
}

/// The item of a name. Errors: `InvalidArgument`; `NotFound`.
pub fn by_name(view: &View, kind: ItemKind, name: &str) -> Result<Stored<Item>> {
    match Draft::open_anyway(view)?.named(kind, name)? {
        Some(there) => get(view, "name", kind, there.id()),
        None => Err(item::missing(kind, name)),
    }
}

/// A page of items that is wanted.
#[derive(Debug)]
pub struct List {
    walk: Walk,
    /// The index whose entries are walked; none: the items themselves.
    index: Option<u32>,
}

/// A page of all meshes or regions, by id, so in the order in which they were made. Errors: `InvalidArgument`.
pub fn list(kind: ItemKind, page: &PageRequest) -> Result<List> {
    let prefix = format!("{}_", kind.prefix()).into_bytes();
    let range = Range { end: prefix_end(&prefix), start: prefix };
    Ok(List { walk: Walk::open(keyspace::TOPOLOGY, &kind.prefix(), range, page)?, index: None })
}

/// A page of the nodes of a mesh, by name. Errors: `InvalidArgument`.
pub fn list_nodes(mesh_id: &str, page: &PageRequest) -> Result<List> {
    let start = item::under(item::check_id("mesh_id", mesh_id, ItemKind::Mesh)?);
    let range = Range { end: prefix_end(&start), start };
    Ok(List { walk: Walk::open(keyspace::TOPOLOGY, &("nodes", mesh_id), range, page)?, index: Some(INDEX_NODE_MESH) })
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View) -> Result<Page<Stored<Item>>> {
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| match self.index {
            None => {
                let records = view.records(SCOPE, start, end, limit)?;
                Ok(records.into_iter().map(|(key, _)| (key.user_bytes(), key)).collect())
            }
            Some(index) => {
                let entries = view.entries(index, start, end, limit)?;
                Ok(entries.into_iter().map(|entry| (entry.position, entry.record_key)).collect())
            }
        };
        self.walk.read(view, fetch, |_, key: Key| {
            let record = view.record(&key)?.ok_or_else(|| item::gone(view, &key))?;
            Ok((stored(&record, item::open(view, &key, &record)?), record.value.len()))
        })
    }
}

/// A mesh with everything in it. Errors: `InvalidArgument`; `NotFound`.
pub fn topology(view: &View, mesh_id: &str) -> Result<MeshTopology> {
    let draft = Draft::open_anyway(view)?;
    let mesh = draft.mesh(mesh_id)?;
    let mut nodes = draft.nodes_of(mesh_id)?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut routes, mut regions) = (Vec::new(), Vec::<Region>::new());
    for node in &nodes {
        routes.extend(draft.routes_from(&node.id)?);
        if let Some(region_id) = &node.region_id
            && regions.iter().all(|region| region.id != *region_id)
        {
            regions.push(draft.region(region_id)?);
        }
    }
    Ok(MeshTopology { mesh, nodes, routes, regions, changed: draft.stand().revision })
}

/// The revision of the last change of any mesh; 0 before the first.
pub fn changed_revision(view: &View) -> Result<u64> {
    Ok(Stand::read(view)?.revision)
}

/// The routes that begin at a node, as the seed has it: not those that end there, even if both ways. Where there is no such
/// node there are no routes.
///
/// Errors: `InvalidArgument`.
pub fn routes_for_node(view: &View, node_id: &str) -> Result<Vec<Stored<Item>>> {
    item::check_id("node_id", node_id, ItemKind::Node)?;
    let mut ids = item::ids_under(view, INDEX_ROUTE_SOURCE, node_id, CHUNK)?;
    ids.sort_unstable();
    ids.iter().map(|id| get(view, "route_id", ItemKind::Route, id)).collect()
}

/// The key under which a storage node's place in a mesh stands.
pub(super) fn identity_key(storage_node: u64) -> Key {
    let mut key = b"identity/".to_vec();
    escape(&mut key, &storage_node.to_be_bytes());
    SCOPE.key(&key)
}

/// Which node of a mesh a storage node belongs to; `None` is a valid state.
pub fn local_identity(view: &View, storage_node: u64) -> Result<Option<String>> {
    let Some(record) = view.record(&identity_key(storage_node))? else { return Ok(None) };
    let text = String::from_utf8(record.value.into());
    text.map(Some).map_err(|error| super::draft::broken(view, &identity_key(storage_node), &error))
}
