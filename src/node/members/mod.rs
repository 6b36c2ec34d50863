//! Who belongs to the cluster, and how that changes.
//!
//! The Raft membership says who votes and where everybody is. Beside it stands, in the state, what is wanted of each node
//! ([`record`]): it is written first, so that an id is never used twice, and so that whoever leads can finish what another
//! leader has begun ([`keep`]). [`rules`] says what may be changed, as pure functions; [`change`] does what operators ask,
//! [`admit`] lets new nodes in, [`list`] tells of all, [`features`] knows what all of them can read. One change is made at a
//! time.
//!
//! *Below the layers*: a layer turns a call into one transaction, and a change of the membership is not one. It is a
//! transaction, questions to other nodes, and entries of Raft.
//!
//! A node that was taken out gets no more entries, so it cannot read in the log that it is none any more. It asks, when it has
//! not heard of a leader for a while ([`notice_removal`]), and stops.

mod admit;
mod change;
mod features;
mod keep;
mod list;
mod record;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

pub use change::{Asked, NewAddresses};
pub use list::{Listed, ListedMember, RemovedMember};

pub(super) use keep::keep;

use self::record::{Found, Record, Records, Wish};
use super::{Node, OWN_DEADLINE, Shared, identity};
use crate::{
    environment::net::{self, ChannelOptions},
    error::{Error, Fault, Result},
    model::{
        Key, Outcome,
        proposal::{Action, Guards, Proposal},
        transaction::{Compare, Operation, Put, Transaction},
    },
    proto::v1::IdentifyResponse,
    raft::{
        consensus::Leadership,
        members::Members,
        network::{
            Lane,
            identity::{from_hex, hex},
        },
        types::{Member, NodeId},
    },
};

/// Between two looks at who is a member at most so often, however often the state changes.
const FOLLOW: Duration = Duration::from_millis(50);
/// How often a node that hears of no leader asks whether it was removed. A real timer: nobody tells it.
const NOTICE: Duration = Duration::from_secs(1);
/// So long a node hears of no leader, or as one of no quorum, before it asks, in milliseconds.
const SILENCE_MS: u64 = 2_000;
/// How long a member may take to say who it is.
const QUESTION: Duration = Duration::from_secs(1);

/// What a node keeps in memory of the membership.
#[derive(Default)]
pub(super) struct Membership {
    /// Held while this node, as the leader, changes it.
    changing: Arc<Mutex<()>>,
    /// The directories of nodes that were members and are none any more, as far as that is committed.
    removed: ArcSwap<BTreeMap<NodeId, u128>>,
    /// A feature level that was seen to be reached; there may be a higher one. Levels do not sink.
    level: AtomicU32,
}

impl Membership {
    /// The directories of those that were removed.
    pub(super) fn removed(&self) -> Arc<BTreeMap<NodeId, u128>> {
        self.removed.load_full()
    }
}

impl Node {
    /// That this node leads, and has applied what its term began with: the state then holds what earlier leaders decided.
    /// Errors: `Unavailable`.
    fn check_leads(&self) -> Result<()> {
        let not_leading = |reason: &str, leader| Error::Unavailable { reason: reason.into(), leader };
        match self.leadership() {
            Leadership::Me { term } if term == self.shared.machine.progress().borrow().position.term => Ok(()),
            Leadership::Me { .. } => Err(not_leading("this node has only just begun to lead", None)),
            Leadership::Other { member, .. } => {
                Err(not_leading("this node does not lead", Some(member.client_address).filter(|at| !at.is_empty())))
            }
            Leadership::Unknown => Err(not_leading("no leader is known; an election may be under way", None)),
        }
    }

    /// The right to change the membership, once whoever has it is done. Errors: `Unavailable` if that takes until the deadline.
    async fn begin_change(&self, deadline: Instant) -> Result<OwnedMutexGuard<()>> {
        let changing = Arc::clone(&self.shared.membership.changing).lock_owned();
        let busy = "another change of the membership is under way";
        let begun = tokio::time::timeout_at(deadline, changing).await;
        begun.map_err(|_| Error::Unavailable { reason: busy.into(), leader: None })
    }

