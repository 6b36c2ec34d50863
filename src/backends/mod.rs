//! The backends of the storage contract that need no cluster.
//!
//! * [`Embedded`]: one node inside the process, with the data directory that `meshstore serve` would have; calls go to it
//!   directly, not over gRPC.
//! * [`Memory`]: everything in memory, for tests, caches, and programs that bring their data along.
//! * `sqlite::Sqlite` (feature `sqlite`): one SQLite file.
//!
//! **Why they mean the same as a cluster**: a call is the same code ([`calls`], over `service::storage`), and so is what it
//! changes. A local store ([`local`]) has no log and no peers, but the core's own apply and the proposer's way with time:
//! metadata, older versions, conditions, bounds and what expires are computed by the same functions from the same inputs. What
//! differs is where the pairs stand.

pub mod calls;
mod embedded;
pub mod local;
mod memory;

pub use self::{embedded::Embedded, memory::Memory};
