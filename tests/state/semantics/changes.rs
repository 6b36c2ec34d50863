//! The stream of changes: what each revision changed, in key order.

use meshstore::{
    model::transaction::{Operation, ScopeSettings},
    state::{Change, Commit},
};

use crate::store::*;

#[test]
fn a_commit_tells_old_and_new_in_key_order() {
    let mut store = Store::new();
    let (a, b, c) = (key("a"), key("b"), key("c"));
    store.done(vec![put(&b, "old"), put(&c, "old")]);
    let (old_b, old_c) = (store.record(&b), store.record(&c));
    store.done(vec![put(&c, "new"), delete(&b), put(&a, "new"), get(&a)]);
    let changes = vec![
        Change::Record { key: a.clone(), old: None, new: store.record(&a) },
        Change::Record { key: b, old: old_b, new: None },
        Change::Record { key: c.clone(), old: old_c, new: store.record(&c) },
    ];
    assert_eq!(store.applied.commits, [Commit { revision: 2, changes }]);
}

#[test]
fn dropped_scopes_come_last() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings::default());
    store.done(vec![put(&scope.key(b"a"), "")]);
    let last = meshstore::model::ScopeId::new(0x50, 0).key(b"z");
    store.done(vec![drop_scope(scope), put(&last, "")]);
    let changes =
        vec![Change::Record { key: last.clone(), old: None, new: store.record(&last) }, Change::ScopeDropped { scope }];
    assert_eq!(store.applied.commits, [Commit { revision: 3, changes }]);
}

#[test]
fn what_no_reader_sees_is_a_revision_without_changes() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), "")]);
    store.done(vec![
        Operation::Reindex { key: key("a"), entries: vec![entry(1, "e", "")] },
        set_scope(STATE, ScopeSettings { max_keys: 9, ..ScopeSettings::default() }),
    ]);
    assert_eq!(store.applied.commits, [Commit { revision: 2, changes: vec![] }]);
}

#[test]
fn nothing_changed_is_no_commit() {
    let mut store = Store::new();
    store.done(vec![delete(&key("a")), get(&key("a"))]);
    assert_eq!(store.applied.commits, []);
}

#[test]
fn proposals_of_one_batch_see_one_another() {
    let mut store = Store::new();
    let a = key("a");
    let one = |value: &str| {
        let transaction = meshstore::model::transaction::Transaction::blind(vec![put(&key("a"), value)]);
        Store::new().proposal(meshstore::model::proposal::Action::Transact(transaction))
    };
    store.apply(vec![one("1"), one("2")]);
    assert_eq!(store.applied.commits.iter().map(|commit| commit.revision).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((store.value(&a).as_deref(), store.record(&a).unwrap().version), (Some("2"), 2));
}
