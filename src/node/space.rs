//! The alarm for disk space: measured here, told to the leader, and what follows from it.
//!
//! A node is *short* while less is free than a compaction of all its files and two segments of the log need, and the
//! reserve beside them. A leader that is short takes nothing that grows the data, and hands the lead to a voter that has
//! room. A follower that is short is reported, and the cluster goes on as long as a quorum of the voters has room: one
//! small disk of three stops nobody's writes, just as one dead node does not. Deletes, reads and the upkeep of sessions and
//! leases go on; deletions are compacted away while a node is short, so that they help.
//!
//! A node is *full* when half of the reserve is gone. Then it takes no entries from a leader, and as the leader no deletes:
//! it lags, but runs, and goes on when there is room. Both end by themselves, a little above where they began.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use super::Shared;
use crate::{
    environment::{Disk, Step, Worker},
    error::{Error, Fault, Result},
    model::{
        keyspace,
        proposal::{Action, Proposal},
        transaction::{Compare, NumberField, Operation, Relation},
    },
    raft::{
        consensus::{Leadership, RaftStatus},
        space::{Level, Room},
        types::NodeId,
    },
};

/// How often free space is measured. A real timer: a file system tells nobody that it has filled.
const EVERY: Duration = Duration::from_secs(1);
/// How often a leader looks at what the others told.
const JUDGE: Duration = Duration::from_millis(500);
/// When a caller should come again, in milliseconds: a full disk is emptied by people.
const RETRY_AFTER_MS: u64 = 60_000;

/// What a measurement needs to know of the node.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Where base, runs and index are.
    pub(super) storage: PathBuf,
    /// Where the log is.
    pub(super) log: PathBuf,
    /// Size of a segment of the log, in bytes.
    pub(super) segment_bytes: u64,
    /// What is to stay free beside all that is needed, in bytes.
    pub(super) reserve: u64,
}

impl Places {
    /// Measures: free and needed bytes, where there is least to spare. `data`: what a compaction would write.
    fn measure(&self, disk: &dyn Disk, data: u64) -> std::io::Result<(u64, u64)> {
        let free = |path: &Path| disk.available_bytes(path);
        let log = self.segment_bytes.saturating_mul(2).saturating_add(self.reserve);
        if disk.same_file_system(&self.storage, &self.log)? {
            return Ok((free(&self.storage)?, log.saturating_add(data)));
        }
        let both = [(free(&self.storage)?, data.saturating_add(self.reserve)), (free(&self.log)?, log)];
        let [storage, log] = both;
        let spare = |(free, needed): (u64, u64)| i128::from(free) - i128::from(needed);
        Ok(if spare(log) < spare(storage) { log } else { storage })
    }

    /// How a disk stands that stood at `before`. Each level ends a little above where it began, or it would come and go
    /// with every segment of the log.
    fn level(&self, before: Level, free: u64, needed: u64) -> Level {
        let full = self.reserve / 2;
        let full = if before == Level::Full { full.saturating_add(self.reserve / 4) } else { full };
        let short = if before >= Level::Short { needed.saturating_add(self.segment_bytes) } else { needed };
        match free {
            free if free < full => Level::Full,
            free if free < short => Level::Short,
            _ => Level::Ample,
        }
    }
}

/// Measures this node's disk.
pub(super) fn measure(shared: &Shared) {
    let store = shared.machine.store();
    let status = store.status();
    let data = status.base_bytes.saturating_add(status.run_bytes).saturating_sub(status.compacting_bytes);
    let (space, places) = (shared.network.space(), &shared.places);
    let before = space.level();
    let (free, needed) = match places.measure(&*shared.environment.disk, data) {
        Ok(measured) => measured,
        // What was known stays; a disk that is broken is noticed by whoever writes.
        Err(error) => {
            return tracing::debug!(path = %space.path().display(), %error, "free space cannot be measured");
        }
    };
    let room = Room { free, needed, level: places.level(before, free, needed) };
    space.measured(room);
    store.set_short_of_space(room.level >= Level::Short);
    if room.level == before {
        return;
    }
    let path = space.path().display();
    match room.level {
        Level::Ample => tracing::info!(%path, "there is room on the disk again: {room}"),
        Level::Short => tracing::warn!(%path, "short of disk space: {room}"),
        Level::Full => tracing::error!(%path, "the disk is full: {room}; no more entries are taken"),
    }
}

/// Measures again and again, for as long as the node lives.
pub(super) struct Gauge(pub(super) Weak<Shared>);

impl Worker for Gauge {
    fn step(&mut self) -> Result<Step, Fault> {
        match self.0.upgrade().filter(|shared| !shared.stopping.load(Ordering::Acquire)) {
            Some(shared) => measure(&shared),
            None => return Ok(Step::Done),
        }
        Ok(Step::WaitFor(EVERY))
    }
}

