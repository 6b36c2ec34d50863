//! The logs of consensus groups in a transaction.

use std::collections::BTreeMap;

use super::OpenTransaction;
use crate::{
    Error, Result,
    model::{
        consensus_log::{EntryId, Indexes, LogEntry, StoredEntry},
        mesh::{Change, Extent, Page, PageRequest, RecordId},
    },
    proto::v1,
};

/// Logs of groups.
impl OpenTransaction {
    /// Appends an entry to a group's log: JSON text, which is kept exactly as it is. There may be gaps.
    ///
    /// Errors: `Refused` if the log has an entry with this term and index, or this transaction deletes it; others as of
    /// [`get_message`](Self::get_message).
    pub async fn append_entry(&self, group: &str, term: u64, index: u64, entry_json: &str) -> Result<()> {
        let id = EntryId { group: group.into(), index, term };
        let place = || format!("an entry with term {term} and index {index} of group {group:?}");
        if let Some(Change::Delete(_)) = self.written(&RecordId::LogEntry(id.clone()))? {
            return Err(Error::Refused(format!("the transaction deletes {}; append it in another", place())));
        }
        if self.entry(id.clone()).await?.is_some() {
            return Err(Error::Refused(format!("there is {} already; delete it first to replace it", place())));
        }
        let entry = LogEntry { term, index, entry_json: entry_json.into() };
        self.write(RecordId::LogEntry(id), Change::AppendEntry { group: group.into(), entry })
    }

    /// The entry with this index; of several terms the one asked for, or the highest. `None` if there is none.
    ///
    /// Errors: as of [`get_message`](Self::get_message).
    pub async fn get_entry(&self, group: &str, index: u64, term: Option<u64>) -> Result<Option<LogEntry>> {
        match term {
            Some(term) => self.entry(EntryId { group: group.into(), index, term }).await,
            None => {
                // No range ends at 0: a last index of 0 stands for as far as the log goes.
                let entries = self.list_entries(group, Indexes { first: index, last: index.max(1) }).await?;
                Ok(entries.into_iter().rfind(|entry| entry.index == index))
            }
        }
    }

    /// The entries of these indexes, in order of index, then term. They must fit into memory.
    ///
    /// Errors: as of [`get_message`](Self::get_message).
    pub async fn list_entries(&self, group: &str, indexes: Indexes) -> Result<Vec<LogEntry>> {
        let Indexes { first: first_index, last: last_index } = indexes;
        let request = |page: PageRequest| {
            let (group, page) = (group.into(), Some(page.into()));
            v1::ListEntriesRequest { read: None, group, first_index, last_index, page }
        };
        let extent = Extent::LogEntries(group.into(), indexes);
        let stored = self.fetch_all(extent, request, Page::<StoredEntry>::try_from).await?;
        let entries = stored.into_iter().map(|stored| ((stored.value.index, stored.value.term), stored.value));
        let mut entries: BTreeMap<(u64, u64), LogEntry> = entries.collect();
        self.noted(|noted| {
            for (record, change) in &noted.written {
                let RecordId::LogEntry(EntryId { group: of, index, term }) = record else { continue };
                if of != group || *index < indexes.first || *index > indexes.end() {
                    continue;
                }
                match change {
                    Change::AppendEntry { entry, .. } => entries.insert((*index, *term), entry.clone()),
                    _ => entries.remove(&(*index, *term)),
                };
            }
        })?;
        Ok(entries.into_values().collect())
    }

    /// Deletes the entries of these indexes: how many there were. Errors: as of [`get_message`](Self::get_message).
    pub async fn delete_entries(&self, group: &str, indexes: Indexes) -> Result<usize> {
        let entries = self.list_entries(group, indexes).await?;
        for LogEntry { term, index, .. } in &entries {
            let record = RecordId::LogEntry(EntryId { group: group.into(), index: *index, term: *term });
            self.delete(record, true)?;
        }
        Ok(entries.len())
    }

    async fn entry(&self, id: EntryId) -> Result<Option<LogEntry>> {
        let EntryId { group, index, term } = id.clone();
        let record = RecordId::LogEntry(id);
        match self.written(&record)? {
            Some(Change::AppendEntry { entry, .. }) => Ok(Some(entry)),
            Some(_) => Ok(None),
            None => {
                let request = v1::GetEntryRequest { read: None, group, index, term: Some(term) };
                self.fetch(record, request, StoredEntry::try_from).await
            }
        }
    }
}
