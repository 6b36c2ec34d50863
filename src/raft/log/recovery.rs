//! Reading the log at start.
//!
//! A batch is written only when the one before it is synced, and its header says so. So of a log that a crash cut off,
//! only the last batch can be incomplete, and nobody was told of it. A batch is taken whole or not at all.
//!
//! What cannot be read is *damage* if
//! * it lies before the end of a segment that a later one follows, or
//! * any later header or marker says that it was synced, or
//! * all its sectors hold something: a power cut leaves a sector of a prepared segment written, or zero.
//!
//! Everything else is a torn end, and is cut: zeros are written over it, so that nothing of it can ever come back.
//! Also the last batch is written again, and synced: if the program (not the machine) was killed, its bytes may be in
//! the system's cache only, and after a failed sync even the next sync would not write them.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Options,
    format::{BATCH_BYTES, Checkpoint, SPARE, SegmentHeader, header_place, index_of, parse_segment_name},
    index::{Index, Segment},
    reading::{Found, Reading, check_version},
    segment::Spare,
    state::position,
    terms::Terms,
    writer::Current,
};
use crate::{
    environment::{
        Environment,
        disk::{File, OpenMode},
    },
    error::Fault,
    model::Position,
    raft::types::LogEntry,
    storage::codec::{self, DecodeError, Envelope, Kind},
};

/// A log as it was found, made good to be written on.
pub(super) struct Recovered {
    pub(super) log: u128,
    pub(super) checkpoint: Checkpoint,
    pub(super) index: Index,
    pub(super) terms: Terms,
    pub(super) current: Current,
    /// No marker stands behind the last batch.
    pub(super) unmarked: bool,
}

/// Reads the log in `directory`; begins one if there is none.
pub(super) fn recover(environment: &Environment, directory: &Path, options: Options) -> Result<Recovered, Fault> {
    let disk = &*environment.disk;
    let failed = |error: std::io::Error| Fault::io("cannot open the log in", directory, &error);
    disk.create_dir_all(directory).map_err(failed)?;
    if let Some(parent) = directory.parent() {
        disk.sync_dir(parent).map_err(failed)?;
    }
    let mut segments = Vec::new();
    for name in disk.list(directory).map_err(failed)? {
        match parse_segment_name(&name) {
            Some(sequence) => segments.push((sequence, directory.join(name))),
            // What was being prepared holds nothing.
            None if name == SPARE => disk.remove_file(&directory.join(name)).map_err(failed)?,
            None => tracing::warn!(%name, "a foreign file in the log's directory is left alone"),
        }
    }
    segments.sort();
    let Some(((oldest, _), (newest, _))) = segments.first().cloned().zip(segments.last().cloned()) else {
        return begin(environment, directory, options);
    };
    for ((found, path), expected) in segments.iter().zip(oldest..) {
        if expected != *found {
            let what = if *found < expected { "there twice" } else { "missing" };
            return Err(Fault::new(format!("log segment {expected:08} is {what} before {}", path.display())));
        }
    }
    let mut replay = Replay::default();
    let mut files = Vec::new();
    for (sequence, path) in segments {
        files.push(Opened::open(environment, sequence, path)?);
    }
    let ends = files.iter().skip(1).map(|next| Some(next.header.previous_end)).chain([None]).collect::<Vec<_>>();
    let mut current = None;
    for (file, end) in files.into_iter().zip(ends) {
        current = Some(replay.segment(file, end)?);
    }
    let Some(current) = current else { return Err(Fault::bug(format!("log segment {newest:08} was not read"))) };
    replay.finish(directory, current)
}

fn begin(environment: &Environment, directory: &Path, options: Options) -> Result<Recovered, Fault> {
    let disk = &*environment.disk;
    let log = environment.clock.random();
    let checkpoint = Checkpoint::default();
    let bytes = options.segment_bytes;
    let header = SegmentHeader { log, sequence: 1, bytes, previous_end: 0, checkpoint };
    let made = Spare::begin(disk, directory, bytes)?.into_segment(disk, directory, &header)?;
    let mut index = Index::default();
    index.add(Segment::new(1, made.path.clone(), made.file.clone()));
    let current = Current { sequence: 1, path: made.path, file: made.file, bytes, end: made.header_end };
    Ok(Recovered { log, checkpoint, index, terms: Terms::default(), current, unmarked: false })
}

