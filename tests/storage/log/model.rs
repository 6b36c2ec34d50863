//! The log against a model: whatever happens, what is found after a crash is what the log was after some prefix of
//! the changes, and that prefix holds everything that was acknowledged.

use meshstore::{
    error::Fault,
    model::Position,
    raft::{
        log::Options,
        types::{LogEntry, StoredVote},
    },
};
use openraft::entry::RaftEntry;

use super::{SMALL, Stepped, Told, at, entry};
use crate::support::sim_disk::{Loss, SimDisk};

/// Something that is done to a log.
#[derive(Clone, Debug)]
pub enum Action {
    /// Entries of so many bytes each, in the current term.
    Append(Vec<usize>),
    /// The term grows and is voted for.
    Vote,
    /// So many entries are voided (but none that is committed), and the term grows.
    Truncate(u64),
    /// The entry so far behind the last is committed.
    Commit(u64),
    /// Entries up to the one so far behind the committed one should go.
    Purge(u64),
    /// Storage has everything that is committed, and durable here.
    RaiseFloor,
    /// A snapshot comes that reaches so far beyond the last entry.
    Snapshot(u64),
    /// The writer does so many steps.
    Step(usize),
    /// The writer writes everything.
    Settle,
    /// Nothing happens for some time.
    Idle,
    /// The log is closed and opened again.
    Reopen,
    /// The program is killed and the log opened again; with a power cut or without.
    Crash(Loss),
    /// The same, but at so many changes of the disk from now, and again while it recovers.
    Kill(u64, u64, Loss),
}

/// The log as it ought to be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<StoredVote>,
    purged: Option<Position>,
    last: Option<Position>,
    entries: Vec<LogEntry>,
}

impl Model {
    fn next(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    fn purge(&mut self, upto: Position) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
            self.entries.retain(|entry| entry.log_id_parts().1 > upto.index);
            self.last = self.last.max(Some(upto));
        }
    }

    fn of(log: &Stepped) -> Self {
        let (purged, last) = log.log.bounds();
        Self { vote: log.log.vote(), purged, last, entries: log.all() }
    }
}

fn higher(known: Option<Position>, new: Position) -> Option<Position> {
    if known.is_some_and(|known| known.index >= new.index) { known } else { Some(new) }
}

