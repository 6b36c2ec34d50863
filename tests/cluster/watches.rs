//! Watchers while nodes stop, are killed and start again, and those that are too slow.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use meshstore::{
    Client, Error,
    client::{Event, Keys, Target, Watch, Watched},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    harness::{Cluster, EAGER, Settings},
    load::{Ledger, Load},
};

/// Bytes of each value.
const BYTES: usize = 200;
const LIMIT: Duration = Duration::from_secs(60);

/// What a watcher was told.
#[derive(Default)]
struct Seen {
    keys: BTreeSet<String>,
    resets: usize,
    resynced: usize,
    last: u64,
}

impl Seen {
    fn take(&mut self, event: Event) {
        let told = match event {
            Event::Content { records, .. } => records,
            Event::Changes { revision, changes, resynced } => {
                assert!(revision > self.last, "{revision} comes after {}", self.last);
                if resynced {
                    self.resynced += changes.len();
                } else {
                    self.last = revision;
                }
                changes
            }
            Event::Current { revision } => {
                assert!(revision >= self.last);
                self.last = revision;
                return;
            }
            Event::Progress { revision } => {
                assert!(revision >= self.last);
                self.last = revision;
                return;
            }
            Event::Reset { after, complete } => {
                assert!(after >= self.last && complete);
                self.resets += 1;
                return;
            }
        };
        for change in told {
            let key = change.key().unwrap().to_owned();
            assert!(change.mod_revision().is_some(), "{key} is gone");
            // Everything is written once.
            assert!(self.keys.insert(key.clone()), "{key} comes twice");
        }
    }
}

/// A watcher of everything of a kind; it goes on until it has been told all up to the revision that it is given.
struct Watcher {
    until: watch::Sender<u64>,
    task: JoinHandle<Seen>,
}

impl Watcher {
    async fn start(client: &Client, target: Target) -> Self {
        let watching = client.watch(target).current().progress(Duration::from_millis(100));
        let mut watch: Watch = watching.start().await.unwrap();
        let (until, mut told) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            loop {
                let until = *told.borrow_and_update();
                if until > 0 && watch.revision() >= until {
                    return seen;
                }
                tokio::select! {
                    event = watch.next() => seen.take(event.unwrap()),
                    _ = told.changed(), if until == 0 => {}
                }
            }
        });
        Self { until, task }
    }

    async fn end(self, until: u64) -> Seen {
        self.until.send_replace(until);
        tokio::time::timeout(LIMIT, self.task).await.expect("all is told in time").unwrap()
    }
}

/// Watchers of what the load writes.
async fn watchers(cluster: &Cluster) -> [Watcher; 2] {
    let client = cluster.client();
    [
        Watcher::start(&client, Target::Messages(Keys::All)).await,
        Watcher::start(&client, Target::State(Keys::All)).await,
    ]
}

