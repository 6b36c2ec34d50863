//! Transactions that the leader keeps.

use std::{fmt::Debug, time::Duration};

use futures_util::future::join_all;
use meshstore::{
    Client, Error, Result,
    client::{
        Condition, Filter, HeldTransaction, Isolation, KeyFilter, Kv, Message, MessageFilter, NamespaceChange,
        NamespaceSettings, PageRequest, ReadMode, Set, SortField, Value, Version,
    },
    limits,
    proto::{
        error_from_status,
        v1::{
            Attempt, BeginTransactionRequest, CommitTransactionRequest, RollbackTransactionRequest,
            storage_client::StorageClient,
        },
    },
};
use serde_json::json;
use tonic::{Response, Status};

use super::{assert_missing, invalid_field, leader, session, unique};
use crate::harness;

const LEVELS: [Isolation; 3] = [Isolation::Serializable, Isolation::ReadCommitted, Isolation::ReadUncommitted];

fn set(key: &str, number: i64) -> Set {
    Set::new(key, Value::Json(number.to_string()))
}

async fn number(kv: &Kv, key: &str) -> i64 {
    kv.get(key).await.unwrap().value.parse().unwrap()
}

async fn begin(client: &Client) -> HeldTransaction {
    client.begin_held(Isolation::Serializable).await.unwrap()
}

/// Why a transaction was aborted.
fn aborted<T: Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::TransactionAborted(why)) => why,
        other => panic!("not aborted: {other:?}"),
    }
}

/// The rule that a name of a transaction breaks.
fn no_transaction<T: Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::InvalidArgument { field, rule, .. }) if field == "transaction" => rule,
        other => panic!("not refused as a transaction: {other:?}"),
    }
}

fn opened<T>(answer: std::result::Result<Response<T>, Status>) -> Result<T> {
    answer.map(Response::into_inner).map_err(|status| error_from_status(&status))
}

fn message(id: &str, to: &str) -> Message {
    Message { id: id.into(), from: "a".into(), to: to.into(), content: "hello".into(), timestamp: 1, large: None }
}

/// What it has written it reads, in every way of reading, before anybody else does; and all of it is there at one revision
/// afterwards.
pub async fn its_own_writes_are_read_and_committed_at_one_revision(client: &Client) {
    for isolation in LEVELS {
        let name = unique("held");
        let open = client.begin_held(isolation).await.unwrap();
        let (kv, outside) = (open.kv(&name), client.kv(&name));
        assert_eq!(kv.set(set("b", 2).attributes("{\"by\":1}")).await.unwrap().version, 0);
        kv.set_many(vec![set("a", 1), set("c", 3)]).await.unwrap();
        open.state().put(&name, "state").await.unwrap();
        open.node_state().save(&name, &json!({ "up": true })).await.unwrap();
        open.routes().save(&name, &7).await.unwrap();
        open.config().save(&name, "text").await.unwrap();
        open.messages().store(message(&name, &name)).await.unwrap();
        open.group_log(&name).append(1, 5, "1").await.unwrap();

        assert_eq!(number(&kv, "b").await, 2);
        let found = kv.get("b").await.unwrap().metadata;
        assert_eq!((found.version, found.mod_revision, found.attributes.as_deref()), (1, u64::MAX, Some("{\"by\":1}")));
        assert_eq!(kv.list_all("*").await.unwrap(), ["a", "b", "c"]);
        assert_eq!(kv.count().await.unwrap(), 3);
        let (values, missing) = kv.get_many(vec!["c".into(), "x".into()]).await.unwrap();
        assert_eq!((values.len(), missing), (1, vec!["x".to_owned()]));
        assert!(open.namespaces().list_all().await.unwrap().iter().any(|found| found.name == name));
        assert_eq!(open.state().list_all(&name).await.unwrap().len(), 1);
        assert_eq!(open.routes().get(&name).await.unwrap().value.raw(), "7");
        assert_eq!(open.config().list_all_keys(&name).await.unwrap(), std::slice::from_ref(&name));
        let to = MessageFilter { to: Some(name.clone()), ..MessageFilter::default() };
        assert_eq!(open.messages().list_all(to.clone()).await.unwrap()[0].value.id, name);
        assert_eq!(open.group_log(&name).get(5, None).await.unwrap().stored.value.raw(), "1");
        assert_missing(outside.get("a").await, "namespace", &name);
        assert_missing(client.state().get(&name).await, "state", &name);
        assert_eq!(client.messages().list_all(to).await.unwrap(), []);

        let revision = open.commit().await.unwrap().revision;
        for key in ["a", "b", "c"] {
            let found = outside.get(key).await.unwrap().metadata;
            assert_eq!((found.version, found.create_revision, found.mod_revision), (1, revision, revision));
        }
        assert_eq!(client.state().get(&name).await.unwrap().mod_revision, revision);
        assert_eq!(client.node_state().get(&name).await.unwrap().mod_revision, revision);
        assert_eq!(client.routes().get(&name).await.unwrap().mod_revision, revision);
        assert_eq!(client.config().get(&name).await.unwrap().mod_revision, revision);
        assert_eq!(client.messages().get(&name).await.unwrap().mod_revision, revision);
        assert_eq!(client.group_log(&name).get(5, Some(1)).await.unwrap().stored.mod_revision, revision);
    }
}

