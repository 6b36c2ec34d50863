//! A linearizable read saw everything that had been acknowledged before it began; the workload checks each
//! read as it comes back.

use super::Report;
use crate::ledger::Event;

pub fn check(report: &Report) -> Result<(), String> {
    for (at, event) in report.ledger.events() {
        if let Event::WrongRead { client, what } = event {
            return Err(format!("client {client} at {at:?}: {what}"));
        }
    }
    Ok(())
}
