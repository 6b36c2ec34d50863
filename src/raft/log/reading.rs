//! Reading one segment at start, and judging what cannot be read (see [`super::recovery`] for the rule).

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    format::{BATCH_BYTES, Batch, SECTOR, SegmentHeader},
    segment::write_zeros,
};
use crate::{
    environment::disk::File,
    error::Fault,
    storage::codec::{self, DecodeError, Envelope, Kind},
};

/// The newest version of the log's records that this program knows.
const KNOWN: u8 = 1;
/// Zeros are looked for in blocks of this size, in bytes.
const BLOCK: usize = 4096;

/// One segment while it is read.
pub(super) struct Reading {
    path: PathBuf,
    sequence: u64,
    log: u128,
    bytes: Bytes,
    /// Everything before this is known to be synced.
    synced: u64,
}

/// What stands where a batch header could.
pub(super) enum Found {
    /// A batch or a marker (which has no records).
    Batch { records: Range<u64>, marker: bool },
    /// Nothing that can be read, and why.
    Nothing(String),
}

/// Refuses what a newer program wrote.
pub(super) fn check_version(path: &Path, offset: u64, envelope: &Envelope<&[u8]>) -> Result<(), Fault> {
    let known = [
        Kind::LogSegment,
        Kind::LogBatch,
        Kind::LogEntry,
        Kind::LogVote,
        Kind::LogCommitted,
        Kind::LogTruncate,
        Kind::LogPurge,
        Kind::LogSynced,
    ];
    let at = |what: &dyn std::fmt::Display| Fault::new(format!("{} at offset {offset}: {what}", path.display()));
    let Some(kind) = known.into_iter().find(|kind| *kind as u8 == envelope.kind) else {
        let what = format!("a record of kind {} is unknown to this program; use a newer meshstore", envelope.kind);
        return Err(at(&what));
    };
    if envelope.version == 0 || envelope.version > KNOWN {
        return Err(at(&DecodeError::Newer { kind, version: envelope.version, known: KNOWN }));
    }
    Ok(())
}

impl Reading {
    /// The segment whose `bytes` are these.
    pub(super) fn new(path: PathBuf, bytes: Bytes, header: &SegmentHeader, header_end: u64) -> Self {
        Self { path, sequence: header.sequence, log: header.log, bytes, synced: header_end }
    }

