//! The gate of the peer listener: who calls, and whom did it mean?
//!
//! It stands before everything that is mounted there, so no handler is reached by a stranger, by a node
//! that dialled a wrong address, or by one whose data directory is not the one that the cluster knows. Only
//! `Identify` is answered to all, and `Adopt` to those that belong to no cluster yet. `Join` is open to a node that belongs to
//! none itself, and so can name none.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, HeaderName, Request, Response};
use tonic::Status;
use tower::{Layer, Service};

use super::Standing;
use crate::{
    environment::net::{Connection, Proof},
    model::Principal,
    raft::{
        network::identity::{CLUSTER, FROM, FROM_DIRECTORY, Identity, TO, TO_DIRECTORY, from_hex, hex},
        types::NodeId,
    },
};

/// The peer that calls, verified. An extension of every request that got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its node id.
    pub node: NodeId,
    /// Its data directory.
    pub directory: u128,
}

/// Puts the gate before a service. For the whole peer listener: `Server::builder().layer(..)`.
#[derive(Clone)]
pub struct IdentityLayer {
    identity: Identity,
    standing: Arc<dyn Standing>,
}

impl IdentityLayer {
    /// The gate of this node. `standing` tells which directories the cluster knows.
    pub fn new(identity: Identity, standing: Arc<dyn Standing>) -> Self {
        Self { identity, standing }
    }

    /// The caller of a request.
    ///
    /// Errors: `PERMISSION_DENIED` if it does not say who it is, or has a certificate of somebody else, `FAILED_PRECONDITION` if one of the two is
    /// not who the other thinks it is.
    fn check(&self, path: &str, headers: &HeaderMap, proof: &Proof) -> Result<Option<Caller>, Status> {
        let certified = certified_node(proof)?;
        if path == "/meshstore.v1.Peer/Identify" {
            return Ok(None);
        }
        let claim = Claim::read(headers)?;
        if let Some(node) = certified.filter(|node| *node != claim.from.node) {
            return Err(Status::permission_denied(format!(
                "the caller says that it is node {}, but its certificate is for node {node}",
                claim.from.node
            )));
        }
        let founding = path == "/meshstore.v1.Peer/Adopt";
        let joining = path == "/meshstore.v1.Peer/Join" && claim.cluster.is_none();
        self.check_target(&claim, founding || joining)?;
        self.check_caller(&claim)?;
        Ok(Some(claim.from))
    }

    fn check_target(&self, claim: &Claim, any_cluster: bool) -> Result<(), Status> {
        let own = (self.identity.node(), self.identity.directory(), self.identity.cluster());
        let right_directory = match claim.to_directory {
            Some(directory) => directory == own.1,
            None => false,
        };
        // Which cluster an adoption is for stands in the request, and is its handler's to judge; whoever joins takes the
        // cluster that it finds.
        let right_cluster = any_cluster || (own.2.is_some() && claim.cluster == own.2);
        if claim.to == own.0 && right_directory && right_cluster {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "this is {}; the caller, node {}, wanted {}: check the addresses in its cluster.toml, and whether \
             this data directory was replaced",
            Named(own.0, Some(own.1), own.2),
            claim.from.node,
            Named(claim.to, claim.to_directory, claim.cluster),
        )))
    }

    fn check_caller(&self, claim: &Claim) -> Result<(), Status> {
        let Caller { node, directory } = claim.from;
        if node == self.identity.node() {
            return Err(Status::failed_precondition(if directory == self.identity.directory() {
                format!("node {node} called itself: its own address stands for another node in its cluster.toml")
            } else {
                format!("this is node {node}, and so says the caller: two nodes are configured with one id")
            }));
        }
        check_member(&*self.standing, claim.from)
    }
}

/// That a node is not known to be somebody else, or to be a member no more. Errors: `FAILED_PRECONDITION`.
pub(super) fn check_member(standing: &dyn Standing, Caller { node, directory }: Caller) -> Result<(), Status> {
    match standing.directory_of(node) {
        Some(known) if known != directory => Err(Status::failed_precondition(format!(
            "node {node}'s directory here is {}, the caller has {}: its data directory was wiped or replaced; \
             bring it back under a new node id",
            hex(known),
            hex(directory)
        ))),
        None if standing.is_removed(node, directory) => Err(Status::failed_precondition(format!(
            "node {node} was removed from this cluster, and its id is retired"
        ))),
        // A membership that names the caller may not have come here yet.
        _ => Ok(()),
    }
}

/// The node whose certificate the caller has shown; `None` if the listener asks for none.
fn certified_node(proof: &Proof) -> Result<Option<NodeId>, Status> {
    let name = match proof {
        Proof::Plain => return Ok(None),
        Proof::Encrypted => "nobody",
        Proof::Certified(certified) => match certified.name.parse() {
            Ok(Principal::Node(node)) => return Ok(Some(node)),
            _ => &certified.name,
        },
    };
    Err(Status::permission_denied(format!(
        "this address is for the nodes of one cluster, and the caller's certificate is for {name}: clients call the \
         client address"
    )))
}

