//! Queries and updates against an evaluator that goes through everything, with and without indexes, built before and after the
//! documents.

mod cases;
mod naive;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    access::Actor,
    collection, index,
    read::{self, search},
    write,
};
use crate::{
    layers::mesh::testing::Pairs,
    model::{
        Principal,
        document::{Declaration, DocumentQuery, IndexSpec, Modification, NewDocument},
        query::{Explanation, SortField},
    },
    state::{
        scope::Account,
        sweep::{Sight, Step, Sweep},
    },
};

const COLLECTION: &str = "things";
const FIELDS: [&str; 5] = ["a", "b", "a.c", "a.0", "l.x"];

/// A store in which each write is decided on what the writes before it have left.
#[derive(Default)]
struct Store(Pairs);

fn shop() -> Actor {
    Actor::new(&Principal::Anonymous, "shop").unwrap()
}

impl Store {
    /// With a collection that has these indexes.
    fn new(indexes: &[IndexSpec]) -> Self {
        let mut store = Self::default();
        store.declare(indexes);
        store
    }

    fn declare(&mut self, indexes: &[IndexSpec]) -> collection::Declared {
        let declaration = Declaration { indexes: Some(indexes.to_vec()), ..Declaration::default() };
        let (write, declared) =
            collection::declare(&self.0.view(9), &shop(), (COLLECTION, &declaration, true)).unwrap();
        write.into_iter().for_each(|write| self.0.put(write));
        declared
    }

    fn insert(&mut self, id: &str, document: &Json) {
        let document = NewDocument { json: document.to_string(), id: id.into() };
        let inserts = write::insert(&self.0.view(9), &shop(), COLLECTION, (&[document], false)).unwrap();
        self.0.put(inserts.write.unwrap());
    }

    /// Lets the job go on until it has nothing to do.
    fn build(&mut self) {
        let mut build = index::Build::default();
        loop {
            let view = || Ok(self.0.view(9));
            let account = |_| Account { last_revision: 5, ..Account::default() };
            match build.step(&Sight { view: &view, wall_ms: 0, account: &account }).unwrap() {
                Step::Propose(_, transaction) => self.0.apply(transaction.then),
                Step::Next => {}
                Step::Rest(_) => return,
            }
            // The least that a step can do.
            (0..4).for_each(|_| build.begin_anew());
        }
    }

    fn pages(&self, query: &DocumentQuery) -> (Vec<String>, Explanation) {
        let (mut query, mut ids, mut first) = (query.clone(), Vec::new(), None);
        loop {
            let found = search(&shop(), COLLECTION, &query).unwrap().read(&self.0.view(9)).unwrap();
            let most = query.limit.unwrap_or(100) as usize;
            assert!(found.next_cursor.is_empty() || found.documents.len() == most);
            ids.extend(found.documents.into_iter().map(|document| document.id));
            first.get_or_insert(found.explanation);
            if found.next_cursor.is_empty() {
                return (ids, first.unwrap());
            }
            (query.cursor, query.skip) = (found.next_cursor, 0);
        }
    }

    fn all(&self) -> Vec<(String, Json)> {
        let query = DocumentQuery { limit: Some(1_000), ..DocumentQuery::default() };
        let found = search(&shop(), COLLECTION, &query).unwrap().read(&self.0.view(9)).unwrap();
        let parsed = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        found.documents.into_iter().map(|document| (document.id, parsed(&document.json))).collect()
    }
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        4 => (-2i64..4).prop_map(Json::from),
        1 => prop::sample::select(vec![1i64 << 53, (1i64 << 53) + 1]).prop_map(Json::from),
        4 => prop::sample::select(vec!["", "a", "aa", "ab", "b", "\u{0}", "é"]).prop_map(Json::from),
        1 => prop::sample::select(vec!["", "a", "b"]).prop_map(|end| Json::from("x".repeat(256) + end)),
    ]
}

fn value() -> impl Strategy<Value = Json> {
    let object = || scalar().prop_map(|c| json!({ "c": c }));
    let list = || prop::collection::vec(scalar(), 0..3).prop_map(Json::from);
    prop_oneof![
        6 => scalar(),
        2 => prop::collection::vec(prop_oneof![3 => scalar(), 1 => object(), 1 => list()], 0..3).prop_map(Json::from),
        1 => object(),
    ]
}

fn document() -> impl Strategy<Value = Json> {
    let member = |strategy: BoxedStrategy<Json>| prop::option::weighted(0.8, strategy);
    let items = prop::collection::vec(prop::option::of(scalar()), 0..3).prop_map(|items| {
        let item = |x: Option<Json>| x.map_or(json!({}), |x| json!({ "x": x }));
        Json::from(items.into_iter().map(item).collect::<Vec<_>>())
    });
    (member(value().boxed()), member(value().boxed()), member(items.boxed())).prop_map(|(a, b, l)| {
        let members = [("a", a), ("b", b), ("l", l)].into_iter();
        members
            .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    })
}

