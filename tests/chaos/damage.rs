//! Files that are changed while nobody looks: a bit, the end, a page, two files for each other. And the test of that: a
//! node that stands alone, so that nobody can give it back what it lost, either names the damage or has everything that
//! it ever acknowledged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rand::{Rng, rngs::StdRng};

/// How a file is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Flip,
    Truncate,
    Zeros,
    Swap,
}

pub const KINDS: &[Kind] = &[Kind::Flip, Kind::Flip, Kind::Truncate, Kind::Zeros, Kind::Swap];

/// A page, as disks lose them.
const PAGE: usize = 4_096;

fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if fs::metadata(&path).unwrap().len() > 0 {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// How much of a file is used: the zeros at its end may be room that was made in advance.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Damages one file below a directory: what was done, for people.
pub fn damage(directory: &Path, kind: Kind, rng: &mut StdRng) -> String {
    let files = files(directory);
    // First a kind of file, so that the many files of the index do not hide the others.
    let kind_of = |path: &PathBuf| {
        let inside = path.strip_prefix(directory).unwrap();
        let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned());
        (inside.components().count(), extension)
    };
    let mut kinds: Vec<_> = files.iter().map(kind_of).collect();
    kinds.sort();
    kinds.dedup();
    let chosen = &kinds[rng.random_range(0..kinds.len())];
    let of_kind: Vec<&PathBuf> = files.iter().filter(|path| kind_of(path) == *chosen).collect();
    let path = of_kind[rng.random_range(0..of_kind.len())];
    let name = path.strip_prefix(directory).unwrap().display().to_string();
    let mut bytes = fs::read(path).unwrap();
    let used = used(&bytes).max(1);
    let at = rng.random_range(0..used);
    let done = match kind {
        Kind::Swap if of_kind.len() > 1 => {
            let other = loop {
                let other = of_kind[rng.random_range(0..of_kind.len())];
                if other != path {
                    break other;
                }
            };
            let theirs = fs::read(other).unwrap();
            fs::write(other, &bytes).unwrap();
            fs::write(path, theirs).unwrap();
            return format!("{name} and {} swapped", other.strip_prefix(directory).unwrap().display());
        }
        Kind::Flip | Kind::Swap => {
            let bit = rng.random_range(0..8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of {used} in {name} flipped")
        }
        Kind::Truncate => {
            bytes.truncate(at);
            format!("{name} cut off at {at} of {used}")
        }
        Kind::Zeros => {
            let page = at / PAGE * PAGE;
            let end = (page + PAGE).min(bytes.len());
            bytes[page..end].fill(0);
            format!("bytes {page} to {end} of {used} in {name} zeroed")
        }
    };
    fs::write(path, bytes).unwrap();
    done
}

/// Whether what a node says when it ends names what is wrong.
pub fn is_clear(said: &str) -> bool {
    let named =
        ["is damaged", "newer than this program knows", "lost its log", "belongs to", "no IDENTITY", "is missing"];
    said.starts_with("error: ") && named.iter().any(|words| said.contains(words)) && !said.contains("panicked")
}