/// Of several writes of a key the last counts, and conditions are asked of what the transaction sees.
pub async fn writes_follow_each_other_as_outside(client: &Client) {
    for isolation in LEVELS {
        let name = unique("held");
        let outside = client.kv(&name);
        client.namespaces().create(&name, "{}", NamespaceSettings { history: 5, ..Default::default() }).await.unwrap();
        outside.set(set("old", 1).attributes("{\"kept\":true}")).await.unwrap();
        outside.set(set("gone", 1).attributes("{}")).await.unwrap();
        let open = client.begin_held(isolation).await.unwrap();
        let kv = open.kv(&name);

        kv.set(set("new", 1).create()).await.unwrap();
        let again = kv.set(set("new", 2).create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { kind: "value", .. })), "{again:?}");
        kv.set(set("new", 3).only_if(Condition::ModRevision(u64::MAX))).await.unwrap();
        let unmet = kv.set(set("new", 4).only_if(Condition::Missing)).await;
        assert!(matches!(unmet, Err(Error::ConditionFailed(_))), "{unmet:?}");
        assert_eq!(number(&kv, "new").await, 3);
        assert_eq!(kv.get("new").await.unwrap().metadata.version, 1, "what will be committed is written once");

        assert!(kv.delete("gone").await.unwrap());
        assert!(!kv.delete("gone").await.unwrap());
        assert_missing(kv.get("gone").await, "value", &format!("gone in namespace {name}"));
        kv.set(set("gone", 9)).await.unwrap();
        assert_eq!(kv.metadata("gone").await.unwrap().attributes.as_deref(), Some("{}"));
        assert_eq!(kv.metadata("gone").await.unwrap().attributes_revision, 0, "they went with what they were of");

        kv.set(set("old", 2)).await.unwrap();
        kv.set_metadata("old", "{\"seen\":1}", true).await.unwrap();
        kv.set(set("old", 5)).await.unwrap();
        let numbers = |versions: Vec<Version>| -> Vec<String> {
            let shown = versions.into_iter().map(|version| match version {
                Version::Value(entry) => entry.value.parse::<i64>().unwrap().to_string(),
                Version::Deleted { .. } => "deleted".into(),
            });
            shown.collect()
        };
        assert_eq!(numbers(kv.history("old").await.unwrap()), ["5", "1"], "one write, however often it was written");
        assert!(kv.delete_many(vec!["new".into(), "never".into()]).await.unwrap()[0].1);
        assert_missing(open.state().delete(&name).await, "state", &name);

        let revision = open.commit().await.unwrap().revision;
        assert_eq!(numbers(outside.history("old").await.unwrap()), ["5", "1"]);
        let old = outside.get("old").await.unwrap().metadata;
        assert_eq!((old.version, old.mod_revision), (2, revision));
        assert_eq!(old.attributes.as_deref(), Some("{\"kept\":true,\"seen\":1}"));
        let gone = outside.get("gone").await.unwrap();
        assert_eq!((gone.value, gone.metadata.attributes_revision), (Value::Json("9".into()), 0));
        assert!(!outside.has("new").await.unwrap());
    }
}

/// A namespace that a transaction creates and changes is its own until it is committed.
pub async fn namespaces_are_created_in_a_transaction(client: &Client) {
    let name = unique("held");
    let open = begin(client).await;
    open.namespaces().create(&name, "{\"by\":1}", NamespaceSettings::default()).await.unwrap();
    let twice = open.namespaces().create(&name, "{}", NamespaceSettings::default()).await;
    assert!(matches!(twice, Err(Error::AlreadyExists { kind: "namespace", .. })), "{twice:?}");
    let kv = open.kv(&name);
    kv.set(set("a", 1)).await.unwrap();
    let bounded = NamespaceChange { max_entries: Some(2), history: Some(3), ..NamespaceChange::default() };
    open.namespaces().modify(&name, bounded).await.unwrap();
    kv.set(set("b", 1)).await.unwrap();
    let full = kv.set(set("c", 1)).await;
    assert!(matches!(&full, Err(Error::Refused(why)) if why.contains("at most 2 values")), "{full:?}");
    let shown = open.namespaces().show(&name).await.unwrap();
    assert_eq!((shown.entries, shown.settings.history), (2, 3));
    let other = unique("held");
    open.kv(&other).set(set("x", 1)).await.unwrap();
    assert_missing(client.namespaces().show(&name).await, "namespace", &name);
    open.commit().await.unwrap();
    let shown = client.namespaces().show(&name).await.unwrap();
    assert_eq!((shown.entries, shown.settings.history, shown.settings.max_entries), (2, 3, 2));
    assert_eq!(number(&client.kv(&other), "x").await, 1);

    // Two that create at once cannot both have the number.
    let (left, right) = (begin(client).await, begin(client).await);
    left.kv(unique("held")).set(set("x", 1)).await.unwrap();
    right.kv(unique("held")).set(set("x", 1)).await.unwrap();
    left.commit().await.unwrap();
    let why = aborted(right.commit().await);
    assert!(why.contains("namespaces was changed by others"), "{why}");
}

