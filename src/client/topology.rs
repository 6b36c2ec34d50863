//! The definition of meshes.

use std::time::Duration;

use super::{Client, Page, PageRequest, ReadMode, Stored, Written, endpoints::Preference, pages};
use crate::{
    Result,
    proto::{
        convert::expected,
        topology::{edits, mesh_fields, page, spec_message, stored_mesh, stored_node, stored_region, stored_route},
        v1,
    },
};

pub use crate::model::topology::{
    Applied, Cause, Change, Edit, HistoryEntry, Item, ItemKind, JoinPolicy, Mesh, MeshChange, MeshTopology, Node,
    NodeChange, NodeSpec, Note, Pending, Region, RegionChange, Route, RouteChange, RouteSpec, Selector, Spec, Status,
};

/// The definition of meshes: nodes, routes and regions, with their history; see [`Client::topology`].
///
/// Changes say who makes them and why: [`Topology::by`].
#[derive(Clone, Debug)]
pub struct Topology {
    client: Client,
    note: Note,
}

/// What became of a change of many items.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The revision with the change in; the present one if there was nothing to change, or if that was only asked.
    pub revision: u64,
    /// What changed, or would.
    pub edits: Vec<Edit>,
}

/// Who has applied a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Convergence {
    /// The revision.
    pub revision: u64,
    /// Whether all have it.
    pub converged: bool,
    /// How far the nodes are, by name.
    pub nodes: Vec<Applied>,
}

impl From<v1::ShowAppliedResponse> for Convergence {
    fn from(shown: v1::ShowAppliedResponse) -> Self {
        let nodes = shown.nodes.into_iter().map(Into::into).collect();
        Self { revision: shown.revision, converged: shown.converged, nodes }
    }
}

