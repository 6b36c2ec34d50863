//! The bytes of a segment. Everything here is frozen: it outlives the version that wrote it.
//!
//! ```text
//! <sequence, 8 digits>-<index of the first entry that it may hold, 20 digits>.log
//!
//! LogSegment header | batch | batch | LogSynced | batch ... | zeros
//! batch = LogBatch header | records: LogEntry, LogVote, LogCommitted, LogTruncate, LogPurge
//! ```
//!
//! [`StoredBatch`] and the marker have a fixed size and never cross a sector, for which up to 68 zeros are put in
//! front: so after a power cut such a header is there or is zeros, and one that is neither is damaged.

use serde::{Deserialize, Serialize};

use crate::{
    model::Position,
    raft::types::StoredVote,
    storage::codec::{self, DecodeError, HEADER_BYTES, Kind},
};

/// What a disk writes wholly or not at all, in bytes.
pub(super) const SECTOR: u64 = 512;
/// The whole size of a batch header, and of a marker.
pub(super) const BATCH_BYTES: u64 = HEADER_BYTES as u64 + 56;
/// The name of a segment that is being prepared.
pub(super) const SPARE: &str = "spare";

/// What a batch header or a marker says of where it stands. With the log's random id in it, no bytes that a user
/// stores in an entry can be mistaken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The log's random id.
    pub(super) log: u128,
    /// Where this stands.
    pub(super) at: Place,
    /// Bytes of the records behind it; 0 for a marker.
    pub(super) bytes: u64,
    /// Everything before this was synced when this was written.
    pub(super) synced: Place,
}

/// An offset in a segment. Ordered as the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The segment's sequence number.
    pub(super) segment: u64,
    /// The offset in it.
    pub(super) offset: u64,
}

/// [`Batch`], frozen, with a fixed size.
#[derive(Serialize, Deserialize)]
struct StoredBatch {
    log: [u8; 16],
    segment: [u8; 8],
    offset: [u8; 8],
    bytes: [u8; 8],
    synced_segment: [u8; 8],
    synced_offset: [u8; 8],
}

impl Batch {
    /// Its envelope: [`BATCH_BYTES`].
    pub(super) fn encode(&self, kind: Kind) -> bytes::Bytes {
        let stored = StoredBatch {
            log: self.log.to_le_bytes(),
            segment: self.at.segment.to_le_bytes(),
            offset: self.at.offset.to_le_bytes(),
            bytes: self.bytes.to_le_bytes(),
            synced_segment: self.synced.segment.to_le_bytes(),
            synced_offset: self.synced.offset.to_le_bytes(),
        };
        codec::encode(kind, &stored)
    }

    /// Its payload, opened.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let stored: StoredBatch = codec::decode_payload(payload)?;
        let place =
            |segment, offset| Place { segment: u64::from_le_bytes(segment), offset: u64::from_le_bytes(offset) };
        Ok(Self {
            log: u128::from_le_bytes(stored.log),
            at: place(stored.segment, stored.offset),
            bytes: u64::from_le_bytes(stored.bytes),
            synced: place(stored.synced_segment, stored.synced_offset),
        })
    }
}

/// The first record of a segment: with it, all segments before it can be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentHeader {
    /// The log's random id.
    pub(super) log: u128,
    /// This segment's number, 1 for the log's first.
    pub(super) sequence: u64,
    /// The file's size.
    pub(super) bytes: u64,
    /// Where the segment before this one ends; 0 if there is none.
    pub(super) previous_end: u64,
    /// What the log says up to here.
    pub(super) checkpoint: Checkpoint,
}

/// What the log says up to some place in it, but for the entries themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The vote.
    pub(super) vote: Option<StoredVote>,
    /// Up to where entries are known to be committed.
    pub(super) committed: Option<Position>,
    /// Up to where entries are purged.
    pub(super) purged: Option<Position>,
    /// The last entry; the purged position if there is none behind it.
    pub(super) last: Option<Position>,
}

impl Checkpoint {
    /// Whether it can have come to be: the end of the log is never before what is purged.
    pub(super) fn is_sound(&self) -> bool {
        index_of(self.purged) <= index_of(self.last)
    }

    /// The index that the next entry has to have; `None` if the log never held one, and any will do.
    pub(super) fn next_index(&self) -> Option<u64> {
        self.last.map(|last| last.index.saturating_add(1))
    }

    /// Takes over one more entry; `Err` says why it cannot follow.
    pub(super) fn append(&mut self, entry: Position) -> Result<(), String> {
        if self.next_index().is_some_and(|next| next != entry.index) {
            let last = self.last.unwrap_or_default();
            return Err(format!("entry {entry} cannot follow {last}"));
        }
        if entry.index == u64::MAX {
            return Err(format!("entry {entry} cannot be: no other could follow it"));
        }
        self.last = Some(entry);
        Ok(())
    }

