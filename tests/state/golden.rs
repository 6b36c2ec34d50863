//! The bytes that outlive a version, literally: log entries, records, outcomes, checkpoints, derived pairs, hashes.
//!
//! `golden/*.hex` holds one `name: bytes` per line. A line is never changed and never removed. Something new (a variant
//! at the end of an enum) gets a new line: run with `MESHSTORE_NEW_GOLDEN=1`, which adds what is missing and touches
//! nothing else.

mod history;

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use bytes::Bytes;
use meshstore::{
    layers::topology::{self, Draft, applied, change},
    model::{
        Entry, Key, OperationResult, Outcome, Record, Reference, ReferenceMode, Refusal, ScopeId, keyspace,
        proposal::{Action, Batch, Call, Guards, Proposal},
        topology::{
            Cause, ItemKind, JoinPolicy, MeshChange, NodeChange, NodeSpec, Note, RegionChange, RouteChange, RouteSpec,
            Spec, Status,
        },
        transaction::{Compare, NumberField, Operation, Put, Relation, ScopeField, ScopeSettings, Transaction},
    },
    raft::checks::{Check, Checks},
    state::{Meta, View, scope, stored, view},
    storage::codec::{self, Kind},
};
use serde::{Serialize, de::DeserializeOwned};

use self::history::history;

/// The lines of one file.
struct Golden {
    path: PathBuf,
    lines: BTreeMap<String, String>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/state/golden").join(name).with_extension("hex");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().map(|line| line.split_once(": ").expect("a line is `name: bytes`"));
        let lines = lines.map(|(name, hex)| (name.to_owned(), hex.to_owned())).collect();
        Self { path, lines }
    }

    /// Holds bytes against those of the past.
    fn pin(&mut self, name: &str, bytes: &[u8]) {
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        match self.lines.get(name) {
            Some(pinned) => assert_eq!(
                &hex,
                pinned,
                "\n\n{name} in {}: these bytes are on disks and in logs out there, and may not change.\n\
                 What differs needs a format version or an apply version of its own; the code that made these stays.\n",
                self.path.display()
            ),
            None if std::env::var_os("MESHSTORE_NEW_GOLDEN").is_some() => {
                let line = format!("{name}: {hex}\n");
                let text = std::fs::read_to_string(&self.path).unwrap_or_default();
                std::fs::write(&self.path, text + &line).unwrap();
            }
            None => panic!("{name} is not pinned in {}: run with MESHSTORE_NEW_GOLDEN=1", self.path.display()),
        }
    }

    /// Holds the envelope of a value against that of the past, which must also be read as that value.
    fn pin_sealed<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
        &mut self,
        kind: Kind,
        name: &str,
        value: &T,
    ) {
        let sealed = codec::encode(kind, value);
        self.pin(name, &sealed);
        assert_eq!(codec::decode::<T>(kind, &sealed).as_ref(), Ok(value), "{name}");
    }
}

/// Fails if a variant has no sample. `name` is an exhaustive match, so that a new one does not compile.
fn all_named<T>(samples: &[T], name: impl Fn(&T) -> &'static str, variants: usize) {
    let named: std::collections::BTreeSet<&str> = samples.iter().map(name).collect();
    assert_eq!(named.len(), variants, "not every variant is pinned, only {named:?}");
}

fn k(name: &[u8]) -> Key {
    ScopeId::new(0x40, 0x0102_0304).key(name)
}

fn full_put() -> Put {
    Put {
        value: Bytes::from_static(b"value"),
        entries: vec![
            Entry {
                scope: 3,
                key: Bytes::from_static(b"entry"),
                payload: Bytes::from_static(b"payload"),
                unique: false,
            },
            Entry { scope: 300, key: Bytes::new(), payload: Bytes::new(), unique: true },
        ],
        references: vec![
            Reference { key: k(b"cascade"), mode: ReferenceMode::Cascade },
            Reference { key: k(b"restrict"), mode: ReferenceMode::Restrict },
        ],
        ttl_ms: Some(60_000),
    }
}

fn full_record() -> Record {
    let put = full_put();
    Record {
        value: put.value,
        create_revision: 1,
        mod_revision: 251,
        version: 65_536,
        created_at_ms: 1_700_000_000_000,
        updated_at_ms: u64::MAX,
        expires_at_ms: Some(70_000),
        entries: put.entries,
        references: put.references,
    }
}

fn bare_record() -> Record {
    Record { value: Bytes::new(), expires_at_ms: None, entries: vec![], references: vec![], ..full_record() }
}

