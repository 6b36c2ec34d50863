//! The index over the files: an ordered map of bytes for random reads.
//!
//! It can be thrown away and rebuilt from base and runs, and is trusted with nothing. Two
//! implementations: [`sled`](super::sled), and [`memory`](super::memory).

use bytes::Bytes;

use crate::error::Fault;

/// A key, and its value or `None` for its deletion.
pub type Pair = (Bytes, Option<Bytes>);

/// Part of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Pairs in key order.
    pub pairs: Vec<(Bytes, Bytes)>,
    /// Whether the range ends here: behind the last pair there was nothing more.
    pub complete: bool,
}

/// Bytes of keys and values after which an engine closes a page early.
pub const PAGE_BYTES: usize = 1 << 20;

/// An ordered map of bytes. Readers run beside one writer; nothing is a snapshot ([`super::View`] makes
/// one of it): a page shows each key as it was at some moment while the page was read. Errors of the
/// index are faults: the caller decides whether to rebuild.
pub trait Engine: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;
    /// The first pairs with `start <= key < end`, in order (`end` `None`: to the last key): up to `limit`,
    /// fewer once they hold [`PAGE_BYTES`], but at least one if there is one.
    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Page, Fault>;
    /// Writes (`Some`) and removes (`None`) pairs. Not atomic, not durable until `sync`.
    fn write(&self, pairs: &[Pair]) -> Result<(), Fault>;
    /// Makes everything written so far durable, with a real fsync.
    fn sync(&self) -> Result<(), Fault>;
    /// Makes everything durable and lets go of the files. `true` if a later open will find it all.
    fn close(self: Box<Self>) -> Result<bool, Fault>;
}

/// What is left behind when storage is closed: reads that come too late are told so.
pub(super) struct Closed;

impl Closed {
    fn fault<T>() -> Result<T, Fault> {
        Err(Fault::closed("storage"))
    }
}

impl Engine for Closed {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Self::fault()
    }

    fn range(&self, _start: &[u8], _end: Option<&[u8]>, _limit: usize) -> Result<Page, Fault> {
        Self::fault()
    }

    fn write(&self, _pairs: &[Pair]) -> Result<(), Fault> {
        Self::fault()
    }

    fn sync(&self) -> Result<(), Fault> {
        Self::fault()
    }

    fn close(self: Box<Self>) -> Result<bool, Fault> {
        Self::fault()
    }
}