    /// Voids the entries behind `after`, but never what is purged.
    pub(super) fn truncate(&mut self, after: Option<Position>) {
        let kept = if index_of(after) < index_of(self.purged) { self.purged } else { after };
        if index_of(kept) < index_of(self.last) {
            self.last = kept;
        }
    }

    /// Purges the entries up to `upto`, which may lie behind the last.
    pub(super) fn purge(&mut self, upto: Position) {
        if Some(upto.index) > index_of(self.purged) {
            self.purged = Some(upto);
            if Some(upto.index) >= index_of(self.last) {
                self.last = Some(upto);
            }
        }
    }
}

/// The index of a position; `None` is before every index.
pub(super) fn index_of(position: Option<Position>) -> Option<u64> {
    position.map(|position| position.index)
}

/// A segment's file name.
pub(super) fn segment_name(sequence: u64, first: u64) -> String {
    format!("{sequence:08}-{first:020}.log")
}

/// The sequence number in a segment's file name; `None` if it is not one.
pub(super) fn parse_segment_name(name: &str) -> Option<u64> {
    let (sequence, first) = name.strip_suffix(".log")?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (sequence.len() >= 8 && first.len() == 20 && digits(sequence) && digits(first)).then_some(())?;
    sequence.parse().ok()
}

/// Where a batch header can stand, at or behind `offset`: it never crosses a sector.
pub(super) fn header_place(offset: u64) -> u64 {
    let left = SECTOR - offset % SECTOR;
    if left < BATCH_BYTES { offset + left } else { offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_batch_header_has_exactly_these_bytes() {
        let batch = Batch {
            log: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            at: Place { segment: 3, offset: 512 },
            bytes: 1000,
            synced: Place { segment: 2, offset: 70_000 },
        };
        let sealed = batch.encode(Kind::LogBatch);
        assert_eq!(sealed.len() as u64, BATCH_BYTES);
        assert_eq!(
            hex(&sealed),
            "4d5311010038000000a4df6f6e100f0e0d0c0b0a0908070605040302010300000000000000\
             0002000000000000e80300000000000002000000000000007011010000000000"
        );
        assert_eq!(Batch::decode(&sealed[HEADER_BYTES..]), Ok(batch));
    }

    #[test]
    fn a_segment_header_has_exactly_these_bytes() {
        let header = SegmentHeader {
            log: 7,
            sequence: 2,
            bytes: 65_536,
            previous_end: 300,
            checkpoint: Checkpoint {
                vote: Some(StoredVote { term: 4, node: 1, committed: true }),
                committed: Some(Position { term: 3, index: 9 }),
                purged: None,
                last: Some(Position { term: 4, index: 11 }),
            },
        };
        let sealed = codec::encode(Kind::LogSegment, &header);
        assert_eq!(hex(&sealed), "4d5310010015000000cf4809150702fc00000100fb2c01010401010103090001040b");
        assert_eq!(codec::decode(Kind::LogSegment, &sealed), Ok(header));
    }

    #[test]
    fn the_small_records_have_exactly_these_bytes() {
        let vote = codec::encode(Kind::LogVote, &StoredVote { term: 5, node: 2, committed: false });
        assert_eq!(hex(&vote), "4d5313010003000000f3799f66050200");
        let position = Position { term: 1, index: 300 };
        assert_eq!(hex(&codec::encode(Kind::LogCommitted, &position)), "4d5314010004000000d027f5c701fb2c01");
        assert_eq!(hex(&codec::encode(Kind::LogTruncate, &None::<Position>)), "4d531501000100000010076d3000");
        assert_eq!(hex(&codec::encode(Kind::LogPurge, &position)), "4d5316010004000000a3befaec01fb2c01");
    }

    #[test]
    fn names_say_sequence_and_first_index() {
        assert_eq!(segment_name(12, 345), "00000012-00000000000000000345.log");
        assert_eq!(parse_segment_name("00000012-00000000000000000345.log"), Some(12));
        for foreign in ["spare", "00000012.log", "0000001x-00000000000000000345.log", "1-2.log"] {
            assert_eq!(parse_segment_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_header_never_crosses_a_sector() {
        for offset in 0..2 * SECTOR {
            let place = header_place(offset);
            assert!(place >= offset && place - offset < BATCH_BYTES);
            assert_eq!(place / SECTOR, (place + BATCH_BYTES - 1) / SECTOR);
        }
    }
}
