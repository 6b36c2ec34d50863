//! Deciding, proposing, deciding anew.

use tokio::time::Instant;
use tonic::Response;

use super::{
    super::{Call, Place},
    Answer, NewIds, Topology,
};
use crate::{
    Error, Result,
    layers::{
        Write,
        topology::{self as layer, Draft, change as rules, history, show},
    },
    model::{
        Key, OperationResult, Outcome, ReadMode,
        topology::{Cause, Edit, ItemKind, MeshChange, Note, Selector},
    },
    proto::{convert::read_header, v1},
    service::{self, Caller, Core, Decision},
    state::View,
};

/// A change that somebody asked for.
pub(super) struct Change<'a> {
    caller: Caller,
    pub(super) place: Place<'a>,
    pub(super) note: Note,
}

impl Change<'_> {
    /// What the change is decided on: everything that was acknowledged before, or what its transaction sees.
    pub(super) async fn view(&self) -> Result<View> {
        Ok(self.place.read(ReadMode::Linearizable, None, self.caller.deadline).await?.0)
    }

    /// Whether it waits for the commit of a transaction.
    pub(super) fn waits(&self) -> bool {
        matches!(self.place, Place::Inside(_))
    }
}

/// What became of a change.
pub(super) struct Done {
    /// The revision with it in; the present one if there was nothing to change; in a transaction the one that this reads.
    pub(super) revision: u64,
    changed: bool,
    /// Where the history tells of it, if that was answered.
    entries: Vec<Key>,
}

impl Topology {
    pub(super) async fn change(
        &self,
        call: Call,
        attempt: Option<v1::Attempt>,
        note: Option<v1::Note>,
    ) -> Result<Change<'_>> {
        let mut note = Note::from(note.unwrap_or_default());
        if note.author.is_empty() {
            note.author.clone_from(&call.principal);
        }
        layer::check_note(&note)?;
        let place = call.place(&self.node).await?;
        Ok(Change { caller: call.caller(attempt)?, place, note })
    }

    /// Decides and proposes until it has taken effect, or cannot.
    pub(super) async fn decide(
        &self,
        change: &Change<'_>,
        decide: impl Fn(&View, &Note) -> Result<Option<Write>>,
    ) -> Result<Done> {
        let Change { caller, place, note } = change;
        let _turn = match place {
            Place::Store(_) => tokio::time::timeout_at(caller.deadline, self.turn.lock()).await.ok(),
            // It is alone there already.
            Place::Inside(_) => None,
        };
        let decide = |view: &View| Ok(Decision { write: decide(view, note)?, found: () });
        let done = service::change(place, caller.clone(), decide).await?;
        let entries = done.outcome.as_ref().map(entries).unwrap_or_default();
        Ok(Done { revision: done.revision, changed: done.outcome.is_some(), entries })
    }

    /// A change of single items.
    pub(super) async fn edit(
        &self,
        change: &Change<'_>,
        edit: impl Fn(&mut Draft<'_>, &mut NewIds<'_>) -> Result<()>,
    ) -> Result<Done> {
        let decide = |view: &View, note: &Note| {
            let mut draft = Draft::open(view)?;
            edit(&mut draft, &mut NewIds(&self.node))?;
            draft.finish(note.clone(), Cause::Edit)
        };
        self.decide(change, decide).await
    }

    pub(super) fn written(&self, done: &Done) -> Response<v1::WriteResponse> {
        Response::new(v1::WriteResponse { revision: done.revision, leader_id: self.node.id() })
    }

    /// What a whole change did.
    pub(super) async fn applied_response(&self, change: &Change<'_>, done: &Done) -> Answer<v1::ApplyResponse> {
        let edits = if done.changed { self.edits(change, done).await? } else { vec![] };
        let edits = edits.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ApplyResponse { revision: done.revision, leader_id: self.node.id(), edits }))
    }

    /// What a change did.
    pub(super) async fn edits(&self, change: &Change<'_>, done: &Done) -> Result<Vec<Edit>> {
        if change.waits() {
            return history::told(&change.view().await?, &done.entries);
        }
        let revision = done.revision;
        let (view, _) = self.node.read(ReadMode::AtLeast(revision), None, change.caller.deadline).await?;
        history::diff(&view, revision.saturating_sub(1), revision)
    }

    pub(super) async fn created_response(
        &self,
        kind: ItemKind,
        change: &Change<'_>,
        done: &Done,
    ) -> Answer<v1::CreatedResponse> {
        let id = created(&self.edits(change, done).await?, kind)?;
        Ok(Response::new(v1::CreatedResponse { revision: done.revision, leader_id: self.node.id(), id }))
    }

    /// The change of a mesh, with the hash of its join key.
    pub(super) async fn mesh_change(&self, change: &Change<'_>, fields: v1::MeshFields) -> Result<MeshChange> {
        let (fields, key) = fields.open()?;
        self.with_key(change, fields, key).await
    }

    /// Whether this is the join key of the mesh of this name.
    pub(super) async fn has_key(&self, change: &Change<'_>, mesh: &str, key: Option<&str>) -> Result<bool> {
        let Some(key) = key else { return Ok(false) };
        let hash = match Draft::open_anyway(&change.view().await?)?.mesh_named(mesh)? {
            Some(mesh) => mesh.join_key_hash,
            None => None,
        };
        match hash {
            Some(hash) => {
                let checked = self.join_keys.verify(&self.node, change.caller.deadline, key.to_owned(), hash).await;
                match checked {
                    Ok(()) => Ok(true),
                    Err(Error::PermissionDenied(_)) => Ok(false),
                    Err(error) => Err(error),
                }
            }
            None => Ok(false),
        }
    }

    /// Whether whoever knows this key may join a mesh: the hash by which it was decided, if one was asked for.
    pub(super) async fn may_join(&self, change: &Change<'_>, mesh_id: &str, key: String) -> Result<Option<String>> {
        let hash = rules::join_key_hash(&Draft::open_anyway(&change.view().await?)?, mesh_id)?;
        if let Some(hash) = hash.clone() {
            self.join_keys.verify(&self.node, change.caller.deadline, key, hash).await?;
        }
        Ok(hash)
    }

    pub(super) async fn with_key(
        &self,
        change: &Change<'_>,
        fields: MeshChange,
        key: Option<String>,
    ) -> Result<MeshChange> {
        let join_key_hash = match key {
            Some(key) => Some(self.join_keys.hash(&self.node, change.caller.deadline, key).await?),
            None => None,
        };
        Ok(MeshChange { join_key_hash, ..fields })
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

/// The entries of the history that a transaction has written.
fn entries(outcome: &Outcome) -> Vec<Key> {
    let Outcome::Applied { results, .. } = outcome else { return vec![] };
    let written = results.iter().filter_map(|result| match result {
        OperationResult::Put { key, .. } if history::is_entry(key) => Some(key.clone()),
        _ => None,
    });
    written.collect()
}

/// The id of the item of a kind that a change created.
pub(super) fn created(edits: &[Edit], kind: ItemKind) -> Result<String> {
    let mut created = edits.iter().filter(|edit| edit.before.is_none()).filter_map(|edit| edit.after.as_ref());
    let id = created.find(|item| item.kind() == kind).map(|item| item.id().to_owned());
    id.ok_or_else(|| Error::Unexpected(format!("the change created no {}", kind.prefix())))
}
