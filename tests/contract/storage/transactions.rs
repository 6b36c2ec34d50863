//! Transactions through the trait.

use std::time::Duration;

use meshstore::{
    Error, Storage,
    contract::{
        BeginTransactionOptions, CountOptions, CreateNamespaceOptions, DeleteOptions, Filter, GetManyOptions,
        GetOptions, HasOptions, Isolation, ListOptions, Operator, QueryOptions, SetEntry, SetManyOptions,
        SetMetadataOptions, SetOptions, Value,
    },
};

use super::{
    super::cases::{assert_missing, invalid_field, unique},
    Through,
};

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

async fn begin(storage: &dyn Storage, isolation: Isolation) -> String {
    storage.begin_transaction(BeginTransactionOptions { isolation, timeout: None }).await.unwrap().id
}

fn set(namespace: &str, id: &str) -> SetOptions {
    SetOptions { transaction: Some(id.into()), ..SetOptions::from(namespace) }
}

fn get(namespace: &str, id: &str) -> GetOptions {
    GetOptions { transaction: Some(id.into()), ..GetOptions::from(namespace) }
}

fn aborted(answer: meshstore::Result<u64>) -> String {
    match answer {
        Err(Error::TransactionAborted(why)) => why,
        other => panic!("it is not aborted: {other:?}"),
    }
}

pub async fn a_transaction_sees_what_it_wrote_and_others_do_not(Through(storage): &Through) {
    let storage = storage.as_ref();
    let namespace = unique("transactions");
    let place = || namespace.as_str();
    for key in ["a", "b"] {
        storage.set(key, json("{\"n\":1}"), place().into()).await.unwrap();
    }
    let id = begin(storage, Isolation::Serializable).await;
    let transaction = || Some(id.clone());
    storage.set("a", json("{\"n\":2}"), set(place(), &id)).await.unwrap();
    let delete = DeleteOptions { transaction: transaction(), ..DeleteOptions::from(place()) };
    assert!(storage.delete("b", delete).await.unwrap());
    let many = SetManyOptions { transaction: transaction(), ..SetManyOptions::from(place()) };
    storage.set_many(vec![SetEntry::new("c", json("{\"n\":2}"))], many).await.unwrap();
    let metadata = SetMetadataOptions { transaction: transaction(), ..SetMetadataOptions::from(place()) };
    storage.set_metadata("a", "{\"x\":1}", metadata).await.unwrap();
    let other = unique("transactions");
    let create = CreateNamespaceOptions { transaction: transaction(), ..CreateNamespaceOptions::default() };
    storage.create_namespace(&other, create).await.unwrap();

    assert_eq!(storage.get("a", get(place(), &id)).await.unwrap().value, json("{\"n\":2}"));
    let has = HasOptions { transaction: transaction(), ..HasOptions::from(place()) };
    assert!(!storage.has("b", has).await.unwrap());
    let many = GetManyOptions { transaction: transaction(), ..GetManyOptions::from(place()) };
    let (found, missing) = storage.get_many(vec!["a".into(), "b".into(), "c".into()], many).await.unwrap();
    assert_eq!((found.len(), missing), (2, vec!["b".to_owned()]));
    let list = ListOptions { transaction: transaction(), ..ListOptions::from(place()) };
    assert_eq!(storage.list(list).await.unwrap().items, ["a", "c"]);
    let two = Filter::of("n", Operator::Eq, &2).unwrap();
    let query = QueryOptions { transaction: transaction(), ..QueryOptions::from(place()) };
    assert_eq!(storage.query(two.clone(), query).await.unwrap().items.len(), 2);
    let count = |filter| CountOptions { filter, transaction: transaction(), ..CountOptions::from(place()) };
    assert_eq!(storage.count(count(Some(two))).await.unwrap(), 2);
    assert_eq!(storage.count(count(None)).await.unwrap(), 2);

    assert_eq!(storage.get("a", place().into()).await.unwrap().value, json("{\"n\":1}"));
    assert_eq!(storage.list(place().into()).await.unwrap().items, ["a", "b"]);
    assert_missing(storage.show_namespace(&other).await, "namespace", &other);
    let revision = storage.commit(&id).await.unwrap();
    let metadata = storage.get_metadata("a", place().into()).await.unwrap();
    assert_eq!((metadata.mod_revision, metadata.attributes_revision), (revision, revision), "all at one revision");
    assert_eq!(storage.list(place().into()).await.unwrap().items, ["a", "c"]);
    assert_eq!(storage.show_namespace(&other).await.unwrap().metadata.mod_revision, revision);
}

pub async fn one_that_is_rolled_back_leaves_nothing(Through(storage): &Through) {
    let storage = storage.as_ref();
    let namespace = unique("transactions");
    let id = begin(storage, Isolation::Serializable).await;
    storage.set("k", json("1"), set(&namespace, &id)).await.unwrap();
    storage.rollback(&id).await.unwrap();
    storage.rollback(&id).await.unwrap();
    assert_missing(storage.get("k", namespace.as_str().into()).await, "namespace", &namespace);
    for finished in [id.as_str(), "nonsense", ""] {
        assert_eq!(invalid_field(storage.commit(finished).await), "transaction", "{finished}");
        let written = storage.set("k", json("1"), set(&namespace, finished)).await;
        assert_eq!(invalid_field(written), "transaction", "{finished}");
    }
    let long = BeginTransactionOptions { timeout: Some(Duration::from_secs(301)), ..Default::default() };
    assert_eq!(invalid_field(storage.begin_transaction(long).await), "timeout_ms");
    let id = begin(storage, Isolation::Serializable).await;
    storage.commit(&id).await.unwrap();
    assert_eq!(invalid_field(storage.rollback(&id).await), "transaction");
}

pub async fn what_others_changed_aborts_a_serializable_one(Through(storage): &Through) {
    let storage = storage.as_ref();
    let namespace = unique("transactions");
    let place = || namespace.as_str();
    storage.set("read", json("1"), place().into()).await.unwrap();
    let id = begin(storage, Isolation::Serializable).await;
    storage.get("read", get(place(), &id)).await.unwrap();
    storage.set("written", json("1"), set(place(), &id)).await.unwrap();
    storage.set("read", json("2"), place().into()).await.unwrap();
    assert_eq!(storage.get("read", get(place(), &id)).await.unwrap().value, json("1"), "it reads one revision");
    let why = aborted(storage.commit(&id).await);
    assert!(why.contains("read"), "{why}");
    assert!(!storage.has("written", place().into()).await.unwrap());

    let id = begin(storage, Isolation::ReadCommitted).await;
    storage.get("read", get(place(), &id)).await.unwrap();
    storage.set("written", json("1"), set(place(), &id)).await.unwrap();
    storage.set("read", json("3"), place().into()).await.unwrap();
    assert_eq!(storage.get("read", get(place(), &id)).await.unwrap().value, json("3"), "it reads the newest");
    storage.commit(&id).await.unwrap();
    assert!(storage.has("written", place().into()).await.unwrap());
}
