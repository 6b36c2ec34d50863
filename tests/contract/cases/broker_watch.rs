//! Watches of collections: what a filter lets through, from one revision on, as long as it may be read.

use std::time::Duration;

use meshstore::{
    Client, Error,
    client::{Declaration, Documents, Event, Permission, Watch, Watched, Watching},
    limits,
};
use serde_json::{Value as Json, json};

use super::{
    broker::{collection, denied, service},
    invalid_field,
    watch::event,
};

/// What a document is now and was, as JSON.
type Sides = (Option<Json>, Option<Json>);

async fn begun(watching: Watching) -> Watch {
    watching.progress(Duration::from_millis(limits::WATCH_PROGRESS_MIN_MS)).start().await.unwrap()
}

fn sides(changes: &[Watched]) -> Vec<(String, Sides)> {
    let sides = |change: &Watched| {
        let Watched::Document { id, now, before } = change else { panic!("no document: {change:?}") };
        let side = |document: &Option<meshstore::client::Document>| document.as_ref().map(|it| it.parse().unwrap());
        (id.clone(), (side(now), side(before)))
    };
    changes.iter().map(sides).collect()
}

async fn changes(watch: &mut Watch) -> Vec<(String, Sides)> {
    match event(watch).await {
        Event::Changes { changes, resynced: false, .. } => sides(&changes),
        other => panic!("no changes: {other:?}"),
    }
}

/// Reads until the watch ends: why it does.
async fn end(mut watch: Watch) -> Error {
    loop {
        match tokio::time::timeout(Duration::from_secs(30), watch.next()).await.expect("an end") {
            Ok(Event::Progress { .. }) => {}
            Ok(other) => panic!("something is told: {other:?}"),
            Err(error) => return error,
        }
    }
}

async fn put(events: &Documents, id: &str, state: &str) {
    events.upsert(&json!({"_id": id}), &json!({"state": state})).await.unwrap();
}

fn document(id: &str, state: &str) -> Option<Json> {
    Some(json!({"_id": id, "state": state}))
}

pub async fn a_filter_is_watched_as_if_there_were_nothing_else(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    put(&events, "there", "new").await;
    put(&events, "other", "old").await;
    let mut watch = begun(events.watch(&json!({"state": "new"})).unwrap().current()).await;
    let Event::Content { records, .. } = event(&mut watch).await else { panic!("no content") };
    assert_eq!(sides(&records), [("there".into(), (document("there", "new"), None))]);
    assert!(matches!(event(&mut watch).await, Event::Current { .. }));
    put(&events, "a", "old").await;
    put(&events, "a", "new").await;
    events.update(&json!({"_id": "a"}), &json!({"n": 1})).await.unwrap();
    put(&events, "a", "old").await;
    events.insert_many([json!({"_id": "b", "state": "new"}), json!({"_id": "c", "state": "old"})]).await.unwrap();
    events.delete(&json!({})).await.unwrap();
    let counted = Some(json!({"_id": "a", "n": 1, "state": "new"}));
    for (id, now, before) in [
        ("a", document("a", "new"), None),
        ("a", counted.clone(), document("a", "new")),
        ("a", None, counted),
        ("b", document("b", "new"), None),
    ] {
        assert_eq!(changes(&mut watch).await, [(id.to_owned(), (now, before))]);
    }
    // What one call deletes is told together.
    let gone = |id: &str| (id.to_owned(), (None, document(id, "new")));
    assert_eq!(changes(&mut watch).await, [gone("b"), gone("there")]);
    let mut quiet = begun(events.watch(&json!({"state": "new"})).unwrap().without_previous()).await;
    put(&events, "d", "new").await;
    put(&events, "d", "old").await;
    assert_eq!(changes(&mut quiet).await, [("d".into(), (document("d", "new"), None))]);
    assert_eq!(changes(&mut quiet).await, [("d".into(), (None, None))]);
}

