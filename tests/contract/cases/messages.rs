//! Messages, one at a time.

use meshstore::{Client, client::Message, limits};

use super::{assert_missing, invalid_field, unique};

pub fn message(id: &str, from: &str, to: &str, timestamp: i64) -> Message {
    Message { id: id.into(), from: from.into(), to: to.into(), content: "hello".into(), timestamp, large: None }
}

pub async fn what_is_stored_is_read_back(client: &Client) {
    let id = unique("read-back");
    let sent = message(&id, "a", "b", 1_700_000_000);
    let written = client.messages().store(sent.clone()).await.unwrap();
    assert_ne!(written.leader_id, 0);
    let stored = client.messages().get(&id).await.unwrap();
    assert_eq!((stored.create_revision, stored.mod_revision), (written.revision, written.revision));
    assert_eq!((stored.version, stored.created_at_ms), (1, stored.updated_at_ms));
    assert_ne!(stored.created_at_ms, 0);
    assert_eq!(stored.value, sent);
}

pub async fn any_content_and_time_is_kept(client: &Client) {
    let contents = [vec![], vec![0], (0..=255).collect(), vec![0xFF; 100_000]];
    for (content, timestamp) in contents.into_iter().zip([0, -1, i64::MIN, i64::MAX]) {
        let id = unique("any\0\u{10ffff}");
        let sent = Message { content: content.into(), ..message(&id, "\0", "é\n", timestamp) };
        client.messages().store(sent.clone()).await.unwrap();
        assert_eq!(client.messages().get(&id).await.unwrap().value, sent);
    }
}

pub async fn an_upsert_replaces_all_but_the_creation(client: &Client) {
    let id = unique("upsert");
    let first = client.messages().store(message(&id, "a", "b", 1)).await.unwrap();
    let before = client.messages().get(&id).await.unwrap();
    let other = Message { content: "other".into(), ..message(&id, "c", "d", 2) };
    let second = client.messages().store(other.clone()).await.unwrap();
    let after = client.messages().get(&id).await.unwrap();
    assert_eq!((after.create_revision, after.created_at_ms), (first.revision, before.created_at_ms));
    assert_eq!((after.mod_revision, after.version), (second.revision, 2));
    assert!(after.updated_at_ms >= before.updated_at_ms);
    assert_eq!(after.value, other);
}

pub async fn a_missing_message_is_not_found(client: &Client) {
    let id = unique("missing");
    assert_missing(client.messages().get(&id).await, "message", &id);
    assert_missing(client.messages().delete(&id).await, "message", &id);
}

pub async fn a_deleted_message_is_gone(client: &Client) {
    let id = unique("delete");
    let stored = client.messages().store(message(&id, "a", "b", 1)).await.unwrap();
    let deleted = client.messages().delete(&id).await.unwrap();
    assert!(deleted.revision > stored.revision);
    assert_missing(client.messages().get(&id).await, "message", &id);
    assert_missing(client.messages().delete(&id).await, "message", &id);
    let again = client.messages().store(message(&id, "a", "b", 1)).await.unwrap();
    let stored = client.messages().get(&id).await.unwrap();
    assert_eq!((stored.create_revision, stored.version), (again.revision, 1));
}

pub async fn names_are_checked(client: &Client) {
    let messages = client.messages();
    let longest = (unique("n") + &"x".repeat(limits::ID_BYTES))[..limits::ID_BYTES].to_owned();
    for wrong in ["", &format!("{longest}x"), &"é".repeat(limits::ID_BYTES / 2 + 1)] {
        let id = unique("unstored");
        assert_eq!(invalid_field(messages.store(message(wrong, "a", "b", 1)).await), "id");
        assert_eq!(invalid_field(messages.store(message(&id, wrong, "b", 1)).await), "from");
        assert_eq!(invalid_field(messages.store(message(&id, "a", wrong, 1)).await), "to");
        assert_missing(messages.get(&id).await, "message", &id);
        assert_eq!(invalid_field(messages.get(wrong).await), "id");
        assert_eq!(invalid_field(messages.delete(wrong).await), "id");
    }
    messages.store(message(&longest, &longest, &longest, 1)).await.unwrap();
    assert_eq!(messages.get(&longest).await.unwrap().value.to, longest);
}

pub async fn content_is_bounded(client: &Client) {
    let id = unique("bounds");
    let sized = |bytes| Message { content: vec![7; bytes].into(), ..message(&id, "a", "b", 1) };
    client.messages().store(sized(limits::VALUE_BYTES)).await.unwrap();
    assert_eq!(client.messages().get(&id).await.unwrap().value, sized(limits::VALUE_BYTES));
    assert_eq!(invalid_field(client.messages().store(sized(limits::VALUE_BYTES + 1)).await), "content");
    assert_eq!(client.messages().get(&id).await.unwrap().version, 1);
    client.messages().delete(&id).await.unwrap();
}
