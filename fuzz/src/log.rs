//! The write-ahead log on a disk in memory. Three kinds of cases:
//!
//! * *raw damage* to a log in which everything was synced. What `docs/formats.md` promises is written down here a
//!   second time ([`verdict`]): damage is refused, unless it cannot be told from the torn end of the last batch, which
//!   is cut, and then the log is what it was before that batch. Never less, never something else.
//! * *hostile records* with right checksums behind a valid log, in a batch of their own.
//! * *hostile segments*: a header with a right checksum, and such a batch.
//!
//! The last two are refused with a fault that names the place, or make a log that holds what it says, that is the
//! same when it is opened again, and that can be written on.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use meshstore::{
    environment::{Disk, Step, Worker, disk::OpenMode},
    error::Fault,
    model::Position,
    raft::{
        log::{Log, Options},
        types::{LogEntry, StoredVote},
    },
    storage::codec::{self, HEADER_BYTES, Kind},
};

use super::{
    input::Input,
    sim_disk::SimDisk,
    world::{CHANCE, HandClock, environment},
};

const DIRECTORY: &str = "/data/log";
/// Small, so that a few entries fill segments and tail; but a batch takes all of one append.
const SMALL: Options = Options { segment_bytes: 4096, batch_bytes: 4000, tail_bytes: 2000 };
const SECTOR: usize = 512;
/// A batch header, and a marker.
const BATCH_BYTES: usize = HEADER_BYTES + 56;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    // Every other log is also written on, which takes as long as all the rest.
    let write = choice >= 128;
    match choice % 4 {
        0 | 1 => damaged(&mut input, write),
        2 => hostile_records(&mut input, write),
        _ => hostile_segment(&mut input, write),
    }
}

/// A log whose writer is stepped by hand.
struct Opened {
    log: Log,
    worker: Box<dyn Worker>,
    clock: Arc<HandClock>,
}

/// All that a log says.
#[derive(Clone, Default, PartialEq)]
struct Said {
    vote: Option<StoredVote>,
    committed: Option<Position>,
    purged: Option<Position>,
    last: Option<Position>,
    entries: Vec<Bytes>,
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vote, committed, purged, last, entries } = self;
        let entries = entries.iter().map(|entry| &entry[HEADER_BYTES..entry.len().min(HEADER_BYTES + 8)]);
        write!(f, "{vote:?}, {committed:?}, {purged:?}, {last:?}, entries {:?}", entries.collect::<Vec<_>>())
    }
}

impl Opened {
    fn open(disk: &SimDisk) -> Result<Self, Fault> {
        let clock = Arc::new(HandClock::default());
        let (log, worker, _) = Log::open(&environment(disk, clock.clone()), Path::new(DIRECTORY), SMALL)?;
        Ok(Self { log, worker, clock })
    }

    fn settle(&mut self) {
        while self.worker.step().expect("the disk works") == Step::Again {}
    }

    /// Lets so much time pass that a marker is due.
    fn idle(&mut self) {
        self.settle();
        self.clock.advance(20);
        self.settle();
    }

    fn finish<T>(&mut self, future: impl Future<Output = Result<T, Fault>>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return result.expect("the log works");
            }
            self.worker.step().expect("the disk works");
        }
    }

    fn append(&mut self, entry: LogEntry) {
        self.log.append(vec![entry], |result| result.expect("the disk works")).expect("it follows");
        self.settle();
    }

    /// What it says, all of which can be read.
    fn said(&self) -> Said {
        let log = &self.log;
        let (purged, last) = log.bounds();
        let entries = log.entries(0..u64::MAX, usize::MAX).expect("what it holds can be read");
        let first = log.first_index();
        let behind = last.map_or(first, |last| last.index.saturating_add(1));
        assert_eq!(entries.len() as u64, behind.saturating_sub(first), "entries {first} to {last:?}");
        let mut sealed = Vec::new();
        for (mut entry, index) in entries.into_iter().zip(first..) {
            let position = log.position_at(index).expect("an entry has a position");
            assert_eq!(position.index, index);
            assert!(entry.to_string().starts_with(&format!("{position} ")), "{entry} stands at {position}");
            sealed.push(entry.sealed());
        }
        if let Some(middle) = sealed.get(sealed.len() / 2) {
            let index = first + sealed.len() as u64 / 2;
            let mut alone = log.entries(index..index + 1, usize::MAX).expect("one entry can be read");
            assert_eq!(
                alone.iter_mut().map(LogEntry::sealed).collect::<Vec<_>>(),
                std::slice::from_ref(middle),
                "alone it is another"
            );
        }
        Said { vote: log.vote(), committed: log.committed(), purged, last, entries: sealed }
    }
}

