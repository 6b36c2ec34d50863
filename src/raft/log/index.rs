//! Where each entry stands on disk: an offset of four bytes for each, by segment.

use std::{
    collections::VecDeque,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use openraft::entry::RaftEntry;

use crate::{
    environment::disk::File,
    error::Fault,
    raft::types::LogEntry,
    storage::codec::{self, HEADER_BYTES},
};

/// A segment, and the readable entries that stand in it.
pub(super) struct Segment {
    sequence: u64,
    path: Arc<Path>,
    file: Arc<dyn File>,
    /// The highest index that was ever written to it, also if void since.
    highest: Option<u64>,
    /// The index of the first of `offsets`.
    first: u64,
    offsets: Vec<u32>,
}

/// All segments, oldest first.
#[derive(Default)]
pub(super) struct Index {
    segments: VecDeque<Segment>,
}

/// Entries that follow each other in one segment, to be read without any lock: what is written there is never
/// overwritten, and a removed file can still be read by those who have it open.
pub(super) struct Run {
    path: Arc<Path>,
    file: Arc<dyn File>,
    first: u64,
    offsets: Vec<u32>,
}

impl Segment {
    /// A segment without entries.
    pub(super) fn new(sequence: u64, path: PathBuf, file: Arc<dyn File>) -> Self {
        Self { sequence, path: Arc::from(path), file, highest: None, first: 0, offsets: Vec::new() }
    }

    fn end(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }
}

impl Index {
    /// Adds the next segment.
    pub(super) fn add(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Notes in the last segment that an entry was written to it, whether it is still readable or not.
    pub(super) fn wrote(&mut self, index: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.highest = segment.highest.max(Some(index));
        }
    }

    /// Makes an entry readable that stands in the last segment, behind all others.
    pub(super) fn push(&mut self, index: u64, offset: u64) -> Result<(), Fault> {
        let last = self.segments.iter().rev().find(|segment| !segment.offsets.is_empty()).map(Segment::end);
        let (Some(segment), Ok(offset)) = (self.segments.back_mut(), u32::try_from(offset)) else {
            return Err(Fault::bug(format!("no segment can hold entry {index} at {offset}")));
        };
        if last.is_some_and(|next| next != index) {
            return Err(Fault::bug(format!("entry {index} was written where {last:?} follows")));
        }
        if segment.offsets.is_empty() {
            segment.first = index;
        }
        segment.offsets.push(offset);
        Ok(())
    }

    /// Forgets the entries behind `last`; `None`: all.
    pub(super) fn truncate(&mut self, last: Option<u64>) {
        let kept_end = last.map_or(0, |last| last.saturating_add(1));
        for segment in self.segments.iter_mut().rev().filter(|segment| !segment.offsets.is_empty()) {
            let kept = usize::try_from(kept_end.saturating_sub(segment.first)).unwrap_or(usize::MAX);
            segment.offsets.truncate(kept);
            if kept > 0 {
                break;
            }
        }
    }

    /// Forgets the entries up to `upto`, by whole segments.
    pub(super) fn purge(&mut self, upto: u64) {
        for segment in self.segments.iter_mut().filter(|segment| !segment.offsets.is_empty()) {
            if segment.end() > upto.saturating_add(1) {
                break;
            }
            segment.offsets = Vec::new();
        }
    }

    /// Takes out the oldest segment, if it is not the last and nothing of it is needed once `purged` is durable.
    pub(super) fn remove_purged(&mut self, purged: Option<u64>) -> Option<Arc<Path>> {
        let oldest = self.segments.front()?;
        if self.segments.len() < 2 || oldest.highest > purged {
            return None;
        }
        self.segments.pop_front().map(|segment| segment.path)
    }

    /// The sequence number of the oldest segment.
    pub(super) fn oldest_sequence(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.sequence)
    }

    /// The entries of `range`, all of which are on disk, up to `max_bytes` and one or two entries more, but at least one; and how
    /// many of the bytes are left. Errors: the index of one that is not there.
    pub(super) fn runs(&self, range: Range<u64>, max_bytes: usize) -> Result<(Vec<Run>, usize), u64> {
        let mut runs: Vec<Run> = Vec::new();
        let (mut at, mut left) = (range.start, max_bytes);
        while at < range.end && (left > 0 || runs.is_empty()) {
            let (run, cut) = self.run(at..range.end, left).ok_or(at)?;
            at = run.end();
            left = left.saturating_sub(run.span());
            runs.push(run);
            if cut {
                break;
            }
        }
        Ok((runs, left))
    }

    /// The entries of `range` in the segment in which the first of them stands, up to `max_bytes` but at least one, and whether
    /// there would be more; `None` if the first is not on disk.
    fn run(&self, range: Range<u64>, max_bytes: usize) -> Option<(Run, bool)> {
        let segment = self.segments.iter().find(|segment| (segment.first..segment.end()).contains(&range.start))?;
        let from = usize::try_from(range.start - segment.first).ok()?;
        let to = usize::try_from(range.end.min(segment.end()) - segment.first).ok()?;
        let offsets = segment.offsets.get(from..to)?;
        let start = *offsets.first()?;
        let fit = offsets.partition_point(|offset| (offset - start) as usize <= max_bytes).max(1);
        let cut = fit < offsets.len();
        let offsets = offsets.iter().copied().take(fit).collect();
        Some((Run { path: segment.path.clone(), file: segment.file.clone(), first: range.start, offsets }, cut))
    }
}

