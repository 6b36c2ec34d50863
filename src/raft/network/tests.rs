//! Both sides of the peer network, over real sockets.

mod damaged;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    EntryPayload, RaftNetworkFactory, RaftNetworkV2,
    entry::RaftEntry,
    errors::{RPCError, ReplicationClosed, StreamingError},
    network::RPCOption,
};

use super::{
    snapshot::{SnapshotReader, SnapshotSource},
    *,
};
use crate::{
    environment::clock::RealClock,
    raft::{freshness::Freshness, members::Members, space::Space},
};
use crate::{
    environment::{Environment, net::RealNet},
    error::Fault,
    limits,
    raft::{
        peer::testing::{FakeNode, bind},
        types::{Command, LogEntry, Member, Membership, Position, StoredMembership, StoredVote, TypeConfig, Vote},
        wire::{Append, Appended, Ballot, Installed, Snapshot, SnapshotMeta, Transfer},
    },
};

/// Chunks to send, or what goes wrong.
enum Script {
    Chunk(Bytes),
    Fault,
    /// Waits until something comes out, or the other end is gone.
    Wait(mpsc::Receiver<()>),
}

struct Scripted(Vec<Script>);

impl SnapshotSource for Scripted {
    fn reader(mut self) -> Result<Box<dyn SnapshotReader>, Fault> {
        self.0.reverse();
        Ok(Box::new(self))
    }
}

impl SnapshotReader for Scripted {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            match self.0.pop() {
                Some(Script::Chunk(bytes)) => return Ok(Some(bytes)),
                Some(Script::Fault) => return Err(Fault::damaged("run-7".as_ref(), 4096, "checksum mismatch")),
                Some(Script::Wait(gate)) => drop(gate.recv()),
                None => return Ok(None),
            }
        }
    }
}

fn vote() -> Vote {
    StoredVote { term: 7, node: 1, committed: true }.into()
}

fn at(index: u64) -> Option<crate::raft::types::LogId> {
    Some(Position { term: 7, index }.into())
}

fn option() -> RPCOption {
    RPCOption::new(Duration::from_secs(20))
}

fn peers(identity: Identity) -> Arc<Peers> {
    let clock = Arc::new(RealClock);
    let (freshness, space) = (Freshness::new(clock.clone()), Space::new(clock, "data".as_ref()));
    Peers::new(Arc::new(RealNet), identity, Arc::new(freshness), Arc::new(space))
}

fn factory(identity: Identity) -> PeerNetwork<Scripted> {
    PeerNetwork::new(&Environment::real(), peers(identity))
}

fn first() -> Identity {
    Identity::new(1, 0xD1, Some(0xC))
}

async fn connect(node: &FakeNode) -> PeerConnection<Scripted> {
    factory(first()).new_client(2, &node.member()).await
}

/// Members that all vote.
fn voters<const N: usize>(all: [(u64, Member); N]) -> Members {
    Members { voters: all.iter().map(|(id, _)| *id).collect(), all: all.into(), joint: false }
}

fn append_of(entries: Vec<LogEntry>) -> Append {
    Append { vote: vote(), prev_log_id: at(2), entries, leader_commit: at(1) }
}

fn entry(index: u64) -> LogEntry {
    let payload = EntryPayload::Normal(Command(Bytes::from_static(b"batch")));
    LogEntry::new(Position { term: 7, index }.into(), payload)
}

#[tokio::test]
async fn every_call_arrives_and_is_answered() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    let append = append_of(vec![entry(3), entry(4)]);
    assert_eq!(peer.append_entries(append.clone(), option()).await.unwrap(), Appended::PartialSuccess(at(4)));
    let ballot = Ballot { vote: vote(), last_log_id: at(4), leadership_transfer: true };
    let voted = peer.vote(ballot.clone(), option()).await.unwrap();
    assert!(voted.vote_granted && voted.last_log_id == at(4));
    // The default of the trait would have granted it without asking.
    assert!(!peer.pre_vote(ballot.clone(), option()).await.unwrap().vote_granted);
    let transfer = Transfer::new(vote(), 2, at(4));
    assert!(peer.transfer_leader(transfer.clone(), option()).await.unwrap().is_err());
    let mut heartbeats = factory(first()).new_heartbeat_client(2, &node.member()).await;
    heartbeats.append_entries(append_of(vec![]), option()).await.unwrap();

    let heartbeat = append_of(vec![]);
    assert_eq!(
        node.raft.seen(),
        [
            format!("append {append}"),
            format!("vote {ballot}"),
            format!("pre-vote {ballot}"),
            format!("transfer {transfer}"),
            format!("append {heartbeat}"),
        ]
    );
}

