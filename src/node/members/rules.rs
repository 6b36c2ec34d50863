//! What may be changed in the membership, and what is left to be done: pure functions.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Record, Records, Wish};
use crate::{
    error::{Error, Result},
    model::kind,
    raft::{
        members::Members,
        network::identity::hex,
        peer::Newcomer,
        types::{Member, NodeId},
    },
};

/// A learner that is at most so many entries behind has caught up: it has the rest before the change that makes it a voter
/// is committed.
pub(super) const CAUGHT_UP: u64 = 1_000;

/// That the voters after a change, as far as they answer now, are a quorum. Errors: `Refused`.
pub(super) fn check_quorum(change: &str, after: &BTreeSet<NodeId>, answering: &BTreeSet<NodeId>) -> Result<()> {
    let (alive, needed) = (after.intersection(answering).count(), after.len() / 2 + 1);
    if alive >= needed {
        return Ok(());
    }
    let silent: Vec<String> = after.difference(answering).map(NodeId::to_string).collect();
    Err(Error::Refused(format!(
        "{change} would lose the quorum: of the voters {} only {alive} would answer, {needed} are needed; bring back node {} \
         first",
        list(after.iter()),
        silent.join(", ")
    )))
}

/// That a node may be taken out. Errors: `NotFound`, `Refused`.
pub(super) fn check_removal(node: NodeId, members: &Members, record: Option<&Record>) -> Result<()> {
    let member = members.all.contains_key(&node);
    match record.map(|record| record.wish) {
        Some(Wish::Removed) if !member => {
            return Err(Error::Refused(format!("node {node} was removed already; its id is retired")));
        }
        None if !member => return Err(unknown(node)),
        _ => {}
    }
    if members.voters.contains(&node) && members.voters.len() == 1 {
        return Err(Error::Refused(format!(
            "node {node} is the last voter: without it there is no cluster; add another and let it become a voter first"
        )));
    }
    Ok(())
}

/// What a node is told that wants to become a member, or for which somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It is to be added.
    New,
    /// Its addition was decided before, and is to be finished.
    Begun,
    /// It is a member.
    Member,
}

/// Whether a node may become a member. Errors: `Refused` if its id was used, or somebody else has its address.
pub(super) fn admit(newcomer: &Newcomer, members: &Members, records: &Records) -> Result<Admitted> {
    let Newcomer { node, member, .. } = newcomer;
    if *node == 0 {
        return Err(Error::invalid("node_id", "0", "must be at least 1"));
    }
    let present = members.all.get(node);
    let record = records.get(node).map(|found| &found.record);
    if let Some(Record { wish: Wish::Removed, .. }) = record {
        return Err(Error::Refused(format!("node {node} was removed, and its id is retired: {}", choose_another())));
    }
    let known = present.or(record.map(|record| &record.member));
    if let Some(known) = known.filter(|known| known.directory != member.directory) {
        return Err(Error::Refused(format!(
            "id {node} belongs to another data directory ({}, this one is {}): if it was wiped or lost, {}, and remove node \
             {node}",
            hex(known.directory),
            hex(member.directory),
            choose_another()
        )));
    }
    check_addresses(*node, member, members, records)?;
    match (present, record) {
        (Some(present), _) if present != member => Err(Error::Refused(format!(
            "node {node} is a member already, at {} (clients: {}); meshstore member update {node} says where it is now",
            present.peer_address, present.client_address
        ))),
        (Some(_), _) => Ok(Admitted::Member),
        (None, Some(record)) if record.member == *member => Ok(Admitted::Begun),
        (None, _) => Ok(Admitted::New),
    }
}

/// That nobody else has one of a node's addresses. Errors: `Refused`.
pub(super) fn check_addresses(node: NodeId, wanted: &Member, members: &Members, records: &Records) -> Result<()> {
    let pending = records.iter().filter(|(_, found)| found.record.wish != Wish::Removed);
    let pending = pending.map(|(id, found)| (id, &found.record.member)).filter(|(id, _)| !members.all.contains_key(id));
    for (other, member) in members.all.iter().chain(pending).filter(|(other, _)| **other != node) {
        let taken = [&member.peer_address, &member.client_address];
        if let Some(address) =
            [&wanted.peer_address, &wanted.client_address].into_iter().find(|own| taken.contains(own))
        {
            return Err(Error::Refused(format!("{address} is the address of node {other}; each node needs its own")));
        }
    }
    Ok(())
}

