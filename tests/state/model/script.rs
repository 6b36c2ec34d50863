//! Random histories. What is generated speaks of scopes and sessions by place ("the second one open"), so that a
//! history stays meaningful when it is shrunk; it is made concrete against the naive model as it goes.

use bytes::Bytes;
use meshstore::model::{
    Entry, Key, Reference, ReferenceMode, ScopeId, key, keyspace,
    proposal::{Action, Call, Guards, Proposal},
    transaction::{Compare, NumberField, Operation, Put, Relation, ScopeField, ScopeSettings, Transaction},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::naive::Naive;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// One that always exists.
    Permanent(u8),
    /// One of those that exist (if any).
    Open(u8),
    /// The next to be created.
    Next,
    /// Any number.
    Number(u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyAt {
    /// A name in a scope.
    Named(Place, usize),
    /// One that has a record (if any).
    Existing(u8),
}

#[derive(Clone, Debug)]
pub(crate) struct PutAt {
    value: usize,
    entries: Vec<EntryAt>,
    references: Vec<(KeyAt, bool)>,
    ttl_ms: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct EntryAt(Place, usize, bool);

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(KeyAt, PutAt),
    PutStamped(KeyAt, PutAt),
    Add(KeyAt, i64, i64, i64),
    Delete(KeyAt),
    DeleteRange(KeyAt, KeyAt),
    Reindex(KeyAt, Vec<EntryAt>),
    SetScope(Place, Kind, ScopeSettings),
    DropScope(Place, Kind),
    Get(KeyAt),
    Range(KeyAt, KeyAt, u32),
    Referrers(KeyAt, u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Records,
    Entries,
    Unique,
}

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Exists(KeyAt, bool),
    Number(KeyAt, NumberField, Relation, u64),
    Value(KeyAt, Relation, usize),
    Unchanged(KeyAt, KeyAt, u64, u64),
    Scope(Place, ScopeField, Relation, u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Transact(Vec<Ask>, Vec<Step>, Vec<Step>),
    Open(u64),
    Keep(u8),
    Close(u8),
    Refuse,
    Tick,
}

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    deed: Deed,
    somebody_else: bool,
    call: Option<(u8, u64, u64)>,
    stale_permission: bool,
    incarnation: Option<(Place, bool)>,
    relied_on: Vec<Ask>,
}

/// One batch, and what happens to the replica before it.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) restart: bool,
    pub(crate) reclaim: bool,
    pub(crate) passes_ms: i64,
    pub(crate) wall_ms: u64,
    pub(crate) wishes: Vec<Wish>,
}

const NAMES: [&[u8]; 7] = [b"", b"\0", b"\0\x01", b"a", b"a\0", b"b", b"\xFF"];
const VALUES: [&[u8]; 5] =
    [b"", b"value", b"\0\0\0\0\0\0\0\x05", b"\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", b"longer than the others"];

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        40 => (0..3u8).prop_map(Place::Permanent),
        40 => any::<u8>().prop_map(Place::Open),
        1 => Just(Place::Next),
        1 => (0..8u8).prop_map(Place::Number),
    ]
}

fn named() -> impl Strategy<Value = KeyAt> {
    (place(), 0..NAMES.len()).prop_map(|(place, name)| KeyAt::Named(place, name))
}

fn existing() -> impl Strategy<Value = KeyAt> {
    any::<u8>().prop_map(KeyAt::Existing)
}

fn key_at() -> impl Strategy<Value = KeyAt> {
    prop_oneof![1 => named(), 1 => existing()]
}

fn entries() -> impl Strategy<Value = Vec<EntryAt>> {
    vec((place(), 0..NAMES.len(), any::<bool>()).prop_map(|(place, name, unique)| EntryAt(place, name, unique)), 0..3)
}

fn put_at() -> impl Strategy<Value = PutAt> {
    let references =
        prop_oneof![2 => Just(vec![]), 3 => vec((prop_oneof![1 => named(), 15 => existing()], any::<bool>()), 0..4)];
    let ttl_ms = option::weighted(0.25, prop_oneof![4 => 0..200u64, 1 => Just(60_000), 2 => Just(500_000)]);
    let entries = prop_oneof![1 => Just(vec![]), 1 => entries()];
    (0..VALUES.len(), entries, references, ttl_ms).prop_map(|(value, entries, references, ttl_ms)| PutAt {
        value,
        entries,
        references,
        ttl_ms,
    })
}

