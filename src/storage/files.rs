//! The files that the data directory consists of: one base, the runs upon it, and which index holds them.
//!
//! All changes go through [`Files::commit`], one at a time: the manifest is replaced, then what readers see.
//! A file that no longer belongs is removed when its last reader lets go of it. Whoever worked for an
//! index that was meanwhile replaced (by an install) is told so, and its work is thrown away.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    checkpoint::Checkpoint,
    disposable::Disposable,
    file::{FileKind, Reader},
    manifest::{Listed, Manifest},
};
use crate::{
    environment::{Disk, Environment},
    error::Fault,
    model::Position,
};

/// A file of the set.
pub(super) struct StoredFile {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) indexed: bool,
    /// Shared by all copies of this entry; removes the file when it no longer belongs.
    pub(super) place: Arc<Disposable>,
}

/// The files as of one commit.
#[derive(Default)]
pub(super) struct FileSet {
    pub(super) base: Option<Arc<StoredFile>>,
    /// Oldest first.
    pub(super) runs: Vec<Arc<StoredFile>>,
    /// The newest file's.
    pub(super) checkpoint: Option<Arc<Checkpoint>>,
}

impl Clone for FileSet {
    fn clone(&self) -> Self {
        Self { base: self.base.clone(), runs: self.runs.clone(), checkpoint: self.checkpoint.clone() }
    }
}

impl FileSet {
    /// All files, the newest first: the order in which they are read.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Arc<StoredFile>> {
        self.runs.iter().rev().chain(&self.base)
    }

    /// Says that the index holds these files.
    pub(super) fn mark_indexed(&mut self, which: impl Fn(u64) -> bool) {
        for file in self.runs.iter_mut().chain(&mut self.base) {
            if which(file.number) && !file.indexed {
                *file = Arc::new(StoredFile {
                    number: file.number,
                    bytes: file.bytes,
                    indexed: true,
                    place: file.place.clone(),
                });
            }
        }
    }

    fn contains(&self, number: u64) -> bool {
        self.newest_first().any(|file| file.number == number)
    }
}

/// What is committed: the index's number, whether it is clean, and the files.
struct Committed {
    index: u64,
    clean: bool,
    set: Arc<FileSet>,
    /// Why what is on disk is not known: after a failed sync a later one that succeeds proves nothing.
    failed: Option<Fault>,
}

/// See the module's text.
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) cluster: u128,
    next_number: AtomicU64,
    committed: Mutex<Committed>,
    published: ArcSwap<FileSet>,
    flushed: watch::Sender<Option<Position>>,
}

impl Files {
    /// Free bytes where the files are.
    pub(super) fn free_bytes(&self) -> Result<u64, Fault> {
        let free = self.disk.available_bytes(&self.directory);
        free.map_err(|error| Fault::io("measuring the free space of", &self.directory, &error))
    }

    /// The files that a manifest lists.
    pub(super) fn new(disk: Arc<dyn Disk>, directory: PathBuf, manifest: &Manifest, set: FileSet) -> Self {
        let set = Arc::new(set);
        let flushed = watch::Sender::new(set.checkpoint.as_ref().map(|checkpoint| checkpoint.position));
        Self {
            disk,
            directory,
            cluster: manifest.cluster,
            next_number: AtomicU64::new(manifest.next_number),
            published: ArcSwap::new(set.clone()),
            committed: Mutex::new(Committed { index: manifest.index, clean: manifest.clean, set, failed: None }),
            flushed,
        }
    }

    /// The files as of the last commit.
    pub(super) fn set(&self) -> Arc<FileSet> {
        self.published.load_full()
    }

    /// The newest file's position, whenever it changes.
    pub(super) fn flushed(&self) -> watch::Receiver<Option<Position>> {
        self.flushed.subscribe()
    }

    /// A number that no file has.
    pub(super) fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Where the file with this number is, or would be.
    pub(super) fn path(&self, number: u64, kind: FileKind) -> PathBuf {
        self.directory.join(file_name(number, kind))
    }

