//! Transactions that the leader keeps, where others change what they stand on, or they change what they read.

use std::{fmt::Debug, time::Duration};

use meshstore::{
    Client, Error, Result,
    client::{Filter, Isolation, KeyFilter, NamespaceChange, NamespaceSettings, Operator, Set, SortField, Value},
    limits,
    proto::{
        error_from_status,
        v1::{Attempt, StorageSetRequest, storage_client::StorageClient},
    },
};
use serde_json::json;

use super::{assert_missing, invalid_field, leader, session, unique};

const LEVELS: [Isolation; 2] = [Isolation::Serializable, Isolation::ReadCommitted];

fn set(key: &str, number: i64) -> Set {
    Set::new(key, Value::Json(number.to_string()))
}

fn job(key: &str, status: &str) -> Set {
    Set::new(key, Value::json(&json!({ "status": status })).unwrap())
}

fn with_status(status: &str) -> Filter {
    Filter::of("status", Operator::Eq, status).unwrap()
}

fn aborted<T: Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::TransactionAborted(why)) => why,
        other => panic!("not aborted: {other:?}"),
    }
}

fn refused<T: Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

async fn indexed(client: &Client, name: &str) {
    let kv = client.kv(name);
    kv.create_index("status", vec![SortField::ascending("status")]).await.unwrap();
    while !kv.indexes().await.unwrap()[0].ready {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a transaction reads may be older than what there is: an index that is dropped meanwhile still answers in it.
pub async fn an_index_that_is_dropped_meanwhile_harms_nobody(client: &Client) {
    let name = unique("hazard");
    let kv = client.kv(&name);
    kv.set_many(vec![job("a", "new"), job("b", "new")]).await.unwrap();
    indexed(client, &name).await;
    let (before, after) = (
        client.begin_held(Isolation::Serializable).await.unwrap(),
        client.begin_held(Isolation::Serializable).await.unwrap(),
    );
    before.kv(&name).delete("a").await.unwrap();
    kv.drop_index("status").await.unwrap();
    after.kv(&name).delete("a").await.unwrap();
    for open in [before, after] {
        let kv = open.kv(&name);
        kv.set(job("b", "done")).await.unwrap();
        kv.set(job("b", "old")).await.unwrap();
        kv.set(job("c", "new")).await.unwrap();
        let found = kv.query(with_status("new")).all().await.unwrap();
        assert_eq!(found.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["c"]);
        assert_eq!(kv.count_where(with_status("old")).await.unwrap(), 1);
        aborted(open.commit().await);
    }
    assert_eq!(kv.query(with_status("new")).all().await.unwrap().len(), 2, "the node lives");
}

pub async fn a_namespace_that_others_change_ends_what_stands_on_it(client: &Client) {
    let name = unique("hazard");
    client.kv(&name).set(job("a", "new")).await.unwrap();
    indexed(client, &name).await;
    let open = client.begin_held(Isolation::ReadCommitted).await.unwrap();
    let change = NamespaceChange { max_entries: Some(100), ..NamespaceChange::default() };
    open.namespaces().modify(&name, change).await.unwrap();
    client.kv(&name).drop_index("status").await.unwrap();
    let why = aborted(open.kv(&name).query(with_status("new")).all().await);
    assert!(why.contains(&format!("namespace {name} was changed by others")), "{why}");
    aborted(open.commit().await);
    // Two that create a namespace each are given the same numbers for it; only one gets them.
    let (mine, other) = (unique("hazard"), unique("hazard"));
    let open = client.begin_held(Isolation::ReadCommitted).await.unwrap();
    open.kv(&mine).set(set("x", 1)).await.unwrap();
    client.kv(&other).set_many(vec![set("y", 1), set("z", 1)]).await.unwrap();
    aborted(open.kv(&mine).list_all("*").await);
    assert_missing(client.namespaces().show(&mine).await, "namespace", &mine);
}

/// Whoever goes through a list and changes what he finds sees all of it once.
pub async fn pages_go_on_behind_what_was_changed(client: &Client) {
    for (isolation, index) in LEVELS.into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let name = unique("hazard");
        client.kv(&name).set_many((0..25).map(|n| job(&format!("{n:02}"), "new")).collect()).await.unwrap();
        if index {
            indexed(client, &name).await;
        }
        for deletes in [true, false] {
            let open = client.begin_held(isolation).await.unwrap();
            let kv = open.kv(&name);
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = kv.query(with_status("new")).limit(10).cursor(&cursor).page().await.unwrap();
                for entry in page.items {
                    match deletes {
                        true => drop(kv.delete(&entry.key).await.unwrap()),
                        false => drop(kv.set(job(&entry.key, "done")).await.unwrap()),
                    }
                    seen.push(entry.key);
                }
                cursor = page.next_cursor;
                if cursor.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, (0..25).map(|n| format!("{n:02}")).collect::<Vec<_>>(), "index: {index}");
            assert_eq!(kv.count_where(with_status("new")).await.unwrap(), 0);
            open.rollback().await.unwrap();
        }
        // What is sorted by what was changed has no such place any more.
        let open = client.begin_held(isolation).await.unwrap();
        let kv = open.kv(&name);
        let page = kv.query(Filter::default()).sort_by("status").limit(10).page().await.unwrap();
        let last = page.items.last().unwrap().key.clone();
        let next = || kv.query(Filter::default()).sort_by("status").limit(10).cursor(&page.next_cursor).page();
        assert_eq!(next().await.unwrap().items.len(), 10);
        kv.set(job(&last, "done")).await.unwrap();
        assert!(refused(next().await).contains("begin the query anew"));
        kv.delete(&last).await.unwrap();
        assert!(refused(next().await).contains("begin the query anew"));
        open.rollback().await.unwrap();
    }
}

