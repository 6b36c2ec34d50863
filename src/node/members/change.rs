//! What operators ask for: add, remove, promote, change an address, transfer the lead.
//!
//! Each is done by the leader, once it holds the right to change the membership, and goes on to its end also when whoever asked
//! has given up. What would make the cluster unable to decide is refused before anything is written.

use tokio::time::Instant;

use super::{
    Node, Wish,
    admit::Entry,
    check_answer,
    record::{Found, Record},
    rules::{self, Admitted, Step},
};
use crate::{
    config::Address,
    error::{Error, Result},
    raft::{
        consensus::Leadership,
        members::Members,
        types::{Member, NodeId},
    },
};

/// Who asks for a change, until when.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The principal.
    pub by: String,
    /// The request's number, the same when it is sent again; 0 if it has none.
    pub request: u128,
    /// Until when an answer is of use.
    pub deadline: Instant,
}

/// Where a member is from now on; `None`: as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAddresses {
    /// By peers.
    pub peer: Option<String>,
    /// By clients.
    pub client: Option<String>,
}

/// An address, in its one form. Errors: `InvalidArgument`.
pub(super) fn address(field: &str, text: &str) -> Result<String> {
    text.parse::<Address>().map(|address| address.to_string()).map_err(|rule| Error::invalid(field, text, rule))
}

impl Node {
    /// Invites the empty node that waits at an address.
    ///
    /// Errors, of this and the others: `InvalidArgument`; `NotFound` for a member that is none; `Refused` with the reason;
    /// `Unavailable` (nothing was changed); `Unknown`, `DeadlineExceeded` (the change may be made, now or later).
    pub async fn add_member(&self, asked: Asked, id: NodeId, peer_address: &str, learner: bool) -> Result<()> {
        let peer_address = address("peer_address", peer_address)?;
        self.change(asked, move |node, asked| async move {
            if let Some(done) = node.earlier(id, &asked, |wish| wish != Wish::Removed)? {
                return done;
            }
            if node.shared.consensus.members().all.contains_key(&id) {
                return Err(Error::Refused(format!("node {id} is a member already")));
            }
            let (newcomer, channel) = node.who_waits(id, &peer_address, learner).await?;
            let entry = Entry { newcomer, request: asked.request, by: asked.by, invite: Some(channel) };
            match node.enter(entry).await? {
                Admitted::Member => Err(Error::Refused(format!("node {id} is a member already"))),
                Admitted::New | Admitted::Begun => Ok(()),
            }
        })
        .await
    }

    /// Takes a member out, for good.
    pub async fn remove_member(&self, asked: Asked, id: NodeId) -> Result<()> {
        self.change(asked, move |node, asked| async move {
            if let Some(done) = node.earlier(id, &asked, |wish| wish == Wish::Removed)? {
                return done;
            }
            let (members, records) = (node.settled()?, node.records()?);
            let found = records.get(&id);
            rules::check_removal(id, &members, found.map(|found| &found.record))?;
            node.check_quorum(&members, &Step::Remove(id)).await?;
            if id == node.id() {
                return Err(node.hand_over_to_be_removed(&members).await);
            }
            let known = members.all.get(&id).or(found.map(|found| &found.record.member));
            let member = known.cloned().ok_or_else(|| rules::unknown(id))?;
            node.wish(id, member, found, Wish::Removed, asked).await?;
            tracing::info!(node = id, "a member is to be removed");
            node.take(&members, &Step::Remove(id)).await
        })
        .await
    }

    /// Makes a learner that has caught up a voter. Of a voter that is nothing to do.
    pub async fn promote_member(&self, asked: Asked, id: NodeId) -> Result<()> {
        self.change(asked, move |node, asked| async move {
            let (members, records) = (node.settled()?, node.records()?);
            let member = members.all.get(&id).cloned().ok_or_else(|| rules::unknown(id))?;
            if members.voters.contains(&id) {
                return Ok(());
            }
            let found = records.get(&id);
            if found.is_some_and(|found| found.record.wish == Wish::Removed) {
                return Err(Error::Refused(format!("node {id} is being removed")));
            }
            let (matched, last) = node.matched();
            rules::check_caught_up(id, matched.get(&id).copied(), last)?;
            node.check_quorum(&members, &Step::Promote(id)).await?;
            node.wish(id, member, found, Wish::Voter, asked).await?;
            node.take(&members, &Step::Promote(id)).await
        })
        .await
    }

