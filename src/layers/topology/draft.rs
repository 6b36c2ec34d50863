//! A change of the topology while it is made: what is read is what was written before it, in the same draft.
//!
//! Every change writes the record `head` and is guarded by its revision, so changes of the topology take effect one after
//! the other, each decided on what the one before left. Names, ends of routes and references are also held by the core
//! (unique entries, references that cascade), so that no other path can break them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{history, item};
use crate::{
    Error, Result,
    error::Fault,
    layers::Write,
    limits,
    model::{
        Key, ScopeId,
        keyspace::{self, INDEX_NODE_MESH, INDEX_NODE_REGION, INDEX_ROUTE_SOURCE, INDEX_ROUTE_TARGET},
        topology::{Cause, Edit, Item, ItemKind, Mesh, Node, Note, Pending, Region, Route},
        transaction::{Compare, Operation, Put},
    },
    state::{View, constants},
    storage::codec::{self, Kind},
};

pub(super) const SCOPE: ScopeId = ScopeId::new(keyspace::TOPOLOGY, keyspace::NO_SCOPE);
/// Entries that are read at once.
pub(super) const CHUNK: usize = 256;
/// Records that may go with nodes beside what they have reported: the local identities of storage nodes.
const IDENTITIES: usize = 96;
/// What the way back says of itself in an entry of the history, and a transaction has around its operations, at most.
const NOTE_BYTES: usize = 1 << 10;

/// What every change writes. Frozen (kind `TopologyHead`, version 1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The change that waits to be confirmed.
    pub(super) pending: Option<Pending>,
}

/// The head as it is stored.
pub(super) struct Stand {
    pub(super) head: Head,
    /// The revision of the last change; 0 before the first.
    pub(super) revision: u64,
}

fn head_key() -> Key {
    SCOPE.key(b"head")
}

/// What expires when a change was not confirmed in time.
pub(super) fn pending_key() -> Key {
    SCOPE.key(b"pending")
}

impl Stand {
    pub(super) fn read(view: &View) -> Result<Self> {
        let Some(record) = view.record(&head_key())? else { return Ok(Self { head: Head::default(), revision: 0 }) };
        let head =
            codec::decode(Kind::TopologyHead, &record.value).map_err(|error| broken(view, &head_key(), &error))?;
        Ok(Self { head, revision: record.mod_revision })
    }

    /// That this is still the last change.
    pub(super) fn guard(&self) -> Compare {
        Compare::written_at(head_key(), self.revision)
    }
}

/// The new head.
pub(super) fn put_head(head: &Head) -> Operation {
    Operation::Put { key: head_key(), put: Put::value(codec::encode(Kind::TopologyHead, head)) }
}

/// Something stored that cannot be.
pub(super) fn broken(view: &View, key: &Key, error: &dyn std::fmt::Display) -> Error {
    view.fault(Fault::bug(format!("{key} in the topology: {error}")))
}

/// Changes that are being made.
pub struct Draft<'v> {
    view: &'v View,
    stand: Stand,
    /// Items by id, as they are to be.
    touched: BTreeMap<String, Option<Item>>,
    /// Their ids by name.
    names: BTreeMap<(ItemKind, String), String>,
}

impl<'v> Draft<'v> {
    /// Begins a change. Errors: `Refused` while another waits to be confirmed.
    pub fn open(view: &'v View) -> Result<Self> {
        let draft = Self::open_anyway(view)?;
        match &draft.stand.head.pending {
            None => Ok(draft),
            Some(pending) => Err(Error::Refused(format!(
                "a change of the topology by {:?} at revision {} waits to be confirmed: confirm it, or wait until it is \
                 rolled back",
                pending.author, draft.stand.revision
            ))),
        }
    }

    /// Begins a change, also of what is pending.
    pub fn open_anyway(view: &'v View) -> Result<Self> {
        Ok(Self { view, stand: Stand::read(view)?, touched: BTreeMap::new(), names: BTreeMap::new() })
    }

    pub(super) fn stand(&self) -> &Stand {
        &self.stand
    }

