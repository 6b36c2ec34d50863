//! What clients send: decoded, checked and made a transaction as the services do, which is then applied; lists are
//! read page by page and compared with what their filter selects; statuses come out as they went in.
//!
//! The first byte chooses the call, the rest is its request (or what it is about).

use std::{sync::OnceLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use meshstore::{
    Error, Result,
    layers::{
        Decided, Write, consensus_log, lease,
        mesh::{config, message, node_state, route, state, transaction},
    },
    limits,
    model::{
        Outcome, ReadMode,
        consensus_log::EntryId,
        mesh::{Message, MessageFilter, Page, PageRequest, RecordId, Stored, Transaction},
        proposal::Action,
        session::Attempt,
    },
    proto::{convert, error_from_status, v1},
    rpc,
    state::View,
    storage::codec::{self, Kind},
};
use tonic::{Code, Request, Status};

use super::{
    input::Input,
    replica::Replica,
    wire::{answer, decode, decoded, told},
};

pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 32 {
        0 => store_message(rest),
        1 => get_message(rest),
        2 => delete_message(rest),
        3 => list_messages(rest),
        4 => put_state(rest),
        5 => list_state(rest),
        6 => save_node_state(rest),
        7 => list_node_states(rest),
        8 => save_route(rest),
        9 => list_routes(rest),
        10 => save_config(rest),
        11 => list_config_keys(rest),
        12 => transact(rest),
        13 => gets_and_deletes(&mut Input::new(rest)),
        14 => status(&mut Input::new(rest)),
        15 => plain_status(&mut Input::new(rest)),
        16 => forged_cursor(&mut Input::new(rest)),
        17 => deadline(rest),
        18 => stored_message(rest),
        19 => attempt(rest),
        20 => answer::<v1::ListMessagesResponse, Page<Stored<Message>>>(rest),
        21 => answer::<v1::ListStateResponse, Page<(String, Stored<Bytes>)>>(rest),
        22 => answer::<v1::ListRoutesResponse, Page<(String, Stored<String>)>>(rest),
        23 => answer::<v1::GetMessageResponse, Stored<Message>>(rest),
        24 => answer::<v1::GetStateResponse, (String, Stored<Bytes>)>(rest),
        25 => answer::<v1::ListConfigKeysResponse, Page<String>>(rest),
        26 => decoded::<v1::StatusResponse>(rest),
        27 => decoded::<v1::WriteResponse>(rest),
        28 => filtered(&mut Input::new(rest)),
        _ => json(&String::from_utf8_lossy(rest)),
    }
}

fn attempt(bytes: &[u8]) {
    let Some(wire) = decode::<v1::Attempt>(bytes) else { return };
    if let Ok(attempt) = Attempt::try_from(wire) {
        assert!(attempt.session > 0 && attempt.sequence > 0 && attempt.attempt > 0);
        assert!(attempt.answered_below <= attempt.sequence);
        assert_eq!(Attempt::try_from(v1::Attempt::from(attempt)), Ok(attempt));
    }
}

// Writes.

fn store_message(bytes: &[u8]) {
    let Some(request) = decode::<v1::StoreMessageRequest>(bytes) else { return };
    let Ok(wire) = convert::required("message", request.message) else { return };
    let stored = Message::from(wire);
    let Some(view) = written(message::store(stored.clone())) else { return };
    assert_eq!(message::get(&view, &stored.id).map(|found| found.value), Ok(stored.clone()));
    let Message { from, to, timestamp, .. } = stored.clone();
    let until = timestamp.checked_add(1);
    let filter = MessageFilter { from: Some(from), to: Some(to), since: Some(timestamp), until };
    let listed = message::list(&filter, &PageRequest { limit: 1_000, ..PageRequest::default() })
        .and_then(|list| list.read(&view));
    assert!(
        listed.expect("its own filter").items.iter().any(|found| found.value == stored),
        "{stored:?} is not listed"
    );
}

fn put_state(bytes: &[u8]) {
    let Some(v1::PutStateRequest { key, value, .. }) = decode(bytes) else { return };
    let Some(view) = written(state::put(&key, value.clone())) else { return };
    assert_eq!(state::get(&view, &key).map(|found| found.value), Ok(value));
}

