//! What a node takes from the world: files, time, chance, connections, and somewhere to run its background
//! work.
//!
//! Everything that differs between a real machine and the deterministic simulation comes through here,
//! so that the same code runs in both: in production files are files and workers are threads, in the
//! simulation files lose what was not synced and workers are tasks of the simulated host.

pub mod clock;
pub mod disk;
pub mod executor;
pub mod net;
pub mod sabotage;
pub mod unread;
pub mod untouched;

use std::sync::Arc;

pub use clock::Clock;
pub use disk::Disk;
pub use executor::{Executor, Signal, Step, Worker};
pub use net::Net;

/// A handle on all of it. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    /// Files and directories.
    pub disk: Arc<dyn Disk>,
    /// Time and chance.
    pub clock: Arc<dyn Clock>,
    /// Where background work runs.
    pub executor: Arc<dyn Executor>,
    /// Connections.
    pub net: Arc<dyn Net>,
}

impl Environment {
    /// Real files, the machine's clock, a thread for each worker, TCP.
    pub fn real() -> Self {
        Self {
            disk: Arc::new(disk::RealDisk),
            clock: Arc::new(clock::RealClock),
            executor: Arc::new(executor::Threads::default()),
            net: Arc::new(net::RealNet),
        }
    }
}
