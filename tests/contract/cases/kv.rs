//! The storage contract on the wire: attempts that are repeated, and what only a request can say. What its calls mean is in
//! `storage`, for every backend.

use meshstore::{
    Client,
    client::{KeyFilter, Kv, Set, Value},
    proto::{
        error_from_status,
        v1::{
            Attempt, ReadOptions, SetValue, StorageCountRequest, StorageDeleteManyRequest, StorageSetManyRequest,
            StorageSetRequest, StorageValue, storage_client::StorageClient, storage_value,
        },
    },
};

use super::{invalid_field, leader, session, unique};

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

/// A namespace of its own, with a value in it.
async fn namespace(client: &Client) -> (String, Kv) {
    let name = unique("namespace");
    let kv = client.kv(&name);
    kv.set(Set::new("first", json("1"))).await.unwrap();
    (name, kv)
}

async fn keys(kv: &Kv, pattern: &str) -> Vec<String> {
    kv.list_all(pattern).await.unwrap()
}

pub async fn a_repeated_write_answers_as_the_first(client: &Client) {
    let (name, kv) = namespace(client).await;
    let wire = leader(client).await;
    let session = session(&wire).await;
    let mut storage = StorageClient::new(wire);
    let place = |sequence, attempt| Some(Attempt { session, sequence, answered_below: 1, attempt });
    let set = |key: &str, text: &str| SetValue {
        key: key.into(),
        value: Some(StorageValue { value: Some(storage_value::Value::Json(text.into())) }),
        metadata_json: None,
        overwrite: Some(false),
        condition: None,
        lease: 0,
    };
    let create =
        |attempt| StorageSetRequest { attempt: place(1, attempt), namespace: name.clone(), set: Some(set("k", "1")) };
    let first = storage.set(create(1)).await.unwrap().into_inner();
    let again = storage.set(create(2)).await.unwrap().into_inner();
    assert_eq!((first.revision, first.version), (again.revision, again.version));
    let several = |attempt| StorageSetManyRequest {
        attempt: place(2, attempt),
        namespace: name.clone(),
        sets: vec![set("k", "2"), set("l", "2")],
        per_key: true,
    };
    let first = storage.set_many(several(1)).await.unwrap().into_inner();
    assert_eq!(first.results.iter().map(|result| result.version).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(storage.set_many(several(2)).await.unwrap().into_inner(), first);
    let deletion = |attempt| StorageDeleteManyRequest {
        attempt: place(3, attempt),
        namespace: name.clone(),
        keys: vec!["k".into(), "no".into()],
        ..Default::default()
    };
    let first = storage.delete_many(deletion(1)).await.unwrap().into_inner();
    assert_eq!(first.results.iter().map(|result| result.deleted).collect::<Vec<_>>(), [true, false]);
    assert_eq!(storage.delete_many(deletion(2)).await.unwrap().into_inner(), first);
    assert_eq!(keys(&kv, "").await, ["first", "l"]);
    let nothing = StorageSetRequest { attempt: None, namespace: name, set: None };
    let error = error_from_status(&storage.set(nothing).await.unwrap_err());
    assert_eq!(invalid_field(Err::<(), _>(error)), "set");
}

pub async fn a_repeated_write_of_many_keys_says_what_it_knows(client: &Client) {
    let (name, _) = namespace(client).await;
    let wire = leader(client).await;
    let session = session(&wire).await;
    let mut storage = StorageClient::new(wire);
    let several = |attempt, per_key| StorageSetManyRequest {
        attempt: Some(Attempt { session, sequence: 1 + u64::from(per_key), answered_below: 1, attempt }),
        namespace: name.clone(),
        sets: (0..400)
            .map(|n| SetValue {
                key: format!("{per_key}/{n:060}"),
                value: Some(StorageValue { value: Some(storage_value::Value::Json("1".into())) }),
                metadata_json: None,
                overwrite: Some(false),
                condition: None,
                lease: 0,
            })
            .collect(),
        per_key,
    };
    for per_key in [false, true] {
        let first = storage.set_many(several(1, per_key)).await.unwrap().into_inner();
        assert!(first.results.iter().all(|result| result.version == 1 && result.error.is_empty()));
        // The outcome is too large to be kept; that it was executed is known.
        let again = storage.set_many(several(2, per_key)).await.unwrap().into_inner();
        assert_eq!((again.revision, again.results.len()), (first.revision, 400));
        let unknown = |error: &str| error.is_empty() != per_key;
        assert!(again.results.iter().all(|result| result.version == 0 && unknown(&result.error)), "{again:?}");
    }
    let twice = |attempt| StorageDeleteManyRequest {
        attempt: Some(Attempt { session, sequence: 3, answered_below: 1, attempt }),
        namespace: name.clone(),
        keys: vec!["no".into(), "no".into(), "first".into()],
        ..Default::default()
    };
    let first = storage.delete_many(twice(1)).await.unwrap().into_inner();
    client.namespaces().delete(&name, true).await.unwrap();
    assert_eq!(storage.delete_many(twice(2)).await.unwrap().into_inner(), first);
}

pub async fn a_count_is_of_the_revision_that_is_asked_for(client: &Client) {
    let (name, kv) = namespace(client).await;
    let mut storage = StorageClient::new(leader(client).await);
    let mut count = async |revision| {
        let read = Some(ReadOptions { revision, ..ReadOptions::default() });
        storage
            .count(StorageCountRequest { read, namespace: name.clone(), filter: None })
            .await
            .map(|answer| answer.into_inner())
    };
    let list = KeyFilter { limit: Some(1), ..KeyFilter::default() };
    kv.set_many((0..200).map(|n| Set::new(n.to_string(), json("1"))).collect()).await.unwrap();
    let before = kv.list(list).await.unwrap().revision;
    kv.delete_many((0..150).map(|n| n.to_string()).collect()).await.unwrap();
    assert_eq!(count(Some(before)).await.unwrap().count, 201);
    assert_eq!(count(None).await.unwrap().count, 51);
}