/// Ends them, and has all of what was acknowledged among what they were told.
async fn prove(cluster: &Cluster, [messages, states]: [Watcher; 2], ledger: &Ledger) -> [Seen; 2] {
    let until = cluster.client().state().put("last", "last").await.unwrap().revision;
    let seen = [messages.end(until).await, states.end(until).await];
    for (seen, of) in seen.iter().zip([&ledger.messages, &ledger.states]) {
        let acknowledged = of.iter().filter(|(_, told)| **told == crate::load::Told::Acknowledged);
        let lost: Vec<_> = acknowledged.filter(|(key, _)| !seen.keys.contains(*key)).collect();
        assert!(lost.is_empty(), "{} were not told: {lost:?}", lost.len());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_resets_no_watcher() {
    // With runs as often as can be: a node that starts again knows little of what was before.
    let mut cluster = Cluster::start(3, EAGER).await;
    let watchers = watchers(&cluster).await;
    // One of what nobody writes, which is hardly ever told how far it is.
    let rarely = Duration::from_secs(60);
    let mut quiet = cluster.client().watch(Target::Config(Keys::All)).progress(rarely).start().await.unwrap();
    let (end, mut ended) = watch::channel(());
    let quiet = tokio::spawn(async move {
        let mut told = Vec::new();
        loop {
            tokio::select! {
                event = quiet.next() => match event.unwrap() {
                    Event::Progress { .. } => {}
                    other => told.push(other),
                },
                _ = ended.changed() => return told,
            }
            if !told.is_empty() {
                return told;
            }
        }
    });
    let mut load = Load::start(&cluster, BYTES);
    for id in [1, 2, 3] {
        load.more(300).await;
        assert!(cluster.node(id).terminate().await.success());
        let log = cluster.node(id).log();
        assert!(!log.contains("were still"), "watches do not hold up a node that stops: {log}");
        load.more(300).await;
        cluster.node(id).start();
        cluster.node(id).ready().await;
    }
    let ledger = load.finish().await;
    assert!(ledger.failures().is_empty(), "{:?}", ledger.failures());
    for seen in prove(&cluster, watchers, &ledger).await {
        assert_eq!((seen.resets, seen.resynced), (0, 0));
    }
    // What it waits for comes first, and nothing came before.
    cluster.client().config().save_json("last", "1").await.unwrap();
    let told = tokio::time::timeout(LIMIT, quiet).await.expect("it is told in time").unwrap();
    assert!(matches!(&told[..], [Event::Changes { resynced: false, .. }]), "{told:?}");
    drop(end);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_all_nodes_resets_a_watcher_once_at_most() {
    let mut cluster = Cluster::start(3, EAGER).await;
    let watchers = watchers(&cluster).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(1_000).await;
    cluster.kill_all();
    cluster.start_all().await;
    load.more(300).await;
    let ledger = load.finish().await;
    for seen in prove(&cluster, watchers, &ledger).await {
        assert!(seen.resets <= 1, "{} resets", seen.resets);
    }
}

const SMALL: Settings = Settings { storage: "", raft: "[limits]\nwatch_mib = 1\n" };

/// What there is of a prefix, with the revision of each.
async fn content(client: &Client) -> BTreeMap<String, u64> {
    let values = client.state().list_all("slow/").await.unwrap();
    values.into_iter().map(|(key, stored)| (key, stored.mod_revision)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_is_too_slow_is_told_so_and_shown_the_difference() {
    let cluster = Cluster::start(3, SMALL).await;
    let client = Arc::new(cluster.client());
    let value = |byte: u8| vec![byte; 256 << 10];
    let early = client.state().put("slow/0", value(0)).await.unwrap().revision;
    client.state().put("slow/gone", "1").await.unwrap();
    let target = || Target::State(Keys::Prefix("slow/".into()));
    let mut slow = client.watch(target()).current().start().await.unwrap();
    let mut mirror = BTreeMap::new();
    loop {
        match slow.next().await.unwrap() {
            Event::Content { records, .. } => {
                mirror.extend(
                    records.iter().map(|record| (record.key().unwrap().to_owned(), record.mod_revision().unwrap())),
                );
            }
            Event::Current { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(mirror, content(&client).await);
    // More than what the ring holds and what is on its way to a watcher that does not look.
    for round in 0..8 {
        for key in 0..8 {
            client.state().put(&format!("slow/{key}"), value(round)).await.unwrap();
        }
    }
    client.state().delete("slow/gone").await.unwrap();
    // By name it is refused wherever it is asked for.
    let error = client.watch(target()).after(early).start().await.unwrap_err();
    assert!(
        matches!(error, Error::NoLongerCovered { revision, oldest } if revision == early && oldest > early),
        "{error}"
    );
    let until = client.state().put("slow/last", "1").await.unwrap().revision;
    let (mut resets, mut in_reset) = (0, false);
    while slow.revision() < until {
        match tokio::time::timeout(LIMIT, slow.next()).await.expect("an event").unwrap() {
            Event::Changes { changes, resynced, .. } => {
                assert_eq!(resynced, in_reset);
                for change in changes {
                    let key = change.key().unwrap().to_owned();
                    assert!(!resynced || matches!(&change, Watched::State(changed) if changed.before.is_none()));
                    match change.mod_revision() {
                        Some(revision) => mirror.insert(key, revision),
                        None => mirror.remove(&key),
                    };
                }
            }
            Event::Reset { complete, .. } => {
                assert!(complete);
                (resets, in_reset) = (resets + 1, true);
            }
            Event::Current { .. } => in_reset = false,
            Event::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(resets, 1);
    assert_eq!(mirror, content(&client).await);
    for node in &cluster.nodes {
        assert!(node.metric("watch_ring_bytes").await.unwrap() <= 1 << 20);
    }
}