/// A segment whose header was read.
struct Opened {
    path: PathBuf,
    file: Arc<dyn File>,
    header: SegmentHeader,
    header_end: u64,
    length: u64,
}

impl Opened {
    fn open(environment: &Environment, sequence: u64, path: PathBuf) -> Result<Self, Fault> {
        let failed = |error: std::io::Error| Fault::io("cannot read", &path, &error);
        let file: Arc<dyn File> = Arc::from(environment.disk.open(&path, OpenMode::Write).map_err(failed)?);
        let length = file.len().map_err(failed)?;
        let mut start = vec![0; usize::try_from(length.min(4096)).unwrap_or(0)];
        let read = file.read_at(&mut start, 0).map_err(failed)?;
        start.truncate(read);
        let (envelope, header_end) = codec::open_any(&start).map_err(|error| Fault::damaged(&path, 0, error))?;
        check_version(&path, 0, &envelope)?;
        if envelope.kind != Kind::LogSegment as u8 {
            return Err(Fault::damaged(&path, 0, "no segment header stands here"));
        }
        let header: SegmentHeader =
            codec::decode_payload(envelope.payload).map_err(|error| Fault::damaged(&path, 0, error))?;
        if header.sequence != sequence {
            let what = format!("it says that it is segment {:08}", header.sequence);
            return Err(Fault::damaged(&path, 0, what));
        }
        if header.bytes != length {
            let what = format!("it has {length} bytes instead of {}", header.bytes);
            return Err(Fault::damaged(&path, header.bytes.min(length), what));
        }
        Ok(Self { path, file, header, header_end: header_end as u64, length })
    }

    fn read(&self) -> Result<Bytes, Fault> {
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(0)];
        let read = self.file.read_at(&mut bytes, 0).map_err(|error| Fault::io("cannot read", &self.path, &error))?;
        bytes.truncate(read);
        Ok(bytes.into())
    }
}

/// What was read so far.
#[derive(Default)]
struct Replay {
    log: Option<u128>,
    checkpoint: Checkpoint,
    index: Index,
    terms: Terms,
    /// The index of the last entry that stands, or stood, in segments that are gone.
    gone: Option<u64>,
    /// A batch was read behind which no marker stands.
    unmarked: bool,
}

impl Replay {
    /// Reads one segment. `end`: where it ends, as the next one says; `None` for the last, whose end is found and, if it
    /// is torn, cut.
    fn segment(&mut self, opened: Opened, end: Option<u64>) -> Result<Current, Fault> {
        let header = &opened.header;
        if *self.log.get_or_insert(header.log) != header.log {
            return Err(Fault::damaged(&opened.path, 0, "it belongs to another log"));
        }
        if !header.checkpoint.is_sound() {
            return Err(Fault::damaged(&opened.path, 0, "its header says that the log ends before what is purged"));
        }
        if self.index.segments() == 0 {
            self.checkpoint = header.checkpoint;
            self.gone = index_of(header.checkpoint.last);
        } else if self.checkpoint != header.checkpoint {
            return Err(Fault::damaged(&opened.path, 0, "its header disagrees with the segments before it"));
        }
        self.index.add(Segment::new(header.sequence, opened.path.clone(), opened.file.clone()));
        let bytes = opened.read()?;
        let mut reading = Reading::new(opened.path.clone(), bytes, header, opened.header_end);
        self.unmarked = false;
        let found = self.batches(&mut reading, opened.header_end, end)?;
        if end.is_none() {
            reading.make_good(&*opened.file, found)?;
        }
        let Opened { path, file, header, length, .. } = opened;
        Ok(Current { sequence: header.sequence, path, file, bytes: length, end: found })
    }

    /// Reads batches from `at` on: where they end.
    fn batches(&mut self, reading: &mut Reading, mut at: u64, end: Option<u64>) -> Result<u64, Fault> {
        while end.is_none_or(|end| at < end) {
            let place = header_place(at);
            let (records, marker) = match reading.header(place)? {
                Found::Batch { records, marker } => (records, marker),
                Found::Nothing(what) => return torn(reading, at, (place, place + BATCH_BYTES), end, &what),
            };
            // First all of it is checked, then it is taken: a batch counts wholly or not at all.
            if let Err((offset, what)) = reading.check(&records)? {
                return torn(reading, at, (offset, records.end), end, &what);
            }
            at = records.end;
            self.take(reading, records)?;
            self.unmarked = !marker;
        }
        if end.is_some_and(|end| at != end) {
            return Err(reading.damaged(at, "a batch reaches behind the segment's end"));
        }
        Ok(at)
    }

