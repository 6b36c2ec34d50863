//! Wishes made of choices: mostly of what is there, so that they are likely to be granted.

use meshstore::{
    model::topology::{Item, ItemKind, JoinPolicy, Status},
    proto::v1,
};

use super::{
    super::{input::Input, wire::sent},
    items::Items,
    wish::{Made, Wish},
};

/// Names that are hard to order, and prefixes of each other.
const NAMES: [&str; 8] = ["a", "ab", "a\0", "a\0b", "a/", "b", "\u{1}", "\u{10ffff}"];

/// What choices are made of.
pub(super) struct Choice<'a, 'b> {
    pub(super) input: &'a mut Input<'b>,
    pub(super) items: &'a Items,
    pub(super) made: &'a Made,
    pub(super) revision: u64,
}

impl Choice<'_, '_> {
    pub(super) fn wish(&mut self) -> Wish {
        let kind = self.input.below(24);
        match kind {
            0 | 1 => self.seed(),
            2..=4 => self.join(),
            5 => {
                let (node_id, mesh_id) = self.node_and_mesh();
                Wish::Leave(sent(&v1::LeaveMeshRequest { attempt: None, note: self.note(), mesh_id, node_id }))
            }
            6 => {
                let (node_id, mesh_id) = self.node_and_mesh();
                Wish::Evict(sent(&v1::EvictNodeRequest { attempt: None, note: self.note(), mesh_id, node_id }))
            }
            7 => {
                let mesh_id = self.id(ItemKind::Mesh);
                let fields = Some(self.mesh_fields());
                Wish::ModifyMesh(sent(&v1::ModifyMeshRequest { attempt: None, note: self.note(), mesh_id, fields }))
            }
            8 => {
                let mesh_id = self.id(ItemKind::Mesh);
                Wish::DeleteMesh(sent(&v1::DeleteMeshRequest { attempt: None, note: self.note(), mesh_id }))
            }
            9 | 10 => {
                let (node_id, mesh_id) = self.node_and_mesh();
                let fields = Some(self.node_fields());
                let note = self.note();
                Wish::ModifyNode(sent(&v1::ModifyNodeRequest { attempt: None, note, mesh_id, node_id, fields }))
            }
            11..=14 => self.route(kind),
            15 | 16 => {
                let fields = Some(self.region_fields());
                Wish::AddRegion(sent(&v1::AddRegionRequest { attempt: None, note: self.note(), fields }))
            }
            17 => {
                let region_id = self.id(ItemKind::Region);
                let fields = Some(self.region_fields());
                let note = self.note();
                Wish::ModifyRegion(sent(&v1::ModifyRegionRequest { attempt: None, note, region_id, fields }))
            }
            18 => {
                let region_id = self.id(ItemKind::Region);
                Wish::DeleteRegion(sent(&v1::DeleteRegionRequest { attempt: None, note: self.note(), region_id }))
            }
            19 | 20 => self.apply(),
            21 => {
                let revision = if self.input.flag() { 0 } else { self.revision() };
                Wish::Confirm(sent(&v1::ConfirmRequest { attempt: None, note: self.note(), revision }))
            }
            22 => {
                let revision = self.revision();
                Wish::Rollback(sent(&v1::RollbackRequest {
                    attempt: None,
                    note: self.note(),
                    revision,
                    dry_run: false,
                }))
            }
            _ => Wish::Overdue,
        }
    }

    fn seed(&mut self) -> Wish {
        let mesh_name = Some(self.name());
        let mesh = Some(v1::MeshFields { mesh_name, ..self.mesh_fields() });
        let node = Some(self.new_node());
        Wish::Seed(sent(&v1::SeedMeshRequest { attempt: None, note: self.note(), mesh, node }))
    }

    fn join(&mut self) -> Wish {
        let mesh_id = self.id(ItemKind::Mesh);
        let node = Some(self.new_node());
        let join_key = if self.input.below(8) == 7 { "other" } else { "key" };
        let (note, join_key) = (self.note(), join_key.into());
        Wish::Join(sent(&v1::JoinMeshRequest { attempt: None, note, mesh_id, node, join_key }))
    }

    fn route(&mut self, kind: usize) -> Wish {
        let (mesh_id, source_node_id, target_node_id) = self.ends(kind);
        let (fields, note) = (Some(self.route_fields()), self.note());
        match kind {
            11 | 12 => Wish::AddRoute(sent(&v1::AddRouteRequest {
                attempt: None,
                note,
                mesh_id,
                source_node_id,
                target_node_id,
                fields,
            })),
            13 => Wish::ModifyRoute(sent(&v1::ModifyRouteRequest {
                attempt: None,
                note,
                mesh_id,
                source_node_id,
                target_node_id,
                fields,
            })),
            _ => Wish::DeleteRoute(sent(&v1::DeleteMeshRouteRequest {
                attempt: None,
                note,
                mesh_id,
                source_node_id,
                target_node_id,
            })),
        }
    }

