//! Whenever two nodes (or one, before and after a restart) apply an index they apply the same thing.

use std::collections::BTreeMap;

use meshstore::{model::Position, state::Commit};

use super::Report;
use crate::ledger::Event;

pub fn check(report: &Report) -> Result<(), String> {
    let mut applied: BTreeMap<u64, (u64, Position, Vec<Commit>)> = BTreeMap::new();
    for (at, event) in report.ledger.events() {
        let Event::Applied { node, position, commits } = event else { continue };
        let (first, position_there, commits_there) =
            applied.entry(position.index).or_insert_with(|| (node, position, commits.clone()));
        if *position_there != position {
            return Err(format!("node {node} applied {position} at {at:?}, node {first} had applied {position_there}"));
        }
        if *commits_there != commits {
            return Err(format!(
                "nodes {first} and {node} did different things at {position}:\n{commits_there:?}\n{commits:?}"
            ));
        }
    }
    Ok(())
}