fn condition() -> impl Strategy<Value = Json> {
    let ordered = || scalar().prop_filter("null is not ordered", |scalar| !scalar.is_null());
    let operators = prop_oneof![
        value().prop_map(|value| json!({ "$eq": value })),
        value().prop_map(|value| json!({ "$ne": value })),
        (prop::sample::select(vec!["$gt", "$gte", "$lt", "$lte"]), ordered())
            .prop_map(|(name, bound)| json!({ name: bound })),
        (ordered(), ordered()).prop_map(|(low, high)| json!({ "$gte": low, "$lte": high })),
        prop::collection::vec(scalar(), 0..4).prop_map(|list| json!({ "$in": list })),
        prop::collection::vec(scalar(), 0..4).prop_map(|list| json!({ "$nin": list })),
        any::<bool>().prop_map(|exists| json!({ "$exists": exists })),
        (0..3usize).prop_map(|size| json!({ "$size": size })),
        prop::sample::select(vec!["", "a", "aa"]).prop_map(|text| json!({ "$startsWith": text })),
        ordered().prop_map(|bound| json!({ "$not": { "$gt": bound } })),
        (ordered(), ordered()).prop_map(|(low, high)| json!({ "$elemMatch": { "$gte": low, "$lte": high } })),
        scalar().prop_map(|c| json!({ "$elemMatch": { "c": c } })),
        scalar().prop_map(|inner| json!({ "$elemMatch": { "$elemMatch": { "$eq": inner } } })),
    ];
    let of_value = (prop::sample::select(FIELDS.to_vec()), prop_oneof![1 => value(), 2 => operators])
        .prop_map(|(field, condition)| json!({ field: condition }));
    let of_id = (prop::sample::select(vec!["$gt", "$gte", "$lt", "$eq"]), "d[0-9]{0,2}")
        .prop_map(|(name, id)| json!({ "_id": { name: id } }));
    prop_oneof![10 => of_value, 1 => of_id]
}

fn filter() -> impl Strategy<Value = Json> {
    let inner = condition().prop_recursive(2, 8, 3, |inner| {
        let some = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            some.clone().prop_map(|all| json!({ "$and": all })),
            some.clone().prop_map(|any| json!({ "$or": any })),
            some.prop_map(|none| json!({ "$nor": none })),
            inner.prop_map(|one| json!({ "$not": one })),
        ]
    });
    prop_oneof![
        1 => Just(json!({})),
        6 => prop::collection::vec(condition(), 1..3).prop_map(|all| json!({ "$and": all })),
        3 => inner,
    ]
}

fn sort(most: usize, names: Vec<&'static str>) -> impl Strategy<Value = Vec<SortField>> {
    prop::collection::vec((prop::sample::select(names), any::<bool>()), 0..=most).prop_map(|fields| {
        let mut seen: Vec<SortField> = Vec::new();
        for (field, descending) in fields {
            if !seen.iter().any(|by| by.field == field) {
                seen.push(SortField { field: field.into(), descending });
            }
        }
        seen
    })
}

fn index() -> impl Strategy<Value = IndexSpec> {
    let fields = sort(3, FIELDS.to_vec()).prop_filter("an index has a field", |fields| !fields.is_empty());
    (fields, prop::option::weighted(0.2, condition())).prop_map(|(fields, filter)| {
        let filter = filter.map_or(String::new(), |filter| filter.to_string());
        IndexSpec { filter, ..IndexSpec::of(fields) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_an_evaluator_that_reads_all(
        documents in prop::collection::vec(document(), 0..24),
        indexes in prop::collection::vec(index(), 0..3),
        built_behind in any::<bool>(),
        queries in prop::collection::vec((filter(), sort(2, ["a", "b", "a.c", "l.x", "_id", "_owner"].to_vec()), 1..6u32, 0..3u64), 1..5),
        updates in prop::collection::vec((filter(), prop::sample::select(FIELDS.to_vec()), value()), 0..2),
    ) {
        let mut documents: Vec<_> = documents.into_iter().enumerate().map(|(at, value)| (format!("d{at}"), value)).collect();
        documents.sort_by(|(left, _), (right, _)| left.cmp(right));
        let named = |(at, spec): (usize, &IndexSpec)| spec.clone().named(format!("index {at}"));
        let indexes: Vec<IndexSpec> = indexes.iter().enumerate().map(named).collect();
        let mut store = Store::new(if built_behind { &[] } else { &indexes });
        for (id, document) in &documents {
            store.insert(id, document);
        }
        if built_behind {
            store.declare(&indexes);
        }
        store.build();
        for (filter, field, value) in updates {
            let modification = Modification {
                filter: filter.to_string(),
                update: json!({ "$set": { field: value } }).to_string(),
                ..Modification::default()
            };
            let updated = write::update(&store.0.view(9), &shop(), COLLECTION, &modification);
            // A path that leads through a scalar refuses the whole call.
            if let Ok((write, modified)) = updated {
                let matched = documents.iter().filter(|(id, document)| naive::matches(id, document, &filter));
                prop_assert_eq!(modified.matched, matched.count() as u64, "{}", filter);
                write.into_iter().for_each(|write| store.0.put(write));
            }
            documents = store.all().into_iter().map(|(id, mut document)| {
                document.as_object_mut().unwrap().remove("_id");
                (id, document)
            }).collect();
        }
        for (filter, sort, limit, skip) in queries {
            let expected = naive::found(&documents, &filter, &sort);
            let query = DocumentQuery { filter: filter.to_string(), sort, limit: Some(limit), skip, ..DocumentQuery::default() };
            let (ids, explanation) = store.pages(&query);
            prop_assert_eq!(&ids, &expected[expected.len().min(skip as usize)..], "{:?} {:?}", query, explanation);
            let counted = read::count(&store.0.view(9), &shop(), (COLLECTION, &query.filter)).unwrap();
            prop_assert_eq!(counted, expected.len() as u64);
            prop_assert!(explanation.building.is_empty());
        }
    }
}
