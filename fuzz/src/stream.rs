//! What came to the store after single records: logs of groups, messages in chunks and rules of what is kept, and who
//! belongs to the cluster.
//!
//! The first byte chooses: a script over a replica ([`log`], [`messages`]), the frames of one message ([`assembly`]), or the
//! bytes of a message of the wire.

mod assembly;
mod log;
mod messages;

use meshstore::{
    Error,
    model::{
        ReadStamp,
        consensus_log::StoredEntry,
        mesh::{Announced, Chunk, Message, Page, Retention, Stored},
    },
    node,
    proto::{large as frames, v1},
};

use super::{
    input::Input,
    wire::{answer, decode, decoded, sent, told},
};

pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut input = Input::new(rest);
    match choice % 8 {
        0..=2 => messages::run(&mut input),
        3 | 4 => log::run(&mut input),
        5 => assembly::run(&mut input),
        6 => wire(&mut input),
        _ => cluster(&mut input),
    }
}

/// An answer that is no success, and no sign of a broken node.
fn refused(error: &Error) {
    let known = matches!(
        error,
        Error::InvalidArgument { .. } | Error::NotFound { .. } | Error::Refused(_) | Error::Conflict(_)
    );
    assert!(known, "{error:?}");
    told(error);
}

/// Frames, entries and rules as anybody may send them.
fn wire(input: &mut Input<'_>) {
    let (kind, bytes) = (input.below(20), input.rest());
    match kind {
        0 => frame(bytes),
        1 => read_frame(bytes),
        2 => header(bytes),
        3 => answer::<v1::GetRetentionResponse, (String, Stored<Retention>)>(bytes),
        4 => answer::<v1::ListRetentionResponse, Page<(String, Stored<Retention>)>>(bytes),
        5 => answer::<v1::LogEntry, StoredEntry>(bytes),
        6 => answer::<v1::GetEntryResponse, StoredEntry>(bytes),
        7 => answer::<v1::ListEntriesResponse, Page<StoredEntry>>(bytes),
        8 => decoded::<v1::SetRetentionRequest>(bytes),
        9 => decoded::<v1::ListRetentionRequest>(bytes),
        10 => decoded::<v1::AppendToRaftRequest>(bytes),
        11 => decoded::<v1::ReadRaftResponse>(bytes),
        12 => decoded::<v1::RaftProposal>(bytes),
        13 => decoded::<v1::RaftMembership>(bytes),
        14 => decoded::<v1::ListEntriesRequest>(bytes),
        15 => decoded::<v1::DeleteEntriesRequest>(bytes),
        16 => decoded::<v1::GetEntryRequest>(bytes),
        17 => decoded::<v1::ReadLargeMessageRequest>(bytes),
        18 => decoded::<v1::DeleteRetentionRequest>(bytes),
        _ => decoded::<v1::AppendToRaftResponse>(bytes),
    }
}

/// A frame of a message that is sent.
fn frame(bytes: &[u8]) {
    use v1::store_large_message_request::Frame;
    match decode::<v1::StoreLargeMessageRequest>(bytes).and_then(|request| request.frame) {
        Some(Frame::Header(header)) => announced(header),
        Some(Frame::Chunk(chunk)) => assert_eq!(v1::MessageChunk::from(Chunk::from(chunk.clone())), chunk),
        None => {}
    }
}

fn header(bytes: &[u8]) {
    if let Some(header) = decode::<v1::LargeMessageHeader>(bytes) {
        announced(header);
    }
}

fn announced(header: v1::LargeMessageHeader) {
    match Announced::try_from(header.clone()) {
        Ok(announced) => {
            assert_eq!(v1::LargeMessageHeader::from(announced), v1::LargeMessageHeader { attempt: None, ..header });
        }
        Err(error) => refused(&error),
    }
}

/// A frame of a message that is read: the first, or a later one, and never both.
fn read_frame(bytes: &[u8]) {
    let Some(frame) = decode::<v1::ReadLargeMessageResponse>(bytes) else { return };
    let first: Result<(v1::ReadHeader, Stored<Message>), Error> = frames::first_frame(frame.clone());
    let next = frames::next_chunk(frame.clone());
    assert!(first.is_err() || next.is_err());
    if let Ok(chunk) = next {
        assert_eq!(v1::ReadLargeMessageResponse::from(chunk), frame);
    }
    if let Ok((header, stored)) = first {
        assert_eq!(ReadStamp::from(header).revision, header.revision);
        assert_eq!(v1::ReadLargeMessageResponse::from((header, stored)), frame);
    }
}

