//! The consensus log as wire messages, and back.

use super::{
    convert::{expected, stored, version_of},
    v1,
};
use crate::{
    Error, Result,
    model::{
        Key, Position,
        consensus_log::{LogEntry, Placed, RaftEntry, RaftPart, RaftPayload, StoredEntry},
        keyspace,
        mesh::Page,
        proposal::{Action, Batch, Proposal},
        transaction::Operation,
    },
};

impl From<StoredEntry> for v1::LogEntry {
    fn from(stored: StoredEntry) -> Self {
        let version = Some(version_of(&stored));
        let LogEntry { term, index, entry_json } = stored.value;
        Self { term, index, entry_json, version }
    }
}

impl TryFrom<v1::LogEntry> for StoredEntry {
    type Error = Error;

    fn try_from(entry: v1::LogEntry) -> Result<Self> {
        let v1::LogEntry { term, index, entry_json, version } = entry;
        stored(LogEntry { term, index, entry_json }, version)
    }
}

impl From<(v1::ReadHeader, StoredEntry)> for v1::GetEntryResponse {
    fn from((header, entry): (v1::ReadHeader, StoredEntry)) -> Self {
        Self { header: Some(header), entry: Some(entry.into()) }
    }
}

impl TryFrom<v1::GetEntryResponse> for StoredEntry {
    type Error = Error;

    fn try_from(answer: v1::GetEntryResponse) -> Result<Self> {
        expected("entry", answer.entry)?.try_into()
    }
}

impl From<(v1::ReadHeader, Page<StoredEntry>)> for v1::ListEntriesResponse {
    fn from((header, page): (v1::ReadHeader, Page<StoredEntry>)) -> Self {
        let entries = page.items.into_iter().map(Into::into).collect();
        Self { header: Some(header), entries, next_cursor: page.next_cursor }
    }
}

impl TryFrom<v1::ListEntriesResponse> for Page<StoredEntry> {
    type Error = Error;

    fn try_from(answer: v1::ListEntriesResponse) -> Result<Self> {
        let revision = expected("header", answer.header)?.revision;
        let items = answer.entries.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        Ok(Page { items, next_cursor: answer.next_cursor, revision })
    }
}

impl From<&v1::AppendToRaftResponse> for Placed {
    fn from(answer: &v1::AppendToRaftResponse) -> Self {
        let position = Position { term: answer.term, index: answer.index };
        Self { position, ordinal: answer.ordinal }
    }
}

/// A part of the Raft log of a node. `entry_json` knows which proposals are entries of the application.
pub fn raft_part(node_id: u64, part: RaftPart, entry_json: fn(&Proposal) -> Option<&str>) -> v1::ReadRaftResponse {
    let RaftPart { first_index, committed_index, entries } = part;
    let entries = entries.into_iter().map(|entry| raft_entry(entry, entry_json)).collect();
    v1::ReadRaftResponse { node_id, first_index, committed_index, entries }
}

fn raft_entry(entry: RaftEntry, entry_json: fn(&Proposal) -> Option<&str>) -> v1::RaftEntry {
    use v1::raft_entry::Payload;
    let RaftEntry { position, payload } = entry;
    let payload = match payload {
        RaftPayload::Blank => Payload::Blank(true),
        RaftPayload::Membership { voters, members } => {
            let voters = voters.into_iter().map(|node_ids| v1::RaftVoters { node_ids }).collect();
            Payload::Membership(v1::RaftMembership { voters, members: members.into_iter().collect() })
        }
        RaftPayload::Batch(Batch { log_time_ms, wall_ms, proposals }) => {
            let proposals = (0..).zip(&proposals).map(|(ordinal, proposed)| proposal(ordinal, proposed, entry_json));
            Payload::Batch(v1::RaftBatch { log_time_ms, wall_time_ms: wall_ms, proposals: proposals.collect() })
        }
    };
    v1::RaftEntry { term: position.term, index: position.index, payload: Some(payload) }
}

fn proposal(ordinal: u32, proposal: &Proposal, entry_json: fn(&Proposal) -> Option<&str>) -> v1::RaftProposal {
    let call = proposal.call.unwrap_or(crate::model::proposal::Call { session: 0, sequence: 0, answered_below: 0 });
    let mut answer = v1::RaftProposal {
        ordinal,
        principal: proposal.principal.clone(),
        session: call.session,
        sequence: call.sequence,
        action: action(&proposal.action).into(),
        entry_json: entry_json(proposal).map(Into::into),
        ..v1::RaftProposal::default()
    };
    if let Action::Transact(transaction) = &proposal.action {
        answer.compares = u32::try_from(transaction.compares.len()).unwrap_or(u32::MAX);
        answer.operations = transaction.then.iter().map(operation).collect();
        answer.otherwise = transaction.otherwise.iter().map(operation).collect();
    }
    answer
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Transact(_) => "transact",
        Action::OpenSession { .. } => "open_session",
        Action::KeepSession { .. } => "keep_session",
        Action::CloseSession { .. } => "close_session",
        Action::Refuse { .. } => "refuse",
        Action::Tick => "tick",
        Action::SetApplyVersion(_) => "set_apply_version",
    }
}

fn operation(operation: &Operation) -> v1::RaftOperation {
    let of = |kind: &str, key: &Key, value_bytes: usize| v1::RaftOperation {
        kind: kind.into(),
        keyspace: keyspace::label(key.scope().keyspace),
        key: key.user_bytes(),
        value_bytes: value_bytes as u64,
    };
    let of_scope = |kind: &str, scope: crate::model::ScopeId| of(kind, &scope.key(b""), 0);
    match operation {
        Operation::Put { key, put } => of("put", key, put.value.len()),
        Operation::PutStamped { prefix, put } => of("put_stamped", prefix, put.value.len()),
        Operation::Add { key, .. } => of("add", key, 0),
        Operation::Delete { key } => of("delete", key, 0),
        Operation::DeleteRange { start, .. } => of("delete_range", start, 0),
        Operation::Reindex { key, .. } => of("reindex", key, 0),
        Operation::SetScope { scope, .. } => of_scope("set_scope", *scope),
        Operation::DropScope { scope } => of_scope("drop_scope", *scope),
        Operation::Get { key } => of("get", key, 0),
        Operation::Range { start, .. } => of("range", start, 0),
        Operation::Referrers { key, .. } => of("referrers", key, 0),
    }
}
