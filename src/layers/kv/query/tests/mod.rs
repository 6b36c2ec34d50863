//! Queries against an evaluator that goes through everything, with and without indexes, built before and after the values.

mod naive;

use naive::{Json, Tree, naive};
use proptest::prelude::*;

use super::*;
use crate::{
    layers::{
        kv::{index::build::Build, write},
        list::Cursor,
        mesh::testing::Pairs,
        query::order,
    },
    model::{
        ScopeId,
        filter::Operator,
        kv::{Set, Value},
        query::Access,
    },
    state::{
        scope::Account,
        sweep::{Sight, Step, Sweep},
    },
};

const NAMESPACE: &str = "n";
const FIELDS: [&str; 4] = ["a", "b", "a.c", "b.0"];

fn scalar() -> impl Strategy<Value = Json> {
    let long = |end: &str| Json::Text(format!("{}{end}", "x".repeat(order::KEPT)));
    prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        4 => (-2i128..4).prop_map(|n| Json::Tenths(n * 5)),
        1 => prop::sample::select(vec![(1i128 << 53) * 10, ((1i128 << 53) + 1) * 10, (u64::MAX as i128 + 1) * 10, -((1i128 << 53) + 1) * 10]).prop_map(Json::Tenths),
        4 => prop::sample::select(vec!["", "a", "aa", "ab", "b", "\u{0}", "é", "\u{ffff}", "\u{10000}"]).prop_map(|text| Json::Text(text.into())),
        1 => prop::sample::select(vec![long(""), long("a"), long("b")]),
    ]
}

fn value() -> impl Strategy<Value = Json> {
    prop_oneof![
        6 => scalar(),
        1 => prop::collection::vec(scalar(), 0..3).prop_map(Json::List),
        1 => scalar().prop_map(|c| Json::Object(vec![("c".into(), c)])),
    ]
}

fn document() -> impl Strategy<Value = Option<Json>> {
    let member = |name: &'static str| {
        prop::option::weighted(0.8, value()).prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    };
    prop_oneof![
        12 => (member("a"), member("b")).prop_map(|(a, b)| Some(Json::Object([a, b].into_iter().flatten().collect()))),
        1 => value().prop_map(Some),
        // Bytes.
        1 => Just(None),
    ]
}

fn condition() -> impl Strategy<Value = Tree> {
    let named =
        (prop::sample::select(FIELDS.to_vec()), 0..11usize, scalar(), value(), prop::collection::vec(scalar(), 0..4));
    let of_value = named.prop_map(|(field, at, scalar, any, list)| {
        let operator = Operator::ALL[at].0;
        let operand = match operator {
            Operator::Eq | Operator::Ne => any,
            Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte if scalar == Json::Null => Json::Bool(true),
            Operator::StartsWith | Operator::EndsWith => match scalar {
                Json::Text(text) => Json::Text(text),
                _ => Json::Text("a".into()),
            },
            Operator::In | Operator::Nin => Json::List(list),
            _ => scalar,
        };
        Tree::Is(field, operator, operand)
    });
    let operators = vec![Operator::Eq, Operator::Gt, Operator::Gte, Operator::Lt, Operator::Lte, Operator::StartsWith];
    let of_key = (prop::sample::select(operators), "k[0-9]{0,2}")
        .prop_map(|(operator, key)| Tree::Is("$key", operator, Json::Text(key)));
    prop_oneof![8 => of_value, 1 => of_key]
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = condition();
    let inner = condition().prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Tree::All),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Tree::Any),
            inner.prop_map(|tree| Tree::Not(Box::new(tree))),
        ]
    });
    // Mostly what an index can help.
    (prop::collection::vec(leaf, 0..3), prop::option::weighted(0.3, inner)).prop_map(|(mut all, more)| {
        all.extend(more);
        Tree::All(all)
    })
}

fn sort_fields(most: usize, names: Vec<&'static str>) -> impl Strategy<Value = Vec<SortField>> {
    let field = (prop::sample::select(names), any::<bool>());
    prop::collection::vec(field, 0..=most).prop_map(|fields| {
        let mut seen = Vec::new();
        for (field, descending) in fields {
            if !seen.iter().any(|by: &SortField| by.field == field) {
                seen.push(SortField { field: field.into(), descending });
            }
        }
        seen
    })
}

