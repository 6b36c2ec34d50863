//! Older versions: kept as many as the scope says.

use meshstore::{
    model::{
        Key, ScopeId, keyspace,
        transaction::{Operation, ScopeSettings},
    },
    state::stored,
};

use crate::store::*;

const DELETED: &str = "(deleted)";

fn keep(history: u32) -> ScopeSettings {
    ScopeSettings { history, ..ScopeSettings::default() }
}

/// The older versions of a key: revision and value, oldest first; and where it was deleted.
fn versions(store: &Store, key: &Key) -> Vec<(u64, String)> {
    let mut front = vec![key.scope().keyspace];
    meshstore::model::key::escape(&mut front, &key.user_bytes());
    let pairs = store.derived(keyspace::HISTORY, key.scope().scope).into_iter();
    let pairs = pairs.filter(|(pair_key, _)| pair_key.starts_with(&front));
    pairs
        .map(|(pair_key, value)| {
            let record = stored::decode(&pair_key, &value).unwrap();
            assert!(pair_key.ends_with(&record.mod_revision.to_be_bytes()));
            if record.version == 0 {
                assert!(record.value.is_empty() && record.create_revision == 0, "{record:?}");
                return (record.mod_revision, DELETED.to_owned());
            }
            (record.mod_revision, String::from_utf8(record.value.to_vec()).unwrap())
        })
        .collect()
}

fn of(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
    pairs.iter().map(|(revision, value)| (*revision, (*value).to_owned())).collect()
}

#[test]
fn the_newest_n_are_kept() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(2));
    let a = scope.key(b"a");
    for (value, expected) in
        [("2", of(&[])), ("3", of(&[(2, "2")])), ("4", of(&[(2, "2"), (3, "3")])), ("5", of(&[(3, "3"), (4, "4")]))]
    {
        store.done(vec![put(&a, value)]);
        assert_eq!(versions(&store, &a), expected);
    }
    assert_eq!(store.account(scope).count, 1, "history is not counted with the records");
}

#[test]
fn a_delete_keeps_what_it_deleted_and_when_and_a_new_record_goes_on() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(2));
    let a = scope.key(b"a");
    store.done(vec![put(&a, "2")]);
    store.done(vec![delete(&a)]);
    assert_eq!(versions(&store, &a), of(&[(2, "2"), (3, DELETED)]));
    store.done(vec![put(&a, "4")]);
    assert_eq!(versions(&store, &a), of(&[(2, "2"), (3, DELETED)]));
    store.done(vec![put(&a, "5")]);
    assert_eq!(versions(&store, &a), of(&[(2, "2"), (3, DELETED), (4, "4")]));
    store.done(vec![put(&a, "6")]);
    // It goes with the version that it ended.
    assert_eq!(versions(&store, &a), of(&[(4, "4"), (5, "5")]));
}

#[test]
fn deletions_count_for_nothing() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(64));
    let a = scope.key(b"a");
    for _ in 0..70 {
        store.done(vec![put(&a, "x")]);
        store.done(vec![delete(&a)]);
    }
    let (values, deletions): (Vec<_>, Vec<_>) =
        versions(&store, &a).into_iter().partition(|(_, value)| value != DELETED);
    assert_eq!((values.len(), deletions.len()), (64, 64));
    assert_eq!((values[0].0, deletions[0].0), (14, 15));
    assert_eq!(store.account(ScopeId::new(keyspace::HISTORY, scope.scope)).count, 128);
}

#[test]
fn cascades_and_expiries_keep_history_too() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(1));
    let (lease, a) = (scope.key(b"lease"), scope.key(b"a"));
    store.done(vec![put_ttl(&lease, 10, vec![]), put_references(&a, vec![cascade(&lease)])]);
    store.pass(10);
    assert_eq!(versions(&store, &a), of(&[(2, "referrer"), (3, DELETED)]));
    assert_eq!(versions(&store, &lease), of(&[(2, "mortal"), (3, DELETED)]));
}

#[test]
fn what_no_reader_sees_is_no_version() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(3));
    let (a, holder) = (scope.key(b"a"), scope.key(b"holder"));
    store.done(vec![put_ttl(&a, 10, vec![]), put_references(&holder, vec![restrict(&a)])]);
    store.done(vec![Operation::Reindex { key: a.clone(), entries: vec![entry(1, "e", "")] }]);
    store.pass(10);
    assert_eq!(store.record(&a).unwrap().expires_at_ms, Some(60_010));
    assert_eq!(versions(&store, &a), []);
}

#[test]
fn a_lower_bound_trims_at_the_next_write_and_0_clears() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(3));
    let (a, b) = (scope.key(b"a"), scope.key(b"b"));
    for value in ["2", "3", "4"] {
        store.done(vec![put(&a, value), put(&b, value)]);
    }
    store.done(vec![set_scope(scope, keep(1))]);
    assert_eq!(versions(&store, &a).len(), 2);
    store.done(vec![put(&a, "6")]);
    assert_eq!(versions(&store, &a), of(&[(4, "4")]));
    store.done(vec![set_scope(scope, keep(0))]);
    store.done(vec![put(&a, "8"), delete(&b)]);
    assert_eq!((versions(&store, &a), versions(&store, &b)), (vec![], vec![]));
}

#[test]
fn at_most_64_are_kept() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(u32::MAX));
    assert_eq!(store.state.meta().scopes[&scope].settings.history, 64);
    let a = scope.key(b"a");
    for value in 0..70 {
        store.done(vec![put(&a, &value.to_string())]);
    }
    let kept = versions(&store, &a);
    assert_eq!((kept.len(), kept[0].1.as_str(), kept[63].1.as_str()), (64, "5", "68"));
}

#[test]
fn keyspaces_with_one_scope_number_keep_apart() {
    let mut store = Store::new();
    let (one, other) = (STATE.key(b"a"), ScopeId::new(0x14, 0).key(b"a"));
    store.done(vec![set_scope(STATE, keep(1)), set_scope(other.scope(), keep(1))]);
    store.done(vec![put(&one, "one"), put(&other, "other")]);
    store.done(vec![put(&one, ""), put(&other, "")]);
    assert_eq!(versions(&store, &one), of(&[(2, "one")]));
    assert_eq!(versions(&store, &other), of(&[(2, "other")]));
    assert!(store.state.meta().is_live(ScopeId::new(keyspace::HISTORY, 0)));
}

#[test]
fn keys_that_are_fronts_of_others_keep_apart() {
    let mut store = Store::new();
    let scope = store.new_scope(keep(1));
    let keys = [
        scope.key(b""),
        scope.key(b"\0"),
        scope.key(b"\0\x01"),
        scope.key(b"\0\xFF"),
        scope.key(b"a"),
        scope.key(b"a\0"),
    ];
    store.done(keys.iter().map(|key| put(key, "old")).collect());
    store.done(keys.iter().map(|key| put(key, "new")).collect());
    for key in &keys {
        assert_eq!(versions(&store, key).len(), 1, "{key}");
    }
    store.done(vec![set_scope(scope, keep(0))]);
    store.done(vec![delete(&keys[0])]);
    assert_eq!(store.account(ScopeId::new(keyspace::HISTORY, scope.scope)).count, 5);
}
