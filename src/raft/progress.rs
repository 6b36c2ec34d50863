//! How far the state is, and who is told.

use tokio::sync::watch;

use crate::{
    model::{Position, ScopeId, keyspace},
    state::Meta,
};

/// How far the state is. Published after every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last entry applied.
    pub position: Position,
    /// The revision that readers may open.
    pub revision: u64,
    /// Log time, in milliseconds.
    pub log_time_ms: u64,
    /// When the next record is due, in milliseconds of log time.
    pub next_expiry_ms: Option<u64>,
    /// The revision of the last change of permissions.
    pub security_revision: u64,
}

/// Those who wait for the state to get somewhere.
pub(super) struct Told {
    progress: watch::Sender<Progress>,
    /// The revision of the last change of locks and their queues: those who wait for a lock are woken by changes of locks only,
    /// however busy the store is.
    locks: watch::Sender<u64>,
}

impl Told {
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress: watch::Sender::new(progress), locks: watch::Sender::new(0) }
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(super) fn locks(&self) -> watch::Receiver<u64> {
        self.locks.subscribe()
    }

    /// Tells everybody how far the state is.
    pub(super) fn tell(&self, progress: Progress, meta: &Meta) {
        self.progress.send_replace(progress);
        let scope = meta.scopes.get(&ScopeId::new(keyspace::LOCKS, keyspace::NO_SCOPE));
        let revision = scope.map_or(0, |scope| scope.account.last_revision);
        self.locks.send_if_modified(|last| std::mem::replace(last, revision) != revision);
    }
}
