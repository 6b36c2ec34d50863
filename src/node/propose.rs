//! The proposer: packs what has queued into log entries, and hands each caller its outcome.
//!
//! A proposal is encoded once, by its caller's task; an entry is the concatenation of what waited while the
//! entries before it were on their way. No timer: with nothing in flight a proposal leaves at once, under
//! load entries grow by themselves.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

use super::{clock::LogClock, measures::Measures};
use crate::{
    environment::Clock,
    error::{Error, Result},
    limits,
    model::{Outcome, consensus_log::Placed, proposal::Proposal},
    raft::consensus::{Consensus, Leadership},
    storage::codec::{self, Kind},
};

/// Entries that may be on their way at once.
const IN_FLIGHT: usize = 4;
/// When a caller that found the queue full should come again, in milliseconds.
const RETRY_AFTER_MS: u64 = 50;

/// A queue of proposals. Cheap to clone.
#[derive(Clone)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Pending>,
    bytes: Arc<Semaphore>,
}

/// What became of a proposal, and where in the log it stands.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) outcome: Outcome,
    pub(super) placed: Placed,
}

/// A proposal on its way, with the room that it takes in the queue.
struct Pending {
    encoded: Vec<u8>,
    since: Instant,
    reply: oneshot::Sender<Result<Answered>>,
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// The other end of the queue.
pub(super) struct Packer {
    queue: mpsc::Receiver<Pending>,
    /// Taken from the queue, but too large for the entry before.
    carried: Option<Pending>,
    consensus: Consensus,
    clock: Arc<dyn Clock>,
    log_clock: Arc<LogClock>,
    measures: Arc<Measures>,
}

impl Proposer {
    pub(super) fn new(
        consensus: Consensus,
        clock: Arc<dyn Clock>,
        (log_clock, measures): (Arc<LogClock>, Arc<Measures>),
    ) -> (Self, Packer) {
        let (sender, queue) = mpsc::channel(limits::QUEUED_PROPOSALS);
        let bytes = Arc::new(Semaphore::new(limits::QUEUED_BYTES));
        (Self { queue: sender, bytes }, Packer { queue, carried: None, consensus, clock, log_clock, measures })
    }

    /// Proposals that wait for a place in an entry, and the bytes of all that have no outcome yet.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let waiting = self.queue.max_capacity().saturating_sub(self.queue.capacity());
        (waiting, limits::QUEUED_BYTES.saturating_sub(self.bytes.available_permits()))
    }

    /// Queues a proposal and waits for its outcome.
    pub(super) async fn propose(&self, proposal: &Proposal, deadline: Instant, budget: Duration) -> Result<Answered> {
        let encoded = codec::encode_payload(proposal);
        check_encoded(encoded.len())?;
        let full = |reason: &str| Error::ResourceExhausted { reason: reason.into(), retry_after_ms: RETRY_AFTER_MS };
        let wanted = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(wanted);
        let room = room.map_err(|_| full("too many bytes wait to be proposed"))?;
        let (reply, answer) = oneshot::channel();
        let queued = self.queue.try_send(Pending { encoded, since: Instant::now(), reply, _room: room });
        queued.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => full("too many proposals wait"),
            mpsc::error::TrySendError::Closed(_) => {
                Error::Unavailable { reason: "the node is stopping".into(), leader: None }
            }
        })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => {
                if let Ok(Answered { placed: Placed { position, ordinal }, .. }) = &answer {
                    // What ties a call to what the followers say of the entry.
                    tracing::debug!(entry = %position, ordinal, "proposed, and applied here");
                }
                answer
            }
            Ok(Err(_)) => Err(Error::Unknown("the node stopped before it answered".into())),
            Err(_) => Err(Error::DeadlineExceeded {
                deadline_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
                waiting_for: "the write to be acknowledged by a quorum".into(),
                may_have_applied: true,
            }),
        }
    }
}

