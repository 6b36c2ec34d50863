//! The engine on disk: sled, as an index that can be thrown away.
//!
//! What was measured of sled 0.34.7 decides how it is used here:
//!
//! * Plain `insert` and `remove`, never a batch or a transaction: those take a lock of the whole process,
//!   and beside them reads fall to a tenth.
//! * Its `flush` never fsyncs. After it every file of its directory is synced through a descriptor of our own.
//! * A leaf holds up to 17 values whatever their size, and a page over 128 KiB becomes a file of its own
//!   that is never synced. So a value over [`PART_BYTES`] is cut into parts in a second tree, which keeps every
//!   page below that.
//! * It may panic on damaged files, in `open` and later. Whoever opens an index that lay on disk catches that and
//!   rebuilds ([`super::start`]).
//!
//! In the tree `pairs` a value begins with a byte that says whether it is all here or in parts. Parts stand in
//! the tree `parts` under (id, number); an id is used once, so a reader never joins parts of two values.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use sled::{Config, Db, IVec, Mode, Tree};

use super::engine::{Engine, PAGE_BYTES, Page, Pair};
use crate::error::Fault;

/// Longest part of a value, in bytes: 17 of them and their keys fit into a page of 128 KiB.
const PART_BYTES: usize = 5 << 10;
/// How often sled's own thread moves live pages out of mostly dead segments. Without it the file only grows.
const CLEAN_EVERY: Duration = Duration::from_millis(1_000);
/// How long to wait for the threads of an index that was just closed in this process.
const LOCK_TRIES: u32 = 200;
/// See [`LOCK_TRIES`].
const LOCK_WAIT: Duration = Duration::from_millis(10);

const WHOLE: u8 = 0;
const IN_PARTS: u8 = 1;

/// sled in a directory of its own.
pub(super) struct Sled {
    directory: PathBuf,
    db: Db,
    pairs: Tree,
    parts: Tree,
    /// The id of the next value in parts.
    next_id: AtomicU64,
    /// What a value is put together in before sled copies it.
    scratch: Mutex<Vec<u8>>,
}

impl Sled {
    /// Opens the index in a directory, or creates it. May panic on damaged files.
    pub(super) fn open(directory: &Path, cache_bytes: u64) -> Result<Self, Fault> {
        let failed = |doing: &str, error: &dyn std::fmt::Display| {
            Fault::new(format!("{doing} the index {}: {error}", directory.display()))
        };
        let config = Config::new()
            .path(directory)
            .cache_capacity(cache_bytes)
            .mode(Mode::HighThroughput)
            .flush_every_ms(u64::try_from(CLEAN_EVERY.as_millis()).ok());
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                Err(error) if tries < LOCK_TRIES && error.to_string().contains("could not acquire lock") => {
                    tries += 1;
                    thread::sleep(LOCK_WAIT);
                }
                Err(error) => return Err(failed("opening", &error)),
            }
        };
        let tree = |name| db.open_tree(name).map_err(|error| failed("opening", &error));
        let (pairs, parts) = (tree("pairs")?, tree("parts")?);
        let last = parts.last().map_err(|error| failed("reading", &error))?;
        let last_id = last.and_then(|(key, _)| key.first_chunk::<8>().map(|id| u64::from_be_bytes(*id)));
        let next_id = AtomicU64::new(last_id.map_or(0, |id| id.saturating_add(1)));
        let opened = Self { directory: directory.to_owned(), db, pairs, parts, next_id, scratch: Mutex::default() };
        Ok(opened)
    }

    fn fault(&self, error: sled::Error) -> Fault {
        Fault::new(format!("the index {} is broken: {error}", self.directory.display()))
    }

    fn damaged(&self, key: &[u8], what: &str) -> Fault {
        Fault::new(format!("the index {} is damaged at key {}: {what}", self.directory.display(), key.escape_ascii()))
    }

    /// The value behind what the tree `pairs` says; `None` if its parts were removed meanwhile.
    fn load(&self, key: &[u8], stored: &[u8]) -> Result<Option<Bytes>, Fault> {
        match stored.split_first() {
            Some((&WHOLE, value)) => Ok(Some(Bytes::copy_from_slice(value))),
            Some((&IN_PARTS, head)) => {
                let (id, length) = parse_head(head).ok_or_else(|| self.damaged(key, "not the head of a value"))?;
                let mut value = BytesMut::new();
                for number in 0..part_count(length) {
                    match self.parts.get(part_key(id, number)).map_err(|error| self.fault(error))? {
                        Some(part) => value.extend_from_slice(&part),
                        None => return Ok(None),
                    }
                }
                if value.len() as u64 != length {
                    return Err(self.damaged(key, "its parts do not add up"));
                }
                Ok(Some(value.freeze()))
            }
            _ => Err(self.damaged(key, "not a value")),
        }
    }

    /// The value of a key, given what the tree said of it: asked again for as long as it changes meanwhile.
    fn follow(&self, key: &[u8], mut stored: IVec) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(value) = self.load(key, &stored)? {
                return Ok(Some(value));
            }
            match self.pairs.get(key).map_err(|error| self.fault(error))? {
                None => return Ok(None),
                Some(now) if now == stored => return Err(self.damaged(key, "a part is missing")),
                Some(now) => stored = now,
            }
        }
    }

    fn put(&self, key: &[u8], value: &[u8], scratch: &mut Vec<u8>) -> Result<Option<IVec>, sled::Error> {
        scratch.clear();
        if value.len() <= PART_BYTES {
            scratch.push(WHOLE);
            scratch.extend_from_slice(value);
        } else {
            // The parts first: a reader who finds the head finds them all.
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            for (number, part) in (0u32..).zip(value.chunks(PART_BYTES)) {
                self.parts.insert(part_key(id, number), part)?;
            }
            scratch.push(IN_PARTS);
            scratch.extend_from_slice(&id.to_le_bytes());
            scratch.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
        self.pairs.insert(key, scratch.as_slice())
    }

    /// Removes the parts of a value that was replaced.
    fn discard(&self, replaced: Option<IVec>) -> Result<(), sled::Error> {
        if let Some((&IN_PARTS, head)) = replaced.as_deref().and_then(<[u8]>::split_first)
            && let Some((id, length)) = parse_head(head)
        {
            for number in 0..part_count(length) {
                self.parts.remove(part_key(id, number))?;
            }
        }
        Ok(())
    }
}

