//! The core against a naive model: random histories must have the same outcomes, the same commits and the same
//! records, and what the core keeps beside the records must be what the records say.
//!
//! `PROPTEST_CASES` sets how many histories are tried.

mod naive;
mod script;

use std::collections::BTreeMap;

use bytes::Bytes;
use meshstore::{
    model::{Key, Outcome, Record, ReferenceMode, Refusal, ScopeId, key, keyspace, proposal::Batch},
    state::{
        Applied, Meta, State,
        scope::{self, Account},
        stored,
    },
};
use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, TestRunner},
};

use self::{
    naive::{Naive, index_of},
    script::{Round, rounds},
};
use crate::store::{Pairs, logged};

#[test]
fn random_histories() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 20_000,
        failure_persistence: None::<Box<FileFailurePersistence>>.map(|persistence| persistence as _),
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&rounds(), |rounds| {
            run(&rounds);
            Ok(())
        })
        .unwrap();
}

fn run(rounds: &[Round]) {
    let (mut naive, mut state, mut pairs) = (Naive::default(), State::default(), Pairs::default());
    let mut log = Vec::new();
    for round in rounds {
        if round.restart {
            state = State::from_meta(Meta::decode(&state.meta().encode()).unwrap());
        }
        if round.reclaim {
            pairs.reclaim(state.meta());
        }
        let mut batch = Batch {
            log_time_ms: naive.log_time_ms.saturating_add_signed(round.passes_ms),
            wall_ms: round.wall_ms,
            proposals: vec![],
        };
        let mut expected = Applied::default();
        for wish in &round.wishes {
            let proposal = wish.proposal(&naive);
            let (outcome, commits) = naive.apply(&batch, &proposal);
            batch.proposals.push(proposal);
            expected.outcomes.push(outcome);
            expected.commits.extend(commits);
        }
        let applied = state.apply(&mut pairs, &batch).unwrap();
        reconcile(&batch, &applied, &mut expected, &mut naive);
        assert_eq!(applied, expected, "of {batch:#?}");
        check(&naive, &mut state, &pairs);
        log.push(batch);
    }
    let (mut again, mut again_pairs) = (State::default(), Pairs::default());
    for batch in &log {
        again.apply(&mut again_pairs, &logged(batch)).unwrap();
    }
    assert_eq!(again.meta().state_hash(), state.meta().state_hash());
    again_pairs.reclaim(again.meta());
    pairs.reclaim(state.meta());
    assert_eq!(again_pairs, pairs);
}

/// Which of several takers of a unique entry is named depends on the order of the operations, which the naive model
/// does not follow: it takes over the name, if that is one of them.
fn reconcile(batch: &Batch, applied: &Applied, expected: &mut Applied, naive: &mut Naive) {
    for ((proposal, seen), expected) in batch.proposals.iter().zip(&applied.outcomes).zip(&mut expected.outcomes) {
        let (
            Outcome::Refused { refusal: Refusal::UniqueTaken { .. }, .. },
            Outcome::Refused { refusal: Refusal::UniqueTaken { .. }, .. },
        ) = (seen, &*expected)
        else {
            continue;
        };
        let kept =
            proposal.call.and_then(|call| naive.sessions.get_mut(&call.session)?.outcomes.get_mut(&call.sequence));
        if let Some(kept) = kept.filter(|kept| **kept == *expected) {
            *kept = seen.clone();
        }
        *expected = seen.clone();
    }
}

fn check(naive: &Naive, state: &mut State, pairs: &Pairs) {
    let meta = state.meta();
    assert_eq!(
        (meta.revision, meta.log_time_ms, meta.last_scope),
        (naive.revision, naive.log_time_ms, naive.last_scope)
    );
    pairs.audit(meta);
    let live = pairs.0.iter().filter(|(key, _)| meta.is_live(key::scope_of(key).unwrap()));
    let live: Vec<(Bytes, Bytes)> = live.map(|(key, value)| (key.clone(), value.clone())).collect();
    let of = |first: u8, last: u8| live.iter().filter(move |(key, _)| (first..=last).contains(&key[0])).cloned();

    let records: BTreeMap<Key, Record> = of(0, keyspace::LAST_RECORD)
        .map(|(key, value)| (Key::from_bytes(key.clone()).unwrap(), stored::decode(&key, &value).unwrap()))
        .collect();
    assert_eq!(records, naive.records);
    check_accounts(naive, meta);
    check_history(naive, of(keyspace::HISTORY, keyspace::HISTORY));
    check_derived(naive, of(keyspace::ENTRIES, keyspace::EXPIRY).collect());
    check_links(naive, meta);
    check_sessions(naive, meta);

    let first = naive.records.values().filter_map(|record| record.expires_at_ms).min();
    let first = first.into_iter().chain(naive.left.first().map(|(at_ms, _)| *at_ms)).min();
    let next = state.next_expiry_ms(pairs).unwrap();
    assert!(next.is_some() == first.is_some() && next <= first, "next expiry {next:?}, first due {first:?}");
}

