//! Dropped scopes: their pairs are garbage in the index, removed bit by bit when the merger has nothing better to do.

use std::collections::VecDeque;

use crate::model::key::PREFIX_BYTES;

/// The scopes whose pairs are still in the index.
#[derive(Default)]
pub(super) struct Reclaim(VecDeque<Dropped>);

/// A dropped scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// What its keys begin with.
    pub(super) prefix: [u8; PREFIX_BYTES],
    /// The revision that dropped it.
    pub(super) at: u64,
}

impl Reclaim {
    /// Notes a dropped scope.
    pub(super) fn add(&mut self, prefix: [u8; PREFIX_BYTES], at: u64) {
        if !self.0.iter().any(|dropped| dropped.prefix == prefix) {
            self.0.push_back(Dropped { prefix, at });
        }
    }

    /// One for which `ready` says that nobody can need its pairs any more.
    pub(super) fn next(&self, ready: impl Fn(u64) -> bool) -> Option<Dropped> {
        self.0.iter().find(|dropped| ready(dropped.at)).copied()
    }

    /// It is done.
    pub(super) fn done(&mut self, prefix: [u8; PREFIX_BYTES]) {
        self.0.retain(|dropped| dropped.prefix != prefix);
    }

    /// Whether nothing is left to do.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all of it: the index is another.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
