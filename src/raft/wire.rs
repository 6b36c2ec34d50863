//! What nodes of one cluster say to each other: frozen forms, and their conversion from and to openraft's
//! types.
//!
//! Every message is one variant of [`Message`] in an envelope of [`Kind::Peer`], so a message is checked by
//! its checksum, and can never be taken for one of another call. Entries are not part of it: they travel
//! beside the head of an append, as the very bytes that stand in the log.

use bytes::Bytes;
use openraft::{
    entry::RaftEntry,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    freshness::Lead,
    network::identity::from_hex,
    types::{
        CommittedLeaderId, LogEntry, LogId, Member, NodeId, Position, StoredMembershipAt, StoredVote, TypeConfig, Vote,
        membership_at_from_stored, membership_at_to_stored,
    },
};
use crate::{
    proto::v1,
    storage::codec::{self, DecodeError, Kind},
};

/// openraft's request to append.
pub type Append = AppendEntriesRequest<TypeConfig>;
/// openraft's answer to it.
pub type Appended = AppendEntriesResponse<TypeConfig>;
/// openraft's request for a vote, or a pre-vote.
pub type Ballot = VoteRequest<TypeConfig>;
/// openraft's answer to it.
pub type Balloted = VoteResponse<TypeConfig>;
/// openraft's request to take over the lead.
pub type Transfer = TransferLeaderRequest<TypeConfig>;
/// openraft's answer to it.
pub type Transferred = TransferLeaderResponse<TypeConfig>;
/// What openraft says of a snapshot.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, Member>;
/// openraft's snapshot, around ours.
pub type Snapshot<D> = openraft::Snapshot<CommittedLeaderId, NodeId, Member, D>;
/// openraft's answer to a snapshot.
pub type Installed = SnapshotResponse<TypeConfig>;

/// A message between peers. Frozen: grows at the end only, a changed form is a new variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Message {
    Append { vote: StoredVote, previous: Option<Position>, committed: Option<Position> },
    Appended(AppendAnswer),
    Vote { vote: StoredVote, last: Option<Position>, leadership_transfer: bool },
    Voted { vote: StoredVote, granted: bool, last: Option<Position> },
    Transfer { from: StoredVote, to: NodeId, last: Option<Position> },
    Transferred(TransferAnswer),
    Snapshot { vote: StoredVote, transfer: u64, last: Option<Position>, membership: StoredMembershipAt },
    Installed { vote: StoredVote },
}

/// Grows at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum AppendAnswer {
    Success,
    Partial(Option<Position>),
    Conflict,
    HigherVote(StoredVote),
}

/// Grows at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum TransferAnswer {
    Accepted,
    VoteChanged { expected: StoredVote, actual: StoredVote },
    LogNotFlushed { expected: Option<Position>, actual: Option<Position> },
}

/// The beginning of a snapshot's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The vote of the leader that sends it.
    pub vote: Vote,
    /// The sender's number for this transfer, to find it in both logs.
    pub transfer: u64,
    /// What the snapshot holds.
    pub meta: SnapshotMeta,
}

/// That an answer is one to this call, and not to another on the same connection. One of an older program does not say.
///
/// Errors: it is to another call.
pub fn answers(call: u64, answered: u64) -> Result<(), DecodeError> {
    if answered == 0 || answered == call { Ok(()) } else { Err(other("the answer to this call")) }
}

/// The sum of a read index and the call that it answers.
pub fn read_index_sum(index: u64, call: u64) -> u32 {
    sum(&[], [index, call].into_iter())
}

/// The read index in an answer to this call.
///
/// Errors: it is to another call, or not what was sent.
pub fn open_read_index(call: u64, answer: v1::ReadIndexResponse) -> Result<u64, DecodeError> {
    let v1::ReadIndexResponse { index, call: answered, crc32c } = answer;
    // An older program says neither.
    if (answered, crc32c) != (0, 0) && (answered, crc32c) != (call, read_index_sum(index, call)) {
        return Err(other("the answer to this call"));
    }
    Ok(index)
}

