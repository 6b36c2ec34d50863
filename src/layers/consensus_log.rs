//! The consensus log: logs that a mesh engine keeps for consensus groups of its own, and the application's entries in the
//! Raft log.
//!
//! A group's entries stand under `escaped group | index | term`, so a range of indexes is one contiguous range, in order
//! of index, then term. The semantics are the seed's: a second entry with the same term and index is refused, there may
//! be gaps, ranges are inclusive at both ends, and deleting nothing is no error. Where the seed left it to chance which of
//! several terms an index answers with, it is the highest here: what Raft would have put in its place.
//!
//! An entry of the application in the Raft log is a transaction that writes the record of the empty group, which no group
//! can be. The entry itself stays in the log as long as Raft keeps it; the record is the last one.

use bytes::Bytes;

use super::{
    Write,
    check::{check_name, stored},
    json,
    list::{Range, Walk},
};
use crate::{
    Error, Result,
    error::Fault,
    limits,
    model::{
        Key, Record, ScopeId,
        consensus_log::{Indexes, LogEntry, StoredEntry},
        key::{escape, prefix_end, unescape},
        keyspace, kind,
        mesh::{Page, PageRequest},
        proposal::{Action, Proposal},
        transaction::{Operation, Put},
    },
    state::View,
};

const SCOPE: ScopeId = ScopeId::new(keyspace::CONSENSUS_LOG, keyspace::NO_SCOPE);

/// Appends an entry to a group's log; refused if it has one with this term and index. Errors: `InvalidArgument`.
pub fn append(group: &str, entry: LogEntry) -> Result<Write> {
    let LogEntry { term, index, entry_json } = entry;
    let key = entry_key(group, index, term)?;
    json::check("entry_json", &entry_json)?;
    let there = Error::Refused(format!(
        "the log of group {group:?} has an entry with term {term} and index {index} already; delete it first to replace it"
    ));
    Ok(Write::if_missing(key.clone(), vec![Operation::Put { key, put: Put::value(entry_json) }], there))
}

/// Reads the entry of an index; of several terms the one asked for, or the highest. Errors: `InvalidArgument`,
/// `NotFound`.
pub fn get(view: &View, group: &str, index: u64, term: Option<u64>) -> Result<StoredEntry> {
    let prefix = in_group(group)?;
    let found = match term {
        Some(_) => {
            let key = key(&prefix, index, term);
            view.record(&key)?.map(|record| (key, record))
        }
        None => {
            let start = [prefix.as_slice(), &index.to_be_bytes()].concat();
            let end = prefix_end(&start);
            last(view, start, end.as_deref())?
        }
    };
    let Some((key, record)) = found else {
        let name = match term {
            Some(term) => format!("index {index} of term {term} in group {group}"),
            None => format!("index {index} in group {group}"),
        };
        return Err(Error::NotFound { kind: kind::LOG_ENTRY, name });
    };
    open(view, &prefix, &key, &record)
}

/// The last record of a range, which is short: the terms of one index.
fn last(view: &View, mut start: Vec<u8>, end: Option<&[u8]>) -> Result<Option<(Key, Record)>> {
    let mut last = None;
    loop {
        let mut page = view.records(SCOPE, &start, end, limits::PAGE_MAX)?;
        let whole = page.len() < limits::PAGE_MAX;
        if let Some(newest) = page.pop() {
            start = newest.0.user_bytes().to_vec();
            start.push(0);
            last = Some(newest);
        }
        if whole {
            return Ok(last);
        }
    }
}

/// A page of a group's log that is wanted.
#[derive(Debug)]
pub struct List {
    prefix: Vec<u8>,
    walk: Walk,
}

/// A page of the entries of a range of indexes. Errors: `InvalidArgument`.
pub fn list(group: &str, indexes: Indexes, page: &PageRequest) -> Result<List> {
    let prefix = in_group(group)?;
    let (start, end) = bounds(&prefix, indexes);
    let range = Range { start, end: end.map(Into::into) };
    let walk = Walk::open(keyspace::CONSENSUS_LOG, &(group, indexes.first, indexes.last), range, page)?;
    Ok(List { prefix, walk })
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View) -> Result<Page<StoredEntry>> {
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let records = view.records(SCOPE, start, end, limit)?;
            Ok(records.into_iter().map(|(key, record)| (key.user_bytes(), (key, record))).collect())
        };
        self.walk.read(view, fetch, |position, (key, record): (Key, Record)| {
            let size = position.len() + record.value.len();
            Ok((open(view, &self.prefix, &key, &record)?, size))
        })
    }
}

