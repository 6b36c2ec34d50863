//! Writes that wait: what a view shows with them over it is what it shows once they are committed, and what they leave is what
//! they would have left one by one; and what was looked at, as compares.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use meshstore::{
    Error, Result,
    model::{
        Entry, Key, Outcome, Record, ScopeId,
        isolation::UNCOMMITTED,
        key, keyspace,
        proposal::{Action, Guards, Proposal},
        transaction::{Compare, Operation, Put, ScopeSettings, Transaction},
    },
    state::{
        Pending, View,
        pending::{Ground, Taken},
        shown::{Noted, Reads, Room, Shown},
        stored,
        view::Source,
    },
};
use proptest::prelude::*;

use crate::store::{STATE, Store, cascade, delete, entry, key as state, put, put_entries, restrict, unique};

impl Store {
    /// Lets operations wait that are over this store.
    fn take(&self, pending: &mut Pending, operations: &[Operation]) -> Taken {
        let (readable, meta) = (self.readable(), self.state.meta());
        let scopes = |wanted: &[ScopeId]| {
            (meta.last_scope, wanted.iter().map(|scope| meta.scopes.get(scope).copied()).collect())
        };
        let ground = Ground { source: &readable, scopes: &scopes, wall_ms: self.wall_ms };
        pending.take(&ground, (&[], &[]), operations, usize::MAX).unwrap()
    }

    fn shown(&self, pending: &Pending) -> (View, Noted) {
        let reads: Noted = Arc::new(Reads::new(Room { compares: 100, bytes: 1 << 20 }).into());
        let pending = Arc::new(pending.clone());
        let shown = Shown { ground: Arc::new(self.readable()), pending, reads: Some(Arc::clone(&reads)) };
        (View::new(self.revision(), Box::new(shown)), reads)
    }

    /// Whether a proposal that relies on what was looked at is applied.
    fn relies(&mut self, reads: &Noted, since: u64) -> bool {
        let reads = reads.lock().unwrap();
        let compares = reads.records().map(|(key, at)| Compare::written_at(key.clone(), at));
        let compares = compares.chain(reads.others(since)).collect();
        let guards = Guards { security_revision: self.state.meta().security_revision(), compares, ..Guards::default() };
        let action = Action::Transact(Transaction::default());
        match self.propose(Proposal { principal: "tester".into(), call: None, guards, action }) {
            Outcome::Applied { .. } => true,
            Outcome::Raced => false,
            other => panic!("{other:?}"),
        }
    }
}

const KEYS: usize = 6;

/// Some keys of a permanent scope, and some of two that were created.
fn place(scopes: [ScopeId; 2], number: usize) -> Key {
    match number % 3 {
        0 => state(&format!("k{}", number / 3)),
        scope => scopes[scope - 1].key(format!("k{}", number / 3).as_bytes()),
    }
}

/// A write before it is known where: of which key, with which references and entries.
#[derive(Clone, Debug)]
enum Wish {
    Put { key: usize, value: u8, entry: Option<u8>, unique: Option<u8>, of: Option<(usize, bool)> },
    Delete { key: usize },
}

