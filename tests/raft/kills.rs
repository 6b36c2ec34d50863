//! A kill at every change of the disk while a replica lives (votes, entries, entries that are truncated again, apply,
//! flush, merge, compaction, purge), and while it installs another's snapshot: whatever was acknowledged is there
//! afterwards, and the state at each index is what it would have been.

use meshstore::{error::Fault, model::Position, raft::types::LogEntry};
use openraft::entry::RaftEntry;

use super::{
    history::{begins_term, history, strays, term_of, undisturbed},
    replica::{Replica, Seen},
};
use crate::support::sim_disk::{Loss, SimDisk};

/// What somebody was told before the kill.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    term: u64,
    acknowledged: Option<u64>,
    flushed: Option<Position>,
}

/// What should happen, and the state after each entry of it.
struct World {
    history: Vec<LogEntry>,
    states: Vec<Seen>,
}

impl World {
    fn new(seed: u64, entries: u64) -> Self {
        let history = history(seed, entries);
        let states = undisturbed(&history);
        Self { history, states }
    }

    fn position(&self, index: u64) -> Position {
        self.history[index as usize].log_id().into()
    }

    /// Applies what the log holds up to `last`, one by one.
    fn apply(&self, replica: &mut Replica, last: u64) -> Result<(), Fault> {
        let next = replica.next_to_apply();
        for entry in replica.log.entries(next..last + 1, usize::MAX)? {
            let index = entry.log_id().index;
            replica.apply(vec![entry])?;
            assert_eq!(replica.seen(), self.states[index as usize]);
        }
        assert_eq!(replica.next_to_apply(), next.max(last + 1));
        Ok(())
    }

    /// Goes on from where the replica is, up to `end`.
    fn live(&self, replica: &mut Replica, end: u64, promise: &mut Promise) -> Result<(), Fault> {
        while replica.next_index() < end {
            let next = replica.next_index();
            let (round, last) = (next / 3, (next + 2).min(end - 1));
            if term_of(last) > promise.term {
                replica.vote(term_of(last))?;
                promise.term = term_of(last);
            }
            if begins_term(next) {
                let before = replica.log.last();
                replica.append(&strays(next))?;
                replica.log.truncate_after(before)?;
            }
            replica.append(&self.history[next as usize..=last as usize])?;
            promise.acknowledged = Some(last);
            replica.log.save_committed(Some(self.position(last)))?;
            self.apply(replica, last)?;
            let kept = match round % 4 {
                0 | 1 => replica.flush(),
                2 => replica.flush().and_then(|()| replica.idle()),
                _ => replica.purge(self.position(last)),
            };
            promise.flushed = *replica.store().flushed().borrow();
            kept?;
        }
        Ok(())
    }

    /// Opens after a kill: what was promised is there, openraft accepts it, and the replica is brought to the end of
    /// what its log has of the history.
    fn reopen(&self, disk: &SimDisk, promise: &Promise) -> Result<Replica, Fault> {
        let mut replica = Replica::open(disk)?;
        let (purged, last) = replica.log.bounds();
        let checkpoint = replica.store().checkpoint().map(|checkpoint| checkpoint.position);
        assert!(replica.log.vote().map_or(0, |vote| vote.term) >= promise.term);
        assert!(last.max(checkpoint).map(|last| last.index) >= promise.acknowledged);
        assert!(checkpoint >= promise.flushed);
        assert!(purged <= checkpoint, "what is purged is in a file");
        assert!(replica.log.committed() <= last);
        replica.recover()?;
        if let Some(applied) = replica.applied() {
            assert_eq!(applied, self.position(applied.index));
            assert_eq!(replica.seen(), self.states[applied.index as usize]);
            assert!(replica.log.last() >= Some(applied));
        }
        self.check_membership(&mut replica);
        let mut upto = replica.log.purged().map(|purged| purged.index);
        for entry in replica.log.entries(0..u64::MAX, usize::MAX)? {
            let index = entry.log_id().index;
            let Some(expected) = self.history.get(index as usize).filter(|own| own.log_id() == entry.log_id()) else {
                break;
            };
            assert_eq!(expected.payload(), entry.payload());
            upto = Some(index);
        }
        assert!(upto >= promise.acknowledged);
        if let Some(upto) = upto {
            replica.log.truncate_after(Some(self.position(upto)))?;
            self.apply(&mut replica, upto)?;
        } else {
            replica.log.truncate_after(None)?;
        }
        Ok(replica)
    }

