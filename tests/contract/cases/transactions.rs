//! Changes of several records together.

use meshstore::{
    Client, Error,
    client::{Change, Condition, Message, MessageFilter, RecordId, Transaction},
};

use super::{invalid_field, unique};

fn state(key: &str) -> RecordId {
    RecordId::State(key.into())
}

/// A change of each kind, at one revision; and their deletion.
pub async fn a_transaction_changes_all_kinds_at_one_revision(client: &Client) {
    let name = unique("all");
    let message = Message {
        id: name.clone(),
        from: name.clone(),
        to: "b".into(),
        content: "hello".into(),
        timestamp: 1,
        large: None,
    };
    let store = Transaction::default()
        .require(state(&name), Condition::Missing)
        .put_state(&name, "s")
        .change(Change::StoreMessage(message.clone()))
        .change(Change::SaveNodeState { node_id: name.clone(), state_json: "1".into() })
        .change(Change::SaveRoute { destination: name.clone(), route_json: "2".into() })
        .change(Change::SaveConfig { key: name.clone(), value_json: "3".into() });
    let done = client.commit(store).await.unwrap();
    assert!(done.succeeded);
    let read = client.state().get(&name).await.unwrap();
    assert_eq!((read.value.as_ref(), read.mod_revision, read.version), (&b"s"[..], done.revision, 1));
    assert_eq!(client.messages().get(&name).await.unwrap().mod_revision, done.revision);
    assert_eq!(client.node_state().get(&name).await.unwrap().mod_revision, done.revision);
    assert_eq!(client.routes().get(&name).await.unwrap().mod_revision, done.revision);
    assert_eq!(client.config().get(&name).await.unwrap().mod_revision, done.revision);
    let from = || MessageFilter { from: Some(name.clone()), ..MessageFilter::default() };
    assert_eq!(client.messages().list_all(from()).await.unwrap()[0].value, message);

    let delete = Transaction::default()
        .require(RecordId::Message(name.clone()), Condition::ModRevision(done.revision))
        .delete(state(&name))
        .delete(RecordId::Message(name.clone()))
        .delete(RecordId::NodeState(name.clone()))
        .delete(RecordId::Route(name.clone()))
        .delete(RecordId::Config(name.clone()));
    assert!(client.commit(delete).await.unwrap().succeeded);
    assert!(matches!(client.state().get(&name).await, Err(Error::NotFound { .. })));
    assert!(matches!(client.routes().get(&name).await, Err(Error::NotFound { .. })));
    assert_eq!(client.messages().list_all(from()).await.unwrap(), []);
}

/// One that does not hold keeps all changes from being made, and says so.
pub async fn a_precondition_that_does_not_hold_changes_nothing(client: &Client) {
    let (a, b) = (unique("a"), unique("b"));
    let first = client.state().put(&a, "1").await.unwrap();
    let second = client.state().put(&a, "2").await.unwrap();
    for (record, condition, holds) in [
        (state(&a), Condition::Missing, false),
        (state(&b), Condition::Exists, false),
        (state(&a), Condition::Version(1), false),
        (state(&a), Condition::ModRevision(first.revision), false),
        (state(&b), Condition::Version(1), false),
        (RecordId::Config(a.clone()), Condition::Exists, false),
        (state(&a), Condition::Exists, true),
        (state(&a), Condition::Version(2), true),
        (state(&a), Condition::ModRevision(second.revision), true),
        (state(&b), Condition::Missing, true),
        (state(&b), Condition::Version(0), true),
        (state(&b), Condition::ModRevision(0), true),
    ] {
        let target = unique("target");
        let change = Transaction::default()
            .require(state(&a), Condition::Exists)
            .require(record.clone(), condition)
            .put_state(&target, "x");
        let done = client.commit(change).await.unwrap();
        assert_eq!(done.succeeded, holds, "{record:?} {condition:?}");
        assert_eq!(client.state().get(&target).await.is_ok(), holds, "{record:?} {condition:?}");
    }
}

/// Compare-and-set: of many who read the same, one wins.
pub async fn one_of_many_wins(client: &Client) {
    let key = unique("race");
    let created = client.state().put(&key, "0").await.unwrap();
    let tries = (0..8).map(|n| {
        let change = Transaction::default()
            .require(state(&key), Condition::ModRevision(created.revision))
            .put_state(&key, n.to_string());
        client.commit(change)
    });
    let done = futures_util::future::join_all(tries).await;
    assert_eq!(done.iter().filter(|done| done.as_ref().unwrap().succeeded).count(), 1);
    assert_eq!(client.state().get(&key).await.unwrap().version, 2);
}

/// Bad input names the change, and nothing is changed.
pub async fn bad_changes_are_refused_with_their_place(client: &Client) {
    let key = unique("bad");
    let one = || Transaction::default().put_state(&key, "1");
    let invalid_json = Change::SaveConfig { key: "k".into(), value_json: "{".into() };
    for (transaction, field) in [
        (Transaction::default(), "changes"),
        (one().put_state("", "x"), "changes[1].key"),
        (one().put_state(&key, "2"), "changes[1]"),
        (one().delete(state(&key)), "changes[1]"),
        (one().change(invalid_json), "changes[1].value_json"),
        (one().require(RecordId::Message(String::new()), Condition::Exists), "preconditions[0].id"),
        ((0..1_025).fold(one(), |many, n| many.put_state(n.to_string(), "")), "changes"),
        ((0..4_097).fold(one(), |many, n| many.require(state(&n.to_string()), Condition::Missing)), "preconditions"),
    ] {
        assert_eq!(invalid_field(client.commit(transaction).await), field);
    }
    assert!(matches!(client.state().get(&key).await, Err(Error::NotFound { .. })));
}