    /// A mesh and two of its nodes: of a route that is there, or perhaps could be.
    fn ends(&mut self, kind: usize) -> (String, String, String) {
        let choice = self.input.byte();
        if choice < 240 {
            if kind > 12
                && let Some(Item::Route(route)) = self.live(ItemKind::Route)
            {
                let ends = (route.source_node_id.clone(), route.target_node_id.clone());
                let Some(Item::Node(source)) = self.items.get(&ends.0) else { panic!("{ends:?} dangle") };
                return (source.mesh_id.clone(), ends.0, ends.1);
            }
            if let Some(Item::Node(source)) = self.live(ItemKind::Node) {
                let (mesh_id, source_id) = (source.mesh_id.clone(), source.id.clone());
                let beside = |item: &&Item| matches!(item, Item::Node(node) if node.mesh_id == mesh_id);
                let count = self.items.values().filter(beside).count();
                let target = self.items.values().filter(beside).nth(usize::from(choice) % count);
                return (mesh_id.clone(), source_id, target.expect("there are as many").id().to_owned());
            }
        }
        let (source, mesh_id) = self.node_and_mesh();
        (mesh_id, source, self.id(ItemKind::Node))
    }

    fn apply(&mut self) -> Wish {
        let mesh_name = Some(match self.input.flag() {
            true => self.live(ItemKind::Mesh).and_then(|mesh| mesh.name().map(Into::into)).unwrap_or_default(),
            false => self.name(),
        });
        let mesh = Some(v1::MeshFields { mesh_name, ..self.mesh_fields() });
        let shape = self.input.byte();
        let regions = (0..shape & 1).map(|_| self.region_fields()).collect();
        let nodes = (0..shape >> 1 & 7).map(|_| {
            let region = (self.input.below(4) == 3).then(|| self.name());
            v1::NodeSpec { fields: Some(self.new_node()), region }
        });
        let nodes = nodes.collect();
        let routes = (0..shape >> 4 & 7).map(|_| {
            let (source, target) = (self.name(), self.name());
            v1::RouteSpec { source, target, fields: Some(self.route_fields()) }
        });
        let spec = Some(v1::TopologySpec { mesh, regions, nodes, routes: routes.collect() });
        let confirm_within_ms = [0, 0, 0, 1_000, 1_000, 86_400_000, 999, 5_000][self.input.below(8)];
        Wish::Apply(sent(&v1::ApplyRequest {
            attempt: None,
            note: self.note(),
            spec,
            dry_run: false,
            confirm_within_ms,
        }))
    }

    /// A revision that there is, or nearly.
    pub(super) fn revision(&mut self) -> u64 {
        match self.input.byte() {
            255 => u64::MAX,
            choice => u64::from(choice) % (self.revision + 2),
        }
    }

    fn note(&mut self) -> Option<v1::Note> {
        match self.input.byte() {
            255 => Some(v1::Note { author: "a".repeat(256), reason: String::new() }),
            254 => Some(v1::Note { author: "a".repeat(255), reason: "r".repeat(4 << 10) }),
            choice if choice & 1 == 1 => Some(v1::Note { author: "somebody".into(), reason: "because".into() }),
            _ => None,
        }
    }

    fn live(&mut self, kind: ItemKind) -> Option<&Item> {
        let count = self.items.values().filter(|item| item.kind() == kind).count();
        let at = usize::from(self.input.byte()) % count.max(1);
        self.items.values().filter(|item| item.kind() == kind).nth(at)
    }

    /// An id: mostly of what is there.
    pub(super) fn id(&mut self, kind: ItemKind) -> String {
        let absent = || format!("{}_{}", kind.prefix(), "Z".repeat(26));
        match self.input.byte() {
            0..=223 => self.live(kind).map_or_else(absent, |item| item.id().to_owned()),
            choice @ 224..=239 => {
                let ids = &self.made.ids[kind as usize];
                ids.get(usize::from(choice) % ids.len().max(1)).cloned().unwrap_or_else(absent)
            }
            240..=243 => String::new(),
            244..=247 => format!("{}_{}", kind.prefix(), "U".repeat(26)),
            248..=251 => {
                let (one, other) = (self.input.below(4), self.input.byte());
                let ids = &self.made.ids[one];
                ids.get(usize::from(other) % ids.len().max(1)).cloned().unwrap_or_default()
            }
            _ => String::from_utf8_lossy(self.input.bytes(40)).into_owned(),
        }
    }

    /// The id of a node, and mostly that of its mesh.
    fn node_and_mesh(&mut self) -> (String, String) {
        let node_id = self.id(ItemKind::Node);
        match self.items.get(&node_id) {
            Some(Item::Node(node)) if self.input.byte() < 240 => (node_id, node.mesh_id.clone()),
            _ => (node_id, self.id(ItemKind::Mesh)),
        }
    }

