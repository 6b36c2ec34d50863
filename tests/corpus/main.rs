//! Every case that fuzzing ever kept, run again: the corpora, and the findings that were fixed.
//!
//! The targets themselves stand in `fuzz/src`; `scripts/fuzz` looks for new cases. See `docs/testing.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs, reason = "a test")]

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a directory, in order; none if there is no such directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs all that is kept of a target, and names each file that breaks it.
fn replay(name: &str) {
    let (_, run) = fuzz::TARGETS.iter().find(|(target, _)| *target == name).expect("there is such a target");
    let corpus = files(&root().join("corpus").join(name));
    assert!(!corpus.is_empty(), "fuzz/corpus/{name} is empty");
    let kept = corpus.into_iter().chain(files(&root().join("findings").join(name)));
    let broken = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        catch_unwind(|| run(&bytes)).is_err()
    };
    let broken: Vec<PathBuf> = kept.filter(broken).collect();
    assert!(broken.is_empty(), "{name} breaks with {broken:?}");
}

#[test]
fn apply() {
    replay("apply");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn envelope() {
    replay("envelope");
}

#[test]
fn file() {
    replay("file");
}

#[test]
fn log() {
    replay("log");
}

#[test]
fn peer() {
    replay("peer");
}

#[test]
fn request() {
    replay("request");
}

#[test]
fn stream() {
    replay("stream");
}

#[test]
fn topology() {
    replay("topology");
}

/// A target that is not run here, or not by `cargo fuzz`, would be forgotten.
#[test]
fn every_target_is_known_everywhere() {
    let mut names: Vec<String> = files(&root().join("fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, fuzz::TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "fuzz/Cargo.toml does not name {name}");
    }
}
