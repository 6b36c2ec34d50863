//! Model values as wire messages, and back.
//!
//! Towards the wire nothing can fail (`From`). From the wire, what a client sends wrongly is
//! `InvalidArgument` naming the field, and what a server leaves out is `Unexpected` (both `TryFrom`).
//!
//! The four keyed surfaces (state, node state, routes, configuration) have the same shape under
//! different names, so a macro writes their conversions: an item is `(key, Stored<value>)`.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;

use super::v1;
use crate::{
    Error, Result,
    model::{
        ReadMode, ReadStamp,
        kv::Namespace,
        mesh::{LargeContent, Message, MessageFilter, Page, PageRequest, Retention, Stored},
        session::Attempt,
    },
};

impl From<Message> for v1::Message {
    fn from(message: Message) -> Self {
        let Message { id, from, to, content, timestamp, large } = message;
        let large = large.map(|LargeContent { size, chunks, crc32c }| v1::LargeContent { size, chunks, crc32c });
        Self { id, from, to, content, timestamp, large }
    }
}

impl From<v1::Message> for Message {
    fn from(message: v1::Message) -> Self {
        let v1::Message { id, from, to, content, timestamp, large } = message;
        let large = large.map(|v1::LargeContent { size, chunks, crc32c }| LargeContent { size, chunks, crc32c });
        Self { id, from, to, content, timestamp, large }
    }
}

impl From<Attempt> for v1::Attempt {
    fn from(attempt: Attempt) -> Self {
        let Attempt { session, sequence, answered_below, attempt } = attempt;
        Self { session, sequence, answered_below, attempt }
    }
}

impl TryFrom<v1::Attempt> for Attempt {
    type Error = Error;

    fn try_from(attempt: v1::Attempt) -> Result<Self> {
        let v1::Attempt { session, sequence, answered_below, attempt } = attempt;
        if session == 0 {
            return Err(Error::invalid("attempt.session", "0", "must be the id of an open session"));
        }
        if sequence == 0 {
            return Err(Error::invalid("attempt.sequence", "0", "must be at least 1"));
        }
        if answered_below > sequence {
            let rule = format!("must not be greater than the sequence, {sequence}");
            return Err(Error::invalid("attempt.answered_below", answered_below.to_string(), rule));
        }
        // A client that does not count its attempts leaves 0, which reads as the first.
        Ok(Self { session, sequence, answered_below, attempt: attempt.max(1) })
    }
}

impl From<ReadMode> for v1::ReadOptions {
    fn from(mode: ReadMode) -> Self {
        use v1::read_options::Mode;
        let mode = match mode {
            ReadMode::Linearizable => Mode::Linearizable(true),
            ReadMode::AtLeast(revision) => Mode::AtLeastRevision(revision),
            ReadMode::Stale(age) => Mode::StaleMaxAgeMs(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        };
        Self { mode: Some(mode), ..Self::default() }
    }
}

impl From<Option<v1::ReadOptions>> for ReadMode {
    fn from(options: Option<v1::ReadOptions>) -> Self {
        use v1::read_options::Mode;
        match options.and_then(|options| options.mode) {
            None | Some(Mode::Linearizable(_)) => Self::Linearizable,
            Some(Mode::AtLeastRevision(revision)) => Self::AtLeast(revision),
            Some(Mode::StaleMaxAgeMs(age_ms)) => Self::Stale(Duration::from_millis(age_ms)),
        }
    }
}

/// The header of a read answer.
pub fn read_header(stamp: ReadStamp, node_id: u64) -> v1::ReadHeader {
    v1::ReadHeader { revision: stamp.revision, age_ms: stamp.age_ms, node_id }
}

impl From<v1::ReadHeader> for ReadStamp {
    fn from(header: v1::ReadHeader) -> Self {
        Self { revision: header.revision, age_ms: header.age_ms }
    }
}

/// What the store knows of a value, without the value.
pub fn version_of<T>(stored: &Stored<T>) -> v1::Version {
    v1::Version {
        created_at_ms: stored.created_at_ms,
        updated_at_ms: stored.updated_at_ms,
        create_revision: stored.create_revision,
        mod_revision: stored.mod_revision,
        version: stored.version,
    }
}

/// A value with what the store knows of it. Errors: `Unexpected` if the server left that out.
pub fn stored<T>(value: T, version: Option<v1::Version>) -> Result<Stored<T>> {
    let version = expected("version", version)?;
    Ok(Stored {
        value,
        created_at_ms: version.created_at_ms,
        updated_at_ms: version.updated_at_ms,
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
        version: version.version,
    })
}

/// A part of an answer that every server sends. Errors: `Unexpected` if it is not there.
pub fn expected<T>(field: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| Error::Unexpected(format!("the answer has no {field}")))
}

