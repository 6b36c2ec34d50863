//! The pointer file: which files the data directory consists of. Replaced whole (written beside, synced,
//! renamed, directory synced), so that a crash leaves the one before or the one after.

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    environment::{Disk, disk::OpenMode},
    error::Fault,
    storage::codec::{self, Kind},
};

const NAME: &str = "manifest";
const TEMPORARY: &str = "manifest.tmp";

/// Frozen: version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The cluster.
    pub(super) cluster: u128,
    /// No file has had this number, or a greater one.
    pub(super) next_number: u64,
    /// The base, if there is one.
    pub(super) base: Option<Listed>,
    /// The runs upon it, oldest first.
    pub(super) runs: Vec<Listed>,
    /// The number of the index.
    pub(super) index: u64,
    /// Whether the index was closed in order and nobody has opened it since.
    pub(super) clean: bool,
}

/// A file, as the manifest lists it. Frozen: version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    /// Its number.
    pub(super) number: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// Whether the index holds, synced, all that it says.
    pub(super) indexed: bool,
}

impl Manifest {
    /// Reads it; `None` if there is none.
    pub(super) fn read(disk: &Arc<dyn Disk>, directory: &Path) -> Result<Option<Self>, Fault> {
        let path = directory.join(NAME);
        let failed = |error| Fault::io("reading", &path, &error);
        if !disk.exists(&path).map_err(failed)? {
            return Ok(None);
        }
        let file = disk.open(&path, OpenMode::Read).map_err(failed)?;
        let length = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
        // A manifest lists a few dozen files at most.
        if length > 1 << 20 {
            return Err(Fault::damaged(&path, 0, format!("{length} bytes long")));
        }
        let mut sealed = vec![0; length];
        if file.read_at(&mut sealed, 0).map_err(failed)? != length {
            return Err(Fault::damaged(&path, 0, "cut short"));
        }
        codec::decode(Kind::Manifest, &sealed).map(Some).map_err(|error| error.at(&path, 0))
    }

    /// The fault of a directory that holds a file, but none.
    pub(super) fn missing(directory: &Path, found: &Path) -> Fault {
        Fault::damaged(&directory.join(NAME), 0, format!("it is missing, but {} is there", found.display()))
    }

    /// Replaces it, durably.
    pub(super) fn write(&self, disk: &Arc<dyn Disk>, directory: &Path) -> Result<(), Fault> {
        let (path, temporary) = (directory.join(NAME), directory.join(TEMPORARY));
        let replace = || {
            let file = disk.open(&temporary, OpenMode::Create)?;
            file.write_all_at(&codec::encode(Kind::Manifest, self), 0)?;
            file.sync()?;
            disk.rename(&temporary, &path)?;
            disk.sync_dir(directory)
        };
        replace().map_err(|error| Fault::io("replacing", &path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_has_exactly_these_bytes() {
        let manifest = Manifest {
            cluster: 7,
            next_number: 9,
            base: Some(Listed { number: 4, bytes: 1_000, indexed: true }),
            runs: vec![Listed { number: 8, bytes: 70_000, indexed: false }],
            index: 2,
            clean: true,
        };
        let payload = [7, 9, 1, 4, 251, 232, 3, 1, 1, 8, 252, 112, 17, 1, 0, 0, 2, 1];
        assert_eq!(codec::encode_payload(&manifest), payload);
        assert_eq!(codec::decode_payload::<Manifest>(&payload), Ok(manifest));
    }
}
