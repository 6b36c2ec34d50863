//! A store without a log: the core's apply over pairs that stand in one place.
//!
//! One thread writes ([`writer`]). Like the proposer of a node it takes what has queued as one batch and stamps it with log time
//! and wall time; the core applies it; the [`Keeper`] commits the pairs and the state beside them, all or nothing, once for the
//! whole batch; then everybody is answered. So writes of many callers share one sync of the disk, and what was answered is
//! there.
//!
//! Readers open [`Pairs`] of one revision beside it ([`Reader`]) and wait for nobody. A revision that a list has shown stays
//! readable for some seconds, as on a node.
//!
//! **Time**: log time passes while the store is open, by the monotonic clock, and goes on where it was when the store is opened
//! again. What is due goes before anybody reads past it: a read that finds something due has it expire first. So there is no
//! timer, and nothing happens to a store that nobody asks.
//!
//! **A fault** (a disk that cannot be read or synced, bytes that are not what was written) ends the store: it answers nothing
//! more, and says why. Only a full disk does not: the batch is taken back, and its callers may try again.

mod queue;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use self::queue::Queue;
pub use self::writer::{Handle, start};
use crate::{
    Error, Result,
    environment::Clock,
    error::Fault,
    model::{
        Outcome, ReadMode, ReadStamp, ScopeId,
        proposal::{Action, Call, Guards, Proposal},
        session::Attempt,
    },
    node::{PagedViews, Request, check_size},
    service::{Core, transactions::Home},
    state::{
        Base, Meta, State, View,
        scope::{Account, Scope},
        view::Source,
    },
};

/// When a caller should come again for whom there was no room, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;
/// The principal of what a store proposes of itself.
const OWN: &str = "store";

/// Who keeps the pairs, and alone writes them. What is written is read back by [`Base`] at once, and by readers and after a
/// restart only once it is committed.
pub trait Keeper: Base + Send + 'static {
    /// The pairs of a scope that was dropped are never read again: they are to go, behind, part by part.
    fn forget(&mut self, prefix: &[u8]) -> Result<(), Fault>;
    /// Makes everything since the last commit durable and visible, with the state beside it. All or nothing.
    fn commit(&mut self, meta: &Meta) -> Result<(), Fault>;
    /// After a fault: takes back what is not committed, and answers the state as it was, if the store can go on from there.
    /// `None`: it cannot.
    fn take_back(&mut self) -> Option<Meta>;
    /// Frees a bounded part of what is no longer needed: whether there is more.
    fn reclaim(&mut self) -> Result<bool, Fault>;
    /// Whether views that are open keep so much from being freed that they are to be ended.
    fn is_held_up(&mut self) -> bool {
        false
    }
}

/// Opens views beside the keeper.
pub trait Reader: Send + Sync + 'static {
    /// All pairs as of the last commit, and its revision.
    ///
    /// Errors: why none can be opened now; damage if none ever will.
    fn newest(&self) -> Result<(u64, Box<dyn Pairs>), Fault>;
}

/// All pairs as of one revision.
pub trait Pairs: Send + Sync {
    /// The stored value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;
    /// Up to `limit` pairs with `start <= key < end`, in order (`end` `None`: to the last key).
    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault>;
}

/// What the writer and all readers of a local store share.
pub struct Local {
    /// `None`: the store is closed.
    reader: Mutex<Option<Arc<dyn Reader>>>,
    clock: Arc<dyn Clock>,
    /// Told from all other openings: transactions end with the one in which they began.
    opening: u64,
    /// Log time when the store was opened, and the monotonic time then.
    opened: (u64, Duration),
    state: Mutex<State>,
    /// When the next record is due, in log time; `u64::MAX`: none is.
    due_ms: AtomicU64,
    queue: Queue,
    pages: PagedViews<View>,
    open: Arc<OpenSnapshots>,
    broken: Arc<OnceLock<Fault>>,
}

/// The snapshots that are open, by their revisions: beside one another view of its revision can always be opened.
type OpenSnapshots = Mutex<BTreeMap<u64, Vec<Weak<Snapshot>>>>;