fn entry(position: Position, payload: Option<&[u8]>) -> LogEntry {
    let mut bytes = codec::encode_payload(&position);
    match payload {
        None => bytes.push(0),
        Some(batch) => {
            bytes.push(1);
            bytes.extend(codec::encode_payload(&Bytes::copy_from_slice(batch)));
        }
    }
    LogEntry::open(codec::seal(Kind::LogEntry, 1, 0, &bytes)).expect("it is an entry")
}

/// The log as it ought to be.
#[derive(Clone, Debug, Default)]
struct Model {
    vote: Option<StoredVote>,
    committed: Option<Position>,
    purged: Option<Position>,
    last: Option<Position>,
    entries: BTreeMap<u64, (Position, Bytes)>,
}

impl Model {
    fn said(&self) -> Said {
        let index = |position: Option<Position>| position.map(|position| position.index);
        let committed = if index(self.committed) > index(self.last) { self.last } else { self.committed };
        let entries = self.entries.values().map(|(_, sealed)| sealed.clone()).collect();
        Said { vote: self.vote, committed, purged: self.purged, last: self.last, entries }
    }

    /// A position of the log, the one in front of it, or none.
    fn chosen(&self, input: &mut Input<'_>) -> Option<Position> {
        let all: Vec<Position> = self.entries.values().map(|(position, _)| *position).collect();
        match input.below(all.len() + 1) {
            0 => self.purged,
            at => Some(all[at - 1]),
        }
    }
}

/// A valid log, all of it synced.
struct Built {
    disk: SimDisk,
    /// What stands where, and what the log says with it in.
    batches: BTreeMap<(PathBuf, usize), (usize, Said)>,
    model: Model,
    /// Segments have been removed.
    purged: bool,
}

impl Built {
    fn new(input: &mut Input<'_>) -> Self {
        let disk = SimDisk::new(0);
        let mut opened = Opened::open(&disk).expect("a new log");
        let mut built = Self { disk, batches: BTreeMap::new(), model: Model::default(), purged: false };
        let mut term = 1;
        for _ in 0..1 + input.below(6) {
            built.change(&mut opened, &mut term, input);
            built.note();
        }
        assert_eq!(opened.said(), built.model.said(), "the open log is not what was done to it");
        built
    }

