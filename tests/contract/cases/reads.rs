//! How fresh reads are, and what their answers say.

use std::time::Duration;

use meshstore::{
    Client, Error,
    client::{PageRequest, ReadMode},
};

use super::{assert_missing, unique};

pub async fn an_answer_names_its_revision(client: &Client) {
    let key = unique("revision");
    let written = client.state().put(&key, "v").await.unwrap();
    let page = client.state().list(&key, PageRequest::default()).await.unwrap();
    assert!(page.revision >= written.revision);
    assert!(client.last_seen_revision() >= page.revision);
    // Even one that names nothing.
    let page = client.state().list(&unique("nothing"), PageRequest::default()).await.unwrap();
    assert!(page.revision >= written.revision);
    assert_eq!(page.next_cursor, "");
}

pub async fn at_least_sees_the_named_write(client: &Client) {
    for _ in 0..10 {
        let key = unique("at-least");
        let written = client.state().put(&key, "v").await.unwrap();
        let at_least = ReadMode::AtLeast(written.revision);
        let stored = client.state().with_read(at_least).get(&key).await.unwrap();
        assert_eq!((stored.value.as_ref(), stored.mod_revision), (&b"v"[..], written.revision));
        let deleted = client.state().delete(&key).await.unwrap();
        let state = client.state().with_read(ReadMode::AtLeast(deleted.revision));
        assert_missing(state.get(&key).await, "state", &key);
    }
}

pub async fn a_revision_that_never_comes_ends_with_the_deadline(client: &Client) {
    let impatient = client.clone().with_deadline(Duration::from_millis(300));
    let answer = impatient.state().with_read(ReadMode::AtLeast(u64::MAX)).get("k").await;
    let Err(error) = answer else { panic!("{answer:?}") };
    assert!(matches!(error, Error::DeadlineExceeded { may_have_applied: false, .. }), "{error:?}");
}

pub async fn a_stale_read_is_right_or_too_early(client: &Client) {
    let key = unique("stale");
    client.state().put(&key, "v").await.unwrap();
    let stale = client.state().with_read(ReadMode::Stale(Duration::from_secs(3_600)));
    match stale.get(&key).await {
        Ok(stored) => assert_eq!(stored.value.as_ref(), b"v"),
        // The node that answered had not applied it yet.
        Err(error) => assert_eq!(error, Error::NotFound { kind: "state", name: key }),
    }
}
