//! What survived: the data directories of a cluster's nodes, side by side.
//!
//! Of two logs the one whose last entry has the higher (term, index) holds every entry that was ever acknowledged while
//! a quorum was in it, as far as any survivor has it: that is the rule by which Raft elects, too.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    environment::Environment,
    error::Fault,
    model::Position,
    node::identity::Held,
    raft::{
        log::Log,
        network::identity::hex,
        offline,
        types::{NodeId, StoredMembers, StoredMembershipAt, StoredVote},
    },
    state::audit::Accounts,
    storage::{Archive, codec},
};

/// One data directory, as it was found.
#[derive(Clone, Debug, Default)]
pub struct Survivor {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub node: NodeId,
    /// Its cluster, if it belongs to one.
    pub cluster: Option<u128>,
    /// For whom it voted last.
    pub vote: Option<StoredVote>,
    /// Its last entry.
    pub last: Option<Position>,
    /// Up to where it knew entries to be committed.
    pub committed: Option<Position>,
    /// Up to where its files reach.
    pub flushed: Option<Position>,
    /// The revision of its files.
    pub revision: u64,
    /// The members, as it knows them.
    pub members: StoredMembers,
    /// Why it cannot be used.
    pub damage: Option<String>,
}

/// What survived, and what can be made of it.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The directories, as they were named.
    pub survivors: Vec<Survivor>,
    /// The one to go on with; `None` if none can be used.
    pub chosen: Option<usize>,
    /// Voters of the cluster that are not among the survivors, or cannot be used.
    pub absent: Vec<NodeId>,
    /// Whether the survivors that can be used are a quorum, so that nothing is lost and nothing is to be recovered.
    pub quorum: bool,
    /// Up to where any survivor knows entries to be committed.
    pub committed: Option<Position>,
}

/// Looks at these directories, each of which is held meanwhile. Reads all that they hold.
///
/// Errors: one is no data directory, or in use; they are of several clusters; two are copies of one.
pub fn survey(environment: &Environment, paths: &[PathBuf]) -> Result<Survey, Fault> {
    let (mut survivors, mut directories, mut held) = (Vec::<Survivor>::new(), Vec::new(), Vec::new());
    for path in paths {
        let hold = Held::hold(environment, path)?;
        let survivor = look(environment, &hold);
        if let Some((_, directory, _)) = hold.identity() {
            if let Some(copy) = directories.iter().position(|known| *known == directory) {
                let (path, copy) = (path.display(), paths.get(copy).cloned().unwrap_or_default());
                return Err(Fault::new(format!("{path} and {} are copies of one data directory", copy.display())));
            }
            directories.push(directory);
        }
        if let Some(other) = survivors.iter().find(|other| other.cluster.is_some() && other.cluster != survivor.cluster)
            && let (Some(cluster), Some(known)) = (survivor.cluster, other.cluster)
        {
            let (path, other) = (path.display(), other.path.display());
            let text = format!("{path} belongs to cluster {}, {other} to cluster {}", hex(cluster), hex(known));
            return Err(Fault::new(text));
        }
        survivors.push(survivor);
        held.push(hold);
    }
    Ok(judge(survivors))
}

/// Decides which to go on with.
fn judge(survivors: Vec<Survivor>) -> Survey {
    let usable = |survivor: &&Survivor| survivor.damage.is_none() && survivor.last.is_some();
    let best = survivors.iter().enumerate().filter(|(_, survivor)| usable(survivor));
    let best = best.max_by_key(|(_, survivor)| (survivor.last, survivor.flushed, Reverse(survivor.node)));
    let chosen = best.map(|(index, _)| index);
    let configs = best.map(|(_, survivor)| survivor.members.configs.clone()).unwrap_or_default();
    let here: BTreeSet<NodeId> = survivors.iter().filter(usable).map(|survivor| survivor.node).collect();
    let voters: BTreeSet<NodeId> = configs.iter().flatten().copied().collect();
    let quorum =
        !configs.is_empty() && configs.iter().all(|config| config.intersection(&here).count() > config.len() / 2);
    let committed = survivors.iter().filter_map(|survivor| survivor.committed).max();
    Survey { absent: voters.difference(&here).copied().collect(), chosen, quorum, committed, survivors }
}