/// Deletes the entries of a range of indexes. Errors: `InvalidArgument`.
pub fn delete(group: &str, indexes: Indexes) -> Result<Write> {
    let (start, end) = extent(group, indexes)?;
    let none = indexes.first > indexes.end();
    Ok(Write::always(if none { vec![] } else { vec![Operation::DeleteRange { start, end }] }))
}

/// An entry of the application for the Raft log. Errors: `InvalidArgument`.
pub fn application(entry_json: String) -> Result<Write> {
    json::check("entry_json", &entry_json)?;
    Ok(Write::always(vec![Operation::Put { key: application_key(), put: Put::value(entry_json) }]))
}

/// The JSON of an entry of the application, if a proposal is one.
pub fn application_entry(proposal: &Proposal) -> Option<&str> {
    let Action::Transact(transaction) = &proposal.action else { return None };
    match transaction.then.as_slice() {
        [Operation::Put { key, put }] if *key == application_key() => str::from_utf8(&put.value).ok(),
        _ => None,
    }
}

fn application_key() -> Key {
    let mut empty = Vec::new();
    escape(&mut empty, b"");
    SCOPE.key(&empty)
}

/// The key of an entry. Errors: `InvalidArgument`.
pub(super) fn entry_key(group: &str, index: u64, term: u64) -> Result<Key> {
    Ok(key(&in_group(group)?, index, Some(term)))
}

/// An entry's name towards people, by its key.
pub(super) fn name_of(key: &Key) -> String {
    let bytes = key.user_bytes();
    let named = unescape(&bytes).and_then(|(group, numbers)| {
        let (index, _) = numbers.split_first_chunk::<8>()?;
        Some(format!("entry {} of log {}", u64::from_be_bytes(*index), String::from_utf8_lossy(&group)))
    });
    named.unwrap_or_else(|| "the last entry of the application".into())
}

/// From where to where the keys of these entries lie. Errors: `InvalidArgument`.
pub(super) fn extent(group: &str, indexes: Indexes) -> Result<(Key, Bytes)> {
    let (start, end) = bounds(&in_group(group)?, indexes);
    let end = match end {
        Some(end) => SCOPE.key(&end).as_bytes().clone(),
        None => prefix_end(&SCOPE.prefix()).unwrap_or_default(),
    };
    Ok((SCOPE.key(&start), end))
}

/// How the keys of a group's entries begin. Errors: `InvalidArgument`.
fn in_group(group: &str) -> Result<Vec<u8>> {
    check_name("group", group, limits::ID_BYTES)?;
    let mut prefix = Vec::with_capacity(group.len() + 2);
    escape(&mut prefix, group.as_bytes());
    Ok(prefix)
}

fn key(prefix: &[u8], index: u64, term: Option<u64>) -> Key {
    SCOPE.key(&[prefix, &index.to_be_bytes(), &term.unwrap_or_default().to_be_bytes()].concat())
}

/// From where to where the entries of these indexes stand; to the end of the group if there is no last.
fn bounds(prefix: &[u8], indexes: Indexes) -> (Vec<u8>, Option<Vec<u8>>) {
    let at = |index: u64| [prefix, &index.to_be_bytes()].concat();
    let end = match indexes.end().checked_add(1) {
        Some(behind) => Some(at(behind)),
        None => prefix_end(prefix).map(|end| end.to_vec()),
    };
    (at(indexes.first), end)
}

fn open(view: &View, prefix: &[u8], key: &Key, record: &Record) -> Result<StoredEntry> {
    let broken = || view.fault(Fault::bug(format!("{key} is no key of a log entry, or its value is no text")));
    let bytes = key.user_bytes();
    let numbers = bytes.strip_prefix(prefix).and_then(|rest| rest.split_first_chunk::<8>());
    let (index, term) = numbers.ok_or_else(broken)?;
    let term: [u8; 8] = term.try_into().map_err(|_| broken())?;
    let entry_json = String::from_utf8(record.value.to_vec()).map_err(|_| broken())?;
    let entry = LogEntry { term: u64::from_be_bytes(term), index: u64::from_be_bytes(*index), entry_json };
    Ok(stored(record, entry))
}

