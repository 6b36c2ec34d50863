//! What each operation does and answers.

use bytes::Bytes;
use meshstore::model::{
    Key, OperationResult, Outcome, Record, Refusal, keyspace,
    transaction::{Compare, Operation, Put, ScopeSettings, Transaction},
};

use crate::store::*;

#[test]
fn put_creates_and_overwrites() {
    let mut store = Store::new();
    let a = key("a");
    store.wall_ms = 7;
    assert_eq!(store.done_one(put(&a, "1")), OperationResult::Put { key: a.clone(), version: 1 });
    store.wall_ms = 8;
    assert_eq!(store.done_one(put(&a, "2")), OperationResult::Put { key: a.clone(), version: 2 });
    let expected = Record {
        value: Bytes::from("2"),
        create_revision: 1,
        mod_revision: 2,
        version: 2,
        created_at_ms: 7,
        updated_at_ms: 8,
        expires_at_ms: None,
        entries: vec![],
        references: vec![],
    };
    assert_eq!(store.record(&a), Some(expected));
    store.done(vec![delete(&a)]);
    assert_eq!(store.done_one(put(&a, "3")), OperationResult::Put { key: a.clone(), version: 1 });
    assert_eq!(store.record(&a).unwrap().create_revision, 4);
}

#[test]
fn an_overwrite_replaces_entries_references_and_expiry() {
    let mut store = Store::new();
    let (a, b) = (key("a"), key("b"));
    let full = Put {
        value: Bytes::from("full"),
        entries: vec![entry(1, "e", "payload"), unique(2, "u")],
        references: vec![cascade(&b)],
        ttl_ms: Some(10),
    };
    store.done(vec![put(&b, ""), Operation::Put { key: a.clone(), put: full }]);
    assert_eq!(
        store.derived(keyspace::ENTRIES, 1),
        [(Bytes::from_static(b"e\0\x01\x11\0\0\0\0a"), Bytes::from("payload"))]
    );
    assert_eq!(store.derived(keyspace::UNIQUE, 2).len(), 1);
    store.done(vec![put(&a, "bare")]);
    for derived in [keyspace::ENTRIES, keyspace::UNIQUE, keyspace::REFERRERS, keyspace::EXPIRY] {
        assert_eq!(
            (store.derived(derived, 0), store.derived(derived, 1), store.derived(derived, 2)),
            (vec![], vec![], vec![])
        );
    }
}

#[test]
fn put_stamped_numbers_by_revision_and_ordinal() {
    let mut store = Store::new();
    store.done(vec![put(&key("x"), "")]);
    let stamped = |prefix: &Key| Operation::PutStamped { prefix: prefix.clone(), put: Put::value("") };
    let (log, mail) = (key("log"), key("mail"));
    let results = store.done(vec![stamped(&log), put(&key("y"), ""), stamped(&log), stamped(&mail)]);
    let expected = |prefix: &[u8], ordinal: u8| {
        let key = STATE.key(&[prefix, &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, ordinal]].concat());
        OperationResult::Put { key, version: 1 }
    };
    assert_eq!(results[0], expected(b"log", 0));
    assert_eq!(results[2], expected(b"log", 1));
    assert_eq!(results[3], expected(b"mail", 2));
}

#[test]
fn add_counts_from_nothing_and_keeps_what_stands_beside_the_number() {
    let mut store = Store::new();
    let (a, b) = (key("a"), key("b"));
    assert_eq!(store.done_one(add(&b, -5)), OperationResult::Sum(-5));
    assert_eq!(store.record(&b).unwrap().value, Bytes::copy_from_slice(&(-5i64).to_be_bytes()));
    let full = Put {
        value: Bytes::copy_from_slice(&40i64.to_be_bytes()),
        entries: vec![entry(1, "e", "")],
        references: vec![cascade(&b)],
        ttl_ms: Some(10),
    };
    store.done(vec![Operation::Put { key: a.clone(), put: full }]);
    let before = store.record(&a).unwrap();
    store.pass(5);
    store.wall_ms = 9;
    assert_eq!(store.done_one(add(&a, 2)), OperationResult::Sum(42));
    let value = Bytes::copy_from_slice(&42i64.to_be_bytes());
    let expected = Record { value, mod_revision: 3, version: 2, updated_at_ms: 9, ..before };
    assert_eq!(store.record(&a), Some(expected));
    assert_eq!(deleted(&store.pass(10)), [a]);
}

