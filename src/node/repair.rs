//! A node whose storage is damaged or lost, but whose log and vote are whole, gets it back from a peer.
//!
//! Before Raft starts, and before a peer can reach the node. So it votes for nobody, acknowledges nothing and is counted
//! for nothing while it does not have what it once acknowledged. It keeps its id, because nothing that it promised is
//! forgotten: the vote stands in the log, and so does every entry that it acknowledged and that is not purged.
//!
//! What was purged (up to P) stood only in the storage that is gone. A snapshot of any member holds committed entries and
//! nothing else, as of some position S, so it may replace the state of every node. If S is at P or behind it, snapshot and
//! log together hold again all that this node ever acknowledged, and it takes part as if nothing had been. A snapshot that
//! does not reach P is not taken: between it and the log entries would be missing, which this node may have helped to
//! commit. If at S the log has an entry of another term, that and all behind it were never committed, and are dropped.
//!
//! The damaged files stay in place until the snapshot is received wholly and verified; then they are set aside under
//! another name. So whoever starts the node meanwhile is told of the damage again, and nothing is ever deleted.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tonic::transport::Channel;

use super::identity::{Address, Directory, PAUSE, check_membership, identify};
use crate::{
    environment::{
        Environment,
        net::{self, ChannelOptions},
    },
    error::Fault,
    limits,
    model::Position,
    proto::v1::{FetchSnapshotRequest, peer_client::PeerClient},
    raft::{
        log::Log,
        network::{
            identity::{from_hex, hex},
            peers::{Client, said},
        },
        peer::receive::{self, SnapshotSink},
        types::NodeId,
        wire::{self, SnapshotHead},
    },
    state::audit::Accounts,
    storage::{Checkpoint, Prepared, ReceiveError, Replacement},
};

/// How long a peer may take to begin with a snapshot: it may have to flush first.
const BEGIN: Duration = Duration::from_secs(60);

/// What a repair works with.
pub(super) struct Repair<'a> {
    pub(super) environment: &'a Environment,
    pub(super) directory: &'a Arc<Directory>,
    pub(super) log: &'a Log,
    /// All nodes of `cluster.toml`.
    pub(super) nodes: &'a BTreeMap<NodeId, Address>,
    /// Where the storage is.
    pub(super) storage: PathBuf,
    pub(super) cluster: u128,
}

/// Whether the log begins later than the state: what is between them is nowhere here.
pub(super) fn is_behind(log: &Log, checkpoint: Option<&Checkpoint>) -> bool {
    let reached = checkpoint.map(|checkpoint| checkpoint.position.index);
    log.purged().is_some_and(|purged| reached.is_none_or(|reached| reached < purged.index))
}

/// The fault of a state that is behind the log for no reason that is known.
pub(super) fn lost(log: &Log, storage: &std::path::Path) -> Fault {
    let purged = log.purged().unwrap_or_default();
    Fault::damage(format!(
        "the state in {} is lost: the log begins behind {purged}, and it ends before",
        storage.display()
    ))
}

/// Drops what the log holds beside the committed history of a checkpoint, if it differs at that very place.
pub(super) fn reconcile(log: &Log, checkpoint: &Checkpoint) -> Result<(), Fault> {
    let position = checkpoint.position;
    let Some(found) = log.position_at(position.index).filter(|found| *found != position) else { return Ok(()) };
    tracing::warn!(%position, %found, "the log has another entry where the state has a committed one: it and all behind it were never committed");
    log.truncate_after(log.purged())
}

