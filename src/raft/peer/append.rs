//! Appends of a leader, alone or in a stream.

use std::{future::ready, sync::Arc};

use futures_util::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use openraft::errors::Fatal;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    Consensus, PeerParts,
    check::{Caller, check_member},
    malformed,
};
use crate::{
    proto::v1::{AppendRequest, AppendResponse, Pulse},
    raft::{
        freshness::Lead,
        space::Level,
        types::TypeConfig,
        wire::{self, Append, Appended},
    },
};

/// What stands beside an append, for its answer.
pub(super) struct Beside {
    echo: Option<Pulse>,
    lead: Option<Lead>,
    call: u64,
}

impl<C: Consensus> PeerParts<C> {
    /// An append from the wire, if it can be taken.
    pub(super) fn open(&self, request: AppendRequest) -> Result<(Append, Beside), Status> {
        let beside = Beside { echo: request.echo, lead: wire::lead(&request), call: request.call };
        let request = wire::open_append(request).map_err(malformed)?;
        self.has_room(&request)?;
        Ok((request, beside))
    }

    /// A node whose disk is all but full takes no entries: it lags, and goes on when there is room, instead of being
    /// stopped by a write that fails. It hears heartbeats all the same, and answers reads as old as they then are.
    fn has_room(&self, request: &Append) -> Result<(), Status> {
        let Self { space, identity, .. } = self;
        let full = !request.entries.is_empty() && space.level() == Level::Full;
        if !full {
            return Ok(());
        }
        let (node, path, room) = (identity.node(), space.path().display(), space.own().unwrap_or_default());
        Err(Status::unavailable(format!("the disk of node {node} is full ({path}: {room}): it takes no entries")))
    }

    /// The answer to an append, for the wire.
    pub(super) fn appended(&self, answer: &Appended, Beside { echo, lead, call }: Beside) -> AppendResponse {
        // Only what was accepted comes from the leader of this term.
        if matches!(answer, Appended::Success | Appended::PartialSuccess(_)) {
            self.freshness.heard(echo, lead);
        }
        let disk = self.space.own().map(Into::into);
        let (envelope, pulse) = (wire::appended(answer), Some(self.freshness.pulse()));
        let answer = AppendResponse { envelope, pulse, disk, call, sum: 0 };
        AppendResponse { sum: wire::appended_sum(&answer), ..answer }
    }

    /// The answers to appends, in their order, up to the first that is not taken.
    pub(super) fn answers(
        self: &Arc<Self>,
        caller: Option<Caller>,
        requests: Streaming<AppendRequest>,
    ) -> BoxStream<'static, Result<AppendResponse, Status>> {
        // Of each append what stands beside it; last, why there are no more.
        let (note, noted) = mpsc::unbounded_channel();
        let mut closed = self.closed.clone();
        let end = async move {
            // A dropped sender means that the node is gone.
            let _ = closed.wait_for(|closed| *closed).await;
        };
        let requests = requests.take_until(end.boxed());
        let appends = requests.scan((note, Arc::clone(self)), move |(note, parts), request| {
            // Between two appends the caller may have been removed.
            let admitted = caller.map_or(Ok(()), |caller| check_member(&*parts.standing, caller));
            let opened = request.and_then(|request| admitted.and_then(|()| parts.open(request)));
            let (append, beside) = match opened {
                Ok((append, beside)) => (Some(append), Ok(beside)),
                Err(status) => (None, Err(status)),
            };
            // Who would read it goes with the stream.
            let _ = note.send(beside);
            ready(append)
        });
        let answers = self.consensus.append_all(appends.boxed());
        let answering = Some((answers, noted, Arc::clone(self)));
        let answers = stream::unfold(answering, |answering| async move {
            let (mut answers, mut noted, parts) = answering?;
            match (answers.next().await, noted.try_recv()) {
                (Some(Ok(answer)), Ok(Ok(beside))) => {
                    Some((Ok(parts.appended(&answer, beside)), Some((answers, noted, parts))))
                }
                (Some(Err(fatal)), _) => Some((Err(parts.stopped(&fatal)), None)),
                (None, Ok(Err(status))) => Some((Err(status), None)),
                (Some(Ok(_)) | None, _) => None,
            }
        });
        answers.boxed()
    }

    pub(super) fn stopped(&self, fatal: &Fatal<TypeConfig>) -> Status {
        Status::unavailable(format!("node {} has stopped: {fatal}", self.identity.node()))
    }
}
