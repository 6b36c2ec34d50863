//! A disk of which one sync fails, as on Linux: once, and a second try would succeed without having written anything.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use meshstore::environment::disk::{Disk, File, OpenMode};

/// The disk. Clones are handles on the same disk.
#[derive(Clone)]
pub struct FailingDisk {
    inner: Arc<dyn Disk>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    /// The sync that fails: of the file, or directory, whose name ends like this, after so many that succeed.
    fail: Option<(String, u32)>,
    struck: Option<PathBuf>,
    again: u32,
    /// The paths of open files, which may be renamed meanwhile.
    open: BTreeMap<u64, PathBuf>,
    opened: u64,
}

struct FailingFile {
    inner: Box<dyn File>,
    number: u64,
    disk: FailingDisk,
}

impl FailingDisk {
    /// Nothing fails yet.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the sync after the next `skip` fail, of what has a name that ends with `ends`.
    pub fn fail_sync_of(&self, ends: &str, skip: u32) {
        let mut plan = self.plan();
        (plan.fail, plan.struck, plan.again) = (Some((ends.to_owned(), skip)), None, 0);
    }

    /// What failed.
    pub fn struck(&self) -> Option<PathBuf> {
        self.plan().struck.clone()
    }

    /// How often a sync of the same file was tried after it had failed.
    pub fn tried_again(&self) -> u32 {
        self.plan().again
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut plan = self.plan();
        if plan.struck.as_deref() == Some(path) {
            plan.again += 1;
        }
        let Some((ends, skip)) = &mut plan.fail else { return Ok(()) };
        if !path.to_string_lossy().ends_with(ends.as_str()) {
            return Ok(());
        }
        if let Some(left) = skip.checked_sub(1) {
            *skip = left;
            return Ok(());
        }
        (plan.fail, plan.struck) = (None, Some(path.to_owned()));
        Err(io::Error::other("simulated: sync failed"))
    }
}

impl Disk for FailingDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let inner = self.inner.open(path, mode)?;
        let mut plan = self.plan();
        plan.opened += 1;
        let number = plan.opened;
        plan.open.insert(number, path.to_owned());
        Ok(Box::new(FailingFile { inner, number, disk: self.clone() }))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        for path in self.plan().open.values_mut().filter(|path| *path == from) {
            *path = to.to_owned();
        }
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(path)?;
        self.inner.sync_dir(path)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.available_bytes(path)
    }
}

impl File for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        let path = self.disk.plan().open[&self.number].clone();
        self.disk.sync(&path)?;
        self.inner.sync()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }
}

impl Drop for FailingFile {
    fn drop(&mut self) {
        self.disk.plan().open.remove(&self.number);
    }
}