/// The sum of the hash of a state at a log index.
pub fn state_hash_sum(index: u64, hash: &str) -> u32 {
    sum(hash.as_bytes(), [index].into_iter())
}

/// The hash in an answer about this index; `None` if there is none, or the answer is not what was sent.
pub fn open_state_hash(index: u64, answer: &v1::StateHashResponse) -> Option<u128> {
    let v1::StateHashResponse { hash, crc32c } = answer;
    let whole = *crc32c == 0 || *crc32c == state_hash_sum(index, hash);
    from_hex(hash).filter(|_| whole)
}

/// An append as it goes over the wire. The entries' bytes are those in the log; nothing is encoded again.
pub fn append(request: Append) -> v1::AppendRequest {
    let mut request = request;
    let head = seal(&Message::Append {
        vote: request.vote.into(),
        previous: request.prev_log_id.map(Into::into),
        committed: request.leader_commit.map(Into::into),
    });
    v1::AppendRequest {
        head,
        entries: request.entries.iter_mut().map(LogEntry::sealed).collect(),
        ..Default::default()
    }
}

/// Adds to an append what its sender knows of itself at this moment.
pub fn set_lead(request: &mut v1::AppendRequest, lead: Option<Lead>) {
    request.quorum_age_ms = lead.map_or(u64::MAX, |lead| lead.quorum_age_ms);
    request.applied_index = lead.map(|lead| lead.applied_index);
}

/// What the sender of an append knew of itself. An older program does not say how far it has applied.
pub fn lead(request: &v1::AppendRequest) -> Option<Lead> {
    let applied_index = request.applied_index.filter(|_| request.quorum_age_ms != u64::MAX)?;
    Some(Lead { quorum_age_ms: request.quorum_age_ms, applied_index })
}

/// The sum of an append with what stands beside it. Entries have checksums of their own; that none is missing is seen by their
/// lengths.
pub fn append_sum(request: &v1::AppendRequest) -> u32 {
    let v1::AppendRequest { head, entries, quorum_age_ms, echo, call, sum: _, applied_index } = request;
    let lengths = entries.iter().map(|entry| entry.len() as u64);
    let numbers = [*quorum_age_ms, *call, entries.len() as u64];
    sum(head, numbers.into_iter().chain(lengths).chain(pulse_numbers(echo.as_ref())).chain(*applied_index))
}

/// The sum of the answer to an append with what stands beside it.
pub fn appended_sum(answer: &v1::AppendResponse) -> u32 {
    let v1::AppendResponse { envelope, pulse, disk, call, sum: _ } = answer;
    let disk = disk
        .iter()
        .flat_map(|disk| [disk.free_bytes, disk.needed_bytes, u64::from(disk.short), u64::from(disk.full)].into_iter());
    sum(envelope, [*call].into_iter().chain(pulse_numbers(pulse.as_ref())).chain(disk))
}

fn pulse_numbers(pulse: Option<&v1::Pulse>) -> impl Iterator<Item = u64> {
    pulse.into_iter().flat_map(|pulse| [pulse.life, pulse.at_ms])
}

fn sum(bytes: &[u8], numbers: impl Iterator<Item = u64>) -> u32 {
    numbers.fold(crc32c::crc32c(bytes), |sum, number| crc32c::crc32c_append(sum, &number.to_le_bytes()))
}

/// That what came is what was sent. An older program sends neither call nor sum.
fn whole(call: u64, sum: u32, expected: impl FnOnce() -> u32) -> Result<(), DecodeError> {
    if (call, sum) == (0, 0) || sum == expected() { Ok(()) } else { Err(other("what was sent")) }
}

