//! Histories: logs of real batches, drawn from a seed, and what the state is after each entry.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meshstore::{
    model::{
        Entry, Key, Position, Reference, ReferenceMode, ScopeId, keyspace,
        proposal::{Action, Batch, Call, Guards, Proposal},
        transaction::{Compare, Operation, Put, ScopeSettings, Transaction},
    },
    raft::types::{Command, LogEntry, Member, Membership, Payload},
    storage::codec::{self, Kind},
};
use openraft::entry::RaftEntry;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::replica::{Replica, Seen};
use crate::support::sim_disk::SimDisk;

/// A log from index 0 on: the members, then batches, a blank entry where a term begins, one change of the members.
pub fn history(seed: u64, entries: u64) -> Vec<LogEntry> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut log_time_ms = 0;
    let entry = |index| {
        let position = Position { term: term_of(index), index };
        let payload = match index {
            0 => members(&[1, 2, 3]),
            10 => members(&[1, 2, 4]),
            _ if term_of(index - 1) < position.term => Payload::Blank,
            _ => {
                log_time_ms += rng.random_range(0..40);
                Payload::Normal(Command(codec::encode(Kind::Batch, &batch(&mut rng, log_time_ms))))
            }
        };
        LogEntry::new(position.into(), payload)
    };
    (0..entries).map(entry).collect()
}

/// Entries that no quorum has, from where a term begins: a leader of an earlier term wrote them, and lost.
pub fn strays(next: u64) -> [LogEntry; 2] {
    assert!(begins_term(next));
    let batch = Batch { log_time_ms: 1 << 40, wall_ms: 0, proposals: vec![proposal(None, Action::Tick)] };
    let sealed = codec::encode(Kind::Batch, &batch);
    let position = |index| Position { term: term_of(next) - 1, index };
    [next, next + 1].map(|index| LogEntry::new(position(index).into(), Payload::Normal(Command(sealed.clone()))))
}

/// The term of an entry of the history; between two of them lies one whose leader lost.
pub fn term_of(index: u64) -> u64 {
    if index == 0 { 0 } else { 2 + index / 6 * 2 }
}

pub fn begins_term(index: u64) -> bool {
    index > 0 && index.is_multiple_of(6)
}

/// The state after each entry, of a replica that nothing ever happened to.
pub fn undisturbed(history: &[LogEntry]) -> Vec<Seen> {
    let mut replica = Replica::open(&SimDisk::new(0)).unwrap();
    let apply = |entry: &LogEntry| {
        replica.apply(vec![entry.clone()]).unwrap();
        replica.seen()
    };
    history.iter().map(apply).collect()
}

fn members(ids: &[u64]) -> Payload {
    let member = |id: &u64| {
        let address = format!("node-{id}:7001");
        (*id, Member { peer_address: address.clone(), client_address: address, directory: u128::from(*id) })
    };
    let nodes: BTreeMap<u64, Member> = ids.iter().map(member).collect();
    Payload::Membership(Membership::new(vec![ids.iter().copied().collect::<BTreeSet<_>>()], nodes).unwrap())
}

fn batch(rng: &mut StdRng, log_time_ms: u64) -> Batch {
    let proposals = (0..rng.random_range(1..5)).map(|_| any_proposal(rng)).collect();
    Batch { log_time_ms, wall_ms: 1_000_000 + log_time_ms, proposals }
}

fn proposal(call: Option<Call>, action: Action) -> Proposal {
    Proposal { principal: "somebody".into(), call, guards: Guards::default(), action }
}

fn any_proposal(rng: &mut StdRng) -> Proposal {
    let session = rng.random_range(1..12);
    let action = match rng.random_range(0..16) {
        0 | 1 => Action::OpenSession { ttl_ms: rng.random_range(10..200) },
        2 => Action::KeepSession { session },
        3 => Action::CloseSession { session },
        4 => Action::Tick,
        5 => Action::Refuse { reason: "not so".into() },
        _ => Action::Transact(transaction(rng)),
    };
    let call = rng.random_bool(0.3).then(|| {
        let sequence = rng.random_range(1..6);
        Call { session, sequence, answered_below: rng.random_range(0..=sequence) }
    });
    proposal(call, action)
}

fn transaction(rng: &mut StdRng) -> Transaction {
    let compares =
        if rng.random_bool(0.2) { vec![Compare::Exists { key: key(rng), exists: rng.random() }] } else { Vec::new() };
    let mut operations = |most| (0..rng.random_range(1..most)).map(|_| operation(rng)).collect();
    Transaction { compares, then: operations(4), otherwise: operations(2) }
}

fn scope(rng: &mut StdRng) -> ScopeId {
    let dynamic = keyspace::FIRST_DYNAMIC_SCOPE + rng.random_range(0..3);
    ScopeId::new(keyspace::STATE, if rng.random_bool(0.8) { keyspace::NO_SCOPE } else { dynamic })
}

fn key(rng: &mut StdRng) -> Key {
    let name = format!("key {}", rng.random_range(0..12));
    scope(rng).key(name.as_bytes())
}

fn put(rng: &mut StdRng) -> Put {
    let value = vec![rng.random(); rng.random_range(0..150)];
    let entry = |unique| Entry {
        scope: 2_000 + u32::from(unique),
        key: Bytes::from(format!("entry {}", value.len() % 7)),
        payload: Bytes::from_static(b"payload"),
        unique,
    };
    let entries = if rng.random_bool(0.3) { vec![entry(rng.random_bool(0.3))] } else { Vec::new() };
    let mode = if rng.random() { ReferenceMode::Cascade } else { ReferenceMode::Restrict };
    let references = if rng.random_bool(0.2) { vec![Reference { key: key(rng), mode }] } else { Vec::new() };
    let ttl_ms = rng.random_bool(0.3).then(|| rng.random_range(1..120));
    Put { value: value.into(), entries, references, ttl_ms }
}

fn operation(rng: &mut StdRng) -> Operation {
    match rng.random_range(0..14) {
        0 | 1 => Operation::Delete { key: key(rng) },
        2 => Operation::Add { key: key(rng), delta: 1, min: 0, max: 9 },
        3 => {
            let scope = scope(rng);
            Operation::DeleteRange { start: scope.key(b"key 2"), end: scope.key(b"key 5").as_bytes().clone() }
        }
        4 => Operation::PutStamped { prefix: scope(rng).key(b"log"), put: put(rng) },
        5 => {
            let settings = ScopeSettings { history: rng.random_range(0..3), ..ScopeSettings::default() };
            Operation::SetScope { scope: scope(rng), settings }
        }
        6 => Operation::DropScope { scope: scope(rng) },
        7 => Operation::Get { key: key(rng) },
        _ => Operation::Put { key: key(rng), put: put(rng) },
    }
}
