//! Expiry is a transaction of its own. Leases are records with an expiry that others reference.

use meshstore::{
    model::{
        Key, OperationResult, Outcome, keyspace,
        proposal::Action,
        transaction::{Compare, Operation, Put, ScopeSettings, Transaction},
    },
    state::{Meta, State},
};

use crate::store::*;

#[test]
fn a_lease_takes_along_what_is_attached_to_it() {
    let mut store = Store::new();
    let (lease, a, b) = (key("lease"), key("a"), key("b"));
    store.done(vec![
        put_ttl(&lease, 1_000, vec![]),
        put_references(&a, vec![cascade(&lease)]),
        put_references(&b, vec![cascade(&a)]),
    ]);
    assert_eq!(store.pass(999), []);
    assert!(store.exists(&lease));
    let commits = store.pass(1_000);
    assert_eq!(commits.len(), 1);
    assert_eq!(commits[0].revision, 2);
    assert_eq!(deleted(&commits), [a, b, lease]);
    assert_eq!(store.derived(keyspace::EXPIRY, 0), []);
}

#[test]
fn expiry_has_its_own_revision_before_the_proposal() {
    let mut store = Store::new();
    store.done(vec![put_ttl(&key("a"), 10, vec![])]);
    store.now_ms = 10;
    let Outcome::Applied { revision: 3, results, .. } =
        store.transact(Transaction::blind(vec![get(&key("a")), put(&key("b"), "")]))
    else {
        panic!("{:?}", store.applied)
    };
    assert_eq!(results[0], OperationResult::Record(None));
    assert_eq!(store.applied.commits.iter().map(|commit| commit.revision).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn expiry_happens_also_if_the_proposal_fails_or_raced() {
    let mut store = Store::new();
    store.done(vec![put_ttl(&key("a"), 10, vec![]), put_ttl(&key("b"), 20, vec![]), put(&key("c"), "")]);
    store.now_ms = 10;
    let Outcome::Refused { revision: 2, .. } = store.transact(Transaction::blind(vec![add(&key("c"), 1)])) else {
        panic!("{:?}", store.applied)
    };
    assert_eq!(deleted(&store.applied.commits), [key("a")]);
    store.now_ms = 20;
    let mut raced = store.proposal(Action::Transact(Transaction::default()));
    raced.guards.compares = vec![Compare::Exists { key: key("c"), exists: false }];
    assert_eq!(store.propose(raced), Outcome::Raced);
    assert_eq!(deleted(&store.applied.commits), [key("b")]);
}

#[test]
fn a_due_record_is_there_until_the_revision_that_deletes_it() {
    let mut store = Store::new();
    let a = key("a");
    let put = store.proposal(Action::Transact(Transaction::blind(vec![
        put_ttl(&a, 0, vec![]),
        get(&a),
        range_all(STATE, 9),
    ])));
    let look = store.proposal(Action::Transact(Transaction::blind(vec![get(&a)])));
    let outcomes = store.apply(vec![put, look]);
    let Outcome::Applied { revision: 1, results, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(matches!(&results[1], OperationResult::Record(Some(_))));
    assert!(matches!(&results[2], OperationResult::Records(records) if records.len() == 1));
    let Outcome::Applied { revision: 2, results, .. } = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(results[0], OperationResult::Record(None));
}

#[test]
fn overwriting_sets_the_expiry_anew() {
    let mut store = Store::new();
    let (a, b) = (key("a"), key("b"));
    store.done(vec![put_ttl(&a, 10, vec![]), put_ttl(&b, 10, vec![])]);
    store.now_ms = 5;
    store.done(vec![put_ttl(&a, 10, vec![]), put(&b, "for good")]);
    assert_eq!(store.pass(14), []);
    assert_eq!(deleted(&store.pass(15)), [a]);
    assert_eq!(store.pass(1_000_000), []);
}

#[test]
fn a_later_put_may_be_due_earlier() {
    let mut store = Store::new();
    store.done(vec![put_ttl(&key("a"), 1_000, vec![])]);
    store.pass(1);
    store.done(vec![put_ttl(&key("b"), 10, vec![])]);
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(11));
    assert_eq!(deleted(&store.pass(11)), [key("b")]);
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(1_000));
}

#[test]
fn at_most_1024_expire_at_once() {
    let mut store = Store::new();
    let keys: Vec<Key> = (0..2_500).map(|n| key(&format!("{n:04}"))).collect();
    store.done(keys.iter().map(|key| put_ttl(key, 10, vec![])).collect());
    store.now_ms = 10;
    for gone in [1_024, 1_024, 452] {
        assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(10));
        let tick = store.proposal(Action::Tick);
        store.propose(tick);
        assert_eq!(store.applied.commits.len(), 1);
        assert_eq!(deleted(&store.applied.commits).len(), gone);
    }
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), None);
    assert_eq!(store.pass(11), []);
}

