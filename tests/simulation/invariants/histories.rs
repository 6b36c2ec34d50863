//! What clients were told can be explained: registers are linearizable, transactions serializable, sets and banks and
//! counters whole, repeated attempts executed once, reads as fresh as their mode promises.

use super::Report;

pub fn check(report: &Report) -> Result<(), String> {
    for (name, verdict) in &report.verdicts {
        if !verdict.is_valid() {
            return Err(format!("the history of the workload {name} is {verdict}"));
        }
    }
    Ok(())
}
