//! Several appends under way, in a stream.

use std::{
    pin::Pin,
    sync::atomic::AtomicBool,
    task::{Context, Poll},
};

use futures_util::{FutureExt, StreamExt, stream};
use openraft::raft::StreamAppendError;
use tokio::sync::{mpsc, oneshot};

use super::*;

fn appends(indexes: std::ops::Range<u64>) -> impl stream::Stream<Item = Append> + Send + Unpin + 'static {
    stream::iter(indexes).map(append_at)
}

/// An append of the one entry at an index.
fn append_at(index: u64) -> Append {
    Append { prev_log_id: at(index - 1), ..append_of(vec![entry(index)]) }
}

/// Waits until the node has so many appends, of which it has answered none.
async fn all_taken(node: &FakeNode, answers: &mut (impl stream::Stream<Item: std::fmt::Debug> + Unpin), count: usize) {
    let mut taken = node.raft.taken.subscribe();
    tokio::select! {
        answer = answers.next() => panic!("nothing is to be answered: {answer:?}"),
        taken = taken.wait_for(|taken| *taken == count) => drop(taken.unwrap()),
    }
}

#[tokio::test]
async fn some_are_under_way_at_once_and_all_are_answered_in_order() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    node.raft.released.send_replace(0);
    let mut answers = peer.stream_append(appends(3..9), option()).await.unwrap();
    all_taken(&node, &mut answers, 4).await;
    assert_eq!(node.raft.seen().len(), 4, "and none is answered so far");
    node.raft.released.send_replace(usize::MAX);
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().unwrap()).collect().await;
    assert_eq!(answers, (3..9).map(at).collect::<Vec<_>>());
    let expected = (3..9).map(|index| format!("append {}", append_at(index)));
    assert_eq!(node.raft.seen(), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_follows_what_was_not_taken() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    let differs = Append { prev_log_id: None, ..append_of(vec![entry(1)]) };
    let answers = peer.stream_append(stream::iter([differs.clone()]), option()).await.unwrap();
    let answers: Vec<_> = answers.collect().await;
    unreachable_says(answers[0].as_ref().unwrap_err(), "differs where there is none");
    assert_eq!(answers.len(), 1);

    // What was taken before the node stopped is answered, and then that it has stopped.
    node.raft.stopped.store(true, Ordering::SeqCst);
    let answers: Vec<_> = peer.stream_append(appends(3..5), option()).await.unwrap().collect().await;
    unreachable_says(answers[0].as_ref().unwrap_err(), "node 2 has stopped");
    assert_eq!(answers.len(), 1);
    node.raft.stopped.store(false, Ordering::SeqCst);
    let answers: Vec<_> = peer.stream_append(appends(3..5), option()).await.unwrap().collect().await;
    assert_eq!(answers.len(), 2);
}

#[tokio::test]
async fn a_conflict_names_the_entry_before() {
    let node = FakeNode::second().await;
    node.raft.differs.store(true, Ordering::SeqCst);
    let mut peer = connect(&node).await;
    let answers: Vec<_> = peer.stream_append(appends(3..9), option()).await.unwrap().collect().await;
    let Ok(Err(StreamAppendError::Conflict(conflict))) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!((Some(*conflict), answers.len()), (at(2), 1));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    node.raft.released.send_replace(1);
    let soon = RPCOption::new(Duration::from_millis(10));
    let mut answers = peer.stream_append(appends(3..5), soon).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(3));
    assert!(matches!(answers.next().await, Some(Err(RPCError::Timeout(_)))));
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_node_that_knows_no_streams_is_sent_one_at_a_time() {
    let node = FakeNode::second().await;
    let (listener, address) = bind().await;
    let older =
        crate::raft::peer::testing::serve(tonic::transport::Server::builder().add_routes(Default::default()), listener);
    let peers = peers(first());
    let older_member = Member { peer_address: address, ..node.member() };
    let mut peer = PeerNetwork::<Scripted>::new(&Environment::real(), peers.clone()).new_client(2, &older_member).await;
    let unknown: Vec<_> = peer.stream_append(appends(3..5), option()).await.unwrap().collect().await;
    unreachable_says(unknown[0].as_ref().unwrap_err(), "one append at a time");
    assert_eq!(unknown.len(), 1);
    drop(older);
    peers.set_members(voters([(2, node.member())]));
    let answers: Vec<_> = peer.stream_append(appends(3..5), option()).await.unwrap().collect().await;
    assert_eq!((answers.len(), node.raft.seen().len()), (2, 2));
    assert_eq!(*node.raft.taken.borrow(), 0, "none came in a stream");
}

#[tokio::test]
async fn to_a_learner_one_is_under_way() {
    let node = FakeNode::second().await;
    let peers = peers(first());
    let mut peer =
        PeerNetwork::<Scripted>::new(&Environment::real(), peers.clone()).new_client(2, &node.member()).await;
    peers.set_members(Members { voters: [1].into(), ..voters([(2, node.member())]) });
    node.raft.released.send_replace(0);
    let mut answers = peer.stream_append(appends(3..6), option()).await.unwrap();
    for number in 1..4 {
        all_taken(&node, &mut answers, number).await;
        node.raft.released.send_replace(number);
        assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(number as u64 + 2));
    }
}