#[test]
fn every_proposal_of_a_batch_lets_the_next_1024_go() {
    let mut store = Store::new();
    store.done((0..2_000).map(|n| put_ttl(&key(&format!("{n:04}")), 10, vec![])).collect());
    store.now_ms = 10;
    let tick = store.proposal(Action::Tick);
    let revisions: Vec<u64> = store
        .apply(vec![tick.clone(), tick.clone(), tick])
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Applied { revision, .. } => revision,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(revisions, [2, 3, 3]);
}

#[test]
fn what_restrict_holds_is_put_off_by_a_minute_without_an_event() {
    let mut store = Store::new();
    let (lease, attached, holder) = (key("lease"), key("attached"), key("holder"));
    store.done(vec![
        put_ttl(&lease, 10, vec![]),
        put_references(&attached, vec![cascade(&lease)]),
        put_references(&holder, vec![restrict(&attached)]),
    ]);
    let before = store.record(&lease).unwrap();
    let commits = store.pass(15);
    assert_eq!((commits.len(), commits[0].revision, commits[0].changes.len()), (1, 2, 0));
    let after = store.record(&lease).unwrap();
    assert_eq!(after.expires_at_ms, Some(60_015));
    assert_eq!((after.version, after.mod_revision), (before.version, before.mod_revision));
    assert_eq!(store.account(STATE).last_revision, 1);
    store.done(vec![delete(&holder)]);
    assert_eq!(store.pass(60_014), []);
    assert_eq!(deleted(&store.pass(60_015)), [attached, lease]);
}

#[test]
fn what_is_put_off_is_due_before_what_was_next() {
    let mut store = Store::new();
    let (held, holder, later) = (key("held"), key("holder"), key("later"));
    store.done(vec![
        put_ttl(&held, 10, vec![]),
        put_references(&holder, vec![restrict(&held)]),
        put_ttl(&later, 3_600_000, vec![]),
    ]);
    store.pass(10);
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(60_010));
    store.done(vec![delete(&holder)]);
    assert_eq!(deleted(&store.pass(60_010)), [held]);
}

#[test]
fn what_is_held_alone_goes_with_a_later_one_that_takes_its_holder() {
    let mut store = Store::new();
    let (lease, held, holder) = (key("lease"), key("held"), key("holder"));
    store.done(vec![
        put_ttl(&lease, 20, vec![]),
        put_ttl(&held, 10, vec![cascade(&lease)]),
        put_references(&holder, vec![cascade(&lease), restrict(&held)]),
    ]);
    assert_eq!(deleted(&store.pass(20)), [held, holder, lease]);
}

#[test]
fn a_lease_with_more_than_4096_referrers_goes_in_parts() {
    let mut store = Store::new();
    let lease = key("lease");
    let children: Vec<Key> = (0..5_000).map(|n| key(&format!("child {n:04}"))).collect();
    store.done(vec![
        put_ttl(&lease, 10, vec![]),
        put_ttl(&key("small"), 10, vec![]),
        put_ttl(&key("far"), 9_999, vec![]),
    ]);
    store.done(children.iter().map(|child| put_references(child, vec![cascade(&lease)])).collect());
    assert_eq!(deleted(&store.pass(10)).len(), 4_096);
    assert!(store.exists(&lease));
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(10));
    assert_eq!(deleted(&store.pass(10)).len(), 5_000 - 4_096 + 2);
    assert_eq!(store.account(STATE).count, 1);
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(9_999));
}

#[test]
fn a_large_lease_waits_for_a_transaction_of_its_own() {
    let mut store = Store::new();
    let (small, lease) = (key("small"), key("the lease"));
    store.done(vec![put_ttl(&small, 10, vec![]), put_ttl(&lease, 11, vec![]), put_ttl(&key("far"), 9_999, vec![])]);
    let children: Vec<Key> = (0..4_500).map(|n| key(&format!("child {n:04}"))).collect();
    store.done(children.iter().map(|child| put_references(child, vec![cascade(&lease)])).collect());
    assert_eq!(deleted(&store.pass(11)), [small]);
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(11));
    assert_eq!(deleted(&store.pass(11)).len(), 4_096);
    assert_eq!(deleted(&store.pass(11)).len(), 4_500 - 4_096 + 1);
}

