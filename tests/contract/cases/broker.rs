//! The data broker: collections that services own, their documents, and who may touch them.

use std::{collections::BTreeSet, time::Duration};

use meshstore::{
    Client, Error, Result,
    client::{
        Access, CollectionIndex, Declaration, Document, Documents, FindAndUpdate, IndexSpec, IndexState, Modification,
        Permission, SortField,
    },
    limits,
};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use super::{assert_missing, invalid_field, unique};

/// A service of its own.
pub(super) fn service() -> String {
    unique("service").replace(|char: char| !char.is_ascii_alphanumeric(), "-")
}

/// A collection of a service of its own.
pub(super) async fn collection(client: &Client, declaration: Declaration) -> (String, Documents) {
    let service = service();
    let documents = client.broker(&service).collection("events");
    assert_eq!(documents.declare(declaration).await.unwrap(), format!("{service}.events"));
    (service, documents)
}

fn ids(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| document.id.as_str()).collect()
}

fn parsed(document: &Document) -> Json {
    document.parse().unwrap()
}

pub(super) fn denied<T: std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::PermissionDenied(why)) => why,
        other => panic!("not denied: {other:?}"),
    }
}

/// Waits until no index is being built any more.
pub(super) async fn built(documents: &Documents) -> Vec<CollectionIndex> {
    for _ in 0..1_200 {
        let indexes = documents.show().await.unwrap().indexes;
        if indexes.iter().all(|index| index.state != IndexState::Building) {
            return indexes;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("an index is never built");
}

pub async fn what_is_declared_is_inserted_and_found(client: &Client) {
    let indexes =
        [IndexSpec::ascending("at"), IndexSpec::of([SortField::ascending("type"), SortField::ascending("at")])];
    let (service, events) =
        collection(client, Declaration::new().index(indexes[0].clone()).index(indexes[1].clone())).await;
    for (kind, at) in [("login", "12:00"), ("error", "12:01"), ("login", "12:02")] {
        let id = events.insert(&json!({"type": kind, "at": at, "n": 9_007_199_254_740_993_i64})).await.unwrap();
        assert_eq!(id.len(), 26);
    }
    let newest = events.find(&json!({})).unwrap().sort_by_descending("at").limit(10).page().await.unwrap().items;
    assert_eq!(newest.iter().map(|event| parsed(event)["at"].clone()).collect::<Vec<_>>(), ["12:02", "12:01", "12:00"]);
    let logins = events.find(&json!({"type": "login"})).unwrap();
    let found = logins.clone().page().await.unwrap().items;
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].owner.as_str(), found[0].version), (service.as_str(), 1));
    assert_eq!(parsed(&found[0])["n"], 9_007_199_254_740_993_i64);
    assert!(found[0].created_at_ms > 0 && found[0].revision < found[1].revision);
    let explained = logins.explain().await.unwrap().explanation;
    assert!(matches!(explained.access, Access::Index { ref name, .. } if name == "type_1_at_1"), "{explained:?}");
    assert_eq!((explained.values_examined, explained.returned), (2, 2));
    assert_eq!(parsed(&events.get(&found[0].id).await.unwrap())["_id"], found[0].id);
    // It is returned as it is.
    events.declare(Declaration::new()).await.unwrap();
    let shown = events.show().await.unwrap();
    assert_eq!((shown.documents, shown.indexes.len(), shown.owner), (3, 2, service));
}

