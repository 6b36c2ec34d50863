//! The files of a store that nobody has open, for reading: what they reach, whether they are whole, and their pairs.

use std::{path::Path, sync::Arc};

use super::{
    audit::{Audit, Auditor},
    checkpoint::Checkpoint,
    engine::Pair,
    file::Reader,
    files::{FileSet, open_listed},
    manifest::Manifest,
    merge::Merge,
    start::{is_data, open_set},
};
use crate::{environment::Disk, error::Fault};

/// See the module's text.
pub struct Archive {
    disk: Arc<dyn Disk>,
    cluster: u128,
    set: FileSet,
    checkpoint: Arc<Checkpoint>,
}

impl Archive {
    /// The store in a directory; `None` if it has never flushed anything.
    ///
    /// Errors: damage in the manifest or at the front of a file.
    pub fn open(disk: &Arc<dyn Disk>, directory: &Path) -> Result<Option<Self>, Fault> {
        let failed = |error| Fault::io("looking into", directory, &error);
        if !disk.exists(directory).map_err(failed)? {
            return Ok(None);
        }
        let Some(manifest) = Manifest::read(disk, directory)? else {
            let names = disk.list(directory).map_err(failed)?;
            return match names.iter().find(|name| is_data(name)) {
                Some(name) => Err(Manifest::missing(directory, &directory.join(name))),
                None => Ok(None),
            };
        };
        let set = open_set(disk, directory, &manifest)?;
        let Some(checkpoint) = set.checkpoint.clone() else { return Ok(None) };
        Ok(Some(Self { disk: Arc::clone(disk), cluster: manifest.cluster, set, checkpoint }))
    }

    /// What the files are the state of.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The cluster that they belong to.
    pub fn cluster(&self) -> u128 {
        self.cluster
    }

    /// Reads everything, and counts it against the accounts. Takes as long as reading the files does.
    ///
    /// Errors: damage, with file and offset.
    pub fn verify(&self, auditor: &dyn Auditor) -> Result<(), Fault> {
        let mut audit = auditor.begin(&self.checkpoint.meta)?;
        for pair in self.pairs(auditor)? {
            if let (key, Some(value)) = pair? {
                audit.count(&key, &value)?;
            }
        }
        audit.finish().map_err(|difference| Fault::damage(format!("the files contradict their accounts: {difference}")))
    }

    /// All pairs, in order, without deletions and without what belongs to scopes that are gone.
    pub fn pairs(&self, auditor: &dyn Auditor) -> Result<Pairs, Fault> {
        let open =
            |file: &Arc<super::files::StoredFile>| open_listed(&self.disk, file.place.path(), self.cluster, file.bytes);
        let readers = self.set.newest_first().map(open).collect::<Result<Vec<_>, _>>()?;
        Ok(Pairs { merged: Merge::new(readers), audit: auditor.begin(&self.checkpoint.meta)? })
    }
}

/// See [`Archive::pairs`].
pub struct Pairs {
    merged: Merge<Reader>,
    audit: Box<dyn Audit>,
}

impl Iterator for Pairs {
    type Item = Result<Pair, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.merged.next()? {
                Ok((key, value)) if value.is_none() || !self.audit.is_live(&key) => {}
                other => return Some(other),
            }
        }
    }
}
