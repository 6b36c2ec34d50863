//! Transactions that read, decide and write.

use std::sync::atomic::{AtomicU32, Ordering};

use meshstore::{
    Client, Error,
    client::{Message, MessageFilter, OpenTransaction},
};
use serde_json::json;

use super::unique;

fn message(id: &str, from: &str, timestamp: i64) -> Message {
    Message { id: id.into(), from: from.into(), to: "b".into(), content: "hello".into(), timestamp, large: None }
}

fn is_conflict<T>(answer: Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Conflict(_)))
}

/// Also at the revision of a store in which nothing was ever written. Found by the simulation (seed 200106).
pub async fn the_first_read_decides_what_it_sees(client: &Client) {
    let name = unique("first");
    let open = client.begin();
    assert_eq!(open.get_state(&name).await.unwrap(), None);
    client.routes().save(&name, &7).await.unwrap();
    client.messages().store(message(&name, &name, 5)).await.unwrap();
    assert_eq!(open.get_route(&name).await.unwrap(), None);
    assert_eq!(open.list_routes(&name).await.unwrap().len(), 0);
    let of = MessageFilter { from: Some(name.clone()), ..MessageFilter::default() };
    assert_eq!(open.list_messages(&of).await.unwrap(), []);
    open.put_state(&name, "1").unwrap();
    assert!(is_conflict(open.commit().await));
}

/// What it has written it reads, before anybody else does; and all of it is there at one revision afterwards.
pub async fn a_transaction_reads_its_own_writes(client: &Client) {
    let (name, gone) = (unique("own"), unique("gone"));
    client.state().put(&gone, "x").await.unwrap();
    let open = client.begin();
    open.put_state(&name, "1").unwrap();
    open.save_node_state(&name, &json!({ "up": true })).unwrap();
    open.save_route(&name, &7).unwrap();
    open.save_config(&name, "text").unwrap();
    open.store_message(message(&name, &name, 5)).unwrap();
    assert!(open.delete_state(&gone).await.unwrap());
    assert!(!open.delete_state(&gone).await.unwrap());

    assert_eq!(open.get_state(&name).await.unwrap().unwrap(), "1");
    assert_eq!(open.get_state(&gone).await.unwrap(), None);
    assert_eq!(open.get_node_state(&name).await.unwrap().unwrap().raw(), r#"{"up":true}"#);
    assert_eq!(open.get_route(&name).await.unwrap().unwrap().raw(), "7");
    assert_eq!(open.get_config(&name).await.unwrap().unwrap().raw(), "\"text\"");
    assert_eq!(open.get_message(&name).await.unwrap().unwrap().timestamp, 5);
    assert_eq!(client.state().list_all(&name).await.unwrap(), [], "nobody else sees it yet");

    let revision = open.commit().await.unwrap();
    assert_eq!(client.state().get(&name).await.unwrap().mod_revision, revision);
    assert_eq!(client.node_state().get(&name).await.unwrap().mod_revision, revision);
    assert_eq!(client.routes().get(&name).await.unwrap().mod_revision, revision);
    assert_eq!(client.config().get(&name).await.unwrap().mod_revision, revision);
    assert_eq!(client.messages().get(&name).await.unwrap().mod_revision, revision);
    assert!(matches!(client.state().get(&gone).await, Err(Error::NotFound { .. })));
}

/// Lists show what is stored with what the transaction has written over it.
pub async fn lists_show_what_was_written(client: &Client) {
    let prefix = unique("list/");
    let key = |n: u32| format!("{prefix}{n}");
    for n in [1, 2, 3] {
        client.state().put(&key(n), n.to_string()).await.unwrap();
        client.routes().save(&key(n), &n).await.unwrap();
        client.config().save(&key(n), &n).await.unwrap();
        client.messages().store(message(&key(n), &prefix, i64::from(n))).await.unwrap();
    }
    let open = client.begin();
    let filter = MessageFilter { from: Some(prefix.clone()), since: Some(2), ..MessageFilter::default() };
    open.put_state(&key(2), "two").unwrap();
    open.put_state(&key(9), "9").unwrap();
    assert!(open.delete_state(&key(3)).await.unwrap());
    assert!(open.delete_route(&key(1)).await.unwrap());
    assert!(open.delete_config(&key(1)).await.unwrap());
    open.save_config(&key(0), &0).unwrap();
    open.store_message(message(&key(1), &prefix, 7)).unwrap();
    assert!(open.delete_message(&key(2)).await.unwrap());

    let values: Vec<_> = open.list_state(&prefix).await.unwrap();
    assert_eq!(values, [(key(1), "1".into()), (key(2), "two".into()), (key(9), "9".into())]);
    let routes = open.list_routes(&prefix).await.unwrap();
    assert_eq!(routes.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key(2), key(3)]);
    assert_eq!(open.list_config_keys(&prefix).await.unwrap(), [key(0), key(2), key(3)]);
    let ids: Vec<_> = open.list_messages(&filter).await.unwrap().into_iter().map(|message| message.id).collect();
    assert_eq!(ids, [key(3), key(1)]);
    open.rollback();
    assert_eq!(client.state().list_all(&prefix).await.unwrap().len(), 3);
}

