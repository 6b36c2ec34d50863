//! What the topology holds at a revision: read in pages, compared, found sound, and exported.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use meshstore::{
    layers::topology::show,
    model::{
        mesh::{Page, PageRequest, Stored},
        topology::{
            Edit, HistoryEntry, Item, ItemKind, Mesh, MeshChange, MeshTopology, NodeChange, NodeSpec, RegionChange,
            RouteChange, RouteSpec, Spec,
        },
    },
    proto::{convert::read_header, topology, v1},
    state::View,
};

use super::super::wire::sent;

/// All items, by id.
pub(super) type Items = Rc<BTreeMap<String, Item>>;

/// All pages of a list, of `limit` items each.
pub(super) fn pages<T>(limit: u32, read: impl Fn(&PageRequest) -> Page<T>) -> Vec<T> {
    let (mut all, mut page) = (Vec::new(), PageRequest { limit, cursor: String::new() });
    loop {
        let Page { items, next_cursor, .. } = read(&page);
        assert!(items.len() <= limit as usize && (!items.is_empty() || next_cursor.is_empty()));
        all.extend(items);
        if next_cursor.is_empty() {
            return all;
        }
        page.cursor = next_cursor;
    }
}

/// All items of a kind, as they are listed: in order of their ids.
pub(super) fn listed(view: &View, kind: ItemKind, limit: u32) -> Vec<Stored<Item>> {
    let read = |page: &PageRequest| show::list(kind, page).expect("a list").read(view).expect("a page");
    let listed = pages(limit, read);
    assert!(listed.is_sorted_by(|a, b| a.value.id() < b.value.id()));
    assert!(listed.iter().all(|stored| stored.value.kind() == kind));
    listed
}

/// What becomes of one into the other, in the order in which changes tell it.
pub(super) fn difference(before: &Items, after: &Items) -> Vec<Edit> {
    let ids: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let edit = |id| Edit { before: before.get(id).cloned(), after: after.get(id).cloned() };
    let mut edits: Vec<Edit> = ids.into_iter().map(edit).filter(|edit| edit.before != edit.after).collect();
    edits.sort_by_key(|edit| edit.item().map(Item::kind));
    edits
}

/// That nothing names what is not there, and that no name, and no way from one node to another, is there twice.
pub(super) fn sound(items: &Items) {
    let (mut names, mut ends) = (BTreeSet::new(), BTreeSet::new());
    for (id, item) in items.iter() {
        assert_eq!(id, item.id());
        if let Some(name) = item.name() {
            assert!(names.insert((item.kind(), name)), "{name:?} is there twice");
        }
        match item {
            Item::Node(node) => {
                assert!(matches!(items.get(&node.mesh_id), Some(Item::Mesh(_))), "{node:?} is of no mesh");
                let region = node.region_id.as_ref().map(|id| items.get(id));
                assert!(matches!(region, None | Some(Some(Item::Region(_)))), "{node:?} is in no region");
            }
            Item::Route(route) => {
                let end = |id| match items.get(id) {
                    Some(Item::Node(node)) => &node.mesh_id,
                    _ => panic!("{route:?} dangles"),
                };
                assert_eq!(end(&route.source_node_id), end(&route.target_node_id), "{route:?} leaves its mesh");
                assert_ne!(route.source_node_id, route.target_node_id);
                assert!(ends.insert((&route.source_node_id, &route.target_node_id)), "{route:?} is there twice");
            }
            Item::Mesh(_) | Item::Region(_) => {}
        }
    }
}

/// A mesh with all that belongs to it, as the store shows it; it must be just what is there.
pub(super) fn shown(view: &View, items: &Items, mesh_id: &str) -> MeshTopology {
    let topology = show::topology(view, mesh_id).expect("a mesh");
    assert_eq!(items.get(mesh_id), Some(&Item::Mesh(topology.mesh.clone())));
    let of_mesh = |id: &str| matches!(items.get(id), Some(Item::Node(node)) if node.mesh_id == mesh_id);
    let belongs = |item: &&Item| {
        match item {
        Item::Mesh(_) => false,
        Item::Node(node) => node.mesh_id == mesh_id,
        Item::Route(route) => of_mesh(&route.source_node_id),
        Item::Region(region) => items.values().any(|item| {
            matches!(item, Item::Node(node) if node.mesh_id == mesh_id && node.region_id.as_ref() == Some(&region.id))
        }),
    }
    };
    let expected: Vec<&Item> = items.values().filter(belongs).collect();
    let MeshTopology { nodes, routes, regions, .. } = &topology;
    assert!(nodes.is_sorted_by(|a, b| a.name < b.name));
    let mut found: Vec<Item> = nodes.iter().cloned().map(Item::Node).collect();
    found.extend(routes.iter().cloned().map(Item::Route));
    found.extend(regions.iter().cloned().map(Item::Region));
    found.sort_by(|a, b| a.id().cmp(b.id()));
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    topology
}

