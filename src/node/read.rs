//! Reads: how fresh this node's data is, and views of it.
//!
//! A linearizable read needs an index that covers every write acknowledged before it began. The leader finds
//! it by a round to a quorum, a follower asks the leader. One round serves all reads that arrived before it
//! *started*; those that come later wait for the next.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use super::{fault::Faults, measures::Measures};
use crate::{
    environment::sabotage::{self, Sabotage},
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
pub(super) trait AskLeader: Send + Sync + 'static {
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
    pub(super) async fn run(
        self,
        consensus: Consensus,
        ask: Arc<dyn AskLeader>,
        limit: Duration,
        measures: Arc<Measures>,
    ) {
        loop {
            self.wake.notified().await;
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if waiting.is_empty() {
                continue;
            }
            let began = Instant::now();
            let round = tokio::time::timeout(limit, Self::round(&consensus, ask.as_ref())).await;
            let index = round.unwrap_or_else(|_| Err(unavailable("no quorum confirmed the leader in time")));
            measures.read_index.note(began.elapsed());
            for waiter in waiting {
                // Who has given up does not mind.
                let _ = waiter.send(index.clone());
            }
        }
    }

    async fn round(consensus: &Consensus, ask: &dyn AskLeader) -> Result<u64> {
        match consensus.leadership() {
            Leadership::Me { .. } if sabotage::on(Sabotage::NoReadIndex) => Ok(0),
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

/// A storage view as layers read it.
pub(super) struct NodeView {
    pub(super) view: storage::View,
    pub(super) faults: Faults,
    /// After this deadline nobody waits for what is read; of so much time that the call had.
    pub(super) until: Option<(Instant, Duration)>,
}

impl NodeView {
    fn answer<T>(&self, read: std::result::Result<T, ViewError>) -> Result<T> {
        self.check()?;
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

    fn check(&self) -> Result<()> {
        if let Some((_, budget)) = self.until.filter(|(deadline, _)| Instant::now() >= *deadline) {
            return Err(Error::DeadlineExceeded {
                deadline_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
                waiting_for: "what the call asks for to be found: narrow it, or allow more time".into(),
                may_have_applied: false,
            });
        }
        Ok(())
    }
}

/// Shows nothing: for layers that have what they look at from elsewhere, and may find it broken.
pub(super) struct Blind(pub(super) Faults);

impl Source for Blind {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>> {
        Ok(None)
    }

    fn range(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<(Bytes, Bytes)>> {
        Ok(Vec::new())
    }

    fn fault(&self, fault: Fault) -> Error {
        self.0.report(fault);
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
    use crate::{
        environment::Environment,
        state::audit::Accounts,
        storage::{EngineKind, Options, Store},
    };

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_any_more_is_not_read() {
        let directory = tempfile::TempDir::new().unwrap();
        let options = Options { engine: EngineKind::Memory, ..Options::new(directory.path(), 1) };
        let durable = watch::channel(0).1;
        let (store, _workers) = Store::open(&Environment::real(), options, Arc::new(Accounts), durable).unwrap();
        store.write(1, vec![(Bytes::from_static(b"key"), Some(Bytes::from_static(b"value")))]);
        let budget = Duration::from_secs(2);
        let until = Some((Instant::now() + budget, budget));
        let source = NodeView { view: store.view(1).unwrap(), faults: Faults::default(), until };
        assert!(source.get(b"key").unwrap().is_some());
        assert_eq!(source.range(b"a", None, 10).unwrap().len(), 1);
        tokio::time::advance(budget).await;
        for error in [source.get(b"key").unwrap_err(), source.range(b"a", None, 10).unwrap_err()] {
            let Error::DeadlineExceeded { deadline_ms: 2_000, may_have_applied: false, .. } = error else {
                panic!("{error}")
            };
        }
    }
}
