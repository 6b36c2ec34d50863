//! What follows when replicas differ ([`crate::raft::checks`] finds it).
//!
//! The leader asks the voters for the hash of their state at each index that is due, and writes into the log what a
//! majority has. A node that has something else stops serving at once, hands over if it leads, and starts again with its
//! storage marked: then it is as good as damaged, and comes from a peer before Raft starts ([`super::repair`]). Where no
//! majority agrees the leader says so for all to see, and nobody rebuilds: there is nothing to rebuild from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{OWN_DEADLINE, Shared};
use crate::{
    environment::{Disk, disk::OpenMode, executor},
    error::{Error, Fault, Result},
    model::{
        Outcome,
        proposal::Action,
        transaction::{Operation, Put, Transaction},
    },
    raft::{
        checks::{Check, Checks, Diverged, Verdict, judge},
        consensus::Leadership,
        network::identity::hex,
        types::{Member, NodeId},
    },
};

/// Between two rounds of questions to voters that have not come so far. A real timer: they tell nobody.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(2);
/// In the storage directory of a replica that has diverged: why it is not to be used.
const MARK: &str = "DIVERGED";

/// What this node knows of differences.
#[derive(Default)]
pub(super) struct Divergence {
    /// On the leader: what is wrong, though nobody is known to be the one.
    alarm: Mutex<Option<String>>,
    /// On the leader: who agreed with the majority the last time.
    right: Mutex<Vec<NodeId>>,
}

/// How a marked storage says that it is.
pub(super) fn marked(disk: &dyn Disk, storage: &Path) -> std::result::Result<Option<Fault>, Fault> {
    let path = storage.join(MARK);
    let there = disk.exists(&path).map_err(|error| Fault::io("looking for", &path, &error))?;
    Ok(there.then(|| {
        Fault::damage(format!("the state in {} differs from that of the majority of the replicas", storage.display()))
    }))
}

fn mark(disk: &dyn Disk, storage: &Path, why: &str) -> std::result::Result<(), Fault> {
    let path = storage.join(MARK);
    let failed = |error: std::io::Error| Fault::io("writing", &path, &error);
    let file = disk.open(&path, OpenMode::Create).map_err(failed)?;
    file.write_all_at(why.as_bytes(), 0).map_err(failed)?;
    file.sync().map_err(failed)?;
    disk.sync_dir(storage).map_err(failed)
}

