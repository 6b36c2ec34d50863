//! Log time takes the maximum, never goes back; wall time is only stamped.

use meshstore::model::{proposal::Action, transaction::Operation};

use crate::store::*;

#[test]
fn log_time_never_goes_back() {
    let mut store = Store::new();
    store.pass(500);
    store.pass(100);
    assert_eq!(store.state.meta().log_time_ms, 500);
    store.done(vec![put_ttl(&key("a"), 10, vec![])]);
    assert_eq!(store.record(&key("a")).unwrap().expires_at_ms, Some(510));
}

#[test]
fn log_time_alone_is_no_revision() {
    let mut store = Store::new();
    assert_eq!(store.pass(500), []);
    assert_eq!(store.revision(), 0);
}

#[test]
fn an_empty_batch_lets_no_time_pass() {
    let mut store = Store::new();
    store.now_ms = 500;
    store.apply(vec![]);
    assert_eq!(store.state.meta().log_time_ms, 0);
}

#[test]
fn wall_time_is_stamped_as_it_comes() {
    let mut store = Store::new();
    let a = key("a");
    store.wall_ms = 2_000;
    store.done(vec![put(&a, "1")]);
    store.wall_ms = 1_000;
    store.done(vec![put(&a, "2")]);
    let record = store.record(&a).unwrap();
    assert_eq!((record.created_at_ms, record.updated_at_ms), (2_000, 1_000));
    store.wall_ms = 3_000;
    store.done(vec![Operation::Reindex { key: a.clone(), entries: vec![entry(1, "e", "")] }]);
    assert_eq!(store.record(&a).unwrap().updated_at_ms, 1_000);
}

#[test]
fn the_end_of_time_is_no_overflow() {
    let mut store = Store::new();
    let (a, b) = (key("a"), key("b"));
    store.done(vec![put_ttl(&a, u64::MAX, vec![])]);
    store.done(vec![put_references(&b, vec![restrict(&a)])]);
    store.pass(u64::MAX - 1);
    assert!(store.exists(&a));
    store.pass(u64::MAX);
    assert_eq!(store.record(&a).unwrap().expires_at_ms, Some(u64::MAX));
    store.done(vec![delete(&b)]);
    assert!(store.exists(&a), "the expiry came before the delete");
    let tick = store.proposal(Action::Tick);
    store.propose(tick);
    assert!(!store.exists(&a));
    store.done(vec![put_ttl(&a, 1, vec![])]);
    assert_eq!(store.record(&a).unwrap().expires_at_ms, Some(u64::MAX));
}
