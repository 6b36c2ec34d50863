//! All values of a namespace as of one revision, part by part.
//!
//! Pages of keys, and the values to each: the list names the revision, and the values are read of that one. How many fit into
//! one answer is found out: a part that is too large is halved, and one that fits lets the next be larger.

use std::collections::VecDeque;

use super::{Entry, GetManyOptions, ListOptions, Page, Storage};
use crate::{Error, Result, limits};

/// How many values are asked for at first.
const FIRST: usize = 128;

/// A walk through the values of a namespace.
pub(super) struct Walk<'a> {
    storage: &'a dyn Storage,
    list: ListOptions,
    include_metadata: bool,
    /// That all parts show; not known before the first.
    revision: u64,
    keys: VecDeque<String>,
    ended: bool,
    part: usize,
}

impl<'a> Walk<'a> {
    /// Through the values whose keys match a pattern. Errors: those of a list.
    pub(super) async fn begin(
        storage: &'a dyn Storage,
        namespace: &str,
        (pattern, include_metadata): (&str, bool),
    ) -> Result<Self> {
        let limit = Some(u32::try_from(limits::PAGE_MAX).unwrap_or(u32::MAX));
        let list = ListOptions { pattern: pattern.into(), limit, keep_revision: true, ..ListOptions::from(namespace) };
        let (keys, ended) = (VecDeque::new(), false);
        let mut walk = Self { storage, list, include_metadata, revision: 0, keys, ended, part: FIRST };
        walk.turn_page().await?;
        Ok(walk)
    }

    /// The revision that it shows.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The next part, in the order of their keys; `None` behind the last.
    ///
    /// Errors: those of a read; `ViewTooOld` if the revision could not be kept for so long.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        while self.keys.is_empty() {
            if self.ended {
                return Ok(None);
            }
            self.turn_page().await?;
        }
        loop {
            let part = self.part.min(self.keys.len());
            let keys: Vec<String> = self.keys.iter().take(part).cloned().collect();
            let options = GetManyOptions {
                namespace: self.list.namespace.clone(),
                include_metadata: self.include_metadata,
                revision: Some(self.revision),
                transaction: None,
            };
            match self.storage.get_many(keys, options).await {
                Ok((entries, _)) => {
                    self.keys.drain(..part);
                    self.part = (part * 2).min(limits::KEYS);
                    return Ok(Some(entries));
                }
                Err(Error::InvalidArgument { field, .. }) if field == "keys" && part > 1 => self.part = part / 2,
                Err(error) => return Err(error),
            }
        }
    }

    async fn turn_page(&mut self) -> Result<()> {
        let Page { items, next_cursor, revision } = self.storage.list(self.list.clone()).await?;
        self.keys = items.into();
        self.ended = next_cursor.is_empty();
        self.list.cursor = next_cursor;
        self.revision = revision;
        Ok(())
    }
}
