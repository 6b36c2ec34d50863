//! How a new node becomes a member of a cluster that exists: it asks.
//!
//! It asks any member, is told where the leader is, and asks the leader until that says yes or no. A yes names the cluster, which
//! then stands in the identity; before that nothing here has changed, so a crash anywhere means that it asks again, with the
//! same directory, and is answered the same. Its `Peer` service must be served meanwhile: the leader asks back whether it is
//! reached where it says that it is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tonic::transport::Channel;

use super::{
    Directory,
    form::{Address, Formed, PAUSE, Waiting, check_membership, identify, lost_log},
};
use crate::{
    environment::net::{self, ChannelOptions, Net},
    error::{Error, Fault},
    proto::{
        error_from_status,
        v1::{IdentifyResponse, JoinRequest, JoinResponse, peer_client::PeerClient},
    },
    raft::network::{
        identity::{from_hex, hex},
        peers::{Client, said},
    },
};

/// How long a leader may take: it asks back, and writes twice.
const DECISION: Duration = Duration::from_secs(15);

/// What a node asks for.
pub struct Joining<'a> {
    /// Its data directory.
    pub directory: &'a Directory,
    /// The network.
    pub net: &'a Arc<dyn Net>,
    /// Where members are reached by peers.
    pub members: Vec<String>,
    /// Where this node is reached.
    pub own: Address,
    /// Whether it is to stay a learner.
    pub learner: bool,
}

/// Joins the cluster of these members, or goes on with one that was joined before. Waits as long as nobody answers; can be
/// dropped at any moment, and called again.
///
/// Errors: the cluster refuses this node; the members belong to another cluster than the directory.
pub async fn join_cluster(joining: Joining<'_>) -> Result<Formed, Fault> {
    if joining.directory.started() {
        return Err(lost_log(joining.directory));
    }
    let identity = joining.directory.identity();
    if let Some(cluster) = identity.cluster() {
        joining.check_place().await?;
        return Ok(Formed::Adopted { cluster });
    }
    let mut waiting = Waiting::default();
    loop {
        let round = joining.round(&mut waiting);
        // Somebody may have invited it meanwhile.
        let cluster = tokio::select! {
            biased;
            cluster = identity.joined() => cluster,
            asked = round => match asked? {
                Some(cluster) => cluster,
                None => continue,
            },
        };
        joining.directory.set_cluster(cluster)?;
        tracing::info!(cluster = hex(cluster), "joined the cluster");
        return Ok(Formed::Adopted { cluster });
    }
}

/// What one who was asked has said.
enum Told {
    Cluster(u128),
    AskAt(String),
    Later(String),
}

impl Joining<'_> {
    /// Asks each member, and whoever they send it to, once: the cluster that it now belongs to.
    async fn round(&self, waiting: &mut Waiting) -> Result<Option<u128>, Fault> {
        let (mut problems, mut asked) = (Vec::new(), BTreeSet::new());
        let mut open: Vec<String> = self.members.iter().rev().cloned().collect();
        while let Some(address) = open.pop() {
            if !asked.insert(address.clone()) {
                continue;
            }
            match self.ask(&address).await? {
                Told::Cluster(cluster) => return Ok(Some(cluster)),
                Told::AskAt(leader) => open.push(leader),
                Told::Later(why) => problems.push(format!("{address} {why}")),
            }
        }
        self.directory.check()?;
        waiting.on(format_args!("a member to let this node in; {}", problems.join("; ")));
        tokio::time::sleep(PAUSE).await;
        Ok(None)
    }

    async fn ask(&self, address: &str) -> Result<Told, Fault> {
        let (answer, channel) = match self.identify(address).await {
            Ok(answered) => answered,
            Err(problem) => return Ok(Told::Later(problem)),
        };
        let identity = self.directory.identity();
        check_membership(self.directory, &answer)?;
        if answer.node_id == identity.node() {
            return Err(Fault::new(format!(
                "node {} at {address} has this node's id: give this one an id that the cluster has never had, or correct \
                 --join",
                answer.node_id
            )));
        }
        let Some(directory) = from_hex(&answer.directory).filter(|_| !answer.cluster.is_empty()) else {
            return Ok(Told::Later("belongs to no cluster yet".into()));
        };
        let introduction = identity.introduce(answer.node_id, Some(directory));
        let mut client: Client = PeerClient::with_interceptor(channel, introduction);
        let request = JoinRequest {
            node_id: identity.node(),
            directory: hex(identity.directory()),
            peer_address: self.own.peer.clone(),
            client_address: self.own.client.clone(),
            learner: self.learner,
        };
        match tokio::time::timeout(DECISION, client.join(request)).await {
            Ok(Ok(answer)) => Ok(understand(answer.into_inner())),
            Ok(Err(status)) => match error_from_status(&status) {
                Error::Refused(why) => Err(Fault::new(format!("the cluster refuses this node: {why}"))),
                error @ (Error::InvalidArgument { .. } | Error::PermissionDenied(_)) => {
                    Err(Fault::new(format!("the cluster refuses this node: {error}")))
                }
                // The gate's own refusals have no details.
                _ if status.code() == tonic::Code::FailedPrecondition => {
                    Err(Fault::new(format!("the cluster refuses this node: {}", status.message())))
                }
                _ => Ok(Told::Later(format!("answers {}", said(&status)))),
            },
            Err(_) => Ok(Told::Later("does not answer".into())),
        }
    }

    async fn identify(&self, address: &str) -> Result<(IdentifyResponse, Channel), String> {
        let channel = net::channel(self.net, address, &ChannelOptions::default()).map_err(|error| error.to_string())?;
        Ok((identify(channel.clone()).await?, channel))
    }

    /// For a directory that belongs to a cluster: that the members, as far as they answer, belong to that one.
    ///
    /// Errors: one belongs to another.
    pub async fn check_place(&self) -> Result<(), Fault> {
        let Some(own) = self.directory.identity().cluster() else { return Ok(()) };
        if !self.members.is_empty() {
            tracing::info!(cluster = hex(own), "--join is of no effect: this node belongs to a cluster already");
        }
        let questions = self.members.iter().map(|address| async move { (address, self.identify(address).await) });
        for (address, answer) in join_all(questions).await {
            let Ok((answer, _)) = answer else { continue };
            if let Some(other) = from_hex(&answer.cluster).filter(|other| *other != own) {
                return Err(Fault::new(format!(
                    "{} belongs to cluster {}, but {address}, given by --join, to cluster {}: a directory never changes its \
                     cluster; start the node with an empty one, or without --join",
                    self.directory.path().display(),
                    hex(own),
                    hex(other)
                )));
            }
        }
        Ok(())
    }
}

fn understand(answer: JoinResponse) -> Told {
    match (from_hex(&answer.cluster), answer.leader_peer_address) {
        (Some(cluster), _) => Told::Cluster(cluster),
        (None, leader) if !leader.is_empty() => Told::AskAt(leader),
        (None, _) => Told::Later("knows no leader".into()),
    }
}

#[cfg(test)]
mod tests;