    fn change(&mut self, opened: &mut Opened, term: &mut u64, input: &mut Input<'_>) {
        let model = &mut self.model;
        match input.below(10) {
            0..=4 => {
                let first = model.last.map_or_else(|| input.below(3) as u64, |last| last.index + 1);
                let count = 1 + input.below(4) as u64;
                let bytes = vec![if input.flag() { 0 } else { 7 }; [0, 3, 200, 700][input.below(4)]];
                let mut entries = Vec::new();
                for index in first..first + count {
                    let position = Position { term: *term, index };
                    let mut entry = entry(position, (!bytes.is_empty()).then_some(&bytes));
                    model.entries.insert(index, (position, entry.sealed()));
                    model.last = Some(position);
                    entries.push(entry);
                }
                opened.log.append(entries, |result| result.expect("the disk works")).expect("they follow");
                opened.settle();
            }
            5 => {
                *term += 1;
                let vote = StoredVote { term: *term, node: input.below(3) as u64, committed: input.flag() };
                model.vote = Some(vote);
                let log = opened.log.clone();
                opened.finish(log.save_vote(vote));
                opened.settle();
            }
            6 => {
                let after = model.chosen(input);
                model.entries.retain(|index, _| Some(*index) <= after.map(|after| after.index));
                model.last = after;
                *term += 1;
                opened.log.truncate_after(after).expect("the log works");
                opened.settle();
            }
            7 => {
                let Some(mut upto) = model.chosen(input) else { return };
                // Beyond the end: a snapshot was installed.
                upto.index += [0, 0, 0, 9][input.below(4)];
                if model.purged.is_none_or(|purged| purged.index < upto.index) {
                    model.purged = Some(upto);
                    model.entries.retain(|index, _| *index > upto.index);
                    model.last = model.last.filter(|last| last.index > upto.index).or(Some(upto));
                }
                opened.log.set_purge_floor(upto);
                let log = opened.log.clone();
                opened.finish(log.purge(upto));
                opened.settle();
            }
            8 => {
                // It never goes back.
                model.committed = model.committed.max(model.chosen(input));
                opened.log.save_committed(model.committed).expect("the log works");
                opened.idle();
            }
            _ => opened.idle(),
        }
    }

    /// Notes what new batches stand on the disk, and what the log says with them in.
    fn note(&mut self) {
        let said = self.model.said();
        let segments = segments(&self.disk);
        // One change writes to the last segment, or to it and a new one.
        for path in segments.iter().rev().take(2) {
            for (place, end) in batches(&self.disk.bytes(path)) {
                self.batches.entry((path.clone(), place)).or_insert_with(|| (end, said.clone()));
            }
        }
        self.purged |= segments.first().map(|path| sequence(&self.disk.bytes(path))) > Some(1);
    }
}

/// The segments that there are, oldest first.
fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIRECTORY)).expect("the disk works");
    names.iter().filter(|name| name.ends_with(".log")).map(|name| Path::new(DIRECTORY).join(name)).collect()
}

/// Where the header at or behind an offset stands.
fn header_place(offset: usize) -> usize {
    let left = SECTOR - offset % SECTOR;
    if left < BATCH_BYTES { offset + left } else { offset }
}

fn header_end(segment: &[u8]) -> usize {
    codec::open_any(segment).expect("a segment header").1
}

/// The batches and markers of a valid segment: where they begin and end.
fn batches(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut at = header_end(segment);
    let mut found = Vec::new();
    loop {
        let place = header_place(at);
        let Some(header) = segment.get(place..place + BATCH_BYTES).filter(|header| !is_zero(header)) else {
            return found;
        };
        let (envelope, length) = codec::open_any(header).expect("a batch");
        assert_eq!(length, BATCH_BYTES);
        at = place + BATCH_BYTES + usize::try_from(number(&envelope.payload[32..40])).expect("it fits");
        found.push((place, at));
    }
}

