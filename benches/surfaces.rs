//! The storage contract as its callers see it: three nodes with their files on this disk, clients over real sockets. Lists,
//! queries with and without an index over 100,000 values, 1,000 watchers of one namespace, 10,000 leases that are kept alive.
//!
//! Everything shares one process and its cores. Beside each rate stands how it compares to the same without the watchers, the
//! leases or the index, in the same run.
//!
//! `cargo bench --bench surfaces` measures all; `-- queries`, `-- watch` and `-- leases` a part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark"
)]

#[allow(dead_code, unreachable_pub, reason = "not all of it is used here")]
#[path = "../tests/support/nodes.rs"]
mod nodes;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use meshstore::{
    Client,
    client::{Event, Filter, KeyFilter, Keys, Kv, Operator, Set, SortField, Target, Value},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use self::nodes::Nodes;

const VALUES: u64 = 100_000;
const WATCHERS: usize = 1_000;
/// Watches of one client, which has one connection to each node.
const WATCHES_OF_CLIENT: usize = 50;
const LEASES: usize = 10_000;
const WRITERS: usize = 16;
/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(8);

/// Latencies of calls that were made one after another, or beside each other.
struct Measured {
    seconds: f64,
    sorted: Vec<Duration>,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.seconds
    }

    fn at(&self, quantile: f64) -> String {
        let place = (self.sorted.len() as f64 * quantile) as usize;
        format!("{:.2} ms", self.sorted[place.min(self.sorted.len() - 1)].as_secs_f64() * 1e3)
    }

    fn row(&self, what: &str, more: &str) {
        println!("| {what} | {:.0} | {} | {} | {more} |", self.rate(), self.at(0.5), self.at(0.99));
    }
}

/// So many closed loops for [`TIME`].
async fn loops<F: Future<Output = ()> + Send + 'static>(
    count: usize,
    call: impl Fn(u64) -> F + Send + Sync + Clone + 'static,
) -> Measured {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for _ in 0..count {
        let (next, call) = (next.clone(), call.clone());
        all.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < TIME {
                let sent = Instant::now();
                call(next.fetch_add(1, Relaxed)).await;
                latencies.push(sent.elapsed());
            }
            latencies
        });
    }
    let mut sorted = all.join_all().await.concat();
    sorted.sort_unstable();
    Measured { seconds: began.elapsed().as_secs_f64(), sorted }
}

fn person(n: u64) -> Value {
    let scattered = n * 61_803 % VALUES;
    let city = n % 1_000;
    Value::Json(format!(
        r#"{{"name":"person {scattered}","age":{},"number":{scattered},"address":{{"city":"city {city}"}},"tags":["a","b"]}}"#,
        n % 90
    ))
}

async fn queries(client: &Client) {
    let people = client.kv("people");
    let began = Instant::now();
    for first in (0..VALUES).step_by(500) {
        let sets = (first..first + 500).map(|n| Set::new(format!("person/{n:08}"), person(n))).collect();
        people.set_many(sets).await.unwrap();
    }
    println!("\n{VALUES} values written, 500 at once: {:.0} a second", VALUES as f64 / began.elapsed().as_secs_f64());
    head("reads, one caller");
    for limit in [100, 1_000] {
        let people = people.clone();
        let lists = loops(1, move |n| list(people.clone(), n, limit)).await;
        lists.row(&format!("list of {limit} keys"), &format!("{:.0} keys/s", lists.rate() * f64::from(limit)));
    }
    let mut scans = Vec::new();
    for indexed in [false, true] {
        if indexed {
            build(&people).await;
        }
        for (place, what) in ["equal, 100 found", "range, 100 found", "the first 100, sorted"].into_iter().enumerate() {
            let people = people.clone();
            let found = loops(1, move |n| query(people.clone(), place, n)).await;
            if indexed {
                found.row(&format!("{what}, index"), &format!("{:.0} times as many", found.rate() / scans[place]));
            } else {
                found.row(&format!("{what}, no index"), "");
                scans.push(found.rate());
            }
        }
    }
}

async fn list(people: Kv, n: u64, limit: u32) {
    let pattern = format!("person/{:05}*", n % 100);
    let page = people.list(KeyFilter { pattern, limit: Some(limit), ..KeyFilter::default() }).await.unwrap();
    assert_eq!(page.items.len(), limit as usize);
}

async fn query(people: Kv, which: usize, n: u64) {
    let found = match which {
        0 => people.query(Filter::of("address.city", Operator::Eq, &format!("city {}", n % 1_000)).unwrap()),
        1 => {
            let from = Filter::of("number", Operator::Gte, &(n % 900 * 100)).unwrap();
            people.query(from.and(Filter::of("number", Operator::Lt, &(n % 900 * 100 + 100)).unwrap()))
        }
        _ => people.query(Filter::default()).sort_by("number"),
    };
    assert_eq!(found.limit(200 >> (which / 2)).page().await.unwrap().items.len(), 100);
}

async fn build(people: &Kv) {
    let began = Instant::now();
    for (name, field) in [("city", "address.city"), ("number", "number")] {
        people.create_index(name, vec![SortField::ascending(field)]).await.unwrap();
    }
    while !people.indexes().await.unwrap().iter().all(|index| index.ready) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("| two indexes built | | | | {:.1} s |", began.elapsed().as_secs_f64());
}