#[cfg(test)]
mod tests {
    use super::{super::mesh::testing::Pairs, *};

    fn entry(term: u64, index: u64) -> LogEntry {
        LogEntry { term, index, entry_json: format!("{{\"at\": [{term}, {index}]}}") }
    }

    fn positions(pairs: &Pairs, group: &str, first: u64, last: u64) -> Vec<(u64, u64)> {
        let list = list(group, Indexes { first, last }, &PageRequest::default()).unwrap();
        let items = list.read(&pairs.view(7)).unwrap().items;
        items.into_iter().map(|stored| (stored.value.index, stored.value.term)).collect()
    }

    #[test]
    fn an_entry_has_exactly_these_bytes() {
        let write = append("g", entry(2, 258)).unwrap();
        let [Operation::Put { key, put }] = write.transaction.then.as_slice() else { panic!("{write:?}") };
        assert_eq!(key.as_bytes().as_ref(), b"\x18\0\0\0\0g\0\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x02");
        assert_eq!(put.value, r#"{"at": [2, 258]}"#);
        assert_eq!(application_key().as_bytes().as_ref(), b"\x18\0\0\0\0\0\x01");
    }

    #[test]
    fn ranges_are_inclusive_and_in_order() {
        let mut pairs = Pairs::default();
        for (group, term, index) in [("a", 1, 1), ("a", 1, 2), ("a", 3, 2), ("a", 2, 300), ("ab", 1, 1), ("b", 1, 2)] {
            pairs.put(append(group, entry(term, index)).unwrap());
        }
        pairs.put(application("1".into()).unwrap());
        assert_eq!(positions(&pairs, "a", 1, 2), [(1, 1), (2, 1), (2, 3)]);
        assert_eq!(positions(&pairs, "a", 2, 300), [(2, 1), (2, 3), (300, 2)]);
        assert_eq!(positions(&pairs, "a", 0, 0), [(1, 1), (2, 1), (2, 3), (300, 2)]);
        assert_eq!(positions(&pairs, "a", 301, 0), []);
        assert_eq!(positions(&pairs, "a", 5, 3), []);
        assert_eq!(positions(&pairs, "c", 0, 0), []);
        let got = |index, term| get(&pairs.view(7), "a", index, term).map(|stored| stored.value);
        assert_eq!(got(2, None), Ok(entry(3, 2)), "the highest term");
        assert_eq!(got(2, Some(1)), Ok(entry(1, 2)));
        assert!(matches!(got(2, Some(2)), Err(Error::NotFound { kind: "log entry", .. })));
        assert!(matches!(got(3, None), Err(Error::NotFound { .. })));
    }

    #[test]
    fn a_delete_covers_what_a_list_shows() {
        let range = |first, last| match delete("g", Indexes { first, last }).unwrap().transaction.then.as_slice() {
            [Operation::DeleteRange { start, end }] => Some((start.as_bytes().clone(), end.clone())),
            _ => None,
        };
        let at = |index: u64| SCOPE.key(&[&b"g\0\x01"[..], &index.to_be_bytes()].concat()).as_bytes().clone();
        assert_eq!(range(3, 5), Some((at(3), at(6))));
        assert_eq!(range(3, 3), Some((at(3), at(4))));
        assert_eq!(range(3, 0), Some((at(3), SCOPE.key(b"g\0\x02").as_bytes().clone())));
        assert_eq!(range(5, 3), None);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let field = |write: Result<Write>| match write {
            Err(Error::InvalidArgument { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(append("", entry(1, 1))), "group");
        assert_eq!(field(append(&"g".repeat(256), entry(1, 1))), "group");
        assert_eq!(field(append("g", LogEntry { entry_json: "{".into(), ..entry(1, 1) })), "entry_json");
        assert_eq!(field(application("nonsense".into())), "entry_json");
        assert_eq!(field(delete("", Indexes { first: 1, last: 1 })), "group");
    }

    #[test]
    fn an_entry_of_the_application_is_known_again() {
        let proposal = |write: Write| Proposal {
            principal: String::new(),
            call: None,
            guards: Default::default(),
            action: Action::Transact(write.transaction),
        };
        assert_eq!(application_entry(&proposal(application("[1]".into()).unwrap())), Some("[1]"));
        assert_eq!(application_entry(&proposal(append("g", entry(1, 1)).unwrap())), None);
    }
}
