//! Golden bytes of all messages between peers: whoever changes one breaks clusters of mixed releases.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{EntryPayload, entry::RaftEntry};
use proptest::{collection, option, prelude::*};

use super::*;
use crate::raft::types::{Command, Member, StoredMembers};

const VOTE: StoredVote = StoredVote { term: 7, node: 2, committed: true };
const AT: Option<Position> = Some(Position { term: 6, index: 300 });

/// Payload bytes as they are on the wire today. They may never change: nodes of two releases talk.
fn golden() -> Vec<(Message, Vec<u8>)> {
    let member = Member { peer_address: "a:1".into(), client_address: "b:2".into(), directory: 5 };
    let membership = StoredMembershipAt {
        position: AT,
        membership: StoredMembers { configs: vec![BTreeSet::from([2])], members: BTreeMap::from([(2, member)]) },
    };
    vec![
        (Message::Append { vote: VOTE, previous: AT, committed: None }, vec![0, 7, 2, 1, 1, 6, 251, 44, 1, 0]),
        (Message::Appended(AppendAnswer::Success), vec![1, 0]),
        (Message::Appended(AppendAnswer::Partial(AT)), vec![1, 1, 1, 6, 251, 44, 1]),
        (Message::Appended(AppendAnswer::Conflict), vec![1, 2]),
        (Message::Appended(AppendAnswer::HigherVote(VOTE)), vec![1, 3, 7, 2, 1]),
        (Message::Vote { vote: VOTE, last: AT, leadership_transfer: true }, vec![2, 7, 2, 1, 1, 6, 251, 44, 1, 1]),
        (Message::Voted { vote: VOTE, granted: true, last: None }, vec![3, 7, 2, 1, 1, 0]),
        (Message::Transfer { from: VOTE, to: 3, last: AT }, vec![4, 7, 2, 1, 3, 1, 6, 251, 44, 1]),
        (Message::Transferred(TransferAnswer::Accepted), vec![5, 0]),
        (
            Message::Transferred(TransferAnswer::VoteChanged { expected: VOTE, actual: VOTE }),
            vec![5, 1, 7, 2, 1, 7, 2, 1],
        ),
        (
            Message::Transferred(TransferAnswer::LogNotFlushed { expected: AT, actual: None }),
            vec![5, 2, 1, 6, 251, 44, 1, 0],
        ),
        (
            Message::Snapshot { vote: VOTE, transfer: 9, last: AT, membership },
            vec![
                6, 7, 2, 1, 9, 1, 6, 251, 44, 1, 1, 6, 251, 44, 1, 1, 1, 2, 1, 2, 3, b'a', b':', b'1', 3, b'b', b':',
                b'2', 5,
            ],
        ),
        (Message::Installed { vote: VOTE }, vec![7, 7, 2, 1]),
    ]
}

#[test]
fn every_message_has_exactly_these_bytes() {
    for (message, bytes) in golden() {
        assert_eq!(codec::encode_payload(&message), bytes, "{message:?}");
        let sealed = codec::seal(Kind::Peer, 1, 0, &bytes);
        assert_eq!(open(&sealed), Ok(message));
    }
}

#[test]
fn a_whole_frame_has_exactly_these_bytes() {
    let frame = installed(&Installed { vote: VOTE.into() });
    assert_eq!(frame.as_ref(), [0x4D, 0x53, 32, 1, 0, 4, 0, 0, 0, 0xAC, 0x5A, 0x65, 0x43, 7, 7, 2, 1]);
}

#[test]
fn no_message_passes_for_another() {
    for (message, _) in golden() {
        let bytes = seal(&message);
        let taken = [
            open_append(v1::AppendRequest { head: bytes.clone(), entries: vec![], ..Default::default() }).is_ok(),
            open_appended(&bytes).is_ok(),
            open_vote(&bytes).is_ok(),
            open_voted(&bytes).is_ok(),
            open_transfer(&bytes).is_ok(),
            open_transferred(&bytes).is_ok(),
            open_snapshot(&bytes).is_ok(),
            open_installed(&bytes).is_ok(),
        ];
        assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1, "{message:?}");
    }
}

#[test]
fn an_answer_to_another_call_is_refused() {
    assert!(answers(7, 7).is_ok() && answers(7, 8).is_err());
    assert!(answers(7, 0).is_ok(), "of an older program");
    let answer = |index, call| v1::ReadIndexResponse { index, call, crc32c: read_index_sum(index, call) };
    assert_eq!(open_read_index(7, answer(100, 7)).unwrap(), 100);
    assert!(open_read_index(7, answer(100, 8)).is_err());
    assert!(open_read_index(7, v1::ReadIndexResponse { index: 99, ..answer(100, 7) }).is_err());
    assert!(open_read_index(7, v1::ReadIndexResponse { crc32c: 0, ..answer(100, 7) }).is_err());
    let older = v1::ReadIndexResponse { index: 100, ..Default::default() };
    assert_eq!(open_read_index(7, older).unwrap(), 100);
}