/// An append from the wire. The checksum of every entry is verified, and that each follows the one before.
///
/// Errors: anything in it is not what it should be.
pub fn open_append(request: v1::AppendRequest) -> Result<Append, DecodeError> {
    whole(request.call, request.sum, || append_sum(&request))?;
    let Message::Append { vote, previous, committed } = open(&request.head)? else { return Err(other("an append")) };
    of_a_leader(vote)?;
    let entries = request.entries.into_iter().map(LogEntry::open).collect::<Result<Vec<_>, _>>()?;
    let before = previous.map(|previous| previous.index);
    let indexes = before.into_iter().chain(entries.iter().map(|entry| RaftEntry::log_id(entry).index));
    if indexes.is_sorted_by(|one, next| one.checked_add(1) == Some(*next)) {
        let (vote, prev_log_id) = (vote.into(), previous.map(Into::into));
        Ok(Append { vote, prev_log_id, entries, leader_commit: committed.map(Into::into) })
    } else {
        Err(other("entries that follow each other"))
    }
}

/// The answer to an append.
pub fn appended(answer: &Appended) -> Bytes {
    seal(&Message::Appended(match answer {
        Appended::Success => AppendAnswer::Success,
        Appended::PartialSuccess(id) => AppendAnswer::Partial(id.map(Into::into)),
        Appended::Conflict => AppendAnswer::Conflict,
        Appended::HigherVote(vote) => AppendAnswer::HigherVote((*vote).into()),
    }))
}

/// The answer to an append, from the wire, with what stands beside it.
///
/// Errors: as of [`open_appended`]; something is not what was sent.
pub fn open_append_answer(answer: &v1::AppendResponse) -> Result<Appended, DecodeError> {
    whole(answer.call, answer.sum, || appended_sum(answer))?;
    open_appended(&answer.envelope)
}

/// The answer to an append, from the wire.
///
/// Errors: the bytes are no such answer; so with all functions that begin with `open`.
pub fn open_appended(bytes: &[u8]) -> Result<Appended, DecodeError> {
    let Message::Appended(answer) = open(bytes)? else { return Err(other("the answer to an append")) };
    Ok(match answer {
        AppendAnswer::Success => Appended::Success,
        AppendAnswer::Partial(position) => Appended::PartialSuccess(position.map(Into::into)),
        AppendAnswer::Conflict => Appended::Conflict,
        AppendAnswer::HigherVote(vote) => Appended::HigherVote(vote.into()),
    })
}

/// A request for a vote or a pre-vote.
pub fn vote(request: &Ballot) -> Bytes {
    seal(&Message::Vote {
        vote: request.vote.into(),
        last: request.last_log_id.map(Into::into),
        leadership_transfer: request.leadership_transfer,
    })
}

/// A request for a vote, from the wire.
pub fn open_vote(bytes: &[u8]) -> Result<Ballot, DecodeError> {
    let Message::Vote { vote, last, leadership_transfer } = open(bytes)? else { return Err(other("a vote")) };
    Ok(Ballot { vote: vote.into(), last_log_id: last.map(Into::into), leadership_transfer })
}

/// The answer to a request for a vote.
pub fn voted(answer: &Balloted) -> Bytes {
    seal(&Message::Voted {
        vote: answer.vote.into(),
        granted: answer.vote_granted,
        last: answer.last_log_id.map(Into::into),
    })
}

/// The answer to a request for a vote, from the wire.
pub fn open_voted(bytes: &[u8]) -> Result<Balloted, DecodeError> {
    let Message::Voted { vote, granted, last } = open(bytes)? else { return Err(other("the answer to a vote")) };
    Ok(Balloted { vote: vote.into(), vote_granted: granted, last_log_id: last.map(Into::into) })
}

/// A request to take over the lead.
pub fn transfer(request: &Transfer) -> Bytes {
    seal(&Message::Transfer {
        from: (*request.from_leader()).into(),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(Into::into),
    })
}

/// A request to take over the lead, from the wire.
pub fn open_transfer(bytes: &[u8]) -> Result<Transfer, DecodeError> {
    let Message::Transfer { from, to, last } = open(bytes)? else { return Err(other("a transfer")) };
    Ok(Transfer::new(from.into(), to, last.map(Into::into)))
}

/// The answer to a request to take over the lead.
pub fn transferred(answer: &Transferred) -> Bytes {
    seal(&Message::Transferred(match answer {
        Ok(()) => TransferAnswer::Accepted,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            TransferAnswer::VoteChanged { expected: (*expected).into(), actual: (*actual).into() }
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            TransferAnswer::LogNotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
        }
    }))
}