/// A store in which each write is decided on what the writes before it have left.
#[derive(Default)]
struct Kv(Pairs);

impl Kv {
    fn set(&mut self, key: &str, value: Value) {
        let sets = vec![Set::new(key, value)];
        self.0.put(write::set(&self.0.view(9), "me", NAMESPACE, sets, false).unwrap().write.unwrap());
    }

    fn create_index(&mut self, name: &str, fields: Vec<SortField>) {
        self.0.put(index::create(&self.0.view(9), NAMESPACE, name, fields).unwrap());
    }

    /// Lets the job go on until it has nothing to do: in how many steps.
    fn build(&mut self) -> usize {
        let mut build = Build::default();
        for steps in 0.. {
            let view = || Ok(self.0.view(9));
            let account = |_| Account { last_revision: 5, ..Account::default() };
            match build.step(&Sight { view: &view, wall_ms: 0, account: &account }).unwrap() {
                Step::Propose(_, transaction) => self.0.apply(transaction.then),
                Step::Next => {}
                Step::Rest(_) => return steps,
            }
            // The least that a step can do.
            (0..4).for_each(|_| build.begin_anew());
        }
        unreachable!()
    }

    fn pages(&self, query: &Query) -> (Vec<String>, Explanation) {
        let (mut query, mut keys, mut first) = (query.clone(), Vec::new(), None);
        loop {
            let found = search(NAMESPACE, &query).unwrap().read(&self.0.view(9)).unwrap();
            let most = query.limit.unwrap_or(100) as usize;
            assert!(found.next_cursor.is_empty() || found.entries.len() == most);
            keys.extend(found.entries.into_iter().map(|entry| entry.key));
            first.get_or_insert(found.explanation);
            if found.next_cursor.is_empty() {
                return (keys, first.unwrap());
            }
            (query.cursor, query.offset) = (found.next_cursor, 0);
        }
    }
}