impl Run {
    /// The index behind its last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }

    /// The bytes from its first entry to its last.
    pub(super) fn span(&self) -> usize {
        let (first, last) = (self.offsets.first(), self.offsets.last());
        first.zip(last).map_or(0, |(first, last)| (last - first) as usize)
    }

    /// Reads the entries.
    pub(super) fn read(&self) -> Result<Vec<LogEntry>, Fault> {
        let (Some(&first), Some(&last)) = (self.offsets.first(), self.offsets.last()) else { return Ok(Vec::new()) };
        let header = self.bytes(u64::from(last), HEADER_BYTES)?;
        let length = codec::sealed_len(&header).ok_or_else(|| self.damaged(last, "no entry begins here"))?;
        let bytes = self.bytes(u64::from(first), (last - first) as usize + length)?;
        let mut entries: Vec<LogEntry> = Vec::with_capacity(self.offsets.len());
        // The offsets first: behind the last of them there may be no further index.
        for (&offset, index) in self.offsets.iter().zip(self.first..) {
            let at = (offset - first) as usize;
            let end = bytes.get(at..).and_then(codec::sealed_len).map(|length| at.saturating_add(length));
            let Some(end) = end.filter(|end| *end <= bytes.len()) else {
                return Err(self.damaged(offset, "no entry begins here"));
            };
            let entry = LogEntry::open(bytes.slice(at..end)).map_err(|error| self.damaged(offset, error))?;
            if entry.log_id_parts().1 != index {
                return Err(self.damaged(offset, format!("entry {index} should stand here")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn bytes(&self, offset: u64, length: usize) -> Result<Bytes, Fault> {
        let mut buffer = vec![0; length];
        let read =
            self.file.read_at(&mut buffer, offset).map_err(|error| Fault::io("cannot read", &self.path, &error))?;
        if read != length {
            return Err(Fault::damaged(&self.path, offset, "the file ends inside an entry"));
        }
        Ok(buffer.into())
    }

    fn damaged(&self, offset: u32, what: impl std::fmt::Display) -> Fault {
        Fault::damaged(&self.path, u64::from(offset), what)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    struct NoFile;

    impl File for NoFile {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }
        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn try_lock(&self) -> io::Result<bool> {
            Ok(true)
        }
    }

    fn index(segments: &[Range<u64>]) -> Index {
        let mut index = Index::default();
        for (sequence, range) in (1..).zip(segments) {
            index.add(Segment::new(sequence, format!("{sequence}").into(), Arc::new(NoFile)));
            for at in range.clone() {
                index.wrote(at);
                index.push(at, (at - range.start) * 100).unwrap();
            }
        }
        index
    }

    fn found(index: &Index, range: Range<u64>) -> Option<(u64, usize)> {
        index.run(range, usize::MAX).map(|(run, _)| (run.first, run.offsets.len()))
    }

    #[test]
    fn a_run_ends_with_its_segment_or_its_bytes() {
        let index = index(&[5..10, 10..12]);
        assert_eq!(found(&index, 6..12), Some((6, 4)));
        assert_eq!(found(&index, 10..11), Some((10, 1)));
        assert_eq!(found(&index, 4..5), None);
        assert_eq!(found(&index, 12..13), None);
        assert_eq!(index.run(5..10, 250).map(|(run, cut)| (run.offsets.len(), cut)), Some((3, true)));
        assert_eq!(index.run(5..10, 400).map(|(run, cut)| (run.offsets.len(), cut)), Some((5, false)));
    }

    /// What is left of the bytes when the next entry is larger was once given to each of all that follow.
    #[test]
    fn no_more_is_read_than_was_asked_for() {
        let index = index(&[5..10, 10..500]);
        let read =
            |range, bytes| index.runs(range, bytes).map(|(runs, _)| runs.iter().map(|run| run.offsets.len()).collect());
        assert_eq!(read(5..500, 250), Ok(vec![3]));
        assert_eq!(read(5..500, 650), Ok(vec![5, 3]));
        assert_eq!(read(5..500, 1), Ok(vec![1]));
        assert_eq!(read(5..10, 0), Ok(vec![1]));
        assert_eq!(read(5..500, usize::MAX), Ok(vec![5, 490]));
        assert_eq!(read(490..501, 10_000), Err::<Vec<usize>, _>(500));
    }

    #[test]
    fn truncation_reaches_over_segments_and_new_entries_follow() {
        let mut index = index(&[5..10, 10..12]);
        index.truncate(Some(7));
        assert_eq!(found(&index, 7..20), Some((7, 1)));
        assert_eq!(found(&index, 8..20), None);
        assert!(index.push(9, 300).is_err(), "a hole");
        index.push(8, 300).unwrap();
        assert_eq!(found(&index, 8..20), Some((8, 1)));
        index.truncate(None);
        assert_eq!(found(&index, 5..20), None);
    }

    #[test]
    fn a_segment_goes_when_all_that_was_ever_in_it_is_purged() {
        let mut index = index(&[5..10, 10..12]);
        index.truncate(Some(7));
        index.purge(7);
        assert_eq!(found(&index, 7..20), None);
        assert_eq!(index.remove_purged(Some(7)), None, "entry 9 was there: who reads from here on needs its end");
        assert!(index.remove_purged(Some(9)).is_some());
        assert_eq!(index.remove_purged(Some(20)), None, "the last stays");
    }
}