    fn name(&mut self) -> String {
        match self.input.byte() {
            choice @ 0..=239 => NAMES[usize::from(choice) % NAMES.len()].into(),
            240..=247 => String::from_utf8_lossy(self.input.bytes(6)).into_owned(),
            248..=250 => String::new(),
            251..=253 => "n".repeat(255),
            _ => "n".repeat(256),
        }
    }

    fn text(&mut self) -> String {
        match self.input.byte() {
            255 => "t".repeat((4 << 10) + 1),
            254 => "t".repeat(4 << 10),
            0..=127 => String::new(),
            _ => String::from_utf8_lossy(self.input.bytes(4)).into_owned(),
        }
    }

    fn status(&mut self) -> String {
        match usize::from(self.input.byte()) {
            255 => self.name(),
            choice => Status::ALL[choice % Status::ALL.len()].name().into(),
        }
    }

    fn amount(&mut self) -> f64 {
        match self.input.byte() {
            255 => f64::from_bits(self.input.number()),
            choice => [0.0, -0.0, 1.5, 90.0, 180.0, -90.0, 1e300, f64::INFINITY, f64::NAN][usize::from(choice) % 9],
        }
    }

    fn address(&mut self) -> String {
        match self.input.byte() {
            255 => self.name(),
            254 => "no address".into(),
            choice => format!("10.0.0.{choice}"),
        }
    }

    fn mesh_fields(&mut self) -> v1::MeshFields {
        let shape = self.input.byte();
        let policy = usize::from(shape >> 6) % 3;
        v1::MeshFields {
            mesh_name: (shape & 1 == 1).then(|| self.name()),
            mesh_description: (shape & 2 == 2).then(|| self.text()),
            allow_join: (shape & 4 == 0).then(|| JoinPolicy::ALL[policy].name().into()),
            join_key: (shape & 8 == 0).then(|| "key".into()),
            status: (shape & 16 == 16).then(|| self.status()),
        }
    }

    /// As a new one needs them.
    fn new_node(&mut self) -> v1::NodeFields {
        let node_name = Some(self.name());
        match self.input.byte() {
            choice @ 0..=191 => {
                let ip_address = Some(format!("10.0.0.{choice}"));
                v1::NodeFields { node_name, ip_address, ..v1::NodeFields::default() }
            }
            192..=223 => {
                let (ip_address, region_id) = (Some("host".into()), Some(self.id(ItemKind::Region)));
                v1::NodeFields { node_name, ip_address, region_id, ..v1::NodeFields::default() }
            }
            _ => self.node_fields(),
        }
    }

    fn node_fields(&mut self) -> v1::NodeFields {
        let (shape, more) = (self.input.byte(), self.input.byte());
        v1::NodeFields {
            node_name: (shape & 1 == 1).then(|| self.name()),
            node_description: (shape & 2 == 2).then(|| self.text()),
            node_platform: (shape & 4 == 4).then(|| self.text()),
            node_version: (shape & 8 == 8).then(|| self.text()),
            region_id: match more & 3 {
                0 | 1 => None,
                2 => Some(self.id(ItemKind::Region)),
                _ => Some(String::new()),
            },
            public_key: (shape & 16 == 16).then(|| self.text()),
            ip_address: (shape & 32 == 32).then(|| self.address()),
            port: (shape & 64 == 64).then(|| [1, 65_535, 0, 65_536, u32::MAX, 80][self.input.below(6)]),
            status: (shape & 128 == 128).then(|| self.status()),
        }
    }

    fn route_fields(&mut self) -> v1::RouteFields {
        let shape = self.input.byte();
        v1::RouteFields {
            bidirectional: (shape & 1 == 1).then(|| self.input.flag()),
            latency: (shape & 2 == 2).then(|| self.amount()),
            bandwidth: (shape & 4 == 4).then(|| self.amount()),
            cost: (shape & 8 == 8).then(|| self.input.number().cast_signed()),
            status: (shape & 16 == 16).then(|| self.status()),
        }
    }

    fn region_fields(&mut self) -> v1::RegionFields {
        let shape = self.input.byte();
        v1::RegionFields {
            region_name: (shape & 1 == 0).then(|| self.name()),
            region_description: (shape & 2 == 2).then(|| self.text()),
            region_type: (shape & 4 == 4).then(|| self.text()),
            region_location: (shape & 8 == 8).then(|| self.text()),
            latitude: (shape & 16 == 16).then(|| self.amount()),
            longitude: (shape & 32 == 32).then(|| self.amount()),
            global_region: (shape & 64 == 64).then(|| self.input.flag()),
            status: (shape & 128 == 128).then(|| self.status()),
        }
    }
}
