//! The consensus log: the Raft log, and the logs of groups.

use meshstore::{
    Client, Error,
    client::{
        PageRequest,
        consensus_log::{Indexes, RaftPayload},
    },
};

use super::{invalid_field, unique};

const ALL: Indexes = Indexes { first: 0, last: 0 };

fn indexes(first: u64, last: u64) -> Indexes {
    Indexes { first, last }
}

/// Entries come in order of index, then term, whatever the order in which they were appended, and as they were sent.
pub async fn a_group_keeps_its_entries_in_order(client: &Client) {
    let log = client.group_log(&unique("group"));
    for (term, index) in [(1, 2), (1, 1), (3, 2), (2, 300)] {
        log.append(term, index, &format!("{{ \"at\":[{term}, {index}] }}")).await.unwrap();
    }
    let positions = async |range| {
        let entries = log.list_all(range).await.unwrap();
        entries.iter().map(|entry| (entry.index, entry.term)).collect::<Vec<_>>()
    };
    assert_eq!(positions(ALL).await, [(1, 1), (2, 1), (2, 3), (300, 2)]);
    assert_eq!(positions(indexes(2, 300)).await, [(2, 1), (2, 3), (300, 2)], "inclusive at both ends");
    assert_eq!(positions(indexes(3, 299)).await, []);
    assert_eq!(positions(indexes(9, 3)).await, []);
    let newest = log.get(2, None).await.unwrap();
    assert_eq!((newest.term, newest.stored.value.raw()), (3, "{ \"at\":[3, 2] }"));
    assert_eq!(log.get(2, Some(1)).await.unwrap().term, 1);
    assert!(matches!(log.get(3, None).await, Err(Error::NotFound { kind: "log entry", .. })));
    assert!(matches!(log.get(2, Some(2)).await, Err(Error::NotFound { .. })));
    assert_eq!(client.group_log(&unique("group")).list_all(ALL).await.unwrap(), []);

    let page = log.list(ALL, PageRequest { limit: 3, ..PageRequest::default() }).await.unwrap();
    log.append(1, 1_000, "1").await.unwrap();
    let next = log.list(ALL, PageRequest { limit: 3, cursor: page.next_cursor }).await.unwrap();
    assert_eq!(next.items.iter().map(|entry| entry.index).collect::<Vec<_>>(), [300], "of the first page's revision");
}

/// A second entry with one term and index is refused, and the first stays.
pub async fn a_position_is_taken_once(client: &Client) {
    let log = client.group_log(&unique("group"));
    log.append(1, 1, "\"first\"").await.unwrap();
    let refused = log.append(1, 1, "\"second\"").await;
    assert!(matches!(&refused, Err(Error::Refused(reason)) if reason.contains("term 1 and index 1")), "{refused:?}");
    assert_eq!(log.get(1, None).await.unwrap().stored.value.raw(), "\"first\"");
    log.append(2, 1, "\"of another term\"").await.unwrap();
}

/// A range is deleted whole, at both ends, and deleting nothing is no error.
pub async fn a_range_is_deleted_whole(client: &Client) {
    let log = client.group_log(&unique("group"));
    for index in 1..=9 {
        log.append(1, index, "null").await.unwrap();
    }
    log.append(2, 5, "null").await.unwrap();
    log.delete(indexes(3, 5)).await.unwrap();
    let left = async || log.list_all(ALL).await.unwrap().iter().map(|entry| entry.index).collect::<Vec<_>>();
    assert_eq!(left().await, [1, 2, 6, 7, 8, 9]);
    log.delete(indexes(3, 5)).await.unwrap();
    log.delete(indexes(9, 3)).await.unwrap();
    assert_eq!(left().await, [1, 2, 6, 7, 8, 9]);
    log.append(1, 4, "\"again\"").await.unwrap();
    log.delete(indexes(6, 0)).await.unwrap();
    assert_eq!(left().await, [1, 2, 4]);
}

