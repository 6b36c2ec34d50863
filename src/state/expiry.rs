//! Expiry: what is due is deleted by a transaction of its own, before the proposal that let time pass.
//!
//! An expiry cannot be refused, there is nobody to refuse it to. What a `restrict` reference holds is put off;
//! what is too much for one transaction goes in parts, each a revision that leaves no reference dangling. When the
//! next record is due is part of the answer, and must never be too late: replicas that have lost it (a restart)
//! look for themselves, and have to come to the same.

use bytes::Bytes;

use super::{
    base::Base,
    closure::Closure,
    constants::{DELETES, EXPIRIES, EXPIRY_PUT_OFF_MS, PART_HOPS, PART_RECORDS, REPLACED_BYTES, UNWEIGHED_RECORDS},
    derived,
    overlay::{Overlay, Stop},
    scope,
};
use crate::{
    error::Fault,
    model::{Key, Record, key},
};

/// What became of a record that is due.
enum Due {
    /// It is deleted.
    Gone,
    /// A `restrict` reference from outside holds it, or something that would go with it.
    Held,
    /// It stays due: this transaction can do no more for it.
    Still,
}

impl<B: Base> Overlay<'_, B> {
    /// Deletes what is due at `log_time_ms`, as far as one transaction may: when the next record is due
    /// (`None`: not known, or none has an expiry). What was put off is not regarded.
    pub(super) fn expire(&mut self, log_time_ms: u64) -> Result<Option<u64>, Stop> {
        let mut held = Vec::new();
        let next = self.expire_due(log_time_ms, &mut held)?;
        for record_key in held {
            // What was held alone may have gone together with a record that was due later.
            if !self.touched.contains_key(&record_key) {
                self.put_off(&record_key, log_time_ms)?;
            }
        }
        Ok(next)
    }

    fn expire_due(&mut self, log_time_ms: u64, held: &mut Vec<Key>) -> Result<Option<u64>, Stop> {
        let start = Bytes::copy_from_slice(&derived::EXPIRY.prefix());
        let end = key::prefix_end(&start);
        let behind = log_time_ms.checked_add(1).map(derived::expiry_prefix).or_else(|| end.clone());
        // One more than may go, to see when the next is due.
        let due = self.pairs_in(&start, behind.as_deref(), EXPIRIES + 1)?;
        for (index, (pair_key, value)) in due.iter().enumerate() {
            let (at_ms, record_key) = parse(pair_key)?;
            if index == EXPIRIES || self.deleted >= DELETES || self.replaced_bytes >= REPLACED_BYTES {
                return Ok(Some(at_ms));
            }
            if self.touched.contains_key(&record_key) {
                continue;
            }
            if !self.exists(&record_key)? {
                // Left over from a scope that was dropped.
                self.set_derived(pair_key, Some(value), None);
                continue;
            }
            match self.expire_record(&record_key)? {
                Due::Gone => {}
                Due::Held => held.push(record_key),
                Due::Still => return Ok(Some(at_ms)),
            }
        }
        let later = self.pairs_in(behind.as_deref().unwrap_or(&start), end.as_deref(), 1)?;
        Ok(later.first().map(|(pair_key, _)| parse(pair_key)).transpose()?.map(|(at_ms, _)| at_ms))
    }

    fn expire_record(&mut self, record_key: &Key) -> Result<Due, Stop> {
        let closure = self.closure(record_key)?;
        if closure.too_many || self.is_heavy(&closure)? {
            // Not with others: the next expiry has the whole bound to itself.
            return if self.deleted > 0 { Ok(Due::Still) } else { self.expire_in_part(closure.keys) };
        }
        if closure.is_held() {
            return Ok(Due::Held);
        }
        for gone in &closure.keys {
            self.delete_one(gone)?;
        }
        Ok(Due::Gone)
    }

    /// Too much hangs on a record for one transaction: what is deepest goes first, each with all that hangs
    /// on it in turn. `found` is the beginning of what hangs on the record, breadth first.
    fn expire_in_part(&mut self, mut found: Vec<Key>) -> Result<Due, Stop> {
        for _ in 0..PART_HOPS {
            let Some(deepest) = found.last() else { break };
            let below = self.closure(deepest)?;
            if !below.too_many {
                break;
            }
            found = below.keys;
        }
        let mut looked_at = 0;
        for candidate in found.iter().rev() {
            if self.deleted >= DELETES || self.replaced_bytes >= REPLACED_BYTES || looked_at >= PART_RECORDS {
                break;
            }
            if self.touched.contains_key(candidate) {
                continue;
            }
            let closure = self.closure(candidate)?;
            looked_at += closure.keys.len();
            if closure.too_many || self.is_heavy(&closure)? || closure.is_held() {
                continue;
            }
            for gone in &closure.keys {
                self.delete_one(gone)?;
            }
        }
        Ok(if self.deleted > 0 { Due::Still } else { Due::Held })
    }

    /// Whether these records are too large to be in memory together.
    fn is_heavy(&self, closure: &Closure) -> Result<bool, Fault> {
        if closure.too_many || closure.keys.len() <= UNWEIGHED_RECORDS {
            return Ok(false);
        }
        let mut bytes = self.replaced_bytes;
        for going in &closure.keys {
            bytes += self.record(going)?.map_or(0, |record| scope::answer_bytes(going.as_bytes(), &record));
            if bytes > REPLACED_BYTES {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Something holds the record: it is tried again later. No reader sees a change.
    fn put_off(&mut self, record_key: &Key, log_time_ms: u64) -> Result<(), Stop> {
        let Some(record) = self.record(record_key)? else { return Ok(()) };
        let expires_at_ms = Some(log_time_ms.saturating_add(EXPIRY_PUT_OFF_MS));
        let put_off = Record { expires_at_ms, ..record.clone() };
        self.replace(record_key, Some(record), Some(put_off), false)
    }
}

fn parse(pair_key: &Bytes) -> Result<(u64, Key), Fault> {
    derived::parse_expiry(pair_key)
        .ok_or_else(|| Fault::new(format!("the expiry {} is malformed", pair_key.escape_ascii())))
}
