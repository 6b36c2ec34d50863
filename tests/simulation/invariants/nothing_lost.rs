//! What any node has ever applied, and so whatever was acknowledged, every node has in the end.

use super::Report;
use crate::ledger::Event;

pub fn check(report: &Report) -> Result<(), String> {
    let events = report.ledger.events();
    let (mut index, mut revision) = (0, 0);
    for (_, event) in &events {
        if let Event::Applied { position, commits, .. } = event {
            index = index.max(position.index);
            revision = commits.iter().map(|commit| commit.revision).fold(revision, u64::max);
        }
    }
    for (_, event) in events {
        if let Event::Final { node, applied_index, revision: last, .. } = event
            && (applied_index < index || last < revision)
        {
            return Err(format!(
                "node {node} ends at index {applied_index}, revision {last}; index {index}, revision {revision} had been \
                 applied"
            ));
        }
    }
    Ok(())
}
