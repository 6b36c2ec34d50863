//! What nodes say of themselves to those who watch them, over HTTP and over gRPC, while there is a quorum and while there
//! is none.

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{Cluster, Settings, http_get, until};

const MESH: &str = "meshstore.v1.Mesh";

fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

async fn health(address: &str, service: &str) -> Option<ServingStatus> {
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
    assert!(reason.starts_with("not ready: "), "{reason}");
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
