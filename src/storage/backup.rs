//! A backup: everything as of one revision in one base file that stands alone.

use std::{path::Path, sync::Arc};

use super::{
    audit::Auditor,
    checkpoint::Checkpoint,
    file::{FileKind, Reader},
};
use crate::{environment::Disk, error::Fault};

/// What a file holds that was read wholly.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The cluster that it is of.
    pub cluster: u128,
    /// What it is the state of.
    pub checkpoint: Checkpoint,
    /// Pairs: records, and what is derived from them.
    pub pairs: u64,
    /// The file's length, in bytes.
    pub bytes: u64,
}

impl Backup {
    /// Reads a file wholly: checksums, order, counts, and the core's accounts. Takes as long as reading it does.
    ///
    /// Errors: it is no backup, or damaged, with file and offset.
    pub fn inspect(disk: &Arc<dyn Disk>, path: &Path, auditor: &dyn Auditor) -> Result<Self, Fault> {
        let mut reader = Reader::open_any(disk, path)?;
        let (checkpoint, pairs) = account(&mut reader, auditor)?
            .map_err(|difference| Fault::damage(format!("{} is no backup: {difference}", path.display())))?;
        Ok(Self { cluster: reader.header().cluster, checkpoint, pairs, bytes: reader.length() })
    }
}

/// Reads a base wholly: its checkpoint and number of pairs, or how it differs from its own accounts.
pub(super) fn account(reader: &mut Reader, auditor: &dyn Auditor) -> Result<Result<(Checkpoint, u64), String>, Fault> {
    if reader.header().kind != FileKind::Base {
        return Ok(Err("it is not a base".into()));
    }
    let checkpoint = reader.header().checkpoint.clone();
    let mut audit = auditor.begin(&checkpoint.meta)?;
    for pair in &mut *reader {
        if let (key, Some(value)) = pair?
            && audit.is_live(&key)
        {
            audit.count(&key, &value)?;
        }
    }
    let (pairs, _) = reader.counts();
    Ok(audit.finish().map(|()| (checkpoint, pairs)))
}
