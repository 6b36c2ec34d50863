//! The cluster itself.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{
    Client, Status,
    endpoints::{Endpoint, Preference},
};
use crate::{Error, Result, proto::v1};

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
