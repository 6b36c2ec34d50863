//! Whatever a log entry holds, apply answers: a proposal that made it panic or fault would stop every node at once,
//! and again at every start.

use bytes::Bytes;
use meshstore::{
    model::{
        Entry, Key, Outcome, Refusal, ScopeId, keyspace,
        proposal::{Action, Batch, Call, Guards, Proposal},
        transaction::{Compare, NumberField, Operation, Put, Relation, ScopeField, ScopeSettings, Transaction},
    },
    state::State,
    storage::codec,
};

use crate::store::*;

/// A key with any bytes at all, as a decoder can make it.
fn raw(bytes: &[u8]) -> Key {
    codec::decode_payload(&codec::encode_payload(&Bytes::copy_from_slice(bytes))).unwrap()
}

fn odd_keys() -> Vec<Key> {
    let mut keys: Vec<Key> = [&b""[..], b"\x11", b"\x11\0\0\0", b"\xFF", b"\xFF\xFF\xFF\xFF\xFF"].map(raw).to_vec();
    for keyspace in [0, 0x0F, keyspace::LAST_RECORD, 0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xFF] {
        for scope in [0, 1, 1_024, u32::MAX] {
            keys.push(ScopeId::new(keyspace, scope).key(b""));
            keys.push(ScopeId::new(keyspace, scope).key(b"\0\x01"));
        }
    }
    keys.push(key("ordinary"));
    keys
}

fn every_operation(one: &Key, other: &Key) -> Vec<Operation> {
    let put = Put { references: vec![cascade(other), restrict(other)], ttl_ms: Some(u64::MAX), ..Put::value("v") };
    let end = other.as_bytes().clone();
    let odd_entries = |unique| Entry { scope: other.scope().scope, key: end.clone(), payload: end.clone(), unique };
    vec![
        Operation::Put { key: one.clone(), put: put.clone() },
        Operation::PutStamped { prefix: one.clone(), put },
        Operation::Put {
            key: one.clone(),
            put: Put { entries: vec![odd_entries(true), odd_entries(false)], ..Put::default() },
        },
        Operation::Add { key: one.clone(), delta: i64::MIN, min: i64::MAX, max: i64::MIN },
        Operation::Delete { key: one.clone() },
        Operation::DeleteRange { start: one.clone(), end: end.clone() },
        Operation::Reindex { key: one.clone(), entries: vec![odd_entries(false), odd_entries(true)] },
        Operation::SetScope {
            scope: one.scope(),
            settings: ScopeSettings { history: u32::MAX, max_keys: u64::MAX, max_bytes: u64::MAX },
        },
        Operation::SetScope { scope: one.scope(), settings: ScopeSettings { history: 0, max_keys: 1, max_bytes: 1 } },
        Operation::DropScope { scope: one.scope() },
        Operation::Get { key: one.clone() },
        Operation::Range { start: one.clone(), end, limit: u32::MAX },
        Operation::Referrers { key: one.clone(), limit: u32::MAX },
    ]
}

fn every_compare(one: &Key, other: &Key) -> Vec<Compare> {
    let relation = Relation::GreaterOrEqual;
    let end = other.as_bytes().clone();
    let mut compares = vec![
        Compare::Exists { key: one.clone(), exists: true },
        Compare::Value { key: one.clone(), relation, to: end.clone() },
    ];
    for to in [0, u64::MAX] {
        compares.push(Compare::Number { key: one.clone(), field: NumberField::Version, relation, to });
        compares.push(Compare::Scope { scope: one.scope(), field: ScopeField::Incarnation, relation, to });
        for count in [0, 1_000, 1_001, u64::MAX] {
            compares.push(Compare::Unchanged { start: one.clone(), end: end.clone(), count, since: to });
        }
    }
    compares
}

#[test]
fn no_operation_on_any_key_stops_a_node() {
    let mut store = Store::new();
    let keys = odd_keys();
    for one in &keys {
        let operations = keys.iter().flat_map(|other| every_operation(one, other));
        let proposals = operations.map(|operation| {
            let mut proposal = store.proposal(Action::Transact(Transaction::blind(vec![operation])));
            proposal.guards.security_revision = store.state.meta().security_revision();
            proposal
        });
        let proposals = proposals.collect();
        store.apply(proposals);
    }
    for one in &keys {
        let together = keys.iter().take(3).flat_map(|other| every_operation(one, other)).collect();
        store.transact(Transaction::blind(together));
    }
    store.pass(u64::MAX);
}

