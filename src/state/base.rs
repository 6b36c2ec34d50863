//! What apply stands on: an ordered map of bytes that shows every write so far.

use bytes::Bytes;

use crate::error::Fault;

/// The stored pairs, as of the last write. Two implementations: storage, and a plain map in tests.
pub trait Base {
    /// The stored value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;
    /// Up to `limit` pairs with `start <= key < end`, in order (`end` `None`: to the last key).
    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault>;
    /// Writes the pairs of one revision; `None` removes.
    fn write(&mut self, revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault>;
}