/// A bound that others have reached is found at the commit, by name.
pub async fn a_namespace_that_others_filled_refuses_the_commit(client: &Client) {
    let name = unique("held");
    let bounded = NamespaceSettings { max_entries: 1, ..NamespaceSettings::default() };
    client.namespaces().create(&name, "{}", bounded).await.unwrap();
    let open = begin(client).await;
    open.kv(&name).set(set("mine", 1)).await.unwrap();
    client.kv(&name).set(set("theirs", 1)).await.unwrap();
    let id = open.id().to_owned();
    let refused = open.commit().await;
    assert!(
        matches!(&refused, Err(Error::Refused(why)) if why.contains(&name) && why.contains("1 values")),
        "{refused:?}"
    );
    assert!(aborted(client.commit_held(&id).await).contains("refused"));
    assert!(!client.kv(&name).has("mine").await.unwrap());
}

/// All reads show one revision, whatever others write meanwhile.
pub async fn a_serializable_one_reads_one_revision(client: &Client) {
    let name = unique("held");
    let kv = client.kv(&name);
    kv.set_many(vec![set("a", 1), set("b", 1)]).await.unwrap();
    let open = begin(client).await;
    kv.set_many(vec![set("a", 2), set("c", 2)]).await.unwrap();
    kv.delete("b").await.unwrap();
    let inside = open.kv(&name);
    assert_eq!((number(&inside, "a").await, number(&inside, "b").await), (1, 1));
    assert_eq!(inside.list_all("*").await.unwrap(), ["a", "b"]);
    assert_eq!(inside.count().await.unwrap(), 2);
    assert!(!inside.has("c").await.unwrap());
    let page = inside.list(KeyFilter { limit: Some(1), ..KeyFilter::default() }).await.unwrap();
    assert_eq!(page.revision, open.revision());
    // One that only reads has happened at the revision that it read.
    let revision = open.revision();
    assert_eq!(open.commit().await.unwrap().revision, revision);
}

/// What was read must be as it was read: no lost update, no write skew, no phantom; and the answer says what it was.
pub async fn what_others_changed_aborts_by_name(client: &Client) {
    let name = unique("held");
    let kv = client.kv(&name);
    let in_namespace = |key: &str| format!("{key} in namespace {name} was changed by others");
    kv.set_many(vec![set("x", 0), set("y", 0), set("list/1", 0)]).await.unwrap();

    let open = begin(client).await;
    let before = number(&open.kv(&name), "x").await;
    open.kv(&name).set(set("x", before + 1)).await.unwrap();
    kv.set(set("x", 7)).await.unwrap();
    assert!(aborted(open.commit().await).contains(&in_namespace("x")), "a lost update");
    assert_eq!(number(&kv, "x").await, 7);

    let (left, right) = (begin(client).await, begin(client).await);
    for open in [&left, &right] {
        number(&open.kv(&name), "x").await;
        number(&open.kv(&name), "y").await;
    }
    left.kv(&name).set(set("x", 2)).await.unwrap();
    right.kv(&name).set(set("y", 2)).await.unwrap();
    left.commit().await.unwrap();
    assert!(aborted(right.commit().await).contains(&in_namespace("x")), "write skew");

    let target = unique("target");
    let begin = async || {
        let open = begin(client).await;
        open.state().put(&target, "written").await.unwrap();
        open
    };
    let open = begin().await;
    assert_eq!(open.kv(&name).list_all("list/*").await.unwrap().len(), 1);
    kv.set(set("list/2", 0)).await.unwrap();
    assert!(aborted(open.commit().await).contains(&in_namespace("list/2")), "a phantom");

    let open = begin().await;
    assert_eq!(open.kv(&name).list_all("list/*").await.unwrap().len(), 2);
    kv.delete("list/1").await.unwrap();
    assert!(aborted(open.commit().await).contains("list of values"), "a phantom that goes");

    let open = begin().await;
    assert!(!open.kv(&name).has("new").await.unwrap());
    kv.set(set("new", 0)).await.unwrap();
    assert!(aborted(open.commit().await).contains(&in_namespace("new")), "one that was not there");

    let open = begin().await;
    assert_eq!(open.kv(&name).count().await.unwrap(), 4);
    kv.delete("new").await.unwrap();
    assert!(aborted(open.commit().await).contains("list of values"), "a count");

    let open = begin().await;
    assert!(!open.kv(&name).delete("late").await.unwrap());
    kv.set(set("late", 0)).await.unwrap();
    assert!(aborted(open.commit().await).contains(&in_namespace("late")), "an answer of a deletion");

    let open = begin().await;
    let to = MessageFilter { to: Some(name.clone()), ..MessageFilter::default() };
    assert_eq!(open.messages().list_all(to).await.unwrap(), []);
    client.messages().store(message(&name, &name)).await.unwrap();
    assert!(aborted(open.commit().await).contains("list of messages"), "a message that was not there");

    let open = begin().await;
    assert_missing(open.state().get(&name).await, "state", &name);
    client.state().put(&name, "x").await.unwrap();
    assert!(aborted(open.commit().await).contains(&format!("state {name} was changed")), "a state that was not there");

    let open = begin().await;
    open.kv(&name).set(set("x", 9)).await.unwrap();
    assert_eq!(open.kv(&name).get("x").await.unwrap().metadata.version, 4, "it shows what it is written over");
    kv.set(set("x", 10)).await.unwrap();
    assert!(aborted(open.commit().await).contains(&in_namespace("x")), "a version that others have taken");

    let open = begin().await;
    open.kv(&name).set(set("x", 11)).await.unwrap();
    client.namespaces().delete(&name, true).await.unwrap();
    assert!(aborted(open.commit().await).contains(&format!("namespace {name} was changed")), "a namespace that went");
    assert_missing(client.state().get(&target).await, "state", &target);
}

