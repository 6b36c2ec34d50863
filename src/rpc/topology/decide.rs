//! Deciding, proposing, deciding anew.

use tokio::time::Instant;
use tonic::Response;

use super::{
    super::{Call, join_key},
    Answer, NewIds, Topology,
};
use crate::{
    Error, Result,
    layers::{
        Write,
        topology::{self as layer, Draft, history, show},
    },
    model::{
        ReadMode,
        session::Attempt,
        topology::{Cause, Edit, ItemKind, MeshChange, Note, Selector},
    },
    proto::{convert::read_header, v1},
    service::{self, Caller, Decision},
    state::View,
};

/// A change that somebody asked for.
pub(super) struct Change {
    call: Call,
    attempt: Option<Attempt>,
    pub(super) note: Note,
}

impl Change {
    pub(super) fn open(call: Call, attempt: Option<v1::Attempt>, note: Option<v1::Note>) -> Result<Self> {
        let attempt = attempt.map(Attempt::try_from).transpose()?;
        let mut note = Note::from(note.unwrap_or_default());
        if note.author.is_empty() {
            note.author.clone_from(&call.principal);
        }
        layer::check_note(&note)?;
        Ok(Self { call, attempt, note })
    }
}

/// What became of a change.
pub(super) struct Done {
    /// The revision with it in; the present one if there was nothing to change.
    pub(super) revision: u64,
    changed: bool,
}

impl Topology {
    /// A view of everything that was acknowledged before.
    pub(super) async fn newest(&self, deadline: Instant) -> Result<View> {
        Ok(self.node.read(ReadMode::Linearizable, None, deadline).await?.0)
    }

    /// Decides and proposes until it has taken effect, or cannot.
    pub(super) async fn decide(
        &self,
        change: Change,
        decide: impl Fn(&View, &Note) -> Result<Option<Write>>,
    ) -> Result<Done> {
        let Change { call: Call { principal, deadline, fence, entered: _ }, attempt, note } = change;
        let _turn = tokio::time::timeout_at(deadline, self.turn.lock()).await;
        let caller = Caller { principal, attempt, deadline, fence };
        let decide = |view: &View| Ok(Decision { write: decide(view, &note)?, found: () });
        let done = service::change(self.node.as_ref(), caller, decide).await?;
        Ok(Done { revision: done.revision, changed: done.outcome.is_some() })
    }

    /// A change of single items.
    pub(super) async fn edit(
        &self,
        change: Change,
        edit: impl Fn(&mut Draft<'_>, &mut NewIds<'_>) -> Result<()>,
    ) -> Result<u64> {
        let decide = |view: &View, note: &Note| {
            let mut draft = Draft::open(view)?;
            edit(&mut draft, &mut NewIds(&self.node))?;
            draft.finish(note.clone(), Cause::Edit)
        };
        Ok(self.decide(change, decide).await?.revision)
    }

    pub(super) fn written(&self, revision: u64) -> Response<v1::WriteResponse> {
        Response::new(v1::WriteResponse { revision, leader_id: self.node.id() })
    }

    /// What a whole change did.
    pub(super) async fn applied_response(&self, done: Done, deadline: Instant) -> Answer<v1::ApplyResponse> {
        let Done { revision, changed } = done;
        let edits = if changed { self.edits_at(revision, deadline).await? } else { vec![] };
        let edits = edits.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ApplyResponse { revision, leader_id: self.node.id(), edits }))
    }

    /// What the change at a revision did.
    pub(super) async fn edits_at(&self, revision: u64, deadline: Instant) -> Result<Vec<Edit>> {
        let (view, _) = self.node.read(ReadMode::AtLeast(revision), None, deadline).await?;
        history::diff(&view, revision.saturating_sub(1), revision)
    }

    pub(super) async fn created_response(
        &self,
        kind: ItemKind,
        revision: u64,
        deadline: Instant,
    ) -> Answer<v1::CreatedResponse> {
        let id = created(&self.edits_at(revision, deadline).await?, kind)?;
        Ok(Response::new(v1::CreatedResponse { revision, leader_id: self.node.id(), id }))
    }

    /// The change of a mesh, with the hash of its join key.
    pub(super) async fn mesh_change(&self, fields: v1::MeshFields) -> Result<MeshChange> {
        let (change, key) = fields.open()?;
        self.with_key(change, key).await
    }

    /// Whether this is the join key of the mesh of this name.
    pub(super) async fn has_key(&self, mesh: &str, key: Option<&str>, deadline: Instant) -> Result<bool> {
        let Some(key) = key else { return Ok(false) };
        let hash = match Draft::open_anyway(&self.newest(deadline).await?)?.mesh_named(mesh)? {
            Some(mesh) => mesh.join_key_hash,
            None => None,
        };
        match hash {
            Some(hash) => Ok(join_key::verify(&self.node, key.to_owned(), hash).await.is_ok()),
            None => Ok(false),
        }
    }

    pub(super) async fn with_key(&self, change: MeshChange, key: Option<String>) -> Result<MeshChange> {
        let join_key_hash = match key {
            Some(key) => Some(join_key::hash(&self.node, key).await?),
            None => None,
        };
        Ok(MeshChange { join_key_hash, ..change })
    }

    pub(super) async fn applied(
        &self,
        selector: &Selector,
        target: Option<u64>,
        (mode, deadline): (ReadMode, Instant),
    ) -> Result<v1::ShowAppliedResponse> {
        let (view, stamp) = self.node.read(mode, None, deadline).await?;
        let revision = match target {
            Some(revision) => revision,
            None => show::changed_revision(&view)?,
        };
        let nodes = layer::applied::progress(&view, selector)?;
        let converged = nodes.iter().all(|node| node.revision >= revision);
        let nodes = nodes.into_iter().map(Into::into).collect();
        Ok(v1::ShowAppliedResponse { header: Some(read_header(stamp, self.node.id())), nodes, revision, converged })
    }
}

/// The id of the item of a kind that a change created.
pub(super) fn created(edits: &[Edit], kind: ItemKind) -> Result<String> {
    let mut created = edits.iter().filter(|edit| edit.before.is_none()).filter_map(|edit| edit.after.as_ref());
    let id = created.find(|item| item.kind() == kind).map(|item| item.id().to_owned());
    id.ok_or_else(|| Error::Unexpected(format!("the change created no {}", kind.prefix())))
}
