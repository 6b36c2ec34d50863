//! What each call of the contract means: every operation, option and error, and what must be refused.

use std::{collections::BTreeSet, fmt::Debug};

use meshstore::{
    Error, Result,
    client::{
        Condition, DeleteResult, Deletion, Entry, KeyFilter, NamespaceChange, NamespaceSettings, PageRequest, Set,
        Value, Version,
    },
    limits,
};
use tokio::task::JoinSet;

use super::{
    super::cases::{assert_missing, invalid_field, unique},
    through::{Kv, Through},
};

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

/// A namespace of its own, with a value in it.
async fn namespace(storage: &Through) -> (String, Kv) {
    let name = unique("namespace");
    let kv = storage.kv(&name);
    kv.set(Set::new("first", json("1"))).await.unwrap();
    (name, kv)
}

fn in_namespace(key: &str, namespace: &str) -> String {
    format!("{key} in namespace {namespace}")
}

fn unmet<T: Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::ConditionFailed(what)) => what,
        other => panic!("not unmet: {other:?}"),
    }
}

fn refused<T: Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

async fn keys(kv: &Kv, pattern: &str) -> Vec<String> {
    kv.list_all(pattern).await.unwrap()
}

pub async fn a_value_is_kept_exactly_with_what_is_known_of_it(storage: &Through) {
    let (_, kv) = namespace(storage).await;
    let texts = ["{ \"n\" : 90071992547409931, \"n\": 1.0 }\n", "null", "\"\u{10ffff}\"", "[]", " 1"];
    for text in texts {
        kv.set(Set::new("json", json(text))).await.unwrap();
        assert_eq!(kv.get("json").await.unwrap().value, json(text));
    }
    let bytes = Value::Bytes(vec![0, 0xFF, b'{'].into());
    assert_eq!(kv.set(Set::new("json", bytes.clone())).await.unwrap().version, 6);
    let entry = kv.get("json").await.unwrap();
    assert_eq!((entry.key.as_str(), &entry.value), ("json", &bytes));
    let metadata = entry.metadata;
    assert_eq!((metadata.version, metadata.attributes.as_deref(), metadata.attributes_revision), (6, Some("{}"), 0));
    assert!(metadata.create_revision < metadata.mod_revision && metadata.created_at_ms <= metadata.updated_at_ms);
    assert!(!metadata.principal.is_empty());
    assert_eq!(kv.metadata("json").await.unwrap(), metadata);
    assert_eq!(kv.set_json("typed", &serde_json::json!({ "a": [1, 2] })).await.unwrap().version, 1);
    assert_eq!(kv.get("typed").await.unwrap().value.parse::<serde_json::Value>().unwrap()["a"][1], 2);
    kv.set(Set::new("empty", Value::Bytes(Default::default()))).await.unwrap();
    assert!(kv.get("empty").await.unwrap().value.is_empty());
}

pub async fn the_default_namespace_always_exists(storage: &Through) {
    let (unnamed, named) = (storage.kv(""), storage.kv("default"));
    let key = unique("key");
    assert_missing(unnamed.get(&key).await, "value", &in_namespace(&key, "default"));
    assert!(!named.has(&key).await.unwrap() && !named.delete(&key).await.unwrap());
    unnamed.set(Set::new(&key, json("1"))).await.unwrap();
    assert_eq!(named.get(&key).await.unwrap().value, json("1"));
    let namespaces = storage.namespaces();
    assert!(namespaces.list_all().await.unwrap().iter().any(|namespace| namespace.name == "default"));
    assert_eq!(namespaces.show("").await.unwrap().name, "default");
    assert_eq!(invalid_field(namespaces.delete("default", true).await), "namespace");
    assert_eq!(invalid_field(namespaces.delete("", true).await), "namespace");
    let exists = namespaces.create("default", "", NamespaceSettings::default()).await;
    assert_eq!(exists.unwrap_err(), Error::AlreadyExists { kind: "namespace", name: "default".into() });
    assert!(named.delete(&key).await.unwrap());
}

pub async fn a_write_creates_its_namespace_and_nothing_else_does(storage: &Through) {
    let name = unique("namespace");
    let kv = storage.kv(&name);
    assert_missing(kv.get("k").await, "namespace", &name);
    assert_missing(kv.has("k").await, "namespace", &name);
    assert_missing(kv.get_many(vec!["k".into()]).await, "namespace", &name);
    assert_missing(kv.delete("k").await, "namespace", &name);
    assert_missing(kv.delete_many(vec!["k".into()]).await, "namespace", &name);
    assert_missing(kv.list(KeyFilter::default()).await, "namespace", &name);
    assert_missing(kv.count().await, "namespace", &name);
    assert_missing(kv.metadata("k").await, "namespace", &name);
    assert_missing(kv.set_metadata("k", "{}", true).await, "namespace", &name);
    assert_missing(kv.history("k").await, "namespace", &name);
    kv.clear().await.unwrap();
    assert_missing(storage.namespaces().show(&name).await, "namespace", &name);
    kv.set(Set::new("k", json("1"))).await.unwrap();
    let shown = storage.namespaces().show(&name).await.unwrap();
    assert_eq!((shown.entries, shown.metadata.value.as_str(), shown.metadata.version), (1, "{}", 1));
    assert_eq!(shown.settings, NamespaceSettings::default());
    assert_missing(kv.get("other").await, "value", &in_namespace("other", &name));
}

