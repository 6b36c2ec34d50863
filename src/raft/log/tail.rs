//! The end of the log in memory: what was appended last is read from here, by followers and by apply.

use std::{collections::VecDeque, ops::Range};

use openraft::entry::RaftEntry;

use crate::raft::types::LogEntry;

/// The last entries, without gaps.
#[derive(Default)]
pub(super) struct Tail {
    entries: VecDeque<(LogEntry, usize)>,
    bytes: usize,
}

impl Tail {
    /// The index of its first entry; `None` if it is empty.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id_parts().1)
    }

    /// What its entries take in memory, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry behind the last; `sealed` is the length of its envelope.
    pub(super) fn push(&mut self, entry: LogEntry, sealed: usize) {
        // An entry holds its envelope and, beside it, the decoded payload.
        let bytes = 2 * sealed + size_of::<LogEntry>();
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    /// Drops the entries behind `last`; `None`: all.
    pub(super) fn truncate(&mut self, last: Option<u64>) {
        while let Some((entry, bytes)) = self.entries.back()
            && Some(entry.log_id_parts().1) > last
        {
            self.bytes -= bytes;
            self.entries.pop_back();
        }
    }

    /// Drops the entries up to `upto`.
    pub(super) fn purge(&mut self, upto: u64) {
        self.drop_front(|index, _| index <= upto);
    }

    /// Drops the oldest entries while it holds more than `limit` bytes, but none from index `unsynced` on: only here
    /// can those be read.
    pub(super) fn evict(&mut self, limit: usize, unsynced: u64) {
        self.drop_front(|index, bytes| index < unsynced && bytes > limit);
    }

    fn drop_front(&mut self, drops: impl Fn(u64, usize) -> bool) {
        while let Some((entry, bytes)) = self.entries.front()
            && drops(entry.log_id_parts().1, self.bytes)
        {
            self.bytes -= bytes;
            self.entries.pop_front();
        }
    }

    /// The entries of `range` that it holds, up to `max_bytes` of envelopes, but at least one.
    pub(super) fn read(&self, range: Range<u64>, mut max_bytes: usize) -> Vec<LogEntry> {
        let Some(first) = self.first() else { return Vec::new() };
        let skip = usize::try_from(range.start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut read = Vec::new();
        for (entry, bytes) in self.entries.iter().skip(skip) {
            let sealed = (bytes - size_of::<LogEntry>()) / 2;
            if entry.log_id_parts().1 >= range.end || (!read.is_empty() && sealed > max_bytes) {
                break;
            }
            max_bytes = max_bytes.saturating_sub(sealed);
            read.push(entry.clone());
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::model::Position;

    fn tail(indexes: Range<u64>) -> Tail {
        let mut tail = Tail::default();
        for index in indexes {
            let mut entry = LogEntry::new(Position { term: 1, index }.into(), EntryPayload::Blank);
            let sealed = entry.sealed().len();
            tail.push(entry, sealed);
        }
        tail
    }

    fn indexes(entries: &[LogEntry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id_parts().1).collect()
    }

    #[test]
    fn it_reads_what_it_holds_and_at_least_one() {
        let tail = tail(5..10);
        assert_eq!(indexes(&tail.read(6..8, usize::MAX)), [6, 7]);
        assert_eq!(indexes(&tail.read(8..20, usize::MAX)), [8, 9]);
        assert_eq!(indexes(&tail.read(6..20, 0)), [6]);
        assert_eq!(indexes(&tail.read(10..20, 0)), [] as [u64; 0]);
    }

    #[test]
    fn it_forgets_from_both_ends_but_never_what_is_not_synced() {
        let mut tail = tail(5..10);
        tail.truncate(Some(8));
        tail.purge(5);
        assert_eq!(indexes(&tail.read(0..20, usize::MAX)), [6, 7, 8]);
        tail.evict(0, 8);
        assert_eq!(indexes(&tail.read(0..20, usize::MAX)), [8]);
        tail.truncate(None);
        assert_eq!((tail.first(), tail.bytes()), (None, 0));
    }
}