/// A part of a request that must be there. Errors: `InvalidArgument` if it is not.
pub fn required<T>(field: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| Error::invalid(field, "", "must be given"))
}

impl From<PageRequest> for v1::PageRequest {
    fn from(page: PageRequest) -> Self {
        Self { limit: page.limit, cursor: page.cursor }
    }
}

impl From<Option<v1::PageRequest>> for PageRequest {
    fn from(page: Option<v1::PageRequest>) -> Self {
        let v1::PageRequest { limit, cursor } = page.unwrap_or_default();
        Self { limit, cursor }
    }
}

/// The request for one page of messages.
pub fn list_messages_request(mode: ReadMode, filter: MessageFilter, page: PageRequest) -> v1::ListMessagesRequest {
    let MessageFilter { from, to, since, until } = filter;
    v1::ListMessagesRequest { read: Some(mode.into()), from, to, since, until, page: Some(page.into()) }
}

impl From<&v1::ListMessagesRequest> for MessageFilter {
    fn from(request: &v1::ListMessagesRequest) -> Self {
        let v1::ListMessagesRequest { from, to, since, until, .. } = request;
        Self { from: from.clone(), to: to.clone(), since: *since, until: *until }
    }
}

/// Without a header, as an item of a list; see the conversion with one.
impl From<Stored<Message>> for v1::GetMessageResponse {
    fn from(stored: Stored<Message>) -> Self {
        let version = Some(version_of(&stored));
        Self { header: None, message: Some(stored.value.into()), version }
    }
}

impl From<(v1::ReadHeader, Stored<Message>)> for v1::GetMessageResponse {
    fn from((header, stored): (v1::ReadHeader, Stored<Message>)) -> Self {
        Self { header: Some(header), ..stored.into() }
    }
}

impl TryFrom<v1::GetMessageResponse> for Stored<Message> {
    type Error = Error;

    fn try_from(answer: v1::GetMessageResponse) -> Result<Self> {
        stored(expected("message", answer.message)?.into(), answer.version)
    }
}

/// Lets a list of plain keys, whose conversion cannot fail, share the code of the others.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A list answer and a page of `$item`, whose wire form is an element of `$items`.
macro_rules! page {
    ($response:ident, $items:ident, $item:ty) => {
        impl From<(v1::ReadHeader, Page<$item>)> for v1::$response {
            fn from((header, page): (v1::ReadHeader, Page<$item>)) -> Self {
                let $items = page.items.into_iter().map(Into::into).collect();
                Self { header: Some(header), $items, next_cursor: page.next_cursor }
            }
        }

        impl TryFrom<v1::$response> for Page<$item> {
            type Error = Error;

            fn try_from(answer: v1::$response) -> Result<Self> {
                let revision = expected("header", answer.header)?.revision;
                let items = answer
                    .$items
                    .into_iter()
                    .map(|item| item.try_into().map_err(Error::from))
                    .collect::<Result<_>>()?;
                Ok(Page { items, next_cursor: answer.next_cursor, revision })
            }
        }
    };
}

/// A get answer and `(key, Stored<$type>)`.
macro_rules! keyed {
    ($response:ident, $key:ident, $value:ident, $type:ty) => {
        /// Without a header, as an item of a list; see the conversion with one.
        impl From<(String, Stored<$type>)> for v1::$response {
            fn from(($key, stored): (String, Stored<$type>)) -> Self {
                let version = Some(version_of(&stored));
                Self { header: None, $key, $value: stored.value, version }
            }
        }

        impl From<(v1::ReadHeader, (String, Stored<$type>))> for v1::$response {
            fn from((header, item): (v1::ReadHeader, (String, Stored<$type>))) -> Self {
                Self { header: Some(header), ..item.into() }
            }
        }

        impl TryFrom<v1::$response> for (String, Stored<$type>) {
            type Error = Error;

            fn try_from(answer: v1::$response) -> Result<Self> {
                Ok((answer.$key, stored(answer.$value, answer.version)?))
            }
        }
    };
}

keyed!(GetStateResponse, key, value, Bytes);
keyed!(GetNodeStateResponse, node_id, state_json, String);
keyed!(GetRouteResponse, destination, route_json, String);
keyed!(GetConfigResponse, key, value_json, String);

