//! Sessions: a retried call happens once.

use meshstore::model::{
    OperationResult, Outcome, Refusal,
    proposal::{Action, Call, Proposal},
    transaction::Transaction,
};

use crate::store::*;

fn in_session(mut proposal: Proposal, session: u64, sequence: u64) -> Proposal {
    proposal.call = Some(Call { session, sequence, answered_below: 0 });
    proposal
}

#[test]
fn a_session_is_named_by_its_revision() {
    let mut store = Store::new();
    store.done(vec![put(&key("a"), "")]);
    assert_eq!((store.open_session(), store.open_session()), (2, 3));
    assert_eq!(store.revision(), 3);
    assert_eq!(store.applied.commits, [], "no reader sees it");
}

#[test]
fn a_retry_gets_the_same_answer_and_does_nothing() {
    let mut store = Store::new();
    let session = store.open_session();
    let first = store.call(session, 1, 0, vec![add(&key("n"), 1), get(&key("n"))]);
    assert!(matches!(&first, Outcome::Applied { results, .. } if results[0] == OperationResult::Sum(1)));
    store.done(vec![put(&key("other"), "")]);
    assert_eq!(store.call(session, 1, 0, vec![add(&key("n"), 1), get(&key("n"))]), first);
    assert_eq!(store.call(session, 1, 0, vec![add(&key("n"), 100)]), first, "the call is its number");
    assert_eq!(store.record(&key("n")).unwrap().version, 1);
}

#[test]
fn a_retry_in_the_same_batch_gets_the_same_answer() {
    let mut store = Store::new();
    let session = store.open_session();
    let add = store.proposal(Action::Transact(Transaction::blind(vec![add(&key("n"), 1)])));
    let outcomes = store.apply(vec![in_session(add.clone(), session, 5), in_session(add, session, 5)]);
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(store.record(&key("n")).unwrap().version, 1);
}

#[test]
fn a_refusal_is_an_answer_that_stays() {
    let mut store = Store::new();
    let session = store.open_session();
    store.done(vec![put(&key("a"), "no number")]);
    let refused = store.call(session, 1, 0, vec![add(&key("a"), 1)]);
    assert!(matches!(refused, Outcome::Refused { .. }));
    store.done(vec![delete(&key("a"))]);
    assert_eq!(store.call(session, 1, 0, vec![add(&key("a"), 1)]), refused);
    assert!(!store.exists(&key("a")));
}

#[test]
fn calls_may_come_out_of_order() {
    let mut store = Store::new();
    let session = store.open_session();
    for sequence in [7, 3, 5] {
        assert!(matches!(store.call(session, sequence, 1, vec![add(&key("n"), 1)]), Outcome::Applied { .. }));
    }
    assert_eq!(store.record(&key("n")).unwrap().version, 3);
}

#[test]
fn what_was_answered_is_forgotten_and_never_executed_again() {
    let mut store = Store::new();
    let session = store.open_session();
    for sequence in 1..=4 {
        store.call(session, sequence, 0, vec![add(&key("n"), 1)]);
    }
    store.call(session, 5, 4, vec![]);
    let kept = |store: &Store| store.state.meta().sessions.all()[&session].outcomes.keys().copied().collect::<Vec<_>>();
    assert_eq!(kept(&store), [4, 5]);
    assert_eq!(store.call(session, 3, 0, vec![add(&key("n"), 1)]), Outcome::SessionExpired);
    assert_eq!(store.call(session, 4, 0, vec![add(&key("n"), 1)]), store.call(session, 4, 2, vec![]));
    assert_eq!(store.call(session, 6, 9, vec![add(&key("n"), 1)]), Outcome::SessionExpired);
    assert!(kept(&store).is_empty());
    assert_eq!(store.record(&key("n")).unwrap().version, 4);
}

#[test]
fn sequences_begin_at_1() {
    let mut store = Store::new();
    let session = store.open_session();
    assert_eq!(store.call(session, 0, 0, vec![put(&key("a"), "")]), Outcome::SessionExpired);
}