    /// Says where a member is reached from now on. A new peer address must lead to that very node already.
    pub async fn update_member(&self, asked: Asked, id: NodeId, to: NewAddresses) -> Result<()> {
        if to == NewAddresses::default() {
            return Err(Error::invalid(
                "peer_address",
                "",
                "or client_address must be given: there is nothing to change",
            ));
        }
        let peer = to.peer.map(|text| address("peer_address", &text)).transpose()?;
        let client = to.client.map(|text| address("client_address", &text)).transpose()?;
        self.change(asked, move |node, asked| async move {
            let (members, records) = (node.settled()?, node.records()?);
            let before = members.all.get(&id).cloned().ok_or_else(|| rules::unknown(id))?;
            let member = Member {
                peer_address: peer.unwrap_or_else(|| before.peer_address.clone()),
                client_address: client.unwrap_or_else(|| before.client_address.clone()),
                directory: before.directory,
            };
            if member == before {
                return Ok(());
            }
            rules::check_addresses(id, &member, &members, &records)?;
            if member.peer_address != before.peer_address {
                node.check_there(id, &member).await?;
            }
            tracing::info!(node = id, by = asked.by, ?before, now = ?member, "a member has another address");
            node.shared.consensus.replace_address(id, member).await
        })
        .await
    }

    /// Has another voter take the lead; 0: whichever is furthest of those that answer. If it leads already nothing happens.
    pub async fn transfer_leadership(&self, asked: Asked, id: NodeId) -> Result<()> {
        self.change(asked, move |node, _| async move {
            let members = node.settled()?;
            if id == node.id() {
                return Ok(());
            }
            if id != 0 && !members.voters.contains(&id) {
                let learner = || Error::Refused(format!("node {id} is a learner: it cannot lead before it is a voter"));
                return Err(if members.all.contains_key(&id) { learner() } else { rules::unknown(id) });
            }
            let answering = node.answering(&members, None).await;
            if id != 0 && !answering.contains(&id) {
                return Err(Error::Refused(format!("node {id} does not answer: it cannot take the lead")));
            }
            let own = node.id();
            let eligible = |voter| voter != own && answering.contains(&voter) && (id == 0 || voter == id);
            let status = node.shared.consensus.status();
            let Some(to) = status.ok().and_then(|status| status.furthest_voter(eligible)) else {
                return Err(Error::Refused("no other voter answers that could take the lead".into()));
            };
            tracing::info!(to, "handing over the lead, as asked");
            node.shared.consensus.hand_over(to).await;
            // Whoever asked is told who leads.
            node.shared.consensus.leader_known().await;
            let reason = match node.leadership() {
                Leadership::Me { .. } => format!("node {to} did not take the lead in time; node {own} still has it"),
                Leadership::Other { id: other, .. } if id != 0 && other != id => {
                    format!("node {to} did not take the lead in time; node {other} has it")
                }
                _ => return Ok(()),
            };
            Err(Error::Unavailable { reason, leader: None })
        })
        .await
    }

    /// Does a change to its end, though whoever asked may give up before.
    async fn change<F>(&self, asked: Asked, work: impl FnOnce(Self, Asked) -> F + Send + 'static) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send,
    {
        let (node, deadline) = (self.clone(), asked.deadline);
        self.check_leads()?;
        let changing = self.begin_change(deadline).await?;
        // It may have lost the lead meanwhile.
        self.check_leads()?;
        let budget = deadline.saturating_duration_since(Instant::now());
        let done = tokio::spawn(async move {
            let _changing = changing;
            work(node, asked).await
        });
        match tokio::time::timeout_at(deadline, done).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(Error::Unknown("the node stopped before it answered".into())),
            Err(_) => Err(Error::DeadlineExceeded {
                deadline_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
                waiting_for: "the change of the membership to be committed".into(),
                may_have_applied: true,
            }),
        }
    }

