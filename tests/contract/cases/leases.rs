//! Leases: what is attached to one goes with it, when it expires or is revoked, and never before.

use std::{collections::BTreeSet, time::Duration};

use meshstore::{
    Client, Error, Result,
    client::{
        AttachedKey, Change, Condition, Isolation, Kept, KeyFilter, LogEntry, Message, NamespaceSettings, PageRequest,
        RecordId, Set, Transaction, Value,
    },
    limits,
    proto::{
        error_from_status,
        v1::{Attempt, GrantLeaseRequest, RevokeLeaseRequest, lease_client::LeaseClient},
    },
};

use super::{assert_missing, invalid_field, leader, locks::hold, session, unique};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

fn refusal<T: std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits until a lease is gone that nobody keeps alive: until another gets the lock that it holds.
async fn until_gone(client: &Client, lease: u64) {
    let name = unique("gone");
    hold(client, &name, lease).await;
    let lock = client.lock(&name).acquire(MINUTE).await.unwrap();
    assert_missing(client.leases().show(lease).await, "lease", &lease.to_string());
    lock.release().await.unwrap();
}

/// Attaches something of every surface, under one name: what it is.
async fn attach_all(client: &Client, lease: u64, name: &str) -> Vec<AttachedKey> {
    let with = client.with_lease(lease);
    with.state().put(name, "1").await.unwrap();
    with.node_state().save_json(name, "2").await.unwrap();
    with.routes().save_json(name, "3").await.unwrap();
    with.config().save_json(name, "4").await.unwrap();
    with.kv(name).set(Set::new(name, json("5")).attributes("{\"a\":1}")).await.unwrap();
    let message = Message { id: name.into(), from: "f".into(), to: "t".into(), ..Message::default() };
    let store = Transaction::default().change(Change::StoreMessage(message).attached_to(lease));
    assert!(client.commit(store).await.unwrap().succeeded);
    let name = name.to_owned();
    let record = AttachedKey::Record;
    vec![
        record(RecordId::Message(name.clone())),
        record(RecordId::State(name.clone())),
        record(RecordId::NodeState(name.clone())),
        record(RecordId::Route(name.clone())),
        record(RecordId::Config(name.clone())),
        AttachedKey::Value { namespace: name.clone(), key: name },
    ]
}

/// How many of those are there.
async fn there(client: &Client, name: &str) -> usize {
    let found = [
        client.messages().get(name).await.is_ok(),
        client.state().get(name).await.is_ok(),
        client.node_state().get(name).await.is_ok(),
        client.routes().get(name).await.is_ok(),
        client.config().get(name).await.is_ok(),
        client.kv(name).get(name).await.is_ok(),
    ];
    found.into_iter().filter(|found| *found).count()
}

pub async fn a_lease_takes_along_what_is_attached_to_it(client: &Client) {
    let (leases, name) = (client.leases(), unique("attached"));
    let id = leases.grant_only(MINUTE, None).await.unwrap();
    let keys = attach_all(client, id, &name).await;
    let other = unique("other");
    client.state().put(&other, "stays").await.unwrap();
    let (lease, attached) = leases.show(id).await.unwrap();
    assert_eq!(attached, keys);
    assert_eq!((lease.id, lease.ttl_ms, lease.version), (id, 60_000, 1));
    assert!(lease.remaining_ms > 0 && lease.remaining_ms <= 60_000, "{lease:?}");
    assert_eq!(there(client, &name).await, 6);
    leases.revoke(id).await.unwrap();
    assert_eq!(there(client, &name).await, 0);
    assert_missing(leases.show(id).await, "lease", &id.to_string());
    assert_missing(leases.revoke(id).await, "lease", &id.to_string());
    assert_missing(leases.keep_alive(id).await, "lease", &id.to_string());
    assert_eq!(client.state().get(&other).await.unwrap().value, "stays");
}