#[test]
fn add_keeps_its_bounds() {
    let mut store = Store::new();
    let a = key("a");
    let bounded = |delta, min, max| Operation::Add { key: key("a"), delta, min, max };
    let out = |current| Refusal::OutOfBounds { key: key("a"), current };
    assert_eq!(store.refused(vec![bounded(-1, 0, 10)]), out(0));
    store.done(vec![bounded(10, 0, 10)]);
    assert_eq!(store.refused(vec![bounded(1, 0, 10)]), out(10));
    assert_eq!(store.refused(vec![bounded(0, 11, 12)]), out(10));
    assert_eq!(store.refused(vec![bounded(0, 5, 4)]), out(10));
    assert_eq!(store.refused(vec![add(&a, i64::MAX)]), out(10));
    store.done(vec![add(&a, i64::MAX - 10)]);
    assert_eq!(store.refused(vec![add(&a, 1)]), out(i64::MAX));
    store.done(vec![add(&a, i64::MIN)]);
    assert_eq!(store.done_one(add(&a, i64::MIN + 1)), OperationResult::Sum(i64::MIN));
    assert_eq!(store.refused(vec![add(&a, -1)]), out(i64::MIN));
}

#[test]
fn add_to_what_is_no_number_is_refused() {
    let mut store = Store::new();
    for value in ["", "seven b", "nine byte"] {
        store.done(vec![put(&key("a"), value)]);
        assert_eq!(store.refused(vec![add(&key("a"), 1)]), Refusal::NotANumber(key("a")));
    }
}

#[test]
fn delete_range_takes_start_up_to_end() {
    let mut store = Store::new();
    store.done(["a", "b", "ba", "c"].iter().map(|name| put(&key(name), "")).collect());
    assert_eq!(store.done_one(delete_range(STATE, "b", "c")), OperationResult::Deleted(2));
    assert_eq!(store.done_one(delete_range(STATE, "z", "a")), OperationResult::Deleted(0));
    assert_eq!(store.done_one(delete_all(STATE)), OperationResult::Deleted(2));
}

#[test]
fn delete_range_sees_the_transaction_and_counts_cascades_once() {
    let mut store = Store::new();
    let (a, b, z) = (key("a"), key("b"), key("z"));
    store.done(vec![put(&a, ""), put_references(&b, vec![cascade(&a)]), put_references(&z, vec![cascade(&b)])]);
    assert_eq!(store.done_one(delete_range(STATE, "a", "c")), OperationResult::Deleted(3));
    assert_eq!(store.refused(vec![put(&a, ""), delete_range(STATE, "a", "c")]), Refusal::KeyWrittenTwice(a));
}

#[test]
fn reindex_changes_entries_and_nothing_else() {
    let mut store = Store::new();
    let a = key("a");
    store.done(vec![put_entries(&a, vec![entry(1, "old", ""), unique(2, "u")])]);
    let before = store.record(&a).unwrap();
    let entries = vec![entry(1, "new", "p")];
    let reindex = Operation::Reindex { key: a.clone(), entries: entries.clone() };
    assert_eq!(store.done_one(reindex.clone()), OperationResult::Changed(true));
    assert_eq!(store.applied.commits.len(), 1);
    assert_eq!(store.applied.commits[0].changes, []);
    assert_eq!(store.revision(), 2);
    assert_eq!(store.record(&a), Some(Record { entries, ..before }));
    assert_eq!(store.account(STATE).last_revision, 1);
    assert_eq!((store.derived(keyspace::ENTRIES, 1).len(), store.derived(keyspace::UNIQUE, 2).len()), (1, 0));
    assert_eq!(store.done_one(reindex), OperationResult::Changed(false));
    let missing = Operation::Reindex { key: key("missing"), entries: vec![entry(1, "e", "")] };
    assert_eq!(store.done_one(missing), OperationResult::Changed(false));
    assert_eq!(store.revision(), 2);
}

