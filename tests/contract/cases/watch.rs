//! Watches: changes as they come, of every kind; what comes first, what stays together, what is told of the rest.

use std::time::Duration;

use meshstore::{
    Client, Error,
    client::{
        Changed, Event, Isolation, Keys, Kv, Message, NamespaceSettings, Set, Stored, Target, Transaction, Value,
        Watch, Watched, Watching,
    },
    limits,
    proto::{
        error_from_status,
        v1::{WatchRequest, watch_client::WatchClient, watch_request, watch_response},
    },
};

use super::{invalid_field, leader, unique};

const LIMIT: Duration = Duration::from_secs(30);

fn json(text: &str) -> Value {
    Value::Json(text.into())
}

fn values(namespace: &str, keys: Keys) -> Target {
    Target::Values { namespace: namespace.into(), keys, attributes: false }
}

/// Marks of progress come often, so that nobody waits long for the end of something.
fn often(watching: Watching) -> Watching {
    watching.progress(Duration::from_millis(limits::WATCH_PROGRESS_MIN_MS))
}

async fn watch(client: &Client, target: Target) -> Watch {
    often(client.watch(target)).start().await.unwrap()
}

async fn next(watch: &mut Watch) -> Event {
    tokio::time::timeout(LIMIT, watch.next()).await.expect("an event").unwrap()
}

/// The next event that is no mark of progress.
pub(super) async fn event(watch: &mut Watch) -> Event {
    loop {
        match next(watch).await {
            Event::Progress { .. } => {}
            event => return event,
        }
    }
}

/// The next transaction.
async fn changes(watch: &mut Watch) -> (u64, Vec<Watched>) {
    match event(watch).await {
        Event::Changes { revision, changes, resynced: false } => (revision, changes),
        other => panic!("no changes: {other:?}"),
    }
}