fn save_node_state(bytes: &[u8]) {
    let Some(v1::SaveNodeStateRequest { node_id, state_json, .. }) = decode(bytes) else { return };
    let Some(view) = written(node_state::save(&node_id, state_json.clone())) else { return };
    assert_eq!(node_state::get(&view, &node_id).map(|found| found.value), Ok(state_json));
}

fn save_route(bytes: &[u8]) {
    let Some(v1::SaveRouteRequest { destination, route_json, .. }) = decode(bytes) else { return };
    let Some(view) = written(route::save(&destination, route_json.clone())) else { return };
    assert_eq!(route::get(&view, &destination).map(|found| found.value), Ok(route_json));
}

fn save_config(bytes: &[u8]) {
    let Some(v1::SaveConfigRequest { key, value_json, .. }) = decode(bytes) else { return };
    let Some(view) = written(config::save(&key, value_json.clone())) else { return };
    assert_eq!(config::get(&view, &key).map(|found| found.value), Ok(value_json));
}

/// JSON that is accepted is what any parser takes (but for the depth and numbers that ours bounds), and comes back
/// byte for byte.
fn json(text: &str) {
    let parsed = serde_json::from_str::<Box<serde_json::value::RawValue>>(text);
    let Some(view) = written(config::save("k", text.to_owned())) else { return };
    assert!(parsed.is_ok(), "{parsed:?}");
    assert_eq!(config::get(&view, "k").map(|found| found.value).as_deref(), Ok(text));
}

fn delete_message(bytes: &[u8]) {
    let Some(v1::DeleteMessageRequest { id, .. }) = decode(bytes) else { return };
    deleted(message::delete(&id), |view| message::get(view, &id).map(drop));
}

fn get_message(bytes: &[u8]) {
    let Some(v1::GetMessageRequest { read, id }) = decode(bytes) else { return };
    if let ReadMode::Stale(age) = ReadMode::from(read) {
        assert_eq!(ReadMode::from(Some(ReadMode::Stale(age).into())), ReadMode::Stale(age));
    }
    match message::get(&fixture().view(), &id) {
        Ok(found) => assert_eq!(found.value.id, id),
        Err(error) => not_there(&error),
    }
}

fn gets_and_deletes(input: &mut Input<'_>) {
    let (surface, name) = (input.below(8), String::from_utf8_lossy(input.rest()).into_owned());
    let view = fixture().view();
    let answer = match surface {
        0 => state::get(&view, &name).map(drop),
        1 => node_state::get(&view, &name).map(drop),
        2 => route::get(&view, &name).map(drop),
        3 => config::get(&view, &name).map(drop),
        4 => return deleted(state::delete(&name), |view| state::get(view, &name).map(drop)),
        5 => return deleted(node_state::delete(&name), |view| node_state::get(view, &name).map(drop)),
        6 => return deleted(route::delete(&name), |view| route::get(view, &name).map(drop)),
        _ => return deleted(config::delete(&name), |view| config::get(view, &name).map(drop)),
    };
    if let Err(error) = answer {
        not_there(&error);
    }
}

fn not_there(error: &Error) {
    assert!(matches!(error, Error::NotFound { .. } | Error::InvalidArgument { .. }), "{error:?}");
    told(error);
}

fn deleted(write: Result<Write>, get: impl Fn(&View) -> Result<()>) {
    match decide(write) {
        Ok((_, view)) => assert!(matches!(get(&view), Err(Error::NotFound { .. })), "it is still there"),
        Err(error) => not_there(&error),
    }
}

fn transact(bytes: &[u8]) {
    let Some(request) = decode::<v1::TransactRequest>(bytes) else { return };
    let transaction = match Transaction::try_from(request) {
        Ok(transaction) => transaction,
        Err(error) => return told(&error),
    };
    assert_eq!(Transaction::try_from(v1::TransactRequest::from(transaction.clone())).as_ref(), Ok(&transaction));
    let changes = transaction.changes.clone();
    let Ok((Decided { succeeded: true, .. }, view)) = decide(transaction::write(transaction)) else { return };
    for change in changes {
        use meshstore::model::mesh::Change;
        let found = match change {
            Change::StoreMessage(stored) => message::get(&view, &stored.id).map(|found| found.value == stored),
            Change::PutState { key, value } => state::get(&view, &key).map(|found| found.value == value),
            Change::SaveNodeState { node_id, state_json } => {
                node_state::get(&view, &node_id).map(|found| found.value == state_json)
            }
            Change::SaveRoute { destination, route_json } => {
                route::get(&view, &destination).map(|found| found.value == route_json)
            }
            Change::SaveConfig { key, value_json } => config::get(&view, &key).map(|found| found.value == value_json),
            Change::AppendEntry { group, entry } => {
                consensus_log::get(&view, &group, entry.index, Some(entry.term)).map(|found| found.value == entry)
            }
            Change::Delete(record) => match is_there(&view, &record) {
                Err(Error::NotFound { .. }) => Ok(true),
                other => other.map(|()| false),
            },
            // There are no leases with which it could go.
            Change::Attached { .. } => Ok(false),
        };
        assert_eq!(found, Ok(true), "a change of a transaction is not there");
    }
}

