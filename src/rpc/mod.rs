//! The gRPC services: decode, authorise, call, encode.
//!
//! A handler is a few lines: it opens its request as a [`Call`] (who asks, until when), lets a layer make a
//! [`Write`] or a read of it, and hands that to [`Call::write`] or [`Call::read`], which know all that the
//! handlers have in common. There is a file for each service. Errors become statuses in `proto::status`
//! and nowhere else.
//!
//! Calls that only a leader can serve are passed on by the layer in front of these services, which leaves
//! the principal that the first node verified in the request's extensions ([`Forwarded`]).

mod broker;
pub mod calls;
mod cluster;
mod consensus_log;
pub mod direct;
pub mod forward;
pub mod gate;
pub mod health;
pub mod http;
mod join_key;
mod large;
mod lease;
mod lock;
mod mesh;
mod metrics;
pub mod multiplex;
pub mod pressure;
pub mod reflection;
mod session;
mod storage;
mod topology;
pub mod trace;
pub mod transaction;
mod watch;

use std::{str::FromStr, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{Request, Response, Status, service::Routes};

use self::{
    forward::{AcceptForwarded, Forwarded},
    gate::Authorise,
    trace::Trace,
    transaction::{Belongs, Entered, Place},
};
use crate::{
    Error, Result,
    layers::{self, Decided, Meaning, Write},
    limits,
    model::{Outcome, Principal, ReadMode, ReadStamp, lease::Fence, mesh::Page, proposal::Guards, session::Attempt},
    node::{self, Node},
    proto::{
        convert::read_header,
        lease::fence,
        v1::{
            self, broker_server::BrokerServer, calls_server::CallsServer, cluster_server::ClusterServer,
            consensus_log_server::ConsensusLogServer, lease_server::LeaseServer, lock_server::LockServer,
            mesh_server::MeshServer, session_server::SessionServer, storage_server::StorageServer,
            topology_server::TopologyServer, watch_server::WatchServer,
        },
    },
    security::Policy,
    service::{self, Caller, Core, Decision, transactions::Transactions},
    state::View,
};

/// What a client writes its deadline into.
const TIMEOUT: &str = "grpc-timeout";
/// A node answers this much before the caller's deadline, or a tenth of the time if that is less: the answer
/// that says what was being waited for is worth more than the one that the transport gives.
const MARGIN: Duration = Duration::from_millis(20);

/// The largest page fits into what a client is asked to decode: values up to the bound, one more that
/// crossed it, and around each item its numbers and tags.
const _: () = assert!(
    limits::PAGE_BYTES + limits::VALUE_BYTES + 4 * limits::KEY_BYTES + limits::PAGE_MAX * 128
        <= limits::CLIENT_DECODE_BYTES
);

/// The services of the client listener, as gRPC names them.
const SERVICES: [&str; 11] = [
    "meshstore.v1.Mesh",
    "meshstore.v1.Topology",
    "meshstore.v1.Storage",
    "meshstore.v1.Broker",
    "meshstore.v1.Lease",
    "meshstore.v1.Lock",
    "meshstore.v1.Watch",
    "meshstore.v1.ConsensusLog",
    "meshstore.v1.Session",
    "meshstore.v1.Cluster",
    "meshstore.v1.Calls",
];

/// The services of a node.
pub struct Services {
    node: Arc<Node>,
    mesh: Arc<mesh::Mesh>,
    storage: Arc<storage::Storage>,
    /// Who may search.
    turns: Arc<Semaphore>,
}

/// A service as gRPC serves it.
macro_rules! served {
    ($server:ident, $service:expr) => {
        $server::from_arc($service)
            .max_decoding_message_size(limits::CLIENT_DECODE_BYTES)
            .max_encoding_message_size(limits::CLIENT_DECODE_BYTES)
    };
}

impl Services {
    /// Of this node, with the transactions that it keeps.
    pub fn new(node: Arc<Node>, transactions: Transactions) -> Self {
        let mesh = mesh::Mesh::new(Arc::clone(&node), large::Uploads::new(Arc::clone(&node)));
        let turns = Arc::new(Semaphore::new(limits::QUERIES));
        let storage = storage::Storage::new(Arc::clone(&node), transactions, Arc::clone(&turns));
        Self { node, mesh: Arc::new(mesh), storage: Arc::new(storage), turns }
    }

    /// For calls of gRPC.
    pub fn routes(&self) -> Routes {
        let node = || Arc::clone(&self.node);
        Routes::new(served!(MeshServer, Arc::clone(&self.mesh)))
            .add_service(served!(StorageServer, Arc::clone(&self.storage)))
            .add_service(served!(BrokerServer, Arc::new(broker::Broker::new(node(), Arc::clone(&self.turns)))))
            .add_service(served!(TopologyServer, Arc::new(topology::Topology::new(node()))))
            .add_service(served!(LeaseServer, Arc::new(lease::Lease::new(node()))))
            .add_service(served!(LockServer, Arc::new(lock::Lock::new(node()))))
            .add_service(served!(WatchServer, Arc::new(watch::Watch(node()))))
            .add_service(served!(ConsensusLogServer, Arc::new(consensus_log::ConsensusLog::new(node()))))
            .add_service(served!(SessionServer, Arc::new(session::Session::new(node()))))
            .add_service(served!(ClusterServer, Arc::new(cluster::Cluster::new(node()))))
            .prepare()
    }

    /// For calls of a stream.
    pub fn direct(&self, routes: Routes) -> direct::Direct {
        direct::Direct::new(&self.mesh, &self.storage, routes)
    }
}

/// The service that makes calls of all the others.
pub fn multiplexed(
    handlers: multiplex::Handlers,
    drain: tokio::sync::watch::Receiver<bool>,
) -> CallsServer<multiplex::Multiplex> {
    CallsServer::new(multiplex::Multiplex::new(handlers, drain))
        .max_decoding_message_size(limits::PEER_DECODE_BYTES)
        .max_encoding_message_size(limits::PEER_DECODE_BYTES)
}

/// The same services for the peer listener: calls that other nodes pass on.
pub fn forwarded_routes(node: Arc<Node>, transactions: Transactions, policy: Policy) -> Routes {
    let routes = Services::new(node, transactions.clone()).routes().into_axum_router();
    let routes = routes.layer(Belongs::to(transactions)).layer(Trace);
    Routes::from(routes.layer(Authorise::new(policy)).layer(AcceptForwarded))
}

/// Whether a call of this method goes on for as long as its caller wants.
fn goes_on(path: &str) -> bool {
    [watch::PATH, multiplex::PATH].contains(&path)
}

/// Who calls, as proposals and sessions name it.
pub fn principal<T>(request: &Request<T>) -> String {
    principal_of(request.extensions()).to_string()
}

/// Who calls, by what earlier layers have left in the request's extensions: another node has verified it, or this one.
pub fn principal_of(extensions: &::http::Extensions) -> Principal {
    let forwarded = extensions.get::<Forwarded>().map(|forwarded| &forwarded.principal);
    forwarded.or_else(|| extensions.get()).cloned().unwrap_or(Principal::Anonymous)
}

/// Until when an answer is of use: the caller's deadline less a margin, or the default; never more than the
/// longest that a node waits. Errors: `InvalidArgument` for a deadline that is not one.
pub fn deadline<T>(request: &Request<T>) -> Result<Instant> {
    let time = time_allowed(request.metadata().as_ref())?;
    Ok(Instant::now() + (time - MARGIN.min(time / 10)))
}

/// How long the caller waits; never more than the longest that a node waits.
fn time_allowed(headers: &::http::HeaderMap) -> Result<Duration> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(Duration::from_millis(limits::DEADLINE_DEFAULT_MS)) };
    let text = value.to_str().unwrap_or_default();
    let time =
        timeout(text).ok_or_else(|| Error::invalid(TIMEOUT, text, "must be up to 8 digits and one of H M S m u n"))?;
    Ok(time.min(Duration::from_millis(limits::DEADLINE_MAX_MS)))
}

