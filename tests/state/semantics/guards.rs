//! Guards: what the layer relied on. If it no longer holds nothing changes and nothing is recorded.

use meshstore::model::{
    Outcome, ScopeId, keyspace,
    proposal::{Action, Call, Proposal},
    transaction::{Compare, ScopeSettings, Transaction},
};

use crate::store::*;

fn write(store: &Store) -> Proposal {
    store.proposal(Action::Transact(Transaction::blind(vec![put(&key("a"), "written")])))
}

#[test]
fn a_proposal_does_not_outlive_a_change_of_permissions() {
    let mut store = Store::new();
    let grant = ScopeId::new(keyspace::SECURITY, 0).key(b"grant");
    let decided_before = write(&store);
    store.done(vec![put(&grant, "")]);
    assert_eq!(store.propose(decided_before), Outcome::Raced);
    let decided_after = write(&store);
    assert_eq!(decided_after.guards.security_revision, 1);
    store.done(vec![put(&key("other"), "")]);
    assert!(matches!(store.propose(decided_after), Outcome::Applied { .. }));
    let mut ahead = write(&store);
    ahead.guards.security_revision = 99;
    assert_eq!(store.propose(ahead), Outcome::Raced);
}

#[test]
fn a_proposal_does_not_outlive_its_scope() {
    let mut store = Store::new();
    store.done(vec![put(&key("x"), "")]);
    let scope = store.new_scope(ScopeSettings::default());
    let mut proposal = write(&store);
    proposal.guards.incarnations = vec![(scope, 2), (STATE, 0)];
    assert!(matches!(store.propose(proposal.clone()), Outcome::Applied { .. }));
    let mut other = proposal.clone();
    other.guards.incarnations = vec![(scope, 1)];
    assert_eq!(store.propose(other), Outcome::Raced);
    store.done(vec![drop_scope(scope)]);
    assert_eq!(store.propose(proposal.clone()), Outcome::Raced);
    proposal.guards.incarnations = vec![(scope, 0)];
    assert_eq!(store.propose(proposal), Outcome::Raced, "no incarnation is that of a scope that is not");
}

#[test]
fn a_failed_guard_is_no_failed_compare() {
    let mut store = Store::new();
    let exists = Compare::Exists { key: key("b"), exists: true };
    let mut proposal = store.proposal(Action::Transact(Transaction {
        compares: vec![exists.clone()],
        then: vec![],
        otherwise: vec![put(&key("a"), "otherwise")],
    }));
    proposal.guards.compares = vec![exists];
    assert_eq!(store.propose(proposal.clone()), Outcome::Raced);
    assert_eq!(store.revision(), 0);
    proposal.guards.compares.clear();
    assert!(matches!(store.propose(proposal), Outcome::Applied { succeeded: false, .. }));
}

#[test]
fn raced_is_not_recorded_in_the_session() {
    let mut store = Store::new();
    let session = store.open_session();
    let mut proposal = write(&store);
    proposal.call = Some(Call { session, sequence: 1, answered_below: 1 });
    proposal.guards.compares = vec![Compare::Exists { key: key("a"), exists: true }];
    assert_eq!(store.propose(proposal.clone()), Outcome::Raced);
    assert!(store.state.meta().sessions.all()[&session].outcomes.is_empty());
    proposal.guards.compares.clear();
    assert!(matches!(store.propose(proposal), Outcome::Applied { .. }));
    assert_eq!(store.state.meta().sessions.all()[&session].outcomes.len(), 1);
}
