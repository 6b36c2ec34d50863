//! Unique entries are checked after the last operation.

use bytes::Bytes;
use meshstore::model::{
    Entry, Refusal, ScopeId, keyspace,
    transaction::{Operation, ScopeSettings},
};

use crate::store::*;

const INDEX: u32 = 7;

fn with(name: &str, taken: &str) -> Operation {
    put_entries(&key(name), vec![unique(INDEX, taken)])
}

fn taken(taken: &str, owner: &str) -> Refusal {
    Refusal::UniqueTaken { scope: INDEX, entry: Bytes::from(taken.to_owned()), owner: key(owner) }
}

#[test]
fn what_another_record_owns_refuses_the_transaction() {
    let mut store = Store::new();
    store.done(vec![with("a", "x")]);
    assert_eq!(store.refused(vec![with("b", "x")]), taken("x", "a"));
    assert_eq!(store.refused(vec![with("c", "y"), with("b", "y")]), taken("y", "c"));
    store.done(vec![with("a", "x")]);
    store.done(vec![with("b", "y")]);
}

#[test]
fn two_records_swap_in_either_order() {
    let mut store = Store::new();
    store.done(vec![with("a", "x"), with("b", "y")]);
    store.done(vec![with("a", "y"), with("b", "x")]);
    assert_eq!(store.refused(vec![with("c", "x")]), taken("x", "b"));
    store.done(vec![with("b", "y"), with("a", "x")]);
    assert_eq!(store.refused(vec![with("c", "x")]), taken("x", "a"));
    assert_eq!(store.derived(keyspace::UNIQUE, INDEX).len(), 2);
}

#[test]
fn three_records_pass_entries_round() {
    let mut store = Store::new();
    store.done(vec![with("a", "x"), with("b", "y"), with("c", "z")]);
    store.done(vec![with("a", "y"), with("b", "z"), with("c", "x")]);
    assert_eq!(store.refused(vec![with("d", "x")]), taken("x", "c"));
}

#[test]
fn an_entry_is_free_once_its_owner_lets_go_before_or_after() {
    let mut store = Store::new();
    store.done(vec![with("a", "x")]);
    store.done(vec![with("b", "x"), delete(&key("a"))]);
    store.done(vec![put(&key("b"), "none"), with("c", "x")]);
    let let_go = Operation::Reindex { key: key("c"), entries: vec![] };
    store.done(vec![with("d", "x"), let_go]);
    assert_eq!(store.refused(vec![with("e", "x")]), taken("x", "d"));
    assert_eq!(store.derived(keyspace::UNIQUE, INDEX).len(), 1);
}

#[test]
fn two_takers_of_one_entry_are_refused() {
    let mut store = Store::new();
    store.done(vec![with("a", "x")]);
    assert_eq!(store.refused(vec![with("b", "x"), with("c", "x"), delete(&key("a"))]), taken("x", "b"));
    assert_eq!(store.refused(vec![with("b", "x"), with("a", "x")]), taken("x", "a"));
}

#[test]
fn reindex_takes_unique_entries_too() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), ""), with("b", "x")]);
    let take = |name: &str| Operation::Reindex { key: key(name), entries: vec![unique(INDEX, "x")] };
    assert_eq!(store.refused(vec![take("a")]), taken("x", "b"));
    store.done(vec![delete(&key("b")), take("a")]);
    assert_eq!(store.refused(vec![with("c", "x")]), taken("x", "a"));
}

#[test]
fn the_same_entry_twice_in_one_record_is_one() {
    let mut store = Store::new();
    let second = Entry { payload: "second".into(), ..unique(INDEX, "x") };
    store.done(vec![put_entries(&key("a"), vec![unique(INDEX, "x"), second])]);
    let pairs = store.derived(keyspace::UNIQUE, INDEX);
    assert_eq!(pairs.len(), 1);
    assert!(pairs[0].1.ends_with(b"second"));
    store.done(vec![delete(&key("a"))]);
    assert_eq!(store.account(ScopeId::new(keyspace::UNIQUE, INDEX)).count, 0);
}

#[test]
fn indexes_do_not_see_one_another() {
    let mut store = Store::new();
    store.done(vec![
        with("a", "x"),
        put_entries(&key("b"), vec![unique(8, "x")]),
        put_entries(&key("c"), vec![entry(INDEX, "x", "")]),
        put_entries(&key("d"), vec![entry(INDEX, "x", "")]),
    ]);
}

#[test]
fn an_entry_is_free_once_its_owners_scope_is_dropped() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings::default());
    store.done(vec![put_entries(&scope.key(b"a"), vec![unique(INDEX, "x")])]);
    store.done(vec![drop_scope(scope), with("b", "x")]);
    assert_eq!(store.refused(vec![with("c", "x")]), taken("x", "b"));
}

#[test]
fn a_dropped_index_holds_nobody_and_cannot_be_entered() {
    let mut store = Store::new();
    let index = ScopeId::new(keyspace::UNIQUE, 2_000);
    store.done(vec![set_scope(index, ScopeSettings::default())]);
    let with = |name: &str| put_entries(&key(name), vec![unique(2_000, "x")]);
    store.done(vec![with("a")]);
    store.done(vec![with("b"), drop_scope(index)]);
    store.done(vec![with("c"), with("a")]);
    assert!(!store.state.meta().is_live(index));
}