    /// Makes an item what it is to be.
    fn touch(&mut self, id: String, item: Option<Item>) {
        let named = |item: &Item| item.name().map(|name| (item.kind(), name.to_owned()));
        if let Some(name) = self.touched.get(&id).and_then(Option::as_ref).and_then(named)
            && self.names.get(&name) == Some(&id)
        {
            self.names.remove(&name);
        }
        if let Some(name) = item.as_ref().and_then(named) {
            self.names.insert(name, id.clone());
        }
        self.touched.insert(id, item);
    }

    fn stored(&self, id: &str) -> Result<Option<Item>> {
        item::read(self.view, id)
    }

    /// An item as it is now.
    pub(super) fn item(&self, id: &str) -> Result<Option<Item>> {
        match self.touched.get(id) {
            Some(item) => Ok(item.clone()),
            None => self.stored(id),
        }
    }

    pub(super) fn mesh(&self, id: &str) -> Result<Mesh> {
        match self.item(item::check_id("mesh_id", id, ItemKind::Mesh)?)? {
            Some(Item::Mesh(mesh)) => Ok(mesh),
            _ => Err(item::missing(ItemKind::Mesh, id)),
        }
    }

    pub(super) fn region(&self, id: &str) -> Result<Region> {
        match self.item(item::check_id("region_id", id, ItemKind::Region)?)? {
            Some(Item::Region(region)) => Ok(region),
            _ => Err(item::missing(ItemKind::Region, id)),
        }
    }

    pub(super) fn node(&self, field: &str, id: &str) -> Result<Node> {
        match self.item(item::check_id(field, id, ItemKind::Node)?)? {
            Some(Item::Node(node)) => Ok(node),
            _ => Err(item::missing(ItemKind::Node, id)),
        }
    }

    /// A node of this mesh.
    pub(super) fn member(&self, field: &str, mesh_id: &str, id: &str) -> Result<Node> {
        let node = self.node(field, id)?;
        if node.mesh_id == mesh_id { Ok(node) } else { Err(item::missing(ItemKind::Node, id)) }
    }

    /// The route from one node to another.
    pub(super) fn route(&self, source: &str, target: &str) -> Result<Option<Route>> {
        let is_it = |route: &Route| route.source_node_id == source && route.target_node_id == target;
        for item in self.touched.values().flatten() {
            if let Item::Route(route) = item
                && is_it(route)
            {
                return Ok(Some(route.clone()));
            }
        }
        let Some(owner) = self.view.owner(keyspace::UNIQUE_ROUTE_ENDS, &item::ends(source, target))? else {
            return Ok(None);
        };
        match self.item(&item::id_of(&owner))? {
            Some(Item::Route(route)) if is_it(&route) => Ok(Some(route)),
            _ => Ok(None),
        }
    }

    /// The item of this kind and name.
    pub(super) fn named(&self, kind: ItemKind, name: &str) -> Result<Option<Item>> {
        if let Some(id) = self.names.get(&(kind, name.to_owned())) {
            return self.item(id);
        }
        let Some(owner) =
            item::unique_names(kind).map(|index| self.view.owner(index, name.as_bytes())).transpose()?.flatten()
        else {
            return Ok(None);
        };
        // It may have another name by now.
        Ok(self.item(&item::id_of(&owner))?.filter(|item| item.kind() == kind && item.name() == Some(name)))
    }

    /// The mesh of this name.
    pub fn mesh_named(&self, name: &str) -> Result<Option<Mesh>> {
        Ok(self.named(ItemKind::Mesh, name)?.and_then(|item| match item {
            Item::Mesh(mesh) => Some(mesh),
            _ => None,
        }))
    }

    /// The items that an index holds under a key, and that still belong there.
    fn indexed(&self, index: u32, under: &str, belongs: impl Fn(&Item) -> bool) -> Result<Vec<Item>> {
        let mut found = BTreeMap::new();
        for id in item::ids_under(self.view, index, under, CHUNK)? {
            if let Some(item) = self.item(&id)?.filter(&belongs) {
                found.insert(id, item);
            }
        }
        let added =
            self.touched.iter().filter_map(|(id, item)| Some((id, item.as_ref().filter(|item| belongs(item))?)));
        found.extend(added.map(|(id, item)| (id.clone(), item.clone())));
        Ok(found.into_values().collect())
    }

