//! Expiry: what is due is deleted by a transaction of its own, before the proposal that let time pass.

use bytes::Bytes;

use super::{
    base::Base,
    constants::{DELETES, EXPIRIES, EXPIRY_PUT_OFF_MS},
    derived,
    overlay::{Overlay, Stop},
};
use crate::{
    error::Fault,
    model::{Key, Record, ReferenceMode, key},
};

impl<B: Base> Overlay<'_, B> {
    /// Deletes what is due at `log_time_ms`, as far as one transaction may: when the next record is due
    /// (`None`: none has an expiry).
    pub(super) fn expire(&mut self, log_time_ms: u64) -> Result<Option<u64>, Stop> {
        let start = Bytes::copy_from_slice(&derived::EXPIRY.prefix());
        let end = key::prefix_end(&start);
        // One more than may go, to see when the next is due.
        let due = self.pairs_in(&start, end.as_deref(), EXPIRIES + 1)?;
        for (index, (pair_key, value)) in due.iter().enumerate() {
            let (at_ms, record_key) = derived::parse_expiry(pair_key)
                .ok_or_else(|| Fault::new(format!("the expiry {} is malformed", pair_key.escape_ascii())))?;
            if at_ms > log_time_ms || index == EXPIRIES || self.deleted >= DELETES {
                return Ok(Some(at_ms));
            }
            if self.touched.contains_key(&record_key) {
                continue;
            }
            match self.record(&record_key)? {
                Some(record) => self.expire_record(&record_key, record, log_time_ms)?,
                // Left over from a scope that was dropped.
                None => self.set_derived(pair_key, Some(value), None),
            }
        }
        Ok(None)
    }

    fn expire_record(&mut self, record_key: &Key, record: Record, log_time_ms: u64) -> Result<(), Stop> {
        let closure = self.closure(record_key)?;
        if closure.too_many {
            return self.expire_in_part(record_key, record, &closure.keys, log_time_ms);
        }
        for gone in &closure.keys {
            let held = |(referrer, mode): &(Key, ReferenceMode)| {
                *mode == ReferenceMode::Restrict && !closure.keys.contains(referrer)
            };
            if self.referrers(gone, DELETES + 1)?.iter().any(held) {
                return self.put_off(record_key, record, log_time_ms);
            }
        }
        self.delete_all(&closure.keys)?;
        Ok(())
    }

    /// Too much hangs on the record for one transaction: those go first on which nothing hangs. The
    /// record stays due.
    fn expire_in_part(&mut self, root: &Key, record: Record, found: &[Key], log_time_ms: u64) -> Result<(), Stop> {
        if self.deleted > 0 {
            // Not with others: the next proposal finds it with the whole bound to itself.
            self.deleted = DELETES;
            return Ok(());
        }
        let mut leaves = Vec::new();
        for candidate in found.iter().filter(|candidate| *candidate != root) {
            if leaves.len() < DELETES && self.referrers(candidate, 1)?.is_empty() {
                leaves.push(candidate.clone());
            }
        }
        if leaves.is_empty() {
            return self.put_off(root, record, log_time_ms);
        }
        self.delete_all(&leaves)?;
        self.deleted = DELETES;
        Ok(())
    }

    /// Something holds the record: it is tried again later. No reader sees a change.
    fn put_off(&mut self, record_key: &Key, record: Record, log_time_ms: u64) -> Result<(), Stop> {
        let expires_at_ms = Some(log_time_ms.saturating_add(EXPIRY_PUT_OFF_MS));
        self.replace(record_key, Some(Record { expires_at_ms, ..record }), false)
    }
}
