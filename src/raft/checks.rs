//! Do all replicas hold the same?
//!
//! Each replica notes the hash of its state at the same log indexes. The leader asks the voters for theirs; what a
//! majority of all voters has is written into the log, and whoever has noted something else there has diverged: it learns
//! of it at one place in the log, before it answers anybody from what comes behind. What the log says is true for good;
//! where no majority agrees nothing is written, and nobody is blamed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    model::{Key, ScopeId, keyspace},
    state::{Change, Commit},
    storage::codec::{self, Kind},
};

/// How many notes are kept: a voter that lags further than that is not asked any more.
const KEPT: usize = 64;

/// The hash of the state at a log index. Frozen (kind `StateCheck`, version 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The log index.
    pub index: u64,
    /// The hash of the state with that entry in.
    pub hash: u128,
}

/// This replica differs from the majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diverged {
    /// Where.
    pub index: u64,
    /// The hash here.
    pub own: u128,
    /// That of the majority.
    pub agreed: u128,
}

/// What this replica has noted, and whether it has diverged.
pub struct Checks {
    every: u64,
    noted: Mutex<BTreeMap<u64, u128>>,
    diverged: watch::Sender<Option<Diverged>>,
}

impl Checks {
    /// Notes at every index divisible by `every`.
    pub fn new(every: u64) -> Self {
        Self { every: every.max(1), noted: Mutex::default(), diverged: watch::Sender::new(None) }
    }

    /// The last index up to `applied` at which the hash is noted; `None` before the first.
    pub fn last_due(&self, applied: u64) -> Option<u64> {
        Some(applied - applied % self.every).filter(|index| *index > 0)
    }

    /// Whether the hash is to be noted here.
    pub fn is_due(&self, index: u64) -> bool {
        index.is_multiple_of(self.every)
    }

    fn noted_lock(&self) -> MutexGuard<'_, BTreeMap<u64, u128>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the hash at an index.
    pub fn note(&self, index: u64, hash: u128) {
        let mut noted = self.noted_lock();
        noted.insert(index, hash);
        while noted.len() > KEPT {
            noted.pop_first();
        }
    }

    /// What was noted at an index; `None` if it is not applied yet, or was forgotten.
    pub fn noted(&self, index: u64) -> Option<u128> {
        self.noted_lock().get(&index).copied()
    }

    /// Looks for what a majority has agreed on among what an entry changed.
    pub fn committed(&self, commits: &[Commit]) {
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            if let Change::Record { key, new: Some(record), .. } = change
                && *key == Self::key()
                && let Ok(agreed) = codec::decode::<Check>(Kind::StateCheck, &record.value)
            {
                self.agreed(agreed);
            }
        }
    }

    fn agreed(&self, Check { index, hash }: Check) {
        let Some(own) = self.noted(index).filter(|own| *own != hash) else { return };
        // The first time counts: the others follow from it.
        self.diverged.send_if_modified(|diverged| {
            let first = diverged.is_none();
            diverged.get_or_insert(Diverged { index, own, agreed: hash });
            first
        });
    }

    /// Whether this replica has diverged, and when that changes.
    pub fn diverged(&self) -> watch::Receiver<Option<Diverged>> {
        self.diverged.subscribe()
    }

    /// Where in the log's state the agreed hash is written.
    pub fn key() -> Key {
        ScopeId::new(keyspace::STATE_CHECKS, keyspace::NO_SCOPE).key(b"agreed")
    }

    /// What is written there.
    pub fn value(check: &Check) -> Bytes {
        codec::encode(Kind::StateCheck, check)
    }
}

/// What so many voters say of one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More than half of all have this hash.
    Agreed(u128),
    /// Too few have answered.
    Open,
    /// No hash can get a majority any more.
    Split,
}

/// Judges the answers of voters.
pub fn judge(voters: usize, answers: impl IntoIterator<Item = u128>) -> Verdict {
    let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
    let mut answered = 0;
    for hash in answers {
        *counts.entry(hash).or_default() += 1;
        answered += 1;
    }
    let Some((hash, most)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return Verdict::Open };
    if most > voters / 2 {
        Verdict::Agreed(hash)
    } else if most + voters.saturating_sub(answered) > voters / 2 {
        Verdict::Open
    } else {
        Verdict::Split
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_all_voters_decides() {
        assert_eq!(judge(3, []), Verdict::Open);
        assert_eq!(judge(3, [7]), Verdict::Open);
        assert_eq!(judge(3, [7, 7]), Verdict::Agreed(7));
        assert_eq!(judge(3, [7, 8]), Verdict::Open);
        assert_eq!(judge(3, [7, 8, 7]), Verdict::Agreed(7));
        assert_eq!(judge(3, [7, 8, 9]), Verdict::Split);
        assert_eq!(judge(5, [7, 7, 8, 8]), Verdict::Open);
        assert_eq!(judge(5, [7, 7, 8, 8, 9]), Verdict::Split);
        assert_eq!(judge(2, [7, 8]), Verdict::Split);
        assert_eq!(judge(1, [7]), Verdict::Agreed(7));
    }

    #[test]
    fn who_has_noted_something_else_has_diverged() {
        let checks = Checks::new(10);
        assert!(checks.is_due(20) && !checks.is_due(21));
        assert_eq!((checks.last_due(9), checks.last_due(10), checks.last_due(29)), (None, Some(10), Some(20)));
        checks.note(10, 1);
        checks.note(20, 2);
        let mut diverged = checks.diverged();
        checks.agreed(Check { index: 10, hash: 1 });
        checks.agreed(Check { index: 30, hash: 9 });
        assert_eq!(*diverged.borrow_and_update(), None);
        checks.agreed(Check { index: 20, hash: 3 });
        checks.agreed(Check { index: 10, hash: 4 });
        assert_eq!(*diverged.borrow_and_update(), Some(Diverged { index: 20, own: 2, agreed: 3 }));
    }

    #[test]
    fn only_the_newest_notes_are_kept() {
        let checks = Checks::new(1);
        for index in 1..=KEPT as u64 + 5 {
            checks.note(index, u128::from(index));
        }
        assert_eq!((checks.noted(5), checks.noted(6)), (None, Some(6)));
    }
}
