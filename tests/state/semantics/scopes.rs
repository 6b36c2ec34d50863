//! Scopes: created with new numbers, bounded, dropped at once.

use meshstore::{
    model::{
        OperationResult, Refusal, ScopeId, keyspace,
        transaction::{Operation, ScopeSettings},
    },
    state::{Change, scope::Account},
};

use crate::store::*;

const NONE: ScopeSettings = ScopeSettings { history: 0, max_keys: 0, max_bytes: 0 };

#[test]
fn a_scope_must_be_created_before_it_is_written() {
    let mut store = Store::new();
    let scope = ScopeId::new(0x40, 1_024);
    assert_eq!(store.refused(vec![put(&scope.key(b"a"), "")]), Refusal::NoSuchScope(scope));
    assert_eq!(store.refused(vec![add(&scope.key(b"a"), 1)]), Refusal::NoSuchScope(scope));
    let reindex = Operation::Reindex { key: scope.key(b"a"), entries: vec![] };
    assert_eq!(store.refused(vec![reindex]), Refusal::NoSuchScope(scope));
    let stamped = Operation::PutStamped { prefix: scope.key(b"a"), put: Default::default() };
    assert_eq!(store.refused(vec![stamped]), Refusal::NoSuchScope(scope));
    assert_eq!(
        store.done(vec![delete(&scope.key(b"a")), delete_all(scope)]),
        [OperationResult::Deleted(0), OperationResult::Deleted(0)]
    );
    store.done(vec![set_scope(scope, NONE), put(&scope.key(b"a"), "")]);
    assert_eq!(store.state.meta().scopes[&scope].incarnation, 1);
}

#[test]
fn numbers_must_be_new_over_all_keyspaces() {
    let mut store = Store::new();
    let first = ScopeId::new(0x40, 2_000);
    assert_eq!(store.done_one(set_scope(first, NONE)), OperationResult::Changed(true));
    assert_eq!(store.done_one(set_scope(first, NONE)), OperationResult::Changed(false));
    for (keyspace, number) in [(0x41, 2_000), (0x40, 1_024), (keyspace::ENTRIES, 1_999)] {
        let old = ScopeId::new(keyspace, number);
        assert_eq!(store.refused(vec![set_scope(old, NONE)]), Refusal::ScopeNotNew(old));
    }
    store.done(vec![drop_scope(first)]);
    assert_eq!(store.refused(vec![set_scope(first, NONE)]), Refusal::ScopeNotNew(first));
    let next = ScopeId::new(keyspace::UNIQUE, 2_001);
    assert_eq!(
        store.refused(vec![set_scope(next, NONE), drop_scope(next), set_scope(next, NONE)]),
        Refusal::ScopeNotNew(next)
    );
    store.done(vec![set_scope(next, NONE)]);
    assert_eq!(store.state.meta().last_scope, 2_001);
}

#[test]
fn only_records_and_indexes_have_scopes() {
    let mut store = Store::new();
    for keyspace in [0, 0x0F, keyspace::REFERRERS, keyspace::EXPIRY, keyspace::HISTORY, 0xFF] {
        for number in [0, 1_024] {
            let scope = ScopeId::new(keyspace, number);
            assert_eq!(store.refused(vec![set_scope(scope, NONE)]), Refusal::ScopeNotNew(scope));
            assert_eq!(store.refused(vec![drop_scope(scope)]), Refusal::ScopePermanent(scope));
        }
    }
}

#[test]
fn permanent_scopes_have_settings_and_stay() {
    let mut store = Store::new();
    assert_eq!(store.done_one(set_scope(STATE, NONE)), OperationResult::Changed(false));
    assert_eq!(store.done_one(set_scope(STATE, ScopeSettings { max_keys: 1, ..NONE })), OperationResult::Changed(true));
    store.done(vec![put(&key("a"), "")]);
    assert_eq!(store.refused(vec![put(&key("b"), "")]), Refusal::ScopeFull(STATE));
    assert_eq!(store.refused(vec![drop_scope(STATE)]), Refusal::ScopePermanent(STATE));
    let last = ScopeId::new(0x40, 1_023);
    assert_eq!(store.refused(vec![drop_scope(last)]), Refusal::ScopePermanent(last));
}