#[test]
fn an_unknown_session_executes_nothing() {
    let mut store = Store::new();
    let session = store.open_session();
    for unknown in [0, session + 1, u64::MAX] {
        assert_eq!(store.call(unknown, 1, 0, vec![put(&key("a"), "")]), Outcome::SessionExpired);
    }
    assert!(!store.exists(&key("a")));
}

#[test]
fn a_session_lives_in_log_time_from_its_last_call() {
    let mut store = Store::new();
    let session = store.open_session();
    store.now_ms = 1_000;
    assert!(matches!(store.call(session, 1, 0, vec![]), Outcome::Applied { .. }));
    store.now_ms = 2_000;
    assert!(matches!(store.call(session, 2, 0, vec![]), Outcome::Applied { .. }), "the deadline itself is in time");
    let revision = store.revision();
    store.now_ms = 3_001;
    assert_eq!(store.call(session, 3, 0, vec![]), Outcome::SessionExpired);
    assert_eq!((store.state.meta().sessions.len(), store.revision()), (0, revision));
    assert_eq!(store.call(session, 1, 0, vec![]), Outcome::SessionExpired);
}

#[test]
fn keep_prolongs_and_close_ends() {
    let mut store = Store::new();
    let session = store.open_session();
    let keep = store.proposal(Action::KeepSession { session });
    store.now_ms = 900;
    assert_eq!(store.propose(keep.clone()), Outcome::Applied { revision: 1, succeeded: true, results: vec![] });
    store.pass(1_900);
    assert_eq!(store.state.meta().sessions.len(), 1);
    let close = store.proposal(Action::CloseSession { session });
    assert!(matches!(store.propose(close.clone()), Outcome::Applied { succeeded: true, .. }));
    assert!(matches!(store.propose(close), Outcome::Applied { succeeded: false, .. }));
    assert_eq!(store.propose(keep), Outcome::SessionExpired);
    assert_eq!(store.call(session, 1, 0, vec![]), Outcome::SessionExpired);
}

#[test]
fn a_session_belongs_to_who_opened_it() {
    let mut store = Store::new();
    let session = store.open_session();
    let first = store.call(session, 1, 0, vec![put(&key("a"), "secret"), get(&key("a"))]);
    let other = |mut proposal: Proposal| {
        proposal.principal = "somebody else".to_owned();
        proposal
    };
    let call = store.proposal(Action::Transact(Transaction::default()));
    assert_eq!(store.propose(other(in_session(call, session, 1))), Outcome::SessionExpired);
    let keep = store.proposal(Action::KeepSession { session });
    assert_eq!(store.propose(other(keep)), Outcome::SessionExpired);
    let close = store.proposal(Action::CloseSession { session });
    assert!(matches!(store.propose(other(close)), Outcome::Applied { succeeded: false, .. }));
    assert_eq!(store.call(session, 1, 0, vec![]), first);
}

#[test]
fn the_lowest_of_more_than_1024_outcomes_goes() {
    let mut store = Store::new();
    let session = store.open_session();
    let nothing = store.proposal(Action::Transact(Transaction::default()));
    store.apply((1..=1_024).map(|sequence| in_session(nothing.clone(), session, sequence)).collect());
    assert_eq!(store.state.meta().sessions.all()[&session].answered_below, 1);
    store.propose(in_session(nothing.clone(), session, 2_000));
    assert_eq!(store.state.meta().sessions.all()[&session].answered_below, 2);
    assert_eq!(store.state.meta().sessions.all()[&session].outcomes.len(), 1_024);
    assert_eq!(store.propose(in_session(nothing.clone(), session, 1)), Outcome::SessionExpired);
    assert!(matches!(store.propose(in_session(nothing.clone(), session, 2)), Outcome::Applied { .. }));
    // A call so low that it is itself the one to go is executed, and not again.
    store.propose(in_session(nothing, session, u64::MAX));
    assert_eq!(store.state.meta().sessions.all()[&session].answered_below, 3);
}