fn batch(guards: Guards, call: Option<Call>, action: Action) -> Batch {
    Batch {
        log_time_ms: 1_000,
        wall_ms: 1_700_000_000_000,
        proposals: vec![Proposal { principal: "service:a".to_owned(), call, guards, action }],
    }
}

fn transact(transaction: Transaction) -> Batch {
    batch(Guards::default(), None, Action::Transact(transaction))
}

fn operations() -> Vec<Operation> {
    let end = k(b"z").as_bytes().clone();
    vec![
        Operation::Put { key: k(b"a"), put: full_put() },
        Operation::PutStamped { prefix: k(b"a"), put: Put::default() },
        Operation::Add { key: k(b"a"), delta: -1, min: i64::MIN, max: i64::MAX },
        Operation::Delete { key: k(b"a") },
        Operation::DeleteRange { start: k(b"a"), end: end.clone() },
        Operation::Reindex { key: k(b"a"), entries: full_put().entries },
        Operation::SetScope {
            scope: ScopeId::new(0x40, 1_024),
            settings: ScopeSettings { history: 3, max_keys: 1_000, max_bytes: u64::MAX },
        },
        Operation::DropScope { scope: ScopeId::new(0xE0, u32::MAX) },
        Operation::Get { key: k(b"") },
        Operation::Range { start: k(b"a"), end, limit: 100 },
        Operation::Referrers { key: k(b"a"), limit: u32::MAX },
    ]
}

fn operation_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Put { .. } => "put",
        Operation::PutStamped { .. } => "put_stamped",
        Operation::Add { .. } => "add",
        Operation::Delete { .. } => "delete",
        Operation::DeleteRange { .. } => "delete_range",
        Operation::Reindex { .. } => "reindex",
        Operation::SetScope { .. } => "set_scope",
        Operation::DropScope { .. } => "drop_scope",
        Operation::Get { .. } => "get",
        Operation::Range { .. } => "range",
        Operation::Referrers { .. } => "referrers",
    }
}

#[test]
fn operations_in_a_log_entry() {
    let mut golden = Golden::open("operations");
    let samples = operations();
    all_named(&samples, operation_name, 11);
    for operation in samples {
        let name = operation_name(&operation);
        golden.pin_sealed(Kind::Batch, name, &transact(Transaction::blind(vec![operation])));
    }
    let branches = Transaction { otherwise: vec![operations().remove(3)], ..Transaction::default() };
    golden.pin_sealed(Kind::Batch, "otherwise", &transact(branches));
}

fn compares() -> Vec<(String, Compare)> {
    let mut samples = vec![
        ("exists".to_owned(), Compare::Exists { key: k(b"a"), exists: true }),
        (
            "unchanged".to_owned(),
            Compare::Unchanged { start: k(b"a"), end: k(b"z").as_bytes().clone(), count: 1_000, since: 70_000 },
        ),
    ];
    let relations = [
        Relation::Equal,
        Relation::NotEqual,
        Relation::Less,
        Relation::LessOrEqual,
        Relation::Greater,
        Relation::GreaterOrEqual,
    ];
    for relation in relations {
        let name = format!("value {relation:?}");
        samples.push((name, Compare::Value { key: k(b"a"), relation, to: Bytes::from_static(b"to") }));
    }
    for field in [NumberField::Version, NumberField::CreateRevision, NumberField::ModRevision] {
        let name = format!("number {field:?}");
        samples.push((name, Compare::Number { key: k(b"a"), field, relation: Relation::Equal, to: 7 }));
    }
    for field in [ScopeField::Count, ScopeField::Bytes, ScopeField::LastRevision, ScopeField::Incarnation] {
        let name = format!("scope {field:?}");
        let scope = ScopeId::new(0x40, 1_024);
        samples.push((name, Compare::Scope { scope, field, relation: Relation::Equal, to: 7 }));
    }
    samples
}

#[test]
fn compares_in_a_log_entry() {
    let mut golden = Golden::open("compares");
    let samples = compares();
    let variant = |(_, compare): &(String, Compare)| match compare {
        Compare::Exists { .. } => "exists",
        Compare::Number { .. } => "number",
        Compare::Value { .. } => "value",
        Compare::Unchanged { .. } => "unchanged",
        Compare::Scope { .. } => "scope",
    };
    all_named(&samples, variant, 5);
    for (name, compare) in samples {
        golden.pin_sealed(
            Kind::Batch,
            &name,
            &transact(Transaction { compares: vec![compare], ..Transaction::default() }),
        );
    }
}