/// Who only writes stands in nobody's way, nor who reads something else.
pub async fn what_was_not_read_does_not_abort(client: &Client) {
    let name = unique("held");
    let kv = client.kv(&name);
    kv.set_many(vec![set("x", 0), set("y", 0)]).await.unwrap();
    let open = begin(client).await;
    number(&open.kv(&name), "y").await;
    open.kv(&name).set(set("x", 1)).await.unwrap();
    open.state().put(&name, "mine").await.unwrap();
    kv.set(set("x", 2)).await.unwrap();
    kv.set(set("z", 2)).await.unwrap();
    client.state().put(&name, "theirs").await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(number(&kv, "x").await, 1);
    assert_eq!(kv.get("x").await.unwrap().metadata.version, 3);
    assert_eq!(client.state().get(&name).await.unwrap().value, "mine");
}

/// Read-committed sees what others commit, and loses updates; what a write was decided on must hold all the same.
pub async fn read_committed_checks_what_writes_were_decided_on(client: &Client) {
    for isolation in [Isolation::ReadCommitted, Isolation::ReadUncommitted] {
        let name = unique("held");
        let kv = client.kv(&name);
        kv.set_many(vec![set("x", 1), set("y", 1)]).await.unwrap();
        let (left, right) = (client.begin_held(isolation).await.unwrap(), client.begin_held(isolation).await.unwrap());
        left.kv(&name).set(set("x", 5)).await.unwrap();
        assert_eq!(number(&right.kv(&name), "x").await, 1, "what is not committed is not seen");
        left.commit().await.unwrap();
        assert_eq!(number(&right.kv(&name), "x").await, 5);
        right.kv(&name).set(set("mine", 1)).await.unwrap();
        kv.set(set("theirs", 1)).await.unwrap();
        kv.set(set("mine", 7).attributes("{}")).await.unwrap();
        assert_eq!(right.kv(&name).list_all("*").await.unwrap(), ["mine", "theirs", "x", "y"]);
        assert_eq!(number(&right.kv(&name), "mine").await, 1);
        right.kv(&name).set(set("x", 6)).await.unwrap();
        kv.set(set("x", 100)).await.unwrap();
        right.commit().await.unwrap();
        assert_eq!(number(&kv, "x").await, 6, "an update was lost, as this isolation allows");

        let (left, right) = (client.begin_held(isolation).await.unwrap(), client.begin_held(isolation).await.unwrap());
        for (open, key) in [(&left, "x"), (&right, "y")] {
            number(&open.kv(&name), "x").await;
            number(&open.kv(&name), "y").await;
            open.kv(&name).set(set(key, 0)).await.unwrap();
        }
        left.commit().await.unwrap();
        right.commit().await.expect("write skew, as this isolation allows");

        let open = client.begin_held(isolation).await.unwrap();
        let at = open.kv(&name).get("x").await.unwrap().metadata.mod_revision;
        open.kv(&name).set(set("x", 8).only_if(Condition::ModRevision(at))).await.unwrap();
        kv.set(set("x", 9)).await.unwrap();
        assert!(aborted(open.commit().await).contains(&format!("x in namespace {name}")), "a condition");
        let open = client.begin_held(isolation).await.unwrap();
        open.kv(&name).set(set("fresh", 1).create()).await.unwrap();
        kv.set(set("fresh", 2)).await.unwrap();
        assert!(aborted(open.commit().await).contains(&format!("fresh in namespace {name}")), "a creation");
        let open = client.begin_held(isolation).await.unwrap();
        open.messages().store(message(&name, &name)).await.unwrap();
        client.messages().store(message(&name, "another")).await.unwrap();
        let to = |name: &str| MessageFilter { to: Some(name.into()), ..MessageFilter::default() };
        assert_eq!(open.messages().list_all(to(&name)).await.unwrap().len(), 1, "laid over what others wrote");
        assert_eq!(
            open.messages().list_all(to("another")).await.unwrap().iter().filter(|m| m.value.id == name).count(),
            0
        );
        open.rollback().await.unwrap();
        client.messages().delete(&name).await.unwrap();
    }
}

