//! Commits whose answers get lost, leaders that change, times that pass: over the real core in memory.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use super::*;
use crate::{
    error::Fault,
    layers::mesh::state as values,
    model::{
        Outcome, ReadStamp, Refusal,
        proposal::{Action, Batch, Guards, Proposal},
        session::Attempt,
    },
    node::Request,
    service::Caller,
    state::{self, Base, scope::Account, view::Source},
};

#[derive(Clone, Default)]
struct Pairs(BTreeMap<Bytes, Bytes>);

impl Base for Pairs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fault> {
        let within = self.0.range::<[u8], _>((Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded)));
        Ok(within.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, _: u64, pairs: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Fault> {
        for (key, value) in pairs {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        Ok(())
    }
}

impl Source for Pairs {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        Ok(Base::range(self, start, end, limit).unwrap())
    }

    fn fault(&self, fault: Fault) -> Error {
        panic!("{fault}")
    }
}

/// What becomes of the next proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is applied, and nobody is told.
    Unanswered,
    /// It is on its way for long.
    Delayed,
    /// It is refused for sure.
    Refused,
    /// It is on its way, and who waits for it has gone.
    Abandoned,
}

struct Store {
    state: state::State,
    pairs: Pairs,
    term: u64,
    numbers: u128,
    fates: VecDeque<Fate>,
    delayed: Vec<Proposal>,
}

/// One node and its core.
struct One(Mutex<Store>);

impl One {
    fn new() -> Self {
        let (state, pairs) = (state::State::default(), Pairs::default());
        let one =
            Self(Mutex::new(Store { state, pairs, term: 1, numbers: 0, fates: VecDeque::new(), delayed: vec![] }));
        let open = one.apply(proposal(None, Guards::default(), Action::OpenSession { ttl_ms: 60_000 }));
        assert!(matches!(open, Outcome::Applied { revision: 1, .. }));
        one
    }

    fn apply(&self, proposal: Proposal) -> Outcome {
        let mut store = lock(&self.0);
        let Store { state, pairs, .. } = &mut *store;
        let batch = Batch { log_time_ms: 0, wall_ms: 0, proposals: vec![proposal] };
        state.apply(pairs, &batch).unwrap().outcomes.remove(0)
    }

    fn next(&self, fate: Fate) {
        lock(&self.0).fates.push_back(fate);
    }

    /// Another leads, then this node again: all that it kept is another term's.
    fn leads_anew(&self) {
        lock(&self.0).term += 1;
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        values::get(&self.at_hand().unwrap(), key).ok().map(|stored| stored.value)
    }

    fn put(&self, key: &str, value: &str) {
        let write = values::put(key, value.to_owned().into()).unwrap();
        self.apply(proposal(None, Guards::default(), Action::Transact(write.transaction)));
    }
}

fn proposal(attempt: Option<Attempt>, guards: Guards, action: Action) -> Proposal {
    Proposal { principal: "ada".into(), call: attempt.map(Into::into), guards, action }
}

fn unknown() -> Error {
    Error::Unknown("nobody answered".into())
}

impl Core for One {
    fn at_hand(&self) -> Result<View> {
        let store = lock(&self.0);
        Ok(View::new(store.state.meta().revision, Box::new(store.pairs.clone())))
    }

    async fn read(&self, _: ReadMode, revision: Option<u64>, _: Instant) -> Result<(View, ReadStamp)> {
        let view = self.at_hand()?;
        assert!(revision.is_none_or(|revision| revision == view.revision()), "no older one is kept here");
        Ok((view, ReadStamp::default()))
    }

    async fn propose(&self, request: Request, _: Instant) -> Result<Outcome> {
        let Request { attempt, guards, transaction, .. } = request;
        let proposal = proposal(attempt, guards, Action::Transact(transaction));
        let fate = lock(&self.0).fates.pop_front();
        match fate {
            None => Ok(self.apply(proposal)),
            Some(Fate::Unanswered) => {
                self.apply(proposal);
                Err(unknown())
            }
            Some(Fate::Refused) => Err(Error::Unavailable { reason: "no leader".into(), leader: None }),
            Some(Fate::Delayed) => {
                lock(&self.0).delayed.push(proposal);
                Err(unknown())
            }
            Some(Fate::Abandoned) => {
                lock(&self.0).delayed.push(proposal);
                std::future::pending().await
            }
        }
    }

    async fn refuse(&self, _: String, attempt: Attempt, reason: String, _: Instant) -> Result<Outcome> {
        Ok(self.apply(proposal(Some(attempt), Guards::default(), Action::Refuse { reason })))
    }

    fn accounts(&self, wanted: &[ScopeId]) -> (u64, Vec<Option<Account>>) {
        (0, vec![None; wanted.len()])
    }

    fn keep_for_pages(&self, _view: &View) {}

    fn knows_leader(&self) -> bool {
        true
    }

