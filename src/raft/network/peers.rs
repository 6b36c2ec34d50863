//! The connections to other nodes.
//!
//! To each node there is one connection for each [`Lane`], so that a snapshot cannot hold up entries, nor
//! entries a heartbeat: calls on one connection share its flow control and its lost packets.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tonic::{Code, Status, service::interceptor::InterceptedService, transport::Channel};

use super::identity::{Identity, Introduction};
use crate::{
    environment::net::{self, ChannelOptions, Net},
    error::{Error, Result},
    limits,
    proto::v1::{ReadIndexRequest, StateHashRequest, peer_client::PeerClient},
    raft::{
        freshness::Freshness,
        members::Members,
        space::Space,
        types::{Member, NodeId},
        wire,
    },
};

/// A client of another node's `Peer` service that says who is calling.
pub type Client = PeerClient<InterceptedService<Channel, Introduction>>;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes, read indexes: small, and must not wait.
    Liveness,
    /// Entries.
    Log,
    /// Snapshots.
    Snapshot,
    /// Calls of clients, on their way to the leader.
    Forward,
}

/// The connections of this node to others. They are opened when first used, and again when they broke.
pub struct Peers {
    net: Arc<dyn Net>,
    identity: Identity,
    freshness: Arc<Freshness>,
    space: Arc<Space>,
    channels: Mutex<BTreeMap<(NodeId, Lane), (String, Channel)>>,
    /// The members, as the newest membership here has them. openraft keeps the connections that it has made when an address
    /// changes, so whoever dials looks here.
    book: ArcSwap<Members>,
    /// Why a node last refused this one.
    refusals: Mutex<BTreeMap<NodeId, String>>,
    /// How many calls were made that have a number.
    calls: AtomicU64,
}

impl Peers {
    /// No connections yet.
    pub fn new(net: Arc<dyn Net>, identity: Identity, freshness: Arc<Freshness>, space: Arc<Space>) -> Arc<Self> {
        let (channels, book, refusals) = (Mutex::default(), ArcSwap::default(), Mutex::default());
        Arc::new(Self { net, identity, freshness, space, channels, book, refusals, calls: AtomicU64::new(0) })
    }

    /// A number for a call, that its answer has to repeat: from 1, and of no other call of this process.
    pub fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes over who is a member and where. Connections to those that are none any more are let go.
    pub fn set_members(&self, members: Members) {
        if **self.book.load() == members {
            return;
        }
        if !members.all.is_empty() {
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.retain(|(node, _), _| members.all.contains_key(node));
        }
        self.book.store(Arc::new(members));
    }

    /// The members, as they were last taken over.
    pub fn members(&self) -> Arc<Members> {
        self.book.load_full()
    }

    /// Where a node is reached now, if that is another place than `before` has.
    pub(super) fn moved(&self, node: NodeId, before: &Member) -> Option<Member> {
        let book = self.book.load();
        book.all
            .get(&node)
            .filter(|now| now.directory == before.directory && now.peer_address != before.peer_address)
            .cloned()
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How old this node's data is.
    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// Who has room on its disk.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// The connection to a node.
    ///
    /// Errors: its address is not `host:port`.
    pub fn channel(&self, node: NodeId, member: &Member, lane: Lane) -> io::Result<Channel> {
        // A panic cannot leave a map of channels half changed.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, channel)) = channels.get(&(node, lane))
            && *address == member.peer_address
        {
            return Ok(channel.clone());
        }
        let channel = net::channel(&self.net, &member.peer_address, &options(lane))?;
        channels.insert((node, lane), (member.peer_address.clone(), channel.clone()));
        Ok(channel)
    }

    /// Lets go of a connection on which something came that no sound one brings: the next call opens another.
    ///
    /// Both ends of an HTTP/2 connection keep a table of headers. If a damaged packet gets past TCP's checksum the tables
    /// may differ from then on, and every call would be refused for what it never said, for as long as the connection lives.
    pub fn let_go(&self, node: NodeId, lane: Lane) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&(node, lane));
    }

    /// A client of a node's `Peer` service.
    ///
    /// Errors: its address is not `host:port`.
    pub fn client(&self, node: NodeId, member: &Member, lane: Lane) -> io::Result<Client> {
        let introduction = self.identity.introduce(node, Some(member.directory));
        let client = PeerClient::with_interceptor(self.channel(node, member, lane)?, introduction);
        Ok(client.max_decoding_message_size(limits::PEER_DECODE_BYTES))
    }

    /// Asks a node for the hash of its state at a log index: `None` if it has not come so far, or does not answer.
    pub async fn state_hash(&self, node: NodeId, member: &Member, index: u64, timeout: Duration) -> Option<u128> {
        let mut client = self.client(node, member, Lane::Liveness).ok()?;
        let answer = tokio::time::timeout(timeout, client.state_hash(StateHashRequest { index })).await;
        wire::open_state_hash(index, answer.ok()?.ok()?.get_ref())
    }

    /// Says why a node refuses this one, when that changes.
    pub(super) fn refused(&self, node: NodeId, member: &Member, status: &Status) {
        if !matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied) {
            return;
        }
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.get(&node).is_none_or(|before| before != status.message()) {
            tracing::warn!(node, address = member.peer_address, "refused by a peer: {}", status.message());
            refusals.insert(node, status.message().into());
        }
    }

    /// Asks the leader for an index that covers all writes acknowledged before this call.
    ///
    /// Errors: `Unavailable`, if it does not answer in time or is not the leader.
    pub async fn read_index(&self, leader: NodeId, member: &Member, timeout: Duration) -> Result<u64> {
        let unavailable = |error: &dyn fmt::Display| Error::Unavailable {
            reason: format!("no read index from node {leader}: {error}"),
            leader: None,
        };
        let mut client = self.client(leader, member, Lane::Liveness).map_err(|error| unavailable(&error))?;
        let call = self.next_call();
        let answer = tokio::time::timeout(timeout, client.read_index(ReadIndexRequest { call })).await;
        let answer = answer.map_err(|_| unavailable(&format_args!("no answer within {timeout:?}")))?;
        let answer = answer.map_err(|status| {
            if is_odd(&status) {
                self.let_go(leader, Lane::Liveness);
            }
            unavailable(&said(&status))
        })?;
        wire::open_read_index(call, answer.into_inner()).map_err(|error| {
            self.let_go(leader, Lane::Liveness);
            unavailable(&error)
        })
    }
}

/// Whether a status is none of those that come and go on a sound connection between peers.
pub(super) fn is_odd(status: &Status) -> bool {
    !matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled)
}

fn options(lane: Lane) -> ChannelOptions {
    let defaults = ChannelOptions::default();
    match lane {
        Lane::Liveness | Lane::Log | Lane::Forward => {
            ChannelOptions {
                // A node that is cut off is noticed by Raft within an election timeout; its connection
                // should not outlive the cut by much, since TCP itself waits ever longer between attempts.
                keep_alive_interval: Duration::from_secs(1),
                keep_alive_timeout: Duration::from_secs(2),
                ..defaults
            }
        }
        Lane::Snapshot => defaults,
    }
}

/// What a status says, for logs and for the texts of other errors.
pub fn said(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let error_text = error.to_string();
        if !text.contains(&error_text) {
            text = format!("{text}: {error_text}");
        }
        source = error.source();
    }
    text
}
