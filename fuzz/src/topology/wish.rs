//! Requests that change the topology: made of choices or of the bytes of a message, and decided as the service does.

use meshstore::{
    Error, Result,
    layers::{
        Write,
        topology::{
            self as layer, Draft,
            change::{self, Ids},
            check_note, confirm,
        },
    },
    model::topology::{Cause, Edit, ItemKind, MeshChange, NewNode, Note, RegionChange},
    proto::{convert::required, topology::spec, v1},
    state::View,
};

use super::super::wire::decode;

/// Ids in the order in which they are asked for, which is not that of the ids; and who has got which.
#[derive(Clone, Default)]
pub(super) struct Made {
    pub(super) ids: [Vec<String>; 4],
    count: u64,
}

impl Ids for Made {
    fn next(&mut self, kind: ItemKind) -> String {
        let id = format!("{}_{:026}", kind.prefix(), self.count ^ 5);
        self.count += 1;
        self.ids[kind as usize].push(id.clone());
        id
    }
}

impl Made {
    /// One character stands for an id that there was once: a message of bytes can then name one.
    fn resolve(&self, kind: ItemKind, id: &mut String) {
        let ids = &self.ids[kind as usize];
        let mut chars = id.chars();
        if let (Some(character), None) = (chars.next(), chars.next())
            && let Some(meant) = ids.get(character as usize % ids.len().max(1))
        {
            id.clone_from(meant);
        }
    }
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Seed(v1::SeedMeshRequest),
    Join(v1::JoinMeshRequest),
    Leave(v1::LeaveMeshRequest),
    Evict(v1::EvictNodeRequest),
    ModifyMesh(v1::ModifyMeshRequest),
    DeleteMesh(v1::DeleteMeshRequest),
    ModifyNode(v1::ModifyNodeRequest),
    AddRoute(v1::AddRouteRequest),
    ModifyRoute(v1::ModifyRouteRequest),
    DeleteRoute(v1::DeleteMeshRouteRequest),
    AddRegion(v1::AddRegionRequest),
    ModifyRegion(v1::ModifyRegionRequest),
    DeleteRegion(v1::DeleteRegionRequest),
    Apply(v1::ApplyRequest),
    Confirm(v1::ConfirmRequest),
    Rollback(v1::RollbackRequest),
    /// What the leader does of itself.
    Overdue,
}

/// What was decided, and not proposed yet.
pub(super) struct Decision {
    /// The revision that it was decided on.
    pub(super) revision: u64,
    /// `None`: there is nothing to change.
    pub(super) write: Option<Write>,
    pub(super) note: Note,
    pub(super) cause: Cause,
    /// What it would change, where the layer says so before.
    pub(super) edits: Option<Vec<Edit>>,
    /// The item that it creates and answers with.
    pub(super) created: Option<String>,
    /// The specification that it makes true.
    pub(super) applied: Option<meshstore::model::topology::Spec>,
}

/// The hash of a join key. It is no secret here.
fn hash(key: &str) -> String {
    format!("hash of {key}")
}

fn note(note: &Option<v1::Note>) -> Result<Note> {
    let mut note = Note::from(note.clone().unwrap_or_default());
    if note.author.is_empty() {
        note.author = "p".into();
    }
    check_note(&note)?;
    Ok(note)
}

fn mesh_change(fields: v1::MeshFields) -> Result<MeshChange> {
    let (change, key) = fields.open()?;
    Ok(MeshChange { join_key_hash: key.map(|key| hash(&key)), ..change })
}

impl Wish {
    /// Of the bytes of a message.
    pub(super) fn of_bytes(kind: usize, bytes: &[u8], made: &Made) -> Option<Self> {
        let mut wish = match kind {
            0 => Self::Seed(decode(bytes)?),
            1 => Self::Join(decode(bytes)?),
            2 => Self::Leave(decode(bytes)?),
            3 => Self::Evict(decode(bytes)?),
            4 => Self::ModifyMesh(decode(bytes)?),
            5 => Self::DeleteMesh(decode(bytes)?),
            6 => Self::ModifyNode(decode(bytes)?),
            7 => Self::AddRoute(decode(bytes)?),
            8 => Self::ModifyRoute(decode(bytes)?),
            9 => Self::DeleteRoute(decode(bytes)?),
            10 => Self::AddRegion(decode(bytes)?),
            11 => Self::ModifyRegion(decode(bytes)?),
            12 => Self::DeleteRegion(decode(bytes)?),
            13 => Self::Confirm(decode(bytes)?),
            14 => Self::Rollback(decode(bytes)?),
            _ => Self::Apply(decode(bytes)?),
        };
        for (kind, id) in wish.ids() {
            made.resolve(kind, id);
        }
        Some(wish)
    }

