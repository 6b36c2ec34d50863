//! Messages between the nodes of the mesh.
//!
//! A message owns one entry in each of four indexes: by time, by sender and time, by receiver and time, by
//! both and time. So whichever of sender and receiver a list names, it is one contiguous range of one
//! index, already in order of time, then id. The timestamp is kept order-preserving (sign bit flipped,
//! big-endian), the names in front of it escaped.
//!
//! The core escapes the entry key once more when it lays it out (`escape(entry key) | record key`), and
//! that is the space in which ranges are given. Escaping without its terminator is byte-wise, so the
//! escaped form of a prefix is a prefix of the escaped form, and all bounds here are made with it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{large::StoredLargeMessage, table::Table};
use crate::{
    Error, Result,
    error::Fault,
    layers::{
        Write,
        check::{check_name, stored},
        list::{Range, Walk},
    },
    limits,
    model::{
        Entry, Key, Record,
        key::{escape, prefix_end, unescape},
        keyspace::{self, INDEX_MESSAGE_FROM, INDEX_MESSAGE_PAIR, INDEX_MESSAGE_TIME, INDEX_MESSAGE_TO},
        kind,
        mesh::{Message, MessageFilter, Page, PageRequest, Stored},
        transaction::{Operation, Put},
    },
    state::View,
    storage::codec::{self, Kind},
};

pub(super) const TABLE: Table =
    Table { keyspace: keyspace::MESSAGES, kind: kind::MESSAGE, key_field: "id", key_bytes: limits::ID_BYTES };

/// A message without its id, which is its key, and with its content. For the others see [`super::large`]. Frozen (kind `Message`, version 1).
#[derive(Serialize, Deserialize)]
struct StoredMessage {
    from: String,
    to: String,
    content: Bytes,
    timestamp: i64,
}

/// Stores a message; one with the same id is overwritten. Errors: `InvalidArgument`.
pub fn store(message: Message) -> Result<Write> {
    let key = check(&message)?;
    let Message { id: _, from, to, content, timestamp, large: _ } = message;
    if content.len() > limits::VALUE_BYTES {
        let rule = format!(
            "must be at most {} bytes long, is {}; a larger message is sent in chunks, by StoreLargeMessage",
            limits::VALUE_BYTES,
            content.len()
        );
        return Err(Error::invalid("content", "", rule));
    }
    let entries = entries(&from, &to, timestamp);
    let value = codec::encode(Kind::Message, &StoredMessage { from, to, content, timestamp });
    Ok(Write::always(vec![Operation::Put { key, put: Put { entries, ..Put::value(value) } }]))
}

/// The key of a message that is to be stored. Errors: `InvalidArgument` for anything but its content.
pub(super) fn check(message: &Message) -> Result<Key> {
    let key = TABLE.key(&message.id)?;
    check_name("from", &message.from, limits::ID_BYTES)?;
    check_name("to", &message.to, limits::ID_BYTES)?;
    if message.large.is_some() {
        let rule = "must not be set: content that is not part of the message is sent in chunks, by StoreLargeMessage";
        return Err(Error::invalid("large", "", rule));
    }
    Ok(key)
}

/// Reads a message. Errors: `InvalidArgument`, `NotFound`.
pub fn get(view: &View, id: &str) -> Result<Stored<Message>> {
    let key = TABLE.key(id)?;
    open(view, &key, &TABLE.get(view, id)?)
}

/// The key of a record. Errors: `InvalidArgument`.
pub(super) fn key(id: &str) -> Result<Key> {
    TABLE.key(id)
}

/// Deletes a message; `NotFound` if there is none. Errors: `InvalidArgument`.
pub fn delete(id: &str) -> Result<Write> {
    TABLE.delete(id)
}

/// A page of messages that is wanted.
#[derive(Debug)]
pub struct List {
    index: u32,
    walk: Walk,
}

