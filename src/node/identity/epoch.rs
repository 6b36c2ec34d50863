//! A data directory whose content is replaced as a whole: prepared beside the old one, switched by one rename.
//!
//! `new-epoch.tmp` is being made; once it is complete and synced it is renamed to `new-epoch`, which is the point of no
//! return: whoever opens the directory then first moves its parts to where they belong, and those of before to
//! `old-epoch-N`. That can be cut off anywhere and is gone on with by the next. Inside one directory, because that may be
//! the root of a file system, which has no other name.

use std::path::{Path, PathBuf};

use super::{StoredIdentity, lock, read, write};
use crate::{
    environment::{Disk, Environment, disk::File},
    error::Fault,
    raft::types::NodeId,
};

/// The parts of a data directory; the identity is the last to be replaced.
const PARTS: [&str; 3] = ["mesh_consensus_log", "storage", super::FILE];
const MAKING: &str = "new-epoch.tmp";
pub(super) const MADE: &str = "new-epoch";
const BEFORE: &str = "old-epoch-";
/// Where `meshstore recover node` puts what it sets aside.
pub(super) const ASIDE: &str = "set-aside-";

/// A data directory of a node that does not run, held so that none can start.
pub struct Held {
    path: PathBuf,
    stored: Option<StoredIdentity>,
    /// Why the identity cannot be read.
    pub damage: Option<Fault>,
    _lock: Box<dyn File>,
}

impl Held {
    /// Holds a directory that exists and is a node's.
    ///
    /// Errors: it is none, is in use, or a recovery of it was cut off.
    pub fn hold(environment: &Environment, path: &Path) -> Result<Self, Fault> {
        let disk = environment.disk.as_ref();
        let failed = |error| Fault::io("cannot look into", path, &error);
        let names = disk.list(path).map_err(failed)?;
        if !PARTS.iter().any(|part| names.iter().any(|name| name == part)) && !names.iter().any(|name| name == MADE) {
            return Err(Fault::new(format!("{} is no data directory of meshstore", path.display())));
        }
        let lock = lock(disk, path)?;
        roll_forward(disk, path)?;
        let (stored, damage) = match read(disk, path) {
            Ok(stored) => (stored, None),
            Err(fault) => (None, Some(fault)),
        };
        Ok(Self { path: path.to_owned(), stored, damage, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is, with its own id and its cluster; `None` if its identity is missing or damaged.
    pub fn identity(&self) -> Option<(NodeId, u128, Option<u128>)> {
        self.stored.as_ref().map(|stored| (stored.node, stored.directory, stored.cluster))
    }

    /// Where a new epoch is to be made; empty.
    pub fn begin(&self, disk: &dyn Disk) -> Result<PathBuf, Fault> {
        let making = self.path.join(MAKING);
        self.abandon(disk)?;
        disk.create_dir_all(&making).map_err(|error| Fault::io("making", &making, &error))?;
        Ok(making)
    }

    /// Removes what was made of a new epoch.
    pub fn abandon(&self, disk: &dyn Disk) -> Result<(), Fault> {
        let making = self.path.join(MAKING);
        let removed = || if disk.exists(&making)? { disk.remove_dir_all(&making) } else { Ok(()) };
        removed().map_err(|error| Fault::io("removing", &making, &error))
    }

    /// Switches to the new epoch that was made: it belongs to this node with another directory id, in another cluster.
    /// Where the old parts are now.
    pub fn commit(self, disk: &dyn Disk, directory: u128, cluster: u128) -> Result<PathBuf, Fault> {
        let making = self.path.join(MAKING);
        let Some(old) = &self.stored else { return Err(Fault::bug("an epoch follows none")) };
        let stored = StoredIdentity { directory, cluster: Some(cluster), founder: false, started: true, ..old.clone() };
        write(disk, &making, &stored)?;
        let failed = |error| Fault::io("cannot look into", &self.path, &error);
        let before = free_name(&self.path, BEFORE, &disk.list(&self.path).map_err(failed)?)?;
        disk.create_dir_all(&before).map_err(|error| Fault::io("making", &before, &error))?;
        disk.sync_dir(&self.path).map_err(|error| Fault::io("syncing", &self.path, &error))?;
        let made = self.path.join(MADE);
        disk.rename(&making, &made).map_err(|error| Fault::io("putting in place", &making, &error))?;
        disk.sync_dir(&self.path).map_err(|error| Fault::io("syncing", &self.path, &error))?;
        roll_forward(disk, &self.path)?.ok_or_else(|| Fault::bug("the new epoch is gone"))
    }

    /// Sets everything aside that a node had here, so that the directory can be another node's: where it is now.
    pub fn set_aside(self, disk: &dyn Disk) -> Result<PathBuf, Fault> {
        let failed = |error| Fault::io("setting aside what is in", &self.path, &error);
        let names = disk.list(&self.path).map_err(failed)?;
        let aside = free_name(&self.path, ASIDE, &names)?;
        disk.create_dir_all(&aside).map_err(failed)?;
        // The identity first: without it what is left belongs to nobody, and no node starts on it.
        let moved = names.iter().filter(|name| !super::HARMLESS.contains(&name.as_str()) && !name.starts_with(ASIDE));
        let mut moved: Vec<&String> = moved.collect();
        moved.sort_by_key(|name| *name != super::FILE);
        for name in moved {
            disk.rename(&self.path.join(name), &aside.join(name)).map_err(failed)?;
            disk.sync_dir(&self.path).map_err(failed)?;
        }
        disk.sync_dir(&aside).map_err(failed)?;
        Ok(aside)
    }
}

/// `PREFIX-N` with the lowest number that is not there.
fn free_name(path: &Path, prefix: &str, names: &[String]) -> Result<PathBuf, Fault> {
    let number = (1..u32::MAX).find(|number| !names.contains(&format!("{prefix}{number}")));
    let name = number.map(|number| path.join(format!("{prefix}{number}")));
    name.ok_or_else(|| Fault::new(format!("there is no name left in {}", path.display())))
}

/// Finishes the switch to a new epoch, if one was begun: where the old parts are then.
pub(super) fn roll_forward(disk: &dyn Disk, path: &Path) -> Result<Option<PathBuf>, Fault> {
    let made = path.join(MADE);
    let failed = |error| Fault::io("switching to the new epoch in", path, &error);
    if !disk.exists(&made).map_err(failed)? {
        return Ok(None);
    }
    let names = disk.list(path).map_err(failed)?;
    let numbers = names.iter().filter_map(|name| name.strip_prefix(BEFORE)?.parse::<u32>().ok());
    // Made just before the point of no return.
    let newest = numbers.max().ok_or_else(|| Fault::bug("a new epoch without a place for the old"))?;
    let before = path.join(format!("{BEFORE}{newest}"));
    // A copy, so that the directory is never without an identity.
    if let Some(old) = read(disk, path)?.filter(|_| disk.exists(&made.join(super::FILE)).unwrap_or(true)) {
        write(disk, &before, &old)?;
    }
    let switch = || {
        for part in PARTS {
            let (new, place, old) = (made.join(part), path.join(part), before.join(part));
            if !disk.exists(&new)? {
                continue;
            }
            if disk.exists(&place)? && !disk.exists(&old)? {
                disk.rename(&place, &old)?;
                disk.sync_dir(&before)?;
            }
            disk.rename(&new, &place)?;
            disk.sync_dir(path)?;
        }
        disk.remove_dir_all(&made)?;
        disk.sync_dir(path)
    };
    switch().map_err(failed)?;
    tracing::warn!(path = %path.display(), before = %before.display(), "switched to the new epoch");
    Ok(Some(before))
}