/// All that is told until everything up to a revision was: each transaction as its revision and what it changed.
async fn until(watch: &mut Watch, revision: u64) -> Vec<(u64, Vec<String>)> {
    let mut told = Vec::new();
    loop {
        match next(watch).await {
            Event::Changes { revision, changes, .. } => told.push((revision, changes.iter().map(text).collect())),
            Event::Progress { revision: reached } if reached >= revision => return told,
            Event::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn text(change: &Watched) -> String {
    match change {
        Watched::Value { key, now, before } => {
            let side = |entry: &Option<meshstore::client::Entry>| match entry.as_ref().map(|entry| &entry.value) {
                Some(Value::Json(text)) => text.clone(),
                Some(Value::Bytes(bytes)) => format!("{} bytes", bytes.len()),
                None => "none".into(),
            };
            format!("{key}: {} -> {}", side(before), side(now))
        }
        Watched::Namespace(event) => format!("{event:?}"),
        Watched::Attributes { key, now, before, .. } => format!("{key}: {before:?} -> {now:?}"),
        other => format!("{other:?}"),
    }
}

async fn set(kv: &Kv, key: &str, value: &str) -> u64 {
    kv.set(Set::new(key, json(value))).await.unwrap().revision
}

pub async fn changes_come_in_order_with_what_was_before(client: &Client) {
    let name = unique("watched");
    let kv = client.kv(&name);
    set(&kv, "a", "0").await;
    let mut watch = watch(client, values(&name, Keys::All)).await;
    let first = set(&kv, "a", "1").await;
    let second = set(&kv, "b", "2").await;
    kv.delete("a").await.unwrap();
    // Deleting what is not there changes nothing.
    kv.delete("a").await.unwrap();
    let last = set(&kv, "a", "3").await;
    let told = until(&mut watch, last).await;
    let texts: Vec<_> = told.iter().map(|(_, texts)| texts.join(", ")).collect();
    assert_eq!(texts, ["a: 0 -> 1", "b: none -> 2", "a: 1 -> none", "a: none -> 3"]);
    assert_eq!((told[0].0, told[1].0, told[3].0), (first, second, last));
    assert!(second < told[2].0 && told[2].0 < last);
    assert!(watch.revision() >= last);
    // What is told of a value is all that is known of it.
    set(&kv, "a", "4").await;
    let (revision, told) = changes(&mut watch).await;
    let [Watched::Value { now: Some(now), before: Some(before), .. }] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((now.metadata.mod_revision, now.metadata.version), (revision, 2));
    assert_eq!((before.metadata.mod_revision, now.metadata.create_revision), (last, last));
    assert!(!now.metadata.principal.is_empty() && now.metadata.attributes.is_none());
}

pub async fn only_what_is_watched_is_told(client: &Client) {
    let (name, other) = (unique("watched"), unique("other"));
    let kv = client.kv(&name);
    set(&kv, "a", "0").await;
    let mut one = watch(client, values(&name, Keys::One("a/1".into()))).await;
    let mut some = watch(client, values(&name, Keys::Prefix("a/".into()))).await;
    let mut bare =
        often(client.watch(values(&name, Keys::Prefix(String::new()))).without_previous()).start().await.unwrap();
    for (key, value) in [("a", "1"), ("a/1", "2"), ("a/11", "3"), ("b", "4"), ("a/1", "5")] {
        set(&kv, key, value).await;
    }
    set(&client.kv(&other), "a/1", "6").await;
    let last = client.state().put(&unique("a/1"), "7").await.unwrap().revision;
    let texts = |told: Vec<(u64, Vec<String>)>| told.into_iter().flat_map(|(_, texts)| texts).collect::<Vec<_>>();
    assert_eq!(texts(until(&mut one, last).await), ["a/1: none -> 2", "a/1: 2 -> 5"]);
    assert_eq!(texts(until(&mut some, last).await), ["a/1: none -> 2", "a/11: none -> 3", "a/1: 2 -> 5"]);
    assert_eq!(texts(until(&mut bare, last).await)[4], "a/1: none -> 5");
}

pub async fn what_there_is_comes_first_without_gap_or_double(client: &Client) {
    let name = unique("watched");
    let kv = client.kv(&name);
    let sets = |from: usize, until: usize| {
        (from..until).map(|n| Set::new(format!("k{n:04}"), json(&n.to_string()))).collect::<Vec<_>>()
    };
    kv.set_many(sets(0, 1_000)).await.unwrap();
    kv.set_many(sets(1_000, 1_500)).await.unwrap();
    // Others write all the while.
    let writer = tokio::spawn({
        let kv = kv.clone();
        async move {
            let mut written = Vec::new();
            for n in 0..60 {
                let key = format!("k{:04}", n * 31 % 1_600);
                written.push((kv.set(Set::new(&key, json("-1"))).await.unwrap().revision, key));
            }
            written
        }
    });
    let mut watch = often(client.watch(values(&name, Keys::All)).current()).start().await.unwrap();
    let (mut shown, mut revisions) = (std::collections::BTreeMap::new(), Vec::new());
    let at = loop {
        match event(&mut watch).await {
            Event::Content { revision, records } => {
                for record in records {
                    let Watched::Value { key, now: Some(now), before: None } = record else { panic!("{record:?}") };
                    assert!(now.metadata.mod_revision <= revision);
                    assert!(shown.insert(key, now.metadata.mod_revision).is_none(), "shown twice");
                }
                revisions.push(revision);
            }
            Event::Current { revision } => break revision,
            other => panic!("{other:?}"),
        }
    };
    assert!(revisions.len() > 1 && revisions.iter().all(|revision| *revision == at), "{revisions:?}");
    assert!(shown.len() >= 1_500);
    let written = writer.await.unwrap();
    let (last, _) = written.last().unwrap().clone();
    let told = until(&mut watch, last).await;
    let later: Vec<u64> = written.iter().map(|(revision, _)| *revision).filter(|revision| *revision > at).collect();
    assert_eq!(told.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), later);
    for (revision, key) in written.iter().filter(|(revision, _)| *revision <= at) {
        assert!(shown[key] >= *revision, "{key} was written at {revision}, before {at}");
    }
}

pub async fn what_there_is_may_be_nothing(client: &Client) {
    let name = unique("watched");
    let mut watch = often(client.watch(values(&name, Keys::All)).current()).start().await.unwrap();
    let Event::Current { revision } = event(&mut watch).await else { panic!("not empty") };
    let first = set(&client.kv(&name), "a", "1").await;
    assert!(first > revision);
    let (at, told) = changes(&mut watch).await;
    let texts: Vec<_> = told.iter().map(text).collect();
    assert_eq!((at, texts), (first, vec!["Created".to_owned(), "a: none -> 1".into()]));
}

pub async fn a_transaction_stays_together(client: &Client) {
    let (name, key) = (unique("watched"), unique("state"));
    let kv = client.kv(&name);
    set(&kv, "first", "0").await;
    let mut watched = watch(client, values(&name, Keys::All)).await;
    let sets = (0..200).map(|n| Set::new(format!("k{n:03}"), json(&n.to_string()))).collect();
    kv.set_many(sets).await.unwrap();
    let (_, told) = changes(&mut watched).await;
    let keys: Vec<_> = told.iter().filter_map(Watched::key).collect();
    assert!(keys.len() == 200 && keys.is_sorted(), "{keys:?}");
    // One that does not fit into a message comes in several, and is shown as one.
    let large = || Value::Bytes(vec![b'v'; 900 << 10].into());
    let sets = |count| (0..count).map(|n| Set::new(format!("large-{n}"), large())).collect::<Vec<_>>();
    kv.set_many(sets(4)).await.unwrap();
    assert_eq!(changes(&mut watched).await.1.len(), 4);
    kv.set_many(sets(4)).await.unwrap();
    let (revision, told) = changes(&mut watched).await;
    assert_eq!((told.len(), told[0].mod_revision()), (4, Some(revision)));
    assert!(
        told.iter()
            .all(|change| matches!(change, Watched::Value { before: Some(before), .. } if before.value == large()))
    );
    // Several kinds in one transaction: each watch is told of its own, at one revision.
    let mut states = watch(client, Target::State(Keys::Prefix(key.clone()))).await;
    let mut configs = watch(client, Target::Config(Keys::Prefix(key.clone()))).await;
    let config = meshstore::client::Change::SaveConfig { key: format!("{key}c"), value_json: "1".into() };
    let transaction =
        Transaction::default().put_state(format!("{key}a"), "1").put_state(format!("{key}b"), "2").change(config);
    assert!(client.commit(transaction).await.unwrap().succeeded);
    let ((at, told), (config_at, config)) = (changes(&mut states).await, changes(&mut configs).await);
    assert_eq!((told.len(), config.len(), at), (2, 1, config_at));
}

pub async fn a_namespace_is_watched_by_its_name(client: &Client) {
    let name = unique("watched");
    let (kv, namespaces) = (client.kv(&name), client.namespaces());
    let mut all = watch(client, values(&name, Keys::All)).await;
    let mut some = watch(client, values(&name, Keys::Prefix("b".into()))).await;
    namespaces.create(&name, "", NamespaceSettings::default()).await.unwrap();
    set(&kv, "a", "1").await;
    kv.clear().await.unwrap();
    set(&kv, "b", "2").await;
    let deleted = namespaces.delete(&name, true).await.unwrap().revision;
    // Of another namespace of the same name.
    set(&kv, "b", "3").await;
    let change = meshstore::client::NamespaceChange { history: Some(3), ..Default::default() };
    let last = namespaces.modify(&name, change).await.unwrap().revision;
    let told = until(&mut all, last).await;
    let texts: Vec<_> = told.iter().map(|(_, texts)| texts.join(", ")).collect();
    assert_eq!(texts, ["Created", "a: none -> 1", "Cleared", "b: none -> 2", "Deleted", "Created, b: none -> 3"]);
    let told: Vec<_> = until(&mut some, last).await.into_iter().flat_map(|(_, texts)| texts).collect();
    assert_eq!(told, ["Created", "Cleared", "b: none -> 2", "Deleted", "Created", "b: none -> 3"]);
    // From any revision on: where its values stood then is known.
    for (after, rest) in [(deleted, 1), (deleted - 1, 2), (deleted - 2, 3)] {
        let mut later = often(client.watch(values(&name, Keys::All)).after(after)).start().await.unwrap();
        let told = until(&mut later, last).await;
        let told: Vec<_> = told.iter().map(|(_, texts)| texts.join(", ")).collect();
        assert_eq!(told, texts[texts.len() - rest..], "after {after}");
    }
}

pub async fn attributes_are_told_if_they_are_asked_for(client: &Client) {
    let name = unique("watched");
    let kv = client.kv(&name);
    kv.set(Set::new("a", json("0")).attributes("{\"x\":0}")).await.unwrap();
    let target = |attributes| Target::Values { namespace: name.clone(), keys: Keys::All, attributes };
    let mut with = often(client.watch(target(true)).current()).start().await.unwrap();
    let mut without = watch(client, target(false)).await;
    let Event::Content { records, .. } = event(&mut with).await else { panic!("no content") };
    let attributes = |change: &Watched| match change {
        Watched::Value { now, before, .. } => {
            let of =
                |entry: &Option<meshstore::client::Entry>| entry.clone().and_then(|entry| entry.metadata.attributes);
            (of(now), of(before))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(attributes(&records[0]), (Some("{\"x\":0}".into()), None));
    let Event::Current { .. } = event(&mut with).await else { panic!("more") };
    kv.set(Set::new("a", json("1"))).await.unwrap();
    kv.set(Set::new("a", json("2")).attributes("{\"x\":2}")).await.unwrap();
    let written = kv.set_metadata("a", "{\"x\":3}", true).await.unwrap().revision;
    kv.delete("a").await.unwrap();
    let last = set(&kv, "b", "1").await;
    let told: Vec<Watched> = {
        let mut told = Vec::new();
        while told.len() < 5 {
            told.extend(changes(&mut with).await.1);
        }
        told
    };
    assert_eq!(attributes(&told[0]), (None, None));
    assert_eq!(attributes(&told[1]), (Some("{\"x\":2}".into()), Some("{\"x\":0}".into())));
    let (now, before) = (Some("{\"x\":3}".into()), Some("{\"x\":2}".into()));
    assert_eq!(told[2], Watched::Attributes { key: "a".into(), now, before, revision: written });
    assert_eq!(attributes(&told[3]), (None, Some("{\"x\":3}".into())));
    let texts: Vec<_> = until(&mut without, last).await.into_iter().flat_map(|(_, texts)| texts).collect();
    assert_eq!(texts, ["a: 0 -> 1", "a: 1 -> 2", "a: 2 -> none", "b: none -> 1"]);
}

fn sides<T: Clone>(changed: &Changed<T>) -> (Option<T>, Option<T>) {
    let side = |stored: &Option<Stored<T>>| stored.as_ref().map(|stored| stored.value.clone());
    (side(&changed.now), side(&changed.before))
}

pub async fn mesh_storage_is_watched_by_table(client: &Client) {
    let key = unique("mesh");
    let keys = || Keys::One(key.clone());
    let mut messages = watch(client, Target::Messages(keys())).await;
    let mut states = watch(client, Target::State(keys())).await;
    let mut nodes = watch(client, Target::NodeStates(keys())).await;
    let mut routes = watch(client, Target::Routes(keys())).await;
    let mut configs = watch(client, Target::Config(keys())).await;
    let message =
        Message { id: key.clone(), from: "a".into(), to: "b".into(), content: "c".into(), ..Message::default() };
    client.messages().store(message.clone()).await.unwrap();
    client.messages().delete(&key).await.unwrap();
    client.state().put(&key, "1").await.unwrap();
    client.state().put(&key, "2").await.unwrap();
    client.node_state().save(&key, &1).await.unwrap();
    client.routes().save(&key, &2).await.unwrap();
    client.config().save(&key, &3).await.unwrap();
    let stored = changes(&mut messages).await.1.remove(0);
    let deleted = changes(&mut messages).await.1.remove(0);
    let (Watched::Message(stored), Watched::Message(deleted)) = (stored, deleted) else { panic!("no messages") };
    assert_eq!((sides(&stored), sides(&deleted)), ((Some(message.clone()), None), (None, Some(message))));
    let (_, first) = (changes(&mut states).await, changes(&mut states).await);
    let Watched::State(changed) = &first.1[0] else { panic!("{first:?}") };
    assert_eq!(sides(changed), (Some("2".into()), Some("1".into())));
    assert_eq!(changed.now.as_ref().unwrap().mod_revision, first.0);
    let Watched::NodeState(changed) = changes(&mut nodes).await.1.remove(0) else { panic!("no node state") };
    assert_eq!(sides(&changed), (Some("1".into()), None));
    let Watched::Route(changed) = changes(&mut routes).await.1.remove(0) else { panic!("no route") };
    assert_eq!(sides(&changed), (Some("2".into()), None));
    let Watched::Config(changed) = changes(&mut configs).await.1.remove(0) else { panic!("no configuration") };
    assert_eq!(sides(&changed), (Some("3".into()), None));
    for target in [Target::State(keys()), Target::NodeStates(keys()), Target::Routes(keys()), Target::Config(keys())] {
        let mut current = often(client.watch(target).current()).start().await.unwrap();
        let Event::Content { records, .. } = event(&mut current).await else { panic!("no content") };
        assert_eq!((records.len(), records[0].key()), (1, Some(key.as_str())));
    }
}

pub async fn the_topology_is_watched_as_its_history(client: &Client) {
    use meshstore::client::topology::RegionChange;
    let mut now = watch(client, Target::Topology).await;
    let topology = client.topology().by("ada", "first");
    topology.add_region(&unique("region"), RegionChange::default()).await.unwrap();
    let found = |told: &[Watched], reason: &str| {
        told.iter().any(|change| matches!(change, Watched::Topology(entry) if entry.change.reason == reason))
    };
    let (revision, told) = changes(&mut now).await;
    assert!(found(&told, "first"), "{told:?}");
    // All of the past is known.
    let mut past = often(client.watch(Target::Topology).after(0)).start().await.unwrap();
    let mut last = 0;
    loop {
        let (at, told) = changes(&mut past).await;
        assert!(at > last && at <= revision, "{at} comes after {last}");
        last = at;
        if at == revision {
            assert!(found(&told, "first"));
            break;
        }
    }
    let none = client.watch(Target::Topology).current().start().await;
    assert_eq!(invalid_field(none.map(|_| ())), "current");
}

pub async fn progress_tells_up_to_where_all_is_known(client: &Client) {
    let mut watch = watch(client, values(&unique("quiet"), Keys::All)).await;
    let begun = watch.revision();
    let last = client.state().put(&unique("other"), "1").await.unwrap().revision;
    assert!(last > begun);
    let mut reached = begun;
    while reached < last {
        let Event::Progress { revision } = next(&mut watch).await else { panic!("a change of something else") };
        assert!(revision >= reached);
        reached = revision;
    }
    // From there another watch goes on.
    let mut other =
        often(client.watch(values(&unique("quiet"), Keys::All)).after(watch.revision())).start().await.unwrap();
    assert!(matches!(next(&mut other).await, Event::Progress { .. }));
}

pub async fn what_cannot_be_watched_is_refused(client: &Client) {
    let name = unique("watched");
    set(&client.kv(&name), "a", "1").await;
    let field = async |watching: Watching| invalid_field(watching.start().await.map(|_| ()));
    let (long_key, long_id) = ("k".repeat(limits::KEY_BYTES + 1), "i".repeat(limits::ID_BYTES + 1));
    for (target, named) in [
        (values("a/b", Keys::All), "namespace"),
        (values(&name, Keys::One(String::new())), "key"),
        (values(&name, Keys::One(long_key.clone())), "key"),
        (values(&name, Keys::Prefix(long_key.clone())), "prefix"),
        (Target::State(Keys::One(String::new())), "key"),
        (Target::Routes(Keys::One(long_key.clone())), "destination"),
        (Target::NodeStates(Keys::One(long_id.clone())), "node_id"),
        (Target::Messages(Keys::One(long_id)), "id"),
        (Target::Config(Keys::Prefix(long_key)), "prefix"),
    ] {
        assert_eq!(field(client.watch(target)).await, named);
    }
    let all = || client.watch(values(&name, Keys::All));
    assert_eq!(field(all().progress(Duration::from_millis(1))).await, "progress_ms");
    assert_eq!(field(all().progress(Duration::from_secs(61))).await, "progress_ms");
    // A revision that is still to come: whoever names it has it from elsewhere.
    assert_eq!(field(all().after(u64::MAX)).await, "after_revision");
    let wire = leader(client).await;
    let refused = WatchClient::new(wire).watch(WatchRequest::default()).await.unwrap_err();
    let error = error_from_status(&refused);
    assert!(matches!(&error, Error::InvalidArgument { field, .. } if field == "what"), "{error}");
}

pub async fn a_connection_has_so_many_watches_and_room_for_calls(client: &Client) {
    let mut wire = WatchClient::new(leader(client).await);
    let request = || WatchRequest {
        what: Some(watch_request::What::State(meshstore::proto::v1::WatchKeys::default())),
        ..WatchRequest::default()
    };
    let mut open = Vec::new();
    for _ in 0..limits::WATCHES_PER_CONNECTION {
        let mut messages = wire.watch(request()).await.unwrap().into_inner();
        let first = messages.message().await.unwrap().unwrap();
        assert!(matches!(first.told, Some(watch_response::Told::Started(_))));
        open.push(messages);
    }
    let error = error_from_status(&wire.watch(request()).await.unwrap_err());
    assert!(matches!(error, Error::ResourceExhausted { .. }), "{error}");
    open.pop();
    // That it is gone is heard of a little later.
    let deadline = tokio::time::Instant::now() + LIMIT;
    while let Err(status) = wire.watch(request()).await {
        assert!(matches!(error_from_status(&status), Error::ResourceExhausted { .. }), "{status}");
        assert!(tokio::time::Instant::now() < deadline, "no place came free");
        tokio::task::yield_now().await;
    }
}

pub async fn a_wait_that_is_given_up_loses_nothing(client: &Client) {
    let name = unique("watched");
    let kv = client.kv(&name);
    set(&kv, "a", "0").await;
    let mut watch = watch(client, values(&name, Keys::All)).await;
    let writer = tokio::spawn(async move {
        let mut last = 0;
        for value in 1..=40 {
            last = set(&kv, "a", &value.to_string()).await;
        }
        last
    });
    let mut told = Vec::new();
    while told.len() < 40 {
        let waited = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
        if let Ok(Ok(Event::Changes { revision, changes, .. })) = waited {
            told.push((revision, text(&changes[0])));
        }
    }
    assert_eq!(told.last().unwrap().0, writer.await.unwrap());
    for (number, (_, text)) in told.iter().enumerate() {
        assert_eq!(*text, format!("a: {number} -> {}", number + 1));
    }
}

pub async fn many_watch_one_namespace(client: &Client) {
    let name = unique("watched");
    let kv = client.kv(&name);
    set(&kv, "a", "0").await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(watch(client, values(&name, Keys::All)).await);
    }
    let mut last = 0;
    for value in ["1", "2", "3"] {
        last = set(&kv, "a", value).await;
    }
    for watch in &mut watches {
        let texts: Vec<_> = until(watch, last).await.into_iter().flat_map(|(_, texts)| texts).collect();
        assert_eq!(texts, ["a: 0 -> 1", "a: 1 -> 2", "a: 2 -> 3"]);
    }
}

/// What a transaction that deletes a value and writes it again makes of its attributes is told with the value.
pub async fn attributes_that_go_with_a_deletion_are_told(client: &Client) {
    let name = unique("watched");
    let kv = client.kv(&name);
    kv.set(Set::new("a", Value::Json("1".into())).attributes("{\"of\":\"old\"}")).await.unwrap();
    let target = Target::Values { namespace: name.clone(), keys: Keys::All, attributes: true };
    let mut watch = client.watch(target).start().await.unwrap();
    let open = client.begin_held(Isolation::Serializable).await.unwrap();
    open.kv(&name).delete("a").await.unwrap();
    open.kv(&name).set(Set::new("a", Value::Json("2".into()))).await.unwrap();
    let revision = open.commit().await.unwrap().revision;
    loop {
        match watch.next().await.unwrap() {
            Event::Progress { .. } => {}
            Event::Changes { revision: at, changes, .. } => {
                assert_eq!(at, revision);
                let [Watched::Value { now: Some(now), before: Some(before), .. }] = &changes[..] else {
                    panic!("{changes:?}")
                };
                assert_eq!(now.metadata.attributes.as_deref(), Some("{}"));
                assert_eq!(before.metadata.attributes.as_deref(), Some("{\"of\":\"old\"}"));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A transaction of many megabytes comes in parts, to each of many watchers, and is one event; what of it is not watched is not
/// there.
pub async fn a_large_transaction_is_one_event_for_all(client: &Client) {
    const WATCHES: usize = 20;
    let name = unique("watched");
    let kv = client.kv(&name);
    let key = |n: usize| format!("{}/{n:02}", if n.is_multiple_of(2) { "even" } else { "odd" });
    for n in 0..16 {
        kv.set(Set::new(key(n), Value::Bytes(vec![7; 512 << 10].into())).attributes("{\"a\":1}")).await.unwrap();
    }
    let mut watches = Vec::new();
    for attributes in (0..WATCHES).map(|n| n % 2 == 0) {
        let keys = Keys::Prefix("even/".into());
        let target = Target::Values { namespace: name.clone(), keys, attributes };
        watches.push(client.watch(target).start().await.unwrap());
    }
    kv.delete_many((0..16).map(key).collect()).await.unwrap();
    let last = kv.set(Set::new("even/last", Value::Json("1".into()))).await.unwrap().revision;
    for watch in &mut watches {
        let mut told = Vec::new();
        while told.last().is_none_or(|(revision, _)| *revision < last) {
            if let Event::Changes { revision, changes, .. } = watch.next().await.unwrap() {
                told.push((revision, changes));
            }
        }
        assert_eq!(told.len(), 2, "the deletion and the last");
        let (_, deleted) = &told[0];
        assert_eq!(deleted.len(), 8);
        assert!(deleted.iter().all(|change| {
            matches!(change, Watched::Value { now: None, before: Some(before), .. } if before.value.len() == 512 << 10)
        }));
    }
}
