//! After every kind of step the replica is closed or crashed, and opened again in the order of a node's start: vote, log,
//! state and members are what they must be.

use meshstore::{model::Position, raft::types::LogEntry};
use openraft::entry::RaftEntry;

use super::{
    history::{history, strays, undisturbed},
    replica::{Replica, Seen},
};
use crate::support::sim_disk::{Loss, SimDisk};

#[derive(Clone, Copy, Debug)]
enum Step {
    Vote(u64),
    /// So many entries of the history.
    Append(u64),
    /// Two entries of a leader that lost.
    Strays,
    /// Back to this index.
    Truncate(u64),
    Commit(u64),
    Apply(u64),
    Flush,
    Idle,
    Purge(u64),
    /// Of a replica that is this far.
    Install(u64),
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Close,
    Crash(Loss),
}

const ENDINGS: [Ending; 4] =
    [Ending::Close, Ending::Crash(Loss::Everything), Ending::Crash(Loss::Nothing), Ending::Crash(Loss::Torn)];

/// What there must be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    term: u64,
    last: Option<Position>,
    purged: Option<Position>,
    to_purge: Option<Position>,
    committed: Option<Position>,
    /// What a crash may go back to.
    committed_before: Vec<Option<Position>>,
    flushed: Option<Position>,
    applied: Option<Position>,
}

struct World {
    history: Vec<LogEntry>,
    states: Vec<Seen>,
}

impl World {
    fn at(&self, index: u64) -> Position {
        self.history[index as usize].log_id().into()
    }

    fn act(&self, replica: &mut Replica, expected: &mut Expected, step: Step) {
        match step {
            Step::Vote(term) => {
                replica.vote(term).unwrap();
                expected.term = term;
            }
            Step::Append(count) => {
                let next = replica.next_index();
                replica.append(&self.history[next as usize..(next + count) as usize]).unwrap();
                expected.last = Some(self.at(next + count - 1));
            }
            Step::Strays => {
                let strays = strays(replica.next_index());
                replica.append(&strays).unwrap();
                expected.last = Some(strays[1].log_id().into());
            }
            Step::Truncate(index) => {
                replica.log.truncate_after(Some(self.at(index))).unwrap();
                replica.settle().unwrap();
                expected.last = Some(self.at(index));
            }
            Step::Commit(index) => {
                replica.log.save_committed(Some(self.at(index))).unwrap();
                expected.committed_before.push(expected.committed.replace(self.at(index)));
            }
            Step::Apply(index) => {
                let next = replica.next_to_apply();
                let entries = replica.log.entries(next..index + 1, usize::MAX).unwrap();
                replica.apply(entries).unwrap();
                expected.applied = Some(self.at(index));
            }
            Step::Flush => {
                replica.flush().unwrap();
                expected.flushed = expected.applied;
            }
            Step::Idle => {
                replica.idle().unwrap();
                expected.committed_before.clear();
            }
            Step::Purge(index) => {
                replica.purge(self.at(index)).unwrap();
                expected.to_purge = Some(self.at(index));
            }
            Step::Install(index) => {
                let mut donor = Replica::open(&SimDisk::new(9)).unwrap();
                donor.append(&self.history[..=index as usize]).unwrap();
                donor.apply(self.history[..=index as usize].to_vec()).unwrap();
                donor.flush().unwrap();
                let snapshot = donor.snapshot();
                replica.install(&snapshot.meta, snapshot.snapshot).unwrap();
                let to = Some(self.at(index));
                (expected.last, expected.purged) = (to, to);
                (expected.flushed, expected.applied) = (to, to);
            }
        }
        // No further than storage has it.
        expected.purged = expected.purged.max(expected.flushed.min(expected.to_purge));
        assert_eq!(replica.log.vote().map_or(0, |vote| vote.term), expected.term);
        assert_eq!(replica.log.bounds(), (expected.purged, expected.last));
        assert_eq!(replica.log.committed(), expected.committed);
        assert_eq!(replica.applied(), expected.applied);
    }