    /// The nodes of a mesh.
    pub(super) fn nodes_of(&self, mesh_id: &str) -> Result<Vec<Node>> {
        let items =
            self.indexed(INDEX_NODE_MESH, mesh_id, |item| matches!(item, Item::Node(node) if node.mesh_id == mesh_id))?;
        Ok(nodes(items))
    }

    /// The nodes in a region.
    pub(super) fn nodes_in(&self, region_id: &str) -> Result<Vec<Node>> {
        let inside = |item: &Item| matches!(item, Item::Node(node) if node.region_id.as_deref() == Some(region_id));
        Ok(nodes(self.indexed(INDEX_NODE_REGION, region_id, inside)?))
    }

    /// The routes that begin at a node.
    pub(super) fn routes_from(&self, node_id: &str) -> Result<Vec<Route>> {
        let from = |item: &Item| matches!(item, Item::Route(route) if route.source_node_id == node_id);
        Ok(routes(self.indexed(INDEX_ROUTE_SOURCE, node_id, from)?))
    }

    fn routes_to(&self, node_id: &str) -> Result<Vec<Route>> {
        let to = |item: &Item| matches!(item, Item::Route(route) if route.target_node_id == node_id);
        Ok(routes(self.indexed(INDEX_ROUTE_TARGET, node_id, to)?))
    }

    /// Creates or replaces an item. Errors: `Refused` if its name is another's.
    pub(super) fn put(&mut self, item: Item) -> Result<()> {
        if let Some(name) = item.name()
            && let Some(other) = self.named(item.kind(), name)?
            && other.id() != item.id()
        {
            let kind = item.kind().prefix();
            return Err(Error::Refused(format!("a {kind} with the name {name:?} already exists ({})", other.id())));
        }
        self.touch(item.id().to_owned(), Some(item));
        Ok(())
    }

    /// Puts an item back as it was, or not: whether its name is free is the business of who does that for all of them.
    pub(super) fn restore(&mut self, id: String, item: Option<Item>) {
        self.touch(id, item);
    }

    /// Deletes a route.
    pub(super) fn delete_route(&mut self, route: &Route) {
        self.touch(route.id.clone(), None);
    }

    /// Deletes a node, and with it the routes from and to it.
    pub(super) fn delete_node(&mut self, node: &Node) -> Result<()> {
        let mut gone = self.routes_from(&node.id)?;
        gone.extend(self.routes_to(&node.id)?);
        gone.iter().for_each(|route| self.delete_route(route));
        self.touch(node.id.clone(), None);
        Ok(())
    }

    /// Deletes a region; nodes in it are in none then.
    pub(super) fn delete_region(&mut self, region: &Region) -> Result<()> {
        for node in self.nodes_in(&region.id)? {
            self.touch(node.id.clone(), Some(Item::Node(Node { region_id: None, ..node })));
        }
        self.touch(region.id.clone(), None);
        Ok(())
    }

    /// Deletes a mesh, its nodes and their routes.
    pub(super) fn delete_mesh(&mut self, mesh: &Mesh) -> Result<()> {
        for node in self.nodes_of(&mesh.id)? {
            self.delete_node(&node)?;
        }
        self.touch(mesh.id.clone(), None);
        Ok(())
    }

    /// What would change, in the order in which items refer to each other.
    pub fn edits(&self) -> Result<Vec<Edit>> {
        let mut edits = Vec::new();
        for (id, after) in &self.touched {
            let before = self.stored(id)?;
            if before != *after {
                edits.push(Edit { before, after: after.clone() });
            }
        }
        edits.sort_by_key(|edit| edit.item().map(Item::kind));
        Ok(edits)
    }