struct Named(NodeId, Option<u128>, Option<u128>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(node, directory, cluster) = self;
        write!(f, "node {node} of ")?;
        match cluster {
            Some(cluster) => write!(f, "cluster {}", hex(*cluster))?,
            None => write!(f, "no cluster")?,
        }
        match directory {
            Some(directory) => write!(f, " with directory {}", hex(*directory)),
            None => write!(f, " with any directory"),
        }
    }
}

/// What a request says of both ends.
struct Claim {
    cluster: Option<u128>,
    from: Caller,
    to: NodeId,
    to_directory: Option<u128>,
}

impl Claim {
    fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let number = |text: &str| text.parse::<NodeId>().ok();
        Ok(Self {
            cluster: optional(headers, &CLUSTER, from_hex)?,
            from: Caller {
                node: required(headers, &FROM, number)?,
                directory: required(headers, &FROM_DIRECTORY, from_hex)?,
            },
            to: required(headers, &TO, number)?,
            to_directory: optional(headers, &TO_DIRECTORY, from_hex)?,
        })
    }
}

fn required<T>(headers: &HeaderMap, name: &HeaderName, parse: fn(&str) -> Option<T>) -> Result<T, Status> {
    optional(headers, name, parse)?.ok_or_else(|| denied(name, "missing"))
}

fn optional<T>(headers: &HeaderMap, name: &HeaderName, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Status> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(denied(name, "given twice"));
    }
    value.to_str().ok().and_then(parse).map(Some).ok_or_else(|| denied(name, "malformed"))
}

fn denied(name: &HeaderName, what: &str) -> Status {
    Status::permission_denied(format!("this address is for the nodes of one cluster: {name} is {what}"))
}