    async fn require(&self, _: u32, _: Instant) -> Result<()> {
        Ok(())
    }
}

impl Home for One {
    fn id(&self) -> u64 {
        7
    }

    fn leads(&self) -> Option<u64> {
        Some(lock(&self.0).term)
    }

    fn id_parts(&self) -> (u64, u128) {
        let mut store = lock(&self.0);
        store.numbers += 1;
        (0, store.numbers)
    }

    fn scopes(&self, wanted: &[ScopeId]) -> (u32, Vec<Option<Scope>>) {
        let store = lock(&self.0);
        let meta = store.state.meta();
        (meta.last_scope, wanted.iter().map(|scope| meta.scopes.get(scope).copied()).collect())
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn caller(sequence: u64, attempt: u32) -> Caller {
    let attempt = Attempt { session: 1, sequence, answered_below: 1, attempt };
    Caller { principal: "ada".into(), attempt: Some(attempt), deadline: soon(), fence: None }
}

fn without_session() -> Caller {
    Caller { attempt: None, ..caller(1, 1) }
}

async fn put(all: &Transactions, home: &One, id: &str, key: &str, value: &str) -> Result<Outcome> {
    let write = values::put(key, value.to_owned().into()).unwrap();
    let (principal, guards) = ("ada".into(), Guards::default());
    let request = Request { principal, attempt: None, guards, transaction: write.transaction };
    all.enter(home, id, ("ada", None, soon())).await?.propose(request, soon()).await
}

/// A transaction that has written `key`.
async fn begun(all: &Transactions, home: &One, key: &str) -> String {
    let id = all.begin(home, "ada", Options::default(), soon()).await.unwrap().id;
    put(all, home, &id, key, "written").await.unwrap();
    id
}

fn aborted<T: std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::TransactionAborted(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_answered_when_it_is_repeated() {
    for leads_anew in [false, true] {
        let (all, home) = (Transactions::default(), One::new());
        let id = begun(&all, &home, "key").await;
        home.next(Fate::Unanswered);
        assert_eq!(all.commit(&home, caller(1, 1), &id).await, Err(unknown()));
        home.put("key", "overwritten");
        if leads_anew {
            home.leads_anew();
        }
        assert_eq!(all.commit(&home, caller(1, 2), &id).await, Ok(2));
        assert_eq!(all.commit(&home, caller(1, 3), &id).await, Ok(2));
        assert_eq!(home.value("key").unwrap(), "overwritten", "it was not done again");
    }
}

#[tokio::test]
async fn a_commit_that_may_come_later_is_made_by_who_keeps_it_and_closed_by_another() {
    for leads_anew in [false, true] {
        for fate in [Fate::Delayed, Fate::Abandoned] {
            let (all, home) = (Transactions::default(), One::new());
            let id = begun(&all, &home, "key").await;
            home.next(fate);
            let first = tokio::time::timeout(Duration::ZERO, all.commit(&home, caller(1, 1), &id)).await;
            assert!(matches!(first, Err(_) | Ok(Err(Error::Unknown(_)))), "{first:?}");
            if leads_anew {
                home.leads_anew();
                assert!(aborted(all.commit(&home, caller(1, 2), &id).await).contains("lost with its leader"));
            } else {
                assert_eq!(all.commit(&home, caller(1, 2), &id).await, Ok(2));
            }
            let late = lock(&home.0).delayed.remove(0);
            let late = home.apply(late);
            match leads_anew {
                true => assert!(matches!(late, Outcome::Refused { refusal: Refusal::Layer(_), .. }), "{late:?}"),
                false => assert!(matches!(late, Outcome::Applied { revision: 2, .. }), "{late:?}"),
            }
            assert_eq!(home.value("key").is_some(), !leads_anew);
        }
    }
}

#[tokio::test]
async fn one_that_was_overtaken_after_an_attempt_in_doubt_never_comes_later() {
    let (all, home) = (Transactions::default(), One::new());
    home.put("key", "0");
    let id = all.begin(&home, "ada", Options::default(), soon()).await.unwrap().id;
    let inside = all.enter(&home, &id, ("ada", None, soon())).await.unwrap();
    values::get(&inside.at_hand().unwrap(), "key").unwrap();
    drop(inside);
    put(&all, &home, &id, "key", "1").await.unwrap();
    home.next(Fate::Delayed);
    assert_eq!(all.commit(&home, caller(1, 1), &id).await, Err(unknown()));
    home.put("key", "2");
    let why = aborted(all.commit(&home, caller(1, 2), &id).await);
    assert!(why.contains("state key was changed by others"), "{why}");
    let late = lock(&home.0).delayed.remove(0);
    assert!(matches!(home.apply(late), Outcome::Refused { refusal: Refusal::Layer(_), .. }));
    assert_eq!(aborted(all.commit(&home, caller(1, 3), &id).await), why);
    assert_eq!(home.value("key").unwrap(), "2");
}

#[tokio::test]
async fn without_a_session_nobody_claims_to_know() {
    let (all, home) = (Transactions::default(), One::new());
    let id = begun(&all, &home, "key").await;
    home.next(Fate::Unanswered);
    assert_eq!(all.commit(&home, without_session(), &id).await, Err(unknown()));
    for answer in [all.commit(&home, without_session(), &id).await, all.commit(&home, caller(1, 1), &id).await] {
        assert!(matches!(answer, Err(Error::Unknown(_))), "{answer:?}");
    }
    assert!(matches!(all.rollback(&home, caller(1, 1), &id).await, Err(Error::InvalidArgument { .. })));
    assert!(put(&all, &home, &id, "key", "again").await.is_err());
    home.leads_anew();
    assert!(aborted(all.commit(&home, without_session(), &id).await).contains("unless another commit"));
}

#[tokio::test]
async fn what_was_refused_for_sure_is_still_open() {
    let (all, home) = (Transactions::default(), One::new());
    let id = begun(&all, &home, "key").await;
    home.next(Fate::Refused);
    assert!(matches!(all.commit(&home, caller(1, 1), &id).await, Err(Error::Unavailable { .. })));
    put(&all, &home, &id, "other", "written").await.unwrap();
    let of_no_session = Caller { attempt: caller(1, 1).attempt.map(|a| Attempt { session: 99, ..a }), ..caller(1, 1) };
    assert_eq!(all.commit(&home, of_no_session, &id).await, Err(Error::SessionExpired { session: 99 }));
    assert_eq!(all.commit(&home, caller(1, 2), &id).await, Ok(2));
    assert!(home.value("other").is_some());
}

#[tokio::test(start_paused = true)]
async fn those_whose_time_is_over_are_let_go_also_if_nobody_calls() {
    let (all, home) = (Transactions::default(), One::new());
    let id = begun(&all, &home, "key").await;
    let in_doubt = begun(&all, &home, "doubt").await;
    home.next(Fate::Unanswered);
    assert_eq!(all.commit(&home, caller(1, 1), &in_doubt).await, Err(unknown()));
    assert!(all.open() == 2 && all.shared.bytes.load(Ordering::Relaxed) > 0);
    let keeping = all.clone().keep(One::new());
    let half = Duration::from_millis(limits::TRANSACTION_TIMEOUT_DEFAULT_MS / 2);
    tokio::time::timeout(half, keeping).await.unwrap_err();
    assert_eq!(all.open(), 2);
    let keeping = all.clone().keep(One::new());
    tokio::time::timeout(half + 2 * SWEEP, keeping).await.unwrap_err();
    assert_eq!((all.open(), all.shared.bytes.load(Ordering::Relaxed)), (0, 0));
    let timed_out = "it timed out after 30000 ms; nothing of it was written";
    assert_eq!(aborted(put(&all, &home, &id, "key", "late").await), timed_out);
    assert_eq!(aborted(all.commit(&home, caller(2, 1), &id).await), timed_out);
    assert_eq!(all.commit(&home, caller(1, 2), &in_doubt).await, Ok(2), "the state knows what became of it");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_never_sent_is_known_as_that_when_its_time_is_over() {
    let (all, home) = (Transactions::default(), One::new());
    let id = begun(&all, &home, "key").await;
    home.next(Fate::Delayed);
    assert_eq!(all.commit(&home, caller(1, 1), &id).await, Err(unknown()));
    let keeping = all.clone().keep(One::new());
    let time = Duration::from_millis(limits::TRANSACTION_TIMEOUT_DEFAULT_MS) + 2 * SWEEP;
    tokio::time::timeout(time, keeping).await.unwrap_err();
    assert!(
        matches!(all.commit(&home, caller(2, 1), &id).await, Err(Error::InvalidArgument { .. })),
        "not its own call"
    );
    let why = aborted(all.commit(&home, caller(1, 2), &id).await);
    assert!(why.contains("its time was over before its commit was done; nothing of it was written"), "{why}");
    let late = lock(&home.0).delayed.remove(0);
    assert!(matches!(home.apply(late), Outcome::Refused { refusal: Refusal::Layer(_), .. }), "and never will be");
    assert_eq!(aborted(put(&all, &home, &id, "key", "late").await), why);
    assert_eq!(home.value("key"), None);
}

#[tokio::test]
async fn a_call_waits_for_the_one_before_until_its_deadline() {
    let (all, home) = (Transactions::default(), One::new());
    let id = begun(&all, &home, "key").await;
    let first = all.enter(&home, &id, ("ada", None, soon())).await.unwrap();
    let second = all.enter(&home, &id, ("ada", None, Instant::now())).await;
    assert!(matches!(second.map(drop), Err(Error::DeadlineExceeded { may_have_applied: false, .. })));
    drop(first);
    all.enter(&home, &id, ("ada", None, soon())).await.unwrap();
}