impl Packer {
    /// Packs until all senders are gone.
    pub(super) async fn run(mut self) {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        loop {
            let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
            let first = match self.carried.take() {
                Some(carried) => carried,
                None => match self.queue.recv().await {
                    Some(next) => next,
                    None => break,
                },
            };
            let batch = self.fill(first);
            if batch.is_empty() {
                continue;
            }
            let submission = self.submit(batch);
            tokio::spawn(async move {
                submission.await;
                drop(permit);
            });
        }
        // The node waits for this task: what is in flight is finished first.
        drop(in_flight.acquire_many(u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX)).await);
    }

    /// What has queued meanwhile, up to the bounds of an entry. Callers that have given up are left out: that
    /// is certain not to be applied.
    fn fill(&mut self, first: Pending) -> Vec<Pending> {
        let mut bytes = first.encoded.len();
        let mut batch = vec![first];
        while batch.len() < limits::ENTRY_PROPOSALS && bytes < limits::ENTRY_BYTES {
            let Ok(next) = self.queue.try_recv() else { break };
            bytes += next.encoded.len();
            if bytes > limits::ENTRY_BYTES {
                self.carried = Some(next);
                break;
            }
            batch.push(next);
        }
        batch.retain(|pending| !pending.reply.is_closed());
        batch
    }

    fn submit(&self, batch: Vec<Pending>) -> impl Future<Output = ()> + Send + use<> {
        let (consensus, measures) = (self.consensus.clone(), Arc::clone(&self.measures));
        let stamp = |term| (self.log_clock.now_ms(term, self.clock.monotonic()), self.clock.wall_ms());
        let prepared = match consensus.leadership() {
            Leadership::Me { term } => {
                measures.entries.fetch_add(1, Relaxed);
                measures.proposals.fetch_add(batch.len() as u64, Relaxed);
                Ok((pack(&batch, stamp(term)), term))
            }
            Leadership::Other { member, .. } => Err(not_leading(Some(member.client_address))),
            Leadership::Unknown => Err(not_leading(None)),
        };
        async move {
            let outcomes = match prepared {
                Ok((entry, term)) => consensus.submit(entry, term).await,
                Err(error) => Err(error),
            };
            match outcomes {
                Ok((position, outcomes)) => {
                    let now = Instant::now();
                    for (ordinal, (pending, outcome)) in (0..).zip(batch.into_iter().zip(outcomes)) {
                        measures.commit.note(now.saturating_duration_since(pending.since));
                        // A caller that has given up knows that the outcome is unknown to it.
                        let _ = pending.reply.send(Ok(Answered { outcome, placed: Placed { position, ordinal } }));
                    }
                }
                Err(error) => {
                    for pending in batch {
                        let _ = pending.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

/// That a proposal of so many bytes is one that may be proposed. Errors: `InvalidArgument`.
pub fn check_encoded(bytes: usize) -> Result<()> {
    if bytes <= limits::TRANSACTION_BYTES {
        return Ok(());
    }
    let rule = format!("at most {} bytes encoded", limits::TRANSACTION_BYTES);
    Err(Error::invalid("transaction", format!("{bytes} bytes"), rule))
}

fn not_leading(leader: Option<String>) -> Error {
    let reason = match leader {
        Some(_) => "this node does not lead",
        None => "no leader is known; an election may be under way",
    };
    Error::Unavailable { reason: reason.into(), leader }
}

/// A sealed batch of proposals that are encoded already. A struct and a vector are encoded as their parts one
/// after the other, so this is what encoding a [`crate::model::proposal::Batch`] gives.
fn pack(batch: &[Pending], (log_time_ms, wall_ms): (u64, u64)) -> Bytes {
    let head = codec::encode_payload(&(log_time_ms, wall_ms, batch.len() as u64));
    let bytes: usize = batch.iter().map(|pending| pending.encoded.len()).sum();
    let mut payload = BytesMut::with_capacity(head.len() + bytes);
    payload.put_slice(&head);
    for pending in batch {
        payload.put_slice(&pending.encoded);
    }
    codec::seal(Kind::Batch, 1, 0, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::proposal::{Action, Batch, Guards};

    #[test]
    fn a_packed_batch_is_the_encoded_batch() {
        let proposal = |ttl_ms| Proposal {
            principal: "somebody".into(),
            call: None,
            guards: Guards::default(),
            action: Action::OpenSession { ttl_ms },
        };
        let proposals: Vec<Proposal> = (0..300).map(proposal).collect();
        let room = Arc::new(Semaphore::new(1_000));
        let pending = |proposal: &Proposal| Pending {
            encoded: codec::encode_payload(proposal),
            since: Instant::now(),
            reply: oneshot::channel().0,
            _room: Arc::clone(&room).try_acquire_owned().unwrap(),
        };
        let pendings: Vec<Pending> = proposals.iter().map(pending).collect();
        let batch = Batch { log_time_ms: 70_000, wall_ms: 1 << 41, proposals };
        assert_eq!(pack(&pendings, (70_000, 1 << 41)), codec::encode(Kind::Batch, &batch));
    }
}
