//! What waits to be written.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::closed;
use crate::{
    Error, Result, limits,
    model::{Outcome, proposal::Proposal},
    node::check_encoded,
    storage::codec,
};

/// When a caller that found the queue full should come again, in milliseconds.
const RETRY_AFTER_MS: u64 = 50;

/// A proposal, and whom to answer.
pub(super) struct Pending {
    pub(super) proposal: Proposal,
    pub(super) reply: oneshot::Sender<Result<Outcome>>,
    bytes: usize,
}

/// A queue of proposals that one thread takes from.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    pending: VecDeque<Pending>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a proposal. Errors: `InvalidArgument` if it is too large; `ResourceExhausted`; `Unavailable` behind the end.
    pub(super) fn push(&self, proposal: Proposal) -> Result<oneshot::Receiver<Result<Outcome>>> {
        let bytes = codec::payload_len(&proposal);
        check_encoded(bytes)?;
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(closed());
        }
        if waiting.pending.len() >= limits::QUEUED_PROPOSALS || waiting.bytes + bytes > limits::QUEUED_BYTES {
            let reason = "too many writes wait".into();
            return Err(Error::ResourceExhausted { reason, retry_after_ms: RETRY_AFTER_MS });
        }
        waiting.bytes += bytes;
        waiting.pending.push_back(Pending { proposal, reply, bytes });
        drop(waiting);
        self.arrived.notify_one();
        Ok(answer)
    }

    /// What has queued, up to the bounds of a batch; waits for the first if `wait`. `None`: the queue is closed and empty. Callers
    /// that have given up are left out: that is certain not to be applied.
    pub(super) fn take(&self, wait: bool) -> Option<Vec<Pending>> {
        let mut waiting = self.waiting();
        while wait && waiting.pending.is_empty() && !waiting.closed {
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.pending.is_empty() && waiting.closed {
            return None;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < limits::ENTRY_PROPOSALS
            && let Some(next) = waiting.pending.front()
            && (batch.is_empty() || bytes + next.bytes <= limits::ENTRY_BYTES)
            && let Some(next) = waiting.pending.pop_front()
        {
            bytes += next.bytes;
            waiting.bytes -= next.bytes;
            batch.push(next);
        }
        batch.retain(|pending| !pending.reply.is_closed());
        Some(batch)
    }

    /// Takes nothing more. What has queued is still done.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.arrived.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting().closed
    }
}