/// The time that the gRPC header names.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = u64::from_str(digits).ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// A turn at something of which there is only so much at once. Errors: `DeadlineExceeded`.
async fn turn_of(turns: &Arc<Semaphore>, deadline: Instant, waiting_for: &str) -> Result<OwnedSemaphorePermit> {
    let began = Instant::now();
    match tokio::time::timeout_at(deadline, Arc::clone(turns).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(closed)) => Err(Error::Unexpected(closed.to_string())),
        Err(_) => Err(Error::DeadlineExceeded {
            deadline_ms: u64::try_from((deadline - began).as_millis()).unwrap_or(u64::MAX),
            waiting_for: waiting_for.into(),
            may_have_applied: false,
        }),
    }
}

/// A request that has been opened: who asks, until when, what a write depends on, and in which transaction if in one.
struct Call {
    principal: String,
    deadline: Instant,
    fence: Option<Fence>,
    entered: Option<Entered>,
}

impl Call {
    /// What its own write is guarded by; in a transaction that is the matter of its commit.
    fn own_fence(&self) -> Option<Fence> {
        self.fence.clone().filter(|_| self.entered.is_none())
    }

    /// The call, and what it asks.
    fn open<T>(request: Request<T>) -> Result<(Self, T)> {
        let (principal, deadline) = (principal(&request), deadline(&request)?);
        let entered = request.extensions().get::<Entered>().cloned();
        let call = Self { principal, deadline, fence: fence(request.metadata())?, entered };
        Ok((call, request.into_inner()))
    }