fn check_accounts(naive: &Naive, meta: &Meta) {
    let mut accounts: BTreeMap<ScopeId, Account> = BTreeMap::new();
    for scope in naive.scopes.keys().chain(naive.last_changes.keys()) {
        let (count, bytes) = naive.size(*scope);
        let of_scope = naive.records.iter().filter(|(key, _)| key.scope() == *scope);
        let hashes = of_scope.map(|(key, record)| scope::weigh_record(key.as_bytes(), record).hash);
        let hash = hashes.fold(0u128, u128::wrapping_add);
        accounts.insert(*scope, Account { count, bytes, hash, last_revision: naive.last_change(*scope) });
    }
    let is_record = |scope: &ScopeId| scope.keyspace <= keyspace::LAST_RECORD;
    let kept = meta.scopes.iter().filter(|(scope, _)| is_record(scope));
    let kept: BTreeMap<ScopeId, Account> = kept.map(|(id, scope)| (*id, scope.account)).collect();
    accounts.retain(|scope, _| is_record(scope));
    assert_eq!(kept, accounts);
    for (id, scope) in &meta.scopes {
        let (incarnation, settings) = naive.scopes.get(id).copied().unwrap_or_default();
        if ![keyspace::HISTORY, keyspace::REFERRERS].contains(&id.keyspace) {
            assert_eq!((scope.incarnation, scope.settings), (incarnation, settings), "{id}");
        }
    }
    assert!(naive.scopes.keys().all(|scope| meta.scopes.contains_key(scope)));
}

fn check_history(naive: &Naive, pairs: impl Iterator<Item = (Bytes, Bytes)>) {
    let mut expected = BTreeMap::new();
    for (key, versions) in &naive.history {
        for (revision, record) in versions {
            let mut pair_key = ScopeId::new(keyspace::HISTORY, key.scope().scope).prefix().to_vec();
            pair_key.push(key.scope().keyspace);
            key::escape(&mut pair_key, &key.user_bytes());
            pair_key.extend_from_slice(&revision.to_be_bytes());
            expected.insert(Bytes::from(pair_key), record.clone());
        }
    }
    let found: BTreeMap<Bytes, Record> =
        pairs.map(|(key, value)| (key.clone(), stored::decode(&key, &value).unwrap())).collect();
    assert_eq!(found, expected);
}

/// Everything that records lead to is there, and what else is there leads to records of dropped scopes.
fn check_derived(naive: &Naive, mut pairs: BTreeMap<Bytes, Bytes>) {
    let mut expected: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let joined = |scope: ScopeId, first: &[u8], record_key: &Key| {
        let mut bytes = scope.prefix().to_vec();
        key::escape(&mut bytes, first);
        bytes.extend_from_slice(record_key.as_bytes());
        Bytes::from(bytes)
    };
    for (record_key, record) in &naive.records {
        for entry in record.entries.iter().filter(|entry| naive.is_live(index_of(entry))) {
            if entry.unique {
                let length = (record_key.as_bytes().len() as u32).to_le_bytes();
                let value = [&length, record_key.as_bytes().as_ref(), &entry.payload].concat();
                expected.insert(index_of(entry).key(&entry.key).as_bytes().clone(), value.into());
            } else {
                expected.insert(joined(index_of(entry), &entry.key, record_key), entry.payload.clone());
            }
        }
        for reference in &record.references {
            let mode = u8::from(reference.mode == ReferenceMode::Restrict);
            let target = reference.key.scope().scope;
            let scope = ScopeId::new(keyspace::REFERRERS, if target < 1_024 { 0 } else { target });
            expected.insert(joined(scope, reference.key.as_bytes(), record_key), Bytes::copy_from_slice(&[mode]));
        }
        if let Some(at_ms) = record.expires_at_ms {
            let bytes = [&at_ms.to_be_bytes(), record_key.as_bytes().as_ref()].concat();
            expected.insert(ScopeId::new(keyspace::EXPIRY, 0).key(&bytes).as_bytes().clone(), Bytes::new());
        }
    }
    for (key, value) in expected {
        assert_eq!(pairs.remove(&key), Some(value), "the derived pair {}", key.escape_ascii());
    }
    for (key, value) in pairs {
        let scope = key::scope_of(&key).unwrap();
        let owner = match scope.keyspace {
            keyspace::UNIQUE => value[4..][..u32::from_le_bytes(value[..4].try_into().unwrap()) as usize].to_vec(),
            keyspace::EXPIRY => key[13..].to_vec(),
            _ => key::unescape(&key[5..]).unwrap().1.to_vec(),
        };
        let owner = key::scope_of(&owner).unwrap();
        assert!(!naive.is_live(owner), "the derived pair {} should be gone", key.escape_ascii());
    }
}

fn check_links(naive: &Naive, meta: &Meta) {
    let mut links: BTreeMap<(ScopeId, ScopeId), u64> = BTreeMap::new();
    for (from, record) in &naive.records {
        let mut targets: Vec<&Key> = record.references.iter().map(|reference| &reference.key).collect();
        targets.sort();
        targets.dedup();
        for to in targets.into_iter().filter(|to| to.scope() != from.scope()) {
            *links.entry((from.scope(), to.scope())).or_default() += 1;
        }
    }
    assert_eq!(meta.links, links);
}

fn check_sessions(naive: &Naive, meta: &Meta) {
    assert!(meta.sessions.all().keys().eq(naive.sessions.keys()));
    for (id, session) in meta.sessions.all() {
        let session = naive::Session {
            principal: session.principal.clone(),
            ttl_ms: session.ttl_ms,
            deadline_ms: session.deadline_ms,
            answered_below: session.answered_below,
            outcomes: session.outcomes.clone(),
        };
        assert_eq!(Some(&session), naive.sessions.get(id));
    }
}
