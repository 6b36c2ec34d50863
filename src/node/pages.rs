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

use crate::storage::{Store, View};

/// How long a revision is kept after its last page.
const KEPT: Duration = Duration::from_secs(10);
/// Most revisions that are kept.
const REVISIONS: usize = 64;

/// The views that are kept for pages, by revision.
#[derive(Default)]
pub(super) struct PagedViews(Mutex<BTreeMap<u64, (Instant, View)>>);

impl PagedViews {
    /// Keeps a revision, of which a view must be open now.
    pub(super) fn keep(&self, store: &Store, revision: u64) {
        // If it cannot be kept the next page says so.
        let Ok(view) = store.view(revision) else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(revision, (Instant::now() + KEPT, view));
        if kept.len() > REVISIONS {
            let first_to_go = kept.iter().min_by_key(|(_, (until, _))| *until).map(|(revision, _)| *revision);
            first_to_go.and_then(|revision| kept.remove(&revision));
        }
    }

    /// Lets go of what has been kept long enough.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (until, _)| *until > now);
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
