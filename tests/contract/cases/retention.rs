//! How long messages are kept, and how many. The rule of all mailboxes is tested where there are no others' messages.

use meshstore::{
    Client, Error,
    client::{Message, MessageFilter, Retention},
};

use super::{assert_missing, invalid_field, messages::message, unique};

const AGE: Retention = Retention { max_age_ms: Some(1_000), max_count: None };

fn count(count: u64) -> Retention {
    Retention { max_age_ms: None, max_count: Some(count) }
}

/// The timestamps of the messages in a mailbox, once there are so many.
async fn kept(client: &Client, mailbox: &str, expected: usize) -> Vec<i64> {
    let filter = MessageFilter { to: Some(mailbox.into()), ..MessageFilter::default() };
    for _ in 0..600 {
        let messages = client.messages().list_all(filter.clone()).await.unwrap();
        if messages.len() == expected {
            return messages.iter().map(|stored| stored.value.timestamp).collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{mailbox} never holds {expected} messages");
}

pub async fn a_rule_is_kept_listed_and_deleted(client: &Client) {
    let rules = client.retention();
    let (a, b) = (unique("rule-a"), unique("rule-b"));
    let set = rules.set(Some(&a), AGE).await.unwrap();
    rules.set(Some(&b), count(5)).await.unwrap();
    let stored = rules.get(Some(&a)).await.unwrap();
    assert_eq!((stored.value, stored.mod_revision, stored.version), (AGE, set.revision, 1));
    let both = Retention { max_age_ms: Some(2_000), max_count: Some(7) };
    rules.set(Some(&a), both).await.unwrap();
    assert_eq!(rules.get(Some(&a)).await.unwrap().value, both);
    let all = rules.list_all().await.unwrap();
    let ours: Vec<_> = all.iter().filter(|(name, _)| *name == a || *name == b).map(|(_, rule)| rule.value).collect();
    assert_eq!(ours, [both, count(5)]);
    for mailbox in [&a, &b] {
        rules.delete(Some(mailbox)).await.unwrap();
        assert_missing(rules.get(Some(mailbox)).await, "retention rule", mailbox);
        assert_missing(rules.delete(Some(mailbox)).await, "retention rule", mailbox);
    }
}

pub async fn rules_are_checked(client: &Client) {
    let (rules, name) = (client.retention(), unique("unruled"));
    for (wrong, field) in [
        (Retention::default(), "retention"),
        (Retention { max_age_ms: Some(999), max_count: None }, "retention.max_age_ms"),
        (count(0), "retention.max_count"),
    ] {
        assert_eq!(invalid_field(rules.set(Some(&name), wrong).await), field);
        assert!(matches!(rules.get(Some(&name)).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(invalid_field(rules.set(Some(&"x".repeat(256)), AGE).await), "mailbox");
}

pub async fn of_too_many_messages_the_oldest_go(client: &Client) {
    let (messages, mailbox) = (client.messages(), unique("count"));
    let other = format!("{mailbox}x");
    for n in 0..12 {
        messages.store(message(&unique("m"), "a", &mailbox, 100 - n)).await.unwrap();
        messages.store(message(&unique("m"), "a", &other, n)).await.unwrap();
    }
    client.retention().set(Some(&mailbox), count(5)).await.unwrap();
    assert_eq!(kept(client, &mailbox, 5).await, [96, 97, 98, 99, 100]);
    let large = Message { content: vec![1; 2 << 20].into(), ..message(&unique("m"), "a", &mailbox, 98) };
    messages.store_large(large.clone()).await.unwrap();
    messages.store(message(&unique("m"), "a", &mailbox, 200)).await.unwrap();
    assert_eq!(kept(client, &mailbox, 5).await, [98, 98, 99, 100, 200]);
    assert_eq!(kept(client, &other, 12).await.len(), 12, "another mailbox");
    client.retention().set(Some(&mailbox), count(1)).await.unwrap();
    assert_eq!(kept(client, &mailbox, 1).await, [200]);
    assert_missing(messages.get(&large.id).await, "message", &large.id);
    client.retention().delete(Some(&mailbox)).await.unwrap();
    messages.store(message(&unique("m"), "a", &mailbox, 300)).await.unwrap();
    assert_eq!(kept(client, &mailbox, 2).await, [200, 300]);
}

pub async fn messages_that_are_too_old_go(client: &Client) {
    let (messages, mailbox) = (client.messages(), unique("age"));
    client.retention().set(Some(&mailbox), AGE).await.unwrap();
    for n in 0..3 {
        messages.store(message(&unique("m"), "a", &mailbox, i64::MAX - n)).await.unwrap();
    }
    kept(client, &mailbox, 0).await;
    messages.store(message(&unique("m"), "a", &mailbox, 1)).await.unwrap();
    kept(client, &mailbox, 0).await;
    client.retention().delete(Some(&mailbox)).await.unwrap();
}
