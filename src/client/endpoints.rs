//! Where the cluster can be reached, and which endpoint to try next.
//!
//! The user names some endpoints; more are learned from what nodes say of the members, and forgotten
//! when they leave. An endpoint that failed rests for a while, longer each time: others are tried first,
//! but when all rest the one whose rest ends first is tried, so that no call fails only for that reason.
//!
//! What is known of the leader is a guess, refreshed by every answer; a wrong guess costs one hop.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::transport::{self, Channel};

use super::{line::Line, tls::Tls};
use crate::{Error, Result, proto::v1::StatusResponse};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(3);
/// Watches that share a connection.
const WATCHES: usize = 32;
/// Bytes of a watch that may be under way to one who does not read them.
const WATCH_BYTES: usize = 256 << 10;
const _: () = assert!(WATCHES <= crate::limits::WATCHES_PER_CONNECTION);

/// Makes a lazily connected channel of an endpoint; another one than tonic's in simulations.
pub(super) type Connect = Arc<dyn Fn(transport::Endpoint) -> Channel + Send + Sync>;

/// One address of a node, and its connections.
pub(super) struct Endpoint {
    /// `host:port`.
    pub(super) address: String,
    lines: Vec<Line>,
    turn: AtomicUsize,
    rest: Mutex<Rest>,
    /// Makes one more connection.
    connect: Box<dyn Fn() -> Channel + Send + Sync>,
    /// Connections for watches, which take no room from calls.
    watching: Mutex<Vec<(Channel, Arc<()>)>>,
}

#[derive(Default)]
struct Rest {
    failures: u32,
    until: Option<Instant>,
}

/// Which endpoint a call wants.
#[derive(Clone)]
pub(super) enum Preference {
    /// The leader, if it is known.
    Leader,
    /// Any, in turn.
    Any,
    /// This one and no other.
    Only(Arc<Endpoint>),
}