#[test]
fn no_compare_on_any_key_stops_a_node() {
    let mut store = Store::new();
    store.done(vec![put(&key("ordinary"), "")]);
    let keys = odd_keys();
    for one in &keys {
        for compare in keys.iter().flat_map(|other| every_compare(one, other)) {
            let before = store.hash();
            let mut guarded = store.proposal(Action::Tick);
            guarded.action =
                Action::Transact(Transaction { compares: vec![compare.clone()], ..Transaction::default() });
            guarded.guards.compares = vec![compare];
            let batch = Batch { log_time_ms: 0, wall_ms: 0, proposals: vec![guarded] };
            store.state.apply(&mut store.pairs, &batch).unwrap();
            assert_eq!(store.hash(), before);
        }
    }
}

#[test]
fn malformed_and_derived_keys_are_refused() {
    let mut store = Store::new();
    for odd in odd_keys() {
        if odd == key("ordinary") || odd.scope().keyspace == keyspace::LAST_RECORD {
            continue;
        }
        let not_writable = Refusal::NotWritable(odd.clone());
        assert_eq!(store.refused(vec![put(&odd, "")]), not_writable);
        assert_eq!(store.refused(vec![add(&odd, 1)]), not_writable);
        assert_eq!(store.refused(vec![delete(&odd)]), not_writable);
        let end = odd.as_bytes().clone();
        assert_eq!(store.refused(vec![Operation::DeleteRange { start: odd.clone(), end: end.clone() }]), not_writable);
        assert_eq!(store.refused(vec![Operation::Reindex { key: odd.clone(), entries: vec![] }]), not_writable);
        let range = Operation::Range { start: odd.clone(), end, limit: 1 };
        assert_eq!(store.refused(vec![range]), Refusal::MalformedRange(odd.clone()));
        let reference = put_references(&key("a"), vec![cascade(&odd)]);
        assert_eq!(store.refused(vec![reference]), Refusal::MissingReference { referrer: key("a"), missing: odd });
    }
    let stamped = Operation::PutStamped { prefix: raw(b""), put: Put::default() };
    assert!(matches!(store.refused(vec![stamped]), Refusal::NotWritable(_)));
}

#[test]
fn a_range_stays_in_its_scope() {
    let mut store = Store::new();
    let start = key("a");
    for end in [&b""[..], b"\x11", b"\x11\0\0\0\0", b"\x11\0\0\0\x01", b"\x11\0\0\0\x01a", b"\x12", b"\xFF"] {
        let end = Bytes::copy_from_slice(end);
        let range = Operation::Range { start: start.clone(), end: end.clone(), limit: 1 };
        let delete = Operation::DeleteRange { start: start.clone(), end: end.clone() };
        // In order: one that ends before it starts, and the end of the scope itself.
        if end.as_ref() == b"\x11\0\0\0\0" || end.as_ref() == b"\x11\0\0\0\x01" {
            store.done(vec![range, delete]);
        } else {
            assert_eq!(store.refused(vec![range]), Refusal::MalformedRange(start.clone()));
            assert_eq!(store.refused(vec![delete]), Refusal::MalformedRange(start.clone()));
        }
    }
    // The last scope of the last keyspace of records ends where the derived pairs begin.
    let last = ScopeId::new(keyspace::LAST_RECORD, u32::MAX);
    store.done(vec![set_scope(last, ScopeSettings::default()), put(&last.key(b"a"), "")]);
    store.done(vec![put_entries(&key("a"), vec![entry(1, "e", "")]), delete_all(last)]);
    assert_eq!(store.derived(keyspace::ENTRIES, 1).len(), 1);
}

#[test]
fn the_greatest_numbers_overflow_nothing() {
    let mut store = Store::new();
    let session = store.open_session();
    let all = u64::MAX;
    let calls = [(session, all, 0), (session, all, all), (session, all - 1, all), (all, all, all)];
    for (session, sequence, answered_below) in calls {
        store.call(session, sequence, answered_below, vec![put(&key("a"), "")]);
    }
    let mut proposal = store.proposal(Action::OpenSession { ttl_ms: all });
    store.propose(proposal.clone());
    store.pass(all);
    store.propose(proposal.clone());
    proposal.guards = Guards { security_revision: all, incarnations: vec![(STATE, all)], compares: vec![] };
    store.propose(proposal);
    for action in [
        Action::KeepSession { session: all },
        Action::CloseSession { session: all },
        Action::Refuse { reason: String::new() },
        Action::SetApplyVersion(0),
        Action::SetApplyVersion(1),
    ] {
        let proposal = store.proposal(action);
        store.propose(proposal);
    }
    assert_eq!(store.state.meta().apply_version, 1);
    let last = ScopeId::new(0x40, u32::MAX);
    store.done(vec![set_scope(last, ScopeSettings::default())]);
    assert_eq!(
        store.refused(vec![set_scope(ScopeId::new(0x41, u32::MAX), ScopeSettings::default())]),
        Refusal::ScopeNotNew(ScopeId::new(0x41, u32::MAX))
    );
}

