//! What watchers read: the changes that this node has applied of late.
//!
//! The [`Hub`] stands where the state machine tells what it has applied, under its lock. There it only puts what came into a
//! [`ring`] and remembers which scopes were touched; waking is done by a task of its own, once for all that has come meanwhile,
//! and only for those who watch a scope that was touched. So what applying costs does not depend on who watches.
//!
//! A [`Watcher`] reads the ring from its own position, one group at a time, and keeps nothing that nobody has taken. One that
//! is too slow finds that the ring has gone on, and is told so. The ring fills again after a start, by the replay of what
//! the log holds behind the newest run; an installed snapshot empties it.

mod ring;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use tokio::sync::Notify;

use self::ring::Ring;
pub use self::ring::{Group, Look};
use super::{Node, read::Blind};
use crate::{
    error::{Error, Result},
    limits,
    model::{Position, ScopeId},
    raft::state_machine::Observer,
    state::{Commit, Meta, View},
};

/// When a watcher that found no place should come again, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// See the module's text.
pub struct Hub {
    kept: Mutex<Kept>,
    /// Who is woken by what: scope and watcher.
    waiting: Mutex<BTreeMap<(ScopeId, u64), Arc<Notify>>>,
    /// There is somebody to be woken, perhaps.
    touched: Notify,
    watchers: AtomicUsize,
    next: AtomicU64,
    closed: AtomicBool,
    told: AtomicU64,
    overtaken: AtomicU64,
    /// Sees all that the hub sees.
    beside: Option<Arc<dyn Observer>>,
}

struct Kept {
    ring: Ring,
    /// Whose watchers are to be woken.
    touched: BTreeSet<ScopeId>,
}

/// Numbers of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Watches that are served.
    pub watchers: u64,
    /// Bytes of the changes that are kept for them.
    pub ring_bytes: u64,
    /// The oldest revision behind which all changes are kept.
    pub oldest_revision: u64,
    /// Changes that were sent.
    pub told: u64,
    /// Watches that were told that they are no longer covered.
    pub overtaken: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Nothing is known yet; so many bytes of changes are kept.
    pub(super) fn new(bytes: usize, beside: Option<Arc<dyn Observer>>) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(Kept { ring: Ring::new(bytes), touched: BTreeSet::new() }),
            waiting: Mutex::default(),
            touched: Notify::new(),
            watchers: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            told: AtomicU64::new(0),
            overtaken: AtomicU64::new(0),
            beside,
        })
    }

    /// Wakes watchers for as long as the node lives.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.touched.notified().await;
            let touched = std::mem::take(&mut lock(&self.kept).touched);
            let waiting = lock(&self.waiting);
            for scope in touched {
                for (_, wake) in waiting.range((scope, 0)..=(scope, u64::MAX)) {
                    wake.notify_one();
                }
            }
        }
    }

    /// Ends all watches, and takes no more: the node stops.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
        for wake in lock(&self.waiting).values() {
            wake.notify_one();
        }
    }

    /// A new watcher, which sees nothing before it [`follow`](Watcher::follow)s something.
    ///
    /// Errors: `ResourceExhausted`; `Unavailable` if the node is stopping.
    pub fn watcher(self: &Arc<Self>) -> Result<Watcher> {
        let place = self.watchers.fetch_add(1, SeqCst);
        // From here on, so that its place is given back whatever comes.
        let id = self.next.fetch_add(1, Relaxed);
        let watcher = Watcher { hub: Arc::clone(self), id, scopes: Vec::new(), wake: Arc::default() };
        if place >= limits::WATCHES {
            let reason = format!("this node serves {} watches, as many as it may", limits::WATCHES);
            return Err(Error::ResourceExhausted { reason, retry_after_ms: RETRY_AFTER_MS });
        }
        watcher.check_open().map(|()| watcher)
    }

    fn counts(&self) -> WatchCounts {
        let kept = lock(&self.kept);
        WatchCounts {
            watchers: self.watchers.load(Relaxed) as u64,
            ring_bytes: kept.ring.bytes() as u64,
            oldest_revision: kept.ring.oldest_of_all(),
            told: self.told.load(Relaxed),
            overtaken: self.overtaken.load(Relaxed),
        }
    }
}

impl Observer for Hub {
    fn committed(&self, position: Position, commits: &[Commit]) {
        if let Some(beside) = &self.beside {
            beside.committed(position, commits);
        }
    }

    fn applied(&self, revision: u64, commits: Vec<Commit>) {
        let group = Group::of(commits);
        let mut kept = lock(&self.kept);
        // A watcher counts before it looks: who does not see this group by itself is counted here.
        if let Some(group) = group.as_ref().filter(|_| self.watchers.load(SeqCst) > 0) {
            kept.touched.extend(group.scopes());
            self.touched.notify_one();
        }
        kept.ring.push(revision, group);
    }

    fn skipped(&self, meta: &Meta) {
        let changed = meta.scopes.iter().map(|(id, scope)| (*id, scope.account.last_revision));
        lock(&self.kept).ring.forget(meta.revision, changed);
        for wake in lock(&self.waiting).values() {
            wake.notify_one();
        }
    }

    fn leads(&self, term: u64) {
        if let Some(beside) = &self.beside {
            beside.leads(term);
        }
    }

    fn loses_a_record(&self, position: Position) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.loses_a_record(position))
    }
}

/// One watcher's place.
pub struct Watcher {
    hub: Arc<Hub>,
    id: u64,
    scopes: Vec<ScopeId>,
    wake: Arc<Notify>,
}

