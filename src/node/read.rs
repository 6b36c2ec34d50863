//! Reads: how fresh this node's data is, and views of it.
//!
//! A linearizable read needs an index that covers every write acknowledged before it began. The leader finds
//! it by a round to a quorum, a follower asks the leader. One round serves all reads that arrived before it
//! *started*; those that come later wait for the next. While many read, the next waits a moment for those whom the last one has
//! answered: a round costs each node the same, however many it serves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use super::{Node, fault::Faults, measures::Measures};
use crate::{
    environment::sabotage::{self, Sabotage},
    error::{Error, Fault, Result},
    raft::{
        consensus::{Consensus, Leadership},
        state_machine::Progress,
        types::{Member, NodeId},
    },
    state::{View, view::Source},
    storage::{self, ViewError},
};

/// After a round that served so many, the next one waits until half as many have come,
const CROWD: usize = 16;
/// but no longer than this.
const GATHERING: Duration = Duration::from_millis(1);

/// How often a view is taken anew if a merge has just passed its revision.
const VIEW_ATTEMPTS: usize = 5;

impl Node {
    pub(super) fn view(&self, named: Option<u64>, until: Option<(Instant, Duration)>) -> Result<View> {
        let store = self.shared.machine.store();
        let mut attempts = 0;
        loop {
            let revision = named.unwrap_or_else(|| self.shared.machine.progress().borrow().revision);
            match store.view(revision) {
                Ok(view) => {
                    let source = NodeView { view, faults: self.shared.faults.clone(), until };
                    return Ok(View::new(revision, Box::new(source)));
                }
                // The newest revision moved on, and a merge began, in between.
                Err(ViewError::TooOld { .. }) if named.is_none() && attempts < VIEW_ATTEMPTS => attempts += 1,
                Err(error) => return Err(answer(error, &self.shared.faults)),
            }
        }
    }

    /// A view of the newest state here, which may be behind: for what is guarded when it is proposed.
    ///
    /// Errors: `Unavailable` if the node is stopping, or its state is known to be wrong.
    pub fn view_at_hand(&self) -> Result<View> {
        self.shared.check_running()?;
        self.shared.check_state()?;
        self.view(None, None)
    }

    /// The same, which is of use until then only: reading it later answers `DeadlineExceeded`.
    pub fn view_at_hand_until(&self, deadline: Instant) -> Result<View> {
        self.shared.check_running()?;
        self.shared.check_state()?;
        self.view(None, Some((deadline, deadline.saturating_duration_since(Instant::now()))))
    }
}

/// How a follower asks the leader for a read index.
pub(super) trait AskLeader: Send + Sync + 'static {
    /// The leader's answer to a ReadIndex call.
    fn read_index(&self, leader: NodeId, member: Member) -> BoxFuture<'static, Result<u64>>;
}

/// Collects reads that wait for a read index. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ReadIndex {
    waiting: Arc<Mutex<Waiting>>,
    wake: Arc<Notify>,
}

/// Who waits for the next round.
#[derive(Default)]
struct Waiting {
    reads: Vec<oneshot::Sender<Result<u64>>>,
    /// With so many the next round begins at once.
    wanted: usize,
}

impl ReadIndex {
    /// The index of the next round.
    pub(super) async fn get(&self) -> Result<u64> {
        let (sender, answer) = oneshot::channel();
        let enough = {
            let mut waiting = self.waiting();
            waiting.reads.push(sender);
            waiting.reads.len() >= waiting.wanted
        };
        if enough {
            self.wake.notify_one();
        }
        answer.await.unwrap_or_else(|_| Err(unavailable("the node is stopping")))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is served by the next round, which begins now or, after one that served `last`, soon.
    async fn gather(&self, last: usize) -> Vec<oneshot::Sender<Result<u64>>> {
        if last >= CROWD {
            let until = Instant::now() + GATHERING;
            let enough = || {
                let mut waiting = self.waiting();
                waiting.wanted = last / 2;
                waiting.reads.len() >= waiting.wanted
            };
            while !enough() {
                if tokio::time::timeout_at(until, self.wake.notified()).await.is_err() {
                    break;
                }
            }
        }
        loop {
            let reads = {
                let mut waiting = self.waiting();
                waiting.wanted = 0;
                std::mem::take(&mut waiting.reads)
            };
            if !reads.is_empty() {
                return reads;
            }
            self.wake.notified().await;
        }
    }

    /// Runs rounds for as long as the node lives. A round takes `limit` at most.
    pub(super) async fn run(
        self,
        consensus: Consensus,
        ask: Arc<dyn AskLeader>,
        limit: Duration,
        measures: Arc<Measures>,
    ) {
        let mut last = 0;
        loop {
            let reads = self.gather(last).await;
            last = reads.len();
            let began = Instant::now();
            let round = tokio::time::timeout(limit, Self::round(&consensus, ask.as_ref())).await;
            let index = round.unwrap_or_else(|_| Err(unavailable("no quorum confirmed the leader in time")));
            measures.read_index.note(began.elapsed());
            for read in reads {
                // Who has given up does not mind.
                let _ = read.send(index.clone());
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
    async fn after_a_crowd_the_next_round_waits_a_moment_for_half_as_many() {
        let reads = ReadIndex::default();
        let come = async |count: usize| {
            for _ in 0..count {
                let reads = reads.clone();
                tokio::spawn(async move { reads.get().await });
            }
            tokio::task::yield_now().await;
        };
        let began = Instant::now();
        come(1).await;
        assert_eq!(reads.gather(0).await.len(), 1);
        come(1).await;
        assert_eq!(reads.gather(CROWD - 1).await.len(), 1);
        come(CROWD).await;
        assert_eq!(reads.gather(2 * CROWD).await.len(), CROWD, "they are enough");
        let (waiting, ()) = tokio::join!(reads.gather(2 * CROWD), async {
            come(CROWD - 1).await;
            come(1).await;
        });
        assert_eq!((waiting.len(), began.elapsed()), (CROWD, Duration::ZERO), "the last of half as many ends the wait");
        come(1).await;
        assert_eq!((reads.gather(2 * CROWD).await.len(), began.elapsed()), (1, GATHERING));
        let (waiting, ()) = tokio::join!(reads.gather(2 * CROWD), async {
            tokio::time::sleep(2 * GATHERING).await;
            come(1).await;
        });
        assert_eq!(waiting.len(), 1, "nobody came in time, and who comes later is served at once");
    }

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
