//! Mesh storage: messages, state, node state, the routing table, runtime configuration.
//!
//! Five tables of the seed `mesh-storage.md`, a file each. Their common rules:
//!
//! * a store is an upsert: it overwrites what is there, and keeps `created_at`;
//! * reading or deleting what is not there is `NotFound`, naming kind and name;
//! * ids, keys and destinations are not empty and not longer than their limit;
//! * JSON is checked, then kept byte for byte (`layers/json.rs`), so that no number loses a digit;
//! * lists are ordered, come in pages, and all pages of one list show one revision (`layers/list.rs`);
//! * a message that is too large for a record is kept in chunks ([`large`]), and messages go by age and number
//!   ([`retention`]);
//! * a transaction makes changes of any of them together, by the same rules ([`transaction`]).

pub mod config;
pub mod large;
pub mod message;
pub mod node_state;
pub mod retention;
pub mod route;
pub mod state;
mod table;
pub mod transaction;
pub(super) mod watch;

#[cfg(test)]
pub(super) mod testing;
