//! What single calls of this layer mean, and what they refuse.

use serde_json::{Value as Json, json};

use super::{
    super::{access, access::Actor, collection, read, read::search, write},
    COLLECTION, Store, naive, shop,
};
use crate::{
    Error,
    model::{
        Principal, ScopeId,
        document::{
            CollectionSettings, Declaration, DocumentQuery, FindAndUpdate, Grant, IndexSpec, IndexState, Modification,
            NewDocument, Permission,
        },
        keyspace,
        query::{Access, Explanation, SortField},
        transaction::Operation,
    },
};

fn cars() -> Store {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/cars.json"));
    let cars: Vec<Json> = serde_json::from_str(text).unwrap();
    let indexes = [
        IndexSpec::ascending("Cylinders"),
        IndexSpec::of([SortField::ascending("Origin"), SortField::descending("Horsepower")]),
        IndexSpec::ascending("Name").only(r#"{"Origin":"Japan"}"#),
    ];
    let mut store = Store::new(&indexes);
    for (at, car) in cars.iter().enumerate() {
        store.insert(&format!("car{at:03}"), car);
    }
    store
}

fn explained(store: &Store, filter: &Json, sort: &[&str]) -> Explanation {
    let sort = sort.iter().map(|name| match name.strip_prefix('-') {
        Some(name) => SortField::descending(name),
        None => SortField::ascending(*name),
    });
    let query = DocumentQuery { filter: filter.to_string(), sort: sort.collect(), ..DocumentQuery::default() };
    store.pages(&query).1
}

#[test]
fn cars_are_found_as_an_evaluator_finds_them() {
    let store = cars();
    let documents: Vec<(String, Json)> = store.all();
    assert_eq!(documents.len(), 406);
    for filter in [
        json!({"Cylinders": 8}),
        json!({"Cylinders": {"$in": [3, 5]}}),
        json!({"Origin": "Japan", "Horsepower": {"$gte": 90, "$lt": 120}}),
        json!({"Horsepower": null}),
        json!({"Name": {"$regex": "^toyota"}, "Origin": "Japan"}),
        json!({"Miles_per_Gallon": {"$gt": 40}}),
        json!({"$or": [{"Cylinders": 3}, {"Acceleration": {"$gt": 24}}]}),
        json!({"Year": {"$startsWith": "1982"}, "Origin": {"$ne": "USA"}}),
    ] {
        for sort in [
            vec![],
            vec![SortField::descending("Horsepower")],
            vec![SortField::ascending("Year"), SortField::ascending("Name")],
        ] {
            let expected = naive::found(&documents, &filter, &sort);
            assert!(!expected.is_empty(), "{filter}");
            let query = DocumentQuery { filter: filter.to_string(), sort, limit: Some(7), ..DocumentQuery::default() };
            assert_eq!(store.pages(&query).0, expected, "{query:?}");
        }
    }
}

#[test]
fn an_index_is_used_where_it_helps() {
    let store = cars();
    let by = |name: &str, fields, ordered| Access::Index { name: name.into(), fields, ranges: 1, ordered };
    let eight = explained(&store, &json!({"Cylinders": 8}), &[]);
    assert_eq!((eight.access, eight.values_examined, eight.sorted), (by("Cylinders_1", 1, true), 101, false));
    let strong = explained(&store, &json!({"Origin": "Europe"}), &["-Horsepower"]);
    assert_eq!((strong.access, strong.sorted), (by("Origin_1_Horsepower_-1", 1, true), false));
    let range = explained(&store, &json!({"Origin": "USA", "Horsepower": {"$gt": 200}}), &["Name"]);
    assert_eq!((range.access, range.sorted), (by("Origin_1_Horsepower_-1", 2, false), true));
    // Of some documents only: for those queries that say so.
    let partial = explained(&store, &json!({"Name": "mazda rx2 coupe", "Origin": "Japan"}), &[]);
    assert_eq!(partial.access, by("Name_1", 1, true));
    assert_eq!(explained(&store, &json!({"Name": "mazda rx2 coupe"}), &[]).access, Access::Scan);
    assert_eq!(explained(&store, &json!({"_id": {"$gte": "car400"}}), &[]).access, Access::Keys);
}

fn wrong_field<T: std::fmt::Debug>(answer: crate::Result<T>) -> String {
    match answer {
        Err(Error::InvalidArgument { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

fn inserted(store: &Store, text: &str) -> crate::Result<write::Inserts> {
    let document = NewDocument { json: text.into(), id: "new".into() };
    write::insert(&store.0.view(9), &shop(), COLLECTION, (&[document], false))
}

#[test]
fn what_is_no_document_is_refused() {
    let store = Store::new(&[]);
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    for text in ["[]", "1", "{", "", "{\"_owner\":1}", "{\"$set\":1}", &deep, &large] {
        assert_eq!(wrong_field(inserted(&store, text)), "document", "{text:.40}");
    }
    for text in [r#"{"_id":1}"#, r#"{"_id":""}"#, r#"{"_id":" "}"#, &format!(r#"{{"_id":"{}"}}"#, "x".repeat(1_025))] {
        assert_eq!(wrong_field(inserted(&store, text)), "_id", "{text:.40}");
    }
    assert!(matches!(
        write::insert(
            &store.0.view(9),
            &shop(),
            "nothing",
            (&[NewDocument { json: "{}".into(), id: "a".into() }], false)
        ),
        Err(Error::NotFound { kind: "collection", .. })
    ));
    let many = vec![NewDocument { json: "{}".into(), id: "a".into() }; 1_025];
    assert_eq!(wrong_field(write::insert(&store.0.view(9), &shop(), COLLECTION, (&many, false))), "documents");
}

#[test]
fn lists_that_would_make_too_many_entries_are_refused() {
    let mut store = Store::new(&[IndexSpec::of([SortField::ascending("a"), SortField::ascending("b")])]);
    let list: Vec<i32> = (0..40).collect();
    let error = inserted(&store, &json!({"a": list, "b": list}).to_string()).unwrap_err().to_string();
    assert!(error.contains("more than 1000 entries in the index a_1_b_1 (document new)"), "{error}");
    store.insert("fits", &json!({"a": list, "b": 1}));
}

#[test]
fn a_declaration_says_how_a_collection_is_to_be() {
    let mut store = Store::new(&[IndexSpec::ascending("a")]);
    store.insert("one", &json!({"a": 1}));
    let declared = store.declare(&[IndexSpec::ascending("a"), IndexSpec::ascending("b")]);
    assert_eq!((declared.created, declared.added_indexes.as_slice()), (false, ["b_1".to_owned()].as_slice()));
    let shown = |store: &Store| collection::show(&store.0.view(9), &shop(), COLLECTION).unwrap().0;
    let states = |store: &Store| shown(store).indexes.into_iter().map(|index| index.state).collect::<Vec<_>>();
    assert_eq!(states(&store), [IndexState::Ready, IndexState::Building]);
    assert_eq!(explained(&store, &json!({"b": 1}), &[]).building, ["b_1"]);
    store.build();
    assert_eq!(states(&store), [IndexState::Ready, IndexState::Ready]);
    // The same name, but of other fields: built anew.
    let declared = store.declare(&[IndexSpec::descending("c").named("b_1")]);
    assert_eq!(
        (declared.dropped_indexes.as_slice(), declared.added_indexes.as_slice()),
        (["a_1".to_owned(), "b_1".to_owned()].as_slice(), ["b_1".to_owned()].as_slice())
    );
    assert_eq!(
        store.declare(&[IndexSpec::descending("c").named("b_1")]),
        collection::Declared { name: "shop.things".into(), ..Default::default() }
    );
    let declare = |name: &str, declaration: &Declaration| {
        collection::declare(&store.0.view(9), &shop(), (name, declaration, false))
    };
    for name in ["", "a/b", "..", "a b", "shop.a.b", ".a", "a.", "é", &"x".repeat(129)] {
        assert_eq!(wrong_field(declare(name, &Declaration::default())), "collection", "{name}");
    }
    assert!(matches!(declare("other.things", &Declaration::default()), Err(Error::PermissionDenied(_))));
    let indexes = |indexes: Vec<IndexSpec>| Declaration { indexes: Some(indexes), ..Declaration::default() };
    let twice = indexes(vec![IndexSpec::ascending("a"), IndexSpec::ascending("a")]);
    assert_eq!(wrong_field(declare(COLLECTION, &twice)), "indexes");
    for (spec, field) in [
        (IndexSpec::default(), "indexes[0].fields"),
        (IndexSpec::ascending("_id"), "indexes[0].fields"),
        (IndexSpec::ascending("a.$b"), "indexes[0].fields"),
        (IndexSpec::of([SortField::ascending("a"), SortField::descending("a")]), "indexes[0].fields"),
        (IndexSpec::ascending("a").only("{\"$x\":1}"), "indexes[0].filter.$x"),
        (IndexSpec::ascending("a").named("\n"), "indexes[0].name"),
        (IndexSpec::ascending("a".repeat(300)), "indexes[0].name"),
        (IndexSpec::ascending("a").only(r#"{"_revision":{"$gt":0}}"#), "indexes[0].filter"),
        (IndexSpec::ascending("a").only(r#"{"b":{"$not":{"$regex":"x"}}}"#), "indexes[0].filter"),
        (IndexSpec::ascending("a").only(json!({"b": "x".repeat(5_000)}).to_string()), "indexes[0].filter"),
    ] {
        assert_eq!(wrong_field(declare(COLLECTION, &indexes(vec![spec]))), field);
    }
    let hint = Declaration { schema_hint: "[]".into(), ..Declaration::default() };
    assert_eq!(wrong_field(declare(COLLECTION, &hint)), "schema_hint");
    let ttl =
        Declaration { settings: Some(CollectionSettings { ttl_ms: 5, ..Default::default() }), ..Default::default() };
    assert_eq!(wrong_field(declare(COLLECTION, &ttl)), "settings.ttl_ms");
}

#[test]
fn others_may_do_what_was_granted_to_them() {
    let mut store = Store::new(&[]);
    store.insert("one", &json!({"a": 1}));
    let reader = Actor::new(&Principal::Service("reader".into()), "").unwrap();
    let view = |store: &Store| store.0.view(9);
    let query = DocumentQuery::default();
    let find = |store: &Store| search(&reader, "shop.things", &query).unwrap().read(&view(store));
    let delete = |store: &Store| write::delete(&view(store), &reader, "shop.things", ("{}", 0, None));
    assert!(matches!(find(&store), Err(Error::PermissionDenied(_))));
    let grant = |permission| Grant {
        collection: COLLECTION.into(),
        service: "reader".into(),
        permission,
        reason: "a test".into(),
        granted_by: String::new(),
        granted_at_ms: 0,
        ttl_ms: 0,
    };
    let allow = |store: &mut Store, permission| {
        store.0.put(access::grant(&view(store), &shop(), &grant(permission)).unwrap());
    };
    allow(&mut store, Permission::Read);
    assert_eq!(find(&store).unwrap().documents.len(), 1);
    let why = delete(&store).unwrap_err().to_string();
    assert!(why.contains("reader may not change the collection shop.things: what was granted to it is read"), "{why}");
    let others = Grant { collection: "shop.things".into(), service: "third".into(), ..grant(Permission::Read) };
    assert!(matches!(access::grant(&view(&store), &reader, &others), Err(Error::PermissionDenied(_))));
    allow(&mut store, Permission::Admin);
    assert_eq!(delete(&store).unwrap().1, 1);
    assert!(access::grant(&view(&store), &reader, &others).is_ok());
    let itself = Grant { collection: "shop.things".into(), service: "reader".into(), ..grant(Permission::Admin) };
    assert_eq!(wrong_field(access::grant(&view(&store), &reader, &itself)), "service");
    store.0.put(access::revoke(&view(&store), &shop(), (COLLECTION, "reader")).unwrap());
    assert!(matches!(find(&store), Err(Error::PermissionDenied(_))));
    let gone = access::revoke(&view(&store), &shop(), (COLLECTION, "reader"));
    assert!(matches!(gone, Err(Error::NotFound { kind: "grant", .. })));
    let own = Grant { service: "shop".into(), ..grant(Permission::Read) };
    assert_eq!(wrong_field(access::grant(&view(&store), &shop(), &own)), "service");
}

#[test]
fn who_calls_is_who_it_says_or_nobody() {
    let service = Principal::Service("shop".into());
    assert!(matches!(Actor::new(&service, "other"), Err(Error::PermissionDenied(_))));
    assert_eq!(Actor::new(&service, "shop").unwrap(), Actor::new(&service, "").unwrap());
    assert_eq!(wrong_field(Actor::new(&Principal::Anonymous, "a.b")), "service");
    let operator = Actor::new(&Principal::Person("ada".into()), "").unwrap();
    assert_eq!((operator.service(), operator.name()), (None, "person/ada"));
    assert_eq!(wrong_field(operator.full_name("things")), "collection");
    assert_eq!(operator.full_name("shop.things").unwrap(), "shop.things");
}

#[test]
fn an_upsert_begins_with_what_the_filter_says() {
    let mut store = Store::new(&[]);
    let modification = Modification {
        filter: json!({"sku": "t1", "stock.place": "A", "price": {"$gt": 1}, "$and": [{"kind": {"$eq": "tea"}}]})
            .to_string(),
        update: json!({"$inc": {"stock.count": 5}}).to_string(),
        upsert: true,
        new_id: "fresh".into(),
        ..Modification::default()
    };
    let (write, modified) = write::update(&store.0.view(9), &shop(), COLLECTION, &modification).unwrap();
    assert_eq!((modified.matched, modified.upserted_id.as_str()), (0, "fresh"));
    store.0.put(write.unwrap());
    let expected = json!({"_id": "fresh", "kind": "tea", "sku": "t1", "stock": {"place": "A", "count": 5}});
    assert_eq!(store.all(), [("fresh".to_owned(), expected)]);
    let named = Modification { filter: json!({"_id": "x"}).to_string(), ..modification };
    let (_, modified) = write::update(&store.0.view(9), &shop(), COLLECTION, &named).unwrap();
    assert_eq!(modified.upserted_id, "x");
}

#[test]
fn only_the_first_is_found_and_updated() {
    let mut store = Store::new(&[]);
    for (id, n) in [("a", 2), ("b", 1), ("c", 3)] {
        store.insert(id, &json!({"n": n}));
    }
    let modification =
        Modification { filter: "{}".into(), update: r#"{"taken":true}"#.into(), ..Modification::default() };
    let wanted = FindAndUpdate { modification, sort: vec![SortField::ascending("n")], before: false };
    let (write, modified) = write::find_and_update(&store.0.view(9), &shop(), COLLECTION, &wanted).unwrap();
    assert_eq!((modified.matched, modified.modified), (1, 1));
    let keys: Vec<String> = write
        .unwrap()
        .transaction
        .then
        .iter()
        .filter_map(|operation| match operation {
            Operation::Put { key, .. } => Some(String::from_utf8_lossy(&key.user_bytes()).into_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(keys, ["b"]);
    let nothing = FindAndUpdate {
        modification: Modification { filter: r#"{"n":9}"#.into(), ..wanted.modification.clone() },
        ..wanted
    };
    assert!(write::find_and_update(&store.0.view(9), &shop(), COLLECTION, &nothing).unwrap().0.is_none());
}

#[test]
fn different_values_are_each_answered_once() {
    let mut store = Store::new(&[]);
    for (id, value) in
        [("a", json!([1, "x"])), ("b", json!(1.0)), ("c", json!({"o": 1})), ("d", json!("x")), ("e", Json::Null)]
    {
        store.insert(id, &json!({"v": value}));
    }
    store.insert("f", &json!({}));
    let values = read::distinct(&store.0.view(9), &shop(), COLLECTION, ("v", "{}")).unwrap();
    assert_eq!(values, ["null", "1", "\"x\"", "{\"o\":1}"]);
}

#[test]
fn what_is_stored_has_exactly_these_bytes() {
    let mut store = Store::default();
    let value = |store: &Store, keyspace, scope, key: &[u8]| {
        let record = store.0.view(9).record(&ScopeId::new(keyspace, scope).key(key)).unwrap().unwrap();
        record.value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    store.declare(&[IndexSpec::descending("n").unique().only("{\"open\":true}")]);
    store.insert("d", &json!({"n": 1}));
    let grant = Grant {
        collection: COLLECTION.into(),
        service: "r".into(),
        permission: Permission::Write,
        reason: "why".into(),
        granted_by: String::new(),
        granted_at_ms: 0,
        ttl_ms: 1_000,
    };
    store.0.put(access::grant(&store.0.view(9), &shop(), &grant).unwrap());
    let (scope, index) = (1_024, 1_025u32);
    let stored = [
        value(&store, keyspace::COLLECTIONS, keyspace::NO_SCOPE, b"shop.things"),
        value(&store, keyspace::DOCUMENTS, scope, b"d"),
        value(&store, keyspace::COLLECTION_INDEXES, keyspace::NO_SCOPE, &index.to_be_bytes()),
        value(&store, keyspace::GRANTS, keyspace::NO_SCOPE, b"shop.things\x00\x01r"),
    ];
    assert_eq!(
        stored,
        [
            "4d534001002c000000b59ace1ffb00040473686f70000000000001046e5f2d31fb0104fb020401016e010d7b226f70656e223a747275657d00",
            "4d534101000d00000051fcdb060473686f70077b226e223a317d",
            "4d534201000f00000063701a0d0b73686f702e7468696e6773000000",
            "4d534301000d00000093cef59c01037768790473686f70fbe803",
        ]
    );
}

#[test]
fn what_the_store_knows_is_an_order_that_no_index_gives() {
    let mut store = Store::new(&[IndexSpec::ascending("type")]);
    for id in ["a", "b", "c"] {
        store.insert(id, &json!({"type": "error"}));
    }
    let found = explained(&store, &json!({"type": "error"}), &["-_created_at"]);
    assert!(found.sorted && matches!(found.access, Access::Index { ordered: false, .. }), "{found:?}");
}

#[test]
fn a_document_of_very_many_members_is_taken_apart_at_once() {
    let members = (0..60_000).map(|n| format!("\"m{n}\":1")).collect::<Vec<_>>().join(",");
    let store = Store::new(&[]);
    assert!(inserted(&store, &format!("{{\"_id\":\"x\",{members}}}")).is_ok());
}

#[test]
fn entries_of_a_document_are_bounded_together() {
    let list: Vec<String> = (0..300).map(|n| format!("{n:0256}")).collect();
    let text = json!({"a": list, "b": "b".repeat(256), "c": "c".repeat(256), "d": "d".repeat(256)});
    let asc = |fields: [&str; 4]| IndexSpec::of(fields.map(SortField::ascending));
    let indexes = [asc(["a", "b", "c", "d"]), asc(["b", "a", "c", "d"]), asc(["c", "b", "a", "d"])];
    let why = inserted(&Store::new(&indexes), &text.to_string()).unwrap_err().to_string();
    assert!(why.contains("262144 bytes of index entries with the index a_1_b_1_c_1_d_1"), "{why}");
    // What was there before gives the index up, and does not keep others from being built.
    let mut store = Store::new(&[]);
    store.insert("large", &text);
    store.declare(&[indexes[0].clone(), IndexSpec::ascending("b")]);
    store.build();
    let shown = collection::show(&store.0.view(9), &shop(), COLLECTION).unwrap().0;
    assert!(matches!(&shown.indexes[0].state, IndexState::Failed(why) if why.contains("bytes of index entries")));
    assert_eq!(shown.indexes[1].state, IndexState::Ready);
}

#[test]
fn an_update_leaves_a_document_one() {
    let mut store = Store::new(&[]);
    store.insert("d", &json!({"a": 1}));
    let update = |update: Json, upsert: bool, if_revision: Option<u64>| {
        let (filter, update) = (r#"{"n":9}"#.to_owned(), update.to_string());
        let filter = if upsert { filter } else { "{}".into() };
        let modification =
            Modification { filter, update, upsert, if_revision, new_id: "new".into(), ..Modification::default() };
        write::update(&store.0.view(9), &shop(), COLLECTION, &modification)
    };
    assert_eq!(wrong_field(update(json!({"$set": {"_id.x": 1}}), false, None)), "update.$set._id.x");
    assert_eq!(wrong_field(update(json!({"_owner.x": 1}), false, None)), "update._owner.x");
    let deep = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
    let path = ["a"; 30].join(".");
    assert_eq!(wrong_field(update(json!({"$set": {path: deep}}), true, None)), "document");
    assert!(matches!(update(json!({"a": 1}), true, Some(7)), Err(Error::ConditionFailed(_))));
    assert!(update(json!({"a": 1}), true, Some(0)).is_ok());
}

#[test]
fn of_twins_in_one_call_the_first_goes_in() {
    let store = Store::new(&[IndexSpec::ascending("e").unique()]);
    let documents: Vec<NewDocument> = ["a", "a", "b"]
        .iter()
        .enumerate()
        .map(|(at, e)| NewDocument { json: json!({"e": e}).to_string(), id: format!("d{at}") })
        .collect();
    let inserts = write::insert(&store.0.view(9), &shop(), COLLECTION, (&documents, true)).unwrap();
    let results = write::Inserts::results(Some(inserts), &documents, None);
    assert_eq!(results.iter().map(|one| one.error.is_empty()).collect::<Vec<_>>(), [true, false, true]);
    assert!(results[1].error.contains("d0, which has the same"), "{}", results[1].error);
    let lists = [json!({"e": ["x"]}), json!({"e": ["y"]}), json!({"e": {"a": 1}}), json!({"e": {"a": 2}})];
    let documents: Vec<NewDocument> = lists
        .iter()
        .enumerate()
        .map(|(at, json)| NewDocument { json: json.to_string(), id: format!("l{at}") })
        .collect();
    assert!(write::insert(&store.0.view(9), &shop(), COLLECTION, (&documents, false)).is_ok());
}
