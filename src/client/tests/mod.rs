//! What the client does about leaders, lost answers, deadlines and sessions, against scripted nodes.

mod network;
mod streams;

use std::time::Duration;

use network::{Act, Network};
use tokio::time::Instant;

use super::{Client, ReadMode};
use crate::Error;

fn unavailable(leader: Option<&str>) -> Act {
    Act::Tell(Error::Unavailable { reason: "not the leader".into(), leader: leader.map(Into::into) })
}

async fn put(client: &Client) -> crate::Result<u64> {
    client.state().put("key", "value").await.map(|written| written.revision)
}

#[tokio::test(start_paused = true)]
async fn all_calls_can_be_spawned() {
    fn is_send(_: &impl Send) {}
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    is_send(&client.messages().list_all(super::MessageFilter::default()));
    is_send(&client.state().put("key", "value"));
    is_send(&client.messages().store_large(super::Message::default()));
    is_send(&client.messages().get_large("id"));
    is_send(&client.routes().save("there", &1));
    is_send(&client.cluster().status_of_all(true));
    let shared: Box<dyn Fn() + Send + Sync> = Box::new(move || drop(client.clone()));
    shared();
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_found_at_the_start_and_followed_by_its_successor_s_hint() {
    let network = Network::with(3, 2);
    let client = network.client(&[1]).connect().await.unwrap();
    put(&client).await.unwrap();
    network.0.lock().unwrap().leader = 3;
    network.script(2, [unavailable(Some("node3:7401"))]);
    put(&client).await.unwrap();
    put(&client).await.unwrap();
    let seen: Vec<_> = network.asked().iter().map(|asked| (asked.node, asked.what)).collect();
    assert_eq!(seen, [(2, "open"), (2, "put"), (2, "put"), (3, "put"), (3, "put")]);
}

#[tokio::test(start_paused = true)]
async fn a_lazy_client_learns_the_leader_from_the_first_answer() {
    let network = Network::with(3, 2);
    let client = network.client(&[1]).connect_lazy().unwrap();
    put(&client).await.unwrap();
    while client.shared.endpoints.leader().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    put(&client).await.unwrap();
    let last = network.attempts().pop().unwrap();
    assert_eq!(last.0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_with_the_same_sequence() {
    let network = Network::with(3, 1);
    let client = network.client(&[1, 2, 3]).connect().await.unwrap();
    network.script(1, [Act::Answer(5), Act::Break, Act::Hang]);
    network.script(2, [Act::Break]);
    network.script(3, [Act::Break]);
    assert_eq!(put(&client).await, Ok(5));
    put(&client).await.unwrap();
    let attempts = network.attempts();
    assert_eq!(attempts[0], (1, 100, 1, 1, 1));
    assert!(attempts.len() > 4);
    for (number, attempt) in attempts[1..].iter().enumerate() {
        let (_, session, sequence, count, answered_below) = *attempt;
        assert_eq!((session, sequence, count, answered_below), (100, 2, number as u32 + 1, 2));
    }
    assert_eq!(network.0.lock().unwrap().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_message_is_sent_again_wholly_with_the_same_sequence() {
    let network = Network::with(2, 1);
    let client = network.client(&[1, 2]).connect().await.unwrap();
    network.script(1, [unavailable(None), Act::Break, Act::Hang]);
    network.script(2, [unavailable(None), Act::Hang, Act::Break]);
    // The nodes count the chunks.
    let message = super::Message { content: vec![7; 3 << 20].into(), ..Default::default() };
    let client = client.with_deadline(Duration::from_secs(60));
    client.messages().store_large(message).await.unwrap();
    let attempts = network.attempts();
    assert!(attempts.len() > 3, "{attempts:?}");
    for (number, (_, session, sequence, count, answered_below)) in attempts.into_iter().enumerate() {
        assert_eq!((session, sequence, count, answered_below), (100, 1, number as u32 + 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_replaced_if_nothing_can_have_happened() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    put(&client).await.unwrap();
    network.0.lock().unwrap().expired.push(100);
    assert_eq!(put(&client).await, Ok(1));
    assert_eq!(network.attempts(), [(1, 100, 1, 1, 1), (1, 100, 2, 1, 2), (1, 200, 1, 1, 1)]);
    // Neither does a refusal before it stand in the way.
    network.script(1, [unavailable(None)]);
    let expire = tokio::spawn({
        let network = network.clone();
        async move {
            while network.attempts().len() < 4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            network.0.lock().unwrap().expired.push(200);
        }
    });
    assert_eq!(put(&client).await, Ok(1));
    expire.await.unwrap();
    assert_eq!(network.attempts()[3..], [(1, 200, 2, 1, 2), (1, 200, 2, 2, 2), (1, 300, 1, 1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_after_a_lost_answer_is_the_caller_s_to_judge() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    put(&client).await.unwrap();
    network.script(1, [Act::Hang]);
    let call = tokio::spawn({
        let client = client.clone();
        async move { put(&client).await }
    });
    while network.attempts().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    network.0.lock().unwrap().expired.push(100);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error, Error::SessionExpired { session: 100 });
    assert!(error.may_have_applied());
    assert_eq!(network.attempts().len(), 3, "not executed again");
    assert_eq!(put(&client).await, Ok(1), "the next write has a new session");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_and_says_what_may_have_happened() {
    let network = Network::with(2, 1);
    let deadline = Duration::from_secs(3);
    let client = network.client(&[1, 2]).deadline(deadline).connect().await.unwrap();
    put(&client).await.unwrap();
    for (act, may_have_applied) in
        [(|| Act::Hang) as fn() -> Act, || Act::Break, || unavailable(None)].into_iter().zip([true, true, false])
    {
        for node in [1, 2] {
            network.0.lock().unwrap().scripts.remove(&node);
            network.script(node, std::iter::repeat_with(act).take(1_000));
        }
        let began = Instant::now();
        let error = put(&client).await.unwrap_err();
        assert!(began.elapsed() >= deadline && began.elapsed() < deadline + Duration::from_millis(100));
        assert!(matches!(error, Error::DeadlineExceeded { deadline_ms: 3_000, .. }), "{error}");
        assert_eq!(error.may_have_applied(), may_have_applied, "{error}");
        let error = client.state().get("key").await.unwrap_err();
        assert!(!error.may_have_applied(), "a read changes nothing: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_tells_the_node_how_long_it_will_wait() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).deadline(Duration::from_secs(5)).connect().await.unwrap();
    client.state().get("key").await.unwrap();
    assert_eq!(network.0.lock().unwrap().timeout.as_deref(), Some("1000000u"), "a fifth, for the first attempt");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_leader_does_not_use_up_the_call() {
    let network = Network::with(3, 1);
    let client = network.client(&[1, 2, 3]).connect().await.unwrap();
    put(&client).await.unwrap();
    network.script(1, [Act::Hang]);
    put(&client).await.unwrap();
    let nodes: Vec<_> = network.attempts().iter().map(|attempt| attempt.0).collect();
    assert_eq!(nodes[..2], [1, 1]);
    assert_ne!(nodes[2], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finishes_nothing_is_not_asked_for_ever() {
    let network = Network::with(3, 1);
    let client = network.client(&[1, 2, 3]).connect().await.unwrap();
    put(&client).await.unwrap();
    let late = || Error::DeadlineExceeded { deadline_ms: 1, waiting_for: "a quorum".into(), may_have_applied: true };
    network.script(1, std::iter::repeat_with(|| Act::Tell(late())).take(100));
    put(&client).await.unwrap();
    let attempts = network.attempts();
    assert_eq!(attempts.len(), 3);
    assert_ne!(attempts[2].0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_node_is_given_the_time_that_it_asks_for() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    let busy = |retry_after_ms| Act::Tell(Error::ResourceExhausted { reason: "queue".into(), retry_after_ms });
    network.script(1, [busy(700)]);
    let began = Instant::now();
    put(&client).await.unwrap();
    assert!((700..1_500).contains(&began.elapsed().as_millis()));
    network.script(1, [busy(u64::MAX)]);
    assert!(matches!(put(&client).await, Err(Error::ResourceExhausted { .. })), "nothing comes of waiting so long");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_its_sequence_behind() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    put(&client).await.unwrap();
    network.script(1, [Act::Hang]);
    tokio::time::timeout(Duration::from_millis(100), put(&client)).await.unwrap_err();
    put(&client).await.unwrap();
    assert_eq!(network.attempts(), [(1, 100, 1, 1, 1), (1, 100, 2, 1, 2), (1, 100, 3, 1, 3)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_session_an_unknown_outcome_is_the_answer() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).exactly_once(false).connect().await.unwrap();
    network.script(1, [unavailable(None), Act::Break]);
    let error = put(&client).await.unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error}");
    let asked: Vec<_> = network.asked().iter().map(|asked| asked.what).collect();
    assert_eq!(asked, ["put", "put"], "a refusal is retried, a lost answer is not");
}

#[tokio::test(start_paused = true)]
async fn definite_answers_are_not_retried() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    for error in [
        Error::invalid("key", "", "must not be empty"),
        Error::NotFound { kind: "state", name: "key".into() },
        Error::Refused("full".into()),
        Error::PermissionDenied("no".into()),
    ] {
        network.script(1, [Act::Tell(error.clone())]);
        let before = network.asked().len();
        assert_eq!(client.state().get("key").await.unwrap_err(), error);
        assert_eq!(network.asked().len(), before + 1);
    }
    let huge = vec![0; 5 << 20];
    assert!(matches!(client.state().put("key", huge).await, Err(Error::InvalidArgument { .. })));
}

#[tokio::test(start_paused = true)]
async fn stale_reads_go_round_and_a_pinned_one_stays() {
    let network = Network::with(3, 1);
    let client = network.client(&[1, 2, 3]).connect().await.unwrap();
    let read = async |client: &Client| client.state().get("key").await;
    let nodes = || network.asked().iter().map(|asked| asked.node).collect::<Vec<_>>();
    for _ in 0..3 {
        read(&client).await.unwrap();
    }
    assert_eq!(nodes(), [1, 1, 1], "linearizable: the leader");
    let stale = client.clone().with_read(ReadMode::Stale(Duration::from_secs(1)));
    for _ in 0..3 {
        read(&stale).await.unwrap();
    }
    let mut round = nodes()[3..].to_vec();
    round.sort_unstable();
    assert_eq!(round, [1, 2, 3]);
    let pinned = stale.clone().pin("http://node2:7401").unwrap();
    for _ in 0..2 {
        read(&pinned).await.unwrap();
    }
    assert_eq!(nodes()[6..], [2, 2]);
    let old = || Act::Tell(Error::TooStale { age_ms: 5_000, max_age_ms: 1_000 });
    network.script(2, [old()]);
    assert!(matches!(read(&pinned).await, Err(Error::TooStale { .. })));
    (1..=3).for_each(|node| network.script(node, [old()]));
    assert!(matches!(read(&stale).await, Err(Error::TooStale { .. })), "all of them are too old");
    assert!(read(&stale).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_highest_revision_is_remembered_by_all_clones() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    network.script(1, [Act::Answer(7), Act::Answer(5), Act::Answer(9)]);
    put(&client.clone()).await.unwrap();
    put(&client).await.unwrap();
    assert_eq!(client.last_seen_revision(), 7);
    client.clone().state().get("key").await.unwrap();
    assert_eq!(client.last_seen_revision(), 9);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_kept_until_the_last_clone_goes() {
    let network = Network::with(1, 1);
    let ttl = Duration::from_secs(30);
    let client = network.client(&[1]).session_ttl(ttl).connect().await.unwrap();
    put(&client).await.unwrap();
    let kept = || network.asked().iter().filter(|asked| asked.what == "keep").count();
    tokio::time::sleep(3 * ttl).await;
    let count = kept();
    assert!((8..=9).contains(&count), "{count} times in 9 thirds");
    drop(client);
    tokio::time::sleep(3 * ttl).await;
    assert_eq!(kept(), count);
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_is_not_used_again() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    client.close_session().await.unwrap();
    put(&client).await.unwrap();
    client.close_session().await.unwrap();
    put(&client).await.unwrap();
    let asked: Vec<_> = network.asked().iter().map(|asked| asked.what).collect();
    assert_eq!(asked, ["open", "put", "close", "open", "put"]);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_write_holds_back_the_ones_too_far_ahead_of_it() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    put(&client).await.unwrap();
    network.script(1, [Act::Hang]);
    let stuck = tokio::spawn({
        let client = client.clone();
        async move { client.with_deadline(Duration::from_secs(5)).state().put("stuck", "").await }
    });
    while network.attempts().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..1_500 {
        let client = client.clone();
        others.spawn(async move { put(&client).await });
    }
    while let Some(done) = others.join_next().await {
        done.unwrap().unwrap();
    }
    stuck.await.unwrap().unwrap();
    let attempts = network.attempts();
    let (mut seen, mut widest) = (std::collections::BTreeSet::new(), 0);
    for (_, _, sequence, _, answered_below) in attempts {
        seen.insert(sequence);
        widest = widest.max(sequence - answered_below);
    }
    assert_eq!(seen.len(), 1_502);
    assert_eq!(widest, 999, "up to the window, and not beyond");
}

#[tokio::test(start_paused = true)]
async fn a_client_says_who_does_not_answer() {
    let network = Network::with(1, 1);
    network.stop(1);
    let client = network.client(&[1, 2]).deadline(Duration::from_millis(500));
    let error = client.clone().connect().await.unwrap_err().to_string();
    assert!(error.contains("node1:7401") && error.contains("node2:7401"), "{error}");
    network.start(2);
    let all = client.connect().await.unwrap().cluster().status_of_all(false).await;
    let answered: Vec<_> = all.iter().map(|(address, status)| (address.as_str(), status.is_ok())).collect();
    assert_eq!(answered, [("node1:7401", false), ("node2:7401", true)]);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_begun_anew_when_its_revision_is_gone() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    network.script(
        1,
        [
            Act::Answer(1),
            Act::Tell(Error::ViewTooOld { revision: 1, oldest: 2 }),
            Act::Answer(2),
            Act::Answer(1),
            Act::Answer(0),
        ],
    );
    assert_eq!(client.config().list_all_keys("").await.unwrap(), ["key", "key+", "key++"]);
}

#[tokio::test]
async fn settings_are_checked() {
    let field = |builder: super::Builder| match builder.connect_lazy() {
        Err(Error::InvalidArgument { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let good = || Client::builder().endpoints(["a:1"]);
    assert_eq!(field(Client::builder()), "endpoints");
    assert_eq!(field(good().deadline(Duration::ZERO)), "deadline");
    assert_eq!(field(good().deadline(Duration::from_secs(301))), "deadline");
    assert_eq!(field(good().session_ttl(Duration::from_millis(999))), "session_ttl");
    assert_eq!(field(good().connections(0)), "connections");
    assert_eq!(field(good().endpoints(["a:1", "b"])), "endpoint");
}
