//! The consensus log.

use super::{Client, Json, Page, PageRequest, ReadMode, Stored, Written, json, pages};
use crate::{
    Result,
    client::endpoints::Preference,
    model::consensus_log::{LogEntry, StoredEntry},
    proto::v1,
};
pub use crate::{
    model::consensus_log::{Indexes, Placed},
    proto::v1::{
        RaftEntry, RaftOperation, RaftProposal, ReadRaftResponse as RaftPart, raft_entry::Payload as RaftPayload,
    },
};

/// The Raft log of the cluster; see [`Client::raft_log`].
#[derive(Clone, Debug)]
pub struct RaftLog {
    client: Client,
}

impl RaftLog {
    pub(super) fn of(client: Client) -> Self {
        Self { client }
    }

    /// Appends an entry of the application: JSON text, which is kept exactly as it is. Where it landed.
    ///
    /// Errors: `InvalidArgument` if it is not JSON, or over 1 MiB.
    pub async fn append(&self, entry_json: &str) -> Result<Placed> {
        let request = v1::AppendToRaftRequest { attempt: None, entry_json: entry_json.into() };
        self.client.execute(request).await.map(|answer| Placed::from(&answer))
    }

    /// Committed entries of the log of the node that is asked, the leader's if the client is not
    /// [pinned](Client::pin): at most `limit` (100 if it is 0), fewer if they are large.
    ///
    /// Errors: `NotFound` if only one is asked for and it was purged, or is not committed; `InvalidArgument`.
    pub async fn read(&self, indexes: Indexes, limit: u32) -> Result<RaftPart> {
        let Indexes { first: first_index, last: last_index } = indexes;
        self.client.ask(Preference::Leader, v1::ReadRaftRequest { first_index, last_index, limit }).await
    }
}

/// The log of a consensus group; see [`Client::group_log`].
#[derive(Clone, Debug)]
pub struct GroupLog {
    client: Client,
    group: String,
}

impl GroupLog {
    pub(super) fn of(client: Client, group: String) -> Self {
        Self { client, group }
    }

    /// The same with another read mode.
    #[must_use]
    pub fn with_read(self, mode: ReadMode) -> Self {
        Self { client: self.client.with_read(mode), ..self }
    }

    /// Appends an entry: JSON text, which is kept exactly as it is. There may be gaps.
    ///
    /// Errors: `Refused` if the log has an entry with this term and index; `InvalidArgument` if the group's name is empty
    /// or over 255 bytes, the entry is not JSON, or over 1 MiB.
    pub async fn append(&self, term: u64, index: u64, entry_json: &str) -> Result<Written> {
        let (group, entry_json) = (self.group.clone(), entry_json.into());
        self.client.write(v1::AppendEntryRequest { attempt: None, group, term, index, entry_json }).await
    }

    /// The entry with this index; of several terms the one asked for, or the highest.
    ///
    /// Errors: `NotFound` if there is none.
    pub async fn get(&self, index: u64, term: Option<u64>) -> Result<Entry> {
        let request = v1::GetEntryRequest { read: None, group: self.group.clone(), index, term };
        StoredEntry::try_from(self.client.read(request).await?).map(Into::into)
    }

    /// One page of the entries, in order of index, then term.
    ///
    /// Errors: `InvalidArgument` if the cursor is not one of this list; `ViewTooOld` if it is too old.
    pub async fn list(&self, indexes: Indexes, page: PageRequest) -> Result<Page<Entry>> {
        let Indexes { first: first_index, last: last_index } = indexes;
        let (group, page) = (self.group.clone(), Some(page.into()));
        let request = v1::ListEntriesRequest { read: None, group, first_index, last_index, page };
        let Page { items, next_cursor, revision } = Page::<StoredEntry>::try_from(self.client.read(request).await?)?;
        Ok(Page { items: items.into_iter().map(Into::into).collect(), next_cursor, revision })
    }

    /// All entries of these indexes, as of one revision. They must fit into memory.
    ///
    /// Errors: as of [`list`](Self::list).
    pub async fn list_all(&self, indexes: Indexes) -> Result<Vec<Entry>> {
        pages::all(move |page| self.list(indexes, page)).await
    }

    /// Deletes the entries of these indexes; to delete none is no error.
    ///
    /// Errors: `Refused` if they are over 4,096.
    pub async fn delete(&self, indexes: Indexes) -> Result<Written> {
        let Indexes { first: first_index, last: last_index } = indexes;
        let request = v1::DeleteEntriesRequest { attempt: None, group: self.group.clone(), first_index, last_index };
        self.client.write(request).await
    }
}

/// An entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
    /// What it holds, with what the store knows of it.
    pub stored: Stored<Json>,
}

impl From<StoredEntry> for Entry {
    fn from(entry: StoredEntry) -> Self {
        let Stored { value, created_at_ms, updated_at_ms, create_revision, mod_revision, version } = entry;
        let LogEntry { term, index, entry_json: value } = value;
        let stored = Stored { value, created_at_ms, updated_at_ms, create_revision, mod_revision, version };
        Self { term, index, stored: json::stored(stored) }
    }
}
