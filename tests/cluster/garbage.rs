//! What a network may bring: bytes that mean nothing, connections that say nothing, calls that ask too much. The
//! node goes on serving everybody else.

use std::time::Duration;

use meshstore::proto::v1::{GetStateRequest, PutStateRequest, mesh_client::MeshClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tonic::Code;

use crate::{
    harness::{Cluster, EAGER, Settings, until},
    load::Load,
    proof::prove,
};

const BYTES: usize = 100;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that repeat from run to run.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

fn frame(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Beginnings of conversations that lead nowhere.
fn openings(seed: u64) -> Vec<Vec<u8>> {
    let settings = frame(0, 4, 0, 0, &[]);
    let after_preface = |frames: &[u8]| [PREFACE, &settings, frames].concat();
    vec![
        noise(seed, 1),
        noise(seed, 10_000),
        PREFACE[..PREFACE.len() / 2].to_vec(),
        [PREFACE, &noise(seed, 2_000)].concat(),
        after_preface(&[]),
        // A frame that announces 16 MiB, headers that are no headers, a continuation of nothing.
        after_preface(&frame(0xFF_FFFF, 0, 0, 1, &noise(seed, 500))),
        after_preface(&frame(200, 1, 4, 1, &noise(seed, 200))),
        after_preface(&frame(100, 9, 0, 7, &noise(seed, 100))),
        after_preface(&frame(4, 8, 0, 0, &[0; 4])),
        // The first bytes of TLS; HTTP/1 that does not end.
        [&[0x16, 3, 1, 2, 0, 1][..], &noise(seed, 500)].concat(),
        [b"GET /metrics HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 100_000]].concat(),
        b"POST /readyz HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nshort".to_vec(),
    ]
}

/// Says this, and reads what comes, if anything does soon.
async fn say(address: &str, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    // The node may well hang up before it has read it all.
    let _ = stream.write_all(bytes).await;
    let _ = timeout(Duration::from_millis(50), stream.read(&mut [0; 1_024])).await;
    Some(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    let mut talks = JoinSet::new();
    for node in &cluster.nodes {
        for (seed, address) in [&node.client, &node.peer, &node.http].into_iter().enumerate() {
            for opening in openings(node.id * 3 + seed as u64).into_iter().cycle().take(60) {
                let address = address.clone();
                talks.spawn(async move { say(&address, &opening).await });
            }
        }
    }
    // All stay open until all have begun.
    let streams = talks.join_all().await;
    load.more(300).await;
    drop(streams);
    load.more(100).await;
    for node in &mut cluster.nodes {
        node.ready().await;
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let mut idle = Vec::new();
    for number in 0..2_000 {
        let address = [&node.client, &node.client, &node.peer, &node.http][number % 4];
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    load.more(500).await;
    cluster.node(leader).ready().await;
    drop(idle);
    load.more(100).await;
    prove(&cluster, &load.finish().await, BYTES).await;
}

/// However many connect, there are files left to flush into.
#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_a_node_may_open() {
    let mut cluster = Cluster::new(3, EAGER);
    for node in &mut cluster.nodes {
        node.open_files = Some(256);
    }
    cluster.start_all().await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    let leader = cluster.leader().await;
    let mut idle = Vec::new();
    for number in 0..600 {
        let node = cluster.node(leader);
        let address = [&node.client, &node.peer][number % 2];
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    until("the node to turn connections away", async || {
        cluster.node(leader).log().contains("too many connections").then_some(())
    })
    .await;
    let applied = cluster.node(leader).metric("log_applied_index").await.unwrap();
    load.more(300).await;
    until("a flush meanwhile", async || {
        cluster.node(leader).metric("flushed_index").await.filter(|flushed| *flushed > applied)
    })
    .await;
    drop(idle);
    cluster.node(leader).ready().await;
    cluster.node(leader).pinned().state().list_all("").await.unwrap();
    prove(&cluster, &load.finish().await, BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    for id in [cluster.leader().await, cluster.follower().await] {
        let address = format!("http://{}", cluster.node(id).client);
        let mut client = MeshClient::connect(address).await.unwrap();
        let put = |bytes: usize| PutStateRequest {
            key: "large".into(),
            value: vec![7; bytes].into(),
            ..PutStateRequest::default()
        };
        for (bytes, code) in
            [(100 << 20, Code::OutOfRange), (6 << 20, Code::OutOfRange), (2 << 20, Code::InvalidArgument)]
        {
            let status = client.put_state(put(bytes)).await.unwrap_err();
            assert_eq!(status.code(), code, "{bytes} bytes at node {id}: {status}");
        }
        client.put_state(put(1 << 20)).await.unwrap();
    }
    let value = cluster.client().state().get("large").await.unwrap();
    assert_eq!((value.version, value.value.len()), (2, 1 << 20));
}

/// A node that has lost its quorum answers nobody anything fresh, but it does answer.
#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_deadline_end_all_the_same() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    cluster.node(2).kill();
    cluster.node(3).kill();
    let client = MeshClient::connect(format!("http://{}", cluster.node(1).client)).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..50 {
        let mut client = client.clone();
        calls.spawn(async move {
            if number % 2 == 0 {
                let put =
                    PutStateRequest { key: format!("key-{number}"), value: "x".into(), ..PutStateRequest::default() };
                client.put_state(put).await.map(drop)
            } else {
                client.get_state(GetStateRequest { read: None, key: "key".into() }).await.map(drop)
            }
        });
    }
    let ended = timeout(Duration::from_secs(60), calls.join_all()).await.expect("every call ends");
    for outcome in ended {
        let code = outcome.unwrap_err().code();
        assert!([Code::Unavailable, Code::DeadlineExceeded, Code::Unknown].contains(&code), "{code}");
    }
    cluster.start_all().await;
    let mut load = Load::start(&cluster, BYTES);
    load.more(100).await;
    assert!(load.finish().await.failures().is_empty());
}
