//! What each compare asks.

use bytes::Bytes;
use meshstore::model::{
    Key, ScopeId, key as keys,
    transaction::{Compare, NumberField, Operation, Relation, ScopeField, ScopeSettings},
};

use crate::store::*;

const RELATIONS: [Relation; 6] = [
    Relation::Equal,
    Relation::NotEqual,
    Relation::Less,
    Relation::LessOrEqual,
    Relation::Greater,
    Relation::GreaterOrEqual,
];

/// Which relations hold, in the order of [`RELATIONS`].
fn holding(store: &mut Store, compare: impl Fn(Relation) -> Compare) -> Vec<u8> {
    RELATIONS.iter().map(|relation| u8::from(store.holds(vec![compare(*relation)]))).collect()
}

#[test]
fn existence() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), "")]);
    for (name, there) in [("a", true), ("b", false)] {
        for exists in [true, false] {
            assert_eq!(store.holds(vec![Compare::Exists { key: key(name), exists }]), there == exists);
        }
    }
}

#[test]
fn numbers_of_a_record_which_are_0_where_there_is_none() {
    let mut store = Store::new();
    let a = key("a");
    store.done(vec![put(&key("x"), "")]);
    store.done(vec![put(&a, "")]);
    store.done(vec![put(&a, "")]);
    for (field, number) in [(NumberField::Version, 2), (NumberField::CreateRevision, 2), (NumberField::ModRevision, 3)]
    {
        let to = |to: u64| move |relation| Compare::Number { key: key("a"), field, relation, to };
        assert_eq!(holding(&mut store, to(number - 1)), [0, 1, 0, 0, 1, 1]);
        assert_eq!(holding(&mut store, to(number)), [1, 0, 0, 1, 0, 1]);
        assert_eq!(holding(&mut store, to(number + 1)), [0, 1, 1, 1, 0, 0]);
        let missing = |relation| Compare::Number { key: key("missing"), field, relation, to: 0 };
        assert_eq!(holding(&mut store, missing), [1, 0, 0, 1, 0, 1]);
    }
}

#[test]
fn values_by_bytes_a_missing_one_is_only_not_equal() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), "m")]);
    let to = |to: &'static str| move |relation| Compare::Value { key: key("a"), relation, to: Bytes::from(to) };
    assert_eq!(holding(&mut store, to("m")), [1, 0, 0, 1, 0, 1]);
    assert_eq!(holding(&mut store, to("ma")), [0, 1, 1, 1, 0, 0]);
    assert_eq!(holding(&mut store, to("")), [0, 1, 0, 0, 1, 1]);
    let missing = |relation| Compare::Value { key: key("missing"), relation, to: Bytes::new() };
    assert_eq!(holding(&mut store, missing), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn numbers_of_a_scope_which_are_0_where_there_is_none() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings::default());
    store.done(vec![put(&scope.key(b"abc"), "12345"), put(&scope.key(b""), "")]);
    store.done(vec![put(&key("elsewhere"), "")]);
    let missing = ScopeId::new(0x40, 9_999);
    for (field, number) in [
        (ScopeField::Count, 2),
        (ScopeField::Bytes, 3 + 5 + 64 + 64),
        (ScopeField::LastRevision, 2),
        (ScopeField::Incarnation, 1),
    ] {
        let of = |scope, to| move |relation| Compare::Scope { scope, field, relation, to };
        assert_eq!(holding(&mut store, of(scope, number)), [1, 0, 0, 1, 0, 1]);
        assert_eq!(holding(&mut store, of(scope, number + 1)), [0, 1, 1, 1, 0, 0]);
        assert_eq!(holding(&mut store, of(missing, 0)), [1, 0, 0, 1, 0, 1]);
    }
}

fn unchanged(scope: ScopeId, start: &str, end: Option<&str>, count: u64, since: u64) -> Compare {
    let end = match end {
        Some(end) => scope.key(end.as_bytes()).as_bytes().clone(),
        None => keys::prefix_end(&scope.prefix()).unwrap(),
    };
    Compare::Unchanged { start: scope.key(start.as_bytes()), end, count, since }
}