pub async fn what_was_never_declared_is_not_found(client: &Client) {
    let service = service();
    let nothing = client.broker(&service).collection("nothing");
    let name = format!("{service}.nothing");
    assert_missing(nothing.insert(&json!({"a": 1})).await, "collection", &name);
    assert_missing(nothing.find(&json!({})).unwrap().page().await, "collection", &name);
    assert_missing(nothing.count(&json!({})).await, "collection", &name);
    assert_missing(nothing.update(&json!({}), &json!({"a": 1})).await, "collection", &name);
    assert_missing(nothing.delete(&json!({})).await, "collection", &name);
    assert_missing(nothing.drop().await, "collection", &name);
    let (_, events) = collection(client, Declaration::new()).await;
    let whole = events.show().await.unwrap().name;
    assert_missing(events.get("nobody").await, "document", &format!("nobody in {whole}"));
    assert_missing(events.replace("nobody", &json!({})).await, "document", &format!("nobody in {whole}"));
    assert_eq!(events.delete(&json!({"a": 1})).await.unwrap(), 0);
}

pub async fn a_collection_is_shared_as_far_as_was_granted(client: &Client) {
    let (owner, metrics) = collection(client, Declaration::new()).await;
    let texts: Vec<Json> = (0..20).map(|n| json!({"name": "rtt", "value": n})).collect();
    metrics.insert_many(texts).await.unwrap();
    let reader = service();
    let theirs = client.broker(&reader).collection(format!("{owner}.events"));
    let query = || theirs.find(&json!({"value": {"$gte": 10}})).unwrap().sort_by("value");
    denied(query().page().await);
    denied(theirs.show().await);
    assert!(client.broker(&reader).all_collections(&owner).await.unwrap().is_empty());
    metrics.grant(&reader, Permission::Read, ("a report", None)).await.unwrap();
    assert_eq!(query().page().await.unwrap().items.len(), 10);
    let why = denied(theirs.insert(&json!({"value": 1})).await);
    assert!(why.contains(&format!("what was granted to it is read; {owner} can grant write")), "{why}");
    denied(theirs.update(&json!({}), &json!({"a": 1})).await);
    denied(theirs.delete(&json!({})).await);
    denied(theirs.grant("third", Permission::Read, ("", None)).await);
    metrics.grant(&reader, Permission::Write, ("a job", None)).await.unwrap();
    let id = theirs.insert(&json!({"value": 99})).await.unwrap();
    assert_eq!(metrics.get(&id).await.unwrap().owner, reader);
    denied(theirs.drop().await);
    let grants = metrics.all_grants().await.unwrap();
    assert_eq!(grants.len(), 1);
    assert_eq!((grants[0].service.as_str(), grants[0].permission), (reader.as_str(), Permission::Write));
    assert_eq!((grants[0].reason.as_str(), grants[0].granted_by.as_str()), ("a job", owner.as_str()));
    metrics.revoke(&reader).await.unwrap();
    denied(query().page().await);
    assert!(matches!(metrics.revoke(&reader).await, Err(Error::NotFound { kind: "grant", .. })));
    // For a while only.
    metrics.grant(&reader, Permission::Read, ("", Some(Duration::from_secs(1)))).await.unwrap();
    query().page().await.unwrap();
    for _ in 0..600 {
        if query().page().await.is_err() {
            denied(query().page().await);
            assert!(metrics.all_grants().await.unwrap().is_empty());
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the grant never ends");
}

pub async fn services_with_one_name_for_their_collections_are_kept_apart(client: &Client) {
    let (one, mine) = collection(client, Declaration::new()).await;
    let (_, theirs) = collection(client, Declaration::new()).await;
    mine.insert(&json!({"_id": "x", "of": "mine"})).await.unwrap();
    theirs.insert(&json!({"_id": "x", "of": "theirs"})).await.unwrap();
    assert_eq!(parsed(&mine.get("x").await.unwrap())["of"], "mine");
    assert_eq!(parsed(&theirs.get("x").await.unwrap())["of"], "theirs");
    // Whoever runs the cluster names both.
    let operator = client.broker("").collection(format!("{one}.events"));
    assert_eq!(parsed(&operator.get("x").await.unwrap())["of"], "mine");
    assert_eq!(invalid_field(client.broker("").collection("events").get("x").await), "collection");
    let other = client.broker(service()).collection(format!("{one}.more"));
    denied(other.declare(Declaration::new()).await);
}

pub async fn operators_projection_sort_and_limit_work_together(client: &Client) {
    let (_, metrics) = collection(client, Declaration::new().index(IndexSpec::ascending("value"))).await;
    let one =
        |n: i64| json!({"_id": format!("m{n:02}"), "name": "response_time", "value": n * 10, "tags": {"zone": n % 3}});
    metrics.insert_many((0..30).map(one)).await.unwrap();
    let filter = json!({"name": "response_time", "value": {"$gt": 100}, "tags.zone": {"$in": [0, 2]}});
    let found =
        metrics.find(&filter).unwrap().only(["value"]).sort_by_descending("value").limit(3).page().await.unwrap();
    let expected =
        [json!({"_id": "m29", "value": 290}), json!({"_id": "m27", "value": 270}), json!({"_id": "m26", "value": 260})];
    assert_eq!(found.items.iter().map(parsed).collect::<Vec<_>>(), expected);
    let without = metrics.find(&json!({"_id": "m05"})).unwrap().without(["_id", "tags", "name"]).page().await.unwrap();
    assert_eq!(without.items[0].json, r#"{"value":50}"#);
    assert_eq!(metrics.count(&filter).await.unwrap(), 13);
    assert_eq!(metrics.count(&json!({})).await.unwrap(), 30);
    assert_eq!(metrics.distinct("tags.zone", &json!({"value": {"$lt": 20}})).await.unwrap(), ["0", "1"]);
    assert!(metrics.find(&json!({})).unwrap().limit(0).page().await.unwrap().items.is_empty());
    assert_eq!(metrics.find(&json!({})).unwrap().all().await.unwrap().len(), 30);
}

pub async fn documents_are_updated_and_deleted_by_a_filter(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    for n in 0..10 {
        events.insert(&json!({"_id": format!("e{n}"), "at": n, "done": n % 2 == 0, "tags": ["a"]})).await.unwrap();
    }
    let modified =
        events.update(&json!({"at": {"$gte": 5}}), &json!({"processed": true, "by.whom": "me"})).await.unwrap();
    assert_eq!((modified.matched, modified.modified), (5, 5));
    let again = events.update(&json!({"at": {"$gte": 5}}), &json!({"processed": true})).await.unwrap();
    assert_eq!((again.matched, again.modified), (5, 0));
    let seven = events.get("e7").await.unwrap();
    assert_eq!(
        parsed(&seven),
        json!({"_id": "e7", "at": 7, "done": false, "tags": ["a"], "processed": true, "by": {"whom": "me"}})
    );
    assert_eq!(seven.version, 2);
    let operators = json!({"$inc": {"at": 100}, "$push": {"tags": "b"}, "$unset": {"done": ""}});
    assert_eq!(events.update(&json!({"_id": "e0"}), &operators).await.unwrap().modified, 1);
    assert_eq!(parsed(&events.get("e0").await.unwrap()), json!({"_id": "e0", "at": 100, "tags": ["a", "b"]}));
    assert_eq!(events.delete(&json!({"at": {"$lt": 5}, "done": true})).await.unwrap(), 2);
    assert_eq!(events.count(&json!({})).await.unwrap(), 8);
    // What cannot be done to one of them is done to none.
    assert_eq!(invalid_field(events.update(&json!({}), &json!({"$inc": {"tags": 1}})).await), "update.tags");
    assert_eq!(invalid_field(events.update(&json!({}), &json!({"$rename": {"a": "b"}})).await), "update");
    assert_eq!(events.count(&json!({"tags": 1})).await.unwrap(), 0);
    let upserted = events.upsert(&json!({"sku": "x"}), &json!({"$inc": {"n": 1}})).await.unwrap();
    assert_eq!((upserted.matched, upserted.upserted_id.len()), (0, 26));
    let upserted = events.upsert(&json!({"sku": "x"}), &json!({"$inc": {"n": 1}})).await.unwrap();
    assert_eq!((upserted.matched, upserted.upserted_id.as_str()), (1, ""));
    assert_eq!(events.count(&json!({"sku": "x", "n": 2})).await.unwrap(), 1);
}

pub async fn pages_with_skip_end_with_an_empty_one(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    events.insert_many((0..25).map(|n| json!({"at": n}))).await.unwrap();
    let (mut all, mut skip) = (Vec::new(), 0);
    loop {
        let page = events.find(&json!({})).unwrap().limit(10).skip(skip).sort_by("at").page().await.unwrap().items;
        if page.is_empty() {
            break;
        }
        all.extend(page.iter().map(|event| parsed(event)["at"].as_i64().unwrap()));
        skip += 10;
    }
    assert_eq!(all, (0..25).collect::<Vec<_>>());
}

pub async fn a_cursor_shows_one_revision_while_others_write(client: &Client) {
    let (_, events) = collection(client, Declaration::new().index(IndexSpec::ascending("at"))).await;
    events.insert_many((0..30).map(|n| json!({"_id": format!("e{n:02}"), "at": n}))).await.unwrap();
    for sorted in [false, true] {
        let query = events.find(&json!({"at": {"$gte": 0}})).unwrap().limit(7);
        let query = if sorted { query.sort_by_descending("at") } else { query };
        let (mut seen, mut cursor, mut round) = (BTreeSet::new(), String::new(), 0);
        loop {
            let page = query.clone().cursor(cursor).page().await.unwrap();
            seen.extend(page.items.into_iter().map(|event| event.id));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                break;
            }
            round += 1;
            events.insert(&json!({"at": 3})).await.unwrap();
            events.update(&json!({"_id": format!("e{round:02}")}), &json!({"$inc": {"at": -100}})).await.unwrap();
        }
        assert_eq!(seen.iter().filter(|id| id.starts_with('e')).count(), if sorted { 26 } else { 30 });
    }
    let cursor = events.find(&json!({})).unwrap().limit(1).page().await.unwrap().next_cursor;
    let other = events.find(&json!({"at": 1})).unwrap().cursor(&cursor).page().await;
    assert_eq!(invalid_field(other), "cursor");
    assert_eq!(invalid_field(events.find(&json!({})).unwrap().cursor(cursor).skip(1).page().await), "skip");
}

pub async fn of_many_documents_those_go_in_that_can(client: &Client) {
    let (_, events) = collection(client, Declaration::new().index(IndexSpec::ascending("email").unique())).await;
    events.insert(&json!({"_id": "a", "email": "a@x"})).await.unwrap();
    let documents = [
        json!({"_id": "b", "email": "b@x"}),
        json!({"_id": "a", "email": "other@x"}),
        json!({"_id": "c", "email": "a@x"}),
        json!({"_id": 7}),
        json!([1]),
    ];
    let results = events.insert_each(&documents).await.unwrap();
    let said: Vec<(&str, bool)> = results.iter().map(|result| (result.id.as_str(), result.error.is_empty())).collect();
    assert_eq!(said, [("b", true), ("a", false), ("c", false), ("", false), ("", false)]);
    assert!(results[2].error.contains("a, which has the same in the unique index email_1"), "{}", results[2].error);
    assert_eq!(events.count(&json!({})).await.unwrap(), 2);
    let all = events.insert_many([json!({"email": "d@x"}), json!({"email": "b@x"})]).await;
    assert!(matches!(all, Err(Error::AlreadyExists { kind: "document", .. })), "{all:?}");
    assert_eq!(events.count(&json!({})).await.unwrap(), 2);
    // Two in one call that are alike.
    let twins = events.insert_many([json!({"email": "t@x"}), json!({"email": "t@x"})]).await;
    assert!(twins.is_err());
    let update = events.update(&json!({"_id": "b"}), &json!({"email": "a@x"})).await;
    assert!(matches!(update, Err(Error::AlreadyExists { ref name, .. }) if name.starts_with("a, ")), "{update:?}");
    // Nothing is as null, and there may be one of it.
    events.insert(&json!({"_id": "none"})).await.unwrap();
    assert!(events.insert(&json!({"email": null})).await.is_err());
    events.delete(&json!({"_id": "a"})).await.unwrap();
    events.insert(&json!({"email": "a@x"})).await.unwrap();
}

pub async fn what_is_unique_stays_so_under_64_writers(client: &Client) {
    let (_, events) = collection(client, Declaration::new().index(IndexSpec::ascending("number").unique())).await;
    let mut writers = JoinSet::new();
    for writer in 0..64 {
        let events = events.clone();
        writers.spawn(async move {
            let mut won = 0;
            for number in 0..8 {
                match events.insert(&json!({"number": number, "writer": writer})).await {
                    Ok(_) => won += 1,
                    Err(Error::AlreadyExists { .. } | Error::Conflict(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            won
        });
    }
    let won: i32 = writers.join_all().await.into_iter().sum();
    assert_eq!(won, 8);
    assert_eq!(events.distinct("number", &json!({})).await.unwrap().len(), 8);
    assert_eq!(events.count(&json!({})).await.unwrap(), 8);
}

pub async fn each_job_is_taken_once(client: &Client) {
    let (_, jobs) = collection(client, Declaration::new().index(IndexSpec::ascending("state"))).await;
    jobs.insert_many((0..24).map(|n| json!({"state": "new", "n": n}))).await.unwrap();
    let mut workers = JoinSet::new();
    for worker in 0..6 {
        let jobs = jobs.clone();
        workers.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let modification = Modification {
                    filter: json!({"state": "new"}).to_string(),
                    update: json!({"state": "taken", "by": worker}).to_string(),
                    ..Modification::default()
                };
                let wanted = FindAndUpdate { modification, sort: vec![SortField::ascending("n")], before: false };
                match jobs.find_and_update(wanted).await {
                    Ok(Some(job)) => {
                        assert_eq!(
                            (&parsed(&job)["state"], parsed(&job)["by"].as_i64()),
                            (&json!("taken"), Some(worker))
                        );
                        taken.push(parsed(&job)["n"].as_i64().unwrap());
                    }
                    Ok(None) => return taken,
                    Err(Error::Conflict(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let mut taken: Vec<i64> = workers.join_all().await.into_iter().flatten().collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..24).collect::<Vec<_>>());
    let modification = Modification {
        filter: json!({"n": 3}).to_string(),
        update: json!({"state": "done"}).to_string(),
        ..Modification::default()
    };
    let before = FindAndUpdate { modification: modification.clone(), before: true, ..FindAndUpdate::default() };
    assert_eq!(parsed(&jobs.find_and_update(before).await.unwrap().unwrap())["state"], "taken");
    let same = FindAndUpdate { modification, ..FindAndUpdate::default() };
    assert_eq!(parsed(&jobs.find_and_update(same).await.unwrap().unwrap())["state"], "done");
}

pub async fn a_write_may_ask_for_a_revision(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    events.insert(&json!({"_id": "a", "n": 1})).await.unwrap();
    let first = events.get("a").await.unwrap().revision;
    let second = events.replace_if("a", &json!({"n": 2}), first).await.unwrap().revision;
    assert!(matches!(events.replace_if("a", &json!({"n": 3}), first).await, Err(Error::ConditionFailed(_))));
    let modification = |revision| Modification {
        filter: json!({"_id": "a"}).to_string(),
        update: json!({"n": 4}).to_string(),
        if_revision: Some(revision),
        ..Modification::default()
    };
    assert!(matches!(events.modify(modification(first)).await, Err(Error::ConditionFailed(_))));
    assert_eq!(events.modify(modification(second)).await.unwrap().modified, 1);
    assert!(matches!(events.replace_if("b", &json!({}), second).await, Err(Error::NotFound { .. })));
    events.replace_if("b", &json!({"new": true}), 0).await.unwrap();
    assert!(matches!(events.replace_if("b", &json!({}), 0).await, Err(Error::ConditionFailed(_))));
    assert_eq!(invalid_field(events.replace("a", &json!({"_id": "b"})).await), "_id");
}

pub async fn documents_go_when_their_time_is_over(client: &Client) {
    let (_, cache) = collection(client, Declaration::new().ttl(Duration::from_secs(1))).await;
    cache.insert(&json!({"_id": "k", "value": 1})).await.unwrap();
    assert_eq!(parsed(&cache.get("k").await.unwrap())["value"], 1);
    for _ in 0..600 {
        if cache.count(&json!({})).await.unwrap() == 0 {
            assert!(matches!(cache.get("k").await, Err(Error::NotFound { .. })));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the document never goes");
}

pub async fn a_collection_holds_no_more_than_it_may(client: &Client) {
    let (_, events) = collection(client, Declaration::new().at_most(2, 0)).await;
    events.insert_many([json!({"_id": "a"}), json!({"_id": "b"})]).await.unwrap();
    match events.insert(&json!({})).await {
        Err(Error::Refused(why)) => assert!(why.contains("holds at most 2 documents"), "{why}"),
        other => panic!("{other:?}"),
    }
    events.update(&json!({"_id": "a"}), &json!({"n": 1})).await.unwrap();
    events.delete(&json!({"_id": "a"})).await.unwrap();
    events.insert(&json!({})).await.unwrap();
}

pub async fn an_index_is_built_behind_what_is_there(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    for part in 0..3 {
        let documents =
            (0..400).map(|n| json!({"_id": format!("e{part}{n:03}"), "n": n, "list": [n, -n], "open": n % 4 == 0}));
        events.insert_many(documents).await.unwrap();
    }
    let declaration = Declaration::new()
        .index(IndexSpec::ascending("list"))
        .index(IndexSpec::ascending("n").only(json!({"open": true}).to_string()).named("open"))
        .index(IndexSpec::ascending("n").unique().named("twice"));
    events.declare(declaration).await.unwrap();
    // Whatever is built yet, the answers are right.
    let filter = json!({"list": {"$lte": -390}});
    let writer = tokio::spawn({
        let events = events.clone();
        async move {
            for n in 0..50 {
                events.insert(&json!({"n": -1 - n, "list": [-500]})).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let found = events.find(&filter).unwrap().all().await.unwrap();
        assert!(found.len() >= 30 && found.iter().filter(|event| event.id.starts_with('e')).count() == 30);
    }
    writer.await.unwrap();
    let indexes = built(&events).await;
    assert_eq!(indexes[0].state, IndexState::Ready);
    assert_eq!(indexes[1].state, IndexState::Ready);
    match &indexes[2].state {
        IndexState::Failed(why) => assert!(why.contains("e0000 and e1000 have the same"), "{why}"),
        other => panic!("{other:?}"),
    }
    let explained = events.find(&filter).unwrap().explain().await.unwrap();
    assert!(matches!(explained.explanation.access, Access::Index { ref name, .. } if name == "list_1"));
    assert_eq!(explained.explanation.values_examined, 80);
    let partial = events.find(&json!({"n": 8, "open": true})).unwrap().explain().await.unwrap();
    assert!(matches!(partial.explanation.access, Access::Index { ref name, .. } if name == "open"));
    assert_eq!(ids(&partial.documents), ["e0008", "e1008", "e2008"]);
    // What failed keeps nobody from writing, and is built when it is declared again and can be.
    events.insert(&json!({"n": 1})).await.unwrap();
    events.delete(&json!({"n": {"$gte": 0}, "_id": {"$gte": "e1"}})).await.unwrap();
    events.delete(&json!({"_id": {"$lt": "e"}, "n": 1})).await.unwrap();
    events.declare(Declaration::new().index(IndexSpec::ascending("n").unique().named("twice"))).await.unwrap();
    assert!(built(&events).await.iter().all(|index| index.state == IndexState::Ready));
    assert!(events.insert(&json!({"n": 7})).await.is_err());
}

pub async fn documents_of_any_shape_live_together(client: &Client) {
    let (_, events) = collection(client, Declaration::new()).await;
    let texts = [
        json!({"_id": "1", "id": 123, "at": "2025"}),
        json!({"_id": "2", "id": "456", "at": "2026", "new_field": "value", "schema_version": 2}),
        json!({"_id": "3"}),
    ];
    events.insert_many(&texts).await.unwrap();
    let new = events.find(&json!({"schema_version": {"$gte": 2}})).unwrap().page().await.unwrap().items;
    assert_eq!(ids(&new), ["2"]);
    let old = events.find(&json!({"schema_version": {"$ne": 2}})).unwrap().page().await.unwrap().items;
    assert_eq!(ids(&old), ["1", "3"]);
    let typed: Vec<Json> = events.find(&json!({})).unwrap().all().await.unwrap().iter().map(parsed).collect();
    assert_eq!(typed, texts);
}

pub async fn names_documents_and_filters_are_checked(client: &Client) {
    let service = service();
    let of = |name: &str| client.broker(&service).collection(name);
    for name in ["", "a/b", "../etc", "a b", "a.b.c", "é", ".x"] {
        assert_eq!(invalid_field(of(name).declare(Declaration::new()).await), "collection", "{name}");
    }
    assert_eq!(invalid_field(client.broker("a.b").collection("c").declare(Declaration::new()).await), "service");
    let (_, events) = collection(client, Declaration::new()).await;
    let large = "x".repeat(limits::VALUE_BYTES);
    assert_eq!(invalid_field(events.insert(&json!({"a": large})).await), "document");
    assert_eq!(invalid_field(events.insert(&json!({"_revision": 1})).await), "document");
    assert_eq!(invalid_field(events.insert(&json!("text")).await), "document");
    assert_eq!(invalid_field(events.insert_many(Vec::<Json>::new()).await), "documents");
    for (filter, field) in [
        (json!({"a": {"$like": 1}}), "filter.a.$like"),
        (json!({"a": {"$regex": "("}}), "filter.a.$regex"),
        (json!({"a": {"$gt": []}}), "filter.a.$gt"),
        (json!([1]), "filter"),
    ] {
        assert_eq!(invalid_field(events.find(&filter).unwrap().page().await), field);
        assert_eq!(invalid_field(events.count(&filter).await), field);
        assert_eq!(invalid_field(events.delete(&filter).await), field);
    }
    assert_eq!(invalid_field(events.find(&json!({})).unwrap().only(["$a"]).page().await), "projection.include");
    assert_eq!(invalid_field(events.find(&json!({})).unwrap().limit(1_001).page().await), "limit");
    assert_eq!(invalid_field(events.grant("a/b", Permission::Read, ("", None)).await), "service");
    let short = Some(Duration::from_millis(5));
    assert_eq!(invalid_field(events.grant("b", Permission::Read, ("", short)).await), "ttl_ms");
    let many = events.show().await.unwrap();
    assert_eq!(many.documents, 0);
}

pub async fn what_is_dropped_is_gone_at_once(client: &Client) {
    let (service, events) = collection(client, Declaration::new().index(IndexSpec::ascending("n").unique())).await;
    events.insert_many((0..100).map(|n| json!({"n": n}))).await.unwrap();
    events.grant("reader", Permission::Read, ("", None)).await.unwrap();
    events.drop().await.unwrap();
    assert_missing(events.count(&json!({})).await, "collection", &format!("{service}.events"));
    events.declare(Declaration::new()).await.unwrap();
    let shown = events.show().await.unwrap();
    assert_eq!((shown.documents, shown.indexes.len()), (0, 0));
    assert!(events.all_grants().await.unwrap().is_empty());
}