    fn ids(&mut self) -> Vec<(ItemKind, &mut String)> {
        use ItemKind::{Mesh, Node, Region};
        match self {
            Self::Join(v1::JoinMeshRequest { mesh_id, .. })
            | Self::ModifyMesh(v1::ModifyMeshRequest { mesh_id, .. })
            | Self::DeleteMesh(v1::DeleteMeshRequest { mesh_id, .. }) => vec![(Mesh, mesh_id)],
            Self::Leave(v1::LeaveMeshRequest { mesh_id, node_id, .. })
            | Self::Evict(v1::EvictNodeRequest { mesh_id, node_id, .. })
            | Self::ModifyNode(v1::ModifyNodeRequest { mesh_id, node_id, .. }) => {
                vec![(Mesh, mesh_id), (Node, node_id)]
            }
            Self::AddRoute(v1::AddRouteRequest { mesh_id, source_node_id, target_node_id, .. })
            | Self::ModifyRoute(v1::ModifyRouteRequest { mesh_id, source_node_id, target_node_id, .. })
            | Self::DeleteRoute(v1::DeleteMeshRouteRequest { mesh_id, source_node_id, target_node_id, .. }) => {
                vec![(Mesh, mesh_id), (Node, source_node_id), (Node, target_node_id)]
            }
            Self::ModifyRegion(v1::ModifyRegionRequest { region_id, .. })
            | Self::DeleteRegion(v1::DeleteRegionRequest { region_id, .. }) => vec![(Region, region_id)],
            Self::Seed(_)
            | Self::AddRegion(_)
            | Self::Apply(_)
            | Self::Confirm(_)
            | Self::Rollback(_)
            | Self::Overdue => vec![],
        }
    }

    pub(super) fn note(&self) -> Result<Note> {
        match self {
            Self::Seed(request) => note(&request.note),
            Self::Join(request) => note(&request.note),
            Self::Leave(request) => note(&request.note),
            Self::Evict(request) => match note(&request.note)? {
                Note { reason, .. } if reason.is_empty() => Err(Error::invalid("reason", "", "must say why")),
                note => Ok(note),
            },
            Self::ModifyMesh(request) => note(&request.note),
            Self::DeleteMesh(request) => note(&request.note),
            Self::ModifyNode(request) => note(&request.note),
            Self::AddRoute(request) => note(&request.note),
            Self::ModifyRoute(request) => note(&request.note),
            Self::DeleteRoute(request) => note(&request.note),
            Self::AddRegion(request) => note(&request.note),
            Self::ModifyRegion(request) => note(&request.note),
            Self::DeleteRegion(request) => note(&request.note),
            Self::Apply(request) => note(&request.note),
            Self::Confirm(request) => note(&request.note),
            Self::Rollback(request) => note(&request.note),
            Self::Overdue => Ok(Note::default()),
        }
    }

    /// What is to be done, on what a view shows.
    pub(super) fn decide(&self, view: &View, made: &mut Made) -> Result<Decision> {
        let note = self.note()?;
        let revision = view.revision();
        let decision =
            |write, note, cause| Decision { revision, write, note, cause, edits: None, created: None, applied: None };
        match self {
            Self::Confirm(v1::ConfirmRequest { revision, .. }) => {
                let of = confirm::pending(view)?.map_or(0, |(revision, _)| revision);
                let write = confirm::confirm(view, *revision, note.clone())?;
                Ok(decision(Some(write), note, Cause::Confirm(of)))
            }
            Self::Rollback(v1::RollbackRequest { revision, .. }) => {
                let write = confirm::rollback(view, *revision, note.clone())?;
                Ok(decision(write, note, Cause::Rollback(*revision)))
            }
            Self::Overdue => {
                let pending = confirm::pending(view)?;
                let before = pending.as_ref().map_or(0, |(_, pending)| pending.before);
                let reason = pending.map_or_else(String::new, |(revision, pending)| {
                    format!("the change at revision {revision} was not confirmed within {} ms", pending.confirm_ms)
                });
                let note = Note { author: "meshstore".into(), reason };
                Ok(decision(confirm::overdue(view)?, note, Cause::Unconfirmed(before)))
            }
            Self::Apply(request) => Self::apply(request, view, made, note),
            _ => {
                let mut draft = Draft::open(view)?;
                let created = self.edit(&mut draft, made)?;
                let edits = Some(draft.edits()?);
                let write = draft.finish(note.clone(), Cause::Edit)?;
                Ok(Decision { edits, created, ..decision(write, note, Cause::Edit) })
            }
        }
    }