    fn take(&mut self, reading: &Reading, records: Range<u64>) -> Result<(), Fault> {
        let mut at = records.start;
        while at < records.end {
            let (envelope, length) = reading.open(at).map_err(|error| reading.damaged(at, error))?;
            let taken = self.record(reading, at, &envelope, length);
            taken.map_err(|what| reading.damaged(at, what))?;
            at += length as u64;
        }
        Ok(())
    }

    fn record(&mut self, reading: &Reading, at: u64, envelope: &Envelope<&[u8]>, length: usize) -> Result<(), String> {
        let payload = envelope.payload;
        let text = |error: DecodeError| error.to_string();
        if envelope.kind == Kind::LogEntry as u8 {
            let entry = LogEntry::open(reading.sealed(at, length)).map_err(text)?;
            let entry = position(&entry);
            self.checkpoint.append(entry)?;
            self.terms.push(entry);
            self.index.wrote(entry.index);
            return self.index.push(entry.index, at).map_err(|fault| fault.to_string());
        }
        if envelope.kind == Kind::LogVote as u8 {
            self.checkpoint.vote = Some(codec::decode_payload(payload).map_err(text)?);
        } else if envelope.kind == Kind::LogCommitted as u8 {
            self.checkpoint.committed = Some(codec::decode_payload(payload).map_err(text)?);
        } else if envelope.kind == Kind::LogTruncate as u8 {
            self.truncate(codec::decode_payload(payload).map_err(text)?)?;
        } else if envelope.kind == Kind::LogPurge as u8 {
            self.purge(codec::decode_payload(payload).map_err(text)?)?;
        } else {
            return Err(format!("a record of kind {} does not belong into a batch", envelope.kind));
        }
        Ok(())
    }

    fn truncate(&mut self, after: Option<Position>) -> Result<(), String> {
        self.checkpoint.truncate(after);
        let last = index_of(self.checkpoint.last);
        if let Some(kept) = self.checkpoint.last.filter(|_| last > index_of(self.checkpoint.purged))
            && !self.is_there(kept.index)
        {
            return Err(format!("it voids the entries behind {kept}, which is not there"));
        }
        self.gone = self.gone.min(last);
        self.index.truncate(last);
        self.terms.truncate(last);
        Ok(())
    }

    fn purge(&mut self, upto: Position) -> Result<(), String> {
        self.checkpoint.purge(upto);
        let (purged, last) = (index_of(self.checkpoint.purged), index_of(self.checkpoint.last));
        if purged < last && !self.is_there(purged.map_or(0, |purged| purged.saturating_add(1))) {
            return Err(format!("it purges up to {upto}, and the entry behind that is not there"));
        }
        self.index.purge(upto.index);
        self.terms.purge(upto.index, last);
        Ok(())
    }

    /// Whether an entry that is not behind the last stands in what was read, or stood in segments that are gone.
    fn is_there(&self, index: u64) -> bool {
        Some(index) <= self.gone || self.terms.at(index).is_some()
    }

    /// Checks that every entry from the purged position to the end is there.
    fn finish(self, directory: &Path, current: Current) -> Result<Recovered, Fault> {
        let Self { log, checkpoint, index, terms, gone, unmarked } = self;
        if gone > index_of(checkpoint.purged) {
            let oldest = index.oldest_sequence().unwrap_or(0);
            let missing = oldest.saturating_sub(1);
            let what = format!("log segment {missing:08} is missing in {}: entries before", directory.display());
            return Err(Fault::new(format!("{what} segment {oldest:08} are not purged")));
        }
        let Some(log) = log else { return Err(Fault::bug("a log without segments was read")) };
        Ok(Recovered { log, checkpoint, index, terms, current, unmarked })
    }
}

/// The log ends at `at`, if what cannot be read in `bad` is a torn end and not damage. A segment that another follows
/// has an `end`, up to which it was synced.
fn torn(reading: &Reading, at: u64, bad: (u64, u64), end: Option<u64>, what: &str) -> Result<u64, Fault> {
    if end.is_some() {
        return Err(reading.damaged(bad.0, what));
    }
    reading.refuse_damage(bad.0, bad.1, what)?;
    Ok(at)
}