/// On the leader: decides whether there is room for writes, and hands the lead to who has it.
pub(super) async fn keep_room(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(JUDGE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = BTreeMap::new();
    loop {
        ticks.tick().await;
        let Ok(status) = shared.consensus.status() else { return };
        if !matches!(shared.consensus.leadership(), Leadership::Me { .. }) {
            shared.refusing.store(None);
            known.clear();
            continue;
        }
        let (space, own) = (shared.network.space(), shared.node_id);
        let others = space.others();
        tell_changes(&mut known, &others);
        let refusal = too_few(&status, own, space.level(), &others);
        let before = shared.refusing.load_full();
        match (&before, &refusal) {
            (None, Some(reason)) => tracing::warn!(reason, "writes that grow the data are refused"),
            (Some(_), None) => tracing::info!("writes are taken again"),
            _ => {}
        }
        shared.refusing.store(refusal.map(Arc::new));
        if let Some(to) = roomier(&status, own, space.level(), &others) {
            tracing::info!(to, "short of disk space: handing over the lead");
            shared.consensus.hand_over(to).await;
        }
    }
}

fn tell_changes(known: &mut BTreeMap<NodeId, Level>, others: &BTreeMap<NodeId, Room>) {
    for (node, room) in others {
        let before = known.insert(*node, room.level).unwrap_or_default();
        match room.level {
            level if level == before => {}
            Level::Ample => tracing::info!(node, "a follower has room on its disk again: {room}"),
            _ => tracing::warn!(node, "a follower is short of disk space: {room}"),
        }
    }
}

/// Why there is no room for what grows the data, because of the others: of the voters that are heard, those with room
/// are no quorum, and not because they are down.
fn too_few(status: &RaftStatus, own: NodeId, level: Level, others: &BTreeMap<NodeId, Room>) -> Option<String> {
    let voters: Vec<NodeId> = status.members.iter().filter(|(.., voter)| *voter).map(|(id, ..)| *id).collect();
    let short: Vec<_> = others.iter().filter(|(id, room)| voters.contains(id) && room.level >= Level::Short).collect();
    let mut roomy = others.iter().filter(|(id, room)| voters.contains(id) && room.level == Level::Ample).count();
    roomy += usize::from(voters.contains(&own) && level == Level::Ample);
    if short.is_empty() || roomy > voters.len() / 2 {
        return None;
    }
    let named: Vec<String> = short.iter().map(|(id, room)| format!("node {id} ({room})")).collect();
    Some(format!(
        "of {} voters only {roomy} are known to have room on their disks; short are {}",
        voters.len(),
        named.join(", ")
    ))
}

/// To whom a leader that is short hands over: the voter with room that is furthest.
fn roomier(status: &RaftStatus, own: NodeId, level: Level, others: &BTreeMap<NodeId, Room>) -> Option<NodeId> {
    if level == Level::Ample {
        return None;
    }
    let has_room = |id: &NodeId| others.get(id).is_some_and(|room| room.level == Level::Ample);
    status.furthest_voter(|id| id != own && has_room(&id))
}

impl Shared {
    /// Why nothing is taken that grows the data, if this node leads and it is so.
    pub(super) fn writes_refused(&self) -> Option<String> {
        if !matches!(self.consensus.leadership(), Leadership::Me { .. }) {
            return None;
        }
        let space = self.network.space();
        match space.own().filter(|room| room.level >= Level::Short) {
            Some(room) => {
                let path = space.path().display();
                Some(format!("node {} is short of disk space ({path}: {room})", self.node_id))
            }
            None => self.refusing.load().as_deref().cloned(),
        }
    }

    /// Whether there is room for a proposal. Errors: `ResourceExhausted`, with who is short of what.
    pub(super) fn check_room(&self, proposal: &Proposal) -> Result<()> {
        let full = self.network.space().level() == Level::Full;
        let costs = match &proposal.action {
            Action::Transact(transaction) => full || (transaction.grows() && !only_renews(proposal)),
            Action::OpenSession { .. } => full,
            // Small, and what they end makes room.
            _ => false,
        };
        let Some(reason) = costs.then(|| self.writes_refused()).flatten() else { return Ok(()) };
        let taken = if full { "nothing is taken" } else { "deletes are taken, nothing that grows the data is" };
        Err(Error::ResourceExhausted { reason: format!("{reason}: {taken}"), retry_after_ms: RETRY_AFTER_MS })
    }
}

/// Whether a proposal only keeps leases alive: with each that it writes goes the guard that this very one is there. Refused for
/// want of room they would all expire, and what is attached to them would go.
fn only_renews(proposal: &Proposal) -> bool {
    let Action::Transact(transaction) = &proposal.action else { return false };
    let guards = &proposal.guards.compares;
    let renews = |(operation, guard): (&Operation, &Compare)| match (operation, guard) {
        (
            Operation::Put { key, .. },
            Compare::Number { key: there, field: NumberField::CreateRevision, relation: Relation::Equal, to },
        ) => key == there && *to > 0 && key.scope().keyspace == keyspace::LEASES,
        _ => false,
    };
    let written = &transaction.then;
    transaction.otherwise.is_empty() && written.len() <= guards.len() && written.iter().zip(guards).all(renews)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::Member;

    const MIB: u64 = 1 << 20;

    #[test]
    fn leases_are_kept_alive_also_while_there_is_no_room() {
        use crate::model::{
            ScopeId,
            proposal::Guards,
            transaction::{Put, Transaction},
        };
        let key = |keyspace| ScopeId::new(keyspace, 0).key(b"12345678");
        let put = |keyspace| Operation::Put { key: key(keyspace), put: Put::value("v") };
        let there = |keyspace, to| {
            let (field, relation) = (NumberField::CreateRevision, Relation::Equal);
            Compare::Number { key: key(keyspace), field, relation, to }
        };
        let renews = |then, compares| {
            let action = Action::Transact(Transaction::blind(then));
            let guards = Guards { compares, ..Guards::default() };
            only_renews(&Proposal { principal: String::new(), call: None, guards, action })
        };
        let lease = keyspace::LEASES;
        assert!(renews(vec![put(lease)], vec![there(lease, 3), there(keyspace::LOCKS, 9)]));
        assert!(!renews(vec![put(lease)], vec![there(lease, 0)]), "a new one");
        assert!(!renews(vec![put(lease)], vec![]));
        assert!(!renews(vec![put(keyspace::STATE)], vec![there(keyspace::STATE, 3)]));
        assert!(!renews(vec![put(lease), put(keyspace::STATE)], vec![there(lease, 3), there(keyspace::STATE, 3)]));
    }

    fn places() -> Places {
        let (storage, log) = ("storage".into(), "log".into());
        Places { storage, log, segment_bytes: 64 * MIB, reserve: 256 * MIB }
    }

    #[test]
    fn each_level_ends_a_little_above_where_it_began() {
        let places = places();
        let needed = 1_000 * MIB;
        let level = |before, free: u64| places.level(before, free * MIB, needed);
        assert_eq!(level(Level::Ample, 1_000), Level::Ample);
        assert_eq!(level(Level::Ample, 999), Level::Short);
        assert_eq!(level(Level::Short, 1_063), Level::Short);
        assert_eq!(level(Level::Short, 1_064), Level::Ample);
        assert_eq!(level(Level::Short, 128), Level::Short);
        assert_eq!(level(Level::Ample, 127), Level::Full);
        assert_eq!(level(Level::Full, 191), Level::Full);
        assert_eq!(level(Level::Full, 192), Level::Short);
        assert_eq!(level(Level::Full, 5_000), Level::Ample);
    }

    fn status(voters: u64) -> RaftStatus {
        let members = (1..=voters).map(|id| (id, Member::default(), true)).collect();
        RaftStatus { members, matched: BTreeMap::from([(2, 10), (3, 12)]), ..RaftStatus::default() }
    }

    fn others(levels: &[(NodeId, Level)]) -> BTreeMap<NodeId, Room> {
        levels.iter().map(|(id, level)| (*id, Room { free: 5 * MIB, needed: 9 * MIB, level: *level })).collect()
    }

    #[test]
    fn writes_stop_when_no_quorum_has_room() {
        use Level::{Ample, Short};
        let asked = |levels: &[_]| too_few(&status(3), 1, Ample, &others(levels));
        assert_eq!(asked(&[(2, Ample), (3, Ample)]), None);
        assert_eq!(asked(&[(2, Short), (3, Ample)]), None, "one small disk stops nobody's writes");
        assert_eq!(asked(&[(2, Ample)]), None);
        assert_eq!(asked(&[]), None, "that others are down is for Raft to say");
        let said = asked(&[(2, Short), (3, Short)]).unwrap();
        assert!(said.ends_with("short are node 2 (5 MiB free, 9 MiB needed), node 3 (5 MiB free, 9 MiB needed)"));
        assert!(asked(&[(2, Short)]).is_some(), "with node 3 down each write would need the room of node 2");
        assert_eq!(too_few(&status(1), 1, Short, &others(&[])), None, "the own disk is asked elsewhere");
        assert_eq!(asked(&[(2, Ample), (3, Ample), (9, Short)]), None, "not a voter");
    }

    #[test]
    fn the_lead_goes_to_the_furthest_voter_with_room() {
        use Level::{Ample, Full, Short};
        let to = |own, levels: &[_]| roomier(&status(3), 1, own, &others(levels));
        assert_eq!(to(Ample, &[(2, Ample), (3, Ample)]), None);
        assert_eq!(to(Short, &[(2, Ample), (3, Ample)]), Some(3));
        assert_eq!(to(Full, &[(2, Ample), (3, Short)]), Some(2));
        assert_eq!(to(Short, &[(2, Short), (9, Ample)]), None);
        assert_eq!(to(Short, &[]), None, "who is not heard of may not be there");
    }
}