async fn set(values: Kv, n: u64) {
    values.set(Set::new(format!("key/{:04}", n % 1_000), Value::Json(format!(r#"{{"n":{n}}}"#)))).await.unwrap();
}

async fn watchers(nodes: &Nodes, client: &Client) {
    let values = client.kv("watched");
    head(&format!("sets, {WRITERS} callers"));
    let writer = values.clone();
    let alone = loops(WRITERS, move |n| set(writer.clone(), n)).await;
    alone.row("nobody watches", "");
    let seen = Arc::new(AtomicU64::new(0));
    let (done, last) = watch::channel(u64::MAX);
    let mut watching = JoinSet::new();
    for _ in 0..WATCHERS / WATCHES_OF_CLIENT {
        let client = nodes.client().deadline(Duration::from_secs(60)).connect().await.unwrap();
        for _ in 0..WATCHES_OF_CLIENT {
            let target = Target::Values { namespace: "watched".into(), keys: Keys::All, attributes: false };
            let mut watch = client.watch(target).progress(Duration::from_millis(200)).start().await.unwrap();
            let (seen, last) = (seen.clone(), last.clone());
            watching.spawn(async move {
                loop {
                    let shown = match watch.next().await.unwrap() {
                        Event::Changes { revision, changes, .. } => {
                            seen.fetch_add(changes.len() as u64, Relaxed);
                            revision
                        }
                        Event::Progress { revision } => revision,
                        other => panic!("unexpected: {other:?}"),
                    };
                    if shown >= *last.borrow() {
                        return;
                    }
                }
            });
        }
    }
    let watched = loops(WRITERS, move |n| set(values.clone(), n)).await;
    let during = seen.load(Relaxed) as f64 / watched.seconds;
    let end = client.kv("watched").set(Set::new("key/end", Value::Json("1".into()))).await.unwrap();
    let began = Instant::now();
    done.send_replace(end.revision);
    watching.join_all().await;
    let ratio = watched.rate() / alone.rate();
    watched.row(&format!("{WATCHERS} watch"), &format!("{ratio:.2} of that; {during:.0} events/s"));
    println!("\nthe last had seen all {:.2} s after the last set", began.elapsed().as_secs_f64());
    assert_eq!(seen.load(Relaxed), (watched.sorted.len() as u64 + 1) * WATCHERS as u64);
}

async fn leases(client: &Client) {
    let ttl = Duration::from_secs(60);
    let values = client.kv("leased");
    head(&format!("{WRITERS} callers"));
    let writer = values.clone();
    let alone = loops(WRITERS, move |n| set(writer.clone(), n)).await;
    alone.row("sets, no lease", "");
    let mut granting = JoinSet::new();
    let began = Instant::now();
    for share in 0..WRITERS {
        let leases = client.leases();
        granting.spawn(async move {
            let mut ids = Vec::new();
            for _ in (share..LEASES).step_by(WRITERS) {
                ids.push(leases.grant_only(ttl, None).await.unwrap());
            }
            ids
        });
    }
    let ids = granting.join_all().await.concat();
    println!("| grants | {:.0} | | | |", LEASES as f64 / began.elapsed().as_secs_f64());
    let leases = client.leases();
    let keeper = tokio::spawn(async move {
        loop {
            for ids in ids.chunks(1_000) {
                assert_eq!(leases.keep_all_alive(ids.to_vec()).await.unwrap().kept.len(), ids.len());
            }
            // Each ten times as often as it would have to be.
            tokio::time::sleep(ttl / 30).await;
        }
    });
    let kept = loops(WRITERS, move |n| set(values.clone(), n)).await;
    kept.row(&format!("sets, {LEASES} kept alive"), &format!("{:.2} of that", kept.rate() / alone.rate()));
    keeper.abort();
    let left = client.leases().list_all().await.unwrap().len();
    assert_eq!(left, LEASES);
    let leases = client.leases();
    let mut all: Vec<u64> = leases.list_all().await.unwrap().into_iter().map(|lease| lease.id).collect();
    let (began, keeps) = (Instant::now(), 20);
    for _ in 0..keeps {
        for ids in all.chunks(1_000) {
            leases.keep_all_alive(ids.to_vec()).await.unwrap();
        }
    }
    let rate = (keeps * LEASES) as f64 / began.elapsed().as_secs_f64();
    println!("| kept alive, 1,000 in a call | {rate:.0} | | | |");
    // Nobody keeps them any more: all expire at about one time.
    let expiry = Instant::now() + ttl;
    let writer = client.kv("leased");
    tokio::time::sleep_until(expiry).await;
    let at_expiry = loops(WRITERS, move |n| set(writer.clone(), n)).await;
    at_expiry.row("sets while all expire", &format!("{:.2} of that", at_expiry.rate() / alone.rate()));
    while !all.is_empty() {
        all = leases.list_all().await.unwrap().into_iter().map(|lease| lease.id).collect();
    }
    println!("\nall were gone {:.1} s after they were due", expiry.elapsed().as_secs_f64());
}

fn head(what: &str) {
    println!("\n| {what} | calls/s | p50 | p99 | |\n|---|---|---|---|---|");
}

#[tokio::main]
async fn main() {
    let only = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let nodes = Nodes::start(3, "sled").await;
    let client = nodes.client().deadline(Duration::from_secs(60)).connect().await.unwrap();
    if wanted("queries") {
        queries(&client).await;
    }
    if wanted("watch") {
        watchers(&nodes, &client).await;
    }
    if wanted("leases") {
        leases(&client).await;
    }
    nodes.stop().await;
}