/// The same as it arrives at a client.
pub(super) fn told(topology: MeshTopology) -> MeshTopology {
    let header = read_header(meshstore::model::ReadStamp { revision: 1, age_ms: 2 }, 3);
    let told = MeshTopology::try_from(sent(&v1::ShowTopologyResponse::from((header, topology.clone()))));
    let told = told.expect("an answer is understood");
    assert_eq!(told, MeshTopology { mesh: without_key(topology.mesh), ..topology });
    told
}

fn without_key(mesh: Mesh) -> Mesh {
    Mesh { join_key_hash: None, ..mesh }
}

/// What describes a mesh wholly.
pub(super) fn export(topology: MeshTopology) -> Spec {
    let MeshTopology { mesh, nodes, routes, regions, .. } = topology;
    let names: BTreeMap<String, String> = nodes.iter().map(|node| (node.id.clone(), node.name.clone())).collect();
    let region_names: BTreeMap<String, String> =
        regions.iter().map(|region| (region.id.clone(), region.name.clone())).collect();
    let regions = regions.into_iter().map(|region| {
        let change = RegionChange {
            name: None,
            description: Some(region.description),
            kind: Some(region.kind),
            location: Some(region.location),
            latitude: region.latitude,
            longitude: region.longitude,
            global: Some(region.global),
            status: Some(region.status),
        };
        (region.name, change)
    });
    let nodes = nodes.into_iter().map(|node| NodeSpec {
        name: node.name,
        region: node.region_id.map(|id| region_names[&id].clone()),
        change: NodeChange {
            name: None,
            description: Some(node.description),
            platform: Some(node.platform),
            version: Some(node.version),
            region_id: None,
            public_key: Some(node.public_key),
            ip_address: Some(node.ip_address),
            port: Some(node.port.into()),
            status: Some(node.status),
        },
    });
    let routes = routes.into_iter().map(|route| RouteSpec {
        source: names[&route.source_node_id].clone(),
        target: names[&route.target_node_id].clone(),
        change: RouteChange {
            bidirectional: Some(route.bidirectional),
            latency: Some(route.latency),
            bandwidth: Some(route.bandwidth),
            cost: Some(route.cost.into()),
            status: Some(route.status),
        },
    });
    let mesh_change = MeshChange {
        name: None,
        description: Some(mesh.description),
        join: Some(mesh.join),
        join_key_hash: None,
        status: Some(mesh.status),
    };
    Spec { mesh: mesh.name, mesh_change, regions: regions.collect(), nodes: nodes.collect(), routes: routes.collect() }
}

/// An item as clients are shown it.
fn outside(item: Item) -> Item {
    match item {
        Item::Mesh(mesh) => Item::Mesh(without_key(mesh)),
        other => other,
    }
}

/// That an entry of the history comes out of the wire as it went in.
pub(super) fn told_entry(entry: &HistoryEntry) {
    let told = HistoryEntry::try_from(sent(&v1::HistoryEntry::from(entry.clone()))).expect("an answer is understood");
    let mut expected = entry.clone();
    for edit in &mut expected.change.edits {
        let Edit { before, after } = edit.clone();
        *edit = Edit { before: before.map(outside), after: after.map(outside) };
    }
    assert_eq!(told, expected);
}

/// That an item comes out of the wire as it went in, with what the store knows of it.
pub(super) fn told_item(stored: &Stored<Item>) {
    macro_rules! told {
        ($info:ident, $one:ident, $kind:ident) => {{
            let info = v1::$info::try_from(stored.clone()).expect("it is of this kind");
            let Stored { value, created_at_ms, updated_at_ms, create_revision, mod_revision, version } =
                topology::$one(sent(&info)).expect("an answer is understood");
            let value = Item::$kind(value);
            Stored { value, created_at_ms, updated_at_ms, create_revision, mod_revision, version }
        }};
    }
    let told = match &stored.value {
        Item::Mesh(_) => told!(MeshInfo, stored_mesh, Mesh),
        Item::Node(_) => told!(NodeInfo, stored_node, Node),
        Item::Region(_) => told!(RegionInfo, stored_region, Region),
        Item::Route(_) => return assert!(v1::MeshInfo::try_from(stored.clone()).is_err()),
    };
    let value = outside(stored.value.clone());
    assert_eq!(told.value, value);
    assert_eq!((told.mod_revision, told.version), (stored.mod_revision, stored.version));
    assert_eq!((told.created_at_ms, told.updated_at_ms), (stored.created_at_ms, stored.updated_at_ms));
    assert_eq!(told.create_revision, stored.create_revision);
}