/// All known endpoints.
pub(super) struct Endpoints {
    connect: Connect,
    connections: usize,
    streaming: bool,
    tls: Option<Tls>,
    turn: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Those that the user named come first, and stay.
    all: Vec<Arc<Endpoint>>,
    named: usize,
    nodes: BTreeMap<u64, Arc<Endpoint>>,
    leader: Option<Arc<Endpoint>>,
    /// The latest term of which a node has said who leads.
    term: u64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, and none leaves half a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoints {
    pub(super) fn new(
        named: &[String],
        (connections, streaming): (usize, bool),
        tls: Option<Tls>,
        connect: Connect,
    ) -> Result<Self> {
        let turn = AtomicUsize::new(0);
        let endpoints = Self { connect, connections, streaming, tls, turn, table: Mutex::default() };
        for address in named {
            let endpoint = endpoints.open(address)?;
            let mut table = lock(&endpoints.table);
            table.list(endpoint);
            table.named = table.all.len();
        }
        if lock(&endpoints.table).all.is_empty() {
            return Err(Error::invalid("endpoints", "", "at least one is needed, like 127.0.0.1:7401"));
        }
        Ok(endpoints)
    }

    fn open(&self, address: &str) -> Result<Arc<Endpoint>> {
        let address = normal(address, self.tls.is_some())?;
        let malformed = |error: transport::Error| Error::invalid("endpoint", &address, error.to_string());
        let endpoint = match &self.tls {
            Some(tls) => tls.endpoint(&address)?,
            None => transport::Endpoint::from_shared(format!("http://{address}")).map_err(malformed)?,
        };
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let line = |_| Line::new((self.connect)(endpoint.clone()), self.streaming);
        let lines = (0..self.connections).map(line).collect();
        let (connect, window) = (Arc::clone(&self.connect), u32::try_from(WATCH_BYTES).unwrap_or(u32::MAX));
        // So much room that watches which nobody reads leave some for the others on their connection.
        let watching = endpoint
            .initial_stream_window_size(window)
            .initial_connection_window_size(window.saturating_mul(u32::try_from(WATCHES + 1).unwrap_or(u32::MAX)));
        Ok(Arc::new(Endpoint {
            address,
            lines,
            turn: AtomicUsize::new(0),
            rest: Mutex::default(),
            connect: Box::new(move || connect(watching.clone())),
            watching: Mutex::default(),
        }))
    }

    /// The endpoint with this address, known or new.
    pub(super) fn at(&self, address: &str) -> Result<Arc<Endpoint>> {
        let address = normal(address, self.tls.is_some())?;
        if let Some(known) = lock(&self.table).find(&address) {
            return Ok(known);
        }
        self.open(&address)
    }

    /// All that are known, those that the user named first.
    pub(super) fn all(&self) -> Vec<Arc<Endpoint>> {
        lock(&self.table).all.clone()
    }

    /// Where to send an attempt, after those in `failed` did not serve the call.
    pub(super) fn choose(&self, preference: &Preference, failed: &[Arc<Endpoint>]) -> Result<Arc<Endpoint>> {
        let table = lock(&self.table);
        let tried = |endpoint: &Endpoint| failed.iter().filter(|failed| failed.address == endpoint.address).count();
        match preference {
            Preference::Only(endpoint) => return Ok(endpoint.clone()),
            Preference::Leader => {
                if let Some(leader) = &table.leader
                    && leader.rests_until().is_none()
                {
                    return Ok(leader.clone());
                }
            }
            Preference::Any => {}
        }
        // Not one that rests, then the one that failed this call least often, then the next in turn; if all
        // rest, the one that has the least of its rest before it.
        let start = self.turn.fetch_add(1, Ordering::Relaxed) % table.all.len().max(1);
        let in_turn = table.all.iter().skip(start).chain(table.all.iter().take(start));
        let best = in_turn.min_by_key(|endpoint| {
            let rest = endpoint.rests_until();
            (rest.is_some(), tried(endpoint), rest)
        });
        best.cloned().ok_or_else(|| Error::Unavailable { reason: "no endpoint is known".into(), leader: None })
    }

    /// Follows what a node said of where the leader is.
    pub(super) fn leader_is_at(&self, address: &str) -> bool {
        // A hint that is no address is no hint.
        let Ok(endpoint) = self.at(address) else { return false };
        let mut table = lock(&self.table);
        table.list(endpoint.clone());
        table.leader = Some(endpoint);
        true
    }

    /// Notes who led when an answer was given; false if nobody knows where that node is.
    pub(super) fn leader_is(&self, node_id: u64) -> bool {
        let mut table = lock(&self.table);
        match table.nodes.get(&node_id).cloned() {
            Some(endpoint) => {
                table.leader = Some(endpoint);
                true
            }
            None => false,
        }
    }

    /// Whether it is believed to be the leader's.
    #[cfg(test)]
    pub(super) fn leader(&self) -> Option<String> {
        lock(&self.table).leader.as_ref().map(|leader| leader.address.clone())
    }

    /// Notes that an endpoint does not lead (any more).
    pub(super) fn leads_not(&self, endpoint: &Endpoint) {
        let mut table = lock(&self.table);
        if table.leader.as_ref().is_some_and(|leader| leader.address == endpoint.address) {
            table.leader = None;
        }
    }

    /// Takes over what a node says of itself and the members.
    pub(super) fn learn(&self, from: &Arc<Endpoint>, status: &StatusResponse) {
        let mut learned = Vec::new();
        for member in &status.members {
            // A member without a usable address is reached through the others.
            learned.extend(self.at(&member.client_address).ok().map(|endpoint| (member.node_id, endpoint)));
        }
        let mut table = lock(&self.table);
        // This address is known to lead to that node, whatever the node believes its address to be.
        table.nodes.insert(status.node_id, from.clone());
        if !learned.is_empty() {
            let named = table.named;
            table.all.truncate(named);
            table.nodes.retain(|id, _| status.members.iter().any(|member| member.node_id == *id));
        }
        for (id, endpoint) in learned {
            // An address that the user gave is one that works from here; a member's own may not.
            let named = table.nodes.get(&id).filter(|known| table.is_named(known)).cloned();
            let of_node = named.unwrap_or(endpoint);
            table.nodes.insert(id, of_node.clone());
            table.list(of_node);
        }
        if status.term >= table.term {
            table.term = status.term;
            table.leader = table.nodes.get(&status.leader_id).cloned();
        }
    }
}

impl Table {
    fn list(&mut self, endpoint: Arc<Endpoint>) {
        if !self.all.iter().any(|known| known.address == endpoint.address) {
            self.all.push(endpoint);
        }
    }