/// Dropped or rolled back it has written nothing, and its name means nothing more.
pub async fn a_rollback_leaves_nothing(client: &Client) {
    let name = unique("held");
    let open = begin(client).await;
    open.kv(&name).set(set("x", 1)).await.unwrap();
    open.state().put(&name, "x").await.unwrap();
    let (id, kv) = (open.id().to_owned(), open.kv(&name));
    open.rollback().await.unwrap();
    client.rollback_held(&id).await.expect("asked twice it is as rolled back");
    assert!(no_transaction(kv.set(set("x", 1)).await).contains("it has been rolled back"));
    assert!(no_transaction(kv.get("x").await).contains("it has been rolled back"));
    assert!(no_transaction(client.commit_held(&id).await).contains("it has been rolled back"));
    let open = begin(client).await;
    open.state().put(&name, "x").await.unwrap();
    drop(open);
    assert_missing(client.state().get(&name).await, "state", &name);
    assert_missing(client.namespaces().show(&name).await, "namespace", &name);
}

/// One that is finished, was never begun, or is no name at all: each is told.
pub async fn names_that_mean_nothing_are_refused(client: &Client) {
    let name = unique("held");
    let open = begin(client).await;
    let (id, kv) = (open.id().to_owned(), open.kv(&name));
    kv.set(set("x", 1)).await.unwrap();
    let revision = open.commit().await.unwrap().revision;
    let committed = format!("Invalid transaction id: it has been committed, at revision {revision}");
    assert_eq!(no_transaction(kv.set(set("x", 2)).await), committed);
    assert_eq!(no_transaction(kv.get("x").await), committed);
    assert_eq!(no_transaction(client.commit_held(&id).await), committed);
    assert_eq!(no_transaction(client.rollback_held(&id).await), committed);
    assert_eq!(number(&client.kv(&name), "x").await, 1);

    let other = format!("{}{}", &id[..id.len() - 4], if id.ends_with("0000") { "1111" } else { "0000" });
    for id in [other.as_str(), "nothing", "", "tx-1-1-xyz"] {
        for answer in [
            client.commit_held(id).await.map(drop),
            client.rollback_held(id).await,
            client.inside(id).unwrap().state().put(&name, "x").await.map(drop),
        ] {
            assert!(no_transaction(answer).starts_with("Invalid transaction id"), "{id}");
        }
    }
    assert_missing(client.state().get(&name).await, "state", &name);
    let mut storage = StorageClient::new(leader(client).await);
    let unknown = opened(storage.begin_transaction(BeginTransactionRequest { isolation: 9, timeout_ms: 0 }).await);
    assert_eq!(invalid_field(unknown), "isolation");
    let long = limits::TRANSACTION_TIMEOUT_MAX_MS + 1;
    let long = opened(storage.begin_transaction(BeginTransactionRequest { isolation: 0, timeout_ms: long }).await);
    assert_eq!(invalid_field(long), "timeout_ms");
}

/// What cannot be part of a transaction says so, and is not done beside it; the transaction goes on.
pub async fn calls_that_cannot_belong_are_refused_by_name(client: &Client) {
    let name = unique("held");
    let open = begin(client).await;
    open.kv(&name).set(set("x", 1)).await.unwrap();
    let inside = open.client();
    let refusals = [
        ("Storage/Clear", inside.kv(&name).clear().await.map(drop)),
        ("Storage/DeleteNamespace", inside.namespaces().delete(&name, true).await.map(drop)),
        ("Storage/GetStatus", inside.namespaces().status().await.map(drop)),
        ("Cluster/Status", inside.cluster().status(false).await.map(drop)),
        ("ConsensusLog/AppendToRaft", inside.raft_log().append("1").await.map(drop)),
        (
            "Mesh/Transact",
            inside.commit(meshstore::client::Transaction::default().put_state(&name, "x")).await.map(drop),
        ),
    ];
    for (call, answer) in refusals {
        assert_eq!(answer, Err(Error::Refused(format!("{call} cannot be part of a transaction"))));
    }
    let stale = inside.clone().with_read(ReadMode::Stale(Duration::from_secs(5)));
    assert_eq!(invalid_field(stale.kv(&name).get("x").await), "read.mode");
    let later = inside.clone().with_read(ReadMode::AtLeast(u64::MAX));
    assert_eq!(invalid_field(later.state().get("x").await), "read.mode");
    open.commit().await.unwrap();
    assert_eq!(number(&client.kv(&name), "x").await, 1);
}