impl Local {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Log time now.
    fn now_ms(&self) -> u64 {
        let (log_time_ms, at) = self.opened;
        let passed = self.clock.monotonic().saturating_sub(at).as_millis();
        log_time_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn is_due(&self) -> bool {
        self.due_ms.load(Ordering::Acquire) <= self.now_ms()
    }

    fn check(&self) -> Result<()> {
        match self.broken.get() {
            Some(fault) => Err(stopped(fault)),
            None if self.queue.is_closed() => Err(closed()),
            None => Ok(()),
        }
    }

    /// A view of the newest revision, or of one that a view is open of.
    fn view(&self, named: Option<u64>) -> Result<View> {
        self.check()?;
        if let Some((revision, open)) = named.and_then(|revision| Some((revision, self.open_at(revision)?))) {
            return Ok(View::new(revision, Box::new(open)));
        }
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (newest, pairs) = reader.ok_or_else(closed)?.newest().map_err(|fault| self.unopened(fault))?;
        match named {
            Some(revision) if revision > newest => Err(ahead(revision, newest)),
            Some(revision) if revision < newest => Err(Error::ViewTooOld { revision, oldest: newest }),
            _ => {
                let (open, broken) = (Arc::clone(&self.open), Arc::clone(&self.broken));
                let snapshot = Arc::new(Snapshot { pairs: Mutex::new(Some(pairs)), revision: newest, open, broken });
                lock(&self.open).entry(newest).or_default().push(Arc::downgrade(&snapshot));
                Ok(View::new(newest, Box::new(snapshot)))
            }
        }
    }

    /// What a reader is told for whom no view could be opened. Damage ends the store; that there are too many views, or files,
    /// passes.
    fn unopened(&self, fault: Fault) -> Error {
        match fault.is_damage() {
            true => broke(&self.broken, fault),
            false => Error::ResourceExhausted { reason: fault.to_string(), retry_after_ms: RETRY_AFTER_MS },
        }
    }

    /// Ends all views but those of the newest revision: what they read is kept no longer.
    fn end_views(&self, newest: u64) {
        self.pages.clear();
        let open: Vec<Arc<Snapshot>> =
            lock(&self.open).range(..newest).flat_map(|(_, all)| all).filter_map(Weak::upgrade).collect();
        for snapshot in open {
            snapshot.pairs().take();
        }
    }

    fn open_at(&self, revision: u64) -> Option<Arc<Snapshot>> {
        let open: Vec<Arc<Snapshot>> = lock(&self.open).get(&revision)?.iter().filter_map(Weak::upgrade).collect();
        open.into_iter().find(|snapshot| snapshot.pairs().is_some())
    }

    /// Proposes, and waits for the outcome.
    async fn submit(&self, proposal: Proposal, deadline: Instant) -> Result<Outcome> {
        self.check()?;
        let budget = deadline.saturating_duration_since(Instant::now());
        let answer = self.queue.push(proposal)?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Unknown("the store stopped before it answered".into())),
            Err(_) => Err(Error::DeadlineExceeded {
                deadline_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
                waiting_for: "the write to be on disk".into(),
                may_have_applied: true,
            }),
        }
    }
}

/// Takes note of a fault, and answers what a caller is told.
fn broke(broken: &OnceLock<Fault>, fault: Fault) -> Error {
    let fault = broken.get_or_init(|| {
        tracing::error!(%fault, "the store stops");
        fault
    });
    stopped(fault)
}

fn stopped(fault: &Fault) -> Error {
    Error::Unavailable { reason: format!("the store has stopped: {fault}"), leader: None }
}

fn closed() -> Error {
    Error::Unavailable { reason: "the store is closed".into(), leader: None }
}

fn ahead(revision: u64, newest: u64) -> Error {
    let reason = format!("this store is at revision {newest}, and has not come to {revision}");
    Error::Unavailable { reason, leader: None }
}