    /// The change as one transaction, with its entry in the history. Nothing to change is no change: `None`.
    pub fn finish(self, note: Note, cause: Cause) -> Result<Option<Write>> {
        let edits = self.edits()?;
        if edits.is_empty() {
            return Ok(None);
        }
        check_deletes(&edits)?;
        let pending = match cause {
            Cause::ApplyUnconfirmed(confirm_ms) => {
                check_way_back(&edits)?;
                Some(Pending { before: self.view.revision(), author: note.author.clone(), confirm_ms })
            }
            _ => None,
        };
        let mut operations = operations(&edits);
        if let Some(Pending { confirm_ms, .. }) = pending {
            operations.push(Operation::Put {
                key: pending_key(),
                put: Put { ttl_ms: Some(confirm_ms), ..Put::value(Bytes::new()) },
            });
        }
        operations.extend(history::entries(&note, &cause, edits));
        operations.push(put_head(&Head { pending }));
        if operations.len() > limits::LAYER_OPERATIONS {
            let rule = format!("must change at most {} items at once", limits::LAYER_OPERATIONS / 2);
            return Err(Error::invalid("topology", "", rule));
        }
        Ok(Some(Write::guarded(vec![self.stand.guard()], operations)))
    }
}

/// That what goes can go in one transaction, each node with the revision that it has reported.
fn check_deletes(edits: &[Edit]) -> Result<()> {
    let gone = edits.iter().filter(|edit| edit.after.is_none()).filter_map(|edit| edit.before.as_ref());
    let records = gone.map(|item| if item.kind() == ItemKind::Node { 2 } else { 1 }).sum::<usize>();
    if records + IDENTITIES <= constants::DELETES {
        return Ok(());
    }
    let most = constants::DELETES - IDENTITIES;
    Err(Error::Refused(format!(
        "the change deletes too much at once: {records} records, of {most} that can go in one change (a node counts as two, \
         a route as one); delete some of the nodes or routes before"
    )))
}

/// That the change can be undone as one transaction by whoever leads when nobody has confirmed it.
fn check_way_back(edits: &[Edit]) -> Result<()> {
    let back: Vec<Edit> =
        edits.iter().map(|edit| Edit { before: edit.after.clone(), after: edit.before.clone() }).collect();
    let cannot = |why: String| {
        Error::Refused(format!(
            "a change of this size could not be rolled back at once if it is not confirmed ({why}); make it in smaller \
             ones, or without a time to confirm"
        ))
    };
    check_deletes(&back).map_err(|error| cannot(error.to_string()))?;
    let mut bytes = operations(&back).iter().map(codec::payload_len).sum::<usize>();
    let note = Note { author: String::new(), reason: String::new() };
    let entries = history::entries(&note, &Cause::Unconfirmed(0), back);
    bytes += entries.iter().map(|entry| codec::payload_len(entry) + NOTE_BYTES).sum::<usize>();
    if bytes + NOTE_BYTES > limits::TRANSACTION_BYTES {
        return Err(cannot(format!("{bytes} bytes, of {} in a transaction", limits::TRANSACTION_BYTES - NOTE_BYTES)));
    }
    Ok(())
}

fn nodes(items: Vec<Item>) -> Vec<Node> {
    let node = |item| match item {
        Item::Node(node) => Some(node),
        _ => None,
    };
    items.into_iter().filter_map(node).collect()
}

fn routes(items: Vec<Item>) -> Vec<Route> {
    let route = |item| match item {
        Item::Route(route) => Some(route),
        _ => None,
    };
    items.into_iter().filter_map(route).collect()
}

/// Edits as operations. The core checks unique entries and references when all are done, so names may even be swapped.
fn operations(edits: &[Edit]) -> Vec<Operation> {
    let put = |item: &Item| Operation::Put { key: item::key(item.id()), put: item::put(item) };
    let mut operations: Vec<Operation> = edits.iter().filter_map(|edit| edit.after.as_ref().map(put)).collect();
    for edit in edits.iter().rev().filter(|edit| edit.after.is_none()) {
        operations.extend(edit.before.as_ref().map(|item| Operation::Delete { key: item::key(item.id()) }));
    }
    operations
}