page!(ListMessagesResponse, messages, Stored<Message>);
page!(ListStateResponse, values, (String, Stored<Bytes>));
page!(ListNodeStatesResponse, node_states, (String, Stored<String>));
page!(ListRoutesResponse, routes, (String, Stored<String>));
page!(ListConfigKeysResponse, keys, String);
page!(ListRetentionResponse, rules, (String, Stored<Retention>));
page!(StorageListResponse, keys, String);
page!(ListNamespacesResponse, namespaces, Namespace);

#[cfg(test)]
mod tests {
    use super::*;

    fn some<T>(value: T) -> Stored<T> {
        Stored { value, created_at_ms: 1, updated_at_ms: 2, create_revision: 3, mod_revision: 4, version: 5 }
    }

    const HEADER: v1::ReadHeader = v1::ReadHeader { revision: 9, age_ms: 8, node_id: 7 };

    #[test]
    fn answers_round_trip() {
        let message = Message {
            id: "i".into(),
            from: "f".into(),
            to: "t".into(),
            content: "c".into(),
            timestamp: -1,
            large: None,
        };
        let page = Page { items: vec![some(message.clone())], next_cursor: "next".into(), revision: 9 };
        let wire = v1::ListMessagesResponse::from((HEADER, page.clone()));
        assert_eq!(Page::try_from(wire), Ok(page));
        let wire = v1::GetMessageResponse::from((HEADER, some(message.clone())));
        assert_eq!(wire.header, Some(HEADER));
        assert_eq!(Stored::try_from(wire), Ok(some(message)));

        let route = ("here".to_owned(), some("{}".to_owned()));
        let page = Page { items: vec![route.clone()], next_cursor: String::new(), revision: 9 };
        assert_eq!(Page::try_from(v1::ListRoutesResponse::from((HEADER, page.clone()))), Ok(page));
        assert_eq!(
            <(String, Stored<String>)>::try_from(v1::GetRouteResponse::from((HEADER, route.clone()))),
            Ok(route)
        );

        let page = Page { items: vec!["a".to_owned()], next_cursor: String::new(), revision: 9 };
        assert_eq!(Page::try_from(v1::ListConfigKeysResponse::from((HEADER, page.clone()))), Ok(page));
    }

    #[test]
    fn requests_round_trip() {
        let filter = MessageFilter { from: Some("f".into()), to: None, since: Some(-5), until: None };
        let page = PageRequest { limit: 3, cursor: "c".into() };
        let wire = list_messages_request(ReadMode::AtLeast(4), filter.clone(), page.clone());
        assert_eq!(MessageFilter::from(&wire), filter);
        assert_eq!(PageRequest::from(wire.page), page);
        for mode in [ReadMode::Linearizable, ReadMode::AtLeast(4), ReadMode::Stale(Duration::from_millis(250))] {
            assert_eq!(ReadMode::from(Some(v1::ReadOptions::from(mode))), mode);
        }
        assert_eq!(ReadMode::from(None), ReadMode::Linearizable);
        assert_eq!(ReadMode::from(Some(v1::ReadOptions::default())), ReadMode::Linearizable);
    }

    #[test]
    fn an_attempt_must_name_a_place_in_a_session() {
        let attempt = Attempt { session: 1, sequence: 2, answered_below: 2, attempt: 3 };
        assert_eq!(Attempt::try_from(v1::Attempt::from(attempt)), Ok(attempt));
        let uncounted = v1::Attempt { attempt: 0, ..attempt.into() };
        assert_eq!(Attempt::try_from(uncounted).map(|attempt| attempt.attempt), Ok(1));
        for (wrong, field) in [
            (v1::Attempt { session: 0, ..attempt.into() }, "attempt.session"),
            (v1::Attempt { sequence: 0, answered_below: 0, ..attempt.into() }, "attempt.sequence"),
            (v1::Attempt { answered_below: 3, ..attempt.into() }, "attempt.answered_below"),
        ] {
            let Err(Error::InvalidArgument { field: named, .. }) = Attempt::try_from(wrong) else {
                panic!("{wrong:?}")
            };
            assert_eq!(named, field);
        }
    }

    #[test]
    fn an_answer_without_its_parts_is_unexpected() {
        let answer = Stored::<Message>::try_from(v1::GetMessageResponse::default());
        assert!(matches!(answer, Err(Error::Unexpected(_))));
        let answer = <(String, Stored<Bytes>)>::try_from(v1::GetStateResponse::default());
        assert!(matches!(answer, Err(Error::Unexpected(_))));
        let answer = Page::<String>::try_from(v1::ListConfigKeysResponse::default());
        assert!(matches!(answer, Err(Error::Unexpected(_))));
    }
}
