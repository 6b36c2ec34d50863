//! Apply: batches of proposals, whatever is in them, on a state and on a second replica that is restarted before each.
//! Nothing breaks a node but an apply version that it does not know; a refusal changes nothing; the accounts are
//! right; both replicas come to the same.

use bytes::Bytes;
use meshstore::{
    error::Fault,
    model::{
        Entry, Key, Outcome, Reference, ReferenceMode, ScopeId, key, keyspace,
        proposal::{Action, Batch, Call, Guards, Proposal},
        transaction::{Compare, NumberField, Operation, Put, Relation, ScopeField, ScopeSettings, Transaction},
    },
    state::{Applied, Base, Meta, State, session::Sessions},
    storage::codec,
};

use super::{
    input::Input,
    store::{Pairs, logged},
};

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut replicas = Replicas::default();
    let raw = input.below(4) == 3;
    for _ in 0..12 {
        if input.is_empty() {
            break;
        }
        let batch = if raw { decoded(&mut input) } else { Some(replicas.batch(&mut input)) };
        if let Some(batch) = batch
            && !replicas.apply(&batch)
        {
            // A node that does not know the version has stopped in the middle.
            return;
        }
    }
    replicas.audit();
}

/// A batch as its bytes say.
fn decoded(input: &mut Input<'_>) -> Option<Batch> {
    codec::decode_payload(input.bytes(255)).ok()
}

/// Pairs, and how often they were written to.
struct Counted<'a> {
    pairs: &'a mut Pairs,
    writes: usize,
}

impl Base for Counted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.pairs.get(key)
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        self.pairs.range(start, end, limit)
    }

    fn write(&mut self, revision: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        self.writes += 1;
        self.pairs.write(revision, pairs)
    }
}

#[derive(Default)]
struct Replicas {
    state: State,
    pairs: Pairs,
    /// Restarted before each batch, and storage removes at once what it may.
    restarted: State,
    restarted_pairs: Pairs,
    now_ms: u64,
}

impl Replicas {
    /// Whether it can go on.
    fn apply(&mut self, batch: &Batch) -> bool {
        let read = logged(batch);
        assert_eq!(&read, batch, "the log gives back another batch");
        let mut base = Counted { pairs: &mut self.pairs, writes: 0 };
        let applied = self.state.apply(&mut base, batch);
        let writes = base.writes;
        self.restarted = State::from_meta(Meta::decode(&self.restarted.meta().encode()).expect("its own form"));
        if let Ok(Applied { outcomes, .. }) = &applied
            && let ([Outcome::Refused { .. } | Outcome::Raced | Outcome::SessionExpired], [proposal]) =
                (&outcomes[..], &batch.proposals[..])
        {
            self.like_a_tick(batch, proposal);
        }
        let applied = match (applied, self.restarted.apply(&mut self.restarted_pairs, &read)) {
            (Ok(applied), Ok(again)) => {
                assert_eq!(applied, again, "a replica that was restarted answers otherwise");
                applied
            }
            (Err(one), Err(other)) => {
                assert_eq!(one.to_string(), other.to_string());
                assert!(one.to_string().contains("needs apply version"), "a proposal breaks the node: {one}");
                return false;
            }
            (one, other) => panic!("one replica is broken: {one:?}, {other:?}"),
        };
        assert_eq!(applied.outcomes.len(), batch.proposals.len());
        assert_eq!(applied.commits.len(), writes, "something changed without a commit");
        let revisions = applied.commits.iter().map(|commit| commit.revision);
        assert!(revisions.is_sorted_by(|one, next| one < next), "revisions go back");
        let meta = self.state.meta();
        assert_eq!(meta, self.restarted.meta(), "a replica that was restarted came to another state");
        self.restarted_pairs.reclaim(meta);
        let known = self.state.next_expiry_ms(&self.pairs).expect("it can be read");
        let found = State::from_meta(self.state.meta().clone()).next_expiry_ms(&self.pairs).expect("it can be read");
        assert!(known.is_none() == found.is_none() && known <= found, "due at {found:?}, known is {known:?}");
        true
    }

    /// What was not done has changed nothing but what the time that passed did, and the session's memory. The other
    /// replica is still where this one was before.
    fn like_a_tick(&self, batch: &Batch, proposal: &Proposal) {
        let (mut state, mut pairs) = (self.restarted.clone(), self.restarted_pairs.clone());
        let tick = Proposal { call: None, action: Action::Tick, ..proposal.clone() };
        state.apply(&mut pairs, &Batch { proposals: vec![tick], ..batch.clone() }).expect("time passes");
        let without_sessions = |meta: &Meta| Meta { sessions: Sessions::default(), ..meta.clone() };
        let meta = self.state.meta();
        assert_eq!(without_sessions(state.meta()), without_sessions(meta), "what was refused changed the state");
        pairs.reclaim(meta);
        assert_eq!(pairs, self.live(), "what was refused changed pairs");
    }