/// Up to where a header or marker of a valid segment says that the segment was synced.
fn synced(segment: &[u8], place: usize) -> usize {
    let payload = place + HEADER_BYTES;
    usize::try_from(number(&segment[payload + 48..payload + 56])).expect("it fits")
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn is_zero(bytes: &[u8]) -> bool {
    // A comparison of memory is one step for the compiler's counters, not one for each byte.
    bytes == &[0; SECTOR][..bytes.len()]
}

// Raw damage.

fn damaged(input: &mut Input<'_>, write: bool) {
    let built = Built::new(input);
    let disk = built.disk.clone();
    let paths = segments(&disk);
    let before: Vec<Vec<u8>> = paths.iter().map(|path| disk.bytes(path)).collect();
    for _ in 0..3 {
        let chosen = paths.len() - 1 - input.below(paths.len());
        let used = batches(&before[chosen]).last().map_or(header_end(&before[chosen]), |(_, end)| *end) + BATCH_BYTES;
        damage(&disk, &paths[chosen], used, input);
    }
    let now: Vec<Vec<u8>> = paths.iter().map(|path| disk.bytes(path)).collect();
    let expected = verdict(&built, &paths, &before, &now);
    let opened = match (Opened::open(&disk), &expected) {
        (Err(fault), Verdict::Holds(_)) => panic!("refused without damage: {fault}"),
        (Err(fault), _) => return refusal(&fault),
        (Ok(_), Verdict::Damage) => panic!("damage was read over"),
        (Ok(opened), _) => opened,
    };
    match expected {
        Verdict::Holds(said) | Verdict::HoldsOrMisses(said) => assert_eq!(opened.said(), said),
        Verdict::Unclear | Verdict::Damage => {}
    }
    go_on(&disk, opened, write);
}

/// Changes a segment, as a rule where it holds something: up to `used`.
fn damage(disk: &SimDisk, path: &Path, used: usize, input: &mut Input<'_>) {
    let (what, at, length) = (input.below(8), input.below(65_536), input.below(64));
    let at = if what < 5 { at % used } else { at % 4096 };
    let new = input.bytes(12).to_vec();
    disk.edit(path, |bytes| {
        let at = at.min(bytes.len());
        let end = (at + 1 + length).min(bytes.len());
        let sector = at / SECTOR * SECTOR;
        match what {
            0 => {}
            1 | 2 if at < bytes.len() => bytes[at] ^= 1 << (length % 8),
            3 => bytes[at..end].fill(0),
            // What a sector holds that was never written, or the end of it.
            4 | 5 => {
                let end = (sector + SECTOR).min(bytes.len());
                bytes[if length & 1 == 1 { at } else { sector }..end].fill(0);
            }
            6 if new.is_empty() => bytes.truncate(at),
            _ => {
                let end = (at + new.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
        }
    });
}

/// What is to be expected of a log.
enum Verdict {
    /// It holds exactly this.
    Holds(Said),
    /// The same; but the segments that a lost batch had let go are missing now.
    HoldsOrMisses(Said),
    /// It must be refused.
    Damage,
    /// What was written over a record is a record again: no checksum can tell.
    Unclear,
}

/// The rule of `docs/formats.md`, "What cannot be read at start".
fn verdict(built: &Built, paths: &[PathBuf], before: &[Vec<u8>], now: &[Vec<u8>]) -> Verdict {
    let gone = built.batches.range(..(paths[0].clone(), 0)).next_back();
    let mut said = gone.map(|(_, (_, said))| said.clone()).unwrap_or_default();
    for (number, path) in paths.iter().enumerate() {
        let (before, now, last) = (&before[number], &now[number], number + 1 == paths.len());
        let changed = |from: usize, to: usize| before.get(from..to) != now.get(from..to);
        if before.len() != now.len() || changed(0, header_end(before)) {
            return Verdict::Damage;
        }
        let all = batches(before);
        for (at, (place, end)) in all.iter().enumerate() {
            let records = place + BATCH_BYTES;
            let bad = if changed(*place, records) {
                Some((*place, records))
            } else {
                records_of(before, records, *end).find(|(from, to)| changed(*from, *to)).map(|(from, _)| (from, *end))
            };
            let Some((bad, extent)) = bad else {
                said = built.batches[&(path.clone(), *place)].1.clone();
                continue;
            };
            if codec::open_any(&now[bad..]).is_ok() {
                return Verdict::Unclear;
            }
            // A marker does not vouch for the committed position, which is written with it.
            let vouches = |place: usize| !changed(place, place + BATCH_BYTES) && synced(before, place) > bad;
            let vouched = !last || all[at + 1..].iter().any(|(place, _)| vouches(*place));
            if vouched || !torn(now, bad, extent) {
                return Verdict::Damage;
            }
            return if built.purged { Verdict::HoldsOrMisses(said) } else { Verdict::Holds(said) };
        }
        let place = header_place(all.last().map_or(header_end(before), |(_, end)| *end));
        let behind = &now[place.min(now.len())..(place + BATCH_BYTES).min(now.len())];
        if last && !is_zero(behind) {
            return Verdict::Damage;
        }
    }
    Verdict::Holds(said)
}

/// The records of a valid batch: where they begin and end.
fn records_of(segment: &[u8], from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let from = (at < to).then_some(at)?;
        at += codec::open_any(&segment[at..]).expect("a record").1;
        Some((from, at))
    })
}

/// Whether a sector from `bad` on was never written.
fn torn(segment: &[u8], bad: usize, extent: usize) -> bool {
    let mut at = bad;
    while at < extent {
        let next = ((at / SECTOR + 1) * SECTOR).min(extent);
        if is_zero(&segment[at..next]) {
            return true;
        }
        at = next;
    }
    false
}

/// A refusal says where.
fn refusal(fault: &Fault) {
    let text = fault.to_string();
    assert!(text.contains(DIRECTORY), "it does not name the file: {text}");
    assert!(text.contains("offset") || text.contains("missing"), "it does not say where: {text}");
}

/// A log that was opened is the same when it is opened again, and can be written on.
fn go_on(disk: &SimDisk, opened: Opened, write: bool) {
    let said = opened.said();
    drop(opened);
    let mut opened = Opened::open(disk).expect("it was opened before");
    assert_eq!(opened.said(), said, "opened again it is another log");
    let next = said.last.map_or(0, |last| last.index.saturating_add(1));
    if next == u64::MAX || !write {
        return;
    }
    let position = Position { term: said.last.map_or(1, |last| last.term), index: next };
    let mut new = entry(position, Some(b"new"));
    opened.append(new.clone());
    let after = opened.said();
    assert_eq!((after.last, after.entries.last()), (Some(position), Some(&new.sealed())));
    drop(opened);
    assert_eq!(Opened::open(disk).expect("it was just written").said(), after, "what was appended is not there");
}

// Hostile bytes with right checksums.

fn hostile_records(input: &mut Input<'_>, write: bool) {
    let built = Built::new(input);
    let disk = built.disk.clone();
    let path = segments(&disk).pop().expect("a segment");
    let segment = disk.bytes(&path);
    let end = batches(&segment).last().map_or_else(|| header_end(&segment), |(_, end)| *end);
    let batch = batch(header_place(end), end, sequence(&segment), built.model.last, input);
    disk.edit(&path, |bytes| {
        let at = header_place(end);
        let to = (at + batch.len()).min(bytes.len());
        bytes[at..to].copy_from_slice(&batch[..to - at]);
    });
    judge(&disk, write);
}

/// What a segment's header holds: log id, sequence, bytes, end of the one before; vote, committed, purged, last.
type Header = ((u128, u64, u64, u64), (Option<StoredVote>, [Option<Position>; 3]));

fn sequence(segment: &[u8]) -> u64 {
    let (envelope, _) = codec::open_any(segment).expect("a segment header");
    let ((_, sequence, _, _), _): Header = codec::decode_payload(envelope.payload).expect("a segment header");
    sequence
}

fn hostile_segment(input: &mut Input<'_>, write: bool) {
    let disk = SimDisk::new(0);
    disk.create_dir_all(Path::new(DIRECTORY)).expect("the disk works");
    for sequence in 1..=1 + input.below(2) as u64 {
        let position = |input: &mut Input<'_>| {
            (input.below(3) > 0).then(|| Position { term: input.number(), index: input.number() })
        };
        let vote = input.flag().then(|| StoredVote { term: input.number(), node: 1, committed: input.flag() });
        let checkpoint = (vote, [position(input), position(input), position(input)]);
        let [_, _, last] = checkpoint.1;
        let previous_end = if input.flag() { input.number() } else { 4096 };
        let header = codec::encode(Kind::LogSegment, &((CHANCE, sequence, 4096u64, previous_end), checkpoint));
        let mut bytes = vec![0; 4096];
        bytes[..header.len()].copy_from_slice(&header);
        let end = header.len();
        if input.flag() {
            let place = header_place(end);
            let batch = batch(place, end, sequence, last, input);
            let to = (place + batch.len()).min(bytes.len());
            bytes[place..to].copy_from_slice(&batch[..to - place]);
        }
        let path = Path::new(DIRECTORY).join(format!("{sequence:08}-{:020}.log", 0));
        let file = disk.open(&path, OpenMode::Create).expect("the disk works");
        file.write_all_at(&bytes, 0).expect("the disk works");
    }
    judge(&disk, write);
}

