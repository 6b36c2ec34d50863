//! Transactions that the leader keeps open between the calls of a client.
//!
//! Whoever begins one gets a name, and gives it with each call that belongs to it. What the transaction sees, has written and
//! relies on is in `layers::transaction`; here it is kept, for so long, for whom it was begun, and ended.
//!
//! **It lives and dies with its leader.** Nothing of it is in the log before it is committed, so nothing is to be recovered.
//! Its name says who kept it and in which term, so the next leader knows a name that is not its own as lost, and says so.
//! Whether something of it was written is known then as well: only a commit writes, and a commit is a call of the client's
//! session. One that is repeated gets from the state what the first attempt did, whoever leads; if that did nothing the call
//! is closed in the log, so that it never will ([`end`]).
//!
//! **One call at a time**: calls of one transaction wait for each other, in the order in which they came.
//!
//! **Bounds**: how many are open, how many of one principal, how many bytes wait in all of them, and how long each may
//! stay. What became of one that has ended is remembered for the next so many, so that a client which comes late is told.

mod end;
mod id;
mod inside;
mod place;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use self::id::{Id, invalid};
pub use self::{inside::Inside, place::Place};
use super::Core;
use crate::{
    Error, Result,
    layers::{lock as fences, transaction::Transaction},
    limits,
    model::{
        ReadMode, ScopeId, features,
        isolation::{Begun, Isolation},
        lease::Fence,
    },
    node::Node,
    state::{View, scope::Scope},
};

/// How many that have ended are remembered.
const REMEMBERED: usize = 10_000;
/// How often those are looked for whose time is over.
const SWEEP: Duration = Duration::from_secs(1);
/// When a caller should come again that found no room, in milliseconds.
const RETRY_AFTER_MS: u64 = 200;

/// What keeping transactions takes of a store, beside what calls take.
pub trait Home: Core {
    /// This node's id.
    fn id(&self) -> u64;
    /// The term in which this node leads, if it does.
    fn leads(&self) -> Option<u64>;
    /// Milliseconds since 1970, and chance.
    fn id_parts(&self) -> (u64, u128);
    /// The greatest number that a scope was given, and what the newest state at hand has of some.
    fn scopes(&self, wanted: &[ScopeId]) -> (u32, Vec<Option<Scope>>);
}

impl Home for Node {
    fn id(&self) -> u64 {
        Self::id(self)
    }

    fn leads(&self) -> Option<u64> {
        Self::leads(self)
    }

    fn id_parts(&self) -> (u64, u128) {
        Self::id_parts(self)
    }

    fn scopes(&self, wanted: &[ScopeId]) -> (u32, Vec<Option<Scope>>) {
        Self::scopes(self, wanted)
    }
}

/// The transactions that a node keeps. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Transactions {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    kept: Mutex<Kept>,
    /// Bytes of what waits in all of them.
    bytes: AtomicUsize,
    /// Whether somebody ends those whose time is over.
    swept: AtomicBool,
}

#[derive(Default)]
struct Kept {
    open: BTreeMap<Id, Arc<Slot>>,
    /// Those that have ended: whose they were, and how.
    ended: BTreeMap<Id, (String, Ending)>,
    order: VecDeque<Id>,
}

/// How a transaction has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// Its writes are there, as of a revision. `proposed`: there were any.
    Committed { revision: u64, proposed: bool },
    /// It was rolled back.
    RolledBack,
    /// Nothing of it was written, for this reason.
    Aborted(String),
    /// Its commit was sent, as this call of a session, and its time was over before anybody asked what became of it.
    Unknown(Option<(u64, u64)>),
}

/// A transaction with what is known of it.
struct Slot {
    id: Id,
    principal: String,
    deadline: Instant,
    timeout: Duration,
    /// What a serializable one reads, which it keeps readable.
    ground: Option<Arc<View>>,
    /// What its writes depend on beside it.
    fences: Mutex<Vec<Fence>>,
    /// Held by the call that is in it.
    turn: Arc<tokio::sync::Mutex<()>>,
    transaction: Mutex<Transaction>,
    phase: Mutex<Phase>,
    /// What counts the bytes of all, and how many of them are this one's.
    shared: Weak<Shared>,
    counted: AtomicUsize,
}

/// How far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Its commit was proposed, as this call of a session, and what became of it is not known here.
    Doubtful(Option<(u64, u64)>),
    Ended,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, and none leaves half a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What it sees of others.
    pub isolation: Isolation,
    /// How long it stays open, in milliseconds; 0: the default.
    pub timeout_ms: u64,
}

/// What is found under a name.
enum Found {
    Open(Arc<Slot>),
    Ended(Ending),
    /// Another leader kept it.
    Lost,
    /// Nobody knows it, or it is another's.
    Unknown,
}

