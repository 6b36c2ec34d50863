//! The definition of meshes. A change is decided by the layer on what it reads, and proposed with what it relied on; if another
//! was faster it is decided anew (`service::change`).

mod answer;
mod decide;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use tonic::{Request, Response, Status};

use self::{answer::for_wire, decide::created};
use super::{Call, join_key::JoinKeys};
use crate::{
    Error, Result,
    layers::topology::{
        self as layer, Draft,
        change::{self, Ids},
        confirm, history, show,
    },
    model::{
        ReadMode,
        mesh::{Page, Stored},
        topology::{Cause, Edit, Item, ItemKind, NewNode, NodeChange, Note, RegionChange, RouteChange, Selector},
    },
    node::Node,
    proto::{convert::required, topology::spec, v1, v1::topology_server},
    service::{self, Decision},
    state::View,
};

/// Between two looks at who has applied a revision: reports come often, and each look reads all of them.
const LOOK: Duration = Duration::from_millis(50);
/// What a call that waits leaves of its deadline for the answer.
const ANSWER: Duration = Duration::from_millis(100);

/// The `Topology` service.
pub(super) struct Topology {
    node: Arc<Node>,
    /// Changes exclude each other anyway; in turn none is decided in vain.
    turn: Mutex<()>,
    join_keys: JoinKeys,
}

impl Topology {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, turn: Mutex::default(), join_keys: JoinKeys::new() }
    }
}

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;

/// Ids from the node's clock and chance.
struct NewIds<'a>(&'a Node);

impl Ids for NewIds<'_> {
    fn next(&mut self, kind: ItemKind) -> String {
        let (ms, chance) = self.0.id_parts();
        format!("{}_{}", kind.prefix(), ulid::Ulid::from_parts(ms, chance))
    }
}

/// An id, or else a name.
fn find(view: &View, kind: ItemKind, (field, id): (&str, &str), name: &str) -> Result<Stored<Item>> {
    match (id, name) {
        ("", "") => Err(Error::invalid(field, "", "must be given, or else the name")),
        ("", name) => show::by_name(view, kind, name),
        (id, _) => show::get(view, field, kind, id),
    }
}

#[tonic::async_trait]
impl topology_server::Topology for Topology {
    async fn seed_mesh(&self, request: Request<v1::SeedMeshRequest>) -> Answer<v1::SeedMeshResponse> {
        let (call, v1::SeedMeshRequest { attempt, note, mesh, node }) = Call::open(request)?;
        let request = self.change(call, attempt, note).await?;
        let mut mesh = self.mesh_change(&request, required("mesh", mesh)?).await?;
        let name = required("mesh_name", mesh.name.take())?;
        let node = NewNode::try_from(required("node", node)?)?;
        let seed = |draft: &mut Draft<'_>, ids: &mut NewIds<'_>| {
            change::seed_mesh(draft, ids, name.clone(), mesh.clone(), node.clone()).map(drop)
        };
        let done = self.edit(&request, seed).await?;
        let edits = self.edits(&request, &done).await?;
        let (mesh_id, node_id) = (created(&edits, ItemKind::Mesh)?, created(&edits, ItemKind::Node)?);
        let revision = done.revision;
        Ok(Response::new(v1::SeedMeshResponse { revision, leader_id: self.node.id(), mesh_id, node_id }))
    }

    async fn join_mesh(&self, request: Request<v1::JoinMeshRequest>) -> Answer<v1::CreatedResponse> {
        let (call, v1::JoinMeshRequest { attempt, note, mesh_id, node, join_key: key }) = Call::open(request)?;
        let request = self.change(call, attempt, note).await?;
        let node = NewNode::try_from(required("node", node)?)?;
        // Not decided here: what an earlier attempt has done is the answer, whatever has become of the mesh since.
        let allowed = self.may_join(&request, &mesh_id, key).await;
        let join = |draft: &mut Draft<'_>, ids: &mut NewIds<'_>| {
            if change::join_key_hash(draft, &mesh_id)? != allowed.clone()? {
                return Err(Error::Conflict("the join key, which changed meanwhile".into()));
            }
            change::join_mesh(draft, ids, &mesh_id, node.clone()).map(drop)
        };
        let done = self.edit(&request, join).await?;
        self.created_response(ItemKind::Node, &request, &done).await
    }

