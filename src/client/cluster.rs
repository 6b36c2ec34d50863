//! The cluster itself: its nodes, and who belongs to it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::Streaming;

use super::{
    Client, Members, Status, Written,
    endpoints::{Endpoint, Preference},
    rpc::Rpc,
};
use crate::{
    Error, Result,
    proto::{
        error_from_status,
        v1::{self, backup_part::Part},
    },
};

/// A backup on its way; see [`Cluster::backup`].
#[derive(Debug)]
pub struct Backup {
    head: v1::BackupHead,
    parts: Streaming<v1::BackupPart>,
}

impl Backup {
    /// The revision that it shows.
    pub fn revision(&self) -> u64 {
        self.head.revision
    }

    /// About how many bytes it has, at most.
    pub fn about_bytes(&self) -> u64 {
        self.head.about_bytes
    }

    /// The next bytes of the file; `None` behind the last.
    ///
    /// Errors: the node or the connection failed; what has come is no whole backup.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match next_part(&mut self.parts).await? {
            Some(Part::Data(bytes)) => Ok(Some(bytes)),
            None => Ok(None),
            Some(Part::Head(_)) => Err(Error::Unexpected("a backup with a second head".into())),
        }
    }
}

async fn next_part(parts: &mut Streaming<v1::BackupPart>) -> Result<Option<Part>> {
    match parts.message().await.map_err(|status| error_from_status(&status))? {
        Some(v1::BackupPart { part: Some(part) }) => Ok(Some(part)),
        Some(_) => Err(Error::Unexpected("an empty part of a backup".into())),
        None => Ok(None),
    }
}

/// The cluster itself; see [`Client::cluster`].
#[derive(Clone, Debug)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// What the leader, or another node if it does not answer, knows of itself and the members.
    /// `with_hash`: with the hash of its state.
    ///
    /// Errors: as of any call.
    pub async fn status(&self, with_hash: bool) -> Result<Status> {
        self.client.ask(Preference::Leader, v1::StatusRequest { with_hash }).await
    }

    /// What each endpoint says of itself, in order of the addresses; those that the user named, and those of
    /// members that are learned thereby. Who does not answer within a part of the deadline is in the list with the
    /// reason.
    pub async fn status_of_all(&self, with_hash: bool) -> Vec<(String, Result<Status>)> {
        let mut answers: Vec<(String, Result<Status>)> = Vec::new();
        // Whoever answers names all members, so the second round asks those of whom the first told.
        for _ in 0..2 {
            let known = self.client.shared.endpoints.all();
            let new = known.into_iter().filter(|known| !answers.iter().any(|(asked, _)| *asked == known.address));
            let new: Vec<_> = new.collect();
            if new.is_empty() {
                break;
            }
            answers.extend(self.ask_each(new, with_hash).await);
        }
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        answers
    }

    /// The members, with what the leader knows of them: who is behind, who is not reached, who was removed.
    ///
    /// Errors: as of any call.
    pub async fn members(&self) -> Result<Members> {
        self.client.ask(Preference::Leader, v1::ListMembersRequest {}).await
    }

    /// Invites the empty node that waits at a peer address. It becomes a voter as soon as it has caught up; a `learner` when
    /// it is promoted. (A node that is started to join asks by itself.)
    ///
    /// ```no_run
    /// # async fn example(client: meshstore::Client) -> meshstore::Result<()> {
    /// client.cluster().add(4, "127.0.0.1:7504", false).await?;
    /// while !client.cluster().status(false).await?.members.iter().any(|member| member.node_id == 4 && member.voter) {
    ///     tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    /// }
    /// client.cluster().remove(1).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors, of this and the following: `InvalidArgument`; `NotFound` for a member that is none; `Refused` with the reason.
    pub async fn add(&self, node_id: u64, peer_address: impl Into<String>, learner: bool) -> Result<Written> {
        let (peer_address, request_id) = (peer_address.into(), self.request_id());
        self.change(v1::AddMemberRequest { node_id, peer_address, learner, request_id }).await
    }

    /// Takes a member out, for good: its id is never used again. A leader hands over first.
    pub async fn remove(&self, node_id: u64) -> Result<Written> {
        self.change(v1::RemoveMemberRequest { node_id, request_id: self.request_id() }).await
    }

    /// Makes a learner that has caught up a voter.
    pub async fn promote(&self, node_id: u64) -> Result<Written> {
        self.change(v1::PromoteMemberRequest { node_id }).await
    }

    /// Says where a member is now reached. The new peer address must lead to that very node already.
    pub async fn update(&self, node_id: u64, peer: Option<String>, client: Option<String>) -> Result<Written> {
        let (peer_address, client_address) = (peer.unwrap_or_default(), client.unwrap_or_default());
        self.change(v1::UpdateMemberRequest { node_id, peer_address, client_address }).await
    }

    /// Has another voter take the lead; 0: whichever is furthest.
    pub async fn transfer_leadership(&self, node_id: u64) -> Result<Written> {
        self.change(v1::TransferLeadershipRequest { node_id }).await
    }

    /// All that the cluster holds as of one revision, as one file, from any node: at least as fresh as this client's read
    /// mode asks.
    ///
    /// Errors: as of a read; `Unavailable` if the node's disk does not keep up.
    pub async fn backup(&self) -> Result<Backup> {
        let request = v1::BackupRequest { read: Some(self.client.mode.into()) };
        let mut parts = self.client.ask(Preference::Any, request).await?;
        match next_part(&mut parts).await? {
            Some(Part::Head(head)) => Ok(Backup { head, parts }),
            _ => Err(Error::Unexpected("a backup that does not begin with its head".into())),
        }
    }

    async fn change<R: Rpc<Reply = v1::MemberResponse>>(&self, request: R) -> Result<Written> {
        let v1::MemberResponse { leader_id, revision } = self.client.ask(Preference::Leader, request).await?;
        Ok(Written { revision, leader_id })
    }

    /// By which the cluster knows a request that is sent again.
    fn request_id(&self) -> String {
        let jitter = &self.client.shared.jitter;
        format!("{:016x}{:016x}", jitter.next(), jitter.next())
    }

    async fn ask_each(&self, endpoints: Vec<Arc<Endpoint>>, with_hash: bool) -> Vec<(String, Result<Status>)> {
        let mut asked = JoinSet::new();
        for endpoint in endpoints {
            let client = self.client.clone();
            asked.spawn(async move {
                let status = client.ask_once(endpoint.clone(), v1::StatusRequest { with_hash }).await;
                if let Ok(status) = &status {
                    client.shared.endpoints.learn(&endpoint, status);
                }
                (endpoint.address.clone(), status)
            });
        }
        let mut answers = Vec::new();
        while let Some(joined) = asked.join_next().await {
            answers.push(joined.unwrap_or_else(|error| (String::new(), Err(Error::Unexpected(error.to_string())))));
        }
        answers
    }
}
