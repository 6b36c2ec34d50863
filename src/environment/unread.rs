//! What the other end of a connection was sent and has not taken.
//!
//! An answer that nobody reads stays in memory. TCP says nothing of it: over HTTP/2 a client may read the connection, and
//! answer its pings, and still never make room for one call. So who hands out pieces of answers notes here when, and when the
//! next was wanted; a connection with a piece that waits for too long is at its end.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How long a piece of an answer may wait for room.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of one connection: the pieces that wait, and since when.
#[derive(Debug, Default)]
pub struct Unread {
    /// By number, which is their order.
    waiting: Mutex<BTreeMap<u64, Instant>>,
    next: AtomicU64,
    /// How many wait, for a look without the lock.
    count: AtomicUsize,
}

impl Unread {
    /// A piece was handed out: its number.
    pub fn handed(&self) -> u64 {
        let mut waiting = self.waiting();
        let number = self.next.fetch_add(1, Relaxed);
        waiting.insert(number, Instant::now());
        self.count.store(waiting.len(), Relaxed);
        number
    }

    /// It was taken, or nobody wants it any more.
    pub fn taken(&self, number: u64) {
        let mut waiting = self.waiting();
        waiting.remove(&number);
        self.count.store(waiting.len(), Relaxed);
    }

    /// Whether any piece has waited for too long.
    pub fn is_stuck(&self) -> bool {
        if self.count.load(Relaxed) == 0 {
            return false;
        }
        self.waiting().first_key_value().is_some_and(|(_, since)| since.elapsed() >= PATIENCE)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_piece_decides() {
        let unread = Unread::default();
        let first = unread.handed();
        tokio::time::advance(PATIENCE / 2).await;
        let second = unread.handed();
        tokio::time::advance(PATIENCE / 2).await;
        assert!(unread.is_stuck());
        unread.taken(first);
        assert!(!unread.is_stuck());
        tokio::time::advance(PATIENCE / 2).await;
        assert!(unread.is_stuck());
        unread.taken(second);
        assert!(!unread.is_stuck());
    }
}