impl Wish {
    fn operation(&self, scopes: [ScopeId; 2], index: u32) -> Operation {
        match self {
            Self::Delete { key } => delete(&place(scopes, *key)),
            Self::Put { key, value, entry: shared, unique: own, of } => {
                let named = |name: u8| format!("e{name}");
                let mut entries: Vec<Entry> = Vec::new();
                entries.extend(shared.map(|name| entry(1, &named(name), "payload")));
                entries.extend(shared.map(|name| entry(index, &named(name), "")));
                entries.extend(own.map(|name| unique(1, &named(name))));
                let reference = |(target, held): (usize, bool)| {
                    let target = place(scopes, target);
                    if held { restrict(&target) } else { cascade(&target) }
                };
                let references = of.map(reference).into_iter().collect();
                let value = Put { entries, references, ..Put::value(format!("v{value}")) };
                Operation::Put { key: place(scopes, *key), put: value }
            }
        }
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let number = 0..KEYS;
    let small = || prop::option::of(0..3u8);
    let written = (number.clone(), 0..9u8, small(), small(), prop::option::of((0..KEYS, any::<bool>())));
    prop_oneof![
        2 => written.prop_map(|(key, value, entry, unique, of)| Wish::Put { key, value, entry, unique, of }),
        1 => number.prop_map(|key| Wish::Delete { key }),
    ]
}

fn calls(most: usize) -> impl Strategy<Value = Vec<Vec<Wish>>> {
    prop::collection::vec(prop::collection::vec(wish(), 1..4), 0..most)
}

/// A store with two scopes, of which one keeps history, an index, and what was written before.
fn store(before: &[Vec<Wish>]) -> (Store, [ScopeId; 2], u32) {
    let mut store = Store::new();
    let kept = store.new_scope(ScopeSettings { history: 2, ..ScopeSettings::default() });
    let plain = store.new_scope(ScopeSettings::default());
    let index = store.state.meta().last_scope + 1;
    let settings = ScopeSettings::default();
    store.done(vec![Operation::SetScope { scope: ScopeId::new(keyspace::ENTRIES, index), settings }]);
    for call in before {
        let operations = call.iter().map(|wish| wish.operation([kept, plain], index)).collect();
        store.wall_ms += 10;
        store.transact(Transaction::blind(operations));
    }
    store.wall_ms += 10;
    (store, [kept, plain], index)
}

/// All pairs of a view, with what is not committed at `revision`.
fn all(source: &dyn Source, revision: u64) -> BTreeMap<Bytes, Option<Record>> {
    let at = |number: u64| if number == UNCOMMITTED { revision } else { number };
    let pairs = source.range(&STATE.prefix()[..1], None, usize::MAX).unwrap();
    let normal = pairs.into_iter().map(|(pair_key, value)| {
        let scope = key::scope_of(&pair_key).unwrap();
        let is_record = scope.keyspace <= keyspace::LAST_RECORD || scope.keyspace == keyspace::HISTORY;
        if !is_record {
            return (pair_key, None);
        }
        let record = stored::decode(&pair_key, &value).unwrap();
        let (create_revision, mod_revision) = (at(record.create_revision), at(record.mod_revision));
        let pair_key = match pair_key.strip_suffix(&UNCOMMITTED.to_be_bytes()) {
            Some(front) if scope.keyspace == keyspace::HISTORY => [front, &revision.to_be_bytes()].concat().into(),
            _ => pair_key,
        };
        (pair_key, Some(Record { create_revision, mod_revision, ..record }))
    });
    normal.collect()
}

/// The same without what says how often something was written.
fn left(all: BTreeMap<Bytes, Option<Record>>) -> BTreeMap<Bytes, Option<Record>> {
    let kept = all.into_iter().filter(|(pair_key, _)| pair_key[0] != keyspace::HISTORY);
    let timeless = kept.map(|(pair_key, record)| {
        let timeless = record.map(|record| Record {
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            created_at_ms: 0,
            updated_at_ms: 0,
            ..record
        });
        (pair_key, timeless)
    });
    timeless.collect()
}

fn unnoted(store: &Store, pending: &Pending) -> Shown {
    Shown { ground: Arc::new(store.readable()), pending: Arc::new(pending.clone()), reads: None }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn what_is_shown_is_what_is_committed(before in calls(8), calls in calls(10)) {
        let ((mut committed, scopes, index), (mut one_by_one, ..)) = (store(&before), store(&before));
        let mut pending = Pending::default();
        for call in &calls {
            let operations: Vec<Operation> = call.iter().map(|wish| wish.operation(scopes, index)).collect();
            let taken = committed.take(&mut pending, &operations);
            let outcome = one_by_one.transact(Transaction::blind(operations));
            match (&taken, &outcome) {
                (Taken::Taken(_), Outcome::Applied { .. }) => {}
                (Taken::Refused(why), Outcome::Refused { refusal, .. }) => prop_assert_eq!(why, refusal),
                _ => prop_assert!(false, "{:?} and {:?}", taken, outcome),
            }
        }
        let shown = unnoted(&committed, &pending);
        let revision = committed.revision() + 1;
        let before = all(&shown, revision);
        committed.done(pending.operations());
        prop_assert_eq!(&before, &all(&committed.readable(), revision));
        prop_assert_eq!(left(before), left(all(&one_by_one.readable(), 0)));
        prop_assert!(pending.is_empty() || pending.bytes() > 0);
    }

    #[test]
    fn laid_over_another_ground_it_is_what_is_committed_there(before in calls(6), calls in calls(6), meanwhile in calls(6)) {
        let (mut store, scopes, index) = store(&before);
        let mut pending = Pending::default();
        for call in &calls {
            let operations: Vec<Operation> = call.iter().map(|wish| wish.operation(scopes, index)).collect();
            store.take(&mut pending, &operations);
        }
        for call in &meanwhile {
            store.transact(Transaction::blind(call.iter().map(|wish| wish.operation(scopes, index)).collect()));
        }
        let readable = store.readable();
        let (last, known) = (store.state.meta().last_scope, store.state.meta().scopes.clone());
        let scopes = |wanted: &[ScopeId]| (last, wanted.iter().map(|scope| known.get(scope).copied()).collect());
        let ground = Ground { source: &readable, scopes: &scopes, wall_ms: store.wall_ms };
        let laid = pending.laid_over(&ground).unwrap();
        let revision = store.revision() + 1;
        let shown = laid.map(|laid| all(&unnoted(&store, &laid), revision));
        match (shown, store.transact(Transaction::blind(pending.operations()))) {
            (Ok(shown), Outcome::Applied { .. }) => prop_assert_eq!(shown, all(&store.readable(), revision)),
            (Err(why), Outcome::Refused { refusal, .. }) => prop_assert_eq!(why, refusal),
            (laid, outcome) => prop_assert!(false, "{:?} and {:?}", laid, outcome),
        }
    }
}

type Look<'a> = &'a dyn Fn(&View);

/// A list is guarded as far as it was shown, a record by its last write, what is derived by its scope.
#[test]
fn what_was_looked_at_must_be_as_it_was() {
    let names = |view: &View, limit| -> Vec<Key> {
        view.records(STATE, b"a", Some(b"n"), limit).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    let look: [(&str, Look<'_>); 4] = [
        ("record", &|view| drop(view.record(&state("c")).unwrap())),
        ("list", &|view| assert_eq!(names(view, 10).len(), 3)),
        ("beginning", &|view| assert_eq!(names(view, 2), [state("b"), state("c")])),
        ("index", &|view| drop(view.entries(1, b"", None, 10).unwrap())),
    ];
    let changes: [(&str, Operation, [bool; 4]); 7] = [
        ("nothing there", put(&state("z"), "1"), [false; 4]),
        ("in front", put(&state("a1"), "1"), [false, true, true, false]),
        ("behind the beginning", put(&state("e"), "1"), [false, true, false, false]),
        ("written again", put(&state("c"), "1"), [true, true, true, false]),
        ("gone", delete(&state("c")), [true, true, true, false]),
        ("another gone", delete(&state("d")), [false, true, false, false]),
        ("entered", put_entries(&state("z"), vec![entry(1, "e", "")]), [false, false, false, true]),
    ];
    for (what, change, conflicts) in changes {
        for ((how, look), conflict) in look.iter().zip(conflicts) {
            let mut store = Store::new();
            store.done(vec![put(&state("b"), "0"), put(&state("c"), "0"), put(&state("d"), "0")]);
            let (view, reads) = store.shown(&Pending::default());
            look(&view);
            let since = store.revision();
            assert!(store.relies(&reads, since), "{how}: nothing has changed");
            store.done(vec![change.clone()]);
            assert_eq!(store.relies(&reads, since), !conflict, "{how}, {what}");
        }
    }
}

/// What it has written itself stands in nobody's way, until it looks at what that says of what was there.
#[test]
fn own_writes_are_looked_at_without_a_look_below() {
    let mut store = Store::new();
    store.done(vec![put(&state("a"), "0"), put(&state("b"), "0")]);
    let mut pending = Pending::default();
    let written = [put(&state("a"), "1"), delete(&state("b")), put(&state("c"), "1")];
    assert!(matches!(store.take(&mut pending, &written), Taken::Taken(_)));
    let since = store.revision();
    let (view, reads) = store.shown(&pending);
    assert_eq!(view.record(&state("b")).unwrap(), None);
    assert!(reads.lock().unwrap().is_empty());
    let record = view.record(&state("a")).unwrap().unwrap();
    assert_eq!((record.version, record.create_revision, record.mod_revision), (2, 1, UNCOMMITTED));
    let (view, listed) = store.shown(&pending);
    assert_eq!(view.records(STATE, b"", None, 10).unwrap().len(), 2);
    store.done(vec![delete(&state("b"))]);
    assert!(store.relies(&reads, since));
    assert!(!store.relies(&listed, since));
    store.done(vec![put(&state("a"), "2")]);
    assert!(!store.relies(&reads, since));
}

/// A list is one range as long as that can be asked, and then its whole scope; more than there is room for is refused.
#[test]
fn reads_are_joined_and_bounded() {
    let mut store = Store::new();
    for hundred in 0..12 {
        store.done((0..100).map(|n| put(&state(&format!("{hundred:02}{n:02}")), "x")).collect());
    }
    let (view, reads) = store.shown(&Pending::default());
    let list = |view: &View, end: Option<&[u8]>| {
        let mut start = Vec::new();
        loop {
            let page = view.records(STATE, &start, end, 64).unwrap();
            let Some((last, _)) = page.last() else { break };
            start = [last.user_bytes().as_ref(), &[0]].concat();
        }
    };
    list(&view, Some(b"10"));
    let since = store.revision();
    let ranges = |reads: &Noted| {
        let noted: Vec<Compare> = reads.lock().unwrap().others(since).collect();
        let of = |compare: &Compare| if let Compare::Unchanged { count, .. } = compare { Some(*count) } else { None };
        noted.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(ranges(&reads), [Some(1_000)], "joined");
    assert!(store.relies(&reads, since));
    list(&view, None);
    assert_eq!(ranges(&reads), [None], "the scope");
    assert_eq!(reads.lock().unwrap().len(), 1);
    assert!(store.relies(&reads, since));
    for n in 0..98 {
        view.record(&state(&format!("none{n}"))).unwrap();
    }
    view.record(&state("none0")).expect("asked again it takes no more room");
    let refused = (0..3).map(|n| view.record(&state(&format!("more{n}")))).find_map(Result::err);
    assert!(matches!(refused, Some(Error::Refused(why)) if why.contains("reads more than can be checked")));
}