    /// The bytes from an offset on.
    fn from(&self, at: u64) -> &[u8] {
        usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    fn slice(&self, range: Range<u64>) -> &[u8] {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let bytes = self.from(range.start);
        bytes.get(..length).unwrap_or(bytes)
    }

    /// The record at `at`, and its length.
    pub(super) fn open(&self, at: u64) -> Result<(Envelope<&[u8]>, usize), DecodeError> {
        codec::open_any(self.from(at))
    }

    /// The bytes of the record at `at`.
    pub(super) fn sealed(&self, at: u64, length: usize) -> Bytes {
        let record = self.slice(at..at.saturating_add(length as u64));
        self.bytes.slice_ref(record)
    }

    /// A fault that names the place.
    pub(super) fn damaged(&self, at: u64, what: impl std::fmt::Display) -> Fault {
        Fault::damaged(&self.path, at, what)
    }

    /// Reads the batch header or marker at `place`.
    pub(super) fn header(&mut self, place: u64) -> Result<Found, Fault> {
        if is_zero(self.slice(place..place + BATCH_BYTES)) {
            return Ok(Found::Nothing("zeros where a batch should begin".into()));
        }
        let envelope = match self.open(place) {
            Ok((envelope, _)) => envelope,
            Err(error) => return Ok(Found::Nothing(error.to_string())),
        };
        check_version(&self.path, place, &envelope)?;
        let marker = envelope.kind == Kind::LogSynced as u8;
        if !marker && envelope.kind != Kind::LogBatch as u8 {
            return Err(self.damaged(place, "a record stands outside of a batch"));
        }
        let batch = Batch::decode(envelope.payload).map_err(|error| self.damaged(place, error))?;
        let records = place + BATCH_BYTES..(place + BATCH_BYTES).saturating_add(batch.bytes);
        if !self.is_ours(&batch, place) || records.end > self.bytes.len() as u64 {
            return Err(self.damaged(place, "a batch header that belongs elsewhere"));
        }
        if batch.synced.segment == self.sequence {
            self.synced = self.synced.max(batch.synced.offset);
        }
        Ok(Found::Batch { records, marker })
    }

    fn is_ours(&self, batch: &Batch, place: u64) -> bool {
        batch.log == self.log && batch.at.segment == self.sequence && batch.at.offset == place
    }

    /// Checks the records of a batch without taking them: the inner error is the first that cannot be read, and why.
    pub(super) fn check(&self, records: &Range<u64>) -> Result<Result<(), (u64, String)>, Fault> {
        let mut at = records.start;
        while at < records.end {
            match self.open(at) {
                Ok((envelope, length)) => {
                    check_version(&self.path, at, &envelope)?;
                    let end = at + length as u64;
                    if end > records.end {
                        return Ok(Err((at, "a record reaches behind its batch".into())));
                    }
                    at = end;
                }
                Err(error) => return Ok(Err((at, error.to_string()))),
            }
        }
        Ok(Ok(()))
    }

    /// Judges what cannot be read at `bad`, in the log's last segment, in a batch (or header) that reaches up to
    /// `extent`: `Ok` if it is a torn end.
    pub(super) fn refuse_damage(&self, bad: u64, extent: u64, what: &str) -> Result<(), Fault> {
        if let Some(at) = self.vouched(bad) {
            return Err(self.damaged(bad, format!("{what}; the record at {at} says that this was synced")));
        }
        // What a power cut left out is zeros up to the next sector.
        let mut at = bad;
        let end = extent.min(self.bytes.len() as u64);
        let mut torn = at >= end;
        while at < end && !torn {
            let next = (at / SECTOR + 1).saturating_mul(SECTOR).min(end);
            torn = is_zero(self.slice(at..next));
            at = next;
        }
        if torn { Ok(()) } else { Err(self.damaged(bad, what)) }
    }

    /// A later batch header or marker that says that more than what lies before `bad` was synced.
    fn vouched(&self, bad: u64) -> Option<u64> {
        let mut at = bad + 1;
        while let Some(rest) = Some(self.from(at)).filter(|rest| !rest.is_empty()) {
            let block = rest.get(..BLOCK).unwrap_or(rest);
            if is_zero(block) {
                at += block.len() as u64;
                continue;
            }
            let vouches = |at: &u64| self.batch_at(*at).is_some_and(|batch| batch.synced.offset > bad);
            if let Some(found) = (at..at + block.len() as u64).find(vouches) {
                return Some(found);
            }
            at += block.len() as u64;
        }
        None
    }

    fn batch_at(&self, at: u64) -> Option<Batch> {
        let bytes = self.from(at);
        // Cheap to ask of every offset, and almost always false.
        codec::sealed_len(bytes).filter(|length| *length as u64 == BATCH_BYTES)?;
        let (envelope, _) = codec::open_any(bytes).ok()?;
        let header = [Kind::LogBatch as u8, Kind::LogSynced as u8].contains(&envelope.kind);
        let batch = Batch::decode(envelope.payload).ok().filter(|_| header)?;
        (self.is_ours(&batch, at) && batch.synced.segment == self.sequence).then_some(batch)
    }

    /// Makes the segment good to be written on from `end`: what nobody vouches for is written again, what lies behind
    /// the end becomes zeros, and both are synced.
    pub(super) fn make_good(&self, file: &dyn File, end: u64) -> Result<(), Fault> {
        let failed = |error: std::io::Error| Fault::io("cannot repair the end of", &self.path, &error);
        let mut changed = self.synced < end;
        if changed {
            file.write_all_at(self.slice(self.synced..end), self.synced).map_err(failed)?;
        }
        let mut at = end;
        while let Some(rest) = Some(self.from(at)).filter(|rest| !rest.is_empty()) {
            let block = rest.get(..BLOCK).unwrap_or(rest);
            let next = at + block.len() as u64;
            if !is_zero(block) {
                changed = true;
                write_zeros(file, at, next).map_err(failed)?;
            }
            at = next;
        }
        if changed { file.sync().map_err(failed) } else { Ok(()) }
    }
}

/// Whether all bytes (at most a block) are zero.
fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    // A comparison of memory is quick also where the compiler does not optimise.
    ZEROS.get(..bytes.len()).is_some_and(|zeros| zeros == bytes)
}
