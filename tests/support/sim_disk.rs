//! A disk in memory that fails as real ones do, deterministically under a seed.
//!
//! It keeps two states of everything: what a running process sees (`live`), and what a power cut leaves
//! (`durable`). A file's bytes and length become durable with `sync` of the file, its name with
//! `sync_dir` of the directory. [`SimDisk::crash`] goes back to the durable state; what [`Loss`] says
//! about it decides how much of the unsynced survives by chance: bytes in pages of 512 (a page is never
//! torn within), names change by change (a rename is one change). Files opened before a crash only
//! answer errors after it.
//!
//! `/data` exists from the start and survives; every other directory is made by the code under test.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    path::{Component, Path},
    sync::{Arc, Mutex, MutexGuard},
};

use meshstore::environment::disk::{Disk, File, OpenMode};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// What is written atomically, in bytes.
pub const PAGE: usize = 512;

/// How much of what was not synced a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Everything,
    /// None of it: only the process was killed, the machine goes on.
    Nothing,
    /// For each file by chance: all, none, all behind some page, or any set of pages; each change of a name by
    /// chance.
    Torn,
}

/// The disk. Clones are handles on the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

type Ino = u64;

#[derive(Clone)]
struct Inner {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    /// Counts crashes: a handle of another epoch is of a dead process.
    epoch: u64,
    dead: bool,
    rng: StdRng,
    loss: Loss,
    capacity: Option<u64>,
    fail_syncs: u32,
    fail_at: Option<u64>,
    operations: u64,
    syncs: u64,
    written: u64,
    trace: Vec<String>,
}

#[derive(Clone)]
enum Node {
    Directory(Directory),
    File(Contents),
}

#[derive(Clone, Default)]
struct Directory {
    live: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
    /// Changes of names since the last sync, each of which is kept or lost as a whole.
    pending: Vec<Vec<(String, Option<Ino>)>>,
}

#[derive(Clone, Default)]
struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Pages in which `live` may differ from `durable`.
    dirty: BTreeSet<usize>,
    /// The handle that holds the lock.
    locked: Option<u64>,
}

const ROOT: Ino = 0;

fn dead() -> io::Error {
    io::Error::other("simulated: the process is dead")
}

fn names(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}

impl SimDisk {
    /// An empty disk (but for `/data`) whose chances come from `seed`. Crashes lose everything that was not synced
    /// until [`SimDisk::set_loss`] says otherwise.
    pub fn new(seed: u64) -> Self {
        let data = BTreeMap::from([("data".to_owned(), 1)]);
        let root = Directory { live: data.clone(), durable: data, pending: Vec::new() };
        let nodes = BTreeMap::from([(ROOT, Node::Directory(root)), (1, Node::Directory(Directory::default()))]);
        Self(Arc::new(Mutex::new(Inner {
            nodes,
            next: 2,
            epoch: 0,
            dead: false,
            rng: StdRng::seed_from_u64(seed),
            loss: Loss::Everything,
            capacity: None,
            fail_syncs: 0,
            fail_at: None,
            operations: 0,
            syncs: 0,
            written: 0,
            trace: Vec::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An independent copy of the disk as it is now. Files that are open stay with this one.
    pub fn fork(&self) -> Self {
        let mut copy = self.inner().clone();
        copy.epoch += 1;
        Self(Arc::new(Mutex::new(copy)))
    }

    /// Begins a new series of chances.
    pub fn reseed(&self, seed: u64) {
        self.inner().rng = StdRng::seed_from_u64(seed);
    }

    /// What later crashes take away.
    pub fn set_loss(&self, loss: Loss) {
        self.inner().loss = loss;
    }

    /// Cuts the power: goes back to what is durable (see [`Loss`]); every open file is void. The disk then works
    /// again, for the next process; `fail_at`, `fail_next_sync` are forgotten.
    pub fn crash(&self) {
        self.inner().crash();
    }

    /// How large the sum of all files may become, in bytes; `None`: without bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner().capacity = bytes;
    }

    /// So many bytes are left from now on.
    pub fn fill_up(&self, left: u64) {
        let mut inner = self.inner();
        inner.capacity = Some(inner.used() + left);
    }

    /// The next `sync` of a file fails, and as on Linux the pages that it should have written count as clean: a
    /// later `sync` succeeds without having written them.
    pub fn fail_next_sync(&self) {
        self.inner().fail_syncs = 1;
    }

    /// Kills the process at its `n`-th change of the disk from now (1 = the next): that change is made or not by
    /// chance, and from then on every operation fails, until [`SimDisk::crash`].
    pub fn fail_at(&self, n: u64) {
        let mut inner = self.inner();
        inner.fail_at = Some(inner.operations + n);
    }

    /// Whether `fail_at` has struck.
    pub fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// Changes of the disk so far: writes, syncs, renames, removals, lengths, creations.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Syncs of files so far, that succeeded.
    pub fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.inner().written
    }

    /// Every change of the disk so far, in words.
    pub fn trace(&self) -> Vec<String> {
        self.inner().trace.clone()
    }

    /// Flips one bit of a byte, in what is seen and what is durable.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64) {
        let at = offset as usize;
        self.edit(path, |bytes| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (at % 8);
            }
        });
    }