fn settings() -> impl Strategy<Value = ScopeSettings> {
    (0..4u32, select(vec![0, 0, 0, 2, 4]), select(vec![0, 0, 0, 150, 300]))
        .prop_map(|(history, max_keys, max_bytes)| ScopeSettings { history, max_keys, max_bytes })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![4 => Just(Kind::Records), 1 => Just(Kind::Entries), 1 => Just(Kind::Unique)]
}

fn step() -> impl Strategy<Value = Step> {
    let bound = |usual: i64| prop_oneof![4 => Just(usual), 1 => select(vec![0, 5])];
    prop_oneof![
        24 => (prop_oneof![3 => named(), 1 => existing()], put_at()).prop_map(|(key, put)| Step::Put(key, put)),
        2 => (key_at(), put_at()).prop_map(|(key, put)| Step::PutStamped(key, put)),
        4 => (key_at(), prop_oneof![9 => -3..6i64, 1 => Just(i64::MIN)], bound(i64::MIN), bound(i64::MAX)).prop_map(|(key, delta, min, max)| Step::Add(key, delta, min, max)),
        5 => key_at().prop_map(Step::Delete),
        1 => (key_at(), key_at()).prop_map(|(start, end)| Step::DeleteRange(start, end)),
        4 => (key_at(), entries()).prop_map(|(key, entries)| Step::Reindex(key, entries)),
        4 => (prop_oneof![2 => Just(Place::Next), 1 => place()], kind(), settings())
            .prop_map(|(place, kind, settings)| Step::SetScope(place, kind, settings)),
        1 => (prop_oneof![9 => any::<u8>().prop_map(Place::Open), 1 => place()], kind()).prop_map(|(place, kind)| Step::DropScope(place, kind)),
        2 => key_at().prop_map(Step::Get),
        3 => (key_at(), key_at(), 0..5u32).prop_map(|(start, end, limit)| Step::Range(start, end, limit)),
        2 => (key_at(), 0..4u32).prop_map(|(key, limit)| Step::Referrers(key, limit)),
    ]
}

fn relation() -> impl Strategy<Value = Relation> {
    select(vec![
        Relation::Equal,
        Relation::NotEqual,
        Relation::Less,
        Relation::LessOrEqual,
        Relation::Greater,
        Relation::GreaterOrEqual,
    ])
}