#[test]
fn actions_in_a_log_entry() {
    let mut golden = Golden::open("actions");
    let name = |action: &Action| match action {
        Action::Transact(_) => "transact",
        Action::OpenSession { .. } => "open_session",
        Action::KeepSession { .. } => "keep_session",
        Action::CloseSession { .. } => "close_session",
        Action::Refuse { .. } => "refuse",
        Action::Tick => "tick",
        Action::SetApplyVersion(_) => "set_apply_version",
    };
    let samples = vec![
        Action::Transact(Transaction::default()),
        Action::OpenSession { ttl_ms: 60_000 },
        Action::KeepSession { session: 300 },
        Action::CloseSession { session: u64::MAX },
        Action::Refuse { reason: "no such node".to_owned() },
        Action::Tick,
        Action::SetApplyVersion(1),
    ];
    all_named(&samples, name, 7);
    for action in samples {
        golden.pin_sealed(Kind::Batch, name(&action), &batch(Guards::default(), None, action));
    }
    let guards = Guards {
        security_revision: 12,
        incarnations: vec![(ScopeId::new(0x40, 1_024), 9)],
        compares: vec![Compare::Exists { key: k(b"a"), exists: false }],
    };
    let call = Some(Call { session: 5, sequence: 6, answered_below: 4 });
    golden.pin_sealed(Kind::Batch, "guards_and_call", &batch(guards, call, Action::Tick));
    golden.pin_sealed(Kind::Batch, "empty", &Batch { log_time_ms: 0, wall_ms: 0, proposals: vec![] });
}

#[test]
fn records() {
    let mut golden = Golden::open("records");
    for (name, record) in [("full", full_record()), ("bare", bare_record())] {
        golden.pin_sealed(Kind::Record, name, &record);
        assert_eq!(stored::encode(&record), codec::encode(Kind::Record, &record));
    }
}

fn refusals() -> Vec<Refusal> {
    let (key, referrer) = (k(b"key"), k(b"referrer"));
    let (one, other) = (ScopeId::new(0x40, 1_024), ScopeId::new(0x41, 1_025));
    vec![
        Refusal::KeyWrittenTwice(key.clone()),
        Refusal::UniqueTaken { scope: 300, entry: Bytes::from_static(b"entry"), owner: key.clone() },
        Refusal::MissingReference { referrer: referrer.clone(), missing: key.clone() },
        Refusal::Restricted { key: key.clone(), referrer },
        Refusal::TooManyReferrers(key.clone()),
        Refusal::NotANumber(key.clone()),
        Refusal::OutOfBounds { key: key.clone(), current: -3 },
        Refusal::NoSuchScope(one),
        Refusal::ScopeNotNew(one),
        Refusal::ScopePermanent(one),
        Refusal::ScopeReferenced(one, other),
        Refusal::ScopeFull(one),
        Refusal::NotWritable(key.clone()),
        Refusal::MalformedRange(key),
        Refusal::TooManySessions,
        Refusal::Layer("no such node".to_owned()),
        Refusal::AnswerTooLarge,
        Refusal::TooManyBytes,
    ]
}

fn refusal_name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::KeyWrittenTwice(_) => "key_written_twice",
        Refusal::UniqueTaken { .. } => "unique_taken",
        Refusal::MissingReference { .. } => "missing_reference",
        Refusal::Restricted { .. } => "restricted",
        Refusal::TooManyReferrers(_) => "too_many_referrers",
        Refusal::NotANumber(_) => "not_a_number",
        Refusal::OutOfBounds { .. } => "out_of_bounds",
        Refusal::NoSuchScope(_) => "no_such_scope",
        Refusal::ScopeNotNew(_) => "scope_not_new",
        Refusal::ScopePermanent(_) => "scope_permanent",
        Refusal::ScopeReferenced(..) => "scope_referenced",
        Refusal::ScopeFull(_) => "scope_full",
        Refusal::NotWritable(_) => "not_writable",
        Refusal::MalformedRange(_) => "malformed_range",
        Refusal::TooManySessions => "too_many_sessions",
        Refusal::Layer(_) => "layer",
        Refusal::AnswerTooLarge => "answer_too_large",
        Refusal::TooManyBytes => "too_many_bytes",
    }
}

fn results() -> Vec<OperationResult> {
    vec![
        OperationResult::Put { key: k(b"a"), version: 7 },
        OperationResult::Sum(-1),
        OperationResult::Deleted(4_096),
        OperationResult::Changed(true),
        OperationResult::Record(Some(full_record())),
        OperationResult::Records(vec![(k(b"a"), bare_record())]),
        OperationResult::Keys(vec![k(b"a"), k(b"b")]),
    ]
}

