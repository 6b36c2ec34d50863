//! The client's session, which makes retried writes exactly-once.
//!
//! A session is opened by the first write. Each write takes the next *sequence*, and keeps it for all its
//! attempts; the store remembers the outcome of each sequence from the lowest unanswered one up, and
//! answers a repeated sequence from memory. It remembers a bounded number, so at most [`WINDOW`] sequences
//! are between the lowest unanswered and the next: who comes later waits.
//!
//! A sequence is released when its caller has an answer, or has gone: from then on no attempt with it is
//! made, and one that still drifts through the network is refused, because later calls say that everything
//! below them has been answered.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{Client, Shared, call::Call, endpoints::Preference};
use crate::{Result, model::session::Attempt, proto::v1};

/// Most sequences between the lowest unanswered one and the next; the store keeps 1,024 outcomes.
const WINDOW: u64 = 1_000;

/// The session of a client, if it has one.
pub(super) struct Session {
    ttl: Duration,
    open: Mutex<Option<Arc<Open>>>,
    opening: tokio::sync::Mutex<()>,
}

/// An open session.
struct Open {
    id: u64,
    calls: Mutex<Calls>,
    room: Notify,
    _keep_alive: KeepAlive,
}

/// The sequences of a session.
struct Calls {
    next: u64,
    unanswered: BTreeSet<u64>,
    used: Instant,
}

/// The task that keeps a session alive; it ends with the session.
struct KeepAlive(AbortHandle);

/// The place of one call in a session; released when dropped.
pub(super) struct Place {
    open: Arc<Open>,
    sequence: u64,
    attempts: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, and none leaves half a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, open: Mutex::default(), opening: tokio::sync::Mutex::default() }
    }

    /// A place for a call, as soon as there is one.
    pub(super) async fn place(&self, client: &Client, call: &Call<'_>) -> Result<Place> {
        let deadline = call.deadline();
        let too_late = |_| call.too_late("waiting for a place in the session");
        loop {
            let open = lock(&self.open).clone();
            if let Some(open) = open {
                return timeout_at(deadline, open.place()).await.map_err(too_late);
            }
            // One opens the session, the others wait; if that one gives up the next tries.
            let _opening = timeout_at(deadline, self.opening.lock()).await.map_err(too_late)?;
            if lock(&self.open).is_none() {
                // It has an eye on the deadline itself, and says better what it met.
                self.start(client, deadline).await?;
            }
        }
    }

    async fn start(&self, client: &Client, deadline: Instant) -> Result<()> {
        let request = v1::OpenSessionRequest { ttl_ms: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX) };
        let reply = client.outside().ask_until(deadline, Preference::Leader, request).await?;
        let ttl = Duration::from_millis(reply.ttl_ms).max(Duration::from_secs(1));
        *lock(&self.open) = Some(Open::start(reply.session, ttl, Arc::downgrade(&client.shared)));
        Ok(())
    }

    /// Uses a session no more, if it is still the one in use. Calls that have a place in it may still end.
    pub(super) fn forget(&self, session: u64) {
        let mut open = lock(&self.open);
        if open.as_ref().is_some_and(|open| open.id == session) {
            *open = None;
        }
    }

    /// Takes the session out of use: its id, to be closed.
    pub(super) fn take(&self) -> Option<u64> {
        lock(&self.open).take().map(|open| open.id)
    }
}

impl Open {
    fn start(id: u64, ttl: Duration, client: Weak<Shared>) -> Arc<Self> {
        let calls = Calls { next: 1, unanswered: BTreeSet::new(), used: Instant::now() };
        Arc::new_cyclic(|open| {
            let task = tokio::spawn(keep_alive(open.clone(), ttl / 3, client));
            Self { id, calls: Mutex::new(calls), room: Notify::new(), _keep_alive: KeepAlive(task.abort_handle()) }
        })
    }

    async fn place(self: &Arc<Self>) -> Place {
        loop {
            // Listening begins before the look, so that no release in between is missed.
            let room = self.room.notified();
            if let Some(sequence) = self.take() {
                return Place { open: self.clone(), sequence, attempts: 0 };
            }
            room.await;
        }
    }

    fn take(&self) -> Option<u64> {
        let mut calls = lock(&self.calls);
        if !calls.has_room() {
            return None;
        }
        let sequence = calls.next;
        calls.next += 1;
        calls.unanswered.insert(sequence);
        if calls.has_room() {
            // One release may make room for many, and wakes only one, who so wakes the next.
            self.room.notify_one();
        }
        Some(sequence)
    }

    fn release(&self, sequence: u64) {
        let mut calls = lock(&self.calls);
        calls.unanswered.remove(&sequence);
        if calls.has_room() {
            self.room.notify_one();
        }
    }
}

impl Calls {
    fn lowest(&self) -> u64 {
        self.unanswered.first().copied().unwrap_or(self.next)
    }

    fn has_room(&self) -> bool {
        self.next - self.lowest() < WINDOW
    }
}

impl Place {
    /// The session's id.
    pub(super) fn session(&self) -> u64 {
        self.open.id
    }

    /// What the next attempt says of itself.
    pub(super) fn next_attempt(&mut self) -> Attempt {
        self.attempts = self.attempts.saturating_add(1);
        let answered_below = lock(&self.open.calls).lowest();
        Attempt { session: self.open.id, sequence: self.sequence, answered_below, attempt: self.attempts }
    }

    /// Notes that the store answered, which has kept the session alive.
    pub(super) fn answered(&self) {
        lock(&self.open.calls).used = Instant::now();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.release(self.sequence);
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_alive(open: Weak<Open>, interval: Duration, client: Weak<Shared>) {
    loop {
        tokio::time::sleep(interval).await;
        let (Some(open), Some(shared)) = (open.upgrade(), client.upgrade()) else { return };
        let (session, used) = (open.id, lock(&open.calls).used);
        drop(open);
        if used.elapsed() < interval {
            continue;
        }
        let client = Client::of(shared);
        let kept = client.ask(Preference::Leader, v1::KeepSessionRequest { session }).await;
        if let Err(crate::Error::SessionExpired { .. }) = kept {
            client.shared.session.forget(session);
            return;
        }
    }
}
