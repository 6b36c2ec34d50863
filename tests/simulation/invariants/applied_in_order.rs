//! Within one life of a node no entry is applied twice or out of order, and no revision is made by two entries.

use std::collections::BTreeMap;

use super::Report;
use crate::ledger::Event;

pub fn check(report: &Report) -> Result<(), String> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut made: BTreeMap<u64, u64> = BTreeMap::new();
    for (at, event) in report.ledger.events() {
        match event {
            Event::Started { node } => drop(last.remove(&node)),
            Event::Applied { node, position, commits } => {
                let before = last.insert(node, position.index).unwrap_or(0);
                if before >= position.index {
                    return Err(format!("node {node} applied {position} at {at:?} after entry {before}"));
                }
                for commit in commits {
                    let first = *made.entry(commit.revision).or_insert(position.index);
                    if first != position.index {
                        let revision = commit.revision;
                        return Err(format!("revision {revision} was made by the entries {first} and {position}"));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}
