//! The clusters that the cases run against. A kind is a variant, an arm that starts it and stops it behind
//! `run`, and a test in `main.rs`; the cases know none of it.

use std::{collections::BTreeMap, sync::Mutex};

use meshstore::Client;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig},
};

use super::nodes::{Access, Nodes};

/// The nodes of this process that have TLS, by their addresses.
static WITH_TLS: Mutex<BTreeMap<String, Access>> = Mutex::new(BTreeMap::new());

/// A kind of cluster.
pub enum Kind {
    /// One that somebody else started: its endpoints, with commas between.
    Running(String),
    /// So many nodes inside this process, with this engine.
    Embedded(usize, &'static str),
    /// The same with TLS between nodes, and TLS and a token for clients.
    EmbeddedTls(usize, &'static str),
}

/// Starts a cluster, runs the cases with a client of it, and stops it.
pub async fn with_cluster<F: Future<Output = ()>>(kind: Kind, run: impl FnOnce(Client) -> F) {
    match kind {
        Kind::Running(endpoints) => {
            run(Client::connect(endpoints.split(',').map(str::trim)).await.expect("the cluster answers")).await;
        }
        Kind::Embedded(count, engine) => run_on(Nodes::start(count, engine).await, run).await,
        Kind::EmbeddedTls(count, engine) => {
            let nodes = Nodes::start_with_tls(count, engine).await;
            let access = nodes.access.clone().unwrap();
            WITH_TLS.lock().unwrap().extend(nodes.endpoints.iter().map(|address| (address.clone(), access.clone())));
            run_on(nodes, run).await;
        }
    }
}

async fn run_on<F: Future<Output = ()>>(nodes: Nodes, run: impl FnOnce(Client) -> F) {
    run(nodes.client().connect().await.expect("the cluster answers")).await;
    nodes.stop().await;
}

/// A connection below the client, which says with each call who it is, where that is asked for.
pub type Wire = InterceptedService<Channel, Introduction>;

/// What says who calls.
#[derive(Clone)]
pub struct Introduction(Option<Access>);

impl Interceptor for Introduction {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(Access { token, .. }) = &self.0 {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        Ok(request)
    }
}

/// Connects to the node at this address as another principal, if the cluster tells them apart.
pub async fn stranger(address: &str) -> Option<Wire> {
    let access = WITH_TLS.lock().unwrap().get(address).cloned()?;
    Some(connect(address, Some(Access { token: access.of_a_stranger.clone(), ..access })).await)
}

/// Connects to the node at this address, as the cluster asks for it.
pub async fn wire(address: &str) -> Wire {
    let access = WITH_TLS.lock().unwrap().get(address).cloned();
    connect(address, access).await
}

async fn connect(address: &str, access: Option<Access>) -> Wire {
    let channel = match &access {
        None => Channel::from_shared(format!("http://{address}")).unwrap(),
        Some(Access { ca, .. }) => Channel::from_shared(format!("https://{address}"))
            .unwrap()
            .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))
            .unwrap(),
    };
    InterceptedService::new(channel.connect().await.unwrap(), Introduction(access))
}
