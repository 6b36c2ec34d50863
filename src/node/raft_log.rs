//! The node's own Raft log, for those who want to see it: what is committed, decoded; and entries of the application
//! in it.

use tokio::time::Instant;

use super::{Node, Request, propose::Answered, read};
use crate::{
    error::{Error, Fault, Result},
    limits,
    model::{
        Outcome,
        consensus_log::{Indexes, Placed, RaftEntry, RaftPart, RaftPayload},
        kind,
        proposal::{Call, Proposal},
    },
    storage::ViewError,
};

/// How many entries are read at once where one is looked for.
const STRIDE: u64 = 256;

impl Node {
    /// A part of this node's Raft log: up to `limit` committed entries of the indexes that are asked for, fewer if they get
    /// large.
    ///
    /// Errors: `NotFound` if only one is asked for and it is not there.
    pub async fn read_log(&self, indexes: Indexes, limit: usize) -> Result<RaftPart> {
        let log = self.shared.log.clone();
        let committed_index = self.shared.machine.progress().borrow().position.index;
        let behind = indexes.end().min(committed_index).saturating_add(1);
        let end = behind.min(indexes.first.saturating_add(limit as u64));
        let first = indexes.first;
        let reading = self.run_blocking("log-reader", move || {
            let entries = if first < end { log.entries(first..end, limits::PAGE_BYTES)? } else { Vec::new() };
            let entries = entries.iter().map(|entry| entry.opened()).collect::<Result<Vec<RaftEntry>, Fault>>()?;
            // Asked afterwards: what was purged while it was read is missing at the front.
            Ok((log.first_index(), entries))
        });
        let answered: Result<_, Fault> = reading.await?;
        let (first_index, entries) =
            answered.map_err(|fault| read::answer(ViewError::Fault(fault), &self.shared.faults))?;
        if entries.is_empty() && indexes.first == indexes.last {
            let (kind, index) = (kind::LOG_ENTRY, indexes.first);
            let name =
                format!("index {index} in the Raft log, of which this node holds {first_index} to {committed_index}");
            return Err(Error::NotFound { kind, name });
        }
        Ok(RaftPart { first_index, committed_index, entries })
    }

    /// Proposes as [`Node::propose`] does, and says where in the log it landed.
    ///
    /// Errors: those of [`Node::propose`]; `NotFound` if it was made by an earlier attempt and has been purged since.
    pub async fn propose_placed(&self, request: Request, deadline: Instant) -> Result<(Outcome, Placed)> {
        let earlier = request.attempt.filter(|attempt| attempt.attempt > 1).map(Call::from);
        let Answered { outcome, placed } = self.propose_answered(request, deadline).await?;
        match earlier {
            // Which of the attempts was executed, only the log knows: the first of them that is in it.
            Some(call) => Ok((outcome, self.find(call, placed.position.index).await?)),
            None => Ok((outcome, placed)),
        }
    }

    /// The first place of a call in the log.
    async fn find(&self, call: Call, last_index: u64) -> Result<Placed> {
        let mut first = self.shared.log.first_index();
        while first <= last_index {
            let stride = Indexes { first, last: (first + STRIDE).min(last_index) };
            let part = self.read_log(stride, usize::try_from(STRIDE).unwrap_or(usize::MAX)).await?;
            for entry in &part.entries {
                let RaftPayload::Batch(batch) = &entry.payload else { continue };
                let same = |proposal: &Proposal| {
                    proposal.call.is_some_and(|other| (other.session, other.sequence) == (call.session, call.sequence))
                };
                if let Some(ordinal) = batch.proposals.iter().position(same) {
                    let ordinal = u32::try_from(ordinal).unwrap_or(u32::MAX);
                    return Ok(Placed { position: entry.position, ordinal });
                }
            }
            match part.entries.last() {
                Some(last) => first = last.position.index + 1,
                None => break,
            }
        }
        Err(Error::NotFound {
            kind: kind::LOG_ENTRY,
            name: "the entry that an earlier attempt appended; it was purged since".into(),
        })
    }
}