    fn live(&self) -> Pairs {
        let mut live = self.pairs.clone();
        live.reclaim(self.state.meta());
        live
    }

    /// Both replicas hold the same, which is what their accounts say.
    fn audit(&self) {
        assert_eq!(self.state.meta().state_hash(), self.restarted.meta().state_hash());
        self.pairs.audit(self.state.meta());
        assert_eq!(self.live(), self.restarted_pairs, "a replica that was restarted came to other pairs");
    }

    // From bytes to batches.

    fn batch(&mut self, input: &mut Input<'_>) -> Batch {
        self.now_ms = match input.below(8) {
            0 => self.now_ms.saturating_add(60_000),
            1 => self.now_ms.saturating_sub(5),
            2 => self.now_ms.max(input.number()),
            step => self.now_ms.saturating_add(step as u64 - 3),
        };
        let count = if input.flag() { 1 } else { 1 + input.below(4) };
        let proposals = (0..count).map(|_| self.proposal(input)).collect();
        Batch { log_time_ms: self.now_ms, wall_ms: input.number(), proposals }
    }

    fn proposal(&self, input: &mut Input<'_>) -> Proposal {
        let choice = input.byte();
        let session = |input: &mut Input<'_>| 1 + input.below(4) as u64;
        let call = (choice & 0b1100_0000 == 0b1100_0000).then(|| Call {
            session: session(input),
            sequence: input.number(),
            answered_below: if input.flag() { 0 } else { input.number() },
        });
        let mut guards = Guards { security_revision: self.state.meta().security_revision(), ..Guards::default() };
        if choice & 0b0011_0000 == 0b0011_0000 {
            guards.incarnations = (0..input.below(2)).map(|_| (scope(input), input.number())).collect();
            guards.compares = (0..input.below(2)).map(|_| compare(input)).collect();
            guards.security_revision += u64::from(input.below(8) == 7);
        }
        let action = match choice & 0b1111 {
            0 => Action::OpenSession { ttl_ms: input.number() },
            1 => Action::KeepSession { session: session(input) },
            2 => Action::CloseSession { session: session(input) },
            3 => Action::Refuse { reason: String::from_utf8_lossy(input.bytes(8)).into_owned() },
            4 => Action::Tick,
            5 => Action::SetApplyVersion(u32::from(input.byte()) / 120),
            _ => Action::Transact(transaction(input)),
        };
        let principal = if input.below(8) == 7 { "q" } else { "p" };
        Proposal { principal: principal.to_owned(), call, guards, action }
    }
}

fn transaction(input: &mut Input<'_>) -> Transaction {
    let shape = input.byte();
    let operations = |count: u8, input: &mut Input<'_>| (0..count).map(|_| operation(input)).collect();
    Transaction {
        compares: (0..shape >> 6 & 1).map(|_| compare(input)).collect(),
        then: operations(1 + (shape & 3), input),
        otherwise: operations(shape >> 4 & 1, input),
    }
}

fn scope(input: &mut Input<'_>) -> ScopeId {
    match input.below(16) {
        0..=5 => ScopeId::new(keyspace::STATE, 0),
        6 => ScopeId::new(keyspace::MESSAGES, 0),
        7..=9 => ScopeId::new(0x40, 1_024),
        10 => ScopeId::new(0x41, 1_025 + u32::from(input.byte() % 4)),
        11 => ScopeId::new(keyspace::SECURITY, 0),
        12 => ScopeId::new(keyspace::LAST_RECORD, u32::from(input.byte()) << 3),
        13 => ScopeId::new(keyspace::ENTRIES, 1_024 + u32::from(input.byte() % 4)),
        14 => ScopeId::new(keyspace::UNIQUE, 1_024 + u32::from(input.byte() % 4)),
        _ => ScopeId::new(input.byte(), u32::MAX - u32::from(input.byte())),
    }
}

const NAMES: [&[u8]; 8] = [b"a", b"b", b"c", b"ab", b"", b"\0", b"\0\x01", b"\xFF"];

