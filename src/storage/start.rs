//! Opening a data directory: what the manifest names is read and verified, the index is used if it can be
//! shown to be whole, else it is rebuilt from the files.
//!
//! * Damage in the manifest, the base or a run is a fault that names file and offset: they are the truth. All of them are
//!   read at every start.
//! * Damage in the index costs time only. The runs that it may not hold are merged again (records are physical, so
//!   that is idempotent), then it is scanned wholly and counted against the accounts of the newest checkpoint, at every
//!   start. On any difference, error or panic it is rebuilt in a new directory.
//! * What no manifest names (work that a crash cut off) is removed.

use std::{
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use super::{
    EngineKind, Options,
    audit::Auditor,
    checkpoint::Checkpoint,
    disposable::Disposable,
    engine::{Engine, Pair},
    file::{FileKind, Reader},
    files::{FileSet, Files, StoredFile, file_name, open_listed},
    manifest::{Listed, Manifest},
    memory::Memory,
    merge::Merge,
    reclaim::Reclaim,
    sled::Sled,
    tables::{Index, Tables},
};
use crate::{
    environment::{Disk, Environment},
    error::Fault,
    model::key,
};

/// Pairs that are written to the index at once while it is built.
const BATCH_PAIRS: usize = 512;
/// Pairs that are asked of the index at once while it is scanned.
const SCAN_PAIRS: usize = 1_024;

/// What a start found.
pub(super) struct Started {
    pub(super) files: Files,
    pub(super) tables: Tables,
    pub(super) reclaim: Reclaim,
}

/// Opens or creates the data directory.
pub(super) fn start(
    environment: &Environment,
    options: &Options,
    auditor: &Arc<dyn Auditor>,
) -> Result<Started, Fault> {
    let (files, clean) = open_files(&environment.disk, options)?;
    // Should this start be cut off, the next one must not take the stop before it for a clean one.
    if clean {
        files.commit_clean(false)?;
    } else if files.set().checkpoint.is_some() {
        tracing::info!("the last stop was not an orderly one");
    }
    let starting = Starting { environment, options, auditor, files: &files };
    let set = files.set();
    let mut reclaim = Reclaim::default();
    let reason = match starting.reuse(&set, &mut reclaim)? {
        Ok(tables) => return Ok(Started { files, tables, reclaim }),
        Err(reason) => reason,
    };
    match reason {
        Reason::Expected => {}
        Reason::Unexpected(reason) => tracing::warn!(reason, "the index cannot be trusted: rebuilding it"),
    }
    let tables = starting.rebuild()?;
    Ok(Started { files, tables, reclaim: Reclaim::default() })
}

/// Why an index cannot be used.
enum Reason {
    /// There is none (yet), or none that outlives the process.
    Expected,
    /// There should be one.
    Unexpected(String),
}

/// Reads the manifest and the headers of the files that it names, and removes what it does not name. Answers
/// whether the index was closed in order, too.
fn open_files(disk: &Arc<dyn Disk>, options: &Options) -> Result<(Files, bool), Fault> {
    let directory = &options.directory;
    let failed = |doing, error| Fault::io(doing, directory, &error);
    if !disk.exists(directory).map_err(|error| failed("looking for", error))? {
        disk.create_dir_all(directory).map_err(|error| failed("creating", error))?;
        let parent = directory.parent().unwrap_or(Path::new("/"));
        disk.sync_dir(parent).map_err(|error| failed("syncing the parent of", error))?;
    }
    let names = disk.list(directory).map_err(|error| failed("listing", error))?;
    let Some(manifest) = Manifest::read(disk, directory)? else {
        if let Some(name) = names.iter().find(|name| is_data(name)) {
            return Err(Manifest::missing(directory, &directory.join(name)));
        }
        let manifest = Manifest { cluster: options.cluster, next_number: 1, ..Manifest::default() };
        manifest.write(disk, directory)?;
        return Ok((Files::new(disk.clone(), directory.clone(), &manifest, FileSet::default()), false));
    };
    if manifest.cluster != options.cluster {
        return Err(Fault::new(format!(
            "{} belongs to cluster {:032x}, this node to {:032x}",
            directory.display(),
            manifest.cluster,
            options.cluster
        )));
    }
    let set = open_set(disk, directory, &manifest)?;
    remove_orphans(disk, directory, &names, &manifest)?;
    let clean = manifest.clean;
    Ok((Files::new(disk.clone(), directory.clone(), &manifest, set), clean))
}

pub(super) fn is_data(name: &str) -> bool {
    name.ends_with(".run") || name.ends_with(".base")
}

fn index_name(number: u64) -> String {
    format!("index-{number}")
}

pub(super) fn open_set(disk: &Arc<dyn Disk>, directory: &Path, manifest: &Manifest) -> Result<FileSet, Fault> {
    let mut set = FileSet::default();
    let mut open = |listed: &Listed, kind| {
        let path = directory.join(file_name(listed.number, kind));
        let reader = open_listed(disk, &path, manifest.cluster, listed.bytes)?;
        let header = reader.header();
        if header.kind != kind {
            return Err(Fault::damaged(&path, 0, format!("a {kind:?} should be here, not a {:?}", header.kind)));
        }
        set.checkpoint = Some(Arc::new(header.checkpoint.clone()));
        let Listed { number, bytes, indexed } = *listed;
        Ok(Arc::new(StoredFile { number, bytes, indexed, place: Arc::new(Disposable::file(disk.clone(), path)) }))
    };
    let base = manifest.base.as_ref().map(|listed| open(listed, FileKind::Base)).transpose()?;
    let runs = manifest.runs.iter().map(|listed| open(listed, FileKind::Run)).collect::<Result<_, _>>()?;
    (set.base, set.runs) = (base, runs);
    Ok(set)
}

fn remove_orphans(disk: &Arc<dyn Disk>, directory: &Path, names: &[String], manifest: &Manifest) -> Result<(), Fault> {
    let mut named: Vec<String> = manifest.runs.iter().map(|run| file_name(run.number, FileKind::Run)).collect();
    named.extend(manifest.base.map(|base| file_name(base.number, FileKind::Base)));
    named.push(index_name(manifest.index));
    for name in names.iter().filter(|name| !named.contains(name)) {
        let path = directory.join(name);
        let removed = if is_data(name) {
            disk.remove_file(&path)
        } else if name.strip_prefix("index-").is_some_and(|number| number.parse::<u64>().is_ok()) {
            disk.remove_dir_all(&path)
        } else {
            Ok(())
        };
        removed.map_err(|error| Fault::io("removing", &path, &error))?;
    }
    Ok(())
}

/// What the steps of a start (and of an install) work with.
pub(super) struct Starting<'a> {
    pub(super) environment: &'a Environment,
    pub(super) options: &'a Options,
    pub(super) auditor: &'a Arc<dyn Auditor>,
    pub(super) files: &'a Files,
}