pub async fn a_lease_that_nobody_keeps_expires_with_all_its_keys(client: &Client) {
    let (leases, name) = (client.leases(), unique("expired"));
    let id = leases.grant_only(SECOND, None).await.unwrap();
    attach_all(client, id, &name).await;
    until_gone(client, id).await;
    assert_eq!(there(client, &name).await, 0);
    let dead = client.with_lease(id).state().put(&name, "1").await;
    assert_missing(dead, "lease", &id.to_string());
    assert_eq!(there(client, &name).await, 0);
}

pub async fn a_lease_that_is_kept_outlives_its_time(client: &Client) {
    let (leases, name) = (client.leases(), unique("kept"));
    let kept = leases.grant(SECOND).await.unwrap();
    client.with_lease(kept.id()).state().put(&name, "1").await.unwrap();
    // Another that nobody keeps, and that would live three times as long.
    let measure = leases.grant_only(3 * SECOND, None).await.unwrap();
    until_gone(client, measure).await;
    assert!(!kept.is_lost());
    let (lease, _) = leases.show(kept.id()).await.unwrap();
    assert!(lease.version > 1 && lease.create_revision < lease.mod_revision, "{lease:?}");
    assert_eq!(client.state().get(&name).await.unwrap().value, "1");
    let id = kept.id();
    // Left alone it expires.
    drop(kept);
    until_gone(client, id).await;
    assert_missing(client.state().get(&name).await, "state", &name);
}

pub async fn whoever_keeps_a_lease_is_told_when_it_is_gone(client: &Client) {
    let kept = client.leases().grant(SECOND).await.unwrap();
    client.leases().revoke(kept.id()).await.unwrap();
    kept.lost().await;
    assert!(kept.is_lost());
    kept.revoke().await.unwrap();
}

pub async fn many_leases_are_kept_at_one_revision(client: &Client) {
    let leases = client.leases();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(leases.grant_only(MINUTE, None).await.unwrap());
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 5);
    leases.revoke(ids[4]).await.unwrap();
    let Kept { kept, missing } = leases.keep_all_alive(ids.clone()).await.unwrap();
    let expected: BTreeSet<_> = ids[..4].iter().map(|id| (*id, 60_000)).collect();
    assert_eq!((kept.into_iter().collect::<BTreeSet<_>>(), missing), (expected, vec![ids[4]]));
    let revisions: Vec<u64> = {
        let mut revisions = Vec::new();
        for id in &ids[..4] {
            revisions.push(leases.show(*id).await.unwrap().0.mod_revision);
        }
        revisions
    };
    assert!(revisions.windows(2).all(|pair| pair[0] == pair[1]), "{revisions:?}");
    // The same one twice is one.
    assert_eq!(leases.keep_all_alive(vec![ids[0], ids[0]]).await.unwrap().kept.len(), 1);
    assert_missing(leases.keep_all_alive(vec![ids[4]]).await, "lease", &ids[4].to_string());
    for id in &ids[..4] {
        leases.revoke(*id).await.unwrap();
    }
}

pub async fn leases_are_listed_in_pages(client: &Client) {
    let leases = client.leases();
    let mut ids = BTreeSet::new();
    for _ in 0..7 {
        ids.insert(leases.grant_only(MINUTE, None).await.unwrap());
    }
    let all = leases.list_all().await.unwrap();
    assert!(all.iter().map(|lease| lease.id).is_sorted());
    assert_eq!(all.iter().filter(|lease| ids.contains(&lease.id)).count(), 7);
    let first = leases.list(PageRequest { limit: 3, cursor: String::new() }).await.unwrap();
    assert_eq!(first.items.len(), 3);
    let second = leases.list(PageRequest { limit: 3, cursor: first.next_cursor }).await.unwrap();
    assert!(second.items[0].id > first.items[2].id);
    assert_eq!(second.revision, first.revision);
    for id in ids {
        leases.revoke(id).await.unwrap();
    }
}

