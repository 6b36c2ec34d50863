//! A file that has its name only once it is whole and on the disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::failure::Failure;

/// A file that is being written, under a name of its own. Dropped, it leaves nothing.
pub(super) struct WholeFile {
    out: File,
    part: PathBuf,
    file: PathBuf,
    whole: bool,
}

impl WholeFile {
    /// Begins a file that must not exist. `what` says what it is that replaces nothing.
    pub(super) fn begin(file: &Path, what: &str) -> Result<Self, Failure> {
        let mut name = file.file_name().ok_or_else(|| Failure::usage("FILE must be the name of a file"))?.to_owned();
        name.push(".part");
        let part = file.with_file_name(name);
        if file.exists() {
            return Err(Failure::usage(format!("{} exists; {what} replaces nothing", file.display())));
        }
        let out = File::create(&part).map_err(|error| about(&error, &part))?;
        Ok(Self { out, part, file: file.into(), whole: false })
    }

    /// Gives it its name, once it is synced and `look` has found it good.
    pub(super) fn end<T>(mut self, look: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Failure> {
        self.out.sync_all().map_err(|error| about(&error, &self.part))?;
        let seen = look(&self.part)?;
        fs::rename(&self.part, &self.file).map_err(|error| about(&error, &self.file))?;
        self.whole = true;
        let directory = self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| about(&error, directory))?;
        Ok(seen)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.whole {
            // What came is of no use; why it is not whole is what matters.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// What went wrong with a file.
pub(super) fn about(error: &io::Error, path: &Path) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}