    fn is_named(&self, endpoint: &Endpoint) -> bool {
        self.all.iter().take(self.named).any(|named| named.address == endpoint.address)
    }

    fn find(&self, address: &str) -> Option<Arc<Endpoint>> {
        self.all.iter().chain(self.nodes.values()).find(|endpoint| endpoint.address == address).cloned()
    }
}

impl Endpoint {
    /// One of its connections, in turn.
    pub(super) fn line(&self) -> Result<Line> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.lines.len().max(1);
        let missing = || Error::Unexpected("an endpoint without a connection".into());
        self.lines.get(turn).cloned().ok_or_else(missing)
    }

    /// A connection for a watch, and its place there, to be kept for as long as it is used.
    pub(super) fn watching(&self) -> (Channel, Arc<()>) {
        let mut watching = lock(&self.watching);
        // What nobody uses any more is closed.
        watching.retain(|(_, places)| Arc::strong_count(places) > 1);
        let has_room = |(_, places): &&(Channel, Arc<()>)| Arc::strong_count(places) <= WATCHES;
        if let Some((channel, places)) = watching.iter().find(has_room) {
            return (channel.clone(), Arc::clone(places));
        }
        let (channel, places) = ((self.connect)(), Arc::new(()));
        watching.push((channel.clone(), Arc::clone(&places)));
        (channel, places)
    }

    /// Until when others are to be tried first.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        lock(&self.rest).until.filter(|until| *until > Instant::now())
    }

    /// Notes that it did not answer.
    pub(super) fn failed(&self) {
        let mut rest = lock(&self.rest);
        let time = FIRST_REST.saturating_mul(1 << rest.failures.min(10)).min(LONGEST_REST);
        rest.failures = rest.failures.saturating_add(1);
        rest.until = Some(Instant::now() + time);
    }

    /// Notes that it answered.
    pub(super) fn answered(&self) {
        *lock(&self.rest) = Rest::default();
    }
}