fn is_there(view: &View, record: &RecordId) -> Result<()> {
    match record {
        RecordId::Message(id) => message::get(view, id).map(drop),
        RecordId::State(key) => state::get(view, key).map(drop),
        RecordId::NodeState(node_id) => node_state::get(view, node_id).map(drop),
        RecordId::Route(destination) => route::get(view, destination).map(drop),
        RecordId::Config(key) => config::get(view, key).map(drop),
        RecordId::LogEntry(EntryId { group, index, term }) => {
            consensus_log::get(view, group, *index, Some(*term)).map(drop)
        }
    }
}

/// The store with a write in that cannot fail once it is accepted; `None`: it is not.
fn written(write: Result<Write>) -> Option<View> {
    match decide(write) {
        Ok((decided, view)) => {
            assert!(decided.succeeded && decided.revision == view.revision());
            Some(view)
        }
        Err(error) => {
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
            told(&error);
            None
        }
    }
}

/// Applies what a layer made to the fixture, audits the store, and asks the layer what it means.
fn decide(write: Result<Write>) -> Result<(Decided, View)> {
    let mut replica = small().clone();
    let Write { transaction, guards: _, meaning, .. } = lease::noted(&replica.view(), write?)?;
    let bytes = codec::encode_payload(&transaction).len();
    assert!(bytes <= limits::CLIENT_DECODE_BYTES * 2, "a transaction of {bytes} bytes");
    let outcome = replica.apply(Action::Transact(transaction));
    assert!(matches!(outcome, Outcome::Applied { .. }), "what a layer made was refused: {outcome:?}");
    Ok((meaning.of(outcome, None)?, replica.view()))
}

// Lists.

fn list_messages(bytes: &[u8]) {
    let Some(request) = decode::<v1::ListMessagesRequest>(bytes) else { return };
    let (filter, page) = (MessageFilter::from(&request), PageRequest::from(request.page));
    let again = v1::ListMessagesRequest {
        read: request.read,
        ..convert::list_messages_request(ReadMode::Linearizable, filter.clone(), page.clone())
    };
    assert_eq!(MessageFilter::from(&again), filter);
    messages(&filter, &page);
}

/// A filter that is likely to select something.
fn filtered(input: &mut Input<'_>) {
    let name = |input: &mut Input<'_>| match input.below(4) {
        0 => None,
        1 => Some(String::from_utf8_lossy(input.bytes(6)).into_owned()),
        _ => Some(NAMES[input.below(NAMES.len())].to_owned()),
    };
    let time = |input: &mut Input<'_>| match input.below(4) {
        0 => None,
        1 => Some(input.number().cast_signed()),
        _ => Some(TIMES[input.below(TIMES.len())]),
    };
    let filter = MessageFilter { from: name(input), to: name(input), since: time(input), until: time(input) };
    let page = PageRequest { limit: u32::try_from(input.below(12)).unwrap(), ..PageRequest::default() };
    messages(&filter, &page);
}

/// All pages from the one that is asked for; together they are what the filter selects, or its end.
fn messages(filter: &MessageFilter, page: &PageRequest) {
    let view = fixture().view();
    let selected = selected(filter);
    let read = |page: &PageRequest| {
        let list = message::list(filter, page)?;
        if list.revision().is_some_and(|revision| revision != view.revision()) {
            return Err(Error::invalid("cursor", "", "another revision"));
        }
        list.read(&view)
    };
    let found = pages(page, read);
    let Some(found) = found else { return };
    let found: Vec<Message> = found.into_iter().map(|stored| stored.value).collect();
    assert!(selected.ends_with(&found), "{filter:?} from {page:?}: {found:?} of {selected:?}");
    if page.cursor.is_empty() {
        assert_eq!(found, selected, "{filter:?}");
    }
}

