//! A file system of a node's own, in a file: its power can be cut, it can be filled, it can turn read-only.
//!
//! A power cut is `FS_IOC_SHUTDOWN` without a flush of the file system's journal: from then on nothing reaches the image,
//! and what had not been synced before is gone when it is mounted again.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use super::tools::{missing, must, run};

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

/// A mounted image; unmounted and deleted when it is dropped.
pub struct Volume {
    image: PathBuf,
    mount: PathBuf,
    kind: FileSystem,
    mounted: bool,
}

/// Sparse, so it costs only what is written.
const MIB: u64 = 1_024;
/// What is left of it by the ballast that costs nothing.
const ROUGHLY_KIB: u64 = 16_384;

impl Volume {
    /// Why there can be none; nothing if there can.
    pub fn missing() -> Option<String> {
        missing(true, &["mkfs.ext4", "xfs_io", "mount", "umount", "fallocate"])
    }

    pub fn create(directory: &Path, name: &str, kind: FileSystem) -> Self {
        let (image, mount) = (directory.join(format!("{name}.image")), directory.join(format!("{name}.mount")));
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(MIB << 20).unwrap();
        let text = image.to_str().unwrap();
        match kind {
            FileSystem::Ext4 => must("mkfs.ext4", &["-q", "-F", "-m", "0", text]),
            FileSystem::Xfs => must("mkfs.xfs", &["-q", "-f", text]),
        };
        let mut volume = Self { image, mount, kind, mounted: false };
        volume.mount();
        volume
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn text(&self) -> &str {
        self.mount.to_str().unwrap()
    }

    pub fn mount(&mut self) {
        // What ext4 does with an error of its own: it takes no more writes.
        let options = if self.kind == FileSystem::Ext4 { "loop,errors=remount-ro" } else { "loop" };
        must("mount", &["-o", options, self.image.to_str().unwrap(), self.text()]);
        self.mounted = true;
    }

    /// From now on nothing reaches the disk. Then the process must be killed, and [`remount`](Self::remount) called.
    pub fn cut(&self) -> Result<(), String> {
        run("xfs_io", &["-x", "-c", "shutdown", self.text()]).map(drop)
    }

    /// Nobody may have a file open.
    pub fn unmount(&mut self) -> Result<(), String> {
        let mut tried = 0;
        while let Err(error) = run("umount", &[self.text()]) {
            tried += 1;
            if tried == 100 {
                return Err(error);
            }
            // A process that was just killed still lets go of its files.
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mounted = false;
        Ok(())
    }

    pub fn remount(&mut self) {
        self.unmount().unwrap_or_else(|error| panic!("{error}"));
        if self.kind == FileSystem::Ext4 {
            // After an error of its own it wants to be checked; it replays its journal there or at the mount.
            let _ = run("e2fsck", &["-p", self.image.to_str().unwrap()]);
        }
        self.mount();
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Fills it, but for so many KiB.
    pub fn fill(&self, leave_kib: u64) -> Result<(), String> {
        let free_kib = self.free_kib()?;
        let length = format!("{}KiB", free_kib.saturating_sub(ROUGHLY_KIB).max(1));
        let ballast = self.ballast();
        run("fallocate", &["-l", &length, ballast.to_str().unwrap()])?;
        // The file system wants some for itself: the last of it is found by writing.
        let mut rest = fs::File::create(self.mount.join("ballast-rest")).map_err(|error| error.to_string())?;
        let page = [b'x'; 4_096];
        let mut written = 0;
        while rest.write_all(&page).is_ok() {
            written += page.len() as u64;
        }
        rest.set_len(written.saturating_sub(leave_kib << 10)).map_err(|error| error.to_string())
    }

    fn free_kib(&self) -> Result<u64, String> {
        let stat = rustix::fs::statvfs(&self.mount).map_err(|error| error.to_string())?;
        Ok(stat.f_bavail * stat.f_frsize / 1_024)
    }

    /// Undoes [`fill`](Self::fill).
    pub fn relieve(&self) {
        let _ = fs::remove_file(self.ballast());
        let _ = fs::remove_file(self.mount.join("ballast-rest"));
    }

    /// An error in the file system, whereupon it takes no more writes. ext4 only.
    pub fn turn_read_only(&self) -> Result<(), String> {
        let source = must("findmnt", &["-n", "-o", "SOURCE", self.text()]);
        let device = source.trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "chaos").map_err(|error| error.to_string())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = self.unmount()
        {
            eprintln!("{error}");
            let _ = run("umount", &["-l", self.text()]);
        }
        let _ = fs::remove_file(&self.image);
        let _ = fs::remove_dir(&self.mount);
    }
}
