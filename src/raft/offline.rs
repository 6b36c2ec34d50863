//! A node's log while no Raft runs: looked at, or begun.

use std::path::Path;
use std::sync::Arc;

use super::{
    log::{self, Log},
    types::{NodeId, StoredMembers, StoredVote},
};
use crate::{
    environment::{Environment, untouched::Untouched},
    error::Fault,
    limits,
    model::Position,
};

/// The log in a directory, to be read. Nothing is changed: a torn end is left out, and stays.
///
/// Errors: damage, with file and offset.
pub fn look(environment: &Environment, directory: &Path) -> Result<Log, Fault> {
    let disk = Arc::new(Untouched(Arc::clone(&environment.disk)));
    let untouched = Environment { disk, ..environment.clone() };
    // Without its writer the log takes nothing.
    let (log, _, _) = Log::open(&untouched, directory, log::Options::default())?;
    Ok(log)
}

/// The members that the entries from an index on set last; `None`: they set none. Reads all of them.
///
/// Errors: damage, with file and offset.
pub fn members(log: &Log, from: u64) -> Result<Option<StoredMembers>, Fault> {
    let (mut next, mut found) = (from.max(log.first_index()), None);
    loop {
        let entries = log.entries(next..u64::MAX, limits::APPEND_BYTES)?;
        if entries.is_empty() {
            return Ok(found);
        }
        next += entries.len() as u64;
        found = entries.iter().filter_map(super::types::LogEntry::members).next_back().or(found);
    }
}

/// Begins a log, in an empty directory, that goes on behind a position of which the state is elsewhere. The node has voted
/// in that term, so that it can only lead in a later one.
pub async fn begin(environment: &Environment, directory: &Path, position: Position, node: NodeId) -> Result<(), Fault> {
    let (log, writer, signal) = Log::open(environment, directory, log::Options::default())?;
    let running = environment.executor.start("log-writer", writer, signal);
    log.set_purge_floor(position);
    log.save_vote(StoredVote { term: position.term, node, committed: false }).await?;
    log.purge(position).await?;
    log.close().await?;
    running.await.unwrap_or_else(|_| Err(Fault::new("the log-writer thread ended unexpectedly")))
}
