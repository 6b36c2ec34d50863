//! Every write has a key of its own, so a record with a version above 1 was written twice.

use std::collections::BTreeMap;

use super::Report;
use crate::ledger::{self, Event};

pub fn check(report: &Report) -> Result<(), String> {
    let mut written_at: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for (at, event) in report.ledger.events() {
        let Event::Applied { node, position, commits } = event else { continue };
        for commit in &commits {
            for (key, version) in ledger::records(commit) {
                if version != Some(1) {
                    return Err(format!(
                        "{key} was written twice: version {version:?} at {position} on node {node}, {at:?}"
                    ));
                }
                // A node that restarts applies the end of its log again: the same entry, not another.
                let first = *written_at.entry((node, key.clone())).or_insert(position.index);
                if first != position.index {
                    return Err(format!(
                        "{key} was written by the entries {first} and {} on node {node}",
                        position.index
                    ));
                }
            }
        }
    }
    Ok(())
}