impl Repair<'_> {
    /// Gets a snapshot that reaches the log, and puts it in place of the storage. Waits for peers that do not answer.
    ///
    /// Errors: `fault`, with what to do, if there is nobody who could help; or this disk fails.
    pub(super) async fn run(self, fault: Fault) -> Result<(), Fault> {
        let own = self.directory.identity().node();
        let others: BTreeMap<NodeId, &Address> =
            self.nodes.iter().filter(|(id, _)| **id != own).map(|(id, address)| (*id, address)).collect();
        if others.is_empty() {
            return Err(fault.with_advice(alone()));
        }
        let least = self.log.purged().unwrap_or_default();
        tracing::error!(%fault, %least, "the storage is damaged, the log is whole: getting a snapshot from a peer before Raft starts");
        let mut told = String::new();
        loop {
            let mut problems = Vec::new();
            let mut hopeless = 0;
            for (node, address) in &others {
                match self.fetch(*node, address, least).await? {
                    Ok(prepared) => return self.put_in_place(*node, prepared).await,
                    Err(Problem::Nothing(why)) => {
                        hopeless += 1;
                        problems.push(format!("node {node} {why}"));
                    }
                    Err(Problem::NotNow(why)) => problems.push(format!("node {node} {why}")),
                }
            }
            let problems = problems.join("; ");
            if hopeless == others.len() {
                return Err(fault.with_advice(format_args!("no peer has the data ({problems}); {}", alone())));
            }
            if problems != told {
                tracing::warn!("waiting for a peer with a snapshot that reaches {least}: {problems}");
                told = problems;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn put_in_place(self, from: NodeId, prepared: Prepared) -> Result<(), Fault> {
        let (position, pairs) = (prepared.checkpoint().position, prepared.pairs());
        let executor = self.environment.executor.as_ref();
        let put = move || prepared.put_in_place();
        let aside = crate::environment::executor::run_blocking(executor, "storage-replace", put).await?;
        let aside = aside.map(|path| path.display().to_string()).unwrap_or_default();
        tracing::warn!(from, %position, pairs, aside, "the storage is that of a peer's snapshot; the damaged files are set aside");
        Ok(())
    }

    /// Asks one peer. The outer error ends the repair.
    async fn fetch(
        &self,
        node: NodeId,
        address: &Address,
        least: Position,
    ) -> Result<Result<Prepared, Problem>, Fault> {
        let named = |error: std::io::Error| Fault::new(format!("node {node} in cluster.toml: {error}"));
        let channel = net::channel(&self.environment.net, &address.peer, &ChannelOptions::default()).map_err(named)?;
        let directory = match self.recognise(node, channel.clone()).await? {
            Ok(directory) => directory,
            Err(problem) => return Ok(Err(problem)),
        };
        let introduction = self.directory.identity().introduce(node, Some(directory));
        let client: Client = PeerClient::with_interceptor(channel, introduction);
        let mut client = client.max_decoding_message_size(limits::PEER_DECODE_BYTES);
        let request = FetchSnapshotRequest { least_index: least.index };
        let stream = match tokio::time::timeout(BEGIN, client.fetch_snapshot(request)).await {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(status)) => return Ok(Err(Problem::NotNow(format!("answers {}", said(&status))))),
            Err(_) => return Ok(Err(Problem::NotNow("does not begin to send its snapshot".into()))),
        };
        let replacement = Replacement::begin(self.environment, &self.storage, self.cluster, Arc::new(Accounts))?;
        let failed = Arc::<std::sync::Mutex<Option<Fault>>>::default();
        let sink = Sink { replacement, least, failed: Arc::clone(&failed) };
        let received = receive::into_sink(stream, wire::open_fetched, sink, self.environment.executor.as_ref()).await;
        if let Some(fault) = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            return Err(fault);
        }
        Ok(received
            .map_err(|status| Problem::NotNow(format!("sent no snapshot that can be used: {}", status.message()))))
    }

    /// Who a peer is: its data directory, if it is of this cluster.
    async fn recognise(&self, node: NodeId, channel: Channel) -> Result<Result<u128, Problem>, Fault> {
        let answer = match identify(channel).await {
            Ok(answer) => answer,
            Err(problem) => return Ok(Err(Problem::NotNow(problem))),
        };
        check_membership(self.directory, &answer)?;
        let cluster = from_hex(&answer.cluster);
        let directory = from_hex(&answer.directory).filter(|_| answer.node_id == node);
        Ok(match (cluster, directory) {
            (Some(cluster), Some(_)) if cluster != self.cluster => {
                Err(Problem::Nothing(format!("belongs to cluster {}, not to {}", hex(cluster), hex(self.cluster))))
            }
            (_, Some(_)) if answer.empty => Err(Problem::Nothing("is empty itself".into())),
            (Some(_), Some(directory)) => Ok(directory),
            (None, Some(_)) => Err(Problem::Nothing("belongs to no cluster".into())),
            (_, None) => Err(Problem::Nothing(format!("is not there: node {} answers in its place", answer.node_id))),
        })
    }
}

/// Why a peer has not helped.
enum Problem {
    /// It may later.
    NotNow(String),
    /// It has nothing that could help.
    Nothing(String),
}

fn alone() -> &'static str {
    "restore the named file from where it was copied to, or bring the node back as a new one (`meshstore recover node \
     --help`); if it was the only node with the data, what the damaged files held is lost"
}

/// A replacement, as a snapshot is received into it.
struct Sink {
    replacement: Replacement,
    least: Position,
    /// Why this disk, and not what was sent, is at fault.
    failed: Arc<std::sync::Mutex<Option<Fault>>>,
}

impl Sink {
    fn note(failed: &std::sync::Mutex<Option<Fault>>, fault: Fault) -> Fault {
        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(fault.clone());
        fault
    }
}

impl SnapshotSink for Sink {
    type Data = Prepared;

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.replacement.push(bytes).map_err(|fault| Self::note(&self.failed, fault))
    }

    fn finish(self, _: &SnapshotHead) -> Result<Prepared, Fault> {
        let prepared = self.replacement.finish().map_err(|error| match error {
            ReceiveError::Refused(why) => Fault::new(why),
            ReceiveError::Fault(fault) => Self::note(&self.failed, fault),
        })?;
        let position = prepared.checkpoint().position;
        if position.index < self.least.index {
            return Err(Fault::new(format!("it reaches {position} only, the log here begins behind {}", self.least)));
        }
        Ok(prepared)
    }
}