impl Engine for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.pairs.get(key).map_err(|error| self.fault(error))? {
            Some(stored) => self.follow(key, stored),
            None => Ok(None),
        }
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Page, Fault> {
        let mut page = Page::default();
        if end.is_some_and(|end| end <= start) {
            page.complete = true;
            return Ok(page);
        }
        let found = match end {
            Some(end) => self.pairs.range(start..end),
            None => self.pairs.range(start..),
        };
        let mut bytes = 0;
        for pair in found {
            let (key, stored) = pair.map_err(|error| self.fault(error))?;
            if page.pairs.len() >= limit || bytes >= PAGE_BYTES {
                return Ok(page);
            }
            if let Some(value) = self.follow(&key, stored)? {
                bytes += key.len() + value.len();
                page.pairs.push((Bytes::copy_from_slice(&key), value));
            }
        }
        page.complete = true;
        Ok(page)
    }

    fn write(&self, pairs: &[Pair]) -> Result<(), Fault> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in pairs {
            let replaced = match value {
                Some(value) => self.put(key, value, &mut scratch),
                None => self.pairs.remove(key),
            };
            replaced.and_then(|replaced| self.discard(replaced)).map_err(|error| self.fault(error))?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Fault> {
        self.db.flush().map_err(|error| self.fault(error))?;
        sync_index(&self.directory)
    }

    fn close(self: Box<Self>) -> Result<bool, Fault> {
        self.db.flush().map_err(|error| self.fault(error))?;
        let Self { directory, db, pairs, parts, .. } = *self;
        // sled's threads write until the last handle is gone; only then is there something to sync for good.
        drop((pairs, parts, db));
        sync_index(&directory)?;
        Ok(true)
    }
}

fn part_key(id: u64, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (front, back) = key.split_at_mut(8);
    front.copy_from_slice(&id.to_be_bytes());
    back.copy_from_slice(&number.to_be_bytes());
    key
}

fn part_count(length: u64) -> u32 {
    u32::try_from(length.div_ceil(PART_BYTES as u64)).unwrap_or(u32::MAX)
}

/// Id and length of a value in parts.
fn parse_head(head: &[u8]) -> Option<(u64, u64)> {
    let (id, length) = head.split_first_chunk::<8>()?;
    let length = length.first_chunk::<8>().filter(|whole| whole.len() == length.len())?;
    Some((u64::from_le_bytes(*id), u64::from_le_bytes(*length)))
}

/// Syncs all files of an index, and its name.
fn sync_index(directory: &Path) -> Result<(), Fault> {
    sync_files(directory)?;
    directory.parent().map_or(Ok(()), sync_path)
}

/// Syncs all files of a directory, its directories, and itself.
fn sync_files(directory: &Path) -> Result<(), Fault> {
    let listed = |error: std::io::Error| Fault::io("listing", directory, &error);
    for entry in fs::read_dir(directory).map_err(listed)? {
        let path = entry.map_err(listed)?.path();
        if path.is_dir() { sync_files(&path)? } else { sync_path(&path)? }
    }
    sync_path(directory)
}

fn sync_path(path: &Path) -> Result<(), Fault> {
    match fs::File::open(path).and_then(|file| file.sync_all()) {
        // sled's thread replaces its snapshot file whenever it likes, having synced the new one.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(|error| Fault::io("syncing", path, &error)),
    }
}