/// A page of the messages that `filter` selects. Errors: `InvalidArgument`.
pub fn list(filter: &MessageFilter, page: &PageRequest) -> Result<List> {
    let MessageFilter { from, to, since, until } = filter;
    for (field, name) in [("from", from), ("to", to)] {
        if let Some(name) = name {
            check_name(field, name, limits::ID_BYTES)?;
        }
    }
    let (index, range) = range(filter);
    Ok(List { index, walk: Walk::open(keyspace::MESSAGES, &(from, to, since, until), range, page)? })
}

impl List {
    /// The revision at which it must be read: the one of the pages before.
    pub fn revision(&self) -> Option<u64> {
        self.walk.revision()
    }

    /// The page. Errors: `InvalidArgument` for a cursor that is not of this store.
    pub fn read(&self, view: &View) -> Result<Page<Stored<Message>>> {
        let index = self.index;
        let fetch = |start: &[u8], end: Option<&[u8]>, limit| {
            let entries = view.entries(index, start, end, limit)?;
            Ok(entries.into_iter().map(|entry| (entry.position, entry.record_key)).collect())
        };
        self.walk.read(view, fetch, |_, key: Key| {
            let Some(record) = view.record(&key)? else {
                return Err(view.fault(Fault::bug(format!("an entry of index {index} names {key}, which is missing"))));
            };
            Ok((open(view, &key, &record)?, key.as_bytes().len() + record.value.len()))
        })
    }
}

/// A message as its record says.
pub(super) fn open(view: &View, key: &Key, record: &Record) -> Result<Stored<Message>> {
    let broken =
        |what: &dyn std::fmt::Display| view.fault(Fault::new(format!("the message of {key} is damaged: {what}")));
    let id = String::from_utf8(key.user_bytes().into()).map_err(|error| broken(&error))?;
    let message = if codec::kind(&record.value) == Some(Kind::LargeMessage as u8) {
        let message: StoredLargeMessage =
            codec::decode(Kind::LargeMessage, &record.value).map_err(|error| broken(&error))?;
        let large = Some(message.content());
        let StoredLargeMessage { from, to, timestamp, .. } = message;
        Message { id, from, to, content: Bytes::new(), timestamp, large }
    } else {
        let message: StoredMessage = codec::decode(Kind::Message, &record.value).map_err(|error| broken(&error))?;
        let StoredMessage { from, to, content, timestamp } = message;
        Message { id, from, to, content, timestamp, large: None }
    };
    Ok(stored(record, message))
}

/// The positions of all messages to one receiver, in the index of receivers, in order of time, then id.
pub(super) fn mailbox(to: &str) -> Range {
    let start = position_prefix(&names_key(&[to]));
    let end = prefix_end(&start);
    Range { start, end }
}

/// The receiver that an entry of the index of receivers names.
pub(super) fn receiver(entry_key: &[u8]) -> Option<String> {
    let (name, _) = unescape(entry_key)?;
    String::from_utf8(name).ok()
}

/// The entries of a message.
pub(super) fn entries(from: &str, to: &str, timestamp: i64) -> Vec<Entry> {
    let entry = |scope, names: &[&str]| {
        let key = [names_key(names).as_slice(), &time_key(timestamp)].concat().into();
        Entry { scope, key, payload: Bytes::new(), unique: false }
    };
    vec![
        entry(INDEX_MESSAGE_TIME, &[]),
        entry(INDEX_MESSAGE_FROM, &[from]),
        entry(INDEX_MESSAGE_TO, &[to]),
        entry(INDEX_MESSAGE_PAIR, &[from, to]),
    ]
}

/// The index in which the selected messages are contiguous, and their positions in it.
fn range(filter: &MessageFilter) -> (u32, Range) {
    let (index, names) = match (&filter.from, &filter.to) {
        (None, None) => (INDEX_MESSAGE_TIME, names_key(&[])),
        (Some(from), None) => (INDEX_MESSAGE_FROM, names_key(&[from])),
        (None, Some(to)) => (INDEX_MESSAGE_TO, names_key(&[to])),
        (Some(from), Some(to)) => (INDEX_MESSAGE_PAIR, names_key(&[from, to])),
    };
    let at = |time: i64| position_prefix(&[names.as_slice(), &time_key(time)].concat());
    let whole = position_prefix(&names);
    let end = match filter.until {
        Some(until) => Some(at(until).into()),
        None => prefix_end(&whole),
    };
    (index, Range { start: filter.since.map_or(whole, at), end })
}

