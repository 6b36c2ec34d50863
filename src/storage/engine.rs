//! The index over the files: an ordered map of bytes for random reads.
//!
//! It can be thrown away and rebuilt from base and runs, and is trusted with nothing. Two
//! implementations: [`sled`](super::sled), and [`memory`](super::memory).

use bytes::Bytes;

use crate::error::Fault;

/// An ordered map of bytes. Readers run beside one writer; nothing is a snapshot ([`super::view`] makes
/// one of it). Errors of the index are faults: the caller decides whether to rebuild.
pub trait Engine: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;
    /// Up to `limit` pairs with `start <= key < end`, in order (`end` `None`: to the last key).
    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault>;
    /// Writes (`Some`) and removes (`None`) pairs. Not atomic, not durable until `sync`.
    fn write(&self, pairs: &[(Bytes, Option<Bytes>)]) -> Result<(), Fault>;
    /// Makes everything written so far durable, with a real fsync.
    fn sync(&self) -> Result<(), Fault>;
}
