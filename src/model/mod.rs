//! The shared vocabulary: plain data, no I/O. Everything above (client, core, layers, rpc) speaks it.

pub mod consensus_log;
pub mod document;
pub mod features;
pub mod filter;
pub mod isolation;
pub mod key;
pub mod keyspace;
pub mod kind;
pub mod kv;
pub mod lease;
pub mod mesh;
pub mod outcome;
pub mod position;
pub mod principal;
pub mod proposal;
pub mod query;
pub mod read;
pub mod record;
pub mod session;
pub mod shared;
pub mod topology;
pub mod trace;
pub mod transaction;
pub mod watch;

pub use key::{Key, ScopeId};
pub use outcome::{OperationResult, Outcome, Refusal};
pub use position::Position;
pub use principal::Principal;
pub use read::{ReadMode, ReadStamp};
pub use record::{Entry, Record, Reference, ReferenceMode};