    /// The same, if nobody has it.
    fn try_change(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.shared.membership.changing).try_lock_owned().ok()
    }

    /// What is wanted of the nodes of this cluster, as the newest state here has it.
    fn records(&self) -> Result<Records> {
        let cluster = self.shared.cluster();
        let mut records = record::read_all(&self.view(None, None)?)?;
        records.retain(|_, found| Some(found.record.cluster) == cluster);
        Ok(records)
    }

    /// Writes what is wanted of a node, if that is still what it was. Also when the disks are short of room: to take a node out
    /// may be what helps.
    async fn write_record(&self, node: NodeId, before: Option<&Found>, record: Record) -> Result<u64> {
        let key = record::key(node);
        let revision = self.record_revision(node, before)?;
        let unchanged = Compare::written_at(key.clone(), revision);
        let value = record::value(&record);
        let written = self.put_if(unchanged, key, value, record.by).await?;
        written.ok_or_else(|| Error::Conflict(format!("what is wanted of node {node}")))
    }

    /// Writes a record about the cluster itself if something holds: the revision, or `None` if it does not. Asks for no room.
    async fn put_if(&self, holds: Compare, key: Key, value: Bytes, by: String) -> Result<Option<u64>> {
        let guards = self.shared.permitted_now(Guards { compares: vec![holds], ..Guards::default() });
        let put = Operation::Put { key, put: Put::value(value) };
        let action = Action::Transact(Transaction::blind(vec![put]));
        let proposal = Proposal { principal: by, call: None, guards, action };
        match self.shared.propose_anyway(proposal, Instant::now() + OWN_DEADLINE).await? {
            Outcome::Applied { revision, .. } => Ok(Some(revision)),
            Outcome::Raced => Ok(None),
            other => Err(Error::Unexpected(format!("{other:?}"))),
        }
    }

    /// The revision of a node's record; of one of an earlier cluster as well, which is overwritten.
    fn record_revision(&self, node: NodeId, found: Option<&Found>) -> Result<u64> {
        match found {
            Some(found) => Ok(found.revision),
            None => Ok(self.view(None, None)?.record(&record::key(node))?.map_or(0, |record| record.mod_revision)),
        }
    }

    /// Asks members who they are: what each answers that is who it should be, or what is wrong.
    async fn ask_members(
        &self,
        members: &BTreeMap<NodeId, Member>,
    ) -> BTreeMap<NodeId, Result<IdentifyResponse, String>> {
        let questions = members.iter().map(|(id, member)| async { (*id, self.ask_member(*id, member).await) });
        join_all(questions).await.into_iter().collect()
    }

    async fn ask_member(&self, id: NodeId, member: &Member) -> Result<IdentifyResponse, String> {
        let channel = self.shared.network.channel(id, member, Lane::Liveness).map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(QUESTION, identity::identify(channel)).await;
        let answer = answer.map_err(|_| "does not answer")??;
        check_answer(&answer, id, member.directory)?;
        match from_hex(&answer.cluster) {
            cluster if cluster == self.shared.cluster() => Ok(answer),
            Some(cluster) => Err(format!("belongs to cluster {}", hex(cluster))),
            None => Err("belongs to no cluster yet".into()),
        }
    }

    /// Asks whoever is at an address who it is. Errors: what is wrong with it.
    async fn ask_at(&self, peer_address: &str) -> Result<(IdentifyResponse, tonic::transport::Channel), String> {
        let channel = net::channel(&self.shared.environment.net, peer_address, &ChannelOptions::default());
        let channel = channel.map_err(|error| error.to_string())?;
        Ok((identity::identify(channel.clone()).await?, channel))
    }

    /// The voters that answer now, and the node itself.
    async fn answering(&self, members: &Members, also: Option<NodeId>) -> BTreeSet<NodeId> {
        let own = self.id();
        let asked = |id: &NodeId| *id != own && (members.voters.contains(id) || also == Some(*id));
        let asked = members.all.iter().filter(|(id, _)| asked(id)).map(|(id, member)| (*id, member.clone())).collect();
        let answers = self.ask_members(&asked).await;
        answers.into_iter().filter(|(_, answer)| answer.is_ok()).map(|(id, _)| id).chain([own]).collect()
    }
}