fn name(input: &mut Input<'_>) -> &'static [u8] {
    NAMES[usize::from(input.byte()) % NAMES.len()]
}

fn key(input: &mut Input<'_>) -> Key {
    let scope = scope(input);
    match input.byte() {
        // A key that is too short to be one: only the wire can bring it.
        255 => codec::decode_payload(&codec::encode_payload(&Bytes::copy_from_slice(input.bytes(4)))).expect("bytes"),
        254 => scope.key(&input.byte().to_be_bytes().repeat(300)),
        choice => scope.key(NAMES[usize::from(choice) % NAMES.len()]),
    }
}

fn end(start: &Key, input: &mut Input<'_>) -> Bytes {
    match input.below(4) {
        0 => key::prefix_end(&start.scope().prefix()).unwrap_or_default(),
        1 => Bytes::copy_from_slice(input.bytes(8)),
        2 => key(input).as_bytes().clone(),
        _ => start.scope().key(name(input)).as_bytes().clone(),
    }
}

fn put(input: &mut Input<'_>) -> Put {
    let shape = input.byte();
    let value = match shape & 3 {
        0 => Bytes::copy_from_slice(&input.number().to_be_bytes()),
        _ => Bytes::copy_from_slice(input.bytes(9)),
    };
    Put {
        value,
        entries: entries(shape >> 2 & 3, input),
        references: (0..shape >> 4 & 3).map(|_| reference(input)).collect(),
        ttl_ms: (shape >> 6 & 3 == 3).then(|| input.number()),
    }
}

fn entries(count: u8, input: &mut Input<'_>) -> Vec<Entry> {
    let entry = |input: &mut Input<'_>| Entry {
        scope: match input.below(6) {
            0 => 1,
            1 => u32::MAX,
            more => 1_022 + u32::try_from(more).expect("few"),
        },
        key: Bytes::from_static(name(input)),
        payload: Bytes::copy_from_slice(input.bytes(3)),
        unique: input.flag(),
    };
    (0..count).map(|_| entry(input)).collect()
}

fn reference(input: &mut Input<'_>) -> Reference {
    let mode = if input.below(3) == 2 { ReferenceMode::Restrict } else { ReferenceMode::Cascade };
    Reference { key: key(input), mode }
}

fn operation(input: &mut Input<'_>) -> Operation {
    match input.below(16) {
        0..=4 => Operation::Put { key: key(input), put: put(input) },
        5 => Operation::PutStamped { prefix: key(input), put: put(input) },
        6 => Operation::Add {
            key: key(input),
            delta: input.number().cast_signed(),
            min: if input.flag() { i64::MIN } else { input.number().cast_signed() },
            max: if input.flag() { i64::MAX } else { input.number().cast_signed() },
        },
        7 | 8 => Operation::Delete { key: key(input) },
        9 => {
            let start = key(input);
            Operation::DeleteRange { end: end(&start, input), start }
        }
        10 => {
            let key = key(input);
            let count = input.byte() % 3;
            Operation::Reindex { key, entries: entries(count, input) }
        }
        11 | 12 => Operation::SetScope {
            scope: scope(input),
            settings: ScopeSettings {
                history: u32::from(input.byte() % 4),
                max_keys: input.number(),
                max_bytes: if input.flag() { 0 } else { input.number().saturating_mul(64) },
            },
        },
        13 => Operation::DropScope { scope: scope(input) },
        14 => match input.below(2) {
            0 => Operation::Get { key: key(input) },
            _ => Operation::Referrers { key: key(input), limit: u32::from(input.byte()) },
        },
        _ => {
            let start = key(input);
            Operation::Range { end: end(&start, input), start, limit: u32::from(input.byte()) }
        }
    }
}

fn compare(input: &mut Input<'_>) -> Compare {
    let relations = [
        Relation::Equal,
        Relation::NotEqual,
        Relation::Less,
        Relation::LessOrEqual,
        Relation::Greater,
        Relation::GreaterOrEqual,
    ];
    let relation = relations[input.below(relations.len())];
    match input.below(5) {
        0 => Compare::Exists { key: key(input), exists: input.flag() },
        1 => {
            let fields = [NumberField::Version, NumberField::CreateRevision, NumberField::ModRevision];
            Compare::Number { key: key(input), field: fields[input.below(3)], relation, to: input.number() }
        }
        2 => Compare::Value { key: key(input), relation, to: Bytes::copy_from_slice(input.bytes(8)) },
        3 => {
            let start = key(input);
            Compare::Unchanged { end: end(&start, input), start, count: input.number(), since: input.number() }
        }
        _ => {
            let fields = [ScopeField::Count, ScopeField::Bytes, ScopeField::LastRevision, ScopeField::Incarnation];
            Compare::Scope { scope: scope(input), field: fields[input.below(4)], relation, to: input.number() }
        }
    }
}