impl Watcher {
    /// Of which scopes it sees changes from now on.
    pub fn follow(&mut self, scopes: Vec<ScopeId>) {
        if self.scopes == scopes {
            return;
        }
        let mut waiting = lock(&self.hub.waiting);
        for scope in &self.scopes {
            waiting.remove(&(*scope, self.id));
        }
        for scope in &scopes {
            waiting.insert((*scope, self.id), Arc::clone(&self.wake));
        }
        drop(waiting);
        self.scopes = scopes;
    }

    /// What lies behind a revision.
    ///
    /// Errors: `NoLongerCovered` if not all of it is kept.
    pub fn look(&self, after: u64) -> Result<Look> {
        let kept = lock(&self.hub.kept);
        kept.ring.look(after, &self.scopes).ok_or_else(|| {
            self.hub.overtaken.fetch_add(1, Relaxed);
            Error::NoLongerCovered { revision: after, oldest: kept.ring.oldest(&self.scopes) }
        })
    }

    /// Waits until there may be something new.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// So many changes were sent.
    pub fn told(&self, changes: usize) {
        self.hub.told.fetch_add(changes as u64, Relaxed);
    }

    /// That watches are served. Errors: `Unavailable`.
    pub fn check_open(&self) -> Result<()> {
        match self.hub.closed.load(SeqCst) {
            true => Err(Error::Unavailable { reason: "the node is stopping".into(), leader: None }),
            false => Ok(()),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.follow(Vec::new());
        self.hub.watchers.fetch_sub(1, SeqCst);
    }
}

impl Node {
    /// The changes that this node has applied of late, for watchers.
    pub fn watches(&self) -> &Arc<Hub> {
        &self.shared.watches
    }

    /// A view of this revision, for as long as it is open and storage can keep it.
    ///
    /// Errors: `ViewTooOld`; `Unavailable` if the node is stopping, or its state is known to be wrong.
    pub fn view_of(&self, revision: u64) -> Result<View> {
        self.shared.check_state()?;
        self.view(Some(revision), None)
    }

    /// A view of nothing, through which a layer reports what is broken in what it has from elsewhere.
    pub fn blind(&self) -> View {
        View::new(0, Box::new(Blind(self.shared.faults.clone())))
    }

    /// That the state here is not known to be wrong. Errors: `Unavailable`.
    pub fn check_state(&self) -> Result<()> {
        self.shared.check_state()
    }

    /// The revision of the newest state here.
    pub fn revision(&self) -> u64 {
        self.shared.machine.progress().borrow().revision
    }

    /// How watchers are served.
    pub fn watch_counts(&self) -> WatchCounts {
        self.shared.watches.counts()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Duration;

    use super::*;
    use crate::{
        model::{Record, keyspace},
        state::{
            Change,
            scope::{Account, Scope},
        },
    };

    const SCOPE: ScopeId = ScopeId::new(keyspace::STATE, 0);
    const OTHER: ScopeId = ScopeId::new(keyspace::VALUES, 1_024);

    fn commit(revision: u64, scope: ScopeId) -> Vec<Commit> {
        let record = Record {
            value: Bytes::new(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            created_at_ms: 0,
            updated_at_ms: 0,
            expires_at_ms: None,
            entries: vec![],
            references: vec![],
        };
        vec![Commit { revision, changes: vec![Change::Record { key: scope.key(b"k"), old: None, new: Some(record) }] }]
    }

    async fn is_woken(watcher: &Watcher) -> bool {
        tokio::time::timeout(Duration::from_millis(1), watcher.woken()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_follows_a_scope_is_woken_by_it() {
        let hub = Hub::new(1 << 20, None);
        let running = tokio::spawn(Arc::clone(&hub).run());
        let (mut one, mut other) = (hub.watcher().unwrap(), hub.watcher().unwrap());
        one.follow(vec![SCOPE]);
        other.follow(vec![OTHER]);
        hub.applied(1, commit(1, SCOPE));
        assert!(is_woken(&one).await && !is_woken(&other).await);
        other.follow(vec![OTHER, SCOPE]);
        hub.applied(2, commit(2, SCOPE));
        assert!(is_woken(&one).await && is_woken(&other).await);
        other.follow(vec![]);
        hub.applied(3, commit(3, OTHER));
        assert!(!is_woken(&one).await && !is_woken(&other).await);
        assert_eq!(hub.counts().watchers, 2);
        drop((one, other));
        assert_eq!(hub.counts().watchers, 0);
        assert!(lock(&hub.waiting).is_empty());
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_said_and_so_is_the_end() {
        let hub = Hub::new(1 << 20, None);
        let mut watcher = hub.watcher().unwrap();
        watcher.follow(vec![SCOPE]);
        let account = Account { last_revision: 7, ..Account::default() };
        let scopes = [(SCOPE, Scope { account, ..Scope::default() })].into();
        hub.skipped(&Meta { revision: 7, scopes, ..Meta::default() });
        assert!(is_woken(&watcher).await);
        assert_eq!(watcher.look(6).unwrap_err(), Error::NoLongerCovered { revision: 6, oldest: 7 });
        assert!(watcher.look(7).unwrap().newest);
        assert_eq!((hub.counts().overtaken, hub.counts().oldest_revision), (1, 7));
        hub.close();
        assert!(is_woken(&watcher).await);
        assert!(matches!(watcher.check_open(), Err(Error::Unavailable { .. })));
        assert!(matches!(hub.watcher(), Err(Error::Unavailable { .. })));
    }

    #[test]
    fn so_many_watchers_find_a_place() {
        let hub = Hub::new(1 << 20, None);
        let mut watchers: Vec<Watcher> = (0..limits::WATCHES).map(|_| hub.watcher().unwrap()).collect();
        assert!(matches!(hub.watcher(), Err(Error::ResourceExhausted { .. })));
        watchers.pop();
        assert!(hub.watcher().is_ok());
    }
}