/// What is in a directory that is held. What cannot be read is noted as damage.
pub(super) fn look(environment: &Environment, held: &Held) -> Survivor {
    let mut survivor = Survivor { path: held.path().to_owned(), ..Survivor::default() };
    if let Some((node, _, cluster)) = held.identity() {
        (survivor.node, survivor.cluster) = (node, cluster);
    }
    let found = match &held.damage {
        Some(fault) => Err(fault.clone()),
        None if held.identity().is_none() => Err(Fault::damage("its IDENTITY is missing")),
        None => read(environment, held.path(), &mut survivor),
    };
    survivor.damage = found.err().map(|fault| fault.to_string());
    survivor
}

fn read(environment: &Environment, path: &Path, survivor: &mut Survivor) -> Result<(), Fault> {
    let log = offline::look(environment, &path.join("mesh_consensus_log"))?;
    (survivor.vote, survivor.last, survivor.committed) = (log.vote(), log.last(), log.committed());
    let archive = Archive::open(&environment.disk, &path.join("storage"))?;
    let reached = match &archive {
        Some(archive) => {
            let checkpoint = archive.checkpoint();
            survivor.flushed = Some(checkpoint.position);
            survivor.revision = checkpoint.revision;
            survivor.committed = survivor.committed.max(survivor.flushed);
            if Some(archive.cluster()) != survivor.cluster {
                let text = format!("its files belong to cluster {}", hex(archive.cluster()));
                return Err(Fault::damage(text));
            }
            archive.verify(&Accounts)?;
            let members: StoredMembershipAt = codec::decode_payload(&checkpoint.membership)
                .map_err(|error| Fault::damage(format!("the members in its files cannot be read: {error}")))?;
            survivor.members = members.membership;
            checkpoint.position.index
        }
        None => 0,
    };
    if super::super::repair::is_behind(&log, archive.as_ref().map(Archive::checkpoint)) {
        return Err(super::super::repair::lost(&log, &path.join("storage")));
    }
    // An install may be ahead of the log.
    survivor.last = survivor.last.max(survivor.flushed);
    if let Some(members) = members_behind(&log, reached)? {
        survivor.members = members;
    }
    Ok(())
}

fn members_behind(log: &Log, reached: u64) -> Result<Option<StoredMembers>, Fault> {
    offline::members(log, if reached == 0 { 0 } else { reached + 1 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn survivor(node: NodeId, last: (u64, u64)) -> Survivor {
        let members = StoredMembers { configs: vec![BTreeSet::from([1, 2, 3])], members: BTreeMap::new() };
        let last = Some(Position { term: last.0, index: last.1 });
        Survivor { node, last, members, ..Survivor::default() }
    }

    #[test]
    fn the_highest_last_entry_decides_and_not_the_longest_log() {
        let survey = judge(vec![survivor(1, (4, 120)), survivor(2, (5, 100))]);
        assert_eq!((survey.chosen, survey.absent, survey.quorum), (Some(1), vec![3], true));
        let survey = judge(vec![survivor(3, (4, 120))]);
        assert_eq!((survey.chosen, survey.absent, survey.quorum), (Some(0), vec![1, 2], false));
        // Equal ones: whose files reach further, then the lowest id.
        let further = Survivor { flushed: Some(Position { term: 4, index: 7 }), ..survivor(2, (4, 9)) };
        assert_eq!(judge(vec![survivor(1, (4, 9)), further]).chosen, Some(1));
        assert_eq!(judge(vec![survivor(3, (4, 9)), survivor(2, (4, 9))]).chosen, Some(1));
    }

    #[test]
    fn what_is_damaged_counts_as_absent() {
        let damaged = Survivor { damage: Some("torn".into()), ..survivor(2, (9, 999)) };
        let survey = judge(vec![survivor(1, (4, 9)), damaged.clone()]);
        assert_eq!((survey.chosen, survey.absent, survey.quorum), (Some(0), vec![2, 3], false));
        assert_eq!(judge(vec![damaged]).chosen, None);
        assert_eq!(judge(vec![]).chosen, None);
    }
}