fn stored(value: &Option<Json>) -> Value {
    value.as_ref().map_or(Value::Bytes("\u{1}".into()), |json| Value::Json(json.text()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_an_evaluator_that_reads_all(
        documents in prop::collection::vec(document(), 0..24),
        indexes in prop::collection::vec(sort_fields(3, FIELDS.to_vec()), 0..3),
        built_behind in any::<bool>(),
        queries in prop::collection::vec((tree(), sort_fields(2, ["a", "b", "a.c", "$key", "$value"].to_vec()), 1..6u32, 0..3u64), 1..4),
    ) {
        let documents: Vec<_> = documents.into_iter().enumerate().map(|(at, value)| (format!("k{at}"), value)).collect();
        let mut sorted = documents.clone();
        sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
        let mut kv = Kv::default();
        kv.set("k0", Value::Json("{\"a\": \"goes again\"}".into()));
        let create = |kv: &mut Kv| {
            for (at, fields) in indexes.iter().filter(|fields| !fields.is_empty()).enumerate() {
                kv.create_index(&format!("index {at}"), fields.clone());
            }
        };
        if !built_behind {
            create(&mut kv);
        }
        for (key, value) in &documents {
            kv.set(key, stored(value));
        }
        if documents.is_empty() {
            kv.0.put(write::delete(&kv.0.view(9), NAMESPACE, vec!["k0".into()], false).unwrap().write.unwrap());
        }
        if built_behind {
            create(&mut kv);
        }
        kv.build();
        for (tree, sort, limit, offset) in queries {
            let expected = naive(&sorted, &tree, &sort);
            let query = Query { filter: tree.filter(), sort, limit: Some(limit), offset, ..Query::default() };
            let (keys, explanation) = kv.pages(&query);
            prop_assert_eq!(&keys, &expected[expected.len().min(offset as usize)..], "{:?} {:?}", query, explanation);
            prop_assert_eq!(count(&kv.0.view(9), NAMESPACE, &query.filter).unwrap(), expected.len() as u64);
            prop_assert!(explanation.building.is_empty());
        }
    }
}

fn numbers(count: usize) -> Kv {
    let mut kv = Kv::default();
    for n in 0..count {
        kv.set(&format!("k{n:04}"), Value::Json(format!("{{\"n\":{n},\"m\":{},\"s\":\"t{n:03}\"}}", n % 7)));
    }
    kv
}

fn explained(kv: &Kv, filter: &str, sort: &[&str], limit: u32) -> Explanation {
    let sort = sort.iter().map(|name| match name.strip_prefix('-') {
        Some(name) => SortField::descending(name),
        None => SortField::ascending(*name),
    });
    let query =
        Query { filter: Filter::parse(filter).unwrap(), sort: sort.collect(), limit: Some(limit), ..Query::default() };
    search(NAMESPACE, &query).unwrap().read(&kv.0.view(9)).unwrap().explanation
}

fn by(name: &str, fields: u32, ranges: u32, ordered: bool) -> Access {
    Access::Index { name: name.into(), fields, ranges, ordered }
}

#[test]
fn the_index_that_helps_most_is_used() {
    let mut kv = numbers(300);
    assert_eq!(explained(&kv, r#"{"field":"n","operator":"eq","value":5}"#, &[], 10).access, Access::Scan);
    kv.create_index("n", vec![SortField::ascending("n")]);
    let building = explained(&kv, r#"{"field":"n","operator":"eq","value":5}"#, &[], 10);
    assert_eq!((building.access, building.building), (Access::Scan, vec!["n".to_owned()]));
    assert!(kv.build() > 40, "all but the first step enter one value");
    kv.create_index("m,-n", vec![SortField::ascending("m"), SortField::descending("n")]);
    kv.create_index("s", vec![SortField::descending("s")]);
    kv.build();

    let one = explained(&kv, r#"{"field":"n","operator":"eq","value":5}"#, &[], 10);
    assert_eq!((one.access, one.keys_examined, one.values_examined), (by("n", 1, 1, true), 1, 1));
    let range = r#"[{"field":"n","operator":"gte","value":100},{"field":"n","operator":"lt","value":110}]"#;
    let found = explained(&kv, range, &[], 100);
    assert_eq!((found.access, found.keys_examined, found.values_examined), (by("n", 1, 1, false), 11, 11));
    let found = explained(&kv, range, &["n"], 3);
    assert_eq!((found.access, found.sorted, found.values_examined), (by("n", 1, 1, true), false, 4));
    let found = explained(&kv, range, &["-n"], 3);
    assert_eq!((found.access, found.sorted, found.values_examined), (by("n", 1, 1, false), true, 11));
    let found = explained(&kv, r#"{"field":"m","operator":"eq","value":3}"#, &["-n"], 5);
    assert_eq!((found.access, found.sorted, found.values_examined), (by("m,-n", 1, 1, true), false, 6));
    let found = explained(&kv, r#"{"field":"m","operator":"in","value":[3,5,3.0]}"#, &["m", "-n"], 5);
    assert_eq!((found.access, found.values_examined), (by("m,-n", 1, 2, true), 6));
    let both = r#"[{"field":"m","operator":"eq","value":3},{"field":"n","operator":"gt","value":280}]"#;
    let found = explained(&kv, both, &[], 10);
    assert_eq!((found.access, found.values_examined), (by("m,-n", 2, 1, false), 3));
    let found = explained(&kv, r#"{"field":"s","operator":"startsWith","value":"t01"}"#, &[], 100);
    assert_eq!((found.access, found.returned), (by("s", 1, 1, false), 10));
    let found = explained(&kv, "[]", &["-s"], 4);
    assert_eq!((found.access, found.sorted, found.values_examined), (by("s", 0, 1, true), false, 5));
    let found = explained(&kv, r#"{"or":[{"field":"n","operator":"eq","value":5}]}"#, &[], 10);
    assert_eq!((found.access, found.values_examined), (Access::Scan, 300));
}

#[test]
fn keys_that_are_named_narrow_what_is_read() {
    let kv = numbers(300);
    for (filter, examined) in [
        (r#"{"field":"$key","operator":"eq","value":"k0007"}"#, 1),
        (r#"{"field":"$key","operator":"startsWith","value":"k001"}"#, 10),
        (r#"[{"field":"$key","operator":"gt","value":"k0010"},{"field":"$key","operator":"lte","value":"k0015"}]"#, 5),
        (r#"{"field":"$key","operator":"in","value":["k0010","k0012"]}"#, 3),
        (r#"{"field":"$key","operator":"in","value":[1]}"#, 0),
    ] {
        let found = explained(&kv, filter, &[], 100);
        assert_eq!((found.access, found.values_examined), (Access::Keys, examined), "{filter}");
    }
}

#[test]
fn what_is_cut_in_an_index_gives_no_order() {
    let mut kv = numbers(3);
    kv.create_index("s", vec![SortField::ascending("s")]);
    kv.build();
    assert_eq!(explained(&kv, "[]", &["s"], 2).access, by("s", 0, 1, true));
    let long = |end: &str| Value::Json(format!("{{\"s\":\"{}{end}\"}}", "u".repeat(order::KEPT)));
    kv.set("long b", long("b"));
    kv.set("long c", long("a"));
    let (keys, explanation) = kv.pages(&Query { sort: vec![SortField::ascending("s")], ..Query::default() });
    assert_eq!(keys, ["k0000", "k0001", "k0002", "long c", "long b"]);
    assert_eq!((explanation.access, explanation.sorted), (Access::Scan, true));
    kv.set("long b", Value::Json("1".into()));
    kv.set("long c", Value::Json("1".into()));
    assert_eq!(explained(&kv, "[]", &["s"], 2).access, by("s", 0, 1, true));
}

#[test]
fn what_takes_too_much_to_sort_is_refused() {
    let mut kv = Kv::default();
    let large = "x".repeat(limits::VALUE_BYTES - 100);
    for n in 0..20 {
        kv.set(&format!("k{n}"), Value::Json(format!("{{\"s\":\"{n}{large}\"}}")));
    }
    let query = |limit| Query { sort: vec![SortField::ascending("s")], limit: Some(limit), ..Query::default() };
    let answer = search(NAMESPACE, &query(100)).unwrap().read(&kv.0.view(9));
    assert!(matches!(answer, Err(Error::Refused(why)) if why.contains("smaller limit")));
    let found = search(NAMESPACE, &query(10)).unwrap().read(&kv.0.view(9)).unwrap();
    assert_eq!(found.entries.len(), 2, "a page ends after a megabyte");
    assert!(!found.next_cursor.is_empty());
}

#[test]
fn cursors_and_sorts_are_checked() {
    let kv = numbers(5);
    let query = Query { limit: Some(1), sort: vec![SortField::ascending("n")], ..Query::default() };
    let cursor = search(NAMESPACE, &query).unwrap().read(&kv.0.view(9)).unwrap().next_cursor;
    let next = Query { cursor: cursor.clone(), ..query.clone() };
    assert_eq!(search(NAMESPACE, &next).unwrap().revision(), Some(9));
    let field = |query: Query| match search(NAMESPACE, &query) {
        Err(Error::InvalidArgument { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Query { sort: vec![SortField::descending("n")], ..next.clone() }), "cursor");
    assert_eq!(field(Query { filter: Filter::field("n", Operator::Eq, "1"), ..next.clone() }), "cursor");
    assert_eq!(field(Query { offset: 1, ..next.clone() }), "offset");
    assert_eq!(field(Query { limit: Some(1_001), ..query.clone() }), "limit");
    assert_eq!(field(Query { sort: vec![SortField::ascending("")], ..query.clone() }), "sort[0]");
    assert_eq!(
        field(Query { sort: vec![SortField::ascending("a"), SortField::descending("$value.a")], ..query.clone() }),
        "sort[1]"
    );
    assert_eq!(field(Query { sort: vec![SortField::ascending("a"); 9], ..query.clone() }), "sort");
    assert!(search("m", &next).is_err(), "of another namespace");
    let older = search(NAMESPACE, &next).unwrap().read(&kv.0.view(8));
    assert!(matches!(older, Err(Error::InvalidArgument { field, .. }) if field == "cursor"));
    let forged = Cursor {
        revision: 9,
        fingerprint: search(NAMESPACE, &query).unwrap().terms.fingerprint(),
        position: "no".into(),
    };
    let forged = search(NAMESPACE, &Query { cursor: forged.text(), ..query }).unwrap().read(&kv.0.view(9));
    assert!(matches!(forged, Err(Error::InvalidArgument { field, .. }) if field == "cursor"));
}

#[test]
fn indexes_are_checked_dropped_and_emptied() {
    let mut kv = numbers(3);
    let create = |kv: &Kv, name: &str, fields: &[&str]| {
        let fields = fields.iter().map(|field| SortField::ascending(*field)).collect();
        index::create(&kv.0.view(9), NAMESPACE, name, fields).map(drop)
    };
    for (name, fields, wrong) in [
        ("", ["a"].as_slice(), "name"),
        (" ", &["a"], "name"),
        ("a\n", &["a"], "name"),
        ("i", &[], "fields"),
        ("i", &["a", "b", "c", "d", "e"], "fields"),
        ("i", &["a."], "fields[0]"),
        ("i", &["a", "$key"], "fields[1]"),
        ("i", &["$metadata.a"], "fields[0]"),
        ("i", &["a", "$value.a"], "fields[1]"),
    ] {
        assert!(
            matches!(create(&kv, name, fields), Err(Error::InvalidArgument { field, .. }) if field == wrong),
            "{fields:?}"
        );
    }
    for n in 0..limits::INDEXES {
        kv.create_index(&format!("i{n}"), vec![SortField::ascending("n")]);
    }
    assert!(matches!(create(&kv, "i0", &["n"]), Err(Error::AlreadyExists { .. })));
    assert!(matches!(create(&kv, "more", &["n"]), Err(Error::Refused(_))));
    assert!(matches!(index::drop(&kv.0.view(9), NAMESPACE, "no"), Err(Error::NotFound { kind: "index", .. })));
    assert!(matches!(index::list(&kv.0.view(9), "no"), Err(Error::NotFound { kind: "namespace", .. })));
    kv.0.put(index::drop(&kv.0.view(9), NAMESPACE, "i3").unwrap());
    let indexes = index::list(&kv.0.view(9), NAMESPACE).unwrap();
    assert_eq!(indexes.len(), limits::INDEXES - 1);
    assert!(indexes.iter().all(|index| !index.ready && index.built == 0 && index.name != "i3"));
    kv.build();
    assert!(index::list(&kv.0.view(9), NAMESPACE).unwrap().iter().all(|index| index.ready && index.built == 3));
    kv.0.put(super::super::namespace::clear(&kv.0.view(9), Some(NAMESPACE)).unwrap().unwrap());
    assert!(index::list(&kv.0.view(9), NAMESPACE).unwrap().iter().all(|index| index.ready && index.built == 0));
    assert_eq!(kv.pages(&Query { filter: Filter::field("n", Operator::Eq, "1"), ..Query::default() }).0, [""; 0]);
    kv.set("k", Value::Json("{\"n\":1}".into()));
    let (keys, explanation) = kv.pages(&Query { filter: Filter::field("n", Operator::Eq, "1.0"), ..Query::default() });
    assert_eq!((keys, explanation.values_examined), (vec!["k".to_owned()], 1));
}

#[test]
fn what_is_stored_has_exactly_these_bytes() {
    let mut kv = Kv::default();
    let value = |kv: &Kv, keyspace, key: &[u8]| {
        let record = kv.0.view(9).record(&ScopeId::new(keyspace, keyspace::NO_SCOPE).key(key)).unwrap().unwrap();
        record.value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    kv.set("k", Value::Json("{\"n\":1}".into()));
    let namespace = value(&kv, keyspace::NAMESPACES, b"n");
    kv.create_index("i", vec![SortField::ascending("n"), SortField::descending("a.b")]);
    let indexed = value(&kv, keyspace::NAMESPACES, b"n");
    let progress = |kv: &Kv| value(kv, keyspace::NAMESPACE_INDEXES, &1_026u32.to_be_bytes());
    let begun = progress(&kv);
    kv.build();
    assert_eq!(
        [namespace, indexed, begun, progress(&kv)],
        [
            "4d533901000c000000e44610a8fb0004fb0104027b7d000000",
            "4d533902001c000000577e1369fb0004fb0104027b7d00000004010169fb020402016e0003612e6201",
            "4d533c01000500000040740e93016e000100",
            "4d533c010004000000715e2c5d016e0100",
        ]
    );
}
