//! The invariants, one a file. Each says what is broken.

mod applied_alike;
mod applied_in_order;
mod equal_hashes;
mod histories;
mod logs_match;
mod nothing_lost;
mod one_leader;

use super::world::Report;

/// All invariants.
pub fn check(report: &Report) -> Result<(), String> {
    applied_alike::check(report)?;
    check_but_states(report)
}

/// All that hold though the state of a replica was wrong for a while.
pub fn check_but_states(report: &Report) -> Result<(), String> {
    one_leader::check(report)?;
    logs_match::check(report)?;
    applied_in_order::check(report)?;
    nothing_lost::check(report)?;
    equal_hashes::check(report)?;
    histories::check(report)
}