pub async fn what_is_there_is_shown_in_parts_however_little_a_filter_lets_through(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    let many = limits::PAGE_MAX * 2 + 10;
    for first in (0..many).step_by(1_000) {
        let numbers = first..many.min(first + 1_000);
        let documents = numbers.map(|n| json!({"_id": format!("{n:05}"), "last": n + 1 == many}));
        events.insert_many(documents).await.unwrap();
    }
    let mut watch = begun(events.watch(&json!({"last": true})).unwrap().current()).await;
    let Event::Content { records, .. } = event(&mut watch).await else { panic!("no content") };
    assert_eq!(sides(&records).len(), 1);
    assert!(matches!(event(&mut watch).await, Event::Current { .. }));
    let (mut all, mut told) = (begun(events.watch(&json!({})).unwrap().current()).await, 0);
    while let Event::Content { records, .. } = event(&mut all).await {
        told += records.len();
    }
    assert_eq!(told, many);
}

pub async fn a_watch_begins_before_its_collection_and_ends_with_it(client: &Client) {
    let before = client.state().put(&super::unique("before"), "1").await.unwrap().revision;
    let (service, events) = collection(client, Declaration::new()).await;
    put(&events, "a", "new").await;
    // A collection that is declared anew is no other.
    events.declare(Declaration::new().description("events")).await.unwrap();
    put(&events, "b", "new").await;
    let mut watch = begun(events.watch(&json!({})).unwrap().after(before)).await;
    assert_eq!(changes(&mut watch).await, [("a".into(), (document("a", "new"), None))]);
    assert_eq!(changes(&mut watch).await, [("b".into(), (document("b", "new"), None))]);
    events.drop().await.unwrap();
    let name = format!("{service}.events");
    let missing = |error: Error| matches!(error, Error::NotFound { name: of, .. } if of == name);
    assert!(missing(end(watch).await));
    assert!(missing(events.watch(&json!({})).unwrap().start().await.unwrap_err()));
    // Another under its name is not what was watched.
    let other = begun_in(client, &service, before).await;
    assert!(missing(end(other).await));
}

/// A watch of a collection that is created anew, from a revision on at which another had its name.
async fn begun_in(client: &Client, service: &str, before: u64) -> Watch {
    let events = client.broker(service).collection("events");
    events.declare(Declaration::new()).await.unwrap();
    let mut watch = begun(events.watch(&json!({})).unwrap().after(before)).await;
    assert_eq!(changes(&mut watch).await.len(), 1);
    assert_eq!(changes(&mut watch).await.len(), 1);
    watch
}

pub async fn a_watch_ends_when_its_grant_is_revoked(client: &Client) {
    let (owner, events) = collection(client, Declaration::new()).await;
    let reader = service();
    let theirs = client.broker(&reader).collection(format!("{owner}.events"));
    denied(theirs.watch(&json!({})).unwrap().start().await.map(|_| ()));
    events.grant(&reader, Permission::Write, ("to test", None)).await.unwrap();
    // One that is told its progress so rarely that it is the revocation which ends it.
    let rarely = Duration::from_millis(limits::WATCH_PROGRESS_MAX_MS);
    let mut watch = theirs.watch(&json!({})).unwrap().progress(rarely).start().await.unwrap();
    put(&events, "a", "new").await;
    assert_eq!(changes(&mut watch).await.len(), 1);
    // Less is enough.
    events.grant(&reader, Permission::Read, ("to test", None)).await.unwrap();
    put(&events, "b", "new").await;
    assert_eq!(changes(&mut watch).await.len(), 1);
    let mut own = begun(events.watch(&json!({})).unwrap()).await;
    events.revoke(&reader).await.unwrap();
    let revoked = end(watch).await;
    assert!(matches!(&revoked, Error::PermissionDenied(why) if why.contains(&reader)), "{revoked}");
    put(&events, "c", "new").await;
    assert_eq!(changes(&mut own).await.len(), 1);
    denied(theirs.watch(&json!({})).unwrap().start().await.map(|_| ()));
}

pub async fn what_cannot_be_watched_of_documents_is_refused(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    for (filter, named) in [(json!({"a": {"$near": 1}}), "filter.a"), (json!([]), "filter")] {
        let field = invalid_field(events.watch(&filter).unwrap().start().await.map(|_| ()));
        assert!(field.starts_with(named), "{field}");
    }
    let nameless = client.broker(service()).collection("a/b");
    assert_eq!(invalid_field(nameless.watch(&json!({})).unwrap().start().await.map(|_| ())), "collection");
    let future = events.watch(&json!({})).unwrap().after(u64::MAX);
    assert_eq!(invalid_field(future.start().await.map(|_| ())), "after_revision");
}