fn judge(disk: &SimDisk, write: bool) {
    match Opened::open(disk) {
        Err(fault) => refusal(&fault),
        Ok(opened) => go_on(disk, opened, write),
    }
}

/// A batch for `place`, whose header is right (as a rule), with records of any kind.
fn batch(place: usize, synced: usize, sequence: u64, last: Option<Position>, input: &mut Input<'_>) -> Vec<u8> {
    let (lie, amount) = (input.below(16), input.number());
    let mut records = Vec::new();
    let mut next = last.map_or(0, |last| last.index.saturating_add(1));
    for _ in 0..1 + input.below(6) {
        records.extend_from_slice(&record(&mut next, input));
    }
    let mut fields = [sequence, place as u64, records.len() as u64, sequence, synced as u64];
    if (1..=5).contains(&lie) {
        fields[lie - 1] = fields[lie - 1].wrapping_add(amount);
    }
    let kind = if lie == 6 { Kind::LogSynced } else { Kind::LogBatch };
    let payload = [&CHANCE.to_le_bytes()[..], &fields.map(u64::to_le_bytes).concat()].concat();
    let mut batch = codec::seal(kind, 1, 0, &payload).to_vec();
    batch.append(&mut records);
    batch
}

fn record(next: &mut u64, input: &mut Input<'_>) -> Bytes {
    let position = |input: &mut Input<'_>| Position { term: input.number(), index: input.number() };
    let near = |next: u64, input: &mut Input<'_>| Position {
        term: input.below(3) as u64,
        index: next.wrapping_sub(input.below(6) as u64),
    };
    match input.below(12) {
        0..=3 => {
            let position = if input.below(8) == 7 {
                position(input)
            } else {
                Position { term: input.below(3) as u64, index: *next }
            };
            *next = position.index.wrapping_add(1);
            match input.below(3) {
                0 => entry(position, None).sealed(),
                1 => entry(position, Some(b"xx")).sealed(),
                _ => {
                    let payload = [&codec::encode_payload(&position), input.bytes(60)].concat();
                    codec::seal(Kind::LogEntry, 1, 0, &payload)
                }
            }
        }
        4 => codec::encode(
            Kind::LogVote,
            &StoredVote { term: input.number(), node: input.number(), committed: input.flag() },
        ),
        5 => codec::encode(Kind::LogCommitted, &if input.flag() { position(input) } else { near(*next, input) }),
        6 | 7 => {
            let after = match input.below(4) {
                0 => None,
                1 => Some(position(input)),
                _ => Some(near(*next, input)),
            };
            *next = after.map_or(0, |after| after.index.saturating_add(1)).min(*next);
            codec::encode(Kind::LogTruncate, &after)
        }
        8 | 9 => {
            let upto = if input.below(3) == 0 { position(input) } else { near(*next, input) };
            *next = upto.index.saturating_add(1).max(*next);
            codec::encode(Kind::LogPurge, &upto)
        }
        _ => {
            let kinds = [
                Kind::LogEntry,
                Kind::LogVote,
                Kind::LogCommitted,
                Kind::LogTruncate,
                Kind::LogPurge,
                Kind::LogSynced,
                Kind::LogBatch,
                Kind::LogSegment,
                Kind::Record,
            ];
            let (kind, version) = (kinds[input.below(kinds.len())], if input.below(8) == 7 { input.byte() } else { 1 });
            codec::seal(kind, version, 0, input.bytes(40))
        }
    }
}