#[test]
fn reads_see_the_operations_before_them() {
    let mut store = Store::new();
    let (a, b, c) = (key("a"), key("b"), key("c"));
    store.done(vec![put(&a, "a"), put(&c, "c")]);
    let results = store.done(vec![
        get(&b),
        put(&b, "b"),
        get(&b),
        delete(&a),
        range_all(STATE, 10),
        put_references(&key("d"), vec![cascade(&c)]),
        referrers(&c, 10),
        get(&a),
    ]);
    assert_eq!(results[0], OperationResult::Record(None));
    let OperationResult::Record(Some(seen)) = &results[2] else { panic!("{results:?}") };
    assert_eq!((seen.value.as_ref(), seen.mod_revision), (&b"b"[..], 2));
    let OperationResult::Records(records) = &results[4] else { panic!("{results:?}") };
    assert_eq!(records.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&b, &c]);
    assert_eq!(results[6], OperationResult::Keys(vec![key("d")]));
    assert_eq!(results[7], OperationResult::Record(None));
}

fn names(result: &OperationResult) -> Vec<Key> {
    match result {
        OperationResult::Records(records) => records.iter().map(|(key, _)| key.clone()).collect(),
        OperationResult::Keys(keys) => keys.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn range_answers_up_to_its_limit_and_a_thousand() {
    let mut store = Store::new();
    let keys: Vec<Key> = (0..1_100).map(|n| key(&format!("{n:04}"))).collect();
    store.done(keys.iter().map(|key| put(key, "")).collect());
    for (limit, count) in
        [(0, 0), (1, 1), (63, 63), (64, 64), (65, 65), (1_000, 1_000), (1_001, 1_000), (u32::MAX, 1_000)]
    {
        assert_eq!(names(&store.done_one(range_all(STATE, limit))), keys[..count]);
    }
    assert_eq!(names(&store.done_one(range(STATE, "0010", "0012", 9))), keys[10..12]);
    assert_eq!(names(&store.done_one(range(STATE, "0012", "0010", 9))), []);
}

#[test]
fn range_merges_what_is_pending_with_what_is_stored() {
    let mut store = Store::new();
    let keys: Vec<Key> = (0..600).map(|n| key(&format!("{n:04}"))).collect();
    store.done(keys.iter().step_by(2).map(|key| put(key, "stored")).collect());
    let mut operations: Vec<Operation> = keys[..500].iter().step_by(2).map(delete).collect();
    operations.extend(keys.iter().skip(1).step_by(100).map(|key| put(key, "pending")));
    let left: Vec<Key> =
        (0..600).filter(|n| if n % 2 == 0 { *n >= 500 } else { n % 100 == 1 }).map(|n| keys[n].clone()).collect();
    for limit in [1, 5, 6, 7, 55, 56, 100] {
        operations.push(range_all(STATE, limit as u32));
        let results = store.transact(Transaction::blind(operations.clone()));
        let Outcome::Applied { results, .. } = results else { panic!("{results:?}") };
        assert_eq!(names(results.last().unwrap()), left[..left.len().min(limit)]);
        operations.pop();
        // Back to where it was.
        store.done(vec![delete_all(STATE)]);
        store.done(keys.iter().step_by(2).map(|key| put(key, "stored")).collect());
    }
}

#[test]
fn range_ends_after_a_mebibyte() {
    let mut store = Store::new();
    let value = "v".repeat((1 << 20) / 4);
    store.done((0..6).map(|n| put(&key(&n.to_string()), &value)).collect());
    assert_eq!(names(&store.done_one(range_all(STATE, 10))).len(), 4);
    // Not only values count.
    let heavy = |n: usize| put_entries(&key(&n.to_string()), vec![entry(1, &value, ""), entry(1, "p", &value)]);
    store.done((0..6).map(heavy).collect());
    assert_eq!(names(&store.done_one(range_all(STATE, 10))).len(), 2);
}

#[test]
fn a_transaction_answers_at_most_8_mebibytes() {
    let mut store = Store::new();
    let a = key("a");
    store.done(vec![put(&a, &"v".repeat(1 << 20))]);
    store.done(vec![get(&a); 7]);
    assert_eq!(store.refused(vec![get(&a); 8]), Refusal::AnswerTooLarge);
    assert_eq!(store.refused(vec![range_all(STATE, 1); 8]), Refusal::AnswerTooLarge);
    store.done(vec![get(&key("missing")); 20_000]);
}

#[test]
fn a_transaction_replaces_at_most_64_mebibytes() {
    let mut store = Store::new();
    let large = "v".repeat(4 << 20);
    let keys: Vec<Key> = (0..16).map(|n| key(&format!("{n:02}"))).collect();
    for key in &keys {
        store.done(vec![put(key, &large)]);
    }
    let over = |key: &Key| put(key, "");
    assert_eq!(store.refused(keys.iter().map(over).collect()), Refusal::TooManyBytes);
    assert_eq!(store.refused(keys.iter().map(delete).collect()), Refusal::TooManyBytes);
    assert_eq!(store.refused(vec![delete_all(STATE)]), Refusal::TooManyBytes);
    store.done(keys.iter().skip(8).map(over).chain(keys.iter().take(7).map(delete)).collect());
}

#[test]
fn referrers_come_in_key_order_up_to_the_limit() {
    let mut store = Store::new();
    let target = key("target");
    let all: Vec<Key> = (0..1_100).map(|n| key(&format!("{n:04}"))).collect();
    store.done(vec![put(&target, "")]);
    store.done(all.iter().map(|key| put_references(key, vec![restrict(&target)])).collect());
    for (limit, count) in [(0, 0), (1, 1), (100, 100), (u32::MAX, 1_000)] {
        assert_eq!(names(&store.done_one(referrers(&target, limit))), all[..count]);
    }
    assert_eq!(names(&store.done_one(referrers(&key("targe"), 9))), []);
}

#[test]
fn the_other_branch_is_taken_if_a_compare_fails() {
    let mut store = Store::new();
    let (a, b) = (key("a"), key("b"));
    let exists = |key: &Key| Compare::Exists { key: key.clone(), exists: true };
    store.done(vec![put(&a, "")]);
    let transaction = Transaction {
        compares: vec![exists(&a), exists(&b)],
        then: vec![put(&b, "then")],
        otherwise: vec![put(&b, "otherwise"), get(&a)],
    };
    let Outcome::Applied { revision: 2, succeeded: false, results } = store.transact(transaction.clone()) else {
        panic!("{:?}", store.applied)
    };
    assert_eq!(results.len(), 2);
    assert_eq!(store.value(&b).as_deref(), Some("otherwise"));
    assert!(matches!(store.transact(transaction), Outcome::Applied { succeeded: true, revision: 3, .. }));
}

#[test]
fn a_refusal_in_the_other_branch_refuses_too() {
    let mut store = Store::new();
    let compares = vec![Compare::Exists { key: key("a"), exists: true }];
    let transaction =
        Transaction { compares, otherwise: vec![put(&key("b"), ""), put(&key("b"), "")], ..Transaction::default() };
    assert!(matches!(store.transact(transaction), Outcome::Refused { .. }));
    assert_eq!(store.revision(), 0);
}

#[test]
fn the_revision_counts_only_transactions_that_change_something() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings::default());
    store.done(vec![put(&key("a"), "")]);
    assert_eq!(store.revision(), 2);
    store.done(vec![]);
    store.done(vec![get(&key("a")), delete(&key("missing")), delete_range(STATE, "b", "c")]);
    store.done(vec![set_scope(scope, ScopeSettings::default())]);
    assert_eq!(store.revision(), 2);
    store.done(vec![put(&key("a"), "")]);
    assert_eq!(store.revision(), 3, "the same value is written anew");
}