    /// Changes a file's bytes behind everybody's back, in what is seen and what is durable.
    pub fn edit(&self, path: impl AsRef<Path>, change: impl Fn(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let ino = inner.lookup(path.as_ref()).expect("the file exists");
        let contents = inner.file(ino).expect("it is a file");
        change(&mut contents.live);
        change(&mut contents.durable);
    }

    /// A file's bytes, as a process sees them.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let mut inner = self.inner();
        let ino = inner.lookup(path.as_ref()).expect("the file exists");
        inner.file(ino).expect("it is a file").live.clone()
    }

    fn handle(&self, ino: Ino, writable: bool) -> Box<dyn File> {
        let mut inner = self.inner();
        inner.next += 1;
        Box::new(SimFile { disk: self.clone(), ino, id: inner.next, epoch: inner.epoch, writable })
    }
}

impl Inner {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(dead()) } else { Ok(()) }
    }

    /// Begins a change: `Ok(true)` do it; `Ok(false)` do it, then answer [`dead`]; `Err` do not do it.
    fn change(&mut self, what: impl FnOnce() -> String) -> io::Result<bool> {
        self.alive()?;
        self.operations += 1;
        self.trace.push(what());
        if self.fail_at.is_none_or(|at| self.operations < at) {
            return Ok(true);
        }
        self.dead = true;
        if self.rng.random() { Ok(false) } else { Err(dead()) }
    }

    fn lookup(&self, path: &Path) -> io::Result<Ino> {
        let mut at = ROOT;
        for name in names(path) {
            let Some(Node::Directory(directory)) = self.nodes.get(&at) else {
                return Err(ErrorKind::NotADirectory.into());
            };
            at = *directory.live.get(&name).ok_or_else(|| {
                io::Error::new(ErrorKind::NotFound, format!("simulated: {} does not exist", path.display()))
            })?;
        }
        Ok(at)
    }

    fn parent(&self, path: &Path) -> io::Result<(Ino, String)> {
        let mut names = names(path);
        let name = names.pop().ok_or(ErrorKind::InvalidInput)?;
        let parent: std::path::PathBuf = std::iter::once("/".to_owned()).chain(names).collect();
        Ok((self.lookup(&parent)?, name))
    }

    fn directory(&mut self, ino: Ino) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, ino: Ino) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(contents)) => Ok(contents),
            Some(Node::Directory(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn add(&mut self, node: Node) -> Ino {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }

    /// Changes names of one directory, as one change.
    fn rename(&mut self, directory: Ino, changes: Vec<(String, Option<Ino>)>) -> io::Result<()> {
        let directory = self.directory(directory)?;
        apply(&mut directory.live, &changes);
        directory.pending.push(changes);
        Ok(())
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> u64 {
        let (mut used, mut open) = (0, vec![ROOT]);
        while let Some(ino) = open.pop() {
            match self.nodes.get(&ino) {
                Some(Node::Directory(directory)) => open.extend(directory.live.values()),
                Some(Node::File(contents)) => used += contents.live.len() as u64,
                None => {}
            }
        }
        used
    }

    /// How many of the bytes `from..to` by which a file shall grow still fit.
    fn room(&self, from: usize, to: usize) -> usize {
        let Some(capacity) = self.capacity else { return to };
        let free = capacity.saturating_sub(self.used());
        to.min(from.saturating_add(usize::try_from(free).unwrap_or(usize::MAX)))
    }

    fn crash(&mut self) {
        self.epoch += 1;
        (self.dead, self.fail_at, self.fail_syncs) = (false, None, 0);
        let (loss, rng) = (self.loss, &mut self.rng);
        for node in self.nodes.values_mut() {
            match node {
                Node::Directory(directory) => directory.crash(loss, rng),
                Node::File(contents) => contents.crash(loss, rng),
            }
        }
        let (mut named, mut open) = (BTreeSet::from([ROOT]), vec![ROOT]);
        while let Some(ino) = open.pop() {
            if let Some(Node::Directory(directory)) = self.nodes.get(&ino) {
                open.extend(directory.live.values().filter(|ino| named.insert(**ino)));
            }
        }
        self.nodes.retain(|ino, _| named.contains(ino));
    }
}

fn apply(names: &mut BTreeMap<String, Ino>, changes: &[(String, Option<Ino>)]) {
    for (name, ino) in changes {
        match ino {
            Some(ino) => names.insert(name.clone(), *ino),
            None => names.remove(name),
        };
    }
}

impl Directory {
    fn sync(&mut self) {
        self.durable = self.live.clone();
        self.pending.clear();
    }

    fn crash(&mut self, loss: Loss, rng: &mut StdRng) {
        for changes in std::mem::take(&mut self.pending) {
            let kept = match loss {
                Loss::Everything => false,
                Loss::Nothing => true,
                Loss::Torn => rng.random(),
            };
            if kept {
                apply(&mut self.durable, &changes);
            }
        }
        self.live = self.durable.clone();
    }
}

fn pages(from: usize, to: usize) -> std::ops::Range<usize> {
    from / PAGE..to.div_ceil(PAGE)
}

impl Contents {
    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        if end > self.live.len() {
            self.live.resize(end, 0);
        }
        self.live[at..end].copy_from_slice(bytes);
        self.dirty.extend(pages(at, end));
    }

    fn set_len(&mut self, len: usize) {
        // What lies behind the smaller length must not come back when the file grows again.
        self.dirty.extend(pages(self.live.len().min(len), self.live.len().max(len).min(self.durable.len())));
        self.live.resize(len, 0);
    }

    fn persist(&mut self, page: usize) {
        let start = page * PAGE;
        let end = (start + PAGE).min(self.live.len()).min(self.durable.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.live[start..end]);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            self.persist(page);
        }
    }

    fn crash(&mut self, loss: Loss, rng: &mut StdRng) {
        self.locked = None;
        let fate = match loss {
            Loss::Everything => 0,
            Loss::Nothing => 1,
            Loss::Torn => rng.random_range(0..4),
        };
        match fate {
            0 => {}
            1 => self.sync(),
            choice => {
                let cut = rng.random_range(0..=self.dirty.last().copied().unwrap_or(0) + 1);
                let kept: Vec<usize> = self
                    .dirty
                    .iter()
                    .copied()
                    .filter(|page| if choice == 2 { *page < cut } else { rng.random() })
                    .collect();
                // A grown file keeps its old length or reaches to some page that it kept.
                if self.live.len() != self.durable.len() && rng.random() {
                    self.durable.resize(self.live.len(), 0);
                }
                for page in kept {
                    self.persist(page);
                }
            }
        }
        self.dirty.clear();
        self.live = self.durable.clone();
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.alive()?;
        let mut at = ROOT;
        for name in names(path) {
            if let Some(ino) = inner.directory(at)?.live.get(&name) {
                at = *ino;
                continue;
            }
            let whole = inner.change(|| format!("create directory {}", path.display()))?;
            let new = inner.add(Node::Directory(Directory::default()));
            inner.rename(at, vec![(name, Some(new))])?;
            if !whole {
                return Err(dead());
            }
            at = new;
        }
        inner.directory(at).map(drop)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut inner = self.inner();
        inner.alive()?;
        let found = inner.lookup(path);
        let ino = match (mode, found) {
            (OpenMode::Create, Err(error)) if error.kind() == ErrorKind::NotFound => {
                let (parent, name) = inner.parent(path)?;
                inner.directory(parent)?;
                let whole = inner.change(|| format!("create {}", path.display()))?;
                let new = inner.add(Node::File(Contents::default()));
                inner.rename(parent, vec![(name, Some(new))])?;
                if whole { new } else { return Err(dead()) }
            }
            (OpenMode::Create, Ok(ino)) => {
                inner.file(ino)?;
                let whole = inner.change(|| format!("empty {}", path.display()))?;
                inner.file(ino)?.set_len(0);
                if whole { ino } else { return Err(dead()) }
            }
            (_, found) => found?,
        };
        inner.file(ino)?;
        drop(inner);
        Ok(self.handle(ino, mode != OpenMode::Read))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut inner = self.inner();
        inner.alive()?;
        let ino = inner.lookup(path)?;
        Ok(inner.directory(ino)?.live.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inner = self.inner();
        inner.alive()?;
        match inner.lookup(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.alive()?;
        let ino = inner.lookup(from)?;
        let ((old, old_name), (new, new_name)) = (inner.parent(from)?, inner.parent(to)?);
        if let Ok(target) = inner.lookup(to)
            && let Ok(directory) = inner.directory(target)
            && !directory.live.is_empty()
        {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let whole = inner.change(|| format!("rename {} to {}", from.display(), to.display()))?;
        if old == new {
            inner.rename(old, vec![(old_name, None), (new_name, Some(ino))])?;
        } else {
            inner.rename(old, vec![(old_name, None)])?;
            inner.rename(new, vec![(new_name, Some(ino))])?;
        }
        if whole { Ok(()) } else { Err(dead()) }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.alive()?;
        let ino = inner.lookup(path)?;
        inner.file(ino)?;
        let (parent, name) = inner.parent(path)?;
        let whole = inner.change(|| format!("remove {}", path.display()))?;
        inner.rename(parent, vec![(name, None)])?;
        if whole { Ok(()) } else { Err(dead()) }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let children = self.list(path)?;
        for name in children {
            let child = path.join(name);
            let is_directory = {
                let mut inner = self.inner();
                let ino = inner.lookup(&child)?;
                inner.directory(ino).is_ok()
            };
            if is_directory { self.remove_dir_all(&child)? } else { self.remove_file(&child)? }
        }
        let mut inner = self.inner();
        let (parent, name) = inner.parent(path)?;
        let whole = inner.change(|| format!("remove directory {}", path.display()))?;
        inner.rename(parent, vec![(name, None)])?;
        if whole { Ok(()) } else { Err(dead()) }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.alive()?;
        let ino = inner.lookup(path)?;
        let whole = inner.change(|| format!("sync directory {}", path.display()))?;
        inner.directory(ino)?.sync();
        if whole { Ok(()) } else { Err(dead()) }
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        let inner = self.inner();
        inner.alive()?;
        Ok(inner.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(inner.used())))
    }
}

struct SimFile {
    disk: SimDisk,
    ino: Ino,
    id: u64,
    epoch: u64,
    writable: bool,
}

impl SimFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner();
        inner.alive()?;
        if inner.epoch == self.epoch { Ok(inner) } else { Err(dead()) }
    }

    fn writable(&self) -> io::Result<MutexGuard<'_, Inner>> {
        if self.writable { self.alive() } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.alive()?;
        let rest = inner.file(self.ino)?.live.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.writable()?;
        let (ino, at) = (self.ino, offset as usize);
        let whole = inner.change(|| format!("write {} bytes at {at} of file {ino}", bytes.len()))?;
        let length = inner.file(ino)?.live.len();
        let fits = inner.room(length, (at + bytes.len()).max(length)).saturating_sub(at).min(bytes.len());
        inner.file(ino)?.write(&bytes[..fits], at);
        inner.written += fits as u64;
        match whole {
            true if fits == bytes.len() => Ok(()),
            true => Err(ErrorKind::StorageFull.into()),
            false => Err(dead()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.file(self.ino)?.live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.writable()?;
        let ino = self.ino;
        let whole = inner.change(|| format!("set the length of file {ino} to {len}"))?;
        let (old, new) = (inner.file(ino)?.live.len(), len as usize);
        if inner.room(old, new.max(old)) < new {
            return Err(ErrorKind::StorageFull.into());
        }
        inner.file(ino)?.set_len(new);
        if whole { Ok(()) } else { Err(dead()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.alive()?;
        let ino = self.ino;
        let whole = inner.change(|| format!("sync file {ino}"))?;
        if inner.fail_syncs > 0 {
            inner.fail_syncs -= 1;
            inner.file(ino)?.dirty.clear();
            return Err(io::Error::other("simulated: sync failed"));
        }
        inner.file(ino)?.sync();
        inner.syncs += 1;
        if whole { Ok(()) } else { Err(dead()) }
    }

    fn try_lock(&self) -> io::Result<bool> {
        let id = self.id;
        let mut inner = self.alive()?;
        let locked = &mut inner.file(self.ino)?.locked;
        Ok(*locked.get_or_insert(id) == id)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let id = self.id;
        if let Ok(mut inner) = self.alive()
            && let Ok(contents) = inner.file(self.ino)
            && contents.locked == Some(id)
        {
            contents.locked = None;
        }
    }
}
