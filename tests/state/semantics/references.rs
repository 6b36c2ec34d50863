//! References: checked after the last operation; a deletion takes its cascade closure with it.

use meshstore::model::{OperationResult, Refusal, keyspace, transaction::ScopeSettings};

use crate::store::*;

#[test]
fn a_referenced_record_must_exist() {
    let mut store = Store::new();
    let (a, b) = (key("a"), key("b"));
    let missing = Refusal::MissingReference { referrer: a.clone(), missing: b.clone() };
    assert_eq!(store.refused(vec![put_references(&a, vec![cascade(&b)])]), missing);
    assert_eq!(store.refused(vec![put_references(&a, vec![restrict(&b)])]), missing);
}

#[test]
fn the_referrer_may_be_put_before_its_target() {
    let mut store = Store::new();
    let (a, b) = (key("a"), key("b"));
    store.done(vec![put_references(&a, vec![restrict(&b)]), put(&b, "")]);
    assert_eq!(store.done_one(referrers(&b, 10)), OperationResult::Keys(vec![a]));
}

#[test]
fn a_target_deleted_in_the_same_transaction_is_missing() {
    let mut store = Store::new();
    let (a, b, c) = (key("a"), key("b"), key("c"));
    store.done(vec![put(&b, "")]);
    let missing = |referrer: &_| Refusal::MissingReference { referrer: Clone::clone(referrer), missing: b.clone() };
    assert_eq!(store.refused(vec![delete(&b), put_references(&a, vec![restrict(&b)])]), missing(&a));
    assert_eq!(store.refused(vec![delete(&b), put_references(&c, vec![cascade(&b)])]), missing(&c));
}

#[test]
fn a_cascade_takes_all_that_hangs_on_the_record() {
    let mut store = Store::new();
    let (root, child, grandchild, other) = (key("root"), key("child"), key("grandchild"), key("other"));
    store.done(vec![
        put(&root, ""),
        put(&other, ""),
        put_references(&child, vec![cascade(&root), cascade(&other)]),
        put_references(&grandchild, vec![cascade(&child)]),
    ]);
    assert_eq!(store.done_one(delete(&root)), OperationResult::Deleted(3));
    assert!(store.exists(&other));
    assert_eq!(store.account(STATE).count, 1);
    assert_eq!(store.derived(keyspace::REFERRERS, 0), []);
}

#[test]
fn cycles_go_as_a_whole() {
    let mut store = Store::new();
    let (a, b, c) = (key("a"), key("b"), key("c"));
    store.done(vec![
        put_references(&a, vec![cascade(&c), cascade(&a)]),
        put_references(&b, vec![cascade(&a)]),
        put_references(&c, vec![cascade(&b)]),
    ]);
    assert_eq!(store.done_one(delete(&b)), OperationResult::Deleted(3));
    assert_eq!(store.account(STATE).count, 0);
}

#[test]
fn restrict_refuses_while_a_referrer_is_left() {
    let mut store = Store::new();
    let (target, referrer) = (key("target"), key("referrer"));
    store.done(vec![put(&target, ""), put_references(&referrer, vec![restrict(&target)])]);
    let held = Refusal::Restricted { key: target.clone(), referrer: referrer.clone() };
    assert_eq!(store.refused(vec![delete(&target)]), held);
    assert_eq!(store.refused(vec![delete_range(STATE, "t", "u")]), held);
    store.done(vec![put(&target, "overwriting is not deleting")]);
    store.done(vec![delete(&target), delete(&referrer)]);
}

#[test]
fn restrict_counts_only_from_outside_the_closure() {
    let mut store = Store::new();
    let (root, child, holder) = (key("root"), key("child"), key("holder"));
    store.done(vec![
        put(&root, ""),
        put_references(&child, vec![cascade(&root)]),
        put_references(&holder, vec![cascade(&child), restrict(&root)]),
    ]);
    assert_eq!(store.done_one(delete(&root)), OperationResult::Deleted(3));

    store.done(vec![put(&root, ""), put_references(&child, vec![cascade(&root)])]);
    store.done(vec![put_references(&holder, vec![restrict(&child)])]);
    assert_eq!(store.refused(vec![delete(&root)]), Refusal::Restricted { key: child, referrer: holder });
}

