//! Real threads: a writer, the workers and readers at once. Each revision writes all keys alike, so that a
//! reader of a revision knows what it must see.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use bytes::Bytes;
use meshstore::{
    environment::{Step, disk::RealDisk},
    model::{Position, key::ScopeId},
    storage::{EngineKind, Options, Store, ViewError},
};

use super::harness::{Bench, Model, key, options, value};

const KEYS: u32 = 60;

/// Even keys are rewritten by every revision; odd key `n` exists at revisions in which `n` divides.
fn pairs(revision: u64) -> Vec<(Bytes, Option<Bytes>)> {
    let text = revision.to_string();
    if revision == 0 {
        return Vec::new();
    }
    (0..KEYS)
        .map(|number| {
            let there = number % 2 == 0 || revision.is_multiple_of(u64::from(number));
            (key(number), there.then(|| value(&text)))
        })
        .collect()
}

fn check(store: &Store, revision: u64) -> Result<(), ViewError> {
    let view = store.view(revision)?;
    let expected: Vec<_> =
        pairs(revision).into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect();
    for _ in 0..3 {
        assert_eq!(view.range(b"", None, 1_000)?, expected, "range at {revision}");
        for (key, value) in pairs(revision) {
            assert_eq!(view.get(&key)?, value, "{key:?} at {revision}");
        }
    }
    let end = ScopeId::new(0x12, 0).prefix();
    assert_eq!(
        view.range(&key(30), Some(&end), 3)?,
        expected.iter().filter(|(at, _)| *at >= key(30)).take(3).cloned().collect::<Vec<_>>()
    );
    Ok(())
}

fn race(options: Options, revisions: u64) {
    let Bench { store, workers, model, .. } = Bench::open(Arc::new(RealDisk), options, Model::default()).unwrap();
    let (written, reads) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for (_, mut worker, _) in workers {
            let written = &written;
            scope.spawn(move || {
                while written.load(Ordering::Acquire) < revisions {
                    if worker.step().unwrap() != Step::Again {
                        thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let revision = written.load(Ordering::Acquire);
                    match check(&store, revision) {
                        Ok(()) => reads.fetch_add(1, Ordering::Relaxed),
                        Err(ViewError::TooOld { .. }) => 0,
                        Err(ViewError::Fault(fault)) => panic!("{fault}"),
                    };
                    if revision == revisions {
                        return;
                    }
                }
            });
        }
        for revision in 1..=revisions {
            store.write(revision, pairs(revision));
            if revision % 5 == 0 {
                let position = Position { term: 1, index: revision };
                store.freeze(meshstore::storage::Checkpoint { position, revision, ..model.checkpoint() });
            }
            for (key, value) in pairs(revision) {
                assert_eq!(store.get_latest(&key).unwrap(), value);
            }
            // Published only now, as apply does.
            written.store(revision, Ordering::Release);
            while store.is_backed_up() && revision < revisions {
                thread::yield_now();
            }
        }
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
}

// The checkpoints' accounts say that nothing is stored, so nothing may be rebuilt from them here: no restart.

#[test]
fn readers_see_one_revision_beside_the_workers_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    race(options(directory.path().join("store"), EngineKind::Memory), 1_500);
}

#[test]
fn readers_see_one_revision_beside_the_workers_on_sled() {
    let directory = tempfile::tempdir().unwrap();
    race(options(directory.path().join("store"), EngineKind::Sled), 400);
}
