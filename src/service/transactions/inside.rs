//! A call inside a transaction. To the layers above it is a store like any other: what they read shows the transaction, and
//! what they propose waits in it.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use bytes::Bytes;
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::{Ending, Home, Slot, Transactions, full, lock};
use crate::{
    Error, Result,
    error::Fault,
    layers::{
        lock as rules,
        transaction::{Transaction, bytes_of},
    },
    limits,
    model::{Outcome, ReadMode, ReadStamp, Refusal, ScopeId, lease::Fence, session::Attempt, transaction as core},
    node::Request,
    service::Core,
    state::{
        View,
        pending::Ground,
        scope::{Account, Scope},
        shown::Noted,
        view::Source,
    },
};

/// A call inside a transaction.
pub struct Inside<'a, H: Home> {
    home: &'a H,
    transactions: Transactions,
    slot: Arc<Slot>,
    /// What the call's writes depend on beside the transaction.
    fence: Option<Fence>,
    /// What was looked at since the last write.
    noted: std::sync::Mutex<Vec<Noted>>,
    /// Why what it reads could not be read on, which ends the transaction.
    unreadable: Arc<OnceLock<String>>,
    _turn: OwnedMutexGuard<()>,
}

impl<'a, H: Home> Inside<'a, H> {
    pub(super) fn new(
        home: &'a H,
        (transactions, slot): (Transactions, Arc<Slot>),
        fence: Option<Fence>,
        turn: OwnedMutexGuard<()>,
    ) -> Self {
        let (noted, unreadable) = (std::sync::Mutex::default(), Arc::default());
        Self { home, transactions, slot, fence, noted, unreadable, _turn: turn }
    }

    /// The revision that all its reads show; `None` if each shows the newest.
    pub fn revision(&self) -> Option<u64> {
        let transaction = lock(&self.slot.transaction);
        transaction.is_serializable().then(|| transaction.revision())
    }

    /// What the next call reads, if it needs nothing newer than what is at hand.
    fn ground(&self) -> Result<Arc<View>> {
        match &self.slot.ground {
            Some(kept) => Ok(Arc::clone(kept)),
            None => Ok(Arc::new(self.home.at_hand()?)),
        }
    }

    /// The view of a call, over a ground.
    fn show(&self, ground: Arc<View>) -> Result<View> {
        let mut transaction = lock(&self.slot.transaction);
        self.lay_over(&mut transaction, &ground)?;
        let left = limits::OPEN_TRANSACTIONS_BYTES.saturating_sub(self.waiting());
        let (view, noted) = transaction.show(self.readable(ground), left);
        lock(&self.noted).extend(noted);
        Ok(view)
    }

    /// What it reads: that the revision of a serializable one is kept no longer is the end of it.
    fn readable(&self, ground: Arc<View>) -> Arc<dyn Source> {
        match &self.slot.ground {
            Some(_) => Arc::new(Readable { ground, unreadable: Arc::clone(&self.unreadable) }),
            None => ground,
        }
    }

    /// Bytes that wait in all transactions.
    fn waiting(&self) -> usize {
        self.transactions.shared.bytes.load(Ordering::Relaxed)
    }

    fn lay_over(&self, transaction: &mut Transaction, ground: &Arc<View>) -> Result<()> {
        let laid = self.over(ground, |over| transaction.lay_over(over, ground.revision()));
        self.ended_by(laid)
    }

    /// What the transaction is laid over.
    fn over<T>(&self, ground: &Arc<View>, with: impl FnOnce(&Ground<'_>) -> T) -> T {
        let scopes = |wanted: &[ScopeId]| self.home.scopes(wanted);
        with(&Ground { source: ground.as_ref() as &dyn Source, scopes: &scopes, wall_ms: self.home.id_parts().0 })
    }

    /// What the call is told; if that ends the transaction, it is ended.
    fn ended_by<T>(&self, answer: Result<T>) -> Result<T> {
        match answer {
            Err(Error::TransactionAborted(why)) => Err(self.abort(why)),
            Err(Error::ViewTooOld { revision, .. }) if self.slot.ground.is_some() => Err(self.abort(too_old(revision))),
            answer => answer,
        }
    }

    fn abort(&self, why: String) -> Error {
        let why = format!("{why}; nothing of it was written");
        self.transactions.end(&self.slot, Ending::Aborted(why.clone()));
        Error::TransactionAborted(why)
    }

    fn take(&self, request: &Request) -> Result<Outcome> {
        let Request { attempt, guards, transaction: wanted, .. } = request;
        let mut transaction = lock(&self.slot.transaction);
        if let Some(outcome) = transaction.answered(*attempt) {
            return Ok(outcome);
        }
        let ground = self.ground()?;
        self.lay_over(&mut transaction, &ground)?;
        self.check_room(wanted)?;
        let taken = self.over(&ground, |over| {
            let outcome = transaction.take(over, (&guards.compares, wanted), *attempt)?;
            self.rely_on_fence(&mut transaction)?;
            Ok(outcome)
        });
        let outcome = self.ended_by(taken)?;
        self.slot.count(transaction.held_bytes());
        // What a write was decided on is guarded by itself; what else the layer looked at does not count.
        lock(&self.noted).clear();
        Ok(outcome)
    }

    /// Makes the commit depend on the fence of the call.
    fn rely_on_fence(&self, transaction: &mut Transaction) -> Result<()> {
        let Some(fence) = &self.fence else { return Ok(()) };
        let mut fences = lock(&self.slot.fences);
        if fences.contains(fence) {
            return Ok(());
        }
        transaction.rely(rules::guard(fence))?;
        fences.push(fence.clone());
        Ok(())
    }

    fn check_room(&self, wanted: &core::Transaction) -> Result<()> {
        let (bytes, waiting) = (bytes_of(&wanted.then), self.waiting());
        if waiting + bytes <= limits::OPEN_TRANSACTIONS_BYTES {
            return Ok(());
        }
        Err(full(format!("{waiting} bytes wait in open transactions to be committed")))
    }
}

fn too_old(revision: u64) -> String {
    format!("it has been open for too long: revision {revision} is no longer readable")
}

/// What a serializable transaction reads. That it is kept no longer is the end of the transaction, and no matter of a list.
struct Readable {
    ground: Arc<View>,
    unreadable: Arc<OnceLock<String>>,
}

impl Readable {
    fn read<T>(&self, read: Result<T>) -> Result<T> {
        read.map_err(|error| match error {
            Error::ViewTooOld { revision, .. } => {
                let why = self.unreadable.get_or_init(|| format!("{}; nothing of it was written", too_old(revision)));
                Error::TransactionAborted(why.clone())
            }
            error => error,
        })
    }
}

impl Source for Readable {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.read(self.ground.get(key))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        self.read(self.ground.range(start, end, limit))
    }

