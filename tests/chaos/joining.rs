//! What it costs the others when a node joins a cluster that holds much: how long it takes until it votes, and what becomes of the
//! latency of writes meanwhile. A measurement: it prints what it finds, and judges nothing.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use meshstore::{
    Client,
    client::{Set, Value},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    cluster::{Cluster, Settings, fresh, within},
    report::share,
};

/// Values that are written at once before anything is measured.
const AT_ONCE: u64 = 500;
const WRITERS: usize = 16;
/// Between two writes of a writer: the cluster is to be busy, and not at its end.
const REST: Duration = Duration::from_millis(5);
/// How long the ordinary latency is measured.
const ORDINARY: Duration = Duration::from_secs(20);
/// How long a node may take to join.
const LIMIT: Duration = Duration::from_secs(1_200);
const DEADLINE: Duration = Duration::from_secs(30);

pub async fn measure(records: u64, out: &Path) {
    let logs = fresh(out.join("joining"));
    let mut cluster = Cluster::start(&Settings { storage: "", raft: "", ..Settings::plain(3) }, &logs).await;
    let client = cluster.client(DEADLINE);
    let began = Instant::now();
    fill(&client, records).await;
    println!("{records} records of 256 bytes written in {:.0} s", began.elapsed().as_secs_f64());
    let leader = within(DEADLINE, async || cluster.leader().await).await.expect("a leader");
    let gone = cluster.ids().into_iter().find(|id| *id != leader).expect("a follower");
    client.cluster().remove(gone).await.unwrap();
    let node = cluster.node(gone);
    if node.exit(DEADLINE).await.is_none() {
        node.kill();
    }
    let ordinary = writes(&client, tokio::time::sleep(ORDINARY)).await;
    println!("{}", line("writes of two nodes", &ordinary));
    let new = cluster.renew(gone);
    let began = Instant::now();
    cluster.node(new).start();
    let joined = async {
        let votes = within(LIMIT, async || {
            let members = client.cluster().members().await.ok()?;
            let mut known = members.members.iter().filter_map(|status| status.member.as_ref());
            known.any(|member| member.node_id == new && member.voter).then_some(())
        });
        votes.await.expect("it votes in time");
    };
    let meanwhile = writes(&client, joined).await;
    let took = began.elapsed();
    println!("{}", line("writes while a third joins", &meanwhile));
    let p99 = |all: &[u64]| share(all, 0.99).unwrap_or_default() as f64;
    println!(
        "it votes {:.1} s after its start; p99 is {:.2} times the ordinary",
        took.as_secs_f64(),
        p99(&meanwhile) / p99(&ordinary)
    );
}

async fn fill(client: &Client, records: u64) {
    let next = Arc::new(AtomicU64::new(0));
    let mut filling = JoinSet::new();
    for _ in 0..4 {
        let (kv, next) = (client.kv("filled"), next.clone());
        filling.spawn(async move {
            loop {
                let first = next.fetch_add(AT_ONCE, Relaxed);
                if first >= records {
                    return;
                }
                let value = |n: u64| Value::Bytes(n.to_le_bytes().repeat(32).into());
                let sets = (first..records.min(first + AT_ONCE)).map(|n| Set::new(format!("{n:09}"), value(n)));
                kv.set_many(sets.collect()).await.unwrap();
            }
        });
    }
    filling.join_all().await;
}

/// Latencies of writes until something has happened, in nanoseconds, sorted.
async fn writes(client: &Client, until: impl Future<Output = ()>) -> Vec<u64> {
    let (stop, stopped) = watch::channel(false);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (state, stopped) = (client.state(), stopped.clone());
        writers.spawn(async move {
            let mut latencies = Vec::new();
            for n in 0u64.. {
                if *stopped.borrow() {
                    break;
                }
                let sent = Instant::now();
                state.put(&format!("{writer}/{}", n % 1_000), vec![b'v'; 256]).await.unwrap();
                latencies.push(u64::try_from(sent.elapsed().as_nanos()).unwrap());
                tokio::time::sleep(REST).await;
            }
            latencies
        });
    }
    until.await;
    stop.send_replace(true);
    let mut all = writers.join_all().await.concat();
    all.sort_unstable();
    all
}

fn line(what: &str, all: &[u64]) -> String {
    let ms = |part: f64| share(all, part).unwrap_or_default() as f64 / 1e6;
    format!("{what}: {} writes, p50 {:.2} ms, p99 {:.2} ms, longest {:.0} ms", all.len(), ms(0.5), ms(0.99), ms(1.0))
}