/// What the application appends to the Raft log is found there, at the place that was answered.
pub async fn an_application_entry_stands_in_the_raft_log(client: &Client) {
    let log = client.raft_log();
    let text = format!("{{ \"note\": \"{}\" }}", unique("entry"));
    let placed = log.append(&text).await.unwrap();
    let index = placed.position.index;
    let part = log.read(indexes(index, index), 0).await.unwrap();
    assert!(part.first_index <= index && index <= part.committed_index);
    let [entry] = part.entries.as_slice() else { panic!("{part:?}") };
    assert_eq!((entry.index, entry.term), (index, placed.position.term));
    let Some(RaftPayload::Batch(batch)) = &entry.payload else { panic!("{entry:?}") };
    let proposal = &batch.proposals[placed.ordinal as usize];
    assert_eq!(proposal.entry_json.as_deref(), Some(text.as_str()));
    assert_eq!((proposal.ordinal, proposal.action.as_str()), (placed.ordinal, "transact"));
}

/// Several that are appended together have places of their own, and all are there.
pub async fn entries_that_are_appended_together_have_places_of_their_own(client: &Client) {
    let log = client.raft_log();
    let texts: Vec<String> = (0..20).map(|n| format!("\"{}/{n}\"", unique("together"))).collect();
    let placed = futures_util::future::join_all(texts.iter().map(|text| log.append(text))).await;
    for (text, placed) in texts.iter().zip(placed) {
        let placed = placed.unwrap();
        let part = log.read(indexes(placed.position.index, placed.position.index), 0).await.unwrap();
        let Some(RaftPayload::Batch(batch)) = &part.entries[0].payload else { panic!("{part:?}") };
        assert_eq!(batch.proposals[placed.ordinal as usize].entry_json.as_ref(), Some(text));
    }
}

/// What is written shows in the Raft log: who asked, and what was done to which key.
pub async fn the_raft_log_shows_what_was_written(client: &Client) {
    let key = unique("logged");
    let from = client.raft_log().append("1").await.unwrap().position.index;
    client.state().put(&key, "value").await.unwrap();
    let to = client.raft_log().append("2").await.unwrap().position.index;
    let part = client.raft_log().read(indexes(from, to), 0).await.unwrap();
    assert_eq!(part.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), (from..=to).collect::<Vec<_>>());
    let batches = part.entries.iter().filter_map(|entry| match &entry.payload {
        Some(RaftPayload::Batch(batch)) => Some(batch),
        _ => None,
    });
    let mut operations = batches.flat_map(|batch| &batch.proposals).flat_map(|proposal| &proposal.operations);
    let put = operations.find(|operation| operation.key == key.as_bytes()).unwrap();
    assert_eq!((put.kind.as_str(), put.keyspace.as_str(), put.value_bytes), ("put", "mesh_state", 5));
    let limited = client.raft_log().read(indexes(from, 0), 1).await.unwrap();
    assert_eq!(limited.entries.len(), 1);
    assert!(matches!(client.raft_log().read(indexes(u64::MAX, u64::MAX), 0).await, Err(Error::NotFound { .. })));
    let beyond = client.raft_log().read(indexes(u64::MAX - 1, u64::MAX), 0).await.unwrap();
    assert_eq!(beyond.entries, []);
}

/// Bad input is refused, and nothing is appended.
pub async fn bad_log_entries_are_refused(client: &Client) {
    let log = client.group_log(&unique("group"));
    assert_eq!(invalid_field(log.append(1, 1, "{").await), "entry_json");
    assert_eq!(invalid_field(client.group_log("").append(1, 1, "1").await), "group");
    assert_eq!(invalid_field(client.group_log(&"g".repeat(256)).list_all(ALL).await), "group");
    assert_eq!(invalid_field(client.raft_log().append("").await), "entry_json");
    assert_eq!(invalid_field(client.raft_log().read(ALL, 1_001).await), "limit");
    let page = PageRequest { limit: 1_001, ..PageRequest::default() };
    assert_eq!(invalid_field(log.list(ALL, page).await), "limit");
    assert_eq!(log.list_all(ALL).await.unwrap(), []);
}
