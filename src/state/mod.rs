//! The core: apply, transactions, expiry, references, sessions, accounting. No tokio, no clock.

pub mod stored;
pub mod view;

pub use view::View;
