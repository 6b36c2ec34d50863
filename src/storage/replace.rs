//! A whole new storage directory, made beside one that cannot be used and then put in its place.
//!
//! What is to be the base is written under `DIRECTORY.new`, synced, read back wholly and named by a manifest; then the old
//! directory is set aside and the new one takes its name. A crash before that leaves the old directory as it was, one
//! between the two renames leaves none; whoever starts then finds that the log begins later than the state, and does
//! it again. Nothing is deleted but unfinished work: what is set aside stays until a person removes it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    audit::Auditor,
    checkpoint::Checkpoint,
    engine::Pair,
    file::{FileKind, Writer},
    files::file_name,
    manifest::{Listed, Manifest},
    receive::{ReceiveError, verify},
};
use crate::{
    environment::{
        Environment,
        disk::{Disk, File, OpenMode, sync_parent},
    },
    error::Fault,
};

/// The number of the one file of a new directory.
const BASE: u64 = 1;

/// A storage directory in the making, under a name of its own.
pub struct Replacement {
    disk: Arc<dyn Disk>,
    auditor: Arc<dyn Auditor>,
    directory: PathBuf,
    new: PathBuf,
    cluster: u128,
    file: Option<Box<dyn File>>,
    length: u64,
}

/// A storage directory that is complete, and not yet in its place.
pub struct Prepared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    new: PathBuf,
    checkpoint: Checkpoint,
    pairs: u64,
}

impl Replacement {
    /// Begins a replacement for the storage in `directory`; unfinished work of before is removed.
    pub fn begin(
        environment: &Environment,
        directory: &Path,
        cluster: u128,
        auditor: Arc<dyn Auditor>,
    ) -> Result<Self, Fault> {
        let disk = Arc::clone(&environment.disk);
        let new = directory.with_extension("new");
        let made = || {
            if disk.exists(&new)? {
                disk.remove_dir_all(&new)?;
            }
            disk.create_dir_all(&new)
        };
        made().map_err(|error| Fault::io("making", &new, &error))?;
        Ok(Self { disk, auditor, directory: directory.to_owned(), new, cluster, file: None, length: 0 })
    }

    fn base(&self) -> PathBuf {
        self.new.join(file_name(BASE, FileKind::Base))
    }

    /// Adds the next bytes of a base that comes from elsewhere. Writes a file: not for an async task.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let path = self.base();
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = self.disk.open(&path, OpenMode::Create);
                self.file.insert(opened.map_err(|error| Fault::io("creating", &path, &error))?)
            }
        };
        file.write_all_at(bytes, self.length).map_err(|error| Fault::io("writing", &path, &error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Writes a base of these pairs instead: in order, without deletions.
    pub fn write(
        mut self,
        checkpoint: &Checkpoint,
        pairs: impl IntoIterator<Item = Result<Pair, Fault>>,
    ) -> Result<Prepared, ReceiveError> {
        let mut writer = Writer::create(&self.disk, &self.base(), FileKind::Base, self.cluster, checkpoint)?;
        for pair in pairs {
            let (key, value) = pair?;
            writer.push(&key, value.as_deref())?;
        }
        let (length, place) = writer.finish()?;
        place.keep();
        self.length = length;
        self.complete()
    }

    /// There is no more to push: syncs what came, and reads all of it back.
    ///
    /// Errors: `Refused` if it is no whole, undamaged base of this cluster.
    pub fn finish(mut self) -> Result<Prepared, ReceiveError> {
        if let Some(file) = self.file.take() {
            file.sync().map_err(|error| Fault::io("syncing", &self.base(), &error))?;
        }
        self.complete()
    }

    fn complete(self) -> Result<Prepared, ReceiveError> {
        let Self { ref disk, ref auditor, cluster, length, .. } = self;
        let verified = verify(disk, &self.base(), cluster, &**auditor);
        let verified = verified.map_err(|fault| ReceiveError::Refused(fault.to_string()))?;
        let (checkpoint, pairs) = verified.map_err(ReceiveError::Refused)?;
        let base = Some(Listed { number: BASE, bytes: length, indexed: false });
        // Replaced and synced as one, with the name of the base.
        Manifest { cluster, next_number: BASE + 1, base, ..Manifest::default() }.write(disk, &self.new)?;
        let Self { disk, directory, new, .. } = self;
        Ok(Prepared { disk, directory, new, checkpoint, pairs })
    }
}

impl Prepared {
    /// What it holds.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// How many pairs it holds.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Puts it in place of what was there: where that now is, if there was anything.
    pub fn put_in_place(self) -> Result<Option<PathBuf>, Fault> {
        let Self { disk, directory, new, .. } = self;
        let aside = set_aside(&*disk, &directory)?;
        disk.rename(&new, &directory).map_err(|error| Fault::io("putting in place", &new, &error))?;
        sync_parent(&*disk, &directory)?;
        Ok(aside)
    }
}

/// Gives a directory another name that nobody has, `NAME.damaged-N`, durably: which. `None`: there is no such directory.
pub fn set_aside(disk: &dyn Disk, directory: &Path) -> Result<Option<PathBuf>, Fault> {
    let failed = |error| Fault::io("setting aside", directory, &error);
    if !disk.exists(directory).map_err(failed)? {
        return Ok(None);
    }
    for number in 1..u32::MAX {
        let aside = directory.with_extension(format!("damaged-{number}"));
        if !disk.exists(&aside).map_err(failed)? {
            disk.rename(directory, &aside).map_err(failed)?;
            sync_parent(disk, directory)?;
            return Ok(Some(aside));
        }
    }
    Err(Fault::new(format!("there is no name left to which {} could be set aside", directory.display())))
}
