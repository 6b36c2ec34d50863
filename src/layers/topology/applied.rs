//! Which revision of the topology the nodes of a mesh have applied.
//!
//! Reports are blind writes of a record of their own, so that they neither wait for changes of the topology nor hold them up.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    draft::{Draft, broken},
    item,
    show::identity_key,
};
use crate::{
    Error, Result,
    layers::Write,
    model::{
        Key, Reference, ReferenceMode, ScopeId, keyspace,
        topology::{Applied, ItemKind, Node, Selector},
        transaction::{Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

/// Frozen (kind `AppliedRevision`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AppliedRevision {
    revision: u64,
}

fn key(node_id: &str) -> Key {
    ScopeId::new(keyspace::APPLIED_REVISIONS, keyspace::NO_SCOPE).key(node_id.as_bytes())
}

/// A node tells the revision that it has applied. Errors: `InvalidArgument`; `NotFound`.
pub fn report(node_id: &str, revision: u64) -> Result<Write> {
    put_beside(node_id, key(node_id), codec::encode(Kind::AppliedRevision, &AppliedRevision { revision }))
}

/// That a revision which was applied is there. Errors: `InvalidArgument`.
pub fn check_reached(view: &View, revision: u64) -> Result<()> {
    if revision <= view.revision() {
        return Ok(());
    }
    let rule = format!("must be a revision that is there; the newest is {}", view.revision());
    Err(Error::invalid("revision", revision.to_string(), rule))
}

/// Writes a record that goes with its node. Errors: `InvalidArgument`; `NotFound`.
fn put_beside(node_id: &str, key: Key, value: impl Into<Bytes>) -> Result<Write> {
    let node = item::key(item::check_id("node_id", node_id, ItemKind::Node)?);
    let references = vec![Reference { key: node.clone(), mode: ReferenceMode::Cascade }];
    let put = Operation::Put { key, put: Put { references, ..Put::value(value) } };
    Ok(Write::if_exists(node, vec![put], item::missing(ItemKind::Node, node_id)))
}

/// How far the selected nodes are, by name. Errors: `InvalidArgument`; `NotFound` for the mesh or a node that is named.
pub fn progress(view: &View, selector: &Selector) -> Result<Vec<Applied>> {
    let draft = Draft::open_anyway(view)?;
    let mesh = draft.mesh(&selector.mesh_id)?;
    let mut nodes = match selector.node_ids.as_slice() {
        [] => draft.nodes_of(&mesh.id)?,
        ids => ids.iter().map(|id| draft.member("node_ids", &mesh.id, id)).collect::<Result<_>>()?,
    };
    if !selector.region_id.is_empty() {
        let region = draft.region(&selector.region_id)?;
        nodes.retain(|node| node.region_id.as_ref() == Some(&region.id));
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes.into_iter().map(|node| one(view, node)).collect()
}

fn one(view: &View, node: Node) -> Result<Applied> {
    let key = key(&node.id);
    let (node_id, node_name) = (node.id, node.name);
    let Some(record) = view.record(&key)? else {
        return Ok(Applied { node_id, node_name, revision: 0, reported_at_ms: 0 });
    };
    let applied: AppliedRevision =
        codec::decode(Kind::AppliedRevision, &record.value).map_err(|error| broken(view, &key, &error))?;
    Ok(Applied { node_id, node_name, revision: applied.revision, reported_at_ms: record.updated_at_ms })
}

/// Says which node of a mesh a storage node belongs to. Errors: `InvalidArgument`; `NotFound`.
pub fn set_local_identity(storage_node: u64, node_id: &str) -> Result<Write> {
    if storage_node == 0 {
        return Err(Error::invalid("storage_node_id", "0", "must be the id of a storage node"));
    }
    put_beside(node_id, identity_key(storage_node), node_id.to_owned())
}