pub struct Run {
    pub disk: SimDisk,
    options: Options,
    log: Option<Stepped>,
    /// The log after each change since it was opened.
    history: Vec<Model>,
    /// Of changes that tell: after how many changes, and whether they have told.
    told: Vec<(usize, Told)>,
    term: u64,
    committed: Option<Position>,
    wanted: Option<Position>,
    floor: Option<Position>,
    kill: Option<(u64, Loss)>,
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let log = Some(Stepped::open(&disk, SMALL).unwrap());
        Self {
            disk,
            options: SMALL,
            log,
            history: vec![Model::default()],
            told: Vec::new(),
            term: 1,
            committed: None,
            wanted: None,
            floor: None,
            kill: None,
        }
    }

    fn now(&self) -> Model {
        self.history.last().unwrap().clone()
    }

    /// Does one thing. A fault is fine if the disk was killed; then the log is opened again.
    pub fn act(&mut self, action: &Action) {
        let done = self.try_act(action);
        if self.disk.is_dead() {
            let (again, loss) = self.kill.take().unwrap_or((0, Loss::Everything));
            self.crash(loss, again);
        } else {
            done.unwrap();
            self.compare();
        }
    }

    fn try_act(&mut self, action: &Action) -> Result<(), Fault> {
        match action {
            Action::Append(_) | Action::Vote | Action::Truncate(_) => self.change(action),
            Action::Commit(_) | Action::Purge(_) | Action::RaiseFloor | Action::Snapshot(_) => self.progress(action),
            _ => self.pass(action),
        }
    }

    /// What openraft does with entries and votes.
    fn change(&mut self, action: &Action) -> Result<(), Fault> {
        let mut model = self.now();
        let log = self.log.as_mut().unwrap();
        match action {
            Action::Append(sizes) => {
                let next = model.next();
                let new: Vec<_> = (next..).zip(sizes).map(|(index, bytes)| entry(self.term, index, *bytes)).collect();
                let told = log.append(new.clone())?;
                // A batch may end between any two of them.
                for mut entry in new {
                    entry.sealed();
                    model.last = Some(at(self.term, entry.log_id_parts().1));
                    model.entries.push(entry);
                    self.history.push(model.clone());
                }
                self.told.push((self.history.len() - 1, told));
            }
            Action::Vote => {
                self.term += 1;
                let vote = StoredVote { term: self.term, node: 1, committed: false };
                // It may be there as soon as it is asked for.
                model.vote = Some(vote);
                self.history.push(model);
                let handle = log.log.clone();
                log.finish(handle.save_vote(vote))?;
                self.told.push((self.history.len() - 1, Told::durable()));
            }
            Action::Truncate(entries) => {
                self.term += 1;
                let lowest = self.committed.max(model.purged).map_or(0, |kept| kept.index + 1);
                let from = model.next().saturating_sub(*entries).max(lowest);
                let after = from.checked_sub(1).and_then(|index| log.log.position_at(index));
                log.log.truncate_after(after)?;
                model.entries.retain(|entry| entry.log_id_parts().1 < from);
                model.last = after;
                self.history.push(model);
            }
            _ => {}
        }
        Ok(())
    }

    /// What comes with commits: the committed position, purges, snapshots.
    fn progress(&mut self, action: &Action) -> Result<(), Fault> {
        let model = self.now();
        let log = self.log.as_mut().unwrap();
        match action {
            Action::Commit(behind) => {
                let Some(last) = model.last else { return Ok(()) };
                let committed = log.log.position_at(last.index.saturating_sub(*behind));
                if committed.map(|at| at.index) > self.committed.map(|at| at.index) {
                    self.committed = committed;
                    log.log.save_committed(committed)?;
                }
            }
            Action::Purge(behind) => {
                let Some(committed) = self.committed else { return Ok(()) };
                let Some(upto) = log.log.position_at(committed.index.saturating_sub(*behind)) else { return Ok(()) };
                let handle = log.log.clone();
                log.finish(handle.purge(upto))?;
                self.wanted = higher(self.wanted, upto);
                self.purge();
            }
            Action::RaiseFloor => {
                // Storage flushes what is committed, but never what is not durable here.
                let durable = *log.log.durable_index().borrow();
                let flushed = self.committed.filter(|_| durable > 0).map(|committed| committed.index.min(durable));
                let Some(floor) = flushed.and_then(|index| log.log.position_at(index)) else { return Ok(()) };
                self.floor = higher(self.floor, floor);
                log.log.set_purge_floor(floor);
                self.purge();
            }
            Action::Snapshot(beyond) => {
                let upto = at(self.term, model.next() + beyond);
                self.committed = Some(upto);
                log.log.set_purge_floor(upto);
                let handle = log.log.clone();
                log.finish(handle.purge(upto))?;
                // The floor alone may have allowed an older wish first.
                self.floor = higher(self.floor, upto);
                self.purge();
                self.wanted = higher(self.wanted, upto);
                self.purge();
            }
            _ => {}
        }
        Ok(())
    }

    /// What happens to the program.
    fn pass(&mut self, action: &Action) -> Result<(), Fault> {
        let log = self.log.as_mut().unwrap();
        match action {
            Action::Step(steps) => {
                for _ in 0..*steps {
                    log.worker.step()?;
                }
            }
            Action::Settle => drop(log.settle()?),
            Action::Idle => drop(log.idle()?),
            Action::Reopen => {
                let committed = log.log.committed();
                let handle = log.log.clone();
                log.finish(handle.close())?;
                self.told.push((self.history.len() - 1, Told::durable()));
                self.open()?;
                assert_eq!(self.log.as_ref().unwrap().log.committed(), committed, "after a clean stop");
            }
            Action::Crash(loss) => self.crash(*loss, 0),
            Action::Kill(after, again, loss) => {
                self.disk.fail_at(*after);
                self.kill = Some((*again, *loss));
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes a purge in the history, if what is wanted and allowed has changed.
    fn purge(&mut self) {
        let (Some(wanted), Some(floor)) = (self.wanted, self.floor) else { return };
        let mut model = self.now();
        model.purge(if floor.index < wanted.index { floor } else { wanted });
        if model != self.now() {
            self.history.push(model);
        }
    }

    /// How many changes are acknowledged.
    fn acknowledged(&self) -> usize {
        self.told.iter().filter(|(_, told)| told.is_durable()).map(|(changes, _)| *changes).max().unwrap_or(0)
    }

    /// Kills the program, with what `loss` says of the disk, and, if `again`, once more during recovery.
    pub fn crash(&mut self, loss: Loss, again: u64) {
        let durable = *self.log.as_ref().unwrap().log.durable_index().borrow();
        self.log = None;
        self.disk.set_loss(loss);
        self.disk.crash();
        if again > 0 {
            self.disk.fail_at(again);
            if let Err(fault) = Stepped::open(&self.disk, self.options).and_then(Stepped::close) {
                assert!(self.disk.is_dead(), "{fault}");
            }
            self.disk.crash();
        }
        self.open().unwrap_or_else(|fault| panic!("{fault}"));
        let last = self.now().last.map_or(0, |last| last.index);
        assert!(last >= durable, "the log said that {durable} is durable, but ends at {last}");
    }

    /// Opens the log and finds out how many of the changes it holds: at least what was acknowledged.
    fn open(&mut self) -> Result<(), Fault> {
        let acknowledged = self.acknowledged();
        let mut log = Stepped::open(&self.disk, self.options)?;
        let found = Model::of(&log);
        let Some(kept) = self.history.iter().rposition(|model| *model == found) else {
            panic!("the log holds what it never was: {found:#?} instead of one of {:#?}", self.history);
        };
        assert!(kept >= acknowledged, "change {acknowledged} was acknowledged, but only {kept} is there");
        if let Some(committed) = log.log.committed().filter(|committed| Some(*committed) > found.purged) {
            assert_eq!(log.log.position_at(committed.index), Some(committed), "what is committed is there");
        }
        self.history = vec![found];
        self.told.clear();
        self.wanted = None;
        if let Some(floor) = self.floor {
            log.log.set_purge_floor(floor);
            // Storage holds a snapshot of which the log does not know: openraft begins with a purge.
            if self.now().last.is_none_or(|last| last.index < floor.index) {
                let handle = log.log.clone();
                log.finish(handle.purge(floor))?;
                self.wanted = Some(floor);
                self.purge();
            }
        }
        let last = self.now().last;
        let known = self.committed.filter(|committed| last.is_some_and(|last| last.index >= committed.index));
        // What storage has is committed, whatever else is forgotten.
        let flushed = self.floor.filter(|floor| last.is_some_and(|last| last.index >= floor.index));
        self.committed =
            known.or_else(|| flushed.map_or(log.log.committed(), |floor| higher(log.log.committed(), floor)));
        self.log = Some(log);
        Ok(())
    }

    /// What can be read is what the model holds.
    fn compare(&mut self) {
        let model = self.now();
        let log = self.log.as_ref().unwrap();
        let found = Model::of(log);
        assert_eq!(found, model);
        let first = log.log.first_index();
        for (index, entry) in (first..).zip(&model.entries) {
            let position = log.log.position_at(index).unwrap();
            assert_eq!((&position.term, index), (&**entry.log_id_parts().0, entry.log_id_parts().1));
        }
        assert_eq!(log.log.position_at(model.next()), None);
        let (from, to) = (first + 1, model.next().saturating_sub(1).max(first + 1));
        let expected: Vec<_> =
            model.entries.iter().filter(|entry| (from..to).contains(&entry.log_id_parts().1)).cloned().collect();
        assert_eq!(log.log.entries(from..to, usize::MAX).unwrap(), expected);
        let some = log.log.entries(from..to, 700).unwrap();
        assert_eq!(some[..], expected[..some.len()]);
        assert_eq!(some.is_empty(), expected.is_empty());
    }
}
