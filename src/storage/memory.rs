//! The engine in memory: for tests, the simulation, and `--engine memory`. It is lost when the process
//! ends and rebuilt from base and runs at start.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;

use super::engine::{Engine, PAGE_BYTES, Page, Pair};
use crate::error::Fault;

/// An ordered map behind a lock.
#[derive(Default)]
pub(super) struct Memory(RwLock<BTreeMap<Bytes, Bytes>>);

impl Engine for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Page, Fault> {
        if end.is_some_and(|end| end <= start) {
            return Ok(Page { pairs: Vec::new(), complete: true });
        }
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let mut bytes = 0;
        let mut page = Page::default();
        for (key, value) in map.range::<[u8], _>(bounds) {
            if page.pairs.len() >= limit || bytes >= PAGE_BYTES {
                return Ok(page);
            }
            bytes += key.len() + value.len();
            page.pairs.push((key.clone(), value.clone()));
        }
        page.complete = true;
        Ok(page)
    }

    fn write(&self, pairs: &[Pair]) -> Result<(), Fault> {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in pairs {
            // Copied: a slice of a file's chunk would keep the whole chunk for as long as the pair lives.
            match value {
                Some(value) => map.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
                None => map.remove(key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<bool, Fault> {
        Ok(false)
    }
}
