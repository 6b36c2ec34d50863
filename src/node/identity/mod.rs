//! Whose data directory is this?
//!
//! The first thing written into an empty directory is its identity: a random id, the node it belongs to,
//! and, as soon as there is one, the cluster. A directory is thereafter that node's and that cluster's for
//! good: a node whose directory was wiped has forgotten how it voted, and must not come back under its old
//! id. [`form`] is how an empty cluster comes to be, and how a wiped node is noticed; [`join`] how a new node becomes a member.

mod epoch;
pub mod form;
mod join;
mod recognise;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

pub use epoch::Held;
pub use form::{Address, Formed, PAUSE, check_membership, form_cluster, identify, lost_log};
pub use join::{Joining, join_cluster};
pub use recognise::recognise;

use crate::{
    environment::{
        Environment,
        disk::{Disk, File, OpenMode, sync_parent},
    },
    error::Fault,
    raft::{
        network::identity::{Identity, hex},
        peer::Adopt,
        types::NodeId,
    },
    storage::codec::{self, DecodeError, Kind},
};

/// The layout of data directories that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
const FILE: &str = "IDENTITY";
const NEW_FILE: &str = "IDENTITY.tmp";
const LOCK: &str = "LOCK";
/// What a directory may hold and still count as empty: a crash may have come before the identity was
/// complete, and a file system of its own has a `lost+found`.
const HARMLESS: [&str; 3] = [LOCK, NEW_FILE, "lost+found"];
/// An identity is about 60 bytes; anything much longer is not one.
const FILE_BYTES_MAX: u64 = 4096;

/// What `IDENTITY` holds. Frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredIdentity {
    format: u32,
    directory: u128,
    node: NodeId,
    cluster: Option<u128>,
    /// Whether this node founded the cluster: then it is the one that initialises it, and no other is.
    founder: bool,
    /// Whether the log has ever been seen with something in it. If it is empty later, it was lost.
    started: bool,
}

/// A data directory, locked for this process until it is dropped or unlocked.
pub struct Directory {
    environment: Environment,
    path: PathBuf,
    identity: Identity,
    stored: Mutex<Written>,
    lock: Mutex<Option<Box<dyn File>>>,
}

/// The identity as it is on disk, or why that is not known.
struct Written {
    stored: StoredIdentity,
    failed: Option<Fault>,
}

impl Directory {
    /// Opens a node's data directory; an empty or missing one becomes this node's.
    ///
    /// Errors: another process has it open, it belongs to another node, it holds something else, it was
    /// written by a newer program, its identity is damaged, or it cannot be written.
    pub fn open(environment: &Environment, path: &Path, node: NodeId) -> Result<Self, Fault> {
        let disk = environment.disk.as_ref();
        disk.create_dir_all(path).map_err(|error| Fault::io("cannot create the data directory", path, &error))?;
        // Before the lock file is created: a directory that is not ours is left as it is.
        refuse_foreign(disk, path)?;
        let lock = lock(disk, path)?;
        epoch::roll_forward(disk, path)?;
        let stored = match read(disk, path)? {
            Some(stored) => stored,
            None => {
                let directory = environment.clock.random();
                let stored =
                    StoredIdentity { format: FORMAT, directory, node, cluster: None, founder: false, started: false };
                write(disk, path, &stored)?;
                sync_parent(disk, path)?;
                tracing::info!(path = %path.display(), node, directory = hex(directory), "a new data directory");
                stored
            }
        };
        if stored.node != node {
            return Err(Fault::new(format!(
                "this directory belongs to node {}, not {node}: {}; give node {node} a data directory of its own",
                stored.node,
                path.display()
            )));
        }
        let identity = Identity::new(node, stored.directory, stored.cluster);
        let stored = Mutex::new(Written { stored, failed: None });
        Ok(Self { environment: environment.clone(), path: path.into(), identity, stored, lock: Mutex::new(Some(lock)) })
    }

    /// Lets others open it, though whoever has this may still look at it. Nothing is written here any more.
    pub fn unlock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who this node is. All clones see the cluster as soon as the directory belongs to one.
    pub fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// Makes the directory belong to a cluster, durably. Again with the same one is fine.
    ///
    /// Errors: it belongs to another, or cannot be written.
    pub fn set_cluster(&self, cluster: u128) -> Result<(), Fault> {
        match self.adopt(cluster)? {
            belongs if belongs == cluster => Ok(()),
            belongs => Err(Fault::new(format!(
                "{} belongs to cluster {}, not {}",
                self.path.display(),
                hex(belongs),
                hex(cluster)
            ))),
        }
    }

    /// Makes the directory belong to a cluster that this node founds, durably: after a crash it goes on to found
    /// that one.
    ///
    /// Errors: it belongs to a cluster that another node founded, or cannot be written.
    fn found(&self, cluster: u128) -> Result<(), Fault> {
        let stored = self.change(|stored| {
            if stored.cluster.is_none() {
                (stored.cluster, stored.founder) = (Some(cluster), true);
            }
        })?;
        if stored.cluster == Some(cluster) && stored.founder {
            self.identity.join(cluster);
            return Ok(());
        }
        Err(Fault::new(format!(
            "node {} was about to found a cluster when another node made it join cluster {}: the nodes' cluster.toml \
             differ, and each names another lowest node; make them equal",
            stored.node,
            stored.cluster.map(hex).unwrap_or_default()
        )))
    }

