//! Messages between mesh nodes.

use super::{Client, Message, MessageFilter, Page, PageRequest, ReadMode, Stored, Written, pages};
use crate::{
    Result,
    proto::{convert, v1},
};

/// Messages between mesh nodes; see [`Client::messages`].
#[derive(Clone, Debug)]
pub struct Messages {
    client: Client,
}

impl Messages {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode) }
    }

    /// Stores a message; one with the same id is overwritten.
    ///
    /// Errors: `InvalidArgument` if id, sender or receiver is empty or over 255 bytes, or the content over 1 MiB:
    /// then see [`store_large`](Self::store_large).
    pub async fn store(&self, message: Message) -> Result<Written> {
        self.client.write(v1::StoreMessageRequest { attempt: None, message: Some(message.into()) }).await
    }

    /// Reads a message. One whose content is over 1 MiB comes without it, and says so in [`Message::large`]; see
    /// [`get_large`](Self::get_large) and [`read_large`](Self::read_large).
    ///
    /// Errors: `NotFound` if there is none; `TooStale` if no node can keep what the read mode asks.
    pub async fn get(&self, id: &str) -> Result<Stored<Message>> {
        self.client.read(v1::GetMessageRequest { read: None, id: id.into() }).await?.try_into()
    }

    /// Deletes a message.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn delete(&self, id: &str) -> Result<Written> {
        self.client.write(v1::DeleteMessageRequest { attempt: None, id: id.into() }).await
    }

    /// One page of the messages that the filter lets through, in order of time, then id.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list; `ViewTooOld` if it is too old.
    pub async fn list(&self, filter: MessageFilter, page: PageRequest) -> Result<Page<Stored<Message>>> {
        self.client.read(convert::list_messages_request(ReadMode::default(), filter, page)).await?.try_into()
    }

    /// All messages that the filter lets through, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`list`](Self::list).
    pub async fn list_all(&self, filter: MessageFilter) -> Result<Vec<Stored<Message>>> {
        pages::all(move |page| self.list(filter.clone(), page)).await
    }
}
