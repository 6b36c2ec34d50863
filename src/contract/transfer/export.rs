//! A namespace into a file.

use std::io::Write;

use super::{Failure, OnProgress, Progress, line};
use crate::contract::{CountOptions, Storage, walk::Walk};

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The revision that the file shows.
    pub revision: u64,
    /// How many values are in it.
    pub values: u64,
}

/// Writes all values of a namespace as of one revision, with their attributes.
///
/// Errors: `NotFound` if there is no such namespace; `ViewTooOld` if the revision could not be kept until the end: begin again;
/// those of `sink`. What was written until then has no last line, and no import takes it.
pub async fn export(
    storage: &dyn Storage,
    namespace: &str,
    sink: &mut (dyn Write + Send),
    progress: OnProgress<'_>,
) -> Result<Exported, Failure> {
    let mut walk = Walk::begin(storage, namespace, ("", true)).await?;
    let revision = walk.revision();
    let mut told = Progress { done: 0, of: storage.count(CountOptions::from(namespace)).await? };
    writeln!(sink, "{}", line::head(namespace, revision))?;
    while let Some(entries) = walk.next().await? {
        for entry in &entries {
            writeln!(sink, "{}", line::of(entry))?;
        }
        told.done += entries.len() as u64;
        progress(told);
    }
    writeln!(sink, "{}", line::end(told.done))?;
    sink.flush()?;
    Ok(Exported { revision, values: told.done })
}
