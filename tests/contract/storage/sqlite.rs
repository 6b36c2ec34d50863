//! What is the SQLite file's alone.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use meshstore::{
    Sqlite, Storage,
    contract::{ListOptions, SetEntry, Value},
};

use super::backends::{is_closed, is_kept, run_all, write};

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

fn refused(path: &Path) -> String {
    match Sqlite::open(path) {
        Err(fault) => fault.to_string(),
        Ok(_) => panic!("{} is opened", path.display()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let home = tempfile::tempdir().unwrap();
    run_all(Arc::new(Sqlite::open(&home.path().join("store.db")).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_everything_and_has_one_opener() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let storage = Sqlite::open(&path).unwrap();
    write(&storage).await;
    // The same file, however it is named.
    fs::create_dir(home.path().join("d")).unwrap();
    let other = home.path().join("d/../store.db");
    for path in [&path, &other] {
        assert!(refused(path).contains("is open already"), "{}", refused(path));
    }
    // One that is left open holds nothing up.
    let open = storage.begin_transaction(Default::default()).await.unwrap().id;
    storage.close();
    is_closed(&storage).await;
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "store.db-wal"), "it was closed in order: {left:?}");
    let again = Sqlite::open(&other).unwrap();
    is_kept(&again).await;
    let lost = again.commit(&open).await.unwrap_err();
    assert!(matches!(lost, meshstore::Error::TransactionAborted(_)), "{lost}");
    // Without a close: the last handle is enough.
    drop(again);
    is_kept(&Sqlite::open(&path).unwrap()).await;
}

#[tokio::test]
async fn files_of_another_kind_are_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("text");
    fs::write(
        &text,
        "no database at all, but long enough to be looked at as if it were the header of one of these files",
    )
    .unwrap();
    assert!(refused(&text).contains("no SQLite file"), "{}", refused(&text));
    let other = home.path().join("other.db");
    let foreign = |sql: &str| {
        let connection = rusqlite::Connection::open(&other).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    foreign("CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    let before = fs::read(&other).unwrap();
    assert!(refused(&other).contains("something else"), "{}", refused(&other));
    assert_eq!(fs::read(&other).unwrap(), before);
    foreign("DROP TABLE t; PRAGMA application_id = 7");
    assert!(refused(&other).contains("something else"), "{}", refused(&other));
    let newer = home.path().join("newer.db");
    drop(Sqlite::open(&newer).unwrap());
    rusqlite::Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    assert!(refused(&newer).contains("use a newer meshstore"), "{}", refused(&newer));
    assert!(refused(&home.path().join("no/where.db")).contains("cannot make"));
    assert!(refused(home.path()).contains("cannot open"));
    // An empty file is one that was not yet written.
    let empty = home.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    let storage = Sqlite::open(&empty).unwrap();
    storage.set("k", json("1"), Default::default()).await.unwrap();
}

#[tokio::test]
async fn damage_is_told_and_nothing_is_made_of_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let storage = Sqlite::open(&path).unwrap();
    storage.set("k", json("\"a value that can be found in the file\""), Default::default()).await.unwrap();
    storage.close();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(14).position(|part| part == b"can be found i").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let storage = Sqlite::open(&path).unwrap();
    let error = storage.get("k", Default::default()).await.unwrap_err().to_string();
    assert!(error.contains("the store has stopped") && error.contains("checksum"), "{error}");
    // What it is, it stays: nothing is served beside what is broken.
    assert!(storage.get_status().await.is_err());
}

/// A list goes on though what it shows is overwritten meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_shows_one_revision_under_writes() {
    let home = tempfile::tempdir().unwrap();
    let storage = Sqlite::open(&home.path().join("store.db")).unwrap();
    let sets = |text: &'static str| (0..300).map(move |n| SetEntry::new(format!("{n:04}"), json(text))).collect();
    storage.set_many(sets("0"), "n".into()).await.unwrap();
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = storage.list(ListOptions { limit: Some(50), cursor, ..ListOptions::from("n") }).await.unwrap();
        keys.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
        storage.set_many(sets("1"), "n".into()).await.unwrap();
        storage.delete_many(keys.iter().map(|key| key.as_str().into()).collect(), "n".into()).await.unwrap();
    }
    assert_eq!(keys.len(), 300);
}

/// Where the process that [`a_kill_loses_nothing_that_was_acknowledged`] starts is to write.
const VICTIM: &str = "MESHSTORE_TEST_SQLITE_VICTIM";

/// Not a test of its own: the process that is killed. It says each number once that is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn the_victim_of_a_kill() {
    let Ok(path) = env::var(VICTIM) else { return };
    let storage = Sqlite::open(path.as_ref()).unwrap();
    let begin = storage.count("m".into()).await.unwrap_or_default();
    for number in begin.. {
        let pair = ["n", "m"].map(|kind| SetEntry::new(format!("{kind}/{number:08}"), json(&number.to_string())));
        storage.set_many(pair[..1].to_vec(), "n".into()).await.unwrap();
        storage.set_many(pair[1..].to_vec(), "m".into()).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {number}").and_then(|()| out.flush()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    for round in 1..=5u64 {
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["storage::sqlite::the_victim_of_a_kill", "--exact", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| {
            let (_, number) = line.split_once("acknowledged ")?;
            number.parse::<u64>().ok()
        });
        // In the middle of whatever comes next.
        let mut last = 0;
        for number in numbers.take(usize::try_from(round * 7).unwrap()) {
            last = number;
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        let storage = Sqlite::open(&path).unwrap();
        for number in 0..=last {
            for kind in ["n", "m"] {
                let value = storage.get(&format!("{kind}/{number:08}"), kind.into()).await.unwrap().value;
                assert_eq!(value, json(&number.to_string()));
            }
        }
        let (n, m) = (storage.count("n".into()).await.unwrap(), storage.count("m".into()).await.unwrap());
        assert!(
            n > last && (m == n || m + 1 == n),
            "{n} and {m}: what was not acknowledged is there in its order, or not"
        );
    }
}