/// On the leader: finds what the majority has, index by index.
pub(super) async fn compare(shared: Arc<Shared>) {
    let mut progress = shared.machine.progress();
    let mut done = 0;
    loop {
        let applied = progress.borrow_and_update().position.index;
        let due = shared.machine.checks().last_due(applied).filter(|due| *due > done);
        match (due, shared.consensus.leadership()) {
            (Some(index), Leadership::Me { .. }) => {
                compare_at(&shared, index).await;
                done = index;
                continue;
            }
            // Whoever leads then does it.
            (Some(index), _) => done = index,
            (None, _) => {}
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}

async fn compare_at(shared: &Shared, index: u64) {
    let mut answers: BTreeMap<NodeId, u128> = BTreeMap::new();
    loop {
        let Ok(status) = shared.consensus.status() else { return };
        let voters: Vec<(NodeId, Member)> =
            status.members.into_iter().filter(|(.., voter)| *voter).map(|(id, member, _)| (id, member)).collect();
        let Some(own) = shared.machine.checks().noted(index) else { return };
        for (id, member) in voters.iter().filter(|(id, _)| !answers.contains_key(id)).collect::<Vec<_>>() {
            let answer = match *id == shared.node_id {
                true => Some(own),
                false => shared.network.state_hash(*id, member, index, QUESTION).await,
            };
            answers.extend(answer.map(|hash| (*id, hash)));
        }
        match judge(voters.len(), answers.values().copied()) {
            Verdict::Agreed(hash) => return shared.agree(Check { index, hash }, &answers).await,
            Verdict::Split => return shared.split(index, &answers),
            Verdict::Open => {}
        }
        let overtaken = |applied| shared.machine.checks().last_due(applied).is_some_and(|due| due > index);
        let leads = matches!(shared.consensus.leadership(), Leadership::Me { .. });
        if !leads || overtaken(shared.machine.progress().borrow().position.index) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// When this node has diverged: it ends, to be rebuilt.
pub(super) async fn leave(shared: Arc<Shared>, storage: PathBuf) {
    let mut diverged = shared.machine.checks().diverged();
    let Ok(found) = diverged.wait_for(Option::is_some).await.map(|found| *found) else { return };
    let Some(found) = found else { return };
    let why = told(shared.node_id, &found);
    tracing::error!("{why}");
    if matches!(shared.consensus.leadership(), Leadership::Me { .. }) {
        let right = shared.divergence.right.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(to) = right.into_iter().find(|id| *id != shared.node_id) {
            tracing::info!(to, "handing over the lead");
            shared.consensus.hand_over(to).await;
        }
    }
    let (disk, text) = (Arc::clone(&shared.environment.disk), why.clone());
    let marked = move || mark(&*disk, &storage, &text);
    match executor::run_blocking(shared.environment.executor.as_ref(), "mark-diverged", marked).await {
        Ok(()) => shared.faults.report(Fault::rebuild(format!("{why}; the node starts again and gets it from a peer"))),
        Err(fault) => shared.faults.report(fault),
    }
}

fn told(node: NodeId, Diverged { index, own, agreed }: &Diverged) -> String {
    let (own, agreed) = (hex(*own), hex(*agreed));
    format!(
        "the state of node {node} differs from the majority's at log index {index} (its hash is {own}, not {agreed})"
    )
}

impl Shared {
    async fn agree(&self, check: Check, answers: &BTreeMap<NodeId, u128>) {
        let right: Vec<NodeId> = answers.iter().filter(|(_, hash)| **hash == check.hash).map(|(id, _)| *id).collect();
        *self.divergence.right.lock().unwrap_or_else(PoisonError::into_inner) = right;
        self.raise(None);
        let put = Operation::Put { key: Checks::key(), put: Put::value(Checks::value(&check)) };
        let agreed = self.propose_own(Action::Transact(Transaction::blind(vec![put]))).await;
        if let Err(error) = agreed.map(|_: Outcome| ()) {
            // The next index will tell the same.
            tracing::debug!(%error, index = check.index, "the agreed hash was not written, within {OWN_DEADLINE:?}");
        }
    }

    fn split(&self, index: u64, answers: &BTreeMap<NodeId, u128>) {
        let told: Vec<String> = answers.iter().map(|(id, hash)| format!("node {id} has {}", hex(*hash))).collect();
        self.raise(Some(format!(
            "the replicas differ at log index {index}, and no majority agrees ({}): nobody is rebuilt; compare them by \
             `meshstore recover plan` and restore the data from the right one",
            told.join(", ")
        )));
    }

    fn raise(&self, alarm: Option<String>) {
        let mut before = self.divergence.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*before, &alarm) {
            (_, Some(text)) if before.as_ref() != Some(text) => tracing::error!("{text}"),
            (Some(_), None) => tracing::info!("the replicas agree again"),
            _ => {}
        }
        *before = alarm;
    }

    /// What is wrong with this node's state, or, on the leader, with that of the cluster.
    pub(super) fn divergence(&self) -> Option<String> {
        match &*self.machine.checks().diverged().borrow() {
            Some(found) => Some(told(self.node_id, found)),
            None => self.divergence.alarm.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Nothing is answered from a state that is wrong. Errors: `Unavailable`.
    pub(super) fn check_state(&self) -> Result<()> {
        match &*self.machine.checks().diverged().borrow() {
            None => Ok(()),
            Some(found) => Err(Error::Unavailable { reason: told(self.node_id, found), leader: None }),
        }
    }
}