pub async fn one_key_is_another_value_in_each_namespace(storage: &Through) {
    let ((_, one), (_, other)) = (namespace(storage).await, namespace(storage).await);
    one.set(Set::new("k", json("1"))).await.unwrap();
    assert!(!other.has("k").await.unwrap());
    other.set(Set::new("k", json("2"))).await.unwrap();
    assert!(one.delete("k").await.unwrap());
    assert_eq!(other.get("k").await.unwrap().value, json("2"));
}

pub async fn deleting_what_is_not_there_is_no_error(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    assert!(!kv.delete("k").await.unwrap());
    kv.set(Set::new("k", json("1")).attributes("{\"a\":1}")).await.unwrap();
    assert!(kv.delete("k").await.unwrap());
    assert!(!kv.delete("k").await.unwrap());
    assert_missing(kv.get("k").await, "value", &in_namespace("k", &name));
    // Its attributes went with it.
    assert_eq!(kv.set(Set::new("k", json("2"))).await.unwrap().version, 1);
    assert_eq!(kv.metadata("k").await.unwrap().attributes.as_deref(), Some("{}"));
    let deleted = kv.delete_many(vec!["no".into(), "k".into(), "first".into(), "k".into()]).await.unwrap();
    assert_eq!(deleted, [("no".to_owned(), false), ("k".to_owned(), true), ("first".to_owned(), true)]);
    assert_eq!(kv.count().await.unwrap(), 0);
}

pub async fn what_is_there_is_overwritten_only_if_it_may_be(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let exists = Error::AlreadyExists { kind: "value", name: in_namespace("first", &name) };
    assert_eq!(kv.set(Set::new("first", json("2")).create()).await.unwrap_err(), exists);
    assert_eq!(kv.get("first").await.unwrap().value, json("1"));
    assert_eq!(kv.set(Set::new("second", json("2")).create()).await.unwrap().version, 1);
    assert!(kv.delete("first").await.unwrap());
    assert_eq!(kv.set(Set::new("first", json("3")).create()).await.unwrap().version, 1);
}

pub async fn a_condition_that_does_not_hold_changes_nothing(storage: &Through) {
    let (_, kv) = namespace(storage).await;
    let before = kv.get("first").await.unwrap();
    let set = |condition| kv.set(Set::new("first", json("2")).only_if(condition));
    for condition in [
        Condition::Missing,
        Condition::Version(0),
        Condition::Version(2),
        Condition::ModRevision(before.metadata.mod_revision + 1),
    ] {
        let what = unmet(set(condition).await);
        assert!(what.contains("it has version 1"), "{what}");
        unmet(kv.delete_if("first", condition).await);
    }
    assert!(unmet(kv.set(Set::new("no", json("2")).only_if(Condition::Exists)).await).contains("is not there"));
    assert!(unmet(kv.delete_if("no", Condition::Exists).await).contains("is not there"));
    assert_eq!(kv.get("first").await.unwrap(), before);
    assert_eq!(set(Condition::Exists).await.unwrap().version, 2);
    assert_eq!(set(Condition::Version(2)).await.unwrap().version, 3);
    let now = kv.metadata("first").await.unwrap().mod_revision;
    assert_eq!(set(Condition::ModRevision(now)).await.unwrap().version, 4);
    assert_eq!(kv.set(Set::new("new", json("1")).only_if(Condition::Version(0))).await.unwrap().version, 1);
    assert!(kv.delete_if("first", Condition::Version(4)).await.unwrap());
}

pub async fn several_are_deleted_all_or_none_or_each_that_may_be(storage: &Through) {
    let (_, kv) = namespace(storage).await;
    for key in ["a", "b"] {
        kv.set(Set::new(key, json("1"))).await.unwrap();
    }
    let deletion = |key: &str, condition| Deletion { key: key.into(), condition };
    let several = || {
        let held = deletion("a", Some(Condition::Version(1)));
        vec![held, deletion("b", Some(Condition::Version(7))), deletion("no", None), "first".into(), deletion("", None)]
    };
    // All or none: the first thing that is wrong is told, and nothing is changed.
    assert_eq!(invalid_field(kv.delete_many_as(several(), false).await), "key");
    assert!(unmet(kv.delete_many_as(several()[..4].to_vec(), false).await).contains("it has version 1"));
    assert_eq!(kv.count().await.unwrap(), 3);
    let results = kv.delete_many_as(several(), true).await.unwrap();
    let became = |result: &DeleteResult| (result.key.clone(), result.deleted, result.error.is_empty());
    let expected =
        [("a", true, true), ("b", false, false), ("no", false, true), ("first", true, true), ("", false, false)];
    assert_eq!(results.iter().map(became).collect::<Vec<_>>(), expected.map(|(key, d, e)| (key.to_owned(), d, e)));
    assert!(results[1].error.contains("it has version 1"), "{results:?}");
    assert_eq!(kv.list(KeyFilter::default()).await.unwrap().items, ["b"]);
    let none = kv.delete_many_as(vec![deletion("b", Some(Condition::Missing))], true).await.unwrap();
    assert!(!none[0].error.is_empty() && kv.has("b").await.unwrap());
}