    /// Whether this node founded its cluster.
    fn founder(&self) -> bool {
        self.written().stored.founder
    }

    /// Remembers, durably, that the log has held something: from now on an empty log is a lost one.
    ///
    /// Errors: it cannot be written.
    pub fn set_started(&self) -> Result<(), Fault> {
        self.change(|stored| stored.started = true).map(drop)
    }

    /// Whether the log has ever been seen with something in it.
    pub fn started(&self) -> bool {
        self.written().stored.started
    }

    /// The fault that kept the identity from being written, if there was one.
    ///
    /// Errors: that fault.
    pub fn check(&self) -> Result<(), Fault> {
        self.written().failed.clone().map_or(Ok(()), Err)
    }

    /// Changes the identity, on disk first.
    fn change(&self, change: impl FnOnce(&mut StoredIdentity)) -> Result<StoredIdentity, Fault> {
        let mut written = self.written();
        // After a failed sync nobody knows what is on disk, and a later one that succeeds proves nothing.
        if let Some(fault) = &written.failed {
            return Err(fault.clone());
        }
        let mut stored = written.stored.clone();
        change(&mut stored);
        if stored != written.stored {
            if let Err(fault) = write(self.environment.disk.as_ref(), &self.path, &stored) {
                written.failed = Some(fault.clone());
                return Err(fault);
            }
            written.stored = stored.clone();
        }
        Ok(stored)
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        // What it guards is replaced whole or not at all.
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Adopt for Directory {
    fn adopt(&self, cluster: u128) -> Result<u128, Fault> {
        let stored = self.change(|stored| {
            stored.cluster.get_or_insert(cluster);
        })?;
        let belongs = stored.cluster.unwrap_or(cluster);
        self.identity.join(belongs);
        Ok(belongs)
    }
}

fn refuse_foreign(disk: &dyn Disk, path: &Path) -> Result<(), Fault> {
    let names = disk.list(path).map_err(|error| Fault::io("cannot list the data directory", path, &error))?;
    if names.iter().any(|name| name == FILE || name == epoch::MADE) {
        return Ok(());
    }
    let harmless = |name: &String| HARMLESS.contains(&name.as_str()) || name.starts_with(epoch::ASIDE);
    let foreign: Vec<_> = names.iter().filter(|name| !harmless(name)).collect();
    let Some(first) = foreign.first() else { return Ok(()) };
    Err(Fault::new(format!(
        "{} is not empty ({} names, one is {first:?}) and has no {FILE} file, so it is no data directory of \
         meshstore, or has lost what makes it one: give the node an empty directory (and, if it was a member of \
         a cluster, a new node id), or restore the {FILE} file",
        path.display(),
        foreign.len(),
    )))
}

fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn File>, Fault> {
    let lock_path = path.join(LOCK);
    let failed = |error: io::Error| Fault::io("cannot lock", &lock_path, &error);
    let lock = disk.open(&lock_path, OpenMode::Create).map_err(failed)?;
    if lock.try_lock().map_err(failed)? {
        return Ok(lock);
    }
    Err(Fault::new(format!("data directory {} is in use by another process", path.display())))
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<StoredIdentity>, Fault> {
    let file_path = path.join(FILE);
    let failed = |error: io::Error| Fault::io("cannot read", &file_path, &error);
    if !disk.exists(&file_path).map_err(failed)? {
        return Ok(None);
    }
    let file = disk.open(&file_path, OpenMode::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    if len > FILE_BYTES_MAX {
        return Err(Fault::damaged(&file_path, FILE_BYTES_MAX, format!("{len} bytes are too many for an identity")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let read = file.read_at(&mut bytes, 0).map_err(failed)?;
    bytes.truncate(read);
    decode(&file_path, &bytes).map(Some)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<StoredIdentity, Fault> {
    let stored: StoredIdentity = codec::decode(Kind::Identity, bytes).map_err(|error| match error {
        DecodeError::Newer { .. } => Fault::new(format!("{}: {error}", path.display())),
        // The first byte of what follows the identity, or of the identity itself.
        _ => match codec::sealed_len(bytes) {
            Some(len) if len < bytes.len() => Fault::damaged(path, len as u64, error),
            _ => Fault::damaged(path, 0, error),
        },
    })?;
    if stored.format > FORMAT {
        return Err(Fault::new(format!(
            "{}: data directory format {} is newer than this program knows ({FORMAT}); use a newer meshstore",
            path.display(),
            stored.format
        )));
    }
    Ok(stored)
}

/// Replaces the identity wholly or not at all.
fn write(disk: &dyn Disk, path: &Path, stored: &StoredIdentity) -> Result<(), Fault> {
    let (new, file) = (path.join(NEW_FILE), path.join(FILE));
    let failed = |error: io::Error| Fault::io("cannot write", &new, &error);
    {
        let handle = disk.open(&new, OpenMode::Create).map_err(failed)?;
        handle.write_all_at(&codec::encode(Kind::Identity, stored), 0).map_err(failed)?;
        // The bytes must be there before the name is: after the rename only they are left.
        handle.sync().map_err(failed)?;
    }
    disk.rename(&new, &file).map_err(|error| Fault::io("cannot rename to", &file, &error))?;
    disk.sync_dir(path).map_err(|error| Fault::io("cannot sync", path, &error))
}

#[cfg(test)]
mod tests;
