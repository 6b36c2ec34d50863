//! A new cluster of one survivor: a new epoch.
//!
//! All that the survivor's log holds is applied, whether it was known to be committed or not, since nobody is left to ask.
//! The state that this gives gets a position of its own, in a term of its own, behind all of it; a revision 2^32 higher, so
//! that nobody takes the one history for the other; no sessions, so that no retry is answered from a history that others
//! may have seen differently; this node as the only voter. All files are written anew, in the name of a new cluster, which
//! is why no member of the old one can ever join: every call between peers, and every file, names the cluster.
//!
//! It is made beside the old files, which stay as they are, and switched to by one rename
//! ([`Held`](super::super::identity::Held)).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

use super::survey::{Survivor, look};
use crate::{
    config::Config,
    environment::Environment,
    error::Fault,
    limits,
    model::Position,
    node::{
        Faults, LOG, STORAGE,
        identity::Held,
        start::{engine, supervise},
    },
    raft::{
        checks::Checks,
        log::Log,
        network::identity::hex,
        offline,
        state_machine::Machine,
        types::{Member, NodeId, StoredMembers},
    },
    state::audit::Accounts,
    storage::{self, Archive, ReceiveError, Replacement, Store},
};

/// What came of it.
#[derive(Clone, Debug)]
pub struct NewEpoch {
    /// The node, which keeps its id.
    pub node: NodeId,
    /// The cluster that was.
    pub old_cluster: u128,
    /// The cluster that now is.
    pub cluster: u128,
    /// The last entry of the old log that is in it.
    pub last: Position,
    /// The first revision of the new epoch.
    pub revision: u64,
    /// Where the old files are.
    pub before: PathBuf,
}

/// Makes of the data directory of `config` the first node of a new cluster. `confirm` is the id of the old one.
///
/// Errors: the directory is in use, damaged, or of another cluster or node; then nothing is changed. So it is if this is
/// cut off: either the old files are in use, or the new.
pub async fn apply(environment: &Environment, config: &Config, confirm: u128) -> Result<NewEpoch, Fault> {
    let held = Held::hold(environment, &config.data_dir)?;
    let survivor = look(environment, &held);
    let (old_cluster, last) = check(&survivor, config, confirm)?;
    let disk = Arc::clone(&environment.disk);
    let making = held.begin(&*disk)?;
    let (cluster, directory) = (environment.clock.random(), environment.clock.random());
    let new = Making { environment, config, old: held.path(), making: &making, cluster };
    let made = new.make(last, directory).await;
    let revision = match made {
        Ok(revision) => revision,
        Err(fault) => {
            // What is left is removed by the next attempt, if it cannot be now.
            let _ = held.abandon(&*disk);
            return Err(fault);
        }
    };
    let before = held.commit(&*disk, directory, cluster)?;
    Ok(NewEpoch { node: survivor.node, old_cluster, cluster, last, revision, before })
}

fn check(survivor: &Survivor, config: &Config, confirm: u128) -> Result<(u128, Position), Fault> {
    let path = survivor.path.display();
    if let Some(damage) = &survivor.damage {
        return Err(Fault::new(format!("{path} cannot be recovered: {damage}")));
    }
    if survivor.node != config.node.id {
        let text = format!("{path} is node {}'s, and --config describes node {}", survivor.node, config.node.id);
        return Err(Fault::new(text));
    }
    let (Some(cluster), Some(last)) = (survivor.cluster, survivor.last) else {
        return Err(Fault::new(format!("{path} holds nothing: it belongs to no cluster, or its log is empty")));
    };
    if cluster != confirm {
        let text = format!("--confirm {} is not the cluster of {path}, which is {}", hex(confirm), hex(cluster));
        return Err(Fault::new(text));
    }
    Ok((cluster, last))
}

struct Making<'a> {
    environment: &'a Environment,
    config: &'a Config,
    old: &'a Path,
    making: &'a Path,
    cluster: u128,
}

impl Making<'_> {
    /// Makes storage and log of the new epoch: its first revision.
    async fn make(&self, last: Position, directory: u128) -> Result<u64, Fault> {
        let node = &self.config.node;
        let (client_address, peer_address) = (node.client.to_string(), node.peer.to_string());
        let member = Member { peer_address, client_address, directory };
        let members =
            StoredMembers { configs: vec![BTreeSet::from([node.id])], members: BTreeMap::from([(node.id, member)]) };
        // Behind everything that any member of the old cluster can have.
        let position = Position { term: last.term + 1, index: last.index + 1 };
        let old_log = offline::look(self.environment, &self.old.join(LOG))?;
        self.copy()?;
        let revision = self.replay(&old_log, position, members).await?;
        offline::begin(self.environment, &self.making.join(LOG), position, node.id).await?;
        Ok(revision)
    }

    fn storage(&self) -> PathBuf {
        self.making.join(STORAGE)
    }

    /// Writes the old files as one base of the new cluster.
    fn copy(&self) -> Result<(), Fault> {
        let Some(archive) = Archive::open(&self.environment.disk, &self.old.join(STORAGE))? else { return Ok(()) };
        let auditor = Arc::new(Accounts);
        let replacement = Replacement::begin(self.environment, &self.storage(), self.cluster, auditor.clone())?;
        let prepared =
            replacement.write(archive.checkpoint(), archive.pairs(&*auditor)?).map_err(|error| match error {
                ReceiveError::Fault(fault) => fault,
                ReceiveError::Refused(why) => Fault::new(format!("the copy of the files is not what they are: {why}")),
            })?;
        prepared.put_in_place().map(drop)
    }

    /// Applies what the log holds beyond the files, and begins the epoch.
    async fn replay(&self, log: &Log, position: Position, members: StoredMembers) -> Result<u64, Fault> {
        let settings = &self.config.cluster.storage;
        let engine = engine(settings.engine);
        let options = storage::Options { engine, ..storage::Options::new(self.storage(), self.cluster) };
        // The log that is replayed is as durable as it will ever be.
        let (_durable, durable) = watch::channel(u64::MAX);
        let (store, workers) = Store::open(self.environment, options, Arc::new(Accounts), durable)?;
        let faults = Faults::default();
        for worker in workers {
            supervise(self.environment, &faults, worker);
        }
        let report = faults.clone();
        let report = Arc::new(move |fault| report.report(fault));
        let machine = Machine::open(self.environment.clone(), store.clone(), Checks::new(u64::MAX), None, report)?;
        let mut flushed = store.flushed();
        let work = async {
            let mut next = store.checkpoint().map_or(log.first_index(), |checkpoint| checkpoint.position.index + 1);
            loop {
                let entries = log.entries(next..u64::MAX, limits::APPEND_BYTES)?;
                if entries.is_empty() {
                    break;
                }
                next += entries.len() as u64;
                machine.replay(entries).await?;
            }
            machine.begin_epoch(position, members)?;
            let reached = flushed.wait_for(|flushed| *flushed >= Some(position)).await;
            reached.map(drop).map_err(|_| Fault::new("storage has stopped"))
        };
        tokio::select! {
            fault = faults.wait() => return Err(fault),
            done = work => done?,
        }
        let revision = machine.progress().borrow().revision;
        store.close().await;
        faults.first().map_or(Ok(revision), Err)
    }
}