pub async fn what_is_overwritten_without_a_lease_stays(client: &Client) {
    let (leases, name) = (client.leases(), unique("detached"));
    let (first, second) =
        (leases.grant_only(MINUTE, None).await.unwrap(), leases.grant_only(MINUTE, None).await.unwrap());
    let keys = attach_all(client, first, &name).await;
    // From one to another.
    client.with_lease(second).state().put(&name, "1").await.unwrap();
    client.kv(&name).set(Set::new(&name, json("1")).attached_to(second)).await.unwrap();
    // To none.
    client.routes().save_json(&name, "1").await.unwrap();
    client.config().save_json(&name, "1").await.unwrap();
    // Attributes are not the value.
    client.kv(&name).set_metadata(&name, "{}", true).await.unwrap();
    assert_eq!(leases.show(first).await.unwrap().1, [keys[0].clone(), keys[2].clone()]);
    assert_eq!(leases.show(second).await.unwrap().1, [keys[1].clone(), keys[5].clone()]);
    leases.revoke(first).await.unwrap();
    assert_eq!(there(client, &name).await, 4);
    leases.revoke(second).await.unwrap();
    assert_eq!(there(client, &name).await, 2);
    assert!(client.routes().get(&name).await.is_ok() && client.config().get(&name).await.is_ok());
}

pub async fn a_lease_holds_so_many_keys_and_no_more(client: &Client) {
    let (leases, namespace) = (client.leases(), unique("many"));
    let id = leases.grant_only(MINUTE, None).await.unwrap();
    let kv = client.kv(&namespace);
    let set = |n: usize| Set::new(format!("{n:04}"), json("1")).attributes("{}").attached_to(id);
    kv.set_many((0..limits::LEASE_KEYS).map(set).collect()).await.unwrap();
    let why = refusal(kv.set(set(limits::LEASE_KEYS)).await);
    assert!(why.contains("at most 400 keys") && why.contains(&id.to_string()), "{why}");
    let state = client.with_lease(id).state();
    let name = unique("too-many");
    refusal(state.put(&name, "1").await);
    assert_missing(client.state().get(&name).await, "state", &name);
    assert_eq!(kv.count().await.unwrap(), limits::LEASE_KEYS as u64);
    // What is detached, or deleted, makes room.
    kv.set(Set::new("0000", json("2"))).await.unwrap();
    kv.delete("0001").await.unwrap();
    state.put(&name, "1").await.unwrap();
    kv.set(set(1)).await.unwrap();
    refusal(kv.set(set(0)).await);
    assert_eq!(leases.show(id).await.unwrap().1.len(), limits::LEASE_KEYS);
    let before = client.last_seen_revision();
    let revision = leases.revoke(id).await.unwrap().revision;
    assert!(revision > before);
    assert_eq!((kv.count().await.unwrap(), kv.list_all("*").await.unwrap()), (1, vec!["0000".to_owned()]));
    assert_missing(client.state().get(&name).await, "state", &name);
}

/// The most that a lease can hold, in keys and in bytes, is gone at one revision.
pub async fn the_heaviest_lease_goes_at_once(client: &Client) {
    let (leases, namespace) = (client.leases(), unique("heavy"));
    client.namespaces().create(&namespace, "{}", NamespaceSettings::default()).await.unwrap();
    let kv = client.kv(&namespace);
    let id = leases.grant_only(MINUTE, None).await.unwrap();
    let text = |bytes: usize| "x".repeat(bytes);
    let value = json(&format!("\"{}\"", text(limits::LEASED_VALUE_BYTES - 2)));
    let attributes = format!("{{\"a\":\"{}\"}}", text(limits::ATTRIBUTES_BYTES - 8));
    for from in (0..limits::LEASE_KEYS).step_by(16) {
        let key = |n: usize| format!("{n:04}{}", text(limits::KEY_BYTES - 4));
        let set = |n| Set::new(key(n), value.clone()).attributes(&attributes).attached_to(id);
        kv.set_many((from..from + 16).map(set).collect()).await.unwrap();
    }
    assert_eq!(kv.count().await.unwrap(), limits::LEASE_KEYS as u64);
    leases.revoke(id).await.unwrap();
    assert_eq!(kv.list(KeyFilter::default()).await.unwrap().items, [""; 0]);
    client.namespaces().delete(&namespace, true).await.unwrap();
}