impl Topology {
    pub(super) fn of(client: Client) -> Self {
        Self { client, note: Note::default() }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode), ..self }
    }

    /// The same, with changes by this author, for this reason. Without, the author is the caller's principal.
    #[must_use]
    pub fn by(self, author: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { note: Note { author: author.into(), reason: reason.into() }, ..self }
    }

    fn note(&self) -> Option<v1::Note> {
        Some(self.note.clone().into())
    }

    /// Founds a mesh with its first node: the ids of both. Without a join policy a key is required.
    ///
    /// Errors: `InvalidArgument`; `Refused` if a name is taken, or while a change waits to be confirmed.
    pub async fn seed_mesh(
        &self,
        mesh_name: &str,
        (mesh, join_key): (MeshChange, Option<String>),
        node: NodeChange,
    ) -> Result<(String, String)> {
        let mesh = MeshChange { name: Some(mesh_name.into()), ..mesh };
        let (mesh, node) = (Some(mesh_fields(mesh, join_key)), Some(node.into()));
        let request = v1::SeedMeshRequest { attempt: None, note: self.note(), mesh, node };
        let seeded = self.client.execute(request).await?;
        Ok((seeded.mesh_id, seeded.node_id))
    }

    /// Adds a node to a mesh: its id.
    ///
    /// Errors: as of [`seed_mesh`](Self::seed_mesh); `NotFound`; `PermissionDenied` if the mesh is closed or the key wrong.
    pub async fn join_mesh(&self, mesh_id: &str, join_key: Option<&str>, node: NodeChange) -> Result<String> {
        let request = v1::JoinMeshRequest {
            attempt: None,
            note: self.note(),
            mesh_id: mesh_id.into(),
            node: Some(node.into()),
            join_key: join_key.unwrap_or_default().into(),
        };
        Ok(self.client.execute(request).await?.id)
    }

    /// Takes a node out of its mesh, with the routes from and to it. Errors: `NotFound`.
    pub async fn leave_mesh(&self, mesh_id: &str, node_id: &str) -> Result<Written> {
        let (note, mesh_id, node_id) = (self.note(), mesh_id.into(), node_id.into());
        self.client.write(v1::LeaveMeshRequest { attempt: None, note, mesh_id, node_id }).await
    }

    /// The same, because others want it; the reason is needed. Errors: `NotFound`.
    pub async fn evict_node(&self, mesh_id: &str, node_id: &str) -> Result<Written> {
        let (note, mesh_id, node_id) = (self.note(), mesh_id.into(), node_id.into());
        self.client.write(v1::EvictNodeRequest { attempt: None, note, mesh_id, node_id }).await
    }

    /// Changes a mesh; what is `None` stays. Errors: `InvalidArgument`; `NotFound`; `Refused` if the name is taken.
    pub async fn modify_mesh(&self, mesh_id: &str, change: MeshChange, join_key: Option<String>) -> Result<Written> {
        let (note, fields) = (self.note(), Some(mesh_fields(change, join_key)));
        self.client.write(v1::ModifyMeshRequest { attempt: None, note, mesh_id: mesh_id.into(), fields }).await
    }

    /// Deletes a mesh, its nodes and their routes. Errors: `NotFound`.
    pub async fn delete_mesh(&self, mesh_id: &str) -> Result<Written> {
        self.client.write(v1::DeleteMeshRequest { attempt: None, note: self.note(), mesh_id: mesh_id.into() }).await
    }

    /// Changes a node; what is `None` stays. Errors: `InvalidArgument`; `NotFound`; `Refused` if the name is taken.
    pub async fn modify_node(&self, mesh_id: &str, node_id: &str, change: NodeChange) -> Result<Written> {
        let (mesh_id, node_id, fields) = (mesh_id.into(), node_id.into(), Some(change.into()));
        self.client.write(v1::ModifyNodeRequest { attempt: None, note: self.note(), mesh_id, node_id, fields }).await
    }

    /// Adds a route between two nodes of a mesh: its id. Errors: `InvalidArgument`; `NotFound`; `Refused` if there is one.
    pub async fn add_route(&self, mesh_id: &str, source: &str, target: &str, route: RouteChange) -> Result<String> {
        let request = v1::AddRouteRequest {
            attempt: None,
            note: self.note(),
            mesh_id: mesh_id.into(),
            source_node_id: source.into(),
            target_node_id: target.into(),
            fields: Some(route.into()),
        };
        Ok(self.client.execute(request).await?.id)
    }

    /// Changes the route between two nodes; what is `None` stays. Errors: `InvalidArgument`; `NotFound`.
    pub async fn modify_route(&self, mesh_id: &str, source: &str, target: &str, route: RouteChange) -> Result<Written> {
        let request = v1::ModifyRouteRequest {
            attempt: None,
            note: self.note(),
            mesh_id: mesh_id.into(),
            source_node_id: source.into(),
            target_node_id: target.into(),
            fields: Some(route.into()),
        };
        self.client.write(request).await
    }

    /// Deletes the route between two nodes. Errors: `NotFound`.
    pub async fn delete_route(&self, mesh_id: &str, source: &str, target: &str) -> Result<Written> {
        let request = v1::DeleteMeshRouteRequest {
            attempt: None,
            note: self.note(),
            mesh_id: mesh_id.into(),
            source_node_id: source.into(),
            target_node_id: target.into(),
        };
        self.client.write(request).await
    }

    /// Adds a region: its id. Errors: `InvalidArgument`; `Refused` if the name is taken.
    pub async fn add_region(&self, name: &str, region: RegionChange) -> Result<String> {
        let fields = Some(RegionChange { name: Some(name.into()), ..region }.into());
        Ok(self.client.execute(v1::AddRegionRequest { attempt: None, note: self.note(), fields }).await?.id)
    }

    /// Changes a region; what is `None` stays. Errors: `InvalidArgument`; `NotFound`; `Refused` if the name is taken.
    pub async fn modify_region(&self, region_id: &str, region: RegionChange) -> Result<Written> {
        let (note, region_id, fields) = (self.note(), region_id.into(), Some(region.into()));
        self.client.write(v1::ModifyRegionRequest { attempt: None, note, region_id, fields }).await
    }

    /// Deletes a region; nodes in it are in none then. Errors: `NotFound`.
    pub async fn delete_region(&self, region_id: &str) -> Result<Written> {
        let request = v1::DeleteRegionRequest { attempt: None, note: self.note(), region_id: region_id.into() };
        self.client.write(request).await
    }

    /// Makes a whole mesh what the specification says, as one change.
    ///
    /// Errors: `InvalidArgument` naming the place, like `nodes[3].port`; `Refused` if a name belongs to another mesh, or
    /// while a change waits to be confirmed.
    pub async fn apply(&self, spec: Spec, join_key: Option<String>) -> Result<Changed> {
        self.apply_as(spec, join_key, (false, Duration::ZERO)).await
    }

    /// The same, but unless confirmed within this time (a second to a day, of the cluster's own time, which stands still
    /// while there is no leader) it is rolled back. Meanwhile other changes are refused.
    ///
    /// Errors: as of [`apply`](Self::apply).
    pub async fn apply_to_confirm(&self, spec: Spec, join_key: Option<String>, within: Duration) -> Result<Changed> {
        self.apply_as(spec, join_key, (false, within)).await
    }

    /// What applying would change. Errors: as of [`apply`](Self::apply).
    pub async fn plan(&self, spec: Spec, join_key: Option<String>) -> Result<Vec<Edit>> {
        Ok(self.apply_as(spec, join_key, (true, Duration::ZERO)).await?.edits)
    }

    async fn apply_as(
        &self,
        spec: Spec,
        join_key: Option<String>,
        (dry_run, within): (bool, Duration),
    ) -> Result<Changed> {
        let spec = Some(spec_message(spec, join_key));
        let confirm_within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let request = v1::ApplyRequest { attempt: None, note: self.note(), spec, dry_run, confirm_within_ms };
        self.client.execute(request).await?.try_into()
    }

    /// Confirms the change at `revision`; 0: whichever waits.
    ///
    /// Errors: `Refused` if none waits, if it is another one, or if it is too late.
    pub async fn confirm(&self, revision: u64) -> Result<Written> {
        self.client.write(v1::ConfirmRequest { attempt: None, note: self.note(), revision }).await
    }

    /// Makes all topology as it was at a revision, as one change. Also ends a change that waits to be confirmed.
    ///
    /// Errors: `InvalidArgument` for a revision that is not there yet.
    pub async fn rollback(&self, revision: u64) -> Result<Changed> {
        let request = v1::RollbackRequest { attempt: None, note: self.note(), revision, dry_run: false };
        self.client.execute(request).await?.try_into()
    }

    /// What rolling back would change. Errors: as of [`rollback`](Self::rollback).
    pub async fn plan_rollback(&self, revision: u64) -> Result<Vec<Edit>> {
        let request = v1::RollbackRequest { attempt: None, note: self.note(), revision, dry_run: true };
        Changed::try_from(self.client.execute(request).await?).map(|changed| changed.edits)
    }

    /// A mesh by id. Errors: `InvalidArgument`; `NotFound`.
    pub async fn mesh(&self, mesh_id: &str) -> Result<Stored<Mesh>> {
        self.show_mesh(mesh_id, "").await.map(|(mesh, _)| mesh)
    }

    /// A mesh by name. Errors: `NotFound`.
    pub async fn mesh_by_name(&self, name: &str) -> Result<Stored<Mesh>> {
        self.show_mesh("", name).await.map(|(mesh, _)| mesh)
    }

    /// A mesh by name, and the change of whatever mesh that waits to be confirmed, with its revision. Errors: `NotFound`.
    pub async fn mesh_and_pending(&self, name: &str) -> Result<(Stored<Mesh>, Option<(u64, Pending)>)> {
        self.show_mesh("", name).await
    }

    async fn show_mesh(&self, mesh_id: &str, mesh_name: &str) -> Result<(Stored<Mesh>, Option<(u64, Pending)>)> {
        let (mesh_id, mesh_name) = (mesh_id.into(), mesh_name.into());
        let shown = self.client.read(v1::ShowMeshRequest { read: None, mesh_id, mesh_name }).await?;
        Ok((stored_mesh(expected("mesh", shown.mesh)?)?, shown.pending.map(Into::into)))
    }

    /// All meshes, in the order in which they were made. Errors: as of any read.
    pub async fn meshes(&self) -> Result<Vec<Stored<Mesh>>> {
        pages::all(async |wanted| {
            let shown = self.client.read(v1::ListMeshesRequest { read: None, page: Some(wanted.into()) }).await?;
            let meshes = shown.meshes.into_iter().map(stored_mesh).collect::<Result<_>>()?;
            page(meshes, shown.next_cursor, shown.header)
        })
        .await
    }

    /// A node by id. Errors: `InvalidArgument`; `NotFound`.
    pub async fn node(&self, node_id: &str) -> Result<Stored<Node>> {
        self.show_node(node_id, "").await
    }

    /// A node by name. Errors: `NotFound`.
    pub async fn node_by_name(&self, name: &str) -> Result<Stored<Node>> {
        self.show_node("", name).await
    }

    async fn show_node(&self, node_id: &str, node_name: &str) -> Result<Stored<Node>> {
        let (node_id, node_name) = (node_id.into(), node_name.into());
        let shown = self.client.read(v1::ShowNodeRequest { read: None, node_id, node_name }).await?;
        stored_node(expected("node", shown.node)?)
    }

    /// The nodes of a mesh, by name. Errors: `InvalidArgument`.
    pub async fn nodes(&self, mesh_id: &str) -> Result<Vec<Stored<Node>>> {
        pages::all(async |wanted| {
            let request = v1::ListNodesRequest { read: None, mesh_id: mesh_id.into(), page: Some(wanted.into()) };
            let shown = self.client.read(request).await?;
            let nodes = shown.nodes.into_iter().map(stored_node).collect::<Result<_>>()?;
            page(nodes, shown.next_cursor, shown.header)
        })
        .await
    }

    /// All regions, in the order in which they were made. Errors: as of any read.
    pub async fn regions(&self) -> Result<Vec<Stored<Region>>> {
        pages::all(async |wanted| {
            let shown = self.client.read(v1::ListRegionsRequest { read: None, page: Some(wanted.into()) }).await?;
            let regions = shown.regions.into_iter().map(stored_region).collect::<Result<_>>()?;
            page(regions, shown.next_cursor, shown.header)
        })
        .await
    }

    /// A mesh with all its nodes and routes, as of one revision. Errors: `InvalidArgument`; `NotFound`.
    pub async fn show(&self, mesh_id: &str) -> Result<MeshTopology> {
        self.client.read(v1::ShowTopologyRequest { read: None, mesh_id: mesh_id.into() }).await?.try_into()
    }

    /// The routes that begin at a node; not those that end there, even if they go both ways. None if there is no such node.
    /// Errors: `InvalidArgument`.
    pub async fn routes_for_node(&self, node_id: &str) -> Result<Vec<Stored<Route>>> {
        let request = v1::GetRoutesForNodeRequest { read: None, node_id: node_id.into() };
        let shown = self.client.read(request).await?;
        shown.routes.into_iter().map(stored_route).collect()
    }

    /// A page of the changes behind a revision, the oldest first. Errors: `InvalidArgument`; `ViewTooOld`.
    pub async fn history(&self, since_revision: u64, wanted: PageRequest) -> Result<Page<HistoryEntry>> {
        let request = v1::HistoryRequest { read: None, since_revision, page: Some(wanted.into()) };
        let shown = self.client.read(request).await?;
        let entries = shown.entries.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        page(entries, shown.next_cursor, shown.header)
    }

    /// What is different between two revisions; 0 as the second is the present one. Errors: `InvalidArgument`.
    pub async fn diff(&self, from_revision: u64, to_revision: u64) -> Result<Vec<Edit>> {
        let shown = self.client.read(v1::DiffRequest { read: None, from_revision, to_revision }).await?;
        edits(shown.edits)
    }

    /// Which node of a mesh a storage node belongs to (0: the one that answers): its id, and that of the mesh node. `None`
    /// is a valid state.
    ///
    /// Errors: as of any read.
    pub async fn local_identity(&self, storage_node_id: u64) -> Result<(u64, Option<String>)> {
        let shown = self.client.read(v1::GetLocalIdentityRequest { read: None, storage_node_id }).await?;
        Ok((shown.storage_node_id, Some(shown.identity_id).filter(|id| !id.is_empty())))
    }

    /// Says which node of a mesh a storage node belongs to. Errors: `InvalidArgument`; `NotFound`.
    pub async fn set_local_identity(&self, storage_node_id: u64, node_id: &str) -> Result<Written> {
        let node_id = node_id.into();
        self.client.write(v1::SetLocalIdentityRequest { attempt: None, storage_node_id, node_id }).await
    }

    /// A node tells which revision it has applied. Errors: `InvalidArgument`; `NotFound`.
    pub async fn report_applied(&self, node_id: &str, revision: u64) -> Result<Written> {
        self.client.write(v1::ReportAppliedRequest { attempt: None, node_id: node_id.into(), revision }).await
    }

    /// Who has applied the last change. Errors: `InvalidArgument`; `NotFound`.
    pub async fn applied(&self, nodes: Selector) -> Result<Convergence> {
        let shown = self.client.read(v1::ShowAppliedRequest { read: None, nodes: Some(nodes.into()) }).await?;
        Ok(shown.into())
    }

    /// Waits until the nodes have applied a revision (0: that of the last change), or the time is over: then the answer
    /// says who has not. At most 5 minutes.
    ///
    /// Errors: `InvalidArgument`; `NotFound`.
    pub async fn wait_until_applied(&self, nodes: Selector, revision: u64, timeout: Duration) -> Result<Convergence> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let request = v1::WaitUntilAppliedRequest { nodes: Some(nodes.into()), revision, timeout_ms };
        let patient = self.client.clone().with_deadline(timeout + self.client.deadline);
        Ok(patient.ask(Preference::Leader, request).await?.into())
    }
}

impl TryFrom<v1::ApplyResponse> for Changed {
    type Error = crate::Error;

    fn try_from(applied: v1::ApplyResponse) -> Result<Self> {
        Ok(Self { revision: applied.revision, edits: edits(applied.edits)? })
    }
}