    async fn leave_mesh(&self, request: Request<v1::LeaveMeshRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::LeaveMeshRequest { attempt, note, mesh_id, node_id }) = Call::open(request)?;
        let leave = |draft: &mut Draft<'_>, _: &mut NewIds<'_>| change::remove_node(draft, &mesh_id, &node_id);
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.edit(&request, leave).await?))
    }

    async fn evict_node(&self, request: Request<v1::EvictNodeRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::EvictNodeRequest { attempt, note, mesh_id, node_id }) = Call::open(request)?;
        let request = self.change(call, attempt, note).await?;
        if request.note.reason.is_empty() {
            return Err(Error::invalid("reason", "", "must say why the node is evicted").into());
        }
        let evict = |draft: &mut Draft<'_>, _: &mut NewIds<'_>| change::remove_node(draft, &mesh_id, &node_id);
        Ok(self.written(&self.edit(&request, evict).await?))
    }

    async fn modify_mesh(&self, request: Request<v1::ModifyMeshRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::ModifyMeshRequest { attempt, note, mesh_id, fields }) = Call::open(request)?;
        let request = self.change(call, attempt, note).await?;
        let fields = self.mesh_change(&request, fields.unwrap_or_default()).await?;
        let modify = |draft: &mut Draft<'_>, _: &mut NewIds<'_>| change::modify_mesh(draft, &mesh_id, fields.clone());
        Ok(self.written(&self.edit(&request, modify).await?))
    }

    async fn delete_mesh(&self, request: Request<v1::DeleteMeshRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteMeshRequest { attempt, note, mesh_id }) = Call::open(request)?;
        let delete = |draft: &mut Draft<'_>, _: &mut NewIds<'_>| change::delete_mesh(draft, &mesh_id);
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.edit(&request, delete).await?))
    }

    async fn modify_node(&self, request: Request<v1::ModifyNodeRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::ModifyNodeRequest { attempt, note, mesh_id, node_id, fields }) = Call::open(request)?;
        let fields: NodeChange = fields.unwrap_or_default().try_into()?;
        let modify =
            |draft: &mut Draft<'_>, _: &mut NewIds<'_>| change::modify_node(draft, &mesh_id, &node_id, fields.clone());
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.edit(&request, modify).await?))
    }

    async fn add_route(&self, request: Request<v1::AddRouteRequest>) -> Answer<v1::CreatedResponse> {
        let (call, request) = Call::open(request)?;
        let v1::AddRouteRequest { attempt, note, mesh_id, source_node_id, target_node_id, fields } = request;
        let fields: RouteChange = fields.unwrap_or_default().try_into()?;
        let add = |draft: &mut Draft<'_>, ids: &mut NewIds<'_>| {
            let ends = (source_node_id.as_str(), target_node_id.as_str());
            change::add_route(draft, ids, &mesh_id, ends, fields.clone()).map(drop)
        };
        let request = self.change(call, attempt, note).await?;
        let done = self.edit(&request, add).await?;
        self.created_response(ItemKind::Route, &request, &done).await
    }

    async fn modify_route(&self, request: Request<v1::ModifyRouteRequest>) -> Answer<v1::WriteResponse> {
        let (call, request) = Call::open(request)?;
        let v1::ModifyRouteRequest { attempt, note, mesh_id, source_node_id, target_node_id, fields } = request;
        let fields: RouteChange = fields.unwrap_or_default().try_into()?;
        let modify = |draft: &mut Draft<'_>, _: &mut NewIds<'_>| {
            change::modify_route(draft, &mesh_id, (&source_node_id, &target_node_id), fields.clone())
        };
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.edit(&request, modify).await?))
    }

    async fn delete_route(&self, request: Request<v1::DeleteMeshRouteRequest>) -> Answer<v1::WriteResponse> {
        let (call, request) = Call::open(request)?;
        let v1::DeleteMeshRouteRequest { attempt, note, mesh_id, source_node_id, target_node_id } = request;
        let delete = |draft: &mut Draft<'_>, _: &mut NewIds<'_>| {
            change::delete_route(draft, &mesh_id, (&source_node_id, &target_node_id))
        };
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.edit(&request, delete).await?))
    }

    async fn add_region(&self, request: Request<v1::AddRegionRequest>) -> Answer<v1::CreatedResponse> {
        let (call, v1::AddRegionRequest { attempt, note, fields }) = Call::open(request)?;
        let mut fields: RegionChange = fields.unwrap_or_default().try_into()?;
        let name = required("region_name", fields.name.take())?;
        let add = |draft: &mut Draft<'_>, ids: &mut NewIds<'_>| {
            change::add_region(draft, ids, name.clone(), fields.clone()).map(drop)
        };
        let request = self.change(call, attempt, note).await?;
        let done = self.edit(&request, add).await?;
        self.created_response(ItemKind::Region, &request, &done).await
    }

    async fn modify_region(&self, request: Request<v1::ModifyRegionRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::ModifyRegionRequest { attempt, note, region_id, fields }) = Call::open(request)?;
        let fields: RegionChange = fields.unwrap_or_default().try_into()?;
        let modify =
            |draft: &mut Draft<'_>, _: &mut NewIds<'_>| change::modify_region(draft, &region_id, fields.clone());
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.edit(&request, modify).await?))
    }

    async fn delete_region(&self, request: Request<v1::DeleteRegionRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::DeleteRegionRequest { attempt, note, region_id }) = Call::open(request)?;
        let delete = |draft: &mut Draft<'_>, _: &mut NewIds<'_>| change::delete_region(draft, &region_id);
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.edit(&request, delete).await?))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Answer<v1::ApplyResponse> {
        let (call, request) = Call::open(request)?;
        let v1::ApplyRequest { attempt, note, spec: wanted, dry_run, confirm_within_ms } = request;
        let request = self.change(call, attempt, note).await?;
        let (mut wanted, key) = spec(required("spec", wanted)?)?;
        // A key that is the present one is no change; hashed anew it would look like one.
        if !self.has_key(&request, &wanted.mesh, key.as_deref()).await? {
            wanted.mesh_change = self.with_key(&request, wanted.mesh_change, key).await?;
        }
        let cause = if confirm_within_ms == 0 {
            Cause::Apply
        } else {
            confirm::check_time(confirm_within_ms)?;
            if request.waits() {
                let text = "a change that is to be confirmed cannot be part of a transaction";
                return Err(Error::Refused(text.into()).into());
            }
            Cause::ApplyUnconfirmed(confirm_within_ms)
        };
        let leader_id = self.node.id();
        if dry_run {
            let view = request.view().await?;
            let mut draft = Draft::open(&view)?;
            layer::apply(&mut draft, &mut NewIds(&self.node), wanted)?;
            let edits = draft.edits()?.into_iter().map(Into::into).collect();
            return Ok(Response::new(v1::ApplyResponse { revision: view.revision(), leader_id, edits }));
        }
        let decide = |view: &View, note: &Note| {
            let mut draft = Draft::open(view)?;
            layer::apply(&mut draft, &mut NewIds(&self.node), wanted.clone())?;
            draft.finish(note.clone(), cause.clone())
        };
        let done = self.decide(&request, decide).await?;
        self.applied_response(&request, &done).await
    }

    async fn confirm(&self, request: Request<v1::ConfirmRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::ConfirmRequest { attempt, note, revision }) = Call::open(request)?;
        let decide = |view: &View, note: &Note| confirm::confirm(view, revision, note.clone()).map(Some);
        let request = self.change(call, attempt, note).await?;
        Ok(self.written(&self.decide(&request, decide).await?))
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Answer<v1::ApplyResponse> {
        let (call, v1::RollbackRequest { attempt, note, revision: to, dry_run }) = Call::open(request)?;
        let request = self.change(call, attempt, note).await?;
        let leader_id = self.node.id();
        if dry_run {
            let view = request.view().await?;
            let there = history::diff(&view, to, 0)?;
            let back = |edit: Edit| v1::Edit::from(Edit { before: edit.after, after: edit.before });
            let edits = there.into_iter().map(back).collect();
            return Ok(Response::new(v1::ApplyResponse { revision: view.revision(), leader_id, edits }));
        }
        let decide = |view: &View, note: &Note| confirm::rollback(view, to, note.clone());
        let done = self.decide(&request, decide).await?;
        self.applied_response(&request, &done).await
    }

    async fn show_mesh(&self, request: Request<v1::ShowMeshRequest>) -> Answer<v1::ShowMeshResponse> {
        let (call, v1::ShowMeshRequest { read, mesh_id, mesh_name }) = Call::open(request)?;
        let show = |view: &View| {
            let mesh = find(view, ItemKind::Mesh, ("mesh_id", &mesh_id), &mesh_name)?;
            Ok((v1::MeshInfo::try_from(mesh)?, confirm::pending(view)?.map(Into::into)))
        };
        call.read(&self.node, read, None, show).await
    }

    async fn list_meshes(&self, request: Request<v1::ListMeshesRequest>) -> Answer<v1::ListMeshesResponse> {
        let (call, v1::ListMeshesRequest { read, page }) = Call::open(request)?;
        let list = show::list(ItemKind::Mesh, &page.into())?;
        call.list(&self.node, read, list.revision(), |view| for_wire::<_, v1::MeshInfo>(list.read(view)?)).await
    }

    async fn show_node(&self, request: Request<v1::ShowNodeRequest>) -> Answer<v1::ShowNodeResponse> {
        let (call, v1::ShowNodeRequest { read, node_id, node_name }) = Call::open(request)?;
        let show = |view: &View| v1::NodeInfo::try_from(find(view, ItemKind::Node, ("node_id", &node_id), &node_name)?);
        call.read(&self.node, read, None, show).await
    }

    async fn list_nodes(&self, request: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        let (call, v1::ListNodesRequest { read, mesh_id, page }) = Call::open(request)?;
        let list = show::list_nodes(&mesh_id, &page.into())?;
        call.list(&self.node, read, list.revision(), |view| for_wire::<_, v1::NodeInfo>(list.read(view)?)).await
    }

    async fn show_topology(&self, request: Request<v1::ShowTopologyRequest>) -> Answer<v1::ShowTopologyResponse> {
        let (call, v1::ShowTopologyRequest { read, mesh_id }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| show::topology(view, &mesh_id)).await
    }

    async fn get_routes_for_node(
        &self,
        request: Request<v1::GetRoutesForNodeRequest>,
    ) -> Answer<v1::GetRoutesForNodeResponse> {
        let (call, v1::GetRoutesForNodeRequest { read, node_id }) = Call::open(request)?;
        let routes = |view: &View| {
            let routes = show::routes_for_node(view, &node_id)?;
            routes.into_iter().map(v1::RouteInfo::try_from).collect::<Result<Vec<_>>>()
        };
        call.read(&self.node, read, None, routes).await
    }

    async fn list_regions(&self, request: Request<v1::ListRegionsRequest>) -> Answer<v1::ListRegionsResponse> {
        let (call, v1::ListRegionsRequest { read, page }) = Call::open(request)?;
        let list = show::list(ItemKind::Region, &page.into())?;
        call.list(&self.node, read, list.revision(), |view| for_wire::<_, v1::RegionInfo>(list.read(view)?)).await
    }

    async fn history(&self, request: Request<v1::HistoryRequest>) -> Answer<v1::HistoryResponse> {
        let (call, v1::HistoryRequest { read, since_revision, page }) = Call::open(request)?;
        let list = history::list(since_revision, &page.into())?;
        let read_page = |view: &View| {
            let Page { items, next_cursor, revision } = list.read(view)?;
            Ok(Page { items: items.into_iter().map(v1::HistoryEntry::from).collect(), next_cursor, revision })
        };
        call.list(&self.node, read, list.revision(), read_page).await
    }

    async fn diff(&self, request: Request<v1::DiffRequest>) -> Answer<v1::DiffResponse> {
        let (call, v1::DiffRequest { read, from_revision, to_revision }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| history::diff(view, from_revision, to_revision)).await
    }

    async fn get_local_identity(
        &self,
        request: Request<v1::GetLocalIdentityRequest>,
    ) -> Answer<v1::GetLocalIdentityResponse> {
        let (call, v1::GetLocalIdentityRequest { read, storage_node_id }) = Call::open(request)?;
        let storage_node = if storage_node_id == 0 { self.node.id() } else { storage_node_id };
        call.read(&self.node, read, None, |view| Ok((storage_node, show::local_identity(view, storage_node)?))).await
    }

    async fn set_local_identity(&self, request: Request<v1::SetLocalIdentityRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::SetLocalIdentityRequest { attempt, storage_node_id, node_id }) = Call::open(request)?;
        call.write(&self.node, attempt, layer::applied::set_local_identity(storage_node_id, &node_id)?).await
    }

    async fn report_applied(&self, request: Request<v1::ReportAppliedRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::ReportAppliedRequest { attempt, node_id, revision }) = Call::open(request)?;
        let report = layer::applied::report(&node_id, revision)?;
        let decide = |view: &View| {
            layer::applied::check_reached(view, revision)?;
            Ok(Decision { write: Some(report.clone()), found: () })
        };
        let place = call.place(&self.node).await?;
        let revision = service::change(&place, call.caller(attempt)?, decide).await?.revision;
        Ok(Response::new(v1::WriteResponse { revision, leader_id: self.node.id() }))
    }

    async fn show_applied(&self, request: Request<v1::ShowAppliedRequest>) -> Answer<v1::ShowAppliedResponse> {
        let (call, v1::ShowAppliedRequest { read, nodes }) = Call::open(request)?;
        let selector = required("nodes", nodes)?.into();
        let shown = self.applied(&selector, None, (ReadMode::from(read), call.deadline)).await?;
        Ok(Response::new(shown))
    }

    async fn wait_until_applied(
        &self,
        request: Request<v1::WaitUntilAppliedRequest>,
    ) -> Answer<v1::ShowAppliedResponse> {
        let (call, v1::WaitUntilAppliedRequest { nodes, revision, timeout_ms }) = Call::open(request)?;
        let selector: Selector = required("nodes", nodes)?.into();
        let latest = call.deadline.checked_sub(ANSWER).unwrap_or(call.deadline);
        let asked = Instant::now() + Duration::from_millis(timeout_ms);
        let until = if timeout_ms == 0 { latest } else { asked.min(latest) };
        let mut target = Some(revision).filter(|revision| *revision > 0);
        let mut mode = ReadMode::Linearizable;
        loop {
            let shown = self.applied(&selector, target, (mode, call.deadline)).await?;
            let seen = shown.header.as_ref().map_or(0, |header| header.revision);
            if shown.converged || Instant::now() >= until {
                return Ok(Response::new(shown));
            }
            (target, mode) = (Some(shown.revision), ReadMode::AtLeast(seen));
            // If nothing changes until then the answer is what it is.
            if let Ok(changed) = tokio::time::timeout_at(until, self.node.changed_since(seen)).await {
                changed?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
