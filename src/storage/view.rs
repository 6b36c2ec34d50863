//! A view: everything as of one revision, for as long as it is open.

use std::sync::Arc;

use bytes::Bytes;

use super::{read, shared::Shared, views::Token};
use crate::error::Fault;

/// Why a view cannot be opened, or read any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ViewError {
    /// The revision is no longer kept: it is older than what was merged into the index before the view was opened, or
    /// the view was ended because too much was kept for it, or because a snapshot was installed.
    #[error("revision {revision} is no longer readable (the oldest is {oldest})")]
    TooOld {
        /// The revision asked for.
        revision: u64,
        /// The oldest at which a view can be opened.
        oldest: u64,
    },
    /// The index is broken.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Everything as of one revision. While it is open the versions that it needs are kept, within
/// [`super::Options::undo_bytes`]; close (drop) it soon.
pub struct View {
    shared: Arc<Shared>,
    revision: u64,
    token: Arc<Token>,
}

impl View {
    pub(super) fn open(shared: Arc<Shared>, revision: u64) -> Result<Self, ViewError> {
        let opened = {
            let mut views = shared.views();
            views.open(revision).ok_or(views.oldest())
        };
        match opened {
            Ok(token) => Ok(Self { shared, revision, token }),
            Err(oldest) => Err(ViewError::TooOld { revision, oldest }),
        }
    }

    /// The revision that everything read here shows.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The value of a key. Errors: `TooOld` if the view was ended meanwhile.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        let value = read::get(&self.shared.tables, key, self.revision);
        self.vouch(value)
    }

    /// Up to `limit` pairs with `start <= key < end` (`None`: to the last key), in order; fewer only if there
    /// are no more. Errors: `TooOld` if the view was ended meanwhile.
    pub fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        let pairs = read::range(&self.shared.tables, start, end, limit, self.revision);
        self.vouch(pairs)
    }

    fn vouch<T>(&self, read: Result<T, Fault>) -> Result<T, ViewError> {
        if self.token.has_ended() {
            return Err(ViewError::TooOld { revision: self.revision, oldest: self.shared.views().oldest() });
        }
        Ok(read?)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // What it needed may be large: the merger frees it, not this reader.
        if self.shared.views().close(self.revision, &self.token) {
            self.shared.merger.raise();
        }
    }
}
