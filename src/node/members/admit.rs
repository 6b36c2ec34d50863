//! Letting a new node in: one that asks to join, or one that waits for somebody to invite it.
//!
//! The order makes a crash anywhere harmless. What is wanted stands in the state before anything else happens; the new node
//! takes the cluster's id for good only after that; and it gets entries only when it has. Whoever leads after a crash adds the
//! node, and the node asks again with the same directory until it is answered.

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::{
    Node, OWN_DEADLINE, Record, Wish, check_answer,
    rules::{self, Admitted},
};
use crate::{
    error::{Error, Result},
    node::members::change::address,
    proto::{
        error_from_status,
        v1::{AdoptRequest, peer_client::PeerClient},
    },
    raft::{
        consensus::Leadership,
        network::{
            identity::{from_hex, hex},
            peers::{Client, said},
        },
        peer::{Admission, Joined, Newcomer},
        types::Member,
    },
};

/// A request to let a node in.
pub(super) struct Entry {
    pub(super) newcomer: Newcomer,
    /// The request's number; 0 if it has none.
    pub(super) request: u128,
    pub(super) by: String,
    /// The connection to the node, if it is to be told; one that asked is told by the answer.
    pub(super) invite: Option<Channel>,
}

impl Admission for Node {
    fn join(&self, newcomer: Newcomer) -> BoxFuture<'_, Result<Joined>> {
        Box::pin(async move {
            if let Leadership::Other { member, .. } = self.leadership() {
                return Ok(Joined::AskAt(member.peer_address));
            }
            let newcomer = checked(newcomer)?;
            let by = format!("node {}", newcomer.node);
            let node = self.clone();
            // Whoever asked may be gone before it is done.
            let entering = tokio::spawn(async move {
                let _changing = node.begin_change(Instant::now() + OWN_DEADLINE).await?;
                node.check_leads()?;
                node.enter(Entry { newcomer, request: 0, by, invite: None }).await
            });
            let stopped = |_| Error::Unknown("the node stopped before it answered".into());
            entering.await.map_err(stopped)??;
            self.shared.cluster().map(Joined::Cluster).ok_or_else(no_cluster)
        })
    }
}

impl Node {
    /// Makes a node a member, or goes on where that was left. The caller holds the right to change the membership.
    pub(super) async fn enter(&self, entry: Entry) -> Result<Admitted> {
        let Entry { newcomer, request, by, invite } = entry;
        let cluster = self.shared.cluster().ok_or_else(no_cluster)?;
        let (members, records) = (self.shared.consensus.members(), self.records()?);
        let admitted = rules::admit(&newcomer, &members, &records)?;
        let Newcomer { node, member, learner } = newcomer;
        if admitted == Admitted::Member {
            return Ok(admitted);
        }
        if admitted == Admitted::New {
            if invite.is_none() {
                self.check_reached(node, &member).await?;
            }
            let wish = if learner { Wish::Learner } else { Wish::Voter };
            let record = Record { cluster, member: member.clone(), wish, request, by: by.clone() };
            self.write_record(node, records.get(&node), record).await?;
            tracing::info!(node, by, address = member.peer_address, learner, "a node is to become a member");
        }
        if let Some(channel) = invite {
            self.adopt(node, &member, channel, cluster).await?;
        }
        self.shared.consensus.add_learner(node, member).await?;
        Ok(admitted)
    }

    /// That the address which a node gives for itself leads to that very node, and that it knows enough.
    ///
    /// Errors: `Refused` if it does not; `Unavailable` if nobody answers there now: it is let in once somebody does.
    async fn check_reached(&self, node: u64, member: &Member) -> Result<()> {
        let address = &member.peer_address;
        let unreached = |problem: String| {
            format!(
                "node {node} cannot be reached where it says that it is, at {address}: it {problem}; give it an address that \
                 the other nodes reach"
            )
        };
        let asked = self.ask_at(address).await;
        let silent = |problem| Error::Unavailable { reason: unreached(problem), leader: None };
        let (answer, _) = asked.map_err(silent)?;
        check_answer(&answer, node, member.directory).map_err(|problem| Error::Refused(unreached(problem)))?;
        self.check_features(node, &answer)
    }

    /// Tells a node that waits which cluster it belongs to.
    async fn adopt(&self, node: u64, member: &Member, channel: Channel, cluster: u128) -> Result<()> {
        let introduction = self.shared.directory.identity().introduce(node, Some(member.directory));
        let mut client: Client = PeerClient::with_interceptor(channel, introduction);
        let request = AdoptRequest { cluster: hex(cluster), initialiser: self.id() };
        match tokio::time::timeout(super::QUESTION, client.adopt(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                Err(Error::Refused(format!("node {node} cannot be added: {}", status.message())))
            }
            Ok(Err(status)) => match error_from_status(&status) {
                Error::Unavailable { .. } | Error::Unknown(_) => Err(silent(node, &said(&status))),
                other => Err(other),
            },
            Err(_) => Err(silent(node, "it does not answer")),
        }
    }

    /// Who waits at an address, as somebody who may become node `node`. Errors: `Refused`, with what is there instead.
    pub(super) async fn who_waits(&self, node: u64, peer_address: &str, learner: bool) -> Result<(Newcomer, Channel)> {
        let refused = |text: String| Error::Refused(format!("node {node} cannot be added: {text}"));
        let (answer, channel) = self.ask_at(peer_address).await.map_err(|problem| {
            refused(format!(
                "who should be at {peer_address} {problem}; start the node there first, with an empty directory"
            ))
        })?;
        if answer.node_id != node {
            return Err(refused(format!("it is node {} that answers at {peer_address}", answer.node_id)));
        }
        let malformed = || refused(format!("who answers at {peer_address} is no meshstore"));
        let directory = from_hex(&answer.directory).ok_or_else(malformed)?;
        match from_hex(&answer.cluster) {
            None if !answer.empty => return Err(refused("it has data, but belongs to no cluster".into())),
            Some(other) if Some(other) != self.shared.cluster() => {
                return Err(refused(format!("it belongs to cluster {}; give it an empty data directory", hex(other))));
            }
            _ => {}
        }
        self.check_features(node, &answer)?;
        let client_address = address("client_address", &answer.client_address)?;
        let member = Member { peer_address: peer_address.into(), client_address, directory };
        Ok((Newcomer { node, member, learner }, channel))
    }
}

/// A newcomer whose addresses are addresses. Errors: `InvalidArgument`.
fn checked(newcomer: Newcomer) -> Result<Newcomer> {
    let Newcomer { node, member, learner } = newcomer;
    let member = Member {
        peer_address: address("peer_address", &member.peer_address)?,
        client_address: address("client_address", &member.client_address)?,
        directory: member.directory,
    };
    Ok(Newcomer { node, member, learner })
}

fn silent(node: u64, why: &str) -> Error {
    let reason = format!("node {node} was not told that it is added: {why}; that it is wanted is remembered");
    Error::Unavailable { reason, leader: None }
}

fn no_cluster() -> Error {
    Error::Unavailable { reason: "this node belongs to no cluster yet".into(), leader: None }
}
