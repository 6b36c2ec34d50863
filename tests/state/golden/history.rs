//! A history with every operation, and everything that happens without one.

use meshstore::model::{
    Outcome, Reference, ScopeId, keyspace,
    proposal::{Action, Call},
    transaction::{Operation, Put, ScopeSettings, Transaction},
};

use crate::store::*;

/// Log time and operations of each transaction; the last one is refused.
#[expect(clippy::too_many_lines, reason = "a list")]
fn steps() -> Vec<(u64, Vec<Operation>)> {
    let parents = ScopeId::new(0x40, 1_024);
    let index = ScopeId::new(keyspace::ENTRIES, 1_025);
    let slots = ScopeId::new(keyspace::UNIQUE, 1_026);
    let children = ScopeId::new(0x41, 1_027);
    let doomed = ScopeId::new(0x42, 1_028);
    let settings = ScopeSettings { history: 2, max_keys: 100, max_bytes: 1 << 20 };
    let none = ScopeSettings::default();
    let child = |name: &str, references: Vec<Reference>, ttl_ms: Option<u64>| Operation::Put {
        key: children.key(name.as_bytes()),
        put: Put {
            entries: vec![entry(1_025, name, "payload"), unique(1_026, name), entry(1, "time\0", "")],
            references,
            ttl_ms,
            ..Put::value(name.to_owned())
        },
    };
    let parent = |name: &str| parents.key(name.as_bytes());
    vec![
        (
            1,
            vec![
                set_scope(parents, settings),
                set_scope(index, none),
                set_scope(slots, none),
                set_scope(children, none),
                set_scope(doomed, settings),
            ],
        ),
        (2, vec![put(&parent("p"), "1"), put(&parent("q"), "1"), put(&parent("r\0"), "1")]),
        (3, vec![child("a", vec![cascade(&parent("p"))], None), child("b", vec![restrict(&parent("q"))], Some(1_000))]),
        (4, vec![child("c", vec![cascade(&children.key(b"a"))], None), child("d", vec![], Some(60_000))]),
        (5, vec![put(&parent("p"), "2"), put(&parent("q"), "2"), add(&key("n"), 42)]),
        (6, vec![put(&parent("p"), "3"), add(&key("n"), -2), put(&doomed.key(b"x"), "1")]),
        (7, vec![put(&parent("p"), "4"), put(&doomed.key(b"x"), "2")]),
        (
            8,
            vec![
                Operation::PutStamped { prefix: key("log/"), put: Put::value("1") },
                Operation::PutStamped { prefix: key("log/"), put: Put::value("2") },
            ],
        ),
        (
            9,
            vec![Operation::Reindex {
                key: children.key(b"d"),
                entries: vec![entry(1_025, "D", ""), unique(1_026, "D")],
            }],
        ),
        (
            10,
            vec![
                get(&key("n")),
                range_all(children, 2),
                referrers(&parent("p"), 9),
                put(&ScopeId::new(keyspace::SECURITY, 0).key(b"grant"), ""),
            ],
        ),
        (
            11,
            vec![
                put_ttl(&key("lease"), 500, vec![]),
                put_ttl(&key("held"), 400, vec![]),
                put_references(&key("holder"), vec![restrict(&key("held"))]),
            ],
        ),
        (
            12,
            vec![
                put_references(&key("attached"), vec![cascade(&key("lease"))]),
                put_ttl(&doomed.key(b"y"), 300, vec![cascade(&parent("q"))]),
            ],
        ),
        (13, vec![delete(&parent("r\0")), drop_scope(doomed)]),
        (600, vec![delete_range(STATE, "log/", "log0")]),
        (700, vec![delete(&parent("p"))]),
        (
            2_000,
            vec![
                put(&parent("p"), "again"),
                set_scope(parents, ScopeSettings { history: 1, ..settings }),
                child("e", vec![cascade(&parent("q")), restrict(&parent("p"))], Some(9_000)),
            ],
        ),
        (2_001, vec![put(&key("n"), "refused"), put(&key("n"), "twice")]),
    ]
}

/// Runs the history, and shows the store after each step.
pub(super) fn history(mut after_each: impl FnMut(&Store)) -> Store {
    let mut store = Store::new();
    for (now_ms, operations) in steps() {
        (store.now_ms, store.wall_ms) = (now_ms, 1_700_000_000_000 + now_ms);
        let outcome = store.transact(Transaction::blind(operations));
        assert_eq!(matches!(outcome, Outcome::Refused { .. }), now_ms == 2_001, "{outcome:?}");
        after_each(&store);
    }
    let session = store.open_session();
    after_each(&store);
    store.call(session, 3, 2, vec![add(&key("n"), 1), get(&key("n"))]);
    store.call(session, 4, 2, vec![put(&key("n"), ""), put(&key("n"), "")]);
    let large = "v".repeat(5_000);
    store.call(session, 5, 2, vec![put(&key("large"), &large), get(&key("large"))]);
    after_each(&store);
    let mut refuse = store.proposal(Action::Refuse { reason: "no such node".to_owned() });
    refuse.call = Some(Call { session, sequence: 7, answered_below: 4 });
    store.propose(refuse);
    store.open_session();
    after_each(&store);
    store
}
