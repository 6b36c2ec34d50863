//! Messages of any size, and what is kept of them: a script of uploads in any order, of messages that overwrite each other,
//! of rules, of time that passes, and of the sweeps that go on beside, a step at a time.
//!
//! A message is there wholly or not at all, whatever became of its upload; what sweeps delete nobody misses; and when they
//! rest, just that is kept which the rules keep, and of uploads just those that a message names.

mod reads;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meshstore::{
    Error, Result,
    layers::{
        Write,
        mesh::{
            large::{self, Assembled, Assembly, Content, Reclaim, UploadId},
            message,
            retention::{self, Trim},
        },
    },
    limits,
    model::{
        Outcome, ReadStamp, ScopeId,
        keyspace::{self, INDEX_MESSAGE_UPLOAD, NO_SCOPE},
        mesh::{Announced, Chunk, LargeContent, Message, MessageFilter, Page, PageRequest, Retention, Stored},
        proposal::Action,
        transaction::{Compare, Operation, Transaction},
    },
    proto::{convert::read_header, large as frames, v1},
    state::{
        Change, View,
        sweep::{Sight, Step, Sweep},
    },
};

use super::{
    super::{
        input::Input,
        replica::Replica,
        wire::{sent, told},
    },
    refused,
};

const STEPS: usize = 40;
const IDS: [&str; 6] = ["i", "j", "i\0", "\u{1}", "\u{10ffff}", "k"];
const BOXES: [&str; 5] = ["t", "t\0", "t\0\u{1}", "u", "\u{10ffff}"];
const TIMES: [i64; 6] = [0, 1, i64::MIN, i64::MAX, -1, 256];

pub(super) fn run(input: &mut Input<'_>) {
    let begin = input.byte();
    let mut case = Case { replica: Replica::at(0, 1_000_000), anew: begin & 1 == 1, ..Case::default() };
    case.prepare(usize::from(begin >> 6));
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        case.step(input);
    }
    case.end();
}

/// A message that must be there.
#[derive(Clone)]
struct Kept {
    /// With its content.
    message: Message,
    /// Of what it consists, if it came in chunks.
    upload: Option<UploadId>,
    chunks: u32,
    stored_ms: u64,
    revision: u64,
    /// The most messages in its mailbox that were ever newer.
    newer: u64,
}

impl Kept {
    /// Its mailbox, and its place there.
    fn place(&self) -> (String, i64, String) {
        let Message { to, timestamp, id, .. } = &self.message;
        (to.clone(), *timestamp, id.clone())
    }
}

/// An upload that was begun.
struct Upload {
    id: UploadId,
    /// What has arrived, as the node that takes it in knows; `None` once that has ended.
    assembly: Option<Assembly>,
    /// Chunks that were accepted.
    arrived: BTreeMap<u32, Bytes>,
    /// Whether it was neither finished nor given up.
    open: bool,
    due_ms: u64,
}

#[derive(Default)]
struct Case {
    replica: Replica,
    messages: BTreeMap<String, Kept>,
    uploads: Vec<Upload>,
    rules: BTreeMap<String, Retention>,
    reclaim: Reclaim,
    trim: Trim,
    /// The latest time that a node knew.
    latest_ms: u64,
    /// Whether rules are looked at anew in the end.
    anew: bool,
    /// A message that somebody has begun to read.
    reading: Option<(Kept, Content)>,
}

