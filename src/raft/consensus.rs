//! A handle on the running Raft of this node, in plain terms: the node above names no type of openraft.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    Config, LogIdOptionExt, ReadPolicy, ServerState, SnapshotPolicy,
    async_runtime::{Instant as _, watch::WatchReceiver},
    errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError},
    impls::OneshotResponder,
};

use super::{
    freshness::{Lead, whole_ms},
    log_store::LogStore,
    network::PeerNetwork,
    state_machine::{Machine, SnapshotData},
    types::{Command, CommittedLeaderId, LogId, Member, NodeId, Position, Runtime, TypeConfig},
};
use crate::{
    error::{Error, Fault},
    model::Outcome,
};

/// openraft with our types.
pub type Raft = openraft::Raft<TypeConfig, Machine>;

/// Timing of elections, and how much of the log stays; equal on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader, in milliseconds.
    pub heartbeat_ms: u64,
    /// Least time without a leader before a follower asks for votes, in milliseconds.
    pub election_min_ms: u64,
    /// Greatest such time, in milliseconds.
    pub election_max_ms: u64,
    /// How many entries that a snapshot covers stay in the log.
    pub keep_entries: u64,
}

/// A handle on the running Raft. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft,
    node_id: NodeId,
}

/// How long a leader that hands over waits for another to have taken the lead.
const HAND_OVER: Duration = Duration::from_secs(3);

/// Who leads, as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This node, in this term.
    Me {
        /// The term.
        term: u64,
    },
    /// Another.
    Other {
        /// Its id.
        id: NodeId,
        /// Where it is reached.
        member: Member,
    },
    /// Nobody, or nobody knows.
    Unknown,
}

/// What Raft knows of itself.
#[derive(Clone, Debug, Default)]
pub struct RaftStatus {
    /// leader, follower, candidate, learner, or stopped.
    pub role: &'static str,
    /// The leader, where one is known.
    pub leader_id: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last_log_index: u64,
    /// Index of the last entry known to be committed.
    pub committed_index: u64,
    /// Index of the last entry that was purged.
    pub purged_index: u64,
    /// Voters and learners.
    pub members: Vec<(NodeId, Member, bool)>,
    /// On the leader: the last log index known to be on each member's disk, of those that it has heard from.
    pub matched: BTreeMap<NodeId, u64>,
}

impl RaftStatus {
    /// On the leader: of the voters that are eligible the one whose log is known to be furthest.
    pub fn furthest_voter(&self, eligible: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let voters = self.members.iter().filter(|(id, _, voter)| *voter && eligible(*id));
        voters.map(|(id, ..)| *id).max_by_key(|id| self.matched.get(id).copied().unwrap_or(0))
    }
}

impl Consensus {
    /// Recovers Raft from log and state. Nothing runs before [`Consensus::run`]. `seed` decides its random
    /// choices (election timeouts).
    pub async fn build(
        node_id: NodeId,
        (cluster_name, timing): (&str, Timing),
        seed: u64,
        log: LogStore,
        machine: Machine,
        network: PeerNetwork<SnapshotData>,
    ) -> Result<Self, Fault> {
        let config = Config {
            cluster_name: cluster_name.into(),
            heartbeat_interval: timing.heartbeat_ms,
            election_timeout_min: timing.election_min_ms,
            election_timeout_max: timing.election_max_ms,
            enable_pre_vote: Some(true),
            // Never. Entries go to the followers while they are being written here, so a leader that was killed may
            // lack some that the followers hold, have committed and acknowledged. If it went on in its old term it
            // would write others under the same term and index, and nobody could tell them apart.
            enable_leader_restore: Some(false),
            max_payload_entries: 1_024,
            max_append_entries: Some(4_096),
            // A snapshot is the files of the last flush; the node says when there is a new one.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: timing.keep_entries,
            replication_lag_threshold: 250_000,
            // At most twice what is to be kept stays, since less than a batch is not purged.
            purge_batch_size: timing.keep_entries.clamp(1, 4_096),
            // The transport ends a snapshot that makes no progress; this is the bound of a large one.
            install_snapshot_timeout: 3_600_000,
            ..Config::default()
        };
        let config = config.validate().map_err(|error| Fault::new(format!("the Raft timing is invalid: {error}")))?;
        let build = Raft::build(node_id, Arc::new(config), network, log, machine);
        let raft = Runtime::scope(seed, build).await;
        let raft = raft.map_err(|fatal| Fault::new(format!("Raft cannot start from what is on disk: {fatal}")))?;
        Ok(Self { raft, node_id })
    }