#[test]
fn settings_change_without_an_event() {
    let mut store = Store::new();
    let scope = store.new_scope(NONE);
    store.done(vec![set_scope(scope, ScopeSettings { max_keys: 5, ..NONE })]);
    assert_eq!((store.revision(), store.applied.commits[0].changes.len()), (2, 0));
    let stored = store.state.meta().scopes[&scope];
    assert_eq!((stored.incarnation, stored.settings.max_keys, stored.account.last_revision), (1, 5, 0));
}

#[test]
fn a_full_scope_takes_no_further_key_but_overwrites() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings { max_keys: 2, ..NONE });
    let at = |name: &str| scope.key(name.as_bytes());
    store.done(vec![put(&at("a"), ""), put(&at("b"), "")]);
    assert_eq!(store.refused(vec![put(&at("c"), "")]), Refusal::ScopeFull(scope));
    store.done(vec![put(&at("a"), "more bytes")]);
    store.done(vec![put(&at("c"), ""), delete(&at("a"))]);
}

#[test]
fn a_full_scope_takes_no_further_bytes_but_shrinks() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings { max_bytes: 140, ..NONE });
    let at = |name: &str| scope.key(name.as_bytes());
    store.done(vec![put(&at("a"), "12345"), put(&at("b"), "12345")]);
    assert_eq!(store.account(scope).bytes, 140);
    assert_eq!(store.refused(vec![put(&at("a"), "123456")]), Refusal::ScopeFull(scope));
    store.done(vec![set_scope(scope, ScopeSettings { max_bytes: 10, max_keys: 1, ..NONE })]);
    store.done(vec![put(&at("a"), "12345")]);
    store.done(vec![put(&at("a"), "1234")]);
    store.done(vec![delete(&at("a"))]);
    assert_eq!(store.refused(vec![put(&at("b"), "123456")]), Refusal::ScopeFull(scope));
}

#[test]
fn an_index_can_be_full() {
    let mut store = Store::new();
    let index = ScopeId::new(keyspace::ENTRIES, 1_024);
    store.done(vec![set_scope(index, ScopeSettings { max_keys: 1, ..NONE })]);
    let with = |name: &str| put_entries(&key(name), vec![entry(1_024, "e", "")]);
    store.done(vec![with("a")]);
    assert_eq!(store.refused(vec![with("b")]), Refusal::ScopeFull(index));
}

#[test]
fn a_drop_takes_everything_at_once_and_is_one_event() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings { history: 2, ..NONE });
    let at = |name: &str| scope.key(name.as_bytes());
    store.done(vec![put(&at("a"), "1"), put(&at("b"), "1")]);
    store.done(vec![put(&at("a"), "2")]);
    assert_eq!(store.account(ScopeId::new(keyspace::HISTORY, scope.scope)).count, 1);
    assert_eq!(store.done_one(drop_scope(scope)), OperationResult::Changed(true));
    assert_eq!(store.applied.commits[0].changes, [Change::ScopeDropped { scope }]);
    assert!(store.state.meta().scopes.is_empty());
    let results = store.done(vec![get(&at("a")), range_all(scope, 9), delete(&at("a")), drop_scope(scope)]);
    assert_eq!(
        results,
        [
            OperationResult::Record(None),
            OperationResult::Records(vec![]),
            OperationResult::Deleted(0),
            OperationResult::Changed(false)
        ]
    );
    assert_eq!(store.refused(vec![put(&at("a"), "")]), Refusal::NoSuchScope(scope));
}