/// The answer to a request to take over the lead, from the wire.
pub fn open_transferred(bytes: &[u8]) -> Result<Transferred, DecodeError> {
    let Message::Transferred(answer) = open(bytes)? else { return Err(other("the answer to a transfer")) };
    Ok(match answer {
        TransferAnswer::Accepted => Ok(()),
        TransferAnswer::VoteChanged { expected, actual } => {
            Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
        }
        TransferAnswer::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
            expected: expected.map(Into::into),
            actual: actual.map(Into::into),
        }),
    })
}

/// The beginning of a snapshot's stream.
pub fn snapshot(head: &SnapshotHead) -> Bytes {
    seal_head(head.vote.into(), head.transfer, &head.meta)
}

fn seal_head(vote: StoredVote, transfer: u64, meta: &SnapshotMeta) -> Bytes {
    let last = meta.last_log_id.map(Into::into);
    seal(&Message::Snapshot { vote, transfer, last, membership: membership_at_to_stored(&meta.last_membership) })
}

/// The beginning of a snapshot's stream, from the wire.
///
/// Errors: also if no leader can have sent it. openraft panics at such a snapshot, so it must not get there.
pub fn open_snapshot(bytes: &[u8]) -> Result<SnapshotHead, DecodeError> {
    open_head(bytes, |vote, last| {
        of_a_leader(vote)?;
        if last.is_some_and(|last| last.term > vote.term) {
            return Err(DecodeError::Payload("the snapshot is of a later term than its sender's".into()));
        }
        Ok(())
    })
}

/// `check` sees the vote and the last position before anything is made of the rest.
fn open_head(
    bytes: &[u8],
    check: impl FnOnce(StoredVote, Option<Position>) -> Result<(), DecodeError>,
) -> Result<SnapshotHead, DecodeError> {
    let Message::Snapshot { vote, transfer, last, membership } = open(bytes)? else {
        return Err(other("the head of a snapshot"));
    };
    check(vote, last)?;
    let last_membership = membership_at_from_stored(membership)?;
    let meta = SnapshotMeta { last_log_id: last.map(LogId::from), last_membership };
    Ok(SnapshotHead { vote: vote.into(), transfer, meta })
}

/// The beginning of the stream of a snapshot that was asked for. It is sent by whoever has it, so no vote goes with it.
pub fn fetched(transfer: u64, meta: &SnapshotMeta) -> Bytes {
    seal_head(StoredVote { term: 0, node: 0, committed: false }, transfer, meta)
}

/// The beginning of the stream of a snapshot that was asked for, from the wire.
pub fn open_fetched(bytes: &[u8]) -> Result<SnapshotHead, DecodeError> {
    open_head(bytes, |_, _| Ok(()))
}

/// The answer to a snapshot.
pub fn installed(answer: &Installed) -> Bytes {
    seal(&Message::Installed { vote: answer.vote.into() })
}

/// The answer to a snapshot, from the wire.
pub fn open_installed(bytes: &[u8]) -> Result<Installed, DecodeError> {
    let Message::Installed { vote } = open(bytes)? else { return Err(other("the answer to a snapshot")) };
    Ok(Installed { vote: vote.into() })
}

fn seal(message: &Message) -> Bytes {
    codec::encode(Kind::Peer, message)
}

fn open(bytes: &[u8]) -> Result<Message, DecodeError> {
    codec::decode(Kind::Peer, bytes)
}

/// openraft takes for granted that only leaders append, and asserts it: so it is made sure of here.
fn of_a_leader(vote: StoredVote) -> Result<(), DecodeError> {
    let refuse =
        || DecodeError::Payload(format!("no quorum has made node {} the leader of term {}", vote.node, vote.term));
    vote.committed.then_some(()).ok_or_else(refuse)
}

fn other(expected: &str) -> DecodeError {
    DecodeError::Payload(format!("it is not {expected}"))
}

#[cfg(test)]
mod tests;