/// Outcomes are kept in sessions, inside the state beside the records: without an envelope of their own.
#[test]
fn outcomes() {
    let mut golden = Golden::open("outcomes");
    let mut pin = |name: &str, outcome: Outcome| {
        let bytes = codec::encode_payload(&outcome);
        golden.pin(name, &bytes);
        assert_eq!(codec::decode_payload::<Outcome>(&bytes).unwrap(), outcome);
    };
    let name = |result: &OperationResult| match result {
        OperationResult::Put { .. } => "put",
        OperationResult::Sum(_) => "sum",
        OperationResult::Deleted(_) => "deleted",
        OperationResult::Changed(_) => "changed",
        OperationResult::Record(_) => "record",
        OperationResult::Records(_) => "records",
        OperationResult::Keys(_) => "keys",
    };
    all_named(&results(), name, 7);
    for result in results() {
        pin(
            &format!("applied {}", name(&result)),
            Outcome::Applied { revision: 300, succeeded: true, results: vec![result] },
        );
    }
    all_named(&refusals(), refusal_name, 18);
    for refusal in refusals() {
        pin(&format!("refused {}", refusal_name(&refusal)), Outcome::Refused { revision: 300, refusal });
    }
    pin("applied_earlier", Outcome::AppliedEarlier { revision: 300, succeeded: false });
    pin("raced", Outcome::Raced);
    pin("session_expired", Outcome::SessionExpired);
}

#[test]
fn hashes_of_pairs() {
    let mut golden = Golden::open("hashes");
    let mut pin = |name: &str, weight: scope::Weight| {
        let bytes = [weight.bytes.to_be_bytes().as_slice(), &weight.hash.to_be_bytes()].concat();
        golden.pin(name, &bytes);
    };
    pin("full record", scope::weigh_record(k(b"a").as_bytes(), &full_record()));
    pin("bare record", scope::weigh_record(k(b"").as_bytes(), &bare_record()));
    pin(
        "derived pair",
        scope::weigh_derived(ScopeId::new(keyspace::ENTRIES, 3).key(b"entry\0\x01owner").as_bytes(), b"payload"),
    );
}

#[test]
fn the_state_hash_after_every_step_of_a_history() {
    let mut golden = Golden::open("history");
    let mut step = 0;
    history(|store| {
        step += 1;
        golden.pin(&format!("state hash after step {step:02}"), &store.hash().to_be_bytes());
    });
}

#[test]
fn the_stored_pairs_at_the_end_of_a_history() {
    let mut golden = Golden::open("pairs");
    let mut store = history(|_| {});
    store.pairs.reclaim(store.state.meta());
    let keyspaces: std::collections::BTreeSet<u8> = store.pairs.0.keys().map(|key| key[0]).collect();
    assert!((keyspace::ENTRIES..=keyspace::HISTORY).all(|derived| keyspaces.contains(&derived)), "{keyspaces:?}");
    for (key, value) in &store.pairs.0 {
        golden.pin(&key.escape_ascii().to_string().replace(": ", ":\\x20"), value);
    }
    assert_eq!(golden.lines.len(), store.pairs.0.len(), "pairs are missing");
}

/// A store with nothing in it.
struct Nothing;

impl view::Source for Nothing {
    fn get(&self, _: &[u8]) -> meshstore::Result<Option<Bytes>> {
        Ok(None)
    }

