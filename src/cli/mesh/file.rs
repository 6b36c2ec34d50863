//! The file that describes a whole mesh, in YAML or JSON. `mesh export` writes it, `mesh apply` reads it.

use serde::{Deserialize, Serialize};

use crate::{
    cli::{failure::Failure, input},
    client::topology::{
        JoinPolicy, MeshChange, MeshTopology, NodeChange, NodeSpec, RegionChange, RouteChange, RouteSpec, Spec, Status,
    },
};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    mesh: MeshPart,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    regions: Vec<RegionPart>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodePart>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<RoutePart>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct MeshPart {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_join: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RegionPart {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longitude: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NodePart {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RoutePart {
    source: String,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bidirectional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

/// The mesh that a file describes, and its join key. What is wrong is named with its place, like `nodes[3].port`.
pub(super) fn read(text: &str) -> Result<(Spec, Option<String>), Failure> {
    let file: File = input::described(text)?;
    let File { mesh, regions, nodes, routes } = file;
    let region = |(index, part): (usize, RegionPart)| {
        let change = RegionChange {
            name: None,
            description: part.description,
            kind: part.kind,
            location: part.location,
            latitude: part.latitude,
            longitude: part.longitude,
            global: part.global,
            status: status(part.status, || format!("regions[{index}].status"))?,
        };
        Ok((part.name, change))
    };
    let node = |(index, part): (usize, NodePart)| {
        let change = NodeChange {
            name: None,
            region_id: None,
            description: part.description,
            platform: part.platform,
            version: part.version,
            public_key: part.public_key,
            ip_address: part.ip_address,
            port: part.port,
            status: status(part.status, || format!("nodes[{index}].status"))?,
        };
        Ok(NodeSpec { name: part.name, region: part.region, change })
    };
    let route = |(index, part): (usize, RoutePart)| {
        let RoutePart { source, target, bidirectional, latency, bandwidth, cost, status: name } = part;
        let status = status(name, || format!("routes[{index}].status"))?;
        Ok(RouteSpec { source, target, change: RouteChange { bidirectional, latency, bandwidth, cost, status } })
    };
    let join = mesh.allow_join.map(|name| {
        let unknown = || Failure::usage("mesh.allow_join in the file: must be OPEN, KEY_REQUIRED or CLOSED");
        JoinPolicy::named(&name).ok_or_else(unknown)
    });
    let mesh_change = MeshChange {
        name: None,
        description: mesh.description,
        join: join.transpose()?,
        join_key_hash: None,
        status: status(mesh.status, || "mesh.status".into())?,
    };
    let spec = Spec {
        mesh: mesh.name,
        mesh_change,
        regions: regions.into_iter().enumerate().map(region).collect::<Result<_, Failure>>()?,
        nodes: nodes.into_iter().enumerate().map(node).collect::<Result<_, Failure>>()?,
        routes: routes.into_iter().enumerate().map(route).collect::<Result<_, Failure>>()?,
    };
    Ok((spec, mesh.join_key))
}

fn status(name: Option<String>, place: impl Fn() -> String) -> Result<Option<Status>, Failure> {
    let named = |name: String| {
        let unknown = || Failure::usage(format!("{} in the file: {name:?} is no status, like HEALTHY", place()));
        Status::named(&name).ok_or_else(unknown)
    };
    name.map(named).transpose()
}

/// The file of a mesh as it stands; without its join key, which nobody knows.
pub(super) fn write(topology: &MeshTopology) -> Result<String, Failure> {
    let MeshTopology { mesh, nodes, routes, regions, changed: _ } = topology;
    let name_of = |id: &str| nodes.iter().find(|node| node.id == id).map_or(id, |node| node.name.as_str()).to_owned();
    let region_of = |id: &String| regions.iter().find(|region| region.id == *id).map(|region| region.name.clone());
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let status = |status: Status| Some(status.name().to_owned());
    let file = File {
        mesh: MeshPart {
            name: mesh.name.clone(),
            description: some(&mesh.description),
            allow_join: Some(mesh.join.name().into()),
            join_key: None,
            status: status(mesh.status),
        },
        regions: regions
            .iter()
            .map(|region| RegionPart {
                name: region.name.clone(),
                description: some(&region.description),
                kind: some(&region.kind),
                location: some(&region.location),
                latitude: region.latitude,
                longitude: region.longitude,
                global: Some(region.global).filter(|global| *global),
                status: status(region.status),
            })
            .collect(),
        nodes: nodes
            .iter()
            .map(|node| NodePart {
                name: node.name.clone(),
                ip_address: some(&node.ip_address),
                port: Some(node.port.into()),
                region: node.region_id.as_ref().and_then(region_of),
                description: some(&node.description),
                platform: some(&node.platform),
                version: some(&node.version),
                public_key: some(&node.public_key),
                status: status(node.status),
            })
            .collect(),
        routes: routes
            .iter()
            .map(|route| RoutePart {
                source: name_of(&route.source_node_id),
                target: name_of(&route.target_node_id),
                bidirectional: Some(route.bidirectional),
                latency: Some(route.latency),
                bandwidth: Some(route.bandwidth),
                cost: Some(route.cost.into()),
                status: status(route.status),
            })
            .collect(),
    };
    serde_json::to_string_pretty(&file).map_err(|error| Failure::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        match read(text) {
            Err(Failure::Usage(text)) => text,
            Err(other) => panic!("{other:?}"),
            Ok((spec, _)) => panic!("{spec:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let mesh = "mesh: {name: m}\n";
        assert!(wrong("mesh: [").contains("not YAML or JSON"));
        assert!(wrong("{}").contains("missing field `mesh`"));
        let text = wrong(&format!("{mesh}nodes:\n- name: a\n- {{name: b, prot: 1}}\n"));
        assert!(text.starts_with("nodes[1].prot in the file: unknown field"), "{text}");
        let text = wrong(&format!("{mesh}nodes: [{{name: a, port: x}}]"));
        assert!(text.starts_with("nodes[0].port in the file: "), "{text}");
        let text = wrong(&format!("{mesh}routes: [{{source: a, target: b, status: FINE}}]"));
        assert!(text.starts_with("routes[0].status in the file: "), "{text}");
    }

    #[test]
    fn json_and_yaml_say_the_same() {
        let yaml = "mesh:\n  name: m\n  allow_join: OPEN\nnodes:\n- {name: a, ip_address: 10.0.0.1, port: 7}\nroutes:\n- {source: a, target: b, latency: 1.5}\n";
        let json = r#"{"mesh":{"name":"m","allow_join":"OPEN"},"nodes":[{"name":"a","ip_address":"10.0.0.1","port":7}],
            "routes":[{"source":"a","target":"b","latency":1.5}]}"#;
        let (from_yaml, from_json) = (read(yaml).unwrap(), read(json).unwrap());
        assert_eq!(from_yaml, from_json);
        assert_eq!(from_yaml.0.nodes[0].change.port, Some(7));
    }
}