/// openraft waits after a failure before it gives the next append: whoever opened a connection before would open many.
#[tokio::test]
async fn nobody_is_called_before_there_is_something_to_say() {
    let node = FakeNode::second().await;
    let (listener, nobody) = bind().await;
    drop(listener);
    let mut peer = factory(first()).new_client(2, &Member { peer_address: nobody, ..node.member() }).await;
    let mut answers = peer.stream_append(stream::pending(), option()).await.unwrap();
    assert!(answers.next().now_or_never().is_none());
    drop(answers);
    let answers: Vec<_> = peer.stream_append(appends(3..5), option()).await.unwrap().collect().await;
    unreachable_says(answers[0].as_ref().unwrap_err(), "refused");
    assert_eq!(answers.len(), 1);
    let none = peer.stream_append(appends(3..3), option()).await.unwrap();
    assert_eq!(none.count().await, 0);
}

/// Appends that are given one by one, and a note of when they are asked for.
struct Given {
    given: mpsc::UnboundedReceiver<Append>,
    /// While it is set nobody may ask.
    closed: Arc<AtomicBool>,
    asked_while_closed: Arc<AtomicBool>,
    _until: oneshot::Sender<()>,
}

impl stream::Stream for Given {
    type Item = Append;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Append>> {
        if self.closed.load(Ordering::SeqCst) {
            self.asked_while_closed.store(true, Ordering::SeqCst);
        }
        self.given.poll_recv(cx)
    }
}

fn given() -> (mpsc::UnboundedSender<Append>, Given, oneshot::Receiver<()>) {
    let ((give, given), (until, dropped)) = (mpsc::unbounded_channel(), oneshot::channel());
    (give, Given { given, closed: Arc::default(), asked_while_closed: Arc::default(), _until: until }, dropped)
}

/// openraft takes an answer to an append for one to every append that was made before and ends alike, also to one that the
/// follower has not seen. From what it was sent last it concludes when the leader still had a quorum.
#[tokio::test]
async fn an_answer_is_kept_back_while_an_append_that_ends_alike_is_under_way() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    node.raft.released.send_replace(0);
    let (give, input, _) = given();
    let mut answers = peer.stream_append(input, option()).await.unwrap();
    give.send(append_of(vec![entry(3)])).unwrap();
    // Only the commit has changed.
    give.send(Append { prev_log_id: at(3), ..append_of(vec![]) }).unwrap();
    give.send(append_at(4)).unwrap();
    all_taken(&node, &mut answers, 3).await;
    node.raft.released.send_replace(1);
    let early = tokio::time::timeout(Duration::from_millis(50), answers.next()).await;
    assert!(early.is_err(), "the second ends alike: {early:?}");
    node.raft.released.send_replace(2);
    assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(3));
    node.raft.released.send_replace(3);
    assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_append_is_made_before_openraft_has_looked_at_an_answer() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    let (give, input, _) = given();
    let (closed, asked_while_closed) = (input.closed.clone(), input.asked_while_closed.clone());
    let mut answers = peer.stream_append(input, option()).await.unwrap();
    for index in 3..200 {
        give.send(append_at(index)).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(index));
        closed.store(true, Ordering::SeqCst);
        give.send(Append { prev_log_id: at(index), ..append_of(vec![]) }).unwrap();
        tokio::task::yield_now().await;
        closed.store(false, Ordering::SeqCst);
        assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(index));
    }
    assert!(!asked_while_closed.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_is_sent_ends_with_the_answers() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    node.raft.released.send_replace(0);
    let (give, input, dropped) = given();
    for index in 3..20 {
        give.send(append_at(index)).unwrap();
    }
    let soon = RPCOption::new(Duration::from_millis(10));
    let mut answers = peer.stream_append(input, soon).await.unwrap();
    assert!(matches!(answers.next().await, Some(Err(RPCError::Timeout(_)))), "with a full window");
    drop(answers);
    assert!(dropped.await.is_err(), "nobody asks for more");
}

/// A stream of which one append is answered, and what gives it more.
async fn begun(
    peer: &mut PeerConnection<Scripted>,
) -> (mpsc::UnboundedSender<Append>, super::super::pipeline::Answers<'_>) {
    let (give, input, _) = given();
    let mut answers = peer.stream_append(input, option()).await.unwrap();
    give.send(append_at(3)).unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(3));
    (give, answers)
}

#[tokio::test]
async fn a_listener_that_closes_ends_the_stream() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    let (_give, mut answers) = begun(&mut peer).await;
    node.raft.closed.send_replace(true);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn who_is_removed_meanwhile_is_refused() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    let (give, mut answers) = begun(&mut peer).await;
    node.standing.removed.lock().unwrap().insert(1, 0xD1);
    give.send(append_at(4)).unwrap();
    unreachable_says(&answers.next().await.unwrap().unwrap_err(), "its id is retired");
}
