//! Calls that share a stream.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    network::{Act, Network},
    put,
};
use crate::Error;

fn streams(network: &Network) -> usize {
    network.0.lock().unwrap().streams
}

#[tokio::test(start_paused = true)]
async fn many_calls_share_one_stream_and_each_has_its_own_answer() {
    let network = Network::with(1, 1);
    network.script(1, (1..=200).map(Act::Answer));
    let client = network.client(&[1]).connect().await.unwrap();
    let mut puts = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        puts.spawn(async move { put(&client).await.unwrap() });
    }
    let mut revisions = puts.join_all().await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=100).collect::<Vec<u64>>());
    // What is refused is refused to one.
    network.script(1, [Act::Tell(Error::Refused("no".into()))]);
    network.0.lock().unwrap().scripts.get_mut(&1).unwrap().rotate_right(1);
    assert_eq!(put(&client).await, Err(Error::Refused("no".into())));
    assert_eq!(put(&client).await, Ok(101));
    assert_eq!(streams(&network), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_long_holds_up_no_other_and_can_be_given_up() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).connect().await.unwrap();
    put(&client).await.unwrap();
    network.script(1, [Act::Hang]);
    let hanging = client.clone();
    let hanging = tokio::spawn(async move { hanging.state().get("key").await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..10 {
        put(&client).await.unwrap();
    }
    hanging.abort();
    put(&client).await.unwrap();
    assert_eq!(streams(&network), 1);
}

#[tokio::test(start_paused = true)]
async fn an_older_node_is_called_the_ordinary_way_and_later_asked_again() {
    let network = Network::with(1, 1);
    network.0.lock().unwrap().old.push(1);
    let client = network.client(&[1]).connect().await.unwrap();
    for _ in 0..10 {
        put(&client).await.unwrap();
    }
    assert_eq!(streams(&network), 1);
    let puts = network.asked().iter().filter(|asked| asked.what == "put").count();
    assert_eq!(puts, 10, "nothing is done twice");
    network.0.lock().unwrap().old.clear();
    tokio::time::sleep(Duration::from_secs(61)).await;
    put(&client).await.unwrap();
    put(&client).await.unwrap();
    assert_eq!(streams(&network), 2, "it was upgraded");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_to_call_alone_opens_no_stream() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).streaming(false).connect().await.unwrap();
    put(&client).await.unwrap();
    assert_eq!(streams(&network), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_finishes_what_came_and_the_next_call_takes_another_stream() {
    let network = Network::with(1, 1);
    let client = network.client(&[1]).exactly_once(false).connect().await.unwrap();
    put(&client).await.unwrap();
    network.script(1, [Act::Hang]);
    let hanging = client.clone();
    let hanging = tokio::spawn(async move { hanging.state().get("key").await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    network.0.lock().unwrap().drains.get(&1).unwrap().send_replace(true);
    tokio::time::sleep(Duration::from_millis(1)).await;
    network.0.lock().unwrap().drains.get(&1).unwrap().send_replace(false);
    // The old stream still waits for its last answer.
    put(&client).await.unwrap();
    assert!(!hanging.is_finished());
    assert_eq!(streams(&network), 2);
}