    /// Opens a file of the set for reading.
    pub(super) fn read(&self, file: &StoredFile) -> Result<Reader, Fault> {
        open_listed(&self.disk, file.place.path(), self.cluster, file.bytes)
    }

    /// The number of the index that the files are for.
    pub(super) fn index(&self) -> u64 {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).index
    }

    /// Changes the set, durably, if the index still is `index`; false if it is not and nothing was done. After a
    /// fault what is on disk is unknown: the node stops.
    pub(super) fn commit(&self, index: u64, change: impl FnOnce(&mut FileSet)) -> Result<bool, Fault> {
        self.replace(Some(index), |committed, set| {
            change(set);
            committed.clean = false;
        })
    }

    /// Like [`Files::commit`], and makes way for a new index: its number.
    pub(super) fn commit_new_index(&self, change: impl FnOnce(&mut FileSet)) -> Result<u64, Fault> {
        let index = self.new_number();
        self.replace(None, |committed, set| {
            change(set);
            (committed.index, committed.clean) = (index, false);
        })?;
        Ok(index)
    }

    /// Says, durably, whether the index is closed in order.
    pub(super) fn commit_clean(&self, clean: bool) -> Result<(), Fault> {
        self.replace(None, |committed, _| committed.clean = clean).map(drop)
    }

    fn replace(&self, index: Option<u64>, change: impl FnOnce(&mut Committed, &mut FileSet)) -> Result<bool, Fault> {
        let mut committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        if index.is_some_and(|index| index != committed.index) {
            return Ok(false);
        }
        if let Some(fault) = &committed.failed {
            return Err(fault.clone());
        }
        let before = committed.set.clone();
        let mut set = FileSet::clone(&before);
        let mut next = Committed { index: committed.index, clean: committed.clean, set: before.clone(), failed: None };
        change(&mut next, &mut set);
        let listed = |file: &Arc<StoredFile>| Listed { number: file.number, bytes: file.bytes, indexed: file.indexed };
        let manifest = Manifest {
            cluster: self.cluster,
            next_number: self.next_number.load(Ordering::Relaxed),
            base: set.base.as_ref().map(listed),
            runs: set.runs.iter().map(listed).collect(),
            index: next.index,
            clean: next.clean,
        };
        if let Err(fault) = manifest.write(&self.disk, &self.directory) {
            committed.failed = Some(fault.clone());
            return Err(fault);
        }
        for file in before.newest_first().filter(|file| !set.contains(file.number)) {
            file.place.dispose();
        }
        next.set = Arc::new(set);
        self.published.store(next.set.clone());
        let position = next.set.checkpoint.as_ref().map(|checkpoint| checkpoint.position);
        self.flushed.send_if_modified(|flushed| std::mem::replace(flushed, position) != position);
        *committed = next;
        Ok(true)
    }
}

/// The name of a file.
pub(super) fn file_name(number: u64, kind: FileKind) -> String {
    match kind {
        FileKind::Run => format!("{number:08}.run"),
        FileKind::Base => format!("{number:08}.base"),
    }
}

/// Opens a file that a manifest lists with a length.
pub(super) fn open_listed(disk: &Arc<dyn Disk>, path: &Path, cluster: u128, bytes: u64) -> Result<Reader, Fault> {
    let reader = Reader::open(disk, path, cluster)?;
    let length = reader.length();
    if length != bytes {
        let at = length.min(bytes);
        return Err(Fault::damaged(path, at, format!("it should be {bytes} bytes long and is {length}")));
    }
    Ok(reader)
}

/// Whether a directory holds any run or base: whether a store there has ever flushed, or received a snapshot.
pub fn holds_data(environment: &Environment, directory: &Path) -> Result<bool, Fault> {
    let failed = |error| Fault::io("looking into", directory, &error);
    if !environment.disk.exists(directory).map_err(failed)? {
        return Ok(false);
    }
    let names = environment.disk.list(directory).map_err(failed)?;
    Ok(names.iter().any(|name| name.ends_with(".run") || name.ends_with(".base")))
}