#[test]
fn a_large_lease_whose_referrers_have_referrers_ends_too() {
    let mut store = Store::new();
    let lease = key("lease");
    let children: Vec<Key> = (0..4_200).map(|n| key(&format!("child {n:04}"))).collect();
    let below: Vec<Key> = (0..4_200).map(|n| key(&format!("below {n:04}"))).collect();
    store.done(vec![put_ttl(&lease, 10, vec![])]);
    // Each is in a cycle with the one below it, so that none is without referrers.
    let pairs = children.iter().zip(&below);
    let pairs = pairs.flat_map(|(child, below)| {
        [put_references(child, vec![cascade(&lease), cascade(below)]), put_references(below, vec![cascade(child)])]
    });
    store.done(pairs.collect());
    let gone: Vec<usize> = (0..3).map(|_| deleted(&store.pass(10)).len()).collect();
    assert_eq!(gone, [4_096, 4_096, 209]);
    assert_eq!(store.account(STATE).count, 0);
}

#[test]
fn a_chain_longer_than_one_transaction_ends_too() {
    let mut store = Store::new();
    let chain: Vec<Key> = (0..9_000).map(|n| key(&format!("{n:04}"))).collect();
    store.done(vec![put_ttl(&chain[0], 10, vec![])]);
    store.done(chain.windows(2).map(|pair| put_references(&pair[1], vec![cascade(&pair[0])])).collect());
    let mut passes = 0;
    while store.account(STATE).count > 0 {
        assert!(!store.pass(10).is_empty());
        passes += 1;
    }
    assert!(passes <= 4, "{passes}");
}

#[test]
fn a_large_lease_that_cannot_begin_is_put_off() {
    let mut store = Store::new();
    let (lease, holder) = (key("lease"), key("~holder"));
    let children: Vec<Key> = (0..4_200).map(|n| key(&format!("{n:04}"))).collect();
    store.done(vec![put_ttl(&lease, 10, vec![])]);
    store.done(children.iter().map(|child| put_references(child, vec![cascade(&lease)])).collect());
    store.done(vec![put_references(&holder, children.iter().map(restrict).collect())]);
    assert_eq!(deleted(&store.pass(10)), []);
    assert_eq!(store.record(&lease).unwrap().expires_at_ms, Some(60_010));
    store.done(vec![delete(&holder)]);
    assert_eq!(deleted(&store.pass(60_010)).len(), 4_096);
}

#[test]
fn an_expiry_of_large_records_goes_in_parts() {
    let mut store = Store::new();
    let lease = key("lease");
    let large = |n: usize| {
        let put = Put { references: vec![cascade(&lease)], ..Put::value(vec![0; 4 << 20]) };
        Operation::Put { key: key(&format!("{n:02}")), put }
    };
    store.done(vec![put_ttl(&lease, 10, vec![])]);
    for n in 0..20 {
        store.done(vec![large(n)]);
    }
    assert_eq!(deleted(&store.pass(10)).len(), 16);
    assert_eq!(deleted(&store.pass(10)).len(), 5);
}

#[test]
fn what_a_dropped_scope_left_is_cleared_away_when_due() {
    let mut store = Store::new();
    let scope = store.new_scope(ScopeSettings::default());
    store.done(vec![put_ttl(&scope.key(b"a"), 10, vec![]), put_ttl(&key("b"), 10, vec![])]);
    store.done(vec![drop_scope(scope)]);
    assert_eq!(deleted(&store.pass(10)), [key("b")]);
    assert_eq!(store.derived(keyspace::EXPIRY, 0), []);
}

#[test]
fn a_restarted_replica_expires_the_same() {
    let mut store = Store::new();
    store.done(vec![put_ttl(&key("a"), 10, vec![]), put_ttl(&key("b"), 20, vec![])]);
    store.pass(10);
    store.state = State::from_meta(Meta::decode(&store.state.meta().encode()).unwrap());
    assert_eq!(store.state.next_expiry_ms(&store.pairs).unwrap(), Some(20));
    assert_eq!(deleted(&store.pass(20)), [key("b")]);
}