#[tokio::test]
async fn a_full_append_of_the_largest_entries_fits() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    let payload = EntryPayload::Normal(Command(vec![7; limits::TRANSACTION_BYTES].into()));
    let large = LogEntry::new(Position { term: 7, index: 3 }.into(), payload);
    peer.append_entries(append_of(vec![large]), option()).await.unwrap();
}

#[tokio::test]
async fn the_read_index_comes_from_the_leader_or_not_at_all() {
    let node = FakeNode::second().await;
    let peers = peers(first());
    let timeout = Duration::from_secs(20);
    let error = peers.read_index(2, &node.member(), timeout).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("not the leader"), "{error}");
    node.standing.index.store(42, Ordering::SeqCst);
    assert_eq!(peers.read_index(2, &node.member(), timeout).await, Ok(42));
}

fn unreachable_says(error: &RPCError<TypeConfig>, expected: &str) {
    assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
}

#[tokio::test]
async fn whatever_fails_can_be_tried_again() {
    let node = FakeNode::second().await;
    node.raft.stopped.store(true, Ordering::SeqCst);
    let mut peer = connect(&node).await;
    unreachable_says(&peer.append_entries(append_of(vec![]), option()).await.unwrap_err(), "node 2 has stopped");
    node.raft.stopped.store(false, Ordering::SeqCst);
    peer.append_entries(append_of(vec![]), option()).await.unwrap();

    let replaced = Member { directory: 0xDD, ..node.member() };
    let mut peer = factory(first()).new_client(2, &replaced).await;
    unreachable_says(&peer.append_entries(append_of(vec![]), option()).await.unwrap_err(), "this is node 2 of");

    node.standing.members.lock().unwrap().insert(1, 0xEE);
    let mut peer = connect(&node).await;
    unreachable_says(&peer.append_entries(append_of(vec![]), option()).await.unwrap_err(), "wiped or replaced");

    let nowhere = Member { peer_address: "no address".into(), ..node.member() };
    let mut peer = factory(first()).new_client(2, &nowhere).await;
    unreachable_says(&peer.append_entries(append_of(vec![]), option()).await.unwrap_err(), "no address");
}

#[tokio::test]
async fn a_node_that_is_back_is_reached_again() {
    let (listener, address) = bind().await;
    drop(listener);
    let member = Member { peer_address: address.clone(), client_address: String::new(), directory: 0xD2 };
    let mut peer = factory(first()).new_client(2, &member).await;
    unreachable_says(&peer.append_entries(append_of(vec![]), option()).await.unwrap_err(), "refused");

    let identity = Identity::new(2, 0xD2, Some(0xC));
    let listener = crate::environment::Net::listen(&RealNet, &address).await.unwrap();
    let directory = Arc::new(crate::raft::peer::testing::NoDirectory(identity.clone()));
    let _node = FakeNode::new(listener, identity, directory, Arc::default());
    peer.append_entries(append_of(vec![]), option()).await.unwrap();
}