#[test]
fn large_results_are_kept_as_revision_and_branch() {
    let mut store = Store::new();
    let session = store.open_session();
    store.done(vec![put(&key("small"), &"v".repeat(4_000)), put(&key("large"), &"v".repeat(4_096))]);
    let small = store.call(session, 1, 0, vec![get(&key("small"))]);
    assert_eq!(store.call(session, 1, 0, vec![]), small);
    let Outcome::Applied { revision, succeeded, .. } = store.call(session, 2, 0, vec![get(&key("large"))]) else {
        panic!("{:?}", store.applied)
    };
    assert_eq!(store.call(session, 2, 0, vec![]), Outcome::AppliedEarlier { revision, succeeded });
}

#[test]
fn a_large_reason_is_not_kept() {
    let mut store = Store::new();
    let session = store.open_session();
    let long = STATE.key(&[b'k'; 5_000]);
    let first = store.call(session, 1, 0, vec![put(&long, ""), put(&long, "")]);
    assert!(matches!(first, Outcome::Refused { refusal: Refusal::KeyWrittenTwice(_), .. }));
    let again = store.call(session, 1, 0, vec![]);
    assert!(matches!(again, Outcome::Refused { refusal: Refusal::Layer(_), revision: 1 }));
}

#[test]
fn refuse_closes_the_sequence_unless_it_was_answered() {
    let mut store = Store::new();
    let session = store.open_session();
    let refuse = store.proposal(Action::Refuse { reason: "no such node".to_owned() });
    let refused = Outcome::Refused { revision: 1, refusal: Refusal::Layer("no such node".to_owned()) };
    assert_eq!(store.propose(in_session(refuse.clone(), session, 1)), refused);
    assert_eq!(store.call(session, 1, 0, vec![put(&key("a"), "")]), refused);
    assert!(!store.exists(&key("a")));
    let done = store.call(session, 2, 0, vec![put(&key("a"), "")]);
    assert_eq!(store.propose(in_session(refuse, session, 2)), done);
}

#[test]
fn sessions_are_opened_once_through_a_session_too() {
    let mut store = Store::new();
    let session = store.open_session();
    let open = store.proposal(Action::OpenSession { ttl_ms: 9 });
    let first = store.propose(in_session(open.clone(), session, 1));
    assert_eq!(store.propose(in_session(open, session, 1)), first);
    assert_eq!(store.state.meta().sessions.len(), 2);
}

#[test]
fn a_session_may_close_itself() {
    let mut store = Store::new();
    let session = store.open_session();
    let close = store.proposal(Action::CloseSession { session });
    assert!(matches!(store.propose(in_session(close.clone(), session, 1)), Outcome::Applied { succeeded: true, .. }));
    assert_eq!(store.propose(in_session(close, session, 1)), Outcome::SessionExpired);
}

#[test]
fn at_most_10000_are_open() {
    let mut store = Store::new();
    let open = store.proposal(Action::OpenSession { ttl_ms: 1_000 });
    store.apply(vec![open.clone(); 10_000]);
    assert_eq!(store.propose(open.clone()), Outcome::Refused { revision: 10_000, refusal: Refusal::TooManySessions });
    let close = store.proposal(Action::CloseSession { session: 17 });
    store.propose(close);
    assert!(matches!(store.propose(open.clone()), Outcome::Applied { revision: 10_001, .. }));
    store.now_ms = 1_001;
    assert!(matches!(store.propose(open), Outcome::Applied { revision: 10_002, .. }));
    assert_eq!(store.state.meta().sessions.len(), 1);
}

#[test]
fn a_result_of_one_value_survives_a_checkpoint() {
    let mut store = Store::new();
    let session = store.open_session();
    let first = store.call(session, 1, 0, vec![put(&key("a"), "v"), get(&key("a"))]);
    let meta = meshstore::state::Meta::decode(&store.state.meta().encode()).unwrap();
    store.state = meshstore::state::State::from_meta(meta);
    assert_eq!(store.call(session, 1, 0, vec![]), first);
    let Outcome::Applied { results, .. } = first else { panic!("{first:?}") };
    assert!(matches!(&results[1], OperationResult::Record(Some(record)) if record.value.as_ref() == b"v"));
}