#[test]
fn a_record_may_hold_itself() {
    let mut store = Store::new();
    let a = key("a");
    store.done(vec![put_references(&a, vec![restrict(&a)])]);
    assert_eq!(store.done_one(delete(&a)), OperationResult::Deleted(1));
}

#[test]
fn set_null_is_a_rewrite_of_the_referrer_beside_the_delete() {
    let mut store = Store::new();
    let (target, referrer) = (key("target"), key("referrer"));
    for nulled_first in [true, false] {
        store.done(vec![put(&target, ""), put_references(&referrer, vec![restrict(&target)])]);
        let mut operations = vec![put(&referrer, "null"), delete(&target)];
        if !nulled_first {
            operations.reverse();
        }
        store.done(operations);
        assert_eq!((store.exists(&target), store.value(&referrer).as_deref()), (false, Some("null")));
    }
}

#[test]
fn exactly_4096_records_go_at_once_and_4097_are_refused() {
    let mut store = Store::new();
    let root = key("root");
    let children: Vec<_> = (0..4_096).map(|n| key(&format!("child {n:04}"))).collect();
    store.done(vec![put(&root, "")]);
    store.done(children.iter().map(|child| put_references(child, vec![cascade(&root)])).collect());
    assert_eq!(store.refused(vec![delete(&root)]), Refusal::TooManyReferrers(root.clone()));
    assert_eq!(store.refused(vec![delete_all(STATE)]), Refusal::TooManyReferrers(root.clone()));
    store.done(vec![delete(&children[7])]);
    assert_eq!(store.done_one(delete(&root)), OperationResult::Deleted(4_096));
    assert_eq!(store.account(STATE).count, 0);
}

#[test]
fn the_bound_is_one_for_all_deletions_of_a_transaction() {
    let mut store = Store::new();
    let keys: Vec<_> = (0..4_097).map(|n| key(&format!("{n:04}"))).collect();
    store.done(keys.iter().map(|key| put(key, "")).collect());
    assert_eq!(store.refused(keys.iter().map(delete).collect()), Refusal::TooManyReferrers(keys[4_096].clone()));
    assert_eq!(store.refused(vec![delete_all(STATE)]), Refusal::TooManyReferrers(keys[4_096].clone()));
    store.done(keys.iter().skip(1).map(delete).collect());
}

#[test]
fn referrers_of_a_dropped_scope_are_none() {
    let mut store = Store::new();
    let target = key("target");
    let scope = store.new_scope(ScopeSettings::default());
    let in_scope = |n: usize| scope.key(format!("{n:03}").as_bytes());
    store.done(vec![put(&target, "")]);
    store.done((0..200).map(|n| put_references(&in_scope(n), vec![restrict(&target)])).collect());
    let last = key("zzz");
    store.done(vec![put_references(&last, vec![restrict(&target)])]);
    store.done(vec![drop_scope(scope)]);
    assert_eq!(store.done_one(referrers(&target, 1)), OperationResult::Keys(vec![last.clone()]).clone());
    store.done(vec![delete(&last), delete(&target)]);
}

#[test]
fn two_references_to_one_record_are_one_the_later_wins() {
    let mut store = Store::new();
    let (target, referrer) = (key("target"), key("referrer"));
    store.done(vec![put(&target, ""), put_references(&referrer, vec![restrict(&target), cascade(&target)])]);
    assert_eq!(store.done_one(referrers(&target, 9)), OperationResult::Keys(vec![referrer]));
    assert_eq!(store.done_one(delete(&target)), OperationResult::Deleted(2));
}