#[test]
fn unchanged_up_to_1000_keys_asks_the_records() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), ""), put(&key("b"), ""), put(&key("z"), "")]);
    let read = |count| unchanged(STATE, "a", Some("c"), count, 1);
    assert!(store.holds(vec![read(2)]));
    assert!(!store.holds(vec![read(1)]));
    assert!(!store.holds(vec![read(3)]));
    store.done(vec![put(&key("z"), "outside"), put(&key("c"), "the end is outside")]);
    assert!(store.holds(vec![read(2)]));
    store.done(vec![Operation::Reindex { key: key("a"), entries: vec![entry(1, "e", "")] }]);
    assert!(store.holds(vec![read(2)]), "entries are no change");
    store.done(vec![put(&key("b"), "written")]);
    assert!(!store.holds(vec![read(2)]));
    assert!(store.holds(vec![unchanged(STATE, "a", Some("c"), 2, 4)]));
}

#[test]
fn unchanged_sees_a_deletion_by_the_count_and_a_replacement_by_its_revision() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), ""), put(&key("b"), "")]);
    store.done(vec![delete(&key("b"))]);
    assert!(!store.holds(vec![unchanged(STATE, "", None, 2, 1)]));
    store.done(vec![put(&key("b2"), "")]);
    assert!(!store.holds(vec![unchanged(STATE, "", None, 2, 1)]));
    assert!(store.holds(vec![unchanged(STATE, "", None, 2, 3)]));
}

#[test]
fn unchanged_of_nothing_sees_a_phantom() {
    let mut store = Store::new();
    assert!(store.holds(vec![unchanged(STATE, "a", Some("c"), 0, 0)]));
    store.done(vec![put(&key("b"), "")]);
    assert!(!store.holds(vec![unchanged(STATE, "a", Some("c"), 0, 0)]));
    assert!(!store.holds(vec![unchanged(STATE, "a", Some("c"), 0, u64::MAX)]));
    assert!(store.holds(vec![unchanged(STATE, "c", Some("a"), 0, 0)]), "an empty range");
}

#[test]
fn unchanged_over_1000_keys_asks_the_whole_scope() {
    let mut store = Store::new();
    let names: Vec<Key> = (0..1_001).map(|n| key(&format!("{n:04}"))).collect();
    store.done(names.iter().map(|key| put(key, "")).collect());
    store.done(vec![put(&key("outside"), "")]);
    let read = |count, since| unchanged(STATE, "0", Some("1"), count, since);
    let thousand = |since| unchanged(STATE, "0000", Some("1000"), 1_000, since);
    assert!(store.holds(vec![thousand(1)]), "1,000 keys: only the records count");
    assert!(!store.holds(vec![unchanged(STATE, "0", Some("9"), 1_001, 1)]), "1,001 keys: the whole scope counts");
    assert!(store.holds(vec![unchanged(STATE, "0", Some("9"), 1_001, 2)]));
    assert!(store.holds(vec![read(u64::MAX, 2)]), "the count is not asked then");
    store.done(vec![put(&names[3], "")]);
    assert!(!store.holds(vec![thousand(2)]));
    assert!(!store.holds(vec![read(1_001, 2)]));
}

#[test]
fn unchanged_of_a_dropped_scope_holds_only_for_nothing() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings::default());
    store.done(vec![put(&scope.key(b"a"), "")]);
    store.done(vec![drop_scope(scope)]);
    assert!(store.holds(vec![unchanged(scope, "", None, 0, 9)]));
    assert!(!store.holds(vec![unchanged(scope, "", None, 1, 9)]));
    assert!(!store.holds(vec![unchanged(scope, "", None, 1_001, 9)]));
}

#[test]
fn a_malformed_range_is_never_unchanged() {
    let mut store = Store::new();
    let end = STATE.key(b"z").as_bytes().clone();
    let other = ScopeId::new(0x40, 0).key(b"z").as_bytes().clone();
    for (start, end) in [
        (key("a"), other.clone()),
        (key("a"), Bytes::new()),
        (ScopeId::new(0xE0, 1).key(b""), ScopeId::new(0xE0, 1).key(b"z").as_bytes().clone()),
        (ScopeId::new(0, 0).key(b""), ScopeId::new(0, 0).key(b"z").as_bytes().clone()),
        (ScopeId::new(0x40, 0).key(b""), end),
    ] {
        assert!(!store.holds(vec![Compare::Unchanged { start, end, count: 0, since: u64::MAX }]));
    }
}

#[test]
fn all_must_hold() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), "")]);
    let exists = |exists| Compare::Exists { key: key("a"), exists };
    assert!(store.holds(vec![]));
    assert!(store.holds(vec![exists(true), exists(true)]));
    assert!(!store.holds(vec![exists(true), exists(false)]));
}