/// The pages of a list from one on; `None` if it is refused.
fn pages<T>(page: &PageRequest, read: impl Fn(&PageRequest) -> Result<Page<T>>) -> Option<Vec<T>> {
    let mut page = page.clone();
    let mut found = Vec::new();
    for number in 0.. {
        match read(&page) {
            Ok(Page { items, next_cursor, revision }) => {
                let most = if page.limit == 0 { limits::PAGE_DEFAULT } else { page.limit as usize };
                assert!(items.len() <= most, "{} items of {most}", items.len());
                assert_eq!(revision, fixture().revision());
                found.extend(items);
                if next_cursor.is_empty() {
                    break;
                }
                assert!(next_cursor.len() <= limits::CURSOR_BYTES);
                page.cursor = next_cursor;
            }
            Err(error) => {
                assert_eq!(number, 0, "a cursor that was given is refused: {error}");
                assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
                told(&error);
                return None;
            }
        }
        assert!(number < 100, "the list does not end");
    }
    Some(found)
}

fn list_state(bytes: &[u8]) {
    let Some(v1::ListStateRequest { prefix, page, .. }) = decode(bytes) else { return };
    let view = fixture().view();
    keys(&prefix, &page.into(), |page| state::list(&prefix, page)?.read(&view).map(|page| of(page, |(key, _)| key)));
}

fn list_node_states(bytes: &[u8]) {
    let Some(v1::ListNodeStatesRequest { page, .. }) = decode(bytes) else { return };
    let view = fixture().view();
    keys("", &page.into(), |page| node_state::list(page)?.read(&view).map(|page| of(page, |(key, _)| key)));
}

fn list_routes(bytes: &[u8]) {
    let Some(v1::ListRoutesRequest { prefix, page, .. }) = decode(bytes) else { return };
    let view = fixture().view();
    keys(&prefix, &page.into(), |page| route::list(&prefix, page)?.read(&view).map(|page| of(page, |(key, _)| key)));
}

fn list_config_keys(bytes: &[u8]) {
    let Some(v1::ListConfigKeysRequest { prefix, page, .. }) = decode(bytes) else { return };
    let view = fixture().view();
    keys(&prefix, &page.into(), |page| config::list_keys(&prefix, page)?.read(&view));
}

fn of<T, U>(page: Page<T>, map: impl Fn(T) -> U) -> Page<U> {
    let Page { items, next_cursor, revision } = page;
    Page { items: items.into_iter().map(map).collect(), next_cursor, revision }
}

fn keys(prefix: &str, page: &PageRequest, read: impl Fn(&PageRequest) -> Result<Page<String>>) {
    let Some(found) = pages(page, read) else { return };
    let mut selected: Vec<String> =
        NAMES.iter().filter(|name| name.starts_with(prefix)).map(|name| (*name).to_owned()).collect();
    selected.sort();
    assert!(selected.ends_with(&found), "{prefix:?} from {page:?}: {found:?} of {selected:?}");
    assert!(!page.cursor.is_empty() || found == selected, "{prefix:?}: {found:?} of {selected:?}");
}

/// A cursor of this very list, with another position: it reads the rest of its own list and nothing else.
fn forged_cursor(input: &mut Input<'_>) {
    let view = fixture().view();
    let name = |input: &mut Input<'_>| match input.below(NAMES.len() + 1) {
        0 => None,
        at => Some(NAMES[at - 1].to_owned()),
    };
    let filter = MessageFilter { from: name(input), to: name(input), ..MessageFilter::default() };
    let first = PageRequest { limit: 1, ..PageRequest::default() };
    let given = message::list(&filter, &first).and_then(|list| list.read(&view)).expect("a page").next_cursor;
    let Some(sealed) = (!given.is_empty()).then(|| URL_SAFE_NO_PAD.decode(&given).expect("base64")) else { return };
    let envelope = codec::open(&sealed, Kind::Cursor, 1).expect("an envelope");
    let (revision, fingerprint, _): (u64, u64, Bytes) = codec::decode_payload(envelope.payload).expect("a cursor");
    let position = Bytes::copy_from_slice(input.rest());
    let forged = codec::encode(Kind::Cursor, &(revision, fingerprint, position));
    messages(&filter, &PageRequest { limit: 3, cursor: URL_SAFE_NO_PAD.encode(forged) });
}