fn lock(open: &OpenSnapshots) -> MutexGuard<'_, BTreeMap<u64, Vec<Weak<Snapshot>>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pairs as layers read them.
struct Snapshot {
    /// `None`: it was ended.
    pairs: Mutex<Option<Box<dyn Pairs>>>,
    revision: u64,
    open: Arc<OpenSnapshots>,
    broken: Arc<OnceLock<Fault>>,
}

impl Snapshot {
    fn pairs(&self) -> MutexGuard<'_, Option<Box<dyn Pairs>>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&dyn Pairs) -> Result<T, Fault>) -> Result<T> {
        match self.pairs().as_deref() {
            Some(pairs) => read(pairs).map_err(|fault| broke(&self.broken, fault)),
            None => Err(Error::ViewTooOld { revision: self.revision, oldest: self.revision + 1 }),
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(others) = open.get_mut(&self.revision) {
            others.retain(|other| other.strong_count() > 0);
            if others.is_empty() {
                open.remove(&self.revision);
            }
        }
    }
}

impl Source for Arc<Snapshot> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.read(|pairs| pairs.get(key))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.read(|pairs| pairs.range(start, end, limit))
    }

    fn fault(&self, fault: Fault) -> Error {
        broke(&self.broken, fault)
    }
}

impl Core for Local {
    fn at_hand(&self) -> Result<View> {
        self.view(None)
    }

    async fn read(&self, mode: ReadMode, revision: Option<u64>, deadline: Instant) -> Result<(View, ReadStamp)> {
        // What is due may be more than goes at once.
        while self.is_due() {
            let (principal, action) = (OWN.into(), Action::Tick);
            self.submit(Proposal { principal, call: None, guards: Guards::default(), action }, deadline).await?;
        }
        let view = self.view(revision)?;
        match mode {
            ReadMode::AtLeast(least) if view.revision() < least && revision.is_none() => {
                Err(ahead(least, view.revision()))
            }
            // What was acknowledged is all there is, so everything read is fresh.
            _ => {
                let stamp = ReadStamp { revision: view.revision(), age_ms: 0 };
                Ok((view, stamp))
            }
        }
    }

    async fn propose(&self, request: Request, deadline: Instant) -> Result<Outcome> {
        let Request { principal, attempt, guards, transaction } = request;
        check_size(&transaction)?;
        // There are no permissions here whose revision the guards would have to name.
        let action = Action::Transact(transaction);
        self.submit(Proposal { principal, call: attempt.map(Call::from), guards, action }, deadline).await
    }

    async fn refuse(&self, principal: String, attempt: Attempt, reason: String, deadline: Instant) -> Result<Outcome> {
        let action = Action::Refuse { reason };
        let (call, guards) = (Some(attempt.into()), Guards::default());
        self.submit(Proposal { principal, call, guards, action }, deadline).await
    }

    fn accounts(&self, wanted: &[ScopeId]) -> (u64, Vec<Option<Account>>) {
        let state = self.state();
        let account = |scope| state.meta().scopes.get(scope).map(|scope| scope.account);
        (state.meta().revision, wanted.iter().map(account).collect())
    }

    /// There is no other.
    fn knows_leader(&self) -> bool {
        self.check().is_ok()
    }

    /// This program alone reads what it writes; what a newer one has written in a place is that place's to refuse.
    async fn require(&self, _level: u32, _deadline: Instant) -> Result<()> {
        Ok(())
    }

    fn keep_for_pages(&self, view: &View) {
        self.pages.keep(view.revision(), view.clone());
        // Nothing is kept of a store that is closed, also if it was a moment ago.
        if self.check().is_err() {
            self.pages.clear();
        }
    }
}

impl Home for Local {
    fn id(&self) -> u64 {
        1
    }

    fn leads(&self) -> Option<u64> {
        self.check().is_ok().then_some(self.opening)
    }

    fn id_parts(&self) -> (u64, u128) {
        (self.clock.wall_ms(), self.clock.random())
    }

    fn scopes(&self, wanted: &[ScopeId]) -> (u32, Vec<Option<Scope>>) {
        let state = self.state();
        let meta = state.meta();
        (meta.last_scope, wanted.iter().map(|scope| meta.scopes.get(scope).copied()).collect())
    }
}