pub async fn attributes_are_merged_or_replaced(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let attributes = async |key: &str| kv.metadata(key).await.unwrap().attributes.unwrap();
    kv.set(Set::new("k", json("1")).attributes(r#"{"b": 1.0,"a":{"x":90071992547409931}}"#)).await.unwrap();
    kv.set(Set::new("k", json("2"))).await.unwrap();
    assert_eq!(attributes("k").await, r#"{"b": 1.0,"a":{"x":90071992547409931}}"#);
    kv.set(Set::new("k", json("3")).attributes(r#"{"b":2,"c":null}"#)).await.unwrap();
    assert_eq!(attributes("k").await, r#"{"a":{"x":90071992547409931},"b":2,"c":null}"#);
    let before = kv.metadata("k").await.unwrap();
    let written = kv.set_metadata("k", r#"{"d":4}"#, true).await.unwrap();
    let after = kv.metadata("k").await.unwrap();
    assert_eq!(after.attributes_revision, written);
    assert_eq!((after.version, after.mod_revision), (before.version, before.mod_revision), "the value is as it was");
    assert!(after.updated_at_ms >= before.updated_at_ms);
    kv.set_metadata("k", r#"{"e":5}"#, false).await.unwrap();
    assert_eq!(attributes("k").await, r#"{"e":5}"#);
    unmet(kv.set_metadata_if("k", "{}", false, written).await);
    let now = kv.metadata("k").await.unwrap().attributes_revision;
    kv.set_metadata_if("k", r#"{"f":6}"#, true, now).await.unwrap();
    assert_eq!(attributes("k").await, r#"{"e":5,"f":6}"#);
    kv.set_metadata_if("first", r#"{"g":7}"#, true, 0).await.unwrap();
    assert_missing(kv.set_metadata("no", "{}", true).await, "value", &in_namespace("no", &name));
    for wrong in ["", "1", "[]", "null", "{", "{}{}"] {
        assert_eq!(invalid_field(kv.set_metadata("k", wrong, true).await), "metadata", "{wrong}");
        assert_eq!(invalid_field(kv.set(Set::new("k", json("9")).attributes(wrong)).await), "metadata", "{wrong}");
    }
    let half = format!("{{\"{}\":1}}", "x".repeat(limits::ATTRIBUTES_BYTES / 2));
    kv.set_metadata("k", &half, true).await.unwrap();
    let other = half.replace('x', "y");
    assert_eq!(invalid_field(kv.set_metadata("k", &other, true).await), "metadata");
    assert_eq!(kv.get("k").await.unwrap().value, json("3"));
}

pub async fn several_values_are_read_at_one_revision(storage: &Through) {
    let (_, kv) = namespace(storage).await;
    kv.set_many(vec![Set::new("b", json("2")), Set::new("a", json("1")).attributes("{\"x\":1}")]).await.unwrap();
    let asked = ["b", "no", "a", "b"].map(str::to_owned).to_vec();
    let (found, missing) = kv.get_many(asked).await.unwrap();
    let names: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((names, missing), (vec!["b", "a", "b"], vec!["no".to_owned()]));
    assert_eq!(found[1].metadata.attributes.as_deref(), Some("{\"x\":1}"));
    assert_eq!(found[0].metadata.mod_revision, found[1].metadata.mod_revision, "one transaction");
    assert_eq!(kv.get_many(vec![]).await.unwrap(), (vec![], vec![]));
    let many = (0..=limits::KEYS).map(|n| n.to_string()).collect();
    assert_eq!(invalid_field(kv.get_many(many).await), "keys");
    let large = || Value::Bytes(vec![0; limits::VALUE_BYTES].into());
    for n in 0..4 {
        kv.set(Set::new(format!("large/{n}"), large())).await.unwrap();
    }
    assert_eq!(invalid_field(kv.get_many(keys(&kv, "large/*").await).await), "keys");
}

pub async fn several_values_are_written_all_or_none(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let sets = |last: Set| vec![Set::new("a", json("1")), Set::new("b", json("2")), last];
    let exists = Error::AlreadyExists { kind: "value", name: in_namespace("first", &name) };
    assert_eq!(kv.set_many(sets(Set::new("first", json("2")).create())).await.unwrap_err(), exists);
    unmet(kv.set_many(sets(Set::new("first", json("2")).only_if(Condition::Version(7)))).await);
    assert_eq!(invalid_field(kv.set_many(sets(Set::new("c", json("{")))).await), "value");
    assert_eq!(invalid_field(kv.set_many(sets(Set::new("", json("1")))).await), "key");
    assert_eq!(invalid_field(kv.set_many(vec![]).await), "sets");
    let many = (0..=limits::CHANGES).map(|n| Set::new(n.to_string(), json("1"))).collect();
    assert_eq!(invalid_field(kv.set_many(many).await), "sets");
    assert_eq!(keys(&kv, "").await, ["first"]);
    let results = kv.set_many(sets(Set::new("a", json("3")))).await.unwrap();
    let results: Vec<(String, u64)> = results.into_iter().map(|result| (result.key, result.version)).collect();
    // Of two with one key the last counts.
    assert_eq!(results, [("b".to_owned(), 1), ("a".to_owned(), 1)]);
    assert_eq!(kv.get("a").await.unwrap().value, json("3"));
}

pub async fn several_values_are_written_as_far_as_possible(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let sets = vec![
        Set::new("first", json("2")).create(),
        Set::new("a", json("1")),
        Set::new("bad", json("{")),
        Set::new("b", json("2")).only_if(Condition::Exists),
        Set::new("first-2", json("2")).create(),
    ];
    let results = kv.set_each(sets).await.unwrap();
    let written: Vec<(&str, u64)> = results.iter().map(|result| (result.key.as_str(), result.version)).collect();
    assert_eq!(written, [("first", 0), ("a", 1), ("bad", 0), ("b", 0), ("first-2", 1)]);
    assert!(results[0].error.contains(&format!("exists already: {}", in_namespace("first", &name))), "{results:?}");
    assert!(results[1].error.is_empty() && results[2].error.contains("one JSON value"), "{results:?}");
    assert!(results[3].error.contains("is not there"), "{results:?}");
    assert_eq!(keys(&kv, "").await, ["a", "first", "first-2"]);
    let none = kv.set_each(vec![Set::new("first", json("2")).create()]).await.unwrap();
    assert_eq!((none[0].version, none[0].error.is_empty()), (0, false));
}

pub async fn a_list_is_in_key_order_and_its_pattern_selects(storage: &Through) {
    let (_, kv) = namespace(storage).await;
    let names = ["user:10", "user:2", "user:1", "admin:1", "user:*", "user:%", "us\\er", "\u{fc}ser"];
    kv.set_many(names.iter().map(|name| Set::new(*name, json("1"))).collect()).await.unwrap();
    assert!(kv.delete("first").await.unwrap());
    let mut sorted: Vec<&str> = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(keys(&kv, "").await, sorted);
    assert_eq!(keys(&kv, "*").await, sorted);
    assert_eq!(keys(&kv, "user:1").await, ["user:1"]);
    assert_eq!(keys(&kv, "user:1*").await, ["user:1", "user:10"]);
    assert_eq!(keys(&kv, "*:1").await, ["admin:1", "user:1"]);
    assert_eq!(keys(&kv, "*er:*").await, ["user:%", "user:*", "user:1", "user:10", "user:2"]);
    assert_eq!(keys(&kv, "*r:1*0").await, ["user:10"]);
    assert_eq!(keys(&kv, "user:\\*").await, ["user:*"]);
    assert_eq!(keys(&kv, "us\\\\*").await, ["us\\er"]);
    assert_eq!(keys(&kv, "u_er:%").await, Vec::<String>::new());
    for wrong in ["\\", "a\\b"] {
        assert_eq!(invalid_field(kv.list_all(wrong).await), "pattern");
    }
}

pub async fn a_list_has_limit_offset_and_pages(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    assert!(kv.delete("first").await.unwrap());
    let all: Vec<String> = (0..120).map(|n| format!("k{n:03}")).collect();
    kv.set_many(all.iter().map(|key| Set::new(key, json("1"))).collect()).await.unwrap();
    let list = async |limit, offset, cursor: &str| {
        let filter = KeyFilter { pattern: "k*".into(), limit, offset, cursor: cursor.into() };
        kv.list(filter).await
    };
    assert_eq!(list(None, 0, "").await.unwrap().items, all[..100]);
    let none = list(Some(0), 0, "").await.unwrap();
    assert_eq!((none.items.len(), none.next_cursor.as_str()), (0, ""));
    assert_eq!(list(Some(10), 115, "").await.unwrap().items, all[115..]);
    assert_eq!(list(Some(10), 120, "").await.unwrap().items, [""; 0]);
    assert_eq!(list(Some(10), u64::MAX, "").await.unwrap().items, [""; 0]);
    let whole = list(Some(5), 115, "").await.unwrap();
    assert_eq!((whole.items.len(), whole.next_cursor.as_str()), (5, ""), "the end is known without another call");
    let first = list(Some(50), 30, "").await.unwrap();
    kv.delete_many(all[..60].to_vec()).await.unwrap();
    let second = list(Some(50), 0, &first.next_cursor).await.unwrap();
    assert_eq!((&first.items[..], &second.items[..]), (&all[30..80], &all[80..]));
    assert_eq!((first.revision, second.next_cursor.as_str()), (second.revision, ""));
    assert_eq!(invalid_field(list(Some(50), 1, &first.next_cursor).await), "offset");
    assert_eq!(invalid_field(list(Some(1_001), 0, "").await), "limit");
    assert_eq!(invalid_field(list(None, 0, "nonsense").await), "cursor");
    let other = KeyFilter { pattern: "*".into(), cursor: first.next_cursor.clone(), ..KeyFilter::default() };
    assert_eq!(invalid_field(kv.list(other).await), "cursor");
    let elsewhere = KeyFilter { pattern: "k*".into(), cursor: first.next_cursor, ..KeyFilter::default() };
    assert_eq!(invalid_field(storage.kv(format!("{name}x")).list(elsewhere).await), "cursor");
}

pub async fn values_are_counted(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    assert_eq!(kv.count().await.unwrap(), 1);
    kv.set_many((0..50).map(|n| Set::new(n.to_string(), json("1")).attributes("{}")).collect()).await.unwrap();
    assert_eq!(kv.count().await.unwrap(), 51);
    kv.set(Set::new("1", json("2"))).await.unwrap();
    assert!(kv.delete("2").await.unwrap());
    assert_eq!(kv.count().await.unwrap(), 50);
    let shown = storage.namespaces().show(&name).await.unwrap();
    assert_eq!(shown.entries, 50);
    assert!(shown.bytes > 50 * 64, "{}", shown.bytes);
    let status = storage.namespaces().status().await.unwrap();
    assert!(status.healthy && status.entries >= 50 && status.bytes >= shown.bytes && status.namespaces >= 2);
    assert_eq!(status.capacity, None);
}

pub async fn a_namespace_is_created_shown_listed_and_modified(storage: &Through) {
    let (namespaces, name) = (storage.namespaces(), unique("namespace"));
    let settings = NamespaceSettings { history: 3, max_entries: 10, max_bytes: 10_000 };
    let written = namespaces.create(&name, r#"{"owner": "billing"}"#, settings).await.unwrap();
    let shown = namespaces.show(&name).await.unwrap();
    assert_eq!((shown.settings, shown.metadata.value.as_str()), (settings, r#"{"owner": "billing"}"#));
    assert_eq!((shown.metadata.mod_revision, shown.entries, shown.bytes), (written, 0, 0));
    let again = namespaces.create(&name, "", NamespaceSettings::default()).await;
    assert_eq!(again.unwrap_err(), Error::AlreadyExists { kind: "namespace", name: name.clone() });
    let change = NamespaceChange { history: Some(0), max_bytes: Some(0), ..NamespaceChange::default() };
    namespaces.modify(&name, change).await.unwrap();
    let change = NamespaceChange { metadata: Some("{}".into()), ..NamespaceChange::default() };
    namespaces.modify(&name, change).await.unwrap();
    let shown = namespaces.show(&name).await.unwrap();
    let expected = NamespaceSettings { history: 0, max_entries: 10, max_bytes: 0 };
    assert_eq!((shown.settings, shown.metadata.value.as_str()), (expected, "{}"));
    let too_many = NamespaceSettings { history: 65, ..settings };
    assert_eq!(invalid_field(namespaces.create(&unique("n"), "", too_many).await), "history");
    assert_eq!(invalid_field(namespaces.create(&unique("n"), "[]", settings).await), "metadata");
    let missing = unique("missing");
    assert_missing(namespaces.modify(&missing, NamespaceChange::default()).await, "namespace", &missing);
    let all = namespaces.list_all().await.unwrap();
    assert!(all.is_sorted_by(|one, next| one.name < next.name), "in order, and each once");
    assert_eq!(all.iter().filter(|one| one.name == "default" || one.name == name).count(), 2);
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = namespaces.list(PageRequest { limit: 1, cursor }).await.unwrap();
        paged.extend(page.items.into_iter().map(|one| one.name));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all.iter().map(|one| one.name.clone()).collect::<Vec<_>>());
}

pub async fn names_of_namespaces_are_checked(storage: &Through) {
    let principal = format!("principal://{}", unique("id"));
    storage.kv(&principal).set(Set::new("k", json("1"))).await.unwrap();
    assert_eq!(storage.kv(&principal).get("k").await.unwrap().value, json("1"));
    let long = "n".repeat(limits::ID_BYTES + 1);
    for wrong in ["a/b", "a:b", "a*", "principal://", "principal://a/b", "principal:x", " ", "a\nb", &long] {
        let kv = storage.kv(wrong);
        assert_eq!(invalid_field(kv.set(Set::new("k", json("1"))).await), "namespace", "{wrong}");
        assert_eq!(invalid_field(kv.get("k").await), "namespace", "{wrong}");
        assert_eq!(invalid_field(kv.list(KeyFilter::default()).await), "namespace", "{wrong}");
        let created = storage.namespaces().create(wrong, "", NamespaceSettings::default()).await;
        assert_eq!(invalid_field(created), "namespace", "{wrong}");
    }
    let unnamed = storage.namespaces().create("", "", NamespaceSettings::default()).await;
    assert_eq!(invalid_field(unnamed), "namespace");
}

pub async fn a_namespace_that_holds_values_goes_only_with_them(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let namespaces = storage.namespaces();
    assert!(refused(namespaces.delete(&name, false).await).contains("holds values"));
    kv.set_many((0..500).map(|n| Set::new(n.to_string(), json("1")).attributes("{}")).collect()).await.unwrap();
    namespaces.delete(&name, true).await.unwrap();
    assert_missing(kv.get("first").await, "namespace", &name);
    assert_missing(namespaces.delete(&name, true).await, "namespace", &name);
    // Another of this name has nothing of it.
    assert_eq!(kv.set(Set::new("first", json("2"))).await.unwrap().version, 1);
    assert_eq!(kv.metadata("first").await.unwrap().attributes_revision, 0);
    assert_eq!(keys(&kv, "").await, ["first"]);
    assert!(kv.delete("first").await.unwrap());
    namespaces.delete(&name, false).await.unwrap();
}

pub async fn a_full_namespace_takes_no_more(storage: &Through) {
    let (namespaces, name) = (storage.namespaces(), unique("namespace"));
    let kv = storage.kv(&name);
    let settings = NamespaceSettings { max_entries: 3, ..NamespaceSettings::default() };
    namespaces.create(&name, "", settings).await.unwrap();
    kv.set_many(["a", "b", "c"].map(|key| Set::new(key, json("1"))).to_vec()).await.unwrap();
    let why = refused(kv.set(Set::new("d", json("1"))).await);
    assert!(why.contains("storage capacity exceeded") && why.contains("at most 3 values"), "{why}");
    refused(kv.set_many(vec![Set::new("a", json("2")), Set::new("d", json("1"))]).await);
    assert_eq!(kv.get("a").await.unwrap().value, json("1"), "all or none");
    kv.set(Set::new("a", json("2"))).await.unwrap();
    assert!(kv.delete("b").await.unwrap());
    kv.set(Set::new("d", json("1"))).await.unwrap();
    let more = NamespaceChange { max_entries: Some(0), max_bytes: Some(1_000), ..NamespaceChange::default() };
    namespaces.modify(&name, more).await.unwrap();
    let why = refused(kv.set(Set::new("large", Value::Bytes(vec![0; 1_000].into()))).await);
    assert!(why.contains("at most 1000 bytes"), "{why}");
    kv.set(Set::new("e", json("1"))).await.unwrap();
}

pub async fn older_versions_are_kept_as_many_as_asked(storage: &Through) {
    let (namespaces, name) = (storage.namespaces(), unique("namespace"));
    let kv = storage.kv(&name);
    namespaces.create(&name, "", NamespaceSettings { history: 2, ..Default::default() }).await.unwrap();
    let mut revisions = Vec::new();
    let created = kv.set(Set::new("other", json("0"))).await.unwrap().revision;
    for text in ["1", "2"] {
        let set = Set::new("k", json(text)).attributes(format!("{{\"n\":{text}}}"));
        revisions.push(kv.set(set).await.unwrap().revision);
    }
    assert!(kv.delete("k").await.unwrap());
    let history = kv.history("k").await.unwrap();
    let Version::Deleted { revision: deleted, .. } = history[0] else { panic!("{history:?}") };
    let at = async |revision| kv.get_at("k", revision).await;
    assert_missing(at(deleted).await, "value", &in_namespace("k", &name));
    let second = at(deleted - 1).await.unwrap();
    assert_eq!((second.value, second.metadata.attributes.as_deref()), (json("2"), Some("{\"n\":2}")));
    assert_eq!(at(revisions[0]).await.unwrap().value, json("1"));
    kv.set(Set::new("k", json("3"))).await.unwrap();
    let texts: Vec<String> = kv
        .history("k")
        .await
        .unwrap()
        .into_iter()
        .map(|version| match version {
            Version::Value(entry) => match entry.value {
                Value::Json(text) => text,
                Value::Bytes(_) => "bytes".into(),
            },
            Version::Deleted { .. } => "deleted".into(),
        })
        .collect();
    assert_eq!(texts, ["3", "deleted", "2", "1"]);
    assert_missing(at(deleted).await, "value", &in_namespace("k", &name));
    // What it was before the first version that is kept, nobody knows any more.
    assert_eq!(invalid_field(at(revisions[0] - 1).await), "as_of_revision");
    // Of a value that was written once it is known.
    assert_missing(kv.get_at("other", created - 1).await, "value", &in_namespace("other", &name));
    assert_eq!(invalid_field(at(u64::MAX).await), "as_of_revision");
    assert!(unmet(kv.restore_if("k", revisions[1], Condition::Version(9)).await).contains("it has version 1"));
    assert_eq!(kv.restore_if("k", revisions[1], Condition::Version(1)).await.unwrap().version, 2);
    let restored = kv.get("k").await.unwrap();
    assert_eq!((restored.value, restored.metadata.attributes.as_deref()), (json("2"), Some("{\"n\":2}")));
    assert_missing(kv.restore("k", deleted).await, "value", &in_namespace("k", &name));
    assert_missing(kv.history("never").await, "value", &in_namespace("never", &name));
}

pub async fn a_namespace_without_history_keeps_none(storage: &Through) {
    let (_, kv) = namespace(storage).await;
    let first = kv.metadata("first").await.unwrap().mod_revision;
    kv.set(Set::new("first", json("2"))).await.unwrap();
    assert_eq!(kv.history("first").await.unwrap().len(), 1);
    assert_eq!(invalid_field(kv.get_at("first", first).await), "as_of_revision");
    let now = kv.metadata("first").await.unwrap().mod_revision;
    assert_eq!(kv.get_at("first", now).await.unwrap().value, json("2"));
}

pub async fn clearing_leaves_the_namespace(storage: &Through) {
    let (name, namespaces) = (unique("namespace"), storage.namespaces());
    let settings = NamespaceSettings { history: 1, max_entries: 7, ..NamespaceSettings::default() };
    namespaces.create(&name, r#"{"a":1}"#, settings).await.unwrap();
    let kv = storage.kv(&name);
    kv.set(Set::new("k", json("1")).attributes("{\"a\":1}")).await.unwrap();
    kv.set(Set::new("k", json("2"))).await.unwrap();
    kv.clear().await.unwrap();
    assert_eq!((kv.count().await.unwrap(), keys(&kv, "").await.len()), (0, 0));
    assert_missing(kv.history("k").await, "value", &in_namespace("k", &name));
    let shown = namespaces.show(&name).await.unwrap();
    assert_eq!((shown.settings, shown.metadata.value.as_str(), shown.entries), (settings, r#"{"a":1}"#, 0));
    assert_eq!(kv.set(Set::new("k", json("3"))).await.unwrap().version, 1);
    assert_eq!(kv.metadata("k").await.unwrap().attributes.as_deref(), Some("{}"));
}

pub async fn keys_and_values_are_checked(storage: &Through) {
    let (_, kv) = namespace(storage).await;
    let long = "k".repeat(limits::KEY_BYTES + 1);
    for key in ["", " ", "\t\n", &long] {
        assert_eq!(invalid_field(kv.set(Set::new(key, json("1"))).await), "key");
        assert_eq!(invalid_field(kv.get(key).await), "key");
        assert_eq!(invalid_field(kv.has(key).await), "key");
        assert_eq!(invalid_field(kv.delete(key).await), "key");
        assert_eq!(invalid_field(kv.get_many(vec![key.into()]).await), "key");
        assert_eq!(invalid_field(kv.delete_many(vec![key.into()]).await), "key");
        assert_eq!(invalid_field(kv.metadata(key).await), "key");
        assert_eq!(invalid_field(kv.set_metadata(key, "{}", true).await), "key");
        assert_eq!(invalid_field(kv.history(key).await), "key");
        assert_eq!(invalid_field(kv.restore(key, 1).await), "key");
    }
    for key in [&long[1..], " k", "a/b:c*", "\0", "ü"] {
        kv.set(Set::new(key, json("1"))).await.unwrap();
        assert_eq!(kv.get(key).await.unwrap().key, key);
    }
    for text in ["", "{", "1 2", "nul"] {
        assert_eq!(invalid_field(kv.set(Set::new("k", json(text))).await), "value");
    }
    let bytes = |count| Set::new("large", Value::Bytes(vec![0; count].into()));
    assert_eq!(invalid_field(kv.set(bytes(limits::VALUE_BYTES + 1)).await), "value");
    kv.set(bytes(limits::VALUE_BYTES)).await.unwrap();
}

pub async fn of_many_increments_none_is_lost(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let kv = kv.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                loop {
                    let now = kv.get("first").await.unwrap();
                    let next = now.value.parse::<u64>().unwrap() + 1;
                    let set = Set::new("first", Value::json(&next).unwrap());
                    match kv.set(set.only_if(Condition::Version(now.metadata.version))).await {
                        Ok(_) => break,
                        Err(Error::ConditionFailed(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        });
    }
    writers.join_all().await;
    let end = storage.kv(name).get("first").await.unwrap();
    assert_eq!((end.value, end.metadata.version), (json("81"), 81));
}

pub async fn namespaces_that_are_created_at_once_keep_apart(storage: &Through) {
    let (shared, mut writers) = (unique("shared"), JoinSet::new());
    for writer in 0..8 {
        let (storage, shared, own) = (storage.clone(), shared.clone(), unique("own"));
        writers.spawn(async move {
            let key = format!("k{writer}");
            storage.kv(&own).set(Set::new("k", Value::json(&writer).unwrap())).await.unwrap();
            storage.kv(&shared).set(Set::new(key, json("1"))).await.unwrap();
            assert_eq!(storage.kv(&own).get("k").await.unwrap().value, Value::json(&writer).unwrap());
            assert_eq!(storage.kv(&own).count().await.unwrap(), 1);
        });
    }
    writers.join_all().await;
    let found: BTreeSet<String> = keys(&storage.kv(shared), "").await.into_iter().collect();
    assert_eq!(found, (0..8).map(|writer| format!("k{writer}")).collect());
}

pub async fn what_is_known_of_the_past_is_never_guessed(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let first = kv.metadata("first").await.unwrap().mod_revision;
    kv.set(Set::new("gone", json("1"))).await.unwrap();
    assert!(kv.delete("gone").await.unwrap());
    let change = NamespaceChange { history: Some(2), ..NamespaceChange::default() };
    let since = storage.namespaces().modify(&name, change).await.unwrap();
    // Before it kept anything it may have held anything.
    assert_eq!(invalid_field(kv.get_at("gone", since - 1).await), "as_of_revision");
    assert_missing(kv.get_at("gone", since).await, "value", &in_namespace("gone", &name));
    assert_eq!(kv.get_at("first", first).await.unwrap().value, json("1"), "what is still there is known");
    kv.set(Set::new("k", json("1")).attributes("{\"n\":1}")).await.unwrap();
    let early = kv.metadata("k").await.unwrap().mod_revision;
    assert!(kv.delete("k").await.unwrap());
    kv.set(Set::new("k", json("2")).attributes("{\"n\":2}")).await.unwrap();
    for n in 3..6 {
        kv.set_metadata("k", &format!("{{\"n\":{n}}}"), true).await.unwrap();
    }
    // The first value is kept, its attributes no more: they are not shown as if there had been none.
    assert_eq!(invalid_field(kv.get_at("k", early).await), "as_of_revision");
    kv.set(Set::new("plain", json("1"))).await.unwrap();
    let plain = kv.metadata("plain").await.unwrap();
    kv.set(Set::new("plain", json("2"))).await.unwrap();
    let entry = kv.get_at("plain", plain.mod_revision).await.unwrap();
    assert_eq!((entry.value, entry.metadata.attributes.as_deref()), (json("1"), Some("{}")));
    kv.restore("plain", plain.mod_revision).await.unwrap();
    assert_eq!(kv.metadata("plain").await.unwrap().attributes_revision, 0, "nothing was made of nothing");
    kv.clear().await.unwrap();
    assert_eq!(invalid_field(kv.get_at("first", first).await), "as_of_revision");
}

pub async fn a_history_of_large_values_comes_in_parts(storage: &Through) {
    let (name, kv) = namespace(storage).await;
    let change = NamespaceChange { history: Some(10), ..NamespaceChange::default() };
    storage.namespaces().modify(&name, change).await.unwrap();
    for n in 0..8u8 {
        kv.set(Set::new("k", Value::Bytes(vec![n; limits::VALUE_BYTES].into()))).await.unwrap();
    }
    let history = kv.history("k").await.unwrap();
    let firsts: Vec<u8> = history
        .iter()
        .map(|version| match version {
            Version::Value(Entry { value: Value::Bytes(bytes), .. }) => bytes[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(firsts, [7, 6, 5, 4, 3, 2, 1, 0]);
}

/// Not for a store that holds what somebody needs.
pub async fn all_namespaces_are_cleared_at_once(storage: &Through) {
    let namespaces = storage.namespaces();
    namespaces.clear_all().await.unwrap();
    let bounded = NamespaceSettings { max_entries: 5, ..NamespaceSettings::default() };
    namespaces.create("empty", "{}", bounded).await.unwrap();
    for name in ["", "a", "b"] {
        storage.kv(name).set(Set::new("k", json("1")).attributes("{}")).await.unwrap();
    }
    let before = namespaces.status().await.unwrap().namespaces;
    let revision = namespaces.clear_all().await.unwrap();
    for namespace in namespaces.list_all().await.unwrap() {
        assert_eq!((namespace.entries, namespace.metadata.mod_revision), (0, revision), "{}", namespace.name);
    }
    for number in 0..100 {
        storage.kv(format!("many-{number}")).set(Set::new("k", json("1"))).await.unwrap();
    }
    namespaces.clear_all().await.unwrap();
    let status = namespaces.status().await.unwrap();
    assert_eq!((status.entries, status.namespaces, status.capacity), (0, before + 100, None));
}
