//! What a directory does when it is new, copied, locked, damaged or somebody else's, and how nodes form a cluster.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use crate::environment::{Clock, disk::RealDisk};

/// A clock whose ids are known.
struct Fixed;

impl Clock for Fixed {
    fn wall_ms(&self) -> u64 {
        0
    }

    fn random(&self) -> u128 {
        0xD1
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

/// The real disk, whose syncs fail when told to.
#[derive(Default)]
struct Failing(Arc<AtomicBool>);

struct FailingFile(Box<dyn File>, Arc<AtomicBool>);

impl Disk for Failing {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        Ok(Box::new(FailingFile(RealDisk.open(path, mode)?, self.0.clone())))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.available_bytes(path)
    }
}

impl File for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.0.sync() }
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
}

fn environment() -> Environment {
    Environment { clock: Arc::new(Fixed), ..Environment::real() }
}

fn open(path: &Path, node: NodeId) -> Result<Directory, Fault> {
    Directory::open(&environment(), path, node)
}

fn refusal(path: &Path, node: NodeId) -> String {
    open(path, node).err().unwrap().to_string()
}

#[test]
fn an_identity_has_exactly_these_bytes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/data");
    drop(open(&path, 3).unwrap());
    let payload = [1, 0xD1, 3, 0, 0, 0];
    let bytes = fs::read(path.join(FILE)).unwrap();
    assert_eq!(bytes, codec::seal(Kind::Identity, 1, 0, &payload));
    open(&path, 3).unwrap().set_cluster(5).unwrap();
    let joined = fs::read(path.join(FILE)).unwrap();
    assert_eq!(joined, codec::seal(Kind::Identity, 1, 0, &[1, 0xD1, 3, 1, 5, 0, 0]));
    let directory = open(&path, 3).unwrap();
    directory.set_started().unwrap();
    assert!(directory.started());
    let started = fs::read(path.join(FILE)).unwrap();
    assert_eq!(started, codec::seal(Kind::Identity, 1, 0, &[1, 0xD1, 3, 1, 5, 0, 1]));
    assert!(!path.join(NEW_FILE).exists());
}

#[test]
fn a_directory_keeps_its_identity() {
    let home = tempfile::tempdir().unwrap();
    let directory = Directory::open(&Environment::real(), home.path(), 2).unwrap();
    let first = directory.identity();
    assert_eq!((first.node(), first.cluster()), (2, None));
    directory.set_cluster(7).unwrap();
    assert_eq!(first.cluster(), Some(7), "all clones see it");
    directory.set_cluster(7).unwrap();
    let error = directory.set_cluster(8).unwrap_err().to_string();
    assert!(error.contains("belongs to cluster 00000000000000000000000000000007, not"), "{error}");
    assert_eq!(directory.adopt(8).unwrap(), 7);
    directory.check().unwrap();
    drop(directory);
    let again = open(home.path(), 2).unwrap().identity();
    assert_eq!((again.directory(), again.cluster()), (first.directory(), Some(7)));
}

#[test]
fn only_the_founder_goes_on_to_found() {
    let home = tempfile::tempdir().unwrap();
    open(home.path(), 1).unwrap().found(7).unwrap();
    let directory = open(home.path(), 1).unwrap();
    assert!(directory.founder());
    directory.found(7).unwrap();

    let home = tempfile::tempdir().unwrap();
    let directory = open(home.path(), 1).unwrap();
    directory.set_cluster(7).unwrap();
    assert!(!directory.founder());
    for cluster in [7, 8] {
        let error = directory.found(cluster).unwrap_err().to_string();
        assert!(error.contains("make them equal"), "{error}");
    }
}

#[test]
fn it_is_one_process_and_one_nodes() {
    let home = tempfile::tempdir().unwrap();
    let directory = open(home.path(), 2).unwrap();
    let path = home.path().display();
    assert_eq!(refusal(home.path(), 2), format!("data directory {path} is in use by another process"));
    drop(directory);
    assert!(refusal(home.path(), 3).starts_with("this directory belongs to node 2, not 3"));
    open(home.path(), 2).unwrap();
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("letters.txt"), "dear").unwrap();
    let error = refusal(home.path(), 1);
    assert!(error.contains("is not empty (1 names, one is \"letters.txt\")"), "{error}");
    assert_eq!(RealDisk.list(home.path()).unwrap(), ["letters.txt"]);

    let file = home.path().join("letters.txt");
    assert!(refusal(&file, 1).starts_with("cannot create the data directory"));
}

#[test]
fn a_crash_while_it_is_made_leaves_an_empty_one() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(LOCK), "").unwrap();
    fs::write(home.path().join(NEW_FILE), "half an ident").unwrap();
    fs::create_dir(home.path().join("lost+found")).unwrap();
    open(home.path(), 1).unwrap();
}

#[test]
fn damage_names_file_and_offset() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path(), 1).unwrap());
    let path = home.path().join(FILE);
    let bytes = fs::read(&path).unwrap();
    let at = |offset: usize| format!("{} is damaged at offset {offset}", path.display());
    for flipped in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[flipped] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert!(refusal(home.path(), 1).contains("IDENTITY"), "byte {flipped}");
    }
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(refusal(home.path(), 1).starts_with(&at(0)), "cut at {len}");
    }
    fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
    assert!(refusal(home.path(), 1).starts_with(&at(bytes.len())), "{}", refusal(home.path(), 1));
    fs::write(&path, vec![0; 5_000]).unwrap();
    assert!(refusal(home.path(), 1).starts_with(&at(4_096)), "{}", refusal(home.path(), 1));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(FILE);
    let newer =
        [codec::seal(Kind::Identity, 2, 0, b"whatever"), codec::seal(Kind::Identity, 1, 0, &[2, 0xD1, 1, 0, 0, 0])];
    for bytes in newer {
        fs::write(&path, bytes).unwrap();
        let error = refusal(home.path(), 1);
        assert!(error.contains("newer than this program knows") && error.contains("IDENTITY"), "{error}");
    }
}

#[test]
fn a_failed_sync_is_a_fault_for_good_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let disk = Failing::default();
    let fails = disk.0.clone();
    let environment = Environment { disk: Arc::new(disk), ..environment() };
    let directory = Directory::open(&environment, home.path(), 1).unwrap();
    fails.store(true, Ordering::SeqCst);
    let fault = directory.set_cluster(7).unwrap_err().to_string();
    assert!(fault.starts_with("cannot write"), "{fault}");
    fails.store(false, Ordering::SeqCst);
    assert_eq!(directory.set_cluster(7).unwrap_err().to_string(), fault, "never tried again");
    assert_eq!(directory.check().unwrap_err().to_string(), fault);
    assert_eq!(directory.identity().cluster(), None);
    drop(directory);
    assert_eq!(open(home.path(), 1).unwrap().identity().cluster(), None);
}
