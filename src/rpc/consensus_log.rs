//! The consensus log: the Raft log itself, and the logs of groups.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Call, check_fence};
use crate::{
    layers::{
        consensus_log::{append, application, application_entry, delete, get, list},
        page_limit,
    },
    model::consensus_log::{Indexes, LogEntry},
    node::Node,
    proto::{consensus_log::raft_part, v1, v1::consensus_log_server},
};

/// The `ConsensusLog` service.
pub(super) struct ConsensusLog {
    node: Arc<Node>,
}

impl ConsensusLog {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

/// What a handler answers.
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl consensus_log_server::ConsensusLog for ConsensusLog {
    async fn append_to_raft(&self, request: Request<v1::AppendToRaftRequest>) -> Answer<v1::AppendToRaftResponse> {
        let (call, v1::AppendToRaftRequest { attempt, entry_json }) = Call::open(request)?;
        let (deadline, fence) = (call.deadline, call.own_fence());
        let (request, meaning) = call.request(attempt, application(entry_json)?)?;
        let session = request.attempt.map(|attempt| attempt.session);
        let (outcome, placed) = self.node.propose_placed(request, deadline).await?;
        check_fence(&self.node, fence, &outcome, deadline).await?;
        let revision = meaning.of(outcome, session)?.revision;
        let (term, index) = (placed.position.term, placed.position.index);
        let (leader_id, ordinal) = (self.node.id(), placed.ordinal);
        Ok(Response::new(v1::AppendToRaftResponse { revision, leader_id, term, index, ordinal }))
    }

    async fn read_raft(&self, request: Request<v1::ReadRaftRequest>) -> Answer<v1::ReadRaftResponse> {
        let (_, v1::ReadRaftRequest { first_index: first, last_index: last, limit }) = Call::open(request)?;
        let part = self.node.read_log(Indexes { first, last }, page_limit(limit)?).await?;
        Ok(Response::new(raft_part(self.node.id(), part, application_entry)))
    }

    async fn append_entry(&self, request: Request<v1::AppendEntryRequest>) -> Answer<v1::WriteResponse> {
        let (call, v1::AppendEntryRequest { attempt, group, term, index, entry_json }) = Call::open(request)?;
        call.write(&self.node, attempt, append(&group, LogEntry { term, index, entry_json })?).await
    }

    async fn get_entry(&self, request: Request<v1::GetEntryRequest>) -> Answer<v1::GetEntryResponse> {
        let (call, v1::GetEntryRequest { read, group, index, term }) = Call::open(request)?;
        call.read(&self.node, read, None, |view| get(view, &group, index, term)).await
    }

    async fn list_entries(&self, request: Request<v1::ListEntriesRequest>) -> Answer<v1::ListEntriesResponse> {
        let (call, request) = Call::open(request)?;
        let v1::ListEntriesRequest { read, group, first_index: first, last_index: last, page } = request;
        let list = list(&group, Indexes { first, last }, &page.into())?;
        call.list(&self.node, read, list.revision(), |view| list.read(view)).await
    }

    async fn delete_entries(&self, request: Request<v1::DeleteEntriesRequest>) -> Answer<v1::WriteResponse> {
        let (call, request) = Call::open(request)?;
        let v1::DeleteEntriesRequest { attempt, group, first_index: first, last_index: last } = request;
        call.write(&self.node, attempt, delete(&group, Indexes { first, last })?).await
    }
}
