//! Reads: how fresh this node's data is, and views of it.
//!
//! A linearizable read needs an index that covers every write acknowledged before it began. The leader finds
//! it by a round to a quorum, a follower asks the leader. One round serves all reads that arrived before it
//! *started*; those that come later wait for the next.

use std::{collections::VecDeque, sync::Arc, sync::Mutex, sync::PoisonError, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use super::fault::Faults;
use crate::{
    error::{Error, Fault, Result},
    raft::{
        consensus::{Consensus, Leadership},
        state_machine::Progress,
        types::{Member, NodeId},
    },
    state::view::Source,
    storage::{self, ViewError},
};

/// How a follower asks the leader for a read index.
pub trait AskLeader: Send + Sync + 'static {
    /// The leader's answer to a ReadIndex call.
    fn read_index(&self, leader: NodeId, member: Member) -> BoxFuture<'static, Result<u64>>;
}

/// Collects reads that wait for a read index. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ReadIndex {
    waiting: Arc<Mutex<Vec<oneshot::Sender<Result<u64>>>>>,
    wake: Arc<Notify>,
}

impl ReadIndex {
    /// The index of the next round.
    pub(super) async fn get(&self) -> Result<u64> {
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.wake.notify_one();
        answer.await.unwrap_or_else(|_| Err(unavailable("the node is stopping")))
    }

    /// Runs rounds for as long as the node lives. A round takes `limit` at most.
    pub(super) async fn run(self, consensus: Consensus, ask: Arc<dyn AskLeader>, limit: Duration) {
        loop {
            self.wake.notified().await;
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if waiting.is_empty() {
                continue;
            }
            let round = tokio::time::timeout(limit, Self::round(&consensus, ask.as_ref())).await;
            let index = round.unwrap_or_else(|_| Err(unavailable("no quorum confirmed the leader in time")));
            for waiter in waiting {
                // Who has given up does not mind.
                let _ = waiter.send(index.clone());
            }
        }
    }

    async fn round(consensus: &Consensus, ask: &dyn AskLeader) -> Result<u64> {
        match consensus.leadership() {
            Leadership::Me { .. } => consensus.read_index().await,
            Leadership::Other { id, member } => ask.read_index(id, member).await,
            Leadership::Unknown => Err(unavailable("no leader is known; an election may be under way")),
        }
    }
}

fn unavailable(reason: &str) -> Error {
    Error::Unavailable { reason: reason.into(), leader: None }
}

/// Waits until an index is applied here.
pub(super) async fn applied(
    progress: &mut watch::Receiver<Progress>,
    enough: impl Fn(&Progress) -> bool,
    (deadline, budget): (Instant, Duration),
) -> Result<Progress> {
    match tokio::time::timeout_at(deadline, progress.wait_for(|progress| enough(progress))).await {
        Ok(Ok(reached)) => Ok(*reached),
        Ok(Err(_)) => Err(unavailable("the node is stopping")),
        Err(_) => Err(Error::DeadlineExceeded {
            deadline_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
            waiting_for: "this node to apply what the read must see".into(),
            may_have_applied: false,
        }),
    }
}

/// How old this node's data may be: the time since a heartbeat whose commit index is applied here, plus how
/// long before it the leader itself last heard from a quorum.
#[derive(Default)]
pub struct Freshness(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    /// Up to this moment (monotonic) everything acknowledged is applied here.
    covered: Option<Duration>,
    /// Moments that will be covered once their commit index is applied; in order.
    pending: VecDeque<(Duration, u64)>,
}

/// More heartbeats than this that are not applied yet say nothing new: the newest are dropped.
const PENDING: usize = 64;

impl Freshness {
    /// The leader was heard at `now`, `quorum_age` after it had heard from a quorum, with this commit index.
    pub fn heard(&self, now: Duration, quorum_age: Duration, commit_index: u64) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.pending.len() < PENDING {
            heard.pending.push_back((now.saturating_sub(quorum_age), commit_index));
        }
    }

    /// The age of what is applied up to `applied_index`, in milliseconds; `u64::MAX` if nothing is known.
    pub fn age_ms(&self, now: Duration, applied_index: u64) -> u64 {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, _)) = heard.pending.front().copied().filter(|(_, commit)| *commit <= applied_index) {
            heard.pending.pop_front();
            heard.covered = heard.covered.max(Some(at));
        }
        let age = heard.covered.map(|at| now.saturating_sub(at).as_millis());
        age.map_or(u64::MAX, |age| u64::try_from(age).unwrap_or(u64::MAX))
    }
}

/// A storage view as layers read it.
pub(super) struct NodeView {
    pub(super) view: storage::View,
    pub(super) faults: Faults,
}

impl NodeView {
    fn answer<T>(&self, read: std::result::Result<T, ViewError>) -> Result<T> {
        read.map_err(|error| answer(error, &self.faults))
    }
}

impl Source for NodeView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.answer(self.view.get(key))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.answer(self.view.range(start, end, limit))
    }

    fn fault(&self, fault: Fault) -> Error {
        self.faults.report(fault);
        unavailable("the node is stopping")
    }
}

/// What a reader is told.
pub(super) fn answer(error: ViewError, faults: &Faults) -> Error {
    match error {
        ViewError::TooOld { revision, oldest } => Error::ViewTooOld { revision, oldest },
        ViewError::Fault(fault) => {
            faults.report(fault);
            unavailable("the node is stopping")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_a_heartbeat_whose_commit_is_applied_here() {
        let freshness = Freshness::default();
        let ms = Duration::from_millis;
        assert_eq!(freshness.age_ms(ms(5), 100), u64::MAX, "never heard of a leader");
        freshness.heard(ms(1_000), ms(40), 10);
        freshness.heard(ms(1_100), ms(0), 20);
        assert_eq!(freshness.age_ms(ms(1_200), 9), u64::MAX, "index 10 is not applied yet");
        assert_eq!(freshness.age_ms(ms(1_200), 10), 240, "the first heartbeat, and the leader's own age");
        assert_eq!(freshness.age_ms(ms(1_200), 25), 100);
        assert_eq!(freshness.age_ms(ms(3_200), 25), 2_100);
    }
}