    /// Starts the tasks of Raft on the current runtime.
    pub async fn run(&self, seed: u64) {
        let raft = self.raft.clone();
        Runtime::scope(seed, async move { raft.run() }).await;
    }

    /// openraft's own handle, for the peer service.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Begins a cluster of these voters. Done once, on one node.
    pub async fn initialise(&self, members: BTreeMap<NodeId, Member>) -> Result<(), Fault> {
        match self.raft.initialize(members).await {
            // Done before a crash.
            Ok(()) | Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(Fault::new(format!("the cluster cannot be initialised: {error}"))),
        }
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        match self.raft.as_leader() {
            Ok(leader) => Leadership::Me { term: *leader.to_committed_leader_id() },
            Err(forward) => match (forward.leader_id, forward.leader_node) {
                (Some(id), Some(member)) if id != self.node_id => Leadership::Other { id, member },
                _ => Leadership::Unknown,
            },
        }
    }

    /// Appends an entry, if this node still leads in `term`; what became of its proposals, once it is applied
    /// here.
    pub async fn submit(&self, batch: Bytes, term: u64) -> Result<(Position, Vec<Outcome>), Error> {
        let stopped = |_| Error::Unknown("the node stopped before it answered".into());
        let (responder, answer) = OneshotResponder::new_pair();
        self.raft
            .write(Command(batch))
            .responder(responder)
            .with_leader(CommittedLeaderId::new(term))
            .await
            .map_err(|_| not_leading(None))?;
        match answer.await.map_err(stopped)? {
            Ok(written) => Ok((written.log_id.into(), written.data.outcomes)),
            Err(ClientWriteError::ForwardToLeader(forward)) => Err(not_leading(Some(&forward))),
            Err(ClientWriteError::LogEntryDiscarded(_)) => {
                Err(Error::Unknown("the leader changed before the write was acknowledged".into()))
            }
            Err(other) => Err(Error::Unknown(other.to_string())),
        }
    }

