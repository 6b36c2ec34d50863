//! A key is written at most once per transaction.

use meshstore::model::{
    OperationResult, Refusal, ScopeId,
    transaction::{Operation, ScopeSettings},
};

use crate::store::*;

#[test]
fn two_writes_of_one_key_are_refused_whichever_they_are() {
    let mut store = Store::new();
    let a = key("a");
    store.done(vec![put(&a, "old")]);
    let reindex = Operation::Reindex { key: a.clone(), entries: vec![entry(1, "e", "")] };
    let number = key("number");
    store.done(vec![add(&number, 1)]);
    for pair in [
        [put(&a, "1"), put(&a, "1")],
        [put(&a, "1"), delete(&a)],
        [delete(&a), put(&a, "1")],
        [put(&a, "1"), delete_range(STATE, "a", "b")],
        [delete_range(STATE, "a", "b"), put(&a, "1")],
        [put(&a, "1"), reindex.clone()],
        [reindex.clone(), put(&a, "1")],
        [reindex.clone(), delete(&a)],
        [delete(&a), reindex],
    ] {
        assert_eq!(store.refused(pair.to_vec()), Refusal::KeyWrittenTwice(a.clone()), "{pair:?}");
    }
    for pair in
        [[add(&number, 1), add(&number, 1)], [add(&number, 1), put(&number, "1")], [delete(&number), add(&number, 1)]]
    {
        assert_eq!(store.refused(pair.to_vec()), Refusal::KeyWrittenTwice(number.clone()), "{pair:?}");
    }
}

#[test]
fn the_rule_holds_for_keys_that_did_not_exist() {
    let mut store = Store::new();
    let a = key("a");
    assert_eq!(store.refused(vec![put(&a, "1"), delete(&a)]), Refusal::KeyWrittenTwice(a.clone()));
    assert_eq!(store.refused(vec![put(&a, "1"), put(&a, "2")]), Refusal::KeyWrittenTwice(a));
}

#[test]
fn deleting_what_is_already_deleted_or_never_was_is_no_write() {
    let mut store = Store::new();
    let a = key("a");
    store.done(vec![put(&a, "1")]);
    let results = store.done(vec![delete(&a), delete(&a), delete_range(STATE, "a", "b")]);
    assert_eq!(results, [OperationResult::Deleted(1), OperationResult::Deleted(0), OperationResult::Deleted(0)]);
    let results = store.done(vec![delete(&a), put(&a, "again")]);
    assert_eq!(results[0], OperationResult::Deleted(0));
    assert_eq!(store.value(&a).as_deref(), Some("again"));
}

#[test]
fn a_cascade_that_hits_a_written_key_is_refused() {
    let mut store = Store::new();
    let (target, referrer) = (key("target"), key("referrer"));
    store.done(vec![put(&target, ""), put_references(&referrer, vec![cascade(&target)])]);
    let rewritten = put_references(&referrer, vec![cascade(&target)]);
    assert_eq!(store.refused(vec![rewritten, delete(&target)]), Refusal::KeyWrittenTwice(referrer.clone()));
    assert_eq!(store.refused(vec![delete(&target), put(&referrer, "")]), Refusal::KeyWrittenTwice(referrer));
}

#[test]
fn a_reindex_that_changes_nothing_is_no_write() {
    let mut store = Store::new();
    let a = key("a");
    store.done(vec![put(&a, "1")]);
    let nothing = Operation::Reindex { key: a.clone(), entries: vec![] };
    assert_eq!(store.done(vec![nothing, put(&a, "2")])[0], OperationResult::Changed(false));
}

#[test]
fn a_scope_is_not_dropped_after_a_write_to_it() {
    let mut store = Store::new();
    let scope: ScopeId = store.new_scope(ScopeSettings::default());
    let a = scope.key(b"a");
    assert_eq!(store.refused(vec![put(&a, ""), drop_scope(scope)]), Refusal::KeyWrittenTwice(a.clone()));
    assert_eq!(store.refused(vec![drop_scope(scope), put(&a, "")]), Refusal::NoSuchScope(scope));
}