impl Case {
    /// Where a case begins: with more and more messages and uploads, and then with rules.
    fn prepare(&mut self, much: usize) {
        for at in 0..(2 * much).min(4) {
            let (id, to) = (IDS[at].into(), BOXES[at & 1].into());
            let message = Message { id, from: "f".into(), to, timestamp: TIMES[at & 1], ..Message::default() };
            let (size, chunks) = (2 + at as u64, 1 + at as u32 % 3);
            let announced = Announced { message, size, chunks, crc32c: None };
            self.open(
                UploadId(1 << 120 | self.uploads.len() as u128),
                Assembly::begin(announced).expect("it is valid"),
            );
            // All but the last chunk come at once; with it the message is there.
            for _ in 0..chunks - u32::from(at == 3) {
                self.chunk(&mut Input::new(&[0, 0]));
            }
            self.finish(&mut Input::new(&[u8::from(at == 3)]));
        }
        if much == 3 {
            self.set(&mut Input::new(&[0, 2, 1]));
            self.set(&mut Input::new(&[5, 1, 2]));
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(32) {
            0..=3 => self.store(input),
            4..=6 => self.begin(input),
            7..=12 => self.chunk(input),
            13..=15 => self.finish(input),
            16 => self.abandon(input),
            17 | 18 => self.delete(input),
            19 => self.pass(input),
            20 => self.wall(input),
            21 => self.set(input),
            22 => self.unset(input),
            23 | 24 => self.sweep(input, true),
            25 => self.rest(true, false),
            26 | 27 => self.sweep(input, false),
            28 => self.rest(false, false),
            29 => self.begin_to_read(input),
            30 => self.go_on_reading(input),
            _ => self.list(input),
        }
    }

    fn stands(&self) -> (u64, u128) {
        (self.replica.revision(), self.replica.meta().state_hash())
    }

    /// What became of a write; nothing has changed if it was refused.
    fn done(&mut self, write: Write) -> Result<u64> {
        let before = self.stands();
        let (outcome, _) = self.replica.propose(write.guards, Action::Transact(write.transaction));
        let decided = write.meaning.of(outcome, None);
        if let Err(error) = &decided {
            assert_eq!(self.stands(), before);
            told(error);
        }
        decided.map(|decided| decided.revision)
    }

    // Messages that come at once.

    fn store(&mut self, input: &mut Input<'_>) {
        let message = Message { content: Bytes::copy_from_slice(input.bytes(6)), ..self.message(input) };
        let write = match message::store(message.clone()) {
            Ok(write) => write,
            Err(error) => return refused(&error),
        };
        let revision = self.done(write).expect("it relies on nothing");
        self.keep(message, None, 0, revision);
    }

    fn keep(&mut self, message: Message, upload: Option<UploadId>, chunks: u32, revision: u64) {
        let stored_ms = self.replica.wall_ms;
        let id = message.id.clone();
        self.messages.insert(id.clone(), Kept { message, upload, chunks, stored_ms, revision, newer: 0 });
        self.whole(&self.replica.view(), &id);
        let places: Vec<_> = self.messages.values().map(Kept::place).collect();
        for kept in self.messages.values_mut() {
            let place = kept.place();
            let newer = places.iter().filter(|other| other.0 == place.0 && **other > place).count() as u64;
            kept.newer = kept.newer.max(newer);
        }
    }

    fn delete(&mut self, input: &mut Input<'_>) {
        let id = id(input);
        match message::delete(&id).and_then(|write| self.done(write)) {
            Ok(_) => drop(self.messages.remove(&id).expect("it was there")),
            Err(error) => {
                assert!(!self.messages.contains_key(&id));
                refused(&error);
            }
        }
    }

    // Uploads.

    fn begin(&mut self, input: &mut Input<'_>) {
        let shape = input.byte();
        if shape == 255 && self.uploads.len() < limits::OPEN_UPLOADS as usize {
            return self.begin_many();
        }
        let announced = Announced {
            message: self.message(input),
            size: 1 + u64::from(shape & 7),
            chunks: u32::from(shape >> 3 & 3),
            crc32c: None,
        };
        assert_eq!(Announced::try_from(sent(&v1::LargeMessageHeader::from(announced.clone()))), Ok(announced.clone()));
        let assembly = match Assembly::begin(announced) {
            Ok(assembly) => assembly,
            Err(error) => return refused(&error),
        };
        if let Some(Upload { id: UploadId(id), .. }) = self.uploads.last()
            && input.byte() >= 250
        {
            // Chance may give an id twice.
            let record = ScopeId::new(keyspace::UPLOADS, NO_SCOPE).key(&id.to_be_bytes());
            if self.replica.view().record(&record).expect("it can be read").is_some() {
                let again = self.done(large::begin(UploadId(*id), assembly.announced()));
                assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
            }
            return;
        }
        self.open(UploadId(1 << 120 | self.uploads.len() as u128), assembly);
    }

    fn begin_many(&mut self) {
        let message = Message { id: "m".into(), from: "f".into(), to: "t".into(), ..Message::default() };
        for _ in 0..=limits::OPEN_UPLOADS {
            let announced = Announced { message: message.clone(), size: 2, chunks: 2, crc32c: None };
            let id = UploadId(self.uploads.len() as u128);
            self.open(id, Assembly::begin(announced).expect("it is valid"));
        }
        assert_eq!(self.count_open(), limits::OPEN_UPLOADS);
    }

    fn count_open(&self) -> u64 {
        self.uploads.iter().filter(|upload| upload.open).count() as u64
    }

    fn open(&mut self, id: UploadId, assembly: Assembly) {
        let write = large::begin(id, assembly.announced());
        // Its record stays until it is reclaimed.
        let taken = self.count(ScopeId::new(keyspace::UPLOADS, NO_SCOPE));
        match self.done(write) {
            Ok(_) => {
                assert_eq!(self.count(ScopeId::new(keyspace::UPLOADS, NO_SCOPE)), taken + 1);
                let due_ms = self.replica.meta().log_time_ms + limits::UPLOAD_TTL_MS;
                let assembly = Some(assembly);
                self.uploads.push(Upload { id, assembly, arrived: BTreeMap::new(), open: true, due_ms });
            }
            Err(Error::ResourceExhausted { .. }) => assert_eq!(self.count_open(), limits::OPEN_UPLOADS),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn pick(&self, input: &mut Input<'_>) -> Option<usize> {
        let at = usize::from(input.byte());
        // The last ones are those of which something may become.
        (!self.uploads.is_empty()).then(|| self.uploads.len() - 1 - at % self.uploads.len().min(6))
    }

    fn chunk(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.pick(input) else { return };
        let shape = input.byte();
        let (number, data) = match self.wanted(at) {
            Some(wanted) if shape < 192 => wanted,
            _ => (u32::from(shape & 3), Bytes::copy_from_slice(input.bytes(4))),
        };
        let crc32c = crc32c::crc32c(&data) ^ u32::from(shape == 255);
        let chunk = Chunk { number, data, crc32c };
        assert_eq!(Chunk::from(sent(&v1::MessageChunk::from(chunk.clone()))), chunk);
        let Some(assembly) = &mut self.uploads[at].assembly else {
            // Whoever took it in is gone; what it had proposed may come late.
            if !chunk.data.is_empty() {
                self.put(at, &chunk);
            }
            return;
        };
        let taken = assembly.take(chunk.clone());
        let stored = taken.as_ref().is_ok_and(|taken| self.put(at, taken));
        match taken {
            Ok(taken) => assert_eq!(taken, chunk),
            Err(error) => refused(&error),
        }
        if stored && shape & 7 == 7 {
            assert!(!self.put(at, &chunk), "one chunk twice");
        }
        if !stored {
            self.uploads[at].assembly = None;
        }
    }

    /// The chunk that is missing first, so that all come to what was announced.
    fn wanted(&self, at: usize) -> Option<(u32, Bytes)> {
        let upload = &self.uploads[at];
        let Announced { size, chunks, .. } = upload.assembly.as_ref()?.announced();
        let number = (0..*chunks).find(|number| !upload.arrived.contains_key(number))?;
        let arrived: usize = upload.arrived.values().map(Bytes::len).sum();
        let last = upload.arrived.len() + 1 == *chunks as usize;
        let length = if last { (*size as usize).saturating_sub(arrived) } else { 1 };
        let first = (at as u8).wrapping_mul(16).wrapping_add(number as u8);
        Some((number, (0..length).map(|at| first ^ (at as u8) << 4).collect()))
    }

    /// Whether a chunk was stored, which it is once while the upload is open.
    fn put(&mut self, at: usize, chunk: &Chunk) -> bool {
        let done = self.done(large::chunk(self.uploads[at].id, chunk.clone()));
        let upload = &mut self.uploads[at];
        let takes = upload.open && !upload.arrived.contains_key(&chunk.number);
        match done {
            Ok(_) => {
                assert!(takes, "a chunk of an upload that is over, or one twice");
                upload.arrived.insert(chunk.number, chunk.data.clone());
            }
            Err(error) => assert!(!takes && matches!(error, Error::Refused(_)), "{error:?}"),
        }
        takes
    }

    fn finish(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.pick(input) else { return };
        let Some(assembly) = self.uploads[at].assembly.take() else { return };
        let chunks = assembly.announced().chunks;
        let (message, content) = match assembly.end() {
            Ok(Assembled::Whole(message)) => (message.clone(), message.content),
            Ok(Assembled::Upload(..)) => panic!("so little is no upload of its own"),
            Err(error) => return refused(&error),
        };
        let joined: Vec<u8> = self.uploads[at].arrived.values().flatten().copied().collect();
        assert_eq!(content, joined);
        let large = LargeContent { size: content.len() as u64, chunks, crc32c: crc32c::crc32c(&content) };
        let id = self.uploads[at].id;
        let finish = || large::finish(id, Message { content: Bytes::new(), ..message.clone() }, large);
        let open = self.uploads[at].open;
        match finish().and_then(|write| self.done(write)) {
            Ok(revision) => {
                assert!(open, "a message of an upload that is over");
                self.uploads[at].open = false;
                self.keep(message.clone(), Some(id), chunks, revision);
            }
            Err(error) => assert!(!open && matches!(error, Error::Refused(_)), "{error:?}"),
        }
        if input.flag() {
            let again = finish().and_then(|write| self.done(write));
            assert!(matches!(again, Err(Error::Refused(_))), "{again:?}");
        }
    }

    fn abandon(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.pick(input) else { return };
        let id = self.uploads[at].id;
        assert_eq!(large::is_open(&self.replica.view(), id), Ok(self.uploads[at].open));
        self.done(large::abandon(id)).expect("it relies on nothing");
        self.uploads[at].open = false;
    }

    // Time.

    fn pass(&mut self, input: &mut Input<'_>) {
        self.replica.log_time_ms += [1, 1_000, limits::UPLOAD_TTL_MS - 1, limits::UPLOAD_TTL_MS][input.below(4)];
        self.replica.propose(vec![], Action::Tick);
        let now_ms = self.replica.log_time_ms;
        self.uploads.iter_mut().filter(|upload| upload.due_ms <= now_ms).for_each(|upload| upload.open = false);
    }

    fn wall(&mut self, input: &mut Input<'_>) {
        let wall_ms = &mut self.replica.wall_ms;
        match input.below(8) {
            // Another leader's clock.
            0 => {
                *wall_ms = wall_ms.saturating_sub(1_500);
                self.trim.begin_anew();
            }
            1 => *wall_ms += 1,
            2 => *wall_ms += 999,
            3 => *wall_ms += 1_000,
            _ => *wall_ms += 400,
        }
        self.latest_ms = self.latest_ms.max(*wall_ms);
    }

    // The end.

    fn end(&mut self) {
        self.all_whole();
        let expected = self.anew.then(|| self.to_be_kept());
        if self.anew {
            self.trim.begin_anew();
        }
        self.rest(false, self.anew);
        // A pass that had begun may have taken what was too much then, and is not now; but no more is too much.
        let expected = expected.unwrap_or_else(|| self.to_be_kept());
        assert_eq!(self.messages.keys().cloned().collect::<BTreeSet<_>>(), expected, "kept by {:?}", self.rules);
        // What is open expires, and then nothing is left that no message names.
        self.replica.log_time_ms += limits::UPLOAD_TTL_MS;
        self.replica.propose(vec![], Action::Tick);
        self.uploads.iter_mut().for_each(|upload| upload.open = false);
        self.rest(true, false);
        let named = self.messages.values().filter(|kept| kept.upload.is_some());
        let (uploads, chunks) =
            named.fold((0, 0), |(uploads, chunks), kept| (uploads + 1, chunks + u64::from(kept.chunks)));
        assert_eq!(self.count(ScopeId::new(keyspace::UPLOADS, NO_SCOPE)), uploads);
        assert_eq!(self.count(ScopeId::new(keyspace::OPEN_UPLOADS, NO_SCOPE)), 0);
        assert_eq!(self.count(ScopeId::new(keyspace::MESSAGE_CHUNKS, NO_SCOPE)), chunks);
        assert_eq!(self.count(ScopeId::new(keyspace::ENTRIES, INDEX_MESSAGE_UPLOAD)), uploads);
        assert_eq!(self.count(ScopeId::new(keyspace::MESSAGES, NO_SCOPE)), self.messages.len() as u64);
        self.all_whole();
        self.listed(&MessageFilter::default(), 3);
        self.replica.audit();
    }

    fn message(&self, input: &mut Input<'_>) -> Message {
        let choice = input.byte();
        let (from, to) =
            (BOXES[usize::from(choice & 7) % BOXES.len()], BOXES[usize::from(choice >> 3 & 7) % BOXES.len()]);
        let to = if choice == 255 { "" } else { to };
        let timestamp = TIMES[usize::from(choice >> 6) % TIMES.len()];
        let id = id(input);
        Message { id, from: from.into(), to: to.into(), content: Bytes::new(), timestamp, large: None }
    }
}

fn id(input: &mut Input<'_>) -> String {
    match input.byte() {
        254 => String::new(),
        255 => "i".repeat(256),
        choice => IDS[usize::from(choice) % IDS.len()].into(),
    }
}