    /// What the same request was answered before: it is done, or is being finished. `None`: it is new.
    fn earlier(&self, id: NodeId, asked: &Asked, wanted: impl FnOnce(Wish) -> bool) -> Result<Option<Result<()>>> {
        let records = self.records()?;
        let Some(found) = records.get(&id).filter(|found| asked.request != 0 && found.record.request == asked.request)
        else {
            return Ok(None);
        };
        let member = self.shared.consensus.members().all.contains_key(&id);
        let done = wanted(found.record.wish) && member == (found.record.wish != Wish::Removed);
        Ok(done.then_some(Ok(())))
    }

    /// The members, if no change of them is half done. Errors: `Unavailable`.
    pub(super) fn settled(&self) -> Result<Members> {
        let members = self.shared.consensus.members();
        if !members.joint {
            return Ok(members);
        }
        let reason = "an earlier change of the membership is being finished".into();
        Err(Error::Unavailable { reason, leader: None })
    }

    /// Writes what is wanted of a member, unless that is what stands there.
    async fn wish(&self, id: NodeId, member: Member, found: Option<&Found>, wish: Wish, asked: Asked) -> Result<()> {
        if found.is_some_and(|found| found.record.wish == wish) {
            return Ok(());
        }
        let cluster = self.shared.cluster().unwrap_or_default();
        let record = Record { cluster, member, wish, request: asked.request, by: asked.by };
        self.write_record(id, found, record).await.map(drop)
    }

    /// That the cluster can decide after a step, with those that answer now. Errors: `Refused`.
    pub(super) async fn check_quorum(&self, members: &Members, step: &Step) -> Result<()> {
        let (change, node) = match step {
            Step::Remove(node) if members.voters.contains(node) => (format!("removing node {node}"), *node),
            Step::Promote(node) => (format!("making node {node} a voter"), *node),
            _ => return Ok(()),
        };
        let answering = self.answering(members, Some(node)).await;
        rules::check_quorum(&change, &rules::voters_after(members, step), &answering)
    }

    /// Makes a change of the membership.
    pub(super) async fn take(&self, members: &Members, step: &Step) -> Result<()> {
        let consensus = &self.shared.consensus;
        match step {
            Step::Settle => consensus.settle().await,
            Step::Add(node, member) => consensus.add_learner(*node, member.clone()).await,
            Step::Promote(node) => consensus.promote(*node).await,
            Step::Remove(node) if members.voters.contains(node) => consensus.remove_voter(*node).await,
            Step::Remove(node) if members.all.contains_key(node) => consensus.remove_learner(*node).await,
            Step::Remove(_) => Ok(()),
        }
    }

    /// A leader that is to be removed lets another lead, who then does it. What the caller is told.
    pub(super) async fn hand_over_to_be_removed(&self, members: &Members) -> Error {
        let (own, answering) = (self.id(), self.answering(members, None).await);
        let status = self.shared.consensus.status();
        let to = status.ok().and_then(|status| status.furthest_voter(|id| id != own && answering.contains(&id)));
        if let Some(to) = to {
            tracing::info!(to, "handing over the lead, to be removed");
            self.shared.consensus.hand_over(to).await;
        }
        let leader = match self.leadership() {
            Leadership::Other { member, .. } => Some(member.client_address),
            _ => to.and_then(|to| members.all.get(&to)).map(|member| member.client_address.clone()),
        };
        Error::Unavailable { reason: format!("node {own} leads, and hands over the lead before it is removed"), leader }
    }

    /// Up to which index each member is known to have the log, and the last index of this node's.
    pub(super) fn matched(&self) -> (std::collections::BTreeMap<NodeId, u64>, u64) {
        let status = self.shared.consensus.status().unwrap_or_default();
        (status.matched, status.last_log_index)
    }

    /// That a member is where it is said to be. Errors: `Refused`, with who is there instead.
    async fn check_there(&self, id: NodeId, member: &Member) -> Result<()> {
        let answer = self.ask_at(&member.peer_address).await.map(|(answer, _)| answer);
        let checked = answer.and_then(|answer| check_answer(&answer, id, member.directory));
        checked.map_err(|problem| {
            let text =
                format!("node {id} is not reached at {}: it {problem}; nothing was changed", member.peer_address);
            Error::Refused(text)
        })
    }
}
