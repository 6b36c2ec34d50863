//! How long messages are kept, and how many.

use super::{Client, Page, PageRequest, ReadMode, Retention, Stored, Written, pages};
use crate::{Result, proto::v1};

/// The rules by which messages are kept; see [`Client::retention`]. A mailbox is a receiver; `None` stands for all that have
/// no rule of their own.
#[derive(Clone, Debug)]
pub struct Retentions {
    client: Client,
}

impl Retentions {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode) }
    }

    /// Gives a mailbox a rule, or another one.
    ///
    /// Errors: `InvalidArgument` if the rule keeps everything, or ages messages in less than a second, or keeps none.
    pub async fn set(&self, mailbox: Option<&str>, retention: Retention) -> Result<Written> {
        let (mailbox, retention) = (name(mailbox), Some(retention.into()));
        self.client.write(v1::SetRetentionRequest { attempt: None, mailbox, retention }).await
    }

    /// The rule of a mailbox, its own one. Errors: `NotFound` if there is none.
    pub async fn get(&self, mailbox: Option<&str>) -> Result<Stored<Retention>> {
        let answer = self.client.read(v1::GetRetentionRequest { read: None, mailbox: name(mailbox) }).await?;
        <(String, Stored<Retention>)>::try_from(answer).map(|(_, stored)| stored)
    }

    /// Deletes the rule of a mailbox. Errors: `NotFound` if there is none.
    pub async fn delete(&self, mailbox: Option<&str>) -> Result<Written> {
        self.client.write(v1::DeleteRetentionRequest { attempt: None, mailbox: name(mailbox) }).await
    }

    /// One page of the rules, in order of the mailboxes' names; that of all others, under the empty name, is the first.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list; `ViewTooOld` if it is too old.
    pub async fn list(&self, page: PageRequest) -> Result<Page<(String, Stored<Retention>)>> {
        self.client.read(v1::ListRetentionRequest { read: None, page: Some(page.into()) }).await?.try_into()
    }

    /// All rules, as of one revision. Errors: as of [`list`](Self::list).
    pub async fn list_all(&self) -> Result<Vec<(String, Stored<Retention>)>> {
        pages::all(|page| self.list(page)).await
    }
}

fn name(mailbox: Option<&str>) -> String {
    mailbox.unwrap_or_default().to_owned()
}