#[test]
fn a_snapshot_from_the_future_is_refused() {
    let last = Some(Position { term: 8, index: 1 });
    let message = Message::Snapshot { vote: VOTE, transfer: 1, last, membership: StoredMembershipAt::default() };
    assert!(open_snapshot(&seal(&message)).unwrap_err().to_string().contains("later term"));
}

#[test]
fn only_a_leader_appends_and_sends_snapshots() {
    let vote = StoredVote { committed: false, ..VOTE };
    let head = seal(&Message::Append { vote, previous: None, committed: None });
    let error = open_append(v1::AppendRequest { head, entries: vec![], ..Default::default() }).unwrap_err();
    assert!(error.to_string().contains("no quorum"), "{error}");
    let message = Message::Snapshot { vote, transfer: 1, last: None, membership: StoredMembershipAt::default() };
    assert!(open_snapshot(&seal(&message)).unwrap_err().to_string().contains("no quorum"));
}

#[test]
fn an_entry_goes_over_the_wire_as_it_stands_in_the_log() {
    let batch = Command(Bytes::from_static(b"a sealed batch"));
    let mut entry = LogEntry::new(Position { term: 7, index: 301 }.into(), EntryPayload::Normal(batch));
    let sealed = entry.sealed();
    let request = Append { vote: VOTE.into(), prev_log_id: None, entries: vec![entry], leader_commit: None };
    let message = append(request);
    // The same allocation, not equal bytes.
    assert_eq!(message.entries[0].as_ptr(), sealed.as_ptr());
    let mut opened = open_append(message.clone()).unwrap();
    assert_eq!(opened.entries[0].sealed().as_ptr(), sealed.as_ptr());

    for at in 0..sealed.len() {
        let mut damaged = sealed.to_vec();
        damaged[at] ^= 4;
        let damaged = v1::AppendRequest { entries: vec![damaged.into()], ..message.clone() };
        assert!(open_append(damaged).is_err(), "byte {at}");
    }
}

fn votes() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<u64>(), any::<bool>())
        .prop_map(|(term, node, committed)| StoredVote { term, node, committed }.into())
}

fn ids() -> impl Strategy<Value = Option<LogId>> {
    option::of((any::<u64>(), any::<u64>()).prop_map(|(term, index)| Position { term, index }.into()))
}

fn entries() -> impl Strategy<Value = Vec<LogEntry>> {
    let payload = prop_oneof![
        Just(EntryPayload::Blank),
        collection::vec(any::<u8>(), 0..40).prop_map(|bytes| EntryPayload::Normal(Command(bytes.into()))),
    ];
    let entry = (any::<u64>(), payload);
    (any::<u32>(), collection::vec(entry, 0..5)).prop_map(|(first, entries)| {
        let place = |(at, (term, payload)): (u64, (u64, EntryPayload<_, _, _>))| {
            LogEntry::new(Position { term, index: u64::from(first) + at }.into(), payload)
        };
        (0..).zip(entries).map(place).collect()
    })
}

