//! What storage asks of the core above it, which alone knows how records are counted.

use crate::error::Fault;

/// Checks stored pairs against the accounts that the core keeps (per scope: key count, bytes, hash).
pub trait Auditor: Send + Sync + 'static {
    /// Begins an audit of all pairs against the accounts in `meta` (the core's state beside the records,
    /// as a checkpoint carries it).
    fn begin(&self, meta: &[u8]) -> Result<Box<dyn Audit>, Fault>;
}

/// One audit.
pub trait Audit: Send {
    /// Whether the key's scope still exists; pairs of dropped scopes are garbage: skipped by merges and
    /// compaction, and not counted.
    fn is_live(&self, key: &[u8]) -> bool;
    /// Counts one live pair.
    fn count(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault>;
    /// `Ok` if all accounts agree, else which does not and how.
    fn finish(self: Box<Self>) -> Result<(), String>;
}