    fn fault(&self, fault: Fault) -> Error {
        Source::fault(self.ground.as_ref(), fault)
    }

    fn check(&self) -> Result<()> {
        Source::check(self.ground.as_ref())
    }
}

impl<H: Home> Core for Inside<'_, H> {
    fn at_hand(&self) -> Result<View> {
        self.show(self.ground()?)
    }

    async fn read(&self, mode: ReadMode, revision: Option<u64>, deadline: Instant) -> Result<(View, ReadStamp)> {
        let began = self.revision();
        let fits = match (mode, began) {
            (ReadMode::Stale(_), _) => false,
            (ReadMode::AtLeast(least), Some(began)) => least <= began,
            (ReadMode::AtLeast(_) | ReadMode::Linearizable, _) => true,
        };
        if !fits {
            let rule = match began {
                Some(began) => format!("must be left out: the transaction reads revision {began}"),
                None => "must not be stale: the transaction reads what is committed".into(),
            };
            return Err(Error::invalid("read.mode", "", rule));
        }
        let (ground, stamp) = match began {
            Some(began) if revision.is_some_and(|revision| revision != began) => {
                let rule = format!("must be {began}, which the transaction reads, or left out");
                return Err(Error::invalid("read.revision", revision.unwrap_or_default().to_string(), rule));
            }
            // The view that is kept has no deadline; beside it another can always be opened.
            Some(began) => self.ended_by(self.home.read(ReadMode::AtLeast(began), Some(began), deadline).await)?,
            None => self.home.read(mode, revision, deadline).await?,
        };
        Ok((self.show(Arc::new(ground))?, stamp))
    }

    async fn propose(&self, request: Request, _deadline: Instant) -> Result<Outcome> {
        self.take(&request)
    }

    async fn refuse(
        &self,
        _principal: String,
        attempt: Attempt,
        reason: String,
        _deadline: Instant,
    ) -> Result<Outcome> {
        let mut transaction = lock(&self.slot.transaction);
        let refused = Outcome::Refused { revision: transaction.revision(), refusal: Refusal::Layer(reason) };
        Ok(transaction.answered(Some(attempt)).unwrap_or(refused))
    }

    fn accounts(&self, wanted: &[ScopeId]) -> (u64, Vec<Option<Account>>) {
        let (revision, mut accounts) = self.home.accounts(wanted);
        let transaction = lock(&self.slot.transaction);
        for (scope, account) in wanted.iter().zip(&mut accounts) {
            if let Some(Scope { account: pending, .. }) = transaction.pending().scope(*scope) {
                *account = Some(*pending);
            }
        }
        (revision, accounts)
    }

    fn accounts_are_shown(&self) -> bool {
        false
    }

    fn keep_for_pages(&self, view: &View) {
        self.home.keep_for_pages(view);
    }

    fn knows_leader(&self) -> bool {
        self.home.knows_leader()
    }

    async fn require(&self, level: u32, deadline: Instant) -> Result<()> {
        self.home.require(level, deadline).await
    }
}

impl<H: Home> Drop for Inside<'_, H> {
    fn drop(&mut self) {
        let mut transaction = lock(&self.slot.transaction);
        for noted in lock(&self.noted).drain(..) {
            transaction.note(&mut lock(&noted));
        }
        self.slot.count(transaction.held_bytes());
        drop(transaction);
        if let Some(why) = self.unreadable.get() {
            self.transactions.end(&self.slot, Ending::Aborted(why.clone()));
        }
    }
}