/// The attempt of a write that was on its way for long, and was answered through another one meanwhile.
pub async fn a_late_attempt_overwrites_nothing(client: &Client) {
    let name = unique("hazard");
    let wire = leader(client).await;
    let (session, mut storage) = (session(&wire).await, StorageClient::new(wire));
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    let mut send = async |sequence, answered_below, attempt, number| {
        let attempt = Some(Attempt { session, sequence, answered_below, attempt });
        let request = StorageSetRequest { attempt, namespace: name.clone(), set: Some(set("x", number).into()) };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("meshstore-transaction", open.id().parse().unwrap());
        storage.set(request).await.map(drop).map_err(|status| error_from_status(&status))
    };
    send(1, 1, 2, 1).await.unwrap();
    send(2, 1, 1, 2).await.unwrap();
    send(1, 1, 1, 1).await.expect("answered as before");
    send(3, 3, 1, 3).await.unwrap();
    assert!(matches!(send(2, 1, 1, 2).await, Err(Error::SessionExpired { .. })), "its answer has been seen");
    open.commit().await.unwrap();
    assert_eq!(client.kv(&name).get("x").await.unwrap().value, Value::Json("3".into()));
}

/// Deleting a value deletes its attributes, also those that others gave it meanwhile, though it is written again.
pub async fn attributes_of_what_was_deleted_do_not_come_back(client: &Client) {
    for isolation in LEVELS {
        let name = unique("hazard");
        let kv = client.kv(&name);
        kv.set(set("v", 1)).await.unwrap();
        let open = client.begin_held(isolation).await.unwrap();
        open.kv(&name).delete("v").await.unwrap();
        kv.set_metadata("v", r#"{"of":"old"}"#, false).await.unwrap();
        let written = open.kv(&name).set(set("v", 2)).await;
        match (written, open.commit().await) {
            (Err(Error::TransactionAborted(_)), _) | (_, Err(Error::TransactionAborted(_))) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(kv.get("v").await.unwrap().metadata.attributes.as_deref(), Some(r#"{"of":"old"}"#));
        let open = client.begin_held(isolation).await.unwrap();
        open.kv(&name).delete("v").await.unwrap();
        open.kv(&name).set(set("v", 3)).await.unwrap();
        open.commit().await.unwrap();
        assert_eq!(kv.get("v").await.unwrap().metadata.attributes.as_deref(), Some("{}"));
    }
}

pub async fn what_is_not_committed_was_at_no_revision(client: &Client) {
    let name = unique("hazard");
    let settings = NamespaceSettings { history: 3, ..NamespaceSettings::default() };
    client.namespaces().create(&name, "{}", settings).await.unwrap();
    client.kv(&name).set(set("x", 1)).await.unwrap();
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    let (kv, began) = (open.kv(&name), open.revision());
    kv.set(set("x", 2)).await.unwrap();
    assert_eq!(kv.get_at("x", began).await.unwrap().value, Value::Json("1".into()));
    kv.delete("x").await.unwrap();
    kv.restore("x", began).await.unwrap();
    assert_eq!(kv.get("x").await.unwrap().value, Value::Json("1".into()));
    open.commit().await.unwrap();
    assert_eq!(client.kv(&name).get("x").await.unwrap().value, Value::Json("1".into()));
}

/// A lock that was taken after the transaction began is held; one that was lost is lost, whatever the transaction reads.
pub async fn fences_are_looked_at_when_the_call_is_made(client: &Client) {
    for isolation in LEVELS {
        let (lock, key) = (unique("lock"), unique("hazard"));
        client.kv(&key).set(set("x", 0)).await.unwrap();
        let begin = async || client.begin_held(isolation).await.unwrap();
        let (first, second) = (begin().await, begin().await);
        let held = client.lock(&lock).acquire(Duration::from_secs(60)).await.unwrap();
        let fence = held.fence();
        for (open, name) in [(&first, &key), (&second, &unique("hazard"))] {
            let fenced = open.client().with_fence(fence.clone());
            fenced.state().put(name, "x").await.unwrap();
            fenced.kv(&key).set(set(name, 1)).await.unwrap();
        }
        first.commit().await.unwrap();
        held.release().await.unwrap();
        let lost = |answer: Result<()>| assert!(matches!(answer, Err(Error::Fenced { .. })), "{answer:?}");
        let fenced = second.client().with_fence(fence.clone());
        lost(fenced.state().put(&key, "y").await.map(drop));
        lost(fenced.kv(&key).set(set("x", 2)).await.map(drop));
        second.state().put(&unique("hazard"), "without").await.expect("it is still open");
        match second.commit().await {
            Err(Error::Fenced { .. } | Error::TransactionAborted(_)) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(client.state().get(&key).await.unwrap().value, "x");
    }
}

/// A commit does not go through a long list again: any change of the namespace counts as one of the list.
pub async fn a_long_list_counts_as_its_namespace(client: &Client) {
    let name = unique("hazard");
    let kv = client.kv(&name);
    for part in 0..3 {
        kv.set_many((0..500).map(|n| set(&format!("{part}/{n:03}"), 0)).collect()).await.unwrap();
    }
    let (whole, part) = (
        client.begin_held(Isolation::Serializable).await.unwrap(),
        client.begin_held(Isolation::Serializable).await.unwrap(),
    );
    assert_eq!(whole.kv(&name).count().await.unwrap(), 1_500);
    assert_eq!(part.kv(&name).list_all("1/*").await.unwrap().len(), 500);
    for open in [&whole, &part] {
        open.state().put(&name, "x").await.unwrap();
    }
    kv.set(set("2/999", 1)).await.unwrap();
    part.commit().await.expect("what it read is as it was");
    assert!(aborted(whole.commit().await).contains("in namespace"));
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    assert_eq!(open.kv(&name).count().await.unwrap(), 1_501);
    open.kv(&name).set(set("2/999", 2)).await.unwrap();
    open.commit().await.expect("its own write is none of others");
}

/// What a transaction may delete at once is counted over all its calls; what was taken before the one too many is committed.
pub async fn what_could_not_be_committed_is_refused_before(client: &Client) {
    let name = unique("hazard");
    let kv = client.kv(&name);
    let keys = |part: usize| (0..1_024).map(move |n| format!("{part}/{n:04}"));
    for part in 0..4 {
        let sets = keys(part).map(|key| if part == 3 { set(&key, 0).attributes(r#"{"a":1}"#) } else { set(&key, 0) });
        kv.set_many(sets.collect()).await.unwrap();
    }
    let open = client.begin_held(Isolation::ReadCommitted).await.unwrap();
    for part in 0..3 {
        assert_eq!(open.kv(&name).delete_many(keys(part).collect()).await.unwrap().len(), 1_024);
    }
    let why = refused(open.kv(&name).delete_many(keys(3).collect()).await);
    assert!(why.contains("too many records at once"), "{why}");
    open.commit().await.unwrap();
    assert_eq!(kv.count().await.unwrap(), 1_024);
    // A read that is too much is refused, and leaves room for what comes after.
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    let read = async |part: usize| open.kv(&name).get_many((0..1_000).map(|n| format!("{part}-{n}")).collect()).await;
    let mut refusal = None;
    for part in 0..6 {
        if let Err(error) = read(part).await {
            refusal = Some(error);
            break;
        }
    }
    assert!(matches!(refusal, Some(Error::Refused(_))), "{refusal:?}");
    open.kv(&name).set(set("after", 1)).await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(invalid_field(kv.get_many((0..=limits::KEYS).map(|n| n.to_string()).collect()).await), "keys");
    assert_eq!(kv.list(KeyFilter { limit: Some(1), ..KeyFilter::default() }).await.unwrap().items.len(), 1);
}