/// That a learner is near enough to vote. Errors: `Refused`.
pub(super) fn check_caught_up(node: NodeId, matched: Option<u64>, last: u64) -> Result<()> {
    match matched.map(|matched| last.saturating_sub(matched)) {
        Some(lag) if lag <= CAUGHT_UP => Ok(()),
        Some(lag) => Err(Error::Refused(format!(
            "node {node} is {lag} entries behind, at most {CAUGHT_UP} are allowed: as a voter it would hold up writes; wait \
             until it has caught up"
        ))),
        None => {
            Err(Error::Refused(format!("nothing was heard from node {node} yet: it must catch up before it votes")))
        }
    }
}

/// One change of the membership that is left to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// End a joint membership.
    Settle,
    /// Add a learner.
    Add(NodeId, Member),
    /// Make a learner a voter.
    Promote(NodeId),
    /// Take a member out.
    Remove(NodeId),
}

/// What is left to be done: one of these, the first that is possible now. What was begun comes first.
pub(super) fn next_steps(
    members: &Members,
    records: &Records,
    matched: &BTreeMap<NodeId, u64>,
    last: u64,
) -> Vec<Step> {
    if members.joint {
        return vec![Step::Settle];
    }
    let step = |(node, found): (&NodeId, &super::record::Found)| {
        let (node, record) = (*node, &found.record);
        let (member, voter) = (members.all.get(&node), members.voters.contains(&node));
        match record.wish {
            Wish::Learner | Wish::Voter if member.is_none() => Some(Step::Add(node, record.member.clone())),
            Wish::Voter if !voter => {
                check_caught_up(node, matched.get(&node).copied(), last).is_ok().then_some(Step::Promote(node))
            }
            Wish::Removed if member.is_some() && members.voters.iter().any(|id| *id != node) => {
                Some(Step::Remove(node))
            }
            _ => None,
        }
    };
    records.iter().filter_map(step).collect()
}

/// The voters after a step.
pub(super) fn voters_after(members: &Members, step: &Step) -> BTreeSet<NodeId> {
    let mut voters = members.voters.clone();
    match step {
        Step::Promote(node) => drop(voters.insert(*node)),
        Step::Remove(node) => drop(voters.remove(node)),
        Step::Settle | Step::Add(..) => {}
    }
    voters
}

/// That there is no such member.
pub(super) fn unknown(node: NodeId) -> Error {
    Error::NotFound { kind: kind::MEMBER, name: format!("node {node}") }
}

pub(super) fn choose_another() -> &'static str {
    "start it as a new node, with an empty data directory and an id that the cluster has never had"
}