#[test]
fn a_drop_leaves_no_trace_in_the_hash_of_the_rest() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), "")]);
    let before = store.account(STATE);
    let scope = store.new_scope(NONE);
    store.done(vec![put_entries(&scope.key(b"a"), vec![entry(1, "e", "")]), put(&key("b"), "")]);
    store.done(vec![delete(&scope.key(b"a")), delete(&key("b")), drop_scope(scope)][..2].to_vec());
    store.done(vec![drop_scope(scope)]);
    assert_eq!(store.account(STATE), Account { last_revision: 4, ..before });
}

#[test]
fn a_scope_created_and_dropped_at_once_uses_up_its_number() {
    let mut store = Store::new();
    let scope = ScopeId::new(0x40, 1_024);
    store.done(vec![set_scope(scope, NONE), drop_scope(scope)]);
    assert_eq!((store.revision(), store.applied.commits[0].changes.len()), (1, 0));
    assert_eq!(store.refused(vec![set_scope(scope, NONE)]), Refusal::ScopeNotNew(scope));
}

#[test]
fn a_scope_that_others_reference_is_not_dropped() {
    let mut store = Store::new();
    let (parents, children) = (store.new_scope(NONE), store.new_scope(NONE));
    let (parent, child, other) = (parents.key(b"p"), children.key(b"c"), children.key(b"d"));
    store.done(vec![
        put(&parent, ""),
        put_references(&child, vec![cascade(&parent)]),
        put_references(&other, vec![restrict(&parent)]),
    ]);
    let referenced = Refusal::ScopeReferenced(parents, children);
    assert_eq!(store.refused(vec![drop_scope(parents)]), referenced);
    store.done(vec![delete(&other)]);
    assert_eq!(store.refused(vec![drop_scope(parents)]), referenced);
    let missing = Refusal::MissingReference { referrer: other.clone(), missing: parent.clone() };
    assert_eq!(store.refused(vec![put_references(&other, vec![cascade(&parent)]), drop_scope(parents)]), missing);
    store.done(vec![put(&child, "lets go"), drop_scope(parents)]);
    assert!(store.state.meta().links.is_empty());
}

#[test]
fn a_scope_may_reference_itself_and_go_together_with_its_referrers() {
    let mut store = Store::new();
    let (parents, children) = (store.new_scope(NONE), store.new_scope(NONE));
    let (parent, child) = (parents.key(b"p"), children.key(b"c"));
    store.done(vec![put(&parent, ""), put_references(&parents.key(b"q"), vec![restrict(&parent)])]);
    store.done(vec![put_references(&child, vec![restrict(&parent)])]);
    store.done(vec![drop_scope(parents), drop_scope(children)]);
    assert!(store.state.meta().links.is_empty());
}

#[test]
fn dropping_the_referrers_frees_the_referenced() {
    let mut store = Store::new();
    let (parents, children) = (store.new_scope(NONE), store.new_scope(NONE));
    let parent = parents.key(b"p");
    store.done(vec![put(&parent, ""), put_references(&children.key(b"c"), vec![restrict(&parent)])]);
    store.done(vec![drop_scope(children)]);
    store.done(vec![delete(&parent)]);
    store.done(vec![drop_scope(parents)]);
}

#[test]
fn a_dropped_index_lets_its_entries_go_and_one_to_come_cannot_be_entered() {
    let mut store = Store::new();
    let index = ScopeId::new(keyspace::ENTRIES, 1_024);
    let with = |number| vec![put_entries(&key("a"), vec![entry(number, "e", "")])];
    assert_eq!(store.refused(with(1_024)), Refusal::NoSuchScope(index));
    store.done(vec![set_scope(index, NONE)]);
    store.done(with(1_024));
    store.done(vec![drop_scope(index)]);
    assert_eq!(store.applied.commits[0].changes, [Change::ScopeDropped { scope: index }]);
    store.done(with(1_024));
    assert_eq!(store.account(index), Account::default());
    assert_eq!(store.refused(with(1_025)), Refusal::NoSuchScope(ScopeId::new(keyspace::ENTRIES, 1_025)));
}