    /// An index that covers every write acknowledged before the call; only a leader has it, after a round to
    /// a quorum.
    pub async fn read_index(&self) -> Result<u64, Error> {
        let unavailable = |reason: String| Error::Unavailable { reason, leader: None };
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(not_leading(Some(&forward)))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(unavailable("the leader does not reach a quorum".into()))
            }
            Err(RaftError::Fatal(fatal)) => Err(unavailable(format!("the node is stopping: {fatal}"))),
        }
    }

    /// Tells Raft that the files now reach further, so that it may purge the log.
    pub async fn snapshot_advanced(&self) {
        // A stopped Raft needs no telling.
        let _ = self.raft.trigger().snapshot().await;
    }

    /// Asks a member to take the lead, and waits a while until this node no longer has it.
    pub async fn hand_over(&self, to: NodeId) {
        // Best effort: if it fails the others elect after their timeout.
        let _ = self.raft.trigger().transfer_leader(to).await;
        let not_leading = |metrics: &openraft::RaftMetrics<TypeConfig>| metrics.state != ServerState::Leader;
        let _ = self.raft.wait(Some(HAND_OVER)).metrics(not_leading, "leadership handed over").await;
    }

    /// Waits a while until it is known who leads.
    pub async fn leader_known(&self) {
        let known = |metrics: &openraft::RaftMetrics<TypeConfig>| metrics.current_leader.is_some();
        let _ = self.raft.wait(Some(HAND_OVER)).metrics(known, "who leads is known").await;
    }

    /// Resolves when anything that [`Consensus::status`] shows has changed; an error when Raft has stopped.
    pub async fn changed(&self, watch: &mut MetricsWatch) -> Result<(), Fault> {
        watch.0.changed().await.map_err(|_| Fault::new("Raft has stopped"))
    }

    /// For [`Consensus::changed`].
    pub fn watch(&self) -> MetricsWatch {
        MetricsWatch(self.raft.metrics())
    }

    /// What Raft knows of itself; its reason if it has stopped of itself.
    pub fn status(&self) -> Result<RaftStatus, Fault> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if let Err(fatal) = &metrics.running_state {
            return Err(Fault::new(format!("Raft has stopped: {fatal}")));
        }
        let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
        let members = metrics.membership_config.membership().nodes();
        Ok(RaftStatus {
            role: match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Learner => "learner",
                ServerState::Shutdown => "stopped",
            },
            leader_id: metrics.current_leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: metrics.local_committed.index().unwrap_or(0),
            purged_index: metrics.purged.index().unwrap_or(0),
            members: members.map(|(id, member)| (*id, member.clone(), voters.contains(id))).collect(),
            matched: metrics.replication.as_ref().map(matched).unwrap_or_default(),
        })
    }

    /// What this node knows of itself as the leader, once it has applied an entry of its own term: before that others may have
    /// acknowledged what it has not applied. `applied` says up to where it has applied the log.
    pub fn lead(&self, applied: impl FnOnce() -> Position) -> Option<Lead> {
        let quorum_age_ms = self.quorum_age_ms()?;
        let Leadership::Me { term } = self.leadership() else { return None };
        // Asked last, so that it covers what was acknowledged before that quorum was heard.
        let applied = applied();
        (applied.term >= term).then_some(Lead { quorum_age_ms, applied_index: applied.index })
    }

    /// On the leader: how long ago a quorum last answered it, in milliseconds.
    pub fn quorum_age_ms(&self) -> Option<u64> {
        if self.is_quorum_alone() {
            // openraft counts from the last write then, since nobody else is there to answer.
            return Some(0);
        }
        let metrics = self.raft.data_metrics();
        let acked = metrics.borrow_watched().last_quorum_acked?;
        Some(whole_ms(acked.elapsed()))
    }

    /// Whether this node leads, and is the only voter.
    fn is_quorum_alone(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let mut configs = metrics.membership_config.membership().get_joint_config().iter();
        metrics.current_leader == Some(metrics.id)
            && configs.all(|config| config.len() == 1 && config.contains(&metrics.id))
    }

    /// The data directory of each member, as the newest membership here has it.
    pub fn directories(&self) -> BTreeMap<NodeId, u128> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, member)| (*id, member.directory)).collect()
    }

    /// The data directory of one member.
    pub fn directory_of(&self, node: NodeId) -> Option<u128> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&node).map(|member| member.directory)
    }

    /// Stops Raft.
    pub async fn shutdown(&self) {
        // An error says that it had already stopped.
        let _ = self.raft.shutdown().await;
    }
}

/// What is known to be on whose disk. Of a member that was never heard from nothing is: it is not one that has matched the
/// beginning.
fn matched(replication: &BTreeMap<NodeId, Option<LogId>>) -> BTreeMap<NodeId, u64> {
    replication.iter().filter_map(|(id, position)| Some((*id, position.as_ref()?.index))).collect()
}

/// See [`Consensus::watch`].
pub struct MetricsWatch(openraft::type_config::alias::WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>);

pub(super) fn not_leading(forward: Option<&ForwardToLeader<TypeConfig>>) -> Error {
    let leader = forward.and_then(|forward| forward.leader_node.as_ref()).map(|member| member.client_address.clone());
    Error::Unavailable { reason: "this node does not lead".into(), leader }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_never_heard_from_has_matched_nothing() {
        let at = |index| LogId::from(Position { term: 1, index });
        let replication = BTreeMap::from([(1, Some(at(5))), (2, None), (3, Some(at(0)))]);
        assert_eq!(matched(&replication), BTreeMap::from([(1, 5), (3, 0)]));
    }
}
