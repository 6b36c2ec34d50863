//! Views of the file: each is a read transaction on a connection of its own.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::file::Place;
use crate::{
    backends::local::{Pairs, Reader},
    error::Fault,
};

/// Connections that are kept for the next view.
const IDLE: usize = 8;
/// Most views that are open at once: each has two files open.
const VIEWS: usize = 400;

/// The value of a key.
pub(super) fn get(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<Bytes>> {
    let mut select = connection.prepare_cached("SELECT value FROM pairs WHERE key = ?1")?;
    select.query_row([key], |row| row.get::<_, Vec<u8>>(0)).optional().map(|value| value.map(Bytes::from))
}

/// Up to `limit` pairs from `start` to before `end`, in order.
pub(super) fn range(
    connection: &Connection,
    (start, end): (&[u8], Option<&[u8]>),
    limit: usize,
) -> rusqlite::Result<Vec<(Bytes, Bytes)>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let pair = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?.into(), row.get::<_, Vec<u8>>(1)?.into()));
    match end {
        Some(end) => {
            let select = "SELECT key, value FROM pairs WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
            connection.prepare_cached(select)?.query_map(params![start, end, limit], pair)?.collect()
        }
        None => {
            let select = "SELECT key, value FROM pairs WHERE key >= ?1 ORDER BY key LIMIT ?2";
            connection.prepare_cached(select)?.query_map(params![start, limit], pair)?.collect()
        }
    }
}

/// Opens views.
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    /// Behind the connections: the lock goes when they are closed.
    place: Arc<Place>,
}

impl Readers {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, idle: Arc::default() }
    }
}

impl Reader for Readers {
    fn newest(&self) -> Result<(u64, Box<dyn Pairs>), Fault> {
        // One is this one's, each view has another.
        if Arc::strong_count(&self.idle) > VIEWS {
            return Err(Fault::new(format!(
                "{VIEWS} views of {} are open, as many as may be",
                self.place.path.display()
            )));
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.place.reader()?,
        };
        // A transaction begins with its first read, so this decides what it shows.
        let begun = connection.execute_batch("BEGIN").and_then(|()| {
            let mut select = connection.prepare_cached("SELECT revision FROM state WHERE id = 0")?;
            select.query_row([], |row| row.get::<_, i64>(0))
        });
        let revision = begun.map_err(|error| self.place.fault("read", &error))?;
        let (place, idle) = (Arc::clone(&self.place), Arc::clone(&self.idle));
        let transaction = ReadTransaction { connection: Mutex::new(Some(connection)), place, idle };
        Ok((u64::try_from(revision).unwrap_or_default(), Box::new(transaction)))
    }
}

/// A read transaction, until it is dropped.
struct ReadTransaction {
    /// `None` only while it is dropped.
    connection: Mutex<Option<Connection>>,
    idle: Arc<Mutex<Vec<Connection>>>,
    /// Behind the connections: the lock goes when they are closed.
    place: Arc<Place>,
}

impl ReadTransaction {
    fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = connection.as_ref().ok_or_else(|| Fault::bug("a view that was dropped is read"))?;
        read(connection).map_err(|error| self.place.fault("read", &error))
    }
}

impl Pairs for ReadTransaction {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.with(|connection| get(connection, key))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        self.with(|connection| range(connection, (start, end), limit))
    }
}

impl Drop for ReadTransaction {
    fn drop(&mut self) {
        let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // One that cannot end its transaction is of no more use: it is closed, which ends it.
        let Some(connection) = connection.filter(|connection| connection.execute_batch("COMMIT").is_ok()) else {
            return;
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(connection);
        }
    }
}
