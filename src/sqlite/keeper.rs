//! Who writes the file.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{
    file::Place,
    readers::{get, range},
};
use crate::{
    backends::local::Keeper,
    error::Fault,
    model::key::prefix_end,
    state::{Base, Meta},
};

/// Pairs that are freed in one transaction.
const FREED: i64 = 1_000;
/// How large the write-ahead log may grow because of views that are open, in pages of 8 KiB.
const LOG_PAGES: i64 = 32 << 10;
/// After so many batches it is looked at.
const LOOK: u64 = 64;

/// The connection that writes.
pub(super) struct File {
    connection: Connection,
    /// Behind the connection: the lock goes when that is closed.
    place: Arc<Place>,
    /// Whether something was written that is not committed.
    dirty: bool,
    /// Whether there may be something to be freed.
    forgotten: bool,
    /// Whether the last thing that went wrong was that there was no room.
    full: bool,
    /// The revision of the last commit.
    revision: i64,
    commits: u64,
}

impl File {
    /// `revision`: of the last commit.
    pub(super) fn new(place: Arc<Place>, connection: Connection, revision: u64) -> Self {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        // What the process before did not come to.
        Self { connection, place, dirty: false, forgotten: true, full: false, revision, commits: 0 }
    }

    /// Does something to the file, in the open transaction.
    fn with<T>(&mut self, doing: &str, act: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        let begun = if self.dirty { Ok(()) } else { self.connection.execute_batch("BEGIN IMMEDIATE") };
        self.dirty |= begun.is_ok();
        begun.and_then(|()| act(&self.connection)).map_err(|error| {
            self.full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
            self.place.fault(doing, &error)
        })
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.with("commit to", |connection| connection.execute_batch("COMMIT"))?;
        self.dirty = false;
        Ok(())
    }

    /// Frees a part of what was forgotten: whether there may be more.
    fn free(&mut self) -> Result<bool, Fault> {
        let first = "SELECT prefix FROM forgotten LIMIT 1";
        let prefix: Option<Vec<u8>> = self
            .with("read", |connection| connection.prepare_cached(first)?.query_row([], |row| row.get(0)).optional())?;
        let Some(prefix) = prefix else { return Ok(false) };
        let end = prefix_end(&prefix).unwrap_or_default();
        self.with("free in", |connection| {
            let part = "DELETE FROM pairs WHERE key IN (SELECT key FROM pairs WHERE key >= ?1 AND key < ?2 LIMIT ?3)";
            let freed = connection.prepare_cached(part)?.execute(params![prefix, end.as_ref(), FREED])?;
            if i64::try_from(freed).is_ok_and(|freed| freed < FREED) {
                connection.prepare_cached("DELETE FROM forgotten WHERE prefix = ?1")?.execute([&prefix])?;
            }
            Ok(true)
        })
    }

    fn roll_back(&mut self) -> rusqlite::Result<()> {
        // SQLite may have done so already.
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.dirty = false;
        Ok(())
    }
}

impl Base for File {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        get(&self.connection, key).map_err(|error| self.place.fault("read", &error))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        range(&self.connection, (start, end), limit).map_err(|error| self.place.fault("read", &error))
    }

    fn write(&mut self, _revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        self.with("write", |connection| {
            let mut put = connection.prepare_cached("INSERT OR REPLACE INTO pairs VALUES (?1, ?2)")?;
            let mut remove = connection.prepare_cached("DELETE FROM pairs WHERE key = ?1")?;
            for (key, value) in &pairs {
                match value {
                    Some(value) => put.execute([key.as_ref(), value.as_ref()])?,
                    None => remove.execute([key.as_ref()])?,
                };
            }
            Ok(())
        })
    }
}

impl Keeper for File {
    fn forget(&mut self, prefix: &[u8]) -> Result<(), Fault> {
        self.forgotten = true;
        let add = "INSERT OR IGNORE INTO forgotten VALUES (?1)";
        self.with("write", |connection| connection.prepare_cached(add)?.execute([prefix]).map(drop))
    }

    fn commit(&mut self, meta: &Meta) -> Result<(), Fault> {
        let revision = i64::try_from(meta.revision).map_err(|_| Fault::bug("more revisions than SQLite counts"))?;
        // Also proves that nobody else writes the file, however he came by it.
        let update = "UPDATE state SET revision = ?1, meta = ?2 WHERE id = 0 AND revision = ?3";
        let (before, meta) = (self.revision, meta.encode());
        let updated = self.with("write", |connection| {
            connection.prepare_cached(update)?.execute(params![revision, meta.as_ref(), before])
        })?;
        if updated != 1 {
            self.roll_back().map_err(|error| self.place.fault("roll back in", &error))?;
            return Err(Fault::damage(format!(
                "{} was written by somebody else since revision {before}; a file is one store's at a time",
                self.place.path.display()
            )));
        }
        self.end()?;
        self.revision = revision;
        Ok(())
    }

