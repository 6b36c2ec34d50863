//! The logs of groups in transactions, with other records.

use meshstore::{
    Client, Error,
    client::{Change, Condition, EntryId, LogEntry, RecordId, Transaction, consensus_log::Indexes},
};

use super::{invalid_field, unique};

const ALL: Indexes = Indexes { first: 0, last: 0 };

fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { term, index, entry_json: format!("[{term}, {index}]") }
}

fn append(group: &str, term: u64, index: u64) -> Change {
    Change::AppendEntry { group: group.into(), entry: entry(term, index) }
}

fn id(group: &str, term: u64, index: u64) -> RecordId {
    RecordId::LogEntry(EntryId { group: group.into(), index, term })
}

async fn places(client: &Client, group: &str) -> Vec<(u64, u64)> {
    let entries = client.group_log(group).list_all(ALL).await.unwrap();
    entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

/// An entry comes with what else is changed, at one revision; a place that is taken keeps all of it from happening.
pub async fn an_entry_is_appended_together_with_other_changes(client: &Client) {
    let group = unique("group");
    let both = || Transaction::default().change(append(&group, 1, 5)).put_state(&group, "applied 5");
    let done = client.commit(both()).await.unwrap();
    assert!(done.succeeded);
    let stored = client.group_log(&group).get(5, None).await.unwrap().stored;
    assert_eq!((stored.mod_revision, stored.value.raw()), (done.revision, "[1, 5]"));
    assert_eq!(client.state().get(&group).await.unwrap().mod_revision, done.revision);

    assert!(!client.commit(both().change(append(&group, 1, 6))).await.unwrap().succeeded);
    assert_eq!(places(client, &group).await, [(5, 1)]);
    assert_eq!(client.state().get(&group).await.unwrap().version, 1);

    let replace = Transaction::default()
        .require(id(&group, 1, 5), Condition::ModRevision(done.revision))
        .require(id(&group, 2, 5), Condition::Missing)
        .delete(id(&group, 1, 5))
        .change(append(&group, 2, 5));
    assert!(client.commit(replace).await.unwrap().succeeded);
    assert_eq!(places(client, &group).await, [(5, 2)]);

    let bad_json =
        Change::AppendEntry { group: group.clone(), entry: LogEntry { entry_json: "{".into(), ..entry(9, 9) } };
    let one = || Transaction::default().put_state(&group, "x");
    for (transaction, field) in [
        (one().change(append("", 1, 1)), "changes[1].group"),
        (one().change(bad_json), "changes[1].entry_json"),
        (one().delete(id("", 1, 1)), "changes[1].group"),
        (one().change(append(&group, 3, 3)).change(append(&group, 3, 3)), "changes[2]"),
        (one().require(id(&group.repeat(256), 1, 1), Condition::Exists), "preconditions[0].group"),
    ] {
        assert_eq!(invalid_field(client.commit(transaction).await), field);
    }
}

/// What a transaction has appended and deleted it sees, and nobody else before it commits.
pub async fn a_log_is_read_as_the_transaction_leaves_it(client: &Client) {
    let group = unique("group");
    let log = client.group_log(&group);
    for (term, index) in [(1, 1), (1, 2), (2, 2), (1, 3)] {
        log.append(term, index, &entry(term, index).entry_json).await.unwrap();
    }
    let open = client.begin();
    assert_eq!(open.get_entry(&group, 2, None).await.unwrap(), Some(entry(2, 2)), "the highest term");
    assert_eq!(open.get_entry(&group, 2, Some(1)).await.unwrap(), Some(entry(1, 2)));
    assert_eq!(open.get_entry(&group, 0, None).await.unwrap(), None);
    open.append_entry(&group, 3, 2, "[3, 2]").await.unwrap();
    open.append_entry(&group, 1, 9, "[1, 9]").await.unwrap();
    assert_eq!(open.get_entry(&group, 2, None).await.unwrap(), Some(entry(3, 2)));
    assert_eq!(open.get_entry(&group, 9, Some(1)).await.unwrap(), Some(entry(1, 9)));
    for (term, index) in [(1, 1), (1, 9)] {
        let refused = open.append_entry(&group, term, index, "1").await;
        assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("already")), "{refused:?}");
    }
    assert_eq!(open.delete_entries(&group, Indexes { first: 2, last: 3 }).await.unwrap(), 4);
    assert_eq!(open.list_entries(&group, ALL).await.unwrap(), [entry(1, 1), entry(1, 9)]);
    assert_eq!(open.delete_entries(&group, Indexes { first: 2, last: 3 }).await.unwrap(), 0);
    let refused = open.append_entry(&group, 1, 3, "1").await;
    assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("in another")), "{refused:?}");
    assert_eq!(places(client, &group).await, [(1, 1), (2, 1), (2, 2), (3, 1)]);
    open.commit().await.unwrap();
    assert_eq!(places(client, &group).await, [(1, 1), (9, 1)]);
}

/// An entry that others append where a transaction has looked is a conflict; elsewhere it is none.
pub async fn what_others_append_to_what_was_listed_is_a_conflict(client: &Client) {
    let group = unique("group");
    let log = client.group_log(&group);
    log.append(1, 1, "1").await.unwrap();
    let open = async |indexes| {
        let open = client.begin();
        open.list_entries(&group, indexes).await.unwrap();
        open.put_state(&group, "decided").unwrap();
        open
    };
    let (low, high) = (open(Indexes { first: 0, last: 5 }).await, open(Indexes { first: 6, last: 0 }).await);
    log.append(1, 3, "3").await.unwrap();
    assert!(matches!(low.commit().await, Err(Error::Conflict(_))));
    high.commit().await.unwrap();
    // Of two who append to the same place one wins, and the other is told when it runs again.
    let (left, right) = (client.begin(), client.begin());
    left.append_entry(&group, 1, 4, "\"left\"").await.unwrap();
    right.append_entry(&group, 1, 4, "\"right\"").await.unwrap();
    left.commit().await.unwrap();
    assert!(matches!(right.commit().await, Err(Error::Conflict(_))));
    let again = client.transact(|open| {
        let group = group.clone();
        async move { open.append_entry(&group, 1, 4, "\"right\"").await }
    });
    assert!(matches!(again.await, Err(Error::Refused(_))));
    assert_eq!(log.get(4, None).await.unwrap().stored.value.raw(), "\"left\"");
}
