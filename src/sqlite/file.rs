//! Opening a file: whose it is, and what is in it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::{
    environment::{
        Environment,
        disk::{Disk, File, OpenMode, sync_parent},
    },
    error::Fault,
    state::Meta,
};

/// What marks a file as this store's: "MSST".
const APPLICATION: i32 = 0x4D53_5354;
/// The layout that this program writes, and the newest that it reads. It rises also with anything in the pairs that a program
/// of before would take for damage: here nobody asks other nodes what they know.
const LAYOUT: i32 = 1;
/// How long SQLite waits for itself: readers and the writer meet only at the ends of the write-ahead log.
const PATIENCE: Duration = Duration::from_secs(10);

/// Every table has the keys' own order, in which ranges are read. Frozen (layout 1).
const TABLES: &str = "
    CREATE TABLE pairs (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, meta BLOB NOT NULL);
    CREATE TABLE forgotten (prefix BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID;
";

/// Where a store is, which is this process's as long as this lives.
pub(super) struct Place {
    pub(super) path: PathBuf,
    _lock: Box<dyn File>,
}

/// A file that was opened.
pub(super) struct Opened {
    pub(super) place: Place,
    /// For whoever writes.
    pub(super) connection: Connection,
    /// The state as of the last commit.
    pub(super) meta: Meta,
}

impl Place {
    /// A fault in this file.
    pub(super) fn fault(&self, doing: &str, error: &rusqlite::Error) -> Fault {
        fault(doing, &self.path, error)
    }

    /// A connection that reads.
    pub(super) fn reader(&self) -> Result<Connection, Fault> {
        connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }
}

/// A fault in a file. Bytes that are not what was written are damage.
fn fault(doing: &str, path: &Path, error: &rusqlite::Error) -> Fault {
    let reason = format!("cannot {doing} {}: {error}", path.display());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::damage(reason),
        _ => Fault::new(reason),
    }
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, Fault> {
    // A connection is in one place at a time, behind a lock of ours.
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| fault("open", path, &error))?;
    connection.busy_timeout(PATIENCE).map_err(|error| fault("open", path, &error))?;
    Ok(connection)
}

/// Opens a file for this process alone; a new or empty one becomes a store.
pub(super) fn open(environment: &Environment, path: &Path) -> Result<Opened, Fault> {
    let disk = environment.disk.as_ref();
    let path = &resolved(disk, path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push("-lock");
    let beside = PathBuf::from(beside);
    let lock = disk.open(&beside, OpenMode::Create).map_err(|error| Fault::io("cannot open", &beside, &error))?;
    if !lock.try_lock().map_err(|error| Fault::io("cannot lock", &beside, &error))? {
        let reason = "is open already, here or in another process; a file is one store's at a time";
        return Err(Fault::new(format!("{} {reason}", path.display())));
    }
    let mode = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = connect(path, mode)?;
    let about = |doing: &'static str| move |error| fault(doing, path, &error);
    if is_new(&connection, path)? {
        create(&connection).map_err(about("make a store of"))?;
        sync_parent(disk, path)?;
    }
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(about("open"))?;
    if mode != "wal" {
        let reason = "cannot have a write-ahead log: its file system does not share memory between connections";
        return Err(Fault::new(format!("{} {reason}", path.display())));
    }
    connection.execute_batch(SETTINGS).map_err(about("open"))?;
    let read = "SELECT revision, meta FROM state WHERE id = 0";
    let found: Option<(i64, Vec<u8>)> =
        connection.query_row(read, [], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(about("read"))?;
    let damaged = |what: &str| Fault::damage(format!("{} is damaged: {what}", path.display()));
    let (revision, meta) = found.ok_or_else(|| damaged("it has no state"))?;
    let meta = Meta::decode(&meta).map_err(|fault| damaged(&fault.to_string()))?;
    if i64::try_from(meta.revision) != Ok(revision) {
        return Err(damaged("its state and its revision are not of one commit"));
    }
    Ok(Opened { place: Place { path: path.clone(), _lock: lock }, connection, meta })
}

/// What holds for the connection that writes. A commit is synced; the write-ahead log is cut when it has grown large.
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA journal_size_limit = 67108864;
";

/// The path by which every process knows the file, so that all find one lock. It is made if it is not there, also where a link
/// leads to it.
fn resolved(disk: &dyn Disk, path: &Path) -> Result<PathBuf, Fault> {
    if !path.exists() {
        drop(disk.open(path, OpenMode::Create).map_err(|error| Fault::io("cannot make", path, &error))?);
        sync_parent(disk, path)?;
    }
    path.canonicalize().map_err(|error| Fault::io("cannot find", path, &error))
}

/// Whether a file is to become a store; it is not if it is one. Errors: it is something else.
fn is_new(connection: &Connection, path: &Path) -> Result<bool, Fault> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    let foreign = |what: &str| Fault::new(format!("{} is {what}, and is left as it is", path.display()));
    let about = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => foreign("no SQLite file"),
        _ => fault("open", path, &error),
    };
    match number("PRAGMA application_id").map_err(about)? {
        APPLICATION => match number("PRAGMA user_version").map_err(about)? {
            LAYOUT => Ok(false),
            newer => Err(Fault::new(format!(
                "{} has layout {newer}, and this program knows {LAYOUT}: use a newer meshstore",
                path.display()
            ))),
        },
        0 if number("SELECT count(*) FROM sqlite_schema").map_err(about)? == 0 => Ok(true),
        _ => Err(foreign("a SQLite database of something else")),
    }
}

/// Makes a store of an empty file, wholly or not at all.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    // Values are often longer than what a page of 4 KiB takes without overflowing.
    connection.execute_batch("PRAGMA page_size = 8192; PRAGMA synchronous = FULL; BEGIN IMMEDIATE;")?;
    connection.execute_batch(TABLES)?;
    let meta = Meta::default();
    connection.execute("INSERT INTO state VALUES (0, 0, ?1)", [meta.encode().as_ref()])?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", LAYOUT)?;
    connection.execute_batch("COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_exactly_this_layout() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s.db");
        let Opened { connection, meta, .. } = open(&Environment::real(), &path).unwrap();
        assert_eq!(meta, Meta::default());
        let mut schema =
            connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        let tables: Vec<String> =
            schema.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap();
        let expected = [
            "CREATE TABLE forgotten (prefix BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID",
            "CREATE TABLE pairs (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
            "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, meta BLOB NOT NULL)",
        ];
        assert_eq!(tables, expected);
        let number =
            |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).unwrap();
        let settings = ["application_id", "user_version", "page_size", "synchronous"].map(number);
        assert_eq!(settings, [0x4D53_5354, 1, 8_192, 2]);
    }
}
