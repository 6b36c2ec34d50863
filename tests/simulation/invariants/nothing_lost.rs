//! Whatever a client was told is in is on every node at the end.

use super::Report;
use crate::ledger::Event;

pub fn check(report: &Report) -> Result<(), String> {
    let events = report.ledger.events();
    let held: Vec<_> = events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Held { node, messages } => Some((node, messages)),
            _ => None,
        })
        .collect();
    if held.len() != report.nodes {
        return Err(format!("{} of {} nodes told what they hold at the end", held.len(), report.nodes));
    }
    for (at, event) in &events {
        if let Event::Acknowledged { client, id, revision } = event {
            for (node, messages) in &held {
                if !messages.contains_key(id) {
                    return Err(format!(
                        "{id}, acknowledged to client {client} at {at:?} with revision {revision}, is lost on node {node}"
                    ));
                }
            }
        }
    }
    Ok(())
}
