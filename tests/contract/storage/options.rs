//! What calls may be told beside what they are about.

use meshstore::contract::{
    CountOptions, Filter, GetManyOptions, GetOptions, ListOptions, Operator, QueryOptions, SetEntry, SetManyOptions,
    SortField, Value,
};

use super::{
    super::cases::{invalid_field, unique},
    Through,
};

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

pub async fn what_is_said_of_all_holds_where_an_entry_says_nothing(Through(storage): &Through) {
    let namespace = unique("options");
    let all =
        || SetManyOptions { metadata: Some(r#"{"from":"all"}"#.into()), overwrite: false, ..namespace.as_str().into() };
    let own = SetEntry { metadata: Some(r#"{"from":"one"}"#.into()), ..SetEntry::new("own", json("1")) };
    storage.set_many(vec![SetEntry::new("k", json("1")), own], all()).await.unwrap();
    let attributes =
        async |key| storage.get_metadata(key, namespace.as_str().into()).await.unwrap().attributes.unwrap();
    assert_eq!(attributes("k").await, r#"{"from":"all"}"#);
    assert_eq!(attributes("own").await, r#"{"from":"one"}"#);
    let again = storage.set_many(vec![SetEntry::new("k", json("2"))], all()).await;
    assert!(again.unwrap_err().to_string().contains("exists already"));
    let may = SetEntry { overwrite: Some(true), ..SetEntry::new("k", json("2")) };
    assert_eq!(storage.set_many(vec![may], all()).await.unwrap()[0].version, 2);
    let may_not = SetEntry { overwrite: Some(false), ..SetEntry::new("k", json("3")) };
    let none = storage.set_many(vec![may_not], namespace.as_str().into()).await;
    assert!(none.unwrap_err().to_string().contains("exists already"));
}

pub async fn attributes_are_shown_if_they_are_asked_for(Through(storage): &Through) {
    let namespace = unique("options");
    let entry = SetEntry { metadata: Some(r#"{"a":1}"#.into()), ..SetEntry::new("k", json("1")) };
    storage.set_many(vec![entry], namespace.as_str().into()).await.unwrap();
    for include_metadata in [false, true] {
        let one = GetOptions { include_metadata, ..namespace.as_str().into() };
        let metadata = storage.get("k", one).await.unwrap().metadata;
        assert_eq!(metadata.attributes.is_some(), include_metadata);
        assert_eq!((metadata.version, metadata.attributes_revision > 0), (1, include_metadata));
        let many = GetManyOptions { include_metadata, ..namespace.as_str().into() };
        assert_eq!(storage.get_many(vec!["k".into()], many).await.unwrap().0[0].metadata, metadata);
    }
}

pub async fn what_a_backend_supports_it_says(Through(storage): &Through) {
    let properties = storage.properties();
    assert!(properties.supports_metadata && properties.supports_query && properties.supports_transactions);
}

pub async fn values_are_found_by_what_is_in_them(Through(storage): &Through) {
    let namespace = unique("query");
    let place = || namespace.as_str();
    let value = |n: u32| Value::json(&serde_json::json!({ "n": n, "even": n.is_multiple_of(2) })).unwrap();
    let entries = (0..20).map(|n| SetEntry {
        metadata: Some(format!("{{\"double\":{}}}", 2 * n)),
        ..SetEntry::new(format!("k{n:02}"), value(n))
    });
    storage.set_many(entries.collect(), place().into()).await.unwrap();
    let even = || Filter::of("even", Operator::Eq, &true).unwrap();
    let sort = vec![SortField::descending("n")];
    let options = |offset, cursor| QueryOptions {
        sort: sort.clone(),
        limit: Some(4),
        offset,
        cursor,
        ..QueryOptions::from(place())
    };
    let first = storage.query(even(), options(1, String::new())).await.unwrap();
    storage.delete("k00", place().into()).await.unwrap();
    storage.set("k08", value(100), place().into()).await.unwrap();
    let second = storage.query(even(), options(0, first.next_cursor.clone())).await.unwrap();
    let keys = |page: &meshstore::contract::Page<meshstore::contract::Entry>| {
        page.items.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (keys(&first), keys(&second)),
        (
            ["k16", "k14", "k12", "k10"].map(str::to_owned).to_vec(),
            ["k08", "k06", "k04", "k02"].map(str::to_owned).to_vec(),
        )
    );
    assert_eq!((first.revision, first.items[0].metadata.attributes.as_deref()), (second.revision, None));
    let with = QueryOptions { include_metadata: true, ..QueryOptions::from(place()) };
    let of_metadata = Filter::of("$metadata.double", Operator::Gte, &38).unwrap();
    let found = storage.query(of_metadata, with).await.unwrap();
    assert_eq!(found.items[0].metadata.attributes.as_deref(), Some("{\"double\":38}"));
    let count = |filter| CountOptions { filter, ..CountOptions::from(place()) };
    assert_eq!(storage.count(count(Some(even()))).await.unwrap(), 9);
    assert_eq!(storage.count(count(Some(Filter::default()))).await.unwrap(), 19);
    let wrong = Filter::of("", Operator::Eq, &1).unwrap();
    assert_eq!(invalid_field(storage.query(wrong.clone(), place().into()).await), "filter.field");
    assert_eq!(invalid_field(storage.count(count(Some(wrong))).await), "filter.field");
    let typed = storage.typed::<serde_json::Value>(place());
    let all = typed.query(even(), vec![SortField::ascending("n")]).await.unwrap();
    assert_eq!(
        all.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>().join(" "),
        "k02 k04 k06 k10 k12 k14 k16 k18 k08"
    );
}

pub async fn values_are_read_at_the_revision_of_a_list(Through(storage): &Through) {
    let namespace = unique("options");
    let place = || namespace.as_str();
    for key in ["a", "b"] {
        storage.set(key, json("1"), place().into()).await.unwrap();
    }
    let list = ListOptions { keep_revision: true, ..place().into() };
    let page = storage.list(list).await.unwrap();
    assert_eq!((page.items, page.next_cursor), (vec!["a".to_owned(), "b".to_owned()], String::new()));
    storage.set("a", json("2"), place().into()).await.unwrap();
    assert!(storage.delete("b", place().into()).await.unwrap());
    let of_page = GetManyOptions { revision: Some(page.revision), ..place().into() };
    for _ in 0..2 {
        let (found, missing) = storage.get_many(vec!["a".into(), "b".into()], of_page.clone()).await.unwrap();
        assert_eq!(found.into_iter().map(|entry| entry.value).collect::<Vec<_>>(), [json("1"), json("1")]);
        assert!(missing.is_empty());
    }
    let (now, missing) = storage.get_many(vec!["a".into(), "b".into()], place().into()).await.unwrap();
    assert_eq!((now[0].value.clone(), missing), (json("2"), vec!["b".to_owned()]));
}
