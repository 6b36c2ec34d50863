//! In each term at most one node leads.

use std::collections::BTreeMap;

use super::Report;
use crate::ledger::Event;

pub fn check(report: &Report) -> Result<(), String> {
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    for (at, event) in report.ledger.events() {
        let Event::Leads { node, term } = event else { continue };
        let first = *leaders.entry(term).or_insert(node);
        if first != node {
            return Err(format!("in term {term} node {first} led, and node {node} at {at:?}"));
        }
    }
    Ok(())
}
