//! Meshes, nodes, routes and changes as people and programs see them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    cli::output,
    client::{
        Stored,
        topology::{Cause, Edit, HistoryEntry, Item, Mesh, MeshTopology, Node, Region, Route},
    },
};

pub(super) fn mesh_json(mesh: &Mesh) -> Value {
    json!({
        "mesh_id": mesh.id, "mesh_name": mesh.name, "mesh_description": mesh.description,
        "allow_join": mesh.join.name(), "status": mesh.status.name(),
    })
}

pub(super) fn node_json(node: &Node) -> Value {
    json!({
        "node_id": node.id, "mesh_id": node.mesh_id, "node_name": node.name, "node_description": node.description,
        "node_platform": node.platform, "node_version": node.version, "region_id": node.region_id,
        "public_key": node.public_key, "ip_address": node.ip_address, "port": node.port, "status": node.status.name(),
    })
}

fn route_json(route: &Route) -> Value {
    json!({
        "route_id": route.id, "source_node_id": route.source_node_id, "target_node_id": route.target_node_id,
        "bidirectional": route.bidirectional, "latency": route.latency, "bandwidth": route.bandwidth,
        "cost": route.cost, "status": route.status.name(),
    })
}

fn region_json(region: &Region) -> Value {
    json!({
        "region_id": region.id, "region_name": region.name, "region_description": region.description,
        "region_type": region.kind, "region_location": region.location, "latitude": region.latitude,
        "longitude": region.longitude, "global_region": region.global, "status": region.status.name(),
    })
}

fn item_json(item: &Item) -> Value {
    match item {
        Item::Mesh(mesh) => mesh_json(mesh),
        Item::Node(node) => node_json(node),
        Item::Route(route) => route_json(route),
        Item::Region(region) => region_json(region),
    }
}

pub(super) fn edit_json(edit: &Edit) -> Value {
    json!({ "before": edit.before.as_ref().map(item_json), "after": edit.after.as_ref().map(item_json) })
}

pub(super) fn mesh_row(stored: &Stored<Mesh>) -> Vec<String> {
    let mesh = &stored.value;
    vec![
        output::cell(&mesh.name),
        mesh.id.clone(),
        mesh.join.name().into(),
        mesh.status.name().into(),
        output::time(stored.updated_at_ms),
    ]
}

pub(super) fn node_row(stored: &Stored<Node>) -> Vec<String> {
    let node = &stored.value;
    vec![
        output::cell(&node.name),
        node.id.clone(),
        output::cell(&format!("{}:{}", node.ip_address, node.port)),
        node.status.name().into(),
        output::time(stored.updated_at_ms),
    ]
}

pub(super) fn topology_json(shown: &MeshTopology) -> Value {
    json!({
        "mesh": mesh_json(&shown.mesh),
        "nodes": shown.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "routes": shown.routes.iter().map(route_json).collect::<Vec<_>>(),
        "regions": shown.regions.iter().map(region_json).collect::<Vec<_>>(),
        "changed_revision": shown.changed,
    })
}

pub(super) fn topology_text(shown: &MeshTopology) -> String {
    let MeshTopology { mesh, nodes, routes, regions, changed } = shown;
    let mut text = output::fields(&[
        ("mesh", output::visible(&mesh.name).into_owned()),
        ("id", mesh.id.clone()),
        ("description", output::visible(&mesh.description).into_owned()),
        ("allow join", mesh.join.name().into()),
        ("status", mesh.status.name().into()),
        ("changed", format!("at revision {changed} (any mesh)")),
    ]);
    let region_of = |id: &Option<String>| {
        let region = id.as_ref().and_then(|id| regions.iter().find(|region| region.id == *id));
        region.map_or_else(String::new, |region| region.name.clone())
    };
    let name_of = |id: &str| nodes.iter().find(|node| node.id == id).map_or(id, |node| node.name.as_str()).to_owned();
    let node = |node: &Node| {
        let address = format!("{}:{}", node.ip_address, node.port);
        let region = region_of(&node.region_id);
        vec![output::cell(&node.name), output::cell(&address), output::cell(&region), node.status.name().into()]
    };
    let route = |route: &Route| {
        let arrow = if route.bidirectional { "<->" } else { "->" };
        vec![
            output::cell(&format!("{} {arrow} {}", name_of(&route.source_node_id), name_of(&route.target_node_id))),
            route.cost.to_string(),
            route.latency.to_string(),
            route.bandwidth.to_string(),
            route.status.name().into(),
        ]
    };
    text.push_str("\n\n");
    text.push_str(&output::table(&["node", "address", "region", "status"], nodes.iter().map(node)));
    if !routes.is_empty() {
        text.push_str("\n\n");
        let columns = ["route", "cost", "latency ms", "Mbit/s", "status"];
        text.push_str(&output::table(&columns, routes.iter().map(route)));
    }
    text
}

