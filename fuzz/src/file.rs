//! Runs and bases: whatever is done to a file, its reader refuses it or gives back what was written; and of chunks
//! that carry a right checksum it takes exactly those whose pairs are whole and in order.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::Path,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use meshstore::{
    environment::{Disk, disk::OpenMode},
    error::Fault,
    model::Position,
    storage::{
        Checkpoint,
        codec::{self, Kind},
        file::{Encoder, FileKind, Header, Reader},
    },
};
use xxhash_rust::xxh3::Xxh3;
use zstd::bulk::Compressor;

use super::{input::Input, sim_disk::SimDisk};

const PATH: &str = "/data/00000001.base";
const CLUSTER: u128 = 7;

type Pairs = Vec<(Bytes, Option<Bytes>)>;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(4) {
        0 | 1 => damaged(&mut input),
        2 => chunks(&mut input),
        _ => header(&mut input),
    }
}

fn kind(input: &mut Input<'_>) -> FileKind {
    if input.flag() { FileKind::Base } else { FileKind::Run }
}

fn checkpoint(meta: &[u8]) -> Checkpoint {
    Checkpoint {
        position: Position { term: 2, index: 300 },
        revision: 70_000,
        membership: Bytes::from_static(b"mm"),
        meta: Bytes::copy_from_slice(meta),
        state_hash: 5,
        apply_version: 1,
    }
}

/// Pairs in order; a base has no deletions.
fn pairs(kind: FileKind, input: &mut Input<'_>) -> BTreeMap<Bytes, Option<Bytes>> {
    let count = input.below(12);
    let mut pairs = BTreeMap::new();
    for _ in 0..count {
        let key = Bytes::copy_from_slice(input.bytes(12));
        let value = match input.byte() {
            0..=63 if kind == FileKind::Run => None,
            // Now and then enough for several chunks.
            fill @ 250..=255 => Some(Bytes::from(vec![fill; 30_000])),
            _ => Some(Bytes::copy_from_slice(input.bytes(40))),
        };
        pairs.insert(key, value);
    }
    pairs
}

/// A file, and what is in it.
struct Written {
    bytes: Vec<u8>,
    holds: (Header, Pairs),
}

impl Written {
    fn new(input: &mut Input<'_>) -> Self {
        let kind = kind(input);
        let checkpoint = checkpoint(input.bytes(20));
        let pairs = pairs(kind, input);
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(kind, CLUSTER, &checkpoint, &mut bytes).expect("it can be encoded");
        for (key, value) in &pairs {
            encoder.push(key, value.as_deref(), &mut bytes).expect("it can be encoded");
        }
        encoder.finish(&mut bytes).expect("it can be encoded");
        let holds = (Header { kind, cluster: CLUSTER, checkpoint }, pairs.into_iter().collect());
        Self { bytes, holds }
    }

    /// One of a few that are made once: making one takes longer than reading it.
    fn ready(at: usize) -> &'static Self {
        static READY: OnceLock<Vec<Written>> = OnceLock::new();
        let ready = READY.get_or_init(|| {
            let bytes = |file: u8| (0..=255u8).map(|at| at.wrapping_mul(file * 2 + 1) ^ file).collect::<Vec<u8>>();
            (0..16).map(|file| Self::new(&mut Input::new(&bytes(file)))).collect()
        });
        &ready[at % ready.len()]
    }
}

/// Damage of any kind: what is read without an error is what was written, all of it.
fn damaged(input: &mut Input<'_>) {
    let choice = input.byte();
    let fresh;
    let Written { bytes: written, holds } = if choice < 250 {
        Written::ready(usize::from(choice))
    } else {
        fresh = Written::new(input);
        &fresh
    };
    let mut bytes = written.clone();
    for _ in 0..3 {
        damage(&mut bytes, input);
    }
    match read(&bytes) {
        Ok(read) => assert!(read == *holds, "damage was read over: {read:?}"),
        Err(fault) => {
            assert!(bytes != *written, "what was written cannot be read: {fault}");
            assert!(fault.to_string().contains("offset"), "no offset: {fault}");
        }
    }
}

fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    let (at, length) = (input.below(65_536) % bytes.len().max(1), input.below(64));
    let end = (at + length).min(bytes.len());
    match input.below(8) {
        1 if at < bytes.len() => bytes[at] ^= 1 << (length % 8),
        2 => bytes[at..end].fill(0),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let copied = bytes[at..end].to_vec();
            let to = input.below(65_536) % bytes.len().max(1);
            bytes.splice(to..to, copied);
        }
        6 => bytes.extend_from_slice(input.bytes(40)),
        7 => {
            let new = input.bytes(16);
            let end = (at + new.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
        _ => {}
    }
}

/// Headers that carry a right checksum: what was put in comes out, or it is refused; no length is believed.
fn header(input: &mut Input<'_>) {
    if input.flag() {
        let sealed = codec::seal(Kind::FileHeader, 1, 0, input.rest());
        return drop(read(&sealed));
    }
    let kind = kind(input);
    let claimed = input.number();
    let whole = input.flag();
    let meta = input.rest();
    let meta_bytes = if claimed == 0 { meta.len() as u64 } else { claimed };
    let stored = if whole { compressed(meta) } else { meta.to_vec() };
    let Checkpoint { position, revision, apply_version, state_hash, membership, .. } = checkpoint(meta);
    let payload = codec::encode_payload(&(
        (kind, CLUSTER, position, revision, apply_version, state_hash),
        (membership, meta_bytes, Bytes::from(stored)),
    ));
    let sealed = [&codec::seal(Kind::FileHeader, 1, 0, &payload)[..], &trailer(&payload, &[], 0, 0)].concat();
    match read(&sealed) {
        Ok((header, pairs)) => {
            assert!(pairs.is_empty());
            assert_eq!(header.checkpoint.meta.len() as u64, meta_bytes);
            if whole {
                assert_eq!(header, Header { kind, cluster: CLUSTER, checkpoint: checkpoint(meta) });
            }
        }
        Err(fault) => assert!(!whole || meta_bytes != meta.len() as u64, "{fault}"),
    }
}

/// Chunks of any pairs, each with a right checksum, and a right trailer (or one that lies).
fn chunks(input: &mut Input<'_>) {
    let kind = kind(input);
    let mut file = Vec::new();
    file.extend_from_slice(front(kind));
    let header = codec::open(&file, Kind::FileHeader, 1).expect("a header").payload.to_vec();
    let (lie, garbled) = (input.byte(), input.byte());
    let mut raws = Vec::new();
    while !input.is_empty() && raws.len() < 4 {
        raws.push(chunk(input));
    }
    for (number, raw) in raws.iter().enumerate() {
        let mut payload = u32::try_from(raw.len()).expect("small").to_le_bytes().to_vec();
        payload.extend(compressed(raw));
        if garbled == 1 + u8::try_from(number).expect("few") {
            let at = usize::from(lie) % payload.len();
            payload[at] ^= 1 << (lie % 8);
        }
        codec::seal_into(&mut file, Kind::FileChunk, 1, 0, &payload);
    }
    let parsed: Option<Pairs> = raws.iter().map(|raw| parse(raw)).collect::<Option<Vec<_>>>().map(|all| all.concat());
    let counted = parsed.as_ref().map_or((0, 0), |pairs| {
        let deletions = pairs.iter().filter(|(_, value)| value.is_none()).count() as u64;
        (pairs.len() as u64 - deletions, deletions)
    });
    let lies = u64::from(lie == 1);
    file.extend(trailer(&header, &raws, counted.0 + lies, counted.1));
    let whole = parsed.filter(|pairs| {
        let in_order = pairs.is_sorted_by(|one, next| one.0 < next.0);
        in_order && lies == 0 && (kind == FileKind::Run || pairs.iter().all(|(_, value)| value.is_some()))
    });
    match (read(&file), whole) {
        (Ok((_, pairs)), Some(whole)) => assert_eq!(pairs, whole),
        (Ok((_, pairs)), None) => panic!("what is no file was read: {pairs:?}"),
        (Err(_), None) => {}
        (Err(fault), Some(_)) => {
            assert!((1..=raws.len()).contains(&usize::from(garbled)), "what is a file is refused: {fault}");
        }
    }
}