    /// Who asks for a change that is decided on what is there.
    fn caller(self, attempt: Option<v1::Attempt>) -> Result<Caller> {
        let fence = self.own_fence();
        let Self { principal, deadline, .. } = self;
        Ok(Caller { principal, attempt: attempt.map(Attempt::try_from).transpose()?, deadline, fence })
    }

    /// Where the call is made: in the store, or in a transaction, in which it is alone until this is dropped.
    async fn place<'a>(&self, node: &'a Node) -> Result<Place<'a>> {
        transaction::place(node, self.entered.as_ref(), (&self.principal, self.fence.as_ref(), self.deadline)).await
    }

    /// Makes a change, and answers the revision with it in.
    async fn write(
        self,
        node: &Node,
        attempt: Option<v1::Attempt>,
        write: Write,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        let Decided { revision, .. } = self.decide(node, attempt, write).await?;
        Ok(Response::new(v1::WriteResponse { revision, leader_id: node.id() }))
    }

    /// Makes a change, and answers what became of it. Only a leader's proposal is answered, so the node that answers
    /// is the one that led.
    async fn decide(self, node: &Node, attempt: Option<v1::Attempt>, write: Write) -> Result<Decided> {
        let place = self.place(node).await?;
        if !write.attached.is_empty() {
            let decide = |_: &View| Ok(Decision { write: Some(write.clone()), found: () });
            return Ok(service::change(&place, self.caller(attempt)?, decide).await?.decided());
        }
        let (deadline, fence) = (self.deadline, self.own_fence());
        let (request, meaning) = self.request(attempt, write)?;
        let session = request.attempt.map(|attempt| attempt.session);
        let outcome = place.propose(request, deadline).await?;
        check_fence(node, fence, &outcome, deadline).await?;
        meaning.of(outcome, session)
    }

    /// What is to be proposed of a write, and what its outcome means.
    fn request(self, attempt: Option<v1::Attempt>, write: Write) -> Result<(node::Request, Meaning)> {
        let attempt = attempt.map(Attempt::try_from).transpose()?;
        let Write { transaction, guards: mut compares, meaning, .. } = write;
        compares.extend(self.own_fence().as_ref().map(layers::lock::guard));
        let guards = Guards { compares, ..Guards::default() };
        Ok((node::Request { principal: self.principal, attempt, guards, transaction }, meaning))
    }

    /// Reads, and answers with a header. `revision`: the one of the pages before. A revision that is asked for has been
    /// applied already where it was read first, so no mode adds to it.
    async fn read<T, A: From<(v1::ReadHeader, T)>>(
        self,
        node: &Node,
        options: Option<v1::ReadOptions>,
        revision: Option<u64>,
        read: impl FnOnce(&View) -> Result<T>,
    ) -> Result<Response<A>, Status> {
        let place = self.place(node).await?;
        self.read_in((&place, node), options, revision, read).await
    }

    /// The same, where the call is made already.
    async fn read_in<T, A: From<(v1::ReadHeader, T)>>(
        self,
        place: (&Place<'_>, &Node),
        options: Option<v1::ReadOptions>,
        revision: Option<u64>,
        read: impl FnOnce(&View) -> Result<T>,
    ) -> Result<Response<A>, Status> {
        let (view, stamp) = self.view(place, options, revision).await?;
        let answer = read(&view)?;
        Ok(Response::new(A::from((read_header(stamp, place.1.id()), answer))))
    }

    /// What it reads. `revision`: the one of the pages before.
    async fn view(
        &self,
        (place, node): (&Place<'_>, &Node),
        options: Option<v1::ReadOptions>,
        revision: Option<u64>,
    ) -> Result<(View, ReadStamp)> {
        let options = options.unwrap_or_default();
        let exactly = exact_revision(options.revision, revision)?;
        let mode = match (ReadMode::from(Some(options)), exactly) {
            // A later page must show the revision of the first. A node that has not reached it yet can wait
            // for it, whatever age was allowed; there is no other answer that it could give.
            (ReadMode::Stale(_), Some(revision)) if self.entered.is_none() => ReadMode::AtLeast(revision),
            (mode, _) => mode,
        };
        let (view, stamp) = place.read(mode, exactly, self.deadline).await?;
        if options.keep {
            node.keep_for_pages(&view);
        }
        Ok((view, stamp))
    }

    /// Searches on a thread of its own, since that may go through many values; so many at once, the others wait for their
    /// turn.
    async fn search<T: Send + 'static>(
        &self,
        node: &Node,
        (view, turns): (View, &Arc<Semaphore>),
        search: impl FnOnce(&View) -> Result<T> + Send + 'static,
    ) -> Result<(View, T)> {
        let turn = turn_of(turns, self.deadline, "other queries on this node to end").await?;
        let searching = move || {
            // Also if nobody waits for it any more: the thread is what there may be so many of.
            let _turn = turn;
            let found = search(&view);
            (view, found)
        };
        let (view, found) = node.run_blocking("query", searching).await?;
        Ok((view, found?))
    }

    /// Reads one page, and keeps its revision readable if there is a next one.
    async fn list<T, A: From<(v1::ReadHeader, Page<T>)>>(
        self,
        node: &Node,
        options: Option<v1::ReadOptions>,
        revision: Option<u64>,
        read: impl FnOnce(&View) -> Result<Page<T>>,
    ) -> Result<Response<A>, Status> {
        let place = self.place(node).await?;
        self.list_in((&place, node), options, revision, read).await
    }

    /// The same, where the call is made already.
    async fn list_in<T, A: From<(v1::ReadHeader, Page<T>)>>(
        self,
        (place, node): (&Place<'_>, &Node),
        options: Option<v1::ReadOptions>,
        revision: Option<u64>,
        read: impl FnOnce(&View) -> Result<Page<T>>,
    ) -> Result<Response<A>, Status> {
        let keep = |view: &View| {
            let page = read(view)?;
            if !page.next_cursor.is_empty() {
                node.keep_for_pages(view);
            }
            Ok(page)
        };
        self.read_in((place, node), options, revision, keep).await
    }
}

/// Says why a blind write was overtaken, if that was its fence. Its attempts all carry it, and a token that is lost comes never
/// back: so none of them is executed later. Errors: `Fenced`; those of a read.
async fn check_fence(node: &Node, fence: Option<Fence>, outcome: &Outcome, deadline: Instant) -> Result<()> {
    match fence {
        Some(fence) if *outcome == Outcome::Raced => service::lock::check_fence(node, &fence, deadline).await,
        _ => Ok(()),
    }
}

/// The one revision that a read must show: the one that was asked for, or that of the pages before.
fn exact_revision(asked: Option<u64>, pages: Option<u64>) -> Result<Option<u64>> {
    match (asked, pages) {
        (Some(asked), Some(before)) if asked != before => {
            let rule = format!("the pages before show revision {before}");
            Err(Error::invalid("read.revision", asked.to_string(), rule))
        }
        (asked, pages) => Ok(asked.or(pages)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_timeout(text: &'static str) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert(TIMEOUT, text.parse().unwrap());
        request
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_is_a_little_before_the_callers() {
        let in_ms = |request: &Request<()>| (deadline(request).unwrap() - Instant::now()).as_millis();
        assert_eq!(in_ms(&Request::new(())), u128::from(limits::DEADLINE_DEFAULT_MS) - 20);
        assert_eq!(in_ms(&with_timeout("2S")), 1_980);
        assert_eq!(in_ms(&with_timeout("100m")), 90);
        assert_eq!(in_ms(&with_timeout("5000u")), 4);
        assert_eq!(in_ms(&with_timeout("0n")), 0);
        assert_eq!(in_ms(&with_timeout("99999999H")), u128::from(limits::DEADLINE_MAX_MS) - 20);
    }

    #[test]
    fn a_deadline_that_is_none_is_refused() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1.5S", "1 S"] {
            assert_eq!(timeout(text).filter(|_| text != "S"), None, "{text}");
        }
        assert!(matches!(deadline(&with_timeout("soon")), Err(Error::InvalidArgument { .. })));
    }

    #[test]
    fn a_forwarded_call_keeps_its_principal() {
        let mut request = Request::new(());
        assert_eq!(principal(&request), "anonymous");
        request.extensions_mut().insert(Principal::Node(1));
        assert_eq!(principal(&request), "node/1");
        request.extensions_mut().insert(Forwarded { principal: Principal::Service("billing".into()) });
        assert_eq!(principal(&request), "service/billing");
    }
}
