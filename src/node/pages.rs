//! Revisions whose next page somebody may ask for soon.
//!
//! A page cursor pins nothing itself: whoever holds one may never come back. But under load a revision is merged
//! away within seconds, and a list of many pages would never come to its end. So a node keeps a view of a
//! revision open for a short time after each page that has a next one; storage bounds what that may cost.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a revision is kept after its last page.
const KEPT: Duration = Duration::from_secs(10);
/// Most revisions that are kept.
const REVISIONS: usize = 64;

/// The views that are kept for pages, by revision.
pub struct PagedViews<V>(Mutex<BTreeMap<u64, (Instant, V)>>);

impl<V> Default for PagedViews<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> PagedViews<V> {
    /// Keeps a view of a revision.
    pub fn keep(&self, revision: u64, view: V) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(revision, (Instant::now() + KEPT, view));
        if kept.len() > REVISIONS {
            let first_to_go = kept.iter().min_by_key(|(_, (until, _))| *until).map(|(revision, _)| *revision);
            first_to_go.and_then(|revision| kept.remove(&revision));
        }
    }

    /// Lets go of what has been kept long enough.
    pub fn expire(&self) {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (until, _)| *until > now);
    }

    /// Lets go of all.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::sync::watch;

    use super::*;
    use crate::{
        environment::Environment,
        model::Position,
        state::{Meta, audit::Accounts},
        storage::{self, Checkpoint, EngineKind, Store},
    };

    /// A store whose runs are on disk, in a directory that lives as long as it.
    fn open(home: &std::path::Path) -> Store {
        let environment = Environment::real();
        let options = storage::Options { engine: EngineKind::Memory, ..storage::Options::new(home, 1) };
        let durable = watch::Sender::new(u64::MAX).subscribe();
        let (store, workers) = Store::open(&environment, options, Arc::new(Accounts), durable).unwrap();
        for (name, worker, signal) in workers {
            drop(environment.executor.start(name, worker, signal));
        }
        store
    }

    /// Writes a revision and has it merged, so that no older one can be opened any more.
    async fn merge(store: &Store, revision: u64) {
        store.write(revision, vec![(Bytes::from_static(b"key"), Some(revision.to_string().into()))]);
        let meta = Meta::default();
        store.freeze(Checkpoint {
            position: Position { index: revision, ..Position::default() },
            revision,
            membership: Bytes::new(),
            meta: meta.encode(),
            state_hash: meta.state_hash(),
            apply_version: meta.apply_version,
        });
        // The workers are threads of their own, and tell nobody that a merge has begun.
        while store.status().oldest_revision < revision {
            std::thread::yield_now();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_revision_stays_readable_for_a_while_after_its_last_page() {
        let home = tempfile::tempdir().unwrap();
        let (store, pages) = (open(home.path()), PagedViews::default());
        let keep = |revision| pages.keep(revision, store.view(revision).unwrap());
        merge(&store, 1).await;
        let page = store.view(1).unwrap();
        keep(page.revision());
        drop(page);
        merge(&store, 2).await;
        tokio::time::advance(KEPT / 2).await;
        pages.expire();
        let next = store.view(1).unwrap();
        assert_eq!(next.get(b"key").unwrap().unwrap(), "1");
        keep(1);
        drop(next);
        tokio::time::advance(KEPT - Duration::from_millis(1)).await;
        pages.expire();
        assert!(store.view(1).is_ok(), "the second page began the time anew");
        tokio::time::advance(Duration::from_millis(1)).await;
        pages.expire();
        assert!(store.view(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_revisions_are_kept_and_no_more() {
        let home = tempfile::tempdir().unwrap();
        let (store, pages) = (open(home.path()), PagedViews::default());
        let keep = |revision| pages.keep(revision, store.view(revision).unwrap());
        let last = REVISIONS as u64 + 1;
        for revision in 1..=last {
            store.write(revision, vec![(Bytes::from_static(b"key"), Some(revision.to_string().into()))]);
            keep(revision);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        merge(&store, last + 1).await;
        assert!(store.view(1).is_err(), "the one that was kept first made room");
        assert!((2..=last).all(|revision| store.view(revision).is_ok()));
        pages.clear();
        assert!((1..=last).all(|revision| store.view(revision).is_err()));
    }
}
