//! Lists: pages of one ordered range, all of one revision.
//!
//! A cursor says where a page ended and at which revision, so nothing is held open between two calls and
//! writes in between are not seen. It is opaque to callers: the base64 of a sealed envelope. It also
//! carries a fingerprint of its query, because a position of another list would be silently wrong here.
//! It is not a secret and grants nothing: whatever a forged one says, only the query's own range is read.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error, Result, limits,
    model::{
        keyspace::Keyspace,
        mesh::{Page, PageRequest},
    },
    state::View,
    storage::codec::{self, Kind},
};

/// How many records are read at once, which bounds what a page holds in memory while it is built: this
/// many values of the largest size.
const CHUNK: usize = 32;

/// Most items of a page for which `limit` is asked. Errors: `InvalidArgument`.
pub fn page_limit(limit: u32) -> Result<usize> {
    match limit as usize {
        0 => Ok(limits::PAGE_DEFAULT),
        limit if limit > limits::PAGE_MAX => {
            Err(Error::invalid("limit", limit.to_string(), format!("must be at most {}", limits::PAGE_MAX)))
        }
        limit => Ok(limit),
    }
}

/// Positions `start..end`; `end` `None`: to the last one.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) start: Vec<u8>,
    pub(super) end: Option<Bytes>,
}

/// One page of a range that is wanted.
#[derive(Debug)]
pub(super) struct Walk {
    range: Range,
    fingerprint: u64,
    limit: usize,
    after: Option<Cursor>,
}

/// Where a page ended. Frozen (kind `Cursor`, version 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The revision that all pages show.
    pub(super) revision: u64,
    /// Of keyspace and query.
    pub(super) fingerprint: u64,
    /// The position of the last item that was given out.
    pub(super) position: Bytes,
}

/// What tells a query from all others.
pub(super) fn fingerprint(keyspace: Keyspace, query: &impl Serialize) -> u64 {
    xxh3_64(&codec::encode_payload(&(keyspace, query)))
}

impl Walk {
    /// A page of `range`, which `query` selects in `keyspace`. Errors: `InvalidArgument` for the limit, and
    /// for a cursor that is malformed or of another query.
    pub(super) fn open(keyspace: Keyspace, query: &impl Serialize, range: Range, page: &PageRequest) -> Result<Self> {
        let fingerprint = fingerprint(keyspace, query);
        let limit = page_limit(page.limit)?;
        let after = Cursor::parse(&page.cursor, fingerprint)?;
        Ok(Self { range, fingerprint, limit, after })
    }

    /// The revision at which the page must be read: the one of the pages before.
    pub(super) fn revision(&self) -> Option<u64> {
        self.after.as_ref().map(|cursor| cursor.revision)
    }

    /// The page. `fetch` answers up to `limit` sources with their positions in `start..end`, in order; `item`
    /// makes of each an item and says how many bytes it weighs.
    pub(super) fn read<S, T>(
        &self,
        view: &View,
        fetch: impl Fn(&[u8], Option<&[u8]>, usize) -> Result<Vec<(Bytes, S)>>,
        item: impl Fn(&Bytes, S) -> Result<(T, usize)>,
    ) -> Result<Page<T>> {
        self.read_some(view, fetch, |position, source| item(position, source).map(Some))
    }

    /// The same; of some sources `item` makes none.
    pub(super) fn read_some<S, T>(
        &self,
        view: &View,
        fetch: impl Fn(&[u8], Option<&[u8]>, usize) -> Result<Vec<(Bytes, S)>>,
        mut item: impl FnMut(&Bytes, S) -> Result<Option<(T, usize)>>,
    ) -> Result<Page<T>> {
        if let Some(cursor) = &self.after {
            cursor.check_revision(view)?;
        }
        let (mut items, mut bytes, mut last) = (Vec::new(), 0usize, Bytes::new());
        let (mut start, mut sparse) = (self.start(), false);
        loop {
            if self.range.end.as_ref().is_some_and(|end| start.as_slice() >= end.as_ref()) {
                return Ok(self.page(view, items, None));
            }
            // One more than fits on the page, so that its end is known without another call.
            let wanted = if sparse { CHUNK } else { (self.limit - items.len() + 1).min(CHUNK) };
            let chunk = fetch(&start, self.range.end.as_deref(), wanted)?;
            let ended = chunk.len() < wanted;
            for (position, source) in chunk {
                start = successor(&position);
                let Some((one, size)) = item(&position, source)? else {
                    sparse = true;
                    continue;
                };
                if items.len() == self.limit || bytes >= limits::PAGE_BYTES {
                    return Ok(self.page(view, items, Some(last)));
                }
                items.push(one);
                bytes += size;
                last = position;
            }
            if ended {
                return Ok(self.page(view, items, None));
            }
        }
    }

    fn start(&self) -> Vec<u8> {
        let start = self.range.start.clone();
        match &self.after {
            // A forged position in front of the range must not widen it.
            Some(cursor) => successor(&cursor.position).max(start),
            None => start,
        }
    }

