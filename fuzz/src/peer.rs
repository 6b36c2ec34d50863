//! Messages between peers: each is taken for what it is and for nothing else, and comes out as it went in.

use std::fmt::Debug;

use bytes::Bytes;
use meshstore::{
    proto::v1,
    raft::{
        network::identity::{from_hex, hex},
        wire,
    },
    storage::codec::{self, DecodeError, Kind},
};
use prost::Message;

use super::input::Input;

pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 14 {
        0 => {
            if let Ok(request) = v1::AppendRequest::decode(rest) {
                append(request);
            }
        }
        1 => sealed_append(&mut Input::new(rest)),
        2 => frame(&codec::seal(Kind::Peer, 1, 0, rest)),
        3 => frame(rest),
        4 => decoded::<v1::IdentifyResponse>(rest),
        5 => decoded::<v1::AdoptRequest>(rest),
        6 => decoded::<v1::AppendRequest>(rest),
        7 => decoded::<v1::AppendResponse>(rest),
        8 => decoded::<v1::Frame>(rest),
        9 => decoded::<v1::SnapshotChunk>(rest),
        10 => decoded::<v1::FetchSnapshotRequest>(rest),
        11 => decoded::<v1::ReadIndexResponse>(rest),
        12 => decoded::<v1::StateHashResponse>(rest),
        _ => id(&String::from_utf8_lossy(rest)),
    }
}

fn decoded<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
}

fn id(text: &str) {
    if let Some(id) = from_hex(text) {
        assert_eq!(from_hex(&hex(id)), Some(id));
        assert_eq!(hex(id), text.to_ascii_lowercase(), "an id has one form");
    }
}

/// A head and entries, each with a right checksum.
fn sealed_append(input: &mut Input<'_>) {
    let head = codec::seal(Kind::Peer, 1, 0, input.bytes(60));
    let mut entries = Vec::new();
    while !input.is_empty() && entries.len() < 8 {
        entries.push(codec::seal(Kind::LogEntry, 1, 0, input.bytes(120)));
    }
    append(v1::AppendRequest { head, entries, ..Default::default() });
}

fn append(request: v1::AppendRequest) {
    let entries = request.entries.clone();
    let Ok(opened) = wire::open_append(request) else { return };
    assert!(opened.vote.committed, "only leaders append");
    let text = opened.to_string();
    let again = wire::append(opened);
    assert_eq!(again.entries, entries, "entries travel as they stand in the log");
    assert_eq!(wire::open_append(again).map(|opened| opened.to_string()), Ok(text));
}

/// Every way to take a frame; at most one may.
fn frame(bytes: &[u8]) {
    let head = v1::AppendRequest { head: Bytes::copy_from_slice(bytes), ..Default::default() };
    let append_taken = wire::open_append(head.clone()).is_ok();
    append(head);
    let fetched = same(
        bytes,
        wire::open_fetched,
        |head| wire::fetched(head.transfer, &head.meta),
        |head| {
            // Who fetches asks no leader, so no vote goes with the answer.
            format!("{} {:?}", head.transfer, head.meta)
        },
    );
    let snapshot = same(bytes, wire::open_snapshot, wire::snapshot, debug);
    assert!(fetched || !snapshot, "a snapshot that is sent is one that can be fetched");
    let taken = [
        append_taken,
        same(bytes, wire::open_appended, wire::appended, debug),
        same(bytes, wire::open_vote, wire::vote, debug),
        same(bytes, wire::open_voted, wire::voted, debug),
        same(bytes, wire::open_transfer, wire::transfer, debug),
        same(bytes, wire::open_transferred, wire::transferred, debug),
        same(bytes, wire::open_installed, wire::installed, debug),
        fetched,
    ];
    assert!(taken.iter().filter(|taken| **taken).count() <= 1, "taken for several messages: {taken:?}");
}

fn debug<T: Debug>(message: &T) -> String {
    format!("{message:?}")
}

/// Opens, seals and opens again; whether it could be opened.
fn same<T>(
    bytes: &[u8],
    open: impl Fn(&[u8]) -> Result<T, DecodeError>,
    seal: impl Fn(&T) -> Bytes,
    show: impl Fn(&T) -> String,
) -> bool {
    let Ok(message) = open(bytes) else { return false };
    let again = open(&seal(&message)).expect("what was sealed can be opened");
    assert_eq!(show(&again), show(&message));
    true
}