#[tokio::test]
async fn a_learner_rests_after_entries_and_whoever_votes_does_not() {
    let node = FakeNode::second().await;
    let peers = peers(first());
    let mut peer =
        PeerNetwork::<Scripted>::new(&Environment::real(), peers.clone()).new_client(2, &node.member()).await;
    let voter = voters([(2, node.member())]);
    let learner = Members { voters: [1].into(), ..voter.clone() };
    let changing = Members { joint: true, ..learner.clone() };
    for (members, rests) in [(voter, false), (changing, false), (Members::default(), false), (learner, true)] {
        peers.set_members(members.clone());
        peer.append_entries(append_of(vec![]), option()).await.unwrap();
        assert!(!peer.rests(), "a heartbeat is no work: {members:?}");
        peer.append_entries(append_of(vec![entry(3)]), option()).await.unwrap();
        assert_eq!(peer.rests(), rests, "{members:?}");
        peer.append_entries(append_of(vec![]), option()).await.unwrap();
        assert_eq!(peer.rests(), rests, "a heartbeat neither waits nor ends it: {members:?}");
    }
}

/// openraft goes on with the connection that it has made.
#[tokio::test]
async fn a_member_that_moved_is_reached_where_it_is_now() {
    let node = FakeNode::second().await;
    let (listener, nobody) = bind().await;
    drop(listener);
    let peers = peers(first());
    let before = Member { peer_address: nobody, ..node.member() };
    let mut peer = PeerNetwork::<Scripted>::new(&Environment::real(), peers.clone()).new_client(2, &before).await;
    unreachable_says(&peer.append_entries(append_of(vec![]), option()).await.unwrap_err(), "refused");
    // Another directory is another node, wherever it is.
    peers.set_members(voters([(2, Member { directory: 0xDD, ..node.member() })]));
    unreachable_says(&peer.append_entries(append_of(vec![]), option()).await.unwrap_err(), "refused");
    peers.set_members(voters([(2, node.member())]));
    peer.append_entries(append_of(vec![]), option()).await.unwrap();
}

#[tokio::test]
async fn a_node_that_never_answers_times_out() {
    // The listener takes connections (the kernel does), and nobody serves them.
    let (_listener, address) = bind().await;
    let member = Member { peer_address: address, client_address: String::new(), directory: 0xD2 };
    let mut peer = factory(first()).new_client(2, &member).await;
    let short = RPCOption::new(Duration::from_millis(40));
    let error = peer.append_entries(append_of(vec![]), short.clone()).await.unwrap_err();
    assert!(matches!(error, RPCError::Timeout(_)), "{error}");
    let ballot = Ballot { vote: vote(), last_log_id: None, leadership_transfer: false };
    assert!(matches!(peer.pre_vote(ballot, short).await.unwrap_err(), RPCError::Timeout(_)));
}

fn meta() -> SnapshotMeta {
    let members = BTreeMap::from([(1, Member::default()), (2, Member::default())]);
    let membership = Membership::new(vec![BTreeSet::from([1, 2])], members).unwrap();
    SnapshotMeta { last_log_id: at(9), last_membership: StoredMembership::new(at(1), membership) }
}

async fn send(
    node: &FakeNode,
    script: Vec<Script>,
    option: RPCOption,
) -> Result<Installed, StreamingError<TypeConfig>> {
    let mut peer = connect(node).await;
    let snapshot = Snapshot { meta: meta(), snapshot: Scripted(script) };
    peer.full_snapshot(vote(), snapshot, std::future::pending(), option).await
}

fn chunk(text: &'static str) -> Script {
    Script::Chunk(Bytes::from_static(text.as_bytes()))
}

async fn nothing_left(node: &FakeNode) {
    node.raft.receiver.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
    assert!(node.raft.installed.lock().unwrap().is_empty());
}

