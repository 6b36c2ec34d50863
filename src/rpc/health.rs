//! gRPC's own health service (`grpc.health.v1.Health`), for what speaks gRPC and not HTTP: load balancers, probes. For the
//! whole node (the empty name) and for each of its services it says what `/readyz` says. Open to all, as that is.

use std::time::Duration;

use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

use super::SERVICES;
use crate::node::Node;

/// Where the calls of this service begin.
pub(super) const PATHS: &str = "/grpc.health.v1.Health/";
/// How often the node is asked. A watcher learns of a change so late.
const EVERY: Duration = Duration::from_millis(500);

/// The service, and what keeps it true for as long as it is polled.
pub fn service(node: Node) -> (HealthServer<impl Health>, impl Future<Output = ()> + Send) {
    let (reporter, server) = tonic_health::server::health_reporter();
    let keep = async move {
        loop {
            let ready = node.vitals().check(node.silence()).is_ok();
            tell(&reporter, if ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            tokio::time::sleep(EVERY).await;
        }
    };
    (server, keep)
}

async fn tell(reporter: &HealthReporter, status: ServingStatus) {
    for service in std::iter::once("").chain(SERVICES) {
        // Tells watchers only of a change.
        reporter.set_service_status(service, status).await;
    }
}