/// All reads show one revision, whatever others write meanwhile.
pub async fn reads_show_one_revision(client: &Client) {
    let (a, b, never) = (unique("a"), unique("b"), unique("never"));
    client.state().put(&a, "1").await.unwrap();
    client.state().put(&b, "1").await.unwrap();
    let (found, missed) = (client.begin(), client.begin());
    assert_eq!(found.get_state(&a).await.unwrap().unwrap(), "1");
    assert_eq!(missed.get_state(&never).await.unwrap(), None, "of this revision, too");
    client.state().put(&a, "2").await.unwrap();
    client.state().put(&b, "2").await.unwrap();
    client.state().put(&never, "2").await.unwrap();
    for open in [found, missed] {
        assert_eq!(open.get_state(&b).await.unwrap().unwrap(), "1");
        assert_eq!(open.get_state(&never).await.unwrap(), None);
        assert_eq!(open.list_state(&a).await.unwrap(), [(a.clone(), "1".into())]);
        // One that only reads has happened at the revision that it read.
        let revision = open.commit().await.unwrap();
        assert!(revision > 0 && revision < client.state().get(&a).await.unwrap().mod_revision);
    }
}

/// What was read must be as it was read: no lost update, no write skew, no phantom.
pub async fn what_others_changed_is_a_conflict(client: &Client) {
    let name = unique("race");
    let (x, y) = (format!("{name}/x"), format!("{name}/y"));
    let messages = MessageFilter { to: Some(name.clone()), ..MessageFilter::default() };
    client.state().put(&x, "0").await.unwrap();
    client.state().put(&y, "0").await.unwrap();
    let begin = async || {
        let open = client.begin();
        open.put_state(&unique("target"), "written").unwrap();
        open
    };

    let open = begin().await;
    open.get_state(&x).await.unwrap();
    client.state().put(&x, "1").await.unwrap();
    assert!(is_conflict(open.commit().await), "a lost update");

    let (left, right) = (client.begin(), client.begin());
    for open in [&left, &right] {
        open.get_state(&x).await.unwrap();
        open.get_state(&y).await.unwrap();
    }
    left.put_state(&x, "2").unwrap();
    right.put_state(&y, "2").unwrap();
    left.commit().await.unwrap();
    assert!(is_conflict(right.commit().await), "write skew");

    let open = begin().await;
    assert_eq!(open.list_state(&name).await.unwrap().len(), 2);
    client.state().put(&format!("{name}/z"), "phantom").await.unwrap();
    assert!(is_conflict(open.commit().await), "a phantom");

    let open = begin().await;
    assert_eq!(open.list_state(&name).await.unwrap().len(), 3);
    client.state().delete(&y).await.unwrap();
    assert!(is_conflict(open.commit().await), "a phantom that goes");

    let open = begin().await;
    assert_eq!(open.list_messages(&messages).await.unwrap(), []);
    client.messages().store(Message { to: name.clone(), ..message(&name, "a", 1) }).await.unwrap();
    assert!(is_conflict(open.commit().await), "a message that was not there");

    let open = begin().await;
    assert_eq!(open.get_state(&format!("{name}/new")).await.unwrap(), None);
    client.state().put(&format!("{name}/new"), "").await.unwrap();
    assert!(is_conflict(open.commit().await), "a record that was not there");

    let open = begin().await;
    open.get_state(&x).await.unwrap();
    open.list_routes(&name).await.unwrap();
    client.config().save(&name, &1).await.unwrap();
    open.commit().await.expect("others changed something else");
}

/// Dropped, rolled back or refused, it has changed nothing; and an ended one says so.
pub async fn one_that_does_not_commit_changes_nothing(client: &Client) {
    let key = unique("undone");
    let open = client.begin();
    open.put_state(&key, "1").unwrap();
    drop(open);
    let open = client.begin();
    open.put_state(&key, "2").unwrap();
    let same = open.clone();
    open.rollback();
    for ended in [same.put_state(&key, "3"), same.get_state(&key).await.map(drop), same.commit().await.map(drop)] {
        assert!(matches!(ended, Err(Error::Refused(reason)) if reason.contains("begin another")));
    }
    let open = client.begin();
    open.put_state(&key, "4").unwrap();
    open.put_state("", "5").unwrap();
    assert!(matches!(open.commit().await, Err(Error::InvalidArgument { .. })));
    let failed: Result<(), Error> = client
        .transact(|open: OpenTransaction| {
            let key = key.clone();
            async move {
                open.put_state(&key, "6")?;
                Err(Error::Refused("I changed my mind".into()))
            }
        })
        .await;
    assert_eq!(failed, Err(Error::Refused("I changed my mind".into())));
    assert!(matches!(client.state().get(&key).await, Err(Error::NotFound { .. })));
}

/// A lost race is run again, so that of many increments none is lost.
pub async fn a_lost_race_is_run_again(client: &Client) {
    let key = unique("counter");
    let runs = AtomicU32::new(0);
    let increments = (0..8).map(|_| {
        client.transact(|open| {
            let (key, runs) = (&key, &runs);
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                let value = match open.get_config(key).await? {
                    Some(value) => value.parse::<u32>()? + 1,
                    None => 1,
                };
                open.save_config(key, &value)?;
                Ok(value)
            }
        })
    });
    let mut values: Vec<u32> =
        futures_util::future::join_all(increments).await.into_iter().map(Result::unwrap).collect();
    values.sort_unstable();
    assert_eq!(values, (1..=8).collect::<Vec<_>>());
    assert!(runs.load(Ordering::Relaxed) >= 8);
}