#[test]
fn only_a_newer_apply_version_is_a_fault() {
    let mut store = Store::new();
    let proposal = store.proposal(Action::SetApplyVersion(2));
    let batch = Batch { log_time_ms: 0, wall_ms: 0, proposals: vec![proposal] };
    let fault = State::default().apply(&mut store.pairs, &batch).unwrap_err();
    assert!(fault.to_string().contains("newer meshstore"), "{fault}");
}

/// Runs what would take minutes if something were quadratic; the test suite would not end.
fn at_once(store: &mut Store, operations: Vec<Operation>) -> Outcome {
    assert!(operations.len() <= 20_000);
    store.transact(Transaction::blind(operations))
}

#[test]
fn twenty_thousand_operations_are_not_quadratic() {
    let mut store = Store::new();
    let names: Vec<Key> = (0..10_000).map(|n| key(&format!("{n:05}"))).collect();
    let each = |with: &dyn Fn(&Key) -> Operation| -> Vec<Operation> {
        names.iter().flat_map(|name| [put(name, ""), with(name)]).collect()
    };
    at_once(&mut store, each(&|_| range_all(STATE, 1)));
    at_once(&mut store, each(&|name| referrers(name, 1_000)));
    let scope = |n: usize| ScopeId::new(0x40, 1_024 + n as u32);
    at_once(&mut store, (0..10_000).map(|n| set_scope(scope(n), ScopeSettings::default())).collect());
    let writes = names.iter().map(|name| put(name, ""));
    at_once(&mut store, writes.chain((0..10_000).map(|n| drop_scope(scope(n)))).collect());
    assert_eq!(store.state.meta().scopes.len(), 1);
}

#[test]
fn many_entries_and_references_are_not_quadratic() {
    let mut store = Store::new();
    let (owner, target) = (key("owner"), key("target"));
    let names: Vec<Key> = (0..5_000).map(|n| key(&format!("{n:05}"))).collect();
    let slots: Vec<Entry> = (0..5_000).map(|n| unique(1, &n.to_string())).collect();
    store.done(vec![put_entries(&owner, slots.clone()), put(&target, &"v".repeat(1 << 20))]);
    // Each takes one entry from the record that owned all of them, which lets go at last.
    let mut taking: Vec<Operation> =
        names.iter().zip(slots).map(|(name, slot)| put_entries(name, vec![slot])).collect();
    taking.push(put(&owner, ""));
    store.done(taking);
    store.done(vec![put_references(&owner, vec![restrict(&target); 20_000])]);
    let exists = Compare::Exists { key: target, exists: true };
    assert!(store.holds(vec![exists; 4_096]));
}

#[test]
fn a_delete_of_a_heavily_referenced_record_is_not_quadratic() {
    let mut store = Store::new();
    let (target, lease) = (key("target"), key("lease"));
    let names: Vec<Key> = (0..4_000).map(|n| key(&format!("{n:05}"))).collect();
    store.done(vec![put(&target, ""), put_ttl(&lease, 10, vec![])]);
    store.done(names.iter().map(|name| put_references(name, vec![cascade(&lease), restrict(&target)])).collect());
    assert!(matches!(store.refused(vec![delete(&target)]), Refusal::Restricted { .. }));
    // All of them hold the target, and all of them go with it.
    store.done(vec![put_references(&target, vec![cascade(&lease)])]);
    assert_eq!(deleted(&store.pass(10)).len(), 4_002);
}

#[test]
fn a_proposal_without_anything_is_an_answer() {
    let mut store = Store::new();
    let empty = Proposal {
        principal: String::new(),
        call: Some(Call { session: 0, sequence: 0, answered_below: 0 }),
        guards: Guards::default(),
        action: Action::Tick,
    };
    assert_eq!(store.propose(empty), Outcome::SessionExpired);
    assert_eq!(store.apply(vec![]), []);
}