proptest! {
    #[test]
    fn an_append_comes_out_as_it_went_in(
        vote in votes().prop_map(|vote| Vote { committed: true, ..vote }),
        before in ids(),
        leader_commit in ids(),
        entries in entries(),
    ) {
        let follow = |first: &LogEntry| first.log_id().index.checked_sub(1);
        let before_first = entries.first().map(|first| follow(first).map(|index| Position { term: 1, index }.into()));
        let prev_log_id: Option<LogId> = before_first.unwrap_or(before);
        let request = Append { vote, prev_log_id, entries, leader_commit };
        let opened = open_append(append(request.clone())).unwrap();
        prop_assert_eq!(opened.to_string(), request.to_string());
        for (opened, sent) in opened.entries.iter().zip(&request.entries) {
            prop_assert_eq!(opened.payload(), sent.payload());
        }
    }

    #[test]
    fn votes_and_transfers_come_out_as_they_went_in(
        ballot in votes(), last in ids(), flag in any::<bool>(), to in any::<u64>(), actual in ids()
    ) {
        let request = Ballot { vote: ballot, last_log_id: last, leadership_transfer: flag };
        prop_assert_eq!(open_vote(&vote(&request)).unwrap(), request);
        let answer = Balloted { vote: ballot, vote_granted: flag, last_log_id: last };
        prop_assert_eq!(open_voted(&voted(&answer)).unwrap(), answer);
        let request = Transfer::new(ballot, to, last);
        prop_assert_eq!(open_transfer(&transfer(&request)).unwrap(), request);
        for answer in [Ok(()), Err(TransferLeaderError::LogNotFlushed { expected: last, actual })] {
            prop_assert_eq!(open_transferred(&transferred(&answer)).unwrap(), answer);
        }
        for answer in [Appended::Success, Appended::PartialSuccess(last), Appended::HigherVote(ballot)] {
            prop_assert_eq!(open_appended(&appended(&answer)).unwrap(), answer);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in collection::vec(any::<u8>(), 0..200)) {
        // Behind a right header, else nothing would ever reach the payload's decoder.
        for bytes in [codec::seal(Kind::Peer, 1, 0, &bytes), bytes.into()] {
            let _ = open_append(v1::AppendRequest { head: bytes.clone(), entries: vec![bytes.clone()], ..Default::default() });
            let _ = open_snapshot(&bytes);
            let _ = open_transferred(&bytes);
        }
    }
}

fn plain(index: u64) -> LogEntry {
    LogEntry::new(Position { term: 7, index }.into(), EntryPayload::Normal(Command(Bytes::from_static(b"batch"))))
}

fn after_two(entries: Vec<LogEntry>) -> v1::AppendRequest {
    let prev_log_id = Some(Position { term: 6, index: 2 }.into());
    append(Append { vote: VOTE.into(), prev_log_id, entries, leader_commit: None })
}

fn pulse(at_ms: u64) -> v1::Pulse {
    v1::Pulse { life: 7, at_ms }
}

/// What a flipped bit makes of a message on the wire: a field changes, or is taken for another and left out.
#[test]
fn an_append_is_taken_as_it_was_sent_or_not_at_all() {
    use prost::Message as _;
    let mut request = after_two((3..6).map(plain).collect());
    (request.echo, request.call) = (Some(pulse(9_000)), 5);
    set_lead(&mut request, Some(Lead { quorum_age_ms: 40, applied_index: 2 }));
    request.sum = append_sum(&request);
    assert!(open_append(request.clone()).is_ok());
    let sent = request.encode_to_vec();
    for bit in 0..sent.len() * 8 {
        let mut damaged = sent.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(request) = v1::AppendRequest::decode(damaged.as_slice()) {
            assert!(open_append(request.clone()).is_err(), "bit {bit}: {request:?}");
        }
    }
    let answer = v1::AppendResponse {
        envelope: appended(&Appended::Success),
        pulse: Some(pulse(9_000)),
        disk: Some(v1::DiskSpace { free_bytes: 1 << 40, needed_bytes: 1 << 30, short: false, full: false }),
        call: 5,
        sum: 0,
    };
    let answer = v1::AppendResponse { sum: appended_sum(&answer), ..answer };
    assert_eq!(open_append_answer(&answer), Ok(Appended::Success));
    let sent = answer.encode_to_vec();
    for bit in 0..sent.len() * 8 {
        let mut damaged = sent.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(answer) = v1::AppendResponse::decode(damaged.as_slice()) {
            assert!(open_append_answer(&answer).is_err() || answers(5, answer.call).is_err(), "bit {bit}: {answer:?}");
        }
    }
}

#[test]
fn a_hash_is_that_of_the_index_that_was_asked_for() {
    let hash = format!("{:032x}", 77);
    let answer = v1::StateHashResponse { crc32c: state_hash_sum(4_096, &hash), hash };
    assert_eq!(open_state_hash(4_096, &answer), Some(77));
    assert_eq!(open_state_hash(8_192, &answer), None);
    let damaged = v1::StateHashResponse { hash: format!("{:032x}", 76), ..answer.clone() };
    assert_eq!(open_state_hash(4_096, &damaged), None);
    let older = v1::StateHashResponse { crc32c: 0, ..answer };
    assert_eq!(open_state_hash(4_096, &older), Some(77));
}

/// Also of an older program, which sends no sum.
#[test]
fn entries_follow_each_other() {
    let request = |entries: &[u64]| after_two(entries.iter().map(|index| plain(*index)).collect());
    for taken in [&[][..], &[3], &[3, 4, 5]] {
        assert!(open_append(request(taken)).is_ok(), "{taken:?}");
    }
    for refused in [&[4][..], &[3, 5], &[3, 4, 4], &[3, 2], &[2, 3]] {
        assert!(open_append(request(refused)).is_err(), "{refused:?}");
    }
}
