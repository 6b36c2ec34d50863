//! Making segments: filled with zeros and synced ahead of time, so that a batch later overwrites blocks that the file
//! already owns and its sync writes no metadata.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::format::{SPARE, SegmentHeader, segment_name};
use crate::{
    environment::{
        Disk,
        disk::{File, OpenMode},
    },
    error::Fault,
    storage::codec::{self, Kind},
};

/// Zeros are written in pieces of this size, in bytes.
const PIECE: u64 = 256 << 10;
static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];

/// A segment to be: zeros up to `filled`, durable, under a name that recovery removes.
pub(super) struct Spare {
    path: PathBuf,
    file: Arc<dyn File>,
    filled: u64,
    bytes: u64,
}

/// A segment that has its name and its header.
pub(super) struct Created {
    /// Its path.
    pub(super) path: PathBuf,
    /// The open file.
    pub(super) file: Arc<dyn File>,
    /// Where its header ends.
    pub(super) header_end: u64,
}

impl Spare {
    /// Begins one of `bytes`.
    pub(super) fn begin(disk: &dyn Disk, directory: &Path, bytes: u64) -> Result<Self, Fault> {
        let path = directory.join(SPARE);
        let file = disk.open(&path, OpenMode::Create).map_err(|error| Fault::io("cannot create", &path, &error))?;
        Ok(Self { path, file: Arc::from(file), filled: 0, bytes })
    }

    /// Its size when it is ready.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills it at least up to `upto` (or wholly), if that is a piece or more away.
    pub(super) fn fill(&mut self, upto: u64) -> Result<(), Fault> {
        let upto = upto.min(self.bytes);
        if upto <= self.filled || (upto < self.bytes && upto - self.filled < PIECE) {
            return Ok(());
        }
        write_zeros(&*self.file, self.filled, upto)
            .and_then(|()| self.file.sync())
            .map_err(|error| Fault::io("cannot prepare", &self.path, &error))?;
        self.filled = upto;
        Ok(())
    }

    /// Makes a segment of it. Its header is durable before its name is, so a segment without a whole header is damage.
    pub(super) fn into_segment(
        mut self,
        disk: &dyn Disk,
        directory: &Path,
        header: &SegmentHeader,
    ) -> Result<Created, Fault> {
        self.fill(self.bytes)?;
        let first = header.checkpoint.next_index().unwrap_or(0);
        let path = directory.join(segment_name(header.sequence, first));
        let sealed = codec::encode(Kind::LogSegment, header);
        let made = self.file.write_all_at(&sealed, 0).and_then(|()| self.file.sync());
        made.and_then(|()| disk.rename(&self.path, &path))
            .and_then(|()| disk.sync_dir(directory))
            .map_err(|error| Fault::io("cannot create", &path, &error))?;
        Ok(Created { path, file: self.file, header_end: sealed.len() as u64 })
    }
}

/// Writes zeros from one offset up to another.
pub(super) fn write_zeros(file: &dyn File, mut from: u64, to: u64) -> std::io::Result<()> {
    while from < to {
        let piece = usize::try_from((to - from).min(PIECE)).unwrap_or(0);
        file.write_all_at(ZEROS.get(..piece).unwrap_or_default(), from)?;
        from += piece as u64;
    }
    Ok(())
}