/// `host:port` of an address that may be written as a URL.
fn normal(address: &str, tls: bool) -> Result<String> {
    let invalid = |rule: &str| Error::invalid("endpoint", address, rule);
    let (right, wrong) = if tls { ("https://", "http://") } else { ("http://", "https://") };
    let rest = address.trim();
    if rest.starts_with(wrong) {
        return Err(invalid(if tls {
            "must begin with https:// or with the host: this client speaks TLS only"
        } else {
            "is for TLS, which needs the certificate of the cluster's authority (--ca)"
        }));
    }
    let rest = rest.strip_prefix(right).unwrap_or(rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let uri: tonic::codegen::http::Uri =
        format!("http://{rest}").parse().map_err(|_| invalid("must be host:port, like 127.0.0.1:7401"))?;
    match uri.port_u16() {
        Some(port) if port != 0 && uri.path() == "/" && uri.query().is_none() && !rest.contains('@') => {
            Ok(rest.to_ascii_lowercase())
        }
        _ => Err(invalid("must be host:port, like 127.0.0.1:7401")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Member;

    fn endpoints(named: &[&str]) -> Endpoints {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        Endpoints::new(&named, (1, true), None, Arc::new(|endpoint: transport::Endpoint| endpoint.connect_lazy()))
            .unwrap()
    }

    fn status(node_id: u64, leader_id: u64, members: &[(u64, &str)]) -> StatusResponse {
        let member = |(node_id, address): &(u64, &str)| Member {
            node_id: *node_id,
            client_address: (*address).into(),
            voter: true,
            ..Member::default()
        };
        StatusResponse { node_id, leader_id, members: members.iter().map(member).collect(), ..Default::default() }
    }

    fn addresses(endpoints: &Endpoints) -> Vec<String> {
        endpoints.all().iter().map(|endpoint| endpoint.address.clone()).collect()
    }

    #[test]
    fn addresses_are_host_and_port() {
        for (given, meant) in
            [("127.0.0.1:7401", "127.0.0.1:7401"), (" http://Node1:7401/ ", "node1:7401"), ("[::1]:7401", "[::1]:7401")]
        {
            assert_eq!(normal(given, false).unwrap(), meant);
        }
        assert_eq!(normal("https://Node1:7401", true).unwrap(), "node1:7401");
        assert!(normal("http://node1:7401", true).is_err());
        for wrong in ["", "a", "a:", "a:0", "a:b", "a:99999", "https://a:1", "http://a:1/x", "a:1?x", "u@a:1", "a b:1"]
        {
            assert!(matches!(normal(wrong, false), Err(Error::InvalidArgument { .. })), "{wrong}");
        }
    }

    #[tokio::test]
    async fn members_are_learned_and_forgotten_but_named_endpoints_stay() {
        let endpoints = endpoints(&["gate:1", "gate:1", "b:1"]);
        assert_eq!(addresses(&endpoints), ["gate:1", "b:1"]);
        let gate = endpoints.at("gate:1").unwrap();
        endpoints.learn(&gate, &status(1, 3, &[(1, "a:1"), (2, "b:1"), (3, "c:1")]));
        assert_eq!(addresses(&endpoints), ["gate:1", "b:1", "c:1"], "gate:1 is node 1 already");
        assert_eq!(endpoints.leader().as_deref(), Some("c:1"));
        endpoints.learn(&gate, &status(1, 1, &[(1, "a:1"), (2, "b:1"), (4, "d:1")]));
        assert_eq!(addresses(&endpoints), ["gate:1", "b:1", "d:1"]);
        assert_eq!(endpoints.leader().as_deref(), Some("gate:1"));
        assert!(endpoints.leader_is(4));
        assert!(!endpoints.leader_is(3));
        assert_eq!(endpoints.leader().as_deref(), Some("d:1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_is_preferred_and_those_that_failed_come_last() {
        let endpoints = endpoints(&["a:1", "b:1", "c:1"]);
        assert!(endpoints.leader_is_at("b:1"));
        let choose = |preference, failed: &[Arc<Endpoint>]| endpoints.choose(&preference, failed).unwrap();
        let leader = choose(Preference::Leader, &[]);
        assert_eq!(leader.address, "b:1");
        leader.failed();
        let second = choose(Preference::Leader, &[]);
        assert_ne!(second.address, "b:1");
        let third = choose(Preference::Any, std::slice::from_ref(&second));
        assert!(third.address != second.address && third.address != leader.address);
        second.failed();
        third.failed();
        third.failed();
        leader.failed();
        assert_eq!(
            choose(Preference::Any, &[]).address,
            second.address,
            "the first to have rested, as the last resort"
        );
        tokio::time::advance(2 * FIRST_REST).await;
        assert_eq!(choose(Preference::Leader, &[]).address, "b:1");
        let mut seen: Vec<_> = (0..3).map(|_| choose(Preference::Any, &[]).address.clone()).collect();
        seen.sort();
        assert_eq!(seen, ["a:1", "b:1", "c:1"]);
    }
}