impl Starting<'_> {
    /// Uses the index that is there, if it can be shown to be whole.
    fn reuse(&self, set: &FileSet, reclaim: &mut Reclaim) -> Result<Result<Tables, Reason>, Fault> {
        let number = self.files.index();
        let place = self.index_path(number);
        let exists = || self.files.disk.exists(&place).map_err(|error| Fault::io("looking for", &place, &error));
        let Some(checkpoint) = &set.checkpoint else { return Ok(Err(Reason::Expected)) };
        if self.options.engine == EngineKind::Memory {
            return Ok(Err(Reason::Expected));
        }
        if set.base.as_ref().is_some_and(|base| !base.indexed) {
            return Ok(Err(Reason::Unexpected("it was never finished".into())));
        }
        if !exists()? {
            return Ok(Err(Reason::Unexpected(format!("{} does not exist", place.display()))));
        }
        self.verify(set)?;
        // Outside of what may panic: dropping a broken sled while unwinding could panic again.
        let mut opened: Option<Box<dyn Engine>> = None;
        let mut caught_up = false;
        let attempt = panic::catch_unwind(AssertUnwindSafe(|| {
            let engine = &*opened.insert(Box::new(Sled::open(&place, self.options.cache_bytes)?));
            caught_up = self.catch_up(&**engine, set)?;
            // Also after an orderly stop: it has no checksums of its own that could be trusted, and a disk may flip a bit
            // while nobody runs.
            self.scan(&**engine, checkpoint, reclaim)
        }));
        let reason = match (attempt, opened) {
            (Ok(Ok(Ok(()))), Some(engine)) => {
                // Not among what may be rebuilt: a disk that cannot sync is broken.
                if caught_up {
                    engine.sync()?;
                }
                if set.newest_first().any(|file| !file.indexed) {
                    self.files.commit(number, |set| set.mark_indexed(|_| true))?;
                }
                return Ok(Ok(Tables::new(number, Arc::new(self.index(engine, number)))));
            }
            (attempt, broken) => {
                // Left alone, not dropped: its threads may have died, and a drop would wait for them for ever. Its
                // directory is not used again.
                std::mem::forget(broken);
                reason_of(attempt)
            }
        };
        Ok(Err(Reason::Unexpected(reason)))
    }

    fn index_path(&self, number: u64) -> PathBuf {
        self.options.directory.join(index_name(number))
    }

    fn index(&self, engine: Box<dyn Engine>, number: u64) -> Index {
        let place = match self.options.engine {
            EngineKind::Sled => Some(Disposable::directory(self.files.disk.clone(), self.index_path(number))),
            EngineKind::Memory => None,
        };
        Index { engine, place }
    }

    /// Reads all files wholly, although the index may hold all of it: damage that only a compaction or a rebuild met would
    /// stop the node again and again, and nobody would look for help. Also after an orderly stop: see the scan.
    fn verify(&self, set: &FileSet) -> Result<(), Fault> {
        for file in set.newest_first() {
            for pair in self.files.read(file)? {
                pair?;
            }
        }
        Ok(())
    }

    /// Merges the runs that the index may not hold; whether there were any, and it is to be synced.
    fn catch_up(&self, engine: &dyn Engine, set: &FileSet) -> Result<bool, Fault> {
        let missing: Vec<_> = set.newest_first().filter(|file| !file.indexed).collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let readers = missing.iter().map(|file| self.files.read(file)).collect::<Result<Vec<_>, _>>()?;
        let mut batch = Vec::with_capacity(BATCH_PAIRS);
        for pair in Merge::new(readers) {
            batch.push(pair?);
            if batch.len() >= BATCH_PAIRS {
                engine.write(&batch)?;
                batch.clear();
            }
        }
        engine.write(&batch)?;
        Ok(true)
    }

    /// Counts all that the index holds against the accounts of a checkpoint; answers what differs.
    fn scan(
        &self,
        engine: &dyn Engine,
        checkpoint: &Checkpoint,
        reclaim: &mut Reclaim,
    ) -> Result<Result<(), String>, Fault> {
        let began = self.environment.clock.monotonic();
        let mut audit = self.auditor.begin(&checkpoint.meta)?;
        let mut next = Some(Vec::new());
        let mut scanned = 0u64;
        while let Some(start) = next.take() {
            let page = engine.range(&start, None, SCAN_PAIRS)?;
            scanned += page.pairs.len() as u64;
            for (key, value) in &page.pairs {
                if audit.is_live(key) {
                    audit.count(key, value)?;
                } else if let Some(scope) = key::scope_of(key) {
                    reclaim.add(scope.prefix(), checkpoint.revision);
                }
            }
            if !page.complete {
                next = page.pairs.last().map(|(last, _)| [last.as_ref(), &[0]].concat());
            }
        }
        let took_ms = self.environment.clock.monotonic().saturating_sub(began).as_millis();
        tracing::info!(scanned, took_ms, "scanned the index");
        Ok(audit.finish())
    }

    /// Builds a new index from the files and makes it the one. What the index was built from is counted, too:
    /// if the files contradict their own accounts that is damage no rebuild can mend.
    pub(super) fn rebuild(&self) -> Result<Tables, Fault> {
        let before = self.index_path(self.files.index());
        let number = self.files.commit_new_index(|set| {
            for file in set.runs.iter_mut().chain(&mut set.base) {
                let StoredFile { number, bytes, ref place, .. } = **file;
                *file = Arc::new(StoredFile { number, bytes, indexed: false, place: place.clone() });
            }
        })?;
        let index = self.build(number)?;
        self.files.commit(number, |set| set.mark_indexed(|_| true))?;
        if self.files.disk.exists(&before).is_ok_and(|exists| exists) {
            Disposable::directory(self.files.disk.clone(), before).dispose();
        }
        Ok(Tables::new(number, Arc::new(index)))
    }

    /// Builds the index with this number from the files.
    pub(super) fn build(&self, number: u64) -> Result<Index, Fault> {
        let began = self.environment.clock.monotonic();
        let path = self.index_path(number);
        let engine: Box<dyn Engine> = match self.options.engine {
            EngineKind::Memory => Box::new(Memory::default()),
            EngineKind::Sled => Box::new(Sled::open(&path, self.options.cache_bytes)?),
        };
        let index = self.index(engine, number);
        let set = self.files.set();
        let Some(checkpoint) = &set.checkpoint else { return Ok(index) };
        let readers = set.newest_first().map(|file| self.files.read(file)).collect::<Result<Vec<_>, _>>()?;
        let built = build_from(&*index.engine, readers, &**self.auditor, checkpoint)?;
        let pairs = built.map_err(|difference| {
            let directory = self.options.directory.display();
            Fault::damage(format!("the files in {directory} contradict their accounts: {difference}"))
        })?;
        index.engine.sync()?;
        let took_ms = self.environment.clock.monotonic().saturating_sub(began).as_millis();
        tracing::info!(pairs, took_ms, position = %checkpoint.position, "built the index");
        Ok(index)
    }
}

