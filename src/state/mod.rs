//! The core: a replicated, ordered store of versioned records, changed only by compare-and-write
//! transactions. It knows nothing of messages or documents; those are layers above.
//!
//! [`State::apply`] is a pure function of (state, log entry). No clock, no chance, no order of a hash map,
//! no bound that a release may change: two replicas at one log index hold the same logical records and
//! prove it by [`Meta::state_hash`]. What this module promises is fixed for good, and pinned by
//! `tests/state`: log entries of today replay under every later version.
//!
//! The path of a proposal: [`apply`] (time passes, the session is asked, guards) → [`compare`] →
//! [`operation`] on an [`overlay`] of pending writes → [`commit`] (the checks that wait for the last
//! operation, then taking effect). A refusal drops the overlay: nothing changed.
//!
//! Left out on purpose: anything that can be decided before the log. Validation of names, JSON, limits,
//! permissions lives in layers, so that followers only write bytes.

pub mod apply;
pub mod audit;
pub mod base;
pub mod change;
mod closure;
mod commit;
mod compare;
pub mod constants;
mod derived;
mod expiry;
pub mod meta;
mod operation;
mod overlay;
pub mod pending;
pub mod scope;
pub mod session;
pub mod shown;
pub mod stored;
pub mod sweep;
pub mod view;

pub use apply::{Applied, State};
pub use base::Base;
pub use change::{Change, Commit};
pub use meta::Meta;
pub use pending::Pending;
pub use view::View;
