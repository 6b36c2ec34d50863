//! Deletes uploads that no message names, in small transactions.

use super::{CHUNKS, OPEN, UPLOADS, UploadId};
use crate::{
    Result,
    model::{
        Key, ScopeId,
        key::{escape, prefix_end},
        keyspace::{self, INDEX_MESSAGE_UPLOAD},
        transaction::{Compare, Operation, Transaction},
    },
    state::{
        View,
        sweep::{Sight, Step, Sweep},
    },
};

const NAMED: ScopeId = ScopeId::new(keyspace::ENTRIES, INDEX_MESSAGE_UPLOAD);

/// Between two looks at the counts.
const REST_MS: u64 = 1_000;
/// Uploads that are looked at in one step.
const PAGE: usize = 100;
/// Chunks that are read at once.
const READ: usize = 4;
/// Chunks, and bytes of them, that one transaction deletes (the last chunk may be above it).
const CHUNKS_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 8 << 20;

/// Goes through the uploads when there are more of them than are of use.
#[derive(Debug, Default)]
pub struct Reclaim {
    /// Behind the upload that was looked at last.
    from: Vec<u8>,
}

impl Sweep for Reclaim {
    fn step(&mut self, sight: &Sight<'_>) -> Result<Step> {
        let count = |scope| (sight.account)(scope).count;
        if count(UPLOADS) <= count(OPEN) + count(NAMED) {
            self.begin_anew();
            return Ok(Step::Rest(REST_MS));
        }
        let view = &(sight.view)()?;
        let page = view.records(UPLOADS, &self.from, None, PAGE)?;
        let ended = page.len() < PAGE;
        for (key, _) in page {
            if let Some(upload) = id(&key)
                && is_garbage(view, upload)?
            {
                return delete(view, upload);
            }
            self.from = [key.user_bytes().as_ref(), &[0]].concat();
        }
        if ended {
            // The counts were not all of the revision of the view.
            self.begin_anew();
            return Ok(Step::Rest(REST_MS));
        }
        Ok(Step::Next)
    }

    fn begin_anew(&mut self) {
        self.from.clear();
    }
}

fn id(key: &Key) -> Option<UploadId> {
    <[u8; 16]>::try_from(key.user_bytes().as_ref()).ok().map(|bytes| UploadId(u128::from_be_bytes(bytes)))
}

/// Whether an upload is neither open nor named, and so never will be.
fn is_garbage(view: &View, upload: UploadId) -> Result<bool> {
    if super::is_open(view, upload)? {
        return Ok(false);
    }
    let mut start = Vec::new();
    escape(&mut start, &upload.bytes());
    Ok(view.entries(INDEX_MESSAGE_UPLOAD, &start, prefix_end(&start).as_deref(), 1)?.is_empty())
}

/// Deletes its first chunks; with the last ones the upload itself.
fn delete(view: &View, upload: UploadId) -> Result<Step> {
    let prefix = upload.bytes();
    let (mut start, end) = (prefix.to_vec(), prefix_end(&prefix));
    let (mut operations, mut bytes, mut all) = (Vec::new(), 0, false);
    while !all && operations.len() < CHUNKS_AT_ONCE && bytes < BYTES_AT_ONCE {
        let page = view.records(CHUNKS, &start, end.as_deref(), READ)?;
        all = page.len() < READ;
        for (key, record) in page {
            bytes += record.value.len();
            start = [key.user_bytes().as_ref(), &[0]].concat();
            operations.push(Operation::Delete { key });
        }
    }
    if all {
        operations.push(Operation::Delete { key: upload.key() });
    }
    let guards = vec![Compare::Exists { key: upload.open_key(), exists: false }];
    Ok(Step::Propose(guards, Transaction::blind(operations)))
}