    fn range(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> meshstore::Result<Vec<(Bytes, Bytes)>> {
        Ok(vec![])
    }

    fn fault(&self, fault: meshstore::error::Fault) -> meshstore::Error {
        panic!("{fault}")
    }
}

struct FixedIds(u8);

impl change::Ids for FixedIds {
    fn next(&mut self, kind: ItemKind) -> String {
        self.0 += 1;
        format!("{}_01ARZ3NDEKTSV4RRFFQ69G5F{:02}", kind.prefix(), self.0)
    }
}

/// What the topology layer writes: items, their entries and references, the head, the history.
#[test]
fn the_topology() {
    let mut golden = Golden::open("topology");
    let view = View::new(9, Box::new(Nothing));
    let spec = Spec {
        mesh: "lab".into(),
        mesh_change: MeshChange { join_key_hash: Some("hash".into()), ..MeshChange::default() },
        regions: vec![("north".into(), RegionChange { latitude: Some(59.5), ..RegionChange::default() })],
        nodes: ["a", "b"]
            .map(|name| NodeSpec {
                name: name.into(),
                region: Some("north".into()),
                change: NodeChange { ip_address: Some("10.0.0.1".into()), ..NodeChange::default() },
            })
            .into(),
        routes: vec![RouteSpec {
            source: "a".into(),
            target: "b".into(),
            change: RouteChange { latency: Some(1.25), ..RouteChange::default() },
        }],
    };
    let mut draft = Draft::open(&view).unwrap();
    topology::apply(&mut draft, &mut FixedIds(9), spec).unwrap();
    let note = Note { author: "ops".into(), reason: "why not".into() };
    let write = draft.finish(note, Cause::ApplyUnconfirmed(60_000)).unwrap().unwrap();
    golden.pin("transaction", &codec::encode_payload(&(write.transaction, write.guards)));
    let node = "node_01ARZ3NDEKTSV4RRFFQ69G5F12";
    let report = applied::report(node, 300).unwrap().transaction;
    golden.pin("applied revision", &codec::encode_payload(&report));
    let identity = applied::set_local_identity(3, node).unwrap().transaction;
    golden.pin("local identity", &codec::encode_payload(&identity));
    for status in Status::ALL {
        golden.pin(status.name(), &codec::encode_payload(status));
    }
    for cause in [Cause::Edit, Cause::Apply, Cause::Confirm(2), Cause::Rollback(3), Cause::Unconfirmed(4)] {
        golden.pin(&format!("{cause:?}"), &codec::encode_payload(&cause));
    }
    for policy in JoinPolicy::ALL {
        golden.pin(policy.name(), &codec::encode_payload(&policy));
    }
}

#[test]
fn the_agreed_hash_of_the_state() {
    let mut golden = Golden::open("checks");
    let check = Check { index: 4_096, hash: 0x0123_4567_89ab_cdef_0011_2233_4455_6677 };
    golden.pin_sealed(Kind::StateCheck, "check", &check);
    golden.pin("key", Checks::key().as_bytes());
}

#[test]
fn the_state_beside_the_records() {
    let mut golden = Golden::open("meta");
    golden.pin("empty", &Meta::default().encode());
    let store = history(|_| {});
    let meta = store.state.meta();
    assert!(!meta.links.is_empty() && meta.scopes.len() > 6 && meta.sessions.len() == 2);
    golden.pin("full", &meta.encode());
    assert_eq!(&Meta::decode(&meta.encode()).unwrap(), meta);
}

#[test]
fn keyspace_numbers_and_constants_of_apply() {
    use meshstore::state::constants as of;
    let numbers = [
        keyspace::MESSAGES,
        keyspace::STATE,
        keyspace::NODE_STATE,
        keyspace::ROUTING_TABLE,
        keyspace::RUNTIME_CONFIG,
        keyspace::SECURITY,
        keyspace::FIRST_RECORD,
        keyspace::LAST_RECORD,
        keyspace::ENTRIES,
        keyspace::UNIQUE,
        keyspace::REFERRERS,
        keyspace::EXPIRY,
        keyspace::HISTORY,
    ];
    assert_eq!(numbers, [0x10, 0x11, 0x12, 0x13, 0x14, 0x20, 0x10, 0xDF, 0xE0, 0xE1, 0xE2, 0xE3, 0xE4]);
    assert_eq!(keyspace::FIRST_DYNAMIC_SCOPE, 1_024);
    let constants = [
        of::DELETES as u64,
        of::EXPIRIES as u64,
        of::EXPIRY_PUT_OFF_MS,
        of::PART_HOPS as u64,
        of::PART_RECORDS as u64,
        of::UNWEIGHED_RECORDS as u64,
        of::UNCHANGED_KEYS,
        of::RANGE_RECORDS as u64,
        of::RANGE_BYTES as u64,
        of::ANSWER_BYTES as u64,
        of::REPLACED_BYTES as u64,
        u64::from(of::HISTORY),
        of::KEY_OVERHEAD_BYTES,
        of::SESSIONS as u64,
        of::SESSION_OUTCOMES as u64,
        of::OUTCOME_BYTES as u64,
    ];
    assert_eq!(
        constants,
        [4_096, 1_024, 60_000, 64, 65_536, 16, 1_000, 1_000, 1 << 20, 8 << 20, 64 << 20, 64, 64, 10_000, 1_024, 4_096],
        "replicas of two releases would come apart: a change here is a new apply version"
    );
}