/// Who belongs to the cluster: what is asked, and what a node tells.
fn cluster(input: &mut Input<'_>) {
    match input.below(16) {
        0 => decoded::<v1::AddMemberRequest>(input.rest()),
        1 => decoded::<v1::RemoveMemberRequest>(input.rest()),
        2 => decoded::<v1::PromoteMemberRequest>(input.rest()),
        3 => decoded::<v1::UpdateMemberRequest>(input.rest()),
        4 => decoded::<v1::TransferLeadershipRequest>(input.rest()),
        5 => decoded::<v1::ListMembersResponse>(input.rest()),
        6 => decoded::<v1::MemberStatus>(input.rest()),
        7 => decoded::<v1::BackupPart>(input.rest()),
        8 => decoded::<v1::BackupRequest>(input.rest()),
        9 => decoded::<v1::StatusResponse>(input.rest()),
        10 => decoded::<v1::MemberResponse>(input.rest()),
        11..=13 => listed(input),
        _ => status(input),
    }
}

fn text(input: &mut Input<'_>) -> String {
    String::from_utf8_lossy(input.bytes(8)).into_owned()
}

fn member(input: &mut Input<'_>) -> node::MemberStatus {
    let shape = input.byte();
    node::MemberStatus {
        node_id: input.number(),
        client_address: text(input),
        peer_address: text(input),
        voter: shape & 1 == 1,
        leader: shape & 2 == 2,
        matched_index: (shape & 4 == 4).then(|| input.number()),
        disk: None,
    }
}

fn listed(input: &mut Input<'_>) {
    let member = |input: &mut Input<'_>| {
        let shape = input.byte();
        node::ListedMember {
            status: member(input),
            to_be_voter: shape & 1 == 1,
            to_be_removed: shape & 2 == 2,
            to_be_added: shape & 4 == 4,
            lag: (shape & 8 == 8).then(|| input.number()),
            version: if shape & 16 == 16 { Err(text(input)) } else { Ok(text(input)) },
        }
    };
    let removed = |input: &mut Input<'_>| node::RemovedMember {
        node_id: input.number(),
        removed_at_ms: input.number(),
        removed_by: text(input),
    };
    let members: Vec<_> = (0..input.below(4)).map(|_| member(input)).collect();
    let removed: Vec<_> = (0..input.below(4)).map(|_| removed(input)).collect();
    let known: Vec<_> =
        members.iter().map(|member| (member.status.node_id, member.lag, member.version.is_ok())).collect();
    let gone = removed.len();
    let (leader_id, term, last_log_index) = (input.number(), input.number(), input.number());
    let wire = v1::ListMembersResponse::from(node::Listed { members, removed, leader_id, term, last_log_index });
    assert_eq!(sent(&wire), wire);
    assert_eq!(
        (wire.leader_id, wire.term, wire.last_log_index, wire.removed.len()),
        (leader_id, term, last_log_index, gone)
    );
    for (told, (node_id, lag, reached)) in wire.members.iter().zip(known) {
        assert_eq!((told.member.as_ref().map(|member| member.node_id), told.lag), (Some(node_id), lag));
        assert!(if reached { told.unreachable.is_empty() } else { told.version.is_empty() });
    }
}

fn status(input: &mut Input<'_>) {
    let hex = |input: &mut Input<'_>| input.flag().then(|| u128::from(input.number()));
    let cluster = hex(input);
    let known = node::Status {
        node_id: input.number(),
        cluster,
        leader_id: input.flag().then(|| input.number()),
        state_hash: hex(input),
        members: (0..input.below(3)).map(|_| member(input)).collect(),
        divergence: input.flag().then(|| text(input)),
        keyspaces: (0..input.below(4)).map(|_| (input.byte(), input.number(), input.number())).collect(),
        feature_level: input.flag().then(|| input.byte().into()),
        ..node::Status::default()
    };
    let wire = v1::StatusResponse::from(known);
    assert_eq!(sent(&wire), wire);
    let told = u128::from_str_radix(&wire.cluster_id, 16).ok();
    assert_eq!(told, cluster);
}