    fn page<T>(&self, view: &View, items: Vec<T>, last: Option<Bytes>) -> Page<T> {
        let revision = view.revision();
        let next = last.map(|position| Cursor { revision, fingerprint: self.fingerprint, position }.text());
        Page { items, next_cursor: next.unwrap_or_default(), revision }
    }
}

/// The smallest position behind `position`.
pub(super) fn successor(position: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(position.len() + 1);
    next.extend_from_slice(position);
    next.push(0);
    next
}

impl Cursor {
    /// As callers get it.
    pub(super) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(codec::encode(Kind::Cursor, self))
    }

    /// That it is of the revision that a view shows. Errors: `InvalidArgument`.
    pub(super) fn check_revision(&self, view: &View) -> Result<()> {
        if self.revision == view.revision() {
            return Ok(());
        }
        let rule = format!("names revision {}, but this store is at {}", self.revision, view.revision());
        Err(Error::invalid("cursor", "", rule))
    }

    /// What a caller sends back; `None` if it is empty. Errors: `InvalidArgument` for one that is malformed or of another
    /// query.
    pub(super) fn parse(text: &str, fingerprint: u64) -> Result<Option<Self>> {
        if text.is_empty() {
            return Ok(None);
        }
        let malformed = || Error::invalid("cursor", text, "must be the next_cursor of the page before, unchanged");
        if text.len() > limits::CURSOR_BYTES {
            return Err(malformed());
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
        let cursor: Self = codec::decode(Kind::Cursor, &sealed).map_err(|_| malformed())?;
        if cursor.fingerprint != fingerprint {
            return Err(Error::invalid("cursor", text, "belongs to another list, or to another filter of this one"));
        }
        Ok(Some(cursor))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::mesh::{config, message, route, state, testing::Pairs},
        *,
    };
    use crate::model::mesh::{Message, MessageFilter};

    fn states(count: usize, bytes: usize) -> Pairs {
        let mut pairs = Pairs::default();
        for n in 0..count {
            pairs.put(state::put(&format!("k{n:04}"), Bytes::from(vec![b'v'; bytes])).unwrap());
        }
        pairs
    }

    fn page(pairs: &Pairs, limit: u32, cursor: &str) -> Page<String> {
        let page = PageRequest { limit, cursor: cursor.into() };
        let page = state::list("", &page).unwrap().read(&pairs.view(7)).unwrap();
        Page {
            items: page.items.into_iter().map(|(key, _)| key).collect(),
            next_cursor: page.next_cursor,
            revision: page.revision,
        }
    }

    fn rule(cursor: &str) -> String {
        match state::list("", &PageRequest { limit: 0, cursor: cursor.into() }) {
            Err(Error::InvalidArgument { field, rule, .. }) if field == "cursor" => rule,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let pairs = states(100, 10);
        for limit in [1, 7, 31, 32, 33, 99, 100, 101] {
            let (mut keys, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = page(&pairs, limit, &cursor);
                assert!(page.items.len() == limit as usize || page.next_cursor.is_empty());
                assert!(!page.items.is_empty());
                keys.extend(page.items);
                cursor = page.next_cursor;
                if cursor.is_empty() {
                    break;
                }
            }
            assert_eq!(keys, (0..100).map(|n| format!("k{n:04}")).collect::<Vec<_>>(), "{limit}");
        }
        assert_eq!(page(&states(101, 1), 0, "").items.len(), limits::PAGE_DEFAULT);
        assert_eq!(page(&Pairs::default(), 0, "").next_cursor, "");
    }

    #[test]
    fn a_page_is_closed_early_when_it_is_heavy() {
        let pairs = states(3, limits::VALUE_BYTES);
        let first = page(&pairs, 10, "");
        assert_eq!(first.items, ["k0000"]);
        assert_eq!(page(&pairs, 10, &first.next_cursor).items, ["k0001"]);
        assert_eq!(page(&states(9, limits::PAGE_BYTES / 4), 10, "").items.len(), 4);
    }

    #[test]
    fn the_limit_is_bounded() {
        let with = |limit| state::list("", &PageRequest { limit, cursor: String::new() });
        assert!(with(1_000).is_ok());
        assert!(matches!(with(1_001), Err(Error::InvalidArgument { field, .. }) if field == "limit"));
    }

    #[test]
    fn a_prefix_selects_and_only_it() {
        let mut pairs = Pairs::default();
        for key in ["a", "a/", "a/1", "a/1/2", "a0", "b", "\u{10ffff}", "\u{10ffff}x"] {
            pairs.put(config::save(key, "1".into()).unwrap());
            pairs.put(route::save(key, "2".into()).unwrap());
        }
        let keys = |prefix: &str| {
            config::list_keys(prefix, &PageRequest::default()).unwrap().read(&pairs.view(1)).unwrap().items
        };
        assert_eq!(keys("a/"), ["a/", "a/1", "a/1/2"]);
        assert_eq!(keys("\u{10ffff}"), ["\u{10ffff}", "\u{10ffff}x"]);
        assert_eq!(keys("").len(), 8);
        assert_eq!(keys("c"), [""; 0]);
        assert!(config::list_keys(&"x".repeat(limits::KEY_BYTES + 1), &PageRequest::default()).is_err());
    }

    #[test]
    fn a_cursor_has_exactly_these_bytes() {
        let cursor = Cursor { revision: 7, fingerprint: 1, position: Bytes::from_static(b"k") };
        assert_eq!(cursor.text(), "TVMxAQAEAAAA0PX2ZgcBAWs");
        assert_eq!(Cursor::parse(&cursor.text(), 1), Ok(Some(cursor)));
    }

    #[test]
    fn the_fingerprint_of_a_query_is_the_same_in_every_release() {
        let range = Range { start: vec![], end: None };
        let walk = Walk::open(0x11, &"prefix", range, &PageRequest::default()).unwrap();
        assert_eq!(walk.fingerprint, 1_150_914_923_667_385_343);
    }

    #[test]
    fn a_cursor_that_is_damaged_is_refused() {
        let whole = page(&states(3, 1), 1, "").next_cursor;
        assert!(rule("not base64 !").contains("unchanged"));
        assert!(rule("AAAA").contains("unchanged"));
        assert!(rule(&"A".repeat(limits::CURSOR_BYTES + 1)).contains("unchanged"));
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            rule(&String::from_utf8(bytes).unwrap());
            rule(&whole[..at.max(1)]);
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let cursor = page(&states(3, 1), 1, "").next_cursor;
        let request = PageRequest { limit: 2, cursor };
        assert_eq!(state::list("", &request).unwrap().revision(), Some(7));
        let others = [
            state::list("k", &request).map(|_| ()),
            route::list("", &request).map(|_| ()),
            super::super::mesh::node_state::list(&request).map(|_| ()),
            super::super::mesh::message::list(&Default::default(), &request).map(|_| ()),
        ];
        for other in others {
            let Err(Error::InvalidArgument { rule, .. }) = other else { panic!("{other:?}") };
            assert!(rule.contains("another list"), "{rule}");
        }
    }

    #[test]
    fn a_cursor_of_another_revision_is_refused() {
        let pairs = states(3, 1);
        let request = PageRequest { limit: 1, cursor: page(&pairs, 1, "").next_cursor };
        let answer = state::list("", &request).unwrap().read(&pairs.view(6));
        assert!(matches!(answer, Err(Error::InvalidArgument { field, .. }) if field == "cursor"));
    }

    #[test]
    fn a_forged_position_does_not_leave_the_range() {
        let pairs = states(30, 1);
        let honest = state::list("k001", &PageRequest { limit: 1, ..Default::default() }).unwrap();
        for (position, expected) in [("a", 10), ("k0018", 1), ("z", 0)] {
            let cursor = Cursor { revision: 7, fingerprint: honest_fingerprint("k001"), position: position.into() };
            let request = PageRequest { limit: 0, cursor: cursor.text() };
            let page = state::list("k001", &request).unwrap().read(&pairs.view(7)).unwrap();
            assert_eq!(page.items.len(), expected, "{position}");
        }
        assert_eq!(honest.revision(), None);
    }

    #[test]
    fn a_forged_length_is_refused() {
        // revision, fingerprint, and a position of 2^56 bytes.
        let sealed = codec::seal(Kind::Cursor, 1, 0, &codec::encode_payload(&(7u64, 1u64, 1u64 << 56)));
        assert!(rule(&URL_SAFE_NO_PAD.encode(sealed)).contains("unchanged"));
    }

    fn honest_fingerprint(prefix: &str) -> u64 {
        xxh3_64(&codec::encode_payload(&(crate::model::keyspace::STATE, prefix)))
    }

    proptest! {
        #[test]
        fn any_text_is_a_cursor_or_refused(text in "[A-Za-z0-9_-]{0,80}|TVMxAQA[A-Za-z0-9_-]{0,80}|\\PC{0,20}") {
            let list = state::list("", &PageRequest { limit: 0, cursor: text.clone() });
            prop_assert!(text.is_empty() == list.is_ok());
        }

        #[test]
        fn any_forged_position_stays_in_its_list(position in prop::collection::vec(any::<u8>(), 0..24), time in 0..4i64) {
            let mut pairs = Pairs::default();
            for (id, from, timestamp) in [("1", "a", 0), ("2", "a", 1), ("3", "a", 2), ("4", "b", 1), ("5", "ab", 1)] {
                let (id, from) = (id.to_owned(), from.to_owned());
                let to = from.clone();
                pairs.put(message::store(Message { id, from, to, content: Bytes::new(), timestamp, large: None }).unwrap());
            }
            let filter = MessageFilter { from: Some("a".into()), until: Some(time), ..MessageFilter::default() };
            let query = (&filter.from, &filter.to, &filter.since, &filter.until);
            let fingerprint = xxh3_64(&codec::encode_payload(&(crate::model::keyspace::MESSAGES, query)));
            let cursor = Cursor { revision: 7, fingerprint, position: position.into() }.text();
            let page = message::list(&filter, &PageRequest { limit: 0, cursor }).unwrap().read(&pairs.view(7)).unwrap();
            prop_assert!(page.items.iter().all(|item| item.value.from == "a" && item.value.timestamp < time));
        }
    }
}
