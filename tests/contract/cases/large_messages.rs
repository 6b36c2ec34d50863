//! Messages that come in chunks: whole or not at all, whatever is wrong with them, and nothing left behind.

use bytes::Bytes;
use meshstore::{
    Client, Error, Result,
    client::{Change, LargeContent, Message, MessageFilter, RecordId, Transaction},
    limits,
    model::mesh::{Announced, Chunk},
    proto::{
        error_from_status,
        v1::{
            Attempt, LargeMessageHeader, OpenSessionRequest, StoreLargeMessageRequest, mesh_client::MeshClient,
            session_client::SessionClient,
        },
    },
};
use tokio_stream::StreamExt;

use super::{assert_missing, invalid_field, messages::message, unique};
use crate::harness::wire;

const MIB: usize = 1 << 20;

/// Content that is nowhere the same.
fn content(bytes: usize) -> Bytes {
    let words = (0..bytes.div_ceil(4)).flat_map(|n| (n as u32).wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(bytes).collect::<Vec<u8>>().into()
}

fn large(id: &str, bytes: usize) -> Message {
    Message { content: content(bytes), ..message(id, "a", "b", 1) }
}

/// Uploads, open ones, and chunks that the store holds.
async fn held(client: &Client) -> [u64; 3] {
    let status = client.cluster().status(false).await.unwrap();
    ["mesh_message_uploads", "mesh_message_open_uploads", "mesh_message_chunks"].map(|name| {
        status.keyspaces.iter().find(|keyspace| keyspace.name == name).map_or(0, |keyspace| keyspace.records)
    })
}

/// Waits until nothing more is held than this.
async fn settles(client: &Client, expected: [u64; 3]) {
    for _ in 0..600 {
        if held(client).await == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the store holds {:?}, not {expected:?}", held(client).await);
}

/// A message as frames.
fn frames(message: Message, parts: &[Bytes]) -> Vec<StoreLargeMessageRequest> {
    let size = parts.iter().map(|part| part.len() as u64).sum();
    let message = Message { content: Bytes::new(), ..message };
    let announced = Announced { message, size, chunks: parts.len() as u32, crc32c: None };
    let chunks = (0..).zip(parts).map(|(number, part)| chunk(number, part.clone()));
    [LargeMessageHeader::from(announced).into()].into_iter().chain(chunks).collect()
}

fn chunk(number: u32, data: Bytes) -> StoreLargeMessageRequest {
    Chunk { number, crc32c: crc32c::crc32c(&data), data }.into()
}

/// Sends frames to one node: the revision.
async fn send(node: &str, frames: Vec<StoreLargeMessageRequest>) -> Result<u64> {
    let mut mesh = MeshClient::new(wire(node).await);
    let answer = mesh.store_large_message(tokio_stream::iter(frames)).await;
    answer.map(|written| written.into_inner().revision).map_err(|status| error_from_status(&status))
}

async fn nodes(client: &Client) -> Vec<String> {
    let status = client.cluster().status(false).await.unwrap();
    status.members.into_iter().map(|member| member.client_address).collect()
}

pub async fn what_is_stored_in_chunks_is_read_back(client: &Client) {
    let messages = client.messages();
    let before = held(client).await;
    for bytes in [0, 1, MIB, MIB + 1, 5 * MIB + 3] {
        let sent = large(&unique("large"), bytes);
        let written = messages.store_large(sent.clone()).await.unwrap();
        let read = messages.get_large(&sent.id).await.unwrap();
        assert_eq!((read.mod_revision, read.version), (written.revision, 1));
        assert_eq!(read.value, sent, "{bytes} bytes");
        let plain = messages.get(&sent.id).await.unwrap().value;
        let listed = messages.list_all(MessageFilter { from: Some("a".into()), ..Default::default() }).await.unwrap();
        assert!(listed.iter().any(|listed| listed.value == plain));
        if bytes <= MIB {
            assert_eq!(plain, sent, "what fits into a record is a message as any other");
        } else {
            let chunks = bytes.div_ceil(512 << 10) as u32;
            let told = LargeContent { size: bytes as u64, chunks, crc32c: crc32c::crc32c(&sent.content) };
            assert_eq!(plain, Message { content: Bytes::new(), large: Some(told), ..sent.clone() });
        }
        messages.delete(&sent.id).await.unwrap();
        assert_missing(messages.get_large(&sent.id).await, "message", &sent.id);
    }
    settles(client, before).await;
}

pub async fn the_largest_message_is_taken_and_goes_again(client: &Client) {
    let (messages, before) = (client.messages(), held(client).await);
    let sent = large(&unique("largest"), limits::LARGE_MESSAGE_BYTES);
    messages.store_large(sent.clone()).await.unwrap();
    let mut reading = messages.read_large(&sent.id).await.unwrap();
    let mut read = 0;
    while let Some(data) = reading.next().await.unwrap() {
        assert_eq!(data, sent.content.slice(read..read + data.len()));
        read += data.len();
    }
    assert_eq!(read, limits::LARGE_MESSAGE_BYTES);
    messages.delete(&sent.id).await.unwrap();
    settles(client, before).await;
    let more = Message { content: content(limits::LARGE_MESSAGE_BYTES + 1), ..sent };
    assert_eq!(invalid_field(messages.store_large(more).await), "content");
}

pub async fn chunks_may_come_in_any_order_to_any_node(client: &Client) {
    let (messages, before) = (client.messages(), held(client).await);
    for node in nodes(client).await {
        let id = unique("order");
        let parts = [content(MIB), content(1), content(MIB - 7), content(300)];
        let mut frames = frames(message(&id, "a", "b", 1), &parts);
        frames[1..].rotate_left(2);
        frames.swap(1, 2);
        let revision = send(&node, frames).await.unwrap();
        let read = messages.get_large(&id).await.unwrap();
        assert_eq!(read.mod_revision, revision);
        assert_eq!(read.value.content, parts.concat());
        messages.delete(&id).await.unwrap();
    }
    settles(client, before).await;
}

/// What can be wrong: frames, the field that the error names, and a part of what it says.
fn mistakes(id: &str) -> Vec<(Vec<StoreLargeMessageRequest>, &'static str, &'static str)> {
    let parts = [content(MIB), content(MIB), content(10)];
    let whole = || frames(message(id, "a", "b", 1), &parts);
    let with = |change: fn(&mut Vec<StoreLargeMessageRequest>)| {
        let mut frames = whole();
        change(&mut frames);
        frames
    };
    let header = |change: fn(&mut Announced)| {
        let mut announced = Announced { message: message("x", "a", "b", 1), size: 3 << 20, chunks: 3, crc32c: None };
        announced.message.content = Bytes::new();
        change(&mut announced);
        vec![LargeMessageHeader::from(announced).into()]
    };
    let small = |frames: usize| self::frames(message(id, "a", "b", 1), &[content(5), content(6)])[..frames].to_vec();
    vec![
        (vec![], "header", "first frame"),
        (with(|frames| drop(frames.remove(0))), "header", "first frame"),
        (with(|frames| frames.insert(2, frames[0].clone())), "header", "no other"),
        (with(|frames| frames[2] = StoreLargeMessageRequest { frame: None }), "frame", "must be given"),
        (header(|announced| announced.message.id.clear()), "id", "empty"),
        (header(|announced| announced.message.content = content(1)), "header.message.content", "chunks"),
        (header(|announced| announced.size = (64 << 20) + 1), "header.size", "67108864"),
        (header(|announced| announced.chunks = 2), "header.chunks", "from 3 to 4096"),
        (header(|announced| announced.chunks = 4_097), "header.chunks", "from 3 to 4096"),
        (header(|announced| announced.size = 0), "header.chunks", "from 0 to 0"),
        (with(|frames| frames.push(chunk(3, content(1)))), "chunk.number", "below 3"),
        (with(|frames| frames.insert(2, frames[1].clone())), "chunk.number", "come already"),
        (with(|frames| frames[1] = chunk(0, Bytes::new())), "chunk.data", "empty"),
        (with(|frames| frames[1] = chunk(0, content(MIB + 1))), "chunk.data", "at most 1048576"),
        (with(|frames| frames[3] = chunk(2, content(11))), "chunk.data", "more than was announced"),
        (with(|frames| frames[3] = chunk(2, content(9))), "header.size", "2097161 bytes"),
        (
            with(|frames| frames[2] = Chunk { number: 1, data: content(MIB), crc32c: 7 }.into()),
            "chunk.crc32c",
            "CRC32C",
        ),
        (with(|frames| drop(frames.remove(2))), "chunks", "1 did not: 1"),
        (with(|frames| frames.truncate(1)), "chunks", "3 did not: 0, 1, 2"),
        (small(2), "chunks", "1 did not: 1"),
    ]
}

pub async fn each_mistake_has_its_own_error_and_changes_nothing(client: &Client) {
    let before = held(client).await;
    let id = unique("mistakes");
    let sent = client.messages().store(message(&id, "a", "b", 1)).await.unwrap();
    for node in nodes(client).await {
        for (frames, expected, part) in mistakes(&id) {
            match send(&node, frames).await {
                Err(Error::InvalidArgument { field, rule, value }) => {
                    assert_eq!(field, expected, "{rule} ({value})");
                    assert!(rule.contains(part), "{field}: {rule} does not say {part}");
                }
                other => panic!("{expected} ({part}): {other:?}"),
            }
        }
    }
    let parts = [content(MIB), content(MIB)];
    let mut frames = frames(message(&id, "a", "b", 1), &parts);
    let announced = Announced { message: message(&id, "a", "b", 1), size: 2 << 20, chunks: 2, crc32c: Some(1) };
    frames[0] = LargeMessageHeader::from(Announced {
        message: Message { content: Bytes::new(), ..announced.message },
        ..announced
    })
    .into();
    assert_eq!(invalid_field(send(&nodes(client).await[0], frames).await), "header.crc32c");
    let read = client.messages().get(&id).await.unwrap();
    assert_eq!((read.mod_revision, read.version), (sent.revision, 1));
    settles(client, before).await;
}

pub async fn what_is_overwritten_or_deleted_leaves_no_chunks(client: &Client) {
    let (messages, [uploads, open, chunks]) = (client.messages(), held(client).await);
    let id = unique("overwrite");
    messages.store(message(&id, "a", "b", 1)).await.unwrap();
    messages.store_large(large(&id, 2 * MIB)).await.unwrap();
    settles(client, [uploads + 1, open, chunks + 4]).await;
    messages.store_large(large(&id, 3 * MIB)).await.unwrap();
    settles(client, [uploads + 1, open, chunks + 6]).await;
    assert_eq!(messages.get_large(&id).await.unwrap().value, large(&id, 3 * MIB));
    messages.store(message(&id, "a", "b", 2)).await.unwrap();
    settles(client, [uploads, open, chunks]).await;
    assert_eq!(messages.get_large(&id).await.unwrap().value, message(&id, "a", "b", 2));
    messages.store_large(large(&id, 2 * MIB)).await.unwrap();
    messages.delete(&id).await.unwrap();
    settles(client, [uploads, open, chunks]).await;
    messages.store_large(large(&id, 2 * MIB)).await.unwrap();
    assert!(client.commit(Transaction::default().delete(RecordId::Message(id.clone()))).await.unwrap().succeeded);
    settles(client, [uploads, open, chunks]).await;
    assert_missing(messages.get(&id).await, "message", &id);
}

pub async fn a_message_that_goes_while_it_is_read_is_never_a_mix(client: &Client) {
    let (messages, before) = (client.messages(), held(client).await);
    let sent = large(&unique("reading"), 32 * MIB);
    messages.store_large(sent.clone()).await.unwrap();
    let mut reading = messages.read_large(&sent.id).await.unwrap();
    let mut read = reading.next().await.unwrap().unwrap().to_vec();
    messages.store(message(&sent.id, "a", "b", 2)).await.unwrap();
    settles(client, before).await;
    let error = loop {
        match reading.next().await {
            Ok(Some(data)) => read.extend_from_slice(&data),
            Ok(None) => panic!("{} bytes of a message that was gone were buffered", read.len()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Conflict(_)), "{error}");
    assert!(sent.content.starts_with(&read));
    messages.delete(&sent.id).await.unwrap();
}

pub async fn an_upload_that_is_broken_off_leaves_nothing(client: &Client) {
    let before = held(client).await;
    let id = unique("broken-off");
    for node in nodes(client).await {
        let begun = frames(message(&id, "a", "b", 1), &[content(MIB), content(MIB), content(MIB)]);
        let endless = tokio_stream::iter(begun[..3].to_vec()).chain(tokio_stream::pending());
        let mut mesh = MeshClient::new(wire(&node).await);
        let sending = tokio::spawn(async move { mesh.store_large_message(endless).await.map(drop) });
        settles(client, [before[0] + 1, before[1] + 1, before[2] + 2]).await;
        sending.abort();
        settles(client, before).await;
    }
    assert_missing(client.messages().get(&id).await, "message", &id);
}

pub async fn a_repeated_upload_is_answered_as_the_first(client: &Client) {
    let before = held(client).await;
    let node = &nodes(client).await[0];
    let mut sessions = SessionClient::new(wire(node).await);
    let session = sessions.open_session(OpenSessionRequest { ttl_ms: 0 }).await.unwrap().into_inner().session;
    let id = unique("repeated");
    let attempt = |attempt| {
        let announced = Announced { message: message(&id, "a", "b", 1), size: 2 << 20, chunks: 2, crc32c: None };
        let message = Message { content: Bytes::new(), ..announced.message };
        let mut header = LargeMessageHeader::from(Announced { message, ..announced });
        header.attempt = Some(Attempt { session, sequence: 1, answered_below: 1, attempt });
        vec![header.into(), chunk(1, content(MIB)), chunk(0, content(MIB))]
    };
    let first = send(node, attempt(1)).await.unwrap();
    assert_eq!(send(node, attempt(2)).await, Ok(first));
    let read = client.messages().get(&id).await.unwrap();
    assert_eq!((read.mod_revision, read.version), (first, 1));
    settles(client, [before[0] + 1, before[1], before[2] + 2]).await;
    client.messages().delete(&id).await.unwrap();
    settles(client, before).await;
}

pub async fn a_transaction_takes_no_large_message(client: &Client) {
    let id = unique("in-transaction");
    for (sent, field) in [
        (large(&id, MIB + 1), "changes[0].content"),
        (
            Message { large: Some(LargeContent { size: 1, chunks: 1, crc32c: 1 }), ..message(&id, "a", "b", 1) },
            "changes[0].large",
        ),
    ] {
        let answer = client.commit(Transaction::default().change(Change::StoreMessage(sent))).await;
        let Err(Error::InvalidArgument { field: named, rule, .. }) = &answer else { panic!("{answer:?}") };
        assert_eq!(named, field);
        assert!(rule.contains("StoreLargeMessage"), "{rule}");
    }
    assert_missing(client.messages().get(&id).await, "message", &id);
}