/// Tries until the place is free: the worker gives it back a moment after its answer.
async fn send_whole(node: &FakeNode) {
    loop {
        match send(node, vec![chunk("whole "), chunk("END")], option()).await {
            Ok(installed) => return assert_eq!(installed, Installed { vote: vote() }),
            Err(error) => assert!(error.to_string().contains("another snapshot is being received"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_snapshot_arrives_whole() {
    let node = FakeNode::second().await;
    let large = Bytes::from(vec![5; 3 * limits::SNAPSHOT_CHUNK_BYTES + 17]);
    let script = vec![chunk(""), Script::Chunk(large.clone()), chunk("END")];
    let answer = send(&node, script, option()).await.unwrap();
    assert_eq!(answer, Installed { vote: vote() });
    let installed = node.raft.installed.lock().unwrap().clone();
    assert_eq!(installed.len(), 1);
    assert_eq!(installed[0].0, meta());
    assert_eq!(installed[0].1, [&large[..], b"END"].concat());
}

#[tokio::test]
async fn a_fault_of_the_sender_leaves_nothing_behind() {
    let node = FakeNode::second().await;
    let error = send(&node, vec![chunk("some"), Script::Fault, chunk("END")], option()).await.unwrap_err();
    assert!(matches!(error, StreamingError::StorageError(_)), "{error}");
    assert!(error.to_string().contains("run-7"), "{error}");
    nothing_left(&node).await;
    send_whole(&node).await;
}

#[tokio::test]
async fn damage_and_cuts_are_refused() {
    let node = FakeNode::second().await;
    for (script, expected) in [
        (vec![chunk("some"), chunk("bad"), chunk("more"), chunk("END")], "chunk 3 is damaged"),
        (vec![chunk("some"), chunk("more")], "the trailer is missing"),
    ] {
        let error = loop {
            match send(&node, script_again(&script), option()).await.unwrap_err() {
                error if error.to_string().contains("another snapshot") => {}
                error => break error,
            }
        };
        assert!(matches!(error, StreamingError::Unreachable(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        nothing_left(&node).await;
    }
    send_whole(&node).await;
}

fn script_again(script: &[Script]) -> Vec<Script> {
    let again = script.iter().map(|step| match step {
        Script::Chunk(bytes) => Script::Chunk(bytes.clone()),
        Script::Fault | Script::Wait(_) => panic!("only chunks can be sent again"),
    });
    again.collect()
}

#[tokio::test]
async fn a_stream_that_breaks_in_the_middle_leaves_nothing_behind() {
    let node = Arc::new(FakeNode::second().await);
    let mut bytes = node.raft.receiver.bytes.subscribe();
    let (_gate, wait) = mpsc::channel();
    let sending = tokio::spawn({
        let node = node.clone();
        async move { send(&node, vec![chunk("some"), Script::Wait(wait), chunk("END")], option()).await }
    });
    bytes.wait_for(|bytes| *bytes == 4).await.unwrap();

    // Meanwhile no other gets in.
    let error = send(&node, vec![chunk("END")], option()).await.unwrap_err();
    assert!(error.to_string().contains("another snapshot is being received"), "{error}");
    assert_eq!(*node.raft.receiver.open.borrow(), 1);

    sending.abort();
    nothing_left(&node).await;
    send_whole(&node).await;
}

#[tokio::test]
async fn a_snapshot_can_be_called_off() {
    let node = FakeNode::second().await;
    let mut bytes = node.raft.receiver.bytes.subscribe();
    let (_gate, wait) = mpsc::channel();
    let mut peer = connect(&node).await;
    let snapshot = Snapshot { meta: meta(), snapshot: Scripted(vec![chunk("some"), Script::Wait(wait), chunk("END")]) };
    let cancel = async move {
        bytes.wait_for(|bytes| *bytes == 4).await.unwrap();
        ReplicationClosed::new("no leader any more")
    };
    let error = peer.full_snapshot(vote(), snapshot, cancel, option()).await.unwrap_err();
    assert!(matches!(error, StreamingError::Closed(_)), "{error}");
    nothing_left(&node).await;
    send_whole(&node).await;
}

#[tokio::test]
async fn a_receiver_that_hangs_is_given_up() {
    let node = FakeNode::second().await;
    let (release, hold) = mpsc::channel();
    *node.raft.receiver.hold.lock().unwrap() = Some(hold);
    let short = RPCOption::new(Duration::from_millis(100));
    let error = send(&node, vec![chunk("some"), chunk("END")], short).await.unwrap_err();
    assert!(matches!(error, StreamingError::Timeout(_)), "{error}");
    // All of it was sent, so if the hanging ends before the reset has come, it may even be installed.
    drop(release);
    node.raft.receiver.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
}