fn ask() -> impl Strategy<Value = Ask> {
    let number = select(vec![NumberField::Version, NumberField::CreateRevision, NumberField::ModRevision]);
    let of_scope =
        select(vec![ScopeField::Count, ScopeField::Bytes, ScopeField::LastRevision, ScopeField::Incarnation]);
    let count = prop_oneof![4 => 0..4u64, 1 => Just(1_001)];
    prop_oneof![
        (key_at(), any::<bool>()).prop_map(|(key, exists)| Ask::Exists(key, exists)),
        (key_at(), number, relation(), 0..6u64)
            .prop_map(|(key, field, relation, to)| Ask::Number(key, field, relation, to)),
        (key_at(), relation(), 0..VALUES.len()).prop_map(|(key, relation, to)| Ask::Value(key, relation, to)),
        (key_at(), key_at(), count, 0..5u64)
            .prop_map(|(start, end, count, ago)| Ask::Unchanged(start, end, count, ago)),
        (place(), of_scope, relation(), 0..200u64)
            .prop_map(|(place, field, relation, to)| Ask::Scope(place, field, relation, to)),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let asks = prop_oneof![3 => Just(vec![]), 1 => vec(ask(), 0..3)];
    let transact = (asks, vec(step(), 0..6), vec(step(), 0..3));
    prop_oneof![
        24 => transact.prop_map(|(asks, then, otherwise)| Deed::Transact(asks, then, otherwise)),
        2 => (1..500u64).prop_map(Deed::Open),
        1 => any::<u8>().prop_map(Deed::Keep),
        1 => any::<u8>().prop_map(Deed::Close),
        1 => Just(Deed::Refuse),
        1 => Just(Deed::Tick),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let call = option::weighted(0.4, (any::<u8>(), 0..9u64, prop_oneof![9 => 0..3u64, 1 => 0..9u64]));
    let incarnation = option::weighted(0.1, (place(), prop::bool::weighted(0.1)));
    let relied_on = prop_oneof![19 => Just(vec![]), 1 => vec(ask(), 1..2)];
    (deed(), prop::bool::weighted(0.02), call, prop::bool::weighted(0.02), incarnation, relied_on).prop_map(
        |(deed, somebody_else, call, stale_permission, incarnation, relied_on)| Wish {
            deed,
            somebody_else,
            call,
            stale_permission,
            incarnation,
            relied_on,
        },
    )
}

/// A whole history.
pub(crate) fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let passes = prop_oneof![20 => 0..25i64, 2 => -20..0i64, 1 => Just(60_000)];
    let round =
        (prop::bool::weighted(0.2), prop::bool::weighted(0.3), passes, 0..1_000u64, vec(wish(), 1..4)).prop_map(
            |(restart, reclaim, passes_ms, wall_ms, wishes)| Round { restart, reclaim, passes_ms, wall_ms, wishes },
        );
    vec(round, 1..40)
}

impl Place {
    fn scope(self, naive: &Naive, kind: Kind) -> ScopeId {
        let keyspace = match kind {
            Kind::Records => 0x40,
            Kind::Entries => keyspace::ENTRIES,
            Kind::Unique => keyspace::UNIQUE,
        };
        let open: Vec<ScopeId> =
            naive.scopes.keys().copied().filter(|scope| scope.keyspace == keyspace && scope.scope >= 1_024).collect();
        match (self, kind) {
            (Self::Permanent(2), Kind::Records) => ScopeId::new(keyspace::SECURITY, 0),
            (Self::Permanent(place), Kind::Records) => ScopeId::new(0x10 + place, 0),
            (Self::Permanent(place), _) => ScopeId::new(keyspace, 1 + u32::from(place)),
            (Self::Open(_), _) if open.is_empty() => ScopeId::new(keyspace, 1),
            (Self::Open(place), _) => open[place as usize % open.len()],
            (Self::Next, _) => ScopeId::new(keyspace, naive.last_scope + 1),
            (Self::Number(number), _) => ScopeId::new(keyspace, 1_022 + u32::from(number)),
        }
    }
}

impl KeyAt {
    fn key(self, naive: &Naive) -> Key {
        match self {
            Self::Named(place, name) => place.scope(naive, Kind::Records).key(NAMES[name]),
            Self::Existing(_) if naive.records.is_empty() => ScopeId::new(0x10, 0).key(b"a"),
            Self::Existing(place) => naive.records.keys().nth(place as usize % naive.records.len()).unwrap().clone(),
        }
    }
}

impl PutAt {
    fn put(&self, naive: &Naive) -> Put {
        let mode = |cascade| if cascade { ReferenceMode::Cascade } else { ReferenceMode::Restrict };
        let references = self.references.iter();
        let references = references.map(|(at, cascade)| Reference { key: at.key(naive), mode: mode(*cascade) });
        Put {
            value: Bytes::from_static(VALUES[self.value]),
            entries: self.entries.iter().map(|entry| entry.entry(naive)).collect(),
            references: references.collect(),
            ttl_ms: self.ttl_ms,
        }
    }
}

impl EntryAt {
    fn entry(&self, naive: &Naive) -> Entry {
        let Self(place, name, unique) = self;
        let scope = place.scope(naive, if *unique { Kind::Unique } else { Kind::Entries }).scope;
        Entry {
            scope,
            key: Bytes::from_static(NAMES[*name]),
            payload: Bytes::from_static(VALUES[*name % 3]),
            unique: *unique,
        }
    }
}

/// The end of a range from `start`: in its scope, or the scope's end.
fn end(start: &Key, at: KeyAt) -> Bytes {
    match at {
        KeyAt::Named(_, name) => start.scope().key(NAMES[name]).as_bytes().clone(),
        KeyAt::Existing(_) => key::prefix_end(&start.scope().prefix()).unwrap(),
    }
}

impl Step {
    fn operation(&self, naive: &Naive) -> Operation {
        let indexed = |entries: &[EntryAt]| entries.iter().map(|entry| entry.entry(naive)).collect();
        match self {
            Self::Put(key, put) => Operation::Put { key: key.key(naive), put: put.put(naive) },
            Self::PutStamped(key, put) => Operation::PutStamped { prefix: key.key(naive), put: put.put(naive) },
            Self::Add(key, delta, min, max) => {
                Operation::Add { key: key.key(naive), delta: *delta, min: *min, max: *max }
            }
            Self::Delete(key) => Operation::Delete { key: key.key(naive) },
            Self::DeleteRange(from, to) => {
                let start = from.key(naive);
                Operation::DeleteRange { end: end(&start, *to), start }
            }
            Self::Reindex(key, entries) => Operation::Reindex { key: key.key(naive), entries: indexed(entries) },
            Self::SetScope(place, kind, settings) => {
                // The bounds of indexes are beyond the naive model.
                let settings = match kind {
                    Kind::Records => *settings,
                    _ => ScopeSettings { max_keys: 0, max_bytes: 0, ..*settings },
                };
                Operation::SetScope { scope: place.scope(naive, *kind), settings }
            }
            Self::DropScope(place, kind) => Operation::DropScope { scope: place.scope(naive, *kind) },
            Self::Get(key) => Operation::Get { key: key.key(naive) },
            Self::Range(from, to, limit) => {
                let start = from.key(naive);
                Operation::Range { end: end(&start, *to), start, limit: *limit }
            }
            Self::Referrers(key, limit) => Operation::Referrers { key: key.key(naive), limit: *limit },
        }
    }
}

impl Ask {
    fn compare(&self, naive: &Naive) -> Compare {
        match self {
            Self::Exists(key, exists) => Compare::Exists { key: key.key(naive), exists: *exists },
            Self::Number(key, field, relation, to) => {
                Compare::Number { key: key.key(naive), field: *field, relation: *relation, to: *to }
            }
            Self::Value(key, relation, to) => {
                Compare::Value { key: key.key(naive), relation: *relation, to: Bytes::from_static(VALUES[*to]) }
            }
            Self::Unchanged(from, to, count, ago) => {
                let start = from.key(naive);
                let since = naive.revision.saturating_sub(*ago);
                Compare::Unchanged { end: end(&start, *to), start, count: *count, since }
            }
            Self::Scope(place, field, relation, to) => {
                let scope = place.scope(naive, Kind::Records);
                Compare::Scope { scope, field: *field, relation: *relation, to: *to }
            }
        }
    }
}

impl Wish {
    /// What is proposed, as the state is now.
    pub(crate) fn proposal(&self, naive: &Naive) -> Proposal {
        let session = |place: u8| {
            let open: Vec<u64> = naive.sessions.keys().copied().collect();
            open.get(place as usize % (open.len() * 16 + 1) / 16).copied().unwrap_or(u64::from(place))
        };
        let steps = |steps: &[Step]| steps.iter().map(|step| step.operation(naive)).collect();
        let asks = |asks: &[Ask]| asks.iter().map(|ask| ask.compare(naive)).collect();
        let action = match &self.deed {
            Deed::Transact(compares, then, otherwise) => Action::Transact(Transaction {
                compares: asks(compares),
                then: steps(then),
                otherwise: steps(otherwise),
            }),
            Deed::Open(ttl_ms) => Action::OpenSession { ttl_ms: *ttl_ms },
            Deed::Keep(place) => Action::KeepSession { session: session(*place) },
            Deed::Close(place) => Action::CloseSession { session: session(*place) },
            Deed::Refuse => Action::Refuse { reason: "refused".to_owned() },
            Deed::Tick => Action::Tick,
        };
        let security = naive.last_change(ScopeId::new(keyspace::SECURITY, 0));
        let incarnations = self.incarnation.iter().map(|(place, stale)| {
            let scope = place.scope(naive, Kind::Records);
            (scope, naive.incarnation(scope).unwrap_or(1) + u64::from(*stale))
        });
        let guards = Guards {
            security_revision: security + u64::from(self.stale_permission),
            incarnations: incarnations.collect(),
            compares: asks(&self.relied_on),
        };
        let principal = if self.somebody_else { "somebody else" } else { "tester" };
        let call = self.call.filter(|_| !naive.sessions.is_empty()).map(|(place, sequence, answered_below)| Call {
            session: session(place),
            sequence,
            answered_below,
        });
        Proposal { principal: principal.to_owned(), call, guards, action }
    }
}
