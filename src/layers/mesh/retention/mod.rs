//! How long messages are kept, and how many: a rule for each mailbox, and one for all that have none of their own.
//!
//! A mailbox is a receiver. A message's *age* is the time since it was stored (or overwritten) last, by the wall clocks of
//! the leaders, which stamp that time; its own timestamp has a unit that only its sender knows. The *oldest* beyond a number
//! are those that a list of the mailbox shows first: by timestamp, then id. What a rule says is done by [`Trim`], on the
//! leader, a little later: within about a second where there is little to look through.

mod trim;

use serde::{Deserialize, Serialize};

pub use self::trim::Trim;
use super::table::{List, Table};
use crate::{
    Error, Result,
    error::Fault,
    layers::{
        Write,
        check::{check_name, stored},
    },
    limits,
    model::{
        Key, Record, keyspace, kind,
        mesh::{PageRequest, Retention, Stored},
        transaction::{Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

const TABLE: Table =
    Table { keyspace: keyspace::RETENTION, kind: kind::RETENTION, key_field: "mailbox", key_bytes: limits::ID_BYTES };

/// A rule. Frozen (kind `Retention`, version 1).
#[derive(Serialize, Deserialize)]
struct StoredRetention {
    max_age_ms: Option<u64>,
    max_count: Option<u64>,
}

/// Gives a mailbox (empty: all that have none) a rule, or another one. Errors: `InvalidArgument`.
pub fn set(mailbox: &str, retention: Retention) -> Result<Write> {
    let key = key(mailbox)?;
    let Retention { max_age_ms, max_count } = retention;
    if max_age_ms.is_none() && max_count.is_none() {
        return Err(Error::invalid("retention", "", "must have a max_age_ms, a max_count, or both"));
    }
    let least = limits::RETENTION_AGE_MIN_MS;
    if let Some(age) = max_age_ms.filter(|age| *age < least) {
        return Err(Error::invalid("retention.max_age_ms", age.to_string(), format!("must be at least {least}")));
    }
    if max_count == Some(0) {
        return Err(Error::invalid("retention.max_count", "0", "must be at least 1"));
    }
    let value = codec::encode(Kind::Retention, &StoredRetention { max_age_ms, max_count });
    Ok(Write::always(vec![Operation::Put { key, put: Put::value(value) }]))
}

/// The rule of a mailbox, its own one. Errors: `InvalidArgument`, `NotFound`.
pub fn get(view: &View, mailbox: &str) -> Result<(String, Stored<Retention>)> {
    let record = view.record(&key(mailbox)?)?.ok_or_else(|| missing(mailbox))?;
    open(view, mailbox.into(), record)
}

/// Deletes the rule of a mailbox; `NotFound` if it has none of its own. Errors: `InvalidArgument`.
pub fn delete(mailbox: &str) -> Result<Write> {
    let key = key(mailbox)?;
    let delete = Operation::Delete { key: key.clone() };
    Ok(Write::if_exists(key, vec![delete], missing(mailbox)))
}

/// A page of the rules, in order of the mailboxes' names. Errors: `InvalidArgument`.
pub fn list(page: &PageRequest) -> Result<List<(String, Stored<Retention>)>> {
    TABLE.list("", page, open)
}

fn open(view: &View, mailbox: String, record: Record) -> Result<(String, Stored<Retention>)> {
    let retention: StoredRetention = codec::decode(Kind::Retention, &record.value)
        .map_err(|error| view.fault(Fault::new(format!("the retention rule of {mailbox:?} is damaged: {error}"))))?;
    let StoredRetention { max_age_ms, max_count } = retention;
    Ok((mailbox, stored(&record, Retention { max_age_ms, max_count })))
}

fn key(mailbox: &str) -> Result<Key> {
    if !mailbox.is_empty() {
        check_name(TABLE.key_field, mailbox, TABLE.key_bytes)?;
    }
    Ok(TABLE.scope().key(mailbox.as_bytes()))
}

fn missing(mailbox: &str) -> Error {
    let name = if mailbox.is_empty() { "of all mailboxes without one of their own" } else { mailbox };
    Error::NotFound { kind: kind::RETENTION, name: name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_exactly_these_bytes() {
        let rule = Retention { max_age_ms: Some(1_000), max_count: Some(7) };
        let write = set("m", rule).unwrap();
        let Some(Operation::Put { key, put }) = write.transaction.then.first() else { panic!("{write:?}") };
        assert_eq!(key.as_bytes().as_ref(), b"\x1C\0\0\0\0m");
        assert_eq!(put.value.as_ref(), &b"MS\x38\x01\0\x06\0\0\0\xA4\x71\x7F\xE1\x01\xFB\xE8\x03\x01\x07"[..]);
    }

    #[test]
    fn a_rule_is_checked() {
        let rule = |max_age_ms, max_count| set("m", Retention { max_age_ms, max_count });
        for (wrong, named) in [
            (rule(None, None), "retention"),
            (rule(Some(999), None), "retention.max_age_ms"),
            (rule(Some(1_000), Some(0)), "retention.max_count"),
            (set(&"m".repeat(limits::ID_BYTES + 1), Retention { max_age_ms: None, max_count: Some(1) }), "mailbox"),
        ] {
            assert!(matches!(&wrong, Err(Error::InvalidArgument { field, .. }) if field == named), "{wrong:?}");
        }
        assert!(rule(Some(1_000), None).is_ok() && rule(None, Some(1)).is_ok());
    }
}