impl Transactions {
    /// Begins a transaction.
    ///
    /// Errors: `InvalidArgument` for a time that is too long; `ResourceExhausted` if too many are open; `Unavailable` if this
    /// node does not lead; those of a read.
    pub async fn begin<H: Home>(
        &self,
        home: &H,
        principal: &str,
        Options { isolation, timeout_ms }: Options,
        deadline: Instant,
    ) -> Result<Begun> {
        let timeout_ms = if timeout_ms == 0 { limits::TRANSACTION_TIMEOUT_DEFAULT_MS } else { timeout_ms };
        if timeout_ms > limits::TRANSACTION_TIMEOUT_MAX_MS {
            let rule = format!("must be at most {}", limits::TRANSACTION_TIMEOUT_MAX_MS);
            return Err(Error::invalid("timeout_ms", timeout_ms.to_string(), rule));
        }
        home.require(features::TRANSACTIONS, deadline).await?;
        // So that it sees everything that was acknowledged before. The view of it has a deadline, and this one has not.
        home.read(ReadMode::Linearizable, None, deadline).await?;
        let ground = home.at_hand()?;
        let (revision, timeout) = (ground.revision(), Duration::from_millis(timeout_ms));
        let id = Id { node: home.id(), term: home.leads().ok_or_else(not_leading)?, number: home.id_parts().1 };
        let slot = Slot {
            id,
            principal: principal.to_owned(),
            deadline: Instant::now() + timeout,
            timeout,
            ground: (isolation == Isolation::Serializable).then(|| Arc::new(ground)),
            fences: Mutex::default(),
            turn: Arc::default(),
            transaction: Mutex::new(Transaction::begin(isolation, revision)),
            phase: Mutex::new(Phase::Open),
            shared: Arc::downgrade(&self.shared),
            counted: AtomicUsize::default(),
        };
        self.sweep(home.leads());
        let mut kept = lock(&self.shared.kept);
        let of_principal = kept.open.values().filter(|slot| slot.principal == principal).count();
        if kept.open.len() >= limits::OPEN_TRANSACTIONS || of_principal >= limits::OPEN_TRANSACTIONS_PER_PRINCIPAL {
            let (all, one) = (limits::OPEN_TRANSACTIONS, limits::OPEN_TRANSACTIONS_PER_PRINCIPAL);
            return Err(full(format!("{one} transactions of one principal, or {all} of all, are open already")));
        }
        kept.open.insert(id, Arc::new(slot));
        if home.leads().is_none() {
            // It was closed in between.
            kept.open.remove(&id);
            return Err(not_leading());
        }
        Ok(Begun { id: id.to_string(), revision, expires_in: timeout })
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        lock(&self.shared.kept).open.len()
    }