pub async fn keys_of_a_cleared_namespace_are_no_longer_held(client: &Client) {
    let (leases, namespace) = (client.leases(), unique("cleared"));
    let id = leases.grant_only(MINUTE, None).await.unwrap();
    let kv = client.kv(&namespace);
    let fill = || kv.set_many((0..300).map(|n| Set::new(n.to_string(), json("1")).attached_to(id)).collect());
    for _ in 0..3 {
        fill().await.unwrap();
        assert_eq!(leases.show(id).await.unwrap().1.len(), 300);
        kv.clear().await.unwrap();
        assert_eq!(leases.show(id).await.unwrap().1, []);
    }
    leases.revoke(id).await.unwrap();
}

pub async fn what_is_wrong_with_a_lease_is_named(client: &Client) {
    let (leases, name) = (client.leases(), unique("wrong"));
    for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::from_millis(limits::LEASE_TTL_MAX_MS + 1)] {
        assert_eq!(invalid_field(leases.grant_only(ttl, None).await), "ttl_ms");
    }
    let id = leases.grant_only(MINUTE, None).await.unwrap();
    let taken = Error::AlreadyExists { kind: "lease", name: id.to_string() };
    assert_eq!(leases.grant_only(MINUTE, Some(id)).await, Err(taken));
    assert_eq!(invalid_field(leases.keep_all_alive(vec![]).await), "ids");
    assert_eq!(invalid_field(leases.keep_all_alive(vec![0]).await), "ids");
    assert_eq!(invalid_field(leases.keep_all_alive((1..=1_001).collect()).await), "ids");
    assert_eq!(invalid_field(leases.revoke(0).await), "id");
    assert_eq!(invalid_field(leases.show(0).await), "id");
    // Unknown leases, and values that are too large.
    let unknown = u64::MAX - 7;
    let missing = |answer: Result<_>| assert_missing(answer, "lease", &unknown.to_string());
    missing(client.with_lease(unknown).state().put(&name, "1").await.map(drop));
    missing(client.kv(&name).set(Set::new("k", json("1")).attached_to(unknown)).await.map(drop));
    let large = "x".repeat(limits::LEASED_VALUE_BYTES + 1);
    let with = client.with_lease(id);
    assert_eq!(invalid_field(with.state().put(&name, large.clone()).await), "value");
    assert_eq!(invalid_field(with.kv(&name).set(Set::new("k", Value::Bytes(large.into()))).await), "value");
    with.state().put(&name, "x".repeat(limits::LEASED_VALUE_BYTES)).await.unwrap();
    // In a transaction, with its place; none of it is done.
    let entry =
        Change::AppendEntry { group: name.clone(), entry: LogEntry { term: 1, index: 1, entry_json: "1".into() } };
    for wrong in [entry, Change::Delete(RecordId::State(name.clone()))] {
        let transaction = Transaction::default().put_state("never", "1").change(wrong.attached_to(id));
        assert_eq!(invalid_field(client.commit(transaction).await), "changes[1].lease");
    }
    let put = Change::PutState { key: "never".into(), value: "1".into() }.attached_to(unknown);
    missing(client.commit(Transaction::default().change(put)).await.map(drop));
    assert_missing(client.state().get("never").await, "state", "never");
    // What is not done attaches nothing.
    let unmet = Transaction::default().require(RecordId::State("never".into()), Condition::Exists);
    let put = Change::PutState { key: "never".into(), value: "1".into() }.attached_to(id);
    assert!(!client.commit(unmet.change(put)).await.unwrap().succeeded);
    assert_eq!(leases.show(id).await.unwrap().1, [AttachedKey::Record(RecordId::State(name))]);
    leases.revoke(id).await.unwrap();
}