    /// Opens again, and looks at everything.
    fn check(&self, disk: &SimDisk, expected: &Expected, ending: Ending) {
        let mut replica = Replica::open(disk).unwrap();
        assert_eq!(replica.log.vote().map_or(0, |vote| vote.term), expected.term);
        assert_eq!(replica.log.bounds(), (expected.purged, expected.last));
        let committed = replica.log.committed();
        let may_be_older = matches!(ending, Ending::Crash(_)) && expected.committed_before.contains(&committed);
        assert!(committed == expected.committed || may_be_older, "{committed:?} of {expected:?}");
        assert_eq!(replica.store().checkpoint().map(|checkpoint| checkpoint.position), expected.flushed);
        assert_eq!(replica.applied(), expected.flushed);
        replica.recover().unwrap();
        let applied = expected.flushed.max(committed);
        assert_eq!(replica.applied(), applied);
        let Some(applied) = applied else { return };
        assert_eq!(replica.seen(), self.states[applied.index as usize]);
        let set = if applied.index < 10 { 0 } else { 10 };
        let (_, membership) = replica.applied_state();
        assert_eq!(membership.log_id().map(Position::from), Some(self.at(set)));
        assert_eq!(Some(membership.membership().clone()), self.history[set as usize].get_membership());
    }
}

const STEPS: [Step; 24] = [
    Step::Vote(2),
    Step::Append(6),
    Step::Commit(3),
    Step::Apply(3),
    Step::Vote(3),
    Step::Strays,
    Step::Vote(4),
    Step::Truncate(5),
    Step::Append(5),
    Step::Commit(9),
    Step::Idle,
    Step::Apply(8),
    Step::Flush,
    Step::Purge(4),
    Step::Purge(10),
    Step::Apply(9),
    Step::Append(4),
    Step::Commit(13),
    Step::Apply(13),
    Step::Flush,
    Step::Purge(11),
    Step::Install(18),
    Step::Append(4),
    Step::Commit(20),
];

#[test]
fn after_every_step_all_is_as_it_was() {
    let history = history(5, 30);
    let world = World { states: undisturbed(&history), history };
    for count in 0..=STEPS.len() {
        for ending in ENDINGS {
            let disk = SimDisk::new(count as u64);
            let mut expected = Expected::default();
            let mut replica = Replica::open(&disk).unwrap();
            for step in &STEPS[..count] {
                world.act(&mut replica, &mut expected, *step);
            }
            println!("{count} steps, the last {:?}, then {ending:?}", STEPS[..count].last());
            match ending {
                Ending::Close => replica.close().unwrap(),
                Ending::Crash(loss) => {
                    disk.set_loss(loss);
                    drop(replica);
                    disk.crash();
                }
            }
            world.check(&disk, &expected, ending);
        }
    }
}

#[test]
fn what_nobody_was_told_of_is_there_or_not() {
    let history = history(6, 12);
    for at in 1..8 {
        for loss in [Loss::Everything, Loss::Nothing, Loss::Torn] {
            let disk = SimDisk::new(at);
            let mut replica = Replica::open(&disk).unwrap();
            replica.vote(1).unwrap();
            replica.append(&history[..6]).unwrap();
            disk.set_loss(loss);
            disk.fail_at(at);
            let last = replica.log.last();
            let killed = replica
                .append(&strays(6))
                .and_then(|()| replica.log.truncate_after(last))
                .and_then(|()| replica.append(&history[6..9]))
                .and_then(|()| replica.vote(4));
            drop(replica);
            disk.crash();
            let replica = Replica::open(&disk).unwrap();
            let found = (replica.log.vote().unwrap().term, replica.log.last());
            let stray = strays(6)[1].log_id().into();
            let whole = history[8].log_id().into();
            let steps = [(1, last), (1, Some(stray)), (1, Some(whole)), (4, Some(whole))];
            assert!(steps.contains(&found), "{found:?}");
            assert!(killed.is_err() || found == steps[3]);
        }
    }
}