    /// Ends those whose time is over, for as long as it is polled, also if nobody calls any more.
    pub async fn keep<H: Home>(self, home: H) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep(home.leads());
        }
    }

    /// Ends those whose time is over, while any is open and while they are kept by somebody; `None` if that is being done.
    pub fn sweeping(&self, term: Option<u64>) -> Option<impl Future<Output = ()> + Send + use<>> {
        if self.shared.swept.swap(true, Ordering::SeqCst) {
            return None;
        }
        let shared = Arc::downgrade(&self.shared);
        Some(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(shared) = shared.upgrade() else { return };
                let transactions = Self { shared };
                transactions.sweep(term);
                if transactions.open() == 0 {
                    transactions.shared.swept.store(false, Ordering::SeqCst);
                    // One may have begun meanwhile, and found that it is done.
                    if transactions.open() == 0 || transactions.shared.swept.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
            }
        })
    }

    /// Ends all, since the store is closed.
    pub fn end_all(&self) {
        let open: Vec<Arc<Slot>> = lock(&self.shared.kept).open.values().cloned().collect();
        for slot in open {
            self.end(&slot, Ending::Aborted("the store was closed; nothing of it was written".into()));
        }
    }

    /// Ends those whose time is over, and lets go of those of other terms. What is about to be committed stays as long as its
    /// call is under way.
    fn sweep(&self, term: Option<u64>) {
        let now = Instant::now();
        let slots: Vec<Arc<Slot>> = lock(&self.shared.kept).open.values().cloned().collect();
        for slot in slots {
            let lost = term.is_some_and(|term| term != slot.id.term);
            if !lost && now < slot.deadline {
                continue;
            }
            let Ok(_turn) = Arc::clone(&slot.turn).try_lock_owned() else { continue };
            if lost {
                *lock(&slot.phase) = Phase::Ended;
                lock(&self.shared.kept).open.remove(&slot.id);
            } else {
                self.time_out(&slot);
            }
        }
    }

    fn time_out(&self, slot: &Slot) {
        let phase = lock(&slot.phase).clone();
        let ending = match phase {
            Phase::Doubtful(call) => Ending::Unknown(call),
            _ => Ending::Aborted(timed_out(slot.timeout)),
        };
        self.end(slot, ending);
    }

    /// What became of one that had ended in doubt.
    fn known(&self, id: &str, ending: Ending) {
        let Ok(id) = id.parse::<Id>() else { return };
        if let Some((_, there)) = lock(&self.shared.kept).ended.get_mut(&id) {
            *there = ending;
        }
    }

    /// Ends one, and remembers how.
    fn end(&self, slot: &Slot, ending: Ending) {
        *lock(&slot.phase) = Phase::Ended;
        let mut kept = lock(&self.shared.kept);
        if kept.open.remove(&slot.id).is_some() {
            kept.ended.insert(slot.id, (slot.principal.clone(), ending));
            kept.order.push_back(slot.id);
        }
        while kept.order.len() > REMEMBERED {
            if let Some(oldest) = kept.order.pop_front() {
                kept.ended.remove(&oldest);
            }
        }
    }

    /// What is kept under a name. Errors: `InvalidArgument` for what is none; `Unavailable` if this node does not lead.
    fn find<H: Home>(&self, home: &H, id: &str, principal: &str) -> Result<Found> {
        let name: Id = id.parse()?;
        let term = home.leads().ok_or_else(not_leading)?;
        if (name.node, name.term) != (home.id(), term) {
            return Ok(Found::Lost);
        }
        let kept = lock(&self.shared.kept);
        if let Some(slot) = kept.open.get(&name).filter(|slot| slot.principal == principal) {
            return Ok(Found::Open(Arc::clone(slot)));
        }
        let ended = kept.ended.get(&name).filter(|(whose, _)| whose == principal);
        Ok(ended.map_or(Found::Unknown, |(_, ending)| Found::Ended(ending.clone())))
    }

    /// The turn of a call in a transaction. Errors: how it has ended, if it has; `DeadlineExceeded`.
    async fn turn(&self, slot: &Arc<Slot>, deadline: Instant) -> Result<tokio::sync::OwnedMutexGuard<()>> {
        let began = Instant::now();
        let turn = tokio::time::timeout_at(deadline, Arc::clone(&slot.turn).lock_owned()).await;
        let turn = turn.map_err(|_| Error::DeadlineExceeded {
            deadline_ms: u64::try_from(deadline.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX),
            waiting_for: "another call of the same transaction to end".into(),
            may_have_applied: false,
        })?;
        if *lock(&slot.phase) == Phase::Open && Instant::now() >= slot.deadline {
            self.time_out(slot);
        }
        Ok(turn)
    }

    /// Enters a transaction with a call. Others of the same transaction wait until it is dropped. What the call writes depends
    /// on its fence, if it has one, as of now and as of the commit, and not as of the revision that the transaction reads.
    ///
    /// Errors: `InvalidArgument` if there is none of this name, or it is finished; `TransactionAborted` if it ended without
    /// being committed; `DeadlineExceeded` if another call is in it; `Fenced`.
    pub async fn enter<'a, H: Home>(
        &self,
        home: &'a H,
        id: &str,
        (principal, fence, deadline): (&str, Option<&Fence>, Instant),
    ) -> Result<Inside<'a, H>> {
        if let Some(fence) = fence
            && fences::check_fence(&home.at_hand()?, fence).is_err()
        {
            fences::check_fence(&home.read(ReadMode::Linearizable, None, deadline).await?.0, fence)?;
        }
        match self.find(home, id, principal)? {
            Found::Open(slot) => {
                let turn = self.turn(&slot, deadline).await?;
                let phase = lock(&slot.phase).clone();
                match phase {
                    Phase::Open => Ok(Inside::new(home, (self.clone(), slot), fence.cloned(), turn)),
                    Phase::Doubtful(call) => Err(finished(id, &Ending::Unknown(call))),
                    Phase::Ended => Err(self.find(home, id, principal)?.error(id)),
                }
            }
            other => Err(other.error(id)),
        }
    }
}

impl Found {
    /// What a call is told of a transaction that is not open.
    fn error(&self, id: &str) -> Error {
        match self {
            Self::Ended(ending) => finished(id, ending),
            Self::Lost => lost(),
            Self::Open(_) | Self::Unknown => invalid(id, "names no open transaction of yours"),
        }
    }
}

/// What a call is told of a transaction that has ended.
fn finished(id: &str, ending: &Ending) -> Error {
    match ending {
        Ending::Committed { revision, .. } => invalid(id, &format!("has been committed, at revision {revision}")),
        Ending::RolledBack => invalid(id, "has been rolled back"),
        Ending::Aborted(why) => Error::TransactionAborted(why.clone()),
        Ending::Unknown(_) => {
            invalid(id, "is being committed, or was, and what became of it is told to who repeats the commit")
        }
    }
}

fn timed_out(timeout: Duration) -> String {
    format!("it timed out after {} ms; nothing of it was written", timeout.as_millis())
}

fn lost() -> Error {
    let text = "it was lost with its leader; nothing of it was written, unless another commit of it was sent before; begin \
                another";
    Error::TransactionAborted(text.into())
}

fn not_leading() -> Error {
    Error::Unavailable {
        reason: "this node does not lead, and only the leader keeps transactions".into(),
        leader: None,
    }
}

fn full(reason: String) -> Error {
    Error::ResourceExhausted { reason, retry_after_ms: RETRY_AFTER_MS }
}

impl Slot {
    /// Counts the bytes of the transaction as they are now.
    fn count(&self, bytes: usize) {
        let before = self.counted.swap(bytes, Ordering::Relaxed);
        if let Some(shared) = self.shared.upgrade() {
            shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            shared.bytes.fetch_sub(before, Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.count(0);
    }
}
