//! The invariants, one a file. Each says what is broken.

mod applied_alike;
mod applied_once;
mod equal_hashes;
mod nothing_lost;
mod right_reads;

use super::world::Report;

/// All invariants.
pub fn check(report: &Report) -> Result<(), String> {
    nothing_lost::check(report)?;
    applied_once::check(report)?;
    applied_alike::check(report)?;
    equal_hashes::check(report)?;
    right_reads::check(report)
}
