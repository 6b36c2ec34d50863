//! What nodes say of themselves to those who watch them, over HTTP and over gRPC, while there is a quorum and while there
//! is none; and what they log of a call.

use std::collections::BTreeSet;

use meshstore::{
    client::ReadMode,
    proto::v1::{GetStateRequest, PutStateRequest, mesh_client::MeshClient},
};
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::{Request, transport::Channel};
pub use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{Cluster, Settings, http_get, until};

const MESH: &str = "meshstore.v1.Mesh";

pub fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

pub async fn health(address: &str, service: &str) -> Option<ServingStatus> {
    let request = HealthCheckRequest { service: service.into() };
    Some(HealthClient::new(channel(address)).check(request).await.ok()?.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_quorum_says_so_and_why() {
    let mut cluster = Cluster::start(3, Settings::default()).await;
    let leader = cluster.leader().await;
    for node in &cluster.nodes {
        for service in ["", MESH] {
            let serving =
                async || health(&node.client, service).await.filter(|status| *status == ServingStatus::Serving);
            until("a node to say that it serves", serving).await;
        }
        assert_eq!(health(&node.client, "no.such.Service").await, None);
    }
    let others: Vec<u64> = cluster.nodes.iter().map(|node| node.id).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.node(*id).pause();
    }
    let (client, http) = (cluster.node(leader).client.clone(), cluster.node(leader).http.clone());
    let refuses = async || health(&client, MESH).await.filter(|status| *status == ServingStatus::NotServing);
    until("the node to say that it does not serve", refuses).await;
    let (code, reason) = http_get(&http, "/readyz").await.unwrap();
    assert_eq!(code, 503);
    let truth = ["no quorum answers it", "no leader is known"];
    assert!(reason.starts_with("not ready: ") && truth.iter().any(|truth| reason.contains(truth)), "{reason}");
    assert_eq!(cluster.node(leader).metric("ready").await, Some(0));
    assert_eq!(http_get(&http, "/livez").await.unwrap().0, 200);
    for id in &others {
        cluster.node(*id).resume();
    }
    let serves = async || health(&client, "").await.filter(|status| *status == ServingStatus::Serving);
    until("the node to serve again", serves).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_its_services() {
    let cluster = Cluster::start(1, Settings::default()).await;
    let address = cluster.nodes[0].client.clone();
    let mut client = ServerReflectionClient::new(channel(&address));
    let asked = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("meshstore.v1.ConsensusLog".into()),
        MessageRequest::FileContainingSymbol("no.such.Service".into()),
    ];
    let requests = asked.map(|request| ServerReflectionRequest { host: String::new(), message_request: Some(request) });
    let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut next = async || answers.next().await.unwrap().map(|answer| answer.message_response.unwrap());
    let Ok(MessageResponse::ListServicesResponse(listed)) = next().await else { panic!("no list of services") };
    let names: Vec<&str> = listed.service.iter().map(|service| service.name.as_str()).collect();
    for name in [MESH, "meshstore.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"meshstore.v1.Peer"), "{names:?}");
    assert!(matches!(next().await, Ok(MessageResponse::FileDescriptorResponse(_))));
    assert!(!matches!(next().await, Ok(MessageResponse::FileDescriptorResponse(_))));
}

/// All names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let part = |c: char| c.is_ascii_lowercase() || c == '_';
    let starts = text.match_indices("meshstore_").map(|(at, _)| &text[at..]);
    starts.map(|rest| &rest[..rest.find(|c| !part(c)).unwrap_or(rest.len())]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dashboard_and_the_documents_name_is_measured() {
    let cluster = Cluster::start(3, Settings::default()).await;
    let (client, leader) = (cluster.client(), cluster.leader().await);
    client.state().put("key", "value").await.unwrap();
    client.state().get("key").await.unwrap();
    client.clone().with_read(ReadMode::AtLeast(1)).state().get("key").await.unwrap();
    assert!(client.state().get("no such key").await.is_err());
    let node = cluster.nodes.iter().find(|node| node.id == leader).unwrap();
    let (_, text) = http_get(&node.http, "/metrics").await.unwrap();
    let shown: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| metrics_in(line).into_iter().take(1))
        .collect();
    let dashboard: Value = serde_json::from_str(include_str!("../../docs/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Health", "Traffic", "Latency", "Raft", "Storage"]);
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(asked.len() > 40);
    for name in asked.iter().flat_map(|expression| metrics_in(expression)) {
        assert!(shown.contains(name), "the dashboard asks for {name}, which no node shows");
    }
    // Histograms are listed by their own name.
    let is_shown = |name: &str| shown.contains(name) || shown.contains(format!("{name}_count").as_str());
    let document = include_str!("../../docs/operations.md");
    for name in metrics_in(document) {
        assert!(is_shown(name), "docs/operations.md names {name}, which no node shows");
    }
    let documented = metrics_in(document);
    for name in shown {
        let whole = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(documented.contains(name) || documented.contains(whole), "docs/operations.md does not name {name}");
    }
    for line in [
        "meshstore_ready 1",
        "meshstore_reads_total{mode=\"at_least\"} ",
        "meshstore_calls_total{method=\"Mesh/GetState\",code=\"NotFound\"} 1",
        "meshstore_member_lag_entries{member=\"",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}\n{text}");
    }
    for histogram in ["log_sync_seconds", "commit_seconds", "apply_seconds", "read_index_seconds"] {
        assert!(node.metric(&format!("{histogram}_count")).await.unwrap() > 0, "{histogram}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_followed_from_the_follower_that_got_it_to_the_entry_on_all_nodes() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut cluster = Cluster::new(3, Settings::default());
    for node in &mut cluster.nodes {
        node.log_level = "info,openraft=error,meshstore=debug";
    }
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let mut client = MeshClient::new(channel(&cluster.node(follower).client));
    let mut request = Request::new(PutStateRequest { key: "key".into(), value: "value".into(), ..Default::default() });
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap());
    client.put_state(request).await.unwrap();
    // The leader says, in the span of the call, which entry it became.
    let node = cluster.node(leader);
    let line = until("the leader to log the call", async || {
        node.log().lines().find(|line| line.contains(TRACE) && line.contains("entry=")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("method=\"/meshstore.v1.Mesh/PutState\"") && line.contains("principal=anonymous"), "{line}");
    let entry = line.split("proposed, and applied here").nth(1).unwrap().split("entry=").nth(1).unwrap();
    let entry = entry.split(' ').next().unwrap().to_owned();
    for id in 1..=3 {
        let (node, applied) = (cluster.node(id), format!("apply{{entry={entry}}}"));
        until(&format!("node {id} to log that it applied {entry}"), async || {
            node.log().contains(&applied).then_some(())
        })
        .await;
    }
    // Where it came in it has its name, too; one that is none is replaced.
    let log = cluster.node(follower).log();
    assert!(log.lines().any(|line| line.contains(TRACE) && line.contains("passed on to the leader")), "{log}");
    let mut bad = Request::new(GetStateRequest { key: "no such key".into(), ..Default::default() });
    bad.metadata_mut().insert("traceparent", "00-nonsense-00".parse().unwrap());
    assert!(client.get_state(bad).await.is_err());
    let node = cluster.node(follower);
    let line = until("the follower to log the failure", async || {
        node.log().lines().find(|line| line.contains("a call failed") && line.contains("NotFound")).map(str::to_owned)
    })
    .await;
    let trace = line.split("trace=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(trace.len() == 32 && trace.bytes().all(|digit| digit.is_ascii_hexdigit()), "{line}");
}