impl<S> Layer<S> for IdentityLayer {
    type Service = CheckIdentity<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CheckIdentity { gate: self.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct CheckIdentity<S> {
    gate: IdentityLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for CheckIdentity<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let proof = request.extensions().get::<Connection>().map_or(&Proof::Plain, |connection| &connection.proof);
        match self.gate.check(request.uri().path(), request.headers(), proof) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Left(self.inner.call(request))
            }
            Err(status) => {
                tracing::debug!(path = request.uri().path(), %status, "refused a peer's call");
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use tonic::{Code, body::Body};
    use tower::ServiceExt;

    use super::*;
    use crate::environment::net::Certified;

    struct Known(BTreeMap<NodeId, u128>, BTreeMap<NodeId, u128>);

    impl Standing for Known {
        fn is_empty(&self) -> bool {
            false
        }

        fn members(&self) -> BTreeMap<NodeId, u128> {
            self.0.clone()
        }

        fn removed(&self) -> BTreeMap<NodeId, u128> {
            self.1.clone()
        }
    }

    const CLUSTER_ID: u128 = 0xC;

    async fn call(cluster: Option<u128>, path: &str, headers: HeaderMap) -> Result<Option<Caller>, Status> {
        call_over(Proof::Plain, cluster, path, headers).await
    }

    async fn call_over(
        proof: Proof,
        cluster: Option<u128>,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Option<Caller>, Status> {
        let standing = Known(BTreeMap::from([(1, 0xD1), (2, 0xD2)]), BTreeMap::from([(7, 0xD7)]));
        let layer = IdentityLayer::new(Identity::new(2, 0xD2, cluster), Arc::new(standing));
        let service = layer.layer(tower::service_fn(|request: Request<Body>| async move {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(request.extensions().get::<Caller>().copied());
            Ok::<_, Infallible>(response)
        }));
        let mut request = Request::builder().uri(format!("http://node{path}")).body(Body::empty()).unwrap();
        *request.headers_mut() = headers;
        request.extensions_mut().insert(Connection { proof, ..Connection::default() });
        let response = service.oneshot(request).await.unwrap();
        match Status::from_header_map(response.headers()) {
            Some(status) => Err(status),
            None => Ok(*response.extensions().get::<Option<Caller>>().unwrap()),
        }
    }

    fn says(from: (NodeId, u128), cluster: Option<u128>, to: NodeId, directory: Option<u128>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        Identity::new(from.0, from.1, cluster).introduce(to, directory).put(&mut headers);
        headers
    }

    fn right() -> HeaderMap {
        says((1, 0xD1), Some(CLUSTER_ID), 2, Some(0xD2))
    }

    #[tokio::test]
    async fn the_right_peer_gets_in() {
        let caller = call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Append", right()).await.unwrap();
        assert_eq!(caller, Some(Caller { node: 1, directory: 0xD1 }));
        // A node that this one has not heard of yet.
        let headers = says((9, 0xD9), Some(CLUSTER_ID), 2, Some(0xD2));
        assert!(call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Vote", headers).await.is_ok());
    }

    #[tokio::test]
    async fn everyone_else_is_told_why_not() {
        let me = "this is node 2 of cluster 0000000000000000000000000000000c with directory \
                  000000000000000000000000000000d2";
        let cases = [
            (HeaderMap::new(), "x-meshstore-from is missing"),
            (says((1, 0xD1), Some(0xE), 2, Some(0xD2)), me),
            (says((1, 0xD1), None, 2, Some(0xD2)), "node 2 of no cluster"),
            (says((1, 0xD1), Some(CLUSTER_ID), 3, Some(0xD2)), "wanted node 3 of cluster"),
            (says((1, 0xD1), Some(CLUSTER_ID), 2, Some(0xD3)), "directory 000000000000000000000000000000d3"),
            (says((1, 0xD1), Some(CLUSTER_ID), 2, None), "with any directory"),
            (
                says((1, 0xDD), Some(CLUSTER_ID), 2, Some(0xD2)),
                "node 1's directory here is 000000000000000000000000000000d1, the caller has \
                 000000000000000000000000000000dd: its data directory was wiped or replaced; bring it back under a \
                 new node id",
            ),
            (says((2, 0xD2), Some(CLUSTER_ID), 2, Some(0xD2)), "called itself"),
            (says((2, 0xDD), Some(CLUSTER_ID), 2, Some(0xD2)), "two nodes are configured with one id"),
        ];
        for (headers, expected) in cases {
            for path in ["/meshstore.v1.Peer/Append", "/meshstore.v1.Mesh/PutState"] {
                let status = call(Some(CLUSTER_ID), path, headers.clone()).await.unwrap_err();
                assert!(status.message().contains(expected), "{status}");
                assert!(matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied), "{status}");
            }
        }
    }

    #[tokio::test]
    async fn the_certificate_is_of_the_node_that_the_caller_says_it_is() {
        let of = |name: &str| Proof::Certified(Arc::new(Certified { name: name.into(), until_ms: 0 }));
        let (identify, append) = ("/meshstore.v1.Peer/Identify", "/meshstore.v1.Peer/Append");
        assert!(call_over(of("node/1"), Some(CLUSTER_ID), append, right()).await.unwrap().is_some());
        assert!(call_over(of("node/3"), None, identify, HeaderMap::new()).await.is_ok());
        for (proof, path, expected) in [
            (of("node/3"), append, "says that it is node 1, but its certificate is for node 3"),
            (of("service/billing"), append, "the caller's certificate is for service/billing"),
            (of("service/billing"), identify, "the caller's certificate is for service/billing"),
            (of(""), identify, "the caller's certificate is for"),
            (Proof::Encrypted, append, "the caller's certificate is for nobody"),
            (Proof::Encrypted, identify, "the caller's certificate is for nobody"),
        ] {
            let status = call_over(proof, Some(CLUSTER_ID), path, right()).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
            assert!(status.message().contains(expected), "{status}");
        }
    }

    #[tokio::test]
    async fn who_was_removed_stays_out_and_who_is_new_may_ask() {
        let removed = says((7, 0xD7), Some(CLUSTER_ID), 2, Some(0xD2));
        for path in ["/meshstore.v1.Peer/PreVote", "/meshstore.v1.Peer/Join", "/meshstore.v1.Mesh/PutState"] {
            let status = call(Some(CLUSTER_ID), path, removed.clone()).await.unwrap_err();
            assert!(status.message().contains("node 7 was removed from this cluster"), "{status}");
        }
        // A node of no cluster may ask to join, and nothing else; one of another may not even that.
        let new = says((9, 0xD9), None, 2, Some(0xD2));
        assert!(call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Join", new.clone()).await.is_ok());
        assert!(call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Append", new).await.is_err());
        let stranger = says((9, 0xD9), Some(0xE), 2, Some(0xD2));
        assert!(call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Join", stranger).await.is_err());
        let elsewhere = says((9, 0xD9), None, 2, Some(0xD3));
        assert!(call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Join", elsewhere).await.is_err());
    }

    #[tokio::test]
    async fn malformed_and_doubled_claims_are_refused() {
        for name in [CLUSTER, FROM, FROM_DIRECTORY, TO, TO_DIRECTORY] {
            let mut headers = right();
            headers.insert(name.clone(), "-1".parse().unwrap());
            let status = call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Vote", headers).await.unwrap_err();
            assert!(status.message().contains(&format!("{name} is malformed")), "{status}");
            let mut headers = right();
            let value = headers[&name].clone();
            headers.append(name.clone(), value);
            let status = call(Some(CLUSTER_ID), "/meshstore.v1.Peer/Vote", headers).await.unwrap_err();
            assert!(status.message().contains(&format!("{name} is given twice")), "{status}");
        }
    }

    #[tokio::test]
    async fn a_node_of_no_cluster_answers_only_what_founds_one() {
        assert_eq!(call(None, "/meshstore.v1.Peer/Identify", HeaderMap::new()).await.unwrap(), None);
        let founder = says((1, 0xD1), None, 2, Some(0xD2));
        assert!(call(None, "/meshstore.v1.Peer/Adopt", founder.clone()).await.is_ok());
        // An adoption is meant for the very directory that was identified.
        let other = says((1, 0xD1), None, 2, Some(0xD3));
        assert!(call(None, "/meshstore.v1.Peer/Adopt", other).await.is_err());
        for headers in [founder, right()] {
            let status = call(None, "/meshstore.v1.Peer/Append", headers).await.unwrap_err();
            assert!(status.message().contains("this is node 2 of no cluster"), "{status}");
        }
    }
}