    fn check_membership(&self, replica: &mut Replica) {
        let (applied, membership) = replica.applied_state();
        let set = applied.and_then(|applied| [10, 0].into_iter().find(|set| *set <= applied.index));
        assert_eq!(membership.log_id().map(Position::from), set.map(|set| self.position(set)));
        let expected = set.and_then(|set| self.history[set as usize].get_membership()).unwrap_or_default();
        assert_eq!(*membership.membership(), expected);
    }
}

/// One life of a replica, on a disk that may kill it.
type Life<'a> = &'a dyn Fn(&SimDisk, &mut Promise) -> Result<(), Fault>;

/// Kills the life at every change of the disk, and in half of the cases the next one, too, a little after it began.
fn kill_everywhere(before: &SimDisk, promised: Promise, life: Life<'_>) {
    let whole = before.fork();
    life(&whole, &mut promised.clone()).unwrap();
    let changes = whole.operations() - before.operations();
    assert!(changes > 30, "{changes} changes");
    for (salt, loss) in [Loss::Everything, Loss::Nothing, Loss::Torn, Loss::Torn].into_iter().enumerate() {
        for at in 1..=changes {
            let disk = before.fork();
            disk.reseed(at << 8 | salt as u64);
            disk.set_loss(loss);
            let (mut promise, mut kills) = (promised, vec![at]);
            if at % 2 == 0 {
                kills.push(1 + at % 23);
            }
            let case = format!("{loss:?} {salt}, killed at {kills:?} of {changes}");
            let told = Told(case.clone());
            for at in kills {
                disk.fail_at(at);
                let ended = life(&disk, &mut promise);
                assert_eq!(ended.is_err(), disk.is_dead(), "{case}: {ended:?}");
                disk.crash();
            }
            life(&disk, &mut promise).unwrap_or_else(|fault| panic!("{case}: {fault}"));
            drop(told);
        }
    }
}

/// Says which case it was that panicked.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("in the case: {}", self.0);
        }
    }
}

#[test]
fn a_kill_at_any_moment_of_a_replicas_life() {
    let world = World::new(11, 27);
    let life = |disk: &SimDisk, promise: &mut Promise| {
        let mut replica = world.reopen(disk, promise)?;
        world.live(&mut replica, 27, promise)?;
        assert_eq!(replica.seen(), world.states[26]);
        replica.close()
    };
    let disk = SimDisk::new(0);
    let whole = disk.fork();
    life(&whole, &mut Promise::default()).unwrap();
    let trace = whole.trace();
    let removed = |suffix| trace.iter().any(|change| change.starts_with("remove") && change.ends_with(suffix));
    assert!(removed(".run") && removed(".base") && removed(".log"), "{trace:#?}");
    kill_everywhere(&disk, Promise::default(), &life);
}

#[test]
fn a_kill_at_any_moment_of_an_install() {
    let world = World::new(12, 24);
    let mut donor = Replica::open(&SimDisk::new(1)).unwrap();
    world.live(&mut donor, 18, &mut Promise::default()).unwrap();
    donor.flush().unwrap();
    let position = world.position(17);
    assert_eq!(donor.snapshot().meta.last_log_id.map(Position::from), Some(position));

    let disk = SimDisk::new(2);
    let mut promise = Promise::default();
    let mut behind = Replica::open(&disk).unwrap();
    world.live(&mut behind, 12, &mut promise).unwrap();
    behind.append(&strays(12)).unwrap();
    behind.close().unwrap();

    let donor = std::cell::RefCell::new(donor);
    let life = |disk: &SimDisk, promise: &mut Promise| {
        let mut replica = world.reopen(disk, promise)?;
        if replica.applied() < Some(position) {
            let snapshot = donor.borrow_mut().snapshot();
            replica.install(&snapshot.meta, snapshot.snapshot)?;
            promise.acknowledged = promise.acknowledged.max(Some(position.index));
            promise.flushed = promise.flushed.max(Some(position));
            assert_eq!(replica.seen(), world.states[17]);
            assert_eq!((replica.log.purged(), replica.log.last()), (Some(position), Some(position)));
        }
        world.live(&mut replica, 24, promise)?;
        assert_eq!(replica.seen(), world.states[23]);
        replica.close()
    };
    kill_everywhere(&disk, promise, &life);
}
