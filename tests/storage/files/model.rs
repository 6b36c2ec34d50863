//! Any order of writes, freezes, worker steps, views and restarts: each read is what the model says.

use std::{collections::VecDeque, sync::Arc};

use meshstore::{
    environment::{Disk, disk::RealDisk},
    storage::{EngineKind, Options, View},
};
use proptest::{collection::vec, prelude::*};

use super::harness::{Bench, Model, key, latest, options, value};
use crate::support::sim_disk::SimDisk;

#[derive(Clone, Debug)]
enum Action {
    Write(Vec<(u32, bool)>),
    Freeze,
    /// A worker, and how many steps.
    Step(usize, u8),
    /// Opens a view some revisions back.
    Open(u64),
    Close(usize),
    /// Reads an open view: from, to, limit.
    Read(usize, u32, u32, usize),
    Durable(u64),
    Restart(bool),
}

const KEYS: u32 = 40;

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => vec((0..KEYS, prop::bool::weighted(0.75)), 0..12).prop_map(Action::Write),
        3 => Just(Action::Freeze),
        12 => (0..3usize, 1..6u8).prop_map(|(worker, steps)| Action::Step(worker, steps)),
        4 => (0..3u64).prop_map(Action::Open),
        2 => (0..8usize).prop_map(Action::Close),
        8 => (0..8usize, 0..KEYS, 0..=KEYS, 0..30usize).prop_map(|(view, from, to, limit)| Action::Read(view, from, to, limit)),
        1 => (0..4u64).prop_map(Action::Durable),
        1 => any::<bool>().prop_map(Action::Restart),
    ]
}

struct Run {
    bench: Bench,
    disk: Arc<dyn Disk>,
    options: Options,
    views: VecDeque<View>,
}

impl Run {
    fn new(disk: Arc<dyn Disk>, options: Options) -> Self {
        let bench = Bench::open(disk.clone(), options.clone(), Model::default()).unwrap();
        Self { bench, disk, options, views: VecDeque::new() }
    }

    fn act(mut self, action: &Action) -> Self {
        match action {
            Action::Write(pairs) => {
                let text = format!("value of revision {}", self.bench.model.revision + 1);
                self.bench.write(pairs.iter().map(|(number, put)| (key(*number), put.then(|| value(&text)))));
            }
            Action::Freeze => self.bench.freeze(),
            Action::Step(worker, steps) => {
                for _ in 0..*steps {
                    self.bench.step(*worker).unwrap();
                }
            }
            Action::Open(back) => {
                let revision = self.bench.model.revision.saturating_sub(*back);
                match self.bench.store.view(revision) {
                    Ok(view) => self.views.push_back(view),
                    Err(error) => assert!(revision < self.bench.store.status().oldest_revision, "{error}"),
                }
            }
            Action::Close(view) => drop(self.views.remove(*view)),
            Action::Read(view, from, to, limit) => self.read(*view, *from, *to, *limit),
            Action::Durable(behind) => {
                let index = self.bench.model.index.saturating_sub(*behind);
                self.bench.durable.send_replace(index);
            }
            Action::Restart(clean) => return self.restart(*clean),
        }
        self
    }

    fn read(&self, view: usize, from: u32, to: u32, limit: usize) {
        let Some(view) = self.views.get(view) else { return };
        let content = self.bench.model.at(view.revision());
        assert_eq!(view.get(&key(from)).unwrap(), content.get(&key(from)).cloned(), "revision {}", view.revision());
        let (start, end) = (key(from), key(to));
        let expected: Vec<_> = content
            .iter()
            .filter(|(key, _)| **key >= start && **key < end)
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(view.range(&start, Some(&end), limit).unwrap(), expected, "revision {}", view.revision());
    }

    /// A restart falls back to the newest checkpoint on disk; the log is replayed behind it.
    fn restart(mut self, clean: bool) -> Self {
        self.views.clear();
        let Self { bench, disk, options, views } = self;
        let told = *bench.store.flushed().borrow();
        let model = if clean { bench.close().unwrap() } else { bench.model.clone() };
        let bench = Bench::open(disk.clone(), options.clone(), model).unwrap();
        let checkpoint = bench.store.checkpoint().unwrap_or_default();
        assert_eq!(told.unwrap_or_default(), checkpoint.position);
        assert_eq!(latest(&bench.store), bench.model.at(checkpoint.revision));
        for (revision, pairs) in bench.model.writes.clone() {
            if revision > checkpoint.revision {
                bench.store.write(revision, pairs);
            }
        }
        bench.durable.send_replace(bench.model.index);
        Self { bench, disk, options, views }
    }

    fn end(mut self) {
        self.bench.check_latest();
        self.bench.durable.send_replace(u64::MAX);
        for view in 0..self.views.len() {
            self.read(view, 0, KEYS, usize::MAX);
        }
        self.bench.flush().unwrap();
        for view in 0..self.views.len() {
            self.read(view, 0, KEYS, usize::MAX);
        }
        self.views.clear();
        self.bench.settle().unwrap();
        self.bench.check_latest();
        self.bench.check_view(self.bench.model.revision);
        let status = self.bench.store.status();
        assert_eq!((status.frozen_tables, status.undo_bytes, status.open_views), (0, 0, 0));
    }
}

fn small(options: Options) -> Options {
    Options { compact_bytes: 3_000, compact_runs: 3, ..options }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_are_what_the_model_says_in_memory(actions in vec(action(), 1..120)) {
        let disk = SimDisk::new(1);
        let run = Run::new(Arc::new(disk), small(options("/data/store", EngineKind::Memory)));
        actions.iter().fold(run, Run::act).end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_are_what_the_model_says_on_sled(actions in vec(action(), 1..120)) {
        let directory = tempfile::tempdir().unwrap();
        let run = Run::new(Arc::new(RealDisk), small(options(directory.path().join("store"), EngineKind::Sled)));
        actions.iter().fold(run, Run::act).end();
    }
}