/// Names of nodes by id, to tell routes by.
pub(super) type Names = BTreeMap<String, String>;

/// The nodes that routes of these edits lead to, and that the edits do not name.
pub(super) fn unnamed(edits: &[Edit]) -> BTreeSet<String> {
    let items = || edits.iter().flat_map(|edit| [&edit.before, &edit.after]).flatten();
    let mut ends = BTreeSet::new();
    for item in items() {
        if let Item::Route(route) = item {
            ends.extend([route.source_node_id.clone(), route.target_node_id.clone()]);
        }
    }
    for item in items() {
        ends.remove(item.id());
    }
    ends
}

/// The names of all nodes that entries of the history speak of.
pub(in crate::cli) fn names(entries: &[HistoryEntry]) -> Names {
    let edits = entries.iter().flat_map(|entry| &entry.change.edits);
    let nodes = edits.flat_map(|edit| [&edit.before, &edit.after]).flatten();
    nodes.filter_map(|item| Some((item.id().to_owned(), item.name()?.to_owned()))).collect()
}

/// Edits as lines: `+` is new, `-` is gone, `~` says what is different. What names the edits know they use.
pub(super) fn edits_text(edits: &[Edit], names: &Names) -> String {
    if edits.is_empty() {
        return "nothing to change".into();
    }
    let mut known = names.clone();
    for item in edits.iter().flat_map(|edit| [&edit.before, &edit.after]).flatten() {
        if let Some(name) = item.name() {
            known.entry(item.id().to_owned()).or_insert_with(|| name.to_owned());
        }
    }
    let lines: Vec<String> = edits.iter().map(|edit| edit_line(edit, &known)).collect();
    lines.join("\n")
}

fn label(item: &Item, names: &Names) -> String {
    let kind = item.kind().prefix();
    match item {
        Item::Route(route) => {
            let name = |id: &str| names.get(id).map_or(id, String::as_str).to_owned();
            format!("{kind} {} -> {}", name(&route.source_node_id), name(&route.target_node_id))
        }
        _ => format!("{kind} {}", output::visible(item.name().unwrap_or_default())),
    }
}

fn edit_line(edit: &Edit, names: &Names) -> String {
    match (&edit.before, &edit.after) {
        (None, Some(item)) => format!("+ {}", label(item, names)),
        (Some(item), None) => format!("- {}", label(item, names)),
        (Some(before), Some(after)) => {
            let (old, new) = (item_json(before), item_json(after));
            let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return String::new() };
            let different: Vec<String> = new
                .iter()
                .filter(|(field, value)| old.get(*field) != Some(value))
                .map(|(field, value)| format!("{field}: {} -> {value}", old.get(field).unwrap_or(&Value::Null)))
                .collect();
            // The hash of a join key is not shown.
            let what = if different.is_empty() { "join key".into() } else { different.join(", ") };
            format!("~ {}: {what}", label(before, names))
        }
        (None, None) => String::new(),
    }
}

pub(super) fn cause_text(cause: &Cause) -> String {
    match cause {
        Cause::Edit => "edit".into(),
        Cause::Apply => "apply".into(),
        Cause::ApplyUnconfirmed(ms) => format!("apply, to be confirmed within {ms} ms"),
        Cause::Confirm(of) => format!("confirmation of revision {of}"),
        Cause::Rollback(to) => format!("rollback to revision {to}"),
        Cause::Unconfirmed(to) => format!("not confirmed: back to revision {to}"),
    }
}

pub(in crate::cli) fn entry_json(entry: &HistoryEntry) -> Value {
    let HistoryEntry { revision, at_ms, change } = entry;
    json!({
        "revision": revision, "at_ms": at_ms, "author": change.author, "reason": change.reason,
        "cause": cause_text(&change.cause), "edits": change.edits.iter().map(edit_json).collect::<Vec<_>>(),
    })
}

pub(in crate::cli) fn entry_text(entry: &HistoryEntry, names: &Names) -> String {
    let HistoryEntry { revision, at_ms, change } = entry;
    let mut text = format!(
        "revision {revision}  {}  {}  ({})",
        output::time(*at_ms),
        output::visible(&change.author),
        cause_text(&change.cause)
    );
    if !change.reason.is_empty() {
        text.push_str(&format!("\n    {}", output::visible(&change.reason)));
    }
    for line in change.edits.iter().map(|edit| edit_line(edit, names)) {
        text.push_str(&format!("\n    {line}"));
    }
    text
}
