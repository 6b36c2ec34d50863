//! Envelopes: whatever is opened comes out as it went in, and takes no more memory than its bytes are worth.
//!
//! The first byte chooses what the rest is taken for. As a payload it is sealed here with a right checksum, which
//! would else stop almost every case at the door.

use std::{fmt::Debug, path::Path, sync::Arc};

use meshstore::{
    environment::Disk,
    model::{
        Key, Outcome, Position, Record,
        proposal::{Batch, Proposal},
    },
    node::identity::Directory,
    raft::{
        checks::Check,
        types::{LogEntry, StoredMembers, StoredMembershipAt, StoredVote},
    },
    state::Meta,
    storage::{
        Archive,
        codec::{self, DecodeError, HEADER_BYTES, Kind},
    },
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    sim_disk::SimDisk,
    world::{HandClock, environment},
};

pub fn run(data: &[u8]) {
    let Some((choice, payload)) = data.split_first() else { return };
    match choice % 16 {
        0 => any(payload),
        1 => round_trip::<Record>(Kind::Record, payload),
        2 => round_trip::<Batch>(Kind::Batch, payload),
        3 => round_trip::<Check>(Kind::StateCheck, payload),
        4 => round_trip::<StoredVote>(Kind::LogVote, payload),
        5 => round_trip::<Position>(Kind::LogCommitted, payload),
        6 => round_trip::<Option<Position>>(Kind::LogTruncate, payload),
        7 => round_trip::<StoredMembershipAt>(Kind::LogEntry, payload),
        8 => round_trip::<StoredMembers>(Kind::LogEntry, payload),
        9 => round_trip::<Outcome>(Kind::Record, payload),
        10 => round_trip::<Vec<(Key, Proposal)>>(Kind::Batch, payload),
        11 => meta(payload),
        12 => entry(payload),
        13 => identity(payload),
        14 => manifest(payload),
        _ => header(payload),
    }
}

/// Bytes as they are.
fn any(bytes: &[u8]) {
    let Ok((envelope, length)) = codec::open_any(bytes) else { return };
    assert_eq!(length, HEADER_BYTES + envelope.payload.len());
    assert_eq!(codec::sealed_len(bytes), Some(length));
    assert!(length <= bytes.len(), "an envelope of {length} bytes in {}", bytes.len());
    let _ = codec::decode::<Record>(Kind::Record, bytes);
    let _ = codec::decode::<Batch>(Kind::Batch, bytes);
}

/// A payload of any kind, version and flags: what is sealed can be opened, and no part of it.
fn header(bytes: &[u8]) {
    let (&[version, flags, cut], payload) = bytes.split_first_chunk::<3>().unwrap_or((&[1, 0, 0], bytes));
    let sealed = codec::seal(Kind::Record, version, flags, payload);
    let (envelope, length) = codec::open_any(&sealed).expect("what was sealed can be opened");
    assert_eq!((envelope.kind, envelope.version, envelope.flags), (Kind::Record as u8, version, flags));
    assert_eq!((envelope.payload, length), (payload, sealed.len()));
    let part = &sealed[..sealed.len() - 1 - usize::from(cut) % sealed.len()];
    assert_eq!(codec::open_any(part), Err(DecodeError::Short));
    let opened = codec::open(&sealed, Kind::Record, 1);
    assert_eq!(opened.is_ok(), version == 1, "version {version}: {opened:?}");
    assert_eq!(codec::open(&sealed, Kind::Batch, 1), Err(DecodeError::Foreign(Kind::Batch)));
    let mut behind = sealed.to_vec();
    behind.push(cut);
    assert!(codec::open(&behind, Kind::Record, 255).is_err(), "a byte behind it was not noticed");
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(kind: Kind, payload: &[u8]) {
    let Ok(value) = codec::decode::<T>(kind, &codec::seal(kind, 1, 0, payload)) else { return };
    let again = codec::encode(kind, &value);
    assert!(again.len() <= HEADER_BYTES + payload.len(), "{value:?} grew from {} bytes", payload.len());
    assert_eq!(codec::decode::<T>(kind, &again).as_ref(), Ok(&value));
}

fn meta(payload: &[u8]) {
    let Ok(meta) = Meta::decode(&codec::seal(Kind::Meta, 1, 0, payload)) else { return };
    let again = Meta::decode(&meta.encode()).expect("what was encoded can be decoded");
    assert_eq!(again, meta);
    assert_eq!(again.state_hash(), meta.state_hash());
}

/// Entries keep the bytes that they were read from.
fn entry(payload: &[u8]) {
    let sealed = codec::seal(Kind::LogEntry, 1, 0, payload);
    let Ok(mut entry) = LogEntry::open(sealed.clone()) else { return };
    assert_eq!(entry.sealed(), sealed);
    assert_eq!(LogEntry::open(entry.sealed()).map(|again| again.to_string()), Ok(entry.to_string()));
    if let Some(members) = entry.members() {
        round_trip::<StoredMembers>(Kind::LogEntry, &codec::encode_payload(&members));
    }
}

/// `IDENTITY`: a directory is this node's and stays so, or is refused by name.
fn identity(payload: &[u8]) {
    let (node, payload) = payload.split_first().map_or((1, payload), |(node, payload)| (u64::from(*node), payload));
    let disk = SimDisk::new(0);
    write(&disk, "/data/IDENTITY", &codec::seal(Kind::Identity, 1, 0, payload));
    let environment = environment(&disk, Arc::new(HandClock::default()));
    let open = || Directory::open(&environment, Path::new("/data"), node);
    match open() {
        Err(fault) => assert!(fault.to_string().contains("/data"), "{fault}"),
        Ok(directory) => {
            let identity = directory.identity();
            assert_eq!(identity.node(), node);
            drop(directory);
            let again = open().expect("it was opened before").identity();
            assert_eq!((again.directory(), again.cluster()), (identity.directory(), identity.cluster()));
        }
    }
}

/// A manifest that lists files which are not there is damage, one that lists none is an empty store.
fn manifest(payload: &[u8]) {
    let disk = SimDisk::new(0);
    write(&disk, "/data/manifest", &codec::seal(Kind::Manifest, 1, 0, payload));
    let disk: Arc<dyn Disk> = Arc::new(disk);
    match Archive::open(&disk, Path::new("/data")) {
        Err(fault) => assert!(fault.to_string().contains("/data/"), "{fault}"),
        Ok(archive) => assert!(archive.is_none(), "files were read that are not there"),
    }
}

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) {
    use meshstore::environment::disk::OpenMode;
    let file = disk.open(Path::new(path), OpenMode::Create).expect("the disk works");
    file.write_all_at(bytes, 0).expect("the disk works");
}