pub async fn a_repeated_grant_answers_as_the_first(client: &Client) {
    let wire = leader(client).await;
    let session = session(&wire).await;
    let mut leases = LeaseClient::new(wire);
    let place = |sequence, attempt| Some(Attempt { session, sequence, answered_below: 1, attempt });
    let grant = |attempt| GrantLeaseRequest { attempt: place(1, attempt), ttl_ms: 60_000, id: 0 };
    let first = leases.grant(grant(1)).await.unwrap().into_inner();
    let again = leases.grant(grant(2)).await.unwrap().into_inner();
    assert_eq!((first.id, first.revision), (again.id, again.revision));
    assert!(first.id > 0 && first.id < 1 << 53);
    let revoke = |attempt| RevokeLeaseRequest { attempt: place(2, attempt), id: first.id };
    let revoked = leases.revoke(revoke(1)).await.unwrap().into_inner().revision;
    assert_eq!(leases.revoke(revoke(2)).await.unwrap().into_inner().revision, revoked);
    let gone = leases.revoke(RevokeLeaseRequest { attempt: None, id: first.id }).await.unwrap_err();
    assert_eq!(error_from_status(&gone), Error::NotFound { kind: "lease", name: first.id.to_string() });
}

/// Whoever holds as much as may be held can write it again, and more than that at once.
pub async fn what_is_attached_already_counts_once(client: &Client) {
    let name = unique("again");
    let id = client.leases().grant_only(MINUTE, None).await.unwrap();
    let kv = client.with_lease(id).kv(&name);
    let all = |number: usize| {
        let set = |n: usize| Set::new(format!("{n:03}"), json(&number.to_string()));
        (0..limits::LEASE_KEYS).map(set).collect::<Vec<_>>()
    };
    for number in 0..3 {
        kv.set_many(all(number)).await.unwrap();
    }
    kv.set(Set::new("007", json("7"))).await.unwrap();
    client.with_lease(id).state().put(&name, "1").await.expect_err("one more");
    assert_eq!(client.leases().show(id).await.unwrap().1.len(), limits::LEASE_KEYS);
    // What is gone with a namespace counts as long as the lease lives, up to a bound that is told.
    let mut times = 0;
    let why = loop {
        client.kv(&name).clear().await.unwrap();
        match kv.set_many(all(times)).await {
            Ok(_) => times += 1,
            Err(Error::Refused(why)) => break why,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(times >= 6 && why.contains("cleared or deleted") && why.contains("take another lease"), "{times}: {why}");
    client.leases().revoke(id).await.unwrap();
    assert_eq!(client.kv(&name).count().await.unwrap(), 0);
}

/// In a transaction that the leader keeps keys are attached as outside; whoever attaches to the same lease meanwhile is in the way.
pub async fn keys_are_attached_in_transactions(client: &Client) {
    let name = unique("attached");
    let id = client.leases().grant_only(MINUTE, None).await.unwrap();
    client.with_lease(id).state().put(&name, "0").await.unwrap();
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    for key in ["a", "b", "a"] {
        open.client().with_lease(id).kv(&name).set(Set::new(key, json("1"))).await.unwrap();
    }
    open.client().with_lease(id).config().save_json(&name, "1").await.unwrap();
    assert_eq!(client.leases().show(id).await.unwrap().1.len(), 1);
    open.commit().await.unwrap();
    assert_eq!(client.leases().show(id).await.unwrap().1.len(), 4);
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    open.client().with_lease(id).kv(&name).set(Set::new("c", json("1"))).await.unwrap();
    client.with_lease(id).state().put(&unique("attached"), "0").await.unwrap();
    assert!(matches!(open.commit().await, Err(Error::TransactionAborted(_))));
    client.leases().revoke(id).await.unwrap();
    assert_eq!(client.kv(&name).count().await.unwrap(), 0);
    assert_missing(client.config().get(&name).await, "config", &name);
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    let gone = open.client().with_lease(id).kv(&name).set(Set::new("d", json("1"))).await;
    assert_missing(gone, "lease", &id.to_string());
}