    fn apply(request: &v1::ApplyRequest, view: &View, made: &mut Made, note: Note) -> Result<Decision> {
        let v1::ApplyRequest { spec: wanted, confirm_within_ms, .. } = request;
        let (mut wanted, key) = spec(required("spec", wanted.clone())?)?;
        wanted.mesh_change.join_key_hash = key.map(|key| hash(&key));
        let cause = if *confirm_within_ms == 0 {
            Cause::Apply
        } else {
            confirm::check_time(*confirm_within_ms)?;
            Cause::ApplyUnconfirmed(*confirm_within_ms)
        };
        let mut draft = Draft::open(view)?;
        layer::apply(&mut draft, made, wanted.clone())?;
        let edits = Some(draft.edits()?);
        let write = draft.finish(note.clone(), cause.clone())?;
        let revision = view.revision();
        Ok(Decision { revision, write, note, cause, edits, created: None, applied: Some(wanted) })
    }

    /// A change of single items: the id of what it creates, and answers with.
    fn edit(&self, draft: &mut Draft<'_>, made: &mut Made) -> Result<Option<String>> {
        match self.clone() {
            Self::Seed(v1::SeedMeshRequest { mesh, node, .. }) => {
                let mut mesh = mesh_change(required("mesh", mesh)?)?;
                let name = required("mesh_name", mesh.name.take())?;
                change::seed_mesh(draft, made, name, mesh, NewNode::try_from(required("node", node)?)?)
                    .map(|(_, node_id)| Some(node_id))
            }
            Self::Join(v1::JoinMeshRequest { mesh_id, node, join_key, .. }) => {
                let node = NewNode::try_from(required("node", node)?)?;
                match change::join_key_hash(draft, &mesh_id)? {
                    Some(needed) if needed != hash(&join_key) => Err(Error::PermissionDenied("the key".into())),
                    _ => change::join_mesh(draft, made, &mesh_id, node).map(Some),
                }
            }
            Self::Leave(v1::LeaveMeshRequest { mesh_id, node_id, .. })
            | Self::Evict(v1::EvictNodeRequest { mesh_id, node_id, .. }) => {
                change::remove_node(draft, &mesh_id, &node_id).map(|()| None)
            }
            Self::ModifyMesh(v1::ModifyMeshRequest { mesh_id, fields, .. }) => {
                change::modify_mesh(draft, &mesh_id, mesh_change(fields.unwrap_or_default())?).map(|()| None)
            }
            Self::DeleteMesh(v1::DeleteMeshRequest { mesh_id, .. }) => {
                change::delete_mesh(draft, &mesh_id).map(|()| None)
            }
            Self::ModifyNode(v1::ModifyNodeRequest { mesh_id, node_id, fields, .. }) => {
                let fields = fields.unwrap_or_default().try_into()?;
                change::modify_node(draft, &mesh_id, &node_id, fields).map(|()| None)
            }
            Self::AddRoute(v1::AddRouteRequest { mesh_id, source_node_id, target_node_id, fields, .. }) => {
                let fields = fields.unwrap_or_default().try_into()?;
                change::add_route(draft, made, &mesh_id, (&source_node_id, &target_node_id), fields).map(Some)
            }
            Self::ModifyRoute(v1::ModifyRouteRequest { mesh_id, source_node_id, target_node_id, fields, .. }) => {
                let fields = fields.unwrap_or_default().try_into()?;
                change::modify_route(draft, &mesh_id, (&source_node_id, &target_node_id), fields).map(|()| None)
            }
            Self::DeleteRoute(v1::DeleteMeshRouteRequest { mesh_id, source_node_id, target_node_id, .. }) => {
                change::delete_route(draft, &mesh_id, (&source_node_id, &target_node_id)).map(|()| None)
            }
            Self::AddRegion(v1::AddRegionRequest { fields, .. }) => {
                let mut fields: RegionChange = fields.unwrap_or_default().try_into()?;
                let name = required("region_name", fields.name.take())?;
                change::add_region(draft, made, name, fields).map(Some)
            }
            Self::ModifyRegion(v1::ModifyRegionRequest { region_id, fields, .. }) => {
                let fields = fields.unwrap_or_default().try_into()?;
                change::modify_region(draft, &region_id, fields).map(|()| None)
            }
            Self::DeleteRegion(v1::DeleteRegionRequest { region_id, .. }) => {
                change::delete_region(draft, &region_id).map(|()| None)
            }
            Self::Apply(_) | Self::Confirm(_) | Self::Rollback(_) | Self::Overdue => panic!("no edit: {self:?}"),
        }
    }
}