/// The header of a file of a kind.
fn front(kind: FileKind) -> &'static [u8] {
    static FRONTS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let [run, base] = FRONTS.get_or_init(|| {
        [FileKind::Run, FileKind::Base].map(|kind| {
            let mut front = Vec::new();
            drop(Encoder::new(kind, CLUSTER, &checkpoint(b"meta"), &mut front).expect("it can be encoded"));
            front
        })
    });
    if kind == FileKind::Run { run } else { base }
}

fn compressed(raw: &[u8]) -> Vec<u8> {
    thread_local! {
        static COMPRESSOR: RefCell<Compressor<'static>> = RefCell::new(Compressor::new(1).expect("zstd works"));
    }
    COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(raw).expect("it compresses"))
}

/// The raw bytes of a chunk: pairs as they should be, with something else among them now and then.
fn chunk(input: &mut Input<'_>) -> Vec<u8> {
    let mut raw = Vec::new();
    for _ in 0..1 + input.below(5) {
        let (what, key) = (input.byte(), input.bytes(6));
        let value = (what & 3 != 0).then(|| input.bytes(12));
        let key_len = u32::try_from(key.len()).expect("short");
        let value_field = value.map_or(0, |value| 1 + u32::try_from(value.len()).expect("short"));
        let (key_len, value_field) = match what {
            250 => (u32::MAX, value_field),
            251 => (key_len, u32::MAX),
            252 => (key_len + 1, value_field),
            _ => (key_len, value_field),
        };
        raw.extend(key_len.to_le_bytes());
        raw.extend(value_field.to_le_bytes());
        raw.extend_from_slice(key);
        raw.extend_from_slice(value.unwrap_or_default());
        if what == 253 {
            raw.extend_from_slice(input.bytes(9));
        }
    }
    raw
}

/// The pairs of a chunk by the book; `None` if it is not wholly made of them.
fn parse(mut raw: &[u8]) -> Option<Pairs> {
    let mut pairs = Vec::new();
    let number = |raw: &mut &[u8]| {
        let (number, rest) = raw.split_first_chunk::<4>()?;
        *raw = rest;
        Some(u32::from_le_bytes(*number) as usize)
    };
    while !raw.is_empty() {
        let (key_len, value_field) = (number(&mut raw)?, number(&mut raw)?);
        let (key, rest) = raw.split_at_checked(key_len)?;
        let (value, rest) = rest.split_at_checked(value_field.max(1) - 1)?;
        let value = (value_field > 0).then(|| Bytes::copy_from_slice(value));
        pairs.push((Bytes::copy_from_slice(key), value));
        raw = rest;
    }
    Some(pairs)
}

fn trailer(header: &[u8], raws: &[Vec<u8>], pairs: u64, deletions: u64) -> Bytes {
    let mut hash = Xxh3::new();
    hash.update(header);
    raws.iter().for_each(|raw| hash.update(raw));
    let bytes: usize = raws.iter().map(Vec::len).sum();
    codec::encode(Kind::FileTrailer, &(pairs, deletions, bytes as u64, hash.digest128()))
}

/// Reads a file to its end. What is answered on the way is in order already.
fn read(bytes: &[u8]) -> Result<(Header, Pairs), Fault> {
    let disk = SimDisk::new(0);
    let file = disk.open(Path::new(PATH), OpenMode::Create).expect("the disk works");
    file.write_all_at(bytes, 0).expect("the disk works");
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let named = |fault: Fault| {
        assert!(fault.to_string().contains(PATH), "it does not name the file: {fault}");
        fault
    };
    let mut reader = Reader::open(&disk, Path::new(PATH), CLUSTER).map_err(named)?;
    let mut pairs: Pairs = Vec::new();
    while let Some(pair) = reader.next() {
        let (key, value) = match pair {
            Ok(pair) => pair,
            Err(fault) => {
                assert!(reader.next().is_none(), "it goes on behind an error");
                return Err(named(fault));
            }
        };
        assert!(pairs.last().is_none_or(|(last, _)| *last < key), "out of order");
        assert!(value.is_some() || reader.header().kind == FileKind::Run, "a base with a deletion");
        pairs.push((key, value));
    }
    Ok((reader.header().clone(), pairs))
}
