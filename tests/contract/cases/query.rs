//! Queries over the values of a namespace, and indexes on their fields.

use std::collections::BTreeSet;

use meshstore::{
    Client, Error,
    client::{Access, Entry, Filter, Kv, NamespaceSettings, Operator, ReadMode, Set, SortField, Value},
    proto::{
        error_from_status,
        v1::{self, StorageQueryRequest, filter, storage_client::StorageClient},
    },
};
use tokio::task::JoinSet;

use super::{assert_missing, invalid_field, leader, unique};

fn json(text: impl Into<String>) -> Value {
    Value::Json(text.into())
}

/// A namespace of its own with some people in it.
async fn people(client: &Client) -> (String, Kv) {
    let name = unique("people");
    let kv = client.kv(&name);
    let people = [
        ("ada", r#"{"name":"Ada","age":36,"tags":["maths","poetry"],"address":{"city":"London"}}"#),
        ("alan", r#"{"name":"Alan","age":41,"tags":["maths"],"address":{"city":"Wilmslow"}}"#),
        ("édith", r#"{"name":"Édith","age":47.5,"tags":[],"address":{"city":"Paris"}}"#),
        ("grace", r#"{"name":"Grace","age":85,"retired":true}"#),
        ("robot", r#"{"name":"R2","age":"unknown","retired":false,"retired_at":null}"#),
        ("number", "7"),
    ];
    let sets = people.iter().map(|(key, value)| Set::new(*key, json(*value)));
    kv.set_many(sets.collect()).await.unwrap();
    kv.set(Set::new("photo", Value::Bytes("\u{0}\u{1}".into())).attributes(r#"{"of":"ada"}"#)).await.unwrap();
    (name, kv)
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn found(kv: &Kv, filter: &str) -> Vec<String> {
    let filter = Filter::parse(filter).unwrap();
    let entries = kv.query(filter.clone()).all().await.unwrap();
    assert_eq!(kv.count_where(filter).await.unwrap(), entries.len() as u64);
    entries.into_iter().map(|entry| entry.key).collect()
}

/// Waits until all indexes are built.
async fn ready(kv: &Kv) {
    for _ in 0..1_200 {
        if kv.indexes().await.unwrap().iter().all(|index| index.ready) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("an index is never built");
}

fn condition(field: &str, operator: &str, value: &str) -> String {
    format!(r#"{{"field":"{field}","operator":"{operator}","value":{value}}}"#)
}

pub async fn values_are_found_by_what_is_in_them(client: &Client) {
    let (_, kv) = people(client).await;
    for (field, operator, value, expected) in [
        ("age", "eq", "36.0", "ada"),
        ("age", "ne", "36", "alan grace robot édith"),
        ("age", "gt", "41", "grace édith"),
        ("age", "lte", "41", "ada alan"),
        ("age", "gte", "\"a\"", "robot"),
        ("name", "lt", "\"B\"", "ada alan"),
        ("name", "startsWith", "\"A\"", "ada alan"),
        ("name", "endsWith", "\"e\"", "grace"),
        ("name", "contains", "\"a\"", "ada alan grace"),
        ("tags", "contains", "\"poetry\"", "ada"),
        ("tags.0", "eq", "\"maths\"", "ada alan"),
        ("address.city", "in", "[\"Paris\",\"London\",7]", "ada édith"),
        ("address.city", "nin", "[\"Paris\"]", "ada alan"),
        ("retired", "eq", "true", "grace"),
        ("retired", "lt", "true", "robot"),
        ("retired_at", "eq", "null", "robot"),
        ("nothing", "ne", "null", ""),
        ("$value", "eq", "7", "number"),
        ("$key", "gte", "\"photo\"", "photo robot édith"),
        ("$key", "startsWith", "\"a\"", "ada alan"),
        ("$metadata.of", "eq", "\"ada\"", "photo"),
    ] {
        let found = found(&kv, &condition(field, operator, value)).await;
        assert_eq!(found.join(" "), expected, "{field} {operator} {value}");
    }
    let (a, b) = (condition("age", "gt", "40"), condition("name", "startsWith", "\"A\""));
    assert_eq!(found(&kv, &format!("[{a},{b}]")).await, ["alan"]);
    assert_eq!(found(&kv, &format!("{{\"or\":[{a},{b}]}}")).await, ["ada", "alan", "grace", "édith"]);
    assert_eq!(found(&kv, &format!("[{a},{{\"not\":{b}}}]")).await, ["grace", "édith"]);
    assert_eq!(found(&kv, "[]").await.len(), 7);
    let photo = kv.query(Filter::of("$key", Operator::Eq, "photo").unwrap()).all().await.unwrap().remove(0);
    assert_eq!(photo, kv.get("photo").await.unwrap(), "an answer is the whole value, with what is known of it");
}

pub async fn numbers_are_compared_exactly(client: &Client) {
    let kv = client.kv(unique("numbers"));
    for (key, number) in [
        ("a", "9007199254740992"),
        ("b", "9007199254740993"),
        ("c", "18446744073709551617"),
        ("d", "1e400"),
        ("e", "0.1"),
    ] {
        kv.set(Set::new(key, json(format!("{{\"n\":{number}}}")))).await.unwrap();
    }
    for indexed in [false, true] {
        if indexed {
            kv.create_index("n", vec![SortField::ascending("n")]).await.unwrap();
            ready(&kv).await;
        }
        assert_eq!(found(&kv, &condition("n", "eq", "9007199254740993")).await, ["b"]);
        assert_eq!(found(&kv, &condition("n", "gt", "9007199254740992")).await, ["b", "c", "d"]);
        assert_eq!(found(&kv, &condition("n", "lt", "18446744073709551617")).await, ["a", "b", "e"]);
        assert_eq!(found(&kv, &condition("n", "eq", "10e399")).await, ["d"]);
        assert_eq!(found(&kv, &condition("n", "eq", "0.1000000000000000055511151231257827")).await, [""; 0]);
        let sorted = kv.query(Filter::default()).sort_by("n").all().await.unwrap();
        assert_eq!(keys(&sorted), ["e", "a", "b", "c", "d"]);
    }
}

pub async fn what_is_found_is_sorted(client: &Client) {
    let (_, kv) = people(client).await;
    for indexed in [false, true] {
        if indexed {
            kv.create_index("age", vec![SortField::ascending("age")]).await.unwrap();
            kv.create_index("-age", vec![SortField::descending("age")]).await.unwrap();
            ready(&kv).await;
        }
        let sorted = async |sort: Vec<SortField>| {
            let found = kv.query(Filter::default()).sort(sort).explain().await.unwrap();
            assert!(found.next_cursor.is_empty());
            (found.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), found.explanation.sorted)
        };
        let (ages, in_memory) = sorted(vec![SortField::ascending("age")]).await;
        assert_eq!(
            ages,
            ["ada", "alan", "édith", "grace", "robot", "number", "photo"],
            "what has no age comes last, by key"
        );
        assert_eq!(in_memory, !indexed);
        let (ages, _) = sorted(vec![SortField::descending("age")]).await;
        assert_eq!(ages, ["robot", "grace", "édith", "alan", "ada", "number", "photo"], "also here");
        let (both, _) = sorted(vec![SortField::ascending("retired"), SortField::descending("name")]).await;
        assert_eq!(both, ["robot", "grace", "édith", "alan", "ada", "number", "photo"]);
        let (by_key, _) = sorted(vec![SortField::descending("$key")]).await;
        assert_eq!(by_key, ["édith", "robot", "photo", "number", "grace", "alan", "ada"]);
    }
}

pub async fn pages_of_a_query_show_one_revision_while_others_write(client: &Client) {
    let kv = client.kv(unique("pages"));
    let write = async |n: u32, m: u32| {
        kv.set(Set::new(format!("k{n:02}"), json(format!("{{\"n\":{n},\"m\":{m}}}")))).await.unwrap();
    };
    for n in 0..20 {
        write(n, n % 3).await;
    }
    kv.create_index("m", vec![SortField::descending("m")]).await.unwrap();
    ready(&kv).await;
    let filter = Filter::of("n", Operator::Lt, &18).unwrap();
    for sort in [vec![], vec![SortField::descending("m")], vec![SortField::ascending("m"), SortField::descending("n")]]
    {
        let query = kv.query(filter.clone()).sort(sort);
        let all = query.clone().all().await.unwrap();
        assert_eq!(all.len(), 18);
        let mut pages = query.clone().limit(5).offset(1).pages();
        let first = pages.next().await.unwrap().unwrap();
        let (revision, mut seen) = (first.revision, first.items);
        write(3, 7).await;
        write(50, 1).await;
        kv.delete("k11").await.unwrap();
        while let Some(mut page) = pages.next().await.unwrap() {
            assert_eq!(page.revision, revision);
            seen.append(&mut page.items);
        }
        assert_eq!(seen, all[1..]);
        write(11, 2).await;
        write(3, 0).await;
        kv.delete("k50").await.unwrap();
    }
    assert_eq!(kv.query(filter.clone()).limit(0).page().await.unwrap().items, []);
    assert_eq!(kv.query(filter.clone()).offset(17).all().await.unwrap().len(), 1);
    assert_eq!(kv.query(filter.clone()).offset(100).sort_by("n").all().await.unwrap(), []);
    assert_eq!(kv.query(filter).limit(18).page().await.unwrap().next_cursor, "");
}

pub async fn an_index_is_used_and_shown(client: &Client) {
    let name = unique("indexed");
    let kv = client.kv(&name);
    let sets = (0..600).map(|n| Set::new(format!("k{n:03}"), json(format!("{{\"n\":{n},\"s\":\"t{}\"}}", n % 4))));
    kv.set_many(sets.collect()).await.unwrap();
    let filter = Filter::of("n", Operator::Gte, &10).unwrap().and(Filter::of("n", Operator::Lt, &20).unwrap());
    let explain = async || kv.query(filter.clone()).explain().await.unwrap();
    let before = explain().await;
    let explanation = &before.explanation;
    assert_eq!((&explanation.access, explanation.values_examined, explanation.returned), (&Access::Scan, 600, 10));

    let fields = vec![SortField::ascending("n"), SortField::descending("s")];
    kv.create_index("by n", fields.clone()).await.unwrap();
    match kv.create_index("by n", vec![SortField::ascending("s")]).await {
        Err(Error::AlreadyExists { kind: "index", .. }) => {}
        other => panic!("{other:?}"),
    }
    ready(&kv).await;
    let indexes = kv.indexes().await.unwrap();
    assert_eq!(indexes.len(), 1);
    assert_eq!((&indexes[0].name[..], &indexes[0].fields, indexes[0].built), ("by n", &fields, 600));
    assert_eq!(client.namespaces().show(&name).await.unwrap().indexes, indexes);
    let after = explain().await;
    assert_eq!(after.entries, before.entries);
    let access = Access::Index { name: "by n".into(), fields: 1, ranges: 1, ordered: false };
    assert_eq!((&after.explanation.access, after.explanation.values_examined), (&access, 11));

    kv.drop_index("by n").await.unwrap();
    assert_missing(kv.drop_index("by n").await, "index", &format!("by n of namespace {name}"));
    assert_eq!(kv.indexes().await.unwrap(), []);
    assert_eq!(explain().await.explanation.access, Access::Scan);
    kv.create_index("by n", vec![SortField::ascending("n")]).await.unwrap();
    ready(&kv).await;
    assert_eq!(explain().await.entries, before.entries, "what was dropped is of no matter to what comes after");
}

/// All keys that an index on `n` finds, and those that are found without one.
async fn both(kv: &Kv) -> (BTreeSet<String>, BTreeSet<String>) {
    let filter = Filter::of("n", Operator::Gte, &0).unwrap();
    let indexed = kv.query(filter.clone()).sort_by("n").limit(1_000).explain().await.unwrap();
    assert!(matches!(indexed.explanation.access, Access::Index { ordered: true, .. }), "{:?}", indexed.explanation);
    assert!(indexed.next_cursor.is_empty());
    let scanned = kv.query(Filter::Any(vec![filter])).all().await.unwrap();
    let names = |entries: Vec<Entry>| entries.into_iter().map(|entry| format!("{} {:?}", entry.key, entry.value));
    (names(indexed.entries).collect(), names(scanned).collect())
}

pub async fn every_write_keeps_the_indexes(client: &Client) {
    let (name, by_n) = (unique("kept"), || vec![SortField::ascending("n")]);
    client
        .namespaces()
        .create(&name, "{}", NamespaceSettings { history: 5, ..NamespaceSettings::default() })
        .await
        .unwrap();
    let kv = client.kv(&name);
    kv.create_index("n", by_n()).await.unwrap();
    assert!(kv.indexes().await.unwrap()[0].ready, "there is nothing to enter");
    let first = kv.set(Set::new("a", json("{\"n\":1}"))).await.unwrap().revision;
    kv.set(Set::new("a", json("{\"n\":2}"))).await.unwrap();
    kv.set_many(vec![Set::new("b", json("{\"n\":3}")), Set::new("c", json("{\"n\":4}"))]).await.unwrap();
    kv.set_each(vec![Set::new("d", json("{\"n\":5}")).create(), Set::new("c", json("9")).create()]).await.unwrap();
    kv.set_metadata("d", "{\"m\":1}", true).await.unwrap();
    kv.delete("b").await.unwrap();
    kv.set(Set::new("bytes", Value::Bytes("{\"n\":5}".into()))).await.unwrap();
    let (indexed, scanned) = both(&kv).await;
    assert_eq!(indexed, scanned);
    assert_eq!(indexed.len(), 3);
    kv.restore("a", first).await.unwrap();
    assert_eq!(found(&kv, &condition("n", "eq", "1")).await, ["a"]);
    assert_eq!(found(&kv, &condition("n", "eq", "2")).await, [""; 0]);
    // An index changes nothing of what is known of the past.
    assert_missing(kv.get_at("a", first - 1).await, "value", &format!("a in namespace {name}"));
    kv.create_index("other", vec![SortField::ascending("o")]).await.unwrap();
    assert_missing(kv.get_at("a", first - 1).await, "value", &format!("a in namespace {name}"));
}

pub async fn an_index_that_is_created_while_others_write_misses_nothing(client: &Client) {
    let kv = client.kv(unique("busy"));
    let sets = (0..400).map(|n| Set::new(format!("old{n:03}"), json(format!("{{\"n\":{n}}}"))));
    kv.set_many(sets.collect()).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..4u64 {
        let kv = kv.clone();
        writers.spawn(async move {
            for n in 0..60 {
                kv.set(Set::new(format!("new{writer}/{n}"), json(format!("{{\"n\":{n}}}")))).await.unwrap();
                kv.set(Set::new(format!("old{:03}", n * 4 + writer), json(format!("{{\"n\":{}}}", 1_000 + n))))
                    .await
                    .unwrap();
                kv.delete(&format!("old{:03}", 399 - n)).await.unwrap();
            }
        });
    }
    kv.create_index("n", vec![SortField::ascending("n")]).await.unwrap();
    // Who leads goes on where the other one was.
    let cluster = client.cluster();
    let status = cluster.status(false).await.unwrap();
    if let Some(other) = status.members.iter().find(|member| !member.leader && member.voter) {
        cluster.transfer_leadership(other.node_id).await.unwrap();
    }
    ready(&kv).await;
    let (indexed, scanned) = loop {
        let (indexed, scanned) = both(&kv).await;
        // Between the two others may have written.
        if indexed == scanned || writers.is_empty() {
            break (indexed, scanned);
        }
        writers.join_next().await.unwrap().unwrap();
    };
    assert_eq!(indexed, scanned);
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let (indexed, scanned) = both(&kv).await;
    assert_eq!(indexed, scanned);
    assert_eq!(indexed.len(), 4 * 60 + 400 - 60);
}

pub async fn indexes_go_with_their_namespace(client: &Client) {
    let name = unique("cleared");
    let kv = client.kv(&name);
    kv.set(Set::new("a", json("{\"n\":1}"))).await.unwrap();
    kv.create_index("n", vec![SortField::ascending("n")]).await.unwrap();
    ready(&kv).await;
    kv.clear().await.unwrap();
    assert!(kv.indexes().await.unwrap()[0].ready);
    assert_eq!(both(&kv).await, (BTreeSet::new(), BTreeSet::new()));
    kv.set(Set::new("a", json("{\"n\":2}"))).await.unwrap();
    let (indexed, scanned) = both(&kv).await;
    assert_eq!((indexed.len(), indexed), (1, scanned));
    client.namespaces().delete(&name, true).await.unwrap();
    assert_missing(kv.indexes().await, "namespace", &name);
    assert_missing(kv.query(Filter::default()).page().await, "namespace", &name);
    kv.set(Set::new("a", json("{\"n\":3}"))).await.unwrap();
    assert_eq!(kv.indexes().await.unwrap(), []);
    assert_eq!(found(&kv, &condition("n", "eq", "3")).await, ["a"]);
}

pub async fn a_query_reads_in_every_mode_on_every_node(client: &Client) {
    let (name, kv) = people(client).await;
    let filter = Filter::of("age", Operator::Gt, &40).unwrap();
    let last = client.last_seen_revision();
    let expected = kv.query(filter.clone()).all().await.unwrap();
    for member in client.cluster().status(false).await.unwrap().members {
        let here = client.clone().pin(&member.client_address).unwrap().kv(&name).with_read(ReadMode::AtLeast(last));
        assert_eq!(here.query(filter.clone()).all().await.unwrap(), expected);
        assert_eq!(here.count_where(filter.clone()).await.unwrap(), 3);
    }
}

pub async fn bad_queries_are_refused(client: &Client) {
    let (_, kv) = people(client).await;
    for (field, operator, value, wrong) in [
        ("age", "gt", "{}", "filter.value"),
        ("age", "lte", "null", "filter.value"),
        ("age", "in", "7", "filter.value"),
        ("age", "startsWith", "7", "filter.value"),
        ("age", "contains", "[7]", "filter.value"),
        ("age", "eq", "nothing", "filter.value"),
        ("", "eq", "1", "filter.field"),
        ("a..b", "eq", "1", "filter.field"),
        ("$id", "eq", "1", "filter.field"),
    ] {
        let filter = Filter::field(field, operator.parse().unwrap(), value);
        assert_eq!(invalid_field(kv.query(filter.clone()).page().await), wrong, "{field} {operator} {value}");
        assert_eq!(invalid_field(kv.count_where(filter).await), wrong, "{field} {operator} {value}");
    }
    assert_eq!(invalid_field(kv.query(Filter::Any(vec![])).page().await), "filter.or");
    let deep = (0..40).fold(Filter::default(), |filter, _| filter.negated());
    assert_eq!(invalid_field(kv.query(deep).page().await), "filter");
    let one = Filter::of("age", Operator::Eq, &1).unwrap();
    assert_eq!(invalid_field(kv.query(Filter::All(vec![one.clone(); 300])).page().await), "filter");
    assert_eq!(invalid_field(kv.query(one.clone()).limit(1_001).page().await), "limit");
    assert_eq!(invalid_field(kv.query(one.clone()).sort_by("a.").page().await), "sort[0]");
    assert_eq!(invalid_field(kv.query(one.clone()).sort_by("a").sort_by("a").page().await), "sort[1]");
    let query = kv.query(Filter::default()).sort_by("age").limit(1);
    let cursor = query.clone().page().await.unwrap().next_cursor;
    query.clone().cursor(&cursor).page().await.unwrap();
    for other in [query.clone().sort_by("name"), kv.query(Filter::default()), kv.query(one.clone()).sort_by("age")] {
        assert_eq!(invalid_field(other.cursor(&cursor).page().await), "cursor");
    }
    assert_eq!(invalid_field(query.clone().cursor("nonsense").page().await), "cursor");
    assert_eq!(invalid_field(query.cursor(&cursor).offset(3).page().await), "offset");
    let list = kv.list(meshstore::client::KeyFilter { cursor, ..Default::default() }).await;
    assert_eq!(invalid_field(list), "cursor", "a cursor of a query is none of a list");

    for (name, fields, wrong) in [
        ("", vec!["a"], "name"),
        ("i", vec![], "fields"),
        ("i", vec!["$key"], "fields[0]"),
        ("i", vec!["a"; 5], "fields"),
    ] {
        let fields = fields.into_iter().map(SortField::ascending).collect();
        assert_eq!(invalid_field(kv.create_index(name, fields).await), wrong);
    }
    assert_eq!(kv.indexes().await.unwrap(), []);
    assert_missing(
        client.kv("no-such").create_index("i", vec![SortField::ascending("a")]).await,
        "namespace",
        "no-such",
    );
}

pub async fn filters_that_only_the_wire_can_carry_are_refused(client: &Client) {
    let (name, _) = people(client).await;
    let mut wire = StorageClient::new(leader(client).await);
    let unknown = v1::FieldCondition { field: "age".into(), operator: 77, value_json: "1".into() };
    let of = |filter| v1::Filter { filter: Some(filter) };
    let deep = (0..20)
        .fold(of(filter::Filter::All(v1::FilterList::default())), |inner, _| of(filter::Filter::Not(Box::new(inner))));
    for (sent, wrong) in [
        (of(filter::Filter::Field(unknown)), "filter.operator"),
        (of(filter::Filter::Any(v1::FilterList { filters: vec![v1::Filter { filter: None }] })), "filter.or[0]"),
        (deep, "filter"),
    ] {
        let request =
            StorageQueryRequest { namespace: name.clone(), filter: Some(sent), ..StorageQueryRequest::default() };
        let status = wire.query(request).await.unwrap_err();
        assert_eq!(invalid_field::<()>(Err(error_from_status(&status))), wrong);
    }
}
