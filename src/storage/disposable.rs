//! Files and directories that are removed once nobody uses them any more.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::environment::Disk;

/// A place on disk that may be disposed of: it is removed when the guard is dropped. A removal that
/// fails, or that a crash prevents, is made up for at the next start, which removes what no manifest names.
pub struct Disposable {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    is_directory: bool,
    disposed: AtomicBool,
}

impl Disposable {
    /// A file, which stays until it is disposed of.
    pub fn file(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path, is_directory: false, disposed: AtomicBool::new(false) }
    }

    /// A directory, which stays until it is disposed of.
    pub fn directory(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path, is_directory: true, disposed: AtomicBool::new(false) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has it removed when the guard is dropped.
    pub fn dispose(&self) {
        self.disposed.store(true, Ordering::Release);
    }

    /// Takes that back.
    pub fn keep(&self) {
        self.disposed.store(false, Ordering::Release);
    }
}

impl Drop for Disposable {
    fn drop(&mut self) {
        if !self.disposed.load(Ordering::Acquire) {
            return;
        }
        let removed =
            if self.is_directory { self.disk.remove_dir_all(&self.path) } else { self.disk.remove_file(&self.path) };
        if let Err(error) = removed {
            tracing::debug!(path = %self.path.display(), %error, "not removed; the next start does it");
        }
    }
}
