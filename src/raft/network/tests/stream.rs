//! Several appends under way, in a stream.

use futures_util::{StreamExt, stream};
use openraft::raft::StreamAppendError;

use super::*;

fn appends(indexes: std::ops::Range<u64>) -> impl stream::Stream<Item = Append> + Send + Unpin + 'static {
    let append = |index: u64| Append { prev_log_id: at(index - 1), ..append_of(vec![entry(index)]) };
    stream::iter(indexes).map(append)
}

#[tokio::test]
async fn some_are_under_way_at_once_and_all_are_answered_in_order() {
    let node = FakeNode::second().await;
    let mut peer = connect(&node).await;
    node.raft.released.send_replace(0);
    let answers = peer.stream_append(appends(3..9), option()).await.unwrap();
    node.raft.taken.subscribe().wait_for(|taken| *taken == 4).await.unwrap();
    assert_eq!(node.raft.seen().len(), 4, "and none is answered so far");
    node.raft.released.send_replace(usize::MAX);
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().unwrap()).collect().await;
    assert_eq!(answers, (3..9).map(at).collect::<Vec<_>>());
    let expected = (3..9).map(|index| {
        let append = Append { prev_log_id: at(index - 1), ..append_of(vec![entry(index)]) };
        format!("append {append}")
    });
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
    let unknown = peer.stream_append(appends(3..5), option()).await;
    unreachable_says(&unknown.err().unwrap(), "Unimplemented");
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
        let mut taken = node.raft.taken.subscribe();
        assert_eq!(*taken.wait_for(|taken| *taken >= number).await.unwrap(), number);
        node.raft.released.send_replace(number);
        assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), at(number as u64 + 2));
    }
}