/// Time is over when it was said to be, and then nothing is written.
pub async fn a_transaction_ends_when_its_time_is_over(client: &Client) {
    let name = unique("held");
    let open = client.begin_held_for(Isolation::Serializable, Duration::from_millis(100)).await.unwrap();
    assert_eq!(open.expires_in(), Duration::from_millis(100));
    let why = loop {
        match open.state().put(&name, "x").await {
            Ok(_) => {}
            Err(Error::TransactionAborted(why)) => break why,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(why, "it timed out after 100 ms; nothing of it was written");
    assert_eq!(aborted(open.state().get(&name).await), why);
    assert_eq!(aborted(open.clone().commit().await), why);
    assert_missing(client.state().get(&name).await, "state", &name);
    assert_eq!(begin(client).await.expires_in(), Duration::from_secs(30));
}

/// So many are open and no more, and those that end make room.
pub async fn open_transactions_are_bounded(client: &Client) {
    let mut storage = StorageClient::new(leader(client).await);
    let mut ids = Vec::new();
    let why = loop {
        let request = BeginTransactionRequest { isolation: 1, timeout_ms: 60_000 };
        match opened(storage.begin_transaction(request).await) {
            Ok(begun) => ids.push(begun.transaction),
            Err(Error::ResourceExhausted { reason, .. }) => break reason,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(ids.len() <= limits::OPEN_TRANSACTIONS_PER_PRINCIPAL && why.contains("256 transactions"), "{why}");
    for transaction in ids {
        opened(storage.rollback(RollbackTransactionRequest { transaction }).await).unwrap();
    }
    begin(client).await.rollback().await.unwrap();
}

/// Too much is refused at the call that is too much; what is in it already can still be committed.
pub async fn what_a_transaction_holds_is_bounded(client: &Client) {
    let name = unique("held");
    let open = begin(client).await;
    let kv = open.kv(&name);
    let large = || Value::Bytes(vec![7; limits::VALUE_BYTES - 100].into());
    for key in ["1", "2", "3"] {
        kv.set(Set::new(key, large())).await.unwrap();
    }
    kv.set(Set::new("3", large())).await.expect("written again it takes no more");
    kv.set(Set::new("4", Value::Bytes(vec![7; limits::VALUE_BYTES - 8_000].into()))).await.unwrap();
    assert_eq!(invalid_field(kv.set(Set::new("5", large())).await), "transaction");
    open.commit().await.unwrap();
    assert_eq!(client.kv(&name).count().await.unwrap(), 4);
    let open = begin(client).await;
    let sets = |part: usize| (0..1_024).map(|n| set(&format!("{part}-{n}"), 1)).collect::<Vec<_>>();
    for part in 0..4 {
        open.kv(&name).set_many(sets(part)).await.unwrap();
    }
    assert_eq!(invalid_field(open.kv(&name).set(set("one more", 1)).await), "transaction");
    assert_eq!(open.kv(&name).count().await.unwrap(), 4_100);
    open.commit().await.unwrap();
    assert_eq!(client.kv(&name).count().await.unwrap(), 4_100);
    let open = begin(client).await;
    let mut refused = None;
    'all: for part in 0..5 {
        for hundred in 0..11 {
            let keys = (0..100).map(|n| format!("{part}-{}", hundred * 100 + n)).collect();
            if let Err(error) = open.kv(&name).get_many(keys).await {
                refused = Some(error);
                break 'all;
            }
        }
    }
    assert!(matches!(refused, Some(Error::Refused(why)) if why.contains("reads more than can be checked")));
}

/// A repeated commit is answered as the first, also when the transaction is no longer known; and one that did nothing never
/// will.
pub async fn a_repeated_commit_answers_as_the_first(client: &Client) {
    let name = unique("held");
    let wire = leader(client).await;
    let (session, mut storage) = (session(&wire).await, StorageClient::new(wire));
    let mut commit = async |sequence, attempt, transaction: &str| {
        let attempt = Some(Attempt { session, sequence, answered_below: 1, attempt });
        let request = CommitTransactionRequest { attempt, transaction: transaction.into() };
        opened(storage.commit(request).await).map(|written| written.revision)
    };
    let open = begin(client).await;
    open.kv(&name).set(set("x", 1)).await.unwrap();
    let first = commit(1, 1, open.id()).await.unwrap();
    assert_eq!(commit(1, 2, open.id()).await, Ok(first));
    client.kv(&name).set(set("x", 2)).await.unwrap();
    assert_eq!(commit(1, 3, open.id()).await, Ok(first));
    assert!(
        no_transaction(commit(2, 1, open.id()).await).contains("has been committed"),
        "another call is no repetition"
    );
    assert_eq!(number(&client.kv(&name), "x").await, 2);

    // One of another leader: whether an earlier attempt was executed is asked of the state, and decided for good.
    let of_another = format!("tx-9-1-{:032x}", 7);
    assert!(aborted(commit(3, 1, &of_another).await).contains("lost with its leader; nothing of it was written"));
    assert!(aborted(commit(4, 2, &of_another).await).contains("lost with its leader; nothing of it was written"));
    assert_eq!(commit(1, 4, &of_another).await, Ok(first), "the call is known, whatever it names");
    let why = aborted(client.inside(&of_another).unwrap().state().get("x").await);
    assert!(why.contains("lost with its leader"), "{why}");

    let (racing, reading) = (begin(client).await, begin(client).await);
    let before = number(&racing.kv(&name), "x").await;
    racing.kv(&name).set(set("x", before + 1)).await.unwrap();
    number(&reading.kv(&name), "x").await;
    client.kv(&name).set(set("x", 5)).await.unwrap();
    let why = aborted(commit(5, 1, racing.id()).await);
    assert_eq!(aborted(commit(5, 2, racing.id()).await), why);
    let at = commit(6, 1, reading.id()).await.unwrap();
    assert_eq!(commit(6, 2, reading.id()).await, Ok(at));
    assert_eq!(number(&client.kv(&name), "x").await, 5);
}

/// A call that is repeated in a transaction is done once.
pub async fn a_repeated_call_in_a_transaction_is_done_once(client: &Client) {
    let name = unique("held");
    let wire = leader(client).await;
    let (session, mut storage) = (session(&wire).await, StorageClient::new(wire));
    let open = begin(client).await;
    let mut create = async |sequence, attempt| {
        let attempt = Some(Attempt { session, sequence, answered_below: 1, attempt });
        let set = Some(set("x", 1).create().into());
        let request = meshstore::proto::v1::StorageSetRequest { attempt, namespace: name.clone(), set };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("meshstore-transaction", open.id().parse().unwrap());
        opened(storage.set(request).await)
    };
    let first = create(1, 1).await.unwrap();
    assert_eq!(create(1, 2).await, Ok(first));
    assert!(matches!(create(2, 1).await, Err(Error::AlreadyExists { .. })));
    assert!(matches!(create(2, 2).await, Err(Error::AlreadyExists { .. })));
    open.commit().await.unwrap();
    assert_eq!(client.kv(&name).get("x").await.unwrap().metadata.version, 1);
}

/// Any node takes calls of a transaction, and passes them on to who keeps it.
pub async fn a_transaction_is_reached_through_every_node(client: &Client) {
    let name = unique("held");
    let open = begin(client).await;
    let members = client.cluster().status(false).await.unwrap().members;
    for member in &members {
        let pinned = client.clone().pin(&member.client_address).unwrap().inside(open.id()).unwrap();
        let key = member.node_id.to_string();
        pinned.kv(&name).set(set(&key, 1)).await.unwrap();
        assert_eq!(number(&pinned.kv(&name), &key).await, 1);
        pinned.state().put(&format!("{name}{key}"), "x").await.unwrap();
        assert!(pinned.state().get(&format!("{name}{key}")).await.is_ok());
    }
    assert_missing(client.namespaces().show(&name).await, "namespace", &name);
    client.clone().pin(&members[0].client_address).unwrap().commit_held(open.id()).await.unwrap();
    assert_eq!(client.kv(&name).count().await.unwrap(), members.len() as u64);
}

/// Another principal's transaction is as none.
pub async fn a_transaction_is_whose_it_is(client: &Client) {
    let address = client.cluster().status(false).await.unwrap().members[0].client_address.clone();
    // Without TLS all are one.
    let Some(stranger) = harness::stranger(&address).await else { return };
    let name = unique("held");
    let open = begin(client).await;
    open.state().put(&name, "x").await.unwrap();
    let mut storage = StorageClient::new(stranger);
    let transaction = open.id().to_owned();
    let rolled = opened(storage.rollback(RollbackTransactionRequest { transaction: transaction.clone() }).await);
    assert!(no_transaction(rolled).contains("names no open transaction of yours"));
    let committed = opened(storage.commit(CommitTransactionRequest { attempt: None, transaction }).await);
    assert!(no_transaction(committed).contains("names no open transaction of yours"));
    open.commit().await.unwrap();
}

/// Money that is moved at once by many is neither made nor lost, and no reader ever sees another sum.
pub async fn many_transfers_at_once_keep_the_sum(client: &Client) {
    const ACCOUNTS: usize = 4;
    let name = unique("held");
    let account = |n: usize| format!("account/{}", n % ACCOUNTS);
    client.kv(&name).set_many((0..ACCOUNTS).map(|n| set(&account(n), 100)).collect()).await.unwrap();
    let sum = async |open: &HeldTransaction| {
        let kv = open.kv(&name);
        let mut sum = 0;
        for key in kv.list_all("account/*").await? {
            sum += kv.get(&key).await?.value.parse::<i64>()?;
        }
        Ok::<i64, Error>(sum)
    };
    let sum = &sum;
    let transfers = (0..12).map(|n| {
        let (name, account) = (&name, &account);
        client.transact_held(Isolation::Serializable, move |open| async move {
            let (kv, amount) = (open.kv(name), 1 + n as i64);
            let from = kv.get(&account(n)).await?.value.parse::<i64>()?;
            let to = kv.get(&account(n + 1)).await?.value.parse::<i64>()?;
            kv.set(set(&account(n), from - amount)).await?;
            kv.set(set(&account(n + 1), to + amount)).await?;
            Ok(())
        })
    });
    let readers = (0..4).map(|_| client.transact_held(Isolation::Serializable, |open| async move { sum(&open).await }));
    let (moved, seen) = tokio::join!(join_all(transfers), join_all(readers));
    assert!(moved.into_iter().all(|moved| moved.is_ok()));
    assert!(seen.into_iter().all(|seen| seen == Ok(400)));
    let open = begin(client).await;
    assert_eq!(sum(&open).await, Ok(400));
}

/// Calls of one transaction that come at once wait for each other, and none is lost; lists have pages.
pub async fn calls_of_one_transaction_wait_for_each_other(client: &Client) {
    let name = unique("held");
    let open = begin(client).await;
    let kv = open.kv(&name);
    let written = join_all((0..20).map(|n| {
        let kv = &kv;
        async move { kv.set(set(&format!("{n:02}"), n)).await }
    }));
    assert!(written.await.into_iter().all(|written| written.is_ok()));
    let mut filter = KeyFilter { limit: Some(7), ..KeyFilter::default() };
    let mut keys = Vec::new();
    loop {
        let page = kv.list(filter.clone()).await.unwrap();
        keys.extend(page.items);
        if page.next_cursor.is_empty() {
            break;
        }
        filter.cursor = page.next_cursor;
    }
    assert_eq!(keys, (0..20).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    let page = open.state().list(&name, PageRequest { limit: 1, cursor: String::new() }).await.unwrap();
    assert_eq!(page.items, []);
    open.commit().await.unwrap();
    assert_eq!(client.kv(&name).count().await.unwrap(), 20);
}

/// A query sees what waits, through an index too; and what it did not find must still not be there.
pub async fn queries_see_what_waits_and_are_checked(client: &Client) {
    let name = unique("held");
    let kv = client.kv(&name);
    let person = |key: &str, age: u32| Set::new(key, Value::Json(json!({ "age": age }).to_string()));
    kv.set(person("ada", 36)).await.unwrap();
    kv.create_index("age", vec![SortField::ascending("age")]).await.unwrap();
    let adults = Filter::parse(r#"{"field":"age","operator":"gte","value":18}"#).unwrap();
    let open = begin(client).await;
    open.kv(&name).set(person("bob", 20)).await.unwrap();
    open.kv(&name).set(person("ada", 17)).await.unwrap();
    let found = open.kv(&name).query(adults.clone()).all().await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["bob"]);
    assert_eq!(open.kv(&name).count_where(adults.clone()).await.unwrap(), 1);
    kv.set(person("cid", 50)).await.unwrap();
    aborted(open.commit().await);
    let found = kv.query(adults).all().await.unwrap();
    assert_eq!(found.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["ada", "cid"]);
}

/// A commit that carries the token of a lock is refused once the lock is lost, whatever was done inside.
pub async fn a_commit_heeds_its_fence(client: &Client) {
    let (lock, key) = (unique("lock"), unique("held"));
    let held = client.lock(&lock).acquire(Duration::from_secs(60)).await.unwrap();
    let fence = held.fence();
    let begun = || client.begin_held_id(Isolation::Serializable, Duration::from_secs(30));
    let (kept, late, empty) = (begun().await.unwrap().id, begun().await.unwrap().id, begun().await.unwrap().id);
    client.inside(&kept).unwrap().state().put(&key, "1").await.unwrap();
    client.with_fence(fence.clone()).commit_held(&kept).await.unwrap();
    client.inside(&late).unwrap().state().put(&key, "2").await.unwrap();
    held.release().await.unwrap();
    let lost = client.with_fence(fence.clone()).commit_held(&late).await;
    assert!(matches!(lost, Err(Error::Fenced { .. })), "{lost:?}");
    let lost = client.with_fence(fence).commit_held(&empty).await;
    assert!(matches!(lost, Err(Error::Fenced { .. })), "{lost:?}");
    assert_eq!(client.state().get(&key).await.unwrap().value, "1");
}