/// What the attempt to use an index came to, in words.
fn reason_of(attempt: thread::Result<Result<Result<(), String>, Fault>>) -> String {
    match attempt {
        Ok(Ok(Ok(()))) => "it is gone".into(),
        Ok(Ok(Err(difference))) => difference,
        Ok(Err(fault)) => fault.to_string(),
        Err(panicked) => {
            let text = panicked.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panicked.downcast_ref::<&str>().copied());
            format!("it panicked: {}", text.unwrap_or("for no reason that it gave"))
        }
    }
}

/// Fills an empty index from files (newest first): the number of pairs, or how they differ from their accounts.
fn build_from(
    engine: &dyn Engine,
    readers: Vec<Reader>,
    auditor: &dyn Auditor,
    checkpoint: &Checkpoint,
) -> Result<Result<u64, String>, Fault> {
    let mut audit = auditor.begin(&checkpoint.meta)?;
    let mut batch: Vec<Pair> = Vec::with_capacity(BATCH_PAIRS);
    let mut pairs = 0;
    for pair in Merge::new(readers) {
        let (key, Some(value)) = pair? else { continue };
        if !audit.is_live(&key) {
            continue;
        }
        audit.count(&key, &value)?;
        pairs += 1;
        batch.push((key, Some(value)));
        if batch.len() >= BATCH_PAIRS {
            engine.write(&batch)?;
            batch.clear();
        }
    }
    engine.write(&batch)?;
    Ok(audit.finish().map(|()| pairs))
}
