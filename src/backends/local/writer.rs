//! The one thread that writes.

use std::{
    ops::Deref,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
};

use super::{Keeper, Local, RETRY_AFTER_MS, Reader, queue::Pending, stopped};
use crate::{
    Error,
    environment::Environment,
    error::Fault,
    model::proposal::Batch,
    state::{Applied, Change, Meta, State},
};

/// An open store. It is closed when its last handle goes.
#[derive(Clone)]
pub struct Handle(Arc<Open>);

struct Open {
    local: Arc<Local>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Deref for Handle {
    type Target = Local;

    fn deref(&self) -> &Local {
        &self.0.local
    }
}

impl Handle {
    /// Finishes what has queued, and lets go of the place. Calls that come later are told so. May wait for the disk.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Open {
    fn close(&self) {
        // Whoever reads lets go first, so that who writes is the last to, and can leave the place in order.
        drop(self.local.reader.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.local.queue.close();
        self.local.end_views(u64::MAX);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It catches its panics, and says what they did.
        thread.map(JoinHandle::join);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens a store over pairs that stand in a place already, with the state beside them.
///
/// Errors: the thread cannot be started.
pub fn start(
    environment: &Environment,
    mut keeper: impl Keeper,
    reader: impl Reader,
    meta: Meta,
) -> Result<Handle, Fault> {
    let clock = Arc::clone(&environment.clock);
    let opened = (meta.log_time_ms, clock.monotonic());
    let mut state = State::from_meta(meta);
    let due_ms = state.next_expiry_ms(&keeper)?.unwrap_or(u64::MAX).into();
    let local = Arc::new(Local {
        reader: Mutex::new(Some(Arc::new(reader))),
        // The low half of 128 random bits.
        opening: u64::try_from(clock.random() & u128::from(u64::MAX)).unwrap_or_default(),
        clock,
        opened,
        state: Mutex::new(state),
        due_ms,
        queue: Default::default(),
        pages: Default::default(),
        open: Default::default(),
        broken: Arc::new(OnceLock::new()),
    });
    let writing = Arc::clone(&local);
    let body = move || {
        let written = panic::catch_unwind(AssertUnwindSafe(|| write_all(&writing, &mut keeper)));
        let panicked = |_| Err(Fault::bug("the thread of the store panicked (see above)"));
        if let Err(fault) = written.unwrap_or_else(panicked) {
            drop(super::broke(&writing.broken, fault.clone()));
            refuse_rest(&writing, &fault);
        }
    };
    let thread = thread::Builder::new().name("store".into()).spawn(body);
    let thread = thread.map_err(|error| Fault::new(format!("cannot start the thread of the store: {error}")))?;
    Ok(Handle(Arc::new(Open { local, thread: Mutex::new(Some(thread)) })))
}

/// Writes batches until the queue is closed and empty.
fn write_all(local: &Local, keeper: &mut impl Keeper) -> Result<(), Fault> {
    let mut more = true;
    // While there is something to reclaim nobody waits: a part of it, a batch, the next part.
    while let Some(batch) = local.queue.take(!more) {
        if !batch.is_empty() {
            write(local, keeper, batch)?;
        }
        local.pages.expire();
        more = keeper.reclaim()?;
        if keeper.is_held_up() {
            local.end_views(local.state().meta().revision);
        }
    }
    Ok(())
}

fn write(local: &Local, keeper: &mut impl Keeper, batch: Vec<Pending>) -> Result<(), Fault> {
    let (proposals, replies): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|pending| (pending.proposal, pending.reply)).unzip();
    let stamped = Batch { log_time_ms: local.now_ms(), wall_ms: local.clock.wall_ms(), proposals };
    let mut state = local.state();
    match apply(&mut state, keeper, &stamped) {
        Ok(applied) => {
            let due_ms = state.next_expiry_ms(&*keeper)?.unwrap_or(u64::MAX);
            local.due_ms.store(due_ms, Ordering::Release);
            drop(state);
            for (reply, outcome) in replies.into_iter().zip(applied.outcomes) {
                // Who has given up knows that the outcome is unknown to it.
                let _ = reply.send(Ok(outcome));
            }
            Ok(())
        }
        Err(fault) => {
            let Some(meta) = keeper.take_back() else {
                for reply in replies {
                    // It may have come as far as the disk.
                    let _ = reply.send(Err(Error::Unknown(format!("the store has stopped: {fault}"))));
                }
                return Err(fault);
            };
            *state = State::from_meta(meta);
            drop(state);
            let error = Error::ResourceExhausted { reason: fault.to_string(), retry_after_ms: RETRY_AFTER_MS };
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
            Ok(())
        }
    }
}

/// Applies a batch and commits what it did.
fn apply(state: &mut State, keeper: &mut impl Keeper, batch: &Batch) -> Result<Applied, Fault> {
    let applied = state.apply(keeper, batch)?;
    for change in applied.commits.iter().flat_map(|commit| &commit.changes) {
        if let Change::ScopeDropped { scope } = change {
            keeper.forget(&scope.prefix())?;
            for home in scope.derived() {
                keeper.forget(&home.prefix())?;
            }
        }
    }
    // Log time alone is worth no sync: it is written with the next change.
    if !applied.commits.is_empty() {
        keeper.commit(state.meta())?;
    }
    Ok(applied)
}

fn refuse_rest(local: &Local, fault: &Fault) {
    local.queue.close();
    while let Some(batch) = local.queue.take(false) {
        for pending in batch {
            let _ = pending.reply.send(Err(stopped(fault)));
        }
    }
}
