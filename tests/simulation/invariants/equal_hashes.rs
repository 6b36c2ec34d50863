//! At the end, at one index, all members have one hash.

use super::Report;
use crate::ledger::Event;

pub fn check(report: &Report) -> Result<(), String> {
    let (mut ends, mut members) = (Vec::new(), Vec::new());
    for (_, event) in report.ledger.events() {
        if let Event::Members { nodes } = &event {
            members.clone_from(nodes);
        }
        if let Event::Final { node, applied_index, revision, state_hash } = event {
            ends.push((node, (applied_index, revision, state_hash)));
        }
    }
    match ends.windows(2).find(|pair| pair[0].1 != pair[1].1) {
        Some(pair) => Err(format!("the nodes end up different: {pair:?}")),
        None if ends.iter().map(|(node, _)| *node).eq(members.iter().copied()) => Ok(()),
        None => Err(format!("of the members {members:?} {} told their end", ends.len())),
    }
}
