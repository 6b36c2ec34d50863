//! What the handles, the views and the workers of one store share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{audit::Auditor, files::Files, reclaim::Reclaim, tables::Tables, views::Views};
use crate::{
    environment::{Environment, Signal},
    storage::Options,
};

/// See the module's text.
pub(super) struct Shared {
    pub(super) environment: Environment,
    pub(super) options: Options,
    pub(super) auditor: Arc<dyn Auditor>,
    pub(super) files: Files,
    /// What readers look at. Replaced by [`Shared::update`] only.
    pub(super) tables: ArcSwap<Tables>,
    updating: Mutex<()>,
    views: Mutex<Views>,
    /// The highest revision that the index holds wholly.
    pub(super) merged_revision: AtomicU64,
    /// Dropped scopes whose pairs are still in the index.
    pub(super) reclaim: Mutex<Reclaim>,
    /// A flush was asked for.
    pub(super) requested: AtomicBool,
    /// When the active memtable became active, and when it was first written to, on the monotonic clock.
    pub(super) ages: Mutex<Ages>,
    /// See [`super::Store::set_short_of_space`].
    pub(super) short_of_space: AtomicBool,
    /// Whether the runs may hold deletions that no compaction has seen.
    pub(super) deletions: AtomicBool,
    /// What the compaction that is under way has written, in bytes.
    pub(super) compacting_bytes: AtomicU64,
    pub(super) flusher: Signal,
    pub(super) merger: Signal,
    pub(super) compactor: Signal,
    pub(super) closing: AtomicBool,
    /// How many workers have ended.
    pub(super) ended: watch::Sender<usize>,
}

/// See [`Shared::ages`].
#[derive(Clone, Copy, Default)]
pub(super) struct Ages {
    pub(super) active_since: Duration,
    pub(super) written_since: Option<Duration>,
}

impl Shared {
    /// A store that begins with what `tables` and `files` hold, which is `revision`.
    pub(super) fn new(
        environment: Environment,
        options: Options,
        auditor: Arc<dyn Auditor>,
        files: Files,
        tables: Tables,
        reclaim: Reclaim,
    ) -> Self {
        let revision = files.set().checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.revision);
        let active_since = environment.clock.monotonic();
        Self {
            environment,
            options,
            auditor,
            files,
            tables: ArcSwap::from_pointee(tables),
            updating: Mutex::default(),
            views: Mutex::new(Views::new(revision)),
            merged_revision: AtomicU64::new(revision),
            reclaim: Mutex::new(reclaim),
            requested: AtomicBool::new(false),
            ages: Mutex::new(Ages { active_since, written_since: None }),
            short_of_space: AtomicBool::new(false),
            deletions: AtomicBool::new(true),
            compacting_bytes: AtomicU64::new(0),
            flusher: Signal::default(),
            merger: Signal::default(),
            compactor: Signal::default(),
            closing: AtomicBool::new(false),
            ended: watch::Sender::new(0),
        }
    }

    pub(super) fn views(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Replaces what readers look at by a changed copy; changes come one at a time.
    pub(super) fn update(&self, change: impl FnOnce(&mut Tables)) {
        let _one_at_a_time = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tables = Tables::clone(&self.tables.load());
        change(&mut tables);
        self.tables.store(Arc::new(tables));
    }

    /// Lets go of merged tables and undo tables that no view needs.
    pub(super) fn collect(&self) {
        let tables = self.tables.load();
        let views = self.views();
        // A view needs a merged table if it lies within it: its versions up to the view's revision are in
        // no index. It needs an undo table if it is older than that merge.
        let useless: Vec<_> = tables
            .frozen
            .iter()
            .filter(|frozen| {
                let from = frozen.table.lowest().unwrap_or(u64::MAX);
                frozen.is_merged() && !views.any_within(from, frozen.checkpoint.revision)
            })
            .cloned()
            .collect();
        let undone: Vec<_> = tables
            .undo
            .iter()
            .filter(|undo| !undo.merging.load(Ordering::Acquire) && !views.any_within(0, undo.revision))
            .cloned()
            .collect();
        drop(views);
        if useless.is_empty() && undone.is_empty() {
            return;
        }
        // No view can come to need them between here and there: none can be opened that far back.
        self.update(|tables| {
            tables.frozen.retain(|frozen| !useless.iter().any(|useless| Arc::ptr_eq(useless, frozen)));
            tables.undo.retain(|undo| !undone.iter().any(|undone| Arc::ptr_eq(undone, undo)));
        });
    }

    /// Keeps what is held for views within its bound: ends the oldest until it is.
    pub(super) fn bound_undo(&self) {
        let bound = self.options.undo_bytes.saturating_add(self.options.flush_bytes);
        loop {
            let newest = {
                let tables = self.tables.load();
                if tables.held_for_views() <= bound {
                    return;
                }
                let undo = tables.undo.iter().map(|undo| undo.revision);
                let held = tables.frozen.iter().filter(|frozen| frozen.is_merged());
                undo.chain(held.map(|frozen| frozen.checkpoint.revision)).max().unwrap_or(0)
            };
            if !self.views().end_oldest(newest) {
                return;
            }
            tracing::warn!(bound, "too much was kept for old views; ended the oldest");
            self.collect();
        }
    }
}

/// Counts a worker as ended when it is dropped, however that comes.
pub(super) struct EndOfWorker(pub(super) Arc<Shared>);

impl Drop for EndOfWorker {
    fn drop(&mut self) {
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}