/// A stored message whose bytes are not what was written is a broken node, and no panic.
fn stored_message(payload: &[u8]) {
    let mut replica = small().clone();
    let mut put = message::store(Message { id: "x".into(), from: "f".into(), to: "t".into(), ..Message::default() })
        .expect("it is valid");
    for operation in &mut put.transaction.then {
        if let meshstore::model::transaction::Operation::Put { put, .. } = operation {
            put.value = codec::seal(Kind::Message, 1, 0, payload);
        }
    }
    replica.apply(Action::Transact(put.transaction));
    let got = message::get(&replica.view(), "x");
    let listed =
        message::list(&MessageFilter::default(), &PageRequest::default()).and_then(|list| list.read(&replica.view()));
    assert_eq!(got.is_ok(), listed.is_ok(), "{got:?}, but {listed:?}");
}

// Errors and deadlines.

fn status(input: &mut Input<'_>) {
    let code = Code::from(i32::from(input.byte()));
    let message = String::from_utf8_lossy(input.bytes(64)).into_owned();
    told(&error_from_status(&Status::with_details(code, message, Bytes::copy_from_slice(input.rest()))));
}

fn plain_status(input: &mut Input<'_>) {
    let code = Code::from(i32::from(input.byte()));
    told(&error_from_status(&Status::new(code, String::from_utf8_lossy(input.rest()))));
}

fn deadline(value: &[u8]) {
    let mut request = Request::new(());
    let Ok(value) = tonic::metadata::MetadataValue::try_from(value) else { return };
    request.metadata_mut().insert("grpc-timeout", value);
    if let Ok(deadline) = rpc::deadline(&request) {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        assert!(left <= Duration::from_millis(limits::DEADLINE_MAX_MS), "{left:?}");
    }
}

// The store that is asked.

/// Names that are hard to order, and prefixes of each other.
const NAMES: &[&str] =
    &["a", "ab", "a/", "a\0", "a\0b", "b", "\u{1}", "\u{7f}", "ÿ", "\u{10ffff}", "\u{10ffff}x", "\0"];
const TIMES: &[i64] = &[i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX];

fn stored() -> Vec<Message> {
    let nth = |n: usize| Message {
        id: NAMES[n % NAMES.len()].repeat(1 + n / NAMES.len()),
        from: NAMES[(n * 5) % 4].into(),
        to: NAMES[(n * 7) % 3].into(),
        content: Bytes::from(vec![b'c'; n]),
        timestamp: TIMES[(n * 3) % TIMES.len()],
        large: None,
    };
    (0..20).map(nth).collect()
}

fn selected(filter: &MessageFilter) -> Vec<Message> {
    let MessageFilter { from, to, since, until } = filter;
    let mut selected = stored();
    selected.retain(|message| {
        from.as_ref().is_none_or(|from| *from == message.from)
            && to.as_ref().is_none_or(|to| *to == message.to)
            && since.is_none_or(|since| message.timestamp >= since)
            && until.is_none_or(|until| message.timestamp < until)
    });
    selected.sort_by(|a, b| (a.timestamp, &a.id).cmp(&(b.timestamp, &b.id)));
    selected
}

/// What lists are read from, and single records.
fn fixture() -> &'static Replica {
    static FIXTURE: OnceLock<Replica> = OnceLock::new();
    FIXTURE.get_or_init(|| with(stored(), NAMES))
}

/// What is written to: less, because it is copied and audited for every write.
fn small() -> &'static Replica {
    static SMALL: OnceLock<Replica> = OnceLock::new();
    SMALL.get_or_init(|| with(stored().into_iter().take(2).collect(), &["a"]))
}

/// A store with messages, and one record of every other kind under each name.
fn with(messages: Vec<Message>, names: &[&str]) -> Replica {
    let mut writes: Vec<Result<Write>> = messages.into_iter().map(message::store).collect();
    for name in names {
        writes.push(state::put(name, Bytes::from_static(b"v")));
        writes.push(node_state::save(name, "1".into()));
        writes.push(route::save(name, "2".into()));
        writes.push(config::save(name, "3".into()));
    }
    let mut replica = Replica::at(1, 2);
    for write in writes {
        replica.apply(Action::Transact(write.expect("it is valid").transaction));
    }
    replica
}