    fn is_held_up(&mut self) -> bool {
        self.commits += 1;
        if self.dirty || !self.commits.is_multiple_of(LOOK) {
            return false;
        }
        // The log begins anew only when no view reads it any more.
        let looked = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1));
        let large = looked.is_ok_and(|pages| pages > LOG_PAGES);
        if large {
            tracing::warn!(path = %self.place.path.display(), "the write-ahead log is large: older views are ended");
        }
        large
    }

    fn take_back(&mut self) -> Option<Meta> {
        if !std::mem::take(&mut self.full) {
            return None;
        }
        self.roll_back().ok()?;
        let read = "SELECT meta FROM state WHERE id = 0";
        let meta: Vec<u8> = self.connection.query_row(read, [], |row| row.get(0)).ok()?;
        Meta::decode(&meta).ok()
    }

    fn reclaim(&mut self) -> Result<bool, Fault> {
        if !self.forgotten {
            return Ok(false);
        }
        let freed = self.free().and_then(|more| self.end().map(|()| more));
        match freed {
            // Freeing needs room in the write-ahead log: it is tried again with the next write.
            Err(fault) if !std::mem::take(&mut self.full) => Err(fault),
            Err(_) => self.roll_back().map(|()| false).map_err(|error| self.place.fault("roll back in", &error)),
            Ok(more) => {
                self.forgotten = more;
                Ok(more)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{environment::Environment, sqlite::file};

    fn open(home: &std::path::Path) -> (File, Meta) {
        let file::Opened { place, connection, meta } = file::open(&Environment::real(), &home.join("s.db")).unwrap();
        (File::new(Arc::new(place), connection, meta.revision), meta)
    }

    fn pair(key: impl ToString, value: Option<usize>) -> (Bytes, Option<Bytes>) {
        (key.to_string().into(), value.map(|bytes| vec![7; bytes].into()))
    }

    fn meta(revision: u64) -> Meta {
        Meta { revision, ..Meta::default() }
    }

    #[test]
    fn what_is_not_committed_is_not_there_when_the_file_is_opened_again() {
        let home = tempfile::tempdir().unwrap();
        let (mut file, first) = open(home.path());
        assert_eq!(first, Meta::default());
        file.write(1, vec![pair("a", Some(1))]).unwrap();
        file.commit(&meta(1)).unwrap();
        file.write(2, vec![pair("a", None), pair("b", Some(1))]).unwrap();
        assert_eq!(file.range(b"", None, 10).unwrap().len(), 1, "it reads what it wrote");
        drop(file);
        let (file, kept) = open(home.path());
        assert_eq!(kept, meta(1));
        assert!(file.get(b"a").unwrap().is_some() && file.get(b"b").unwrap().is_none());
    }

    #[test]
    fn a_full_disk_takes_the_batch_back_and_no_more() {
        let home = tempfile::tempdir().unwrap();
        let (mut file, _) = open(home.path());
        file.write(1, vec![pair("a", Some(1))]).unwrap();
        file.commit(&meta(1)).unwrap();
        // As full as a disk can be made without one.
        file.connection.execute_batch("PRAGMA max_page_count = 8").unwrap();
        let wrote = file.write(2, vec![pair("a", None), pair("b", Some(1 << 20))]);
        let error = wrote.and_then(|()| file.commit(&meta(2))).unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(file.take_back(), Some(meta(1)));
        assert!(file.get(b"a").unwrap().is_some() && file.get(b"b").unwrap().is_none());
        file.write(2, vec![pair("c", Some(1))]).unwrap();
        file.commit(&meta(2)).unwrap();
        assert_eq!(file.take_back(), None, "nothing is wrong");
    }

    #[test]
    fn what_is_forgotten_goes_bit_by_bit_also_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let (mut file, _) = open(home.path());
        let many = usize::try_from(FREED).unwrap() * 2 + 1;
        file.write(1, (0..many).map(|n| pair(format!("a{n}"), Some(1))).chain([pair("b", Some(1))]).collect()).unwrap();
        file.forget(b"a").unwrap();
        file.commit(&meta(1)).unwrap();
        assert!(file.reclaim().unwrap());
        assert_eq!(file.range(b"", None, usize::MAX).unwrap().len(), many + 1 - 1_000);
        drop(file);
        let (mut file, _) = open(home.path());
        while file.reclaim().unwrap() {}
        assert_eq!(file.range(b"", None, 10).unwrap(), [("b".into(), vec![7].into())]);
        assert!(!file.forgotten);
    }
}