/// That an answer is this very node's. Errors: what it says instead.
fn check_answer(answer: &IdentifyResponse, id: NodeId, directory: u128) -> Result<(), String> {
    match from_hex(&answer.directory) {
        Some(found) if answer.node_id == id && found == directory => Ok(()),
        Some(found) if answer.node_id == id => {
            Err(format!("has data directory {}, not {}", hex(found), hex(directory)))
        }
        _ => Err(format!("is not there: node {} answers in its place", answer.node_id)),
    }
}

/// Takes over, whenever it changes, who is a member and where, and who was removed.
pub(super) async fn follow(node: Node) {
    let shared = &node.shared;
    let (mut progress, mut watch) = (shared.machine.progress(), shared.consensus.watch());
    let mut seen = None;
    loop {
        progress.mark_unchanged();
        shared.network.set_members(shared.consensus.members());
        let revision =
            |_, meta: &crate::state::Meta| meta.scopes.get(&record::SCOPE).map(|scope| scope.account.last_revision);
        let now = Some((shared.machine.with_state(revision), shared.machine.members()));
        if now != seen
            && let Some((_, members)) = &now
        {
            match node.records() {
                Ok(records) => {
                    shared.membership.removed.store(Arc::new(gone(&records, members)));
                    seen = now;
                }
                Err(error) => tracing::debug!(%error, "who was removed cannot be read"),
            }
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            changed = shared.consensus.changed(&mut watch) => if changed.is_err() { return },
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// Those whose removal is done.
fn gone(records: &Records, members: &BTreeSet<NodeId>) -> BTreeMap<NodeId, u128> {
    let removed = records.iter().filter(|(id, found)| found.record.wish == Wish::Removed && !members.contains(id));
    removed.map(|(id, found)| (*id, found.record.member.directory)).collect()
}

/// Stops a node that was removed. `places`: where nodes may be found, beside the members known here.
pub(super) async fn notice_removal(node: Node, places: Vec<String>) {
    loop {
        // A leader too: one that was cut off when it was removed is answered by nobody, so nobody deposes it either.
        if node.age_ms() > SILENCE_MS
            && let Some(by) = told_of_removal(&node.shared, &places).await
        {
            return node.shared.faults.report(retired(&node.shared, by));
        }
        tokio::time::sleep(NOTICE).await;
    }
}

/// Which node says that this one was removed.
async fn told_of_removal(shared: &Shared, places: &[String]) -> Option<NodeId> {
    let identity = shared.directory.identity();
    let members = shared.network.members();
    let others = members.all.iter().filter(|(id, _)| **id != identity.node()).map(|(_, member)| &member.peer_address);
    let places: BTreeSet<&String> = others.chain(places).collect();
    let questions = places.into_iter().map(|place| async {
        let channel = net::channel(&shared.environment.net, place, &ChannelOptions::default()).ok()?;
        let answer = identity::identify(channel).await.ok()?;
        let ours = from_hex(&answer.cluster) == identity.cluster();
        let of_this = answer.removed.get(&identity.node()).and_then(|directory| from_hex(directory));
        (ours && of_this == Some(identity.directory())).then_some(answer.node_id)
    });
    join_all(questions).await.into_iter().flatten().next()
}

fn retired(shared: &Shared, by: NodeId) -> Fault {
    let node = shared.node_id;
    Fault::new(format!(
        "node {node} was removed from cluster {} (node {by} says so), and its id is retired: {} is of no more use to the \
         cluster; to use this machine again, {}",
        shared.cluster().map(hex).unwrap_or_default(),
        shared.directory.path().display(),
        rules::choose_another()
    ))
}