fn list<'a>(ids: impl Iterator<Item = &'a NodeId>) -> String {
    ids.map(NodeId::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{super::record::Found, *};

    fn member(node: NodeId) -> Member {
        Member { peer_address: format!("p{node}:1"), client_address: format!("c{node}:1"), directory: u128::from(node) }
    }

    fn members(voters: &[NodeId], learners: &[NodeId]) -> Members {
        let all = voters.iter().chain(learners).map(|node| (*node, member(*node))).collect();
        Members { voters: voters.iter().copied().collect(), all, joint: false }
    }

    fn records(wishes: &[(NodeId, Wish)]) -> Records {
        let found = |(node, wish): &(NodeId, Wish)| {
            let record = Record { cluster: 1, member: member(*node), wish: *wish, request: 0, by: String::new() };
            (*node, Found { record, revision: 1, at_ms: 1 })
        };
        wishes.iter().map(found).collect()
    }

    fn ids(ids: &[NodeId]) -> BTreeSet<NodeId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_change_needs_a_quorum_of_those_that_are_left() {
        assert_eq!(check_quorum("x", &ids(&[1, 2]), &ids(&[1, 2, 9])), Ok(()));
        assert_eq!(check_quorum("x", &ids(&[1, 2, 3]), &ids(&[1, 3])), Ok(()));
        let refused = check_quorum("removing node 3", &ids(&[1, 2]), &ids(&[1, 3])).unwrap_err().to_string();
        assert_eq!(
            refused,
            "refused: removing node 3 would lose the quorum: of the voters 1, 2 only 1 would answer, 2 are needed; bring back \
             node 2 first"
        );
        assert!(check_quorum("x", &ids(&[]), &ids(&[1])).is_err());
    }

    #[test]
    fn the_last_voter_strangers_and_those_that_are_gone_are_not_removed() {
        let told = |node, members: &Members, wish: Option<Wish>| {
            let record = wish.and_then(|wish| records(&[(node, wish)]).remove(&node));
            check_removal(node, members, record.map(|found| found.record).as_ref())
        };
        let one = members(&[1], &[2]);
        assert!(told(1, &one, None).unwrap_err().to_string().contains("the last voter"));
        assert_eq!(told(2, &one, Some(Wish::Learner)), Ok(()));
        assert_eq!(told(3, &one, None), Err(unknown(3)));
        assert_eq!(told(3, &one, Some(Wish::Voter)), Ok(()), "one whose addition has begun");
        assert!(told(3, &one, Some(Wish::Removed)).unwrap_err().to_string().contains("removed already"));
        assert_eq!(told(2, &members(&[1, 2], &[]), Some(Wish::Removed)), Ok(()), "one whose removal has begun");
    }

    #[test]
    fn an_id_is_one_directory_s_for_good() {
        let newcomer =
            |node, directory| Newcomer { node, member: Member { directory, ..member(node) }, learner: false };
        let three = members(&[1, 2, 3], &[]);
        assert_eq!(admit(&newcomer(4, 4), &three, &records(&[])), Ok(Admitted::New));
        assert_eq!(admit(&newcomer(4, 4), &three, &records(&[(4, Wish::Voter)])), Ok(Admitted::Begun));
        assert_eq!(admit(&newcomer(3, 3), &three, &records(&[])), Ok(Admitted::Member));
        for (newcomer, records, text) in [
            (newcomer(3, 9), records(&[]), "belongs to another data directory"),
            (newcomer(4, 9), records(&[(4, Wish::Voter)]), "belongs to another data directory"),
            (newcomer(4, 4), records(&[(4, Wish::Removed)]), "its id is retired"),
            (newcomer(4, 9), records(&[(4, Wish::Removed)]), "its id is retired"),
            (newcomer(0, 9), records(&[]), "at least 1"),
        ] {
            let refused = admit(&newcomer, &three, &records).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
        let mut elsewhere = newcomer(3, 3);
        elsewhere.member.peer_address = "q:1".into();
        assert!(admit(&elsewhere, &three, &records(&[])).unwrap_err().to_string().contains("member update 3"));
        elsewhere.member.peer_address = "c2:1".into();
        assert!(admit(&elsewhere, &three, &records(&[])).unwrap_err().to_string().contains("the address of node 2"));
        let pending = records(&[(5, Wish::Voter)]);
        let mut fourth = newcomer(4, 4);
        fourth.member.client_address = "c5:1".into();
        assert!(admit(&fourth, &three, &pending).unwrap_err().to_string().contains("the address of node 5"));
    }

    #[test]
    fn what_was_begun_is_finished_in_order() {
        let matched = |lag: u64| BTreeMap::from([(4, 10_000 - lag)]);
        let next = |members: &Members, wishes: &[(NodeId, Wish)], lag| {
            next_steps(members, &records(wishes), &matched(lag), 10_000)
        };
        let three = members(&[1, 2, 3], &[]);
        let learning = members(&[1, 2, 3], &[4]);
        assert_eq!(next(&three, &[], 0), []);
        assert_eq!(next(&Members { joint: true, ..three.clone() }, &[(4, Wish::Voter)], 0), [Step::Settle]);
        assert_eq!(next(&three, &[(4, Wish::Voter)], 0), [Step::Add(4, member(4))]);
        assert_eq!(next(&learning, &[(4, Wish::Voter)], CAUGHT_UP + 1), []);
        assert_eq!(next(&learning, &[(4, Wish::Voter)], CAUGHT_UP), [Step::Promote(4)]);
        assert_eq!(next(&learning, &[(4, Wish::Learner)], 0), []);
        assert_eq!(next(&members(&[1, 2, 3, 4], &[]), &[(4, Wish::Learner)], 0), [], "a voter stays one");
        assert_eq!(next(&learning, &[(4, Wish::Removed)], 0), [Step::Remove(4)]);
        assert_eq!(next(&learning, &[(2, Wish::Removed), (4, Wish::Voter)], 0), [Step::Remove(2), Step::Promote(4)]);
        assert_eq!(next(&three, &[(4, Wish::Removed)], 0), []);
        assert_eq!(next(&members(&[2], &[]), &[(2, Wish::Removed)], 0), [], "never the last voter");
        assert_eq!(voters_after(&learning, &Step::Promote(4)), ids(&[1, 2, 3, 4]));
        assert_eq!(voters_after(&learning, &Step::Remove(3)), ids(&[1, 2]));
    }
}