fn names_key(names: &[&str]) -> Vec<u8> {
    let mut key = Vec::new();
    for name in names {
        escape(&mut key, name.as_bytes());
    }
    key
}

/// A timestamp whose bytes order as the number does.
fn time_key(timestamp: i64) -> [u8; 8] {
    (timestamp.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// The bytes with which the positions of all entries begin whose key begins with `entry_key`: its escaped
/// form without the terminator.
fn position_prefix(entry_key: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(entry_key.len() + 2);
    escape(&mut escaped, entry_key);
    escaped.truncate(escaped.len().saturating_sub(2));
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::testing::Pairs, *};
    use crate::model::transaction::{Compare, Transaction};

    fn message(id: &str, from: &str, to: &str, timestamp: i64) -> Message {
        Message { id: id.into(), from: from.into(), to: to.into(), content: "hello".into(), timestamp, large: None }
    }

    fn stored_as(message: Message) -> Put {
        match store(message).unwrap().transaction.then.remove(0) {
            Operation::Put { put, .. } => put,
            other => panic!("{other:?}"),
        }
    }

    /// All pages of a list, of two items each, read from one view.
    fn listed(pairs: &Pairs, filter: &MessageFilter) -> Vec<Message> {
        let (mut messages, mut cursor) = (Vec::new(), String::new());
        loop {
            let list = list(filter, &PageRequest { limit: 2, cursor }).unwrap();
            let page = list.read(&pairs.view(7)).unwrap();
            assert!(page.items.len() == 2 || page.next_cursor.is_empty());
            messages.extend(page.items.into_iter().map(|stored| stored.value));
            if page.next_cursor.is_empty() {
                return messages;
            }
            cursor = page.next_cursor;
        }
    }

    #[test]
    fn a_message_has_exactly_these_bytes() {
        let put = stored_as(message("i", "f", "t", -2));
        assert_eq!(put.value.as_ref(), &b"MS\x30\x01\0\x0B\0\0\0\x3F\x7D\x8A\x87\x01f\x01t\x05hello\x03"[..]);
        let keys: Vec<_> = put.entries.iter().map(|entry| (entry.scope, entry.key.as_ref())).collect();
        assert_eq!(
            keys,
            [
                (1, &b"\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFE"[..]),
                (2, b"f\0\x01\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFE"),
                (3, b"t\0\x01\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFE"),
                (4, b"f\0\x01t\0\x01\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFE"),
            ]
        );
        assert!(put.entries.iter().all(|entry| !entry.unique && entry.payload.is_empty()));
    }

    #[test]
    fn storing_is_blind_and_deleting_looks_first() {
        let Transaction { compares, then, otherwise } = store(message("i", "f", "t", 0)).unwrap().transaction;
        assert_eq!((compares.len(), then.len(), otherwise.len()), (0, 1, 0));
        let key = crate::model::ScopeId::new(keyspace::MESSAGES, 0).key(b"i");
        let delete = delete("i").unwrap().transaction;
        assert_eq!(delete.compares, [Compare::Exists { key: key.clone(), exists: true }]);
        assert_eq!(delete.then, [Operation::Delete { key }]);
        assert_eq!(delete.otherwise, []);
    }

    #[test]
    fn names_and_content_are_checked() {
        let long = "x".repeat(limits::ID_BYTES + 1);
        let field = |message| match store(message) {
            Err(Error::InvalidArgument { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        for bad in ["", long.as_str()] {
            assert_eq!(field(message(bad, "f", "t", 0)), "id");
            assert_eq!(field(message("i", bad, "t", 0)), "from");
            assert_eq!(field(message("i", "f", bad, 0)), "to");
            assert!(get(&Pairs::default().view(1), bad).is_err() && delete(bad).is_err());
            for filter in [
                MessageFilter { from: Some(bad.into()), ..MessageFilter::default() },
                MessageFilter { to: Some(bad.into()), ..MessageFilter::default() },
            ] {
                assert!(matches!(list(&filter, &PageRequest::default()), Err(Error::InvalidArgument { .. })));
            }
        }
        let longest = "x".repeat(limits::ID_BYTES);
        let largest = Bytes::from(vec![0; limits::VALUE_BYTES]);
        assert!(store(Message { content: largest, ..message(&longest, &longest, &longest, 0) }).is_ok());
        let too_large = Bytes::from(vec![0; limits::VALUE_BYTES + 1]);
        assert_eq!(field(Message { content: too_large, ..message("i", "f", "t", 0) }), "content");
    }

    #[test]
    fn what_is_read_is_what_was_stored() {
        let mut pairs = Pairs::default();
        let original = message("i", "f", "t", i64::MIN);
        pairs.put(store(original.clone()).unwrap());
        let stored = get(&pairs.view(1), "i").unwrap();
        assert_eq!((stored.create_revision, stored.mod_revision, stored.version), (3, 4, 2));
        assert_eq!((stored.created_at_ms, stored.updated_at_ms), (10, 20));
        assert_eq!(stored.value, original);
        let missing = Error::NotFound { kind: "message", name: "j".into() };
        assert_eq!(get(&pairs.view(1), "j"), Err(missing));
    }

    #[test]
    fn a_time_range_that_ends_before_it_begins_is_empty() {
        let mut pairs = Pairs::default();
        pairs.put(store(message("i", "f", "t", 5)).unwrap());
        for (since, until) in [(6, 5), (5, 5), (i64::MAX, i64::MIN)] {
            let filter = MessageFilter { since: Some(since), until: Some(until), ..MessageFilter::default() };
            assert_eq!(listed(&pairs, &filter), []);
        }
    }

    /// Names that are hard to order: prefixes of each other, the escape's own bytes, the largest character.
    fn name() -> impl Strategy<Value = String> {
        let parts = prop::sample::select(vec!["\0", "\u{1}", "a", "ab", "b", "\u{7f}", "ÿ", "\u{10ffff}"]);
        prop::collection::vec(parts, 1..3).prop_map(|parts| parts.concat())
    }

    fn time() -> impl Strategy<Value = i64> {
        let near_a_byte = prop::sample::select(vec![i64::MIN, -65_536, -256, -1, 0, 1, 255, 256, 65_535, i64::MAX]);
        (near_a_byte, -1..=1i64).prop_map(|(time, step)| time.saturating_add(step))
    }

    proptest! {
        #[test]
        fn a_list_holds_exactly_what_its_filter_selects_in_order_of_time_then_id(
            messages in prop::collection::btree_map(name(), (name(), name(), time()), 0..24),
            from in prop::option::of(name()),
            to in prop::option::of(name()),
            since in prop::option::of(time()),
            until in prop::option::of(time()),
        ) {
            let messages: Vec<_> = messages.iter().map(|(id, (from, to, time))| message(id, from, to, *time)).collect();
            let mut pairs = Pairs::default();
            for message in &messages {
                pairs.put(store(message.clone()).unwrap());
            }
            // Half of the filters name somebody who is there.
            let from = from.and_then(|from| messages.first().map(|first| first.from.clone()).or(Some(from)));
            let filter = MessageFilter { from, to, since, until };
            let mut selected: Vec<_> = messages
                .into_iter()
                .filter(|message| filter.selects(message))
                .collect();
            selected.sort_by(|a, b| (a.timestamp, &a.id).cmp(&(b.timestamp, &b.id)));
            prop_assert_eq!(listed(&pairs, &filter), selected);
        }
    }
}
