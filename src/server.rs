//! Wiring and shutdown.

use crate::{config::Config, error::Fault};

/// Runs a node until it is told to stop.
///
/// Errors: the fault that stopped it.
pub fn run(config: Config) -> Result<(), Fault> {
    Err(Fault::new(format!("node {} cannot run: this build has no server yet", config.node.id)))
}
