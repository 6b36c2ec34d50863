//! The definition of meshes: meshes, nodes, routes and regions, and every change that they have seen.
//!
//! * A change works on a [`Draft`]: it reads one revision, and becomes one transaction that takes effect only if nothing of
//!   the topology has changed since ([`draft`]).
//! * Each change leaves an entry with author, reason, and every item before and after; differences between revisions and the
//!   way back are read from these ([`history`]).
//! * A whole mesh can be applied at once ([`apply()`]), and can wait to be confirmed ([`confirm`]).
//! * Nodes tell which revision they have applied ([`applied`]).

pub mod applied;
mod apply;
pub mod change;
pub mod confirm;
mod draft;
pub mod history;
mod item;
pub mod show;

pub use apply::apply;
pub use draft::Draft;

use crate::{Result, layers::check::check_length, limits, model::topology::Note};

/// Longest reason of a change, in bytes.
const REASON_BYTES: usize = 4 << 10;

/// That author and reason are of a bearable length. Errors: `InvalidArgument`.
pub fn check_note(note: &Note) -> Result<()> {
    check_length("author", note.author.len(), limits::ID_BYTES)?;
    check_length("reason", note.reason.len(), REASON_BYTES)
}
